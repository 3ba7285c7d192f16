/** `vmtape export … --elf-core FILE`: what runs at a level, for gdb and whatever else reads core files. */
import { statSync } from 'node:fs';
import { formatPosition } from '../../src/journal/index.js';
import { coreOf, writeCore } from '../export/elf-core.js';
import { NewFile } from '../export/new-file.js';
import { OperatingError } from './failure.js';
import { byteSize, plural } from './format.js';
import { standingMachine } from './standing-machine.js';
import type { Terminal } from './terminal.js';

export interface CoreOptions {
  readonly elfCore: string;
  readonly level: 1 | 2;
  readonly vcpu: number | undefined;
  readonly at: string | undefined;
}

const SECTOR_BYTES = 512;

export async function exportCore(source: string, options: CoreOptions, terminal: Terminal): Promise<void> {
  const { elfCore, level, vcpu, at } = options;
  const file = new NewFile(elfCore);
  const standing = standingMachine(source, at);
  try {
    const position = formatPosition(standing.position);
    const core = coreOf(standing.machine, { level, vcpu, position });
    try {
      writeCore(file.path, standing.machine, core);
    } catch (cause) {
      const problem = `${elfCore}: ${(cause as Error).message}. Nothing was made. Make room, or choose another place.`;
      throw new OperatingError(problem, { cause });
    }
    const bytes = file.finish();
    const { threads, ranges, pages, remarks } = core;
    const vcpus = threads.map((thread) => thread.vcpu);
    if (terminal.json) {
      const mapped = { ranges: ranges.length, pages: pages.length };
      await terminal.document({ source, file: elfCore, position, level, vcpus, ...mapped, bytes, remarks });
      return;
    }
    terminal.say(
      `vmtape: ${elfCore}: L${level} at ${position}, vCPU ${vcpus.join(', ')}, ${plural(pages.length, 'page')} in ` +
        `${plural(ranges.length, 'range')}, ${byteSize(statSync(elfCore).blocks * SECTOR_BYTES)} on disk`,
    );
    for (const remark of remarks) terminal.say(`vmtape: ${remark}.`);
  } catch (error) {
    file.abandon();
    throw error;
  } finally {
    standing.close();
  }
}

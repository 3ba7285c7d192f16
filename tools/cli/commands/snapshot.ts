/** `vmtape snapshot TAPE POS -o SNAP`: the whole state at a position as one file. */
import { closeSync, openSync, writeSync } from 'node:fs';
import type { Command } from 'commander';
import { formatPosition, sqliteStore } from '../../../src/journal/index.js';
import { encodeSnapshot, resolvePosition, Timeline, takeSnapshot } from '../../../src/replay/index.js';
import { NewFile } from '../../export/new-file.js';
import { command, terminalOf } from '../command.js';
import { Stopwatch } from '../drive.js';
import { OperatingError, Status } from '../failure.js';
import { byteSize, plural } from '../format.js';

export function snapshotCommand(program: Command): void {
  command(
    program,
    'snapshot',
    'the whole state at a position as one file',
    "vmtape snapshot guest.vmtape 'vmexit:npf[0]' -o guest.vmsnap",
  )
    .argument('<tape>')
    .argument('<pos>', 'icount, icount:seq, #seq, start, end, or an event: vmexit:cpuid[0] is right before the first')
    .requiredOption('-o, --output <snap>', 'the file to make; there must be none of that name')
    .action(async (tape: string, place: string, { output }: { readonly output: string }, self: Command) => {
      process.exitCode = await snapshot(tape, place, output, self);
    });
}

async function snapshot(tape: string, place: string, output: string, self: Command): Promise<number> {
  const terminal = terminalOf(self);
  const reader = sqliteStore(tape).read();
  const file = new NewFile(output);
  const watch = new Stopwatch();
  try {
    const timeline = new Timeline(reader);
    const at = timeline.seek(resolvePosition(reader, place));
    const { seconds: onTheWay } = watch;
    const taken = takeSnapshot(timeline.machine, reader, at);
    writeFile(file.path, encodeSnapshot(taken), output);
    const bytes = file.finish();
    const { pages, contents } = { pages: taken.ram.pages.filter(Boolean).length, contents: taken.ram.contents.length };
    const seconds = watch.seconds - onTheWay;
    timeline.close();
    if (terminal.json) {
      const position = formatPosition(at);
      await terminal.document({ snapshot: output, tape, position, bytes, pages, contents, onTheWay, seconds });
    } else {
      terminal.say(
        `vmtape: ${output}: ${tape} at ${formatPosition(at)}, ${plural(pages, 'page')} of RAM (${contents} different), ` +
          `${byteSize(bytes)} in ${seconds.toFixed(2)} s`,
      );
    }
    return Status.DONE;
  } catch (error) {
    file.abandon();
    throw error;
  } finally {
    reader.close();
  }
}

function writeFile(path: string, pieces: readonly Uint8Array[], name: string): void {
  try {
    const descriptor = openSync(path, 'wx');
    try {
      for (const piece of pieces) {
        for (let at = 0; at < piece.length; ) at += writeSync(descriptor, piece, at);
      }
    } finally {
      closeSync(descriptor);
    }
  } catch (cause) {
    const problem = `${name}: ${(cause as Error).message}. Nothing was made. Make room, or choose another place.`;
    throw new OperatingError(problem, { cause });
  }
}

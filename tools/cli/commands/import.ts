/** `vmtape import FOLDER -o SNAP`: a snapshot from KVM's structures. */
import { closeSync, openSync, writeSync } from 'node:fs';
import type { Command } from 'commander';
import { formatPosition } from '../../../src/journal/index.js';
import {
  encodeSnapshot,
  FolderDamagedError,
  importKvm,
  parseManifest,
  type Snapshot,
} from '../../../src/replay/index.js';
import { folderRam, MANIFEST, readFolderFile } from '../../export/kvm-folder.js';
import { NewFile } from '../../export/new-file.js';
import { VMTAPE_VERSION } from '../../version.js';
import { command, terminalOf } from '../command.js';
import { OperatingError, Status, UsageError } from '../failure.js';
import { byteSize } from '../format.js';
import { standingMachine } from '../standing-machine.js';

interface ImportOptions {
  readonly output: string;
  readonly base?: string;
  readonly at?: string;
  readonly fresh?: boolean;
}

export function importCommand(program: Command): void {
  command(
    program,
    'import',
    'a snapshot from a folder of KVM’s structures',
    "vmtape import folder -o guest.vmsnap --base guest.vmtape --at 'vmexit:npf[5]'",
    'vmtape resume guest.vmsnap',
  )
    .argument('<folder>', 'as vmtape export --kvm makes it')
    .requiredOption('-o, --output <snap>', 'the snapshot to make; there must be none of that name')
    .option(
      '--base <file>',
      'a snapshot or tape that has what the structures do not: devices, time, RAM unless the folder has it',
    )
    .option('--at <pos>', 'of a base that is a tape: where')
    .option('--fresh', 'instead of a base: devices and time of a machine that has just been made')
    .action(async (folder: string, options: ImportOptions, self: Command) => {
      process.exitCode = await importFolder(folder, options, self);
    });
}

async function importFolder(folder: string, options: ImportOptions, self: Command): Promise<number> {
  const { output, base, at, fresh = false } = options;
  if (at !== undefined && base === undefined) throw new UsageError('--at goes with --base.');
  if (fresh && base !== undefined) throw new UsageError('--fresh and --base exclude each other. Give one.');
  const file = new NewFile(output);
  const manifest = parseManifest(new TextDecoder().decode(readFolderFile(folder, MANIFEST)), `${folder}/${MANIFEST}`);
  if (base === undefined && !fresh) {
    const { outside = ['devices', 'time'] } = manifest.notCarried ?? {};
    throw new UsageError(
      `${folder}: it does not have ${outside.join(', ')}. Give --base SNAP to take that from there, or --fresh for a machine ` +
        'that has just been made.',
    );
  }
  const standing = base === undefined ? undefined : standingMachine(base, at);
  const ram = manifest.ram === undefined ? undefined : folderRam(folder, manifest.ram.file);
  try {
    const read = (name: string): Uint8Array => readFolderFile(folder, name);
    const snapshot = importKvm({ manifest, read, base: standing?.snapshot(), ram, vmtapeVersion: VMTAPE_VERSION });
    write(file, snapshot);
    const bytes = file.finish();
    const terminal = terminalOf(self);
    const position = formatPosition(snapshot.position);
    if (terminal.json)
      await terminal.document({ snapshot: output, folder, position, bytes, unchanged: snapshot.parent !== undefined });
    else terminal.say(`vmtape: ${output}: ${folder} at ${position}, ${byteSize(bytes)}`);
    return Status.DONE;
  } catch (error) {
    file.abandon();
    if (!(error instanceof FolderDamagedError)) throw error;
    terminalOf(self).say(`vmtape: ${folder}/${error.message}. Export it again, or fetch it again.`);
    return Status.DAMAGED;
  } finally {
    ram?.close();
    standing?.close();
  }
}

function write(file: NewFile, snapshot: Snapshot): void {
  try {
    const descriptor = openSync(file.path, 'wx');
    try {
      for (const piece of encodeSnapshot(snapshot)) {
        for (let at = 0; at < piece.length; ) at += writeSync(descriptor, piece, at);
      }
    } finally {
      closeSync(descriptor);
    }
  } catch (cause) {
    const problem = `${file.target}: ${(cause as Error).message}. Nothing was made. Make room, or choose another place.`;
    throw new OperatingError(problem, { cause });
  }
}

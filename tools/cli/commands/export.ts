/** `vmtape export`: a tape, or a machine at a place of it, for other programs. */
import { closeSync, openSync, writeSync } from 'node:fs';
import Database from 'better-sqlite3';
import type { Command } from 'commander';
import { type JournalReader, sqliteStore } from '../../../src/journal/index.js';
import { NewFile } from '../../export/new-file.js';
import { exportPerfetto } from '../../export/perfetto.js';
import { EXPORTED_VIEWS, exportSqlite } from '../../export/sqlite.js';
import { loadSymbols, symbolsOption } from '../../symbols/load.js';
import type { SymbolSource } from '../../symbols/source.js';
import { parseCount, parseLevel } from '../arguments.js';
import { command, terminalOf } from '../command.js';
import { StopSignals } from '../drive.js';
import { exportCore } from '../export-core.js';
import { exportKvmFolder } from '../export-kvm.js';
import { OperatingError, UsageError } from '../failure.js';
import { byteSize, plural, shortCount } from '../format.js';
import type { Terminal } from '../terminal.js';

interface ExportOptions {
  readonly sqlite?: string;
  readonly perfetto?: string;
  readonly views?: readonly string[];
  readonly symbols?: readonly SymbolSource[];
  readonly elfCore?: string;
  readonly level?: 1 | 2;
  readonly vcpu?: number;
  readonly at?: string;
  readonly kvm?: string;
  readonly ram?: boolean;
  readonly lossy?: boolean;
}

/** What can be made; each has flags that go with it alone. */
const PRODUCTS = {
  sqlite: ['views'],
  perfetto: ['symbols'],
  elfCore: ['level', 'vcpu', 'at'],
  kvm: ['ram', 'lossy', 'at'],
} as const satisfies Partial<Record<keyof ExportOptions, readonly (keyof ExportOptions)[]>>;
type Product = keyof typeof PRODUCTS;
const FLAGS: Readonly<Record<string, string>> = { elfCore: '--elf-core' };
const flagOf = (option: string): string => FLAGS[option] ?? `--${option}`;

export function exportCommand(program: Command): void {
  const exporting = command(
    program,
    'export',
    'for other programs: plain SQLite tables, a trace for the Perfetto UI, a core file for gdb, KVM’s structures',
    'vmtape export guest.vmtape --sqlite guest.db',
    'vmtape export guest.vmtape --sqlite exits.db --views exits,injections',
    'vmtape export guest.vmtape --perfetto guest.json',
    'vmtape export linux.vmtape --perfetto linux.json --symbols ram',
    "vmtape export guest.vmtape --at 'vmexit:npf[5]' --elf-core l2.core --level L2",
    'vmtape export guest.vmsnap --kvm folder --ram',
  );
  symbolsOption(exporting)
    .argument('<tape>', 'with --elf-core and --kvm a snapshot, too')
    .option('--sqlite <file>', 'the views of vmtape sql as tables with indexes')
    .option('--views <names>', 'with --sqlite: only these, with commas between them', parseViews)
    .option('--perfetto <file>', 'a JSON trace for ui.perfetto.dev and chrome://tracing, in virtual time')
    .option('--elf-core <file>', 'registers and memory of a level as an ELF core file')
    .option('--level <level>', 'with --elf-core: L1 or L2', parseLevel)
    .option('--vcpu <n>', 'with --elf-core: whose address space; the one whose turn it is by default', (text) =>
      parseCount(text, '--vcpu'),
    )
    .option('--at <pos>', 'with --elf-core and --kvm of a tape: where')
    .option('--kvm <folder>', 'vCPUs as the structures in which KVM takes their state, with a manifest in JSON')
    .option('--ram', 'with --kvm: RAM as a sparse file, too')
    .option('--lossy', 'with --kvm: even if the structures do not carry all of the vCPUs')
    .action(async (tape: string, options: ExportOptions, self: Command) => {
      requireOneProduct(options);
      const { elfCore, level, vcpu, at, kvm, ram = false, lossy = false } = options;
      if (kvm !== undefined) {
        await exportKvmFolder(tape, { kvm, at, ram, lossy }, terminalOf(self));
        return;
      }
      if (elfCore !== undefined) {
        if (level === undefined) throw new UsageError('--elf-core needs --level L1 or --level L2.');
        await exportCore(tape, { elfCore, level, vcpu, at }, terminalOf(self));
        return;
      }
      const reader = sqliteStore(tape).read();
      try {
        await exportTape(tape, reader, options, terminalOf(self));
      } finally {
        reader.close();
      }
    });
}

/** @throws UsageError for none, several, or a flag of another. */
function requireOneProduct(options: ExportOptions): void {
  const names = Object.keys(PRODUCTS) as Product[];
  const asked = names.filter((name) => options[name] !== undefined);
  const [product] = asked;
  if (product === undefined || asked.length > 1) {
    throw new UsageError(
      `Give one of ${names.map((name) => `${flagOf(name)} ${name === 'kvm' ? 'FOLDER' : 'FILE'}`).join(', ')}.`,
    );
  }
  for (const name of names) {
    const own: readonly (keyof ExportOptions)[] = PRODUCTS[product];
    const stray = PRODUCTS[name].find((option) => !own.includes(option) && options[option] !== undefined);
    if (stray !== undefined) throw new UsageError(`${flagOf(stray)} goes with ${flagOf(name)}.`);
  }
}

function parseViews(text: string): readonly string[] {
  const names = text.split(',');
  const unknown = names.find((name) => !EXPORTED_VIEWS.includes(name));
  if (unknown === undefined) return names;
  throw new UsageError(`--views ${JSON.stringify(unknown)} is none. There are ${EXPORTED_VIEWS.join(', ')}.`);
}

async function exportTape(
  tape: string,
  reader: JournalReader,
  options: ExportOptions,
  terminal: Terminal,
): Promise<void> {
  const { sqlite, perfetto = '', views = EXPORTED_VIEWS } = options;
  const symbols = loadSymbols(reader, options.symbols);
  const file = new NewFile(sqlite ?? perfetto);
  let bytes = 0;
  try {
    if (sqlite !== undefined) await watched(exportSqlite(tape, reader, { file: file.path, views }), reader, terminal);
    else {
      const output = new BufferedFile(file.path);
      try {
        await watched(
          exportPerfetto(reader, (text) => output.write(text), symbols),
          reader,
          terminal,
        );
      } finally {
        output.close();
      }
    }
    bytes = file.finish();
  } catch (error) {
    file.abandon();
    throw error instanceof Database.SqliteError ? new OperatingError(`${file.target}: ${error.message}.`) : error;
  }
  const { seq } = reader.end;
  if (terminal.json) await terminal.document({ tape, file: file.target, events: seq, bytes });
  else terminal.say(`vmtape: ${plural(seq, 'event')} in ${file.target}, ${byteSize(bytes)}`);
}

/** Goes through with it, unless a signal comes. */
async function watched(work: Generator<bigint, void, void>, { end }: JournalReader, terminal: Terminal): Promise<void> {
  const signals = new StopSignals();
  try {
    for (const done of work) {
      terminal.status(`exported ${shortCount(Number(done))} of ${shortCount(Number(end.seq))} events`);
      await new Promise((resolve) => setImmediate(resolve));
      if (signals.cause !== undefined) throw new OperatingError(`stopped by ${signals.cause}: nothing was written.`);
    }
  } finally {
    signals.release();
    terminal.clearStatus();
  }
}

const BUFFERED_CHARACTERS = 1 << 20;

/** Text that goes to a file in large pieces. */
class BufferedFile {
  private readonly descriptor: number;
  private pieces: string[] = [];
  private length = 0;

  constructor(path: string) {
    this.descriptor = openSync(path, 'wx');
  }

  write(text: string): void {
    this.pieces.push(text);
    this.length += text.length;
    if (this.length >= BUFFERED_CHARACTERS) this.flush();
  }

  close(): void {
    try {
      this.flush();
    } finally {
      closeSync(this.descriptor);
    }
  }

  private flush(): void {
    const bytes = Buffer.from(this.pieces.join(''), 'utf8');
    this.pieces = [];
    this.length = 0;
    for (let at = 0; at < bytes.length; ) at += writeSync(this.descriptor, bytes, at);
  }
}

/** `vmtape info TAPE`: header, configuration, what is on it and how much room it takes. */
import { readFileSync, statSync } from 'node:fs';
import type { Command } from 'commander';
import { formatPosition, isRecordOf, type JournalReader, sqliteStore } from '../../../src/journal/index.js';
import { type EventOf, exitName, type Level, policyOfDeviations } from '../../../src/machine/index.js';
import { decodeSnapshotHeader, isSnapshot, type SnapshotHeader } from '../../../src/replay/index.js';
import { command, terminalOf } from '../command.js';
import { byteSize, grouped, plural, table } from '../format.js';
import type { Colors } from '../terminal.js';

interface Counts {
  readonly kinds: Map<string, number>;
  /** #VMEXITs by code. */
  readonly exits: Map<bigint, number>;
  readonly instructions: Record<Level, bigint>;
  /** How the session ended; undefined when its host stopped it. */
  readonly ending: EventOf<'machine.ended'> | undefined;
}

const STATES = {
  complete: 'complete',
  recording: 'still being recorded',
  cut: 'cut: its recording was killed or failed',
};
/** Of a session whose tape has no end of its own. */
const UNENDED = { complete: 'stopped by its host', recording: 'goes on', cut: 'unknown: its tape was cut' };

export function infoCommand(program: Command): void {
  command(
    program,
    'info',
    'header, configuration, counts by kind of event, exits by code, sizes',
    'vmtape info guest.vmtape',
  )
    .argument('<file>', 'a tape, or a snapshot')
    .action(async (tape: string, _options: object, self: Command) => {
      const terminal = terminalOf(self);
      const snapshot = snapshotHeader(tape);
      if (snapshot !== undefined) {
        if (terminal.json) await terminal.document({ snapshot: tape, ...snapshot });
        else await terminal.print(snapshotPage(tape, snapshot, terminal.colors));
        return;
      }
      const reader = sqliteStore(tape).read();
      try {
        const counts = countRecords(reader);
        if (terminal.json) await terminal.document(infoDocument(tape, reader, counts));
        else await terminal.print(infoPage(tape, reader, counts, terminal.colors));
      } finally {
        reader.close();
      }
    });
}

/** That of a snapshot; undefined when the file is none. */
function snapshotHeader(file: string): SnapshotHeader | undefined {
  const isFile = statSync(file, { throwIfNoEntry: false })?.isFile() === true;
  if (!isFile) return undefined;
  const bytes = readFileSync(file);
  return isSnapshot(bytes) ? decodeSnapshotHeader(bytes, file) : undefined;
}

function snapshotPage(file: string, header: SnapshotHeader, { bold }: Colors): readonly string[] {
  const { position, parent, vmtapeVersion, machineVersion, ram, parts, configuration } = header;
  return [
    bold(file),
    ...table([
      ['snapshot at', position],
      ['of the tape', parent === null ? 'none' : `whose history up to there is ${parent}`],
      ['taken by', `vmtape ${vmtapeVersion}, machine model ${machineVersion}`],
      ['RAM', `${plural(ram.pages, 'page')}, ${plural(ram.contents, 'content')} but zeros`],
    ]),
    '',
    bold('configuration'),
    ...table(flat(configuration).filter(([name]) => !name.startsWith('machine.deviations'))),
    '',
    bold('parts'),
    ...table(
      parts.map(({ name, version, length, mandatory }) => [
        ...[name, `version ${version}`, byteSize(length), mandatory ? '' : 'optional'],
      ]),
    ),
  ];
}

function countRecords(reader: JournalReader): Counts {
  const kinds = new Map<string, number>();
  const exits = new Map<bigint, number>();
  const instructions = { 1: 0n, 2: 0n };
  let ending: EventOf<'machine.ended'> | undefined;
  for (const record of reader.records()) {
    const { type } = record.event;
    kinds.set(type, (kinds.get(type) ?? 0) + 1);
    instructions[record.level] += BigInt(record.retired);
    if (isRecordOf(record, 'machine.ended')) ending = record.event;
    if (isRecordOf(record, 'svm.vmexit')) exits.set(record.event.code, (exits.get(record.event.code) ?? 0) + 1);
  }
  return { kinds, exits, instructions, ending };
}

/** Bytes of the file, and of the log beside it while there is one. */
function tapeBytes(tape: string): number {
  return [tape, `${tape}-wal`].reduce((sum, file) => sum + (statSync(file, { throwIfNoEntry: false })?.size ?? 0), 0);
}

const byCount = <Key>(counts: ReadonlyMap<Key, number>): readonly (readonly [Key, number])[] =>
  [...counts].sort(([, a], [, b]) => b - a);

function infoDocument(tape: string, reader: JournalReader, { kinds, exits, instructions, ending }: Counts): object {
  const { header, state, start, end, chunkCount } = reader;
  return {
    ...{
      tape,
      state,
      start: formatPosition(start),
      parent: header.origin?.parent ?? null,
      end: formatPosition(end),
      ending: ending === undefined ? null : { reason: ending.reason, status: ending.status },
    },
    ...{ vmtapeVersion: header.vmtapeVersion, machineVersion: header.machineVersion },
    ...{ formatVersion: header.formatVersion, codecVersion: header.codecVersion, configuration: header.configuration },
    policy: policyOfDeviations(deviationsOn(header))?.name ?? null,
    instructions: { total: end.icount - start.icount, L1: instructions[1], L2: instructions[2] },
    events: Object.fromEntries(byCount(kinds)),
    exits: Object.fromEntries(byCount(exits).map(([code, count]) => [exitName(code), count])),
    sizes: { tapeBytes: tapeBytes(tape), chunks: chunkCount },
    digests: [...reader.digests()].length,
    images: reader.blobDigests(),
    checkpoints: reader.checkpoints().length,
  };
}

function infoPage(
  tape: string,
  reader: JournalReader,
  { kinds, exits, instructions, ending }: Counts,
  { bold }: Colors,
): string[] {
  const { header, state, start, end, chunkCount } = reader;
  const deviations = deviationsOn(header);
  const bytes = tapeBytes(tape);
  const exitCount = [...exits.values()].reduce((sum, count) => sum + count, 0);
  const perExit = exitCount === 0 ? '' : `, ${(bytes / exitCount).toFixed(1)} bytes per exit`;
  const heading = (text: string): readonly string[] => ['', bold(text)];
  return [
    bold(tape),
    ...table([
      ['state', STATES[state]],
      ...originRows(reader),
      ['end', formatPosition(end)],
      ['session', ending === undefined ? UNENDED[state] : `${ending.reason}, status ${ending.status}`],
      ['recorded by', `vmtape ${header.vmtapeVersion}, machine model ${header.machineVersion}`],
      ['format', `${header.formatVersion}, codec ${header.codecVersion}`],
      ['policy', policyText(deviations)],
      [
        'instructions',
        `${grouped(end.icount - start.icount)}: L1 ${grouped(instructions[1])}, L2 ${grouped(instructions[2])}`,
      ],
      ['events', `${grouped(end.seq - start.seq)} in ${plural(chunkCount, 'chunk')}`],
      ['size', `${byteSize(bytes)}${perExit}`],
      ['state digests', grouped([...reader.digests()].length)],
      ['checkpoints', grouped(reader.checkpoints().length)],
    ]),
    ...(deviations.length === 0 ? [] : heading('deviations from the manual')),
    ...deviations,
    ...heading('configuration'),
    ...table(flat(header.configuration).filter(([name]) => !name.startsWith('machine.deviations'))),
    ...heading('inputs that are kept as content'),
    ...reader.blobDigests(),
    ...heading('events by kind'),
    ...table(
      byCount(kinds).map(([kind, count]) => [grouped(count), kind]),
      ['right'],
    ),
    ...(exitCount === 0 ? [] : heading('exits by code')),
    ...table(
      byCount(exits).map(([code, count]) => [grouped(count), exitName(code)]),
      ['right'],
    ),
  ];
}

function originRows({ header: { origin }, start }: JournalReader): readonly (readonly string[])[] {
  if (origin === undefined) return [];
  const { parent } = origin;
  return [
    ['start', formatPosition(start)],
    ['goes on from', parent === undefined ? 'what nobody recorded' : `the tape whose history up to there is ${parent}`],
  ];
}

/** Names as they stand on the tape, be they known here or not. */
function deviationsOn({ configuration }: JournalReader['header']): readonly string[] {
  const { machine } = configuration as { readonly machine?: { readonly deviations?: readonly string[] } };
  return machine?.deviations ?? [];
}

/** The policy that has just these deviations, or how many they are. */
const policyText = (deviations: readonly string[]): string =>
  policyOfDeviations(deviations)?.name ?? plural(deviations.length, 'deviation');

/** `{ machine: { ramBytes: 1 } }` → `machine.ramBytes`, `1`. */
function flat(value: unknown, path = ''): readonly (readonly [name: string, value: string])[] {
  if (typeof value !== 'object' || value === null)
    return [[path, typeof value === 'string' ? value : JSON.stringify(value)]];
  return Object.entries(value).flatMap(([key, item]) => flat(item, path === '' ? key : `${path}.${key}`));
}

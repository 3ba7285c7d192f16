/** `vmtape diff TAPE_A POS TAPE_B POS`: two states, field by field. A snapshot is a state by itself, without a position. */
import type { Command } from 'commander';
import { formatPosition, type Position, sqliteStore } from '../../../src/journal/index.js';
import { type MachineState, PAGE_BYTES } from '../../../src/machine/index.js';
import {
  decodeSnapshot,
  isSnapshot,
  type RamContents,
  resolvePosition,
  type StateDifference,
  stateDifferences,
  Timeline,
  takeSnapshot,
} from '../../../src/replay/index.js';
import { command, terminalOf } from '../command.js';
import { Status, UsageError } from '../failure.js';
import { hex, plural, table } from '../format.js';
import { readInputFile } from '../machine-flags.js';

/** A state as the command line names it. */
interface Named {
  readonly name: string;
  readonly position: Position;
  readonly state: MachineState;
  readonly retired: number;
  readonly ram: RamContents;
}

/** Bytes that differ next to each other. */
interface RamDifference {
  readonly address: number;
  readonly first: Uint8Array;
  readonly second: Uint8Array;
}

const MOST_LINES = 100;
const SHOWN_BYTES = 16;

export function diffCommand(program: Command): void {
  command(
    program,
    'diff',
    'two states, field by field',
    "vmtape diff a.vmtape 'vmexit[7]' b.vmtape 'vmexit[7]'",
    'vmtape diff guest.vmsnap guest.vmtape end',
  )
    .argument('<states...>', 'twice: a tape and a position, or a snapshot')
    .option('--all', `more than ${MOST_LINES} differences`)
    .action(async (words: readonly string[], { all = false }: { readonly all?: boolean }, self: Command) => {
      process.exitCode = await diff(words, all, self);
    });
}

async function diff(words: readonly string[], all: boolean, self: Command): Promise<number> {
  const terminal = terminalOf(self);
  const [first, rest] = stateNamed(words);
  const [second, tooMany] = stateNamed(rest);
  if (tooMany.length > 0) throw new UsageError(`vmtape diff: two states are compared, and ${tooMany[0]} is left over.`);
  if (first.ram.pages.length !== second.ram.pages.length) {
    throw new UsageError(`${first.name} and ${second.name} have not the same amount of RAM. Compare machines alike.`);
  }
  const fields = [
    ...(first.retired === second.retired
      ? []
      : [{ path: 'retired', first: String(first.retired), second: String(second.retired) }]),
    ...stateDifferences(first.state, second.state),
  ];
  const memory = [...ramDifferences(first.ram, second.ram)];
  if (terminal.json) await terminal.document(document(first, second, fields, memory));
  else await terminal.print(page(first, second, fields, memory, all ? Number.POSITIVE_INFINITY : MOST_LINES));
  return fields.length + memory.length === 0 ? Status.DONE : Status.NO;
}

/** @returns the state that the words begin with, and the words after it. */
function stateNamed([file, ...rest]: readonly string[]): readonly [Named, readonly string[]] {
  if (file === undefined) throw new UsageError('vmtape diff: two states are needed: TAPE POS, or a snapshot.');
  const bytes = readInputFile(file, 'the tape or snapshot');
  if (isSnapshot(bytes)) {
    const { point, position, ram } = decodeSnapshot(bytes, file);
    return [{ name: file, position, state: point.state, retired: point.retired, ram }, rest];
  }
  const [place, ...after] = rest;
  if (place === undefined) throw new UsageError(`${file}: a tape needs a position after it, such as end.`);
  const reader = sqliteStore(file).read();
  try {
    const timeline = new Timeline(reader);
    const position = timeline.seek(resolvePosition(reader, place));
    const { point, ram } = takeSnapshot(timeline.machine, reader, position);
    timeline.close();
    return [{ name: `${file} ${place}`, position, state: point.state, retired: point.retired, ram }, after];
  } finally {
    reader.close();
  }
}

const ZEROS = new Uint8Array(PAGE_BYTES);
const contentOf = ({ pages, contents }: RamContents, page: number): Uint8Array =>
  contents[(pages[page] as number) - 1] ?? ZEROS;

/** Stretches of bytes, none across a page. */
function* ramDifferences(first: RamContents, second: RamContents): Generator<RamDifference> {
  for (let page = 0; page < first.pages.length; page++) {
    const [a, b] = [contentOf(first, page), contentOf(second, page)];
    if (a === b) continue;
    for (let at = 0; at < PAGE_BYTES; at++) {
      if (a[at] === b[at]) continue;
      const start = at;
      while (at < PAGE_BYTES && a[at] !== b[at]) at++;
      yield { address: page * PAGE_BYTES + start, first: a.subarray(start, at), second: b.subarray(start, at) };
    }
  }
}

function document(
  first: Named,
  second: Named,
  fields: readonly StateDifference[],
  memory: readonly RamDifference[],
): object {
  const named = ({ name, position }: Named): object => ({ name, position: formatPosition(position) });
  return {
    ...{ first: named(first), second: named(second), fields },
    memory: memory.map(({ address, first: a, second: b }) => ({
      ...{ address: hex(address), bytes: a.length },
      ...{ first: bytesText(a, a.length), second: bytesText(b, b.length) },
    })),
  };
}

function page(
  first: Named,
  second: Named,
  fields: readonly StateDifference[],
  memory: readonly RamDifference[],
  most: number,
): readonly string[] {
  const heading = [first, second].map(({ name, position }) => `${name} (${formatPosition(position)})`);
  if (fields.length + memory.length === 0) return [`${heading.join(' and ')}: the same state`];
  const rows = [
    ...fields.map(({ path, first: a, second: b }) => [path, a, b]),
    ...memory.map(({ address, first: a, second: b }) => [
      `RAM ${hex(address)}, ${plural(a.length, 'byte')}`,
      bytesText(a, SHOWN_BYTES),
      bytesText(b, SHOWN_BYTES),
    ]),
  ];
  const left = rows.length - most;
  return [
    ...table([['', ...heading], ...rows.slice(0, most)], []),
    ...(left > 0 ? [`and ${plural(left, 'more difference')}; --all shows them`] : []),
  ];
}

const bytesText = (bytes: Uint8Array, most: number): string =>
  [...bytes.subarray(0, most)].map((byte) => hex(byte, 2)).join(' ') + (bytes.length > most ? ' …' : '');

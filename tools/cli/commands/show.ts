/** `vmtape show TAPE POS`: the whole machine at a position. */
import type { Command } from 'commander';
import {
  formatPosition,
  type JournalReader,
  type JournalRecord,
  type Position,
  sqliteStore,
} from '../../../src/journal/index.js';
import { type Machine, type MachineState, peekLinear, R, sPA } from '../../../src/machine/index.js';
import { disassemble, eventText, foldTape, Replayer, resolvePosition } from '../../../src/replay/index.js';
import type { LevelSymbols } from '../../symbols/level-symbols.js';
import { loadSymbols, symbolsOption } from '../../symbols/load.js';
import type { SymbolSource } from '../../symbols/source.js';
import { type MemoryRange, parseCount, parseMemoryRange } from '../arguments.js';
import { command, terminalOf } from '../command.js';
import { Status, UsageError } from '../failure.js';
import { hex, table } from '../format.js';
import {
  codePlace,
  currentVmcb,
  dumpLines,
  pagingOf,
  placeNames,
  registersOf,
  runningLevel,
  stateDocument,
  statePage,
  vmcbPage,
} from '../machine-view.js';
import type { Colors, Terminal } from '../terminal.js';

interface ShowOptions {
  readonly vmcb?: boolean;
  readonly memory?: MemoryRange;
  readonly disassemble?: number;
  readonly symbols?: readonly SymbolSource[];
}

const MOST_INSTRUCTIONS = 10_000;

export function showCommand(program: Command): void {
  const show = command(
    program,
    'show',
    'the whole machine at a position, levels side by side',
    "vmtape show guest.vmtape 'vmexit:npf[0]' --vmcb --disassemble 5",
    'vmtape show guest.vmtape end --memory 0x100000,64',
  );
  symbolsOption(show)
    .argument('<tape>')
    .argument('<pos>', 'icount, icount:seq, #seq, start, end, or an event: vmexit:cpuid[0] is right before the first')
    .option('--vmcb', 'the VMCB of the guest that runs or ran last, by field')
    .option('--memory <addr,len>', 'memory at a linear address, or phys:ADDR,LEN at a physical one', parseMemoryRange)
    .option('--disassemble <n>', 'so many instructions from RIP on', (text) => parseCount(text, '--disassemble', 1))
    .action(async (tape: string, position: string, options: ShowOptions, self: Command) => {
      const terminal = terminalOf(self);
      if ((options.disassemble ?? 0) > MOST_INSTRUCTIONS) {
        throw new UsageError(`--disassemble shows at most ${MOST_INSTRUCTIONS} instructions at a time.`);
      }
      const reader = sqliteStore(tape).read();
      try {
        process.exitCode = await showPlace(tape, reader, resolvePosition(reader, position), options, terminal);
      } finally {
        reader.close();
      }
    });
}

/** The state, and the machine where guest code had to run for it. */
interface Place {
  readonly position: Position;
  readonly state: MachineState;
  readonly machine: Machine | undefined;
}

async function showPlace(
  tape: string,
  reader: JournalReader,
  position: Position,
  options: ShowOptions,
  terminal: Terminal,
): Promise<number> {
  const place = placeAt(reader, position, options);
  if (typeof place === 'string') {
    process.stderr.write(`vmtape: ${tape}: the replay on the way to ${formatPosition(position)} diverged.\n${place}\n`);
    return Status.NO;
  }
  const next = reader.records(position.seq).next().value ?? undefined;
  const symbols = loadSymbols(reader, options.symbols);
  if (terminal.json) await terminal.document(showDocument(place, next, symbols, options));
  else await terminal.print(showPage(tape, place, next, symbols, options, terminal.colors));
  return Status.DONE;
}

/** Registers, VMCBs and devices come from a fold; memory, code and places amid a run need the machine to run there. */
function placeAt(reader: JournalReader, position: Position, options: ShowOptions): Place | string {
  const needsMachine = options.memory !== undefined || options.disassemble !== undefined;
  if (!needsMachine) {
    const folded = foldTape(reader, position.seq);
    if (folded.position.icount === position.icount) return { ...folded, machine: undefined };
  }
  const replayer = new Replayer(reader, { from: position, to: position });
  const outcome = replayer.run();
  if (outcome.kind === 'diverged') return outcome.divergence.report();
  const { machine } = replayer;
  return { position, state: machine.state, machine };
}

function showPage(
  tape: string,
  place: Place,
  next: JournalRecord | undefined,
  symbols: LevelSymbols,
  options: ShowOptions,
  colors: Colors,
): readonly string[] {
  const { position, state, machine } = place;
  const heading = (text: string): readonly string[] => ['', colors.bold(text)];
  const vmcb = currentVmcb(state);
  return [
    colors.bold(`${tape} at ${formatPosition(position)}`),
    `next: ${next === undefined ? 'the tape ends here' : `#${next.position.seq} ${symbols.inEvent(eventText(next), next.event, next.level)}`}`,
    '',
    ...statePage(state, colors, symbols),
    ...heading('devices'),
    ...table(deviceRows(state), [], '  '),
    ...(options.vmcb !== true
      ? []
      : vmcb === undefined
        ? ['', 'no VMCB was used yet']
        : ['', ...vmcbPage(vmcb.address, vmcb.fields, colors)]),
    ...(machine === undefined || options.disassemble === undefined
      ? []
      : [...heading('code at RIP'), ...codeLines(machine, options.disassemble, symbols)]),
    ...(machine === undefined || options.memory === undefined
      ? []
      : [...heading(`memory, ${options.memory.space}`), ...memoryLines(machine, options.memory)]),
  ];
}

/** A device's state in short: `name=value`, numbers in hexadecimal. */
const deviceRows = ({ devices }: MachineState): readonly (readonly string[])[] =>
  Object.entries(devices).flatMap(([name, state]) =>
    Array.isArray(state)
      ? state.map((each, index) => [`${name}[${index}]`, fieldsText(each)])
      : [[name, fieldsText(state)]],
  );

function fieldsText(value: unknown): string {
  if (typeof value === 'number') return Number.isInteger(value) && value > 9 ? `${hex(value)}h` : String(value);
  if (typeof value === 'bigint') return `${hex(value)}h`;
  if (typeof value !== 'object' || value === null) return JSON.stringify(value) ?? 'none';
  if (value instanceof Uint8Array) return Buffer.from(value).toString('hex');
  if (Array.isArray(value))
    return `[${value.length > LISTED ? `${value.length} values` : value.map(itemText).join(' ')}]`;
  return Object.entries(value)
    .map(([name, field]) => `${name}=${itemText(field)}`)
    .join(' ');
}

/** The same, with braces around what has fields of its own. */
const itemText = (value: unknown): string =>
  typeof value === 'object' && value !== null && !Array.isArray(value) ? `{${fieldsText(value)}}` : fieldsText(value);

/** Longer arrays are only counted. */
const LISTED = 32;

function codeLines(machine: Machine, count: number, symbols: LevelSymbols): readonly string[] {
  const level = runningLevel(machine.state);
  return table(
    codeAt(machine, count).map(({ rip, bytes, text }) => [
      hex(rip, 16),
      ...(symbols.of(level) === undefined ? [] : [symbols.textOf(level, rip) ?? '']),
      [...bytes].map((byte) => hex(byte, 2)).join(' '),
      symbols.inCode(level, text),
    ]),
    [],
    '  ',
  );
}

const codeAt = (machine: Machine, count: number) =>
  disassemble(codePlace(machine), registersOf(machine.state)[R.rip] ?? 0n, count);

/** As many bytes as are there. */
function memoryAt(machine: Machine, { space, address, length }: MemoryRange): Uint8Array {
  const { memory, state } = machine;
  if (space === 'linear') return peekLinear(memory, registersOf(state), pagingOf(machine), address, length);
  if (address >= BigInt(memory.ramBytes)) return new Uint8Array(0);
  const start = Number(address);
  return memory.window(sPA(start), Math.min(length, memory.ramBytes - start));
}

function memoryLines(machine: Machine, range: MemoryRange): readonly string[] {
  const bytes = memoryAt(machine, range);
  const end = range.address + BigInt(bytes.length);
  const missing = range.length - bytes.length;
  return [
    ...dumpLines(range.address, bytes),
    ...(missing === 0 ? [] : [`${hex(end, 16)}  not RAM${range.space === 'linear' ? ', or not mapped' : ''}`]),
  ].map((line) => `  ${line}`);
}

function showDocument(
  place: Place,
  next: JournalRecord | undefined,
  symbols: LevelSymbols,
  options: ShowOptions,
): object {
  const { position, state, machine } = place;
  const { memory, disassemble: count } = options;
  return {
    position: formatPosition(position),
    next: next === undefined ? null : eventText(next),
    ...stateDocument(state),
    ...(symbols.isEmpty ? {} : { symbols: placeNames(state, symbols) }),
    ...(machine === undefined || memory === undefined
      ? {}
      : { memory: { space: memory.space, address: `0x${hex(memory.address)}`, bytes: memoryAt(machine, memory) } }),
    ...(machine === undefined || count === undefined
      ? {}
      : { code: codeAt(machine, count).map(({ rip, bytes, text }) => ({ rip: `0x${hex(rip)}`, bytes, text })) }),
  };
}

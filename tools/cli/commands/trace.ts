/** `vmtape trace TAPE --from POS --to POS`: a stretch of a tape, instruction by instruction. */
import type { Command } from 'commander';
import {
  formatPosition,
  type JournalReader,
  type Position,
  payloadJson,
  sqliteStore,
} from '../../../src/journal/index.js';
import {
  eventText,
  FollowingError,
  type MemoryWrite,
  resolvePosition,
  type TracedInstruction,
  Tracer,
  type TraceStep,
} from '../../../src/replay/index.js';
import type { LevelSymbols } from '../../symbols/level-symbols.js';
import { loadSymbols, symbolsOption } from '../../symbols/load.js';
import type { SymbolSource } from '../../symbols/source.js';
import { parseCount } from '../arguments.js';
import { command, terminalOf } from '../command.js';
import { Status, UsageError } from '../failure.js';
import { hex, pad, shortCount } from '../format.js';
import type { Colors, Terminal } from '../terminal.js';

interface TraceOptions {
  readonly from: string;
  readonly to: string;
  readonly limit?: number;
  readonly symbols?: readonly SymbolSource[];
}

export function traceCommand(program: Command): void {
  const trace = command(
    program,
    'trace',
    'each instruction of a stretch, with registers and memory writes, and the events between',
    "vmtape trace guest.vmtape --from 'vmexit:npf[0]' --to 'vmrun[3]'",
    'vmtape trace guest.vmtape --from 84000 --to 84051 --json',
  );
  symbolsOption(trace)
    .argument('<tape>')
    .requiredOption('--from <pos>', 'from there on')
    .requiredOption('--to <pos>', 'up to there')
    .option('--limit <n>', 'at most so many lines', (text) => parseCount(text, '--limit', 1))
    .action(async (tape: string, options: TraceOptions, self: Command) => {
      process.exitCode = await traceTape(tape, options, terminalOf(self));
    });
}

async function traceTape(tape: string, options: TraceOptions, terminal: Terminal): Promise<number> {
  const reader = sqliteStore(tape).read();
  try {
    const from = resolvePosition(reader, options.from);
    const to = resolvePosition(reader, options.to);
    if (to.seq < from.seq || to.icount < from.icount) {
      const [later, earlier] = [from, to].map(formatPosition);
      throw new UsageError(`--to ${options.to} is ${earlier}, before --from ${options.from} at ${later}. Swap them.`);
    }
    const symbols = loadSymbols(reader, options.symbols);
    return await tell(tape, reader, { from, to, limit: options.limit ?? Number.POSITIVE_INFINITY, symbols }, terminal);
  } finally {
    reader.close();
  }
}

interface Stretch {
  readonly from: Position;
  readonly to: Position;
  readonly limit: number;
  readonly symbols: LevelSymbols;
}

/** Steps between two looks at the terminal. */
const STEPS = 1000;

async function tell(
  tape: string,
  reader: JournalReader,
  { from, to, limit, symbols }: Stretch,
  terminal: Terminal,
): Promise<number> {
  const steps: TraceStep[] = [];
  const tracer = new Tracer(reader, from, to, (step) => steps.push(step));
  let left = limit;
  const print = async (): Promise<void> => {
    for (const step of steps.splice(0).slice(0, left)) {
      await terminal.line(terminal.json ? stepJson(step, symbols) : stepLine(step, symbols, terminal.colors));
      left--;
    }
  };
  try {
    tracer.seek({
      tick: ({ icount }) => {
        terminal.status(`on the way: ${shortCount(Number(icount))} instructions`);
        return false;
      },
    });
    terminal.clearStatus();
    for (let goesOn = true; goesOn && left > 0; ) {
      goesOn = tracer.advance(Math.min(STEPS, left));
      await print();
    }
    await terminal.flush();
    return Status.DONE;
  } catch (error) {
    if (!(error instanceof FollowingError)) throw error;
    terminal.clearStatus();
    await print();
    await terminal.flush();
    process.stderr.write(`vmtape: ${tape}: ${error.message}.\n`);
    return Status.NO;
  } finally {
    tracer.close();
  }
}

const POSITION_COLUMNS = 18;
const BYTES_COLUMNS = 24;
const TEXT_COLUMNS = 36;
const NAME_COLUMNS = 32;
const LISTED_REGISTERS = 6;

/** Position, level, RIP, bytes, instruction, what changed. RIP is left out of that, for the next line tells it. */
function stepLine(step: TraceStep, symbols: LevelSymbols, colors: Colors): string {
  const place = colors.dim(pad(formatPosition(step.position), POSITION_COLUMNS));
  if (step.kind === 'event') {
    const { event, level } = step.event;
    const text = symbols.inEvent(eventText(step.event), event, level);
    return `${place} ${colors.yellow(`* ${text}`)}${writesText(step.writes, colors)}`;
  }
  const bytes = [...step.bytes].map((byte) => hex(byte, 2)).join('');
  const told = [
    ...[place, `L${step.level}`, hex(step.rip, 16), colors.dim(pad(bytes, BYTES_COLUMNS))],
    ...(symbols.isEmpty ? [] : [colors.dim(pad(symbols.textOf(step.level, step.rip) ?? '', NAME_COLUMNS))]),
    pad(symbols.inCode(step.level, step.text), TEXT_COLUMNS),
  ].join(' ');
  return `${told}${registersText(step, colors)}${writesText(step.writes, colors)}`.trimEnd();
}

function registersText({ registers }: TracedInstruction, { cyan, dim }: Colors): string {
  const changed = registers.filter(({ register }) => register !== 'rip');
  const shown = changed.slice(0, LISTED_REGISTERS).map(({ register, value }) => ` ${cyan(register)}=${hex(value)}`);
  const more = changed.length - shown.length;
  return shown.join('') + (more > 0 ? dim(` +${more}`) : '');
}

const LISTED_BYTES = 32;

const writesText = (writes: readonly MemoryWrite[], { green }: Colors): string =>
  writes
    .map(({ linear, physical, bytes, device }) => {
      const where = linear === undefined ? `phys:${hex(physical)}` : `${hex(linear)} phys:${hex(physical)}`;
      const shown = Buffer.from(bytes.subarray(0, LISTED_BYTES)).toString('hex');
      return ` ${green(`[${where}${device ? ' device' : ''}]`)}:=${shown}${bytes.length > LISTED_BYTES ? '…' : ''}`;
    })
    .join('');

const writesJson = (writes: readonly MemoryWrite[]): readonly object[] =>
  writes.map(({ linear, physical, bytes, device }) => ({
    ...(linear === undefined ? {} : { linear: `0x${hex(linear)}` }),
    physical: `0x${hex(physical)}`,
    bytes: Buffer.from(bytes).toString('hex'),
    ...(device ? { device } : {}),
  }));

function stepJson(step: TraceStep, symbols: LevelSymbols): string {
  const { kind, position, event } = step;
  const told =
    event === undefined
      ? {}
      : {
          event: event.event.type,
          eventText: eventText(event),
          payload: JSON.parse(payloadJson(event.event)) as object,
        };
  if (kind === 'event') {
    const { vcpu, level } = step.event;
    return JSON.stringify({
      kind,
      position: formatPosition(position),
      vcpu,
      level,
      ...told,
      writes: writesJson(step.writes),
    });
  }
  const { vcpu, level, rip, bytes, text, registers, writes } = step;
  const symbol = symbols.textOf(level, rip);
  return JSON.stringify({
    ...{ kind, position: formatPosition(position), vcpu, level, rip: `0x${hex(rip)}` },
    ...(symbol === undefined ? {} : { symbol }),
    bytes: Buffer.from(bytes).toString('hex'),
    text,
    registers: Object.fromEntries(registers.map(({ register, value }) => [register, `0x${hex(value)}`])),
    writes: writesJson(writes),
    ...told,
  });
}

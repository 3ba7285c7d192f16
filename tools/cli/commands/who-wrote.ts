/** `vmtape who-wrote TAPE WHAT`: the last step that wrote to RAM, or that changed a register, an MSR or a device. */
import type { Command } from 'commander';
import {
  DerivedDataFile,
  formatPosition,
  JournalError,
  type JournalReader,
  type Position,
  sqliteStore,
  type WriteStretch,
} from '../../../src/journal/index.js';
import { type Machine, R } from '../../../src/machine/index.js';
import {
  type Control,
  covers,
  disassemble,
  eventText,
  finish,
  goingBackToChange,
  indexWrites,
  lastWriter,
  resolvePosition,
  Timeline,
  type WatchedValue,
  type WriteStep,
} from '../../../src/replay/index.js';
import { runningOn, viewOf } from '../../debug/views.js';
import { parseWhat, type What } from '../../debug/what.js';
import type { LevelSymbols } from '../../symbols/level-symbols.js';
import { loadSymbols, symbolsOption } from '../../symbols/load.js';
import type { SymbolSource } from '../../symbols/source.js';
import { parseCount } from '../arguments.js';
import { command, terminalOf } from '../command.js';
import { Status, UsageError } from '../failure.js';
import { hex, shortCount } from '../format.js';
import { codePlace, registersOf } from '../machine-view.js';
import type { Terminal } from '../terminal.js';

interface WhoWroteOptions {
  readonly before?: string;
  readonly length: number;
  readonly vcpu?: number;
  readonly symbols?: readonly SymbolSource[];
}

const PROGRESS_MILLISECONDS = 250;
const WIDEST = 4096;

export function whoWroteCommand(program: Command): void {
  const asking = command(
    program,
    'who-wrote',
    'the last step that wrote to an address, a VMCB field, page tables, a register or a device',
    'vmtape who-wrote guest.vmtape 0x101f80 --before 500000',
    "vmtape who-wrote guest.vmtape vmcb.nestedCr3 --before 'vmexit:npf[-1]'",
    'vmtape who-wrote guest.vmtape msr.0xc0000082',
    'vmtape who-wrote guest.vmtape walk:0x40001128',
    'vmtape who-wrote linux.vmtape vmcb.rip --symbols ram',
  );
  symbolsOption(asking)
    .argument('<tape>')
    .argument(
      '<what>',
      'ADDR (linear, at the level that runs there), phys:ADDR, vmcb.FIELD, walk:ADDR (the page-table entries that ' +
        'translate it), msr.N, a register, or device.NAME, as device.pit.channels[0].mode',
    )
    .option('--before <pos>', 'what happened from there on does not count (default: end)')
    .option('--length <n>', 'bytes from the address on', (text) => parseCount(text, '--length', 1), 8)
    .option('--vcpu <n>', 'of which vCPU a register is meant (default: the one whose turn it is there)', (text) =>
      parseCount(text, '--vcpu', 0),
    )
    .action(async (tape: string, what: string, options: WhoWroteOptions, self: Command) => {
      if (options.length > WIDEST) throw new UsageError(`--length ${options.length} is more than ${WIDEST}.`);
      const reader = sqliteStore(tape).read();
      try {
        process.exitCode = await whoWrote(tape, reader, what, options, terminalOf(self));
      } finally {
        reader.close();
      }
    });
}

async function whoWrote(
  tape: string,
  reader: JournalReader,
  what: string,
  options: WhoWroteOptions,
  terminal: Terminal,
): Promise<number> {
  const limit = resolvePosition(reader, options.before ?? 'end');
  const symbols = loadSymbols(reader, options.symbols);
  const timeline = new Timeline(reader);
  const control = progress(terminal, 'searching');
  const place = timeline.seek(limit, control);
  const asked = askedFor(timeline.machine, what, options);
  const ranges = asked.values.flatMap((value) => value.ranges);
  const [value] = asked.values;
  const step =
    ranges.length > 0 || value === undefined
      ? lastWriter(timeline, writeIndex(tape, reader, terminal), ranges, place, control)
      : finish(goingBackToChange(timeline, value), control);
  terminal.clearStatus();
  if (step === undefined) {
    const earlier = reader.header.origin === undefined ? '' : ', on this tape: it goes on from another';
    const nobody = `nothing wrote to ${asked.name} before ${formatPosition(place)}${earlier}`;
    if (terminal.json) await terminal.document({ tape, what: asked.name, before: formatPosition(place), found: false });
    else await terminal.print([`${tape}: ${nobody}`]);
    return Status.NO;
  }
  await report(tape, reader, { timeline, symbols }, asked, step, terminal);
  timeline.close();
  return Status.DONE;
}

function askedFor(machine: Machine, what: string, { length, vcpu }: WhoWroteOptions): What {
  const at = vcpu ?? machine.state.schedule.vcpu;
  if (at >= machine.state.vcpus.length)
    throw new UsageError(`--vcpu ${at}: the machine has ${machine.state.vcpus.length}.`);
  return parseWhat(what, { machine, view: viewOf(machine, runningOn(machine, at)), length });
}

/** The tape's index; made now, and kept beside the events where the tape may be written to. */
function writeIndex(tape: string, reader: JournalReader, terminal: Terminal): readonly WriteStretch[] {
  const known = reader.writeIndex();
  if (known !== undefined && covers(known, reader)) return known;
  const { tick } = progress(terminal, 'indexing writes, once for this tape');
  const index = indexWrites(reader, tick) ?? [];
  try {
    const file = DerivedDataFile.open(tape);
    try {
      file.putWriteIndex(index);
    } finally {
      file.close();
    }
  } catch (error) {
    // It serves this once all the same.
    if (!(error instanceof JournalError)) throw error;
    terminal.say(`vmtape: the index of writes is not kept: ${error.message}`);
  }
  return index;
}

function progress(terminal: Terminal, doing: string): Required<Control> {
  let told = performance.now();
  return {
    tick: ({ icount }: Position) => {
      if (!terminal.showsStatus || performance.now() - told < PROGRESS_MILLISECONDS) return false;
      told = performance.now();
      terminal.status(`${doing}: at ${shortCount(Number(icount))} instructions`);
      return false;
    },
  };
}

/** What the step did. The timeline stands before it. */
async function report(
  tape: string,
  reader: JournalReader,
  { timeline, symbols }: { readonly timeline: Timeline; readonly symbols: LevelSymbols },
  { name, values }: What,
  { before, after }: WriteStep,
  terminal: Terminal,
): Promise<void> {
  const { machine } = timeline;
  const texts = (): readonly string[] => values.map((value) => valueText(value, machine));
  const { level, vcpu } = machine;
  const rip = registersOf(machine.state)[R.rip] ?? 0n;
  const [instruction] = disassemble(codePlace(machine), rip, 1);
  const old = texts();
  timeline.step();
  const now = texts();
  const isOther = (text: string, index: number): boolean => text !== (old[index] as string);
  // Of several entries those that became others, or the first when none did.
  const [shown = 0] = [now.findIndex(isOther), 0].filter((index) => index >= 0);
  const events = eventsOf(reader, symbols, before, timeline.position);
  const symbol = symbols.textOf(level, rip);
  const code = instruction === undefined ? undefined : symbols.inCode(level, instruction.text);
  const found = {
    before: formatPosition(before),
    after: formatPosition(after),
    vcpu,
    level: `L${level}`,
    rip: `0x${hex(rip)}`,
    ...(symbol === undefined ? {} : { symbol }),
    old: old[shown] ?? '',
    new: now[shown] ?? '',
    events,
  };
  if (terminal.json) {
    await terminal.document({
      tape,
      what: name,
      found: true,
      ...found,
      instruction: code ?? null,
    });
    return;
  }
  const { bold, dim } = terminal.colors;
  await terminal.print([
    `${bold(name)} was last written at ${bold(found.after)} by vCPU ${vcpu}, L${level}`,
    `  ${[hex(rip, 16), symbol, code].filter((part) => part !== undefined).join('  ')}`,
    `  ${values.length > 1 ? `${values[shown]?.name}: ` : ''}${found.old}  →  ${found.new}`,
    ...events.map((text) => `  ${text}`),
    dim(`  before it: vmtape show ${tape} ${found.before} --disassemble 3`),
  ]);
}

/** RAM byte by byte, as it lies there. */
const valueText = (value: WatchedValue, machine: Machine): string =>
  value.ranges.length === 0
    ? value.read(machine)
    : value.ranges
        .flatMap(({ address, length }) => [...machine.memory.window(address, length)])
        .map((byte) => hex(byte, 2))
        .join(' ');

/** What the step stated. */
function eventsOf(
  reader: JournalReader,
  symbols: LevelSymbols,
  { seq }: Position,
  { seq: end }: Position,
): readonly string[] {
  const texts: string[] = [];
  if (seq === end) return texts;
  for (const record of reader.records(seq)) {
    if (record.position.seq >= end) break;
    if (record.event.type !== 'cpu.ran') texts.push(symbols.inEvent(eventText(record), record.event, record.level));
  }
  return texts;
}

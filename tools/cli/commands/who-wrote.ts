/** `vmtape who-wrote TAPE WHAT`: the last step that wrote to an address, a VMCB field, a register or an MSR. */
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
import { R, REGISTER_NAMES, type Slot, slotOfMsr, VMCB, type WatchedRange } from '../../../src/machine/index.js';
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
  type WriteStep,
} from '../../../src/replay/index.js';
import { runningOn, viewOf, watchedRanges } from '../../debug/views.js';
import { parseCount, parseU64, quote } from '../arguments.js';
import { command, terminalOf } from '../command.js';
import { Status, UsageError } from '../failure.js';
import { hex, shortCount } from '../format.js';
import { codePlace, currentVmcb, registersOf } from '../machine-view.js';
import type { Terminal } from '../terminal.js';

interface WhoWroteOptions {
  readonly before?: string;
  readonly length: number;
  readonly vcpu?: number;
}

/** What is asked for: RAM, or a register of a vCPU. */
type Subject =
  | { readonly kind: 'ram'; readonly ranges: readonly WatchedRange[]; readonly name: string }
  | { readonly kind: 'register'; readonly slot: Slot; readonly vcpu: number; readonly name: string };

const PROGRESS_MILLISECONDS = 250;
const WIDEST = 4096;

export function whoWroteCommand(program: Command): void {
  command(
    program,
    'who-wrote',
    'the last step that wrote to an address, a VMCB field, a register or an MSR',
    'vmtape who-wrote guest.vmtape 0x101f80 --before 500000',
    "vmtape who-wrote guest.vmtape vmcb.nestedCr3 --before 'vmexit:npf[-1]'",
    'vmtape who-wrote guest.vmtape msr.0xc0000082',
  )
    .argument('<tape>')
    .argument('<what>', 'ADDR (linear, at the level that runs there), phys:ADDR, vmcb.FIELD, msr.N, or a register')
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
  const timeline = new Timeline(reader);
  const control = progress(terminal, 'searching');
  const place = timeline.seek(limit, control);
  const subject = subjectOf(timeline, what, options);
  const step =
    subject.kind === 'ram'
      ? lastWriter(timeline, writeIndex(tape, reader, terminal), subject.ranges, place, control)
      : finish(goingBackToChange(timeline, reader, subject), control);
  terminal.clearStatus();
  if (step === undefined) {
    const earlier = reader.header.origin === undefined ? '' : ', on this tape: it goes on from another';
    const nobody = `nothing wrote to ${subject.name} before ${formatPosition(place)}${earlier}`;
    if (terminal.json)
      await terminal.document({ tape, what: subject.name, before: formatPosition(place), found: false });
    else await terminal.print([`${tape}: ${nobody}`]);
    return Status.NO;
  }
  await report(tape, reader, timeline, subject, step, terminal);
  timeline.close();
  return Status.DONE;
}

function subjectOf({ machine }: Timeline, what: string, { length, vcpu }: WhoWroteOptions): Subject {
  const at = vcpu ?? machine.state.schedule.vcpu;
  if (at >= machine.state.vcpus.length)
    throw new UsageError(`--vcpu ${at}: the machine has ${machine.state.vcpus.length}.`);
  const field = /^vmcb\.(\w+)$/i.exec(what)?.[1];
  if (field !== undefined) return vmcbSubject(machine, field);
  const msr = /^msr\.(\w+)$/i.exec(what)?.[1];
  if (msr !== undefined) {
    const number = Number(parseU64(msr, 'the MSR'));
    const slot = slotOfMsr(number);
    if (slot === undefined)
      throw new UsageError(`MSR ${hex(number)}h is no register that keeps what is written to it.`);
    return { kind: 'register', slot, vcpu: at, name: `MSR ${hex(number)}h of vCPU ${at}` };
  }
  const register = REGISTER_NAMES.findIndex((name) => name.toLowerCase() === what.toLowerCase());
  if (register >= 0) {
    return { kind: 'register', slot: register as Slot, vcpu: at, name: `${REGISTER_NAMES[register]} of vCPU ${at}` };
  }
  const physical = /^phys:(.+)$/.exec(what)?.[1];
  const address = parseU64(physical ?? what, 'the address');
  const ranges =
    physical === undefined
      ? watchedRanges(machine, viewOf(machine, runningOn(machine, at)), address, length)
      : machine.memory.isRam(Number(address), length)
        ? [{ address: Number(address), length }]
        : undefined;
  if (ranges === undefined) {
    throw new UsageError(`${quote(what)} is not RAM${physical === undefined ? ', or not mapped there' : ''}.`);
  }
  const places = ranges.map((range) => `${hex(range.address)}h`).join(', ');
  return {
    kind: 'ram',
    ranges,
    name: physical === undefined ? `${hex(address)}h (physical ${places})` : `physical ${places}`,
  };
}

function vmcbSubject({ state }: Timeline['machine'], field: string): Subject {
  const vmcb = currentVmcb(state);
  if (vmcb === undefined) throw new UsageError('no VMCB was used up to there. Choose a later --before.');
  const known = Object.entries(VMCB.fields).find(([name]) => name.toLowerCase() === field.toLowerCase());
  if (known === undefined) throw new UsageError(`vmcb.${field} is no field. vmtape show --vmcb lists them.`);
  const [name, { offset, bytes }] = known;
  const address = Number(vmcb.address);
  return {
    kind: 'ram',
    ranges: [{ address: address + offset, length: bytes }],
    name: `${name} of the VMCB at ${hex(address)}h`,
  };
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
  timeline: Timeline,
  subject: Subject,
  { before, after }: WriteStep,
  terminal: Terminal,
): Promise<void> {
  const { machine } = timeline;
  const value = (): string => {
    if (subject.kind === 'ram') {
      const bytes = subject.ranges.flatMap(({ address, length }) => [...machine.memory.window(address, length)]);
      return bytes.map((byte) => hex(byte, 2)).join(' ');
    }
    return `${hex(machine.state.vcpus[subject.vcpu]?.registers[subject.slot] ?? 0n)}h`;
  };
  const { level, vcpu } = machine;
  const rip = registersOf(machine.state)[R.rip] ?? 0n;
  const [instruction] = disassemble(codePlace(machine), rip, 1);
  const old = value();
  timeline.step();
  const events = eventsOf(reader, before, timeline.position);
  const found = {
    before: formatPosition(before),
    after: formatPosition(after),
    vcpu,
    level: `L${level}`,
    rip: `0x${hex(rip)}`,
    old,
    new: value(),
    events,
  };
  if (terminal.json) {
    await terminal.document({
      tape,
      what: subject.name,
      found: true,
      ...found,
      instruction: instruction?.text ?? null,
    });
    return;
  }
  const { bold, dim } = terminal.colors;
  await terminal.print([
    `${bold(subject.name)} was last written at ${bold(found.after)} by vCPU ${vcpu}, L${level}`,
    `  ${hex(rip, 16)}  ${instruction?.text ?? ''}`,
    `  ${found.old}  →  ${found.new}`,
    ...events.map((text) => `  ${text}`),
    dim(`  before it: vmtape show ${tape} ${found.before} --disassemble 3`),
  ]);
}

/** What the step stated. */
function eventsOf(reader: JournalReader, { seq }: Position, { seq: end }: Position): readonly string[] {
  const texts: string[] = [];
  if (seq === end) return texts;
  for (const record of reader.records(seq)) {
    if (record.position.seq >= end) break;
    if (record.event.type !== 'cpu.ran') texts.push(eventText(record));
  }
  return texts;
}

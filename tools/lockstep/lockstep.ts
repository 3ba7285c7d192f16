/**
 * A tape against another machine, in lockstep: the first instruction after which the two are not in the same state.
 *
 * A machine that takes inputs does all else by itself: it is brought along in strides, and where a stride ends otherwise it is
 * started anew and the stride halved, down to single instructions. A machine that is only stepped, such as QEMU under gdb, is
 * compared after each instruction; what its own surroundings would do (interrupts, time, device registers) is written over
 * it as the tape has it, and counted.
 */
import { type JournalReader, type Position, toHex } from '../../src/journal/index.js';
import {
  codeBits,
  decodeDelta,
  type EventOf,
  ExitCode,
  exitName,
  isInput,
  type MachineEvent,
  PAGE_BYTES,
  R,
  sPA,
} from '../../src/machine/index.js';
import { imageOf, RamDigester, sessionConfig, type TraceStep } from '../../src/replay/index.js';
import {
  byNature,
  type Compared,
  comparedRegisters,
  differencesOf,
  type FieldDifference,
  inLegacyMode,
  isUndefinedFlags,
} from './compare.js';
import { explained } from './known-differences.js';
import type { Peer } from './peer.js';
import { hexValue, inputJson, type MemoryText, type RegisterTexts } from './protocol.js';
import { Recording, type Taken } from './recording.js';
import { bootOf, inputsBetween } from './tape-inputs.js';

export type TracedInstruction = Extract<TraceStep, { readonly kind: 'instruction' }>;

export interface LockstepOptions {
  /** Instructions to compare; all of the tape's without. */
  readonly most?: bigint | undefined;
  /** Stop at differences that lie in what the machines are, too. */
  readonly strict: boolean;
  /** Compare RAM that an instruction writes, too. */
  readonly memory: boolean;
  /** Instructions of the first stride, for machines that take inputs. */
  readonly stride?: number;
  readonly tick?: (icount: bigint) => void;
}

export interface PartsDifference {
  /** The place before the step that differs. */
  readonly position: Position;
  /** The step; undefined when the machines differ in RAM alone, or one of them has ended. */
  readonly step: TraceStep | undefined;
  readonly fields: readonly FieldDifference[];
  /** RAM that the step wrote, and what the other machine has there. */
  readonly memory: readonly { readonly address: number; readonly first: string; readonly second: string }[];
  readonly why: string;
}

export interface LockstepResult {
  /** The other machine, as it calls itself. */
  readonly other: string;
  /** Instructions after which both were the same. */
  readonly compared: bigint;
  readonly differs: PartsDifference | undefined;
  /** Where it came to. */
  readonly end: Position;
  /** Why it goes no further, where that is no difference. */
  readonly stopped: string | undefined;
  /** Differences that were passed over, by reason. */
  readonly passed: ReadonlyMap<string, number>;
  /** The last instructions that both did alike, the latest last. */
  readonly recent: readonly TracedInstruction[];
}

const STRIDE = 1 << 20;
const NARROWING = 32;
/** A stride that is gone through by single instructions. */
const SINGLE = 1024;
/** Where RAM is held against RAM after each of them, too. */
const SINGLE_WITH_RAM = 32;
const MOST_RANGES = 16;
/** Bytes that are asked for at once. */
const ASKED_BYTES = 1 << 20;
/** Instructions that are looked back at for flags that one of them leaves undefined. */
const REMEMBERED = 64;
const SHOWN = 5;

/** Exits that no instruction causes. */
const BY_EVENT: ReadonlySet<bigint> = new Set([
  ExitCode.INTR,
  ExitCode.NMI,
  ExitCode.SMI,
  ExitCode.INIT,
  ExitCode.VINTR,
]);

/** Events that one instruction may lead to, and how many of them. */
const IN_ONE_STEP: ReadonlySet<string> = new Set(['cpu.exception', 'svm.injected', 'svm.vmexit']);
const DELIVERIES = 3;

export class Lockstep {
  private readonly recording: Recording;
  private readonly boot: EventOf<'input.boot'>;
  private shared: readonly Compared[] = [];
  private legacy: readonly Compared[] = [];
  private peer: Peer;
  private readonly passed = new Map<string, number>();
  private latest: TracedInstruction[] = [];
  private compared = 0n;
  private stopped: { readonly position: Position; readonly why: string } | undefined;

  /** @param start makes the other machine, as often as it is needed. @throws InputError for a tape that does not begin with a boot. */
  constructor(
    private readonly reader: JournalReader,
    private readonly start: () => Peer,
    private readonly options: LockstepOptions,
  ) {
    this.boot = bootOf(reader);
    this.recording = new Recording(reader);
    this.peer = start();
  }

  async run(): Promise<LockstepResult> {
    try {
      await this.greet();
      const differs = this.peer.can('raise')
        ? await this.byStrides()
        : await this.single(this.recording.start, this.last);
      const { passed, compared } = this;
      const { stopped } = this;
      const end = differs?.position ?? stopped?.position ?? this.last;
      return {
        other: this.peer.name,
        compared,
        differs,
        end,
        stopped: stopped?.why,
        passed,
        recent: this.latest.slice(-SHOWN),
      };
    } finally {
      await this.peer.close();
      this.recording.close();
    }
  }

  /** How far to compare. */
  private get last(): Position {
    const { most } = this.options;
    const { end } = this.recording;
    return most === undefined || most >= end.icount ? end : { icount: most, seq: end.seq };
  }

  private async greet(): Promise<void> {
    const { machine, sliceInstructions } = sessionConfig(this.reader.header);
    const image = Buffer.from(imageOf(this.reader, this.boot).bytes).toString('base64');
    const entry = hexValue(new Map(decodeDelta(this.boot.registers)).get(R.rip) ?? 0n);
    const { commandLine } = this.boot;
    await this.peer.hello({ machine: { ...machine }, sliceInstructions, image, commandLine, entry });
    this.shared = comparedRegisters(this.peer.registers);
    this.legacy = inLegacyMode(this.shared);
  }

  private async restart(): Promise<void> {
    await this.peer.close();
    this.peer = this.start();
    await this.greet();
  }

  // Machines that take inputs

  private async byStrides(): Promise<PartsDifference | undefined> {
    const last = this.last.icount;
    let from = 0n;
    const finest = BigInt(this.comparesRam ? SINGLE_WITH_RAM : SINGLE);
    const longest = BigInt(this.options.stride ?? STRIDE);
    for (let stride = longest < last ? longest : last; ; stride = stride / BigInt(NARROWING) || 1n) {
      const agreed = await this.strides(from, last, stride);
      if (agreed === undefined) return undefined;
      from = agreed;
      if (!this.peer.can('deterministic')) {
        return this.otherwise(
          this.recording.to(from),
          'within this stride; the machine cannot be started anew to narrow it',
        );
      }
      await this.restart();
      if (stride <= finest) break;
    }
    const to = { icount: from + finest * BigInt(NARROWING), seq: this.recording.end.seq };
    await this.bring(0n, from);
    this.compared = from;
    const place = this.recording.to(from);
    const found = await this.single(place, to.icount < this.last.icount ? to : this.last);
    return found ?? this.otherwise(place, 'RAM or state that no register shows');
  }

  /** Machines of one name have digests of RAM that can be held against each other. */
  private get comparesRam(): boolean {
    return this.peer.name.startsWith('vmtape') && this.peer.can('raise');
  }

  private otherwise(position: Position, why: string): PartsDifference {
    return { position, step: undefined, fields: [], memory: [], why };
  }

  /** @returns the last place at which both were the same; undefined when they are to the end. */
  private async strides(from: bigint, last: bigint, stride: bigint): Promise<bigint | undefined> {
    await this.bring(0n, from);
    const digester = new RamDigester(this.recording.machine.memory);
    for (let at = from; at < last; ) {
      const next = at + stride < last ? at + stride : last;
      const stop = await this.bring(at, next);
      const { icount } = this.recording.to(next);
      const state = await this.peer.ask({ op: 'state' });
      const fields = this.differences(this.recording.registers(), registersIn(state));
      const ram = this.comparesRam && typeof state.ram === 'string' && state.ram !== toHex(digester.digest());
      if (fields.length > 0 || ram || (stop !== undefined && icount < last)) return at;
      this.compared = icount;
      this.options.tick?.(icount);
      at = next;
    }
    return undefined;
  }

  /** Brings the other machine along, with the inputs of the tape. @returns why it stopped before. */
  private async bring(from: bigint, to: bigint): Promise<string | undefined> {
    let at = from;
    for (const { event, icount, due } of inputsBetween(this.reader, from, to)) {
      const stop = await this.advance(icount - at);
      if (stop !== undefined) return stop;
      at = icount;
      // What was due there came before it.
      if (due) await this.peer.ask({ op: 'step', instructions: 0 });
      await this.peer.ask({ op: 'raise', event: inputJson(event) });
    }
    return await this.advance(to - at);
  }

  private async advance(instructions: bigint): Promise<string | undefined> {
    if (instructions <= 0n) return undefined;
    const { stop } = await this.peer.ask({ op: 'step', instructions: Number(instructions) });
    return stop === 'count' ? undefined : String(stop);
  }

  // One instruction at a time

  private async single(from: Position, to: Position): Promise<PartsDifference | undefined> {
    const raises = this.peer.can('raise');
    const digester = this.comparesRam ? new RamDigester(this.recording.machine.memory) : undefined;
    // Where a tape has its events is not where this ends: instructions are counted.
    for (const taken of this.recording.steps(from, this.recording.end, digester)) {
      const { step } = taken;
      if (step.position.icount >= to.icount && step.kind === 'instruction') return undefined;
      // What stands at the first place was done on the way to it.
      if (raises && from.icount > 0n && step.kind === 'event' && step.position.icount <= from.icount) continue;
      const found =
        step.kind === 'event' ? await this.event(taken, step.event.event) : await this.instruction(taken, step);
      if (found !== undefined) return found;
      if (this.stopped !== undefined) return undefined;
      if (step.kind === 'instruction') {
        this.latest.push(step);
        if (this.latest.length > REMEMBERED) this.latest.shift();
        this.compared = step.position.icount + 1n;
        if (this.compared % 256n === 0n) this.options.tick?.(this.compared);
      }
    }
    return undefined;
  }

  private async event(taken: Taken, event: MachineEvent): Promise<PartsDifference | undefined> {
    if (this.peer.can('raise')) {
      if (isInput(event)) await this.peer.ask({ op: 'raise', event: inputJson(event) });
      return undefined;
    }
    switch (event.type) {
      case 'input.boot':
        await this.adopt(taken);
        return undefined;
      // The instruction ends in them by itself.
      case 'cpu.exception':
        return await this.stepped(taken, undefined);
      case 'svm.vmexit':
        if (!BY_EVENT.has(event.code)) return await this.stepped(taken, undefined);
        // It would still be in guest mode, whatever is written over its registers.
        this.stopped = {
          position: taken.step.position,
          why: `#VMEXIT(${exitName(event.code)}) ends L2 here, which cannot be given to a machine that is only stepped`,
        };
        return undefined;
      case 'cpu.interrupt':
        this.pass('interrupts: none comes in single steps, so they are given');
        await this.write(taken);
        return undefined;
      default:
        // Whatever else moves registers between instructions: an injected event, INIT, a wake-up.
        if ('registers' in event && event.registers.length > 0) {
          this.pass(`${event.type}: written over it`);
          await this.write(taken);
        }
        return undefined;
    }
  }

  private async instruction(taken: Taken, step: TracedInstruction): Promise<PartsDifference | undefined> {
    if (this.peer.can('raise')) return await this.stepped(taken, step);
    if (step.event?.event.type === 'cpu.halted') {
      // Nothing would ever wake it.
      this.pass('HLT and MWAIT: passed over, as no interrupt would come');
      await this.write(taken);
      return undefined;
    }
    return await this.stepped(taken, step);
  }

  /** Does the step in the other machine and compares. @param step the instruction; undefined for one that faults or exits. */
  private async stepped(taken: Taken, step: TracedInstruction | undefined): Promise<PartsDifference | undefined> {
    const { position } = taken.step;
    const answer = await this.peer.ask({ op: 'step', instructions: 1, state: true });
    if (answer.stop === 'ended' || answer.stop === 'waits') {
      return position.icount + 1n >= this.recording.end.icount
        ? undefined
        : {
            ...this.otherwise(
              position,
              `${this.peer.name} ${answer.stop === 'ended' ? 'ends here' : 'waits here for an input'}`,
            ),
            step: taken.step,
          };
    }
    const fields = this.differences(taken.registers, registersIn(answer));
    const memory = await this.differentMemory(taken);
    if (fields.length === 0 && memory.length === 0) return undefined;
    if (memory.length === 0 && this.hasDelivered(registersIn(answer))) return undefined;
    const why = step === undefined ? undefined : this.passable(step, fields);
    if (why !== undefined && memory.length === 0) {
      this.pass(why);
      await this.write(taken);
      return undefined;
    }
    return {
      position,
      step: taken.step,
      fields,
      memory,
      why: explained(
        this.peer.name,
        taken.step,
        fields,
        memory.map(({ address }) => address),
      ),
    };
  }

  /**
   * A single step of QEMU ends after what the instruction leads to: the trap that it ends with, the event that VMRUN injects.
   * @returns whether the other machine is where the next events bring the tape, which are done then.
   */
  private hasDelivered(theirs: RegisterTexts): boolean {
    if (this.peer.can('raise')) return false;
    for (let count = 1; count <= DELIVERIES; count++) {
      const next = this.recording.peek(count - 1);
      if (next?.step.kind !== 'event' || !IN_ONE_STEP.has(next.step.event.event.type)) return false;
      if (this.differences(next.registers, theirs).length > 0) continue;
      this.recording.skip(count);
      return true;
    }
    return false;
  }

  /** Why a difference is no fault of either; undefined when it may be one. */
  private passable(step: TracedInstruction, fields: readonly FieldDifference[]): string | undefined {
    if (!this.peer.can('override')) return undefined;
    if (isUndefinedFlags(fields, [step, ...[...this.latest].reverse()]))
      return 'flags that an instruction leaves undefined';
    return this.options.strict || this.peer.can('raise') ? undefined : byNature(step.text);
  }

  private pass(why: string): void {
    this.passed.set(why, (this.passed.get(why) ?? 0) + 1);
  }

  private async differentMemory({ step, ram }: Taken): Promise<PartsDifference['memory']> {
    const found: PartsDifference['memory'][number][] = [];
    if (!this.peer.can('memory')) return found;
    // What a world switch writes is looked at where it is written.
    const isSwitch = step.event?.event.type === 'svm.vmexit' || step.event?.event.type === 'svm.vmrun';
    if (!(this.options.memory || this.peer.can('raise') || isSwitch)) return found;
    for (const { physical, bytes, device } of step.writes) {
      if (device) continue;
      const answer = await this.peer.ask({ op: 'memory', address: hexValue(physical), length: bytes.length });
      const first = toHex(bytes);
      if (answer.bytes !== first) found.push({ address: physical, first, second: String(answer.bytes) });
    }
    if (found.length > 0 || ram === undefined) return found;
    const theirs = await this.peer.ask({ op: 'state' });
    return theirs.ram === ram ? found : await this.differentRanges();
  }

  /** Where RAM differs, whoever wrote it. */
  private async differentRanges(): Promise<PartsDifference['memory']> {
    const { memory } = this.recording.machine;
    const found: PartsDifference['memory'][number][] = [];
    for (const [from, to] of memory.ramRanges()) {
      for (let address = from; address < to && found.length < MOST_RANGES; address += ASKED_BYTES) {
        const length = Math.min(ASKED_BYTES, to - address);
        const { bytes } = await this.peer.ask({ op: 'memory', address: hexValue(address), length });
        const theirs = Buffer.from(String(bytes), 'hex');
        for (const [start, end] of differentBytes(memory.window(sPA(address), length), theirs)) {
          const first = toHex(memory.window(sPA(address + start), end - start));
          found.push({ address: address + start, first, second: theirs.toString('hex', start, end) });
        }
      }
    }
    return found.slice(0, MOST_RANGES);
  }

  /** Writes the tape's registers over the other machine's, and what the step wrote to RAM. */
  private async write({ step, registers }: Taken): Promise<void> {
    const memory = step.writes
      .filter(({ device }) => !device)
      .map(({ physical, bytes }): MemoryText => ({ address: hexValue(physical), bytes: toHex(bytes) }));
    await this.peer.ask({ op: 'override', registers: this.texts(registers), memory });
  }

  /** The same RAM and registers to begin with: each loader tells the guest of another board. */
  private async adopt({ registers }: Taken): Promise<void> {
    const { memory } = this.recording.machine;
    const pages: MemoryText[] = [];
    for (let address = 0; address < memory.ramBytes; address += PAGE_BYTES) {
      const bytes = memory.window(sPA(address), PAGE_BYTES);
      if (bytes.some((byte) => byte !== 0)) pages.push({ address: hexValue(address), bytes: toHex(bytes) });
    }
    await this.peer.ask({ op: 'override', registers: this.texts(registers), memory: pages });
  }

  /** Registers that the other machine shows, and takes, in the mode that the tape's is in. */
  private registersIn(registers: BigUint64Array): readonly Compared[] {
    if (this.peer.can('raise')) return this.shared;
    return codeBits({ get: (slot) => registers[slot] as bigint }) === 64 ? this.shared : this.legacy;
  }

  private differences(registers: BigUint64Array, theirs: RegisterTexts): readonly FieldDifference[] {
    return differencesOf(this.registersIn(registers), registers, theirs);
  }

  private texts(registers: BigUint64Array): RegisterTexts {
    const entries = this.registersIn(registers).map(({ name, slot }) => {
      const value = registers[slot] as bigint;
      return [name, hexValue(name.endsWith('Selector') ? BigInt.asUintN(16, value) : value)] as const;
    });
    return Object.fromEntries(entries);
  }
}

const registersIn = (answer: Readonly<Record<string, unknown>>): RegisterTexts =>
  (answer.registers ?? {}) as RegisterTexts;

/** Stretches in which two equally long stretches of bytes differ. */
function* differentBytes(
  own: Uint8Array,
  theirs: Buffer,
): Generator<readonly [start: number, end: number], void, void> {
  if (theirs.equals(own)) return;
  for (let at = 0; at < own.length; at++) {
    if (own[at] === theirs[at]) continue;
    const start = at;
    while (at < own.length && own[at] !== theirs[at]) at++;
    yield [start, at];
  }
}

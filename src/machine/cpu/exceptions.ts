/**
 * Exceptions and interrupts on their way into a handler: combination into double faults, the interrupt table in all
 * modes, and the loop that delivers an event together with whatever its delivery raises.
 * Source: APM vol.2 §8.2.9 #DF, §8.5 Priorities, §8.6 Real-Mode Interrupt Control Transfers, §8.7 Legacy Protected-Mode
 * Interrupt Control Transfers, §8.8 Virtual-8086 Mode Interrupt Control Transfers, §8.9 Long-Mode Interrupt Control
 * Transfers.
 */
import { GuestFault, generalProtection, Vector } from '../faults.js';
import { Activity, Boundary, decodeDelta, Flag, gprSlot, R, Segment, type Slot } from '../layout/cpu-state.js';
import { isCanonical, u64, uN } from '../units.js';
import { recordDebug } from './debug.js';
import {
  Attribute,
  type Descriptor,
  dplOf,
  isCode,
  isConforming,
  isNull,
  isPresent,
  isTss16,
  loadDescriptor,
  packSegment,
  readDescriptor,
  readTss,
  SystemType,
  selectorError,
  setNull,
} from './descriptors.js';
import { cplOf, isLongMode, isProtected, isVirtual8086, type SlotReader } from './mode.js';
import { checkStackSegment, invalidTss, loadParagraph, segmentNotPresent } from './segments.js';
import { Stack } from './stack.js';
import { switchTask, type TaskSwitched } from './task-switch.js';
import { Access, type Transaction } from './transaction.js';

/** Something that interrupts the instruction stream. */
export interface GuestEvent {
  /**
   * `external`: a maskable interrupt, physical or virtual. `exception`: a fault, a trap, INT3 or INTO (those two have
   * `nextRip`). `software`: INT n. `icebp`: INT1.
   */
  readonly type: 'external' | 'nmi' | 'exception' | 'software' | 'icebp';
  readonly vector: number;
  readonly errorCode?: number | undefined;
  /** What #PF writes to CR2. */
  readonly linear?: bigint | undefined;
  /** What #DB adds to DR6. */
  readonly dr6?: bigint | undefined;
  /** An NMI that blocks no further ones: an injected or a virtual one (APM vol.2 §15.20, §15.21.10). */
  readonly unblocking?: true | undefined;
  /** RIP to save, where it is not the current one: after INT n, INT3, INTO, INT1. */
  readonly nextRip?: bigint | undefined;
}

/** Thrown by INT n, INT3, INTO and INT1: the instruction ends in this event, which the machine delivers. */
export class SoftwareEvent {
  constructor(readonly event: GuestEvent) {}
}

export const eventOfFault = (fault: GuestFault): GuestEvent => ({
  type: 'exception',
  vector: fault.vector,
  errorCode: fault.errorCode,
  linear: fault.linear,
  dr6: fault.dr6,
});

/** Every delivery begins in the same state, so a chain of faults that is longer than this comes round for ever. */
const LONGEST_CHAIN = 64;

const DOUBLE_FAULT: GuestEvent = { type: 'exception', vector: Vector.DF, errorCode: 0 };

/** #SX is one, too (APM vol.2 §15.28 Security Exception (#SX)). */
const CONTRIBUTORY: ReadonlySet<number> = new Set([Vector.DE, Vector.TS, Vector.NP, Vector.SS, Vector.GP, Vector.SX]);

/**
 * What becomes of an exception that arises while `first` is delivered.
 * Source: APM vol.2 §8.2.9 #DF—Double-Fault Exception (table 8-2).
 */
export function combine(first: GuestEvent, second: GuestEvent): 'second' | 'double-fault' | 'shutdown' {
  if (first.type !== 'exception') return 'second';
  const contributory = CONTRIBUTORY.has(second.vector);
  const pageFault = second.vector === Vector.PF;
  if (first.vector === Vector.DF) return contributory || pageFault ? 'shutdown' : 'second';
  if (CONTRIBUTORY.has(first.vector)) return contributory ? 'double-fault' : 'second';
  if (first.vector === Vector.PF) return contributory || pageFault ? 'double-fault' : 'second';
  return 'second';
}

/**
 * Told of every event before it is delivered; throws VmExit where a running guest's hypervisor intercepts it. At that
 * point DR6 and DR7 are those of a #DB, and CR2 is not written (APM vol.2 §15.12 Exception Intercepts).
 * @param during the event whose delivery was cut short by this one: EXITINTINFO.
 */
export type Recognise = (event: GuestEvent, during: GuestEvent | undefined) => void;

/**
 * Delivers `event`, and after it what its delivery raises, until one reaches its handler or the processor shuts down.
 * The transaction then holds the effects of the event returned, the CR2 and DR6 of those before it, and the registers that
 * the caller had set; so it does when `recognise` throws. A NestedPageFault passes through: `recognise` was told of the event that it interrupts.
 * @param after an event whose delivery is over, but for the fault that it left in the task that it switched to.
 * @returns the event that was delivered, and how, or 'shutdown'; 'endless', with nothing in the transaction, when faults
 * that make no double fault follow each other for ever: #AC on a misaligned stack of CPL 3 does so. A processor hangs then.
 */
export function deliverEvent(
  tx: Transaction,
  event: GuestEvent,
  recognise: Recognise,
  after?: GuestEvent,
): Delivered | 'shutdown' | 'endless' {
  const kept = tx.isUntouched ? [] : [...decodeDelta(tx.delta())];
  let during = after;
  let next = event;
  for (let chain = 0; chain < LONGEST_CHAIN; chain++) {
    if (next.vector === Vector.DB && next.dr6 !== undefined) keep(tx, kept, recordDebug(tx, next.dr6));
    recognise(next, during);
    if (next.type === 'exception' && next.vector === Vector.PF && next.linear !== undefined) {
      keep(tx, kept, [[R.cr2, next.linear]]);
    }
    if (during !== undefined) {
      const verdict = combine(during, next);
      if (verdict === 'shutdown') return 'shutdown';
      if (verdict === 'double-fault') {
        next = DOUBLE_FAULT;
        recognise(next, during);
      }
    }
    try {
      return { event: next, task: deliver(tx, next) };
    } catch (fault) {
      if (!(fault instanceof GuestFault)) throw fault;
      tx.abort();
      for (const [slot, value] of kept) tx.set(slot, value);
      during = next;
      next = eventOfFault(fault);
    }
  }
  tx.abort();
  return 'endless';
}

/** An event that reached its handler. */
export interface Delivered {
  readonly event: GuestEvent;
  /** The task switch that took it there, if its gate is a task gate. */
  readonly task: TaskSwitched | undefined;
}

/** @param kept what was kept before; of two values of a slot the later one counts. */
function keep(tx: Transaction, kept: RegisterValue[], changes: readonly RegisterValue[]): void {
  for (const change of changes) {
    kept.push(change);
    tx.set(change[0], change[1]);
  }
}
type RegisterValue = readonly [Slot, bigint];

/** Exceptions whose saved RFLAGS has RF set, so that an instruction breakpoint does not hit again (APM vol.2 §13.1.3). */
export const FAULTS: ReadonlySet<number> = new Set([
  ...[Vector.DE, Vector.BR, Vector.UD, Vector.NM, Vector.TS, Vector.NP, Vector.SS, Vector.GP, Vector.PF],
  ...[Vector.MF, Vector.AC, Vector.XF, Vector.SX],
]);

/**
 * Transfers control to the handler of one event. All of it is in the transaction.
 * @returns the task switch that it took; a fault in the incoming task is still to be delivered.
 * @throws GuestFault when the delivery itself faults; the caller aborts and combines.
 * @throws VmExit when L1 intercepts task switches.
 */
export function deliver(tx: Transaction, event: GuestEvent): TaskSwitched | undefined {
  const frame: Frame = {
    rip: event.nextRip ?? tx.get(R.rip),
    rflags: savedFlags(tx, event),
    ext: isSoftware(event) ? 0 : 1,
  };
  let task: TaskSwitched | undefined;
  if (!isProtected(tx)) deliverReal(tx, event, frame);
  else if (isLongMode(tx)) deliverLong(tx, event, frame);
  else task = deliverLegacy(tx, event, frame);
  const before = tx.get(R.boundary);
  let boundary = before & ~TRANSIENT;
  // A data breakpoint in the shadow of MOV SS outlives INT n and INT3: it traps at their handler (kvm-unit-tests, debug).
  if (isSoftware(event) && (before & Boundary.DEBUG_SHADOW) !== 0n)
    boundary |= before & (0xfn << Boundary.BREAKPOINTS_SHIFT);
  if (event.type === 'nmi' && event.unblocking !== true) boundary |= Boundary.NMI_BLOCKED;
  tx.set(R.boundary, boundary);
  tx.set(R.activity, Activity.RUNNING);
  return task;
}

/** What belongs to the interrupted instruction stream and ends with it. */
const TRANSIENT =
  Boundary.INTERRUPT_SHADOW |
  Boundary.DEBUG_SHADOW |
  Boundary.SINGLE_STEP |
  Boundary.BUS_LOCK |
  (0xfn << Boundary.BREAKPOINTS_SHIFT);

interface Frame {
  readonly rip: bigint;
  readonly rflags: bigint;
  /** The EXT bit of error codes (APM vol.2 §8.4.1). */
  readonly ext: number;
}

/** INT n, INT3 and INTO: the gate's DPL is checked, and errors are the program's own. INT1 counts as hardware. */
const isSoftware = (event: GuestEvent): boolean =>
  event.type === 'software' || (event.type === 'exception' && event.nextRip !== undefined);

function savedFlags(cpu: SlotReader, event: GuestEvent): bigint {
  const rflags = cpu.get(R.rflags);
  if (event.nextRip !== undefined) return rflags & ~Flag.RF;
  return event.type === 'exception' && FAULTS.has(event.vector) ? rflags | Flag.RF : rflags;
}

/** Source: APM vol.2 §8.6 Real-Mode Interrupt Control Transfers. */
function deliverReal(tx: Transaction, event: GuestEvent, frame: Frame): void {
  const { vector } = event;
  if (4 * vector + 3 > Number(tx.get(R.idtrLimit))) throw generalProtection(8 * vector + 2 + frame.ext);
  const entry = tx.readLinear(uN(32, tx.get(R.idtrBase) + BigInt(4 * vector)), 4, Access.IMPLICIT);
  const stack = Stack.current(tx, frame.ext);
  stack.push(2, frame.rflags);
  stack.push(2, tx.get(R.cs) & 0xffffn);
  stack.push(2, frame.rip);
  stack.commit();
  loadParagraph(tx, Segment.CS, Number(entry >> 16n));
  tx.set(R.rip, entry & 0xffffn);
  tx.set(R.rflags, tx.get(R.rflags) & ~(Flag.IF | Flag.TF | Flag.AC | Flag.RF));
}

interface Gate {
  /** The selector is that of a TSS; the rest means nothing. */
  readonly isTask: boolean;
  readonly selector: number;
  readonly offset: bigint;
  /** Bytes of each pushed item: 2, 4 or 8. */
  readonly size: number;
  readonly clearsIf: boolean;
  /** Interrupt stack table entry, 0 for none. */
  readonly ist: number;
}

/** Source: APM vol.2 §4.7.5, §4.8.4 Gate Descriptors; §8.7.1 Locating the Interrupt Handler, §8.9.1. */
function readGate(tx: Transaction, event: GuestEvent, ext: number): Gate {
  const long = isLongMode(tx);
  const bytes = long ? 16 : 8;
  const offset = bytes * event.vector;
  const errorCode = 8 * event.vector + 2 + ext;
  if (offset + bytes - 1 > Number(tx.get(R.idtrLimit))) throw generalProtection(errorCode);
  const linear = tx.get(R.idtrBase) + BigInt(offset);
  tx.readQuad(long ? u64(linear) : uN(32, linear), Access.IMPLICIT);
  const { lowRead: low, highRead: middle } = tx;
  const type = (middle >>> 8) & 0x1f;
  const known = long ? type === 0xe || type === 0xf : [5, 6, 7, 0xe, 0xf].includes(type);
  if (!known) throw generalProtection(errorCode);
  if (isSoftware(event) && ((middle >>> 13) & 3) < cplOf(tx)) throw generalProtection(errorCode);
  if (((middle >>> 15) & 1) === 0) throw segmentNotPresent(errorCode);
  const wide = type >= 0xe;
  const high = long ? tx.readQuad(u64(linear + 8n), Access.IMPLICIT) << 32n : 0n;
  const offsetLow = ((low & 0xffff) | (wide ? middle & 0xffff_0000 : 0)) >>> 0;
  return {
    isTask: type === SystemType.TASK_GATE,
    selector: low >>> 16,
    offset: u64(high | BigInt(offsetLow)),
    size: long ? 8 : wide ? 4 : 2,
    clearsIf: (type & 1) === 0,
    ist: long ? middle & 7 : 0,
  };
}

/** The handler's code segment, and the privilege level that it will run at. */
function readHandler(tx: Transaction, gate: Gate, ext: number): { descriptor: Descriptor; cpl: number } {
  if (isNull(gate.selector)) throw generalProtection(ext);
  const descriptor = readDescriptor(tx, gate.selector, generalProtection, ext);
  const error = selectorError(gate.selector, ext);
  const cpl = cplOf(tx);
  if (!isCode(descriptor) || dplOf(descriptor) > cpl) throw generalProtection(error);
  if (isLongMode(tx) && (descriptor.attributes & (Attribute.LONG | Attribute.BIG)) !== Attribute.LONG) {
    throw generalProtection(error);
  }
  if (!isPresent(descriptor)) throw segmentNotPresent(error);
  return { descriptor, cpl: isConforming(descriptor) ? cpl : dplOf(descriptor) };
}

/** Source: APM vol.2 §8.9 Long-Mode Interrupt Control Transfers; §8.9.4 Interrupt-Stack Table. */
function deliverLong(tx: Transaction, event: GuestEvent, frame: Frame): void {
  const gate = readGate(tx, event, frame.ext);
  const { descriptor, cpl } = readHandler(tx, gate, frame.ext);
  const inner = cpl < cplOf(tx);
  let top = tx.get(gprSlot(4));
  if (gate.ist !== 0) top = readTss(tx, invalidTss, 0x1c + 8 * gate.ist, 8, frame.ext);
  else if (inner) top = readTss(tx, invalidTss, 4 + 8 * cpl, 8, frame.ext);
  const stack = new Stack(tx, {
    word: 0n,
    base: 0n,
    pointer: top & ~0xfn,
    bits: 64,
    cpl,
    errorCode: frame.ext,
    checkType: false,
  });
  const pushed = [tx.get(R.ss) & 0xffffn, tx.get(gprSlot(4)), frame.rflags, tx.get(R.cs) & 0xffffn, frame.rip];
  if (event.errorCode !== undefined) pushed.push(BigInt(event.errorCode));
  stack.pushQuads(pushed);
  if (!isCanonical(gate.offset)) throw generalProtection(frame.ext);
  if (inner) setNull(tx, Segment.SS, cpl);
  enterHandler(tx, gate, descriptor, cpl);
  stack.commit();
}

/** Source: APM vol.2 §8.7 Legacy Protected-Mode Interrupt Control Transfers, §8.8 from virtual-8086 mode. */
function deliverLegacy(tx: Transaction, event: GuestEvent, frame: Frame): TaskSwitched | undefined {
  const gate = readGate(tx, event, frame.ext);
  if (gate.isTask) {
    return switchTask(tx, { cause: 'event', selector: gate.selector, errorCode: event.errorCode, ...frame });
  }
  const { descriptor, cpl } = readHandler(tx, gate, frame.ext);
  const fromVirtual8086 = isVirtual8086(tx);
  if (fromVirtual8086 && cpl !== 0) throw generalProtection(selectorError(gate.selector, frame.ext));
  const inner = cpl < cplOf(tx);
  const { size } = gate;
  let stack = Stack.current(tx, frame.ext);
  let newStack: InnerStack | undefined;
  if (inner) {
    newStack = innerStack(tx, cpl, frame.ext);
    stack = newStack.stack;
    if (fromVirtual8086) {
      for (const slot of [R.gs, R.fs, R.ds, R.es]) stack.push(size, tx.get(slot) & 0xffffn);
    }
    stack.push(size, tx.get(R.ss) & 0xffffn);
    stack.push(size, tx.get(gprSlot(4)));
  }
  stack.push(size, frame.rflags);
  stack.push(size, tx.get(R.cs) & 0xffffn);
  stack.push(size, frame.rip);
  if (event.errorCode !== undefined) stack.push(size, BigInt(event.errorCode));
  if (gate.offset > BigInt(descriptor.limit)) throw generalProtection(frame.ext);
  if (fromVirtual8086) for (const number of [Segment.GS, Segment.FS, Segment.DS, Segment.ES]) setNull(tx, number, 0);
  if (newStack !== undefined) loadDescriptor(tx, Segment.SS, newStack.selector, newStack.descriptor);
  enterHandler(tx, gate, descriptor, cpl);
  stack.commit();
  return undefined;
}

export interface InnerStack {
  readonly stack: Stack;
  readonly selector: number;
  readonly descriptor: Descriptor;
}

/**
 * The stack that the task-state segment has for an inner privilege level, in legacy protected mode.
 * Source: APM vol.2 §4.11.2 (stack switching), §8.7.3 Interrupt to Higher Privilege.
 */
export function innerStack(tx: Transaction, cpl: number, ext: number): InnerStack {
  const narrow = isTss16(tx);
  const size = narrow ? 2 : 4;
  const at = narrow ? 2 + 4 * cpl : 4 + 8 * cpl;
  // Both fields must lie inside the TSS before either is used.
  const selector = Number(readTss(tx, invalidTss, at + size, 2, ext));
  const pointer = readTss(tx, invalidTss, at, size, ext);
  if (isNull(selector)) throw invalidTss(selectorError(selector, ext));
  const descriptor = readDescriptor(tx, selector, invalidTss, ext);
  checkStackSegment(descriptor, selector, cpl, invalidTss, ext);
  const bits = (descriptor.attributes & Attribute.BIG) !== 0 ? 32 : 16;
  const stack = new Stack(tx, {
    word: packSegment(selector, descriptor.attributes, descriptor.limit),
    base: descriptor.base,
    pointer: uN(bits, pointer),
    bits,
    cpl,
    errorCode: selectorError(selector, ext),
    checkType: true,
  });
  return { stack, selector, descriptor };
}

/** CS, CPL, RIP and RFLAGS of the handler. */
function enterHandler(tx: Transaction, gate: Gate, descriptor: Descriptor, cpl: number): void {
  loadDescriptor(tx, Segment.CS, (gate.selector & 0xfffc) | cpl, descriptor);
  tx.set(R.cpl, BigInt(cpl));
  tx.set(R.rip, gate.offset);
  const cleared = Flag.TF | Flag.NT | Flag.RF | Flag.VM | (gate.clearsIf ? Flag.IF : 0n);
  tx.set(R.rflags, tx.get(R.rflags) & ~cleared);
}

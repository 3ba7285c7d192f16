/**
 * Hardware task switches: by JMP and CALL to a task-state segment or through a task gate, by events through a task gate of
 * the IDT, and by IRET with RFLAGS.NT set. Legacy mode only: long mode has no tasks.
 *
 * All checks and all accesses to both task-state segments come first, in the context of the outgoing task: a fault there
 * leaves everything as it was. From then on the incoming task is current, and a fault (of a segment that cannot be loaded,
 * of the error code's push, of the T bit) is its own: it is returned and not thrown, for the switch stands. Segments that
 * were not reached then are not present. Where the manual is silent: bits 31:16 of the registers that a 16-bit TSS brings
 * are zero, and page-directory pointers with reserved bits are #GP(0) in the outgoing task.
 * Source: APM vol.2 §12.3 Hardware Task-Management in Legacy Mode (§12.3.2 Switching Tasks, §12.3.4 Nesting Tasks, table
 * 12-1), §12.2.4 Legacy Task-State Segment, §13.1.1.4 (local breakpoints), §15.14.1 Task Switch Intercept.
 */
import { GuestFault, generalProtection, Vector } from '../faults.js';
import { CR0, CR4, Flag, gprSlot, R, Segment, type Slot } from '../layout/cpu-state.js';
import { INTERCEPTS, interceptRequested } from '../svm/intercepts.js';
import { VmExit } from '../svm/vmexit-request.js';
import { uN } from '../units.js';
import { loadPdptes } from './control-registers.js';
import { DR6 } from './debug.js';
import {
  type Descriptor,
  dplOf,
  type FaultOf,
  isCode,
  isConforming,
  isNull,
  isPresent,
  isSystem,
  isTss16,
  limitOf,
  loadDescriptor,
  markAvailable,
  markBusy,
  packSegment,
  readDescriptor,
  rplOf,
  SystemType,
  selectorError,
  selectorOf,
  setNull,
  setSegment,
  typeOf,
} from './descriptors.js';
import {
  checkStackSegment,
  invalidTss,
  isReadable,
  isVisible,
  segmentNotPresent,
  VIRTUAL_8086_ATTRIBUTES,
} from './segments.js';
import { Stack } from './stack.js';
import { Access, type Transaction } from './transaction.js';

/** `event`: an exception, an interrupt or INT n through a task gate. `return`: IRET. */
export type TaskSwitchCause = 'jump' | 'call' | 'return' | 'event';

export interface TaskSwitch {
  readonly cause: TaskSwitchCause;
  /** Of the incoming TSS; from a gate, the instruction, or the back link. */
  readonly selector: number;
  /** What the outgoing task goes on with. */
  readonly rip: bigint;
  readonly rflags: bigint;
  /** Pushed on the stack of the incoming task. */
  readonly errorCode?: number | undefined;
  /** The EXT bit of error codes. */
  readonly ext: number;
}

/** A switch that took place. */
export interface TaskSwitched {
  readonly cause: TaskSwitchCause;
  readonly selector: number;
  /** To be delivered in the incoming task, before its first instruction. */
  readonly fault: GuestFault | undefined;
}

/** Bits of EXITINFO2 of a task-switch #VMEXIT (APM vol.2 §15.14.1 Task Switch Intercept). */
const ExitInfo2 = { IRET: 1n << 36n, JUMP: 1n << 38n, ERROR_CODE: 1n << 44n, RF: 1n << 48n } as const;

/** Where a TSS has its fields, and how wide they are (APM vol.2 figure 12-6; the 16-bit one as on the 80286). */
interface Format {
  readonly width: 16 | 32;
  /** The lowest limit that a TSS may have. */
  readonly limit: number;
  readonly rip: number;
  readonly rflags: number;
  readonly registers: number;
  readonly selectors: number;
  /** Segment registers that it has, in order. */
  readonly segments: readonly number[];
  readonly ldt: number;
}

const { ES, CS, SS, DS, FS, GS } = Segment;
const TSS32: Format = {
  width: 32,
  limit: 0x67,
  rip: 0x20,
  rflags: 0x24,
  registers: 0x28,
  selectors: 0x48,
  segments: [ES, CS, SS, DS, FS, GS],
  ldt: 0x60,
};
const TSS16: Format = {
  width: 16,
  limit: 0x2b,
  rip: 0x0e,
  rflags: 0x10,
  registers: 0x12,
  selectors: 0x22,
  segments: [ES, CS, SS, DS],
  ldt: 0x2a,
};
const CR3_OFFSET = 0x1c;
const TRAP_OFFSET = 0x64;
/** RFLAGS bits that exist. */
const RFLAGS_BITS = 0x003f_7fd5n;
/** DR7: L0 to L3 and LE. */
const LOCAL_BREAKPOINTS = 0x155n;

/**
 * Switches to the task of `request.selector`.
 * @throws GuestFault in the outgoing task; VmExit when L1 intercepts task switches.
 */
export function switchTask(tx: Transaction, request: TaskSwitch): TaskSwitched {
  const { cause, selector } = request;
  const tss = readIncoming(tx, request);
  intercept(tx, request);
  const outgoing = selectorOf(tx.get(R.tr));
  saveOutgoing(tx, request);
  const image = readImage(tx, tss);
  if (cause === 'jump' || cause === 'return') {
    markAvailable(tx, readDescriptor(tx, outgoing, invalidTss, request.ext));
  }
  const attributes = cause === 'return' ? tss.attributes : markBusy(tx, tss);
  const nested = cause === 'call' || cause === 'event';
  if (nested) tx.writeLinear(tss.base, 2, BigInt(outgoing), Access.IMPLICIT);
  if (image.cr3 !== undefined && (tx.get(R.cr0) & CR0.PG) !== 0n) loadCr3(tx, image.cr3);
  setSegment(tx, Segment.TR, packSegment(selector, attributes, tss.limit), tss.base);
  loadImage(tx, image, nested);
  return { cause, selector, fault: finish(tx, image, request) };
}

const formatOf = (tss: Descriptor): Format =>
  typeOf(tss) === SystemType.TSS16 || typeOf(tss) === SystemType.TSS16_BUSY ? TSS16 : TSS32;

/** The incoming TSS. A back link that is wrong is #TS, any other selector #GP. */
function readIncoming(tx: Transaction, { cause, selector, ext }: TaskSwitch): Descriptor {
  const returns = cause === 'return';
  const wrong: FaultOf = returns ? invalidTss : generalProtection;
  const error = selectorError(selector, ext);
  if ((selector & 4) !== 0 || isNull(selector)) throw wrong(error);
  const tss = readDescriptor(tx, selector, wrong, ext);
  const types: readonly number[] = returns
    ? [SystemType.TSS_BUSY, SystemType.TSS16_BUSY]
    : [SystemType.TSS, SystemType.TSS16];
  if (!isSystem(tss) || !types.includes(typeOf(tss))) throw wrong(error);
  if (!isPresent(tss)) throw segmentNotPresent(error);
  if (tss.limit < formatOf(tss).limit) throw invalidTss(error);
  return tss;
}

/** It is no instruction intercept of §15.9, so nRIP is zero, whatever asked for the switch (APM vol.2 §15.7.1). */
function intercept(tx: Transaction, { cause, selector, errorCode, rflags }: TaskSwitch): void {
  if (!interceptRequested((slot) => tx.get(slot), 'TASK_SWITCH')) return;
  let info2 = errorCode === undefined ? 0n : ExitInfo2.ERROR_CODE | BigInt(errorCode >>> 0);
  if (cause === 'return') info2 |= ExitInfo2.IRET;
  if (cause === 'jump') info2 |= ExitInfo2.JUMP;
  if ((rflags & Flag.RF) !== 0n) info2 |= ExitInfo2.RF;
  throw new VmExit(INTERCEPTS.TASK_SWITCH.exitCode, BigInt(selector), info2);
}

/** The dynamic fields of the TSS in TR. IRET leaves the nested task: its NT is clear when it runs again. */
function saveOutgoing(tx: Transaction, { cause, rip, rflags, ext }: TaskSwitch): void {
  const tr = tx.get(R.tr);
  const format = isTss16(tx) ? TSS16 : TSS32;
  if (limitOf(tr) < format.limit) throw invalidTss(selectorError(selectorOf(tr), ext));
  const size = format.width / 8;
  const write = (offset: number, bytes: number, value: bigint): void =>
    tx.writeLinear(uN(32, tx.get(R.trBase) + BigInt(offset)), bytes, uN(8 * bytes, value), Access.IMPLICIT);
  write(format.rip, size, rip);
  write(format.rflags, size, cause === 'return' ? rflags & ~Flag.NT : rflags);
  for (let number = 0; number < 8; number++) write(format.registers + size * number, size, tx.get(gprSlot(number)));
  for (const number of format.segments) {
    write(format.selectors + size * number, 2, tx.get((R.es + 2 * number) as Slot));
  }
}

/** A task as its TSS describes it. */
interface Image {
  readonly format: Format;
  readonly cr3: bigint | undefined;
  readonly rip: bigint;
  readonly rflags: bigint;
  readonly registers: readonly bigint[];
  /** By number of the segment register; FS and GS are null in a 16-bit task. */
  readonly selectors: readonly number[];
  readonly ldt: number;
  readonly trap: boolean;
}

function readImage(tx: Transaction, tss: Descriptor): Image {
  const format = formatOf(tss);
  const size = format.width / 8;
  const read = (offset: number, bytes: number): bigint =>
    tx.readLinear(uN(32, tss.base + BigInt(offset)), bytes, Access.IMPLICIT);
  const wide = format.width === 32;
  return {
    format,
    cr3: wide ? read(CR3_OFFSET, 4) : undefined,
    rip: read(format.rip, size),
    rflags: (read(format.rflags, size) & RFLAGS_BITS) | Flag.ONE,
    registers: Array.from({ length: 8 }, (_, number) => read(format.registers + size * number, size)),
    selectors: [ES, CS, SS, DS, FS, GS].map((number) =>
      format.segments.includes(number) ? Number(read(format.selectors + size * number, 2)) : 0,
    ),
    ldt: Number(read(format.ldt, 2)),
    trap: wide && (read(TRAP_OFFSET, 1) & 1n) !== 0n,
  };
}

/** Paging is on. The caller of the instruction or the delivery drops translations. */
function loadCr3(tx: Transaction, cr3: bigint): void {
  if ((tx.get(R.cr4) & CR4.PAE) !== 0n) loadPdptes(tx, cr3);
  tx.set(R.cr3, cr3);
}

/** Everything but the hidden parts of the segment registers: those are not present yet. */
function loadImage(tx: Transaction, image: Image, nested: boolean): void {
  const rflags = nested ? image.rflags | Flag.NT : image.rflags;
  tx.set(R.cr0, tx.get(R.cr0) | CR0.TS);
  tx.set(R.dr7, tx.get(R.dr7) & ~LOCAL_BREAKPOINTS);
  tx.set(R.rip, image.rip);
  tx.set(R.rflags, rflags);
  image.registers.forEach((value, number) => {
    tx.set(gprSlot(number), value);
  });
  const virtual8086 = (rflags & Flag.VM) !== 0n;
  for (const number of [ES, CS, SS, DS, FS, GS]) {
    const selector = image.selectors[number] as number;
    if (virtual8086) {
      setSegment(tx, number, packSegment(selector, VIRTUAL_8086_ATTRIBUTES, 0xffff), BigInt(selector) << 4n);
    } else setNull(tx, number, selector);
  }
  setNull(tx, Segment.LDTR, image.ldt);
  tx.set(R.cpl, virtual8086 ? 3n : BigInt(rplOf(image.selectors[CS] as number)));
}

/** What happens in the incoming task, up to its first instruction. @returns the fault that it begins with. */
function finish(tx: Transaction, image: Image, { errorCode, ext }: TaskSwitch): GuestFault | undefined {
  try {
    loadLdt(tx, image.ldt, ext);
    if ((image.rflags & Flag.VM) === 0n) loadSegments(tx, image, ext);
    if (errorCode !== undefined) {
      const stack = Stack.current(tx, ext);
      stack.push(image.format.width / 8, BigInt(errorCode));
      stack.commit();
    }
  } catch (fault) {
    if (fault instanceof GuestFault) return fault;
    throw fault;
  }
  return image.trap ? new GuestFault(Vector.DB, undefined, undefined, DR6.BT) : undefined;
}

function loadLdt(tx: Transaction, selector: number, ext: number): void {
  if (isNull(selector)) return;
  const error = selectorError(selector, ext);
  if ((selector & 4) !== 0) throw invalidTss(error);
  const descriptor = readDescriptor(tx, selector, invalidTss, ext);
  const right = isSystem(descriptor) && typeOf(descriptor) === SystemType.LDT;
  if (!right || !isPresent(descriptor)) throw invalidTss(error);
  setSegment(tx, Segment.LDTR, packSegment(selector, descriptor.attributes, descriptor.limit), descriptor.base);
}

/** CS, SS, then the data segments, as other loads of them but for #TS in the place of #GP. */
function loadSegments(tx: Transaction, { selectors }: Image, ext: number): void {
  const code = selectors[CS] as number;
  const cpl = rplOf(code);
  const target = readTaskSegment(tx, code, ext);
  const dplFits = isConforming(target) ? dplOf(target) <= cpl : dplOf(target) === cpl;
  if (!isCode(target) || !dplFits) throw invalidTss(selectorError(code, ext));
  if (!isPresent(target)) throw segmentNotPresent(selectorError(code, ext));
  loadDescriptor(tx, CS, code, target);

  const stack = selectors[SS] as number;
  const stackDescriptor = readTaskSegment(tx, stack, ext);
  checkStackSegment(stackDescriptor, stack, cpl, invalidTss, ext);
  loadDescriptor(tx, SS, stack, stackDescriptor);

  for (const number of [ES, DS, FS, GS]) {
    const selector = selectors[number] as number;
    if (isNull(selector)) continue;
    const descriptor = readTaskSegment(tx, selector, ext);
    const error = selectorError(selector, ext);
    if (!isReadable(descriptor) || !isVisible(descriptor, selector, cpl)) throw invalidTss(error);
    if (!isPresent(descriptor)) throw segmentNotPresent(error);
    loadDescriptor(tx, number, selector, descriptor);
  }
}

function readTaskSegment(tx: Transaction, selector: number, ext: number): Descriptor {
  if (isNull(selector)) throw invalidTss(selectorError(selector, ext));
  return readDescriptor(tx, selector, invalidTss, ext);
}

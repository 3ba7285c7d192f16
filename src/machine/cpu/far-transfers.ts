/**
 * Far control transfers by JMP, CALL and RET: to code segments, through call gates, back to outer levels.
 * Source: APM vol.2 §4.11 Control-Transfer Privilege Checks, §6.1 Fast System Calls aside; APM vol.3 JMP (Far),
 * CALL (Far), RET (Far); task switches: task-switch.ts.
 */
import { generalProtection } from '../faults.js';
import { EMPTY_DELTA, Flag, gprSlot, R, Segment } from '../layout/cpu-state.js';
import { isCanonical, uN } from '../units.js';
import { currentAsid } from './control-registers.js';
import {
  Attribute,
  type Descriptor,
  dplOf,
  isCode,
  isConforming,
  isNull,
  isPresent,
  isSystem,
  loadDescriptor,
  readDescriptor,
  readTss,
  readUpperHalf,
  rplOf,
  SystemType,
  selectorError,
  setNull,
  typeOf,
} from './descriptors.js';
import { innerStack } from './exceptions.js';
import { cplOf, hasParagraphs, isLongMode } from './mode.js';
import { checkStackSegment, dropInnerSegments, invalidTss, loadParagraph, segmentNotPresent } from './segments.js';
import { Stack } from './stack.js';
import type { SystemContext } from './system-context.js';
import { switchTask, type TaskSwitched } from './task-switch.js';
import type { Transaction } from './transaction.js';

/** Where a far transfer goes, and the operand size that it has. */
export interface FarTarget {
  readonly selector: number;
  readonly offset: bigint;
  readonly width: 16 | 32 | 64;
}

export function farJump(context: SystemContext, target: FarTarget): void {
  const { tx } = context;
  if (hasParagraphs(tx)) {
    jumpToParagraph(tx, target);
    return;
  }
  const descriptor = readTarget(tx, target.selector);
  if (isSystem(descriptor)) {
    if (isTask(tx, descriptor)) {
      goToTask(context, descriptor, target.selector, 'jump');
      return;
    }
    const gate = readCallGate(tx, descriptor, target.selector, 'jump');
    enterCode(tx, gate.selector, gate.descriptor, gate.offset, cplOf(tx));
    return;
  }
  checkDirectTarget(tx, descriptor, target.selector);
  enterCode(tx, target.selector, descriptor, uN(target.width, target.offset), cplOf(tx));
}

export function farCall(context: SystemContext, target: FarTarget): void {
  const { tx } = context;
  const size = target.width / 8;
  const returnCs = tx.get(R.cs) & 0xffffn;
  const returnRip = tx.get(R.rip);
  if (hasParagraphs(tx)) {
    const stack = Stack.current(tx);
    stack.push(size, returnCs);
    stack.push(size, returnRip);
    jumpToParagraph(tx, target);
    stack.commit();
    return;
  }
  const descriptor = readTarget(tx, target.selector);
  if (isSystem(descriptor)) {
    if (isTask(tx, descriptor)) goToTask(context, descriptor, target.selector, 'call');
    else callThroughGate(tx, readCallGate(tx, descriptor, target.selector, 'call'), returnCs, returnRip);
    return;
  }
  checkDirectTarget(tx, descriptor, target.selector);
  const stack = Stack.current(tx);
  stack.push(size, returnCs);
  stack.push(size, returnRip);
  enterCode(tx, target.selector, descriptor, uN(target.width, target.offset), cplOf(tx));
  stack.commit();
}

/** @param width operand size. @param release bytes of parameters to drop. */
export function farReturn(tx: Transaction, width: 16 | 32 | 64, release: number): void {
  const size = width / 8;
  const stack = Stack.current(tx);
  const offset = stack.pop(size);
  const selector = Number(stack.pop(size) & 0xffffn);
  if (hasParagraphs(tx)) {
    jumpToParagraph(tx, { selector, offset, width });
    stack.release(release);
    stack.commit();
    return;
  }
  const { descriptor, cpl } = readReturnTarget(tx, selector);
  if (cpl === cplOf(tx)) {
    enterCode(tx, selector, descriptor, offset, cpl);
    stack.release(release);
    stack.commit();
    return;
  }
  stack.release(release);
  const pointer = stack.pop(size);
  const stackSelector = Number(stack.pop(size) & 0xffffn);
  returnOutwards(tx, selector, descriptor, offset, stackSelector, pointer, release);
}

/**
 * The tail of RETF and IRET to an outer level: SS:rSP of that level, and data segments that it may use.
 * @param release bytes of parameters on the outer stack.
 */
export function returnOutwards(
  tx: Transaction,
  selector: number,
  descriptor: Descriptor,
  offset: bigint,
  stackSelector: number,
  pointer: bigint,
  release: number,
): void {
  const cpl = rplOf(selector);
  const long = isLongMode(tx) && (descriptor.attributes & Attribute.LONG) !== 0;
  const stackDescriptor = readReturnStack(tx, stackSelector, cpl, long);
  enterCode(tx, selector, descriptor, offset, cpl);
  loadReturnStack(tx, stackSelector, stackDescriptor);
  const bits = long
    ? 64
    : stackDescriptor !== undefined && (stackDescriptor.attributes & Attribute.BIG) !== 0
      ? 32
      : 16;
  setStackPointer(tx, pointer + BigInt(release), bits);
  dropInnerSegments(tx, cpl);
}

/** SS of a return; null is allowed into 64-bit mode, but not at CPL 3 (APM vol.2 §4.11.3, §8.9.5). */
export function readReturnStack(tx: Transaction, selector: number, cpl: number, long: boolean): Descriptor | undefined {
  if (isNull(selector)) {
    if (!long || cpl === 3 || rplOf(selector) !== cpl) throw generalProtection();
    return undefined;
  }
  const descriptor = readDescriptor(tx, selector, generalProtection);
  checkStackSegment(descriptor, selector, cpl, generalProtection);
  return descriptor;
}

export function loadReturnStack(tx: Transaction, selector: number, descriptor: Descriptor | undefined): void {
  if (descriptor === undefined) setNull(tx, Segment.SS, selector);
  else loadDescriptor(tx, Segment.SS, selector, descriptor);
}

/** Writes rSP as wide as the new stack is. */
export function setStackPointer(tx: Transaction, pointer: bigint, bits: 16 | 32 | 64): void {
  const slot = gprSlot(4);
  tx.set(slot, bits === 16 ? (tx.get(slot) & ~0xffffn) | uN(16, pointer) : uN(bits, pointer));
}

/** The code segment that RETF and IRET go to, with their checks. */
export function readReturnTarget(tx: Transaction, selector: number): { descriptor: Descriptor; cpl: number } {
  if (isNull(selector)) throw generalProtection();
  const cpl = rplOf(selector);
  const descriptor = readDescriptor(tx, selector, generalProtection);
  const error = selectorError(selector);
  const dplFits = isConforming(descriptor) ? dplOf(descriptor) <= cpl : dplOf(descriptor) === cpl;
  if (cpl < cplOf(tx) || !isCode(descriptor) || !dplFits) throw generalProtection(error);
  checkLongAttributes(tx, descriptor, error);
  if (!isPresent(descriptor)) throw segmentNotPresent(error);
  return { descriptor, cpl };
}

/** Real and virtual-8086 mode: any paragraph, as long as the offset lies within CS.limit. */
export function jumpToParagraph(tx: Transaction, { selector, offset, width }: FarTarget): void {
  const rip = uN(width, offset);
  if (rip > tx.get(R.cs) >> 32n) throw generalProtection();
  loadParagraph(tx, Segment.CS, selector);
  tx.set(R.rip, rip);
}

function readTarget(tx: Transaction, selector: number): Descriptor {
  if (isNull(selector)) throw generalProtection();
  return readDescriptor(tx, selector, generalProtection);
}

/** A code segment named by the instruction itself (APM vol.2 §4.11.1 Direct Control Transfers). */
function checkDirectTarget(tx: Transaction, descriptor: Descriptor, selector: number): void {
  const cpl = cplOf(tx);
  const error = selectorError(selector);
  const allowed = isConforming(descriptor)
    ? dplOf(descriptor) <= cpl
    : dplOf(descriptor) === cpl && rplOf(selector) <= cpl;
  if (!isCode(descriptor) || !allowed) throw generalProtection(error);
  checkLongAttributes(tx, descriptor, error);
  if (!isPresent(descriptor)) throw segmentNotPresent(error);
}

/** In long mode L and D must not both be set. */
function checkLongAttributes(tx: Transaction, { attributes }: Descriptor, error: number): void {
  const both = Attribute.LONG | Attribute.BIG;
  if (isLongMode(tx) && (attributes & both) === both) throw generalProtection(error);
}

/**
 * Loads CS, CPL and RIP.
 * @throws GuestFault #GP(0) when the offset is past the limit, or not canonical in 64-bit mode.
 */
export function enterCode(
  tx: Transaction,
  selector: number,
  descriptor: Descriptor,
  offset: bigint,
  cpl: number,
): void {
  const long = isLongMode(tx) && (descriptor.attributes & Attribute.LONG) !== 0;
  if (long ? !isCanonical(offset) : uN(32, offset) > BigInt(descriptor.limit)) throw generalProtection();
  loadDescriptor(tx, Segment.CS, (selector & 0xfffc) | cpl, descriptor);
  tx.set(R.cpl, BigInt(cpl));
  tx.set(R.rip, long ? offset : uN(32, offset));
}

interface CallGate {
  readonly selector: number;
  readonly descriptor: Descriptor;
  readonly offset: bigint;
  /** Bytes of each stack item: 2, 4 or 8. */
  readonly size: number;
  readonly parameters: number;
}

/** Source: APM vol.2 §4.7.5, §4.8.4 Gate Descriptors; §4.11.2 Control Transfers Through Call Gates. */
function readCallGate(tx: Transaction, gate: Descriptor, selector: number, how: 'call' | 'jump'): CallGate {
  const long = isLongMode(tx);
  const cpl = cplOf(tx);
  const error = selectorError(selector);
  const type = typeOf(gate);
  const isCallGate = type === SystemType.CALL_GATE || (!long && type === SystemType.CALL_GATE16);
  if (!isCallGate) throw generalProtection(error);
  if (dplOf(gate) < Math.max(cpl, rplOf(selector))) throw generalProtection(error);
  if (!isPresent(gate)) throw segmentNotPresent(error);

  const { raw } = gate;
  const wide = type === SystemType.CALL_GATE;
  const target = Number((raw >> 16n) & 0xffffn);
  const high = long ? (readUpperHalf(tx, selector, generalProtection) & 0xffff_ffffn) << 32n : 0n;
  const offset = (raw & 0xffffn) | (wide ? (raw >> 32n) & 0xffff_0000n : 0n) | high;
  if (isNull(target)) throw generalProtection();
  const descriptor = readDescriptor(tx, target, generalProtection);
  const targetError = selectorError(target);
  const dpl = dplOf(descriptor);
  const allowed = how === 'jump' && !isConforming(descriptor) ? dpl === cpl : dpl <= cpl;
  if (!isCode(descriptor) || !allowed) throw generalProtection(targetError);
  if (long && (descriptor.attributes & (Attribute.LONG | Attribute.BIG)) !== Attribute.LONG) {
    throw generalProtection(targetError);
  }
  if (!isPresent(descriptor)) throw segmentNotPresent(targetError);
  return {
    selector: target,
    descriptor,
    offset,
    size: long ? 8 : wide ? 4 : 2,
    parameters: long ? 0 : Number((raw >> 32n) & 0x1fn),
  };
}

function callThroughGate(tx: Transaction, gate: CallGate, returnCs: bigint, returnRip: bigint): void {
  const cpl = cplOf(tx);
  const inner = !isConforming(gate.descriptor) && dplOf(gate.descriptor) < cpl;
  if (!inner) {
    const stack = Stack.current(tx);
    stack.push(gate.size, returnCs);
    stack.push(gate.size, returnRip);
    enterCode(tx, gate.selector, gate.descriptor, gate.offset, cpl);
    stack.commit();
    return;
  }
  const newCpl = dplOf(gate.descriptor);
  if (isLongMode(tx)) callInnerLong(tx, gate, newCpl, returnCs, returnRip);
  else callInnerLegacy(tx, gate, newCpl, returnCs, returnRip);
}

/** In long mode SS becomes null and no parameters are copied (APM vol.2 §4.11.2, Long-Mode Stack Switching). */
function callInnerLong(tx: Transaction, gate: CallGate, cpl: number, returnCs: bigint, returnRip: bigint): void {
  const stack = new Stack(tx, {
    word: 0n,
    base: 0n,
    pointer: readTss(tx, invalidTss, 4 + 8 * cpl, 8, 0),
    bits: 64,
    cpl,
    errorCode: 0,
    checkType: false,
  });
  stack.push(8, tx.get(R.ss) & 0xffffn);
  stack.push(8, tx.get(gprSlot(4)));
  stack.push(8, returnCs);
  stack.push(8, returnRip);
  enterCode(tx, gate.selector, gate.descriptor, gate.offset, cpl);
  setNull(tx, Segment.SS, cpl);
  stack.commit();
}

function callInnerLegacy(tx: Transaction, gate: CallGate, cpl: number, returnCs: bigint, returnRip: bigint): void {
  const { size } = gate;
  const outer = Stack.current(tx);
  const { stack, selector, descriptor } = innerStack(tx, cpl, 0);
  stack.push(size, tx.get(R.ss) & 0xffffn);
  stack.push(size, tx.get(gprSlot(4)));
  for (let parameter = gate.parameters - 1; parameter >= 0; parameter--) {
    stack.push(size, outer.peek(size * parameter, size));
  }
  stack.push(size, returnCs);
  stack.push(size, returnRip);
  enterCode(tx, gate.selector, gate.descriptor, gate.offset, cpl);
  loadDescriptor(tx, Segment.SS, selector, descriptor);
  stack.commit();
}

/** The tail of every instruction that switched tasks. */
export function endInTask(context: SystemContext, { selector, cause, fault }: TaskSwitched): void {
  context.outcome({
    type: 'cpu.task-switched',
    selector,
    cause,
    vector: null,
    errorCode: null,
    registers: EMPTY_DELTA,
  });
  context.flushTlb({ scope: 'non-global', asid: currentAsid(context.tx) });
  if (fault !== undefined) context.faultAfter(fault);
}

const TASKS: ReadonlySet<number> = new Set([SystemType.TASK_GATE, SystemType.TSS, SystemType.TSS16]);

const isTask = (tx: Transaction, descriptor: Descriptor): boolean => !isLongMode(tx) && TASKS.has(typeOf(descriptor));

/** JMP or CALL to an available TSS, or through a task gate (APM vol.2 §12.3.2 Switching Tasks, §12.3.3 Task Gates). */
function goToTask(context: SystemContext, target: Descriptor, selector: number, cause: 'call' | 'jump'): void {
  const { tx } = context;
  const error = selectorError(selector);
  if (dplOf(target) < Math.max(cplOf(tx), rplOf(selector))) throw generalProtection(error);
  if (!isPresent(target)) throw segmentNotPresent(error);
  const byGate = typeOf(target) === SystemType.TASK_GATE;
  const switched = switchTask(tx, {
    cause,
    selector: byGate ? Number((target.raw >> 16n) & 0xffffn) : selector,
    rip: tx.get(R.rip),
    rflags: tx.get(R.rflags) & ~Flag.RF,
    ext: 0,
  });
  endInTask(context, switched);
}

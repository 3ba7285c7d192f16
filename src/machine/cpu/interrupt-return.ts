/**
 * IRET in all modes: to the same and to outer levels, to virtual-8086 mode, within real mode.
 * Source: APM vol.3 IRET, IRETD, IRETQ; APM vol.2 §8.6.2, §8.7.4, §8.8, §8.9.5 Interrupt Returns.
 */
import { generalProtection } from '../faults.js';
import { Boundary, Flag, R, Segment, type Slot } from '../layout/cpu-state.js';
import { IntControl } from '../layout/vmcb.js';
import { hasVirtualNmis, virtualEventPending } from '../svm/injection.js';
import { uN } from '../units.js';
import { Attribute, packSegment, readTss, setSegment } from './descriptors.js';
import {
  endInTask,
  enterCode,
  jumpToParagraph,
  loadReturnStack,
  readReturnStack,
  readReturnTarget,
  returnOutwards,
  setStackPointer,
} from './far-transfers.js';
import { cplOf, hasParagraphs, ioplOf, is64Bit, isLongMode, isVirtual8086 } from './mode.js';
import { invalidTss, VIRTUAL_8086_ATTRIBUTES } from './segments.js';
import { Stack } from './stack.js';
import type { SystemContext } from './system-context.js';
import { switchTask } from './task-switch.js';
import type { Transaction } from './transaction.js';
import { poppedFlags, virtualizesFlags } from './virtual-8086.js';

/** RFLAGS bits that programs may always change by IRET and POPF. */
const ALWAYS = Flag.CF | Flag.PF | Flag.AF | Flag.ZF | Flag.SF | Flag.TF | Flag.DF | Flag.OF | Flag.NT;
const BEYOND_16 = Flag.AC | Flag.ID;

/**
 * RFLAGS after POPF or IRET: IOPL changes at CPL 0 only, IF where CPL allows it; 16-bit operands keep bits 63:16.
 * @param extra bits that this instruction may change besides, with 32 and 64 bits: RF for IRET.
 */
export function mergeFlags(tx: Transaction, popped: bigint, width: 16 | 32 | 64, extra: bigint): bigint {
  const cpl = cplOf(tx);
  let changeable = ALWAYS | (width === 16 ? 0n : BEYOND_16 | extra);
  if (cpl === 0) changeable |= Flag.IOPL;
  if (cpl <= ioplOf(tx)) changeable |= Flag.IF;
  return (tx.get(R.rflags) & ~changeable) | (popped & changeable);
}

/** What a program returns to: its segments, its privilege, and what is held back from it. */
const RETURN_STATE: readonly Slot[] = [R.cs, R.csBase, R.ss, R.ssBase, R.cpl, R.boundary, R.intControl];

/**
 * Where it changes none of `RETURN_STATE`, it is as plain as a return from a function; but in a guest for which a virtual event waits.
 * @param width operand size.
 */
export function interruptReturn(context: SystemContext, width: 16 | 32 | 64): void {
  const { tx } = context;
  const toTask = !hasParagraphs(tx) && (tx.get(R.rflags) & Flag.NT) !== 0n;
  if (toTask) returnToTask(context);
  else if (hasParagraphs(tx)) returnToParagraph(tx, width);
  else if (is64Bit(tx)) returnFrom64Bit(tx, width);
  else returnFromLegacy(tx, width);
  // A guest with virtual NMIs has a mask of its own (APM vol.2 §15.21.10 NMI Virtualization).
  if (hasVirtualNmis(tx)) tx.set(R.intControl, tx.get(R.intControl) & ~IntControl.V_NMI_MASK);
  else tx.set(R.boundary, tx.get(R.boundary) & ~Boundary.NMI_BLOCKED);
  if (!toTask && !virtualEventPending(tx) && !tx.changesAny(RETURN_STATE)) context.plain();
}

function returnToParagraph(tx: Transaction, width: 16 | 32 | 64): void {
  const virtual = virtualizesFlags(tx, width);
  if (isVirtual8086(tx) && ioplOf(tx) !== 3 && !virtual) throw generalProtection();
  const size = width / 8;
  const stack = Stack.current(tx);
  const offset = stack.pop(size);
  const selector = Number(stack.pop(size) & 0xffffn);
  const popped = stack.pop(size);
  const flags = virtual ? poppedFlags(tx.get(R.rflags), popped) : mergeFlags(tx, popped, width, Flag.RF);
  jumpToParagraph(tx, { selector, offset, width });
  tx.set(R.rflags, flags);
  stack.commit();
}

/** RFLAGS.NT: the back link of the TSS names the task to return to; long mode has no tasks. */
function returnToTask(context: SystemContext): void {
  const { tx } = context;
  if (isLongMode(tx)) throw generalProtection();
  const selector = Number(readTss(tx, invalidTss, 0, 2, 0));
  const rflags = tx.get(R.rflags) & ~Flag.RF;
  const rip = tx.get(R.rip);
  endInTask(context, switchTask(tx, { cause: 'return', selector, rip, rflags, ext: 0 }));
}

/** IRET changes RF, and at CPL 0 VIF and VIP (APM vol.3, IRET). */
const returnedFlags = (tx: Transaction): bigint => (cplOf(tx) === 0 ? Flag.RF | Flag.VIF | Flag.VIP : Flag.RF);

/** In 64-bit mode five items are always popped. */
function returnFrom64Bit(tx: Transaction, width: 16 | 32 | 64): void {
  const size = width / 8;
  const stack = Stack.current(tx);
  const offset = stack.pop(size);
  const selector = Number(stack.pop(size) & 0xffffn);
  const popped = stack.pop(size);
  const pointer = stack.pop(size);
  const stackSelector = Number(stack.pop(size) & 0xffffn);
  const { descriptor, cpl } = readReturnTarget(tx, selector);
  const flags = mergeFlags(tx, popped, width, returnedFlags(tx));
  if (cpl !== cplOf(tx)) {
    returnOutwards(tx, selector, descriptor, offset, stackSelector, pointer, 0);
    tx.set(R.rflags, flags);
    return;
  }
  const long = (descriptor.attributes & Attribute.LONG) !== 0;
  const stackDescriptor = readReturnStack(tx, stackSelector, cpl, long);
  enterCode(tx, selector, descriptor, offset, cpl);
  loadReturnStack(tx, stackSelector, stackDescriptor);
  const big = stackDescriptor !== undefined && (stackDescriptor.attributes & Attribute.BIG) !== 0;
  setStackPointer(tx, pointer, long ? 64 : big ? 32 : 16);
  tx.set(R.rflags, flags);
}

function returnFromLegacy(tx: Transaction, width: 16 | 32 | 64): void {
  const size = width / 8;
  const stack = Stack.current(tx);
  const offset = stack.pop(size);
  const selector = Number(stack.pop(size) & 0xffffn);
  const popped = stack.pop(size);
  if ((popped & Flag.VM) !== 0n && width === 32 && cplOf(tx) === 0 && !isLongMode(tx)) {
    returnToVirtual8086(tx, stack, offset, selector, popped);
    return;
  }
  const { descriptor, cpl } = readReturnTarget(tx, selector);
  const flags = mergeFlags(tx, popped, width, returnedFlags(tx));
  if (cpl !== cplOf(tx)) {
    const pointer = stack.pop(size);
    const stackSelector = Number(stack.pop(size) & 0xffffn);
    returnOutwards(tx, selector, descriptor, offset, stackSelector, pointer, 0);
  } else {
    enterCode(tx, selector, descriptor, offset, cpl);
    stack.commit();
  }
  tx.set(R.rflags, flags);
}

/** All segments become paragraphs, CPL becomes 3, and RFLAGS is taken as popped. */
function returnToVirtual8086(tx: Transaction, stack: Stack, offset: bigint, selector: number, popped: bigint): void {
  const pointer = stack.pop(4);
  const loads: (readonly [number, number])[] = [[Segment.CS, selector]];
  for (const number of [Segment.SS, Segment.ES, Segment.DS, Segment.FS, Segment.GS]) {
    loads.push([number, Number(stack.pop(4) & 0xffffn)]);
  }
  const rip = uN(32, offset);
  if (rip > 0xffffn) throw generalProtection();
  for (const [number, value] of loads) {
    setSegment(tx, number, packSegment(value, VIRTUAL_8086_ATTRIBUTES, 0xffff), BigInt(value) << 4n);
  }
  tx.set(R.cpl, 3n);
  tx.set(R.rip, rip);
  setStackPointer(tx, pointer, 32);
  const loaded = ALWAYS | BEYOND_16 | Flag.IF | Flag.IOPL | Flag.RF | Flag.VM | Flag.VIF | Flag.VIP;
  tx.set(R.rflags, (popped & loaded) | Flag.ONE);
}

/**
 * Reads guest memory for whoever looks at a machine from outside (debuggers, reports): through the tables that are in
 * force, as the supervisor would, but without setting accessed or dirty bits and without a fault.
 * Source: APM vol.2 §5.1 Page Translation Overview, §15.25.5 Nested Table Walk.
 */

import { Access } from '../cpu/transaction.js';
import { R, type Registers, type Slot } from '../layout/cpu-state.js';
import { offsetIn, PAGE_BYTES } from '../units.js';
import type { PhysicalMemory } from './memory.js';
import { PageWalker, type PagingContext, type PagingFeatures, pagingContext } from './page-walk.js';

/** Supervisors may read what execute-only or SMAP would refuse: an observer is nobody's access. */
const OBSERVER = new Map<Slot, (value: bigint) => bigint>([[R.cr4, (value) => value & ~(1n << 21n)]]);

/** How an observer sees the address space of a vCPU with these registers. */
export function observerContext(registers: Registers, features: PagingFeatures): PagingContext {
  return pagingContext((slot) => {
    const value = registers[slot] as bigint;
    return OBSERVER.get(slot)?.(value) ?? value;
  }, features);
}

/**
 * @param registers of the vCPU whose address space is meant. @param linear the first byte's address.
 * @returns as many of `length` bytes as are mapped to RAM from there on without a gap.
 */
export function peekLinear(
  memory: PhysicalMemory,
  registers: Registers,
  features: PagingFeatures,
  linear: bigint,
  length: number,
): Uint8Array {
  return peekThrough(memory, observerContext(registers, features), linear, length, Access.READ);
}

/** The same through known tables, as far as `access` is allowed. */
export function peekThrough(
  memory: PhysicalMemory,
  context: PagingContext,
  linear: bigint,
  length: number,
  access: number,
): Uint8Array {
  const walker = silentWalkerOf(memory);
  const found = new Uint8Array(length);
  let at = 0;
  while (at < length) {
    const address = BigInt.asUintN(64, linear + BigInt(at));
    const low = Number(address & 0xffff_ffffn) | 0;
    const high = Number(address >> 32n) | 0;
    const frame = walker.walk(context, low, high, access);
    const offset = offsetIn(Number(address & 0xfffn));
    const piece = Math.min(length - at, PAGE_BYTES - offset);
    if (frame < 0 || !memory.isRam(frame + offset, piece)) break;
    found.set(memory.window(frame + offset, piece), at);
    at += piece;
  }
  return found.subarray(0, at);
}

/**
 * Where the page of a linear address lies, if a processor could know it: its tables allow the access and need no accessed or
 * dirty bit set for it. @returns the sPA of the frame, or a negative number.
 */
export function knownFrame(memory: PhysicalMemory, context: PagingContext, linear: bigint, access: number): number {
  const walker = silentWalkerOf(memory);
  const low = Number(linear & 0xffff_ffffn) | 0;
  const high = Number(linear >> 32n) | 0;
  walker.marks = false;
  const frame = walker.walk(context, low, high, access);
  return walker.marks ? -1 : frame;
}

/** Walks without a trace, and tells whether there would have been one. */
class SilentWalker extends PageWalker {
  marks = false;

  constructor(memory: PhysicalMemory) {
    const mark = (): void => {
      this.marks = true;
    };
    super(Object.create(memory, { markEntry: { value: mark }, noteTable: { value: () => {} } }) as PhysicalMemory);
  }
}

const WALKERS = new WeakMap<PhysicalMemory, SilentWalker>();

function silentWalkerOf(memory: PhysicalMemory): SilentWalker {
  const walker = WALKERS.get(memory) ?? new SilentWalker(memory);
  WALKERS.set(memory, walker);
  return walker;
}

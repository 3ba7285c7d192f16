/** Where RIP leads, by the code segment: in 64-bit mode to itself, in legacy modes to a linear address within a limit. */
import { checkSegment } from '../cpu/segments.js';
import { Access } from '../cpu/transaction.js';
import { GuestFault } from '../faults.js';
import { R, type RegisterFile, Segment, type Slot } from '../layout/cpu-state.js';
import { isCanonical } from '../units.js';
import { Mode } from './context.js';

/** The linear address of RIP, when code can be fetched there. @param mode bits of `Mode`. */
export function codeAddress(registers: RegisterFile, mode: number, rip: bigint): bigint | undefined {
  if ((mode & Mode.BITS64) !== 0) return isCanonical(rip) ? rip : undefined;
  try {
    const get = (slot: Slot): bigint => registers[slot] as bigint;
    return checkSegment({ get }, Segment.CS, rip, 1, Access.FETCH);
  } catch (fault) {
    if (fault instanceof GuestFault) return undefined;
    throw fault;
  }
}

/**
 * Legacy code whose page is not all inside the segment, or where IP wraps: decoded one instruction at a time.
 * @param offset of RIP in its linear page.
 */
export function ripWraps(registers: RegisterFile, mode: number, rip: bigint, offset: number): boolean {
  if ((mode & Mode.BITS64) !== 0) return false;
  const start = rip - BigInt(offset);
  const limit = (registers[R.cs] as bigint) >> 32n;
  return start < 0n || start + 0xfffn > limit;
}

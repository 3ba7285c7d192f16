/** Cells for legacy addressing: limits of plain writable segments, and the stack's mask. */
import { isAllowed } from '../cpu/segments.js';
import { R, type RegisterFile, Segment, type Slot, segmentSlot } from '../layout/cpu-state.js';
import { Cell, segmentLimitCell } from '../layout/linear-memory.js';
import { Mode } from './context.js';

const LEGACY_SEGMENTS = [Segment.ES, Segment.CS, Segment.SS, Segment.DS, Segment.FS, Segment.GS];

/** Those that must be flat for `Mode.FLAT`, besides the code segment. */
const FLAT_SEGMENTS = [Segment.ES, Segment.SS, Segment.DS];
const WHOLE = 0xffff_ffffn;

/** @param mode bits of `Mode`. */
export function writeSegmentCells(view: DataView, registers: RegisterFile, mode: number): void {
  const checkType = (mode & Mode.REAL) === 0;
  for (const segment of LEGACY_SEGMENTS) {
    const word = registers[segmentSlot(segment)] as bigint;
    const limit = word >> 32n;
    const plain = isAllowed(word, 0n, 1, true, checkType);
    const expandsDown = checkType && ((word >> 16n) & 0b11100n) === 0b10100n;
    view.setBigInt64(segmentLimitCell(segment), plain && !expandsDown ? limit : -1n, true);
  }
  view.setBigInt64(Cell.CODE_LIMIT, (registers[R.cs] as bigint) >> 32n, true);
  view.setBigInt64(Cell.STACK_MASK, (mode & Mode.STACK32) !== 0 ? 0xffff_ffffn : 0xffffn, true);
}

/** Whether code, data and stack are all that 32 bits address: base 0, no limit, writable but for the code. */
export function isFlat(registers: RegisterFile): boolean {
  const isWhole = (segment: number): boolean =>
    registers[(segmentSlot(segment) + 1) as Slot] === 0n &&
    (registers[segmentSlot(segment)] as bigint) >> 32n === WHOLE;
  return (
    isWhole(Segment.CS) &&
    FLAT_SEGMENTS.every(
      (segment) => isWhole(segment) && isAllowed(registers[segmentSlot(segment)] as bigint, 0n, 1, true, true),
    )
  );
}

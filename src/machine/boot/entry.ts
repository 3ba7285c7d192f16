/**
 * Registers at entry that the boot protocols share: flat segments, in protected mode without paging or in 64-bit mode.
 * All else is as RESET and the firmware leave it: interrupts off, address line 20 open.
 */
import { packSegment } from '../cpu/descriptors.js';
import { FCW_INIT } from '../cpu/xstate.js';
import { CR0, CR4, EFER, R, Segment as SegmentNumber, type Slot, segmentSlot } from '../layout/cpu-state.js';

/** Slots that differ from what RESET and the firmware left. */
export type EntryRegisters = readonly (readonly [Slot, bigint])[];

/** Attributes of accessed segments of 4 GiB: code of 32 and of 64 bits, data. */
export const ATTRIBUTES = { CODE32: 0xc9b, CODE64: 0xa9b, DATA: 0xc93 } as const;
const WHOLE = 0xffff_ffff;
const TSS_BUSY = 0x8b;
const TSS_LIMIT = 0x67;

function flatSegments(code: number, codeAttributes: number, data: number): EntryRegisters {
  const { ES, CS, SS, DS, FS, GS } = SegmentNumber;
  return [
    [segmentSlot(CS), packSegment(code, codeAttributes, WHOLE)],
    [(segmentSlot(CS) + 1) as Slot, 0n],
    ...[ES, SS, DS, FS, GS].map((number) => [segmentSlot(number), packSegment(data, ATTRIBUTES.DATA, WHOLE)] as const),
  ];
}

/** x87 as FNINIT leaves it. */
const X87: EntryRegisters = [
  [R.fcw, FCW_INIT],
  [R.ftw, 0n],
];

/** 32-bit protected mode, paging off, with these selectors. */
export const protectedMode = (entry: number, code = 0x08, data = 0x10): EntryRegisters => [
  [R.rip, BigInt(entry)],
  [R.cr0, CR0.PE | CR0.ET],
  ...flatSegments(code, ATTRIBUTES.CODE32, data),
  ...X87,
];

/** 64-bit mode over the page tables at `cr3`. */
export const longMode = (entry: number, cr3: number, code: number, data: number): EntryRegisters => [
  [R.rip, BigInt(entry)],
  [R.cr0, CR0.PE | CR0.ET | CR0.PG],
  [R.cr3, BigInt(cr3)],
  [R.cr4, CR4.PAE],
  [R.efer, EFER.LME | EFER.LMA],
  ...flatSegments(code, ATTRIBUTES.CODE64, data),
  ...X87,
];

/** TR as PVH wants it: a busy 32-bit TSS of the least size, at 0. */
export const TASK_REGISTER: EntryRegisters = [[segmentSlot(SegmentNumber.TR), packSegment(0, TSS_BUSY, TSS_LIMIT)]];

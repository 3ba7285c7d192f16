/**
 * Random processor states for single instructions, from a seed: for properties over the whole instruction set. Operands
 * point into RAM often enough, and fault often enough.
 */
import { CR0, CR4, EFER, R, Segment, SLOT_COUNT, SvmMode, segmentSlot } from '../../src/machine/layout/cpu-state.js';
import { sPA } from '../../src/machine/units.js';
import type { Workbench } from '../../src/machine/workbench.js';
import type { Bits } from '../../tools/fuzz/encode.js';
import type { Random } from '../../tools/fuzz/random.js';

const PAGE_TABLES = { PML4: 0x1000, PDPT: 0x2000, PD: 0x3000 };
const STACK = 0x8000;
const DATA = 0x40000;
const DATA_BYTES = 0x4000;
export const CODE: Readonly<Record<Bits, number>> = { 16: 0x7000, 32: 0x10000, 64: 0x10000 };

/** Tables for the identity of the lowest 2 MiB, and random data. */
export function prepareMemory({ memory }: Workbench, random: Random): void {
  memory.write(sPA(PAGE_TABLES.PML4), 8, BigInt(PAGE_TABLES.PDPT) | 3n);
  memory.write(sPA(PAGE_TABLES.PDPT), 8, BigInt(PAGE_TABLES.PD) | 3n);
  memory.write(sPA(PAGE_TABLES.PD), 8, 0x83n);
  for (const [start, length] of [
    [STACK, 0x1000],
    [DATA, DATA_BYTES],
  ] as const) {
    for (let at = start; at < start + length; at += 8) memory.write(sPA(at), 8, random.next64());
  }
}

/** Registers at CPL 0: flat segments, in legacy modes some with bases, limits and other types. */
export function randomRegisters(bits: Bits, random: Random): bigint[] {
  const slots = new Array<bigint>(SLOT_COUNT).fill(0n);
  const address = (): bigint => BigInt(DATA + random.below(DATA_BYTES));
  for (let number = 0; number < 16; number++) {
    const small = BigInt(random.below(64));
    const choices = [random.next64(), address(), address(), small, BigInt.asUintN(64, -small)];
    slots[number] = bits === 64 || number < 8 ? random.pick(choices) : 0n;
  }
  if (bits === 16 || random.oneIn(2)) {
    slots[R.rsp] = BigInt(STACK + random.below(0x1000));
    slots[R.rbp] = BigInt(STACK + random.below(0x1000));
  }
  for (let half = 0; half < 32; half++) {
    slots[R.xmm0 + half] = random.next64();
    slots[R.ymm0 + half] = random.next64();
  }
  slots[R.rip] = BigInt(CODE[bits]);
  slots[R.rflags] = 2n | (random.next64() & 0xcd5n);
  slots[R.mxcsr] = 0x1f80n;
  setSegments(slots, bits, random);
  const long = bits === 64;
  slots[R.cr0] = CR0.PE | CR0.ET | CR0.NE | (long ? CR0.PG : 0n);
  slots[R.cr3] = BigInt(PAGE_TABLES.PML4);
  slots[R.xcr0] = 7n;
  slots[R.cr4] = CR4.OSFXSR | CR4.OSXMMEXCPT | CR4.OSXSAVE | (long ? CR4.PAE : 0n);
  slots[R.efer] = long ? EFER.LME | EFER.LMA : 0n;
  slots[R.dr6] = 0xffff_0ff0n;
  slots[R.dr7] = 0x400n;
  slots[R.svmMode] = SvmMode.GIF;
  return slots;
}

function setSegments(slots: bigint[], bits: Bits, random: Random): void {
  const set = (number: number, attributes: number, base: bigint, limit: bigint): void => {
    slots[segmentSlot(number)] = 0x10n | (BigInt(attributes) << 16n) | (limit << 32n);
    slots[segmentSlot(number) + 1] = base;
  };
  const long = bits === 64;
  const limit = (): bigint =>
    long || !random.oneIn(3) ? 0xffff_ffffn : random.pick([0x5_ffffn, 0x4_0fffn, 0x1_ffffn, 0x8800n]);
  set(Segment.CS, bits === 64 ? 0xa9b : bits === 32 ? 0xc9b : 0x89b, 0n, limit());
  for (const number of [Segment.ES, Segment.SS, Segment.DS, Segment.FS, Segment.GS]) {
    // Mostly writable data; also read-only, readable code, expand-down, and not present.
    const type = long ? 0x93 : random.pick([0x93, 0x93, 0x93, 0x93, 0x91, 0x9b, 0x97, 0x13]);
    const size = random.oneIn(2) ? 0xc00 : 0x800;
    const hasBase = long ? number >= Segment.FS : random.oneIn(2);
    set(number, type | size, hasBase ? BigInt(random.below(0x300)) : 0n, limit());
  }
}

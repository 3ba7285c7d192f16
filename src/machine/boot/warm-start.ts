/**
 * Warm starts: a program resets the processor and goes on, for on the 80286 that was the only way out of protected mode.
 * It leaves a shutdown code in CMOS memory and the address where to go on in the BIOS data area; the firmware at the reset
 * vector goes there instead of booting.
 * Source: IBM AT Technical Reference, ROM BIOS, shutdown codes; MultiProcessor Specification 1.4, §B.4 Application
 * Processor Startup.
 */
import { packSegment } from '../cpu/descriptors.js';
import { R, type Slot } from '../layout/cpu-state.js';
import type { PhysicalMemory } from '../mmu/memory.js';
import { sPA } from '../units.js';

/** Codes for a jump through the pointer, the first after an end of interrupt. All others stand for an ordinary boot. */
const JUMP_AFTER_EOI = 0x05;
const JUMP = 0x0a;

/** 40:67h: offset and segment. */
const POINTER = 0x467;

export const isWarmStart = (code: number): boolean => code === JUMP || code === JUMP_AFTER_EOI;
export const endsInterrupt = (code: number): boolean => code === JUMP_AFTER_EOI;

/** Where the bootstrap processor goes on, in real mode; all else is as INIT left it. */
export function warmStartRegisters(memory: PhysicalMemory): readonly (readonly [Slot, bigint])[] {
  const offset = memory.read(sPA(POINTER), 2);
  const selector = memory.read(sPA(POINTER + 2), 2);
  return [
    [R.cs, packSegment(Number(selector), 0x9b, 0xffff)],
    [R.csBase, selector << 4n],
    [R.rip, offset],
  ];
}

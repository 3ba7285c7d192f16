/**
 * Guest instruction bytes: what a #VMEXIT for a page fault reports of the code at CS:rIP, up to 15 bytes, as many as could
 * be fetched: up to the end of the code segment, or to a page that cannot be executed. Reading them marks no page.
 * Source: APM vol.2 §15.8.4 Nested and Intercepted #PF.
 */
import { limitOf } from '../cpu/descriptors.js';
import { accessAt, cplOf, is64Bit, type SlotReader } from '../cpu/mode.js';
import { Access } from '../cpu/transaction.js';
import { R } from '../layout/cpu-state.js';
import type { PhysicalMemory } from '../mmu/memory.js';
import type { PagingContext } from '../mmu/page-walk.js';
import { peekThrough } from '../mmu/peek.js';
import { isCanonical, uN } from '../units.js';

const MOST = 15;

export function instructionBytes(cpu: SlotReader, memory: PhysicalMemory, paging: PagingContext): Uint8Array {
  const rip = cpu.get(R.rip);
  const access = Access.FETCH | accessAt(cplOf(cpu));
  if (is64Bit(cpu)) return peekThrough(memory, paging, rip, isCanonical(rip) ? MOST : 0, access);
  const inSegment = Number(BigInt(limitOf(cpu.get(R.cs))) + 1n - rip);
  const length = Math.max(0, Math.min(MOST, inSegment));
  return peekThrough(memory, paging, uN(32, cpu.get(R.csBase) + rip), length, access);
}

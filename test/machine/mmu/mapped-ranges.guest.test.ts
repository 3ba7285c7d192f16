/** All that page tables map, against the walk of each page. */
import { describe, expect, it } from 'vitest';
import {
  type Machine,
  mappedRanges,
  PAGE_BYTES,
  pagingFeatures,
  R,
  type Registers,
} from '../../../src/machine/index.js';
import { explainWalk } from '../../../src/machine/mmu/explain-walk.js';
import { Timeline } from '../../../src/replay/index.js';
import { viewOf } from '../../../tools/debug/views.js';
import { recordGuest } from '../../support/sessions.js';

const MIB = 2 ** 20;
/** What is looked at page by page; the guests have other mappings beyond, which are looked at from the ranges. */
const LOOKED_AT: readonly (readonly [first: bigint, bytes: number])[] = [
  [0n, 20 * MIB],
  [0x4000_0000n, MIB],
  [0xffff_8000_0000_0000n, MIB],
  [0xffff_ffff_ffe0_0000n, 2 * MIB],
];

function pagesOf(machine: Machine, registers: Registers): Map<bigint, number> {
  const pages = new Map<bigint, number>();
  for (const { linear, bytes, sPA } of mappedRanges(machine.memory, registers, pagingFeatures(machine.profile))) {
    for (let at = 0; at < bytes; at += PAGE_BYTES) pages.set(linear + BigInt(at), sPA + at);
  }
  return pages;
}

function walked(machine: Machine, registers: Registers, linear: bigint): number | undefined {
  const { sPA } = explainWalk(machine.memory, registers, pagingFeatures(machine.profile), linear);
  return sPA !== undefined && machine.memory.isRam(sPA, PAGE_BYTES) ? sPA : undefined;
}

function requireSame(machine: Machine, registers: Registers): number {
  const pages = pagesOf(machine, registers);
  for (const [linear, sPA] of pages) {
    if (walked(machine, registers, linear) !== sPA) throw new Error(`${linear.toString(16)}h is not at ${sPA}`);
  }
  const wide = (registers[R.efer] as bigint) & 0x400n;
  for (const [first, bytes] of LOOKED_AT) {
    if (wide === 0n && first >= 0x1_0000_0000n) continue;
    for (let at = 0n; at < BigInt(bytes); at += BigInt(PAGE_BYTES)) {
      expect(pages.get(first + at)).toBe(walked(machine, registers, first + at));
    }
  }
  return pages.size;
}

const GUESTS = ['nested.elf', 'paging.elf', 'realmode.elf', 'avic.elf', 'intercepts.elf'] as const;

describe('the ranges of an address space', () => {
  it.each(GUESTS)('are what a walk finds for each page: %s', (guest) => {
    const reader = recordGuest(guest, { limit: 300_000 }).store.read();
    const timeline = new Timeline(reader);
    const seen = new Set<string>();
    for (let part = 1n; part <= 6n; part++) {
      timeline.seekInstruction((reader.end.icount * part) / 7n);
      const { machine } = timeline;
      const { registers } = viewOf(machine, { level: 1, vcpu: 0 });
      const modes = [registers];
      const vmcb = Number(registers[R.vmcb]);
      if (vmcb !== 0) modes.push(viewOf(machine, { level: 2, vmcb }).registers);
      for (const each of modes) {
        const mode = [R.cr0, R.cr3, R.cr4, R.efer, R.nestedControl, R.svmMode].map((slot) => each[slot]).join();
        if (seen.has(mode)) continue;
        seen.add(mode);
        expect(requireSame(machine, each)).toBeGreaterThan(0);
      }
    }
    timeline.close();
  });
});

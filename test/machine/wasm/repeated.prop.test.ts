/**
 * Repeated string instructions do many elements at once where nobody can tell: the same memory, registers and counts as
 * element by element, whatever overlaps, whatever faults and wherever a run ends.
 */
import { describe, expect, it } from 'vitest';
import { Flag } from '../../../src/machine/layout/cpu-state.js';
import { compileRegions, type RegionPolicy } from '../../../src/machine/wasm/region/policy.js';
import { Random } from '../../../tools/fuzz/random.js';
import { CODE, DATA, differences, EngineBench, FOREVER, hex } from '../../support/engine-bench.js';

function benchOf(policy: RegionPolicy): EngineBench {
  const before = compileRegions(policy);
  const bench = new EngineBench('engine');
  compileRegions(before);
  return bench;
}

const evaluator = new EngineBench('evaluator');
const engines = { never: benchOf('never'), always: benchOf('always'), 'at-once': benchOf('at-once') };

/** Each of MOVS, STOS, CMPS, SCAS and LODS in all widths: prefixes and opcode. */
const MANY_AT_ONCE = ['a4', '66 a5', 'a5', '48 a5', 'aa', '66 ab', 'ab', '48 ab'];
const ONE_BY_ONE = ['a6', '48 a7', 'ae', 'af', 'ac'];
const PAGE = 4096;
/** Frames of the pages from DATA on. One stands there twice, one is not there. */
const FRAMES = [0x40, 0x41, 0x42, 0x40, 0x45, 0x43, undefined, 0x44];
/** With one more that holds the program, so that elements are written to code. */
const OVER_CODE = FRAMES.with(4, CODE / PAGE);

interface Case {
  readonly bits: 32 | 64;
  readonly program: Uint8Array;
  readonly registers: Parameters<EngineBench['mode']>[1];
  readonly contents: Uint8Array;
  readonly slices: readonly number[];
}

function caseOf(random: Random): Case {
  const instruction = random.pick(random.oneIn(6) ? ONE_BY_ONE : MANY_AT_ONCE);
  const prefix = /^48/.test(instruction) || random.oneIn(4) ? 'f3' : random.pick(['f3', 'f2']);
  const small = random.oneIn(8) ? '67 ' : '';
  const count = random.oneIn(3) ? random.below(40) : random.below(900);
  // add ebp, ecx; mov rcx, r8; REP; adc eax, 0; dec ebx; jnz again; hlt
  const repeated = `${small}${prefix} ${instruction}`;
  const body = `01 cd 4c 89 c1 ${repeated} 83 d0 00 ff cb`;
  const back = 256 - (body.split(' ').length + 2);
  const near = (): number => DATA + random.below(FRAMES.length) * PAGE + random.pick([0, 0, -9, -64, 3, 2048, 4090]);
  const source = near();
  // Often so near that elements overlap, in the same page or in one that is the same RAM.
  const target = random.oneIn(2) ? near() : source + random.pick([0, PAGE * 3]) + random.below(41) - 20;
  const byte = random.below(256);
  return {
    bits: 64,
    program: hex(`${body} 75 ${back.toString(16)} f4`),
    registers: {
      ...{ rbx: BigInt(1 + random.below(4)), r8: BigInt(count), rsi: BigInt(source), rdi: BigInt(target) },
      rax: random.oneIn(2) ? BigInt(byte) * 0x0101_0101_0101_0101n : random.next64(),
      rflags: random.oneIn(10) ? 2n | Flag.DF : 2n,
    },
    contents: Uint8Array.from({ length: 5 * PAGE }, () => (random.oneIn(50) ? random.below(256) : byte)),
    slices: random.oneIn(3) ? [] : Array.from({ length: 6 }, () => 1 + random.below(random.pick([3, 70, 2000]))),
  };
}

/** The same without pages, in segments that begin and end anywhere; addresses of 16 bits wrap. */
function legacyCase(random: Random): Case {
  const known = caseOf(random);
  const instruction = random.pick(['a4', '66 a5', 'a5', 'aa', '66 ab', 'ab', 'a6', 'af', 'ac']);
  const override = random.oneIn(12) ? random.pick(['3e ', '26 ', '64 ']) : '';
  // add ebp, ecx; mov ecx, edx; REP; adc eax, 0; dec ebx; jnz again; hlt
  const body = `01 cd 89 d1 ${override}${random.oneIn(8) ? '67 ' : ''}f3 ${instruction} 83 d0 00 4b`;
  const back = 256 - (body.split(' ').length + 2);
  const { rsi = 0n, rdi = 0n, r8 = 0n, ...others } = known.registers ?? {};
  const values: Record<string, bigint> = { ...others, rdx: r8 };
  for (const [name, register, linear] of [
    ['ds', 'rsi', rsi],
    ['es', 'rdi', rdi],
  ] as const) {
    const base = random.pick([0n, 0n, 0x1000n, 0x3_0003n, BigInt(DATA) - 0x800n]);
    const offset = linear - base;
    const limit = random.oneIn(3) ? offset + BigInt(random.below(3000)) : random.pick([0xffff_ffffn, 0x7_ffffn]);
    const attributes = random.oneIn(20) ? 0xc91n : 0xc93n;
    values[name] = 0x10n | (attributes << 16n) | (limit << 32n);
    values[`${name}Base`] = base;
    values[register] = offset;
  }
  return { ...known, bits: 32, program: hex(`${body} 75 ${back.toString(16)} f4`), registers: values };
}

/** @returns what differs after the first slice after which something does. */
function differing(
  { bits, program, registers, contents, slices }: Case,
  engine: EngineBench,
  frames: typeof FRAMES,
): string[] {
  for (const bench of [evaluator, engine]) {
    bench.clear().mode(bits, registers).put(DATA, contents).put(CODE, program);
    frames.forEach((frame, index) => {
      bench.map(DATA / PAGE + index, frame);
    });
  }
  for (const slice of [...slices, FOREVER]) {
    const differs = differences(evaluator.run(slice), engine.run(slice));
    if (differs.length > 0) return differs;
  }
  return [];
}

describe('repeated string instructions', () => {
  it.each([
    ['never', OVER_CODE],
    ['always', OVER_CODE],
    // Each write to code would have it compiled once more.
    ['at-once', FRAMES],
  ] as const)('are the evaluator’s, regions compiled %s', (policy, frames) => {
    const helpedBefore = engines[policy].helped;
    for (let seed = 1n; seed <= 80n; seed++) {
      const differs = differing(caseOf(new Random(seed)), engines[policy], frames);
      expect({ seed, differs }).toEqual({ seed, differs: [] });
    }
    // Not by leaving them all to the evaluator.
    expect(engines[policy].helped - helpedBefore).toBeLessThan(8000);
  });

  it.each(['never', 'always', 'at-once'] as const)('are so in segments, regions compiled %s', (policy) => {
    const helpedBefore = engines[policy].helped;
    let retired = 0;
    for (let seed = 1n; seed <= 120n; seed++) {
      const differs = differing(legacyCase(new Random(seed)), engines[policy], FRAMES);
      expect({ seed, differs }).toEqual({ seed, differs: [] });
      retired += engines[policy].retired;
    }
    // The evaluator has overrides, segments that may not be written to, and what crosses pages or writes to code.
    expect(engines[policy].helped - helpedBefore).toBeLessThan(retired / 4);
  });
});

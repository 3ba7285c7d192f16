/** Bit fields of XMM registers (APM vol.4, EXTRQ, INSERTQ). */
import { describe, expect, it } from 'vitest';
import { CODE, EngineBench } from '../../support/engine-bench.js';

const bench = new EngineBench('evaluator', ['sse4a']);
const VALUE = 0xfedc_ba98_7654_3210n;
const SOURCE = 0x1122_3344_5566_7788n;

function run(code: string, xmm2: bigint, xmm2High = 0n): readonly [bigint, bigint] {
  bench.mode(64, { xmm1: VALUE, xmm1High: 7n, xmm2, xmm2High }).put(CODE, Buffer.from(code.replaceAll(' ', ''), 'hex'));
  bench.run(1);
  expect(bench.get('rip')).toBe(BigInt(CODE + code.replaceAll(' ', '').length / 2));
  return [bench.get('xmm1'), bench.get('xmm1High')];
}

describe('EXTRQ', () => {
  it.each([
    ['16 bits from bit 8', '660f78c1 10 08', 0x5432n],
    ['64 bits, written as 0', '660f78c1 00 00', VALUE],
    ['what there is above bit 60', '660f78c1 08 3c', 0xfn],
    ['with bits 7:6 of length and index ignored', '660f78c1 d0 c8', 0x5432n],
  ])('%s by immediates', (_, code, expected) => expect(run(code, 0n)).toEqual([expected, 0n]));

  it('takes length and index from a register', () => {
    expect(run('660f79ca', 0x0810n)).toEqual([0x5432n, 0n]);
    expect(run('660f79ca', 0xffff_c8d0n)).toEqual([0x5432n, 0n]);
  });
});

describe('INSERTQ', () => {
  it.each([
    ['16 bits at bit 8', 'f20f78ca 10 08', 0xfedc_ba98_7677_8810n],
    ['64 bits', 'f20f78ca 00 00', SOURCE],
    ['what fits above bit 60', 'f20f78ca 08 3c', 0x8edc_ba98_7654_3210n],
  ])('%s by immediates', (_, code, expected) => expect(run(code, SOURCE)).toEqual([expected, 0n]));

  it('takes length and index from the upper half of its source', () => {
    expect(run('f20f79ca', SOURCE, 0x0810n)).toEqual([0xfedc_ba98_7677_8810n, 0n]);
  });
});

/**
 * Evaluator and engine, machine against machine, over random programs with faults and mode changes: event by event, and
 * register by register and byte by byte at the end of each program. What programs are made of: docs/fuzzing.md.
 *
 * This is the short run; `npm run fuzz -- --instructions 10000000` is the long one.
 */
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { InstructionFetch } from '../../../src/machine/cpu/instruction-fetch.js';
import { Evaluator } from '../../../src/machine/isa/evaluate.js';
import { TlbBanks } from '../../../src/machine/mmu/tlb.js';
import { BlockCache } from '../../../src/machine/wasm/block-cache.js';
import { Emitter } from '../../../src/machine/wasm/emit.js';
import { forgetHandlers } from '../../../src/machine/wasm/handlers.js';
import { compileRegions } from '../../../src/machine/wasm/region/policy.js';
import { Campaign } from '../../../tools/fuzz/campaign.js';
import { reportLines } from '../../../tools/fuzz/report.js';

const INSTRUCTIONS = 200_000;
const SEED = 1;
/** Its mistake shows in a program that needs no fault before it. */
const SHRINKING_SEED = 2;
/** Its programs come through every mode at every level. */
const COVERING_SEED = 3;
const MODES = ['real', 'virtual-8086', 'protected 16-bit', 'protected 32-bit', 'compatibility', '64-bit'];

describe('random programs', () => {
  it(`of ${INSTRUCTIONS.toLocaleString('en')} instructions in all run alike on the evaluator and on the engine`, {
    timeout: 0,
  }, () => {
    const result = new Campaign(COVERING_SEED).run({ instructions: INSTRUCTIONS });
    expect(result.findings, reportLines({ ...result, seed: COVERING_SEED, seconds: 1 }).join('\n')).toEqual([]);
    // Programs that hardly run, or leave all to the evaluator, would test nothing.
    const { retired, coverage } = result;
    expect(retired).toBeGreaterThanOrEqual(INSTRUCTIONS);
    expect(coverage.compiledShare).toBeGreaterThan(0.4);
    const forms = coverage.formCounts();
    expect(forms.filter(({ begun }) => begun === 0).length).toBeLessThan(forms.length / 20);
    const names = (counts: readonly { readonly name: string }[]): string => counts.map(({ name }) => name).join('\n');
    const seen = names(coverage.modes());
    for (const level of ['L1:', 'L2:', 'L2, nested paging:']) {
      for (const mode of MODES) expect(seen).toContain(`${level} ${mode}`);
    }
    for (const vector of ['#DB', '#BP', '#UD', '#NM', '#SS', '#GP', '#PF', '#MF', '#AC', '#XF']) {
      expect(names(coverage.exceptions())).toContain(vector);
    }
    expect(coverage.exitCodes().length).toBeGreaterThan(20);
  });
});

it('random programs run alike where whatever runs is compiled', { timeout: 0 }, () => {
  const before = compileRegions('always');
  const result = new Campaign(SEED + 1).run({ instructions: INSTRUCTIONS / 8 });
  compileRegions(before);
  expect(result.findings, reportLines({ ...result, seed: SEED + 1, seconds: 1 }).join('\n')).toEqual([]);
});

/** A machine with a fault of its own: `method` of `prototype` is another. */
interface Mutation {
  readonly name: string;
  readonly prototype: object;
  readonly method: string;
  readonly make: (original: (...values: never[]) => unknown) => unknown;
}

const mutation = <Owner extends object, Name extends keyof Owner & string>(
  name: string,
  prototype: Owner,
  method: Name,
  make: (original: Owner[Name]) => unknown,
): Mutation => ({ name, prototype, method, make: make as Mutation['make'] });

const XOR = mutation(
  'XOR of equal values is 1, on the evaluator',
  Evaluator.prototype,
  'xor',
  (xor) => (a: bigint, b: bigint) => (a === b ? 1n : xor.call(Evaluator.prototype, a, b)),
);

const MUTATIONS: readonly Mutation[] = [
  mutation('compiled jumps go outside of the code segment', Emitter.prototype, 'requireTarget', () => () => {}),
  mutation(
    'the TLB lets compiled code write wherever it may read',
    TlbBanks.prototype,
    'insert',
    (insert) =>
      function (this: TlbBanks, bank: number, low: number, high: number, target: number) {
        insert.call(this, bank, low, high, target, true);
      },
  ),
  mutation('decoded blocks outlive a write to their code', BlockCache.prototype, 'invalidate' as never, () => () => {}),
  mutation(
    'the evaluator keeps instructions that were overwritten',
    InstructionFetch.prototype,
    'hasBytes' as never,
    () => () => true,
  ),
];

describe('a machine with a mistake', () => {
  let restore = (): void => {};
  const apply = ({ prototype, method, make }: Mutation): void => {
    const original: unknown = Reflect.get(prototype, method);
    expect(original).toBeTypeOf('function');
    Reflect.set(prototype, method, make(original as Parameters<typeof make>[0]));
    restore = () => void Reflect.set(prototype, method, original);
  };
  beforeEach(forgetHandlers);
  afterEach(() => {
    restore();
    forgetHandlers();
  });

  it.each(MUTATIONS)('is found: $name', { timeout: 240_000 }, (mistake) => {
    apply(mistake);
    const { findings } = new Campaign(SEED).run({ instructions: INSTRUCTIONS, shrinks: false });
    expect(findings).toHaveLength(1);
    expect(findings[0]?.differences).not.toEqual([]);
  });

  it(`is found, and the program cut to a few instructions: ${XOR.name}`, { timeout: 240_000 }, () => {
    apply(XOR);
    const result = new Campaign(SHRINKING_SEED).run({ instructions: INSTRUCTIONS });
    const [finding] = result.findings;
    const { listing = [], differences = [], states = [] } = finding?.shrunk ?? {};
    expect(finding).toMatchObject({ before: 0 });
    expect(listing.length).toBeLessThan(12);
    expect(listing.at(-1)?.text).toMatch(/\b(v?p?xor|btc|bls|vxorps)/);
    expect(states).toHaveLength(1);
    expect(differences[0]).toMatch(/^event \d+ of/);
    const told = reportLines({ ...result, seed: SHRINKING_SEED, seconds: 1 });
    expect(told).toContain(
      `again by: npm run fuzz -- --seed ${SHRINKING_SEED} --program ${finding?.program} --programs 1`,
    );
    expect(told.at(-1)).toMatch(/1 disagreements: engine and evaluator differ$/);
  });
});

import { describe, expect, it } from 'vitest';
import { type Perturbation, randomPlan, shrinkPlan } from '../../src/replay/chaos.js';

function first(count: number, seed: bigint, vcpus: number): readonly Perturbation[] {
  const found: Perturbation[] = [];
  for (const perturbation of randomPlan(seed, vcpus)) {
    if (found.length === count) break;
    found.push(perturbation);
  }
  return found;
}

describe('a plan', () => {
  it('is what its seed says', () => {
    expect(first(100, 7n, 4)).toEqual(first(100, 7n, 4));
    expect(first(100, 7n, 4)).not.toEqual(first(100, 8n, 4));
  });

  it('goes forward, and has each vCPU in it', () => {
    const plan = first(500, 1n, 3);
    for (const [index, { at }] of plan.entries()) expect(at).toBeGreaterThan(plan[index - 1]?.at ?? 0);
    expect(new Set(plan.map(({ vcpu }) => vcpu))).toEqual(new Set([0, 1, 2]));
    expect(new Set(plan.map(({ kind }) => kind))).toEqual(new Set(['turn', 'hold', 'skew']));
  });

  it('delays interrupts alone where there is one vCPU', () => {
    expect(new Set(first(100, 1n, 1).map(({ kind }) => kind))).toEqual(new Set(['hold']));
  });
});

describe('shrinking', () => {
  const plan = first(200, 3n, 2);

  it.each([[[17]], [[0, 199]], [[3, 4, 150]]])('finds the perturbations %j that matter, and no other', (needed) => {
    const wanted = needed.map((index) => plan[index]);
    let trials = 0;
    const left = shrinkPlan(plan, (shorter) => {
      trials++;
      return wanted.every((each) => shorter.includes(each as Perturbation));
    });
    expect(left).toEqual(wanted);
    expect(trials).toBeLessThan(200);
  });

  it('is left with nothing when nothing is needed', () => {
    expect(shrinkPlan(plan, () => true)).toEqual([]);
  });
});

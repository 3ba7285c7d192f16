import { readdirSync, readFileSync } from 'node:fs';
import { fileURLToPath } from 'node:url';
import { describe, expect, it } from 'vitest';
import { DEFAULT_CONFIG, Machine } from '../../../src/machine/index.js';
import { DEVIATION_NAMES, DEVIATIONS } from '../../../src/machine/policy/catalogue.js';
import { POLICIES, parsePolicy, policyNamed, policyOfDeviations } from '../../../src/machine/policy/policies.js';
import { UNMODELLED } from '../../../src/machine/policy/unmodelled.js';
import { INTERCEPTS, type InterceptName } from '../../../src/machine/svm/intercepts.js';

const here = fileURLToPath(new URL('.', import.meta.url));

describe('the catalogue of deviations', () => {
  it('is shown by a test each', () => {
    const tests = readdirSync(here)
      .map((file) => readFileSync(here + file, 'utf8'))
      .join('');
    const shown = new Set([...tests.matchAll(/\bdeviation\(\s*'([^']+)'/g)].map(([, name]) => name));
    expect(DEVIATION_NAMES.filter((name) => !shown.has(name))).toEqual([]);
  });

  it.each(DEVIATION_NAMES)('%s has witnesses, and changes rows that there are', (name) => {
    const { witnesses, stages = {}, never = [], manual } = DEVIATIONS[name];
    expect(witnesses.length).toBeGreaterThan(0);
    expect(manual).toMatch(/§|appendix/);
    for (const [row, stage] of Object.entries(stages)) {
      expect(INTERCEPTS[row as InterceptName].stage).not.toBe(stage);
    }
    for (const row of never) expect(INTERCEPTS).toHaveProperty(row);
  });
});

describe('the list of known divergences', () => {
  const numbered = (letter: string, last: number): string[] =>
    Array.from({ length: last }, (_, index) => `${letter}-${String(index + 1).padStart(2, '0')}`);
  const ROWS = [
    ...numbered('D', 5),
    ...numbered('K', 38),
    ...numbered('X', 21),
    ...numbered('B', 21),
    ...numbered('Q', 14),
  ];
  const witnessed = new Set(DEVIATION_NAMES.flatMap((name) => DEVIATIONS[name].witnesses.map(({ row }) => row)));
  const explained = new Set(UNMODELLED.map(({ row }) => row));

  it.each(ROWS)('%s is a deviation, or said to be none', (row) => {
    expect(witnessed.has(row) || explained.has(row)).toBe(true);
  });

  it('has every row that is said to be no deviation', () => {
    expect([...explained].filter((row) => !ROWS.includes(row))).toEqual([]);
    expect(explained.size).toBe(UNMODELLED.length);
  });
});

describe('policies', () => {
  it('begin with the manual, which deviates in nothing and is the default', () => {
    expect(POLICIES[0]).toMatchObject({ name: 'apm', deviations: [] });
    expect(DEFAULT_CONFIG.deviations).toEqual([]);
  });

  it.each(POLICIES.map((policy) => [policy.name, policy] as const))('%s is a machine', (name, { deviations }) => {
    expect(policyNamed(name)?.deviations).toBe(deviations);
    const machine = new Machine({ ...DEFAULT_CONFIG, ramBytes: 1 << 20, deviations }, () => {});
    expect([...machine.profile.deviations]).toEqual(deviations);
  });

  it('each are another set', () => {
    const sets = POLICIES.map(({ deviations }) => deviations.join());
    expect(new Set(sets).size).toBe(POLICIES.length);
    for (const policy of POLICIES) expect(policyOfDeviations(policy.deviations)).toBe(policy);
    expect(policyOfDeviations(['asid-zero-allowed'])).toBeUndefined();
  });

  it('go by release', () => {
    const refusing = POLICIES.filter(({ deviations }) => deviations.includes('tlb-control-by-asid-refused'));
    expect(refusing.map(({ name }) => name)).toEqual(['kvm-6.1']);
    expect(policyNamed('kvm-7.0')?.deviations).toContain('cs-long-and-big-allowed');
    expect(policyNamed('kvm-7.1')?.deviations).not.toContain('cs-long-and-big-allowed');
    expect(policyNamed('xen-4.17')?.deviations).toContain('ioio-every-byte');
    expect(policyNamed('xen-4.17')?.deviations).not.toContain('cr-write-before-value');
  });

  it('cannot name what is unknown, or twice, or out of order', () => {
    const machine = (deviations: readonly string[]) => () =>
      new Machine({ ...DEFAULT_CONFIG, deviations: deviations as never }, () => {});
    expect(machine(['nonsense'])).toThrow('"nonsense"');
    expect(machine(['ioio-every-byte', 'ioio-every-byte'])).toThrow('twice');
    expect(machine(['ioio-every-byte', 'cr-write-before-value'])).toThrow('order');
  });
});

describe('a policy file', () => {
  it('combines policies, deviations and rows', () => {
    const text = '{"name": "mine", "with": ["xen-4.17", "K-06"], "without": ["ioio-every-byte"]}';
    const { name, deviations } = parsePolicy(text, 'mine.json');
    expect(name).toBe('mine');
    expect(deviations).toContain('cs-long-and-big-allowed');
    expect(deviations).toContain('intercept-word-5-ignored');
    expect(deviations).not.toContain('ioio-every-byte');
  });

  it.each([
    ['{', 'no JSON'],
    ['[]', 'not a JSON object'],
    ['{"whit": []}', '"whit"'],
    ['{"with": "xen-4.17"}', 'no list'],
    ['{"with": ["xen-5"]}', '"xen-5"'],
    ['{"with": [1]}', 'names 1'],
    ['{"with": ["K-19"]}', 'no deviation, for it concerns the memory'],
    ['{"name": 7}', 'no text'],
  ])('that says %s is refused', (text, problem) => {
    expect(() => parsePolicy(text, 'mine.json')).toThrow(`mine.json: `);
    expect(() => parsePolicy(text, 'mine.json')).toThrow(problem);
  });
});

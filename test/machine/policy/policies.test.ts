import { readdirSync, readFileSync } from 'node:fs';
import { fileURLToPath } from 'node:url';
import { describe, expect, it } from 'vitest';
import { DEFAULT_CONFIG, Machine } from '../../../src/machine/index.js';
import { DEVIATION_NAMES, DEVIATIONS } from '../../../src/machine/policy/catalogue.js';
import { POLICIES, parsePolicy, policyNamed } from '../../../src/machine/policy/policies.js';
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

  it('go by release', () => {
    expect(policyNamed('kvm-6.1')?.deviations).toContain('cs-long-and-big-allowed');
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
    ['{"name": 7}', 'no text'],
  ])('that says %s is refused', (text, problem) => {
    expect(() => parsePolicy(text, 'mine.json')).toThrow(`mine.json: `);
    expect(() => parsePolicy(text, 'mine.json')).toThrow(problem);
  });
});

/** `npm run fuzz` as a user runs it: flags, output, exit status. */
import { execFileSync, spawnSync } from 'node:child_process';
import { fileURLToPath } from 'node:url';
import { describe, expect, it } from 'vitest';

const MAIN = fileURLToPath(new URL('../../../dist/tools/fuzz/main.js', import.meta.url));
const fuzz = (...words: string[]) => spawnSync(process.execPath, [MAIN, ...words], { encoding: 'utf8' });

describe('npm run fuzz', () => {
  it('tells what it has compared and covered, and ends with the verdict', () => {
    const { stdout, stderr, status } = fuzz('--instructions', '5000', '--seed', '3');
    expect([stderr, status]).toEqual(['', 0]);
    expect(stdout).toMatch(
      /^[\d,]+ instructions in \d+ programs from seed 3, \d+ s, [\d,]+ a second; \d+ % by compiled/,
    );
    for (const part of ['instructions by mode', 'exceptions', '#VMEXIT', 'events']) expect(stdout).toContain(part);
    expect(stdout).toMatch(/\d+ programs, 0 disagreements: engine and evaluator agree\n$/);
  });

  it('tells the same twice, as JSON', () => {
    const told = (): Record<string, unknown> =>
      JSON.parse(
        execFileSync(process.execPath, [MAIN, '--programs', '1', '--program', '4', '--json'], { encoding: 'utf8' }),
      );
    const [first, second] = [told(), told()];
    expect(first).toMatchObject({ seed: 1, programs: 1, disagreements: 0, findings: [] });
    expect(first).toHaveProperty('exceptions');
    const timeless = ({ seconds: _, instructionsPerSecond: __, ...rest }: Record<string, unknown>): unknown => rest;
    expect(timeless(first)).toEqual(timeless(second));
  });

  it.each([
    [['--instructions', 'many'], /--instructions "many" is no count/],
    [['--seed', '2147483648'], /--seed 2147483648 is too large/],
    [['--sed', '1'], /--sed/],
    [['--findings', '0'], /--findings "0"/],
  ])('refuses %j', (words, message) => {
    const { stdout, stderr, status } = fuzz(...words);
    expect([stdout, status]).toEqual(['', 2]);
    expect(stderr).toMatch(message);
    expect(stderr).toContain('usage: npm run fuzz');
  });
});

/** docs/svm-sections.md is true: it names every section, files that exist, and tests that cite what they cover. */

import { existsSync, readFileSync } from 'node:fs';
import { fileURLToPath } from 'node:url';
import { describe, expect, it } from 'vitest';
import { BASE_PROFILE } from '../../src/machine/cpu/cpuid.js';
import { cpuProfile } from '../../src/machine/cpu/profiles.js';
import { leafOf } from '../support/cpuid.js';

const root = fileURLToPath(new URL('../..', import.meta.url));
const page = readFileSync(`${root}docs/svm-sections.md`, 'utf8');

/** Cells of each row of the table whose heading begins with `first`. */
function table(first: string): readonly (readonly string[])[] {
  const lines = page.split('\n');
  const heading = lines.findIndex((line) => line.startsWith(`| ${first} |`));
  const end = lines.findIndex((line, index) => index > heading && !line.startsWith('|'));
  return lines.slice(heading, end).map((line) =>
    line
      .slice(1, -1)
      .split('|')
      .map((cell) => cell.trim()),
  );
}

/** Chapter 15: how many sections each of 15.1 to 15.39 has where the page goes into them. */
const SECTIONS = 39;
const SUBSECTIONS: ReadonlyMap<number, number> = new Map([
  [2, 6],
  [5, 2],
  [7, 3],
  [8, 4],
  [10, 3],
  [13, 5],
  [14, 5],
  [16, 2],
  [21, 10],
  [25, 14],
  [29, 10],
  [30, 5],
  [33, 2],
]);
const CHAPTER = Array.from({ length: SECTIONS }, (_, index) => index + 1).flatMap((section) => {
  const count = SUBSECTIONS.get(section);
  if (count === undefined) return [`15.${section}`];
  return Array.from({ length: count }, (_, index) => `15.${section}.${index + 1}`);
});

/** `15.13.1, 15.13.2`, and `15.25.1 to 15.25.4` with what lies between. */
function numbers(cell: string): readonly string[] {
  return [...cell.matchAll(/(15(?:\.\d+)+)(?: to (15(?:\.\d+)+))?/g)].flatMap(([, from = '', to = from]) => {
    const parent = from.slice(0, from.lastIndexOf('.') + 1);
    const [first, last] = [from, to].map((number) => Number(number.slice(parent.length)));
    const count = (last as number) - (first as number) + 1;
    return Array.from({ length: count }, (_, index) => `${parent}${(first as number) + index}`);
  });
}

const isWithin = (section: string, outer: string): boolean => section === outer || section.startsWith(`${outer}.`);
/** Names in code style that have a folder. */
const files = (cell: string): readonly string[] =>
  [...cell.matchAll(/`([\w-]+(?:\/[\w.-]+)+)`/g)].map(([, name]) => `${name}`);
const testFile = (name: string): string => `${root}test/machine/${name}.test.ts`;

describe('docs/svm-sections.md', () => {
  const rows = table('section')
    .slice(2)
    .map(([section = '', where = '', tests = '']) => [section, where, tests] as const);
  const named = rows.flatMap(([section]) => numbers(section));

  it('names every section of the chapter', () => {
    expect(CHAPTER.filter((section) => !named.some((outer) => isWithin(section, outer)))).toEqual([]);
  });

  it('names no section that there is not', () => {
    const exists = (section: string) => CHAPTER.some((known) => isWithin(known, section) || isWithin(section, known));
    expect(named.filter((section) => !exists(section))).toEqual([]);
  });

  it('names files that exist', () => {
    const implementing = rows.flatMap(([, where]) => files(where)).map((name) => `${root}src/machine/${name}`);
    const testing = rows.flatMap(([, , tests]) => files(tests)).map(testFile);
    expect([...implementing, ...testing].filter((file) => !existsSync(file))).toEqual([]);
  });

  it('has a test for whatever it has an implementation of', () => {
    expect(rows.filter(([, where, tests]) => files(where).length > 0 && files(tests).length === 0)).toEqual([]);
  });

  it('names tests that cite a section of the row', () => {
    const silent = rows.flatMap(([section, , tests]) => {
      const wanted = numbers(section);
      if (wanted.length === 0) return [];
      return files(tests)
        .filter((name) => {
          const cited = [...readFileSync(testFile(name), 'utf8').matchAll(/§(15(?:\.\d+)+)/g)].map(
            ([, number]) => `${number}`,
          );
          return !cited.some((number) => wanted.some((outer) => isWithin(number, outer)));
        })
        .map((name) => `${name}: ${section}`);
    });
    expect(silent).toEqual([]);
  });

  it('has each profile’s features as CPUID tells them', () => {
    const [[, , ...profiles] = [], , ...features] = table('bit');
    const listed = profiles.map((_, column) =>
      features
        .filter((row) => row[column + 2] === 'yes')
        .flatMap(([bits = '']) => bits.split(', '))
        .reduce((word, bit) => word | (1 << Number(bit)), 0),
    );
    const told = profiles.map((name) => leafOf(cpuProfile(name) ?? BASE_PROFILE, 0x8000_000a).edx);
    expect(profiles.filter((name) => cpuProfile(name) === undefined)).toEqual([]);
    expect(listed).toEqual(told);
  });
});

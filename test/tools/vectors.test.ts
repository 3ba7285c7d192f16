/** `npm run vectors`: what it says of wrong usage and of vectors that it cannot read. */
import { spawnSync } from 'node:child_process';
import { mkdirSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { gzipSync } from 'node:zlib';
import { describe, expect, it } from 'vitest';
import { temporaryFolder } from './vmtape.js';

const TOOL = join(import.meta.dirname, '../../dist/tools/vectors/main.js');
const folder = temporaryFolder();

const vectors = (...words: readonly string[]) => spawnSync(process.execPath, [TOOL, ...words], { encoding: 'utf8' });

let made = 0;
/** A directory with an index and one file of the group `move`. */
function directory(index: string, file: Uint8Array = new Uint8Array()): string {
  const path = join(folder, `vectors-${++made}`);
  mkdirSync(path);
  writeFileSync(join(path, 'index.json'), index);
  writeFileSync(join(path, 'move.bin.gz'), file);
  return path;
}
const INDEX = JSON.stringify({ files: [{ file: 'move.bin.gz', group: 'move', core: true }], forms: [] });
/** No block, no vector; both pages at 1000h; all of the base state zero. */
const EMPTY = Buffer.concat([Buffer.from('X64VEC01'), Buffer.alloc(8 + 16 + 128 + 256 + 4 + 8 + 80 + 4096)]);

describe('npm run vectors', () => {
  it.each([
    ['no directory', [], 'No directory of vectors is named.'],
    ['two', ['one', 'two'], '"two" is one directory too many.'],
    ['an unknown flag', ['--fast', folder], "Unknown option '--fast'"],
    ['an unknown engine', ['--engine', 'jit', folder], '--engine jit is unknown.'],
  ])('refuses %s with status 2 and its usage', (_what, words, message) => {
    const { status, stderr, stdout } = vectors(...words);
    expect([status, stdout]).toEqual([2, '']);
    expect(stderr).toContain(message);
    expect(stderr).toContain('usage: npm run vectors');
  });

  it('refuses an unknown group, and names those that there are', () => {
    const { status, stderr } = vectors('--group', 'mave', directory(INDEX, gzipSync(EMPTY)));
    expect([status, stderr]).toEqual([2, expect.stringContaining('has move.')]);
  });

  it.each([
    ['no index', () => join(folder, 'nowhere'), 'index.json'],
    ['an index that is cut', () => directory('{"files": ['), 'it is no JSON document'],
    ['a file that is not packed', () => directory(INDEX, Buffer.from('X64VEC01')), 'it cannot be unpacked'],
    ['a packed file that is cut', () => directory(INDEX, gzipSync(EMPTY).subarray(0, 30)), 'it cannot be unpacked'],
    ['another format', () => directory(INDEX, gzipSync(Buffer.from('X64VEC99'))), 'it does not begin with X64VEC01'],
    ['a file that ends early', () => directory(INDEX, gzipSync(EMPTY.subarray(0, 100))), 'it ends at byte 100'],
  ])('refuses %s with status 2', (_what, path, message) => {
    const { status, stderr } = vectors(path());
    expect([status, stderr]).toEqual([2, expect.stringContaining(message)]);
    expect(stderr).not.toContain('    at ');
  });

  it('ends with the counts', () => {
    const { status, stdout } = vectors(directory(INDEX, gzipSync(EMPTY)));
    expect([status, stdout.trimEnd().split('\n').at(-1)]).toEqual([0, '0 passed, 0 failed, 0 skipped']);
  });
});

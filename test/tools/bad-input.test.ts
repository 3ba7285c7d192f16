import { copyFileSync, readFileSync, truncateSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import Database from 'better-sqlite3';
import { beforeAll, describe, expect, it } from 'vitest';
import { FIXED, image, STACK, temporaryFolder, vmtape } from './vmtape.js';

const folder = temporaryFolder();
const good = join(folder, 'good.vmtape');

beforeAll(() => {
  const { status } = vmtape(['record', image('nested.elf'), '-o', good, ...FIXED, '-q', '--serial', 'null']);
  expect(status).toBe(0);
});

const sectors = join(folder, 'sectors.img');
writeFileSync(sectors, new Uint8Array(512));

describe('an image', () => {
  const elf = readFileSync(image('hello64.elf'));
  const file = (name: string, content: Uint8Array): string => {
    const path = join(folder, name);
    writeFileSync(path, content);
    return path;
  };

  /** The same file with its first loadable segment described twice (System V ABI, §4 Program Header). */
  function overlapping(): Uint8Array {
    const bytes = Buffer.from(elf);
    const table = bytes.readUInt32LE(28);
    const size = bytes.readUInt16LE(42);
    const headers = Array.from({ length: bytes.readUInt16LE(44) }, (_, index) =>
      bytes.subarray(table + index * size, table + (index + 1) * size),
    );
    const loadable = headers.filter((header) => header.readUInt32LE(0) === 1).slice(0, 1);
    const changed = Buffer.concat([bytes, ...loadable, ...loadable]);
    changed.writeUInt32LE(bytes.length, 28);
    changed.writeUInt16LE(2, 44);
    return changed;
  }

  it.each<[string, () => Uint8Array, RegExp]>([
    ['that is none', () => Buffer.from('#!/bin/sh\necho hello\n'), /Multiboot header/],
    ['that is empty', () => new Uint8Array(0), /Multiboot header|empty/],
    ['that is truncated within a segment', () => elf.subarray(0, elf.length / 2), /end|truncated|past/i],
    ['that is truncated within its headers', () => elf.subarray(0, 40), /end|truncated|Multiboot/i],
    ['whose segments overlap', overlapping, /overlaps/],
  ])('%s: status 2, what is wrong and where, and no tape', (name, content, message) => {
    const path = file(`${name}.elf`, content());
    const tape = join(folder, `${name}.vmtape`);
    const { status, stderr } = vmtape(['record', path, '-o', tape, ...FIXED]);
    expect(status).toBe(2);
    expect(stderr).toMatch(message);
    expect(stderr).not.toMatch(STACK);
    expect(vmtape(['info', tape])).toMatchObject({
      status: 2,
      stderr: expect.stringContaining('there is no such file'),
    });
  });

  it.each<[string, readonly string[], RegExp]>([
    ['a disk that is no file', ['--disk', join(folder, 'nowhere')], /nowhere: there is no such file/],
    ['an empty disk', ['--disk', '/dev/null'], /--disk .*: it is empty/],
    ['a disk of no whole sectors', ['--disk', image('hello64.elf')], /not whole sectors of 512\. .*truncate/],
    ['a disk that does not fit', ['--disk', sectors, '--memory', '3584M'], /with RAM it takes more than 3584M/],
    ['bytes for no console', ['--console-input', image('hello64.elf')], /--console-input is for a virtio console/],
    ['a console that leads nowhere', ['--console', 'up'], /--console "up" leads nowhere/],
  ])('with %s: status 2, and what is wrong', (_, flags, message) => {
    const { status, stderr } = vmtape(['run', image('hello64.elf'), ...flags]);
    expect(stderr).toMatch(message);
    expect(stderr).not.toMatch(STACK);
    expect(status).toBe(2);
  });

  it('larger than RAM: status 2, the segment and how much RAM there is', () => {
    const { status, stderr } = vmtape(['run', image('nested.elf'), '--memory', '1M']);
    expect(status).toBe(2);
    expect(stderr).toMatch(/does not fit into RAM, which ends at (0x100000|100000h)/);
  });

  it('that is not there, or a directory: status 2 and its name', () => {
    expect(vmtape(['run', join(folder, 'none.elf')])).toMatchObject({
      status: 2,
      stderr: expect.stringMatching(/none\.elf: there is no such file/),
    });
    expect(vmtape(['run', folder])).toMatchObject({ status: 2, stderr: expect.stringMatching(/is a directory/) });
  });
});

describe('a tape', () => {
  const copy = (name: string, change: (path: string) => void): string => {
    const path = join(folder, `${name}.vmtape`);
    copyFileSync(good, path);
    change(path);
    return path;
  };
  const sql = (statement: string) => (path: string) => {
    const database = new Database(path);
    database.exec(statement);
    database.close();
  };
  /** Flips the lowest bit of the byte in the middle of a column. */
  const flip = (table: string, column: string, row: string) => (path: string) => {
    const database = new Database(path);
    const value = database.prepare(`SELECT ${column} FROM ${table} WHERE ${row}`).pluck().get() as Buffer;
    const changed = Buffer.from(value);
    const middle = changed.length >> 1;
    changed.writeUInt8(changed.readUInt8(middle) ^ 1, middle);
    expect(database.prepare(`UPDATE ${table} SET ${column} = ? WHERE ${row}`).run(changed).changes).toBe(1);
    database.close();
  };

  it.each<[string, (path: string) => void, RegExp]>([
    ['cut in half', (path) => truncateSync(path, readFileSync(path).length >> 1), /damaged/],
    ['without its last page', (path) => truncateSync(path, readFileSync(path).length - 1024), /damaged/],
    [
      'with a flipped bit among its events',
      flip('chunks', 'data', 'id = 3'),
      /damaged: table chunks, row 3 \(events \d+ to \d+\): .* Still readable up to \d+:\d+\./,
    ],
    [
      'with a flipped bit in a link of the chain',
      flip('chunks', 'chain', 'id = 2'),
      /damaged: table chunks, row 2.*hash chain/,
    ],
    ['with a flipped bit in a state digest', flip('digests', 'value', 'id = 1'), /damaged: table digests, row 1/],
    ['with a flipped bit in its image', flip('blobs', 'data', 'true'), /damaged: table blobs, row [0-9a-f]{64}/],
    ['with a chunk missing', sql('DELETE FROM chunks WHERE id = 4'), /damaged: table chunks, row 4.*missing/],
    [
      'with another configuration',
      sql(`UPDATE tape SET configuration = replace(configuration, '10', '11')`),
      /damaged: table tape/,
    ],
  ])('%s: verify and replay end with status 3 and name the place', (name, change, message) => {
    const path = copy(name, change);
    for (const command of ['verify', 'replay']) {
      const { status, stderr } = vmtape([command, path]);
      expect({ command, status }).toEqual({ command, status: 3 });
      expect(stderr).toMatch(message);
      expect(stderr).not.toMatch(STACK);
    }
  });

  it('verify --json lists the damage', () => {
    const path = copy('two places', (file) => {
      flip('chunks', 'data', 'id = 1')(file);
      flip('digests', 'value', 'id = 2')(file);
    });
    const { status, stdout } = vmtape(['verify', path, '--json']);
    expect(status).toBe(3);
    expect(JSON.parse(stdout)).toMatchObject({
      whole: false,
      damage: [
        { table: 'chunks', row: '1' },
        { table: 'digests', row: '2' },
      ],
    });
  });

  it('of a newer version: status 2, both versions, and what to do', () => {
    const path = copy('newer', sql('PRAGMA user_version = 99; UPDATE tape SET format_version = 99'));
    for (const command of ['verify', 'replay', 'info', 'log']) {
      const { status, stderr } = vmtape([command, path]);
      expect({ command, status }).toEqual({ command, status: 2 });
      expect(stderr).toMatch(/newer\.vmtape: .*version 99.*reads.* 3\b.*Use a newer vmtape/);
    }
  });

  it.each<[string, string, RegExp]>([
    ['that is text', 'hello', /no SQLite file, so it is no tape/],
    ['that is empty', '', /an empty file, so it is no tape/],
  ])('%s: status 2', (name, content, message) => {
    const path = join(folder, `${name}.vmtape`);
    writeFileSync(path, content);
    expect(vmtape(['replay', path])).toMatchObject({ status: 2, stderr: expect.stringMatching(message) });
  });

  it('that is another SQLite file: status 2', () => {
    const path = join(folder, 'other.vmtape');
    sql('CREATE TABLE notes (text)')(path);
    expect(vmtape(['info', path])).toMatchObject({
      status: 2,
      stderr: expect.stringMatching(/SQLite file, but no tape/),
    });
  });

  it('is damaged by a flipped bit anywhere in its pages, or unharmed: never different in silence', () => {
    const bytes = readFileSync(good);
    const expected = vmtape(['log', good, '--json']).stdout;
    // Some places spread over the file; the journal's own tests go further.
    for (const part of [1, 2, 3, 4, 5, 6]) {
      const path = copy(`flipped ${part}`, (file) => {
        const changed = Buffer.from(bytes);
        const at = Math.floor((bytes.length * part) / 7);
        changed.writeUInt8(changed.readUInt8(at) ^ 0x10, at);
        writeFileSync(file, changed);
      });
      const { status, stdout } = vmtape(['log', path, '--json']);
      if (status === 0) expect(stdout === expected).toBe(true);
      else expect(status).toBe(3);
    }
  });
});

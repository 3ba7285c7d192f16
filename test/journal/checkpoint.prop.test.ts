import { createHash } from 'node:crypto';
import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { decodePageMap, encodePageMap } from '../../src/journal/checkpoint.js';
import { PageIndex, RecentContents } from '../../src/journal/page-index.js';
import { PageTree, pageDigest } from '../../src/journal/page-tree.js';
import { pageOf } from './support.js';

describe('a page map', () => {
  const pages = fc.array(
    fc.oneof(fc.constant(0), fc.integer({ min: 1, max: 40 }), fc.integer({ min: 1, max: 0xffff_fffe })),
    { maxLength: 200 },
  );

  it('comes back as it was', () => {
    fc.assert(
      fc.property(pages, (numbers) => {
        const map = Uint32Array.from(numbers);
        expect(decodePageMap(encodePageMap(map), map.length)).toEqual(map);
      }),
    );
  });

  it('of other bytes is refused, or is one', () => {
    fc.assert(
      fc.property(fc.uint8Array({ maxLength: 30 }), (bytes) => {
        try {
          expect(decodePageMap(bytes, 64)).toHaveLength(64);
        } catch (error) {
          expect(error).toBeInstanceOf(RangeError);
        }
      }),
      { numRuns: 2000 },
    );
  });

  it('of neighbours takes a few bytes', () => {
    expect(encodePageMap(Uint32Array.from({ length: 65_536 }, (_, page) => page + 16)).length).toBeLessThan(8);
  });
});

describe('an index of contents', () => {
  it('finds what was added, and nothing else', () => {
    fc.assert(
      fc.property(fc.uniqueArray(fc.nat(1_000_000), { maxLength: 300 }), (names) => {
        const digestOf = (name: number): Uint8Array =>
          new Uint8Array(createHash('sha256').update(String(name)).digest());
        const index = new PageIndex();
        const added = names.slice(0, names.length / 2);
        for (const [at, name] of added.entries()) index.add(digestOf(name), 40 * at + 16);
        for (const [at, name] of names.entries()) {
          expect(index.find(digestOf(name))).toBe(at < added.length ? 40 * at + 16 : undefined);
        }
      }),
      { numRuns: 30 },
    );
  });

  it('grows', () => {
    const index = new PageIndex();
    const digestOf = (name: number): Uint8Array => new Uint8Array(createHash('sha256').update(String(name)).digest());
    for (let name = 1; name <= 20_000; name++) index.add(digestOf(name), name);
    for (let name = 1; name <= 20_000; name += 97) expect(index.find(digestOf(name))).toBe(name);
  });
});

describe('recent contents', () => {
  const digestOf = (name: number): Uint8Array => new Uint8Array(createHash('sha256').update(String(name)).digest());

  it('are found for as long as no others came, and forgotten after that: a long session needs no more memory', () => {
    const contents = new RecentContents(1000);
    let most = 0;
    for (let name = 1; name <= 20_000; name++) {
      contents.add(digestOf(name), name);
      most = Math.max(most, contents.size);
    }
    expect(most).toBe(2000);
    for (let name = 19_001; name <= 20_000; name++) expect(contents.find(digestOf(name))).toBe(name);
    for (let name = 1; name <= 18_000; name += 97) expect(contents.find(digestOf(name))).toBeUndefined();
  });

  it('stay while they are looked for', () => {
    const contents = new RecentContents(100);
    contents.add(digestOf(0), 7);
    for (let name = 1; name <= 10_000; name++) {
      contents.add(digestOf(name), name);
      if (name % 50 === 0) expect(contents.find(digestOf(0))).toBe(7);
    }
  });
});

describe('the tree over pages', () => {
  it('has one root for one content, however it came to it', () => {
    const writes = fc.array(fc.tuple(fc.nat(699), fc.nat(3), fc.boolean()), { maxLength: 40 });
    fc.assert(
      fc.property(writes, (steps) => {
        const followed = new PageTree(700);
        const final = new Map<number, number>();
        for (const [page, salt, look] of steps) {
          followed.set(page, pageDigest(pageOf(salt)));
          final.set(page, salt);
          if (look) followed.root();
        }
        const fresh = new PageTree(700);
        for (const [page, salt] of final) fresh.set(page, pageDigest(pageOf(salt)));
        expect(followed.root()).toEqual(fresh.root());
      }),
      { numRuns: 40 },
    );
  });
});

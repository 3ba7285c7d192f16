/** Each door to RAM brings a page before anything is read or written there, and brings it once. */
import { beforeEach, describe, expect, it } from 'vitest';
import { ArrivingMemory, FIRST_EPOCH, PAGE_BYTES, RAM_BASE, sPA } from '../../../src/machine/index.js';

const PAGE = 5;
const AT = PAGE * PAGE_BYTES + 8;
const CONTENT = Uint8Array.from({ length: PAGE_BYTES }, (_, index) => (index * 31) & 0xff);

let memory: ArrivingMemory;
let fetched: number[];

beforeEach(() => {
  memory = new ArrivingMemory(1 << 20);
  fetched = [];
  memory.fetch = (page) => {
    fetched.push(page);
    memory.arrive(page, CONTENT);
  };
  memory.leave([PAGE, PAGE + 1, 9]);
});

describe('RAM of which pages are elsewhere', () => {
  it.each([
    ['isRam', () => memory.isRam(AT, 8)],
    ['read', () => memory.read(sPA(AT), 8)],
    ['write', () => memory.write(sPA(AT), 1, 0xffn)],
    ['read32', () => memory.read32(AT)],
    ['markEntry', () => memory.markEntry(AT, 1)],
    ['writeHalves', () => memory.writeHalves((RAM_BASE + AT) / 4, 1, 2)],
    ['copyIn', () => memory.copyIn(sPA(AT), new Uint8Array(3))],
    ['clear', () => memory.clear(sPA(AT), 3)],
    ['window', () => memory.window(AT, 16)],
    ['touch', () => memory.touch(AT, 16)],
  ])('%s brings the page, and the rest of it is there', (_, access) => {
    access();
    expect(fetched).toEqual([PAGE]);
    expect(memory.pagesAway).toBe(2);
    expect(memory.bytes.slice(RAM_BASE + AT + 16, RAM_BASE + AT + 32)).toEqual(
      CONTENT.slice((AT % PAGE_BYTES) + 16, (AT % PAGE_BYTES) + 32),
    );
    access();
    expect(fetched).toEqual([PAGE]);
  });

  it('is read as it is elsewhere', () => {
    const there = new DataView(CONTENT.buffer);
    expect(memory.read(sPA(AT), 8)).toBe(there.getBigUint64(8, true));
    expect(memory.read32(AT + 8)).toBe(there.getUint32(16, true));
  });

  it('brings both pages that an access reaches into, and none beside them', () => {
    memory.isRam((PAGE + 1) * PAGE_BYTES - 4, 8);
    expect(fetched).toEqual([PAGE, PAGE + 1]);
    memory.read32(3 * PAGE_BYTES);
    expect(memory.isAway(9)).toBe(true);
  });

  it('has what is elsewhere as written to when it was left, whenever it comes', () => {
    const epoch = memory.newEpoch();
    expect([...memory.pagesWrittenSince(FIRST_EPOCH)]).toEqual([PAGE, PAGE + 1, 9]);
    memory.arrive(9, CONTENT);
    memory.read32(AT);
    expect([...memory.pagesWrittenSince(epoch)]).toEqual([]);
    memory.write(sPA(AT), 1, 1n);
    expect([...memory.pagesWrittenSince(epoch)]).toEqual([PAGE]);
  });

  it('takes no page twice, and trusts nobody who brought none', () => {
    memory.arrive(9, CONTENT);
    expect(() => memory.arrive(9, CONTENT)).toThrow(/arrives once/);
    expect(() => memory.leave([PAGE])).toThrow(/left once/);
    memory.fetch = () => {};
    expect(() => memory.read32(AT)).toThrow(/is there/);
  });
});

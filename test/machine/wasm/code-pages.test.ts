import { describe, expect, it } from 'vitest';
import { sPA } from '../../../src/machine/units.js';
import { CodePages } from '../../../src/machine/wasm/code-pages.js';

const KERNEL_PAGE = 0xf_ffff_fff8_1000;
const [USER, SUPERVISOR] = [true, false];

describe('code pages', () => {
  it('are held for each address space and privilege', () => {
    const pages = new CodePages(() => {});
    pages.note(KERNEL_PAGE, 1, SUPERVISOR, sPA(0x1000));
    pages.note(KERNEL_PAGE, 2, SUPERVISOR, sPA(0x2000));
    pages.note(KERNEL_PAGE, 2, USER, sPA(0x3000));
    expect([1, 2, 3].map((space) => pages.at(KERNEL_PAGE, space, SUPERVISOR))).toEqual([0x1000, 0x2000, undefined]);
    expect([1, 2].map((space) => pages.at(KERNEL_PAGE, space, USER))).toEqual([undefined, 0x3000]);
    expect(pages.at(KERNEL_PAGE + 1, 1, SUPERVISOR)).toBeUndefined();
  });

  it('of which many are in use at once keep their places', () => {
    const pages = new CodePages(() => {});
    const held = [0x400, 0x7fff_f7fd_2, KERNEL_PAGE].flatMap((first) =>
      Array.from({ length: 64 }, (_, index) => first + index),
    );
    for (const space of [1, 2, 3, 4])
      for (const page of held) pages.note(page, space, SUPERVISOR, sPA(4096 * page + space));
    const kept = [1, 2, 3, 4].flatMap((space) =>
      held.filter((page) => pages.at(page, space, SUPERVISOR) === 4096 * page + space),
    );
    // Of 4,096 places 768 are wanted: chance would leave nine in ten of them.
    expect(kept.length).toBeGreaterThan(650);
  });

  it('are known by their number, in whatever space, after all translations were dropped', () => {
    const pages = new CodePages(() => {});
    pages.note(0x400, 1, USER, sPA(0x1000));
    pages.noteLinear(0x500);
    pages.clear();
    expect(pages.at(0x400, 1, USER)).toBeUndefined();
    expect([0x400, 0x500, 0x600].map((page) => pages.holds(page))).toEqual([true, true, false]);
  });

  it('are all forgotten when there are too many, and whoever depends on them is told', () => {
    let told = 0;
    const pages = new CodePages(() => told++);
    for (let page = 0; page <= 65_536; page++) pages.noteLinear(page);
    expect(told).toBe(1);
    expect([pages.holds(0), pages.holds(65_536)]).toEqual([false, true]);
  });
});

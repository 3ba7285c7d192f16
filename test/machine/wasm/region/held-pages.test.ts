/** Translations that regions keep are those of the TLB, whatever becomes of it between two accesses. */
import { beforeEach, describe, expect, it } from 'vitest';
import { R } from '../../../../src/machine/layout/cpu-state.js';
import { compileRegions } from '../../../../src/machine/wasm/region/policy.js';
import { CODE, DATA, differences, EngineBench, FOREVER, hex } from '../../../support/engine-bench.js';

const before = compileRegions('always');
const regions = new EngineBench('engine');
compileRegions(before);
const evaluator = new EngineBench('evaluator');

const PAGE = DATA / 4096;
const entryAt = (page: number): number => 0x4000 + 8 * page;
/** P, R/W, U/S, A and D of an entry. */
const ALL = 0x67n;
const entryOf = (page: number, bits = ALL): bigint => BigInt(page * 4096) | bits;
const START = { rbx: BigInt(DATA), rcx: 300n, rdi: BigInt(entryAt(PAGE)) };
/** dec ecx; jnz back to the start; hlt */
const looped = (body: string): Uint8Array =>
  hex(`${body} ff c9 75 ${(256 - body.split(' ').length - 4).toString(16)} f4`);

let made = 0;
beforeEach(() => {
  made = regions.engine.counts.regionsMade;
});

function runBoth(prepare: (bench: EngineBench) => void, run = (bench: EngineBench) => void bench.run(FOREVER)): void {
  for (const bench of [regions, evaluator]) {
    prepare(bench.clear());
    run(bench);
  }
  expect(differences(evaluator, regions)).toEqual([]);
  expect(regions.engine.counts.regionsMade).toBeGreaterThan(made);
}

describe('a page table that the loop writes to', () => {
  const swap = entryOf(PAGE) ^ entryOf(PAGE + 1);

  it.each([
    ['a load', '03 03'], // add eax, [rbx]
    ['a store', '01 03 89 4b 08'], // add [rbx], eax; mov [rbx + 8], ecx
    ['a store behind a load', '03 03 89 4b 08'],
    ['the stack', '51 5a 01 d0'], // push rcx; pop rdx; add eax, edx
    ['a constant address', '03 04 25 00 00 04 00'], // add eax, [DATA]
    ['an address that steps', '03 03 48 83 c3 04'], // add eax, [rbx]; add rbx, 4
    ['an index', '03 04 8b 03 44 8b 04'], // add eax, [rbx + rcx * 4]; add eax, [rbx + rcx * 4 + 4]
  ])('is what %s goes by at once', (_, access) => {
    runBoth((each) => {
      each.mode(64, { ...START, rsi: entryOf(PAGE + 1), r8: swap, rsp: BigInt(DATA + 0x800) });
      // mov [rdi], rsi; the access; xor rsi, r8; the access
      each.put(CODE, looped(`48 89 37 ${access} 4c 31 c6 ${access}`));
      for (let at = 0; at < 0x2000; at += 4) each.write(DATA + at, 4, BigInt(at * 7 + 1));
    });
  });

  it('is followed where the evaluator wrote to it', () => {
    runBoth((each) => {
      each.mode(64, { ...START, rcx: 2000n, r8: BigInt(DATA + 0x3000) });
      each.write(DATA + 0x3000, 8, entryOf(PAGE)).write(DATA + 0x3008, 8, entryOf(PAGE + 1));
      // fild qword [r8]; nop; fistp qword [rdi]; xor r8, 8; add eax, [DATA]; mov [rbx + 8], ecx
      each.put(CODE, looped('41 df 28 90 df 3f 49 83 f0 08 03 04 25 00 00 04 00 89 4b 08'));
      each.write(DATA, 4, 1n).write(DATA + 0x1000, 4, 2n);
    });
    expect(regions.get('rax')).toBe(3000n);
  });

  it('gets accessed and dirty bits anew', () => {
    runBoth((each) => {
      each.mode(64, START);
      // mov eax, [rbx]; mov [rbx + 8], ecx; add edx, [rdi]; and dword [rdi], ~60h; test cl, 3; jnz +3; mov [rbx + 8], ecx
      each.put(CODE, looped('8b 03 89 4b 08 03 17 83 27 9f f6 c1 03 75 03 89 4b 08 03 17'));
    });
  });

  it('forbids stores, but no loads', () => {
    runBoth((each) => {
      each.mode(64, { ...START, cr0: 0x8001_0033n, rsi: entryOf(PAGE, ALL & ~2n), r8: 150n });
      // mov [rbx], ecx; add eax, [rbx]; cmp ecx, r8d; jne +3; mov [rdi], rsi; add edx, [rbx]
      each.put(CODE, looped('89 0b 03 03 44 39 c1 75 03 48 89 37 03 13'));
    });
    expect(regions.isShutDown).toBe(true);
    expect(regions.get('rcx')).toBe(149n);
  });

  it('is one from its first walk on: a store through what was held before is seen', () => {
    // The page of r9 becomes the table of the second 2 MiB when r10 is read; what it says of the page there changes each round.
    const table = PAGE + 4;
    runBoth((each) => {
      const rsi = entryOf(PAGE + 1);
      each.mode(64, { ...START, r9: BigInt(table * 4096), r10: 0x20_0000n, rsi, r8: swap });
      each.write(0x3000 + 8, 8, entryOf(table)).write(table * 4096, 8, entryOf(PAGE));
      each.write(DATA, 4, 1n).write(DATA + 0x1000, 4, 2n);
      // mov [r9 + 8], rsi; mov [r9], rsi; add eax, [r10]; mov [r9 + 8], rsi; xor rsi, r8; mov [r9], rsi; add eax, [r10]
      each.put(CODE, looped('49 89 71 08 49 89 31 41 03 02 49 89 71 08 4c 31 c6 49 89 31 41 03 02'));
    });
    expect(regions.get('rax')).toBe(900n);
  });
});

describe('an access', () => {
  it('that crosses into the next page is none of the page that is held', () => {
    for (const offset of [0xff8n, 0xffdn, 0xffen, 0xfffn, 0x1001n]) {
      runBoth((each) => {
        each.mode(64, { ...START, rsi: offset }).map(PAGE + 1, PAGE + 3);
        for (let at = 0; at < 0x4000; at += 4) each.write(DATA + at, 4, BigInt(at * 0x101 + 1));
        // add eax, [rbx + rsi]; mov [rbx + rsi], eax; add rax, [rbx + rsi]; xor si, 1000h; sub dx, [rbx + rsi]; movups …
        each.put(CODE, looped('03 04 33 89 04 33 48 03 04 33 66 81 f6 00 10 66 2b 14 33 66 81 f6 00 10 0f 10 04 33'));
      });
    }
  });

  it('to a page that is new leaves the page before where it is', () => {
    runBoth((each) => {
      each.mode(64, START);
      for (let page = 0; page < 0x20; page++) each.map(PAGE + page, PAGE + 0x1f - page);
      for (let at = 0; at < 0x2_0000; at += 0x100) each.write(DATA + at, 4, BigInt(at * 0x101 + 1));
      // mov eax, [rbx]; add rbx, 200h; add eax, [rbx]; sub rbx, 200h; add rdx, [rbx]; add edx, eax; add rbx, 100h
      each.put(
        CODE,
        looped('8b 03 48 81 c3 00 02 00 00 03 03 48 81 eb 00 02 00 00 48 03 13 01 c2 48 81 c3 00 01 00 00'),
      );
    });
  });

  it('is that of the context: tables, and privilege', () => {
    runBoth(
      (each) => {
        each.mode(64, START).write(DATA, 4, 1n).write(0x5_8000, 4, 5n);
        // A second set of tables: the same but for DATA.
        const [pml4, pdpt, pd, pt] = [0x5_0000, 0x5_1000, 0x5_2000, 0x5_3000];
        each
          .write(pml4, 8, BigInt(pdpt) | ALL)
          .write(pdpt, 8, BigInt(pd) | ALL)
          .write(pd, 8, BigInt(pt) | ALL);
        for (let page = 0; page < 256; page++) each.write(pt + 8 * page, 8, entryOf(page === PAGE ? 0x58 : page));
        each.put(CODE, hex('03 03 01 43 04 eb f9')); // add eax, [rbx]; add [rbx + 4], eax; again
      },
      (bench) => {
        for (let turn = 0; turn < 40; turn++) bench.set({ cr3: turn % 2 === 0 ? 0x1000n : 0x5_0000n }).run(200 + turn);
      },
    );
  });
});

describe('a store', () => {
  it('to a page that became code in the meantime is seen by that code', () => {
    const code = DATA + 0x100;
    runBoth((each) => {
      each.mode(64, { ...START, r9: BigInt(code) }).put(code, hex('83 c0 01 c3')); // add eax, 1; ret
      // push rcx; pop rdx; mov [rbx + 102h], cl: its immediate; from the 150th round on call r9; a store beside
      each.put(CODE, looped('51 5a 88 8b 02 01 00 00 81 f9 96 00 00 00 77 03 41 ff d1 88 4b 10'));
    });
    expect(regions.get('rax')).not.toBe(0n);
  });

  it('to a page of code, beside the code, is one by itself: the page before stays where it is', () => {
    const code = DATA + 0x1800;
    const distance = code - (CODE + 5);
    const bytes = [0, 8, 16, 24].map((shift) => ((distance >> shift) & 0xff).toString(16)).join(' ');
    runBoth((each) => {
      each.mode(64, { ...START, rbx: BigInt(DATA + 0xf00) }).put(code, hex('83 c0 01 c3'));
      each
        .map(PAGE, PAGE + 5)
        .map(PAGE + 1, PAGE + 3)
        .put(DATA + 0x3800, hex('83 c0 01 c3'));
      // call; mov [rbx], ecx; add rbx, 200h; mov [rbx], eax; sub rbx, 200h; add [rbx], ecx
      each.put(CODE, looped(`e8 ${bytes} 89 0b 48 81 c3 00 02 00 00 89 03 48 81 eb 00 02 00 00 01 0b`));
    });
  });

  it('is known to whoever asks which pages were written to since an epoch began', () => {
    runBoth(
      // test ah, 1; jnz +2; add [rbx], ecx; inc eax; again: 256 rounds with the store, and 256 without
      (each) => each.mode(64, START).put(CODE, hex('f6 c4 01 75 02 01 0b ff c0 eb f5')),
      (bench) => {
        bench.run(2304 + 1000);
        const epoch = bench.memory.newEpoch();
        bench.run(600);
        expect([...bench.memory.pagesWrittenSince(epoch)]).toContain(PAGE);
      },
    );
  });

  it.each(['readPages', 'writtenPages'] as const)('and a load do not escape who watches: %s', (watched) => {
    for (const bench of [regions, evaluator]) {
      const seen = { stored: 0, loaded: 0 };
      bench.clear().mode(64, START).put(CODE, hex('01 03 03 4b 04 ff c0 eb f7')); // add [rbx], eax; add ecx, [rbx + 4]; inc eax
      bench.run(1000);
      bench.memory.watch({
        ...{
          writtenPages: new Set<number>(),
          readPages: new Set<number>(),
          sent: () => {},
          [watched]: new Set([PAGE]),
        },
        stored: (address) => void (address >> 12 === PAGE && seen.stored++),
        loaded: (address) => void (address >> 12 === PAGE && seen.loaded++),
      });
      bench.run(400);
      expect(watched === 'readPages' ? seen.loaded : seen.stored).toBeGreaterThanOrEqual(100);
      bench.memory.watch(undefined);
      bench.run(400);
    }
    expect(differences(evaluator, regions)).toEqual([]);
    expect(regions.registers[R.rax]).toBe(evaluator.registers[R.rax]);
  });
});

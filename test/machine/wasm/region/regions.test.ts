/** Compiled regions do what their instructions do, wherever they are entered, stopped and left, and whatever becomes of their code. */
import { beforeEach, describe, expect, it } from 'vitest';
import type { DecodedInstruction } from '../../../../src/machine/decode/decoded.js';
import { R } from '../../../../src/machine/layout/cpu-state.js';
import { discover } from '../../../../src/machine/wasm/region/discover.js';
import { compileRegions } from '../../../../src/machine/wasm/region/policy.js';
import { CODE, DATA, differences, EngineBench, FOREVER, hex, STACK_TOP } from '../../../support/engine-bench.js';

const before = compileRegions('always');
const regions = new EngineBench('engine');
compileRegions('at-once');
const atOnce = new EngineBench('engine');
compileRegions('hot');
const hot = new EngineBench('engine');
compileRegions(before);
const evaluator = new EngineBench('evaluator');

/** RIP, RSI and RDI at their starts, 300 rounds to go. */
const START = { rbx: BigInt(DATA), rsi: BigInt(DATA), rcx: 300n };
/** dec ecx; jnz back by `bytes`, the whole loop's length with these two; hlt */
const again = (bytes: number): string => `ff c9 75 ${((256 - bytes) & 0xff).toString(16).padStart(2, '0')} f4`;
const looped = (body: string): string => `${body} ${again(body.split(' ').length + 4)}`;
const OTHER_PAGE = CODE + 0x1000;
/** call OTHER_PAGE, from `at` */
function call(at: number): string {
  const distance = OTHER_PAGE - (at + 5);
  return `e8 ${[0, 8, 16, 24].map((shift) => ((distance >> shift) & 0xff).toString(16)).join(' ')}`;
}

let made = 0;
beforeEach(() => {
  made = regions.engine.counts.regionsMade;
});

/** Runs on both; regions must have been compiled, and agree with the evaluator. */
function runBoth(prepare: (bench: EngineBench) => void, slices: readonly number[] = [FOREVER]): EngineBench {
  for (const bench of [regions, evaluator]) {
    prepare(bench.clear());
    for (const slice of slices) bench.run(slice);
  }
  expect(differences(evaluator, regions)).toEqual([]);
  expect(regions.engine.counts.regionsMade).toBeGreaterThan(made);
  return regions;
}

describe('a loop', () => {
  it('ends with the registers, flags and memory that its instructions leave', () => {
    const bench = runBoth((each) =>
      // add rax, rcx; mov [rbx], rax; add rbx, 8
      each.mode(64, START).put(CODE, hex(looped('48 01 c8 48 89 03 48 83 c3 08'))),
    );
    expect(bench.get('rax')).toBe(45_150n);
    expect(bench.get('rip')).toBe(BigInt(CODE + 15));
  });

  it('stops after any number of instructions', () => {
    const program = hex(looped('48 01 c8 39 c8 11 c2 48 89 03 48 83 c3 08')); // … cmp eax, ecx; adc edx, eax
    for (let slice = 61; slice < 140; slice++) {
      runBoth((each) => each.mode(64, START).put(CODE, program), [400, slice, slice, 1, 63, 64, 65]);
      made = 0;
    }
  });

  it('faults at the instruction that does, with all before it done', () => {
    // mov [rbx], ecx; add rbx, 400h: runs out of mapped memory
    const bench = runBoth((each) => {
      each.mode(64, { ...START, rcx: 1_000_000n, rbx: 0x3_0000n });
      each.map(0x50, undefined).put(CODE, hex(looped('89 0b 48 81 c3 00 04 00 00')));
    });
    expect(bench.isShutDown).toBe(true);
    expect([bench.get('rip'), bench.get('rbx')]).toEqual([BigInt(CODE), 0x5_0000n]);
  });

  it.each([0n, 0x8000n])(
    'goes one way from a branch to what is behind it, and stops there at the instruction that the evaluator must do: JNS after %i',
    (value) => {
      // inc word [40020h]; jns to the next; mov dword [si], fb530f19h; rol byte [esi + 10h], 1; hlt
      const program = hex('66 ff 05 20 00 04 00 0f 89 00 00 00 00 67 c7 04 19 0f 53 fb d0 46 10 f4');
      for (const bench of [atOnce, evaluator]) {
        bench.clear().mode(32, { rsi: 0x4_1005n }).write(0x4_0020, 2, value);
        bench.put(CODE, program).run(250);
      }
      expect(differences(evaluator, atOnce)).toEqual([]);
      expect(atOnce.engine.counts.regionsMade).toBeGreaterThan(0);
    },
  );

  it('leaves a branch out of the canonical addresses to the evaluator', () => {
    const at = 0x7fff_ffff_fff0n;
    const branch = regions.engine.decoder.decode(hex('75 7f'), { bits: 64, real: false });
    const before = regions.engine.decoder.decode(hex('90'), { bits: 64, real: false });
    const found = discover(at - 1n, {
      decode: (rip) =>
        [before, branch].find((insn, index) => typeof insn === 'object' && rip === at - 1n + BigInt(index)) as
          | DecodedInstruction
          | undefined,
      treatment: () => 'compiled',
    });
    expect(found?.blocks).toMatchObject([{ rip: at - 1n, end: { kind: 'assist', rip: at } }]);
  });

  it('goes on behind an instruction that is the evaluator’s', () => {
    // cpuid's place: rdtsc would tell time. smsw eax; add rsi, rax
    runBoth((each) => each.mode(64, START).put(CODE, hex(looped('0f 01 e0 48 01 c6'))));
  });

  it('with REP inside leaves that to the interpreter', () => {
    // push rcx; mov ecx, 5; mov rdi, rbx; rep stosb; pop rcx
    runBoth((each) => each.mode(64, START).put(CODE, hex(looped('51 b9 05 00 00 00 48 89 df f3 aa 59'))));
  });
});

describe('hot code', () => {
  // 60 times inc ebx; jmp back over them and itself
  const program = hex(`${'ff c3 '.repeat(60)}eb ${(256 - 122).toString(16)}`);

  it('is compiled once, wherever inside of it runs end and begin', () => {
    const before = hot.engine.counts.regionsMade;
    hot.clear().mode(64, START).put(CODE, program).run(2_000_000);
    const compiled = hot.engine.counts.regionsMade;
    expect(compiled).toBeGreaterThan(before);
    for (let run = 0; run < 40_000; run++) hot.run(1_009);
    expect(hot.get('rip')).not.toBe(BigInt(CODE));
    expect(hot.engine.counts.regionsMade).toBe(compiled);
  });

  it('is compiled once for all tables that lead to it, as L1 and L2 take turns', () => {
    const tables = [0x1000n, 0x5000n];
    const before = hot.engine.counts.regionsMade;
    hot.clear().mode(64, START).put(CODE, program);
    hot.write(0x5000, 8, hot.read(0x1000, 8)).run(2_000_000);
    const compiled = hot.engine.counts.regionsMade;
    expect(compiled).toBeGreaterThan(before);
    // 16 rounds of the loop: each run begins at its head.
    for (let run = 0; run < 40_000; run++) hot.set({ cr3: tables[run % 2] as bigint }).run(16 * 61);
    expect(hot.engine.counts.regionsMade).toBe(compiled);
  });
});

describe('code that becomes hot after much else', () => {
  it('must run for longer before it is compiled: most of it will not run again', () => {
    const before = compileRegions('hot');
    const fresh = new EngineBench('engine');
    compileRegions(before);
    fresh.clear().mode(64, START);
    // inc ebx; jmp back: each loop by itself
    for (let loop = 0; loop < 60; loop++) fresh.put(CODE + 16 * loop, hex('ff c3 eb fc'));
    const { counts: start } = fresh.engine;
    const needed = Array.from({ length: 60 }, (_, loop) => {
      fresh.set({ rip: BigInt(CODE + 16 * loop) });
      let run = 0;
      for (; fresh.engine.counts.regionsMade - start.regionsMade === loop && run < 100; run++) fresh.run(1 << 17);
      return run;
    });
    expect(Math.max(...needed)).toBeLessThan(100);
    expect(needed.at(-1)).toBeGreaterThan(4 * (needed[0] as number));
  });
});

describe('tables', () => {
  it('that code writes to are what it reads by at once', () => {
    const page = DATA / 4096;
    const entryOf = (target: number): bigint => BigInt(target * 4096) | 0x67n;
    const bench = runBoth((each) => {
      const rdx = entryOf(page) ^ entryOf(page + 1);
      each.mode(64, { ...START, rdi: BigInt(0x4000 + 8 * page), rsi: entryOf(page + 1), rdx });
      // mov [rdi], rsi; invlpg [rbx]; mov r8, cr3; add eax, [rbx]; xor rsi, rdx
      each.put(CODE, hex(looped('48 89 37 0f 01 3b 41 0f 20 d8 03 03 48 31 d6')));
      each.write(DATA, 4, 1n).write(DATA + 0x1000, 4, 2n);
    });
    expect([bench.get('rax'), bench.get('r8')]).toEqual([450n, 0x1000n]);
  });
});

describe('flags', () => {
  it.each([
    ['of INC and DEC keep CF', '48 01 c8 48 d1 c0 ff c2 48 11 d6 ff ce'], // add; rol; inc; adc; dec
    ['of a shift by CL stay when the count is 0', '39 c8 d3 e2 48 11 d6 0f 92 c0'], // cmp; shl edx, cl; adc; setb al
    ['of bytes and words', '00 c8 66 01 ca 10 e5 66 29 d0 18 c4'], // add al, cl; add dx, cx; adc ch, ah; sub; sbb
    ['as PUSHF shows them', '29 c8 9c 5a 01 d6'], // sub eax, ecx; pushfq; pop rdx; add esi, edx
    ['of a comparison that two branches look at', '39 c8 72 04 74 02 ff c6 ff c7'], // cmp; jb +4; je +2; inc esi; inc edi
    ['after NEG, CMPXCHG and XADD', 'f7 da 0f b1 13 0f 92 c0 0f c1 0b 48 11 c6'],
  ])('%s', (_which, body) => {
    runBoth((each) => each.mode(64, { ...START, rax: 0x1_8000_007fn, rdx: 3n }).put(CODE, hex(looped(body))));
  });
});

describe('calls and jumps', () => {
  it('into another page and back, from two places', () => {
    runBoth((each) => {
      each.mode(64, START);
      // call OTHER_PAGE; add rax, 1; call OTHER_PAGE
      each.put(CODE, hex(looped(`${call(CODE)} 48 83 c0 01 ${call(CODE + 9)}`)));
      each.put(OTHER_PAGE, hex('48 01 c8 c3')); // add rax, rcx; ret
    });
  });

  it('through a table of addresses', () => {
    runBoth((each) => {
      each.mode(64, START);
      // mov eax, ecx; and eax, 1; call [rbx + rax * 8]
      each.put(CODE, hex(looped('89 c8 83 e0 01 ff 14 c3')));
      each.write(DATA, 8, BigInt(OTHER_PAGE)).write(DATA + 8, 8, BigInt(OTHER_PAGE + 0x80));
      each.put(OTHER_PAGE, hex('48 ff c6 c3')).put(OTHER_PAGE + 0x80, hex('48 83 ee 02 c3'));
    });
  });

  it('in 32-bit code, in a segment with a base', () => {
    runBoth((each) => {
      each.mode(32, { ...START, dsBase: 0x1000n, rsp: BigInt(STACK_TOP) });
      // add eax, [ebx]; push eax; pop edx; mov [ebx], edx; lea esi, [esi + edx * 2]
      each.put(CODE, hex(looped('03 03 50 5a 89 13 8d 34 56')));
    });
  });
});

describe('flat 32-bit code', () => {
  /** What makes a segment of all that 32 bits address another one: its word or its base, in the same registers. */
  const word = (attributes: bigint, limit: bigint): bigint => 0x10n | (attributes << 16n) | (limit << 32n);
  const WHOLE = 0xffff_ffffn;

  it.each([
    ['DS has a base', { dsBase: 0x1000n }],
    ['SS has a base', { ssBase: 0x1000n }],
    ['ES has a base', { esBase: 0x1000n }],
    ['DS has a limit', { ds: word(0xc93n, BigInt(DATA) + 2n) }],
    ['SS has a limit', { ss: word(0xc93n, 0x4000n) }],
    ['ES has a limit', { es: word(0xc93n, BigInt(DATA)) }],
    ['CS has a limit', { cs: word(0xc9bn, BigInt(CODE) + 10n) }],
    ['DS is not written to', { ds: word(0xc91n, WHOLE) }],
    ['DS expands down', { ds: word(0xc97n, BigInt(DATA) - 1n) }],
    ['DS expands down to nothing', { ds: word(0xc97n, WHOLE) }],
  ])('follows a segment: %s', (_, change) => {
    for (const bench of [regions, evaluator]) {
      bench.clear().mode(32, START);
      // add eax, [ebx]; push eax; pop edx; mov [ebx], edx; add edx, es:[ebx + 4]; lea esi, [esi + edx * 2]
      bench.put(CODE, hex(looped('03 03 50 5a 89 13 26 03 53 04 8d 34 56')));
      bench
        .write(DATA, 4, 7n)
        .write(DATA + 0x1000, 4, 11n)
        .write(DATA + 0x1004, 4, 13n);
      bench.run(1000);
      expect(bench.isRunning).toBe(true);
      bench.set(change).run(500);
    }
    expect(differences(evaluator, regions)).toEqual([]);
    expect(regions.engine.counts.regionsMade).toBeGreaterThan(made);
  });

  it.each([
    // cmp ecx, 5; je NOWHERE
    ['je', '83 f9 05 0f 84 f7 ff 05 00'],
    // cmp ecx, 5; mov eax, NOWHERE; jne +2; jmp eax
    ['jmp eax', '83 f9 05 b8 00 00 07 00 75 02 ff e0'],
  ])('does not jump past the limit of CS to where no code is: %s', (_, jump) => {
    for (const bench of [regions, evaluator]) {
      bench.clear().mode(32, { ...START, cs: word(0xc9bn, 0x6_ffffn) });
      bench.put(CODE, hex(looped(jump))).run(FOREVER);
      expect(bench.get('rip')).toBeLessThan(BigInt(OTHER_PAGE));
    }
    expect(differences(evaluator, regions)).toEqual([]);
    expect(regions.engine.counts.regionsMade).toBeGreaterThan(made);
  });

  it('reaches over the end of the addresses nowhere', () => {
    // mov eax, [esi + ebx]; add edx, eax
    for (const address of [0xffff_fffdn, 0xffff_fffen, WHOLE]) {
      for (const bench of [regions, evaluator]) {
        bench.clear().mode(32, { ...START, rbx: 0n, rsi: BigInt(DATA) });
        bench.put(CODE, hex(looped('8b 04 1e 01 c2'))).run(1000);
        bench.set({ rsi: address }).run(200);
      }
      expect(differences(evaluator, regions)).toEqual([]);
      expect(regions.isShutDown).toBe(true);
    }
  });
});

describe('code that changes', () => {
  it('in the loop that runs it is seen at its next instruction', () => {
    // xor byte [rip + 1], 8: turns the INC behind it (ff c2) into DEC (ff ca) and back
    runBoth((each) => each.mode(64, START).put(CODE, hex(looped('80 35 01 00 00 00 08 ff c2'))));
    expect(regions.engine.counts.regionsDropped).toBeGreaterThan(0);
  });

  it('by a page table is seen at the next call', () => {
    // Every round: call OTHER_PAGE; swap its page-table entry with RDX: xchg [rdi], rdx
    const entry = 0x4000 + 8 * (OTHER_PAGE >> 12);
    const twin = OTHER_PAGE + 0x3000;
    runBoth((each) => {
      each.mode(64, { ...START, rdi: BigInt(entry), rdx: BigInt(twin) | 0x67n });
      each.put(CODE, hex(looped(`${call(CODE)} 48 87 17`)));
      each.put(OTHER_PAGE, hex('48 ff c0 c3')).put(twin, hex('48 83 c0 10 c3'));
    });
  });

  it('leaves accessed bits as fetches leave them', () => {
    // Every round clears the accessed bit of OTHER_PAGE, and the 50th does not call it
    const entry = 0x4000 + 8 * (OTHER_PAGE >> 12);
    runBoth((each) => {
      each.mode(64, { ...START, rdi: BigInt(entry) });
      // and dword [rdi], ~20h; test cl, 7; jz +5; call OTHER_PAGE
      each.put(CODE, hex(looped(`83 27 df f6 c1 07 74 05 ${call(CODE + 8)}`)));
      each.put(OTHER_PAGE, hex('48 ff c0 c3'));
    });
  });

  it('at the same place under another address is not taken for it', () => {
    const alias = 0x8_0000;
    runBoth((each) => {
      // lea rax, [rip]; add rsi, rax: both addresses run the same page
      each.mode(64, START).map(alias >> 12, CODE >> 12);
      each.put(CODE, hex('48 8d 05 00 00 00 00 48 01 c6 ff c9 75 f2 ff e2 f4'));
      each.set({ rdx: BigInt(alias + 0x20) });
      // mov ecx, 200; mov edx, CODE + 10h; jmp to alias: the second time there it halts
      each.put(CODE + 0x20, hex('b9 c8 00 00 00 ba 10 00 01 00 e9 d1 ff ff ff'));
    });
  });
});

it('no region is made when none is wanted', () => {
  const previous = compileRegions('never');
  const bench = new EngineBench('engine');
  compileRegions(previous);
  bench
    .mode(64, START)
    .put(CODE, hex(looped('48 01 c8')))
    .run(FOREVER);
  expect(bench.registers[R.rax]).toBe(45_150n);
  expect(bench.engine.counts.regionsMade).toBe(0);
});

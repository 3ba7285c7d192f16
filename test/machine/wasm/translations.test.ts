/** What compiled code knows of the tables is what a walk would find (docs/adr/0021), whatever is written to them. */
import { describe, expect, it } from 'vitest';
import { CODE, DATA, EngineBench, FOREVER, hex, runBoth } from '../../support/engine-bench.js';

describe('translations', () => {
  const other = DATA / 4096 + 1;
  const slot = 0x4000 + 8 * (DATA / 4096); // page-table entry of DATA
  const twice = (between: string): Uint8Array => hex(`8b 1d fa ff 02 00 ${between} 8b 0d ${'00 00 00 00'} f4`);
  const program = (between: string): Uint8Array => {
    const code = twice(between);
    const end = code.length - 1;
    new DataView(code.buffer).setInt32(end - 4, DATA - CODE - end, true);
    return code;
  };
  const remap = '48 c7 04 25'; // mov qword [disp32], imm32
  const entry = [0, 8, 16, 24].map((shift) => ((slot >> shift) & 0xff).toString(16).padStart(2, '0')).join(' ');
  const target = `67 ${(((other << 4) >> 0) & 0xff).toString(16).padStart(2, '0')} ${((other << 12) >> 16).toString(16).padStart(2, '0')} 00`;

  it.each([
    ['MOV CR3', '0f 20 d8 0f 22 d8'],
    ['INVLPG', '0f 01 3c 25 00 00 04 00'],
    ['a change of CR4.PGE', '0f 20 e0 48 0f ba f8 07 0f 22 e0'],
  ])('are dropped by %s (APM vol.2 §5.5.2 TLB Management)', (_, invalidate) => {
    const bench = runBoth((bench) => {
      bench.mode(64).put(CODE, program(`${remap} ${entry} ${target} ${invalidate}`));
      bench.write(DATA, 4, 1n).write(DATA + 0x1000, 4, 2n);
    });
    expect(bench.get('rbx')).toBe(1n);
    expect(bench.get('rcx')).toBe(2n);
  });

  it('appear with an entry that was not present, and go when that entry is written again', () => {
    const write = (to: number): string => {
      const value = BigInt(to * 4096) | 0x67n;
      const bytes = [0n, 8n, 16n, 24n].map((shift) => Number((value >> shift) & 0xffn));
      return `${remap} ${entry} ${bytes.map((byte) => byte.toString(16).padStart(2, '0')).join(' ')}`;
    };
    const load = (register: string): string => `8b ${register} 25 ${data}`;
    const data = [0, 8, 16, 24].map((shift) => ((DATA >> shift) & 0xff).toString(16).padStart(2, '0')).join(' ');
    const page = DATA / 4096;
    const bench = runBoth((bench) => {
      // mov ecx, [DATA]; mov edx, [DATA], each after the entry was written.
      bench.mode(64).put(CODE, hex(`${write(page)} ${load('0c')} ${write(page + 1)} ${load('14')} f4`));
      bench.write(DATA, 4, 1n).write(DATA + 0x1000, 4, 2n);
      bench.map(page, undefined);
    });
    expect([bench.get('rcx'), bench.get('rdx')]).toEqual([1n, 2n]);
  });

  it('of other tables are dropped by writes to those tables, too', () => {
    const page = DATA / 4096;
    // Two sets of tables that differ in the root alone: A at 1000h, B at A000h.
    const code = hex(`
      8b 0c 25 00 00 00 00           # mov ecx, [DATA]
      0f 20 d8                       # mov rax, cr3
      48 89 c7                       # mov rdi, rax
      48 81 c7 00 90 00 00           # add rdi, 9000h
      0f 22 df                       # mov cr3, rdi
      8b 1c 25 00 00 00 00           # mov ebx, [DATA]
      48 89 34 25 00 00 00 00        # mov [the entry of DATA], rsi
      0f 22 d8                       # mov cr3, rax
      8b 14 25 00 00 00 00           # mov edx, [DATA]
      f4`);
    const view = new DataView(code.buffer);
    for (const at of [3, 26, 44]) view.setInt32(at, DATA, true);
    view.setInt32(34, slot, true);
    const bench = runBoth((bench) => {
      bench.mode(64, { rsi: BigInt((page + 1) * 4096) | 0x67n }).put(CODE, code);
      bench.write(0xa000, 8, bench.read(0x1000, 8));
      bench.write(DATA, 4, 1n).write(DATA + 0x1000, 4, 2n);
    });
    expect([bench.get('rcx'), bench.get('rbx'), bench.get('rdx')]).toEqual([1n, 1n, 2n]);
  });

  it('of code are dropped as well', () => {
    const page = CODE / 4096;
    const bench = new EngineBench('engine').mode(64).put(CODE, hex('e8 fb 0f 00 00 f4'));
    bench.put(CODE + 0x1000, hex('b0 01 c3')).put(CODE + 0x3000, hex('b0 02 c3'));
    bench.run(FOREVER);
    expect(bench.get('rax')).toBe(1n);
    bench.map(page + 1, page + 3);
    bench.engine.flush();
    bench.set({ rip: BigInt(CODE), activity: 0n }).run(FOREVER);
    expect(bench.get('rax')).toBe(2n);
  });

  it('set accessed and dirty bits as the evaluator does (APM vol.2 §5.4.2)', () => {
    const bench = runBoth((bench) => {
      bench.mode(64, { rbx: BigInt(DATA), rsi: BigInt(DATA + 0x1000) });
      for (const page of [DATA / 4096, other]) bench.map(page, page, 7n);
      bench.put(CODE, hex('8b 06 89 03 8b 03 f4')); // mov eax, [rsi]; mov [rbx], eax; mov eax, [rbx]; hlt
    });
    expect(bench.read(slot, 8) & 0x60n).toBe(0x60n);
    expect(bench.read(slot + 8, 8) & 0x60n).toBe(0x20n);
  });

  it('for reading do not serve writes: a write to a read-only page faults after reads of it', () => {
    const bench = runBoth((bench) => {
      bench.mode(64, { rbx: BigInt(DATA), cr0: 0x8001_0031n }).map(DATA / 4096, DATA / 4096, 0x65n);
      bench.put(CODE, hex('8b 03 8b 03 89 03 f4'));
    });
    expect(bench.isShutDown).toBe(true);
    expect(bench.get('rip')).toBe(BigInt(CODE + 4));
    expect(bench.retired).toBe(2);
  });

  it('of the evaluator are what the entry says now, and mark it again', () => {
    const lgdt = '0f 01 14 25 00 00 00 00';
    const code = hex(`${lgdt} 48 89 34 25 00 00 00 00 ${lgdt} f4`); // lgdt [DATA]; mov [entry], rsi; lgdt [DATA]; hlt
    const view = new DataView(code.buffer);
    for (const at of [4, 20]) view.setInt32(at, DATA, true);
    view.setInt32(12, slot, true);
    const bench = runBoth((bench) => {
      bench.mode(64, { rsi: BigInt(other * 4096) | 7n }).put(CODE, code);
      bench.write(DATA + 2, 8, 0x1000n).write(DATA + 0x1002, 8, 0x2000n);
    });
    expect(bench.get('gdtrBase')).toBe(0x2000n);
    expect(bench.read(slot, 8) & 0x60n).toBe(0x20n);
  });

  it('of the evaluator for reading do not serve writes, which mark the page as dirty', () => {
    const code = hex('0f 01 13 0f 01 03 f4'); // lgdt [rbx]; sgdt [rbx]; hlt
    const bench = runBoth((bench) => {
      bench
        .mode(64, { rbx: BigInt(DATA) })
        .put(CODE, code)
        .map(DATA / 4096, DATA / 4096, 7n);
    });
    expect(bench.read(slot, 8) & 0x60n).toBe(0x60n);
  });
});

describe('stores that compiled code makes where it may not write unseen', () => {
  const page = DATA / 4096;
  const slot = 0x4000 + 8 * page; // page-table entry of DATA
  const entryOf = (target: number): bigint => BigInt(target * 4096) | 0x67n;

  it('remap a page at once, thousands of times', () => {
    const before = { rdi: BigInt(slot), rsi: entryOf(page + 1), rdx: entryOf(page) ^ entryOf(page + 1) };
    const bench = runBoth((bench) => {
      bench
        .mode(64, { ...before, rbx: BigInt(DATA), rcx: 2000n })
        .write(DATA, 4, 1n)
        .write(DATA + 0x1000, 4, 2n);
      // mov [rdi], rsi; add eax, [rbx]; xor rsi, rdx; dec ecx; jnz the first; hlt
      bench.put(CODE, hex('48 89 37 03 03 48 31 d6 ff c9 75 f4 f4'));
      bench.helped = 0;
    });
    expect(bench.get('rax')).toBe(3000n);
    expect(bench.helped).toBeLessThan(20);
  });

  it('of many entries at once remap all their pages', () => {
    const bench = runBoth((bench) => {
      bench.mode(64, { rdi: BigInt(slot), rcx: 4n, rax: entryOf(page + 7), rbx: BigInt(DATA) });
      for (let number = 0; number < 8; number++) bench.write(DATA + 0x1000 * number, 4, 10n ** BigInt(number));
      const sum = '03 13 03 93 00 10 00 00 03 93 00 20 00 00 03 93 00 30 00 00'; // add edx, [rbx + 0 .. 3 pages]
      bench.put(CODE, hex(`${sum} f3 48 ab ${sum} f4`)); // rep stosq between
    });
    expect(bench.get('rdx')).toBe(1111n + 40_000_000n);
  });

  it('to data beside code need no help', () => {
    const bench = runBoth((bench) => {
      // add [rbx], ecx; dec ecx; jnz the first; hlt
      bench.mode(64, { rbx: BigInt(CODE + 0x800), rcx: 2000n }).put(CODE, hex('01 0b ff c9 75 fa f4'));
      bench.helped = 0;
    });
    expect(bench.read(CODE + 0x800, 4)).toBe(2_001_000n);
    expect(bench.helped).toBeLessThan(20);
  });
});

/**
 * Translations follow their tables at once, whoever writes them and whatever the engine holds (docs/adr/0021): what an access
 * gives never depends on what was accessed before.
 */
import { describe, expect, it } from 'vitest';
import { CODE, DATA, hex, runBoth } from '../../support/engine-bench.js';

/** The entry of DATA's page in the tables of the bench, and another page. */
const ENTRY = 0x4000 + 8 * (DATA >> 12);
const OTHER = DATA + 0x2000;
const READ_ONLY = 0x65n;
const WRITABLE = 0x67n;

describe('a page-table entry', () => {
  it('that compiled code changes counts for its next read', () => {
    const bench = runBoth((each) => {
      each.mode(64, { rbx: BigInt(DATA), rdi: BigInt(ENTRY), rdx: BigInt(OTHER) | WRITABLE });
      each.write(DATA, 8, 1n).write(OTHER, 8, 2n);
      // Twice, so that all is translated and decoded: mov rax, [rbx]; mov [rdi], rdx; mov rcx, [rbx]; mov [rdi], r8
      each.set({ r8: BigInt(DATA) | WRITABLE });
      each.put(CODE, hex('48 8b 03 48 89 17 48 8b 0b 4c 89 07 48 8b 03 48 89 17 48 8b 0b f4'));
    });
    expect([bench.get('rax'), bench.get('rcx')]).toEqual([1n, 2n]);
  });

  it('that becomes read-only stops the next write', () => {
    const bench = runBoth((each) => {
      each.mode(64, { cr0: 0x8001_0031n, rbx: BigInt(DATA), rdi: BigInt(ENTRY), rdx: BigInt(DATA) | READ_ONLY });
      each.put(CODE, hex('48 89 03 48 89 17 48 89 03 f4')); // mov [rbx], rax; mov [rdi], rdx; mov [rbx], rax
    });
    expect(bench.isShutDown).toBe(true);
    expect(bench.get('rip')).toBe(BigInt(CODE + 6));
  });

  it('has its accessed bit set again once software has cleared it', () => {
    const bench = runBoth((each) => {
      each.mode(64, { rbx: BigInt(DATA), rdi: BigInt(ENTRY), rdx: BigInt(DATA) | 0x7n });
      each.put(CODE, hex('48 8b 03 48 89 17 48 8b 03 f4'));
    });
    expect(bench.read(ENTRY, 8) & 0x60n).toBe(0x20n);
  });

  it('of code counts for the next instruction fetch', () => {
    const page = CODE + 0x1000;
    const bench = runBoth((each) => {
      each.mode(64, { rdi: BigInt(0x4000 + 8 * (page >> 12)), rdx: BigInt(OTHER) | WRITABLE, rsi: BigInt(page) });
      each.put(CODE, hex('ff d6 48 89 17 ff d6 f4')); // call rsi; mov [rdi], rdx; call rsi
      each.put(page, hex('ff c0 c3')).put(OTHER, hex('83 c0 10 c3')); // inc eax | add eax, 10h
    });
    expect(bench.get('rax')).toBe(0x11n);
  });
});

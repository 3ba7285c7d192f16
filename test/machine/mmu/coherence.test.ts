/**
 * Translations follow their tables at once, whoever writes them and whatever the engine holds (docs/adr/0021): what an access
 * gives never depends on what was accessed before.
 */
import { describe, expect, it } from 'vitest';
import { EFER } from '../../../src/machine/layout/cpu-state.js';
import { sPA } from '../../../src/machine/units.js';
import { CODE, DATA, hex, runBoth } from '../../support/engine-bench.js';
import { DATA as NESTED_DATA, VMCB_AT } from '../../support/live-machine.js';
import { GUEST_CODE, NestedMachine } from '../../support/nested-machine.js';

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

describe('an address space', () => {
  /** L2 reads DATA into RAX twice, and halts. */
  const READ_TWICE = `48a1${'0000200000000000'} 48a1${'0000200000000000'}`;
  const TABLES = 0x7_0000;

  it('that VMRUN enters with other tables and no flush has none of its old translations (APM vol.2 §15.16 TLB Control)', () => {
    const nested = new NestedMachine(READ_TWICE);
    nested.write(NESTED_DATA, 1n).write(NESTED_DATA + 0x20_0000, 2n);
    nested.exit();
    expect(nested.get('rax')).toBe(BigInt(VMCB_AT));
    expect(nested.vmcb.rax).toBe(1n);
    // Tables that have the next 2 MiB at the address of the data.
    const { memory } = nested;
    for (const table of [0x1000, 0x2000, 0x3000]) {
      memory.copyIn(sPA(TABLES + table), memory.window(table, 0x1000).slice());
    }
    nested.write(TABLES + 0x1000, BigInt(TABLES + 0x2067)).write(TABLES + 0x2000, BigInt(TABLES + 0x3067));
    nested.write(TABLES + 0x3008, 0x40_00e7n);
    nested.vmcb.cr3 = BigInt(TABLES + 0x1000);
    nested.vmcb.rip = BigInt(GUEST_CODE);
    nested.again();
    expect(nested.vmcb.rax).toBe(2n);
  });

  it('that VMRUN enters with other nested tables executes what they lead to', () => {
    const nested = new NestedMachine('90 90').nestedPaging();
    nested.exit();
    expect(nested.vmcb.rip).toBe(BigInt(GUEST_CODE + 2));
    const { memory } = nested;
    for (const table of [0x1000, 0x2000, 0x3000]) {
      memory.copyIn(sPA(TABLES + table), memory.window(table, 0x1000).slice());
    }
    nested.write(TABLES + 0x1000, BigInt(TABLES + 0x2067)).write(TABLES + 0x2000, BigInt(TABLES + 0x3067));
    // The guest's code, at guest-physical 500000h, is that of sPA 900000h now.
    nested.write(TABLES + 0x3010, 0x80_00e7n).put(GUEST_CODE + 0x40_0000, 'f4');
    nested.vmcb.nCR3 = BigInt(TABLES + 0x1000);
    nested.vmcb.rip = BigInt(GUEST_CODE);
    nested.again();
    expect(nested.vmcb.rip).toBe(BigInt(GUEST_CODE));
  });

  it('of a legacy PAE guest under nested paging follows its page-directory pointers, which the walk reads', () => {
    // mov eax, [DATA] in 32-bit code: the L bit of CS makes way for D.
    const nested = new NestedMachine('a1 00002000').nestedPaging();
    nested.write(NESTED_DATA, 1n).write(NESTED_DATA + 0x20_0000, 2n);
    const { memory, vmcb } = nested;
    memory.copyIn(sPA(TABLES + 0x3000), memory.window(0x3000, 0x1000).slice());
    nested.write(TABLES + 0x3008, 0x40_00e7n).write(TABLES, 0x3001n);
    vmcb.efer = EFER.SVME;
    vmcb.cs = (vmcb.cs & ~(1n << 25n)) | (1n << 26n);
    vmcb.cr3 = BigInt(TABLES);
    nested.exit();
    expect(vmcb.rax).toBe(1n);
    nested.write(TABLES, BigInt(TABLES + 0x3001));
    vmcb.rip = BigInt(GUEST_CODE);
    nested.again();
    expect(vmcb.rax).toBe(2n);
  });
});

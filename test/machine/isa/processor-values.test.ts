/** What programs read of the processor, segment bases, cache lines, translations. */
import { describe, expect, it } from 'vitest';
import { Vector } from '../../../src/machine/faults.js';
import { CR0, CR4, EFER } from '../../../src/machine/layout/cpu-state.js';
import { sPA } from '../../../src/machine/units.js';
import { CODE, DATA, LiveMachine, USER, USER_SEGMENTS } from '../../support/live-machine.js';

const HLT = 'f4';
const LONG = CR4.PAE | CR4.OSFXSR;

/** Kernel code that ends with HLT. @returns the machine, run. */
function kernel(code: string, values: ConstructorParameters<typeof LiveMachine>[1] = {}): LiveMachine {
  const live = new LiveMachine(`${code} ${HLT}`, values);
  live.run();
  return live;
}
/** The same at CPL 3; it ends with an exception, at the latest that of its HLT. */
function user(code: string, values: ConstructorParameters<typeof LiveMachine>[1] = {}): LiveMachine {
  const live = new LiveMachine(HLT, { ...USER_SEGMENTS, rip: BigInt(USER), ...values });
  live.put(USER, code + HLT).run();
  return live;
}

describe('RDPID and RDPRU (APM vol.3)', () => {
  it('RDPID reads TSC_AUX', () => {
    expect(kernel('f30fc7f8', { rax: ~0n & 0xffffn, tscAux: 0x1_2345_6789n }).get('rax')).toBe(0x2345_6789n);
  });

  it.each([0n, 1n])('RDPRU reads register %i, which counts', (rcx) => {
    const live = kernel('0f01fd', { rcx, tscBase: 0x7_0000_0000n });
    expect((live.get('rdx') << 32n) | live.get('rax')).toBeGreaterThanOrEqual(0x7_0000_0000n);
  });

  it('RDPRU of another register reads 0, and is #UD for programs under CR4.TSD', () => {
    const live = kernel('0f01fd', { rcx: 2n, rax: 5n, rdx: 5n });
    expect([live.get('rax'), live.get('rdx')]).toEqual([0n, 0n]);
    expect(user('0f01fd', { cr4: LONG | CR4.TSD }).vectors).toEqual([Vector.UD]);
    expect(kernel('0f01fd', { cr4: LONG | CR4.TSD }).vectors).toEqual([]);
  });
});

describe('RDFSBASE and its like (APM vol.3)', () => {
  it('read and write the bases at any privilege level', () => {
    const live = user('f3480faed0 f3480faecb f30faec1'.replaceAll(' ', ''), {
      cr4: LONG | CR4.FSGSBASE,
      rax: 0xffff_8000_1234_5678n,
      gsBase: 0x7fff_0000_0000n,
    });
    expect(live.vectors).toEqual([Vector.GP]);
    expect(live.get('fsBase')).toBe(0xffff_8000_1234_5678n);
    expect(live.get('rbx')).toBe(0x7fff_0000_0000n);
    expect(live.get('rcx')).toBe(0x1234_5678n);
  });

  it('are #UD without CR4.FSGSBASE, and refuse bases that are not canonical', () => {
    expect(kernel('f3480faec0').vectors).toEqual([Vector.UD]);
    expect(kernel('f3480faed0', { cr4: LONG | CR4.FSGSBASE, rax: 1n << 47n }).vectors).toEqual([Vector.GP]);
  });
});

describe('CLZERO', () => {
  it('zeroes the line of 64 bytes that holds the byte at rAX', () => {
    const live = new LiveMachine(`0f01fc ${HLT}`, { rax: BigInt(DATA + 0x75) });
    for (let at = 0; at < 0x100; at += 8) live.write(DATA + at, ~0n & 0xffff_ffff_ffff_ffffn);
    live.run();
    const bytes = live.memory.window(DATA, 0x100);
    expect([...bytes].map((byte, at) => (byte === 0) === (at >= 0x40 && at < 0x80))).not.toContain(false);
  });
});

describe('INVPCID (APM vol.3)', () => {
  const PCIDS = { cr4: LONG | CR4.PCIDE };
  /** `invpcid rax, [rbx]` with the descriptor at DATA. */
  const invalidate = (kind: bigint, descriptor: bigint, linear: bigint, values = {}): LiveMachine => {
    const live = new LiveMachine(`660f388203 ${HLT}`, { rax: kind, rbx: BigInt(DATA), ...values });
    live
      .write(DATA, descriptor)
      .write(DATA + 8, linear)
      .run();
    return live;
  };

  it('forgets a translation', () => {
    // mov rcx, [rdx]; (the page moves); invpcid rax, [rbx]; mov rsi, [rdx]
    const live = new LiveMachine(`488b0a 660f388203 488b32 ${HLT}`, { rbx: BigInt(DATA), rdx: 0xc0_0000n });
    live.write(0xc0_0000, 1n).write(0xe0_0000, 2n).run(1);
    live.write(0x3000 + 8 * 6, 0xe0_00e7n).run();
    expect([live.get('rcx'), live.get('rsi')]).toEqual([1n, 2n]);
  });

  it.each<[string, bigint, bigint, bigint, object, boolean]>([
    ['a kind above 3', 4n, 0n, 0n, {}, false],
    ['reserved bits of the descriptor', 2n, 0x1000n, 0n, {}, false],
    ['a PCID while there are none', 1n, 1n, 0n, {}, false],
    ['the same for all contexts, which does not look at it', 2n, 1n, 0n, {}, true],
    ['a PCID', 1n, 1n, 0n, PCIDS, true],
    ['an address that is not canonical', 0n, 0n, 1n << 47n, PCIDS, false],
    ['the same for a context', 1n, 0n, 1n << 47n, PCIDS, true],
  ])('%s', (_, kind, descriptor, linear, values, passes) => {
    expect(invalidate(kind, descriptor, linear, values).vectors).toEqual(passes ? [] : [Vector.GP]);
  });

  it('is for CPL 0', () => expect(user('660f388203', { rbx: BigInt(DATA) }).vectors).toEqual([Vector.GP]));
});

describe('CR4.PCIDE (APM vol.2 §5.5.1 Process Context Identifiers)', () => {
  const MOV_CR4_RAX = '0f22e0';
  const MOV_CR3_RAX = '0f22d8';

  it('needs a CR3 with PCID 0', () => {
    expect(kernel(MOV_CR4_RAX, { rax: LONG | CR4.PCIDE }).vectors).toEqual([]);
    expect(kernel(MOV_CR4_RAX, { rax: LONG | CR4.PCIDE, cr3: 0x1001n }).vectors).toEqual([Vector.GP]);
  });

  it('lets CR3 be written with bit 63, which it does not keep', () => {
    const keep = (1n << 63n) | 0x1005n;
    const live = kernel(MOV_CR3_RAX, { rax: keep, cr4: LONG | CR4.PCIDE });
    expect([live.vectors, live.get('cr3')]).toEqual([[], 0x1005n]);
    expect(kernel(MOV_CR3_RAX, { rax: keep }).vectors).toEqual([Vector.GP]);
  });

  it('keeps paging on', () => {
    const compatibility = { cs: 0x08n | (0xc9bn << 16n) | (0xffff_ffffn << 32n) };
    const off = { rax: CR0.PE | CR0.ET, efer: EFER.LME | EFER.LMA, ...compatibility };
    expect(kernel('0f22c0', { ...off, cr4: LONG | CR4.PCIDE }).vectors).toEqual([Vector.GP]);
    expect(new LiveMachine('0f22c0 f4', { ...off, cr4: LONG }).run(1)).toBe('limit');
  });
});

describe('MONITORX and MWAITX (APM vol.3)', () => {
  it('are for programs, and a wait with a timer ends', () => {
    const armed = user('0f01fa b902000000 0f01fb'.replaceAll(' ', ''), { rax: BigInt(DATA), rcx: 0n });
    expect(armed.vectors).toEqual([Vector.GP]);
    expect(armed.pushedRip).toBe(BigInt(USER + 11));
    expect(armed.get('monitorAddress')).toBe(0n);
  });

  it('refuse extensions that they have not', () => {
    expect(kernel('0f01fb', { rcx: 4n }).vectors).toEqual([Vector.GP]);
    expect(kernel('0f01fa', { rcx: 1n, rax: BigInt(CODE) }).vectors).toEqual([Vector.GP]);
  });

  it('are not MCOMMIT, which has MONITORX’s opcode behind F3 and is #UD here (APM vol.3 MCOMMIT)', () => {
    expect(kernel('f30f01fa', { rcx: 0n, rax: BigInt(DATA) }).vectors).toEqual([Vector.UD]);
    expect(user('f30f01fa', { rcx: 0n, rax: BigInt(DATA) }).vectors).toEqual([Vector.UD]);
  });
});

describe('MOVNTI (APM vol.3)', () => {
  it.each([
    ['with SSE not enabled, as Xen boots', { cr4: CR4.PAE }],
    ['with the numeric state of another task', { cr0: CR0.PE | CR0.ET | CR0.PG | CR0.TS }],
    ['with SSE emulated', { cr0: CR0.PE | CR0.ET | CR0.PG | CR0.EM }],
  ])('is a store like any other %s', (_, values) => {
    const live = kernel('480fc307', { ...values, rax: 0x1234_5678_9abc_def0n, rdi: BigInt(DATA) });
    expect(live.vectors).toEqual([]);
    expect(live.memory.read(sPA(DATA), 8)).toBe(0x1234_5678_9abc_def0n);
  });
});

import { describe, expect, it } from 'vitest';
import { dataHits, executionHits, ioHits } from '../../../src/machine/cpu/debug.js';
import { type BoundaryInputs, decideBoundary, eventOfInjection } from '../../../src/machine/cpu/interrupts.js';
import { Activity, Boundary, CR4, Flag, type RegisterName, SvmMode } from '../../../src/machine/layout/cpu-state.js';
import { MANUAL_RULES } from '../../../src/machine/svm/interrupt-rules.js';
import { CpuMachine } from '../../support/cpu-machine.js';

type Changes = Partial<Record<RegisterName, bigint>>;
const GUEST = SvmMode.GUEST | SvmMode.GIF;
const V_IRQ = 1n << 8n;
const V_INTR_PRIO_1 = 1n << 16n;
const V_INTR_MASKING = 1n << 24n;
const V_NMI = 1n << 11n;
const V_NMI_ENABLE = 1n << 26n;
const EVERYTHING = Boundary.SMI_PENDING | Boundary.INIT_PENDING | Boundary.SINGLE_STEP | Boundary.NMI_PENDING;

/** A breakpoint on the next instruction, in DR0. */
const BREAKPOINT: Changes = { dr7: 1n, dr0: 0x1_0000n };
const due = (changes: Changes, externalPending = false, inputs: Partial<BoundaryInputs> = {}) =>
  decideBoundary(new CpuMachine().longMode().set(changes).reader, { externalPending, ...inputs });

describe('priority at an instruction boundary (APM vol.2 §8.5, table 8-8)', () => {
  it('takes SMI, INIT, debug traps, NMI, INTR, virtual interrupts and breakpoints in this order', () => {
    const cpu = new CpuMachine().longMode().set({ ...BREAKPOINT, boundary: EVERYTHING, rflags: Flag.IF | 2n });
    cpu.set({ svmMode: GUEST, intControl: V_IRQ | V_INTR_PRIO_1 });
    const take = (pending: boolean) => decideBoundary(cpu.reader, { externalPending: pending });
    const clear = (bit: bigint) => cpu.set({ boundary: cpu.get('boundary') & ~bit });
    expect(take(true)).toEqual({ kind: 'smi' });
    clear(Boundary.SMI_PENDING);
    expect(take(true)).toEqual({ kind: 'init' });
    clear(Boundary.INIT_PENDING);
    expect(take(true)).toEqual({ kind: 'debug', dr6: 0x4000n });
    clear(Boundary.SINGLE_STEP);
    expect(take(true)).toEqual({ kind: 'nmi' });
    clear(Boundary.NMI_PENDING);
    expect(take(true)).toEqual({ kind: 'external' });
    expect(take(false)).toEqual({ kind: 'virtual' });
    cpu.set({ intControl: 0n });
    expect(take(false)).toEqual({ kind: 'debug', dr6: 1n });
    cpu.set({ dr7: 0n });
    expect(take(false)).toBeUndefined();
  });

  it('delivers what VMRUN injects before everything else (§15.20)', () => {
    expect(due({ boundary: EVERYTHING, eventInjection: 0x8000_0020n })).toEqual({ kind: 'injection' });
    expect(eventOfInjection({ type: 4, vector: 0x80, errorCode: undefined, nextRip: 5n }, 3n)).toEqual({
      type: 'software',
      vector: 0x80,
      errorCode: undefined,
      nextRip: 5n,
    });
  });
});

describe('what holds an event back', () => {
  const shadow = Boundary.INTERRUPT_SHADOW;
  const cases: readonly (readonly [string, Changes, boolean, string | undefined])[] = [
    ['INTR with IF', { rflags: Flag.IF }, true, 'external'],
    ['INTR without IF', {}, true, undefined],
    ['INTR in a shadow (§8.5)', { rflags: Flag.IF, boundary: shadow }, true, undefined],
    ['INTR while GIF is clear (§15.17)', { rflags: Flag.IF, svmMode: 0n }, true, undefined],
    ['NMI', { boundary: Boundary.NMI_PENDING }, false, 'nmi'],
    ['NMI in an NMI handler (§8.2.3)', { boundary: Boundary.NMI_PENDING | Boundary.NMI_BLOCKED }, false, undefined],
    ['NMI in a shadow', { boundary: Boundary.NMI_PENDING | shadow }, false, undefined],
    ['NMI while GIF is clear', { boundary: Boundary.NMI_PENDING, svmMode: 0n }, false, undefined],
    ['INIT while GIF is clear', { boundary: Boundary.INIT_PENDING, svmMode: 0n }, false, undefined],
    ['INIT under VM_CR.R_INIT', { boundary: Boundary.INIT_PENDING, vmCr: 2n }, false, 'redirected-init'],
    [
      'a single step in the shadow of MOV SS',
      { boundary: Boundary.SINGLE_STEP | Boundary.DEBUG_SHADOW },
      false,
      undefined,
    ],
    ['a single step after STI', { boundary: Boundary.SINGLE_STEP | shadow }, false, 'debug'],
    ['a single step while GIF is clear', { boundary: Boundary.SINGLE_STEP, svmMode: 0n }, false, 'debug'],
    ['a data breakpoint while GIF is clear', { boundary: 1n << 8n, svmMode: 0n }, false, undefined],
    ['an instruction breakpoint', BREAKPOINT, false, 'debug'],
    ['an instruction breakpoint under RF', { ...BREAKPOINT, rflags: Flag.RF }, false, undefined],
    ['an instruction breakpoint after MOV SS', { ...BREAKPOINT, boundary: Boundary.DEBUG_SHADOW }, false, 'debug'],
    ['an instruction breakpoint while halted', { ...BREAKPOINT, activity: Activity.HALTED }, false, undefined],
    ['INTR while halted', { rflags: Flag.IF, activity: Activity.HALTED }, true, 'external'],
    ['INTR in shutdown', { rflags: Flag.IF, activity: Activity.SHUTDOWN }, true, undefined],
    ['NMI in shutdown', { boundary: Boundary.NMI_PENDING, activity: Activity.SHUTDOWN }, false, 'nmi'],
    [
      'NMI while waiting for SIPI',
      { boundary: Boundary.NMI_PENDING, activity: Activity.WAIT_FOR_SIPI },
      false,
      undefined,
    ],
  ];
  it.each(cases)('%s', (_name, changes, external, kind) => {
    expect(due(changes, external)?.kind).toBe(kind);
  });
});

describe('breakpoints while GIF is clear', () => {
  it.each([
    ['on the next instruction', BREAKPOINT],
    ['that the last one hit', { boundary: 1n << 8n }],
  ])('%s: discarded by the manual (§15.17), delivered by processors', (_name, changes) => {
    const clear = { ...changes, svmMode: 0n };
    expect(due(clear)).toBeUndefined();
    expect(due(clear, false, { rules: { ...MANUAL_RULES, discardsBreakpoints: false } })).toEqual({
      kind: 'debug',
      dr6: 1n,
    });
  });
});

describe('physical and virtual interrupts of a guest (APM vol.2 §15.21)', () => {
  const masked = { svmMode: GUEST, intControl: V_INTR_MASKING };
  const cases: readonly (readonly [string, Changes, string | undefined])[] = [
    ['INTR goes by the guest without V_INTR_MASKING', { svmMode: GUEST, rflags: Flag.IF }, 'external'],
    ['INTR goes by the host with it', { ...masked, svmMode: GUEST | SvmMode.HOST_IF }, 'external'],
    ['INTR is held by the host with it', { ...masked, rflags: Flag.IF }, undefined],
  ];
  it.each(cases)('%s', (_name, changes, kind) => {
    expect(due(changes, true)?.kind).toBe(kind);
  });

  it('physical NMIs and interrupts come before a virtual NMI, and that before a virtual interrupt', () => {
    const intControl = V_IRQ | V_INTR_PRIO_1 | V_NMI | V_NMI_ENABLE;
    const guest = { svmMode: GUEST, intControl, rflags: Flag.IF };
    expect(due({ ...guest, boundary: Boundary.NMI_PENDING }, true)?.kind).toBe('nmi');
    expect(due(guest, true)?.kind).toBe('external');
    expect(due(guest)?.kind).toBe('virtual-nmi');
    expect(due({ ...guest, intControl: intControl & ~V_NMI })?.kind).toBe('virtual');
  });

  it('the SMI intercept is ignored under HWCR.SmmLock (§15.13.3 SMI Intercept)', () => {
    const smi = { svmMode: GUEST, boundary: Boundary.SMI_PENDING, intercept3: 4n };
    expect(due(smi)).toEqual({ kind: 'exit', intercept: 'SMI' });
    expect(due({ ...smi, hwcr: 1n })).toEqual({ kind: 'smi' });
  });

  it('a virtual interrupt needs IF and a priority above V_TPR', () => {
    const virtual = (intControl: bigint, rflags: bigint = Flag.IF) => due({ svmMode: GUEST, intControl, rflags })?.kind;
    expect(virtual(V_IRQ | V_INTR_PRIO_1)).toBe('virtual');
    expect(virtual(V_IRQ | V_INTR_PRIO_1, 0n)).toBeUndefined();
    expect(virtual(V_IRQ | V_INTR_PRIO_1 | 1n)).toBeUndefined();
    expect(virtual(V_IRQ | (1n << 20n) | 15n)).toBe('virtual');
  });
});

describe('intercepted events stay pending and exit (APM vol.2 §15.13)', () => {
  it.each([
    ['INTR', { rflags: Flag.IF }, true],
    ['NMI', { boundary: Boundary.NMI_PENDING }, false],
    ['INIT', { boundary: Boundary.INIT_PENDING }, false],
    ['SMI', { boundary: Boundary.SMI_PENDING }, false],
    ['VINTR', { rflags: Flag.IF, intControl: V_IRQ | V_INTR_PRIO_1 }, false],
  ] as const)('%s', (intercept, changes, externalPending) => {
    const cpu = new CpuMachine().longMode().set(changes).intercepting(intercept);
    expect(decideBoundary(cpu.reader, { externalPending })).toEqual({ kind: 'exit', intercept });
    expect(decideBoundary(cpu.reader, { externalPending, intercepted: () => false })?.kind).not.toBe('exit');
  });
});

describe('breakpoint registers (APM vol.2 §13.1.2 Setting Breakpoints)', () => {
  /** Breakpoint 1 at 1000h with the R/W and LEN fields given, locally enabled. */
  const watching = (readWrite: number, length: number) =>
    new CpuMachine().set({ dr1: 0x1000n, dr7: (1n << 2n) | (BigInt(readWrite | (length << 2)) << 20n), cr4: CR4.DE })
      .reader;
  const WRITE = 1;
  const IO = 2;
  const ACCESS = 3;

  it('watches 1, 2, 8 or 4 bytes by LEN', () => {
    const last = [0x1000n, 0x1001n, 0x1007n, 0x1003n];
    last.forEach((address, length) => {
      expect(dataHits(watching(ACCESS, length), address, 1, false)).toBe(2n);
      expect(dataHits(watching(ACCESS, length), address + 1n, 1, false)).toBe(0n);
    });
  });

  it('hits when any byte of an access is watched', () => {
    expect(dataHits(watching(ACCESS, 0), 0xff9n, 8, false)).toBe(2n);
    expect(dataHits(watching(ACCESS, 0), 0xff8n, 8, false)).toBe(0n);
  });

  it('lets reads pass a write breakpoint', () => {
    expect(dataHits(watching(WRITE, 3), 0x1000n, 4, false)).toBe(0n);
    expect(dataHits(watching(WRITE, 3), 0x1000n, 4, true)).toBe(2n);
  });

  it('tells instructions, data and ports apart', () => {
    expect(executionHits(watching(0, 0), 0x1000n)).toBe(2n);
    expect(executionHits(watching(ACCESS, 0), 0x1000n)).toBe(0n);
    expect(ioHits(watching(IO, 0), 0x1000, 1)).toBe(2n);
    expect(dataHits(watching(IO, 0), 0x1000n, 1, true)).toBe(0n);
  });

  it('watches ports with CR4.DE only', () => {
    const cpu = new CpuMachine().set({ dr1: 0x80n, dr7: (1n << 2n) | (2n << 20n) });
    expect(ioHits(cpu.reader, 0x80, 1)).toBe(0n);
  });
});

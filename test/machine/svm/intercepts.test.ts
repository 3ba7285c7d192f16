import { describe, expect, it } from 'vitest';
import { R, type Slot, SvmMode } from '../../../src/machine/layout/cpu-state.js';
import { EXIT_CODES, ExitCode, exitCodeNamed, exitName, manualExitName } from '../../../src/machine/svm/exit-code.js';
import {
  crRead,
  crWrite,
  drRead,
  drWrite,
  exceptionIntercept,
  INTERCEPTS,
  interceptRequested,
} from '../../../src/machine/svm/intercepts.js';

describe('the table of intercepts (APM vol.2 appendix B, table 15-7)', () => {
  it.each([
    [crRead(3), 0x000, 3, 0x03n, 'after-privilege'],
    [crWrite(8), 0x000, 24, 0x18n, 'after-privilege'],
    [drRead(7), 0x004, 7, 0x27n, 'after-privilege'],
    [drWrite(6), 0x004, 22, 0x36n, 'after-privilege'],
    [exceptionIntercept(14), 0x008, 14, 0x4en, 'before-exceptions'],
    ['INTR', 0x00c, 0, 0x60n, 'before-exceptions'],
    ['CPUID', 0x00c, 18, 0x72n, 'before-exceptions'],
    ['HLT', 0x00c, 24, 0x78n, 'after-privilege'],
    ['IOIO_PROT', 0x00c, 27, 0x7bn, 'after-privilege'],
    ['TASK_SWITCH', 0x00c, 29, 0x7dn, 'after-memory'],
    ['SHUTDOWN', 0x00c, 31, 0x7fn, 'before-exceptions'],
    ['VMRUN', 0x010, 0, 0x80n, 'after-privilege'],
    ['VMMCALL', 0x010, 1, 0x81n, 'before-exceptions'],
    ['MONITOR', 0x010, 10, 0x8an, 'after-memory'],
    ['MWAIT_ARMED', 0x010, 12, 0x8cn, 'after-privilege'],
    ['XSETBV', 0x010, 13, 0x8dn, 'before-exceptions'],
    ['CR4_WRITE_TRAP', 0x010, 20, 0x94n, 'after-memory'],
    ['INVPCID', 0x014, 2, 0xa2n, 'after-privilege'],
  ] as const)('%s', (name, offset, bit, exitCode, stage) => {
    expect(INTERCEPTS[name]).toMatchObject({ name, offset, bit, exitCode, stage });
  });

  it('has no two rows on one bit, nor on one exit code', () => {
    const rows = Object.values(INTERCEPTS);
    expect(new Set(rows.map(({ offset, bit }) => `${offset}:${bit}`)).size).toBe(rows.length);
    expect(new Set(rows.map(({ exitCode }) => exitCode)).size).toBe(rows.length);
  });

  it('is asked in guest mode only', () => {
    const slots = new Map<Slot, bigint>([[R.intercept3, 1n << 31n]]);
    const get = (slot: Slot): bigint => slots.get(slot) ?? 0n;
    expect(interceptRequested(get, 'SHUTDOWN')).toBe(false);
    slots.set(R.svmMode, SvmMode.GUEST);
    expect(interceptRequested(get, 'SHUTDOWN')).toBe(true);
    expect(interceptRequested(get, 'HLT')).toBe(false);
  });
});

describe('exit codes (APM vol.2 appendix C)', () => {
  it.each([
    [0x72n, 'cpuid', 'VMEXIT_CPUID'],
    [0x400n, 'npf', 'VMEXIT_NPF'],
    [0x7bn, 'ioio', 'VMEXIT_IOIO'],
    [0x13n, 'cr3-write', 'VMEXIT_CR3_WRITE'],
    [0x4en, 'excp-pf', 'VMEXIT_EXCP_PF'],
    [0x42n, 'excp-vector2', 'VMEXIT_EXCP_VECTOR2'],
    [0x8cn, 'mwait-conditional', 'VMEXIT_MWAIT_CONDITIONAL'],
    [ExitCode.INVALID, 'invalid', 'VMEXIT_INVALID'],
  ])('%s is %s', (code, short, manual) => {
    expect(exitName(code)).toBe(short);
    expect(manualExitName(code)).toBe(manual);
    expect(exitCodeNamed(short)).toBe(code);
    expect(exitCodeNamed(manual)).toBe(code);
  });

  it('gives numbers to codes that have no name', () => {
    expect(exitName(0x3ffn)).toBe('0x3ff');
    expect(exitCodeNamed('nonsense')).toBeUndefined();
  });

  it('names every code once', () => {
    expect(new Set(EXIT_CODES.map(([, name]) => name)).size).toBe(EXIT_CODES.length);
    expect(EXIT_CODES.length).toBe(174);
  });
});

import { beforeEach, describe, expect, it } from 'vitest';
import { Vector } from '../../../src/machine/faults.js';
import { VMMCALL } from '../../../src/machine/isa/hypercall.js';
import { CLGI, INVLPGA, SKINIT, STGI, SVM_INSTRUCTIONS, VMLOAD, VMSAVE } from '../../../src/machine/isa/svm.js';
import { EFER, R, SvmMode } from '../../../src/machine/layout/cpu-state.js';
import {
  applyVmcbDelta,
  decodeVmcbDelta,
  emptyVmcbWords,
  encodeVmcbDelta,
  VMCB,
  vmcbFieldsOfWord,
  vmcbWord,
  W,
} from '../../../src/machine/layout/vmcb.js';
import { ExitCode } from '../../../src/machine/svm/exit-code.js';
import { CpuMachine, faultOf } from '../../support/cpu-machine.js';
import { SvmMachine, VMCB_AT, withSvm } from '../../support/svm-machine.js';

let machine: SvmMachine;
type System = (typeof SVM_INSTRUCTIONS)[number]['system'];
const raised = (system: System): unknown => {
  try {
    machine.execute(system);
  } catch (error) {
    return error;
  }
  return undefined;
};

beforeEach(() => {
  machine = new SvmMachine();
});

describe('privileges and intercepts (APM vol.2 §15.9 Instruction Intercepts, table 15-7)', () => {
  const privileged = [
    ['VMLOAD', VMLOAD, 2, ExitCode.VMLOAD],
    ['VMSAVE', VMSAVE, 3, ExitCode.VMSAVE],
    ['STGI', STGI, 4, ExitCode.STGI],
    ['CLGI', CLGI, 5, ExitCode.CLGI],
  ] as const;

  it.each(privileged)(
    '%s: #UD while SVM is off (§15.4), then #GP, then the intercept',
    (_name, { system }, bit, code) => {
      machine = new SvmMachine(withSvm('np', 'nrips'));
      machine.set({ svmMode: SvmMode.GUEST, intercept4: 1n << BigInt(bit), efer: 0n, cpl: 3n });
      expect(raised(system)).toMatchObject({ vector: Vector.UD });
      machine.set({ efer: EFER.SVME });
      expect(raised(system)).toMatchObject({ vector: Vector.GP });
      machine.set({ cpl: 0n });
      expect(raised(system)).toMatchObject({ code });
      machine.set({ intercept4: 0n });
      expect(raised(system)).toBeUndefined();
    },
  );

  it.each([
    ['VMLOAD', VMLOAD],
    ['VMSAVE', VMSAVE],
  ])('%s: #GP for the address before the intercept', (_name, { system }) => {
    machine.set({ svmMode: SvmMode.GUEST, intercept4: 0xcn, rax: 0x123n });
    expect(raised(system)).toMatchObject({ vector: Vector.GP, errorCode: 0 });
  });

  it('VMMCALL: the intercept before everything, else #UD (§15.18 VMMCALL Instruction)', () => {
    machine.set({ efer: 0n, cpl: 3n });
    expect(raised(VMMCALL.system)).toMatchObject({ vector: Vector.UD });
    machine.set({ svmMode: SvmMode.GUEST });
    expect(raised(VMMCALL.system)).toMatchObject({ vector: Vector.UD });
    machine.set({ intercept4: 2n });
    expect(VMMCALL.interceptedFirst).toBe('VMMCALL'); // the processor looks before it executes
  });

  it('SKINIT: #UD, for there is none (§15.27 Secure Startup with SKINIT)', () => {
    expect(raised(SKINIT.system)).toMatchObject({ vector: Vector.UD });
  });

  it.each([
    ['SKINIT', [0x0f, 0x01, 0xde]],
    ['MCOMMIT', [0xf3, 0x0f, 0x01, 0xfa]],
  ] as const)('%s is not reported: #UD comes before its intercept', (name, bytes) => {
    const cpu = new CpuMachine().longMode().set({ rax: 0n, rcx: 0n, rdx: 0n });
    cpu.set({ efer: cpu.get('efer') | EFER.SVME }).intercepting(name);
    expect(faultOf(cpu.run(...bytes))).toBe('#UD');
  });

  it('INVLPGA drops a page of another address space (§15.16.2), and EXITINFO1 has no address (§15.8.3)', () => {
    machine.set({ rax: 0x7fff_1000n, rcx: 0xffff_ffff_0000_0007n });
    expect(machine.execute(INVLPGA.system)).toMatchObject({ type: 'svm.invlpga', linear: 0x7fff_1000n, asid: 7 });
    expect(machine.flushes).toEqual([{ scope: 'page', asid: 7, linear: 0x7fff_1000n }]);
    machine.set({ svmMode: SvmMode.GUEST, intercept3: 1n << 26n });
    expect(raised(INVLPGA.system)).toMatchObject({ code: ExitCode.INVLPGA, info1: 0n });
  });

  it('STGI and CLGI set and clear GIF', () => {
    expect(machine.execute(CLGI.system)).toMatchObject({ type: 'svm.gif', set: false });
    expect(machine.get('svmMode')).toBe(0n);
    expect(machine.execute(STGI.system)).toMatchObject({ type: 'svm.gif', set: true });
    expect(machine.get('svmMode')).toBe(SvmMode.GIF);
  });

  it('all stand on opcode 0F 01 with their own ModRM byte', () => {
    const forms = [...SVM_INSTRUCTIONS, VMMCALL].flatMap(({ forms: [form] }) => form);
    expect(forms.sort()).toEqual(
      Array.from({ length: 8 }, (_, index) => `0F 01 ${(0xd8 + index).toString(16).toUpperCase()}: `),
    );
  });
});

describe('VMLOAD and VMSAVE (APM vol.2 §15.5.2 VMSAVE and VMLOAD Instructions)', () => {
  it('VMLOAD loads, and makes bases canonical', () => {
    const { vmcb } = machine;
    vmcb.fs = 0x1_f0ff_0010n;
    vmcb.fsBase = 0x0000_8000_0000_0001n;
    vmcb.gsBase = 0x1234_0000_0000_0002n;
    vmcb.ldtr = 0x82_0000n;
    vmcb.tr = 0x8b_0018n;
    vmcb.trBase = 0xffff_8000_0000_0003n;
    vmcb.kernelGsBase = 0x0000_9000_0000_0004n;
    vmcb.star = 5n;
    vmcb.lstar = 0x1234_0000_0000_0006n;
    vmcb.sysenterEip = 7n;
    vmcb.rax = 8n;
    const event = machine.execute(VMLOAD.system);
    expect(machine.get('fs')).toBe(0x1_00ff_0010n);
    expect(machine.get('fsBase')).toBe(0xffff_8000_0000_0001n);
    expect(machine.get('gsBase')).toBe(2n);
    expect(machine.get('ldtr')).toBe(0x82_0000n);
    expect(machine.get('tr')).toBe(0x8b_0018n);
    expect(machine.get('trBase')).toBe(0xffff_8000_0000_0003n);
    expect(machine.get('kernelGsBase')).toBe(0xffff_9000_0000_0004n);
    expect(machine.get('star')).toBe(5n);
    expect(machine.get('lstar')).toBe(0x1234_0000_0000_0006n);
    expect(machine.get('sysenterEip')).toBe(7n);
    expect(machine.get('rax')).toBe(BigInt(VMCB_AT));
    const words = event?.type === 'svm.vmload' ? [...decodeVmcbDelta(event.words)] : [];
    expect(words.map(([word]) => word)).toContain(W.fsBase);
    expect(words.map(([word]) => word)).not.toContain(W.rax);
  });

  it('VMSAVE writes the same state and nothing else', () => {
    machine.set({ fs: 0x10n, fsBase: 1n, gs: 0x18n, gsBase: 2n, ldtr: 3n, ldtrBase: 4n, tr: 5n, trBase: 6n });
    machine.set({ star: 7n, lstar: 8n, cstar: 9n, sfmask: 10n, kernelGsBase: 11n });
    machine.set({ sysenterCs: 12n, sysenterEsp: 13n, sysenterEip: 14n });
    const event = machine.execute(VMSAVE.system);
    expect(machine.vmcb).toMatchObject({ fs: 0x10n, fsBase: 1n, gs: 0x18n, gsBase: 2n, ldtr: 3n, ldtrBase: 4n });
    expect(machine.vmcb).toMatchObject({ tr: 5n, trBase: 6n, star: 7n, lstar: 8n, cstar: 9n, sfmask: 10n });
    expect(machine.vmcb).toMatchObject({ kernelGsBase: 11n, sysenterCs: 12n, sysenterEsp: 13n, sysenterEip: 14n });
    const written = event?.type === 'svm.vmsave' ? [...decodeVmcbDelta(event.words)].map(([word]) => word) : [];
    expect(written).toHaveLength(16);
    expect(machine.registers[R.fs]).toBe(0x10n);
  });
});

describe('VMCB words in events', () => {
  it('decode as they were encoded, in order, and bring a copy up to date', () => {
    const delta = encodeVmcbDelta([
      [W.rip, 0xffff_ffff_8000_0001n],
      [W.exitCode, 0x72n],
      [W.rip, 0xffff_ffff_8000_0002n],
    ]);
    expect([...decodeVmcbDelta(delta)]).toEqual([
      [W.exitCode, 0x72n],
      [W.rip, 0xffff_ffff_8000_0002n],
    ]);
    const words = emptyVmcbWords();
    applyVmcbDelta(words, delta);
    expect(vmcbWord(words, W.rip)).toBe(0xffff_ffff_8000_0002n);
  });

  it('have names', () => {
    expect(vmcbFieldsOfWord(0)).toEqual(['interceptCr', 'interceptDr']);
    expect(vmcbFieldsOfWord(W.guestASID)).toEqual(['guestASID', 'tlbControl']);
    expect(vmcbFieldsOfWord(W.instructionLength)).toEqual(['instructionLength', 'instructionBytes']);
    expect(vmcbFieldsOfWord(100)).toEqual([]);
  });

  it('stand where the manual has them (table B-1, table B-2)', () => {
    expect([W.exitCode, W.eventInj, W.es, W.cpl, W.rip, W.gPAT].map((word) => 8 * word)).toEqual([
      0x70, 0xa8, 0x400, 0x4c8, 0x578, 0x668,
    ]);
    expect(VMCB.bytes).toBe(4096);
  });
});

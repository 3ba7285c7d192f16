/** Lines as real kernels and tools print them: frames, reasons, fields. */
import { describe, expect, it } from 'vitest';
import { EXIT_CODES, ExitCode } from '../../../src/machine/index.js';
import { exitReason } from '../../../tools/import/exit-reasons.js';
import { kvmEvent, kvmFrame, lostOn } from '../../../tools/import/kvm-text.js';
import { GENERATIONS, renderLog } from './log-text.js';

describe('frames of trace text', () => {
  it.each([
    ['tracefs', 'CPU 23/KVM-5046 [001] d.... 3410.005610: kvm_exit: vcpu 0', '5046', 1],
    ['tracefs, a comm like a frame', ' a-1 [000] b: c-77   [012] d..1. 1.5: kvm_exit: vcpu 0', '77', 12],
    ['tracefs with thread groups', ' qemu-5046 (   5001) [001] ..... 3410.0: kvm_exit: vcpu 0', '5046', 1],
    ['tracefs without flags', '  <...>-12 [003] 3410.005610: kvm_exit: vcpu 0', '12', 3],
    ['tracefs with a clock of whole numbers', ' x-12 [003] d... 341005610: kvm_exit: vcpu 0', '12', 3],
    ['trace-cmd', ' qemu-system-x86-6660  [007]   398.691401: kvm_exit:             vcpu 0', '6660', 7],
    ['perf script', 'CPU 0/KVM  1234/1240 [001]  12.345678:      kvm:kvm_exit: vcpu 0', '1240', 1],
    ['events alone', '  kvm_exit:    vcpu 0', undefined, undefined],
  ])('are taken apart: %s', (_, line, thread, processor) => {
    expect(kvmFrame(line)).toEqual({ thread, processor, name: 'kvm_exit', text: 'vcpu 0' });
  });

  it('tells where events were lost', () => {
    expect(lostOn('CPU:3 [LOST 127 EVENTS]')).toBe(3);
    expect(lostOn('CPU:7 [204600 EVENTS DROPPED]')).toBe(7);
    expect(lostOn('CPU:7 [EVENTS DROPPED]')).toBe(7);
    expect(lostOn('CPU:7')).toBeUndefined();
  });
});

describe('reasons of exits', () => {
  it.each(Object.keys(GENERATIONS))('of every code are understood as %s spells them', (generation) => {
    for (const [code, exit] of EXIT_CODES) {
      if (code >= ExitCode.VMGEXIT && code !== ExitCode.INVALID) continue;
      const { lines } = renderLog(generation, [{ vcpu: 0, happening: { what: 'reflected', exit } }]);
      const frame = kvmFrame(lines.at(-1) as string);
      const event = frame && kvmEvent(frame);
      expect([exit, event]).toMatchObject([exit, { kind: 'nested-reflected', reason: { code } }]);
    }
  });

  it.each([
    ['PF excp', 0x4en],
    ['EXIT_EXCP_PF', 0x4en],
    ['VMEXIT_EXCEPTION_PF', 0x4en],
    ['read_rt', ExitCode.TR_READ],
    ['hypercall', ExitCode.VMMCALL],
    ['0x8e', ExitCode.RDPRU],
    ['UNKNOWN (142)', ExitCode.RDPRU],
    ['EXIT_ERR', ExitCode.INVALID],
    ['0xffffffff', ExitCode.INVALID],
    ['VMEXIT_INVALID', ExitCode.INVALID],
    ['VMEXIT_CR0_READ', 0n],
    ['EPT_VIOLATION', undefined],
    ['CPUID', undefined],
  ])('such as %s have a code, where SVM has one', (text, code) => {
    expect(exitReason(text)).toEqual({ text, code });
  });
});

describe('events', () => {
  it.each([
    [
      'kvm_nested_vmexit',
      'rip: 0x0000000000400433 reason: npf ext_inf1: 0x0000000200000006 ext_inf2: 0x0000000000641000 ext_int: 0x80000036 ext_int_err: 0x00000000',
      { kind: 'nested-exit', rip: 0x400433n, info1: 0x2_0000_0006n, intInfo: 0x8000_0036 },
    ],
    [
      'kvm_nested_vmexit',
      'rip 400433 reason EXIT_NPF info1 200000006 info2 641000 int_info 0 int_info_err 0',
      { kind: 'nested-exit', rip: 0x400433n, info2: 0x641000n },
    ],
    [
      'kvm_nested_vmexit',
      'CAN\'T FIND FIELD "rip"<CANT FIND FIELD exit_code>vcpu 0 reason npf rip 0x400433 info1 0x0000000200000006 info2 0x0000000000641000 intr_info 0x00000000 error_code 0x00000000',
      { kind: 'nested-exit', vcpu: 0, rip: 0x400433n },
    ],
    ['kvm_exit', 'reason UNKNOWN (142) rip 0x7ffbb280 info 0 0', { kind: 'exit', reason: { code: 0x8en } }],
    ['kvm_exit', 'reason PF excp rip 0x7ffbb280', { kind: 'exit', reason: { text: 'PF excp' }, info1: undefined }],
    [
      'kvm_exit',
      'vcpu 1 reason npf rip 0x1 info1 0x0000000000000006 info2 0x0000000000001000 intr_info 0x00000000 error_code 0x00000000 requests 0x0000000000000000 [guest] [imm exit]',
      { kind: 'exit', vcpu: 1 },
    ],
    [
      'kvm_nested_vmrun',
      'rip: 0x000000007ffbb280 vmcb: 0x0000000008224000 nrip: 0xffffffffffbbe119 int_ctl: 0x01020000 event_inj: 0x80000036 npt: on',
      { kind: 'nested-entry', vmcb: 0x822_4000n, eventInjection: 0x8000_0036, nestedPaging: true },
    ],
    [
      'kvm_nested_vmenter',
      'rip: 0x0000000000000000 vmcb: 0x0000000008224000 nested_rip: 0x0000000000000000 int_ctl: 0x00000000 event_inj: 0x00000000 nested_npt=n guest_cr3: 0x0000000000001000',
      { kind: 'nested-entry', nestedPaging: false },
    ],
    [
      'kvm_pio',
      'pio_read at 0x5658 size 4 count 2 val 0x4 (...)',
      { kind: 'port', port: 0x5658, size: 4, write: false },
    ],
    ['kvm_msr', 'msr_write c0000080 = 0xd01 (#GP)', { kind: 'msr', msr: 0xc000_0080, write: true }],
    ['kvm_inj_virq', 'Soft/INTn 0x80', { kind: 'other' }],
    ['kvm_inj_virq', 'IRQ 0xec [reinjected]', { kind: 'interrupt-given', vector: 0xec, reinjected: true }],
    ['kvm_inj_virq', 'irq 236', { kind: 'interrupt-given', vector: 0xec }],
    ['kvm_inj_exception', '#GP (0x0)', { kind: 'exception-given', code: 0x4dn }],
    ['kvm_page_fault', 'address 1ab000 error_code 6', { kind: 'page-fault', address: 0x1a_b000n, errorCode: 6n }],
    ['kvm_entry', 'vcpu 3', { kind: 'entry', vcpu: 3 }],
    ['kvm_entry', 'vcpu 3, rip 0x7ffbb280[immediate exit]', { kind: 'entry', vcpu: 3 }],
    ['kvm_fpu', 'unload', { kind: 'other' }],
  ])('%s: %s', (name, text, event) => {
    expect(kvmEvent({ name, text })).toMatchObject(event);
  });

  it('of the first kernels show two control words in one number, and not the last one', () => {
    const text = 'cr_read: 0010 cr_write: 0011 excp: 00060042 intercept: 00006e7fbc4c8027';
    expect(kvmEvent({ name: 'kvm_nested_intercepts', text })).toEqual({
      kind: 'intercepts',
      controls: [
        { value: 0x0011_0010, known: -1 },
        { value: 0, known: 0 },
        { value: 0x6_0042, known: -1 },
        { value: 0xbc4c_8027 | 0, known: -1 },
        { value: 0x6e7f, known: -1 },
        { value: 0, known: 0 },
      ],
    });
  });

  it('of a known name and in no known form are not understood', () => {
    expect(kvmEvent({ name: 'kvm_exit', text: 'reason' })).toBeUndefined();
    expect(kvmEvent({ name: 'kvm_nested_vmexit', text: 'rip: 0x1 reason: npf ext_inf1: 0x' })).toBeUndefined();
  });
});

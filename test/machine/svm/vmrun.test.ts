import { beforeEach, describe, expect, it } from 'vitest';
import { GuestFault, Vector } from '../../../src/machine/faults.js';
import { VMRUN } from '../../../src/machine/isa/svm.js';
import { Boundary, CR0, CR4, EFER, Flag, R, SvmMode } from '../../../src/machine/layout/cpu-state.js';
import { RAM_BASE } from '../../../src/machine/layout/linear-memory.js';
import { decodeVmcbDelta, TlbControl, W } from '../../../src/machine/layout/vmcb.js';
import { ExitCode } from '../../../src/machine/svm/exit-code.js';
import { EventType, encodeEvent, pendingInjection } from '../../../src/machine/svm/injection.js';
import type { VmExit } from '../../../src/machine/svm/vmexit-request.js';
import { type VmrunRefusal, vmrunRefusal } from '../../../src/machine/svm/vmrun-checks.js';
import { vmrunRules } from '../../../src/machine/svm/vmrun-rules.js';
import { CODE64, DATA, HOST_RIP, SvmMachine, V_INTR_MASKING, VMCB_AT, withSvm } from '../../support/svm-machine.js';

let machine: SvmMachine;
const vmrun = () => machine.execute(VMRUN.system);

beforeEach(() => {
  machine = new SvmMachine();
  machine.longModeGuest();
});

describe('exceptions and the intercept, in order (APM vol.2 §15.5.1 Basic Operation, table 15-7)', () => {
  const raised = (): unknown => {
    try {
      vmrun();
    } catch (error) {
      return error;
    }
    return undefined;
  };

  it('raises #UD without EFER.SVME, even at CPL 3', () => {
    machine.set({ efer: EFER.LME | EFER.LMA, cpl: 3n });
    expect(raised()).toMatchObject({ vector: Vector.UD });
  });

  it('raises #UD in real and in virtual-8086 mode', () => {
    machine.set({ cr0: 0n });
    expect(raised()).toMatchObject({ vector: Vector.UD });
    machine.set({ cr0: CR0.PE, rflags: Flag.VM, cpl: 3n });
    expect(raised()).toMatchObject({ vector: Vector.UD });
  });

  it('raises #GP(0) above CPL 0, before the intercept', () => {
    machine.set({ cpl: 3n, svmMode: SvmMode.GUEST | SvmMode.GIF, intercept4: 1n });
    expect(raised()).toMatchObject({ vector: Vector.GP, errorCode: 0 });
  });

  it.each([
    ['is not aligned', 0x8010n],
    ['is above the physical width', 1n << 40n],
  ])('raises #GP(0) when rAX %s, before the intercept', (_what, rax) => {
    machine.set({ rax, svmMode: SvmMode.GUEST | SvmMode.GIF, intercept4: 1n });
    const fault = raised();
    expect(fault).toBeInstanceOf(GuestFault);
    expect(fault).toMatchObject({ vector: Vector.GP, errorCode: 0 });
  });

  it.each([
    ['is not RAM', 0xa_0000n],
    ['is beyond RAM', 0x8000_0000n],
  ])('raises #GP(0) when rAX %s, after the intercept: to L1 the address is another', (_what, rax) => {
    machine.set({ rax, svmMode: SvmMode.GUEST | SvmMode.GIF, intercept4: 1n });
    expect((raised() as VmExit).code).toBe(ExitCode.VMRUN);
    machine.set({ intercept4: 0n });
    expect(raised()).toMatchObject({ vector: Vector.GP, errorCode: 0 });
  });

  it('takes #VMEXIT(VMRUN) in a guest', () => {
    machine.set({ svmMode: SvmMode.GUEST | SvmMode.GIF, intercept4: 1n });
    expect((raised() as VmExit).code).toBe(ExitCode.VMRUN);
  });

  it('takes as much of rAX as the address size says', () => {
    machine.set({ rax: 0xffff_ffff_0000_0000n | BigInt(VMCB_AT) });
    const insn = { addressWidth: 32, length: 3 } as never;
    expect(machine.execute(VMRUN.system, { insn })).toMatchObject({ type: 'svm.vmrun', vmcb: VMCB_AT });
  });
});

describe('consistency checks (APM vol.2 §15.5.1, Canonicalization and Consistency Checks)', () => {
  const LIMIT = 1n << 40n;
  const inject = (type: number, vector: number): bigint => encodeEvent({ type, vector, errorCode: undefined });
  const cases: readonly (readonly [string, VmrunRefusal | undefined, (vmcb: SvmMachine['vmcb']) => void])[] = [
    ['a sound VMCB', undefined, () => {}],
    ['a clear VMRUN intercept', 'the VMRUN intercept is clear', (v) => (v.intercept4 = 0)],
    ['ASID 0', 'ASID is 0', (v) => (v.guestASID = 0)],
    ['an ASID above the count', undefined, (v) => (v.guestASID = 0xffff_ffff)],
    ['an IOPM three pages below the limit (§15.10.1)', undefined, (v) => (v.iopmBasePA = LIMIT - 0x3000n)],
    [
      'an IOPM two pages below the limit',
      'the I/O permission map passes the highest physical address',
      (v) => (v.iopmBasePA = LIMIT - 0x2000n),
    ],
    ['low bits of IOPM_BASE_PA', undefined, (v) => (v.iopmBasePA = LIMIT - 0x3000n + 0xfffn)],
    ['an MSRPM three pages below the limit', undefined, (v) => (v.msrpmBasePA = LIMIT - 0x3000n)],
    [
      'an MSRPM two pages below the limit',
      'the MSR permission map passes the highest physical address',
      (v) => (v.msrpmBasePA = LIMIT - 0x2000n),
    ],
    [
      'an MSRPM far above',
      'the MSR permission map passes the highest physical address',
      (v) => (v.msrpmBasePA = 0xffff_ffff_ffff_f000n),
    ],
    ['a reserved event type', 'EVENTINJ is illegal', (v) => (v.eventInj = inject(1, 0))],
    ['an NMI as exception', 'EVENTINJ is illegal', (v) => (v.eventInj = inject(EventType.EXCEPTION, 2))],
    ['#BR in 64-bit mode', 'EVENTINJ is illegal', (v) => (v.eventInj = inject(EventType.EXCEPTION, 5))],
    ['a reserved TLB_CONTROL', undefined, (v) => (v.tlbControl = 2)],
    ['nCR3 above the physical width', 'N_CR3 has MBZ bits set', (v) => (v.nCR3 = LIMIT)],
    ['low bits of nCR3', undefined, (v) => (v.nCR3 = 0x2fffn)],
    ['G_PAT with type 2', 'G_PAT has an illegal memory type', (v) => (v.gPAT = 2n << 8n)],
    ['G_PAT with type 3', 'G_PAT has an illegal memory type', (v) => (v.gPAT = 3n << 56n)],
    ['G_PAT with a reserved bit', 'G_PAT has an illegal memory type', (v) => (v.gPAT = 8n)],
    [
      'a bad G_PAT without nested paging',
      undefined,
      (v) => {
        v.nestedControl = 0n;
        v.gPAT = 2n;
      },
    ],
    ['EFER.SVME clear', 'EFER.SVME is clear', (v) => (v.efer = EFER.LME | EFER.LMA)],
    ['EFER bit 9', 'EFER has MBZ bits set', (v) => (v.efer = EFER.SVME | (1n << 9n))],
    ['EFER bit 63', 'EFER has MBZ bits set', (v) => (v.efer = EFER.SVME | (1n << 63n))],
    ['EFER.LMA that does not follow from LME and PG', undefined, (v) => (v.efer = EFER.SVME | EFER.LME)],
    ['CR0 bit 32', 'CR0[63:32] are not zero', (v) => (v.cr0 = CR0.PE | CR0.PG | (1n << 32n))],
    ['CR0.NW without CD', 'CR0.NW is set while CR0.CD is clear', (v) => (v.cr0 = CR0.PE | CR0.PG | CR0.NW)],
    ['CR0.NW with CD', undefined, (v) => (v.cr0 = CR0.PE | CR0.PG | CR0.NW | CR0.CD)],
    ['CR3 bit 52 in long mode', 'CR3 has MBZ bits set', (v) => (v.cr3 = 1n << 52n)],
    ['CR3 above the physical width in long mode', 'CR3 has MBZ bits set', (v) => (v.cr3 = LIMIT)],
    [
      'CR3 above the physical width in legacy paging (kvm-unit-tests, svm)',
      'CR3 has MBZ bits set',
      (v) => {
        v.efer = 0x1000n;
        v.cr3 = LIMIT;
      },
    ],
    ['low bits of CR3', undefined, (v) => (v.cr3 = 0x5fffn)],
    ['CR4 bit 19', 'CR4 has MBZ bits set', (v) => (v.cr4 = CR4.PAE | (1n << 19n))],
    ['CR4 bit 63', 'CR4 has MBZ bits set', (v) => (v.cr4 = CR4.PAE | (1n << 63n))],
    ['CR4.LA57 that the profile lacks', 'CR4 has MBZ bits set', (v) => (v.cr4 = CR4.PAE | CR4.LA57)],
    ['DR6 bit 32', 'DR6[63:32] are not zero', (v) => (v.dr6 = 1n << 32n)],
    ['DR7 bit 63', 'DR7[63:32] are not zero', (v) => (v.dr7 = 1n << 63n)],
    [
      'low reserved bits of DR6 and DR7',
      undefined,
      (v) => {
        v.dr6 = 0xffff_ffffn;
        v.dr7 = 0xffff_ffffn;
      },
    ],
    ['long mode without PAE', 'long mode without CR4.PAE', (v) => (v.cr4 = 0n)],
    ['long mode without PE', 'long mode without CR0.PE', (v) => (v.cr0 = CR0.PG)],
    ['CS.L with CS.D in long mode', 'long mode with CS.L and CS.D', (v) => (v.cs = CODE64 | (1n << 26n))],
    [
      'CS.L with CS.D outside long mode',
      undefined,
      (v) => {
        v.cs = CODE64 | (1n << 26n);
        v.efer = EFER.SVME;
      },
    ],
    [
      'paged real mode (§15.19)',
      undefined,
      (v) => {
        v.efer = EFER.SVME;
        v.cr4 = 0n;
        v.cr0 = CR0.PG;
      },
    ],
    ['RFLAGS reserved bits', undefined, (v) => (v.rflags = ~0n & ((1n << 64n) - 1n))],
    ['a RIP that is not canonical', undefined, (v) => (v.rip = 1n << 60n)],
    ['bits of absent features', undefined, (v) => (v.nestedControl = 0xffn)],
    ['x2AVIC and virtual GIF bits', undefined, (v) => (v.intControl = 0x4200_0a00n)],
    [
      'virtual NMIs without the NMI intercept (§15.21.10 NMI Virtualization)',
      'V_NMI_ENABLE is set while the NMI intercept is clear',
      (v) => (v.intControl = 1n << 26n),
    ],
    [
      'virtual NMIs with the NMI intercept',
      undefined,
      (v) => {
        v.intControl = 1n << 26n;
        v.intercept3 = 2;
      },
    ],
  ];

  it.each(cases)('%s', (_what, refusal, arrange) => {
    arrange(machine.vmcb);
    const rules = vmrunRules(machine.profile);
    const { memory } = machine;
    expect(
      vmrunRefusal(memory.words, (RAM_BASE + VMCB_AT) / 4, memory, rules, machine.get('cr0'), machine.get('efer')),
    ).toBe(refusal);
    expect(vmrun()).toMatchObject({ type: refusal === undefined ? 'svm.vmrun' : 'svm.vmexit' });
  });

  it('NP_ENABLE needs host paging (APM vol.2 §15.25.3 Enabling Nested Paging)', () => {
    machine.set({ cr0: CR0.PE, efer: EFER.SVME });
    expect(vmrun()).toMatchObject({ type: 'svm.vmexit', code: ExitCode.INVALID });
  });

  it('NP_ENABLE is ignored by a profile without nested paging', () => {
    machine = new SvmMachine(withSvm());
    machine.longModeGuest();
    machine.vmcb.nCR3 = 1n << 50n;
    expect(vmrun()).toMatchObject({ type: 'svm.vmrun' });
    expect(machine.get('nestedControl')).toBe(0n);
  });

  it.each([
    ['sound', 0x1n, 'svm.vmrun'],
    ['not present, with garbage', 0xffff_ffff_ffff_fffen, 'svm.vmrun'],
    ['with bit 1 set', 0x3n, 'svm.vmexit'],
    ['with bit 8 set', 0x101n, 'svm.vmexit'],
    ['above the physical width', (1n << 40n) | 1n, 'svm.vmexit'],
    ['with bit 63 set', (1n << 63n) | 1n, 'svm.vmexit'],
  ])('reads the PDPEs of a legacy PAE guest: one %s', (_what, pdpe, type) => {
    machine.paeGuest();
    machine.memory.view.setBigUint64(RAM_BASE + 0x6010, pdpe, true);
    expect(vmrun()).toMatchObject({ type });
    if (type === 'svm.vmrun') expect(machine.get('pdpte2')).toBe(pdpe);
  });

  it('leaves a nested guest’s PDPEs to the walk', () => {
    machine.paeGuest();
    machine.vmcb.nestedControl = 1n;
    machine.memory.view.setBigUint64(RAM_BASE + 0x6010, 3n, true);
    expect(vmrun()).toMatchObject({ type: 'svm.vmrun' });
    expect(machine.get('pdpte2')).toBe(0n);
  });
});

describe('#VMEXIT(INVALID)', () => {
  beforeEach(() => {
    const { vmcb } = machine;
    vmcb.efer = 0n;
    vmcb.exitInfo1 = 1n;
    vmcb.exitInfo2 = 2n;
    vmcb.exitIntInfo = 3n;
    vmcb.eventInj = encodeEvent({ type: EventType.INTERRUPT, vector: 0x30, errorCode: undefined });
    vmcb.nRIP = 4n;
    vmcb.instructionLength = 15;
  });

  it('reports -1 in 64 bits, drops the event and clears GIF', () => {
    vmrun();
    expect(machine.vmcb).toMatchObject({
      exitCode: ExitCode.INVALID,
      exitInfo1: 0n,
      exitInfo2: 0n,
      exitIntInfo: 0n,
      eventInj: 0n,
      nRIP: 0n,
      instructionLength: 0,
    });
    expect(machine.get('svmMode')).toBe(0n);
    expect(machine.get('dr7')).toBe(0x400n);
  });

  it('leaves the host and the guest state in the VMCB as they were', () => {
    vmrun();
    expect(machine.get('rip')).toBe(HOST_RIP);
    expect(machine.get('cr3')).toBe(0x1000n);
    expect(machine.vmcb).toMatchObject({ rip: 0x40_0000n, rax: 0x1234n, efer: 0n, cr2: 0xdead_b000n });
    expect(machine.memory.words[(RAM_BASE + VMCB_AT + 0x5c) / 4]).toBe(0);
  });

  it('states the VMRUN and its failure', () => {
    vmrun();
    expect(machine.events.map(({ type }) => type)).toEqual(['svm.vmrun', 'svm.vmexit']);
    const exit = machine.events[1];
    const words = exit?.type === 'svm.vmexit' ? [...decodeVmcbDelta(exit.words)].map(([word]) => 8 * word) : [];
    expect(words).toEqual([0x70, 0x78, 0x80, 0x88, 0xa8, 0xc8, 0xd0]);
  });
});

describe('the world switch into the guest (APM vol.2 §15.5.1, Loading Guest State)', () => {
  it('loads the guest’s registers', () => {
    vmrun();
    expect(machine.get('rip')).toBe(0x40_0000n);
    expect(machine.get('rsp')).toBe(0x7fff_0000n);
    expect(machine.get('rax')).toBe(0x1234n);
    expect(machine.get('rflags')).toBe(0x202n);
    expect(machine.get('cr0')).toBe(CR0.PE | CR0.PG | CR0.ET);
    expect(machine.get('cr2')).toBe(0xdead_b000n);
    expect(machine.get('cr3')).toBe(0x5000n);
    expect(machine.get('cr4')).toBe(CR4.PAE);
    expect(machine.get('efer')).toBe(EFER.SVME | EFER.LME | EFER.LMA);
    expect(machine.get('cs')).toBe(CODE64);
    expect(machine.get('gdtrLimit')).toBe(0x3fn);
    expect(machine.get('gdtrBase')).toBe(0x3000n);
    expect(machine.get('idtrLimit')).toBe(0x1ffn);
    expect(machine.get('idtrBase')).toBe(0x4000n);
  });

  it('keeps the host behind it, hidden parts included', () => {
    machine.set({ ssBase: 0x1_0000n, rflags: 0x2n | Flag.RF | Flag.IF });
    vmrun();
    expect(machine.get('hostRip')).toBe(HOST_RIP);
    expect(machine.get('hostRax')).toBe(BigInt(VMCB_AT));
    expect(machine.get('hostCr3')).toBe(0x1000n);
    expect(machine.get('hostSs')).toBe(DATA);
    expect(machine.get('hostSsBase')).toBe(0x1_0000n);
    expect(machine.get('hostRflags')).toBe(0x2n | Flag.IF);
    expect(machine.get('svmMode')).toBe(SvmMode.GUEST | SvmMode.GIF | SvmMode.HOST_IF);
  });

  it('makes bases canonical, and cuts those of ES, CS, SS and DS to 32 bits', () => {
    machine.vmcb.esBase = 0x1234_5678_9abc_def0n;
    machine.vmcb.gdtrBase = 0x0000_8000_0000_0000n;
    machine.vmcb.idtrBase = 0x1234_7000_0000_0000n;
    vmrun();
    expect(machine.get('esBase')).toBe(0x9abc_def0n);
    expect(machine.get('gdtrBase')).toBe(0xffff_8000_0000_0000n);
    expect(machine.get('idtrBase')).toBe(0x7000_0000_0000n);
  });

  it('does not touch FS, GS, LDTR, TR and the MSRs of VMLOAD', () => {
    machine.vmcb.fsBase = 1n;
    machine.vmcb.star = 2n;
    vmrun();
    expect(machine.get('fsBase')).toBe(0n);
    expect(machine.get('star')).toBe(0n);
  });

  it('computes EFER.LMA, and reads reserved bits as they always read', () => {
    const { vmcb } = machine;
    vmcb.efer = EFER.SVME | EFER.LME;
    vmcb.rflags = ~0n & ((1n << 64n) - 1n);
    vmcb.dr6 = 0xffff_ffffn;
    vmcb.dr7 = 0xffff_ffffn;
    vmcb.cr0 = CR0.PE | CR0.PG | (1n << 6n);
    vmcb.es = (0xffffn << 16n) | 0x10n;
    vmrun();
    expect(machine.get('efer') & EFER.LMA).toBe(EFER.LMA);
    expect(machine.get('rflags')).toBe(0x3f_7fd7n);
    expect(machine.get('dr6')).toBe((0xffff_effn << 4n) | 0xfn);
    expect(machine.get('dr7')).toBe(0xffff_27ffn);
    expect(machine.get('cr0')).toBe(CR0.PE | CR0.PG | CR0.ET);
    expect(machine.get('es')).toBe((0xfffn << 16n) | 0x10n);
  });

  it.each([
    ['the field in protected mode', CR0.PE, 0n, 2n],
    ['0 in real mode', 0n, 0n, 0n],
    ['3 in virtual-8086 mode', CR0.PE, Flag.VM, 3n],
  ])('takes CPL from %s', (_what, cr0, rflags, cpl) => {
    machine.vmcb.efer = EFER.SVME;
    machine.vmcb.cr0 = cr0;
    machine.vmcb.rflags = rflags;
    machine.vmcb.cpl = 2;
    vmrun();
    expect(machine.get('cpl')).toBe(cpl);
  });

  it('takes over the controls', () => {
    const { vmcb } = machine;
    vmcb.interceptCr = 0x0001_0008;
    vmcb.interceptDr = 0x0002_0004;
    vmcb.interceptExceptions = 0x4000;
    vmcb.intercept3 = 0x8000_0001;
    vmcb.intercept4 = 0x0000_0003;
    vmcb.intercept5 = 4;
    vmcb.iopmBasePA = 0xa000n;
    vmcb.msrpmBasePA = 0xe000n;
    vmcb.tscOffset = 0xffff_ffff_0000_0000n;
    vmcb.intControl = 0xee_7b1f_ffffn;
    vmrun();
    expect(machine.get('interceptCr')).toBe(0x0001_0008n);
    expect(machine.get('interceptDr')).toBe(0x0002_0004n);
    expect(machine.get('interceptExceptions')).toBe(0x4000n);
    expect(machine.get('intercept3')).toBe(0x8000_0001n);
    expect(machine.get('intercept4')).toBe(3n);
    expect(machine.get('intercept5')).toBe(4n);
    expect(machine.get('iopmBase')).toBe(0xa000n);
    expect(machine.get('msrpmBase')).toBe(0xe000n);
    expect(machine.get('tscOffset')).toBe(0xffff_ffff_0000_0000n);
    expect(machine.get('guestAsid')).toBe(5n);
    expect(machine.get('intControl')).toBe(0xee_031f_03ffn);
    expect(machine.get('intControl') & V_INTR_MASKING).toBe(V_INTR_MASKING);
    expect(machine.get('nestedCr3')).toBe(0x2000n);
    expect(machine.get('guestPat')).toBe(0x0007_0406_0007_0406n);
    expect(machine.get('vmcb')).toBe(BigInt(VMCB_AT));
  });

  it('loads the interrupt shadow (§15.21.5), keeps pending NMIs, forgets the host’s single step', () => {
    machine.vmcb.intShadow = 3n;
    machine.set({ boundary: Boundary.NMI_PENDING | Boundary.SINGLE_STEP | Boundary.DEBUG_SHADOW | (0xfn << 8n) });
    vmrun();
    expect(machine.get('boundary')).toBe(Boundary.NMI_PENDING | Boundary.INTERRUPT_SHADOW);
  });

  it('remembers EVENTINJ with the return address of software events', () => {
    machine.vmcb.eventInj = encodeEvent({ type: EventType.SOFTWARE, vector: 0x80, errorCode: undefined });
    machine.vmcb.nRIP = 0x40_0002n;
    vmrun();
    const reader = { get: machine.slot };
    expect(pendingInjection(reader)).toEqual({ type: 4, vector: 0x80, errorCode: undefined, nextRip: 0x40_0002n });
    expect(machine.vmcb.eventInj).not.toBe(0n);
    machine.set({ eventInjection: 0n });
    expect(pendingInjection(reader)).toBeUndefined();
  });

  it.each([
    [TlbControl.NONE, undefined],
    [TlbControl.ALL, { scope: 'all' }],
    [TlbControl.GUEST, { scope: 'asid', asid: 5 }],
    [TlbControl.GUEST_NON_GLOBAL, { scope: 'asid', asid: 5 }],
    [2, { scope: 'all' }],
  ])('obeys TLB_CONTROL %i (APM vol.2 §15.16.1 TLB Flush)', (control, flush) => {
    machine.vmcb.tlbControl = control;
    vmrun();
    expect(machine.flushes).toEqual(flush === undefined ? [] : [flush]);
    expect(machine.vmcb.tlbControl).toBe(control);
  });

  it('drops everything for encodings that need FlushByAsid where there is none', () => {
    machine = new SvmMachine(withSvm('np'));
    machine.longModeGuest();
    machine.vmcb.tlbControl = TlbControl.GUEST;
    vmrun();
    expect(machine.flushes).toEqual([{ scope: 'all' }]);
  });

  it('states what software changed since the processor last saw the VMCB', () => {
    expect(vmrun()).toMatchObject({ type: 'svm.vmrun', vmcb: VMCB_AT, asid: 5 });
    machine.hostInLongMode();
    machine.vmcb.rip = 0x40_0010n;
    const event = vmrun();
    const words = event?.type === 'svm.vmrun' ? [...decodeVmcbDelta(event.words)] : [];
    expect(words).toEqual([[W.rip, 0x40_0010n]]);
  });

  it('writes nothing to the VMCB and nothing to the host save area', () => {
    machine.set({ vmHsavePA: 0x9000n });
    const before = machine.memory.window(0, 0x20000).slice();
    vmrun();
    expect(machine.memory.window(0, 0x20000)).toEqual(before);
    expect(machine.get('rax')).toBe(machine.registers[R.rax]);
  });
});

import { describe, expect, it } from 'vitest';
import { Boundary, CR0, SvmMode } from '../../../src/machine/layout/cpu-state.js';
import { IntControl, TlbControl } from '../../../src/machine/layout/vmcb.js';
import { ExitCode, exceptionExit } from '../../../src/machine/svm/exit-code.js';
import { EventType, encodeEvent } from '../../../src/machine/svm/injection.js';
import { INTERCEPTS } from '../../../src/machine/svm/intercepts.js';
import { DATA, STACK_TOP, VMCB_AT } from '../../support/live-machine.js';
import { GUEST_CODE, handlerAt, NestedMachine } from '../../support/nested-machine.js';

const GUEST = BigInt(GUEST_CODE);
const CLGI = '0f01dd';
const STGI = '0f01dc';
const IRETQ = '48cf';

describe('virtual GIF (APM vol.2 §15.33.2 Virtual GIF)', () => {
  const { V_GIF, V_GIF_ENABLE, V_IRQ, V_IGN_TPR } = IntControl;
  const VECTOR = 0x40n << 32n;

  it.each([
    ['CLGI clears', CLGI, V_GIF, 0n],
    ['STGI sets', STGI, 0n, V_GIF],
  ])('%s V_GIF and leaves GIF alone', (_what, code, before, after) => {
    const live = new NestedMachine(code);
    live.vmcb.intControl = V_GIF_ENABLE | before;
    live.run(2);
    expect(live.get('svmMode')).toBe(SvmMode.GUEST | SvmMode.GIF);
    expect(live.exit().code).toBe(ExitCode.HLT);
    expect(live.vmcb.intControl).toBe(V_GIF_ENABLE | after);
  });

  it('STGI and CLGI act on GIF itself where the guest has no virtual one', () => {
    const live = new NestedMachine(CLGI);
    live.run(2);
    expect(live.get('svmMode')).toBe(SvmMode.GUEST);
  });

  it('both can be intercepted all the same', () => {
    const live = new NestedMachine(CLGI).intercept('CLGI');
    live.vmcb.intControl = V_GIF_ENABLE | V_GIF;
    expect(live.exit().code).toBe(ExitCode.CLGI);
  });

  it('holds a virtual interrupt back until STGI', () => {
    const live = new NestedMachine(`90 ${STGI} 90`);
    live.vmcb.intControl = V_GIF_ENABLE | V_IRQ | V_IGN_TPR | VECTOR;
    live.vmcb.rflags = 0x202n;
    live.exit();
    expect(live.vectors).toEqual([0x40]);
    expect(live.memory.read((STACK_TOP - 40) as never, 8)).toBe(GUEST + 4n);
    expect(live.vmcb.intControl & V_IRQ).toBe(0n);
  });

  it('is ignored by a processor that does not have it', () => {
    const live = new NestedMachine(CLGI, {}, 'k8-f');
    live.vmcb.intControl = V_GIF_ENABLE | V_GIF;
    live.run(2);
    expect(live.get('svmMode')).toBe(SvmMode.GUEST);
  });
});

describe('virtual NMIs (APM vol.2 §15.21.10 NMI Virtualization)', () => {
  const { V_NMI, V_NMI_MASK, V_NMI_ENABLE, V_GIF_ENABLE } = IntControl;
  const masked = (live: NestedMachine): bigint => live.vmcb.intControl & (V_NMI | V_NMI_MASK);
  const guest = (intControl: bigint, code = '90'): NestedMachine => {
    const live = new NestedMachine(code).intercept('NMI');
    live.vmcb.intControl = V_NMI_ENABLE | intControl;
    return live;
  };

  it('takes a pending one, clears V_NMI and sets V_NMI_MASK; physical NMIs stay unblocked', () => {
    const live = guest(V_NMI);
    expect(live.exit().code).toBe(ExitCode.HLT);
    expect(live.vectors).toEqual([2]);
    expect(masked(live)).toBe(V_NMI_MASK);
    expect(live.get('boundary') & Boundary.NMI_BLOCKED).toBe(0n);
  });

  it('IRET ends the mask', () => {
    const live = guest(V_NMI).put(handlerAt(2), IRETQ);
    live.exit();
    expect(masked(live)).toBe(0n);
    expect(live.vmcb.rip).toBe(GUEST + 1n);
  });

  it.each([
    ['while masked', V_NMI_MASK],
    ['while V_GIF is clear', V_GIF_ENABLE],
  ])('holds one back %s', (_when, intControl) => {
    const live = guest(V_NMI | intControl);
    live.exit();
    expect(live.vectors).toEqual([]);
    expect(live.vmcb.intControl & V_NMI).toBe(V_NMI);
  });

  it('holds one back in an interrupt shadow', () => {
    const live = guest(V_NMI);
    live.vmcb.intShadow = 1n;
    live.exit();
    expect(live.memory.read((STACK_TOP - 40) as never, 8)).toBe(GUEST + 1n);
  });

  it('an exit during its delivery reports it in EXITINTINFO (§15.7.2) and saves V_NMI_MASK as 0', () => {
    const live = guest(V_NMI).intercept('EXCEPTION_13');
    live.vmcb.idtrLimit = 0;
    expect(live.exit()).toMatchObject({ code: exceptionExit(13), intInfo: 0x8000_0202n });
    expect(masked(live)).toBe(0n);
  });

  it('an injected NMI sets V_NMI_MASK', () => {
    const live = guest(V_NMI);
    live.vmcb.eventInj = encodeEvent({ type: EventType.NMI, vector: 2, errorCode: undefined });
    live.exit();
    expect(masked(live)).toBe(V_NMI | V_NMI_MASK);
  });

  it('V_NMI without V_NMI_ENABLE means nothing and stays as it is', () => {
    const live = new NestedMachine('90').intercept('NMI');
    live.vmcb.intControl = V_NMI;
    live.exit();
    expect(live.vectors).toEqual([]);
    expect(live.vmcb.intControl).toBe(V_NMI);
  });
});

describe('injected events (APM vol.2 §15.20 Event Injection)', () => {
  it('an injected NMI does not block further NMIs', () => {
    const live = new NestedMachine('90');
    live.vmcb.eventInj = encodeEvent({ type: EventType.NMI, vector: 2, errorCode: undefined });
    live.exit();
    expect(live.get('boundary') & Boundary.NMI_BLOCKED).toBe(0n);
  });

  it('vectors 3 and 4 are INT3 and INTO, for which the DPL of the gate counts, with nRIP and without', () => {
    for (const cpu of ['vmtape-base', 'k8-f']) {
      const live = new NestedMachine('90', {}, cpu).intercept('EXCEPTION_13');
      live.vmcb.eventInj = encodeEvent({ type: EventType.EXCEPTION, vector: 4, errorCode: undefined });
      live.vmcb.cpl = 3;
      live.vmcb.cs |= 0x60_0000n;
      live.vmcb.ss |= 0x60_0000n;
      live.vmcb.efer &= ~0x400n;
      live.vmcb.cs &= ~(1n << 25n);
      live.vmcb.cr0 &= ~0x8000_0000n;
      live.vmcb.efer &= ~0x100n;
      live.write(0x6000 + 8 * 4, 0x0000_8e00_0008_8004n);
      live.vmcb.cs |= 1n << 26n;
      expect(live.exit(), cpu).toMatchObject({ code: exceptionExit(13), info1: 8n * 4n + 2n, intInfo: 0x8000_0304n });
    }
  });
});

describe('virtualized VMLOAD and VMSAVE (APM vol.2 §15.33.1 VMSAVE and VMLOAD Virtualization)', () => {
  const VMSAVE = '0f01db';
  const VMLOAD = '0f01da';
  const AREA = 0x70_0000n;
  const NOWHERE = 0x4000_0000n;
  const guest = (code: string, rax: bigint): NestedMachine => {
    const live = new NestedMachine(code).nestedPaging();
    live.vmcb.virtExt = 2n;
    live.vmcb.rax = rax;
    return live;
  };

  it('works on the guest’s physical memory, without an exit', () => {
    const live = guest(VMSAVE, AREA).set({ star: 0x1234n });
    expect(live.exit().code).toBe(ExitCode.HLT);
    expect(live.vmcbAt(Number(AREA)).star).toBe(0x1234n);
  });

  it.each([
    ['VMLOAD', VMLOAD, 0x1_0000_0004n],
    ['VMSAVE', VMSAVE, 0x1_0000_0006n],
  ])('%s exits with a nested page fault where the guest has no memory', (_name, code, info1) => {
    expect(guest(code, NOWHERE).exit()).toMatchObject({ code: ExitCode.NPF, info1, info2: NOWHERE });
  });

  it('exits when the bit is set but nested paging is off', () => {
    const live = guest(VMLOAD, AREA);
    live.vmcb.nestedControl = 0n;
    expect(live.exit().code).toBe(ExitCode.VMLOAD);
    expect(live.vmcb.nRIP).toBe(GUEST + 3n);
  });

  it('can be intercepted all the same', () => {
    expect(guest(VMSAVE, AREA).intercept('VMSAVE').exit().code).toBe(ExitCode.VMSAVE);
  });
});

describe('TSC ratio (APM vol.2 §15.30.5 TSC Ratio MSR)', () => {
  it('scales the counter, then adds the offset, in the guest only', () => {
    const live = new NestedMachine('0f31', { tscRatio: 0x2_8000_0000n });
    live.vmcb.tscOffset = 1000n;
    live.exit();
    // One instruction of 10 ns, VMRUN, has retired: 10 * 2.5 + 1000.
    expect(live.vmcb.rax).toBe(1025n);
    live.put(0x10_0000, '0f31 f4').set({ rip: 0x10_0000n, activity: 0n, svmMode: SvmMode.GIF });
    live.run();
    expect(live.get('rax')).toBe(30n);
  });
});

describe('PAUSE filter (APM vol.2 §15.14.4 Pause Intercept Filtering)', () => {
  const PAUSES = 'f390'.repeat(8);
  const guest = (count: number, threshold: number, code = PAUSES, cpu?: string): NestedMachine => {
    const live = new NestedMachine(code, {}, cpu).intercept('PAUSE');
    live.vmcb.pauseFilterCount = count;
    live.vmcb.pauseFilterThreshold = threshold;
    return live;
  };

  it.each([
    [0, 0],
    [1, 1],
    [5, 5],
  ])('with a count of %i, %i PAUSEs pass', (count, passed) => {
    const live = guest(count, 0);
    expect(live.exit().code).toBe(ExitCode.PAUSE);
    expect(live.vmcb.rip).toBe(GUEST + BigInt(2 * passed));
    expect(live.vmcb.pauseFilterCount).toBe(count);
  });

  it('every VMRUN reloads the count', () => {
    const live = guest(2, 0);
    live.exit();
    live.again();
    expect(live.vmcb.rip).toBe(GUEST + 8n);
  });

  it('PAUSEs further apart than the threshold reload it', () => {
    const far = `f390 ${'90'.repeat(10)}`.repeat(6);
    expect(guest(2, 50, far).exit().code).toBe(ExitCode.HLT);
    expect(guest(2, 500, far).exit().code).toBe(ExitCode.PAUSE);
  });

  it('the first PAUSE exits on a processor without the filter', () => {
    const live = guest(5, 0, PAUSES, 'k8-f');
    expect(live.exit().code).toBe(ExitCode.PAUSE);
    expect(live.vmcb.rip).toBe(GUEST);
  });
});

describe('branch records (APM vol.2 §13.1.1.8, §15.23 Last Branch Record Virtualization)', () => {
  const LBR = 1n;
  const JUMP = 'eb02 9090';

  it('the four registers and DebugCtl are exchanged with those of the host', () => {
    const host = { lastBranchFrom: 1n, lastBranchTo: 2n, lastIntFrom: 3n, lastIntTo: 4n };
    const live = new NestedMachine(JUMP, { debugCtl: LBR, ...host });
    Object.assign(live.vmcb, { virtExt: 1n, debugCtl: LBR, lastIntFrom: 7n, lastIntTo: 8n });
    live.run(2);
    expect(live.get('lastBranchFrom')).toBe(GUEST);
    live.exit();
    expect(live.vmcb).toMatchObject({
      ...{ debugCtl: LBR, lastBranchFrom: GUEST, lastBranchTo: GUEST + 4n },
      ...{ lastIntFrom: 7n, lastIntTo: 8n },
    });
    for (const [name, value] of Object.entries(host)) expect(live.get(name as keyof typeof host), name).toBe(value);
    expect(live.get('debugCtl')).toBe(LBR);
  });

  it('without virtualization the guest’s branches are the host’s', () => {
    const live = new NestedMachine(JUMP, { debugCtl: LBR });
    live.exit();
    expect(live.get('lastBranchFrom')).toBe(GUEST);
    expect(live.vmcb.lastBranchFrom).toBe(0n);
  });

  it('nothing is recorded while DebugCtl.LBR is clear', () => {
    const live = new NestedMachine(JUMP);
    live.exit();
    expect(live.get('lastBranchFrom')).toBe(0n);
  });

  it('an exception moves the last branch to the last interrupt, and is a branch itself', () => {
    const live = new NestedMachine(`${JUMP} 0f0b`, { debugCtl: LBR });
    live.exit();
    expect(
      ['lastIntFrom', 'lastIntTo', 'lastBranchFrom', 'lastBranchTo'].map((name) => live.get(name as 'rip')),
    ).toEqual([GUEST, GUEST + 4n, GUEST + 4n, BigInt(handlerAt(6))]);
  });

  it('#DB ends the recording and alters nothing', () => {
    const live = new NestedMachine(`${JUMP} 90`, { debugCtl: LBR });
    live.vmcb.rflags = 0x102n;
    live.exit();
    expect(live.vectors).toEqual([1]);
    expect(live.get('debugCtl')).toBe(0n);
    expect(live.get('lastBranchFrom')).toBe(GUEST);
    expect(live.get('lastIntFrom')).toBe(0n);
  });

  it('with BTF a single step goes to the next taken branch', () => {
    const live = new NestedMachine(`90 90 ${JUMP} 90`, { debugCtl: 2n });
    live.vmcb.rflags = 0x102n;
    live.exit();
    expect(live.memory.read((STACK_TOP - 40) as never, 8)).toBe(GUEST + 6n);
  });
});

describe('idle HLT (APM vol.2 §15.9 Instruction Intercepts, table 15-7)', () => {
  const guest = (intControl: bigint): NestedMachine => {
    const live = new NestedMachine('90').intercept('IDLE_HLT');
    live.vmcb.intercept3 = 0;
    live.vmcb.intControl = intControl;
    return live;
  };

  it('exits when no virtual event is pending', () => {
    expect(guest(0n).exit().code).toBe(ExitCode.IDLE_HLT);
  });

  it('does not when one is', () => {
    const live = guest(IntControl.V_IRQ | IntControl.V_IGN_TPR);
    expect(live.run()).toBe('idle');
    expect(live.events.map(({ type }) => type)).toEqual(['svm.vmrun', 'cpu.halted']);
  });

  it('HLT wins when both are set', () => {
    expect(guest(0n).intercept('HLT').exit().code).toBe(ExitCode.HLT);
  });
});

describe('write traps (APM vol.2 appendix B, table B-1)', () => {
  it('MOV to CR0: the exit comes behind the write', () => {
    const live = new NestedMachine('0f22c0').intercept('CR0_WRITE_TRAP');
    const cr0 = live.get('cr0') | 8n;
    live.vmcb.rax = cr0;
    expect(live.exit()).toMatchObject({ code: 0x90n, info1: cr0 });
    expect(live.vmcb).toMatchObject({ rip: GUEST + 3n, cr0, nRIP: 0n });
  });

  it('CLTS is a write of CR0', () => {
    expect(new NestedMachine('0f06').intercept('CR0_WRITE_TRAP').exit().code).toBe(0x90n);
  });

  it('WRMSR of EFER', () => {
    const live = new NestedMachine('b9800000c0 0f30', { rdx: 0n }).intercept('EFER_WRITE_TRAP');
    const efer = live.get('efer') | 0x800n;
    live.vmcb.rax = efer;
    expect(live.exit()).toMatchObject({ code: ExitCode.EFER_WRITE_TRAP, info1: efer });
    expect(live.vmcb.rip).toBe(GUEST + 7n);
  });
});

describe('CR8 outside 64-bit mode (APM vol.2 §15.21.3 TPR Access in 32-Bit Mode)', () => {
  it('LOCK MOV CR0 names CR8, for its intercepts, too', () => {
    const live = new NestedMachine('f00f22c0 f00f20c3').intercept('CR0_WRITE', 'CR0_READ');
    live.vmcb.rax = 5n;
    live.exit();
    expect(live.get('rbx')).toBe(5n);
    expect(live.vmcb.intControl).toBe(5n);
    expect(new NestedMachine('f00f20c3').intercept('CR8_READ').exit().code).toBe(8n);
  });

  it('with another register it is #UD', () => {
    const live = new NestedMachine('f00f20db').intercept('EXCEPTION_6');
    expect(live.exit().code).toBe(exceptionExit(6));
  });
});

describe('decode assists (APM vol.2 §15.8 Decode Assists)', () => {
  it.each([
    ['vmtape-base', (1n << 63n) | 3n],
    ['k8-f', 0n],
  ])('%s: EXITINFO1 of MOV RBX, CR3 is %x (§15.8.1 MOV CRx/DRx Intercepts)', (cpu, info1) => {
    const live = new NestedMachine('0f20db', {}, cpu).intercept('CR3_READ');
    expect(live.exit()).toMatchObject({ code: 3n, info1 });
  });

  const MOV_CR = 1n << 63n;
  it.each([
    ['MOV R15, CR4', '410f20e7', 'CR4_READ', MOV_CR | 15n],
    ['MOV CR0, RAX', '0f20c0 0f22c0', 'CR0_WRITE', MOV_CR],
    ['LMSW AX', '0f20c0 0f01f0', 'CR0_WRITE', 0n],
    ['CLTS', '0f06', 'CR0_WRITE', 0n],
    ['MOV RCX, CR0', '0f20c1', 'CR0_READ', MOV_CR | 1n],
    ['SMSW ECX', '0f01e1', 'CR0_READ', 0n],
    ['MOV R10, DR7', '410f21fa', 'DR7_READ', 10n],
    ['MOV DR7, R11', '410f21fb 410f23fb', 'DR7_WRITE', 11n],
    ['INT 21h', 'cd21', 'INTn', 0x21n],
    ['INVLPG [120034h]', '0f013c2534001200', 'INVLPG', 0x12_0034n],
  ] as const)('EXITINFO1 of %s (§15.8.1, §15.8.2, §15.8.3)', (_name, code, intercept, info1) => {
    expect(new NestedMachine(code).intercept(intercept).exit()).toMatchObject({
      code: INTERCEPTS[intercept].exitCode,
      info1,
    });
  });

  it.each([
    ['as many as the next page gives', 0x7f_fffan, 15],
    ['as many as can be fetched', 0xff_fffan, 6],
  ])('instruction bytes of an intercepted #PF: %s (§15.8.4)', (_what, rip, count) => {
    const live = new NestedMachine('').intercept('EXCEPTION_14');
    live.put(Number(rip), '8b0390909090');
    live.vmcb.rip = rip;
    live.set({ rbx: 0x4000_0000n });
    live.exit();
    expect(live.vmcb.instructionLength).toBe(count);
    expect([...live.vmcb.instructionBytes.slice(0, 2)]).toEqual([0x8b, 0x03]);
  });

  it('none of a #PF of the fetch', () => {
    const live = new NestedMachine('').intercept('EXCEPTION_14');
    live.vmcb.rip = 0x4000_0000n;
    live.exit();
    expect(live.vmcb.instructionLength).toBe(0);
  });

  it('nRIP of BOUND is that of the next instruction (§15.7.1 State Saved on Exit)', () => {
    const live = new NestedMachine('62 05 00 00 20 00').intercept('EXCEPTION_5');
    live.vmcb.efer &= ~0x500n;
    live.vmcb.cr0 &= ~0x8000_0000n;
    live.vmcb.cs = (live.vmcb.cs & ~(1n << 25n)) | (1n << 26n);
    live.vmcb.rax = 5n;
    expect(live.exit().code).toBe(exceptionExit(5));
    expect(live.vmcb).toMatchObject({ rip: GUEST, nRIP: GUEST + 6n });
  });
});

describe('Guest Mode Execute Trap (APM vol.2 §15.25.13 Guest Mode Execute Trap Extension, table 15-21)', () => {
  const PAGE_DIRECTORY = 0x3000;
  const USER = 4n;
  const guest = (code: string, nestedUser: boolean, cpl: number): NestedMachine => {
    const live = new NestedMachine(code).nestedPaging();
    const [pml4, pdpt, pd] = [0x90_0000, 0x90_1000, 0x90_2000];
    live.write(pml4, BigInt(pdpt) | 0x67n).write(pdpt, BigInt(pd) | 0x67n);
    for (let page = 0; page < 8; page++) {
      const entry = live.memory.read((PAGE_DIRECTORY + 8 * page) as never, 8);
      live.write(pd + 8 * page, nestedUser ? entry : entry & ~USER);
    }
    live.vmcb.nCR3 = BigInt(pml4);
    live.vmcb.nestedControl = 9n;
    live.vmcb.cpl = cpl;
    return live;
  };

  it('the supervisor does not execute pages of the nested user', () => {
    expect(guest('90', true, 0).exit()).toMatchObject({ code: ExitCode.NPF, info1: 0x1_0000_0001n, info2: GUEST });
  });

  it('it executes, reads and writes the others', () => {
    expect(guest('890425 00002000 8b0425 00002000', false, 0).exit().code).toBe(ExitCode.HLT);
  });

  it('the user executes both', () => {
    for (const user of [true, false]) {
      const live = guest('0f01d9', user, 3).intercept('VMMCALL');
      live.vmcb.cs |= 0x60_0000n;
      live.vmcb.ss |= 0x60_0000n;
      expect(live.exit().code).toBe(ExitCode.VMMCALL);
    }
  });
});

describe('VMCB clean bits (APM vol.2 §15.15 VMCB State Caching)', () => {
  const CR2 = 1 << 9;
  const ASID = 1 << 2;
  const ran = (): NestedMachine => {
    const live = new NestedMachine('90');
    live.vmcb.cr2 = 0x1000n;
    live.exit();
    live.vmcb.rip = GUEST;
    return live;
  };
  const stale = (live: NestedMachine) => live.events.filter(({ type }) => type === 'svm.stale');

  it('a field changed under a set bit keeps the cached value, and an event says so', () => {
    const live = ran();
    live.vmcb.cr2 = 0x2000n;
    live.vmcb.vmcbClean = 0xffff_ffff;
    live.again();
    expect(live.get('cr2')).toBe(0x1000n);
    expect(stale(live)).toMatchObject([{ vmcb: VMCB_AT, clean: 0xfff }]);
    expect(live.vmcb.cr2).toBe(0x1000n);
  });

  it('a clear bit is always honoured', () => {
    const live = ran();
    live.vmcb.cr2 = 0x2000n;
    live.vmcb.vmcbClean = 0xffff_ffff & ~CR2;
    live.again();
    expect(live.get('cr2')).toBe(0x2000n);
    expect(stale(live)).toEqual([]);
  });

  it('a VMCB that did not run last is not cached', () => {
    const live = ran();
    const other = 0x41_0000;
    live.memory.copyIn(other as never, live.memory.window(VMCB_AT as never, 4096).slice());
    live.vmcbAt(other).rip = GUEST;
    live.again(other);
    live.vmcb.cr2 = 0x2000n;
    live.vmcb.vmcbClean = 0xffff_ffff;
    live.again();
    expect(live.get('cr2')).toBe(0x2000n);
    expect(stale(live)).toEqual([]);
  });

  it('RIP, RAX, events and TLB_CONTROL are never cached', () => {
    const live = ran();
    live.vmcb.rax = 7n;
    live.vmcb.tlbControl = TlbControl.ALL;
    live.vmcb.vmcbClean = 0xffff_ffff;
    live.again();
    expect(stale(live)).toEqual([]);
    expect(live.vmcb.rax).toBe(7n);
  });

  it('the ASID is cached though TLB_CONTROL beside it is not', () => {
    const live = ran();
    live.vmcb.guestASID = 9;
    live.vmcb.tlbControl = TlbControl.GUEST;
    live.vmcb.vmcbClean = ASID;
    live.again();
    expect(stale(live)).toHaveLength(1);
    expect(live.events.findLast(({ type }) => type === 'svm.vmrun')).toMatchObject({ asid: 1 });
  });

  it('checks are made on what results: a cached EFER refuses nothing', () => {
    const live = ran();
    live.vmcb.efer = 0n;
    live.vmcb.vmcbClean = 0xffff_ffff;
    expect(live.again().code).toBe(ExitCode.HLT);
  });

  it('a processor without VMCB state caching does not read the field', () => {
    const live = new NestedMachine('90', {}, 'k8-f');
    live.exit();
    live.vmcb.rip = GUEST;
    live.vmcb.cr2 = 0x2000n;
    live.vmcb.vmcbClean = 0xffff_ffff;
    live.again();
    expect(live.get('cr2')).toBe(0x2000n);
  });
});

describe('what a processor without AVIC makes of its fields (APM vol.2 §15.29.4 VMCB Changes for AVIC)', () => {
  const WITHOUT = 'vmtape-base,-avic';
  const { AVIC_ENABLE, X2AVIC_ENABLE, V_IRQ, V_IGN_TPR, V_INTR_MASKING } = IntControl;

  it('interrupts stay V_IRQ’s, and the bits are the hypervisor’s to keep', () => {
    const live = new NestedMachine('90', {}, WITHOUT);
    const avic = AVIC_ENABLE | X2AVIC_ENABLE;
    live.vmcb.intControl = avic | V_IRQ | V_IGN_TPR | V_INTR_MASKING | (0x40n << 32n);
    live.vmcb.rflags = 0x202n;
    live.vmcb.avicApicBar = 0xfee0_0000n;
    live.vmcb.avicBackingPage = 0xffff_ffff_ffff_f000n;
    live.exit();
    expect(live.vectors).toEqual([0x40]);
    expect(live.vmcb.intControl & (avic | V_IRQ)).toBe(avic);
    expect(live.get('intControl')).toBe(0n);
  });

  it('its clean bit covers nothing that is looked at', () => {
    const live = new NestedMachine('f4', {}, WITHOUT);
    live.exit();
    live.vmcb.avicPhysicalTable = 0x7000n;
    live.vmcb.vmcbClean = 0x800;
    live.again();
    expect(live.events.some(({ type }) => type === 'svm.stale')).toBe(false);
  });

  it('the doorbell register is not there', () => {
    const live = new NestedMachine('0f30', {}, WITHOUT);
    live.set({ rcx: 0xc001_011bn, rdx: 0n });
    live.exit();
    expect(live.events).toContainEqual({ type: 'cpu.msr-unknown', msr: 0xc001_011b, write: true, value: 0n });
  });
});

describe('intercepts that came with a feature (APM vol.2 appendix B, offset 014h)', () => {
  it('idle HLT is no intercept on a processor that does not report it', () => {
    const idle = (cpu?: string): string[] => {
      const live = new NestedMachine('', {}, cpu).intercept('IDLE_HLT');
      live.vmcb.intercept3 = 0;
      live.run();
      return live.events.map(({ type }) => type);
    };
    expect(idle()).toContain('svm.vmexit');
    expect(idle('zen-4')).not.toContain('svm.vmexit');
  });
});

describe('FERR (APM vol.2 §15.14.2 Ferr_Freeze Intercept)', () => {
  /** FLDCW with zero divide unmasked, 1 / 0, FWAIT. */
  const guest = (cr0Clear: bigint): NestedMachine => {
    const live = new NestedMachine('dbe3 d92c2500002000 d9e8 d9ee def9 9b').write(DATA, 0x37bn);
    live.vmcb.cr0 &= ~cr0Clear;
    return live.intercept('FERR_FREEZE');
  };

  it('exits instead of freezing, before the waiting instruction', () => {
    expect(guest(CR0.NE).exit()).toMatchObject({ code: ExitCode.FERR_FREEZE, intInfo: 0n });
  });

  it('leaves #MF alone where CR0.NE is set', () => {
    const live = guest(0n);
    expect(live.exit().code).toBe(ExitCode.HLT);
    expect(live.vectors).toEqual([16]);
  });
});

describe('shutdown (APM vol.2 §15.14.3 Shutdown Intercept)', () => {
  /** UD2 on an empty IDT: the third fault. */
  const guest = (): NestedMachine => {
    const live = new NestedMachine('0f0b');
    live.vmcb.idtrLimit = 0;
    return live;
  };

  it('of a guest is an exit where it is intercepted, and L1 goes on', () => {
    expect(guest().intercept('SHUTDOWN').exit()).toMatchObject({ code: ExitCode.SHUTDOWN, info1: 0n, info2: 0n });
  });

  it('ends the machine where it is not', () => {
    const live = guest();
    expect(live.run()).toBe('ended');
    expect(live.machine.state.ended).toMatchObject({ reason: 'shutdown' });
    expect(live.events.map(({ type }) => type)).not.toContain('svm.vmexit');
  });
});

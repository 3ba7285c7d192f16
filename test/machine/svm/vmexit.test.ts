import { beforeEach, describe, expect, it } from 'vitest';
import type { EventOf } from '../../../src/machine/events.js';
import { VMRUN } from '../../../src/machine/isa/svm.js';
import {
  Activity,
  Boundary,
  CR0,
  CR4,
  EFER,
  EMPTY_DELTA,
  Flag,
  R,
  SvmMode,
} from '../../../src/machine/layout/cpu-state.js';
import { RAM_BASE } from '../../../src/machine/layout/linear-memory.js';
import { decodeVmcbDelta, W } from '../../../src/machine/layout/vmcb.js';
import { ExitCode } from '../../../src/machine/svm/exit-code.js';
import { EventType, encodeEvent } from '../../../src/machine/svm/injection.js';
import { virtualizationOf, vmexitEvent } from '../../../src/machine/svm/nested-svm.js';
import { VmExit } from '../../../src/machine/svm/vmexit-request.js';
import { CODE64, DATA, HOST_RIP, SvmMachine, VMCB_AT, withSvm } from '../../support/svm-machine.js';

let machine: SvmMachine;

const enter = () => machine.execute(VMRUN.system);

function leave(exit: VmExit, bytes?: Uint8Array): EventOf<'svm.vmexit'> {
  const { vmcbShadow } = machine.context();
  const site = { vmcbShadow, nextRip: exit.nextRip ? 0x40_0102n : 0n, bytes };
  const outcome = virtualizationOf(machine.profile).vmexit(machine.tx, exit, site);
  return machine.commit(vmexitEvent(outcome, EMPTY_DELTA)) as EventOf<'svm.vmexit'>;
}

beforeEach(() => {
  machine = new SvmMachine();
  machine.longModeGuest();
});

describe('what the VMCB gets (APM vol.2 §15.6 #VMEXIT)', () => {
  beforeEach(() => {
    enter();
    machine.set({
      es: 0x1111_1111_0222_3333n,
      esBase: 0x0000_0000_4444_5555n,
      cs: CODE64 | 3n,
      csBase: 0x100n,
      ss: DATA | 3n,
      ssBase: 0x200n,
      ds: 0n,
      dsBase: 0x300n,
      gdtrLimit: 0x77n,
      gdtrBase: 0xffff_8000_0000_0077n,
      idtrLimit: 0x88n,
      idtrBase: 0x88n,
      cpl: 3n,
      efer: EFER.SVME | EFER.LME | EFER.LMA | EFER.SCE,
      cr4: CR4.PAE | CR4.PGE,
      cr3: 0x9000n,
      cr0: CR0.PE | CR0.PG | CR0.ET | CR0.TS,
      cr2: 0x1_2345n,
      dr6: 0xffff_0ff1n,
      dr7: 0x403n,
      rflags: 0x246n,
      rip: 0x40_0100n,
      rsp: 0x7ffe_fff8n,
      rax: 0xaaaa_bbbb_cccc_ddddn,
      guestPat: 0x0606_0606_0606_0606n,
      boundary: Boundary.INTERRUPT_SHADOW | Boundary.NMI_PENDING,
    });
  });

  it('is the guest’s state, field by field, the interrupt shadow among them (§15.21.5)', () => {
    leave(new VmExit(ExitCode.CPUID, 0n, 0n, true));
    expect(machine.vmcb).toMatchObject({
      es: 0x1111_1111_0222_3333n,
      esBase: 0x4444_5555n,
      cs: CODE64 | 3n,
      csBase: 0x100n,
      ss: DATA | 3n,
      ssBase: 0x200n,
      ds: 0n,
      dsBase: 0x300n,
      gdtrLimit: 0x77,
      gdtrBase: 0xffff_8000_0000_0077n,
      idtrLimit: 0x88,
      idtrBase: 0x88n,
      cpl: 3,
      efer: EFER.SVME | EFER.LME | EFER.LMA | EFER.SCE,
      cr4: CR4.PAE | CR4.PGE,
      cr3: 0x9000n,
      cr0: CR0.PE | CR0.PG | CR0.ET | CR0.TS,
      cr2: 0x1_2345n,
      dr6: 0xffff_0ff1n,
      dr7: 0x403n,
      rflags: 0x246n,
      rip: 0x40_0100n,
      rsp: 0x7ffe_fff8n,
      rax: 0xaaaa_bbbb_cccc_ddddn,
      gPAT: 0x0606_0606_0606_0606n,
      intShadow: 1n,
    });
  });

  it('is the reason, with nRIP for instruction intercepts (§15.7.1 State Saved on Exit)', () => {
    const event = leave(new VmExit(ExitCode.IOIO, 0x1f0_0211n, 0x40_0102n, true));
    const reason = { code: ExitCode.IOIO, info1: 0x1f0_0211n, info2: 0x40_0102n, intInfo: 0n };
    expect(event).toMatchObject({ type: 'svm.vmexit', vmcb: VMCB_AT, ...reason });
    const written = { exitCode: ExitCode.IOIO, exitInfo1: 0x1f0_0211n, exitInfo2: 0x40_0102n, exitIntInfo: 0n };
    expect(machine.vmcb).toMatchObject({ ...written, nRIP: 0x40_0102n });
  });

  it('has nRIP zero for all other exits, and clears EVENTINJ', () => {
    machine.vmcb.nRIP = 0x99n;
    machine.vmcb.eventInj = encodeEvent({ type: EventType.NMI, vector: 2, errorCode: undefined });
    leave(new VmExit(ExitCode.INTR));
    expect(machine.vmcb).toMatchObject({ nRIP: 0n, eventInj: 0n });
  });

  it('has EXITINTINFO of the delivery that was cut short (§15.7.2 Intercepts During IDT Interrupt Delivery)', () => {
    const event = encodeEvent({ type: EventType.EXCEPTION, vector: 13, errorCode: 0x18 });
    machine.set({ exitIntInfo: event });
    expect(leave(new VmExit(ExitCode.NPF, 1n, 2n)).intInfo).toBe(event);
    expect(machine.vmcb.exitIntInfo).toBe(0x18_8000_0b0dn);
    expect(machine.get('exitIntInfo')).toBe(0n);
  });

  it('has instruction bytes where the exit asks for them (APM vol.2 §15.8.4 Nested and Intercepted #PF)', () => {
    const bytes = Uint8Array.from({ length: 15 }, (_, index) => 0xf0 + index);
    leave(new VmExit(ExitCode.NPF, 0n, 0n, false, true), bytes);
    expect(machine.vmcb.instructionLength).toBe(15);
    expect([...machine.vmcb.instructionBytes]).toEqual([...bytes]);
  });

  it('has as many bytes as could be fetched, and none for other exits', () => {
    leave(new VmExit(ExitCode.NPF, 0n, 0n, false, true), Uint8Array.of(0x0f, 0xa2));
    expect(machine.vmcb.instructionLength).toBe(2);
    expect(machine.vmcb.instructionBytes[1]).toBe(0xa2);
    machine.hostInLongMode();
    enter();
    leave(new VmExit(ExitCode.HLT, 0n, 0n, true));
    expect(machine.vmcb.instructionLength).toBe(0);
    expect(machine.vmcb.instructionBytes[1]).toBe(0xa2);
  });

  it('has V_TPR and V_IRQ of the processor, and the hypervisor’s other bits of that word', () => {
    machine.vmcb.intControl = 0x31_0305_0a00n;
    machine.set({ intControl: 0x31_0105_0107n });
    leave(new VmExit(ExitCode.VINTR));
    expect(machine.vmcb.intControl).toBe(0x31_0305_0b07n);
  });

  it('leaves controls, N_CR3 and what VMLOAD owns alone', () => {
    const { vmcb } = machine;
    vmcb.tlbControl = 1;
    vmcb.tscOffset = 5n;
    vmcb.fsBase = 6n;
    vmcb.star = 7n;
    machine.set({ fsBase: 8n, star: 9n });
    leave(new VmExit(ExitCode.HLT));
    expect(vmcb).toMatchObject({ tlbControl: 1, tscOffset: 5n, fsBase: 6n, star: 7n, nCR3: 0x2000n, guestASID: 5 });
    expect(machine.get('fsBase')).toBe(8n);
  });

  it('has G_PAT only under nested paging', () => {
    machine.set({ nestedControl: 0n });
    leave(new VmExit(ExitCode.HLT));
    expect(machine.vmcb.gPAT).toBe(0x0007_0406_0007_0406n);
  });

  it('lacks nRIP and bytes where the profile lacks the features', () => {
    machine = new SvmMachine(withSvm('np'));
    machine.longModeGuest();
    machine.vmcb.nRIP = 0x55n;
    machine.vmcb.instructionLength = 9;
    enter();
    leave(new VmExit(ExitCode.CPUID, 0n, 0n, true));
    expect(machine.vmcb).toMatchObject({ nRIP: 0x55n, instructionLength: 9 });
  });

  it('is in the event as changed words, and only those are written', () => {
    const event = leave(new VmExit(ExitCode.CPUID, 0n, 0n, true));
    const copy = [...decodeVmcbDelta(event.words)];
    for (const [word, value] of copy) expect(machine.word(8 * word)).toBe(value);
    expect(copy.map(([word]) => word)).toContain(W.rip);
    expect(copy.map(([word]) => word)).not.toContain(W.exitInfo1);
    machine.hostInLongMode();
    const again = enter();
    expect(again?.type === 'svm.vmrun' ? again.words.length : -1).toBe(0);
  });

  it('is what was there, whatever software did to the VMCB meanwhile', () => {
    machine.vmcb.rsp = 0x666n;
    machine.vmcb.guestASID = 9;
    leave(new VmExit(ExitCode.CPUID));
    expect(machine.vmcb.rsp).toBe(0x7ffe_fff8n);
    machine.hostInLongMode();
    const again = enter();
    const words = again?.type === 'svm.vmrun' ? [...decodeVmcbDelta(again.words)] : [];
    expect(words).toEqual([[W.guestASID, 9n]]);
  });
});

describe('what the host gets back (APM vol.2 §15.6 #VMEXIT)', () => {
  it('is its state behind VMRUN', () => {
    machine.set({ ssBase: 0x5000n, rflags: 0x2n | Flag.IF | Flag.RF });
    enter();
    machine.set({ rbx: 77n, cr2: 0x99n, ldtr: 5n, dr6: 0xffff_0ff2n, cs: 0n, ssBase: 0n });
    leave(new VmExit(ExitCode.HLT));
    expect(machine.get('rip')).toBe(HOST_RIP);
    expect(machine.get('rsp')).toBe(0xffff_8000_0020_0000n);
    expect(machine.get('rax')).toBe(BigInt(VMCB_AT));
    expect(machine.get('rflags')).toBe(0x2n | Flag.IF);
    expect(machine.get('cr0')).toBe(CR0.PE | CR0.PG | CR0.ET | CR0.NE | CR0.WP);
    expect(machine.get('cr3')).toBe(0x1000n);
    expect(machine.get('cr4')).toBe(CR4.PAE);
    expect(machine.get('efer')).toBe(EFER.SVME | EFER.LME | EFER.LMA | EFER.NXE | EFER.SCE);
    expect(machine.get('cs')).toBe(CODE64);
    expect(machine.get('ssBase')).toBe(0x5000n);
    expect(machine.get('gdtrBase')).toBe(0xffff_8000_0000_1000n);
    expect(machine.get('idtrLimit')).toBe(0xfffn);
    expect(machine.get('cpl')).toBe(0n);
    expect(machine.get('dr7')).toBe(0x400n);
  });

  it('leaves the guest’s other registers in place', () => {
    enter();
    machine.set({ rbx: 77n, cr2: 0x99n, ldtr: 5n, dr6: 0xffff_0ff2n });
    leave(new VmExit(ExitCode.HLT));
    expect(machine.get('rbx')).toBe(77n);
    expect(machine.get('cr2')).toBe(0x99n);
    expect(machine.get('ldtr')).toBe(5n);
    expect(machine.get('dr6')).toBe(0xffff_0ff2n);
  });

  it('comes with GIF clear, out of guest mode, nothing intercepted', () => {
    machine.vmcb.intercept3 = 0xffff_ffff;
    machine.vmcb.intControl = 0x0100_0100n;
    machine.vmcb.tscOffset = 99n;
    enter();
    leave(new VmExit(ExitCode.HLT));
    for (const name of ['svmMode', 'interceptCr', 'intercept3', 'intercept4', 'guestAsid', 'intControl'] as const) {
      expect(machine.get(name)).toBe(0n);
    }
    expect(machine.get('tscOffset')).toBe(0n);
    expect(machine.get('nestedControl')).toBe(0n);
    expect(machine.get('svmMode') & SvmMode.GUEST).toBe(0n);
  });

  it('runs again after an exit out of HLT, with NMIs still pending and the shadow gone', () => {
    enter();
    machine.set({ activity: Activity.HALTED, boundary: Boundary.NMI_PENDING | Boundary.INTERRUPT_SHADOW });
    leave(new VmExit(ExitCode.NMI));
    expect(machine.get('activity')).toBe(Activity.RUNNING);
    expect(machine.get('boundary')).toBe(Boundary.NMI_PENDING);
  });

  it('takes its single-step trap when VMRUN ran with TF set (§15.5.1 Basic Operation)', () => {
    machine.set({ rflags: 0x2n | Flag.TF });
    enter();
    expect(machine.get('boundary')).toBe(0n);
    leave(new VmExit(ExitCode.HLT));
    expect(machine.get('boundary')).toBe(Boundary.SINGLE_STEP);
  });

  it('sees what the transaction holds of the guest, and no more of it', () => {
    enter();
    machine.tx.set(R.dr6, 0xffff_0ff4n);
    machine.tx.set(R.rip, HOST_RIP);
    leave(new VmExit(ExitCode.CPUID));
    expect(machine.vmcb).toMatchObject({ dr6: 0xffff_0ff4n, rip: HOST_RIP });
    expect(machine.get('dr6')).toBe(0xffff_0ff4n);
    expect(machine.get('rip')).toBe(HOST_RIP);
  });

  const paeHost = () => {
    machine.set({ cr3: 0x7000n, cr4: CR4.PAE, efer: EFER.SVME, cs: 0xffff_ffff_0c9b_0008n });
    machine.memory.view.setBigUint64(RAM_BASE + 0x7008, 0x1_0001n, true);
  };

  it('reads the PDPEs of a PAE host again', () => {
    paeHost();
    enter();
    machine.memory.view.setBigUint64(RAM_BASE + 0x7018, 0x2_0001n, true);
    leave(new VmExit(ExitCode.HLT));
    expect(machine.get('pdpte1')).toBe(0x1_0001n);
    expect(machine.get('pdpte3')).toBe(0x2_0001n);
  });

  it('shuts down when those became illegal', () => {
    paeHost();
    enter();
    machine.memory.view.setBigUint64(RAM_BASE + 0x7008, 0x1_0003n, true);
    leave(new VmExit(ExitCode.HLT));
    expect(machine.get('activity')).toBe(Activity.SHUTDOWN);
  });
});

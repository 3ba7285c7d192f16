/**
 * The processor reaches SVM through one interface (cpu/nested-virtualization.ts): each operation is asked for where
 * Xen's design has it, and a guest leaves nothing behind.
 */
import { afterEach, describe, expect, it, vi } from 'vitest';
import { BASE_PROFILE } from '../../../src/machine/cpu/cpuid.js';
import type { NestedVirtualization } from '../../../src/machine/cpu/nested-virtualization.js';
import { initRegisters, resetRegisters } from '../../../src/machine/cpu/reset.js';
import { Boundary, R, type Slot, SvmMode } from '../../../src/machine/layout/cpu-state.js';
import { IntControl } from '../../../src/machine/layout/vmcb.js';
import { INTERCEPT_SLOTS } from '../../../src/machine/svm/intercepts.js';
import { virtualizationOf } from '../../../src/machine/svm/nested-svm.js';
import { CpuMachine } from '../../support/cpu-machine.js';
import { LiveMachine, VMCB_AT } from '../../support/live-machine.js';
import { NestedMachine } from '../../support/nested-machine.js';

const HLT = 'f4';
const RDMSR_PAT = 'b977020000 0f32';
const OUT_80 = 'e680';

const host = (code: string, values = {}) => new LiveMachine(`${code} ${HLT}`, values).run();
const switches = () => new NestedMachine('').exit();
const vmcb = { rax: BigInt(VMCB_AT) };

type Operation = keyof NestedVirtualization;
const OPERATIONS: Readonly<Record<Operation, () => unknown>> = {
  initialise: () => resetRegisters(BASE_PROFILE),
  destroy: () => host('90', { boundary: Boundary.INIT_PENDING }),
  features: () => host('b80a000080 0fa2'),
  hostSave: switches,
  hostRestore: switches,
  vmload: () => host('0f01da', vmcb),
  vmsave: () => host('0f01db', vmcb),
  prepareForVmrun: switches,
  vmrun: switches,
  prepareForVmexit: switches,
  vmexit: switches,
  isIntercepted: switches,
  specialIntercept: () => new NestedMachine(RDMSR_PAT).intercept('MSR_PROT').exit(),
  interruptBlocked: () => host('90', { boundary: Boundary.NMI_PENDING }),
  virtualEventDue: () => {
    const nested = new NestedMachine('fb 90').intercept('VINTR');
    nested.vmcb.intControl = IntControl.V_IRQ | IntControl.V_INTR_PRIO;
    return nested.exit();
  },
  breakpointsDiscarded: () => host('90', { boundary: Boundary.NMI_PENDING }),
};

afterEach(() => vi.restoreAllMocks());

describe('the operations of Xen’s design', () => {
  it.each(Object.entries(OPERATIONS))('%s', (operation, session) => {
    const asked = vi.spyOn(virtualizationOf(BASE_PROFILE), operation as Operation);
    session();
    expect(asked).toHaveBeenCalled();
  });

  it('decide: a machine whose maps let everything pass does not exit', () => {
    const nested = new NestedMachine(OUT_80).intercept('IOIO_PROT');
    nested.vmcb.iopmBasePA = 0x70_0000n;
    nested.put(0x70_0010, '01');
    expect(nested.exit().code).toBe(0x7bn);
    vi.spyOn(virtualizationOf(BASE_PROFILE), 'specialIntercept').mockReturnValue(undefined);
    expect(nested.again().code).toBe(0x78n);
  });
});

describe('a guest that ends without #VMEXIT (APM vol.2 §14.1.4 External Initialization Using INIT)', () => {
  it('leaves no control behind, and GIF set', () => {
    const controls = [...INTERCEPT_SLOTS, R.tscOffset, R.guestAsid, R.intControl, R.nestedControl];
    const pending = [R.exitIntInfo, R.eventInjection, R.eventNextRip];
    const cpu = new CpuMachine();
    for (const slot of [...controls, ...pending]) cpu.registers[slot as Slot] = 0x8000_0001n;
    cpu.set({ svmMode: SvmMode.GUEST | SvmMode.GIF });
    const changes = initRegisters(cpu.reader, BASE_PROFILE, false);
    expect(changes.get(R.svmMode)).toBe(SvmMode.GIF);
    expect([...controls, ...pending].map((slot) => changes.get(slot as Slot))).toEqual(
      Array.from({ length: controls.length + pending.length }, () => 0n),
    );
  });

  it('so that the host reads its own time-stamp counter afterwards, offset by nothing', () => {
    const nested = new NestedMachine('90 90 90');
    nested.vmcb.tscOffset = 1n << 40n;
    nested.run(2);
    expect(nested.get('tscOffset')).toBe(1n << 40n);
    nested.set({ boundary: Boundary.INIT_PENDING });
    nested.run(0);
    expect([nested.get('tscOffset'), nested.get('svmMode'), nested.get('rip')]).toEqual([0n, SvmMode.GIF, 0xfff0n]);
  });
});

/**
 * A whole machine whose L1 is `VMRUN; HLT`, over and over as far as a test asks, and whose L2 is the code that the test
 * gives: in 64-bit mode, on L1's own page tables, exiting at HLT.
 */
import type { EventOf } from '../../src/machine/events.js';
import type { DeviationName } from '../../src/machine/index.js';
import { RAM_BASE } from '../../src/machine/layout/linear-memory.js';
import { VMCB } from '../../src/machine/layout/vmcb.js';
import { INTERCEPTS, type InterceptName } from '../../src/machine/svm/intercepts.js';
import { LiveMachine, STACK_TOP, VMCB_AT } from './live-machine.js';

export const GUEST_CODE = 0x50_0000;
/** Root of the tables that L1 runs on; as nCR3 it maps guest-physical addresses onto themselves. */
const HOST_ROOT = 0x1000n;
/** Where the handler of a vector stands: one byte, HLT. */
export const handlerAt = (vector: number): number => 0x8000 + vector;
const VMRUN_AND_HALT = '0f01d8 f4';

type Values = ConstructorParameters<typeof LiveMachine>[1];

export class NestedMachine extends LiveMachine {
  /** @param guest L2's code in hexadecimal; HLT is put behind it. @param values registers of L1. */
  constructor(guest: string, values: Values = {}, cpu?: string, deviations?: readonly DeviationName[]) {
    super(VMRUN_AND_HALT, { rax: BigInt(VMCB_AT), vmHsavePA: 0x60_0000n, ...values }, cpu, deviations);
    const { vmcb } = this;
    for (const name of ['cs', 'ss', 'ds', 'es', 'cr0', 'cr3', 'cr4', 'efer'] as const) vmcb[name] = this.get(name);
    for (const name of ['gdtrBase', 'idtrBase'] as const) vmcb[name] = this.get(name);
    for (const name of ['gdtrLimit', 'idtrLimit'] as const) vmcb[name] = Number(this.get(name));
    vmcb.guestASID = 1;
    vmcb.rip = BigInt(GUEST_CODE);
    vmcb.rsp = BigInt(STACK_TOP);
    vmcb.rflags = 2n;
    vmcb.dr7 = 0x400n;
    vmcb.gPAT = 0x0007_0406_0007_0406n;
    this.intercept('VMRUN', 'HLT');
    this.put(GUEST_CODE, `${guest} f4`);
  }

  get vmcb() {
    return this.vmcbAt(VMCB_AT);
  }
  vmcbAt(address: number) {
    return VMCB.at(this.memory.view, RAM_BASE + address);
  }

  /** Sets intercepts in the VMCB. */
  intercept(...names: readonly InterceptName[]): this {
    const { view } = this.memory;
    for (const name of names) {
      const { offset, bit } = INTERCEPTS[name];
      const at = RAM_BASE + VMCB_AT + offset;
      view.setUint32(at, view.getUint32(at, true) | (1 << bit), true);
    }
    return this;
  }

  /** Nested paging on L1's own tables. */
  nestedPaging(): this {
    this.vmcb.nestedControl = 1n;
    this.vmcb.nCR3 = HOST_ROOT;
    return this;
  }

  /** Runs until L1 halts. @returns the last #VMEXIT. */
  exit(): EventOf<'svm.vmexit'> {
    this.run();
    const found = this.events.findLast(({ type }) => type === 'svm.vmexit');
    if (found?.type !== 'svm.vmexit') throw new Error('the guest never exited');
    return found;
  }

  /** L1 goes back to its VMRUN, with what the test has changed meanwhile. @returns the next #VMEXIT. */
  again(vmcb = VMCB_AT): EventOf<'svm.vmexit'> {
    this.set({ rip: BigInt(0x10_0000), rax: BigInt(vmcb), activity: 0n, svmMode: 2n });
    return this.exit();
  }
}

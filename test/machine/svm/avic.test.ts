/** AVIC on one processor: the filter, priorities, ends of interrupts, IPIs. */
import { describe, expect, it } from 'vitest';
import { ExitCode } from '../../../src/machine/svm/exit-code.js';
import { AvicMachine, IRR, load } from '../../support/avic-machine.js';

describe('smoke', () => {
  it('reads', () => {
    const live = new AvicMachine(load(0x20));
    live.setRegister(0x20, 0x500_0000);
    expect(live.exit().code).toBe(ExitCode.HLT);
    expect(live.vmcb.rax).toBe(0x500_0000n);
  });
  it('irr', () => {
    const live = new AvicMachine('90').setVector(IRR, 0x40);
    expect(live.exit().code).toBe(ExitCode.HLT);
  });
});

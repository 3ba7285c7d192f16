import { describe } from 'vitest';
import { ExitCode } from '../../../src/machine/svm/exit-code.js';
import { deviation } from '../../support/deviations.js';
import { NestedMachine } from '../../support/nested-machine.js';

const IOPM = 0x70_0000;
const MOV_CR4_RAX = '0f22e0';
/** MOV EAX, imm32. */
const movEax = (value: string): string => `b8${value}`;
const IN_EAX_DX = 'ed';

/** The last exit, and the vectors that were delivered in L2. */
const seen = (live: NestedMachine): readonly [code: bigint, vectors: readonly number[]] => {
  const { code } = live.exit();
  return [code, live.vectors];
};

describe('the table of intercepts under a policy', () => {
  deviation(
    'cr-write-before-value',
    (deviations) =>
      seen(new NestedMachine(`${movEax('00000080')} ${MOV_CR4_RAX}`, {}, undefined, deviations).intercept('CR4_WRITE')),
    { manual: [ExitCode.HLT, [13]], deviating: [0x14n, []] },
  );

  deviation(
    'intercept-word-5-ignored',
    (deviations) => {
      // INVPCID of type 4 faults, and exits first where it is intercepted.
      const live = new NestedMachine(`${movEax('04000000')} 660f388200`, {}, undefined, deviations);
      return seen(live.intercept('INVPCID'));
    },
    { manual: [ExitCode.INVPCID, []], deviating: [ExitCode.HLT, [13]] },
  );

  deviation(
    'ioio-every-byte',
    (deviations) => {
      const live = new NestedMachine(`66ba8000 ${IN_EAX_DX}`, {}, undefined, deviations).intercept('IOIO_PROT');
      live.vmcb.iopmBasePA = BigInt(IOPM);
      live.put(IOPM + 0x10, '01');
      return live.exit().code;
    },
    { manual: ExitCode.IOIO, deviating: ExitCode.HLT },
  );
});

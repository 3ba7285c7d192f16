import { describe } from 'vitest';
import { SegmentWord } from '../../../src/machine/layout/vmcb.js';
import { ExitCode } from '../../../src/machine/svm/exit-code.js';
import { deviation } from '../../support/deviations.js';
import { NestedMachine } from '../../support/nested-machine.js';

describe('VMRUN under a policy', () => {
  deviation(
    'cs-long-and-big-allowed',
    (deviations) => {
      const live = new NestedMachine('', {}, undefined, deviations);
      live.vmcb.cs |= SegmentWord.BIG;
      return live.exit().code;
    },
    { manual: ExitCode.INVALID, deviating: ExitCode.HLT },
  );
});

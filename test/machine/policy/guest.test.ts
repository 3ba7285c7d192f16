import { describe } from 'vitest';
import { ExitCode } from '../../../src/machine/svm/exit-code.js';
import { deviation } from '../../support/deviations.js';
import { NestedMachine } from '../../support/nested-machine.js';
import { nestedTables } from '../../support/nested-tables.js';

const AT_RESET = 0x0007_0406_0007_0406n;
/** The guest-physical page of 2 MiB that the tests of nested faults are about: MOV EAX, 80_0000h. */
const PAGE = 4;
const POINT_TO_PAGE = 'b800008000';

describe('nested paging under a policy', () => {
  deviation(
    'guest-pat-shared',
    (deviations) => {
      const wrmsr = 'b977020000 b806060606 ba06060606 0f30';
      const live = new NestedMachine(wrmsr, { pat: AT_RESET }, undefined, deviations).nestedPaging();
      live.exit();
      return [live.get('pat'), live.vmcb.gPAT] as const;
    },
    {
      manual: [AT_RESET, 0x0606_0606_0606_0606n],
      deviating: [0x0606_0606_0606_0606n, AT_RESET],
    },
  );

  deviation(
    'npf-fetch-always',
    (deviations) => {
      const live = new NestedMachine(`${POINT_TO_PAGE} ffe0`, {}, undefined, deviations); // JMP RAX
      nestedTables(live)(PAGE, 0n);
      return live.exit().info1;
    },
    { manual: 0x1_0000_0004n, deviating: 0x1_0000_0014n },
  );

  deviation(
    'npf-never-present',
    (deviations) => {
      const live = new NestedMachine(`${POINT_TO_PAGE} 8800`, {}, undefined, deviations); // MOV [RAX], AL
      nestedTables(live)(PAGE, (BigInt(PAGE) << 21n) | 0xe5n);
      return live.exit().info1;
    },
    { manual: 0x1_0000_0007n, deviating: 0x1_0000_0006n },
  );

  deviation(
    'string-io-npf-final',
    (deviations) => {
      // L2's directory for the second GiB lies where the nested tables have nothing; OUTSB reads from there.
      const live = new NestedMachine('be00000040 66ba8000 6e', {}, undefined, deviations);
      live.write(0x2008, (BigInt(PAGE) << 21n) | 0x67n);
      nestedTables(live)(PAGE, 0n);
      return live.exit().info1;
    },
    { manual: 0x2_0000_0006n, deviating: 0x1_0000_0006n },
  );
});

describe('the permission maps under a policy', () => {
  deviation(
    'permission-map-base-unaligned',
    (deviations) => {
      const map = 0x70_0000;
      const live = new NestedMachine('e480', {}, undefined, deviations).intercept('IOIO_PROT'); // IN AL, 80h
      live.vmcb.iopmBasePA = BigInt(map + 4);
      live.put(map + 4 + 0x10, '01');
      return live.exit().code;
    },
    { manual: ExitCode.HLT, deviating: ExitCode.IOIO },
  );
});

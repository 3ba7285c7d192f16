import { describe } from 'vitest';
import type { DeviationName } from '../../../src/machine/index.js';
import { Activity, EFER } from '../../../src/machine/layout/cpu-state.js';
import { SegmentWord } from '../../../src/machine/layout/vmcb.js';
import { crWriteExit, drReadExit, drWriteExit, ExitCode, exceptionExit } from '../../../src/machine/svm/exit-code.js';
import type { InterceptName } from '../../../src/machine/svm/intercepts.js';
import { deviation } from '../../support/deviations.js';
import { movEax, movEcx, movRax } from '../../support/guest-code.js';
import { NestedMachine } from '../../support/nested-machine.js';

const IOPM = 0x70_0000;
const MOV_CR3_RAX = '0f22d8';
const MOV_CR4_RAX = '0f22e0';
const MOV_CR8_RAX = '440f22c0';
const MOV_DR7_RAX = '0f23f8';
const MOV_RAX_DR4 = '0f21e0';
/** No register takes that bit. */
const RAX_HIGH_BIT = movRax(1n << 60n);
const [GP, UD] = [13, 6] as const;
const IN_EAX_DX = 'ed';

/** The last exit, and the vectors that were delivered in L2. */
const seen = (live: NestedMachine): readonly [code: bigint, vectors: readonly number[]] => {
  const { code } = live.exit();
  return [code, live.vectors];
};

/** What L2's code comes to while L1 asks for `intercept`. */
const under =
  (code: string, intercept: InterceptName) =>
  (deviations: readonly DeviationName[]): ReturnType<typeof seen> =>
    seen(new NestedMachine(code, {}, undefined, deviations).intercept(intercept));

const faults = (vector: number): ReturnType<typeof seen> => [ExitCode.HLT, [vector]];
const exits = (code: bigint): ReturnType<typeof seen> => [code, []];

describe('the table of intercepts under a policy', () => {
  deviation('cr-write-before-value', under(`${movEax(0x80000000)} ${MOV_CR4_RAX}`, 'CR4_WRITE'), {
    manual: faults(GP),
    deviating: exits(crWriteExit(4)),
  });

  deviation('cr3-write-before-value', under(`${RAX_HIGH_BIT} ${MOV_CR3_RAX}`, 'CR3_WRITE'), {
    manual: faults(GP),
    deviating: exits(crWriteExit(3)),
  });

  deviation('cr8-write-before-value', under(`${movEax(0x10)} ${MOV_CR8_RAX}`, 'CR8_WRITE'), {
    manual: faults(GP),
    deviating: exits(crWriteExit(8)),
  });

  deviation(
    'cr4-write-after-pointers',
    (deviations) => {
      // A guest in PAE paging spoils its first page-directory pointer and toggles CR4.PGE.
      const pointers = 0x48_0000;
      const live = new NestedMachine(
        `c705 ${'00004800'} ffffffff 0f20e0 35 80000000 ${MOV_CR4_RAX}`,
        {},
        undefined,
        deviations,
      );
      const { vmcb } = live;
      vmcb.efer &= ~(EFER.LME | EFER.LMA);
      vmcb.cs = (vmcb.cs & ~SegmentWord.LONG) | SegmentWord.BIG;
      vmcb.cr3 = BigInt(pointers);
      live.write(pointers, 0x3001n);
      return live.intercept('CR4_WRITE', 'EXCEPTION_13').exit().code;
    },
    { manual: crWriteExit(4), deviating: exceptionExit(GP) },
  );

  deviation('dr-write-before-value', under(`${RAX_HIGH_BIT} ${MOV_DR7_RAX}`, 'DR7_WRITE'), {
    manual: faults(GP),
    deviating: exits(drWriteExit(7)),
  });

  deviation('dr-access-before-debug-checks', under(MOV_RAX_DR4, 'DR4_READ'), {
    manual: faults(UD),
    deviating: exits(drReadExit(4)),
  });

  for (const [name, code, exit] of [
    ['VMRUN', '0f01d8', ExitCode.VMRUN],
    ['VMLOAD', '0f01da', ExitCode.VMLOAD],
    ['VMSAVE', '0f01db', ExitCode.VMSAVE],
  ] as const) {
    deviation('vmcb-address-after-intercept', under(`${movEax(0x1)} ${code}`, name), {
      manual: faults(GP),
      deviating: exits(exit),
    });
  }

  deviation('rsm-outside-smm-first', under('0faa', 'RSM'), { manual: exits(ExitCode.RSM), deviating: faults(UD) });

  deviation('rdpmc-before-counter', under(`${movEcx(0x100)} 0f33`, 'RDPMC'), {
    manual: faults(GP),
    deviating: exits(ExitCode.RDPMC),
  });

  deviation(
    'mwait-armed-ignored',
    (deviations) => {
      const live = new NestedMachine(`31c9 0f01c8 0f01c9`, {}, undefined, deviations).intercept('MWAIT_ARMED');
      live.vmcb.rax = BigInt(IOPM);
      live.run();
      return [live.events.some(({ type }) => type === 'svm.vmexit'), live.get('activity')];
    },
    { manual: [true, Activity.HALTED], deviating: [false, Activity.MWAIT] },
  );

  deviation('cr0-selective-ignored', under('0f20c0 3500000400 0f22c0', 'CR0_SEL_WRITE'), {
    manual: exits(ExitCode.CR0_SEL_WRITE),
    deviating: exits(ExitCode.HLT),
  });

  deviation(
    'intercept-word-5-ignored',
    (deviations) => {
      // INVPCID of type 4 faults, and exits first where it is intercepted.
      const live = new NestedMachine(`${movEax(0x4)} 660f388200`, {}, undefined, deviations);
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

import { describe } from 'vitest';
import { Activity, EFER } from '../../../src/machine/layout/cpu-state.js';
import { IntControl, VirtExt } from '../../../src/machine/layout/vmcb.js';
import { ExitCode } from '../../../src/machine/svm/exit-code.js';
import { EventType, encodeEvent } from '../../../src/machine/svm/injection.js';
import { deviation } from '../../support/deviations.js';
import { GUEST_CODE, NestedMachine } from '../../support/nested-machine.js';

type Deviations = ConstructorParameters<typeof NestedMachine>[3];

const NMI = encodeEvent({ type: EventType.NMI, vector: 2, errorCode: undefined });
/** MOV EAX, [1000_0000h], which is not mapped. */
const FAULTING = '8b042500000010';
const NOT_MAPPED = 0x1000_0000n;

/** L2 halts at once. */
const halting = (deviations: Deviations, values = {}): NestedMachine =>
  new NestedMachine('', values, undefined, deviations);
/** L2 reads what is not mapped, and L1 intercepts that. */
const faulting = (deviations: Deviations): NestedMachine =>
  new NestedMachine(FAULTING, {}, undefined, deviations).intercept('EXCEPTION_14');
/** L1 enters with GIF set, and VMRUN fails. */
const failing = (deviations: Deviations): NestedMachine => {
  const live = halting(deviations, { svmMode: 2n });
  live.vmcb.guestASID = 0;
  return live;
};

describe('a VMRUN that fails under a policy', () => {
  deviation(
    'failed-vmrun-keeps-event',
    (deviations) => {
      const live = failing(deviations);
      live.vmcb.eventInj = NMI;
      live.exit();
      return live.vmcb.eventInj;
    },
    { manual: 0n, deviating: NMI },
  );

  deviation(
    'failed-vmrun-keeps-gif',
    (deviations) => {
      const live = failing(deviations);
      live.exit();
      return live.get('svmMode');
    },
    { manual: 0n, deviating: 2n },
  );

  deviation(
    'invalid-exit-code-32-bit',
    (deviations) => {
      const live = failing(deviations);
      live.exit();
      return live.vmcb.exitCode;
    },
    { manual: ExitCode.INVALID, deviating: 0xffff_ffffn },
  );
});

describe('what #VMEXIT tells under a policy', () => {
  deviation(
    'next-rip-always',
    (deviations) => {
      const live = faulting(deviations);
      live.exit();
      return live.vmcb.nRIP;
    },
    { manual: 0n, deviating: BigInt(GUEST_CODE + 7) },
  );

  deviation(
    'next-rip-unused',
    (deviations) => {
      const live = halting(deviations);
      live.vmcb.nRIP = 7n;
      live.exit();
      return live.vmcb.nRIP;
    },
    { manual: BigInt(GUEST_CODE + 1), deviating: 7n },
  );

  deviation(
    'decode-assists-unused',
    (deviations) => {
      const live = new NestedMachine('0f20c0', {}, undefined, deviations).intercept('CR0_READ'); // MOV RAX, CR0
      live.vmcb.instructionLength = 9;
      return [live.exit().info1, live.vmcb.instructionLength] as const;
    },
    { manual: [1n << 63n, 0], deviating: [0n, 9] },
  );

  deviation(
    'instruction-bytes-omitted',
    (deviations) => {
      const live = faulting(deviations);
      live.vmcb.instructionLength = 9;
      live.exit();
      return live.vmcb.instructionLength;
    },
    { manual: 15, deviating: 9 },
  );

  deviation(
    'event-injection-left-readable',
    (deviations) => {
      const live = halting(deviations);
      live.vmcb.eventInj = NMI;
      live.exit();
      return live.vmcb.eventInj;
    },
    { manual: 0n, deviating: 0x202n },
  );

  deviation(
    'double-fault-exit-forgets-event',
    (deviations) => {
      const live = new NestedMachine('0f0b', {}, undefined, deviations).intercept('EXCEPTION_8'); // UD2
      live.vmcb.idtrLimit = 0;
      const { code, intInfo } = live.exit();
      return [code, intInfo & 0xfffn] as const;
    },
    { manual: [0x48n, 0xb0dn], deviating: [0x48n, 0n] },
  );

  deviation(
    'page-fault-exit-writes-cr2',
    (deviations) => {
      const live = faulting(deviations);
      live.exit();
      return live.vmcb.cr2;
    },
    { manual: 0n, deviating: NOT_MAPPED },
  );

  deviation(
    'ts-error-code-missing',
    (deviations) => {
      // #UD goes by an interrupt stack that lies behind the end of the TSS.
      const values = { tr: 0x10_008b_0030n };
      const live = new NestedMachine('0f0b', values, undefined, deviations).intercept('EXCEPTION_10');
      live.put(0x6000 + 16 * 6 + 4, '01');
      const { code, info1 } = live.exit();
      return [code, info1 & ~1n] as const;
    },
    { manual: [0x4an, 0x30n], deviating: [0x4an, 0n] },
  );
});

describe('what #VMEXIT leaves of the controls under a policy', () => {
  deviation(
    'v-irq-byte-written',
    (deviations) => {
      const live = halting(deviations);
      live.vmcb.intControl = IntControl.V_GIF | IntControl.V_GIF_ENABLE;
      live.exit();
      return live.vmcb.intControl;
    },
    { manual: IntControl.V_GIF | IntControl.V_GIF_ENABLE, deviating: IntControl.V_GIF_ENABLE },
  );

  deviation(
    'tlb-control-cleared',
    (deviations) => {
      const live = halting(deviations);
      live.vmcb.tlbControl = 1;
      live.exit();
      return [live.vmcb.tlbControl, live.vmcb.guestASID] as const;
    },
    { manual: [1, 1], deviating: [0, 1] },
  );

  deviation(
    'unused-n-cr3-cleared',
    (deviations) => {
      const live = halting(deviations);
      live.vmcb.nCR3 = 0x1000n;
      live.exit();
      return live.vmcb.nCR3;
    },
    { manual: 0x1000n, deviating: 0n },
  );

  deviation(
    'lbr-clean-bit-cleared',
    (deviations) => {
      const live = halting(deviations);
      live.vmcb.virtExt = VirtExt.LBR_VIRTUALIZATION;
      live.vmcb.vmcbClean = 0x7ff;
      live.exit();
      return live.vmcb.vmcbClean;
    },
    { manual: 0x7ff, deviating: 0x3ff },
  );
});

describe('the host behind #VMEXIT under a policy', () => {
  const hostDr7 = (deviations: Deviations): bigint => {
    const live = halting(deviations, { dr0: 0x8000_0000n, dr7: 0xd_0401n });
    live.exit();
    return live.get('dr7');
  };
  deviation('host-dr7-kept', hostDr7, { manual: 0x400n, deviating: 0xd_0401n });
  deviation('host-dr7-conditions-kept', hostDr7, { manual: 0x400n, deviating: 0xd_0400n });

  deviation(
    'bad-host-pdptes-ignored',
    (deviations) => {
      // L1 in PAE mode, four pointers at 2_0000h; L2 breaks the first one in memory, by MOV [2_0000h], 1E7h.
      const pointer = 0x3001n;
      const values = { efer: EFER.SVME, cs: 0xffff_ffff_0c9b_0008n, cr3: 0x2_0000n, pdpte0: pointer };
      const live = new NestedMachine('c70500000200e7010000', values, undefined, deviations);
      live.write(0x2_0000, pointer);
      live.run();
      return [live.machine.state.ended?.reason, live.get('activity')];
    },
    { manual: ['shutdown', Activity.SHUTDOWN], deviating: [undefined, Activity.HALTED] },
  );
});

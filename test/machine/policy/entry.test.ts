import { describe } from 'vitest';
import { BASE_PROFILE } from '../../../src/machine/cpu/cpuid.js';
import { CR0, CR4, EFER } from '../../../src/machine/layout/cpu-state.js';
import { IntControl, SegmentWord, TlbControl, VirtExt } from '../../../src/machine/layout/vmcb.js';
import { ExitCode } from '../../../src/machine/svm/exit-code.js';
import { EventType, encodeEvent } from '../../../src/machine/svm/injection.js';
import { INTERCEPTS } from '../../../src/machine/svm/intercepts.js';
import { deviation } from '../../support/deviations.js';
import { CODE } from '../../support/live-machine.js';
import { GUEST_CODE, handlerAt, NestedMachine } from '../../support/nested-machine.js';
import { nestedTables } from '../../support/nested-tables.js';

const MAP = 0x70_0000;
/** No RAM of the test's machine, and a legal address. */
const NOWHERE = 0x8000_0000n;
/** A bit that no physical address has. */
const ABOVE = 1n << 51n;
const TOP = 1n << BigInt(BASE_PROFILE.physicalAddressBits);
/** 32-bit code and data, flat. */
const CODE32 = 0xffff_ffff_0c9b_0008n;

const CPUID = '0fa2';
const PAUSE = 'f390';

/** A change of the VMCB that passes or not. */
const refusal =
  (change: (live: NestedMachine) => void, cpu?: string) =>
  (deviations: ConstructorParameters<typeof NestedMachine>[3]): bigint => {
    const live = new NestedMachine('', {}, cpu, deviations);
    change(live);
    return live.exit().code;
  };
const PASSES = { manual: ExitCode.INVALID, deviating: ExitCode.HLT };
const FAILS = { manual: ExitCode.HLT, deviating: ExitCode.INVALID };

describe('the checks of VMRUN under a policy', () => {
  deviation(
    'asid-zero-allowed',
    refusal(({ vmcb }) => {
      vmcb.guestASID = 0;
    }),
    PASSES,
  );

  deviation(
    'permission-maps-unchecked',
    refusal(({ vmcb }) => {
      vmcb.iopmBasePA = ABOVE;
      vmcb.msrpmBasePA = ABOVE;
    }),
    PASSES,
  );

  deviation(
    'permission-map-ends-unchecked',
    refusal(({ vmcb }) => {
      vmcb.iopmBasePA = TOP - 0x1000n;
      vmcb.msrpmBasePA = TOP - 0x1000n;
    }),
    PASSES,
  );

  deviation(
    'msrpm-up-to-the-top',
    refusal(({ vmcb }) => {
      vmcb.msrpmBasePA = TOP - 0x2000n;
    }),
    PASSES,
  );

  deviation(
    'n-cr3-unchecked',
    refusal((live) => {
      live.nestedPaging();
      live.vmcb.nCR3 |= ABOVE;
    }),
    { manual: ExitCode.INVALID, deviating: ExitCode.NPF },
  );

  deviation(
    'nested-paging-on-unpaged-host',
    (deviations) => {
      const unpaged = { cr0: CR0.PE | CR0.ET, cr4: CR4.PSE, efer: EFER.SVME, cs: CODE32 };
      const live = new NestedMachine('', unpaged, undefined, deviations);
      // 32-bit tables: two pages of 4 MiB onto themselves.
      live.write(MAP, 0x0040_0087_0000_0087n);
      live.nestedPaging().vmcb.nCR3 = BigInt(MAP);
      return live.exit().code;
    },
    PASSES,
  );

  deviation(
    'absent-nested-paging-refused',
    refusal((live) => {
      live.nestedPaging();
    }, 'vmtape-base,-np'),
    FAILS,
  );

  deviation(
    'cs-long-and-big-allowed',
    refusal(({ vmcb }) => {
      vmcb.cs |= SegmentWord.BIG;
    }),
    PASSES,
  );

  deviation(
    'cr3-checked-by-host-mode',
    refusal(({ vmcb }) => {
      vmcb.cr0 &= ~CR0.PG;
      vmcb.efer = EFER.SVME;
      vmcb.cs = CODE32;
      vmcb.cr3 = ABOVE;
    }),
    FAILS,
  );

  deviation(
    'tlb-control-by-asid-refused',
    refusal(({ vmcb }) => {
      vmcb.tlbControl = TlbControl.GUEST;
    }),
    FAILS,
  );

  deviation(
    'unbacked-msrpm-refused',
    refusal((live) => {
      live.intercept('MSR_PROT').vmcb.msrpmBasePA = NOWHERE;
    }),
    FAILS,
  );

  deviation(
    'unbacked-msrpm-undefined-opcode',
    (deviations) => {
      const live = new NestedMachine('', {}, undefined, deviations);
      live.vmcb.msrpmBasePA = NOWHERE;
      live.run();
      return [live.events.some(({ type }) => type === 'svm.vmexit'), live.vectors] as const;
    },
    { manual: [true, []], deviating: [false, [6]] },
  );

  deviation(
    'reserved-exceptions-injected',
    (deviations) => {
      const live = new NestedMachine('', {}, undefined, deviations);
      live.vmcb.eventInj = encodeEvent({ type: EventType.EXCEPTION, vector: 15, errorCode: undefined });
      return [live.exit().code, live.vmcb.rip === BigInt(handlerAt(15))] as const;
    },
    { manual: [ExitCode.INVALID, false], deviating: [ExitCode.HLT, true] },
  );
});

describe('clean bits under a policy', () => {
  const INTERCEPTS_CLEAN = 1;
  /** Runs the guest again from its beginning. */
  const anew = (live: NestedMachine): bigint => {
    live.vmcb.rip = BigInt(GUEST_CODE);
    return live.again().code;
  };

  deviation(
    'clean-bits-ignored',
    (deviations) => {
      const live = new NestedMachine(CPUID, {}, undefined, deviations);
      live.exit();
      live.intercept('CPUID').vmcb.vmcbClean = INTERCEPTS_CLEAN;
      return anew(live);
    },
    { manual: ExitCode.HLT, deviating: ExitCode.CPUID },
  );

  deviation(
    'stale-intercepts-narrowed',
    (deviations) => {
      const live = new NestedMachine(`${PAUSE} ${CPUID}`, {}, undefined, deviations).intercept('CPUID');
      live.exit();
      live.vmcb.intercept3 &= ~(1 << INTERCEPTS.CPUID.bit);
      live.intercept('PAUSE').vmcb.vmcbClean = INTERCEPTS_CLEAN;
      return anew(live);
    },
    { manual: ExitCode.CPUID, deviating: ExitCode.HLT },
  );

  deviation(
    'pause-threshold-uncached',
    (deviations) => {
      const live = new NestedMachine(PAUSE.repeat(4), {}, undefined, deviations).intercept('PAUSE');
      live.vmcb.pauseFilterCount = 1;
      live.vmcb.pauseFilterThreshold = 1; // every PAUSE comes later than that, and reloads the count
      live.exit();
      live.vmcb.pauseFilterThreshold = 0xffff;
      live.vmcb.vmcbClean = INTERCEPTS_CLEAN;
      return anew(live);
    },
    { manual: ExitCode.HLT, deviating: ExitCode.PAUSE },
  );

  deviation(
    'msr-prot-not-turned-on',
    (deviations) => {
      const live = new NestedMachine('b9800000c0 0f32', {}, undefined, deviations); // RDMSR of EFER
      live.vmcb.msrpmBasePA = BigInt(MAP);
      live.put(MAP + 0x820, '01');
      live.exit();
      live.intercept('MSR_PROT');
      anew(live);
      return anew(live);
    },
    { manual: ExitCode.MSR, deviating: ExitCode.HLT },
  );
});

describe('what VMRUN loads under a policy', () => {
  deviation(
    'virtual-gif-and-nmi-ignored',
    (deviations) => {
      const live = new NestedMachine('0f01dd', {}, undefined, deviations); // CLGI
      live.vmcb.intControl = IntControl.V_GIF | IntControl.V_GIF_ENABLE;
      live.exit();
      return (live.vmcb.intControl & IntControl.V_GIF) !== 0n;
    },
    { manual: false, deviating: true },
  );

  deviation(
    'cr8-always-virtual',
    (deviations) => {
      const live = new NestedMachine('b805000000 440f22c0', {}, undefined, deviations); // MOV CR8, 5
      live.put(CODE + 3, '440f20c0 f4'); // L1: MOV RAX, CR8
      live.exit();
      return live.get('rax');
    },
    { manual: 5n, deviating: 0n },
  );

  deviation(
    'vmload-virtualized-unasked',
    (deviations) => {
      // Nested tables that move one page of 2 MiB, with an FS at both of its places.
      const [named, moved] = [0xa0_0000, 0xc0_0000];
      const live = new NestedMachine('b80000a000 0f01da', {}, undefined, deviations);
      nestedTables(live)(named >> 21, BigInt(moved) | 0xe7n);
      live.vmcbAt(named).fsBase = 0x1111n;
      live.vmcbAt(moved).fsBase = 0x2222n;
      live.exit();
      return live.get('fsBase');
    },
    { manual: 0x1111n, deviating: 0x2222n },
  );

  deviation(
    'lbr-virtualization-ignored',
    (deviations) => {
      const live = new NestedMachine('eb00', { debugCtl: 1n }, undefined, deviations); // JMP to what follows
      live.vmcb.virtExt = VirtExt.LBR_VIRTUALIZATION;
      live.exit();
      return live.get('lastBranchTo');
    },
    { manual: 0n, deviating: BigInt(GUEST_CODE + 2) },
  );

  deviation(
    'bases-not-canonical',
    (deviations) => {
      const odd = 0x1000_0000_0000_5000n;
      const at = 0x60_0000;
      const vmloadVmsave = 'b800006000 0f01da 0f01db';
      const live = new NestedMachine(vmloadVmsave, {}, undefined, deviations);
      live.vmcb.gdtrBase = odd;
      live.vmcbAt(at).fsBase = odd;
      live.vmcbAt(at).kernelGsBase = odd;
      live.exit();
      return [live.vmcb.gdtrBase, live.vmcbAt(at).fsBase, live.vmcbAt(at).kernelGsBase];
    },
    { manual: [0x5000n, 0x5000n, 0x5000n], deviating: Array(3).fill(0x1000_0000_0000_5000n) as bigint[] },
  );

  deviation(
    'exit-info-2-cleared-at-vmrun',
    (deviations) => {
      const live = new NestedMachine('48a1 8000400000000000', {}, undefined, deviations); // MOV RAX, [VMCB + 80h]
      live.vmcb.exitInfo2 = 7n;
      live.exit();
      return live.vmcb.rax;
    },
    { manual: 7n, deviating: 0n },
  );

  deviation(
    'tsc-ratio-without-effect',
    (deviations) => {
      const live = new NestedMachine('0f31', { tscRatio: 0n }, undefined, deviations); // RDTSC
      live.exit();
      return live.vmcb.rax !== 0n;
    },
    { manual: false, deviating: true },
  );
});

import { describe } from 'vitest';
import type { DeviationName } from '../../../src/machine/index.js';
import { Boundary, CR0, EFER, SvmMode } from '../../../src/machine/layout/cpu-state.js';
import { crWriteExit, ExitCode } from '../../../src/machine/svm/exit-code.js';
import type { InterceptName } from '../../../src/machine/svm/intercepts.js';
import { deviation } from '../../support/deviations.js';
import { movEax, movEcx, movRax, wrmsr } from '../../support/guest-code.js';
import { CODE, LiveMachine } from '../../support/live-machine.js';
import { GUEST_CODE, NestedMachine } from '../../support/nested-machine.js';

const [UD, GP, PF] = [6, 13, 14];
const MAP = 0x70_0000;
const RAM = 0x48_0000;
const STGI = '0f01dc';
const CLGI = '0f01dd';
const VMLOAD = '0f01da';
const VMSAVE = '0f01db';
const VMMCALL = '0f01d9';
const INVLPGA = '0f01df';
const PAUSE = 'f390';
const LONG_MODE = EFER.SCE | EFER.LME | EFER.LMA;
const MOV_BIT = 1n << 63n;

type Deviations = readonly DeviationName[];
type Values = ConstructorParameters<typeof LiveMachine>[1];
type Seen = readonly [code: bigint, vectors: readonly number[]];

const faults = (vector: number): Seen => [ExitCode.HLT, [vector]];
const exits = (code: bigint): Seen => [code, []];

/** A guest with intercepts, and what its L1 set up besides. */
const guest = (
  code: string,
  intercepts: readonly InterceptName[],
  deviations: Deviations,
  prepare: (live: NestedMachine) => void = () => {},
): NestedMachine => {
  const live = new NestedMachine(code, {}, undefined, deviations).intercept(...intercepts);
  prepare(live);
  return live;
};

/** The last exit, and the vectors that were delivered in L2. */
const guestSees =
  (code: string, ...intercepts: readonly InterceptName[]) =>
  (deviations: Deviations): Seen => {
    const live = guest(code, intercepts, deviations);
    return [live.exit().code, live.vectors];
  };

/** What the last exit tells. */
const told =
  (code: string, intercept: InterceptName) =>
  (deviations: Deviations): readonly bigint[] => {
    const { info1, info2 } = guest(code, [intercept], deviations).exit();
    return [info1, info2];
  };

/** The exceptions that L1's code raises. */
const hostRaises =
  (code: string, values: Values = {}, cpu?: string) =>
  (deviations: Deviations): readonly number[] => {
    const live = new LiveMachine(`${code} f4`, values, cpu, deviations);
    live.run();
    return live.vectors;
  };

/** Whether VMRUN entered the guest, and the exceptions that it raised. */
const entered =
  (values: Values) =>
  (deviations: Deviations): readonly [boolean, readonly number[]] => {
    const live = new NestedMachine('', values, undefined, deviations);
    live.run();
    return [live.events.some(({ type }) => type === 'svm.vmrun'), live.vectors];
  };

describe('the instructions of SVM under a policy', () => {
  const unpaged: Values = {
    cr0: CR0.PE | CR0.ET | CR0.NE,
    efer: EFER.SVME,
    cs: 0xffff_ffff_0c9b_0008n,
  };
  deviation(
    'svm-needs-paging',
    (deviations) => {
      const clgi = new LiveMachine(CLGI, unpaged, undefined, deviations);
      clgi.run(1);
      const vmrun = new NestedMachine('', unpaged, undefined, deviations);
      vmrun.run(2);
      return [clgi.get('svmMode') & SvmMode.GIF, vmrun.events.some(({ type }) => type === 'svm.vmrun')];
    },
    { manual: [0n, true], deviating: [SvmMode.GIF, false] },
  );

  deviation('vmrun-needs-save-area', entered({ vmHsavePA: 0n }), { manual: [true, []], deviating: [false, [GP]] });

  deviation('vmrun-refused-in-smm', entered({ boundary: Boundary.IN_SMM }), {
    manual: [true, []],
    deviating: [false, [UD]],
  });

  deviation('vmcb-address-by-high-bits', hostRaises('0f01d8', { rax: 1n << 60n, efer: LONG_MODE }), {
    manual: [UD],
    deviating: [GP],
  });
  deviation('vmcb-address-by-high-bits', guestSees(`${movEax(1)} ${VMLOAD}`, 'VMLOAD'), {
    manual: faults(GP),
    deviating: exits(ExitCode.VMLOAD),
  });

  deviation('svm-fault-exits', guestSees(`${movRax(1n << 60n)} ${VMSAVE}`), {
    manual: faults(GP),
    deviating: exits(ExitCode.VMSAVE),
  });
  deviation(
    'svm-fault-exits',
    (deviations) =>
      // At privilege level 3, with #GP intercepted.
      guest(VMLOAD, ['EXCEPTION_13'], deviations, ({ vmcb }) => {
        vmcb.rax = BigInt(RAM);
        vmcb.cpl = 3;
        vmcb.cs |= 0x60_0000n;
        vmcb.ss |= 0x60_0000n;
      }).exit().code,
    { manual: 0x4dn, deviating: ExitCode.VMLOAD },
  );

  deviation('vmload-exits-outside-long-mode', guestSees(`${movEax(RAM)} ${VMLOAD}`), {
    manual: exits(ExitCode.HLT),
    deviating: exits(ExitCode.VMLOAD),
  });

  deviation('invlpga-without-svme', hostRaises(INVLPGA, { efer: LONG_MODE }), { manual: [UD], deviating: [] });

  deviation('stgi-without-svme', hostRaises(STGI, { efer: LONG_MODE }, 'vmtape-base,-svm-lock'), {
    manual: [UD],
    deviating: [],
  });

  deviation('vmmcall-always-exits', guestSees(VMMCALL), { manual: faults(UD), deviating: exits(ExitCode.VMMCALL) });

  deviation(
    'vmmcall-repeats',
    (deviations) => {
      const live = guest(VMMCALL, [], deviations);
      live.run(20);
      return [live.vectors, live.get('rip') === BigInt(GUEST_CODE)];
    },
    { manual: [[UD], false], deviating: [[], true] },
  );
});

describe('control registers under a policy', () => {
  const MOV_RCX_CR3 = '0f20d9';
  const MOV_RCX_CR8 = '440f20c1';
  const TOGGLE_AM = '0f20c0 3500000400 0f22c0';
  const TOGGLE_MP = '0f01e0 83f002 0f01f0';
  const SET_CR4_BIT_31 = `${movEax(0x8000_0000)} 0f22e0`;

  deviation('cr-read-without-mov-bit', told(MOV_RCX_CR3, 'CR3_READ'), {
    manual: [MOV_BIT | 1n, 0n],
    deviating: [1n, 0n],
  });

  deviation('cr8-read-without-info', told(MOV_RCX_CR8, 'CR8_READ'), {
    manual: [MOV_BIT | 1n, 0n],
    deviating: [0n, 0n],
  });

  deviation('lmsw-selective-by-value', guestSees(TOGGLE_MP, 'CR0_SEL_WRITE'), {
    manual: exits(ExitCode.CR0_SEL_WRITE),
    deviating: exits(ExitCode.HLT),
  });

  for (const code of [TOGGLE_AM, TOGGLE_MP]) {
    deviation('cr0-selective-first', guestSees(code, 'CR0_WRITE', 'CR0_SEL_WRITE'), {
      manual: exits(crWriteExit(0)),
      deviating: exits(ExitCode.CR0_SEL_WRITE),
    });
  }

  for (const code of [`${movRax(1n << 60n)} 0f22d8`, SET_CR4_BIT_31]) {
    deviation('cr-value-exits-invalid', guestSees(code), {
      manual: faults(GP),
      deviating: exits(ExitCode.INVALID),
    });
  }

  deviation(
    'svme-cleared-by-guest-shuts-down',
    (deviations) => {
      const live = guest(wrmsr(0xc000_0080, LONG_MODE), ['SHUTDOWN'], deviations);
      live.run();
      return live.machine.state.ended?.reason;
    },
    { manual: undefined, deviating: 'shutdown' },
  );
});

describe('other instructions under a policy', () => {
  deviation(
    'ioio-without-segment',
    (deviations) => {
      const live = guest('656e', ['IOIO_PROT'], deviations, ({ vmcb }) => {
        vmcb.iopmBasePA = BigInt(MAP);
      });
      live.set({ rdx: 0x80n });
      live.put(MAP + 0x10, '01');
      return (live.exit().info1 >> 10n) & 7n;
    },
    { manual: 5n, deviating: 0n },
  );

  deviation('invpcid-without-info', told(`${movEax(4)} 660f388200`, 'INVPCID'), {
    manual: [4n, 4n],
    deviating: [0n, 0n],
  });

  deviation('invlpga-reports-address', told(`${movEax(RAM)} ${INVLPGA}`, 'INVLPGA'), {
    manual: [0n, 0n],
    deviating: [BigInt(RAM), 0n],
  });

  deviation('monitor-without-access', guestSees(`${movEax(0x4000_0000)} 31c9 0f01c8`, 'MONITOR'), {
    manual: faults(PF),
    deviating: exits(ExitCode.MONITOR),
  });

  /** How many PAUSEs pass before one exits; all of them when none does. */
  const passes =
    (pauses: number, pauseFilterCount: number, pauseFilterThreshold = 0) =>
    (deviations: Deviations): number => {
      const live = guest(PAUSE.repeat(pauses), ['PAUSE'], deviations, ({ vmcb }) => {
        vmcb.pauseFilterCount = pauseFilterCount;
        vmcb.pauseFilterThreshold = pauseFilterThreshold;
      });
      live.run(2 * pauses);
      live.exit();
      return Number(live.vmcb.rip - BigInt(GUEST_CODE)) / 2;
    };
  deviation('pause-filter-reaches-zero', passes(5, 3), { manual: 3, deviating: 2 });
  deviation('pause-filter-merged', passes(5, 2, 1), { manual: 5, deviating: 2 });
  deviation('pause-filter-merged', passes(5000, 4500), { manual: 4500, deviating: 4000 });
  deviation('pause-threshold-always', passes(5, 1), { manual: 1, deviating: 5 });
  deviation('pause-threshold-always', passes(5, 0), { manual: 0, deviating: 5 });
});

describe('MSRs under a policy', () => {
  const [VM_CR, VM_HSAVE_PA, SYSENTER_ESP, EFER_MSR] = [0xc001_0114, 0xc001_0117, 0x175, 0xc000_0080];
  const [LOCK, SVMDIS] = [1n << 3n, 1n << 4n];

  /** VM_CR after L1's writes, the exceptions, and whether they point at the last WRMSR. */
  const vmCr =
    (values: Values, ...writes: readonly bigint[]) =>
    (deviations: Deviations): readonly [bigint, readonly number[]] => {
      const code = writes.map((value) => wrmsr(VM_CR, value)).join('');
      const live = new LiveMachine(`${code} f4`, values, undefined, deviations);
      live.run();
      return [live.get('vmCr'), live.vectors];
    };

  deviation('vm-cr-svmdis-locks', vmCr({ efer: LONG_MODE }, LOCK, SVMDIS), {
    manual: [LOCK, []],
    deviating: [SVMDIS, []],
  });
  deviation('vm-cr-svmdis-locks', vmCr({}, SVMDIS), { manual: [0n, [GP]], deviating: [SVMDIS, [GP]] });
  deviation(
    'vm-cr-svmdis-locks',
    (deviations) => {
      const live = new LiveMachine(wrmsr(VM_CR, SVMDIS), {}, undefined, deviations);
      live.run();
      // The #GP is that of the WRMSR, as ever.
      return [live.get('vmCr'), live.pushedRip - BigInt(CODE)];
    },
    { manual: [0n, 15n], deviating: [SVMDIS, 15n] },
  );

  deviation(
    'svmdis-allows-svme',
    hostRaises(wrmsr(EFER_MSR, LONG_MODE | EFER.SVME), { efer: LONG_MODE, vmCr: SVMDIS }),
    {
      manual: [GP],
      deviating: [],
    },
  );

  deviation('vm-cr-tests-old-svmdis', vmCr({}, SVMDIS), { manual: [0n, [GP]], deviating: [SVMDIS, []] });
  deviation('vm-cr-tests-old-svmdis', vmCr({ vmCr: SVMDIS }, 0n), {
    manual: [0n, []],
    deviating: [SVMDIS, [GP]],
  });

  deviation('vm-cr-inert', vmCr({}, LOCK), { manual: [LOCK, []], deviating: [0n, []] });
  deviation('vm-cr-inert', vmCr({}, 1n << 8n), { manual: [0n, [GP]], deviating: [0n, []] });
  deviation(
    'vm-cr-inert',
    (deviations) => {
      const live = new LiveMachine(`${movEcx(VM_CR)} 0f32 f4`, { vmCr: LOCK }, undefined, deviations);
      live.run();
      return live.get('rax');
    },
    { manual: LOCK, deviating: 0n },
  );

  deviation('save-area-limited', hostRaises(wrmsr(VM_HSAVE_PA, 0xfd_0000_1000n)), { manual: [], deviating: [GP] });

  deviation(
    'sysenter-32-bits',
    (deviations) => {
      const live = new LiveMachine(wrmsr(SYSENTER_ESP, 0x7000_1234_5678n), {}, undefined, deviations);
      live.run(4);
      return live.get('sysenterEsp');
    },
    { manual: 0x7000_1234_5678n, deviating: 0x1234_5678n },
  );
});

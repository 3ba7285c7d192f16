import { describe } from 'vitest';
import type { DeviationName } from '../../../src/machine/index.js';
import { Boundary } from '../../../src/machine/layout/cpu-state.js';
import { IntControl } from '../../../src/machine/layout/vmcb.js';
import { ExitCode, exceptionExit } from '../../../src/machine/svm/exit-code.js';
import { deviation } from '../../support/deviations.js';
import { movEax, wrmsr } from '../../support/guest-code.js';
import { CODE, LiveMachine, VMCB_AT } from '../../support/live-machine.js';
import { GUEST_CODE, NestedMachine } from '../../support/nested-machine.js';

type Deviations = readonly DeviationName[];

const { V_IRQ, V_INTR_MASKING, V_IGN_TPR } = IntControl;
const [STI, CLI, NOP, INT3, UD2] = ['fb', 'fa', '90', 'cc', '0f0b'];
const MOV_CR8_RAX = '440f22c0';
const VECTOR = 0x40;
const IF = 0x200n;
const TF = 0x100n;
const ON = 2n | IF;
const OFF = 2n;
const VIRTUAL = V_IRQ | (BigInt(VECTOR) << 32n);

/** Masks both 8259s, turns on the x2APIC, and sends itself an interrupt. */
const SEND_INTERRUPT = `b0ff e621 e6a1 ${wrmsr(0x1b, 0xfee0_0d00n)} ${wrmsr(0x80f, 0x1ffn)} ${wrmsr(0x83f, BigInt(VECTOR))}`;

/** An INTR is pending since before VMRUN, GIF having been clear. */
const interrupted = (
  guest: string,
  deviations: Deviations,
  { host = OFF, own = OFF, intControl = 0n },
): NestedMachine => {
  const live = new NestedMachine(guest, { rflags: host, svmMode: 0n }, undefined, deviations);
  live.put(CODE, `${SEND_INTERRUPT} ${movEax(VMCB_AT)} 0f01d8 f4`);
  live.vmcb.rflags = own;
  live.vmcb.intControl = intControl;
  return live;
};

/** Code of the exit, and how far the guest came. */
const exitOf = (live: NestedMachine): readonly [code: bigint, offset: number] => {
  const { code } = live.exit();
  return [code, Number(live.vmcb.rip - BigInt(GUEST_CODE))];
};

describe('interrupts of a guest under a policy', () => {
  const masked = { intControl: V_INTR_MASKING };
  const withIntercept = (guest: string, deviations: Deviations, state: Parameters<typeof interrupted>[2]) =>
    exitOf(interrupted(guest, deviations, state).intercept('INTR'));

  deviation('intr-mask-latched', (deviations) => withIntercept(NOP, deviations, { ...masked, own: ON }), {
    manual: [ExitCode.HLT, 1],
    deviating: [ExitCode.INTR, 0],
  });
  deviation('intr-mask-latched', (deviations) => withIntercept(NOP, deviations, { ...masked, host: ON }), {
    manual: [ExitCode.INTR, 0],
    deviating: [ExitCode.HLT, 1],
  });
  deviation(
    'intr-mask-latched',
    // Once opened it stays open without the guest's IF.
    (deviations) => withIntercept(`${NOP} ${STI} ${CLI} ${NOP}`, deviations, { ...masked, host: ON }),
    { manual: [ExitCode.INTR, 0], deviating: [ExitCode.INTR, 3] },
  );

  const virtual = (guest: string, intControl: bigint, own: bigint) => (deviations: Deviations) => {
    const live = new NestedMachine(guest, {}, undefined, deviations);
    live.vmcb.intControl = VIRTUAL | intControl;
    live.vmcb.rflags = own;
    live.exit();
    return live.vectors;
  };
  deviation('virq-mask-latched', virtual(NOP, V_IGN_TPR, ON), { manual: [VECTOR], deviating: [] });
  deviation(
    'virq-mask-latched',
    // Priority 2, and V_TPR raised to 5 in the shadow of STI.
    virtual(`${movEax(5)} ${STI} ${MOV_CR8_RAX} ${NOP}`, V_INTR_MASKING | (2n << 16n), OFF),
    { manual: [], deviating: [VECTOR] },
  );
  deviation(
    'virq-mask-latched',
    // Writing CR8 opens it, too.
    (deviations) => {
      const early = virtual(NOP, V_INTR_MASKING | (2n << 16n), ON)(deviations);
      return [early, virtual(`31c0 ${MOV_CR8_RAX} ${NOP}`, V_INTR_MASKING | (2n << 16n), ON)(deviations)];
    },
    { manual: [[VECTOR], [VECTOR]], deviating: [[], [VECTOR]] },
  );

  deviation('intr-exits-whatever-if', (deviations) => withIntercept(NOP, deviations, {}), {
    manual: [ExitCode.HLT, 1],
    deviating: [ExitCode.INTR, 0],
  });
  deviation(
    'intr-exits-whatever-if',
    (deviations) => {
      const live = interrupted(NOP, deviations, { own: ON }).intercept('INTR');
      live.vmcb.intShadow = 1n;
      return exitOf(live);
    },
    { manual: [ExitCode.INTR, 1], deviating: [ExitCode.INTR, 0] },
  );

  deviation(
    'nmi-waits-for-host-if',
    (deviations) => {
      const values = { boundary: Boundary.NMI_PENDING, svmMode: 0n };
      const live = new NestedMachine(NOP, values, undefined, deviations).intercept('NMI');
      live.vmcb.intControl = V_INTR_MASKING;
      return exitOf(live);
    },
    { manual: [ExitCode.NMI, 0], deviating: [ExitCode.HLT, 1] },
  );
});

describe('EXITINTINFO under a policy', () => {
  /** The guest has no interrupt table: what it takes ends in #GP, which exits. */
  const cutShort = (live: NestedMachine): bigint => {
    live.vmcb.idtrLimit = 0;
    const { code, intInfo } = live.intercept('EXCEPTION_13').exit();
    return code === exceptionExit(13) ? intInfo : code;
  };
  deviation('exitintinfo-all-exceptions', (deviations) => cutShort(interrupted(NOP, deviations, { own: ON })), {
    manual: 0x8000_0040n,
    deviating: 0x8000_0340n,
  });
  deviation(
    'exitintinfo-all-exceptions',
    (deviations) => {
      const injected = new NestedMachine(NOP, {}, undefined, deviations);
      injected.vmcb.eventInj = 0x8000_0202n;
      return [cutShort(new NestedMachine(INT3, {}, undefined, deviations)), cutShort(injected)];
    },
    { manual: [0x8000_0303n, 0x8000_0202n], deviating: [0x8000_0403n, 0x8000_0202n] },
  );

  deviation(
    'exitintinfo-keeps-last-event',
    (deviations) => new NestedMachine(UD2, {}, undefined, deviations).exit().intInfo,
    {
      manual: 0n,
      deviating: 0x306n,
    },
  );
  deviation(
    'exitintinfo-keeps-last-event',
    (deviations) => {
      const live = new NestedMachine(NOP, {}, undefined, deviations);
      live.vmcb.eventInj = 0x1234_0000_0b0dn;
      return live.exit().intInfo;
    },
    { manual: 0n, deviating: 0x1234_0000_0b0dn },
  );
});

describe('debug traps of a host under a policy', () => {
  /** Where the single-step trap of `VMRUN; HLT` points. */
  const step = (deviations: Deviations, asid = 1): readonly [vectors: readonly number[], offset: bigint] => {
    const live = new NestedMachine(NOP, { rflags: OFF | TF }, undefined, deviations);
    live.vmcb.guestASID = asid;
    live.run();
    return [live.vectors, live.pushedRip - BigInt(CODE)];
  };
  deviation('vmrun-not-stepped', step, { manual: [[1], 3n], deviating: [[1], 4n] });
  deviation('failed-vmrun-not-stepped', (deviations) => step(deviations, 0), {
    manual: [[1], 3n],
    deviating: [[1], 4n],
  });

  deviation(
    'breakpoints-ignore-gif',
    (deviations) => {
      const values = { dr0: BigInt(CODE + 1), dr7: 0x402n, svmMode: 0n };
      const live = new LiveMachine('90 90 f4', values, 'k8-f', deviations);
      live.run();
      return live.vectors;
    },
    { manual: [], deviating: [1] },
  );
});

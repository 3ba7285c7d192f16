/**
 * A checker that was never seen to fail is no checker: the machine is broken on purpose, in one reducer, one intercept,
 * one flag, one device register, one check at a time, and every time replay or fold must notice.
 *
 * Sessions are recorded on the healthy machine. `broken` holds what the wrapped functions do instead.
 */
import { afterEach, beforeAll, beforeEach, describe, expect, it, vi } from 'vitest';
import type { cpuidLeaf } from '../../src/machine/cpu/cpuid.js';
import type { deliverEvent } from '../../src/machine/cpu/exceptions.js';
import type { decideBoundary } from '../../src/machine/cpu/interrupts.js';
import { Processor } from '../../src/machine/cpu/processor.js';
import { LOCAL_APIC } from '../../src/machine/devices/local-apic.js';
import { PIC_8259 } from '../../src/machine/devices/pic-8259.js';
import { PIT_8254 } from '../../src/machine/devices/pit-8254.js';
import { RTC_MC146818 } from '../../src/machine/devices/rtc-mc146818.js';
import { UART } from '../../src/machine/devices/uart-16550.js';
import type { EventOf, EventType, MachineEvent, RegisterEvent } from '../../src/machine/events.js';
import { DEFAULT_CONFIG } from '../../src/machine/index.js';
import { EMPTY_DELTA, SLOT_COUNT, type Slot } from '../../src/machine/layout/cpu-state.js';
import { Machine } from '../../src/machine/machine.js';
import { NestedWalk } from '../../src/machine/mmu/nested-walk.js';
import { TableWalk } from '../../src/machine/mmu/table-walk.js';
import type { reduce, reduceBesideRegisters } from '../../src/machine/reduce.js';
import type { answerDoorbell } from '../../src/machine/svm/avic.js';
import type { routeIpi } from '../../src/machine/svm/avic-ipi.js';
import type { hasVector } from '../../src/machine/svm/avic-page.js';
import type { behaviourAt } from '../../src/machine/svm/avic-registers.js';
import type { InterceptName, interceptRequested } from '../../src/machine/svm/intercepts.js';
import type { msrIntercepted, portIntercepted } from '../../src/machine/svm/permission-maps.js';
import type { vmrunRefusal } from '../../src/machine/svm/vmrun-checks.js';
import { DirectRegisters } from '../../src/machine/wasm/direct-registers.js';
import { Emitter } from '../../src/machine/wasm/emit.js';
import { Engine } from '../../src/machine/wasm/engine.js';
import { forgetHandlers } from '../../src/machine/wasm/handlers.js';
import { FoldChecker, FoldMismatch, Replayer, type ReplayOutcome } from '../../src/replay/index.js';
import { MEBIBYTE, type RecordedSession, recordGuest } from '../support/sessions.js';

interface Seams {
  reduce?: ((real: typeof reduce) => typeof reduce) | undefined;
  reduceBesideRegisters?: ((real: typeof reduceBesideRegisters) => typeof reduceBesideRegisters) | undefined;
  interceptRequested?: ((real: typeof interceptRequested) => typeof interceptRequested) | undefined;
  portIntercepted?: ((real: typeof portIntercepted) => typeof portIntercepted) | undefined;
  msrIntercepted?: ((real: typeof msrIntercepted) => typeof msrIntercepted) | undefined;
  vmrunRefusal?: ((real: typeof vmrunRefusal) => typeof vmrunRefusal) | undefined;
  cpuidLeaf?: ((real: typeof cpuidLeaf) => typeof cpuidLeaf) | undefined;
  deliverEvent?: ((real: typeof deliverEvent) => typeof deliverEvent) | undefined;
  answerDoorbell?: ((real: typeof answerDoorbell) => typeof answerDoorbell) | undefined;
  behaviourAt?: ((real: typeof behaviourAt) => typeof behaviourAt) | undefined;
  hasVector?: ((real: typeof hasVector) => typeof hasVector) | undefined;
  routeIpi?: ((real: typeof routeIpi) => typeof routeIpi) | undefined;
  decideBoundary?: ((real: typeof decideBoundary) => typeof decideBoundary) | undefined;
}

const { broken, seam } = vi.hoisted(() => {
  const broken: Seams = {};
  /** The real function until a test breaks it. */
  const seam = <Name extends keyof Seams>(name: Name, real: unknown): unknown => {
    return (...args: readonly unknown[]) => {
      const mutate = broken[name] as ((real: unknown) => (...args: readonly unknown[]) => unknown) | undefined;
      return (mutate === undefined ? (real as (...args: readonly unknown[]) => unknown) : mutate(real))(...args);
    };
  };
  return { broken, seam };
});

vi.mock(import('../../src/machine/reduce.js'), async (original) => {
  const real = await original();
  return {
    ...real,
    reduce: seam('reduce', real.reduce) as typeof real.reduce,
    reduceBesideRegisters: seam(
      'reduceBesideRegisters',
      real.reduceBesideRegisters,
    ) as typeof real.reduceBesideRegisters,
  };
});
vi.mock(import('../../src/machine/svm/intercepts.js'), async (original) => {
  const real = await original();
  return {
    ...real,
    interceptRequested: seam('interceptRequested', real.interceptRequested) as typeof real.interceptRequested,
  };
});
vi.mock(import('../../src/machine/svm/permission-maps.js'), async (original) => {
  const real = await original();
  return {
    ...real,
    portIntercepted: seam('portIntercepted', real.portIntercepted) as typeof real.portIntercepted,
    msrIntercepted: seam('msrIntercepted', real.msrIntercepted) as typeof real.msrIntercepted,
  };
});
vi.mock(import('../../src/machine/svm/vmrun-checks.js'), async (original) => {
  const real = await original();
  return { ...real, vmrunRefusal: seam('vmrunRefusal', real.vmrunRefusal) as typeof real.vmrunRefusal };
});
vi.mock(import('../../src/machine/cpu/cpuid.js'), async (original) => {
  const real = await original();
  return { ...real, cpuidLeaf: seam('cpuidLeaf', real.cpuidLeaf) as typeof real.cpuidLeaf };
});
vi.mock(import('../../src/machine/cpu/exceptions.js'), async (original) => {
  const real = await original();
  return { ...real, deliverEvent: seam('deliverEvent', real.deliverEvent) as typeof real.deliverEvent };
});
vi.mock(import('../../src/machine/cpu/interrupts.js'), async (original) => {
  const real = await original();
  return { ...real, decideBoundary: seam('decideBoundary', real.decideBoundary) as typeof real.decideBoundary };
});
vi.mock(import('../../src/machine/svm/avic.js'), async (original) => {
  const real = await original();
  return { ...real, answerDoorbell: seam('answerDoorbell', real.answerDoorbell) as typeof real.answerDoorbell };
});
vi.mock(import('../../src/machine/svm/avic-registers.js'), async (original) => {
  const real = await original();
  return { ...real, behaviourAt: seam('behaviourAt', real.behaviourAt) as typeof real.behaviourAt };
});
vi.mock(import('../../src/machine/svm/avic-page.js'), async (original) => {
  const real = await original();
  return { ...real, hasVector: seam('hasVector', real.hasVector) as typeof real.hasVector };
});
vi.mock(import('../../src/machine/svm/avic-ipi.js'), async (original) => {
  const real = await original();
  return { ...real, routeIpi: seam('routeIpi', real.routeIpi) as typeof real.routeIpi };
});

// Machines share what is compiled; what a mutation compiles is its own.
beforeEach(forgetHandlers);
afterEach(() => {
  vi.restoreAllMocks();
  forgetHandlers();
  for (const name of Object.keys(broken) as (keyof Seams)[]) delete broken[name];
});

/** The reducer, but for one type of event. What it changes of the registers of the vCPU that runs: see `registersStay`. */
function reducerOf<Type extends EventType>(type: Type, change: (event: EventOf<Type>) => MachineEvent): void {
  const changing =
    (real: typeof reduce): typeof reduce =>
    (state, event, vcpu) =>
      real(state, event.type === type ? change(event as EventOf<Type>) : event, vcpu);
  broken.reduce = changing;
  broken.reduceBesideRegisters = changing;
}

/** An event of this type changes no register, however it would: applied, or written at once. */
function registersStay(type: RegisterEvent['type']): void {
  broken.reduce = (real) => (state, event, vcpu) =>
    real(state, event.type === type ? { ...event, registers: EMPTY_DELTA } : event, vcpu);
  const { stateEvent, stateRegisters, stateDirect } = Machine.prototype;
  const { applyDelta } = Engine.prototype;
  let isSuch = false;
  vi.spyOn(Engine.prototype, 'applyDelta').mockImplementation(function (this: Engine, delta) {
    if (!isSuch) applyDelta.call(this, delta);
  });
  vi.spyOn(Machine.prototype, 'stateEvent').mockImplementation(function (this: Machine, event, retired, vcpu) {
    isSuch = event.type === type;
    stateEvent.call(this, event, retired, vcpu);
    isSuch = false;
  });
  vi.spyOn(Machine.prototype, 'stateRegisters').mockImplementation(function (this: Machine, event, delta, retired) {
    isSuch = event.type === type;
    stateRegisters.call(this, event, delta, retired);
    isSuch = false;
  });
  let before: readonly bigint[] = [];
  const { begin } = DirectRegisters.prototype;
  vi.spyOn(DirectRegisters.prototype, 'begin').mockImplementation(function (this: DirectRegisters) {
    const at = (slot: number): bigint => (BigInt(this.high(slot as Slot)) << 32n) | BigInt(this.low(slot as Slot));
    before = Array.from({ length: SLOT_COUNT }, (_, slot) => at(slot));
    begin.call(this);
  });
  vi.spyOn(Machine.prototype, 'stateDirect').mockImplementation(function (this: Machine, event, retired, level) {
    if (event.type === type) for (const [slot, value] of before.entries()) this.registers[slot as Slot] = value;
    stateDirect.call(this, event, retired, level);
  });
}

/** A device's reducer, but for one type of event. */
function deviceReducer(
  device: { reduce(state: never, event: never): void },
  type: EventType,
  change: object | null,
): void {
  const real = device.reduce as (state: unknown, event: { readonly type: string }) => void;
  vi.spyOn(device as { reduce: typeof real }, 'reduce').mockImplementation((state, event) => {
    if (event.type !== type) real(state, event);
    else if (change !== null) real(state, { ...event, ...change });
  });
}

/** A device register that reads with these bits wrong. */
function deviceRegister(device: object, register: number, bits: number): void {
  const target = device as typeof UART;
  const real = target.decideRead.bind(device);
  vi.spyOn(target, 'decideRead').mockImplementation((state, at, size, now) => {
    const read = real(state, at, size, now);
    return at === register ? { ...read, value: read.value ^ bits } : read;
  });
}

/** Whether the processor finds an instruction intercepted. */
function instructionIntercept(asked: (real: (name: InterceptName) => boolean, name: InterceptName) => boolean): void {
  const processor = Processor.prototype as unknown as { isIntercepted(name: InterceptName): boolean };
  const real = processor.isIntercepted;
  vi.spyOn(processor, 'isIntercepted').mockImplementation(function (this: typeof processor, name) {
    return asked((which) => real.call(this, which), name);
  });
}

interface Mutation {
  readonly what: string;
  readonly guest: string;
  readonly mutate: () => void;
}

const REDUCERS: readonly Mutation[] = [
  {
    what: 'the reducer of #VMEXIT forgets what was written into the VMCB',
    guest: 'exits.elf',
    mutate: () => reducerOf('svm.vmexit', (event) => ({ ...event, words: EMPTY_DELTA })),
  },
  {
    what: 'VMRUN does not change registers',
    guest: 'exits.elf',
    mutate: () => registersStay('svm.vmrun'),
  },
  {
    what: 'the reducer of skipped time loses a nanosecond',
    guest: 'pic-pit.elf',
    mutate: () => reducerOf('time.skipped', (event) => ({ ...event, nanoseconds: event.nanoseconds - 1 })),
  },
  {
    what: 'STGI and CLGI do nothing',
    guest: 'nested-timer.elf',
    mutate: () => registersStay('svm.gif'),
  },
  {
    what: 'the PIT takes half of every count',
    guest: 'pic-pit.elf',
    mutate: () => deviceReducer(PIT_8254, 'pit.loaded', { count: 0x1234 }),
  },
  { what: 'the PIC forgets its mask', guest: 'pic-pit.elf', mutate: () => deviceReducer(PIC_8259, 'pic.masked', null) },
  {
    what: 'the local APIC ignores EOI',
    guest: 'nested-timer.elf',
    mutate: () => deviceReducer(LOCAL_APIC, 'lapic.ended', null),
  },
  {
    what: 'the RTC keeps another value than was written',
    guest: 'pic-pit.elf',
    mutate: () => deviceReducer(RTC_MC146818, 'rtc.written', { value: 0 }),
  },
];

/** On two processors: see `sessionOf`. */
const AVIC = 'avic.elf';
const VIRTUAL_APICS: readonly Mutation[] = [
  {
    what: 'a doorbell rings unheard',
    guest: AVIC,
    mutate: () => {
      broken.answerDoorbell = () => () => undefined;
    },
  },
  {
    what: 'a doorbell does not change registers',
    guest: AVIC,
    mutate: () => registersStay('avic.doorbell'),
  },
  {
    what: 'a write to a virtual APIC does not change registers',
    guest: AVIC,
    mutate: () => registersStay('avic.written'),
  },
  {
    what: 'a level-triggered interrupt is ended without the hypervisor',
    guest: AVIC,
    mutate: () => {
      broken.hasVector = () => () => false;
    },
  },
  {
    what: 'every register of the virtual APIC is memory',
    guest: AVIC,
    mutate: () => {
      broken.behaviourAt = () => () => 'allowed';
    },
  },
  {
    what: 'an IPI to who is not running counts as complete',
    guest: AVIC,
    mutate: () => {
      broken.routeIpi = (real) => (memory, tables, low, high) => {
        const route = real(memory, tables, low, high);
        if (!('targets' in route) || route.targets === 'self') return route;
        return { ...route, targets: route.targets.map((target) => ({ ...target, host: target.host ?? 1 })) };
      };
    },
  },
];

const INTERCEPTS: readonly Mutation[] = [
  {
    what: 'CPUID is never intercepted',
    guest: 'exits.elf',
    mutate: () => instructionIntercept((real, name) => name !== 'CPUID' && real(name)),
  },
  {
    what: 'CPUID is always intercepted, in L1 too',
    guest: 'nested-timer.elf',
    mutate: () => instructionIntercept((real, name) => name === 'CPUID' || real(name)),
  },
  {
    what: 'physical interrupts are never intercepted',
    guest: 'nested-timer.elf',
    mutate: () => {
      broken.interceptRequested = (real) => (get, name) => name !== 'INTR' && real(get, name);
    },
  },
  {
    what: 'the I/O permission map is not looked at',
    guest: 'nested.elf',
    mutate: () => {
      broken.portIntercepted = () => () => false;
    },
  },
  {
    what: 'the MSR permission map is read at the other bit',
    guest: 'nested.elf',
    mutate: () => {
      broken.msrIntercepted = (real) => (memory, msrpm, msr, write) => real(memory, msrpm, msr, !write);
    },
  },
];

const FLAGS: readonly Mutation[] = [
  {
    what: 'the carry of SUB and CMP is lost',
    guest: 'compute.elf',
    mutate: () => {
      vi.spyOn(Emitter.prototype, 'flagsSub').mockImplementation(function (this: Emitter, width, _a, _b, result) {
        this.flagsLogic(width, result);
      });
    },
  },
  {
    what: 'AND, OR, XOR and TEST set the carry',
    guest: 'hello64.elf',
    mutate: () => {
      vi.spyOn(Emitter.prototype, 'flagsLogic').mockImplementation(function (this: Emitter, width, result) {
        this.flagsSub(width, this.constant(0n), this.constant(1n), result);
      });
    },
  },
];

const DEVICE_REGISTERS: readonly Mutation[] = [
  { what: 'a bit of LSR of the UART', guest: 'hello64.elf', mutate: () => deviceRegister(UART, 5, 0x20) },
  {
    what: 'a bit of the second mask of the PIC',
    guest: 'pic-pit.elf',
    mutate: () => deviceRegister(PIC_8259, 3, 0x80),
  },
  { what: 'a bit of the count of the PIT', guest: 'pic-pit.elf', mutate: () => deviceRegister(PIT_8254, 0, 0x01) },
];

const OTHERS: readonly Mutation[] = [
  {
    what: 'VMRUN refuses nothing',
    guest: 'nested.elf',
    mutate: () => {
      broken.vmrunRefusal = () => () => undefined;
    },
  },
  {
    what: 'a bit of CPUID',
    guest: 'hello64.elf',
    mutate: () => {
      broken.cpuidLeaf = (real) => (profile, leaf, subleaf, dynamic) => {
        const values = real(profile, leaf, subleaf, dynamic);
        return { ...values, ebx: values.ebx ^ 1 };
      };
    },
  },
  {
    what: 'the error code of a page fault',
    guest: 'faults.elf',
    mutate: () => {
      broken.deliverEvent = (real) => (tx, event, recognise) =>
        real(tx, event.vector === 14 ? { ...event, errorCode: (event.errorCode ?? 0) ^ 4 } : event, recognise);
    },
  },
  {
    what: 'a virtual interrupt is never due',
    guest: 'nested-timer.elf',
    mutate: () => {
      broken.decideBoundary = (real) => (cpu, inputs) => {
        const due = real(cpu, inputs);
        return due?.kind === 'virtual' ? undefined : due;
      };
    },
  },
  {
    what: 'nested page tables let every write pass',
    guest: 'nested.elf',
    mutate: () => {
      const real = NestedWalk.prototype.translate;
      vi.spyOn(NestedWalk.prototype, 'translate').mockImplementation(function (this: NestedWalk, context, gPA) {
        const allowed = real.call(this, context, gPA, 0);
        if (allowed) this.writable = true;
        return allowed;
      });
    },
  },
];

describe('a broken machine', () => {
  const sessions = new Map<string, RecordedSession>();
  const sessionOf = (guest: string): RecordedSession => {
    const config = { ...DEFAULT_CONFIG, ramBytes: 64 * MEBIBYTE, vcpus: guest === AVIC ? 2 : 1 };
    const session = sessions.get(guest) ?? recordGuest(guest, { config });
    sessions.set(guest, session);
    return session;
  };
  const replayOf = (guest: string): ReplayOutcome => new Replayer(sessionOf(guest).store.read()).run();

  beforeAll(() => {
    for (const guest of ['exits.elf', 'nested.elf', 'nested-timer.elf', 'pic-pit.elf', 'faults.elf']) sessionOf(guest);
    for (const guest of ['compute.elf', 'hello64.elf', AVIC]) sessionOf(guest);
  });

  it('is not what these seams make of a whole one', () => {
    expect(replayOf('exits.elf')).toMatchObject({ kind: 'identical' });
  });

  describe.each([
    ['one reducer', REDUCERS],
    ['one part of AVIC', VIRTUAL_APICS],
    ['one intercept', INTERCEPTS],
    ['one flag', FLAGS],
    ['one device register', DEVICE_REGISTERS],
    ['one decision', OTHERS],
  ])('%s', (_, mutations) => {
    it.each(mutations)('$what', ({ guest, mutate }) => {
      mutate();
      const outcome = replayOf(guest);
      expect(outcome.kind).toBe('diverged');
      if (outcome.kind !== 'diverged') return;
      expect(outcome.divergence.report().split('\n').length).toBeLessThan(60);
    });
  });

  it('that leaves accessed and dirty bits alone is caught by the digest of RAM, for no event tells of them', () => {
    vi.spyOn(TableWalk.prototype, 'markUsed').mockImplementation(() => {});
    const outcome = replayOf('hello64.elf');
    expect(outcome.kind).toBe('diverged');
    if (outcome.kind === 'diverged') expect(outcome.divergence.cause).toEqual({ kind: 'digest', parts: ['ram'] });
  });
});

describe('a machine that changes state without an event', () => {
  /** Both sides are broken alike, so the replay is identical: only the fold tells. */
  function foldOf(guest: string): () => ReplayOutcome {
    const reader = recordGuest(guest).store.read();
    const fold = new FoldChecker(reader);
    const replayer = new Replayer(reader, { observe: fold.check });
    fold.watch(replayer.machine);
    return () => replayer.run();
  }

  it('in a device that decides is caught by the fold', () => {
    const real = UART.decideWrite.bind(UART);
    vi.spyOn(UART, 'decideWrite').mockImplementation((state, register, value, size, now) => {
      state.scr = (state.scr + 1) & 0xff;
      return real(state, register, value, size, now);
    });
    expect(foldOf('hello64.elf')).toThrow(FoldMismatch);
    expect(foldOf('hello64.elf')).toThrow(/devices\.uart\.scr: folded 0, live \d/);
  });

  it('in a reducer that looks at more than its arguments is caught by the fold', () => {
    let calls = 0;
    broken.reduce = (real) => (state, event, vcpu) => {
      real(state, event, vcpu);
      // Every second call is the fold's.
      if (event.type === 'time.skipped' && calls++ % 2 === 0) state.skippedNanoseconds += 1;
    };
    expect(foldOf('pic-pit.elf')).toThrow(/skippedNanoseconds/);
  });

  it('in a register is caught by the fold', () => {
    const real = Machine.prototype.stateDirect;
    vi.spyOn(Machine.prototype, 'stateDirect').mockImplementation(function (this: Machine, event, retired, level) {
      real.call(this, event, retired, level);
      if (event.type === 'svm.vmexit') this.state.vmcbs[event.vmcb]?.fill(0x55, 0, 1);
    });
    expect(foldOf('exits.elf')).toThrow(/vmcb 0x110000 interceptCr/);
  });
});

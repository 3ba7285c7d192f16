/** Interprocessor interrupts and doorbells of guests with virtual APICs, on one processor and on two. */
import { describe, expect, it } from 'vitest';
import type { Slot } from '../../../src/machine/layout/cpu-state.js';
import { Activity, R, SLOT_COUNT } from '../../../src/machine/layout/cpu-state.js';
import { ExitCode } from '../../../src/machine/svm/exit-code.js';
import { AvicMachine, BACKING_PAGE, ENABLE, IRR, ISR, store } from '../../support/avic-machine.js';
import { wrmsr } from '../../support/guest-code.js';
import { CODE, STACK_TOP, VMCB_AT } from '../../support/live-machine.js';
import { GUEST_CODE } from '../../support/nested-machine.js';

const [ICR_LOW, ICR_HIGH] = [0x300, 0x310];
const VECTOR = 0x51;
const [LOGICAL, LEVEL] = [1 << 11, 1 << 15];
const [SELF, ALL, OTHERS] = [1 << 18, 2 << 18, 3 << 18];
/** Backing pages of processors 1 to 3. */
const PAGES = [BACKING_PAGE, BACKING_PAGE + 0x4000, BACKING_PAGE + 0x5000, BACKING_PAGE + 0x6000] as const;
const OUTSIDE = 0x200_0000;
const DOORBELL = 0xc001_011b;

const send = (low: number, destination = 0): string =>
  `${store(ICR_HIGH, (destination << 24) >>> 0)} ${store(ICR_LOW, low)}`;

/** Four processors: 0 sends, 1 runs nowhere, 2 on a processor that is not there, 3 has no entry. IF is clear. */
function sender(low: number, destination = 0): AvicMachine {
  const live = new AvicMachine(send(low, destination));
  live.vmcb.rflags = 2n;
  live.processor(1, { page: PAGES[1] }).processor(2, { page: PAGES[2], host: 9 });
  return live.processor(3, { page: PAGES[3] }, false);
}

const requested = (live: AvicMachine): number[][] => PAGES.map((page) => live.vectorsIn(IRR, page));
const [NOWHERE, GOT]: [number[], number[]] = [[], [VECTOR]];

const incomplete = (low: number, destination: number, id: number, index: number) => ({
  code: ExitCode.AVIC_INCOMPLETE_IPI,
  info1: (BigInt(destination) << 56n) | BigInt(low),
  info2: (BigInt(id) << 32n) | BigInt(index),
});

interface Case {
  readonly name: string;
  readonly low: number;
  readonly destination?: number;
  readonly setUp?: (live: AvicMachine) => unknown;
  /** Of the exit; none when the IPI is complete. */
  readonly failure?: readonly [id: number, index: number];
  /** Which of the four get it. */
  readonly reached?: readonly number[];
}

const CLUSTERS = (live: AvicMachine): unknown => live.setRegister(0xe0, 0x0fff_ffff);

const CASES: readonly Case[] = [
  { name: 'to itself, by shorthand', low: SELF | VECTOR, destination: 1, reached: [0] },
  { name: 'to all, by shorthand: who runs nowhere is told', low: ALL | VECTOR, failure: [1, 1], reached: [0, 1, 2] },
  { name: 'to all others, by shorthand', low: OTHERS | VECTOR, failure: [1, 1], reached: [1, 2] },
  {
    name: 'to all others, by the ID in the page',
    low: OTHERS | VECTOR,
    setUp: (live) => live.setRegister(0x20, 0x100_0000),
    reached: [0, 2],
  },
  { name: 'to destination FFh, physical', low: VECTOR, destination: 0xff, failure: [1, 1], reached: [0, 1, 2] },
  {
    name: 'to destination FFh, logical',
    low: LOGICAL | VECTOR,
    destination: 0xff,
    failure: [1, 1],
    reached: [0, 1, 2],
  },
  { name: 'to a processor', low: VECTOR, destination: 2, reached: [2] },
  { name: 'to itself, physical', low: VECTOR, destination: 0, reached: [0] },
  { name: 'to a processor that runs nowhere', low: VECTOR, destination: 1, failure: [1, 1], reached: [1] },
  { name: 'to a processor without a valid entry', low: VECTOR, destination: 3, failure: [2, 3] },
  {
    name: 'to a processor beyond the highest index',
    low: VECTOR,
    destination: 2,
    setUp: ({ vmcb }) => (vmcb.avicPhysicalTable = (vmcb.avicPhysicalTable & ~0xfffn) | 1n),
    failure: [2, 2],
  },
  {
    name: 'to a processor whose backing page is nowhere',
    low: VECTOR,
    destination: 1,
    setUp: (live) => live.processor(1, { page: OUTSIDE, host: 0 }),
    failure: [3, 1],
  },
  {
    name: 'to all, one of them with a backing page that is nowhere',
    low: ALL | VECTOR,
    setUp: (live) => live.processor(2, { page: OUTSIDE, host: 0 }),
    failure: [3, 2],
  },
  {
    name: 'flat: to several',
    low: LOGICAL | VECTOR,
    destination: 0b1001,
    setUp: (live) => live.logicalId(3, 2),
    reached: [0, 2],
  },
  {
    name: 'flat: the index is that of the logical table',
    low: LOGICAL | VECTOR,
    destination: 0b1001,
    setUp: (live) => live.logicalId(3, 1),
    failure: [1, 3],
    reached: [0, 1],
  },
  { name: 'flat: to an invalid entry, and nobody gets it', low: LOGICAL | VECTOR, destination: 0b101, failure: [2, 2] },
  {
    name: 'flat: to an ID without a processor',
    low: LOGICAL | VECTOR,
    destination: 0b100,
    setUp: (live) => live.logicalId(2, 3),
    failure: [2, 2],
  },
  { name: 'flat: to nobody', low: LOGICAL | VECTOR, destination: 0 },
  {
    name: 'clusters: index 4 × cluster + bit',
    low: LOGICAL | VECTOR,
    destination: 0x52,
    setUp: (live) => CLUSTERS(live.logicalId(21, 2)),
    reached: [2],
  },
  {
    name: 'clusters: to an invalid entry',
    low: LOGICAL | VECTOR,
    destination: 0x58,
    setUp: CLUSTERS,
    failure: [2, 23],
  },
  {
    name: 'clusters: cluster 15 is reserved',
    low: LOGICAL | VECTOR,
    destination: 0xf1,
    setUp: CLUSTERS,
    failure: [2, 60],
  },
  {
    name: 'logical, in a model that there is not',
    low: LOGICAL | VECTOR,
    destination: 1,
    setUp: (live) => live.setRegister(0xe0, 0x7fff_ffff),
    failure: [0, 0],
  },
  ...[1, 2, 4, 5, 6].map(
    (mode): Case => ({ name: `message type ${mode}`, low: (mode << 8) | VECTOR, failure: [0, 0] }),
  ),
  { name: 'level-triggered', low: LEVEL | VECTOR, failure: [0, 0] },
  { name: 'to itself, as an NMI', low: SELF | (4 << 8), failure: [0, 0] },
  { name: 'with vector 15', low: SELF | 15, failure: [4, 0] },
];

describe('a write of the low ICR (APM vol.2 §15.29.6.1 Interprocessor Interrupts, §15.29.9.1 AVIC IPI Delivery Not Completed, table 15-27)', () => {
  it.each(CASES)('$name', ({ low, destination = 0, setUp, failure, reached = [] }) => {
    const live = sender(low, destination);
    setUp?.(live);
    const exit = live.exit();
    if (failure === undefined) expect(exit.code).toBe(ExitCode.HLT);
    else expect(exit).toMatchObject(incomplete(low, destination, ...failure));
    expect(requested(live)).toEqual(PAGES.map((_, id) => (reached.includes(id) ? GOT : NOWHERE)));
    // A trap: the registers hold the command, and RIP stands behind the store.
    expect([live.register(ICR_LOW), live.register(ICR_HIGH)]).toEqual([low, (destination << 24) >>> 0]);
    expect(live.vmcb.rip).toBe(BigInt(GUEST_CODE + 22));
  });

  it('reaches the sender itself before its next instruction', () => {
    for (const [low, destination] of [
      [SELF | VECTOR, 7],
      [VECTOR, 0],
      [LOGICAL | VECTOR, 1],
    ] as const) {
      const live = new AvicMachine(`${send(low, destination)} ffc1`).set({ rcx: 0n });
      live.exit();
      expect([live.vectors, live.get('rcx'), live.vectorsIn(ISR)]).toEqual([[VECTOR], 0n, [VECTOR]]);
    }
  });
});

describe('the doorbell register (§15.29.8.2 Doorbell Mechanism)', () => {
  const guest = (code: string): AvicMachine => new AvicMachine(code).set({ rcx: BigInt(DOORBELL) });

  it('cannot be read, and has eight bits', () => {
    const read = guest('0f32');
    read.exit();
    expect(read.vectors).toEqual([13]);
    const write = guest(wrmsr(DOORBELL, 0x100n));
    write.exit();
    expect(write.vectors).toEqual([13]);
  });

  it('of a processor that is not there takes the write', () => {
    const live = guest(wrmsr(DOORBELL, 9n));
    live.exit();
    expect(live.vectors).toEqual([]);
    expect(live.events.some(({ type }) => type === 'avic.doorbell')).toBe(false);
  });

  it('at a host has nobody listening', () => {
    const live = guest('90');
    live.put(CODE, `${wrmsr(DOORBELL, 0n)} f4`);
    live.run();
    expect(live.events.map(({ type }) => type)).toEqual(['cpu.msr', 'cpu.halted']);
  });
});

/** A second processor, whose L1 enters an L2 of its own: virtual processor 1. */
class TwoProcessors extends AvicMachine {
  /** @param first @param second code of the two L2s. */
  constructor(first: string, second: string) {
    super(first, undefined, { vcpus: 2, quantumInstructions: 50 });
    this.put(SECOND_CODE, `${second} f4`);
    const { bytes } = this.memory;
    const ram = bytes.length - this.memory.ramBytes;
    bytes.copyWithin(ram + SECOND_VMCB, ram + VMCB_AT, ram + VMCB_AT + 4096);
    const vmcb = this.vmcbAt(SECOND_VMCB);
    vmcb.rip = BigInt(SECOND_CODE);
    vmcb.rsp = BigInt(STACK_TOP - 0x1000);
    vmcb.avicBackingPage = BigInt(PAGES[1]);
    this.processor(1, { page: PAGES[1], host: 1 }).logicalId(1, 1);
    this.setRegister(0xe0, 0xffff_ffff, PAGES[1]).setRegister(0x20, 0x100_0000, PAGES[1]);
    const parked = this.machine.state.vcpus[1]?.registers as unknown as bigint[];
    for (let slot = 0; slot < SLOT_COUNT; slot++) parked[slot] = this.machine.registers[slot as Slot] as bigint;
    parked[R.rax] = BigInt(SECOND_VMCB);
    parked[R.vmHsavePA] = 0x61_0000n;
    parked[R.activity] = Activity.RUNNING;
  }

  of(vcpu: number, slot: Slot): bigint {
    return this.machine.state.vcpus[vcpu]?.registers[slot] as bigint;
  }
  /** Vectors that reached a handler on a processor. */
  vectorsOf(vcpu: number): number[] {
    return this.stated.flatMap((stated) =>
      stated.vcpu === vcpu && stated.event.type === 'cpu.interrupt' ? [stated.event.vector] : [],
    );
  }
  /** Exit codes of a processor's guest. */
  exitsOf(vcpu: number): bigint[] {
    return this.stated.flatMap(({ vcpu: of, event }) =>
      of === vcpu && event.type === 'svm.vmexit' ? [event.code] : [],
    );
  }
}

const SECOND_CODE = 0x51_0000;
const SECOND_VMCB = 0x41_0000;
const SPIN = 'ebfe';
/** Long enough for the other one to be in its guest. */
const LATER = '90'.repeat(150);

describe('two processors in their guests', () => {
  it.each([
    ['physical', VECTOR, 1],
    ['logical', LOGICAL | VECTOR, 0b10],
    ['all others', OTHERS | VECTOR, 0],
  ] as const)('an IPI to the other one arrives without an exit: %s', (_, low, destination) => {
    const live = new TwoProcessors(`${LATER} ${send(low, destination)} ${SPIN}`, SPIN);
    live.run(2000);
    expect([live.vectorsOf(0), live.vectorsOf(1)]).toEqual([[], [VECTOR]]);
    expect(live.exitsOf(0)).toEqual([]);
    expect([live.vectorsIn(IRR, PAGES[1]), live.vectorsIn(ISR, PAGES[1])]).toEqual([[], [VECTOR]]);
    expect(live.stated.find(({ event }) => event.type === 'avic.doorbell')).toMatchObject({
      vcpu: 1,
      level: 2,
      retired: 0,
    });
  });

  it('a broadcast comes to both', () => {
    const live = new TwoProcessors(`${LATER} ${send(ALL | VECTOR)} ${SPIN}`, SPIN);
    live.run(2000);
    expect([live.vectorsOf(0), live.vectorsOf(1)]).toEqual([[VECTOR], [VECTOR]]);
  });

  it('one that halts without an intercept wakes up', () => {
    const live = new TwoProcessors(`${LATER} ${send(VECTOR, 1)} ${SPIN}`, 'f4 90');
    const vmcb = live.vmcbAt(SECOND_VMCB);
    vmcb.intercept3 &= ~(1 << 24);
    live.run(100);
    expect(live.of(1, R.activity)).toBe(Activity.HALTED);
    live.run(2000);
    expect(live.vectorsOf(1)).toEqual([VECTOR]);
  });

  it('one with IF clear keeps it for the end of that', () => {
    const live = new TwoProcessors(`${LATER} ${send(VECTOR, 1)} ${SPIN}`, `${'90'.repeat(400)} fb 90 ffc1 ${SPIN}`);
    live.vmcbAt(SECOND_VMCB).rflags = 2n;
    live.set({ rcx: 0n }).run(3000);
    expect([live.vectorsOf(1), live.of(1, R.rcx)]).toEqual([[VECTOR], 0n]);
  });

  it('one whose hypervisor runs finds it at VMRUN: the doorbell rings in vain', () => {
    const live = new TwoProcessors(`${LATER} ${send(VECTOR, 1)} ${SPIN}`, '90');
    live.run(1000); // its guest is at HLT, and it halts itself
    expect([live.exitsOf(1), live.vectorsOf(1)]).toEqual([[ExitCode.HLT], []]);
    expect(live.vectorsIn(IRR, PAGES[1])).toEqual([VECTOR]);
    expect(live.events.some(({ type }) => type === 'avic.doorbell')).toBe(false);
  });

  it('one that is not scheduled is the hypervisor’s to wake, though it has the interrupt', () => {
    const live = new TwoProcessors(`${LATER} ${send(VECTOR, 1)} ${SPIN}`, SPIN);
    live.processor(1, { page: PAGES[1] });
    live.run(2000);
    expect(live.exitsOf(0)).toEqual([ExitCode.AVIC_INCOMPLETE_IPI]);
    expect([live.vectorsIn(IRR, PAGES[1]), live.vectorsOf(1)]).toEqual([[VECTOR], []]);
  });

  it('a hypervisor rings for what it put into IRR itself', () => {
    const live = new TwoProcessors(SPIN, SPIN);
    // L1 of processor 0 does not enter its guest: it sets bit 17 of 240h in the other's page, and rings.
    const irr = PAGES[1] + IRR + 16 * (VECTOR >> 5);
    const address = Buffer.from(Uint32Array.of(irr).buffer).toString('hex');
    live.put(0x12_0000, `${LATER} f00fba2c25${address}${(VECTOR & 31).toString(16)} ${wrmsr(DOORBELL, 1n)} ${SPIN}`);
    live.set({ rip: 0x12_0000n });
    live.run(2000);
    expect([live.vectorsOf(1), live.exitsOf(0)]).toEqual([[VECTOR], []]);
  });

  it('go alike in slices of any size', () => {
    const session = (count: number): readonly unknown[] => {
      const live = new TwoProcessors(`${LATER} ${send(ALL | VECTOR)} ${SPIN}`, SPIN);
      for (let at = 0; at < 2000; at += count) live.run(count);
      return [live.events.filter(({ type }) => type !== 'vcpu.scheduled'), live.vmcb.intControl & ENABLE];
    };
    expect(session(1)).toEqual(session(1000));
  });
});

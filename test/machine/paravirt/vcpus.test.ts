import { describe, expect, it, vi } from 'vitest';
import { Activity, R, type RegisterName } from '../../../src/machine/layout/cpu-state.js';
import { KvmMsr } from '../../../src/machine/paravirt/msr.js';
import { AREA, absent, IF, KvmMachine, WRMSR } from '../../support/kvm-machine.js';
import { CODE, DATA } from '../../support/live-machine.js';

const QUANTUM = 100;
/** Where vCPU 1 starts: vector 9. */
const STARTUP = 0x9000;
/** vCPU 1's own structures. */
const SECOND = AREA + 0x1000;
const LOOP = 'ebfe';
const HALT = 'fa f4';
/** Lets the other one run. */
const PAUSE = 'f390';
const NANOSECONDS = 10;

const hex32 = (value: number | bigint): string => {
  const bytes = Buffer.alloc(4);
  bytes.writeUInt32LE(Number(value));
  return bytes.toString('hex');
};
/** WRMSR in real mode, with 32-bit operands. */
const realWrmsr = (msr: number, value: number): string => `66b9${hex32(msr)} 66b8${hex32(value)} 6631d2 ${WRMSR}`;
/** `mov eax, number; mov ecx, argument; mov ebx, argument; vmmcall` */
const hypercall = (number: number, argument: number): string =>
  `b8${hex32(number)} b9${hex32(argument)} bb${hex32(argument)} 0f01d9`;
/** `inc word [7000h]` in real mode. */
const COUNT = 'ff060070';
const COUNTER = 0x7000;

/** Where code in real mode finds vCPU 0's steal time. */
const LOW_AREA = 0x2_1000;
/** Copies `preempted` of it to the counter, for ever. */
const COPY_PREEMPTED = 'b80021 8ed8 a01000 31db 8edb a20070 ebf1';

class TwoVcpus extends KvmMachine {
  /** @param first what vCPU 0 executes once vCPU 1 has started. @param second vCPU 1, in real mode. */
  constructor(first: string, second: string, values: Partial<Record<RegisterName, bigint>> = {}) {
    super('', {}, { vcpus: 2, quantumInstructions: QUANTUM });
    this.withoutPics().put(STARTUP, second);
    this.prepare();
    this.put(CODE, `${first} ${HALT}`).set({ rip: BigInt(CODE), rflags: 2n, activity: 0n, rax: 0n, ...values });
    this.machine.apply({
      events: [],
      signals: [{ vcpu: 1, kind: 'sipi', vector: STARTUP >> 12 }],
      request: null,
    });
    this.stated.length = 0;
  }

  /** While vCPU 1 has not started. */
  protected prepare(): void {}

  runUntilTurnOf(vcpu: number): void {
    while (this.machine.vcpu !== vcpu) this.run(1);
  }
  of(vcpu: number, name: RegisterName): bigint {
    return this.machine.state.vcpus[vcpu]?.registers[R[name]] as bigint;
  }
  ran(vcpu: number): number {
    return this.stated.reduce((sum, stated) => sum + (stated.vcpu === vcpu ? stated.retired : 0), 0);
  }
  turns(): readonly number[] {
    return this.stated.flatMap(({ vcpu, event }) => (event.type === 'vcpu.scheduled' ? [vcpu] : []));
  }
  accept(apic: number, vector: number): void {
    this.machine.apply({
      events: [{ type: 'lapic.accepted', apic, vector, level: false }],
      signals: [],
      request: null,
    });
  }
}

describe('steal time of vCPUs that take turns', () => {
  class Stealing extends TwoVcpus {
    protected override prepare(): void {
      this.writeMsr(KvmMsr.STEAL_TIME, BigInt(AREA) | 1n);
    }
  }

  it('is the time in which others ran though the vCPU could', () => {
    const live = new Stealing(LOOP, `${realWrmsr(KvmMsr.STEAL_TIME, SECOND | 1)} ${LOOP}`);
    live.run(10 * QUANTUM);
    live.machine.advance((live.machine.retired + QUANTUM) as never);
    const stolen = live.eventsOf('paravirt.stolen').filter(({ vcpu }) => vcpu === 0);
    expect(live.read(AREA, 8)).toBe(BigInt(stolen.reduce((sum, { nanoseconds }) => sum + nanoseconds, 0)));
    for (const { nanoseconds } of stolen) expect(nanoseconds).toBe(QUANTUM * NANOSECONDS);
    expect(stolen.length).toBeGreaterThanOrEqual(5);
    expect(live.read(AREA + 8, 4)).toBe(2n + 2n * BigInt(stolen.length));
    expect(live.read(SECOND, 8)).toBeGreaterThanOrEqual(BigInt(4 * QUANTUM * NANOSECONDS));
  });

  it('has a flag that others see while the vCPU does not run', () => {
    class StealingLow extends TwoVcpus {
      protected override prepare(): void {
        this.writeMsr(KvmMsr.STEAL_TIME, BigInt(LOW_AREA) | 1n);
      }
    }
    const live = new StealingLow(LOOP, COPY_PREEMPTED);
    live.run(3 * QUANTUM);
    expect(live.read(COUNTER, 1)).toBe(1n);
    live.runUntilTurnOf(0);
    expect(live.read(LOW_AREA + 16, 1)).toBe(0n);
  });

  it('drops the translations of a vCPU that another one asked it for', () => {
    const live = new Stealing(LOOP, LOOP);
    const flush = vi.spyOn(live.machine.engine, 'flush');
    live.runUntilTurnOf(1);
    live.run(5);
    expect(live.read(AREA + 16, 1)).toBe(1n);
    expect(flush).not.toHaveBeenCalled();
    live.store(AREA + 16, 1, 3n);
    live.runUntilTurnOf(0);
    expect(flush).toHaveBeenCalledWith();
    expect(live.read(AREA + 16, 1)).toBe(0n);
  });

  it('is that of a turn which chaos gives to another vCPU, too', () => {
    const live = new Stealing(LOOP, LOOP);
    live.runUntilTurnOf(1);
    live.runUntilTurnOf(0);
    live.run(5);
    const before = live.read(AREA, 8);
    live.stated.length = 0;
    const turn = (to: number): void =>
      live.machine.deliver({ type: 'input.turn', to, until: live.machine.retired + QUANTUM });
    turn(0); // it goes on
    expect(live.read(AREA + 16, 1)).toBe(0n);
    turn(1);
    expect(live.read(AREA + 16, 1)).toBe(1n);
    live.run(7);
    turn(0);
    expect([live.read(AREA, 8) - before, live.read(AREA + 16, 1)]).toEqual([7n * BigInt(NANOSECONDS), 0n]);
    const types = live.stated.map(({ event }) => event.type).filter((type) => type !== 'cpu.ran');
    // The input comes first, so that a replay meets it where it was.
    const [told, stolen] = [['paravirt.preempted'], ['paravirt.stolen', 'paravirt.updated']];
    expect(types).toEqual(['input.turn', 'input.turn', ...told, 'input.turn', ...stolen]);
  });

  it('does not grow while the vCPU is halted', () => {
    const live = new Stealing('fb f4', LOOP);
    live.run(3 * QUANTUM);
    expect(live.of(0, 'activity')).toBe(Activity.HALTED);
    live.stated.length = 0;
    live.run(10 * QUANTUM);
    live.host({ type: 'input.stolen', nanoseconds: 5_000 });
    expect(live.eventsOf('paravirt.stolen').filter(({ vcpu }) => vcpu === 0)).toEqual([]);
    expect(live.read(AREA + 16, 1)).toBe(0n);
  });

  it('counts what the host takes once, also for a vCPU that waits for its turn', () => {
    const live = new Stealing(LOOP, LOOP);
    live.runUntilTurnOf(1);
    live.host({ type: 'input.stolen', nanoseconds: 5_000 });
    live.runUntilTurnOf(0);
    expect(live.read(AREA, 8)).toBe(BigInt(5_000 + QUANTUM * NANOSECONDS));
  });
});

describe('hypercalls between vCPUs', () => {
  it('KICK_CPU wakes another one from HLT', () => {
    const live = new TwoVcpus(`${PAUSE} ${hypercall(5, 1)}`, `${HALT} ${COUNT} ${HALT}`);
    expect(live.run()).toBe('idle');
    expect(live.read(COUNTER, 1)).toBe(1n);
    expect(live.eventsOf('paravirt.kicked')).toEqual([]);
    expect(live.stated.filter(({ event }) => event.type === 'cpu.woke').map(({ vcpu }) => vcpu)).toEqual([1]);
  });

  it('KICK_CPU of one that does not wait ends its next HLT', () => {
    const live = new TwoVcpus(hypercall(5, 1), `90 90 ${HALT} ${COUNT} ${HALT}`);
    live.run(4); // vCPU 1 has not run yet
    expect(live.run()).toBe('idle');
    expect(live.read(COUNTER, 1)).toBe(1n);
  });

  it('leave the turn to one that was interrupted from outside at once, whatever is compiled of what runs', () => {
    const live = new TwoVcpus(LOOP, HALT);
    live.run(3);
    expect(live.turns()).toEqual([1, 0]);
    expect(live.ran(1)).toBe(2);
  });

  it('SCHED_YIELD lets the other one run at once', () => {
    const live = new TwoVcpus(`${hypercall(11, 1)} ${LOOP}`, LOOP);
    // The one that was interrupted had the first turn.
    live.runUntilTurnOf(1);
    live.machine.giveTurn(0);
    live.stated.length = 0;
    live.run(6);
    expect(live.turns()).toEqual([1]);
    expect(live.ran(1)).toBe(2);
  });

  it.each<readonly [string, number, (id: number) => readonly bigint[]]>([
    ['KICK_CPU', 5, (id) => [0n, BigInt(id)]],
    ['SCHED_YIELD', 11, (id) => [BigInt(id)]],
    ['SEND_IPI', 10, (id) => [1n << BigInt(id), 0n, 0n, 0x41n]],
  ])('%s knows vCPUs by the ids of their APICs, which software may change', (_name, number, argumentsFor) => {
    const live = new TwoVcpus('', HALT);
    live.run();
    live.machine.apply({
      ...{ signals: [], request: null },
      events: [
        { type: 'lapic.written', apic: 1, register: 0x20, value: 9 * 2 ** 24 },
        { type: 'lapic.written', apic: 1, register: 0xf0, value: 0x1ff },
      ],
    });
    const favour = vi.spyOn(live.machine, 'favour');
    live.hypercall(number, ...argumentsFor(1));
    expect(favour).not.toHaveBeenCalled();
    live.hypercall(number, ...argumentsFor(9));
    expect(favour).toHaveBeenCalledWith(1);
  });

  it('SEND_IPI reaches both', () => {
    const live = new TwoVcpus('', HALT);
    live.run();
    expect(live.hypercall(10, 3n, 0n, 0n, 0x40n)).toBe(1n); // vCPU 1's APIC is disabled by software
    live.machine.apply({
      ...{ signals: [], request: null },
      events: [{ type: 'lapic.written', apic: 1, register: 0xf0, value: 0x1ff }],
    });
    expect(live.hypercall(10, 3n, 0n, 0n, 0x41n)).toBe(2n);
    expect(live.machine.state.devices.localApics.map(({ irr }) => irr[2])).toEqual([3, 2]);
  });
});

describe('the end of an interrupt by memory', () => {
  it('is seen while another vCPU runs, so that the next interrupt wakes the one that halted', () => {
    class Offering extends TwoVcpus {
      protected override prepare(): void {
        this.writeMsr(KvmMsr.EOI_EN, BigInt(AREA) | 1n);
      }
    }
    const endInMemory = '0fba342500002100 00 48cf'; // btr dword [AREA], 0; iretq
    const live = new Offering('fb f4 ebfd', LOOP).handle(0x41, endInMemory).handle(0x40, endInMemory);
    live.run(QUANTUM);
    live.accept(0, 0x41);
    live.run(3 * QUANTUM);
    expect([live.vectors, live.of(0, 'activity')]).toEqual([[0x41], Activity.HALTED]);
    live.accept(0, 0x40);
    live.run(3 * QUANTUM);
    expect(live.vectors).toEqual([0x41, 0x40]);
  });
});

describe('the clocks of several vCPUs', () => {
  class Clocks extends TwoVcpus {
    protected override prepare(): void {
      this.writeMsr(KvmMsr.SYSTEM_TIME_NEW, BigInt(AREA) | 1n);
    }
  }
  const flags = (live: KvmMachine, at: number) => live.read(at + 29, 1);

  it('are stable while their TSCs are the same, and each has its own', () => {
    const register = realWrmsr(KvmMsr.SYSTEM_TIME_NEW, SECOND | 1);
    const live = new Clocks('', `${register} ${HALT}`);
    live.run();
    expect([flags(live, AREA), flags(live, SECOND)]).toEqual([1n, 1n]);

    const moved = new Clocks('', `${register} ${realWrmsr(0x10, 0x1000)} ${HALT}`);
    moved.run();
    expect([flags(moved, AREA), flags(moved, SECOND)]).toEqual([0n, 0n]);
    moved.host({ type: 'input.paused' });
    const [first, second] = [AREA, SECOND].map((at) => moved.read(at + 8, 8) - moved.read(at + 16, 8));
    expect([first, second]).toEqual(
      [0, 1].map((vcpu) => BigInt.asUintN(64, moved.of(vcpu, 'tscBase'))).map((base) => BigInt.asIntN(64, base)),
    );
    expect([flags(moved, AREA), flags(moved, SECOND)]).toEqual([2n, 2n]);
  });

  it('follow a TSC that chaos skews, and are stable no more', () => {
    const live = new Clocks('', `${realWrmsr(KvmMsr.SYSTEM_TIME_NEW, SECOND | 1)} ${HALT}`);
    live.run();
    const offset = (at: number): bigint => BigInt.asIntN(64, live.read(at + 8, 8) - live.read(at + 16, 8));
    const [first, second] = [offset(AREA), offset(SECOND)];
    live.machine.deliver({ type: 'input.skew', target: 1, ticks: 500n });
    expect([offset(AREA) - first, offset(SECOND) - second]).toEqual([0n, 500n]);
    expect([flags(live, AREA), flags(live, SECOND)]).toEqual([0n, 0n]);
  });

  it('are told by all when the boot processor turns to the old number', () => {
    const live = new Clocks('', `${realWrmsr(KvmMsr.SYSTEM_TIME_NEW, SECOND | 1)} ${HALT}`);
    live.run();
    live.writeMsr(KvmMsr.SYSTEM_TIME, BigInt(AREA) | 1n);
    expect([flags(live, AREA), flags(live, SECOND)]).toEqual([0n, 0n]);
  });
});

describe('a page that one vCPU waits for', () => {
  it.each([
    ['off', 2n],
    ['on', IF],
  ])('does not keep the other from running, interrupts %s', (_how, rflags) => {
    const latency = 20 * QUANTUM * NANOSECONDS;
    const live = new TwoVcpus('8b07', LOOP, { rdi: BigInt(DATA), rflags });
    live.store(DATA, 4, 0x55n).host(absent(DATA, latency));
    live.run(30 * QUANTUM);
    expect(live.eventsOf('time.skipped')).toEqual([]);
    expect(live.of(0, 'rax')).toBe(0x55n);
    expect(live.ran(1)).toBeGreaterThan(19 * QUANTUM);
  });

  it('wakes all that wait for it', () => {
    const page = 0x6000 - 0x1000; // both reach it
    const live = new TwoVcpus('8b07', `a10050 ${COUNT} ${HALT}`, { rdi: BigInt(page) });
    live.host(absent(page, 50_000));
    expect(live.run()).toBe('idle');
    expect(live.eventsOf('paravirt.page-missed')).toHaveLength(2);
    expect(live.eventsOf('paravirt.page-arrived')).toHaveLength(1);
    expect(live.read(COUNTER, 1)).toBe(1n);
    expect([live.of(0, 'activity'), live.of(1, 'activity')]).toEqual([Activity.HALTED, Activity.HALTED]);
  });
});

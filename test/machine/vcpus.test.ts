import { describe, expect, it } from 'vitest';
import type { StatedEvent } from '../../src/machine/index.js';
import { Activity, R, type RegisterName } from '../../src/machine/layout/cpu-state.js';
import { sPA } from '../../src/machine/units.js';
import { CODE, LiveMachine } from '../support/live-machine.js';

const QUANTUM = 100;
/** Where application processors start: vector 9. */
const STARTUP = 0x9000;

const hex32 = (value: number): string => {
  const bytes = new Uint8Array(4);
  new DataView(bytes.buffer).setUint32(0, value, true);
  return Buffer.from(bytes).toString('hex');
};
/** MOV ECX, msr; MOV EAX, low; MOV EDX, high; WRMSR */
const wrmsr = (msr: number, low: number, high = 0): string => `b9${hex32(msr)} b8${hex32(low)} ba${hex32(high)} 0f30`;
const X2APIC = wrmsr(0x1b, 0xfee0_0d00);
const INIT = wrmsr(0x830, 0x4500, 1);
const SIPI = wrmsr(0x830, 0x4600 | (STARTUP >> 12), 1);
/** In reach of both. */
const COUNTER = 0x7000;
const HLT = 'f4';
const LOOP_FOREVER = 'ebfe';

/** @param first what vCPU 0 executes in 64-bit mode. @param second vCPU 1 in real mode, from its start-up interrupt on. */
class TwoVcpus extends LiveMachine {
  constructor(first: string, second: string, values: Partial<Record<RegisterName, bigint>> = {}) {
    super(first, values, undefined, undefined, { vcpus: 2, quantumInstructions: QUANTUM });
    this.put(STARTUP, second);
  }

  of(vcpu: number, name: RegisterName): bigint {
    return this.machine.state.vcpus[vcpu]?.registers[R[name]] as bigint;
  }

  /** Who had a turn, and up to when. */
  get turns(): (readonly [vcpu: number, until: number])[] {
    return this.stated.flatMap(({ vcpu, event }) =>
      event.type === 'vcpu.scheduled' ? [[vcpu, event.until] as const] : [],
    );
  }

  ran(vcpu: number): number {
    return this.stated.reduce((sum, stated: StatedEvent) => sum + (stated.vcpu === vcpu ? stated.retired : 0), 0);
  }
}

describe('application processors (APM vol.2 §16.5 Interprocessor Interrupts)', () => {
  it('wait for a start-up interrupt, and begin in real mode at its vector', () => {
    const live = new TwoVcpus(`${X2APIC} ${INIT} ${SIPI} ${SIPI} ${HLT}`, `8cc8 ${HLT}`);
    expect(live.of(1, 'activity')).toBe(Activity.WAIT_FOR_SIPI);
    expect(live.run()).toBe('idle');
    expect(live.of(1, 'activity')).toBe(Activity.HALTED);
    expect(live.of(1, 'rax') & 0xffffn).toBe(BigInt(STARTUP >> 4));
    expect(live.of(1, 'rip')).toBe(3n);
  });

  it('take no notice of one while they run', () => {
    const live = new TwoVcpus(`${X2APIC} ${SIPI} ${SIPI} ${HLT}`, `41 ${HLT}`);
    live.run();
    expect(live.of(1, 'rcx')).toBe(1n);
  });

  it('start again after another INIT', () => {
    const live = new TwoVcpus(`${X2APIC} ${SIPI} ${INIT} ${SIPI} ${HLT}`, `ff060070 ${HLT}`);
    live.run();
    expect(live.memory.read(sPA(COUNTER), 2)).toBe(2n);
  });
});

describe('turns', () => {
  it('go to others while one hangs: exceptions that raise each other for ever', () => {
    const live = new TwoVcpus(`${X2APIC} ${SIPI} ${LOOP_FOREVER}`, LOOP_FOREVER);
    live.run(20);
    while (live.machine.vcpu !== 0) live.run(1);
    const [hanging, other] = [live.ran(0), live.ran(1)];
    live.hang();
    for (let call = 0; call < 10; call++) live.run(1000);
    expect(live.ran(0)).toBe(hanging);
    expect(live.ran(1)).toBeGreaterThan(other + 3 * QUANTUM);
  });

  it('last a quantum while both have something to do', () => {
    const live = new TwoVcpus(`${X2APIC} ${SIPI} ${LOOP_FOREVER}`, LOOP_FOREVER);
    live.run(1000);
    const [start, ...rest] = live.turns;
    expect(start?.[0]).toBe(1);
    rest.forEach(([vcpu, until], index) => {
      expect(vcpu).toBe(index % 2);
      expect(until).toBe((start?.[1] as number) + QUANTUM * (index + 1));
    });
    expect(rest.length).toBeGreaterThan(8);
  });

  it('pass on with HLT, and with PAUSE', () => {
    const spin = 'f390 ebfc'; // PAUSE; JMP to it
    const live = new TwoVcpus(`${X2APIC} ${SIPI} ${spin}`, `${'90'.repeat(30)} ${HLT}`);
    live.run(500);
    expect(live.ran(1)).toBe(31);
    // vCPU 1 has the turn at its start-up interrupt, vCPU 0 when that one halts, and nobody after that.
    expect(live.turns.map(([vcpu]) => vcpu)).toEqual([1, 0]);
  });

  it('are not needed by one that runs alone', () => {
    const live = new TwoVcpus(LOOP_FOREVER, HLT);
    live.run(10 * QUANTUM);
    expect(live.turns).toEqual([]);
  });

  it('are the same in the same session', () => {
    const session = (): readonly unknown[] => {
      const live = new TwoVcpus(`${X2APIC} ${SIPI} ${LOOP_FOREVER}`, LOOP_FOREVER);
      for (let part = 0; part < 10; part++) live.run(77);
      return live.turns;
    };
    expect(session()).toEqual(session());
  });
});

describe('what vCPUs share', () => {
  it('is memory: locked increments of both are all there', () => {
    const count = 5000;
    // MOV ECX, count; LOCK INC DWORD [DATA]; LOOP
    const first = `b9${hex32(count)} f0ff0425${hex32(COUNTER)} e2f6 ${HLT}`;
    const second = `66b9${hex32(count)} 67f066ff05${hex32(COUNTER)} 67e2f4 ${HLT}`;
    const live = new TwoVcpus(`${X2APIC} ${SIPI} ${first}`, second);
    expect(live.run(100_000)).toBe('idle');
    expect(live.memory.read(sPA(COUNTER), 4)).toBe(BigInt(2 * count));
  });

  it('is code: what one writes the other executes', () => {
    // vCPU 1 spins at [STARTUP] until vCPU 0 has put HLT there.
    const live = new TwoVcpus(`${X2APIC} ${SIPI} ${'90'.repeat(300)} c60425${hex32(STARTUP)}f4 ${HLT}`, LOOP_FOREVER);
    expect(live.run(10_000)).toBe('idle');
    expect(live.of(1, 'activity')).toBe(Activity.HALTED);
  });
});

describe('MONITOR and MWAIT (APM vol.3)', () => {
  const LINE = 0x7000;
  /** MOV EAX, line; XOR ECX, ECX; XOR EDX, EDX; MONITOR */
  const monitor = `b8${hex32(LINE)} 31c9 31d2 0f01c8`;
  const MWAIT = '31c0 0f01c9';
  /** Long enough for the other one to wait. */
  const LATER = '90'.repeat(3 * QUANTUM);

  it('wait until another vCPU writes to the line', () => {
    const store = `${LATER} 66c706007001000000 ${HLT}`;
    const live = new TwoVcpus(`${X2APIC} ${SIPI} ${monitor} ${MWAIT} 41ffc0 ${HLT}`, store);
    expect(live.run(10_000)).toBe('idle');
    expect(live.of(0, 'r8')).toBe(1n);
    expect(live.events.map(({ type }) => type)).toContain('cpu.woke');
  });

  it('go on waiting while others write elsewhere', () => {
    const store = `${LATER} 66c706407001000000 ${HLT}`;
    const live = new TwoVcpus(`${X2APIC} ${SIPI} ${monitor} ${MWAIT} 41ffc0 ${HLT}`, store);
    expect(live.run(10_000)).toBe('idle');
    expect(live.of(0, 'activity')).toBe(Activity.MWAIT);
  });

  it('do not wait when the line was written to in between', () => {
    const live = new LiveMachine(`${monitor} c70425${hex32(LINE)}05000000 ${MWAIT} 41ffc0 ${HLT}`);
    live.run();
    expect(live.get('r8')).toBe(1n);
    expect(live.get('rip')).toBeGreaterThan(BigInt(CODE));
  });
});

describe('x87 errors with CR0.NE clear (MultiProcessor Specification 1.4)', () => {
  it('FERR# of an application processor leads nowhere: it freezes, and nobody hears of it', () => {
    // FNINIT, FLDCW [9100h], FLD1, FLDZ, FDIVP, FLD1
    const divides = 'dbe3 d92e0091 d9e8 d9ee def9 d9e8';
    const live = new TwoVcpus(`${X2APIC} ${INIT} ${SIPI} ${HLT}`, divides);
    live.write(0x9100, 0x37bn);
    expect(live.run()).toBe('idle');
    expect(live.of(1, 'activity')).toBe(Activity.FERR_FREEZE);
    expect(live.machine.state.devices.coprocessor).toEqual({ ferr: false, latched: false, ignne: false });
  });
});

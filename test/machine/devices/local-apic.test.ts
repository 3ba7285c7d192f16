import { describe, expect, it } from 'vitest';
import { initialLocalApic, LOCAL_APIC } from '../../../src/machine/devices/local-apic.js';
import * as lapic from '../../../src/machine/devices/local-apic-acceptance.js';
import * as msrs from '../../../src/machine/devices/local-apic-msr.js';
import * as registers from '../../../src/machine/devices/local-apic-registers.js';
import type { LocalApicEvent, LocalApicState } from '../../../src/machine/devices/local-apic-state.js';
import { DELIVERY, LAPIC } from '../../../src/machine/devices/local-apic-state.js';
import * as timer from '../../../src/machine/devices/local-apic-timer.js';
import { nanoseconds } from '../../../src/machine/units.js';
import { Bench, given, read, write } from './given.js';

const ONE_SHOT = 0x0_0000;
const PERIODIC = 0x2_0000;
const TSC_DEADLINE = 0x4_0000;
const MASKED = 0x1_0000;
const DIVIDE_BY_1 = 0x0b;

class ApicBench extends Bench<LocalApicState, LocalApicEvent> {
  constructor(id = 0) {
    super(LOCAL_APIC, initialLocalApic(id));
    this.set(LAPIC.SVR, 0x1ff);
  }
  set(register: number, value: number, at = 0): readonly LocalApicEvent[] {
    return this.write(register, value, at, 4);
  }
  get(register: number, at = 0): number {
    return this.read(register, at, 4);
  }
  accept(vector: number, level = false): void {
    this.apply(lapic.decideAccept(this.state, vector, level));
  }
  acknowledge(): number {
    const { vector, events } = lapic.decideAcknowledge(this.state);
    this.apply(events);
    return vector;
  }
  get pending() {
    return lapic.pendingVector(this.state);
  }
  get next() {
    return this.device.nextDeadline(this.state);
  }
  startTimer(mode: number, count: number, at = 0): void {
    this.set(LAPIC.LVT_TIMER, mode | 0xee, at);
    this.set(LAPIC.TIMER_DIVIDE, DIVIDE_BY_1, at);
    this.set(LAPIC.TIMER_INITIAL, count, at);
  }
  msr(register: number): bigint | undefined {
    return msrs.readX2apic(this.state, msrs.MSR_X2APIC_FIRST + (register >> 4), nanoseconds(0));
  }
  setMsr(register: number, value: bigint): registers.LocalApicDecision | undefined {
    const written = msrs.decideX2apicWrite(this.state, msrs.MSR_X2APIC_FIRST + (register >> 4), value, nanoseconds(0));
    this.apply(written?.events ?? []);
    return written;
  }
  base(value: bigint): boolean {
    const events = msrs.decideApicBase(this.state, value, 48);
    this.apply(events ?? []);
    return events !== undefined;
  }
}

describe('local APIC', () => {
  it('resets masked and disabled by software (APM vol.2 §16.3.2 APIC Registers)', () => {
    const state = initialLocalApic(3);
    const it = new Bench(LOCAL_APIC, state);
    expect(it.read(LAPIC.ID, 0, 4)).toBe(0x0300_0000);
    expect(it.read(LAPIC.VERSION, 0, 4)).toBe(0x8005_0014);
    expect(it.read(LAPIC.SVR, 0, 4)).toBe(0xff);
    expect(it.read(LAPIC.LVT_LINT0, 0, 4)).toBe(MASKED);
    expect(it.read(LAPIC.DFR, 0, 4)).toBe(0xffff_ffff);
    expect(lapic.decideAccept(state, 0x40, false)).toEqual([]);
    it.write(LAPIC.LVT_TIMER, 0x40, 0, 4); // stays masked until SVR enables
    expect(it.read(LAPIC.LVT_TIMER, 0, 4)).toBe(MASKED | 0x40);
  });

  it('delivers the highest class above the processor priority (APM vol.2 §16.6.4 Selecting and Handling Interrupts)', () => {
    const it = new ApicBench();
    it.accept(0x51);
    it.accept(0x62);
    expect(it.pending).toBe(0x62);
    expect(it.acknowledge()).toBe(0x62);
    expect(it.get(LAPIC.PPR)).toBe(0x60);
    expect(it.pending).toBeUndefined();
    it.accept(0x6f); // same class: waits
    expect(it.pending).toBeUndefined();
    it.set(LAPIC.EOI, 0);
    expect(it.acknowledge()).toBe(0x6f);
    it.set(LAPIC.EOI, 0);
    it.set(LAPIC.TPR, 0x50);
    expect(it.pending).toBeUndefined();
    it.set(LAPIC.TPR, 0x4f);
    expect(it.pending).toBe(0x51);
  });

  it('gives the spurious vector when the request is gone (APM vol.2 §16.4.7 Spurious Interrupts)', () => {
    const it = new ApicBench();
    expect(it.acknowledge()).toBe(0xff);
    expect(it.get(LAPIC.ISR)).toBe(0);
  });

  it('collapses requests for a vector that waits already', () => {
    const it = new ApicBench();
    it.accept(0x40);
    expect(lapic.decideAccept(it.state, 0x40, false)).toEqual([]);
    expect(it.get(LAPIC.IRR + 0x20)).toBe(1);
  });

  it('tells the I/O APICs of the end of a level-triggered vector (APM vol.2 §16.6.3, TMR)', () => {
    const it = new ApicBench();
    it.accept(0x40, true);
    expect(it.get(LAPIC.TMR + 0x20)).toBe(1);
    it.acknowledge();
    const end = registers.decidePageWrite(it.state, LAPIC.EOI, 0, 4, nanoseconds(0));
    expect(end).toEqual({ events: [{ type: 'lapic.ended', apic: 0, vector: 0x40 }], ipis: [], ended: 0x40 });
  });

  it('counts down once and interrupts (APM vol.2 §16.4.1 APIC Timer Interrupt)', () => {
    const it = new ApicBench();
    it.startTimer(ONE_SHOT, 1000, 50);
    expect(it.get(LAPIC.TIMER_CURRENT, 150)).toBe(900);
    expect(it.next).toBe(1050);
    expect(it.deadline(1050)).toEqual([{ type: 'lapic.timer-fired', apic: 0, at: 1050 }]);
    expect(it.pending).toBe(0xee);
    expect(it.next).toBeUndefined();
    expect(it.get(LAPIC.TIMER_CURRENT, 1100)).toBe(0);
  });

  it('reloads in periodic mode and catches up in one event', () => {
    const it = new ApicBench();
    it.startTimer(PERIODIC, 100);
    it.deadline(100);
    expect(it.next).toBe(200);
    expect(it.get(LAPIC.TIMER_CURRENT, 130)).toBe(70);
    it.deadline(555);
    expect(it.next).toBe(600);
  });

  it('divides its clock, and goes on from the current count when the divider changes (APM vol.2 §16.4.1)', () => {
    const it = new ApicBench();
    it.startTimer(ONE_SHOT, 100);
    it.set(LAPIC.TIMER_DIVIDE, 0x00, 40); // by 2
    expect(it.get(LAPIC.TIMER_CURRENT, 40)).toBe(60);
    expect(it.get(LAPIC.TIMER_CURRENT, 60)).toBe(50);
    expect(it.next).toBe(160);
    it.set(LAPIC.TIMER_DIVIDE, 0x0a, 60); // by 128
    expect(it.next).toBe(60 + 50 * 128);
  });

  it('goes on from the current count when the mode changes, and stays at zero (kvm-unit-tests x86/apic.c)', () => {
    const it = new ApicBench();
    it.startTimer(ONE_SHOT, 100);
    it.set(LAPIC.LVT_TIMER, PERIODIC | 0xee, 60);
    expect(it.get(LAPIC.TIMER_CURRENT, 60)).toBe(40);
    it.deadline(100);
    expect(it.get(LAPIC.TIMER_CURRENT, 110)).toBe(90);
    it.set(LAPIC.LVT_TIMER, ONE_SHOT | 0xee, 160);
    expect(it.get(LAPIC.TIMER_CURRENT, 160)).toBe(40);
    it.deadline(200);
    it.set(LAPIC.LVT_TIMER, PERIODIC | 0xee, 300);
    expect(it.get(LAPIC.TIMER_CURRENT, 310)).toBe(0);
    expect(it.next).toBeUndefined();
  });

  it('has no deadline while its timer is masked, and one in step when unmasked', () => {
    const it = new ApicBench();
    it.startTimer(PERIODIC | MASKED, 100);
    expect(it.next).toBeUndefined();
    expect(it.get(LAPIC.TIMER_CURRENT, 250)).toBe(50);
    it.set(LAPIC.LVT_TIMER, PERIODIC | 0xee, 250);
    expect(it.next).toBe(300);
  });

  it('fires at the TSC deadline and disarms (SDM vol.3 §11.5.4.1 TSC-Deadline Mode)', () => {
    const it = new ApicBench();
    const arm = (deadline: bigint, offset: bigint, at: number) =>
      it.apply(timer.decideTscDeadline(it.state, deadline, offset, nanoseconds(at)));
    expect(arm(5000n, 0n, 0)).toEqual([]); // not in that mode
    it.set(LAPIC.LVT_TIMER, TSC_DEADLINE | 0xee);
    arm(5000n, 1000n, 10);
    expect(it.next).toBe(4000);
    expect(timer.tscDeadline(it.state)).toBe(5000n);
    it.apply(timer.decideTscMoved(it.state, 2000n, nanoseconds(10)));
    expect(it.next).toBe(3000);
    it.deadline(3000);
    expect(it.pending).toBe(0xee);
    expect(timer.tscDeadline(it.state)).toBe(0n);
    arm(1n, 0n, 3000); // in the past: at once
    expect(it.next).toBe(3000);
    arm(0n, 0n, 3000);
    expect(it.next).toBeUndefined();
    arm(0x7fff_ffff_ffff_ffffn, 0n, 3000); // beyond all time
    expect(it.next).toBeUndefined();
    it.set(LAPIC.LVT_TIMER, ONE_SHOT | 0xee, 3000);
    expect(timer.tscDeadline(it.state)).toBe(0n);
  });

  it('sends IPIs as messages (APM vol.2 §16.5 Interprocessor Interrupts)', () => {
    const it = new ApicBench();
    it.set(LAPIC.ICR_HIGH, 0x0200_0000);
    const sent = registers.decidePageWrite(it.state, LAPIC.ICR_LOW, 0x0000_48f1, 4, nanoseconds(0));
    expect(sent.ipis).toEqual([
      { vector: 0xf1, mode: 0, level: false, logical: true, destination: 2, broadcast: false, shorthand: 'none' },
    ]);
    const others = registers.decidePageWrite(it.state, LAPIC.ICR_LOW, 0x000c_4608, 4, nanoseconds(0));
    expect(others.ipis[0]).toMatchObject({ mode: DELIVERY.STARTUP, vector: 8, shorthand: 'others' });
    const deassert = registers.decidePageWrite(it.state, LAPIC.ICR_LOW, 0x0000_8500, 4, nanoseconds(0));
    expect(deassert.ipis).toEqual([]);
  });

  it('reports an illegal vector in ESR and through its error entry (APM vol.2 §16.4.6 APIC Error Interrupts)', () => {
    const it = new ApicBench();
    it.set(LAPIC.LVT_ERROR, 0x33);
    it.set(LAPIC.ICR_LOW, 0x0004_4005);
    expect(it.get(LAPIC.ESR)).toBe(0);
    it.set(LAPIC.ESR, 0);
    expect(it.get(LAPIC.ESR)).toBe(0x20);
    expect(it.pending).toBe(0x33);
    it.set(LAPIC.ESR, 0);
    expect(it.get(LAPIC.ESR)).toBe(0);
    it.get(0x0f0 + 0x700); // no such register
    it.set(LAPIC.ESR, 0);
    expect(it.get(LAPIC.ESR)).toBe(0x80);
  });

  it('matches flat, clustered and physical destinations (APM vol.2 §16.6.1)', () => {
    const it = new ApicBench(5);
    const message = (destination: number, logical: boolean) => ({
      vector: 0x40,
      mode: 0,
      level: false,
      logical,
      destination,
      broadcast: destination === 0xff,
      shorthand: 'none' as const,
    });
    const matches = (destination: number, logical: boolean) =>
      lapic.matchesDestination(it.state, message(destination, logical));
    expect([matches(5, false), matches(4, false), matches(0xff, false)]).toEqual([true, false, true]);
    it.set(LAPIC.LDR, 0x2400_0000);
    expect([matches(0x20, true), matches(0x04, true), matches(0x10, true)]).toEqual([true, true, false]);
    it.set(LAPIC.DFR, 0x0fff_ffff);
    expect([matches(0x24, true), matches(0x14, true), matches(0x28, true)]).toEqual([true, false, false]);
    it.base(0xfee0_0c00n);
    expect(it.msr(LAPIC.LDR)).toBe(0x20n);
    expect([matches(0x20, true), matches(0x1_0020, true), matches(5, false)]).toEqual([true, false, true]);
  });

  it('takes ExtINT at LINT0, or always while it is off (APM vol.2 §16.4.2)', () => {
    const it = new ApicBench();
    expect(lapic.acceptsExtInt(it.state)).toBe(false);
    it.set(LAPIC.LVT_LINT0, 0x700);
    expect(lapic.acceptsExtInt(it.state)).toBe(true);
    it.set(LAPIC.SVR, 0xff);
    expect(lapic.acceptsExtInt(it.state)).toBe(false); // software disable masks the entries
    it.base(0xfee0_0000n);
    expect(lapic.acceptsExtInt(it.state)).toBe(true);
  });

  it('changes modes as allowed, and faults otherwise (APM vol.2 §16.9 Detecting and Enabling x2APIC Mode)', () => {
    const it = new ApicBench();
    const BASE = 0xfee0_0000n;
    const [BSP, X2, EN] = [0x100n, 0x400n, 0x800n];
    expect(it.base(BASE | X2)).toBe(false);
    expect(it.base(BASE | BSP | EN | 1n)).toBe(false);
    expect(it.base(BASE | EN | (1n << 48n))).toBe(false);
    expect(it.base(BASE | BSP | X2 | EN)).toBe(true);
    expect(msrs.readApicBase(it.state)).toBe(BASE | BSP | X2 | EN);
    expect(it.base(BASE | EN)).toBe(false);
    expect(it.base(BASE)).toBe(true);
    expect(it.base(BASE | X2 | EN)).toBe(false);
    expect(it.base(0xfed4_0000n | BSP | EN)).toBe(true);
    expect(it.state.base).toBe(0xfed4_0000);
    expect(it.state.svr).toBe(0xff); // the way through disabled reset the registers
  });

  it('checks x2APIC MSRs for mode, register and reserved bits (APM vol.2 §16.11 Accessing x2APIC Registers)', () => {
    const it = new ApicBench(1);
    expect(it.msr(LAPIC.VERSION)).toBeUndefined();
    it.base(0xfee0_0c00n);
    expect(it.msr(LAPIC.ID)).toBe(1n);
    expect(it.msr(LAPIC.DFR)).toBeUndefined();
    expect(it.msr(LAPIC.EOI)).toBeUndefined();
    expect(it.setMsr(LAPIC.ID, 0n)).toBeUndefined();
    expect(it.setMsr(LAPIC.TPR, 0x100n)).toBeUndefined();
    expect(it.setMsr(LAPIC.EOI, 1n)).toBeUndefined();
    expect(it.setMsr(LAPIC.TPR, 0x20n)).toBeDefined();
    expect(it.msr(LAPIC.TPR)).toBe(0x20n);
    expect(it.setMsr(LAPIC.ICR_LOW, 0x0000_0002_0000_40f1n)?.ipis[0]).toMatchObject({ destination: 2, vector: 0xf1 });
    expect(it.msr(LAPIC.ICR_LOW)).toBe(0x0000_0002_0000_40f1n);
    expect(it.setMsr(LAPIC.SELF_IPI, 0x41n)?.ipis[0]).toMatchObject({ shorthand: 'self', vector: 0x41 });
    expect(it.setMsr(LAPIC.ICR_LOW, 0xffff_ffff_0000_40f1n)?.ipis[0]?.broadcast).toBe(true);
  });

  it('reads bytes of registers, and ignores writes that are not 32 bits (APM vol.2 §16.3.2)', () => {
    const it = new ApicBench(0x12);
    expect(it.read(LAPIC.ID + 3)).toBe(0x12);
    expect(it.read(LAPIC.VERSION, 0, 2)).toBe(0x14);
    expect(it.write(LAPIC.TPR, 0x20)).toEqual([]);
    given(LOCAL_APIC)
      .when(read(LAPIC.TIMER_CURRENT, 0, 4))
      .thenValue(0);
    given(LOCAL_APIC)
      .when(write(LAPIC.TPR, 0x20, 0, 4))
      .then({ type: 'lapic.written', apic: 0, register: LAPIC.TPR, value: 0x20 });
  });

  it('keeps ICR’s destination field alone in xAPIC mode (APM vol.2 §16.5, bits 63:56)', () => {
    const it = new ApicBench();
    it.set(LAPIC.ICR_HIGH, 0x12ff_ffff);
    expect(it.get(LAPIC.ICR_HIGH)).toBe(0x1200_0000);
  });

  it('loses LDR and the destination on the way into x2APIC mode (APM vol.2 §16.9.1 Enabling x2APIC Mode)', () => {
    const it = new ApicBench(5);
    it.set(LAPIC.LDR, 0x4200_0000);
    it.set(LAPIC.ID, 0x0900_0000);
    it.set(LAPIC.ICR_HIGH, 0x0700_0000);
    it.set(LAPIC.TPR, 0x30);
    it.base(0xfee0_0c00n);
    expect([LAPIC.LDR, LAPIC.ID, LAPIC.ICR_LOW, LAPIC.TPR].map((register) => it.msr(register))).toEqual([
      0x20n,
      5n, // kvm-unit-tests x86/apic.c; the manual would have 9
      0n,
      0x30n,
    ]);
  });

  it.each([
    ['ICR, delivery status', LAPIC.ICR_LOW, 0x1041n, false],
    ['ICR, remote read status', LAPIC.ICR_LOW, 0x1_0041n, false],
    ['ICR', LAPIC.ICR_LOW, 0xc8ff_0000_0041n, true],
    ['ESR', LAPIC.ESR, 1n, false],
    ['SVR', LAPIC.SVR, 0x400n, false],
    ['divide configuration', LAPIC.TIMER_DIVIDE, 0x4n, false],
    ['LVT of the timer', LAPIC.LVT_TIMER, 0x7_10ffn, true],
    ['LVT of the timer, message type', LAPIC.LVT_TIMER, 0x100n, false],
    ['LVT of LINT0, with its read-only bits', LAPIC.LVT_LINT0, 0x1_f7ffn, true],
    ['LVT of the error, trigger mode', LAPIC.LVT_ERROR, 0x8000n, false],
    ['extended control', LAPIC.EXTENDED_CONTROL, 0x7n, true],
    ['extended control, bit 3', LAPIC.EXTENDED_CONTROL, 0x8n, false],
    ['extended feature, which is read-only', LAPIC.EXTENDED_FEATURE, 0n, false],
    ['interrupt enable', LAPIC.INTERRUPT_ENABLE + 0x70, 0xffff_ffffn, true],
    ['extended LVT', LAPIC.EXTENDED_LVT + 0x30, 0x1_07ffn, true],
    ['what comes after', LAPIC.EXTENDED_LVT + 0x40, 0n, false],
    ['bits 63:32', LAPIC.TPR, 0x1_0000_0000n, false],
  ])(
    'checks reserved bits of x2APIC MSRs: %s (APM vol.2 §16.11.3 Reserved Bit Checking)',
    (_, register, value, legal) => {
      const it = new ApicBench();
      it.base(0xfee0_0c00n);
      expect(it.setMsr(register, value) !== undefined).toBe(legal);
    },
  );

  it('has no TSC-deadline mode, no x2APIC mode and no extended registers where they are not reported', () => {
    const it = new ApicBench();
    Object.assign(it.state, initialLocalApic(0, { x2apic: false, tscDeadline: false, extended: false }));
    it.set(LAPIC.SVR, 0x1ff);
    it.set(LAPIC.LVT_TIMER, TSC_DEADLINE | 0x40);
    expect(it.get(LAPIC.LVT_TIMER)).toBe(0x40);
    expect(it.base(0xfee0_0c00n)).toBe(false);
    expect([it.get(LAPIC.VERSION), it.get(LAPIC.EXTENDED_FEATURE)]).toEqual([0x0005_0014, 0]);
    it.set(LAPIC.ESR, 0);
    expect(it.get(LAPIC.ESR)).toBe(0x80);
  });
});

describe('AMD’s extended local APIC registers (APM vol.2 §16.3.5, §16.3.6, §16.7)', () => {
  const CONTROL_IER = 0x1;
  const CONTROL_SEOI = 0x2;

  it('come up as table 16-2 has them', () => {
    const it = new ApicBench();
    expect(it.get(LAPIC.VERSION)).toBe(0x8005_0014);
    expect([0x400, 0x410, 0x420, 0x480, 0x4f0, 0x500, 0x530].map((register) => it.get(register))).toEqual([
      0x0004_0007, 0, 0, 0xffff_ffff, 0xffff_ffff, 0, 0,
    ]);
    it.set(LAPIC.EXTENDED_FEATURE, 0);
    expect(it.get(LAPIC.EXTENDED_FEATURE)).toBe(0x0004_0007);
    it.set(0x510, 0xffff_ffff);
    expect(it.get(0x510)).toBe(0x1_07ff);
  });

  it('take vectors out of the choice of the next interrupt, once enabled (§16.7.2 Interrupt Enable Register)', () => {
    const it = new ApicBench();
    it.accept(0x61);
    it.accept(0x42);
    it.set(LAPIC.INTERRUPT_ENABLE + 0x30, 0);
    expect(it.pending).toBe(0x61); // not enabled yet
    it.set(LAPIC.EXTENDED_CONTROL, CONTROL_IER);
    it.set(LAPIC.INTERRUPT_ENABLE + 0x30, 0xffff_fffd);
    expect(it.pending).toBe(0x42);
    expect(it.get(LAPIC.IRR + 0x30)).toBe(0x2); // it waits
    it.set(LAPIC.INTERRUPT_ENABLE + 0x30, 0xffff_ffff);
    expect(it.pending).toBe(0x61);
    it.set(LAPIC.INTERRUPT_ENABLE, 0xffff_ffff);
    expect(it.get(LAPIC.INTERRUPT_ENABLE)).toBe(0xffff_0000);
  });

  it('end a vector of software’s choice, once enabled (§16.7.1 Specific End of Interrupt Register)', () => {
    const it = new ApicBench();
    for (const vector of [0x41, 0x62]) {
      it.accept(vector, vector === 0x41);
      it.acknowledge();
    }
    it.set(LAPIC.SPECIFIC_EOI, 0x41);
    expect(it.get(LAPIC.PPR)).toBe(0x60);
    it.set(LAPIC.EXTENDED_CONTROL, CONTROL_SEOI);
    const ended = registers.decidePageWrite(it.state, LAPIC.SPECIFIC_EOI, 0x41, 4, nanoseconds(0));
    expect(ended).toEqual({ events: [{ type: 'lapic.ended', apic: 0, vector: 0x41 }], ipis: [], ended: 0x41 });
    it.apply(ended.events);
    expect([it.get(LAPIC.ISR + 0x20), it.get(LAPIC.ISR + 0x30)]).toEqual([0, 4]);
    expect(it.set(LAPIC.SPECIFIC_EOI, 0x41)).toEqual([]); // is not in service
  });

  it('have their entries masked with the others while the APIC is disabled by software (§16.3.1)', () => {
    const it = new ApicBench();
    it.set(0x500, 0x41);
    it.set(LAPIC.SVR, 0xff);
    expect(it.get(0x500)).toBe(MASKED | 0x41);
  });
});

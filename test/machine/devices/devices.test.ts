import { describe, expect, it } from 'vitest';
import { PM_TIMER_HERTZ } from '../../../src/machine/devices/acpi-pm-timer.js';
import * as devices from '../../../src/machine/devices/devices.js';
import { LAPIC } from '../../../src/machine/devices/local-apic-state.js';
import { PIT_HERTZ } from '../../../src/machine/devices/pit-8254.js';
import { timeOfTick } from '../../../src/machine/devices/ticks.js';
import { nanoseconds } from '../../../src/machine/units.js';
import { Board, LOCAL_APIC_PAGE } from './board.js';

describe('device wiring', () => {
  it('brings the timer through the 8259 and LINT0 to the bootstrap processor (MP Specification §3.6.2.2)', () => {
    const it = new Board(2);
    it.initializePIC();
    it.startTimer();
    const programmed = it.events.length;
    it.acknowledge(); // mode 2 raised the output as it was programmed
    it.out(0x20, 0x20);
    it.jump();
    expect(it.now).toBe(timeOfTick(101, PIT_HERTZ));
    expect(it.events.slice(programmed).map((event) => event.type)).toEqual([
      'pic.acknowledged',
      'pic.ended',
      'pit.output',
      'pic.pulse',
    ]);
    expect(it.pending(0)).toEqual({ kind: 'extint' });
    expect(it.pending(1)).toBeUndefined();
    expect(it.acknowledge()).toBe(0x20);
    expect(it.pending()).toBeUndefined();
  });

  it('brings the timer to input 2 of the I/O APIC (ACPI interrupt source override of IRQ 0)', () => {
    const it = new Board();
    it.redirect(2, 0x31);
    it.startTimer();
    it.jump();
    expect(it.pending()).toEqual({ kind: 'apic', vector: 0x31 });
    expect(it.acknowledge()).toBe(0x31);
    it.lapic(0, LAPIC.EOI, 0);
    it.jump();
    expect(it.events.at(-1)).toEqual({ type: 'lapic.accepted', apic: 0, vector: 0x31, level: false });
  });

  it('raises IRQ 0 once in mode 0, and lowers it with the next count', () => {
    const it = new Board();
    it.initializePIC();
    it.startTimer(0x30);
    expect(it.pending()).toBeUndefined();
    it.jump();
    expect(it.acknowledge()).toBe(0x20);
    it.out(0x20, 0x20);
    it.out(0x40, 100);
    it.out(0x40, 0);
    expect(it.events.filter((event) => event.type === 'pic.line')).toHaveLength(2);
    it.jump();
    expect(it.acknowledge()).toBe(0x20);
  });

  it('sends a level again while it is active after its EOI (82093AA §3.2.4, Remote IRR)', () => {
    const it = new Board();
    it.redirect(14, 0x8077);
    it.out(0x200e, 1);
    expect(it.acknowledge()).toBe(0x77);
    expect(it.pending()).toBeUndefined();
    it.lapic(0, LAPIC.EOI, 0);
    expect(it.acknowledge()).toBe(0x77);
    it.out(0x200e, 0);
    it.lapic(0, LAPIC.EOI, 0);
    expect(it.pending()).toBeUndefined();
  });

  it('loses an edge at a masked input, and sends a level when it is unmasked (kvm-unit-tests x86/ioapic.c)', () => {
    const it = new Board();
    it.redirect(14, 0x1_0081);
    it.out(0x200e, 1);
    it.redirect(14, 0x81);
    expect(it.pending()).toBeUndefined();
    it.redirect(14, 0x1_8082);
    expect(it.pending()).toBeUndefined();
    it.redirect(14, 0x8082);
    expect(it.pending()).toEqual({ kind: 'apic', vector: 0x82 });
  });

  it('asks the 8259 for an ExtINT message of the I/O APIC (82093AA §3.2.4, Delivery Mode)', () => {
    const it = new Board();
    it.lapic(0, LAPIC.LVT_LINT0, 0x1_0700);
    it.initializePIC();
    it.redirect(14, 0x0700);
    it.out(0x200e, 1);
    expect(it.pending()).toEqual({ kind: 'extint' });
    expect(it.acknowledge()).toBe(0x2e);
    expect(it.pending()).toBeUndefined();
  });

  it('turns INTR into a fixed interrupt or an NMI when LINT0 says so (APM vol.2 §16.4.2)', () => {
    const it = new Board(2);
    it.initializePIC();
    it.lapic(0, LAPIC.LVT_LINT0, 0x0044);
    it.lapic(1, LAPIC.LVT_LINT0, 0x0400);
    it.out(0x4d0, 0x08); // a level: INTR falls with its line
    it.out(0x2003, 1);
    expect(it.pending(0)).toEqual({ kind: 'apic', vector: 0x44 });
    expect(it.signals).toEqual([{ vcpu: 1, kind: 'nmi', vector: 0 }]);
    it.out(0x2003, 0);
    expect(it.state.localApics.map((apic) => apic.lint[0])).toEqual([false, false]);
  });

  it('carries the serial port’s and the clock’s lines', () => {
    const it = new Board();
    it.initializePIC();
    it.out(0x3fc, 0x08);
    it.out(0x3f9, 0x01);
    expect(devices.serialRoom(it.state)).toBe(1);
    it.apply(devices.decideSerialInput(it.state, [0x41]));
    expect(it.acknowledge()).toBe(0x24);
    expect(it.in(0x3f8)).toBe(0x41);
    it.out(0x20, 0x20);
    it.out(0x70, 0x0b);
    it.out(0x71, 0x42);
    it.jump();
    expect(it.acknowledge()).toBe(0x28);
  });

  it('brings the power-management timer’s carry and the clock’s alarm to input 9 (ACPI 6.5 §4.8.3.1, SCI)', () => {
    const it = new Board();
    it.redirect(9, 0x8039);
    it.out(0x602, 0x0401, 2);
    it.jump();
    expect(it.now).toBe(timeOfTick(2 ** 23, PM_TIMER_HERTZ));
    expect(it.acknowledge()).toBe(0x39);
    it.lapic(0, LAPIC.EOI, 0);
    expect(it.acknowledge()).toBe(0x39); // a level: again, until its status is cleared
    it.out(0x600, 0x0001, 2);
    it.lapic(0, LAPIC.EOI, 0);
    expect(it.pending()).toBeUndefined();
    for (const [index, value] of [
      [0x01, 0xff],
      [0x03, 0xff],
      [0x05, 0xff],
      [0x0b, 0x22],
    ] as const) {
      it.out(0x70, index);
      it.out(0x71, value);
    }
    it.jump();
    expect(it.now).toBe(3_000_000_000);
    expect([it.in(0x600, 2), it.acknowledge()]).toEqual([0x0400, 0x39]);
  });

  it('tells as data what concerns the whole machine: its end, RESET, INIT', () => {
    const request = (...writes: readonly (readonly [port: number, value: number, size?: number])[]) => {
      const it = new Board();
      for (const [port, value, size] of writes) it.out(port, value, size);
      return it.request;
    };
    expect(request([0xf4, 0x10, 4])).toEqual({ kind: 'end', reason: 'debug-exit', status: 0x21 });
    expect(request([0x604, 0x2000, 2])).toEqual({ kind: 'end', reason: 'shutdown', status: 0 });
    for (const value of [0x06, 0x0e]) expect(request([0xcf9, value])).toEqual({ kind: 'reset' });
    expect(request([0xcf9, 0x04])).toEqual({ kind: 'init' });
    expect(request([0x64, 0xfe])).toEqual({ kind: 'init' });
    expect(request([0x64, 0xd1], [0x60, 0x02])).toEqual({ kind: 'init' });
    expect(request([0x92, 0x03])).toEqual({ kind: 'init' });
    expect(request([0x3f8, 0x41])).toBeNull();
    expect(request([0xcf9, 0x02])).toBeNull();
  });

  it('splits wide accesses to 8-bit devices into bytes', () => {
    const it = new Board();
    it.out(0x70, 0xab40, 2); // index 40h, then data ABh
    it.out(0x70, 0x40);
    expect(it.in(0x71)).toBe(0xab);
    expect(it.in(0x64, 2)).toBe(0xff00);
    it.out(0x3fb, 0x80);
    it.out(0x3f8, 0x0102, 2);
    expect(it.state.uart.divisor).toBe(0x0102);
  });

  it('leaves unclaimed accesses to the machine (law 8)', () => {
    const it = new Board();
    expect(it.in(0x2f8)).toBeUndefined();
    expect(it.out(0x2f8, 0)).toBe(false);
    expect(it.load(0, 0xfed8_0000)).toBeUndefined();
    expect(it.store(0, 0xfed8_0000, 0)).toBe(false);
    expect(it.in(0xcfc, 4)).toBe(0xffff_ffff);
    expect(it.out(0x80, 1)).toBe(true);
  });

  it('moves the register page with the APIC base, and hides it in x2APIC mode or when off (APM vol.2 §16.3.1)', () => {
    const it = new Board(2);
    const context = { tscOffset: 0n, physicalAddressBits: 48 };
    const base = (value: bigint) => {
      const written = devices.decideMsrWrite(it.state, 0, 0x1b, value, it.now, context);
      if (written === 'fault' || written === undefined) return false;
      return it.apply(written);
    };
    expect(base(0xfed4_0800n)).toBe(true);
    expect(it.load(0, 0xfed4_0000 + LAPIC.VERSION)).toBe(0x8005_0014);
    expect(it.load(0, LOCAL_APIC_PAGE + LAPIC.VERSION)).toBeUndefined();
    expect(it.load(1, LOCAL_APIC_PAGE + LAPIC.VERSION)).toBe(0x8005_0014);
    expect(base(0xfed4_0c00n)).toBe(true);
    expect(devices.isDeviceMemory(it.state, 0, 0xfed4_0000)).toBe(false);
    expect(devices.readMsr(it.state, 0, 0x803, it.now)).toBe(0x8005_0014n);
    expect(devices.readMsr(it.state, 1, 0x803, it.now)).toBe('fault');
    expect(devices.readMsr(it.state, 0, 0x10, it.now)).toBeUndefined();
    expect(base(0xfed4_0800n)).toBe(false);
  });

  it('accesses TPR as CR8 (APM vol.2 §8.5.1 External Interrupts)', () => {
    const it = new Board();
    it.apply(devices.decideCR8Write(it.state, 0, 0x5));
    expect(it.load(0, LOCAL_APIC_PAGE + LAPIC.TPR)).toBe(0x50);
    expect(devices.readCR8(it.state, 0)).toBe(5);
  });

  it('finds the nearest deadline of all devices', () => {
    const it = new Board(2);
    expect(devices.nextDeadline(it.state)).toBeUndefined();
    it.startTimer();
    it.lapic(1, LAPIC.LVT_TIMER, 0x40);
    it.lapic(1, LAPIC.TIMER_DIVIDE, 0x0b);
    it.lapic(1, LAPIC.TIMER_INITIAL, 500);
    expect(devices.nextDeadline(it.state)).toBe(500);
    it.jump();
    expect(it.pending(1)).toEqual({ kind: 'apic', vector: 0x40 });
    // The 8259 has an edge of the timer latched already: nobody would hear another, until the I/O APIC's input is unmasked.
    expect(devices.nextDeadline(it.state)).toBeUndefined();
    it.redirect(2, 0x50);
    expect(devices.nextDeadline(it.state)).toBe(timeOfTick(101, PIT_HERTZ));
    devices.reduceClock(it.state, 86_400);
    expect(it.in(0x71)).toBe(0);
  });

  it('forgets edges of the timer that nobody heard, and goes on with the next in time', () => {
    const it = new Board();
    it.initializePIC();
    it.startTimer();
    // An edge is latched; those of the next ten periods change nothing, and are no deadlines.
    expect(devices.nextDeadline(it.state)).toBeUndefined();
    it.now = nanoseconds(timeOfTick(1050, PIT_HERTZ));
    expect(it.acknowledge()).toBe(0x20);
    it.out(0x20, 0x20);
    expect(it.pending()).toBeUndefined();
    expect(devices.nextDeadline(it.state)).toBe(timeOfTick(1101, PIT_HERTZ));
    it.jump();
    expect(it.acknowledge()).toBe(0x20);
  });
});

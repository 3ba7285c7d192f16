import { describe, expect, it } from 'vitest';
import {
  decideEnd,
  decideLine,
  IO_APIC,
  IOAPIC,
  messageOf,
  pendingLevels,
  sendsEdge,
} from '../../../src/machine/devices/io-apic.js';
import { Bench } from './given.js';

const LEVEL = 0x8000;
const REMOTE_IRR = 0x4000;
const MASKED = 0x1_0000;

class IoApicBench extends Bench<ReturnType<typeof IO_APIC.initial>, Parameters<typeof IO_APIC.reduce>[1]> {
  constructor() {
    super(IO_APIC);
  }
  get(index: number): number {
    this.write(IOAPIC.SELECT, index, 0, 4);
    return this.read(IOAPIC.DATA, 0, 4);
  }
  set(index: number, value: number): void {
    this.write(IOAPIC.SELECT, index, 0, 4);
    this.write(IOAPIC.DATA, value, 0, 4);
  }
}

describe('I/O APIC', () => {
  it('resets with all entries masked (82093AA §3.2.4 I/O Redirection Table Registers)', () => {
    const it = new IoApicBench();
    expect(it.get(0x10)).toBe(MASKED);
    expect(it.get(0x3e)).toBe(MASKED);
    expect(it.get(0x40)).toBe(0);
  });

  it('keeps version and arbitration read-only, and ID bits 27:24 alone (82093AA §3.2.1 to §3.2.3)', () => {
    const it = new IoApicBench();
    expect(it.get(1)).toBe(0x0017_0020);
    it.set(1, 0);
    expect(it.get(1)).toBe(0x0017_0020);
    it.set(0, 0xffff_ffff);
    expect(it.get(0)).toBe(0x0f00_0000);
    it.set(2, 0);
    expect(it.get(2)).toBe(0x0f00_0000);
  });

  it('describes the message of an entry (82093AA §3.2.4)', () => {
    const it = new IoApicBench();
    it.set(0x10 + 2 * 4, 0x0931);
    it.set(0x11 + 2 * 4, 0x0300_0000);
    expect(messageOf(it.state, 4)).toEqual({
      vector: 0x31,
      mode: 1,
      level: false,
      logical: true,
      destination: 3,
      broadcast: false,
      shorthand: 'none',
    });
    expect(sendsEdge(it.state, 4)).toBe(true);
    expect(sendsEdge(it.state, 5)).toBe(false);
  });

  it('sends levels while active, unmasked and without remote IRR (82093AA §3.2.4, Remote IRR)', () => {
    const it = new IoApicBench();
    it.set(0x10 + 2 * 9, LEVEL | MASKED | 0x39);
    it.apply(decideLine(it.state, 9, true));
    expect(pendingLevels(it.state)).toBe(0);
    it.set(0x10 + 2 * 9, LEVEL | 0x39);
    expect(pendingLevels(it.state)).toBe(1 << 9);
    it.apply([{ type: 'ioapic.sent', pin: 9 }]);
    expect(it.get(0x10 + 2 * 9)).toBe(LEVEL | REMOTE_IRR | 0x39);
    expect(pendingLevels(it.state)).toBe(0);
    expect(decideEnd(it.state, 0x38)).toEqual([]);
    it.write(IOAPIC.EOI, 0x39, 0, 4);
    expect(pendingLevels(it.state)).toBe(1 << 9);
  });

  it('reads bytes of its registers (82093AA §3.1)', () => {
    const it = new IoApicBench();
    it.set(0x12, 0x1_8931);
    expect([0, 1, 2, 3].map((at) => it.read(IOAPIC.DATA + at, 0, 1))).toEqual([0x31, 0x89, 0x01, 0x00]);
    expect([it.read(IOAPIC.DATA + 2, 0, 2), it.read(IOAPIC.SELECT, 0, 1)]).toEqual([0x0001, 0x12]);
    expect(it.write(IOAPIC.DATA, 0x44, 0, 1)).toEqual([]);
  });

  it('tells a level that nobody takes as send pending (82093AA §3.2.4, Delivery Status)', () => {
    const it = new IoApicBench();
    it.set(0x10 + 2 * 9, LEVEL | 0x39);
    it.apply(decideLine(it.state, 9, true));
    expect(it.get(0x10 + 2 * 9)).toBe(LEVEL | 0x1000 | 0x39);
    it.apply([{ type: 'ioapic.sent', pin: 9 }]);
    expect(it.get(0x10 + 2 * 9)).toBe(LEVEL | REMOTE_IRR | 0x39);
    it.set(0x10 + 2 * 9, 0xffff_ffff);
    expect(it.get(0x10 + 2 * 9)).toBe(MASKED | REMOTE_IRR | 0xafff); // read-only bits stay
  });

  it.each([
    ['fixed', 0, true],
    ['lowest priority', 1, true],
    ['SMI', 2, false],
    ['NMI', 4, false],
    ['INIT', 5, false],
    ['ExtINT', 7, false],
  ])('with message type %s a level-triggered entry waits for an EOI, or is an edge after all', (_, type, level) => {
    const it = new IoApicBench();
    it.set(0x10 + 2 * 9, LEVEL | (type << 8) | 0x39);
    expect([messageOf(it.state, 9).level, sendsEdge(it.state, 9)]).toEqual([level, !level]);
    it.apply(decideLine(it.state, 9, true));
    expect(pendingLevels(it.state) !== 0).toBe(level);
  });

  it('clears remote IRR on a switch to edge triggering', () => {
    const it = new IoApicBench();
    it.set(0x10 + 2 * 9, LEVEL | 0x39);
    it.apply([{ type: 'ioapic.sent', pin: 9 }]);
    it.set(0x10 + 2 * 9, 0x39);
    expect(it.get(0x10 + 2 * 9)).toBe(0x39);
  });
});

import { describe, expect, it } from 'vitest';
import { decideReceive, UART, uartRoom } from '../../../src/machine/devices/uart-16550.js';
import { Bench, given, read, write } from './given.js';

const RBR = 0;
const IER = 1;
const IIR = 2;
const FCR = 2;
const LCR = 3;
const MCR = 4;
const LSR = 5;
const MSR = 6;
const SCR = 7;
const OUT2 = 0x08;

const bench = () => new Bench(UART);

describe('UART 16550', () => {
  it('transmits a byte at once and keeps THR empty (PC16550D §8.4 Line Status Register)', () => {
    given(UART).when(write(RBR, 0x41)).then({ type: 'uart.transmitted', byte: 0x41 });
    given(UART, [{ type: 'uart.transmitted', byte: 0x41 }])
      .when(read(LSR))
      .thenValue(0x60);
  });

  it('writes the divisor latch while DLAB is set (PC16550D §8.1 Line Control Register, bit 7)', () => {
    const it = bench();
    it.write(LCR, 0x83);
    it.write(0, 0x01);
    it.write(1, 0x02);
    expect([it.read(0), it.read(1)]).toEqual([0x01, 0x02]);
    it.write(LCR, 0x03);
    expect(it.read(IER)).toBe(0);
    expect(it.state.divisor).toBe(0x0201);
  });

  it('gives received bytes in order and tells data ready (PC16550D §8.4, bit 0)', () => {
    const it = bench();
    it.write(FCR, 0x01);
    it.apply(decideReceive(it.state, [1, 2, 3]));
    expect(it.read(LSR) & 1).toBe(1);
    expect([it.read(RBR), it.read(RBR), it.read(RBR)]).toEqual([1, 2, 3]);
    expect(it.read(LSR) & 1).toBe(0);
  });

  it('keeps the FIFO and loses the new byte on overrun (PC16550D §8.4, bit 1)', () => {
    const it = bench();
    it.write(FCR, 0x01);
    expect(uartRoom(it.state)).toBe(16);
    it.apply(
      decideReceive(
        it.state,
        Array.from({ length: 17 }, (_, index) => index),
      ),
    );
    expect(it.read(LSR)).toBe(0x63);
    expect(it.read(LSR)).toBe(0x61); // reading cleared OE
    expect(Array.from({ length: 16 }, () => it.read(RBR))).toEqual(Array.from({ length: 16 }, (_, index) => index));
  });

  it('replaces the unread byte on overrun without FIFOs (PC16550D §8.4, bit 1)', () => {
    const it = bench();
    it.apply(decideReceive(it.state, [1, 2]));
    expect(it.read(LSR)).toBe(0x63);
    expect(it.read(RBR)).toBe(2);
  });

  it('reports data below the trigger level as a time-out, at the level as received (PC16550D §8.5, table III)', () => {
    const it = bench();
    it.write(MCR, OUT2);
    it.write(IER, 0x01);
    it.write(FCR, 0x41); // trigger at 4
    it.apply(decideReceive(it.state, [1, 2, 3]));
    expect(it.read(IIR)).toBe(0xcc);
    it.apply(decideReceive(it.state, [4]));
    expect(it.read(IIR)).toBe(0xc4);
    expect(it.line()).toBe(true);
  });

  it('raises THRE when its interrupt is enabled, and again after each byte (PC16550D §8.5, table III)', () => {
    const it = bench();
    it.write(MCR, OUT2);
    it.write(IER, 0x02);
    expect(it.line()).toBe(true);
    expect(it.read(IIR)).toBe(0x02);
    expect(it.line()).toBe(false);
    expect(it.read(IIR)).toBe(0x01);
    it.write(RBR, 0x58);
    expect(it.line()).toBe(true);
  });

  it('ranks line status above received data above THRE (PC16550D §8.5, table III)', () => {
    const it = bench();
    it.write(IER, 0x0f);
    it.apply(decideReceive(it.state, [1, 2]));
    expect(it.read(IIR)).toBe(0x06);
    it.read(LSR);
    expect(it.read(IIR)).toBe(0x04);
    it.read(RBR);
    expect(it.read(IIR)).toBe(0x02);
    expect(it.read(IIR)).toBe(0x01);
  });

  it('drives no interrupt while OUT2 is off (IBM PC Technical Reference, Asynchronous Adapter)', () => {
    const it = bench();
    it.write(IER, 0x02);
    expect(it.line()).toBe(false);
    it.write(MCR, OUT2);
    expect(it.line()).toBe(true);
  });

  it('loops bytes and modem outputs back (PC16550D §8.7 Modem Control Register, bit 4)', () => {
    const it = bench();
    it.write(MCR, 0x1f);
    expect(it.write(RBR, 0x5a)).toEqual([{ type: 'uart.looped', byte: 0x5a }]);
    expect(it.read(RBR)).toBe(0x5a);
    expect(it.read(MSR) & 0xf0).toBe(0xf0);
    it.write(MCR, 0x10);
    expect(it.read(MSR)).toBe(0x0f); // all four fell
    expect(it.read(MSR)).toBe(0x00);
    expect(decideReceive(it.state, [1])).toEqual([]);
  });

  it('clears the receiver when FIFOs are switched or reset (PC16550D §8.6 FIFO Control Register)', () => {
    const it = bench();
    it.write(FCR, 0x01);
    it.apply(decideReceive(it.state, [1, 2]));
    it.write(FCR, 0x03);
    expect(it.read(LSR) & 1).toBe(0);
    expect(it.read(IIR)).toBe(0xc1);
  });

  it('states nothing for a read of LSR, a repeated write, and the read-only registers', () => {
    given(UART).when(read(LSR)).thenValue(0x60);
    given(UART).when(write(LCR, 0)).then();
    given(UART).when(write(LSR, 0xff)).then();
    given(UART).when(write(SCR, 0x12)).then({ type: 'uart.written', register: 'SCR', value: 0x12 });
  });
});

/** Sleeping costs nothing: a machine that waits goes to its next deadline, however far that is. */
import { describe, expect, it } from 'vitest';
import { LiveMachine } from '../support/live-machine.js';

const SECOND = 1_000_000_000;
const HOUR = 3600 * SECOND;
const IRQ_8 = 0x70;

const byte = (value: number): string => value.toString(16).padStart(2, '0');
/** MOV AL, value; OUT port, AL. */
const out = (port: number, value: number): string => `b0${byte(value)} e6${byte(port)}`;
const cmos = (index: number, value: number): string => `${out(0x70, index)} ${out(0x71, value)}`;
/** The clock's interrupt alone passes the 8259 pair. */
const CLOCK_ALONE = `${out(0x21, 0xfb)} ${out(0xa1, 0xfe)}`;
const STI_HLT = 'fb f4';

describe('a guest that sleeps', () => {
  it('for an hour, until the alarm of the clock, is a handful of events', () => {
    const alarm = `${cmos(0x05, 0x01)} ${cmos(0x03, 0x00)} ${cmos(0x01, 0x00)} ${cmos(0x0b, 0x22)}`;
    const live = new LiveMachine(`${CLOCK_ALONE} ${alarm} ${STI_HLT}`);
    live.run();
    expect(live.vectors).toEqual([IRQ_8]);
    expect(live.machine.now).toBeGreaterThan(HOUR - SECOND);
    expect(live.machine.now).toBeLessThan(HOUR + SECOND);
    expect(live.retired).toBeLessThan(50);
    expect(live.events.length).toBeLessThan(40);
  });

  it('for an hour with four vCPUs, three of which wait for a start-up interrupt, costs no more', () => {
    const alarm = `${cmos(0x05, 0x01)} ${cmos(0x03, 0x00)} ${cmos(0x01, 0x00)} ${cmos(0x0b, 0x22)}`;
    const live = new LiveMachine(`${CLOCK_ALONE} ${alarm} ${STI_HLT}`, {}, undefined, undefined, { vcpus: 4 });
    live.run();
    expect(live.vectors).toEqual([IRQ_8]);
    expect(live.events.length).toBeLessThan(40);
  });
});

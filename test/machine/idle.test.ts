/** Sleeping costs nothing: a machine that waits goes to its next deadline, however far that is. */
import { describe, expect, it } from 'vitest';
import { DATA, LiveMachine } from '../support/live-machine.js';

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

describe('MWAITX with a timer (APM vol.3, MWAITX)', () => {
  const NAP = 5_000_000;
  const MILLISECOND = 1_000_000;
  const hex32 = (value: number): string => Buffer.from(Uint32Array.of(value).buffer).toString('hex');
  /** MOV EAX, DATA; XOR ECX, ECX; XOR EDX, EDX; MONITORX; MOV ECX, extensions; MOV EBX, ticks; what is between; MWAITX. */
  const nap = (extensions: number, between = ''): string =>
    `b8${hex32(DATA)} 31c9 31d2 0f01fa b9${hex32(extensions)} bb${hex32(NAP)} ${between} 0f01fb`;
  /** Channel 0 of the 8254 interrupts in half a millisecond, and nothing else does. */
  const TIMER = `${out(0x21, 0xfe)} ${out(0x43, 0x30)} ${out(0x40, 0x54)} ${out(0x40, 0x02)}`;
  const CLI_HLT = 'fa f4';
  const slept = (code: string, vcpus = 1): LiveMachine => {
    const live = new LiveMachine(`${code} ${CLI_HLT}`, {}, undefined, undefined, { vcpus });
    live.run();
    return live;
  };

  it.each([1, 4])('is time that passes, not instructions; with %i vCPUs of which the others wait', (vcpus) => {
    const live = slept(nap(2), vcpus);
    expect(live.machine.now).toBeGreaterThanOrEqual(NAP);
    expect(live.machine.now).toBeLessThan(NAP + 1000);
    expect(live.events.filter(({ type }) => type === 'time.skipped').length).toBe(1);
    expect(live.retired).toBeLessThan(12);
  });

  it('ends with an interrupt', () => {
    const live = slept(`${TIMER} fb ${nap(2)}`);
    expect(live.vectors).toEqual([8]);
    expect(live.machine.now).toBeLessThan(MILLISECOND);
  });

  it('ends with a masked interrupt when ECX[0] is set, and has ended at the next one without', () => {
    const pending = `${TIMER} ${nap(2)}`;
    expect(slept(`${pending} ${nap(3)}`).machine.now).toBeLessThan(MILLISECOND);
    expect(slept(`${pending} ${nap(2)}`).machine.now).toBeGreaterThan(NAP);
  });

  it('is over at once when the line has been written to', () => {
    // INC dword [rax]
    expect(slept(nap(2, 'ff00')).machine.now).toBeLessThan(1000);
  });

  it('is over at once for a masked interrupt without a timer, which it may be for any reason', () => {
    expect(slept(nap(1)).machine.now).toBeLessThan(1000);
  });
});

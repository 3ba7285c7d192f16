import { describe, expect, it } from 'vitest';
import { KvmMsr } from '../../../src/machine/paravirt/msr.js';
import { sPA } from '../../../src/machine/units.js';
import { AREA, IF, KvmMachine, WRMSR } from '../../support/kvm-machine.js';
import { CODE } from '../../support/live-machine.js';

const SEND_IPI = 10;
const LEVEL = 1n << 15n;
const IRETQ = '48cf';
/** `btr dword [AREA], 0`; then `iretq`. */
const END_IN_MEMORY = `0fba342500002100 00 ${IRETQ}`;
/** `mov ecx, 80bh; xor eax, eax; xor edx, edx; wrmsr`; then `iretq`: EOI of an x2APIC. */
const END_AT_APIC = `b90b080000 31c0 31d2 ${WRMSR} ${IRETQ}`;

/** Interrupts on, and the local APIC in x2APIC mode; EOI by memory is offered at `AREA`. */
function machine(): KvmMachine {
  const live = new KvmMachine().withoutPics();
  live.writeMsr(0x1b, 0xfee0_0d00n);
  live.writeMsr(KvmMsr.EOI_EN, BigInt(AREA) | 1n);
  return live;
}
/** Makes interrupts pending, and goes on with interrupts on. */
function interrupt(live: KvmMachine, ...messages: readonly bigint[]): void {
  live.set({ rflags: 2n });
  for (const message of messages) live.hypercall(SEND_IPI, 1n, 0n, 0n, message);
  goOn(live);
}
function goOn(live: KvmMachine): void {
  live.put(CODE, '90 90 f4').set({ rip: BigInt(CODE), rflags: IF, activity: 0n });
  live.run();
}
const told = (live: KvmMachine) => live.eventsOf('paravirt.eoi').map(({ what }) => what);
const inService = (live: KvmMachine) => live.machine.state.devices.localApics[0]?.isr.some((word) => word !== 0);

describe('the end of an interrupt by memory (Linux, kvm/x86/msr.rst, MSR_KVM_EOI_EN)', () => {
  it('is offered when one is taken: bit 0 is set', () => {
    const live = machine().handle(0x40, 'f4');
    interrupt(live, 0x40n);
    expect(live.vectors).toEqual([0x40]);
    expect(live.read(AREA, 4)).toBe(1n);
    expect(told(live)).toEqual(['offered']);
  });

  it('is seen when the next interrupt comes, which may then be taken', () => {
    const live = machine().handle(0x40, END_IN_MEMORY).handle(0x41, END_IN_MEMORY);
    interrupt(live, 0x41n);
    expect(inService(live)).toBe(true);
    expect(told(live)).toEqual(['offered']);
    interrupt(live, 0x40n);
    expect(live.vectors).toEqual([0x41, 0x40]);
    expect(told(live)).toEqual(['offered', 'taken', 'offered']);
  });

  it('is seen when software looks at its APIC', () => {
    const live = machine().handle(0x40, END_IN_MEMORY);
    interrupt(live, 0x40n);
    expect(live.readMsr(0x812)).toBe(0n); // ISR of vectors 40h to 5fh
    expect(told(live)).toEqual(['offered', 'taken']);
    expect(inService(live)).toBe(false);
  });

  it('is seen through the register page, too', () => {
    const live = new KvmMachine().withoutPics().handle(0x40, END_IN_MEMORY);
    live.writeMsr(KvmMsr.EOI_EN, BigInt(AREA) | 1n);
    interrupt(live, 0x40n);
    expect(live.machine.bus.read(sPA(0xfee0_0120), 4)).toBe(0n);
    interrupt(live, 0x40n);
    live.machine.bus.write(sPA(0xfee0_00b0), 4, 0n); // there is nothing left to end
    expect(told(live)).toEqual(['offered', 'taken', 'offered', 'taken']);
    expect(live.eventsOf('lapic.ended')).toHaveLength(2);
  });

  it('is withdrawn when an interrupt comes before the guest has made use of it', () => {
    const live = machine().handle(0x41, IRETQ).handle(0x40, END_IN_MEMORY);
    interrupt(live, 0x41n);
    interrupt(live, 0x40n);
    expect(live.read(AREA, 4)).toBe(0n);
    expect(told(live)).toEqual(['offered', 'withdrawn']);
    expect(live.vectors).toEqual([0x41]); // 40h waits for the end of 41h
    live.set({ rflags: 2n }).writeMsr(0x80b, 0n);
    goOn(live);
    expect(live.vectors).toEqual([0x41, 0x40]);
  });

  it('may be ignored: a write to the APIC ends it', () => {
    const live = machine().handle(0x40, END_AT_APIC);
    interrupt(live, 0x40n);
    expect(inService(live)).toBe(false);
    expect(live.read(AREA, 4)).toBe(0n);
    expect(told(live)).toEqual(['offered', 'withdrawn']);
  });

  it('ends the inner one of two: the outer one is ended at the APIC', () => {
    // The handler of 40h lets 50h in, whose end is by memory, and then writes to its APIC.
    const live = machine().handle(0x40, `fb 90 90 fa ${END_AT_APIC}`).handle(0x50, END_IN_MEMORY);
    live.put(CODE, '90').set({ rflags: 2n });
    live.hypercall(SEND_IPI, 1n, 0n, 0n, 0x40n);
    live.put(CODE, '90 90 f4').set({ rip: BigInt(CODE), rflags: IF, activity: 0n });
    live.run(1); // in the handler of 40h
    live.machine.apply({
      ...{ signals: [], request: null },
      events: [{ type: 'lapic.accepted', apic: 0, vector: 0x50, level: false }],
    });
    live.run();
    expect(live.vectors).toEqual([0x40, 0x50]);
    expect(live.eventsOf('lapic.ended').map(({ vector }) => vector)).toEqual([0x50, 0x40]);
    expect(told(live)).toEqual(['offered', 'withdrawn', 'offered', 'taken']);
  });

  it('is not offered while another interrupt waits', () => {
    const live = machine().handle(0x41, 'f4');
    interrupt(live, 0x40n, 0x41n);
    expect(live.vectors).toEqual([0x41]);
    expect(told(live)).toEqual([]);
  });

  it('is not offered for a level-triggered interrupt, whose end I/O APICs must hear', () => {
    const live = machine().handle(0x40, 'f4');
    interrupt(live, 0x40n | LEVEL);
    expect(live.vectors).toEqual([0x40]);
    expect(told(live)).toEqual([]);
  });

  it('is not offered once it is disabled, and what is under way is settled before', () => {
    const live = machine().handle(0x40, END_IN_MEMORY);
    interrupt(live, 0x40n);
    live.writeMsr(KvmMsr.EOI_EN, 0n);
    expect(told(live)).toEqual(['offered', 'taken']);
    interrupt(live, 0x40n);
    expect(told(live)).toEqual(['offered', 'taken']);
  });

  it('changes one byte of its word', () => {
    const live = machine().handle(0x40, IRETQ).store(AREA, 4, 0xaabb_ccddn);
    interrupt(live, 0x40n);
    expect(live.read(AREA, 4)).toBe(0xaabb_cc01n);
    live.readMsr(0x812);
    expect(live.read(AREA, 4)).toBe(0xaabb_cc00n);
  });
});

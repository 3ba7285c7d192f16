/**
 * A local APIC as the 1024 bytes of its register page, the APIC base MSR and the TSC deadline: the form in which hypervisors
 * save one. Not in the page: errors that ESR does not show yet, what is on its way to the core, levels of the pins, the
 * extended register space from 400h on, and how far a tick of the timer is.
 * Source: APM vol.2 table 16-2 APIC Registers.
 */
import { readRegister } from './local-apic-registers.js';
import { LAPIC, type LocalApicState } from './local-apic-state.js';
import { timerAt } from './local-apic-timer.js';

const PAGE_BYTES = 0x400;
const STRIDE = 0x10;
const LVT_ENTRIES = 6;
const BASE_BOOTSTRAP = 0x100n;
const BASE_X2APIC = 0x400n;
const BASE_ENABLED = 0x800n;
const FRAME = 0x000f_ffff_ffff_f000n;

/** @param now virtual nanoseconds. @returns 32-bit registers every 16 bytes; what is between them is zero. */
export function apicPage(state: LocalApicState, now: number): Uint8Array {
  const page = new Uint8Array(PAGE_BYTES);
  const view = new DataView(page.buffer);
  for (let register = 0; register < PAGE_BYTES; register += STRIDE) {
    view.setUint32(register, readRegister(state, register, now) ?? 0, true);
  }
  return page;
}

interface PagedApic {
  readonly page: Uint8Array;
  /** MSR 1Bh. */
  readonly base: bigint;
  /** MSR 6E0h. */
  readonly deadline: bigint;
  /** TSC = virtual nanoseconds + offset, modulo 2^64. */
  readonly tscOffset: bigint;
  /** Virtual nanoseconds. */
  readonly now: number;
}

/** The APIC with what a page says. What no page says is as if nothing were on its way. */
export function apicWithPage(
  state: LocalApicState,
  { page, base, deadline, tscOffset, now }: PagedApic,
): LocalApicState {
  const view = new DataView(page.buffer, page.byteOffset, page.length);
  const at = (register: number): number => view.getUint32(register, true);
  const words = (first: number, count: number): number[] =>
    Array.from({ length: count }, (_, index) => at(first + STRIDE * index));
  const x2apic = (base & BASE_X2APIC) !== 0n;
  const known: LocalApicState = {
    ...structuredClone(state),
    enabled: (base & BASE_ENABLED) !== 0n,
    bootstrap: (base & BASE_BOOTSTRAP) !== 0n,
    ...{ x2apic, base: Number(base & FRAME) },
    // In x2APIC mode both follow from the number of the vCPU; what xAPIC mode had is not to be seen.
    ...(x2apic ? {} : { apicId: at(LAPIC.ID) >>> 24, ldr: at(LAPIC.LDR) }),
    ...{ tpr: at(LAPIC.TPR), dfr: at(LAPIC.DFR), svr: at(LAPIC.SVR), remoteRead: at(LAPIC.REMOTE_READ) },
    ...{ esr: at(LAPIC.ESR), icrLow: at(LAPIC.ICR_LOW), icrHigh: at(LAPIC.ICR_HIGH) },
    ...{ errors: 0, requests: 0, extIntPending: false },
    ...{ isr: words(LAPIC.ISR, 8), tmr: words(LAPIC.TMR, 8), irr: words(LAPIC.IRR, 8) },
    lvt: words(LAPIC.LVT_TIMER, LVT_ENTRIES),
    ...{ timerInitial: at(LAPIC.TIMER_INITIAL), timerDivide: at(LAPIC.TIMER_DIVIDE) },
  };
  return { ...known, ...timerAt(known, at(LAPIC.TIMER_CURRENT), deadline, tscOffset, now) };
}

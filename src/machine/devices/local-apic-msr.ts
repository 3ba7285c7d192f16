/**
 * The local APIC's MSRs: its registers in x2APIC mode, 800h to 8FFh, and the APIC base MSR, 1Bh. The TSC-deadline MSR is
 * the timer's.
 *
 * Source: APM vol.2 §16.3.1 Local APIC Enable, §16.9 Detecting and Enabling x2APIC Mode, §16.11 Accessing x2APIC
 * Registers, §16.13 x2APIC Interrupt Command Register (ICR) Operations.
 */
import type { Nanoseconds } from '../units.js';
import { NO_EVENTS } from './device.js';
import {
  decideCommand,
  type LocalApicDecision,
  lvtWritable,
  only,
  readRegister,
  writeRegister,
} from './local-apic-registers.js';
import {
  type ApicMessage,
  DELIVERY,
  decideError,
  ERROR_SENT_ILLEGAL_VECTOR,
  FIRST_LEGAL_VECTOR,
  ICR_WRITABLE,
  isLVT,
  LAPIC,
  type LocalApicEvent,
  type LocalApicState,
  SVR_WRITABLE,
} from './local-apic-state.js';

export const MSR_APIC_BASE = 0x1b;
export const MSR_TSC_DEADLINE = 0x6e0;
export const MSR_X2APIC_FIRST = 0x800;
export const MSR_X2APIC_LAST = 0x8ff;

// --- x2APIC ----------------------------------------------------------------------------------------------------------

/** Registers that x2APIC mode does not have (§16.11.1, table 16-6; of APR see docs/fidelity.md). */
const NOT_IN_X2APIC: readonly number[] = [LAPIC.APR, LAPIC.REMOTE_READ, LAPIC.DFR, LAPIC.ICR_HIGH];
const WRITABLE_IN_X2APIC: ReadonlyMap<number, number> = new Map([
  [LAPIC.TPR, 0xff],
  [LAPIC.EOI, 0],
  [LAPIC.SVR, SVR_WRITABLE],
  [LAPIC.ESR, 0],
  [LAPIC.TIMER_INITIAL, 0xffff_ffff],
  [LAPIC.TIMER_DIVIDE, 0x0b],
  [LAPIC.EXTENDED_CONTROL, 0x7],
  [LAPIC.SPECIFIC_EOI, 0xff],
]);
/** Delivery status and remote IRR: read-only, but not reserved. */
const LVT_READ_ONLY = 0x5000;
const EXTENDED_LVT_BITS = 0x117ff;
const LAST_EXTENDED_LVT = 0x530;

/** Bits that may be set in a write (§16.11.3 Reserved Bit Checking in x2APIC Mode); undefined for no such register. */
function writableBits(state: LocalApicState, register: number): number | undefined {
  if (isLVT(register)) return lvtWritable(state, (register - LAPIC.LVT_TIMER) >> 4) | LVT_READ_ONLY;
  if (register < LAPIC.EXTENDED_CONTROL) return WRITABLE_IN_X2APIC.get(register);
  if (!state.features.extended) return undefined;
  if (register >= LAPIC.EXTENDED_LVT) return register <= LAST_EXTENDED_LVT ? EXTENDED_LVT_BITS : undefined;
  return register >= LAPIC.INTERRUPT_ENABLE ? 0xffff_ffff : WRITABLE_IN_X2APIC.get(register);
}

/** RDMSR 800h–8FFh. @returns undefined for #GP(0): not in x2APIC mode, or no such register. */
export function readX2apic(state: LocalApicState, msr: number, now: Nanoseconds): bigint | undefined {
  const register = (msr - MSR_X2APIC_FIRST) << 4;
  if (!state.enabled || !state.x2apic || NOT_IN_X2APIC.includes(register) || register === LAPIC.EOI) return undefined;
  if (register === LAPIC.ICR_LOW) return (BigInt(state.icrHigh) << 32n) | BigInt(state.icrLow);
  const value = register > 0xfff ? undefined : readRegister(state, register, now);
  return value === undefined ? undefined : BigInt(value);
}

/** WRMSR 800h–8FFh. @returns undefined for #GP(0): mode, register or reserved bits. */
export function decideX2apicWrite(
  state: LocalApicState,
  msr: number,
  value: bigint,
  now: Nanoseconds,
): LocalApicDecision | undefined {
  const register = (msr - MSR_X2APIC_FIRST) << 4;
  if (!state.enabled || !state.x2apic) return undefined;
  const low = Number(BigInt.asUintN(32, value));
  const high = Number(BigInt.asUintN(32, value >> 32n));
  if (register === LAPIC.ICR_LOW) {
    return (low & ~ICR_WRITABLE) !== 0 ? undefined : decideCommand(state, high, low);
  }
  if (high !== 0) return undefined;
  if (register === LAPIC.SELF_IPI) {
    if (low > 0xff) return undefined;
    const self: ApicMessage = {
      vector: low,
      mode: DELIVERY.FIXED,
      level: false,
      logical: false,
      destination: state.id,
      broadcast: false,
      shorthand: 'self',
    };
    return low < FIRST_LEGAL_VECTOR
      ? only(decideError(state, ERROR_SENT_ILLEGAL_VECTOR))
      : { events: NO_EVENTS, ipis: [self], ended: null };
  }
  const writable = writableBits(state, register);
  if (writable === undefined || (low & ~writable) !== 0) return undefined;
  return writeRegister(state, register, low, now);
}

// --- the APIC base MSR -----------------------------------------------------------------------------------------------

const BASE_BOOTSTRAP = 0x100n;
const BASE_X2APIC = 0x400n;
const BASE_ENABLED = 0x800n;

/** The APIC base MSR, 1Bh. */
export const readApicBase = (state: LocalApicState): bigint =>
  BigInt(state.base) |
  (state.bootstrap ? BASE_BOOTSTRAP : 0n) |
  (state.x2apic ? BASE_X2APIC : 0n) |
  (state.enabled ? BASE_ENABLED : 0n);

/**
 * WRMSR to the APIC base MSR. The bootstrap bit is read-only.
 * @returns undefined for #GP(0): reserved bits, x2APIC without enable, x2APIC to xAPIC, disabled to x2APIC.
 * Source: APM vol.2 §16.3.1 Local APIC Enable, §16.9 Detecting and Enabling x2APIC Mode.
 */
export function decideApicBase(
  state: LocalApicState,
  value: bigint,
  physicalAddressBits: number,
): readonly LocalApicEvent[] | undefined {
  const reserved = value & (state.features.x2apic ? 0x2ffn : 0x6ffn);
  if (reserved !== 0n || value >> BigInt(physicalAddressBits) !== 0n) return undefined;
  const enabled = (value & BASE_ENABLED) !== 0n;
  const x2apic = (value & BASE_X2APIC) !== 0n;
  if (x2apic && (!enabled || !state.enabled)) return undefined;
  if (state.x2apic && enabled && !x2apic) return undefined;
  const address = Number(value & ~0xfffn);
  if (state.enabled === enabled && state.x2apic === x2apic && state.base === address) return NO_EVENTS;
  return [{ type: 'lapic.based', apic: state.id, address, enabled, x2apic }];
}

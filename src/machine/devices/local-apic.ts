/**
 * The local APIC of one vCPU as a device: its state at power-on, its reducer, its deadline.
 *
 * Beside this file stand the state (`local-apic-state.ts`), what it takes and what comes next
 * (`local-apic-acceptance.ts`), its registers (`local-apic-registers.ts`), MSRs (`local-apic-msr.ts`) and timer
 * (`local-apic-timer.ts`), and the bus between local APICs (`apic-bus.ts`).
 *
 * IDs have eight bits in xAPIC mode whatever the extended control register says. The sources of the thermal,
 * performance and extended entries do not exist.
 *
 * Source: APM vol.2 chapter 16 Advanced Programmable Interrupt Controller (APIC).
 */
import { unreachable } from '../errors.js';
import { nanoseconds } from '../units.js';
import type { Device } from './device.js';
import { NO_EVENTS } from './device.js';
import { pendingVector } from './local-apic-acceptance.js';
import { decidePageRead, decidePageWrite } from './local-apic-registers.js';
import {
  APIC_DEFAULT_BASE,
  type ApicFeatures,
  DELIVERY,
  ENTRY_LINT0,
  ENTRY_LINT1,
  ENTRY_TIMER,
  eightWords,
  ICR_READ_DONE,
  ICR_READ_STATUS,
  intoIRR,
  isLVT,
  LAPIC,
  type LocalApicEvent,
  type LocalApicState,
  LVT_LEVEL,
  LVT_MASKED,
  LVT_REMOTE_IRR,
  lvt,
  raiseError,
  raiseLocal,
  SVR_ENABLED,
  setVector,
  TIMER_TSC_DEADLINE,
} from './local-apic-state.js';
import { fire, timerMode } from './local-apic-timer.js';

/** Registers after a reset (§16.3.2 APIC Registers, table 16-2). */
const resetRegisters = () => ({
  tpr: 0,
  ldr: 0,
  dfr: 0xffff_ffff,
  svr: 0xff,
  esr: 0,
  errors: 0,
  icrLow: 0,
  icrHigh: 0,
  lvt: [LVT_MASKED, LVT_MASKED, LVT_MASKED, LVT_MASKED, LVT_MASKED, LVT_MASKED],
  irr: eightWords(),
  isr: eightWords(),
  tmr: eightWords(),
  remoteRead: 0,
  requests: 0,
  extendedControl: 0,
  interruptEnable: eightWords().map(() => 0xffff_ffff),
  extendedLvt: [0, 0, 0, 0],
  extIntPending: false,
  timerInitial: 0,
  timerDivide: 0,
  timerStart: null,
  timerDeadline: null,
  tscDeadlineLow: 0,
  tscDeadlineHigh: 0,
});

/** Everything there is. */
const ALL_APIC_FEATURES: ApicFeatures = { x2apic: true, tscDeadline: true, extended: true };

/** The local APIC of a vCPU at power-on; vCPU 0 is the bootstrap processor. */
export const initialLocalApic = (id: number, features = ALL_APIC_FEATURES): LocalApicState => ({
  id,
  apicId: id,
  features: { ...features },
  enabled: true,
  x2apic: false,
  bootstrap: id === 0,
  base: APIC_DEFAULT_BASE,
  lint: [false, false],
  ...resetRegisters(),
});

/**
 * Virtual wire mode, as a BIOS leaves the bootstrap processor: 8259 at LINT0, NMI at LINT1 (MP Specification §3.6.2).
 */
export function enterVirtualWireMode(state: LocalApicState): void {
  state.svr |= SVR_ENABLED;
  state.lvt[ENTRY_LINT0] = DELIVERY.EXTINT << 8;
  state.lvt[ENTRY_LINT1] = DELIVERY.NMI << 8;
}

function store(state: LocalApicState, register: number, value: number): void {
  if (isLVT(register)) {
    state.lvt[(register - LAPIC.LVT_TIMER) >> 4] = value;
    return;
  }
  if (register >= LAPIC.EXTENDED_CONTROL) {
    if (register === LAPIC.EXTENDED_CONTROL) state.extendedControl = value;
    else if (register < LAPIC.EXTENDED_LVT) {
      state.interruptEnable[(register - LAPIC.INTERRUPT_ENABLE) >> 4] = value;
    } else state.extendedLvt[(register - LAPIC.EXTENDED_LVT) >> 4] = value;
    return;
  }
  switch (register) {
    case LAPIC.ID:
      state.apicId = value >>> 24;
      return;
    case LAPIC.TPR:
      state.tpr = value;
      return;
    case LAPIC.LDR:
      state.ldr = value;
      return;
    case LAPIC.DFR:
      state.dfr = value;
      return;
    case LAPIC.SVR:
      state.svr = value;
      if ((value & SVR_ENABLED) === 0) {
        for (const entries of [state.lvt, state.extendedLvt]) {
          for (const [index, entry] of entries.entries()) entries[index] = entry | LVT_MASKED;
        }
        if (timerMode(lvt(state, ENTRY_TIMER)) !== TIMER_TSC_DEADLINE) state.timerDeadline = null;
      }
      return;
    case LAPIC.ESR:
      state.esr = state.errors;
      state.errors = 0;
      return;
    case LAPIC.ICR_LOW:
      state.icrLow = value;
      return;
    case LAPIC.ICR_HIGH:
      state.icrHigh = value;
      return;
    case LAPIC.TIMER_INITIAL:
      state.timerInitial = value;
      return;
    case LAPIC.TIMER_DIVIDE:
      state.timerDivide = value;
      return;
  }
}

/** The end of a level-triggered interrupt of LINT0 or LINT1: the pin may ask again (§16.4.2, Remote IRR). */
function endLevel(state: LocalApicState, vector: number): void {
  for (const index of [ENTRY_LINT0, ENTRY_LINT1]) {
    const entry = lvt(state, index);
    if ((entry & 0xff) === vector && (entry & LVT_LEVEL) !== 0) state.lvt[index] = entry & ~LVT_REMOTE_IRR;
  }
}

export const LOCAL_APIC: Device<LocalApicState, LocalApicEvent> = {
  initial: () => initialLocalApic(0),

  reduce(state, event) {
    switch (event.type) {
      case 'lapic.written':
        store(state, event.register, event.value);
        return;
      case 'lapic.based':
        if (!event.enabled) Object.assign(state, resetRegisters(), { apicId: state.id });
        if (event.x2apic && !state.x2apic) {
          // What does not survive the way into x2APIC mode (§16.9.1), or does not exist there (§16.13).
          state.ldr = 0;
          state.icrHigh = 0;
          state.icrLow &= ~ICR_READ_STATUS;
        }
        state.base = event.address;
        state.enabled = event.enabled;
        state.x2apic = event.x2apic;
        return;
      case 'lapic.accepted':
        intoIRR(state, event.vector, event.level);
        return;
      case 'lapic.acknowledged':
        setVector(state.irr, event.vector, false);
        setVector(state.isr, event.vector, true);
        return;
      case 'lapic.ended':
        setVector(state.isr, event.vector, false);
        endLevel(state, event.vector);
        return;
      case 'lapic.extint':
        state.extIntPending = event.pending;
        return;
      case 'lapic.lint':
        state.lint[event.pin] = event.level;
        if (event.level) raiseLocal(state, ENTRY_LINT0 + event.pin);
        return;
      case 'lapic.error':
        raiseError(state, event.errors);
        return;
      case 'lapic.timer-set':
        state.timerStart = event.start;
        state.timerDeadline = event.deadline;
        return;
      case 'lapic.tsc-deadline-set':
        state.tscDeadlineLow = event.low;
        state.tscDeadlineHigh = event.high;
        state.timerDeadline = event.deadline;
        return;
      case 'lapic.timer-fired':
        fire(state, event.at);
        return;
      case 'lapic.reset':
        Object.assign(state, resetRegisters());
        return;
      case 'lapic.remote-read':
        state.icrLow &= ~ICR_READ_STATUS;
        if (event.value !== null) {
          state.icrLow |= ICR_READ_DONE;
          state.remoteRead = event.value;
        }
        return;
      case 'lapic.signalled':
        state.requests = 0;
        return;
      default:
        unreachable(event);
    }
  },

  decideRead: (state, register, size, now) => decidePageRead(state, register, size, now),
  decideWrite: (state, register, value, size, now) => decidePageWrite(state, register, value, size, now).events,

  nextDeadline: (state) => (state.timerDeadline === null ? undefined : nanoseconds(state.timerDeadline)),

  decideDeadline(state, now) {
    if (state.timerDeadline === null || state.timerDeadline > now) return NO_EVENTS;
    return [{ type: 'lapic.timer-fired', apic: state.id, at: now }];
  },

  interruptLine: (state) => pendingVector(state) !== undefined,
};

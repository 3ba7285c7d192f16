/**
 * What a local APIC is: its state, its events, its registers by name, and the small words that its other files share.
 *
 * Source: APM vol.2 chapter 16 Advanced Programmable Interrupt Controller (APIC), table 16-2 APIC Registers.
 * Invariant: `irr`, `isr` and `tmr` are eight unsigned 32-bit words each.
 */
import type { FieldTable } from './device.js';
import { NO_EVENTS } from './device.js';

/** What a processor's local APIC has: CPUID reports it. */
export interface ApicFeatures {
  x2apic: boolean;
  /** The timer's TSC-deadline mode. */
  tscDeadline: boolean;
  /** AMD's extended register space, from offset 400h on. */
  extended: boolean;
}

export interface LocalApicState {
  /** Index of the vCPU, its initial APIC ID and its x2APIC ID. */
  id: number;
  /** The APIC ID register, which software may write in xAPIC mode. */
  apicId: number;
  features: ApicFeatures;
  /** The APIC base MSR: global enable, x2APIC mode, bootstrap processor, address of the register page. */
  enabled: boolean;
  x2apic: boolean;
  bootstrap: boolean;
  base: number;
  tpr: number;
  ldr: number;
  dfr: number;
  svr: number;
  /** ESR as read, and what has come up since it was last written. */
  esr: number;
  errors: number;
  icrLow: number;
  icrHigh: number;
  /** Timer, thermal, performance, LINT0, LINT1, error: offsets 320h to 370h. */
  lvt: number[];
  irr: number[];
  isr: number[];
  tmr: number[];
  /** What the last remote read returned. */
  remoteRead: number;
  /** Messages of local vector table entries on their way to the core: a mask of DELIVERY's SMI, NMI and INIT. */
  requests: number;
  /** Extended APIC control (410h), interrupt enables (480h to 4F0h), extended interrupts (500h to 530h). */
  extendedControl: number;
  interruptEnable: number[];
  extendedLvt: number[];
  /** An ExtINT message waits for the processor's INTA. */
  extIntPending: boolean;
  /** Levels last seen at LINT0 and LINT1. */
  lint: boolean[];
  timerInitial: number;
  timerDivide: number;
  /** Nanosecond; null while the count stands at zero. May be negative. */
  timerStart: number | null;
  /** When the timer next interrupts, in nanoseconds. */
  timerDeadline: number | null;
  /** The TSC-deadline MSR, in halves; zero while disarmed. */
  tscDeadlineLow: number;
  tscDeadlineHigh: number;
}

export type LocalApicEvent =
  /** A register took a value; offset in the register page, value as stored. */
  | { readonly type: 'lapic.written'; readonly apic: number; readonly register: number; readonly value: number }
  | {
      readonly type: 'lapic.based';
      readonly apic: number;
      readonly address: number;
      readonly enabled: boolean;
      readonly x2apic: boolean;
    }
  /** An interrupt reached IRR. */
  | { readonly type: 'lapic.accepted'; readonly apic: number; readonly vector: number; readonly level: boolean }
  /** The processor took it: from IRR to ISR. */
  | { readonly type: 'lapic.acknowledged'; readonly apic: number; readonly vector: number }
  | { readonly type: 'lapic.ended'; readonly apic: number; readonly vector: number }
  | { readonly type: 'lapic.extint'; readonly apic: number; readonly pending: boolean }
  | { readonly type: 'lapic.lint'; readonly apic: number; readonly pin: number; readonly level: boolean }
  | { readonly type: 'lapic.error'; readonly apic: number; readonly errors: number }
  /** The countdown was started, moved or stopped. */
  | {
      readonly type: 'lapic.timer-set';
      readonly apic: number;
      readonly start: number | null;
      readonly deadline: number | null;
    }
  | {
      readonly type: 'lapic.tsc-deadline-set';
      readonly apic: number;
      readonly low: number;
      readonly high: number;
      readonly deadline: number | null;
    }
  /** The timer ran out. */
  | { readonly type: 'lapic.timer-fired'; readonly apic: number; readonly at: number }
  /** INIT: registers as after a reset, but for ID and base. */
  | { readonly type: 'lapic.reset'; readonly apic: number }
  /** A remote read came back; null: nobody had that register. */
  | { readonly type: 'lapic.remote-read'; readonly apic: number; readonly value: number | null }
  /** The core heard the messages that local vector table entries sent it. */
  | { readonly type: 'lapic.signalled'; readonly apic: number };

export const LAPIC_EVENT_FIELDS = {
  'lapic.written': ['apic', 'register', 'value'],
  'lapic.based': ['apic', 'address', 'enabled', 'x2apic'],
  'lapic.accepted': ['apic', 'vector', 'level'],
  'lapic.acknowledged': ['apic', 'vector'],
  'lapic.ended': ['apic', 'vector'],
  'lapic.extint': ['apic', 'pending'],
  'lapic.lint': ['apic', 'pin', 'level'],
  'lapic.error': ['apic', 'errors'],
  'lapic.timer-set': ['apic', 'start', 'deadline'],
  'lapic.tsc-deadline-set': ['apic', 'low', 'high', 'deadline'],
  'lapic.timer-fired': ['apic', 'at'],
  'lapic.reset': ['apic'],
  'lapic.remote-read': ['apic', 'value'],
  'lapic.signalled': ['apic'],
} as const satisfies FieldTable<LocalApicEvent>;

/** Message types of ICR, LVT and redirection entries (APM vol.2 §16.4.1, §16.5 Interprocessor Interrupts). */
export const DELIVERY = {
  FIXED: 0,
  LOWEST_PRIORITY: 1,
  SMI: 2,
  REMOTE_READ: 3,
  NMI: 4,
  INIT: 5,
  STARTUP: 6,
  EXTINT: 7,
} as const;

export type Shorthand = 'none' | 'self' | 'all' | 'others';

/** An interrupt message on its way to local APICs: from an ICR, an I/O APIC, or a message-signalled interrupt. */
export interface ApicMessage {
  readonly vector: number;
  /** One of DELIVERY. */
  readonly mode: number;
  /** Level-triggered: its end is told to the I/O APICs. */
  readonly level: boolean;
  readonly logical: boolean;
  readonly destination: number;
  /** The sender's all-ones destination: FFh, or FFFFFFFFh in x2APIC mode. */
  readonly broadcast: boolean;
  readonly shorthand: Shorthand;
}

export const APIC_DEFAULT_BASE = 0xfee0_0000;

/** Offsets of the registers (APM vol.2 table 16-2). */
export const LAPIC = {
  ID: 0x020,
  VERSION: 0x030,
  TPR: 0x080,
  APR: 0x090,
  PPR: 0x0a0,
  EOI: 0x0b0,
  REMOTE_READ: 0x0c0,
  LDR: 0x0d0,
  DFR: 0x0e0,
  SVR: 0x0f0,
  ISR: 0x100,
  TMR: 0x180,
  IRR: 0x200,
  ESR: 0x280,
  ICR_LOW: 0x300,
  ICR_HIGH: 0x310,
  LVT_TIMER: 0x320,
  LVT_THERMAL: 0x330,
  LVT_PERFORMANCE: 0x340,
  LVT_LINT0: 0x350,
  LVT_LINT1: 0x360,
  LVT_ERROR: 0x370,
  TIMER_INITIAL: 0x380,
  TIMER_CURRENT: 0x390,
  TIMER_DIVIDE: 0x3e0,
  /** x2APIC mode only. */
  SELF_IPI: 0x3f0,
  EXTENDED_FEATURE: 0x400,
  EXTENDED_CONTROL: 0x410,
  SPECIFIC_EOI: 0x420,
  INTERRUPT_ENABLE: 0x480,
  EXTENDED_LVT: 0x500,
} as const;

/** Version 14h with six LVT entries. */
export const VERSION = 0x0005_0014;
/** EAS: the extended register space is there. */
export const VERSION_EXTENDED = 0x8000_0000;

export const ENTRY_TIMER = 0;
export const ENTRY_LINT0 = 3;
export const ENTRY_LINT1 = 4;
const ENTRY_ERROR = 5;
/** The bit of the timer's entry that selects TSC-deadline mode. */
export const LVT_TSC_DEADLINE = 0x4_0000;
export const LVT_MASKED = 0x1_0000;
export const LVT_LEVEL = 0x8000;
export const LVT_REMOTE_IRR = 0x4000;

export const TIMER_PERIODIC = 1;
export const TIMER_TSC_DEADLINE = 2;

export const SVR_ENABLED = 0x100;
/** FCC: whoever serves an interrupt already no longer attracts it (focus). */
export const SVR_NO_FOCUS = 0x200;
export const SVR_WRITABLE = 0x3ff;
export const ICR_WRITABLE = 0x000c_cfff;
/** Remote read status: the data is there. */
export const ICR_READ_DONE = 0x0002_0000;
export const ICR_READ_STATUS = 0x0003_0000;

/** Bits of the extended APIC control register. */
export const EXTENDED_INTERRUPT_ENABLE = 0x1;
export const EXTENDED_SPECIFIC_EOI = 0x2;
export const DFR_FLAT = 0xf;

export const ERROR_SENT_UNACCEPTED = 0x04;
export const ERROR_RECEIVED_UNACCEPTED = 0x08;
export const ERROR_SENT_ILLEGAL_VECTOR = 0x20;
export const ERROR_RECEIVED_ILLEGAL_VECTOR = 0x40;
export const ERROR_ILLEGAL_REGISTER = 0x80;
export const FIRST_LEGAL_VECTOR = 16;

export const SHORTHANDS: readonly Shorthand[] = ['none', 'self', 'all', 'others'];

export const eightWords = (): number[] => [0, 0, 0, 0, 0, 0, 0, 0];
export const hasVector = (words: readonly number[], vector: number): boolean =>
  (((words[vector >> 5] ?? 0) >>> (vector & 31)) & 1) !== 0;

export function setVector(words: number[], vector: number, on: boolean): void {
  const bit = 1 << (vector & 31);
  const word = words[vector >> 5] ?? 0;
  words[vector >> 5] = (on ? word | bit : word & ~bit) >>> 0;
}

/** The highest vector in the set, or -1. */
export function highestVector(words: readonly number[]): number {
  for (let index = 7; index >= 0; index -= 1) {
    const word = words[index] as number;
    if (word !== 0) return index * 32 + 31 - Math.clz32(word);
  }
  return -1;
}

/** The highest vector that is in both sets, or -1. */
export function highestCommonVector(words: readonly number[], others: readonly number[]): number {
  for (let index = 7; index >= 0; index -= 1) {
    const word = (words[index] as number) & (others[index] as number);
    if (word !== 0) return index * 32 + 31 - Math.clz32(word);
  }
  return -1;
}

export const softwareEnabled = (state: LocalApicState): boolean => state.enabled && (state.svr & SVR_ENABLED) !== 0;
export const lvt = (state: LocalApicState, entry: number): number => state.lvt[entry] ?? LVT_MASKED;
export const deliveryMode = (entry: number): number => (entry >> 8) & 7;
export const isMasked = (entry: number): boolean => (entry & LVT_MASKED) !== 0;
export const isLint = (entry: number): boolean => entry === ENTRY_LINT0 || entry === ENTRY_LINT1;
export const isLVT = (register: number): boolean => register >= LAPIC.LVT_TIMER && register <= LAPIC.LVT_ERROR;

/** The event of a register that takes a value. */
export const written = (state: LocalApicState, register: number, value: number): LocalApicEvent => ({
  type: 'lapic.written',
  apic: state.id,
  register,
  value,
});

/** Errors that are not noted yet; ESR shows them when it is next written. */
export const decideError = (state: LocalApicState, errors: number): readonly LocalApicEvent[] =>
  (state.errors & errors) === errors ? NO_EVENTS : [{ type: 'lapic.error', apic: state.id, errors }];

export function intoIRR(state: LocalApicState, vector: number, level: boolean): void {
  setVector(state.irr, vector, true);
  setVector(state.tmr, vector, level);
}

/** Messages that go to the core rather than to IRR. */
const CORE_MESSAGES: readonly number[] = [DELIVERY.SMI, DELIVERY.NMI, DELIVERY.INIT];

/** An error that is not noted yet is noted, and interrupts. In place. */
export function raiseError(state: LocalApicState, errors: number): void {
  const isNew = (state.errors & errors) !== errors;
  state.errors |= errors;
  if (isNew) raiseLocal(state, ENTRY_ERROR);
}

/** The interrupt of an LVT entry: into IRR, or to the core (APM vol.2 §16.4 Local Interrupts). In place. */
export function raiseLocal(state: LocalApicState, index: number): void {
  const entry = lvt(state, index);
  if (!softwareEnabled(state) || isMasked(entry)) return;
  const mode = index === ENTRY_TIMER ? DELIVERY.FIXED : deliveryMode(entry);
  if (CORE_MESSAGES.includes(mode)) state.requests |= 1 << mode;
  if (mode !== DELIVERY.FIXED) return;
  const vector = entry & 0xff;
  if (vector < FIRST_LEGAL_VECTOR) {
    raiseError(state, ERROR_RECEIVED_ILLEGAL_VECTOR);
    return;
  }
  const level = isLint(index) && (entry & LVT_LEVEL) !== 0;
  intoIRR(state, vector, level);
  if (level) state.lvt[index] = entry | LVT_REMOTE_IRR;
}

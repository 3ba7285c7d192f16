/**
 * The real-time clock with its battery-backed memory: a Motorola MC146818A at 70h/71h, IRQ 8.
 *
 * The time of day is a function of virtual time: `seconds` at the update `updatedAt`, one more at each update since.
 * While registers A or B hold the clock, it stands in the time registers themselves. Flags of register C are functions
 * of time too: what happened since `flagsSince`, the last time they were looked at. Only an interrupt is an event by
 * itself.
 *
 * The crystal has 32.768 kHz. The divider can also be set for the chip's other two time bases; the chain is then longer,
 * and everything slower by that. Daylight saving (DSE) and the square wave (SQWE) read back and do nothing else, as in
 * the PC's chip sets. Bit 7 of the index port masks the PC's NMI.
 *
 * Source: Motorola MC146818A Real-Time Clock plus RAM, data sheet; century as the IBM AT has
 * it; NMI mask: 82371AB (PIIX4) data sheet, port 70h.
 */
import { unreachable } from '../errors.js';
import { type Nanoseconds, nanoseconds } from '../units.js';
import type { Device, FieldTable, ReadDecision } from './device.js';
import { NO_EVENTS } from './device.js';
import { DAY_SECONDS, decodeByte, decodeHour, type TimeFormat, timeBytes, timeOfBytes } from './rtc-calendar.js';
import { floorDivide, modulo, ticksAt, timeOfTick } from './ticks.js';

export interface RtcState {
  index: number;
  /** Bit 7 of the index port: the PC's NMI is masked. */
  nmiMasked: boolean;
  /** 128 bytes as written; the time registers and register C only count while the clock is held. */
  memory: number[];
  /** Unix time that the clock shows from the update at `updatedAt` on. */
  seconds: number;
  /** A nanosecond at which an update ended: where the divider chain stood at zero. May be negative. */
  updatedAt: number;
  /** Day of week that software set, less the date's own, modulo 7. */
  weekdayShift: number;
  /** Flags of register C that were noted, bits 6:4. */
  flags: number;
  /** Flags that arose after this time are not noted yet. */
  flagsSince: number;
}

export type RtcEvent =
  | { readonly type: 'rtc.selected'; readonly index: number }
  /** A byte of memory, an alarm, a held time register, or register A or B, at a time. */
  | { readonly type: 'rtc.written'; readonly index: number; readonly value: number; readonly at: number }
  /** The running clock was set, or its divider chain started anew. */
  | {
      readonly type: 'rtc.set';
      readonly seconds: number;
      readonly weekdayShift: number;
      readonly updatedAt: number;
    }
  /** SET or the divider's reset holds the clock: the time registers keep these bytes (seconds … year, century). */
  | { readonly type: 'rtc.held'; readonly time: readonly number[] }
  /** Flags of register C as of a time: an interrupt, or a write that would change how they are told. */
  | { readonly type: 'rtc.flagged'; readonly flags: number; readonly at: number }
  /** Register C was read: its flags are gone. */
  | { readonly type: 'rtc.flags-read'; readonly at: number }
  | { readonly type: 'rtc.nmi-masked'; readonly masked: boolean };

export const RTC_EVENT_FIELDS = {
  'rtc.selected': ['index'],
  'rtc.written': ['index', 'value', 'at'],
  'rtc.set': ['seconds', 'weekdayShift', 'updatedAt'],
  'rtc.held': ['time'],
  'rtc.flagged': ['flags', 'at'],
  'rtc.flags-read': ['at'],
  'rtc.nmi-masked': ['masked'],
} as const satisfies FieldTable<RtcEvent>;

const SECOND = 1_000_000_000;
const CRYSTAL_HERTZ = 32_768;

const REGISTER_A = 0x0a;
const REGISTER_B = 0x0b;
const REGISTER_C = 0x0c;
const REGISTER_D = 0x0d;
const CENTURY = 0x32;
/** The time registers in the order of `rtc.held`: seconds, minutes, hours, weekday, day, month, year, century. */
const TIME_REGISTERS: readonly number[] = [0x00, 0x02, 0x04, 0x06, 0x07, 0x08, 0x09, CENTURY];
const ALARM_SECONDS = 0x01;
const ALARM_MINUTES = 0x03;
const ALARM_HOURS = 0x05;

const INDEX_NMI_MASK = 0x80;
const A_UIP = 0x80;
const A_DIVIDER = 0x70;
const A_DIVIDER_32768 = 0x20;
const A_RATE = 0x0f;
const B_SET = 0x80;
const B_UIE = 0x10;
const B_SQUARE_WAVE = 0x08;
const B_BINARY = 0x04;
const B_24_HOURS = 0x02;
const B_ENABLES = 0x70; // PIE, AIE, UIE: the same bits as the flags in C
const FLAG_PERIODIC = 0x40;
const FLAG_ALARM = 0x20;
const FLAG_UPDATE = 0x10;
const C_IRQF = 0x80;
const D_VALID = 0x80;
/** Alarm bytes from C0h up match anything (data sheet, Alarm Bytes). */
const ANY = 0xc0;

// --- the divider chain -----------------------------------------------------------------------------------------------

/** What a setting of the divider makes of the crystal (data sheet, table 4 Divider Configurations; times in ns). */
interface Chain {
  /** From update to update. */
  readonly second: number;
  /** How long an update takes (table 6, t_UC) … */
  readonly update: number;
  /** … and how long before it UIP rises (table 6, t_BUC). */
  readonly warning: number;
  /** Ticks of the crystal for a cycle of the tap that 32.768 kHz come from, or would. */
  readonly prescale: number;
}

/** A chain for a faster time base: `prescale` times as long, and the update cycle as many times 248 µs. */
const longer = (prescale: number): Chain => ({
  second: SECOND * prescale,
  update: 248_000 * prescale,
  warning: 244_000 * prescale,
  prescale,
});

/** By bits 6:4 of register A: 4.194304 MHz, 1.048576 MHz, 32.768 kHz. All others reset the chain or test the chip. */
const CHAINS: ReadonlyMap<number, Chain> = new Map([
  [0x00, longer(128)],
  [0x10, longer(32)],
  [A_DIVIDER_32768, { second: SECOND, update: 1_984_000, warning: 244_000, prescale: 1 }],
]);

const byteAt = (state: RtcState, index: number): number => state.memory[index] ?? 0;
const chainOf = (state: RtcState): Chain | undefined => CHAINS.get(byteAt(state, REGISTER_A) & A_DIVIDER);
const isTimeRegister = (index: number): boolean => TIME_REGISTERS.includes(index);
const formatOf = (b: number): TimeFormat => ({ binary: (b & B_BINARY) !== 0, hours24: (b & B_24_HOURS) !== 0 });

/** The chain that updates the clock; undefined while SET or the divider holds it. */
const updatingChain = (state: RtcState): Chain | undefined =>
  (byteAt(state, REGISTER_B) & B_SET) !== 0 ? undefined : chainOf(state);

/** How many updates have ended at `time`, relative to `updatedAt`. */
const updatesAt = (state: RtcState, { second }: Chain, time: number): number =>
  floorDivide(time - state.updatedAt, second);

/** The time registers as they read, in the order of TIME_REGISTERS. */
function readTime(state: RtcState, now: number): readonly number[] {
  const chain = updatingChain(state);
  if (chain === undefined) return TIME_REGISTERS.map((index) => byteAt(state, index));
  const seconds = state.seconds + updatesAt(state, chain, now);
  return timeBytes(formatOf(byteAt(state, REGISTER_B)), { seconds, weekdayShift: state.weekdayShift });
}

// --- flags and deadlines ---------------------------------------------------------------------------------------------

/** Ticks of the crystal between periodic interrupts (data sheet, table 5); undefined for rate 0. */
function periodicTicks(state: RtcState, { prescale }: Chain): number | undefined {
  const rate = byteAt(state, REGISTER_A) & A_RATE;
  if (rate === 0) return undefined;
  // The two fastest taps lie before the point at which a crystal of 32.768 kHz comes in: those of 256 and 128 Hz serve.
  const tap = prescale === 1 && rate < 3 ? rate + 7 : rate;
  return prescale << (tap - 1);
}

function nextPeriodic(state: RtcState, since: number): number | undefined {
  const chain = chainOf(state);
  const period = chain && periodicTicks(state, chain);
  if (period === undefined) return undefined;
  const ticks = (floorDivide(ticksAt(since - state.updatedAt, CRYSTAL_HERTZ), period) + 1) * period;
  return state.updatedAt + timeOfTick(ticks, CRYSTAL_HERTZ);
}

function nextUpdate(state: RtcState, since: number): number | undefined {
  const chain = updatingChain(state);
  return chain && state.updatedAt + (updatesAt(state, chain, since) + 1) * chain.second;
}

/** The first update after `since` whose time of day the three alarm bytes match. */
function nextAlarm(state: RtcState, since: number): number | undefined {
  const chain = updatingChain(state);
  if (chain === undefined) return undefined;
  const format = formatOf(byteAt(state, REGISTER_B));
  const wanted = (index: number, read: (format: TimeFormat, byte: number) => number): number | undefined => {
    const byte = byteAt(state, index);
    return byte >= ANY ? undefined : read(format, byte);
  };
  const hour = wanted(ALARM_HOURS, decodeHour);
  const minute = wanted(ALARM_MINUTES, decodeByte);
  const second = wanted(ALARM_SECONDS, decodeByte);
  const updates = updatesAt(state, chain, since) + 1;
  const match = nextTimeOfDay(modulo(state.seconds + updates, DAY_SECONDS), hour, minute, second);
  return match === undefined ? undefined : state.updatedAt + (updates + match) * chain.second;
}

/**
 * Seconds from the time of day `from` to the first that matches, `from` included; undefined for an impossible alarm.
 */
function nextTimeOfDay(from: number, hour?: number, minute?: number, second?: number): number | undefined {
  for (let passed = 0; passed <= DAY_SECONDS; ) {
    const time = (from + passed) % DAY_SECONDS;
    if (hour !== undefined && floorDivide(time, 3600) !== hour) passed += 3600 - (time % 3600);
    else if (minute !== undefined && floorDivide(time, 60) % 60 !== minute) passed += 60 - (time % 60);
    else if (second !== undefined && time % 60 !== second) passed += 1;
    else return passed;
  }
  return undefined;
}

const passed = (time: number | undefined, now: number): boolean => time !== undefined && time <= now;

/** Flags of register C as they stand at `now`. */
function flagsAt(state: RtcState, now: number): number {
  const since = state.flagsSince;
  let flags = state.flags;
  if ((flags & FLAG_PERIODIC) === 0 && passed(nextPeriodic(state, since), now)) flags |= FLAG_PERIODIC;
  if ((flags & FLAG_UPDATE) === 0 && passed(nextUpdate(state, since), now)) flags |= FLAG_UPDATE;
  if ((flags & FLAG_ALARM) === 0 && passed(nextAlarm(state, since), now)) flags |= FLAG_ALARM;
  return flags;
}

const interrupts = (state: RtcState): boolean => (state.flags & byteAt(state, REGISTER_B) & B_ENABLES) !== 0;

/** Whether the alarm is among what interrupts now: ACPI hears of it apart (`acpi-pm-timer.ts`). */
export const alarmInterrupts = (state: RtcState): boolean =>
  (state.flags & byteAt(state, REGISTER_B) & FLAG_ALARM) !== 0;

/** Notes the flags that have arisen, before a write that changes how they arise. */
function note(state: RtcState, now: number): readonly RtcEvent[] {
  const flags = flagsAt(state, now);
  return flags === state.flags && state.flagsSince === now ? NO_EVENTS : [{ type: 'rtc.flagged', flags, at: now }];
}

// --- decisions -------------------------------------------------------------------------------------------------------

/** UIP is set from a while before an update to its end, when the registers have changed (data sheet, Update Cycle). */
function isUpdating(state: RtcState, now: number): boolean {
  const chain = updatingChain(state);
  if (chain === undefined) return false;
  return modulo(now - state.updatedAt, chain.second) >= chain.second - chain.update - chain.warning;
}

function readData(state: RtcState, now: number): ReadDecision<RtcEvent> {
  const index = state.index;
  if (isTimeRegister(index)) {
    return { value: readTime(state, now)[TIME_REGISTERS.indexOf(index)] ?? 0, events: NO_EVENTS };
  }
  if (index === REGISTER_A) {
    return { value: byteAt(state, REGISTER_A) | (isUpdating(state, now) ? A_UIP : 0), events: NO_EVENTS };
  }
  if (index === REGISTER_C) {
    const flags = flagsAt(state, now);
    const value = flags | ((flags & byteAt(state, REGISTER_B) & B_ENABLES) !== 0 ? C_IRQF : 0);
    return { value, events: flags === 0 ? NO_EVENTS : [{ type: 'rtc.flags-read', at: now }] };
  }
  return { value: index === REGISTER_D ? D_VALID : byteAt(state, index), events: NO_EVENTS };
}

function writeData(state: RtcState, value: number, now: number): readonly RtcEvent[] {
  const index = state.index;
  const written: RtcEvent = { type: 'rtc.written', index, value, at: now };
  if (index === REGISTER_C || index === REGISTER_D) return NO_EVENTS;
  if (isTimeRegister(index)) return writeTime(state, index, value, now) ?? [written];
  if (index === REGISTER_A) return writeControl(state, value & ~A_UIP, byteAt(state, REGISTER_B), written, now);
  if (index === REGISTER_B) return writeControl(state, byteAt(state, REGISTER_A), value, written, now);
  if (index < REGISTER_A) return [...note(state, now), written]; // an alarm byte
  return byteAt(state, index) === value ? NO_EVENTS : [written];
}

/** A byte of the running clock; undefined while it is held, for then its registers are memory. */
function writeTime(state: RtcState, index: number, value: number, now: number): readonly RtcEvent[] | undefined {
  const chain = updatingChain(state);
  if (chain === undefined) return undefined;
  const bytes = readTime(state, now).map((byte, place) => (TIME_REGISTERS[place] === index ? value : byte));
  const updatedAt = state.updatedAt + updatesAt(state, chain, now) * chain.second;
  const time = timeOfBytes(formatOf(byteAt(state, REGISTER_B)), bytes);
  return [...note(state, now), { type: 'rtc.set', ...time, updatedAt }];
}

/** Registers A and B: the clock is held, runs on, or goes on from what its registers hold. */
function writeControl(state: RtcState, a: number, b: number, written: RtcEvent, now: number): readonly RtcEvent[] {
  const events = [...note(state, now)];
  const running = updatingChain(state);
  const before = chainOf(state);
  const after = CHAINS.get(a & A_DIVIDER);
  const time = readTime(state, now);
  if (running !== undefined && ((b & B_SET) !== 0 || after === undefined)) events.push({ type: 'rtc.held', time });
  if (after !== undefined) {
    // B's new format tells how held registers are read; a clock that runs keeps its time, and shows it in that format.
    const format = running === undefined ? formatOf(b) : formatOf(byteAt(state, REGISTER_B));
    const updatedAt = chainStart(before, after, now);
    const releases = running === undefined && (b & B_SET) === 0;
    if (releases || updatedAt !== undefined) {
      const lastUpdate = state.updatedAt + floorDivide(now - state.updatedAt, after.second) * after.second;
      events.push({ type: 'rtc.set', ...timeOfBytes(format, time), updatedAt: updatedAt ?? lastUpdate });
    }
  }
  return [...events, written];
}

/**
 * Where the chain starts anew; undefined when it runs on. The first update follows its release after half a second
 * (data sheet, Divider Control).
 */
function chainStart(before: Chain | undefined, after: Chain, now: number): number | undefined {
  if (before === after) return undefined;
  return before === undefined ? now - after.second / 2 : now;
}

// --- the device -----------------------------------------------------------------------------------------------------------

/** The clock shows `unixSeconds` at power-on. Pure: `state` stays as it is. */
export const rtcWithClock = (state: RtcState, unixSeconds: number): RtcState => ({
  ...state,
  seconds: floorDivide(unixSeconds, 1),
  updatedAt: 0,
  weekdayShift: 0,
});

/** What its RESET pin does (data sheet, RESET): no interrupts and no square wave; the time and the memory stay. */
export const rtcAfterReset = (state: RtcState, at: number): RtcState => {
  const memory = [...state.memory];
  memory[REGISTER_B] = byteAt(state, REGISTER_B) & ~(B_ENABLES | B_SQUARE_WAVE);
  return { ...state, index: 0, nmiMasked: false, memory, flags: 0, flagsSince: at };
};

/** The shutdown code, by which software tells the firmware what a reset is for (IBM AT, CMOS RAM, shutdown status). */
export const SHUTDOWN_CODE = 0x0f;
export const shutdownCode = (state: RtcState): number => byteAt(state, SHUTDOWN_CODE);

/** Registers of the device: the index port and the data port. */
export const RTC = { INDEX: 0, DATA: 1 };

/** A byte as memory keeps it: UIP is the chip's own, and SET takes the update interrupt's enable away. */
function stored(index: number, value: number): number {
  if (index === REGISTER_A) return value & ~A_UIP;
  return index === REGISTER_B && (value & B_SET) !== 0 ? value & ~B_UIE : value;
}

export const RTC_MC146818: Device<RtcState, RtcEvent> = {
  initial() {
    const memory = new Array<number>(128).fill(0);
    memory[REGISTER_A] = A_DIVIDER_32768 | 0x06; // 1.024 kHz
    memory[REGISTER_B] = B_24_HOURS;
    memory[REGISTER_D] = D_VALID;
    return { index: 0, nmiMasked: false, memory, seconds: 0, updatedAt: 0, weekdayShift: 0, flags: 0, flagsSince: 0 };
  },

  reduce(state, event) {
    switch (event.type) {
      case 'rtc.selected':
        state.index = event.index;
        return;
      case 'rtc.written':
        state.memory[event.index] = stored(event.index, event.value);
        return;
      case 'rtc.set':
        state.seconds = event.seconds;
        state.weekdayShift = event.weekdayShift;
        state.updatedAt = event.updatedAt;
        return;
      case 'rtc.held':
        for (const [place, index] of TIME_REGISTERS.entries()) state.memory[index] = event.time[place] ?? 0;
        return;
      case 'rtc.flagged':
        state.flags = event.flags;
        state.flagsSince = event.at;
        return;
      case 'rtc.flags-read':
        state.flags = 0;
        state.flagsSince = event.at;
        return;
      case 'rtc.nmi-masked':
        state.nmiMasked = event.masked;
        return;
      default:
        unreachable(event);
    }
  },

  decideRead(state, register, _size, now) {
    return register === RTC.DATA ? readData(state, now) : { value: 0xff, events: NO_EVENTS };
  },

  decideWrite(state, register, value, _size, now) {
    if (register === RTC.DATA) return writeData(state, value & 0xff, now);
    const index = value & ~INDEX_NMI_MASK & 0xff;
    const masked = (value & INDEX_NMI_MASK) !== 0;
    const events: RtcEvent[] = state.index === index ? [] : [{ type: 'rtc.selected', index }];
    if (state.nmiMasked !== masked) events.push({ type: 'rtc.nmi-masked', masked });
    return events.length === 0 ? NO_EVENTS : events;
  },

  nextDeadline(state) {
    const enables = byteAt(state, REGISTER_B) & B_ENABLES;
    if (enables === 0 || interrupts(state)) return undefined;
    const since = state.flagsSince;
    let next = Number.POSITIVE_INFINITY;
    if ((enables & FLAG_PERIODIC) !== 0) next = Math.min(next, nextPeriodic(state, since) ?? next);
    if ((enables & FLAG_UPDATE) !== 0) next = Math.min(next, nextUpdate(state, since) ?? next);
    if ((enables & FLAG_ALARM) !== 0) next = Math.min(next, nextAlarm(state, since) ?? next);
    // With the slowest divider an alarm may lie further ahead than virtual time reaches: 104 days.
    return next > Number.MAX_SAFE_INTEGER ? undefined : nanoseconds(next);
  },

  decideDeadline(state, now: Nanoseconds) {
    const flags = flagsAt(state, now);
    return flags === state.flags ? NO_EVENTS : [{ type: 'rtc.flagged', flags, at: now }];
  },

  /** IRQ: some flag whose interrupt is enabled (data sheet, Register C, IRQF). */
  interruptLine: interrupts,
};

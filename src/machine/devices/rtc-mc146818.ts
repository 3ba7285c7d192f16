/**
 * The real-time clock with its battery-backed memory: a Motorola MC146818A at 70h/71h, IRQ 8.
 *
 * The time of day is a function of virtual time: `seconds` at the update `updatedAt`, one more at each update since.
 * While registers A or B hold the clock, it stands in the time registers themselves. Flags of register C are functions
 * of time too: what happened since `flagsSince`, the last time they were looked at. Only an interrupt is an event by
 * itself.
 *
 * Left out: daylight saving (DSE reads back), the square-wave output (SQWE reads back), seconds alarms in the calendar.
 *
 * Source: Motorola MC146818A Real-Time Clock plus RAM, data sheet; memory sizes and century as IBM AT and QEMU lay
 * them.
 */
import { unreachable } from '../errors.js';
import { type Nanoseconds, nanoseconds } from '../units.js';
import type { Device, FieldTable, ReadDecision } from './device.js';
import { NO_EVENTS } from './device.js';
import { floorDivide, modulo, ticksAt, timeOfTick } from './ticks.js';

export interface RtcState {
  index: number;
  /** 128 bytes as written; the time registers and register C only count while the clock is held. */
  memory: number[];
  /** Unix time that the clock shows from the update at `updatedAt` on. */
  seconds: number;
  /** A nanosecond at which an update ended; updates follow at each whole second from it. May be negative. */
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
  /** The running clock was set. */
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
  | { readonly type: 'rtc.flags-read'; readonly at: number };

export const RTC_EVENT_FIELDS = {
  'rtc.selected': ['index'],
  'rtc.written': ['index', 'value', 'at'],
  'rtc.set': ['seconds', 'weekdayShift', 'updatedAt'],
  'rtc.held': ['time'],
  'rtc.flagged': ['flags', 'at'],
  'rtc.flags-read': ['at'],
} as const satisfies FieldTable<RtcEvent>;

const SECOND = 1_000_000_000;
/** UIP rises this long before the registers change (data sheet, Update Cycle, t_BUC). */
const UPDATE_WARNING = 244_000;
/** The first update follows the release of the divider's reset after half a second (data sheet, Divider Control). */
const HALF_SECOND = 500_000_000;
const CRYSTAL_HERTZ = 32_768;
const DAY_SECONDS = 86_400;

const REGISTER_A = 0x0a;
const REGISTER_B = 0x0b;
const REGISTER_C = 0x0c;
const REGISTER_D = 0x0d;
const CENTURY = 0x32;
/** The time registers in the order of `rtc.held`: seconds, minutes, hours, weekday, day, month, year, century. */
const TIME_REGISTERS = [0x00, 0x02, 0x04, 0x06, 0x07, 0x08, 0x09, CENTURY] as const;
const ALARM_SECONDS = 0x01;
const ALARM_MINUTES = 0x03;
const ALARM_HOURS = 0x05;

const A_UIP = 0x80;
const A_DIVIDER = 0x70;
const A_DIVIDER_32768 = 0x20;
const A_DIVIDER_RESET = 0x60; // 11x
const B_SET = 0x80;
const B_BINARY = 0x04;
const B_24_HOURS = 0x02;
const B_ENABLES = 0x70; // PIE, AIE, UIE: the same bits as the flags in C
const FLAG_PERIODIC = 0x40;
const FLAG_ALARM = 0x20;
const FLAG_UPDATE = 0x10;
const C_IRQF = 0x80;
const D_VALID = 0x80;
const HOURS_PM = 0x80;
/** Alarm bytes from C0h up match anything (data sheet, Alarm Bytes). */
const ANY = 0xc0;

const byteAt = (state: RtcState, index: number): number => state.memory[index] ?? 0;
const isTimeRegister = (index: number): boolean => (TIME_REGISTERS as readonly number[]).includes(index);

function isHeld(state: RtcState): boolean {
  return (byteAt(state, REGISTER_B) & B_SET) !== 0 || (byteAt(state, REGISTER_A) & A_DIVIDER) !== A_DIVIDER_32768;
}

const isDividerReset = (a: number): boolean => (a & A_DIVIDER_RESET) === A_DIVIDER_RESET;

/** How many updates have ended at `time`, relative to `updatedAt`. */
const updatesAt = (state: RtcState, time: number): number => floorDivide(time - state.updatedAt, SECOND);

/** Unix time that the running clock shows. */
const rtcSeconds = (state: RtcState, now: number): number => state.seconds + updatesAt(state, now);

// --- the calendar ----------------------------------------------------------------------------------------------------

interface Calendar {
  readonly second: number;
  readonly minute: number;
  readonly hour: number;
  readonly day: number;
  readonly month: number;
  readonly year: number;
}

/** Days since 1970-01-01 of a date of the Gregorian calendar, counted in years that begin in March. */
function daysFromDate(year: number, month: number, day: number): number {
  const shifted = month <= 2 ? year - 1 : year;
  const era = floorDivide(shifted, 400);
  const yearOfEra = shifted - era * 400;
  const dayOfYear = floorDivide(153 * ((month + 9) % 12) + 2, 5) + day - 1;
  const dayOfEra = yearOfEra * 365 + floorDivide(yearOfEra, 4) - floorDivide(yearOfEra, 100) + dayOfYear;
  return era * 146_097 + dayOfEra - 719_468;
}

function calendarOf(seconds: number): Calendar {
  const timeOfDay = modulo(seconds, DAY_SECONDS);
  const days = (seconds - timeOfDay) / DAY_SECONDS + 719_468;
  const era = floorDivide(days, 146_097);
  const dayOfEra = days - era * 146_097;
  const yearOfEra = floorDivide(
    dayOfEra - floorDivide(dayOfEra, 1_460) + floorDivide(dayOfEra, 36_524) - floorDivide(dayOfEra, 146_096),
    365,
  );
  const dayOfYear = dayOfEra - (365 * yearOfEra + floorDivide(yearOfEra, 4) - floorDivide(yearOfEra, 100));
  const shifted = floorDivide(5 * dayOfYear + 2, 153);
  const month = shifted < 10 ? shifted + 3 : shifted - 9;
  return {
    second: timeOfDay % 60,
    minute: floorDivide(timeOfDay, 60) % 60,
    hour: floorDivide(timeOfDay, 3600),
    day: dayOfYear - floorDivide(153 * shifted + 2, 5) + 1,
    month,
    year: yearOfEra + era * 400 + (month <= 2 ? 1 : 0),
  };
}

/** Day of the week by the date: 1 is Sunday, 7 Saturday. */
const weekdayOf = (seconds: number): number => modulo(floorDivide(seconds, DAY_SECONDS) + 4, 7) + 1;

// --- bytes of the registers ------------------------------------------------------------------------------------------

const toBCD = (value: number): number => (floorDivide(value, 10) % 10) * 16 + (value % 10);
const fromBCD = (byte: number): number => (byte >> 4) * 10 + (byte & 0x0f);

const encode = (state: RtcState, value: number): number =>
  (byteAt(state, REGISTER_B) & B_BINARY) !== 0 ? value & 0xff : toBCD(value);
const decode = (state: RtcState, byte: number): number =>
  (byteAt(state, REGISTER_B) & B_BINARY) !== 0 ? byte : fromBCD(byte);

function encodeHour(state: RtcState, hour: number): number {
  if ((byteAt(state, REGISTER_B) & B_24_HOURS) !== 0) return encode(state, hour);
  const twelve = hour % 12 === 0 ? 12 : hour % 12;
  return encode(state, twelve) | (hour >= 12 ? HOURS_PM : 0);
}

function decodeHour(state: RtcState, byte: number): number {
  if ((byteAt(state, REGISTER_B) & B_24_HOURS) !== 0) return decode(state, byte);
  return (decode(state, byte & ~HOURS_PM) % 12) + ((byte & HOURS_PM) !== 0 ? 12 : 0);
}

/** The time registers as they read, in the order of TIME_REGISTERS. */
function timeBytes(state: RtcState, now: number): readonly number[] {
  if (isHeld(state)) return TIME_REGISTERS.map((index) => byteAt(state, index));
  const seconds = rtcSeconds(state, now);
  const it = calendarOf(seconds);
  return [
    encode(state, it.second),
    encode(state, it.minute),
    encodeHour(state, it.hour),
    encode(state, modulo(weekdayOf(seconds) - 1 + state.weekdayShift, 7) + 1),
    encode(state, it.day),
    encode(state, it.month),
    encode(state, it.year % 100),
    toBCD(floorDivide(it.year, 100)), // the century byte is not the chip's: the BIOS keeps it in BCD
  ];
}

/** Unix time and weekday that time registers tell. */
function timeOf(
  state: RtcState,
  bytes: readonly number[],
): { readonly seconds: number; readonly weekdayShift: number } {
  const value = (index: number): number => decode(state, bytes[index] ?? 0);
  const year = fromBCD(bytes[7] ?? 0x20) * 100 + value(6);
  const days = daysFromDate(year, Math.max(value(5), 1), Math.max(value(4), 1));
  const seconds = days * DAY_SECONDS + decodeHour(state, bytes[2] ?? 0) * 3600 + value(1) * 60 + value(0);
  return { seconds, weekdayShift: modulo(value(3) - weekdayOf(seconds), 7) };
}

// --- flags and deadlines ---------------------------------------------------------------------------------------------

/** Ticks of the crystal between periodic interrupts (data sheet, table 5); undefined for rate 0. */
function periodicTicks(state: RtcState): number | undefined {
  const a = byteAt(state, REGISTER_A);
  const rate = a & 0x0f;
  if (rate === 0 || (a & A_DIVIDER) !== A_DIVIDER_32768) return undefined;
  return rate < 3 ? 64 << rate : 1 << (rate - 1);
}

function nextPeriodic(state: RtcState, since: number): number | undefined {
  const period = periodicTicks(state);
  if (period === undefined) return undefined;
  return timeOfTick((floorDivide(ticksAt(since, CRYSTAL_HERTZ), period) + 1) * period, CRYSTAL_HERTZ);
}

function nextUpdate(state: RtcState, since: number): number | undefined {
  return isHeld(state) ? undefined : state.updatedAt + (updatesAt(state, since) + 1) * SECOND;
}

/** The first update after `since` whose time of day the three alarm bytes match. */
function nextAlarm(state: RtcState, since: number): number | undefined {
  if (isHeld(state)) return undefined;
  const wanted = (index: number, read: (byte: number) => number): number | undefined => {
    const byte = byteAt(state, index);
    return byte >= ANY ? undefined : read(byte);
  };
  const hour = wanted(ALARM_HOURS, (byte) => decodeHour(state, byte));
  const minute = wanted(ALARM_MINUTES, (byte) => decode(state, byte));
  const second = wanted(ALARM_SECONDS, (byte) => decode(state, byte));
  const first = rtcSeconds(state, since) + 1;
  const match = nextTimeOfDay(modulo(first, DAY_SECONDS), hour, minute, second);
  return match === undefined ? undefined : state.updatedAt + (first - state.seconds + match) * SECOND;
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

/** Notes the flags that have arisen, before a write that changes how they arise. */
function note(state: RtcState, now: number): readonly RtcEvent[] {
  const flags = flagsAt(state, now);
  return flags === state.flags && state.flagsSince === now ? NO_EVENTS : [{ type: 'rtc.flagged', flags, at: now }];
}

// --- decisions -------------------------------------------------------------------------------------------------------

function readData(state: RtcState, now: number): ReadDecision<RtcEvent> {
  const index = state.index;
  if (isTimeRegister(index)) {
    const place = (TIME_REGISTERS as readonly number[]).indexOf(index);
    return { value: timeBytes(state, now)[place] ?? 0, events: NO_EVENTS };
  }
  if (index === REGISTER_A) {
    const rest = modulo(now - state.updatedAt, SECOND);
    const updating = !isHeld(state) && rest >= SECOND - UPDATE_WARNING;
    return { value: byteAt(state, REGISTER_A) | (updating ? A_UIP : 0), events: NO_EVENTS };
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
  if (isTimeRegister(index)) {
    if (isHeld(state)) return [written];
    const place = (TIME_REGISTERS as readonly number[]).indexOf(index);
    const bytes = timeBytes(state, now).map((byte, at) => (at === place ? value : byte));
    const updatedAt = state.updatedAt + updatesAt(state, now) * SECOND;
    return [...note(state, now), { type: 'rtc.set', ...timeOf(state, bytes), updatedAt }];
  }
  if (index === REGISTER_A) return writeControl(state, value & 0x7f, byteAt(state, REGISTER_B), written, now);
  if (index === REGISTER_B) return writeControl(state, byteAt(state, REGISTER_A), value, written, now);
  if (index < REGISTER_A) return [...note(state, now), written]; // an alarm byte
  return byteAt(state, index) === value ? NO_EVENTS : [written];
}

/** Registers A and B: the clock is held, runs on, or goes on from what its registers hold. */
function writeControl(state: RtcState, a: number, b: number, written: RtcEvent, now: number): readonly RtcEvent[] {
  const held = isHeld(state);
  const holds = (b & B_SET) !== 0 || (a & A_DIVIDER) !== A_DIVIDER_32768;
  const noted = note(state, now);
  if (!held && holds) return [...noted, { type: 'rtc.held', time: timeBytes(state, now) }, written];
  if (!held || holds) return [...noted, written];
  // B's new format tells how the held registers are read; SET leaves the divider running, its reset does not.
  const format = { ...state, memory: state.memory.map((byte, index) => (index === REGISTER_B ? b : byte)) };
  const released = isDividerReset(byteAt(state, REGISTER_A)) && !isDividerReset(a);
  const updatedAt = released ? now - HALF_SECOND : state.updatedAt + updatesAt(state, now) * SECOND;
  const time = timeOf(format, timeBytes(state, now));
  return [...noted, { type: 'rtc.set', ...time, updatedAt }, written];
}

// --- configuration ---------------------------------------------------------------------------------------------------

const KIB = 1024;
const MIB = 1024 * KIB;
const GIB = 1024 * MIB;

/** What a BIOS leaves in the battery-backed memory about the machine: memory sizes and the number of processors. */
export function configureMemory(state: RtcState, config: { readonly ramBytes: number; readonly vcpus: number }): void {
  const below4G = Math.min(config.ramBytes, 3 * GIB);
  const put = (index: number, value: number, bytes: number): void => {
    for (let at = 0; at < bytes; at += 1) state.memory[index + at] = floorDivide(value, 256 ** at) & 0xff;
  };
  const extendedKiB = Math.max(floorDivide(below4G, KIB) - KIB, 0);
  put(0x15, 640, 2); // base memory, KiB
  put(0x17, Math.min(extendedKiB, 0xffff), 2); // above 1 MiB, KiB
  put(0x30, Math.min(extendedKiB, 0xffff), 2);
  put(0x34, Math.min(Math.max(floorDivide(below4G - 16 * MIB, 64 * KIB), 0), 0xffff), 2); // above 16 MiB, 64 KiB
  put(0x5b, floorDivide(config.ramBytes - below4G, 64 * KIB), 3); // above 4 GiB, 64 KiB
  put(0x5f, config.vcpus - 1, 1);
}

/** The clock shows `unixSeconds` at power-on. Pure: `state` stays as it is. */
export const rtcWithClock = (state: RtcState, unixSeconds: number): RtcState => ({
  ...state,
  seconds: floorDivide(unixSeconds, 1),
  updatedAt: 0,
  weekdayShift: 0,
});

/** Registers of the device: the index port and the data port. */
export const RTC = { INDEX: 0, DATA: 1 };

export const RTC_MC146818: Device<RtcState, RtcEvent> = {
  initial() {
    const memory = new Array<number>(128).fill(0);
    memory[REGISTER_A] = A_DIVIDER_32768 | 0x06; // 1.024 kHz
    memory[REGISTER_B] = B_24_HOURS;
    memory[REGISTER_D] = D_VALID;
    return { index: 0, memory, seconds: 0, updatedAt: 0, weekdayShift: 0, flags: 0, flagsSince: 0 };
  },

  reduce(state, event) {
    switch (event.type) {
      case 'rtc.selected':
        state.index = event.index;
        return;
      case 'rtc.written':
        state.memory[event.index] = event.index === REGISTER_A ? event.value & 0x7f : event.value;
        if (event.index === REGISTER_B && (event.value & B_SET) !== 0) state.memory[REGISTER_B] = event.value & ~0x10;
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
      default:
        unreachable(event);
    }
  },

  decideRead(state, register, _size, now) {
    return register === RTC.DATA ? readData(state, now) : { value: 0xff, events: NO_EVENTS };
  },

  decideWrite(state, register, value, _size, now) {
    if (register === RTC.DATA) return writeData(state, value & 0xff, now);
    const index = value & 0x7f; // bit 7 masks the chipset's NMI, which has no source here
    return state.index === index ? NO_EVENTS : [{ type: 'rtc.selected', index }];
  },

  nextDeadline(state) {
    const enables = byteAt(state, REGISTER_B) & B_ENABLES;
    if (enables === 0 || interrupts(state)) return undefined;
    const since = state.flagsSince;
    let next = Number.POSITIVE_INFINITY;
    if ((enables & FLAG_PERIODIC) !== 0) next = Math.min(next, nextPeriodic(state, since) ?? next);
    if ((enables & FLAG_UPDATE) !== 0) next = Math.min(next, nextUpdate(state, since) ?? next);
    if ((enables & FLAG_ALARM) !== 0) next = Math.min(next, nextAlarm(state, since) ?? next);
    return next === Number.POSITIVE_INFINITY ? undefined : nanoseconds(next);
  },

  decideDeadline(state, now: Nanoseconds) {
    const flags = flagsAt(state, now);
    return flags === state.flags ? NO_EVENTS : [{ type: 'rtc.flagged', flags, at: now }];
  },

  /** IRQ: some flag whose interrupt is enabled (data sheet, Register C, IRQF). */
  interruptLine: interrupts,
};

/**
 * The calendar of the real-time clock, and its registers as bytes: BCD or binary, 24 hours or 12.
 *
 * Leap years are those of the Gregorian calendar, for the century byte is part of the date. A date that does not exist
 * (software may write any byte) is carried on into one that does.
 *
 * Source: Motorola MC146818A Real-Time Clock plus RAM, data sheet, Time, Calendar, and Alarm Locations, table 3.
 */
import { floorDivide, modulo } from './ticks.js';

/** How register B has the time registers. */
export interface TimeFormat {
  /** DM: binary rather than BCD. */
  readonly binary: boolean;
  /** 24/12. */
  readonly hours24: boolean;
}

/** Unix time, and by how many days the day-of-week register is ahead of the date's own, modulo 7. */
export interface ClockTime {
  readonly seconds: number;
  readonly weekdayShift: number;
}

export const DAY_SECONDS = 86_400;

interface CalendarDate {
  readonly year: number;
  /** 1 … 12. */
  readonly month: number;
  /** 1 … 31. */
  readonly day: number;
}

/** Days since 1970-01-01 of a date of the Gregorian calendar, counted in years that begin in March. */
function daysOf({ year, month, day }: CalendarDate): number {
  const shifted = month <= 2 ? year - 1 : year;
  const era = floorDivide(shifted, 400);
  const yearOfEra = shifted - era * 400;
  const dayOfYear = floorDivide(153 * ((month + 9) % 12) + 2, 5) + day - 1;
  const dayOfEra = yearOfEra * 365 + floorDivide(yearOfEra, 4) - floorDivide(yearOfEra, 100) + dayOfYear;
  return era * 146_097 + dayOfEra - 719_468;
}

function dateOf(daysSince1970: number): CalendarDate {
  const days = daysSince1970 + 719_468;
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
    year: yearOfEra + era * 400 + (month <= 2 ? 1 : 0),
    month,
    day: dayOfYear - floorDivide(153 * shifted + 2, 5) + 1,
  };
}

/** Day of the week by the date: 1 is Sunday, 7 Saturday. */
const weekdayOf = (seconds: number): number => modulo(floorDivide(seconds, DAY_SECONDS) + 4, 7) + 1;

// --- bytes -----------------------------------------------------------------------------------------------------------

const PM = 0x80;

const toBCD = (value: number): number => (floorDivide(value, 10) % 10) * 16 + (value % 10);
const fromBCD = (byte: number): number => (byte >> 4) * 10 + (byte & 0x0f);

const encode = ({ binary }: TimeFormat, value: number): number => (binary ? value & 0xff : toBCD(value));
/** A byte of the time or of the alarm, but the hours, as a number. */
export const decodeByte = ({ binary }: TimeFormat, byte: number): number => (binary ? byte : fromBCD(byte));

function encodeHour(format: TimeFormat, hour: number): number {
  if (format.hours24) return encode(format, hour);
  const twelve = hour % 12 === 0 ? 12 : hour % 12;
  return encode(format, twelve) | (hour >= 12 ? PM : 0);
}

/** A byte of hours, of the time or of the alarm: 0 … 23 where it tells an hour. */
export function decodeHour(format: TimeFormat, byte: number): number {
  if (format.hours24) return decodeByte(format, byte);
  return (decodeByte(format, byte & ~PM) % 12) + ((byte & PM) !== 0 ? 12 : 0);
}

/** The time registers: seconds, minutes, hours, day of week, day, month, year, century. */
export function timeBytes(format: TimeFormat, { seconds, weekdayShift }: ClockTime): readonly number[] {
  const { year, month, day } = dateOf(floorDivide(seconds, DAY_SECONDS));
  const timeOfDay = modulo(seconds, DAY_SECONDS);
  return [
    encode(format, timeOfDay % 60),
    encode(format, floorDivide(timeOfDay, 60) % 60),
    encodeHour(format, floorDivide(timeOfDay, 3600)),
    encode(format, modulo(weekdayOf(seconds) - 1 + weekdayShift, 7) + 1),
    encode(format, day),
    encode(format, month),
    encode(format, modulo(year, 100)),
    toBCD(floorDivide(year, 100)), // the century byte is not the chip's: the BIOS keeps it in BCD
  ];
}

/** What the time registers tell, in the order of `timeBytes`. */
export function timeOfBytes(format: TimeFormat, bytes: readonly number[]): ClockTime {
  const value = (index: number): number => decodeByte(format, bytes[index] ?? 0);
  const year = fromBCD(bytes[7] ?? 0x20) * 100 + value(6);
  const days = daysOf({ year, month: Math.max(value(5), 1), day: Math.max(value(4), 1) });
  const seconds = days * DAY_SECONDS + decodeHour(format, bytes[2] ?? 0) * 3600 + value(1) * 60 + value(0);
  return { seconds, weekdayShift: modulo(value(3) - weekdayOf(seconds), 7) };
}

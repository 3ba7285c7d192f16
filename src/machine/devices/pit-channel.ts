/**
 * One counter of the 8254, as a function of the ticks of its clock.
 *
 * A channel keeps the tick at which its counting element was last loaded, and with what; a load that is still to come is
 * kept beside it, so that the element and OUT can be told at every tick, before and after. What happens at `tick` happens
 * after that clock pulse: a count written then is loaded with the next.
 *
 * Source: Intel 8254 Programmable Interval Timer, data sheet 231164, Mode Definitions, Operation Common to All Modes.
 * Invariant: functions over time ask for ticks that are not before the last thing that happened to the channel.
 */
import { floorDivide, modulo } from './ticks.js';

/** A transfer of the count register into the counting element that is still to come. */
export interface PitLoad {
  /** The tick at which it takes place. */
  at: number;
  /** The tick at which its cycle would have begun: earlier than `at` in the low half of mode 3. */
  start: number;
  count: number;
  /** It waits for the end of a (half) cycle, which never comes once the gate halts the count. */
  atCycleEnd: boolean;
}

export interface PitChannelState {
  mode: number;
  bcd: boolean;
  /** RW bits of the control word: 1 LSB, 2 MSB, 3 LSB then MSB. */
  access: number;
  /** The LSB of a count whose MSB is still to come. */
  lowByte: number | null;
  /** The next read returns the MSB (access 3). */
  readsHigh: boolean;
  latchedCount: number | null;
  latchedStatus: number | null;
  /** The count register, 1 … 65536; null before a count was written. */
  register: number | null;
  /** The count register was written since it was last loaded. */
  unloaded: boolean;
  /** The tick at which the counting element was loaded, with `count`; null before the first time. */
  start: number | null;
  count: number;
  load: PitLoad | null;
  gate: boolean;
  /** The tick after which the counting element no longer counts. */
  haltedAt: number | null;
  /** The first rising edge of OUT after the last event; kept for channel 0 alone. */
  edge: number | null;
}

/** RW bits of the control word. */
export const ACCESS_LSB = 1;
export const ACCESS_BOTH = 3;

/** A channel that a control word has just programmed (or that has come out of power-on, in mode 0). */
export const programmedChannel = (
  gate: boolean,
  { mode, access, bcd }: { readonly mode: number; readonly access: number; readonly bcd: boolean },
): PitChannelState => ({
  mode,
  bcd,
  access,
  lowByte: null,
  readsHigh: false,
  latchedCount: null,
  latchedStatus: null,
  register: null,
  unloaded: false,
  start: null,
  count: 0,
  load: null,
  gate,
  haltedAt: null,
  edge: null,
});

const isPeriodic = (mode: number): boolean => mode === 2 || mode === 3;
/** Modes in which the gate's rising edge starts the count, and its level means nothing. */
const isTriggered = (mode: number): boolean => mode === 1 || mode === 5;
const modulus = (it: PitChannelState): number => (it.bcd ? 10_000 : 65_536);
/** Ticks for which mode 3 holds its output high: odd counts are high one tick longer. */
const highTicks = (count: number): number => count - floorDivide(count, 2);

// --- counts as bytes -------------------------------------------------------------------------------------------------

/** A count as a read returns it: 16 bits, or four decimal digits. */
function encode(it: PitChannelState, count: number): number {
  if (!it.bcd) return count & 0xffff;
  let digits = 0;
  for (let shift = 0, rest = count % 10_000; shift < 16; shift += 4) {
    digits |= (rest % 10) << shift;
    rest = floorDivide(rest, 10);
  }
  return digits;
}

/** A written count; 0 stands for the largest, 1 is illegal in the periodic modes and taken as 2. */
export function decodeCount(it: PitChannelState, value: number): number {
  let count = value;
  if (it.bcd) {
    count = 0;
    for (let shift = 12; shift >= 0; shift -= 4) count = count * 10 + ((value >> shift) & 0xf);
  }
  if (count === 0) return modulus(it);
  return isPeriodic(it.mode) ? Math.max(count, 2) : count;
}

// --- as time passes --------------------------------------------------------------------------------------------------

interface Cycle {
  readonly start: number;
  readonly count: number;
  /** Ticks since the start, no more once the count is halted. */
  readonly elapsed: number;
  readonly halted: boolean;
}

const isLoadedBy = (it: PitChannelState, tick: number): boolean => it.load !== null && tick >= it.load.at;

/** A low gate halts the count, but in the triggered modes; so does half a new count in mode 0. */
const isHalted = (it: PitChannelState): boolean =>
  (!it.gate && !isTriggered(it.mode)) || (it.mode === 0 && it.lowByte !== null);

/** What the counting element does at `tick`; undefined before it was ever loaded. */
function cycleAt(it: PitChannelState, tick: number): Cycle | undefined {
  if (it.load !== null && isLoadedBy(it, tick)) {
    const halted = isHalted(it);
    const { start, count, at } = it.load;
    return { start, count, elapsed: (halted ? at : tick) - start, halted };
  }
  if (it.start === null) return undefined;
  return { start: it.start, count: it.count, elapsed: (it.haltedAt ?? tick) - it.start, halted: it.haltedAt !== null };
}

/** OUT at `tick`. Until it is first loaded, a channel rests: low in mode 0, high in all others. */
export function outputAt(it: PitChannelState, tick: number): boolean {
  const cycle = cycleAt(it, tick);
  if (cycle === undefined) return it.mode !== 0;
  const { count, elapsed } = cycle;
  switch (it.mode) {
    case 0:
      // A new count lowers OUT as it is written, its first byte too.
      return elapsed >= count && it.lowByte === null && (it.load === null || isLoadedBy(it, tick));
    case 1:
      return elapsed >= count;
    case 2:
      return cycle.halted || modulo(elapsed, count) !== count - 1;
    case 3:
      return cycle.halted || modulo(elapsed, count) < highTicks(count);
    default:
      // The strobe lasts one pulse of the clock, also when the gate halts the count in it.
      return elapsed !== count || tick > cycle.start + count;
  }
}

/** The counting element at `tick`, as a read returns it. */
export function countAt(it: PitChannelState, tick: number): number {
  const cycle = cycleAt(it, tick);
  if (cycle === undefined) return 0;
  const { count, elapsed } = cycle;
  if (it.mode === 2) return encode(it, count - modulo(elapsed, count));
  if (it.mode === 3) {
    const phase = modulo(elapsed, count);
    const high = highTicks(count);
    return encode(it, count - (count % 2) - 2 * (phase < high ? phase : phase - high));
  }
  return encode(it, modulo(count - elapsed, modulus(it)));
}

/** The status byte of the read-back command (data sheet, Read-Back Command). */
export function statusAt(it: PitChannelState, tick: number): number {
  const nullCount = it.register === null || (it.unloaded && !isLoadedBy(it, tick));
  return (
    (outputAt(it, tick) ? 0x80 : 0) | (nullCount ? 0x40 : 0) | (it.access << 4) | (it.mode << 1) | (it.bcd ? 1 : 0)
  );
}

/** The first rising edge of OUT after `tick` while the gate stays high; null when none comes by itself. */
export function nextRisingEdge(it: PitChannelState, tick: number): number | null {
  const { load } = it;
  const counts = it.start !== null && it.haltedAt === null && (it.mode !== 0 || load === null);
  const before = counts ? edgeOf(it, it.start ?? 0, it.count, tick) : null;
  if (load === null || (before !== null && before <= load.at)) return before;
  return isHalted(it) ? null : edgeOf(it, load.start, load.count, Math.max(tick, load.at));
}

/** The first rising edge after `tick` of a count that began at `start`. */
function edgeOf(it: PitChannelState, start: number, count: number, tick: number): number | null {
  if (isPeriodic(it.mode)) return start + Math.max(floorDivide(tick - start, count) + 1, 1) * count;
  const end = start + count + (it.mode >= 4 ? 1 : 0);
  return end > tick ? end : null;
}

// --- what happens to it ----------------------------------------------------------------------------------------------

/** A load that has taken place becomes the running cycle. */
function settle(it: PitChannelState, tick: number): void {
  const { load } = it;
  if (load === null || tick < load.at) return;
  it.start = load.start;
  it.count = load.count;
  it.haltedAt = isHalted(it) ? load.at : null;
  it.unloaded = false;
  it.load = null;
}

const loadNext = (it: PitChannelState, tick: number): void => {
  const count = it.register ?? modulus(it);
  it.load = { at: tick + 1, start: tick + 1, count, atCycleEnd: false };
};

/** The first byte of a two-byte count stops mode 0, and lowers its OUT (data sheet, Mode 0). */
export const firstByteStops = (it: PitChannelState): boolean => it.mode === 0 && it.register !== null;

export function stop(it: PitChannelState, tick: number): void {
  settle(it, tick);
  if (it.start !== null) it.haltedAt ??= tick;
}

/** A whole count is written: loaded by the next pulse, at the end of the cycle, or at the next trigger. */
export function writeCount(it: PitChannelState, count: number, tick: number): void {
  settle(it, tick);
  it.lowByte = null;
  it.register = count;
  it.unloaded = true;
  if (it.load !== null && !it.load.atCycleEnd) loadNext(it, tick);
  else if (isTriggered(it.mode)) return;
  else if (!isPeriodic(it.mode) || it.start === null) loadNext(it, tick);
  else if (it.haltedAt === null) it.load = loadAtCycleEnd(it.mode, it.start, it.count, count, tick);
}

/** Mode 2 takes a new count at the end of its cycle, mode 3 at the end of the half cycle. */
function loadAtCycleEnd(mode: number, start: number, running: number, count: number, tick: number): PitLoad {
  const cycleStart = start + floorDivide(tick - start, running) * running;
  const middle = cycleStart + highTicks(running);
  if (mode === 3 && tick < middle) return { at: middle, start: middle - highTicks(count), count, atCycleEnd: true };
  return { at: cycleStart + running, start: cycleStart + running, count, atCycleEnd: true };
}

/** The count goes on from where it was halted. A strobe that was under way then is over: it does not come again. */
function resume(it: PitChannelState, start: number, haltedAt: number, tick: number): void {
  const strobed = it.mode === 4 && haltedAt === start + it.count && tick > haltedAt;
  it.start = start + tick - haltedAt - (strobed ? modulus(it) : 0);
  it.haltedAt = null;
}

/** The gate moves (data sheet, Gate Pin Operations Summary). */
export function setGate(it: PitChannelState, gate: boolean, tick: number): void {
  if (it.gate === gate) return;
  settle(it, tick);
  it.gate = gate;
  if (isTriggered(it.mode)) {
    if (gate && it.register !== null) loadNext(it, tick);
  } else if (isPeriodic(it.mode)) {
    if (gate) {
      if (it.register !== null) loadNext(it, tick);
    } else {
      if (it.load?.atCycleEnd === true) it.load = null;
      stop(it, tick);
    }
  } else if (it.start !== null) {
    if (!gate) stop(it, tick);
    else if (it.haltedAt !== null && !isHalted(it)) resume(it, it.start, it.haltedAt, tick);
  }
}

// --- latches and bytes -----------------------------------------------------------------------------------------------

/** Which byte a read of the channel's port returns. */
export function byteOf(it: PitChannelState, tick: number): number {
  if (it.latchedStatus !== null) return it.latchedStatus;
  const count = it.latchedCount ?? countAt(it, tick);
  const high = it.access === ACCESS_BOTH ? it.readsHigh : it.access !== ACCESS_LSB;
  return high ? count >> 8 : count & 0xff;
}

/** Whether a read changes anything: a latch is used up, or the other byte is next. */
export const readConsumes = (it: PitChannelState): boolean =>
  it.latchedStatus !== null || it.latchedCount !== null || it.access === ACCESS_BOTH;

/** What a read consumes: the status latch, then the count's bytes. */
export function consumeRead(it: PitChannelState): void {
  if (it.latchedStatus !== null) {
    it.latchedStatus = null;
    return;
  }
  if (it.access === ACCESS_BOTH) {
    it.readsHigh = !it.readsHigh;
    if (it.readsHigh) return;
  }
  it.latchedCount = null;
}

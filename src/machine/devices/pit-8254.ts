/**
 * The interval timer: an Intel 8254 at 40h–43h, clocked with 1.193182 MHz, and the system control port 61h around its
 * channel 2. Channel 0's output is IRQ 0, channel 1's gave the memory refresh, channel 2 the speaker.
 *
 * Counters are functions of time: a channel keeps the tick at which its counting element was loaded, and the count it
 * was loaded with. Only rising edges of channel 0's output are events (`pit.output`). Its low phase in the periodic and
 * strobe modes is not shown to the interrupt controllers: each rising edge reaches them as one pulse.
 *
 * Source: Intel 8254 Programmable Interval Timer, data sheet 231164; 82371AB (PIIX4) data sheet, §4.2.5 for port 61h.
 * Invariant: `edge` is the first rising edge of the output after the last event, in ticks; kept for channel 0 alone.
 */
import { unreachable } from '../errors.js';
import { type Nanoseconds, nanoseconds } from '../units.js';
import type { Device, FieldTable, ReadDecision } from './device.js';
import { NO_EVENTS } from './device.js';
import { floorDivide, modulo, ticksAt, timeOfTick } from './ticks.js';

export const PIT_HERTZ = 1_193_182;

/** A count that waits for the end of the running (half) cycle in modes 2 and 3. */
export interface PitReload {
  /** The tick at which it takes over. */
  at: number;
  /** The tick at which its cycle would have begun. */
  start: number;
  count: number;
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
  /** The tick at which the counting element was loaded, with `count`; null while it does not count. */
  start: number | null;
  count: number;
  reload: PitReload | null;
  gate: boolean;
  /** The tick at which a low gate halted the count (modes 0 and 4). */
  haltedAt: number | null;
  edge: number | null;
}

export interface PitState {
  channels: PitChannelState[];
  /** Bits 3:0 of port 61h as written. */
  control: number;
}

export type PitEvent =
  | {
      readonly type: 'pit.programmed';
      readonly channel: number;
      readonly mode: number;
      readonly access: number;
      readonly bcd: boolean;
    }
  /** The first byte of a two-byte count. */
  | { readonly type: 'pit.half-written'; readonly channel: number; readonly byte: number }
  /** A whole count, at a tick of the timer's clock. */
  | { readonly type: 'pit.loaded'; readonly channel: number; readonly count: number; readonly at: number }
  | {
      readonly type: 'pit.latched';
      readonly channel: number;
      readonly count: number | null;
      readonly status: number | null;
    }
  /** A read took a latched value or moved on to the other byte. */
  | { readonly type: 'pit.read'; readonly channel: number }
  /** A rising edge of the channel's output. */
  | { readonly type: 'pit.output'; readonly channel: number; readonly at: number }
  /** Port 61h was written: gate of channel 2, speaker, and the two check enables. */
  | { readonly type: 'pit.controlled'; readonly value: number; readonly at: number };

export const PIT_EVENT_FIELDS = {
  'pit.programmed': ['channel', 'mode', 'access', 'bcd'],
  'pit.half-written': ['channel', 'byte'],
  'pit.loaded': ['channel', 'count', 'at'],
  'pit.latched': ['channel', 'count', 'status'],
  'pit.read': ['channel'],
  'pit.output': ['channel', 'at'],
  'pit.controlled': ['value', 'at'],
} as const satisfies FieldTable<PitEvent>;

/** Registers of the device, as `devices.ts` numbers its ports. */
export const PIT = { CHANNEL_0: 0, CHANNEL_1: 1, CHANNEL_2: 2, COMMAND: 3, PORT_61: 4 };

const LSB = 1;
const BOTH = 3;
const READ_BACK = 3;
const GATE_2 = 0x01;
/** Channel 1 requests a memory refresh every 18 ticks; each toggles bit 4 of port 61h. */
const REFRESH_TICKS = 18;

const tickOf = (now: Nanoseconds): number => ticksAt(now, PIT_HERTZ);
const channelAt = (state: PitState, channel: number): PitChannelState => state.channels[channel] as PitChannelState;
const isPeriodic = (mode: number): boolean => mode === 2 || mode === 3;
const isTriggered = (mode: number): boolean => mode === 1 || mode === 5;
const modulus = (it: PitChannelState): number => (it.bcd ? 10_000 : 65_536);
/** Ticks for which mode 3 holds its output high (data sheet, Mode 3: odd counts are high one tick longer). */
const highTicks = (count: number): number => count - floorDivide(count, 2);

/** The cycle that runs at `tick`: when it began and with which count. */
function cycleAt(it: PitChannelState, tick: number): { readonly start: number; readonly count: number } | undefined {
  if (it.start === null) return undefined;
  if (it.reload !== null && tick >= it.reload.at) return it.reload;
  return { start: it.start, count: it.count };
}

/** OUT at `tick`. Before it is loaded, a channel rests: low in mode 0, high in all others. */
function outputAt(it: PitChannelState, tick: number): boolean {
  const cycle = cycleAt(it, tick);
  if (cycle === undefined) return it.mode !== 0;
  const elapsed = (it.haltedAt ?? tick) - cycle.start;
  if (elapsed < 0) return it.mode !== 0;
  switch (it.mode) {
    case 0:
      return elapsed >= cycle.count;
    case 1:
      return elapsed >= cycle.count;
    case 2:
      return modulo(elapsed, cycle.count) !== cycle.count - 1;
    case 3:
      return modulo(elapsed, cycle.count) < highTicks(cycle.count);
    default:
      return elapsed !== cycle.count;
  }
}

/** The counting element at `tick`, as a number; see `encode` for what a read returns. */
function countAt(it: PitChannelState, tick: number): number {
  const cycle = cycleAt(it, tick);
  if (cycle === undefined) return it.register ?? 0;
  const elapsed = (it.haltedAt ?? tick) - cycle.start;
  if (elapsed < 0) return cycle.count;
  if (it.mode === 2) return cycle.count - modulo(elapsed, cycle.count);
  if (it.mode === 3) {
    const phase = modulo(elapsed, cycle.count);
    const high = highTicks(cycle.count);
    const even = cycle.count - (cycle.count % 2);
    return even - 2 * (phase < high ? phase : phase - high);
  }
  return modulo(cycle.count - elapsed, modulus(it));
}

/** A count as its two bytes: binary, or four decimal digits. */
function encode(it: PitChannelState, count: number): number {
  if (!it.bcd) return count & 0xffff;
  let digits = 0;
  for (let shift = 0, rest = count % 10_000; shift < 16; shift += 4) {
    digits |= (rest % 10) << shift;
    rest = floorDivide(rest, 10);
  }
  return digits;
}

/** A written count; 0 stands for the largest. */
function decode(it: PitChannelState, value: number): number {
  let count = value;
  if (it.bcd) {
    count = 0;
    for (let shift = 12; shift >= 0; shift -= 4) count = count * 10 + ((value >> shift) & 0xf);
  }
  if (count === 0) return modulus(it);
  return isPeriodic(it.mode) ? Math.max(count, 2) : count; // 1 is illegal there
}

/** The status byte of the read-back command (data sheet, Read-Back Command). */
function statusAt(it: PitChannelState, tick: number): number {
  const waits =
    it.register === null || (it.start !== null && tick < it.start) || (it.reload !== null && tick < it.reload.at);
  return (outputAt(it, tick) ? 0x80 : 0) | (waits ? 0x40 : 0) | (it.access << 4) | (it.mode << 1) | (it.bcd ? 1 : 0);
}

/** The first rising edge of OUT after `tick`; undefined when there is none without a new count or trigger. */
function nextRisingEdge(it: PitChannelState, tick: number): number | null {
  if (it.start === null || it.haltedAt !== null) return null;
  if (!isPeriodic(it.mode)) {
    const end = it.start + it.count + (it.mode >= 4 ? 1 : 0);
    return end > tick ? end : null;
  }
  const after = (start: number, count: number, since: number): number =>
    start + Math.max(floorDivide(since - start, count) + 1, 1) * count;
  if (it.reload === null) return after(it.start, it.count, tick);
  const edge = tick < it.reload.at ? after(it.start, it.count, tick) : Number.POSITIVE_INFINITY;
  return edge <= it.reload.at ? edge : after(it.reload.start, it.reload.count, Math.max(tick, it.reload.at));
}

/** A count takes effect (data sheet, Mode Definitions): at the next tick, at the next cycle, or at the next trigger. */
function load(it: PitChannelState, count: number, at: number): void {
  it.lowByte = null;
  it.register = count;
  if (isTriggered(it.mode)) return;
  if (isPeriodic(it.mode)) {
    if (!it.gate) return;
    const cycle = cycleAt(it, at);
    if (cycle !== undefined && at >= cycle.start) {
      it.start = cycle.start;
      it.count = cycle.count;
      it.reload = reloadAfter(it.mode, cycle.start, cycle.count, count, at);
      return;
    }
  }
  begin(it, at);
}

function reloadAfter(mode: number, start: number, running: number, count: number, at: number): PitReload {
  const cycleStart = start + floorDivide(at - start, running) * running;
  const middle = cycleStart + highTicks(running);
  if (mode === 3 && at < middle) return { at: middle, start: middle - highTicks(count), count };
  return { at: cycleStart + running, start: cycleStart + running, count };
}

/** Loads the counting element at the tick after `at`. */
function begin(it: PitChannelState, at: number): void {
  it.start = at + 1;
  it.count = it.register ?? modulus(it);
  it.reload = null;
  it.haltedAt = it.gate ? null : it.start;
}

/** The gate of a channel moves (data sheet, Gate Pin Operations Summary). */
function setGate(it: PitChannelState, gate: boolean, at: number): void {
  if (it.gate === gate) return;
  it.gate = gate;
  if (isTriggered(it.mode)) {
    if (gate && it.register !== null) begin(it, at);
  } else if (isPeriodic(it.mode)) {
    if (!gate) {
      it.start = null;
      it.reload = null;
    } else if (it.register !== null) begin(it, at);
  } else if (it.start !== null) {
    if (!gate) it.haltedAt = Math.max(at, it.start);
    else if (it.haltedAt !== null) {
      it.start += Math.max(at - it.haltedAt, 0);
      it.haltedAt = null;
    }
  }
}

/** What a read of a counter's port consumes: the status latch, then the count's bytes. */
function take(it: PitChannelState): void {
  if (it.latchedStatus !== null) {
    it.latchedStatus = null;
    return;
  }
  if (it.access === BOTH) {
    it.readsHigh = !it.readsHigh;
    if (it.readsHigh) return;
  }
  it.latchedCount = null;
}

const channelState = (gate: boolean): PitChannelState => ({
  mode: 0,
  bcd: false,
  access: BOTH,
  lowByte: null,
  readsHigh: false,
  latchedCount: null,
  latchedStatus: null,
  register: null,
  start: null,
  count: 0,
  reload: null,
  gate,
  haltedAt: null,
  edge: null,
});

function decideCommand(state: PitState, command: number, now: Nanoseconds): readonly PitEvent[] {
  const tick = tickOf(now);
  const select = command >> 6;
  if (select === READ_BACK) {
    return [0, 1, 2]
      .filter((channel) => (command & (2 << channel)) !== 0)
      .flatMap((channel) => latch(state, channel, (command & 0x20) === 0, (command & 0x10) === 0, tick));
  }
  const access = (command >> 4) & 3;
  if (access === 0) return latch(state, select, true, false, tick);
  const mode = (command >> 1) & 7;
  const bcd = (command & 1) !== 0;
  return [{ type: 'pit.programmed', channel: select, mode: mode > 5 ? mode - 4 : mode, access, bcd }];
}

/** What is latched already stays until it is read. */
function latch(state: PitState, channel: number, count: boolean, status: boolean, tick: number): readonly PitEvent[] {
  const it = channelAt(state, channel);
  const newCount = count && it.latchedCount === null ? encode(it, countAt(it, tick)) : null;
  const newStatus = status && it.latchedStatus === null ? statusAt(it, tick) : null;
  if (newCount === null && newStatus === null) return NO_EVENTS;
  return [{ type: 'pit.latched', channel, count: newCount, status: newStatus }];
}

function decideCounterRead(state: PitState, channel: number, now: Nanoseconds): ReadDecision<PitEvent> {
  const it = channelAt(state, channel);
  const consumes = it.latchedStatus !== null || it.latchedCount !== null || it.access === BOTH;
  const events: readonly PitEvent[] = consumes ? [{ type: 'pit.read', channel }] : NO_EVENTS;
  if (it.latchedStatus !== null) return { value: it.latchedStatus, events };
  const count = it.latchedCount ?? encode(it, countAt(it, tickOf(now)));
  const high = it.access === BOTH ? it.readsHigh : it.access !== LSB;
  return { value: high ? count >> 8 : count & 0xff, events };
}

function decideCounterWrite(state: PitState, channel: number, byte: number, now: Nanoseconds): readonly PitEvent[] {
  const it = channelAt(state, channel);
  if (it.access === BOTH && it.lowByte === null) return [{ type: 'pit.half-written', channel, byte }];
  const value = it.access === LSB ? byte : (byte << 8) | (it.access === BOTH ? (it.lowByte ?? 0) : 0);
  return [{ type: 'pit.loaded', channel, count: decode(it, value), at: tickOf(now) }];
}

/** Port 61h (PIIX4, NMI Status and Control Register): no channel or parity check ever reports, bits 7:6 stay 0. */
function readControl(state: PitState, now: Nanoseconds): number {
  const tick = tickOf(now);
  const refresh = modulo(floorDivide(tick, REFRESH_TICKS), 2) === 1 ? 0x10 : 0;
  return state.control | refresh | (outputAt(channelAt(state, 2), tick) ? 0x20 : 0);
}

/** Channel 0's output as the interrupt controllers see it pulses, rather than just rises, at a `pit.output`. */
export const outputPulses = (state: PitState): boolean => channelAt(state, 0).mode !== 0;

export const PIT_8254: Device<PitState, PitEvent> = {
  initial: () => ({ channels: [channelState(true), channelState(true), channelState(false)], control: 0 }),

  reduce(state, event) {
    switch (event.type) {
      case 'pit.programmed': {
        const gate = channelAt(state, event.channel).gate;
        const { mode, access, bcd } = event;
        state.channels[event.channel] = { ...channelState(gate), mode, access, bcd };
        return;
      }
      case 'pit.half-written': {
        const it = channelAt(state, event.channel);
        it.lowByte = event.byte;
        if (it.mode !== 0) return;
        it.start = null; // mode 0 stops counting, with its output low, between the two bytes
        it.edge = null;
        return;
      }
      case 'pit.loaded': {
        const it = channelAt(state, event.channel);
        load(it, event.count, event.at);
        if (event.channel === 0) it.edge = nextRisingEdge(it, event.at);
        return;
      }
      case 'pit.latched': {
        const it = channelAt(state, event.channel);
        if (event.count !== null) it.latchedCount = event.count;
        if (event.status !== null) it.latchedStatus = event.status;
        return;
      }
      case 'pit.read':
        take(channelAt(state, event.channel));
        return;
      case 'pit.output': {
        const it = channelAt(state, event.channel);
        it.edge = nextRisingEdge(it, event.at);
        return;
      }
      case 'pit.controlled':
        state.control = event.value;
        setGate(channelAt(state, 2), (event.value & GATE_2) !== 0, event.at);
        return;
      default:
        unreachable(event);
    }
  },

  decideRead(state, register, _size, now) {
    if (register === PIT.PORT_61) return { value: readControl(state, now), events: NO_EVENTS };
    if (register === PIT.COMMAND) return { value: 0xff, events: NO_EVENTS }; // no operation, the bus floats
    return decideCounterRead(state, register, now);
  },

  decideWrite(state, register, value, _size, now) {
    const byte = value & 0xff;
    if (register === PIT.PORT_61) {
      const control = byte & 0x0f;
      return state.control === control ? NO_EVENTS : [{ type: 'pit.controlled', value: control, at: tickOf(now) }];
    }
    return register === PIT.COMMAND ? decideCommand(state, byte, now) : decideCounterWrite(state, register, byte, now);
  },

  nextDeadline(state) {
    const edge = channelAt(state, 0).edge;
    return edge === null ? undefined : nanoseconds(timeOfTick(edge, PIT_HERTZ));
  },

  /** One event for the last edge that passed: edges that nobody could take in between are lost, as on hardware. */
  decideDeadline(state, now) {
    const edge = channelAt(state, 0).edge;
    const tick = tickOf(now);
    return edge === null || edge > tick ? NO_EVENTS : [{ type: 'pit.output', channel: 0, at: tick }];
  },

  /** Channel 0's output; high throughout in the modes that pulse. */
  interruptLine(state) {
    const it = channelAt(state, 0);
    return it.mode !== 0 || (it.start !== null && it.edge === null);
  },
};

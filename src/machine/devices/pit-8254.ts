/**
 * The interval timer: an Intel 8254 at 40h–43h, clocked with 1.193182 MHz, and the system control port 61h around its
 * channel 2. Channel 0's output is IRQ 0, channel 1's gave the memory refresh, channel 2 the speaker. The counters
 * themselves are in `pit-channel.ts`.
 *
 * Only rising edges of channel 0's output are events (`pit.output`). Its low phase in the periodic and strobe modes is
 * not shown to the interrupt controllers: each rising edge reaches them as one pulse.
 *
 * Port 61h also holds one of the PC's two sources of NMI, the I/O channel check; the other, a memory parity error, never
 * happens here. Its mask is in port 70h (`rtc-mc146818.ts`).
 *
 * Source: Intel 8254 Programmable Interval Timer, data sheet 231164; 82371AB (PIIX4) data sheet, §4.2.5 for port 61h.
 * Invariant: a channel's `edge` is the first rising edge of its output after the last event, in ticks.
 */
import { unreachable } from '../errors.js';
import { type Nanoseconds, nanoseconds } from '../units.js';
import type { Device, FieldTable, ReadDecision } from './device.js';
import { NO_EVENTS } from './device.js';
import {
  ACCESS_BOTH,
  ACCESS_LSB,
  byteOf,
  consumeRead,
  countAt,
  decodeCount,
  firstByteStops,
  nextRisingEdge,
  outputAt,
  type PitChannelState,
  programmedChannel,
  readConsumes,
  setGate,
  statusAt,
  stop,
  writeCount,
} from './pit-channel.js';
import { floorDivide, modulo, ticksAt, timeOfTick } from './ticks.js';

export const PIT_HERTZ = 1_193_182;

export interface PitState {
  channels: PitChannelState[];
  /** Bits 3:0 of port 61h as written. */
  control: number;
  /** Bit 6 of port 61h: an expansion board asked for an NMI. */
  channelCheck: boolean;
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
  | { readonly type: 'pit.controlled'; readonly value: number; readonly at: number }
  /** The first byte of a new count stopped mode 0, at a tick of the timer's clock. */
  | { readonly type: 'pit.stopped'; readonly channel: number; readonly at: number }
  /** IOCHK# of the expansion bus was asserted while port 61h lets it through. */
  | { readonly type: 'pit.channel-check' };

export const PIT_EVENT_FIELDS = {
  'pit.programmed': ['channel', 'mode', 'access', 'bcd'],
  'pit.half-written': ['channel', 'byte'],
  'pit.loaded': ['channel', 'count', 'at'],
  'pit.latched': ['channel', 'count', 'status'],
  'pit.read': ['channel'],
  'pit.output': ['channel', 'at'],
  'pit.controlled': ['value', 'at'],
  'pit.stopped': ['channel', 'at'],
  'pit.channel-check': [],
} as const satisfies FieldTable<PitEvent>;

/** Registers of the device, as `devices.ts` numbers its ports. */
export const PIT = { CHANNEL_0: 0, CHANNEL_1: 1, CHANNEL_2: 2, COMMAND: 3, PORT_61: 4 };

const READ_BACK = 3;
const GATE_2 = 0x01;
/** Bits 3:0 can be written. */
const CONTROL_WRITABLE = 0x0f;
/** Set, it clears the I/O channel check and keeps it from coming again. */
const CHANNEL_CHECK_OFF = 0x08;
const REFRESH = 0x10;
const OUTPUT_2 = 0x20;
const CHANNEL_CHECK = 0x40;
/** Channel 1 requests a memory refresh every 18 ticks; each toggles bit 4 of port 61h. */
const REFRESH_TICKS = 18;

const tickOf = (now: Nanoseconds): number => ticksAt(now, PIT_HERTZ);
const channelAt = (state: PitState, channel: number): PitChannelState => state.channels[channel] as PitChannelState;

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
  const newCount = count && it.latchedCount === null ? countAt(it, tick) : null;
  const newStatus = status && it.latchedStatus === null ? statusAt(it, tick) : null;
  if (newCount === null && newStatus === null) return NO_EVENTS;
  return [{ type: 'pit.latched', channel, count: newCount, status: newStatus }];
}

function decideCounterRead(state: PitState, channel: number, now: Nanoseconds): ReadDecision<PitEvent> {
  const it = channelAt(state, channel);
  return { value: byteOf(it, tickOf(now)), events: readConsumes(it) ? [{ type: 'pit.read', channel }] : NO_EVENTS };
}

function decideCounterWrite(state: PitState, channel: number, byte: number, now: Nanoseconds): readonly PitEvent[] {
  const it = channelAt(state, channel);
  const at = tickOf(now);
  if (it.access === ACCESS_BOTH && it.lowByte === null) {
    const written: PitEvent = { type: 'pit.half-written', channel, byte };
    return firstByteStops(it) ? [{ type: 'pit.stopped', channel, at }, written] : [written];
  }
  const value = it.access === ACCESS_LSB ? byte : (byte << 8) | (it.lowByte ?? 0);
  return [{ type: 'pit.loaded', channel, count: decodeCount(it, value), at }];
}

/** Port 61h (PIIX4, NMI Status and Control Register). Bit 7, the parity check, stays 0. */
function readControl(state: PitState, now: Nanoseconds): number {
  const tick = tickOf(now);
  const refresh = modulo(floorDivide(tick, REFRESH_TICKS), 2) === 1 ? REFRESH : 0;
  const output = outputAt(channelAt(state, 2), tick) ? OUTPUT_2 : 0;
  return state.control | refresh | output | (state.channelCheck ? CHANNEL_CHECK : 0);
}

/** An expansion board asserts IOCHK#: the front panel's NMI button. Heard unless port 61h has it off. */
export const decideChannelCheck = (state: PitState): readonly PitEvent[] =>
  state.channelCheck || (state.control & CHANNEL_CHECK_OFF) !== 0 ? NO_EVENTS : [{ type: 'pit.channel-check' }];

/** Channel 0's output as the interrupt controllers see it pulses, rather than just rises, at a `pit.output`. */
export const outputPulses = (state: PitState): boolean => channelAt(state, 0).mode !== 0;

/** Channel 0's gate and channel 1's are tied high. */
const POWER_ON = { mode: 0, access: ACCESS_BOTH, bcd: false };

export const PIT_8254: Device<PitState, PitEvent> = {
  initial: () => ({
    channels: [true, true, false].map((gate) => programmedChannel(gate, POWER_ON)),
    control: 0,
    channelCheck: false,
  }),

  reduce(state, event) {
    switch (event.type) {
      case 'pit.programmed':
        state.channels[event.channel] = programmedChannel(channelAt(state, event.channel).gate, event);
        return;
      case 'pit.half-written':
        channelAt(state, event.channel).lowByte = event.byte;
        return;
      case 'pit.loaded': {
        const it = channelAt(state, event.channel);
        writeCount(it, event.count, event.at);
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
        consumeRead(channelAt(state, event.channel));
        return;
      case 'pit.output': {
        const it = channelAt(state, event.channel);
        it.edge = nextRisingEdge(it, event.at);
        return;
      }
      case 'pit.controlled':
        state.control = event.value;
        if ((event.value & CHANNEL_CHECK_OFF) !== 0) state.channelCheck = false;
        setGate(channelAt(state, 2), (event.value & GATE_2) !== 0, event.at);
        return;
      case 'pit.stopped': {
        const it = channelAt(state, event.channel);
        stop(it, event.at);
        it.edge = null;
        return;
      }
      case 'pit.channel-check':
        state.channelCheck = true;
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
      const control = byte & CONTROL_WRITABLE;
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
    return it.mode !== 0 || (it.register !== null && it.lowByte === null && it.edge === null);
  },
};

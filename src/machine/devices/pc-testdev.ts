/**
 * QEMU's pc-testdev, which kvm-unit-tests expect: a register that reads back what was written (E0h–E3h, and E8h–EBh
 * byte by byte), a port that takes the address of a page to be unmapped and mapped again (E4h; nothing to do here),
 * interrupt lines (2000h + n drives line n), and 64 KiB of bytes at FF000000h.
 *
 * Invariant: `memory` holds only the 32-bit words that are not zero, under their offset.
 *
 * Source: QEMU, device pc-testdev; kvm-unit-tests, x86/ioapic.c, x86/realmode.c, x86/eventinj.c.
 */
import { unreachable } from '../errors.js';
import type { Device, FieldTable } from './device.js';
import { NO_EVENTS } from './device.js';

export interface PcTestdevState {
  /** The read-back register, 32 bits. */
  value: number;
  /** Levels of the 24 lines, as a mask. */
  lines: number;
  memory: Record<string, number>;
}

export type PcTestdevEvent =
  | { readonly type: 'testdev.written'; readonly value: number }
  | { readonly type: 'testdev.line'; readonly line: number; readonly level: boolean }
  /** A word of the memory window, whole after the write. */
  | { readonly type: 'testdev.stored'; readonly offset: number; readonly word: number };

export const TESTDEV_EVENT_FIELDS = {
  'testdev.written': ['value'],
  'testdev.line': ['line', 'level'],
  'testdev.stored': ['offset', 'word'],
} as const satisfies FieldTable<PcTestdevEvent>;

export const TESTDEV_MEMORY_BASE = 0xff00_0000;
export const TESTDEV_MEMORY_BYTES = 0x1_0000;
export const TESTDEV_LINES = 24;

/** Registers of the device: bytes of the read-back register, the flush port, the lines, the memory window. */
export const TESTDEV = { VALUE: 0, FLUSH: 4, LINES: 0x100, MEMORY: 0x1_0000 };

const widthMask = (size: number): number => (size === 4 ? 0xffff_ffff : 2 ** (size * 8) - 1);

/** `word` with `size` bytes at `at` replaced. */
function insert(word: number, at: number, value: number, size: number): number {
  const shift = at * 8;
  const mask = (widthMask(size) << shift) >>> 0;
  return ((word & ~mask) | ((value << shift) & mask)) >>> 0;
}

const extract = (word: number, at: number, size: number): number => ((word >>> (at * 8)) & widthMask(size)) >>> 0;

function readMemory(state: PcTestdevState, offset: number, size: number): number {
  const at = offset & 3;
  const low = extract(state.memory[offset - at] ?? 0, at, size);
  const inLow = 4 - at;
  if (size <= inLow) return low;
  const high = extract(state.memory[offset - at + 4] ?? 0, 0, size - inLow);
  return (low % 2 ** (inLow * 8)) + high * 2 ** (inLow * 8);
}

function decideStore(state: PcTestdevState, offset: number, value: number, size: number): readonly PcTestdevEvent[] {
  const at = offset & 3;
  const inLow = Math.min(4 - at, size);
  const base = offset - at;
  const events: PcTestdevEvent[] = [];
  const put = (place: number, word: number): void => {
    if ((state.memory[place] ?? 0) !== word) events.push({ type: 'testdev.stored', offset: place, word });
  };
  put(base, insert(state.memory[base] ?? 0, at, value, inLow));
  if (size > inLow && base + 4 < TESTDEV_MEMORY_BYTES) {
    put(base + 4, insert(state.memory[base + 4] ?? 0, 0, Math.floor((value >>> 0) / 2 ** (inLow * 8)), size - inLow));
  }
  return events;
}

export const PC_TESTDEV: Device<PcTestdevState, PcTestdevEvent> = {
  initial: () => ({ value: 0, lines: 0, memory: {} }),

  reduce(state, event) {
    switch (event.type) {
      case 'testdev.written':
        state.value = event.value;
        return;
      case 'testdev.line':
        state.lines = event.level ? state.lines | (1 << event.line) : state.lines & ~(1 << event.line);
        return;
      case 'testdev.stored':
        if (event.word === 0) delete state.memory[event.offset];
        else state.memory[event.offset] = event.word;
        return;
      default:
        unreachable(event);
    }
  },

  decideRead(state, register, size) {
    if (register >= TESTDEV.MEMORY)
      return { value: readMemory(state, register - TESTDEV.MEMORY, size), events: NO_EVENTS };
    if (register < TESTDEV.FLUSH) return { value: extract(state.value, register, size), events: NO_EVENTS };
    return { value: 0, events: NO_EVENTS };
  },

  decideWrite(state, register, value, size) {
    if (register >= TESTDEV.MEMORY) return decideStore(state, register - TESTDEV.MEMORY, value, size);
    if (register >= TESTDEV.LINES) {
      const line = register - TESTDEV.LINES;
      const level = (value & 0xff) !== 0;
      return ((state.lines >>> line) & 1) === (level ? 1 : 0) ? NO_EVENTS : [{ type: 'testdev.line', line, level }];
    }
    if (register >= TESTDEV.FLUSH) return NO_EVENTS;
    const word = insert(state.value, register, value, size);
    return word === state.value ? NO_EVENTS : [{ type: 'testdev.written', value: word }];
  },

  nextDeadline: () => undefined,
  decideDeadline: () => NO_EVENTS,
  /** Its lines are many: the mask `lines`. */
  interruptLine: () => false,
};

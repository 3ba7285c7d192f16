/**
 * QEMU's firmware configuration, in its traditional interface: a 16-bit selector at 510h, one byte at a time at 511h.
 * Items: signature, interface ID, RAM size, processors, an empty file directory. All others read as zero.
 *
 * Source: QEMU, docs/specs/fw_cfg.rst, "Legacy I/O port and data register layout", "Firmware Configuration Items".
 */
import { unreachable } from '../errors.js';
import type { Device, FieldTable } from './device.js';
import { NO_EVENTS } from './device.js';
import { floorDivide } from './ticks.js';

export interface FwCfgState {
  selector: number;
  offset: number;
  ramBytes: number;
  vcpus: number;
}

export type FwCfgEvent =
  | { readonly type: 'fw-cfg.selected'; readonly key: number }
  /** A byte of the item was read; the next read gives the next one. */
  | { readonly type: 'fw-cfg.read'; readonly offset: number };

export const FW_CFG_EVENT_FIELDS = {
  'fw-cfg.selected': ['key'],
  'fw-cfg.read': ['offset'],
} as const satisfies FieldTable<FwCfgEvent>;

export const FW_CFG_PORT = 0x510;
/** Ports from FW_CFG_PORT on. */
export const FW_CFG = { SELECTOR: 0, DATA: 1 };

const SIGNATURE = [0x51, 0x45, 0x4d, 0x55]; // "QEMU"
const ITEM_SIGNATURE = 0x00;
const ITEM_ID = 0x01;
const ITEM_RAM_SIZE = 0x03;
const ITEM_CPUS = 0x05;
const ITEM_MAX_CPUS = 0x0f;
const TRADITIONAL_INTERFACE = 1;

/** Byte `offset` of a little-endian number. */
const byteOf = (value: number, offset: number): number => (offset > 6 ? 0 : floorDivide(value, 256 ** offset) % 256);

function itemByte(state: FwCfgState): number {
  const { offset } = state;
  switch (state.selector) {
    case ITEM_SIGNATURE:
      return SIGNATURE[offset] ?? 0;
    case ITEM_ID:
      return byteOf(TRADITIONAL_INTERFACE, offset);
    case ITEM_RAM_SIZE:
      return byteOf(state.ramBytes, offset);
    case ITEM_CPUS:
    case ITEM_MAX_CPUS:
      return byteOf(state.vcpus, offset);
    default:
      return 0; // the file directory among them: a count of zero files
  }
}

export const FIRMWARE_CONFIGURATION: Device<FwCfgState, FwCfgEvent> = {
  initial: () => ({ selector: 0, offset: 0, ramBytes: 0, vcpus: 1 }),

  reduce(state, event) {
    switch (event.type) {
      case 'fw-cfg.selected':
        state.selector = event.key;
        state.offset = 0;
        return;
      case 'fw-cfg.read':
        state.offset = event.offset + 1;
        return;
      default:
        unreachable(event);
    }
  },

  decideRead(state, register, size) {
    if (register !== FW_CFG.DATA)
      return { value: size === 1 ? state.selector & 0xff : state.selector, events: NO_EVENTS };
    return { value: itemByte(state), events: [{ type: 'fw-cfg.read', offset: state.offset }] };
  },

  decideWrite(_state, register, value) {
    return register === FW_CFG.SELECTOR ? [{ type: 'fw-cfg.selected', key: value & 0xffff }] : NO_EVENTS;
  },

  nextDeadline: () => undefined,
  decideDeadline: () => NO_EVENTS,
  interruptLine: () => false,
};

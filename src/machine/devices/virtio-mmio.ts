/**
 * Virtio devices behind registers in memory: a block device and a console. This is what they have in common, the transport: how a
 * driver finds the device, agrees on features, and says where its queues are in RAM. What goes through the queues is in
 * `virtio-service.ts`, which alone looks at RAM.
 *
 * A notification is taken note of; the queues are served `LATENCY` later, all that is in them by then at once. Every request is
 * complete when that is done, so nothing is ever half done at a boundary.
 * Source: Virtual I/O Device (VIRTIO) Version 1.2, §2.1 Device Status Field, §2.7 Split Virtqueues, §3.1 Device
 * Initialization, §4.2 Virtio Over MMIO, §5.2 Block Device, §5.3 Console Device.
 */
import { unreachable } from '../errors.js';
import { nanoseconds } from '../units.js';
import { type Device, type FieldTable, NO_EVENTS } from './device.js';
import { floorDivide } from './ticks.js';

export interface VirtqueueState {
  /** Entries; 0 until the driver has said. */
  size: number;
  ready: boolean;
  /** gPA of the descriptor table, of the driver's ring and of the device's. */
  descriptors: number;
  driver: number;
  device: number;
  /** The driver's ring has been served up to this index, and the device's written, both modulo 2^16. */
  available: number;
  used: number;
  /** The driver has notified since it was served. */
  notified: boolean;
}

export interface VirtioState {
  /** What it is (§5 Device Types). */
  kind: number;
  /** Sectors of the medium; 0 for what has none. */
  capacity: number;
  status: number;
  deviceFeaturesSelect: number;
  driverFeaturesSelect: number;
  /** Bits 31:0 and 63:32. */
  driverFeatures: number[];
  queueSelect: number;
  interruptStatus: number;
  /** When queues will be served; null while there is nothing to do. */
  due: number | null;
  /** Bytes that have come for the console and wait for room in the driver's buffers. */
  waiting: number[];
  queues: VirtqueueState[];
}

/** Where a device is in the machine's state. */
export const VIRTIO_NAMES = ['virtioBlock', 'virtioConsole'] as const;
export type VirtioName = (typeof VIRTIO_NAMES)[number];

export type VirtioOperation = 'read' | 'write' | 'flush' | 'identify' | 'unsupported';

export type VirtioEvent =
  /** A register other than the notification was written. */
  | { readonly type: 'virtio.written'; readonly device: VirtioName; readonly register: number; readonly value: number }
  /** A queue was notified; queues are served at `due` at the latest. */
  | { readonly type: 'virtio.notified'; readonly device: VirtioName; readonly queue: number; readonly due: number }
  /** A request for the medium was done, with the status that the driver finds. Its data is in RAM. */
  | {
      readonly type: 'virtio.requested';
      readonly device: VirtioName;
      readonly operation: VirtioOperation;
      readonly sector: number;
      readonly sectors: number;
      readonly status: number;
    }
  /** The console sent bytes. */
  | { readonly type: 'virtio.transmitted'; readonly device: VirtioName; readonly data: readonly number[] }
  /** Bytes came for the console. */
  | {
      readonly type: 'virtio.arrived';
      readonly device: VirtioName;
      readonly data: readonly number[];
      readonly due: number;
    }
  /** So many of them are in the driver's buffers now. */
  | { readonly type: 'virtio.received'; readonly device: VirtioName; readonly count: number }
  /** A queue was served up to these indices; with an interrupt unless there was nothing, or the driver wants none. */
  | {
      readonly type: 'virtio.served';
      readonly device: VirtioName;
      readonly queue: number;
      readonly available: number;
      readonly used: number;
      readonly interrupts: boolean;
    }
  /** The driver gave the device what it cannot go on with: it needs a reset. */
  | { readonly type: 'virtio.broken'; readonly device: VirtioName; readonly queue: number; readonly problem: string };

export const VIRTIO_EVENT_FIELDS = {
  'virtio.written': ['device', 'register', 'value'],
  'virtio.notified': ['device', 'queue', 'due'],
  'virtio.requested': ['device', 'operation', 'sector', 'sectors', 'status'],
  'virtio.transmitted': ['device', 'data'],
  'virtio.arrived': ['device', 'data', 'due'],
  'virtio.received': ['device', 'count'],
  'virtio.served': ['device', 'queue', 'available', 'used', 'interrupts'],
  'virtio.broken': ['device', 'queue', 'problem'],
} as const satisfies FieldTable<VirtioEvent>;

export const VIRTIO_KIND = { BLOCK: 2, CONSOLE: 3 } as const;
/** Each device has a page; its registers take the first of it. */
export const VIRTIO_REGISTER_BYTES = 0x200;

interface VirtioPlace {
  readonly kind: number;
  /** sPA of the registers. */
  readonly base: number;
  /** Input of the I/O APIC. */
  readonly line: number;
  readonly queues: number;
}

export const VIRTIO_PLACES: Readonly<Record<VirtioName, VirtioPlace>> = {
  virtioBlock: { kind: VIRTIO_KIND.BLOCK, base: 0xfeb0_0000, line: 20, queues: 1 },
  virtioConsole: { kind: VIRTIO_KIND.CONSOLE, base: 0xfeb0_1000, line: 21, queues: 2 },
};

/** Offsets of the registers (§4.2.2 MMIO Device Register Layout). */
export const VIRTIO = {
  MAGIC: 0x000,
  VERSION: 0x004,
  DEVICE_ID: 0x008,
  VENDOR_ID: 0x00c,
  DEVICE_FEATURES: 0x010,
  DEVICE_FEATURES_SELECT: 0x014,
  DRIVER_FEATURES: 0x020,
  DRIVER_FEATURES_SELECT: 0x024,
  QUEUE_SELECT: 0x030,
  QUEUE_SIZE_MAX: 0x034,
  QUEUE_SIZE: 0x038,
  QUEUE_READY: 0x044,
  QUEUE_NOTIFY: 0x050,
  INTERRUPT_STATUS: 0x060,
  INTERRUPT_ACKNOWLEDGE: 0x064,
  STATUS: 0x070,
  QUEUE_DESCRIPTORS: 0x080,
  QUEUE_DRIVER: 0x090,
  QUEUE_DEVICE: 0x0a0,
  CONFIG_GENERATION: 0x0fc,
  CONFIG: 0x100,
} as const;

export const DeviceStatus = { DRIVER_OK: 4, FEATURES_OK: 8, NEEDS_RESET: 0x40 } as const;
const InterruptStatus = { USED: 1, CONFIGURATION: 2 } as const;

const MAGIC = 0x7472_6976; // "virt"
const VERSION = 2;
const VENDOR = 0x5054_4d56; // "VMTP"
export const QUEUE_SIZE_MAX = 256;
export const SECTOR_BYTES = 512;
/** Segments of a request at most, beside its header and its status. */
const SEGMENTS_MAX = 126;
/** How long a device takes to serve its queues. */
const LATENCY_NANOSECONDS = 50_000;
/** Bytes that may wait for the console. */
const MOST_WAITING = 1024;

/** Feature bits: VIRTIO_BLK_F_SEG_MAX, VIRTIO_BLK_F_FLUSH; VIRTIO_F_INDIRECT_DESC; VIRTIO_F_VERSION_1 in the high word. */
const BLOCK_FEATURES = (1 << 2) | (1 << 9);
const INDIRECT_DESCRIPTORS = 1 << 28;
const VERSION_1 = 1;

const newQueue = (): VirtqueueState => ({
  ...{ size: 0, ready: false, descriptors: 0, driver: 0, device: 0, available: 0, used: 0, notified: false },
});

/** @param capacity in sectors. */
export function initialVirtio(name: VirtioName, capacity: number): VirtioState {
  const { kind, queues } = VIRTIO_PLACES[name];
  return {
    ...{ kind, capacity, status: 0, deviceFeaturesSelect: 0, driverFeaturesSelect: 0, driverFeatures: [0, 0] },
    ...{ queueSelect: 0, interruptStatus: 0, due: null, waiting: [] },
    queues: Array.from({ length: queues }, newQueue),
  };
}

const featuresOf = ({ kind }: VirtioState): readonly number[] => [
  ((kind === VIRTIO_KIND.BLOCK ? BLOCK_FEATURES : 0) | INDIRECT_DESCRIPTORS) >>> 0,
  VERSION_1,
];

const isLive = ({ status }: VirtioState): boolean =>
  (status & DeviceStatus.DRIVER_OK) !== 0 && (status & DeviceStatus.NEEDS_RESET) === 0;

const TRANSMIT_QUEUE = 1;

/**
 * Bytes that may come for the console now: none before the guest has sent something, for a driver drops what comes before a
 * program listens.
 */
export const virtioRoom = (state: VirtioState): number =>
  isLive(state) && (state.queues[TRANSMIT_QUEUE]?.used ?? 0) !== 0 ? MOST_WAITING - state.waiting.length : 0;

/** @param data no more than there is room for. */
export const decideArrival = (data: readonly number[], now: number): readonly VirtioEvent[] =>
  data.length === 0
    ? NO_EVENTS
    : [{ type: 'virtio.arrived', device: 'virtioConsole', data, due: now + LATENCY_NANOSECONDS }];

// Registers

/** The configuration space: a capacity and what a request may have; a console tells nothing (§5.2.4, §5.3.4). */
function configByte({ kind, capacity }: VirtioState, at: number): number {
  if (kind !== VIRTIO_KIND.BLOCK) return 0;
  if (at < 7) return floorDivide(capacity, 256 ** at) % 256;
  return at === 0xc ? SEGMENTS_MAX : 0;
}

function readConfig(state: VirtioState, register: number, size: number): number {
  let value = 0;
  for (let at = size - 1; at >= 0; at -= 1) value = value * 256 + configByte(state, register - VIRTIO.CONFIG + at);
  return value;
}

const selected = ({ queues, queueSelect }: VirtioState): VirtqueueState | undefined => queues[queueSelect];

function readRegister(state: VirtioState, register: number): number {
  switch (register) {
    case VIRTIO.MAGIC:
      return MAGIC;
    case VIRTIO.VERSION:
      return VERSION;
    case VIRTIO.DEVICE_ID:
      return state.kind;
    case VIRTIO.VENDOR_ID:
      return VENDOR;
    case VIRTIO.DEVICE_FEATURES:
      return featuresOf(state)[state.deviceFeaturesSelect] ?? 0;
    case VIRTIO.QUEUE_SIZE_MAX:
      return selected(state) === undefined ? 0 : QUEUE_SIZE_MAX;
    case VIRTIO.QUEUE_READY:
      return selected(state)?.ready === true ? 1 : 0;
    case VIRTIO.INTERRUPT_STATUS:
      return state.interruptStatus;
    case VIRTIO.STATUS:
      return state.status;
    default:
      return 0; // CONFIG_GENERATION among them: the configuration never changes
  }
}

/** Registers that a driver writes, but the notification. Others are read-only, and writes to them are lost. */
const WRITTEN: ReadonlySet<number> = new Set([
  ...[VIRTIO.DEVICE_FEATURES_SELECT, VIRTIO.DRIVER_FEATURES, VIRTIO.DRIVER_FEATURES_SELECT, VIRTIO.QUEUE_SELECT],
  ...[VIRTIO.QUEUE_SIZE, VIRTIO.QUEUE_READY, VIRTIO.INTERRUPT_ACKNOWLEDGE, VIRTIO.STATUS],
  ...[VIRTIO.QUEUE_DESCRIPTORS, VIRTIO.QUEUE_DRIVER, VIRTIO.QUEUE_DEVICE].flatMap((low) => [low, low + 4]),
]);

function write(state: VirtioState, register: number, value: number): void {
  const queue = selected(state);
  switch (register) {
    case VIRTIO.DEVICE_FEATURES_SELECT:
      state.deviceFeaturesSelect = value;
      return;
    case VIRTIO.DRIVER_FEATURES_SELECT:
      state.driverFeaturesSelect = value;
      return;
    case VIRTIO.DRIVER_FEATURES:
      if (state.driverFeaturesSelect < 2) state.driverFeatures[state.driverFeaturesSelect] = value;
      return;
    case VIRTIO.QUEUE_SELECT:
      state.queueSelect = value;
      return;
    case VIRTIO.INTERRUPT_ACKNOWLEDGE:
      state.interruptStatus &= ~value;
      return;
    case VIRTIO.STATUS:
      writeStatus(state, value);
      return;
    default:
      if (queue !== undefined) writeQueue(queue, register, value);
  }
}

/** Writing zero resets the device (§2.1.1). Features that it does not have are refused by FEATURES_OK staying clear. */
function writeStatus(state: VirtioState, value: number): void {
  if (value === 0) {
    Object.assign(
      state,
      initialVirtio(state.kind === VIRTIO_KIND.BLOCK ? 'virtioBlock' : 'virtioConsole', state.capacity),
    );
    return;
  }
  const offered = featuresOf(state);
  const accepts =
    state.driverFeatures.every((word, at) => (word & ~(offered[at] ?? 0)) === 0) &&
    ((state.driverFeatures[1] ?? 0) & VERSION_1) !== 0;
  state.status = (value & 0xff & ~(accepts ? 0 : DeviceStatus.FEATURES_OK)) | (state.status & DeviceStatus.NEEDS_RESET);
}

const TWO_32 = 0x1_0000_0000;
const withLow = (address: number, low: number): number => floorDivide(address, TWO_32) * TWO_32 + low;
/** Addresses have as many bits as a number holds exactly; those beyond RAM are refused when they are used. */
const withHigh = (address: number, high: number): number => (address % TWO_32) + (high & 0xf_ffff) * TWO_32;

function writeQueue(queue: VirtqueueState, register: number, value: number): void {
  switch (register) {
    case VIRTIO.QUEUE_SIZE:
      queue.size = value;
      return;
    case VIRTIO.QUEUE_READY:
      // A queue that is taken away begins anew.
      if ((value & 1) === 0) Object.assign(queue, newQueue());
      else queue.ready = true;
      return;
    case VIRTIO.QUEUE_DESCRIPTORS:
      queue.descriptors = withLow(queue.descriptors, value);
      return;
    case VIRTIO.QUEUE_DESCRIPTORS + 4:
      queue.descriptors = withHigh(queue.descriptors, value);
      return;
    case VIRTIO.QUEUE_DRIVER:
      queue.driver = withLow(queue.driver, value);
      return;
    case VIRTIO.QUEUE_DRIVER + 4:
      queue.driver = withHigh(queue.driver, value);
      return;
    case VIRTIO.QUEUE_DEVICE:
      queue.device = withLow(queue.device, value);
      return;
    default:
      queue.device = withHigh(queue.device, value);
  }
}

/** A queue that is worth serving soon. */
function decideNotification(
  state: VirtioState,
  device: VirtioName,
  queue: number,
  now: number,
): readonly VirtioEvent[] {
  const ready = state.queues[queue]?.ready === true && isLive(state);
  const notified = state.queues[queue]?.notified === true && state.due !== null;
  // New buffers for a console that has nothing to put there.
  const idle = device === 'virtioConsole' && queue === 0 && state.waiting.length === 0;
  if (!ready || notified || idle) return NO_EVENTS;
  return [{ type: 'virtio.notified', device, queue, due: state.due ?? now + LATENCY_NANOSECONDS }];
}

/** @param device which of them it is. */
const virtioDevice = (device: VirtioName): Device<VirtioState, VirtioEvent> => ({
  initial: () => initialVirtio(device, 0),

  reduce(state, event) {
    switch (event.type) {
      case 'virtio.written':
        write(state, event.register, event.value);
        return;
      case 'virtio.notified':
        (state.queues[event.queue] as VirtqueueState).notified = true;
        state.due = event.due;
        return;
      case 'virtio.arrived':
        state.waiting.push(...event.data);
        state.due ??= event.due;
        return;
      case 'virtio.received':
        state.waiting.splice(0, event.count);
        return;
      case 'virtio.served': {
        const queue = state.queues[event.queue] as VirtqueueState;
        Object.assign(queue, { available: event.available, used: event.used, notified: false });
        if (event.interrupts) state.interruptStatus |= InterruptStatus.USED;
        state.due = null;
        return;
      }
      case 'virtio.broken':
        state.status |= DeviceStatus.NEEDS_RESET;
        state.interruptStatus |= InterruptStatus.CONFIGURATION;
        state.due = null;
        return;
      case 'virtio.requested':
      case 'virtio.transmitted':
        return;
      default:
        unreachable(event);
    }
  },

  decideRead(state, register, size) {
    if (register >= VIRTIO.CONFIG) return { value: readConfig(state, register, size), events: NO_EVENTS };
    return { value: size === 4 && register % 4 === 0 ? readRegister(state, register) : 0, events: NO_EVENTS };
  },

  decideWrite(state, register, value, size, now) {
    if (size !== 4) return NO_EVENTS;
    if (register === VIRTIO.QUEUE_NOTIFY) return decideNotification(state, device, value & 0xffff, now);
    return WRITTEN.has(register) ? [{ type: 'virtio.written', device, register, value: value >>> 0 }] : NO_EVENTS;
  },

  nextDeadline: ({ due }) => (due === null ? undefined : nanoseconds(due)),
  // What happens then depends on RAM: `decideService`.
  decideDeadline: () => NO_EVENTS,
  interruptLine: ({ interruptStatus }) => interruptStatus !== 0,
});

export const VIRTIO_DEVICES: Readonly<Record<VirtioName, Device<VirtioState, VirtioEvent>>> = {
  virtioBlock: virtioDevice('virtioBlock'),
  virtioConsole: virtioDevice('virtioConsole'),
};

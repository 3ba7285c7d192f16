/** Code of a driver for the virtio devices: 32-bit, flat, without paging, straight on; it waits for what it asked for. */
import { VIRTIO, VIRTIO_PLACES, type VirtioName } from '../../src/machine/devices/virtio-mmio.js';

const bytes32 = (value: number): readonly number[] => [0, 8, 16, 24].map((shift) => (value >>> shift) & 0xff);

/** MOV DWORD [address], value. */
export const poke = (address: number, value: number): readonly number[] => [
  0xc7,
  0x05,
  ...bytes32(address),
  ...bytes32(value),
];

/** CMP WORD [address], value; JNE to the CMP. */
export const waitFor = (address: number, value: number): readonly number[] => [
  ...[0x66, 0x81, 0x3d, ...bytes32(address), value & 0xff, value >> 8],
  ...[0x75, 0xf5],
];

/** MOV AL, value; OUT F4h, AL. */
export const exit = (value: number): readonly number[] => [0xb0, value, 0xe6, 0xf4];

export interface QueuePlace {
  readonly descriptors: number;
  readonly driver: number;
  readonly device: number;
}

const QUEUE_ENTRIES = 8;
/** Where queue `index` of a device has its rings, by the kind of device. */
export const queuePlace = (name: VirtioName, index = 0): QueuePlace => {
  const base = 0x2_0000 + (VIRTIO_PLACES[name].kind * 4 + index) * 0x1000;
  return { descriptors: base, driver: base + 0x400, device: base + 0x800 };
};

/** Registers and values by which a driver makes a device its own, with `queues` of 8 entries (VIRTIO 1.2, §3.1.1). */
export function setupWrites(name: VirtioName, queues = 1): readonly (readonly [register: number, value: number])[] {
  return [
    ...([
      [VIRTIO.STATUS, 0],
      [VIRTIO.STATUS, 1],
      [VIRTIO.STATUS, 3],
      [VIRTIO.DRIVER_FEATURES_SELECT, 0],
      [VIRTIO.DRIVER_FEATURES, 1 << 28],
      [VIRTIO.DRIVER_FEATURES_SELECT, 1],
      [VIRTIO.DRIVER_FEATURES, 1],
      [VIRTIO.STATUS, 0xb],
    ] as const),
    ...Array.from({ length: queues }, (_, index) => index).flatMap((index) => {
      const { descriptors, driver, device } = queuePlace(name, index);
      return [
        [VIRTIO.QUEUE_SELECT, index],
        [VIRTIO.QUEUE_SIZE, QUEUE_ENTRIES],
        [VIRTIO.QUEUE_DESCRIPTORS, descriptors],
        [VIRTIO.QUEUE_DESCRIPTORS + 4, 0],
        [VIRTIO.QUEUE_DRIVER, driver],
        [VIRTIO.QUEUE_DRIVER + 4, 0],
        [VIRTIO.QUEUE_DEVICE, device],
        [VIRTIO.QUEUE_DEVICE + 4, 0],
        [VIRTIO.QUEUE_READY, 1],
      ] as const;
    }),
    [VIRTIO.STATUS, 0xf],
  ];
}

export interface TestBuffer {
  readonly address: number;
  readonly bytes: number;
  readonly writable?: boolean;
}

/** Words of RAM that offer one chain: its descriptors, and its entry in the driver's ring. @param before chains offered so far. */
export function offer(
  { descriptors, driver }: QueuePlace,
  buffers: readonly TestBuffer[],
  before: number,
): readonly (readonly [address: number, value: number])[] {
  const table = buffers.flatMap(({ address, bytes, writable = false }, index) => {
    const at = descriptors + 16 * index;
    const goesOn = index + 1 < buffers.length;
    const flags = (goesOn ? 1 : 0) | (writable ? 2 : 0);
    return [
      [at, address],
      [at + 4, 0],
      [at + 8, bytes],
      [at + 12, flags | ((goesOn ? index + 1 : 0) << 16)],
    ] as const;
  });
  // Heads are all descriptor 0: only one chain is under way at a time. The entry beside it in the word is another such.
  return [...table, [driver + 4 + 4 * ((before % QUEUE_ENTRIES) >> 1), 0], [driver, (before + 1) << 16]];
}

/** Register writes as code. */
export const setup = (name: VirtioName, queues?: number): readonly number[] =>
  setupWrites(name, queues).flatMap(([register, value]) => poke(VIRTIO_PLACES[name].base + register, value));

/** Offers a chain, notifies, waits until it is given back, and acknowledges the interrupt. */
export function roundTrip(
  name: VirtioName,
  queue: number,
  buffers: readonly TestBuffer[],
  before: number,
): readonly number[] {
  const place = queuePlace(name, queue);
  const { base } = VIRTIO_PLACES[name];
  return [
    ...offer(place, buffers, before).flatMap(([address, value]) => poke(address, value)),
    ...poke(base + VIRTIO.QUEUE_NOTIFY, queue),
    ...waitFor(place.device + 2, before + 1),
    ...poke(base + VIRTIO.INTERRUPT_ACKNOWLEDGE, 1),
  ];
}

const HEADER = 0x3_0000;
const STATUS_AT = 0x3_0100;

/** A request to the medium, its header written first. */
export function request(kind: number, sector: number, data: readonly TestBuffer[], before: number): readonly number[] {
  return [
    ...[...poke(HEADER, kind), ...poke(HEADER + 8, sector), ...poke(HEADER + 12, 0), ...poke(STATUS_AT, 0xff)],
    ...roundTrip(
      'virtioBlock',
      0,
      [{ address: HEADER, bytes: 16 }, ...data, { address: STATUS_AT, bytes: 1, writable: true }],
      before,
    ),
  ];
}

/**
 * What virtio devices do with their queues when they are due: requests for the medium, and bytes of the console. It reads and
 * writes RAM, which is in no event: what it does there follows from RAM, the state and the inputs. The medium is RAM of the machine
 * behind what the guest has, so tapes, snapshots and migrations carry what was written to it as they carry RAM.
 * Source: VIRTIO Version 1.2, §5.2.6 Device Operation (block), §5.3.6 Device Operation (console).
 */
import type { PhysicalMemory } from '../mmu/memory.js';
import { sPA } from '../units.js';
import { type Decision, type DevicesState, decision } from './device-set.js';
import {
  SECTOR_BYTES,
  VIRTIO_KIND,
  VIRTIO_NAMES,
  type VirtioEvent,
  type VirtioName,
  type VirtioOperation,
  type VirtioState,
} from './virtio-mmio.js';
import { BrokenQueue, type Buffer, type Chain, Ring } from './virtio-ring.js';

const Request = { READ: 0, WRITE: 1, FLUSH: 4, IDENTIFY: 8 } as const;
export const RequestStatus = { OK: 0, ERROR: 1, UNSUPPORTED: 2 } as const;
const HEADER_BYTES = 16;
const IDENTITY_BYTES = 20;
const IDENTITY = 'vmtape';
/** Bytes of the console in one event. */
const MOST_SENT = 4096;

/** What devices do that are due; RAM is as it is after that. */
export function decideService(state: DevicesState, memory: PhysicalMemory, now: number): Decision {
  const events: VirtioEvent[] = [];
  for (const device of VIRTIO_NAMES) {
    const virtio = state[device];
    if (virtio !== undefined && virtio.due !== null && virtio.due <= now) events.push(...serve(virtio, device, memory));
  }
  return decision(events);
}

function serve(state: VirtioState, device: VirtioName, memory: PhysicalMemory): readonly VirtioEvent[] {
  const events: VirtioEvent[] = [];
  for (const [number, queue] of state.queues.entries()) {
    const arrived = state.kind === VIRTIO_KIND.CONSOLE && number === 0 && state.waiting.length > 0;
    if (!queue.ready || !(queue.notified || arrived)) continue;
    try {
      const ring = new Ring(memory, queue);
      if (state.kind === VIRTIO_KIND.BLOCK) serveBlock(state, device, ring, memory, events);
      else if (number === 0) receive(state, device, ring, memory, events);
      else transmit(device, ring, memory, events);
      const { available, used } = ring;
      const interrupts = used !== queue.used && ring.interrupts;
      events.push({ type: 'virtio.served', device, queue: number, available, used, interrupts });
    } catch (error) {
      if (!(error instanceof BrokenQueue)) throw error;
      return [...events, { type: 'virtio.broken', device, queue: number, problem: error.message }];
    }
  }
  // A queue was taken away since it was notified.
  if (events.length === 0) return [{ type: 'virtio.served', device, queue: 0, ...indices(state), interrupts: false }];
  return events;
}

const indices = ({ queues: [queue] }: VirtioState) => ({ available: queue?.available ?? 0, used: queue?.used ?? 0 });

const bytesOf = (buffers: readonly Buffer[]): number => buffers.reduce((sum, { bytes }) => sum + bytes, 0);

// The block device

function serveBlock(
  state: VirtioState,
  device: VirtioName,
  ring: Ring,
  memory: PhysicalMemory,
  events: VirtioEvent[],
): void {
  for (let chain = ring.peek(); chain !== undefined; chain = ring.peek()) {
    const { event, written } = request(state, device, chain, memory);
    events.push(event);
    ring.giveBack(chain, written);
  }
}

interface Done {
  readonly event: VirtioEvent;
  /** Bytes that the device wrote, its status among them. */
  readonly written: number;
}

/** A header for reading, data, and a byte for the status at the end (§5.2.6). @throws BrokenQueue */
function request(state: VirtioState, device: VirtioName, { buffers }: Chain, memory: PhysicalMemory): Done {
  const last = buffers.at(-1);
  const given = buffers.filter(({ writable }) => !writable);
  const [header] = given;
  if (header === undefined || header.bytes < HEADER_BYTES) throw new BrokenQueue('a request without a header');
  if (last?.writable !== true || last.bytes === 0) throw new BrokenQueue('a request without room for its status');
  const kind = Number(memory.read(sPA(header.address), 4));
  const sector = Number(memory.read(sPA(header.address + 8), 8) & 0x1f_ffff_ffff_ffffn);
  const out = [
    { ...header, address: header.address + HEADER_BYTES, bytes: header.bytes - HEADER_BYTES },
    ...given.slice(1),
  ];
  const into = [...buffers.filter(({ writable }) => writable).slice(0, -1), { ...last, bytes: last.bytes - 1 }];
  const done = (operation: VirtioOperation, bytes: number, status: number, written = 0): Done => {
    memory.write(sPA(last.address + last.bytes - 1), 1, BigInt(status));
    const sectors = Math.ceil(bytes / SECTOR_BYTES);
    return { event: { type: 'virtio.requested', device, operation, sector, sectors, status }, written: written + 1 };
  };
  switch (kind) {
    case Request.READ: {
      const bytes = bytesOf(into);
      if (!isOnMedium(state, sector, bytes)) return done('read', bytes, RequestStatus.ERROR);
      move(into, sector, (at, address, count) => memory.copyIn(sPA(address), medium(memory, at, count)));
      return done('read', bytes, RequestStatus.OK, bytes);
    }
    case Request.WRITE: {
      const bytes = bytesOf(out);
      if (!isOnMedium(state, sector, bytes)) return done('write', bytes, RequestStatus.ERROR);
      move(out, sector, (at, address, count) =>
        memory.copyIn(sPA(memory.ramBytes + at), memory.window(address, count)),
      );
      return done('write', bytes, RequestStatus.OK);
    }
    case Request.FLUSH:
      return done('flush', 0, RequestStatus.OK);
    case Request.IDENTIFY: {
      const bytes = bytesOf(into);
      if (bytes < IDENTITY_BYTES) return done('identify', 0, RequestStatus.ERROR);
      const identity = new Uint8Array(IDENTITY_BYTES);
      identity.set(new TextEncoder().encode(IDENTITY));
      let taken = 0;
      move(into, 0, (at, address, count) => {
        memory.copyIn(sPA(address), identity.subarray(at, at + count));
        taken = Math.min(at + count, IDENTITY_BYTES);
      });
      return done('identify', 0, RequestStatus.OK, taken);
    }
    default:
      return done('unsupported', 0, RequestStatus.UNSUPPORTED);
  }
}

const isOnMedium = ({ capacity }: VirtioState, sector: number, bytes: number): boolean =>
  bytes % SECTOR_BYTES === 0 && sector + bytes / SECTOR_BYTES <= capacity;

const medium = (memory: PhysicalMemory, at: number, bytes: number): Uint8Array =>
  memory.window(memory.ramBytes + at, bytes);

/** @param copy is told for each buffer the place on the medium, the address in RAM, and how many bytes. */
function move(
  buffers: readonly Buffer[],
  sector: number,
  copy: (at: number, address: number, bytes: number) => void,
): void {
  let at = sector * SECTOR_BYTES;
  for (const { address, bytes } of buffers) {
    if (bytes > 0) copy(at, address, bytes);
    at += bytes;
  }
}

// The console

function transmit(device: VirtioName, ring: Ring, memory: PhysicalMemory, events: VirtioEvent[]): void {
  for (let chain = ring.peek(); chain !== undefined; chain = ring.peek()) {
    for (const { address, bytes } of chain.buffers.filter(({ writable }) => !writable)) {
      for (let at = 0; at < bytes; at += MOST_SENT) {
        const data = [...memory.window(address + at, Math.min(MOST_SENT, bytes - at))];
        events.push({ type: 'virtio.transmitted', device, data });
      }
    }
    ring.giveBack(chain, 0);
  }
}

function receive(
  { waiting }: VirtioState,
  device: VirtioName,
  ring: Ring,
  memory: PhysicalMemory,
  events: VirtioEvent[],
): void {
  let taken = 0;
  while (taken < waiting.length) {
    const chain = ring.peek();
    if (chain === undefined) break;
    let written = 0;
    for (const { address, bytes } of chain.buffers.filter(({ writable }) => writable)) {
      const data = Uint8Array.from(waiting.slice(taken, taken + bytes));
      if (data.length > 0) memory.copyIn(sPA(address), data);
      taken += data.length;
      written += data.length;
    }
    ring.giveBack(chain, written);
  }
  if (taken > 0) events.push({ type: 'virtio.received', device, count: taken });
}

/**
 * A split virtqueue in RAM: what the driver offers, chain by chain, and what the device gives back.
 * Source: VIRTIO Version 1.2, §2.7.5 The Virtqueue Descriptor Table, §2.7.5.3 Indirect Descriptors, §2.7.6 Available Ring,
 * §2.7.8 Used Ring.
 */
import type { PhysicalMemory } from '../mmu/memory.js';
import { sPA } from '../units.js';
import { QUEUE_SIZE_MAX, type VirtqueueState } from './virtio-mmio.js';

/** The driver broke the rules: the device cannot go on. */
export class BrokenQueue extends Error {
  override name = 'BrokenQueue';
}

/** A stretch of RAM that goes with a request. */
export interface Buffer {
  readonly address: number;
  readonly bytes: number;
  /** By the device; else it is for reading. */
  readonly writable: boolean;
}

export interface Chain {
  /** The number of its first descriptor, by which it is given back. */
  readonly head: number;
  readonly buffers: readonly Buffer[];
}

const DESCRIPTOR_BYTES = 16;
const USED_ELEMENT_BYTES = 8;
const RING_HEAD_BYTES = 4;
const NEXT = 1;
const WRITE = 2;
const INDIRECT = 4;
const NO_INTERRUPT = 1;
const INDEX_MASK = 0xffff;
/** Descriptors of a request at most, wherever they are. */
const LONGEST_CHAIN = 1024;

const demand: (holds: boolean, problem: string) => asserts holds = (holds, problem) => {
  if (!holds) throw new BrokenQueue(problem);
};

export class Ring {
  /** Up to where the driver's ring has been taken, and the device's written. */
  available: number;
  used: number;
  private readonly size: number;

  /** @throws BrokenQueue where it is not in RAM. */
  constructor(
    private readonly memory: PhysicalMemory,
    private readonly queue: VirtqueueState,
  ) {
    const { size, descriptors, driver, device } = queue;
    const isPower = size > 0 && size <= QUEUE_SIZE_MAX && (size & (size - 1)) === 0;
    demand(isPower, `a queue of ${size} entries`);
    demand(descriptors % 16 === 0 && driver % 2 === 0 && device % 4 === 0, 'a ring that is not aligned');
    this.requireRam(descriptors, size * DESCRIPTOR_BYTES);
    this.requireRam(driver, RING_HEAD_BYTES + 2 * size);
    this.requireRam(device, RING_HEAD_BYTES + USED_ELEMENT_BYTES * size);
    this.size = size;
    this.available = queue.available;
    this.used = queue.used;
  }

  private requireRam(address: number, bytes: number): void {
    demand(this.memory.isRam(address, bytes), `${bytes} bytes at ${address.toString(16)}h, which are not RAM`);
  }

  private number(address: number, size: 2 | 4): number {
    return Number(this.memory.read(sPA(address), size));
  }

  /** Whether the driver wants to hear of what is given back. */
  get interrupts(): boolean {
    return (this.number(this.queue.driver, 2) & NO_INTERRUPT) === 0;
  }

  /** The next chain, which counts as taken when it is given back. @throws BrokenQueue */
  peek(): Chain | undefined {
    const offered = this.number(this.queue.driver + 2, 2);
    const waiting = (offered - this.available) & INDEX_MASK;
    demand(waiting <= this.size, `${waiting} chains offered in a queue of ${this.size}`);
    if (waiting === 0) return undefined;
    const head = this.number(this.queue.driver + RING_HEAD_BYTES + 2 * (this.available % this.size), 2);
    return { head, buffers: this.buffers(head) };
  }

  private buffers(head: number): readonly Buffer[] {
    const buffers: Buffer[] = [];
    let [table, entries] = [this.queue.descriptors, this.size];
    let left = LONGEST_CHAIN;
    for (let index: number | undefined = head; index !== undefined; left -= 1) {
      demand(left > 0, 'a chain that does not end');
      demand(index < entries, `descriptor ${index} of ${entries}`);
      const at: number = table + index * DESCRIPTOR_BYTES;
      const address = Number(this.memory.read(sPA(at), 8));
      const bytes = this.number(at + 8, 4);
      const flags = this.number(at + 12, 2);
      if ((flags & INDIRECT) !== 0) {
        demand(
          table === this.queue.descriptors && (flags & NEXT) === 0,
          'an indirect table within another, or amid a chain',
        );
        demand(bytes > 0 && bytes % DESCRIPTOR_BYTES === 0, `an indirect table of ${bytes} bytes`);
        this.requireRam(address, bytes);
        [table, entries, index] = [address, bytes / DESCRIPTOR_BYTES, 0];
        continue;
      }
      this.requireRam(address, bytes);
      buffers.push({ address, bytes, writable: (flags & WRITE) !== 0 });
      index = (flags & NEXT) === 0 ? undefined : this.number(at + 14, 2);
    }
    const firstWritable = buffers.findIndex(({ writable }) => writable);
    const ordered = firstWritable < 0 || buffers.slice(firstWritable).every(({ writable }) => writable);
    demand(ordered, 'a buffer for reading behind one for writing');
    return buffers;
  }

  /** @param written bytes that the device wrote to its buffers. */
  giveBack({ head }: Chain, written: number): void {
    const { memory, queue } = this;
    const at = queue.device + RING_HEAD_BYTES + USED_ELEMENT_BYTES * (this.used % this.size);
    memory.write(sPA(at), 4, BigInt(head));
    memory.write(sPA(at + 4), 4, BigInt(written));
    this.available = (this.available + 1) & INDEX_MASK;
    this.used = (this.used + 1) & INDEX_MASK;
    memory.write(sPA(queue.device + 2), 2, BigInt(this.used));
  }
}

/**
 * What one instruction or one event delivery does, held back until it is certain: registers and memory writes go to an
 * overlay, so a fault in the middle leaves the machine as it was (precise exceptions by construction). Committing gives
 * the register delta that the event carries.
 *
 * Reads of device registers (MMIO) happen at once, for hardware would not take them back either; device writes are kept
 * in order with the writes to RAM. Accessed and dirty bits are set by the page walk as it goes (APM vol.2 §5.4.2).
 */
import {
  DELTA_ENTRY_BYTES,
  EMPTY_DELTA,
  type HalvesWriter,
  type RegisterDelta,
  type RegisterFile,
  SLOT_COUNT,
  type Slot,
} from '../layout/cpu-state.js';
import { RAM_BASE } from '../layout/linear-memory.js';
import { putWord32 } from '../layout/little-endian.js';
import { keep, room } from '../layout/slab.js';
import type { PhysicalMemory } from '../mmu/memory.js';
import type { InterceptName } from '../svm/intercepts.js';
import { PAGE_BYTES, type SPA, sPA, u64 } from '../units.js';
import type { CpuProfile } from './profile.js';

/** How memory is accessed; bits of `access`. */
export const Access = {
  READ: 0,
  WRITE: 1,
  /** The access counts as user mode: CPL 3 and not implicit. */
  USER: 2,
  FETCH: 4,
  /** Made by the processor itself on tables (GDT, IDT, TSS): always supervisor, and SMAP ignores RFLAGS.AC. */
  IMPLICIT: 8,
} as const;

/** What a transaction needs of the machine around it. */
export interface TransactionHost {
  /** The register file where it lies in memory. */
  readonly registers: RegisterFile;
  readonly memory: PhysicalMemory;
  /** What the processor is: which bits of tables exist. */
  readonly profile: CpuProfile;
  /** Whether a guest runs whose hypervisor asks for the intercept. */
  isIntercepted(name: InterceptName): boolean;
  /** IGNNE# as the processor has it: x87 errors are ignored while CR0.NE is clear. */
  readonly ignoresNumericErrors: boolean;
  /**
   * @param linear canonical address within one page. @param access bits of `Access`.
   * @throws GuestFault #PF, NestedPageFault, or AbsentPage.
   */
  translate(tx: Transaction, linear: bigint, access: number): SPA;
  readDevice(address: SPA, size: number): bigint;
  writeDevice(address: SPA, size: number, value: bigint): void;
}

/** Thrown where an access needs a page that the host has taken away: nothing of the instruction or delivery happens now. */
export class AbsentPage {
  /** @param page its sPA. */
  constructor(readonly page: SPA) {}
}

interface PendingWrite {
  readonly address: SPA;
  readonly size: number;
  readonly value: bigint;
  /** Where it was written through paging. */
  readonly linear: bigint | undefined;
}

export class Transaction implements HalvesWriter {
  private readonly isWritten = new Uint8Array(SLOT_COUNT);
  private readonly values = new BigUint64Array(SLOT_COUNT);
  private readonly words = new Uint32Array(this.values.buffer);
  /** The slots written, `count` of them, in the order of their first write. */
  private readonly slots = new Uint8Array(SLOT_COUNT);
  private count = 0;
  /** Whether they are in ascending order, as those of a world switch are. */
  private ordered = true;
  private readonly writes: PendingWrite[] = [];
  /** Whole aligned quadwords of RAM to write, after `writes`: place among the 32-bit words of the memory, low and high half. */
  private quads = new Uint32Array(3 * 64);
  private quadCount = 0;
  private readonly keptThroughAbort: (readonly [Slot, bigint])[] = [];

  /** The registers as they are, as 32-bit words, low first: comparing makes no bigints then. Not to be written to. */
  readonly held: Uint32Array;
  /** An address or value taken apart. */
  private readonly quad = new BigUint64Array(1);
  private readonly halves = new Uint32Array(this.quad.buffer);

  constructor(readonly host: TransactionHost) {
    const { buffer, byteOffset, length } = host.registers;
    this.held = new Uint32Array(buffer, byteOffset, 2 * length);
  }

  /** One read of the array that has it, not one of two reads: see docs/adr/0025. */
  get(slot: Slot): bigint {
    return (this.isWritten[slot] === 1 ? this.values : this.host.registers)[slot] as bigint;
  }

  /** The halves of a register: no bigint is made. */
  low(slot: Slot): number {
    return (this.isWritten[slot] === 1 ? this.words : this.held)[2 * slot] as number;
  }

  high(slot: Slot): number {
    return (this.isWritten[slot] === 1 ? this.words : this.held)[2 * slot + 1] as number;
  }

  set(slot: Slot, value: bigint): void {
    if (this.isWritten[slot] === 0) this.note(slot);
    this.values[slot] = value; // a BigUint64Array cuts to 64 bits
  }

  /** Whether any of these slots will take another value with the commit. */
  changesAny(slots: readonly Slot[]): boolean {
    if (this.count === 0) return false;
    for (const slot of slots) {
      if (this.isWritten[slot] === 1 && this.values[slot] !== this.host.registers[slot]) return true;
    }
    return false;
  }

  /** The same in halves: no bigint is made. */
  setHalves(slot: Slot, low: number, high: number): void {
    if (this.isWritten[slot] === 0) this.note(slot);
    this.words[2 * slot] = low;
    this.words[2 * slot + 1] = high;
  }

  private note(slot: Slot): void {
    this.isWritten[slot] = 1;
    if (this.count > 0 && (this.slots[this.count - 1] as number) > slot) this.ordered = false;
    this.slots[this.count++] = slot;
  }

  /**
   * Reads through paging at the current privilege that `access` names. Crossing a page is handled, lowest page first.
   * @param size 1 to 16 bytes.
   */
  readLinear(linear: bigint, size: number, access: number): bigint {
    const first = this.bytesInPage(linear, size);
    if (first === size) return this.load(this.host.translate(this, linear, access), size);
    const low = this.host.translate(this, linear, access);
    const high = this.host.translate(this, nextPage(linear), access);
    return this.load(low, first) | (this.load(high, size - first) << BigInt(8 * first));
  }

  /** As `readLinear` of eight bytes, which `lowRead` and `highRead` have then: bits of numbers cost less than those of bigints. */
  readQuad(linear: bigint, access: number): bigint {
    const value = this.readLinear(linear, 8, access);
    this.quad[0] = value;
    this.lowRead = this.halves[0] as number;
    this.highRead = this.halves[1] as number;
    return value;
  }
  lowRead = 0;
  highRead = 0;

  /** How many of `size` bytes at a linear address lie in its page. */
  private bytesInPage(linear: bigint, size: number): number {
    this.quad[0] = linear;
    return Math.min(size, PAGE_BYTES - ((this.halves[0] as number) % PAGE_BYTES));
  }

  private load(address: SPA, size: number): bigint {
    this.host.memory.watcher?.loaded(address, size);
    return this.readPhysical(address, size);
  }

  /** Writes through paging; nothing is visible before `commit`. Both pages of a crossing write are checked first. */
  writeLinear(linear: bigint, size: number, value: bigint, access: number): void {
    const first = this.bytesInPage(linear, size);
    if (first === size) {
      this.writePhysical(this.host.translate(this, linear, access | Access.WRITE), size, value, linear);
      return;
    }
    const low = this.host.translate(this, linear, access | Access.WRITE);
    const high = this.host.translate(this, nextPage(linear), access | Access.WRITE);
    this.writePhysical(low, first, BigInt.asUintN(8 * first, value), linear);
    this.writePhysical(high, size - first, value >> BigInt(8 * first), nextPage(linear));
  }

  /** Whether that many bytes at a linear address are aligned quadwords in one page. */
  fitsQuads(linear: bigint, bytes: number): boolean {
    return this.bytesInPage(linear, bytes) === bytes && (this.halves[0] as number) % 8 === 0;
  }

  /** Writes quadwords that fit one page below `top`, downwards, as so many `writeLinear` would. */
  writeQuadsDown(top: bigint, values: readonly bigint[], access: number): void {
    let linear = u64(top - 8n);
    let address = this.host.translate(this, linear, access | Access.WRITE);
    for (const value of values) {
      this.writePhysical(address, 8, value, linear);
      address = sPA(address - 8);
      linear = u64(linear - 8n);
    }
  }

  /** Faults as a write would, without writing: for read-modify-write operands and for checks ahead of a commit. */
  probeWrite(linear: bigint, size: number, access: number): void {
    this.host.translate(this, linear, access | Access.WRITE);
    if (this.bytesInPage(linear, size) < size) {
      this.host.translate(this, nextPage(linear), access | Access.WRITE);
    }
  }

  /** @param size 1 to 16 bytes, within one page. */
  readPhysical(address: SPA, size: number): bigint {
    const first = pieceOf(size);
    let value = this.readPiece(address, first);
    for (let at = first; at < size; ) {
      const step = pieceOf(size - at);
      value |= this.readPiece(sPA(address + at), step) << BigInt(8 * at);
      at += step;
    }
    return this.writes.length === 0 ? value : this.withPendingWrites(address, size, value);
  }

  /** @param linear the address that paging made this of, for whoever watches. */
  writePhysical(address: SPA, size: number, value: bigint, linear?: bigint): void {
    const first = pieceOf(size);
    this.writes.push({ address, size: first, value: BigInt.asUintN(8 * first, value), linear });
    for (let at = first; at < size; ) {
      const step = pieceOf(size - at);
      const piece = BigInt.asUintN(8 * step, value >> BigInt(8 * at));
      const from = linear === undefined ? undefined : linear + BigInt(at);
      this.writes.push({ address: sPA(address + at), size: step, value: piece, linear: from });
      at += step;
    }
  }

  /** Writes an aligned quadword of RAM that this transaction will not read again, in halves: no bigint is made. */
  writeQuad(address: number, low: number, high: number): void {
    const at = 3 * this.quadCount++;
    if (at === this.quads.length) {
      const grown = new Uint32Array(2 * at);
      grown.set(this.quads);
      this.quads = grown;
    }
    this.quads[at] = (RAM_BASE + address) >>> 2;
    this.quads[at + 1] = low;
    this.quads[at + 2] = high;
  }

  /** Sets a register that keeps its value when the instruction is aborted: MXCSR has its flags before #XF is delivered. */
  setBeforeFault(slot: Slot, value: bigint): void {
    this.keptThroughAbort.push([slot, value]);
  }

  /** Drops everything that was held back. */
  abort(): void {
    for (let index = 0; index < this.count; index++) this.isWritten[this.slots[index] as Slot] = 0;
    this.count = 0;
    this.ordered = true;
    if (this.writes.length > 0) this.writes.length = 0;
    this.quadCount = 0;
    if (this.keptThroughAbort.length === 0) return;
    for (const [slot, value] of this.keptThroughAbort.splice(0)) this.set(slot, value);
  }

  /** What `commit` will change among the registers, in ascending order of slot; unchanged values are left out. */
  delta(): RegisterDelta {
    if (this.count === 0) return EMPTY_DELTA;
    const { words, held, slots } = this;
    const { slab, at } = room(DELTA_ENTRY_BYTES * this.count);
    if (!this.ordered) this.order();
    let end = at;
    for (let index = 0; index < this.count; index++) {
      const slot = slots[index] as number;
      const low = words[2 * slot] as number;
      const high = words[2 * slot + 1] as number;
      if (held[2 * slot] === low && held[2 * slot + 1] === high) continue;
      slab[end] = slot;
      putWord32(slab, end + 1, low);
      putWord32(slab, end + 5, high);
      end += DELTA_ENTRY_BYTES;
    }
    return keep(end - at);
  }

  /** Sorts the slots. They are few: sorting by a call into the host costs more. */
  private order(): void {
    const { slots, count } = this;
    for (let index = 1; index < count; index++) {
      const slot = slots[index] as number;
      let at = index;
      for (; at > 0 && (slots[at - 1] as number) > slot; at--) slots[at] = slots[at - 1] as number;
      slots[at] = slot;
    }
    this.ordered = true;
  }

  /** Whether no register was written, changed or not. */
  get isUntouched(): boolean {
    return this.count === 0;
  }

  /** Makes the memory writes, in order. Registers change by the event's reducer, or by `commitRegisters`. */
  commitMemory(): void {
    const { memory } = this.host;
    for (const { address, size, value, linear } of this.writes) {
      if (memory.isRam(address, size)) memory.write(address, size, value, linear);
      else {
        memory.watcher?.sent(address, size, value, linear);
        this.host.writeDevice(address, size, value);
      }
    }
    if (this.writes.length > 0) this.writes.length = 0;
    for (let index = 0; index < this.quadCount; index++) {
      const { quads } = this;
      memory.writeHalves(quads[3 * index] as number, quads[3 * index + 1] as number, quads[3 * index + 2] as number);
    }
    this.quadCount = 0;
  }

  /** Writes the registers directly: for plain instructions, whose effect is part of a run. */
  commitRegisters(): void {
    for (let index = 0; index < this.count; index++) {
      const slot = this.slots[index] as Slot;
      this.host.registers[slot] = this.values[slot] as bigint;
    }
  }

  private readPiece(address: SPA, size: number): bigint {
    return this.host.memory.isRam(address, size)
      ? this.host.memory.read(address, size)
      : this.host.readDevice(address, size);
  }

  /** An instruction reads what it wrote itself a step before (ENTER, task switches). */
  private withPendingWrites(address: SPA, size: number, value: bigint): bigint {
    let result = value;
    for (const write of this.writes) {
      for (let byte = 0; byte < write.size; byte++) {
        const at = write.address + byte - address;
        if (at < 0 || at >= size) continue;
        const shift = BigInt(8 * at);
        result = (result & ~(0xffn << shift)) | (((write.value >> BigInt(8 * byte)) & 0xffn) << shift);
      }
    }
    return result;
  }
}

const nextPage = (linear: bigint): bigint => BigInt.asUintN(64, (linear | 0xfffn) + 1n);

/** The next piece of an access: 8, 4, 2 or 1 bytes, so that device registers see sensible widths. */
function pieceOf(left: number): number {
  if (left >= 8) return 8;
  if (left >= 4) return 4;
  return left >= 2 ? 2 : 1;
}

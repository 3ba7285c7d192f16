/**
 * A stack on which a control transfer writes or from which it reads, before it is sure to happen: the pointer is local
 * until the transfer commits it.
 * Source: APM vol.2 §4.10.2 Stack-Access Privilege Checks; §8.9.3 Interrupt Stack Frame.
 */
import { stackFault } from '../faults.js';
import { Boundary, Flag, gprSlot, R } from '../layout/cpu-state.js';
import { isCanonical, u64, uN } from '../units.js';
import { checkAlignment } from './alignment.js';
import { DR7, dataHits } from './debug.js';
import { accessAt, cplOf, is64Bit, isProtected, stackBits } from './mode.js';
import { isAllowed } from './segments.js';
import type { Transaction } from './transaction.js';

const BREAKPOINTS_ENABLED = Number(DR7.ENABLES);

export interface StackPlace {
  /** Packed word and base of the stack segment. */
  readonly word: bigint;
  readonly base: bigint;
  readonly pointer: bigint;
  readonly bits: 16 | 32 | 64;
  /** Privilege level that the accesses are made at. */
  readonly cpl: number;
  /** Error code of the #SS that a violation raises. */
  readonly errorCode: number;
  /** False in real and virtual-8086 mode, where types are not checked. */
  readonly checkType: boolean;
}

export class Stack {
  pointer: bigint;

  constructor(
    private readonly tx: Transaction,
    private readonly place: StackPlace,
  ) {
    this.pointer = place.pointer;
  }

  /** The stack in use. @param errorCode of the #SS that a violation raises. */
  static current(tx: Transaction, errorCode = 0): Stack {
    const bits = stackBits(tx);
    const cpl = cplOf(tx);
    return new Stack(tx, {
      word: tx.get(R.ss),
      base: is64Bit(tx) ? 0n : tx.get(R.ssBase),
      pointer: uN(bits, tx.get(gprSlot(4))),
      bits,
      cpl,
      errorCode,
      checkType: isProtected(tx) && (tx.get(R.rflags) & Flag.VM) === 0n,
    });
  }

  /** Pushes quadwords on a 64-bit stack, the first one first. */
  pushQuads(values: readonly bigint[]): void {
    const { tx } = this;
    const bytes = 8 * values.length;
    const bottom = u64(this.pointer - BigInt(bytes));
    // In one page, where nothing but the page itself can be in the way.
    const simple = tx.fitsQuads(bottom, bytes) && isCanonical(bottom) && (tx.low(R.dr7) & BREAKPOINTS_ENABLED) === 0;
    if (!simple) {
      for (const value of values) this.push(8, value);
      return;
    }
    tx.writeQuadsDown(this.pointer, values, accessAt(this.place.cpl));
    this.pointer = bottom;
  }

  /** @param size bytes; 2, 4 or 8. */
  push(size: number, value: bigint): void {
    const { bits, cpl } = this.place;
    const pointer = uN(bits, this.pointer - BigInt(size));
    const linear = this.linear(pointer, size, true);
    this.tx.writeLinear(linear, size, uN(8 * size, value), accessAt(cpl));
    this.pointer = pointer;
  }

  pop(size: number): bigint {
    const value = this.peek(0, size);
    this.pointer = uN(this.place.bits, this.pointer + BigInt(size));
    return value;
  }

  /** Reads `size` bytes at `offset` bytes above the pointer. */
  peek(offset: number, size: number): bigint {
    const { bits, cpl } = this.place;
    const linear = this.linear(uN(bits, this.pointer + BigInt(offset)), size, false);
    return this.tx.readLinear(linear, size, accessAt(cpl));
  }

  release(bytes: number): void {
    this.pointer = uN(this.place.bits, this.pointer + BigInt(bytes));
  }

  /** Writes the pointer to rSP, as wide as this stack is; a 16-bit stack keeps the upper bits. */
  commit(): void {
    const slot = gprSlot(4);
    this.tx.set(slot, this.place.bits === 16 ? (this.tx.get(slot) & ~0xffffn) | this.pointer : this.pointer);
  }

  /** Where an access goes, aligned if it must be. Data breakpoints that it hits are due behind the instruction. */
  private linear(offset: bigint, size: number, write: boolean): bigint {
    const { tx } = this;
    const linear = this.checked(offset, size, write);
    checkAlignment(tx, linear, size, BigInt(this.place.cpl));
    const hits = dataHits(tx, linear, size, write);
    if (hits !== 0n) tx.set(R.boundary, tx.get(R.boundary) | (hits << Boundary.BREAKPOINTS_SHIFT));
    return linear;
  }

  private checked(offset: bigint, size: number, write: boolean): bigint {
    const { word, base, bits, errorCode, checkType } = this.place;
    if (bits === 64) {
      if (!isCanonical(offset) || !isCanonical(u64(offset + BigInt(size - 1)))) throw stackFault(errorCode);
      return offset;
    }
    if (!isAllowed(word, offset, size, write, checkType)) throw stackFault(errorCode);
    return uN(32, base + offset);
  }
}

/**
 * Where accesses go: the TLB that compiled code looks into, the page walks behind it, and what transactions ask of both.
 * Nothing here is ever on a tape.
 */
import { type AccessFault, accessFault } from '../cpu/access-fault.js';
import { Access, type Transaction } from '../cpu/transaction.js';
import type { RegisterFile, Slot } from '../layout/cpu-state.js';
import { Cell, RAM_BASE } from '../layout/linear-memory.js';
import { type PhysicalMemory, pageNumber } from '../mmu/memory.js';
import { isWriteBack } from '../mmu/memory-type.js';
import { ABSENT_PAGE, PageWalker, type PagingContext, type PagingFeatures, pagingContext } from '../mmu/page-walk.js';
import { TlbBanks } from '../mmu/tlb.js';
import { isCanonicalHigh, PAGE_BYTES, type SPA, sPA } from '../units.js';
import { type Context, Mode, PAGING_SLOTS, Privilege } from './context.js';
import { Fill } from './fill.js';

export class Translations {
  readonly walker: PageWalker;
  readonly banks: TlbBanks;
  /** Which pages the host has taken away; undefined while there are none. The translations of all banks go when some do. */
  isAbsent: ((page: SPA) => boolean) | undefined;
  /** The page fault that compiled code met with last, whose instruction has done nothing; undefined when a miss was all. */
  fault: AccessFault | undefined;
  private context: Context | undefined;
  private watched = '';
  private watchedPages: readonly number[] = [];
  private readonly words: Int32Array;
  /** A linear address taken apart: shifts of bigints would not do (docs/adr/0025). */
  private readonly linear = new BigUint64Array(1);
  private readonly linearWords = new Int32Array(this.linear.buffer);

  /** @param disturbances counts what page walks have done to the code that runs: it must be left then. */
  constructor(
    private readonly memory: PhysicalMemory,
    private readonly registers: RegisterFile,
    private readonly features: PagingFeatures,
    private readonly disturbances: () => number,
  ) {
    this.words = new Int32Array(memory.wasm.buffer);
    this.walker = new PageWalker(memory);
    this.banks = new TlbBanks(memory);
  }

  /** Accesses are made in this context from now on. @param space address space: an ASID of a vCPU. */
  enter(context: Context, space: number): void {
    this.context = context;
    if (context.watched !== this.watched) {
      // What was filled in before may lie under a breakpoint now.
      this.watched = context.watched;
      this.watchedPages = context.watched === '' ? [] : context.watched.split(',').map(Number);
      this.banks.flush(undefined);
    }
    this.words[Cell.TLB_BANK >> 2] = this.banks.select(space, context.privilege, context.translation);
    this.memory.tableOwner = space;
  }

  get paging(): PagingContext {
    return this.entered.paging;
  }

  private get entered(): Context {
    return this.context as Context;
  }

  private get bank(): number {
    return this.words[Cell.TLB_BANK >> 2] as number;
  }

  /** A TLB miss of compiled code. @returns 1 when the entry is there now, 0 when the evaluator must see to it. */
  fill(accessAndSize: number): number {
    const { mode, paging, fillsAllowed } = this.entered;
    const size = accessAndSize & Fill.SIZE;
    const write = (accessAndSize & Fill.WRITE) !== 0;
    const low = this.words[Cell.EXIT_ADDRESS >> 2] as number;
    const high = this.words[(Cell.EXIT_ADDRESS >> 2) + 1] as number;
    if (!fillsAllowed || (low & 0xfff) + size > PAGE_BYTES) return 0;
    if ((mode & Mode.BITS64) !== 0 && !isCanonicalHigh(high)) return 0;
    const page = pageNumber(low, high);
    if (this.watchedPages.includes(page)) return 0;
    const { bank } = this;
    let target = this.banks.recall(bank, low, high, write) - RAM_BASE;
    if (target < 0) {
      const disturbances = this.disturbances();
      const user = (mode & Mode.USER) !== 0 ? Access.USER : 0;
      const frame = this.walker.walk(paging, low, high, user | (write ? Access.WRITE : 0));
      if (frame < 0) {
        this.fault = accessFault(this.walker.result, addressOf(low, high));
        return 0;
      }
      // Accessed and dirty bits may lie amid the code that runs.
      if (this.disturbances() !== disturbances) return 0;
      target = frame - (frame % PAGE_BYTES);
      if (!this.memory.isRam(target, PAGE_BYTES)) return 0;
    }
    if (this.isAbsent?.(sPA(target)) === true) return 0;
    if (write) {
      if (this.memory.mayNotWrite(target)) {
        if ((accessAndSize & Fill.MANY) !== 0 || !this.memory.admitStore(target + (low & 0xfff), size)) return 0;
        this.banks.lend(bank, low, RAM_BASE + target);
        return 1;
      }
      this.memory.noteWritable(target);
    } else if (this.memory.mayNotRead(target)) return 0;
    this.banks.insert(bank, low, high, RAM_BASE + target, write);
    return 1;
  }

  /**
   * Where an access goes, for transactions. A page that the host has taken away is ABSENT_PAGE, and stands in
   * `walker.result.sPA`.
   * @param tx registers that are not committed yet. @returns sPA, or a negative code with `walker.result` telling why.
   */
  translate(linear: bigint, access: number, tx?: Transaction): number {
    const { linearWords } = this;
    this.linear[0] = linear;
    const low = linearWords[0] as number;
    const high = linearWords[1] as number;
    if (tx?.changesAny(PAGING_SLOTS) === true) {
      return this.walk(
        pagingContext((slot) => tx.get(slot), this.features),
        low,
        high,
        access,
      );
    }
    const { paging, bank } = this;
    if (!this.isHeld(access)) return this.walk(paging, low, high, access);
    const write = (access & Access.WRITE) !== 0;
    const held = this.banks.recall(bank, low, high, write) - RAM_BASE;
    if (held >= 0) return this.present(held + (low & 0xfff));
    const address = this.walk(paging, low, high, access);
    const page = address - (low & 0xfff);
    if (page >= 0 && this.memory.isRam(page, PAGE_BYTES)) this.banks.note(bank, low, high, RAM_BASE + page, write);
    return address;
  }

  /** Whether the bank that is selected says where such an access goes. */
  private isHeld(access: number): boolean {
    const { privilege } = this.entered;
    const asSelected = ((access & Access.USER) !== 0) === ((privilege & Privilege.USER) !== 0);
    return asSelected && (access & Access.FETCH) === 0 && ((access & Access.IMPLICIT) === 0 || privilege === 0);
  }

  private walk(paging: PagingContext, low: number, high: number, access: number): number {
    const frame = this.present(this.walker.walk(paging, low, high, access));
    return frame < 0 ? frame : frame - (frame % PAGE_BYTES) + (low & 0xfff);
  }

  /** Whether an access of `bytes`, which the last translations allow, reaches write-back memory alone. */
  isWriteBack(linear: bigint, bytes: number, access: number): boolean {
    const get = (slot: Slot): bigint => this.registers[slot] as bigint;
    return [linear, BigInt.asUintN(64, linear + BigInt(bytes - 1))].every((end) => {
      this.linear[0] = end;
      const [low, high] = this.linearWords as unknown as readonly [number, number];
      const address = this.walk(this.paging, low, high, access);
      return address >= 0 && isWriteBack(get, this.walker, this.paging, address);
    });
  }

  /** sPA of the frame at a guest-physical address, or a negative code with `walker.result` telling why. */
  translateNested(address: number, access: number): number {
    return this.present(this.walker.walkNested(this.paging, address, access));
  }

  private present(frame: number): number {
    return frame >= 0 && this.isAbsent?.(sPA(frame - (frame % PAGE_BYTES))) === true ? ABSENT_PAGE : frame;
  }

  /**
   * Where the page of an ordinary access lies in the memory; 0 when it was not accessed so of late, or somebody wants to see it
   * read, or it holds what a write must not change unseen.
   */
  knownPage(low: number, high: number, write: boolean): number {
    const page = this.banks.recall(this.bank, low, high, write);
    if (page <= 0) return 0;
    const isSeen = write ? this.memory.mayNotWrite(page - RAM_BASE) : this.memory.mayNotRead(page - RAM_BASE);
    return isSeen ? 0 : page;
  }
}

export const addressOf = (low: number, high: number): bigint => (BigInt(high >>> 0) << 32n) | BigInt(low >>> 0);

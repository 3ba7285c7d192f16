/**
 * The walk behind a TLB miss: linear address → system-physical address, with permissions, accessed and dirty bits and
 * error codes; under nested paging in two dimensions.
 *
 * The order of faults is the manual's: the guest's entries from the root down, each one through the nested tables as a
 * user write; then the guest's permissions; then accessed and dirty bits; then the final nested translation as a user
 * access of the real kind. No allocation and no bigint: the outcome stands in `result` until the next walk.
 * Source: APM vol.2 §5.3 Long-Mode Page Translation, §5.6 Page-Protection Checks, §15.25.5 Nested Table Walk,
 * §15.25.6 Nested versus Guest Page Faults, Fault Ordering.
 */
import type { CpuProfile } from '../cpu/cpuid.js';
import { Access } from '../cpu/transaction.js';
import { CR0, CR4, EFER, Flag, R, type Slot, SvmMode } from '../layout/cpu-state.js';
import { type PhysicalMemory, pageNumber } from './memory.js';
import {
  NESTED_FINAL_HIGH,
  NESTED_TABLES_HIGH,
  type NestedContext,
  NestedWalk,
  nestedContext,
  type PagingFeatures,
  pagingModeOf,
  rootOf,
  VIRTUAL_APIC_FRAME,
} from './nested-walk.js';
import {
  type EntryResolver,
  KIB_4,
  PageFaultCode,
  PagingMode,
  reservedHighWord,
  reservedLegacyLargeBits,
  Stop,
  type TableRules,
  TableWalk,
} from './table-walk.js';

export type { NestedContext, PagingFeatures } from './nested-walk.js';

/**
 * All that translation depends on besides the access; made anew when CR0, CR3, CR4, EFER, RFLAGS.AC, a PDPE, or guest
 * mode change.
 */
export interface PagingContext extends TableRules {
  /** Supervisor writes respect read-only pages (CR0.WP). */
  readonly writeProtect: boolean;
  readonly supervisorExecutionPrevention: boolean;
  readonly supervisorAccessPrevention: boolean;
  /** RFLAGS.AC: explicit supervisor accesses to user pages are allowed under SMAP. */
  readonly accessAllowed: boolean;
  readonly nested: NestedContext | undefined;
}

export const pagingFeatures = (profile: CpuProfile): PagingFeatures => ({
  physicalAddressBits: profile.physicalAddressBits,
  gigabytePages: profile.system.has('page1gb'),
  nestedFetchAlways: profile.deviations.has('npf-fetch-always'),
});

/** @param get reads a register slot. */
export function pagingContext(get: (slot: Slot) => bigint, features: PagingFeatures): PagingContext {
  const cr0 = get(R.cr0);
  const cr4 = get(R.cr4);
  const efer = get(R.efer);
  const mode = (cr0 & CR0.PG) === 0n ? PagingMode.NONE : pagingModeOf(efer, cr4);
  const nested = (get(R.svmMode) & SvmMode.GUEST) === 0n ? undefined : nestedContext(get, features);
  const noExecute = mode !== PagingMode.LEGACY && (efer & EFER.NXE) !== 0n;
  const smep = (cr4 & CR4.SMEP) !== 0n;
  return {
    mode,
    root: rootOf(mode, get(R.cr3)),
    // A nested guest's pointers are read on demand (APM vol.2 §15.25.10 Legacy PAE Mode).
    pdptes: mode === PagingMode.PAE && nested === undefined ? heldPdptes(get) : undefined,
    pageSizeExtensions: (cr4 & CR4.PSE) !== 0n,
    gigabytePages: features.gigabytePages,
    reservedHigh: reservedHighWord(mode, features.physicalAddressBits, noExecute),
    reservedLegacyLarge: reservedLegacyLargeBits(features.physicalAddressBits),
    reportsFetch: noExecute || smep,
    writeProtect: (cr0 & CR0.WP) !== 0n,
    supervisorExecutionPrevention: smep,
    supervisorAccessPrevention: (cr4 & CR4.SMAP) !== 0n,
    accessAllowed: (get(R.rflags) & Flag.AC) !== 0n,
    nested,
  };
}

function heldPdptes(get: (slot: Slot) => bigint): readonly number[] {
  return [R.pdpte0, R.pdpte1, R.pdpte2, R.pdpte3].map((slot) => {
    const entry = get(slot);
    return (entry & 1n) === 0n ? -1 : Number(entry & 0x000f_ffff_ffff_f000n);
  });
}

/** The outcome of a walk; overwritten by the next. */
export interface WalkResult {
  fault: 'none' | 'page' | 'nested';
  /** sPA of the 4 KiB frame that holds the linear address. */
  sPA: number;
  /** Size of the page: the smaller of guest and nested page (APM vol.2 §15.25.9 Page Splintering). */
  pageBytes: number;
  /** R/W at every level, guest and nested; supervisor writes without CR0.WP may pass nonetheless. */
  writable: boolean;
  /** U/S at every level of the guest's tables. */
  user: boolean;
  /** No NX at any level, guest or nested. */
  executable: boolean;
  /** Global within its address space. */
  global: boolean;
  /** The dirty bits of the guest's and the nested page are set: writes need no further walk. */
  dirty: boolean;
  /** Of a #PF. */
  errorCode: number;
  /** Of a #VMEXIT(NPF): EXITINFO1 in two words, and EXITINFO2. */
  nestedErrorLow: number;
  nestedErrorHigh: number;
  /** The guest-physical address that the final translation was for, or whose nested translation faulted. */
  gPA: number;
}

/** EXITINFO1 of the #VMEXIT(NPF) that a walk ended in. */
export const nestedErrorCode = (result: WalkResult): bigint =>
  (BigInt(result.nestedErrorHigh) << 32n) | BigInt(result.nestedErrorLow);

/** Returned by `walk` instead of an address. */
export const PAGE_FAULT = -1;
export const NESTED_PAGE_FAULT = -2;
/** Returned by the engine: the walk found a page, but the host has taken it away. */
export const ABSENT_PAGE = -3;

/** Walks of the guest's tables are user writes. */
const TABLE_ACCESS = Access.USER | Access.WRITE;

export class PageWalker implements EntryResolver {
  readonly result: WalkResult = {
    fault: 'none',
    sPA: 0,
    pageBytes: KIB_4,
    writable: false,
    user: false,
    executable: false,
    global: false,
    dirty: false,
    errorCode: 0,
    nestedErrorLow: 0,
    nestedErrorHigh: 0,
    gPA: 0,
  };
  private readonly tables: TableWalk;
  private readonly nested: NestedWalk;
  private nestedTables: NestedContext | undefined;

  constructor(memory: PhysicalMemory) {
    this.tables = new TableWalk(memory, this);
    this.nested = new NestedWalk(memory);
  }

  /**
   * @param low @param high the two words of a canonical linear address. @param access bits of `Access`.
   * @returns the sPA of the 4 KiB frame, or PAGE_FAULT or NESTED_PAGE_FAULT; `result` tells the rest.
   */
  walk(context: PagingContext, low: number, high: number, access: number): number {
    const { nested } = context;
    this.nestedTables = nested;
    if (context.mode === PagingMode.NONE) return this.walkUnpaged(nested, low, access);
    const { tables, result } = this;
    if (!tables.walk(context, low, high, nested !== undefined)) {
      return tables.stop === Stop.RESOLVER ? NESTED_PAGE_FAULT : this.pageFault(context, tables.code, access);
    }
    if (!this.allowed(context, access)) return this.pageFault(context, PageFaultCode.PRESENT, access);
    tables.markUsed((access & Access.WRITE) !== 0, pageNumber(low, high));
    result.fault = 'none';
    result.sPA = tables.frame;
    result.pageBytes = tables.pageBytes;
    result.writable = tables.writable;
    result.user = tables.user;
    result.executable = tables.executable;
    result.global = tables.global;
    result.dirty = tables.dirty;
    return nested === undefined ? result.sPA : this.translateFinally(nested, tables.frame + (low & 0xfff), access);
  }

  /** The PAT entries that the last walk came to: the page's, if paging is on, and the nested page's, if there is one. */
  get patIndex(): number {
    return this.tables.patIndex;
  }
  get nestedPatIndex(): number {
    return this.nested.patIndex;
  }

  /** A guest-physical address alone, as its final translation (APM vol.2 §15.33.1 VMSAVE and VMLOAD Virtualization). */
  walkNested({ nested }: PagingContext, gPA: number, access: number): number {
    return nested === undefined ? gPA - (gPA % KIB_4) : this.translateFinally(nested, gPA, access);
  }

  /** Where an entry of the guest's tables lies: a nested user write (APM vol.2 §15.25.5 Nested Table Walk). */
  resolve(gPA: number): number {
    const { nested } = this;
    if (nested.translate(this.nestedTables as NestedContext, gPA, TABLE_ACCESS)) return nested.frame + (gPA % KIB_4);
    return this.nestedFault(gPA, NESTED_TABLES_HIGH);
  }

  /** CR0.PG = 0: linear addresses are (guest-)physical ones of 32 bits. */
  private walkUnpaged(nested: NestedContext | undefined, low: number, access: number): number {
    const { result } = this;
    const address = low >>> 0;
    result.fault = 'none';
    result.sPA = address - (address % KIB_4);
    result.pageBytes = KIB_4;
    result.writable = true;
    result.user = true;
    result.executable = true;
    result.global = false;
    result.dirty = true;
    return nested === undefined ? result.sPA : this.translateFinally(nested, address, access);
  }

  /** Page-protection checks (APM vol.2 §5.6 Page-Protection Checks, §5.6.6 Enforcement Across the Hierarchy). */
  private allowed(context: PagingContext, access: number): boolean {
    const { tables } = this;
    const fetch = (access & Access.FETCH) !== 0;
    const implicit = (access & Access.IMPLICIT) !== 0;
    const asUser = (access & Access.USER) !== 0 && !implicit;
    if (fetch && !tables.executable) return false;
    if ((access & Access.WRITE) !== 0 && !tables.writable && (asUser || context.writeProtect)) return false;
    if (asUser) return tables.user;
    if (!tables.user) return true;
    if (fetch) return !context.supervisorExecutionPrevention;
    return !context.supervisorAccessPrevention || (context.accessAllowed && !implicit);
  }

  private translateFinally(context: NestedContext, gPA: number, access: number): number {
    const { nested, result } = this;
    if (!nested.translate(context, gPA, access)) return this.nestedFault(gPA, NESTED_FINAL_HIGH);
    result.gPA = gPA;
    result.sPA = gPA - (gPA % KIB_4) === context.virtualApicPage ? VIRTUAL_APIC_FRAME : nested.frame;
    if (nested.pageBytes < result.pageBytes) result.pageBytes = nested.pageBytes;
    if (!nested.writable) result.writable = false;
    if (!nested.executable) result.executable = false;
    if (!nested.dirty) result.dirty = false;
    return result.sPA;
  }

  private pageFault(context: PagingContext, code: number, access: number): number {
    this.result.fault = 'page';
    this.result.errorCode =
      code |
      ((access & Access.WRITE) !== 0 ? PageFaultCode.WRITE : 0) |
      ((access & Access.USER) !== 0 && (access & Access.IMPLICIT) === 0 ? PageFaultCode.USER : 0) |
      ((access & Access.FETCH) !== 0 && context.reportsFetch ? PageFaultCode.FETCH : 0);
    return PAGE_FAULT;
  }

  private nestedFault(gPA: number, stage: number): number {
    const { result } = this;
    result.fault = 'nested';
    result.nestedErrorLow = this.nested.errorCode;
    result.nestedErrorHigh = stage;
    result.gPA = gPA;
    return NESTED_PAGE_FAULT;
  }
}

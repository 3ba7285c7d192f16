/**
 * gPA → sPA through nCR3, in the paging mode that the host had at VMRUN. Every nested access counts as a user access;
 * host CR0.WP has no say, so a read-only nested page is never writable.
 *
 * Nested PDPEs of a PAE host are read on demand, and the low five bits of nCR3 do not count. A gPA beyond what the
 * host's tables can express (4 GiB without long mode) is reported as not present.
 * Source: APM vol.2 §15.25.5 Nested Table Walk, §15.25.6 Nested versus Guest Page Faults, Fault Ordering,
 * §15.25.7 Combining Nested and Guest Attributes, §15.25.13 Guest Mode Execute Trap Extension.
 */
import { Access } from '../cpu/transaction.js';
import { CR4, EFER, R, type Slot } from '../layout/cpu-state.js';
import { NestedControl } from '../layout/vmcb.js';
import type { PhysicalMemory } from './memory.js';
import {
  PageFaultCode,
  PagingMode,
  reservedHighWord,
  reservedLegacyLargeBits,
  type TableRules,
  TableWalk,
} from './table-walk.js';

/** What the processor profile says about paging. */
export interface PagingFeatures {
  /** Bits of a physical address (CPUID Fn8000_0008 EAX[7:0]), 32..52. */
  readonly physicalAddressBits: number;
  readonly gigabytePages: boolean;
  /** The deviation `npf-fetch-always`: nested faults of fetches are told apart whatever the host's tables can express. */
  readonly nestedFetchAlways?: boolean;
}

/** The nested tables of the guest that runs. */
export interface NestedContext extends TableRules {
  /** GMET: U/S bits forbid the guest's supervisor to execute, and say nothing else. */
  readonly executeTrap: boolean;
  /** gPA of the page that AVIC takes for the guest's local APIC; NO_PAGE without. */
  readonly virtualApicPage: number;
}

const NO_PAGE = -1;
/**
 * What the guest's local APIC page translates to under AVIC, wherever the nested tables lead: a frame above all physical
 * addresses, so that nothing maps it and each access comes to `svm/avic.ts` (APM vol.2 §15.29.3 AVIC Backing Page).
 */
export const VIRTUAL_APIC_FRAME = 2 ** 52;
const ENABLED = 1n;
const PAGE = 0x000f_ffff_ffff_f000n;

/** Bit 32 of EXITINFO1, in the high word: the final translation faulted. */
export const NESTED_FINAL_HIGH = 1;
/** Bit 33 of EXITINFO1, in the high word: the walk of the guest's tables did. */
export const NESTED_TABLES_HIGH = 2;

/** The nested tables as VMRUN found them, or undefined when the guest has none. Valid in guest mode only. */
export function nestedContext(get: (slot: Slot) => bigint, features: PagingFeatures): NestedContext | undefined {
  if ((get(R.nestedControl) & NestedControl.NP_ENABLE) === 0n) return undefined;
  const efer = get(R.hostEfer);
  const cr4 = get(R.hostCr4);
  const nCR3 = get(R.nestedCr3);
  const mode = pagingModeOf(efer, cr4);
  const noExecute = mode !== PagingMode.LEGACY && (efer & EFER.NXE) !== 0n;
  return {
    mode,
    root: rootOf(mode, nCR3),
    pdptes: undefined,
    pageSizeExtensions: (cr4 & CR4.PSE) !== 0n,
    gigabytePages: features.gigabytePages,
    reservedHigh: reservedHighWord(mode, features.physicalAddressBits, noExecute),
    reservedLegacyLarge: reservedLegacyLargeBits(features.physicalAddressBits),
    reportsFetch: noExecute || (cr4 & CR4.SMEP) !== 0n || features.nestedFetchAlways === true,
    executeTrap: (get(R.nestedControl) & NestedControl.GMET_ENABLE) !== 0n,
    virtualApicPage: (get(R.avicApicBar) & ENABLED) === 0n ? NO_PAGE : Number(get(R.avicApicBar) & PAGE),
  };
}

/** The format of the tables while paging is on. */
export function pagingModeOf(efer: bigint, cr4: bigint): PagingMode {
  if ((efer & EFER.LMA) !== 0n) return PagingMode.LONG;
  return (cr4 & CR4.PAE) !== 0n ? PagingMode.PAE : PagingMode.LEGACY;
}

/** The root table's address in a CR3 of that mode. */
export function rootOf(mode: PagingMode, cr3: bigint): number {
  switch (mode) {
    case PagingMode.LONG:
      return Number(cr3 & 0x000f_ffff_ffff_f000n);
    case PagingMode.PAE:
      return Number(cr3 & 0xffff_ffe0n);
    default:
      return Number(cr3 & 0xffff_f000n);
  }
}

export class NestedWalk {
  /** After success: of the 4 KiB frame that holds the gPA. */
  frame = 0;
  pageBytes = 0;
  writable = false;
  executable = false;
  dirty = false;
  /** After a fault: bits 31:0 of EXITINFO1. */
  errorCode = 0;

  private readonly tables: TableWalk;

  constructor(memory: PhysicalMemory) {
    this.tables = new TableWalk(memory, undefined);
  }

  /**
   * @param gPA any alignment. @param access WRITE and FETCH count; all nested accesses are the user's. Under GMET USER
   * counts, too: table walks and the guest's user.
   * @returns true when the access is allowed. Accessed and dirty bits are set then.
   */
  translate(context: NestedContext, gPA: number, access: number): boolean {
    const { tables } = this;
    const write = (access & Access.WRITE) !== 0;
    const fetch = (access & Access.FETCH) !== 0;
    const high = Math.floor(gPA / 0x1_0000_0000);
    if (high !== 0 && context.mode !== PagingMode.LONG) return this.fault(context, 0, access);
    if (!tables.walk(context, gPA >>> 0, high, false)) return this.fault(context, tables.code, access);
    const denied = context.executeTrap ? fetch && tables.user && (access & Access.USER) === 0 : !tables.user;
    if (denied || (write && !tables.writable) || (fetch && !tables.executable)) {
      return this.fault(context, PageFaultCode.PRESENT, access);
    }
    tables.markUsed(write);
    this.frame = tables.frame;
    this.pageBytes = tables.pageBytes;
    this.writable = tables.writable;
    this.executable = tables.executable;
    this.dirty = tables.dirty;
    return true;
  }

  /** The PAT entry that the nested page names. */
  get patIndex(): number {
    return this.tables.patIndex;
  }

  private fault(context: NestedContext, code: number, access: number): false {
    this.errorCode =
      code |
      (context.executeTrap && (access & Access.USER) === 0 ? 0 : PageFaultCode.USER) |
      ((access & Access.WRITE) !== 0 ? PageFaultCode.WRITE : 0) |
      ((access & Access.FETCH) !== 0 && context.reportsFetch ? PageFaultCode.FETCH : 0);
    return false;
  }
}

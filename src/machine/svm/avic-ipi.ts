/**
 * Interprocessor interrupts that AVIC sends by itself: where one goes by the tables of the virtual machine, or why it needs
 * the hypervisor.
 *
 * All destinations are looked up before any gets the interrupt, so that one that cannot be found leaves IRRs alone; where
 * several fail, the first in the order of the tables is told. Both are open in the manual.
 * Source: APM vol.2 §15.29.5.2 Physical APIC ID Table, §15.29.5.3 Logical APIC ID Table, §15.29.6.1 Interprocessor
 * Interrupts, §15.29.9.1 AVIC IPI Delivery Not Completed; §16.5 Interprocessor Interrupts for the command register.
 */
import type { PhysicalMemory } from '../mmu/memory.js';
import { PAGE_BYTES } from '../units.js';
import { VirtualApic } from './avic-registers.js';

/** ID of EXITINFO2, table 15-27. */
export const IpiFailure = {
  INVALID_TYPE: 0,
  NOT_RUNNING: 1,
  INVALID_TARGET: 2,
  INVALID_BACKING_PAGE: 3,
  INVALID_VECTOR: 4,
} as const;

export interface IpiTarget {
  /** sPA of its backing page. */
  readonly page: number;
  /** Physical APIC ID of the processor that it is scheduled on; undefined when it is on none. */
  readonly host: number | undefined;
  /** Of the table entry that led there. */
  readonly index: number;
}

/** Why the hypervisor must see to it. */
export interface IpiRefusal {
  readonly id: number;
  /** Of the table entry; 0 where none is at fault. */
  readonly index: number;
}

/** The tables, as the running guest's VMCB named them. */
export interface IpiTables {
  /** sPA of the sender's own backing page. */
  readonly ownPage: number;
  readonly logical: number;
  readonly physical: number;
  /** Last index of the physical table. */
  readonly highest: number;
}

export type IpiRoute = { readonly vector: number; readonly targets: 'self' | readonly IpiTarget[] } | IpiRefusal;

const FIXED = 0;
const FIRST_LEGAL_VECTOR = 16;
const LOGICAL = 1 << 11;
const LEVEL_TRIGGERED = 1 << 15;
const Shorthand = { NONE: 0, SELF: 1, ALL: 2, OTHERS: 3 } as const;
/** Destination of a broadcast: an ID that no APIC has. */
const BROADCAST = 0xff;
/** Bits 31:28 of DFR. */
const FLAT = 0xf;
const CLUSTER = 0;
const RESERVED_CLUSTER = 0xf;

const refuse = (id: number, index = 0): IpiRefusal => ({ id, index });

/** Where the write of the low ICR goes. @param low @param high the command register. */
export function routeIpi(memory: PhysicalMemory, tables: IpiTables, low: number, high: number): IpiRoute {
  const vector = low & 0xff;
  if (((low >>> 8) & 7) !== FIXED || (low & LEVEL_TRIGGERED) !== 0) return refuse(IpiFailure.INVALID_TYPE);
  if (vector < FIRST_LEGAL_VECTOR) return refuse(IpiFailure.INVALID_VECTOR);
  const shorthand = (low >>> 18) & 3;
  if (shorthand === Shorthand.SELF) return { vector, targets: 'self' };
  const destination = high >>> 24;
  if (shorthand !== Shorthand.NONE || destination === BROADCAST) {
    return routed(vector, broadcast(memory, tables, shorthand === Shorthand.OTHERS));
  }
  if ((low & LOGICAL) === 0) return routed(vector, [physicalTarget(memory, tables, destination, destination)]);
  return routed(vector, logicalTargets(memory, tables, destination));
}

type Found = IpiTarget | IpiRefusal;

/** To all that were found, unless one was not. */
function routed(vector: number, found: readonly Found[]): IpiRoute {
  const targets: IpiTarget[] = [];
  for (const each of found) {
    if ('id' in each) return each;
    targets.push(each);
  }
  return { vector, targets };
}

const VALID = 0x8000_0000;
const IS_RUNNING = 0x4000_0000;
const HOST_ID = 0xfff;
const ENTRY_BYTES = 8;

/** @param index of the entry that a failure is told of: the physical one's own, or that of the logical one before it. */
function physicalTarget(memory: PhysicalMemory, tables: IpiTables, id: number, index: number): Found {
  if (id > tables.highest) return refuse(IpiFailure.INVALID_TARGET, index);
  const entry = tables.physical + ENTRY_BYTES * id;
  const low = memory.read32(entry);
  const high = memory.read32(entry + 4);
  if ((high & VALID) === 0) return refuse(IpiFailure.INVALID_TARGET, index);
  const page = (high & 0xf_ffff) * 0x1_0000_0000 + ((low & 0xffff_f000) >>> 0);
  if (!memory.isRam(page, PAGE_BYTES)) return refuse(IpiFailure.INVALID_BACKING_PAGE, index);
  return { page, host: (high & IS_RUNNING) === 0 ? undefined : low & HOST_ID, index };
}

/** Every valid entry; FFh is no ID. @param others all but the sender. */
function broadcast(memory: PhysicalMemory, tables: IpiTables, others: boolean): readonly Found[] {
  const own = memory.read32(tables.ownPage + VirtualApic.ID) >>> 24;
  const found: Found[] = [];
  for (let id = 0; id <= Math.min(tables.highest, BROADCAST - 1); id++) {
    if (others && id === own) continue;
    if ((memory.read32(tables.physical + ENTRY_BYTES * id + 4) & VALID) === 0) continue;
    found.push(physicalTarget(memory, tables, id, id));
  }
  return found;
}

const LOGICAL_ENTRY_BYTES = 4;
const PHYSICAL_ID = 0xff;

/** One entry for each bit of the destination, by the sender's own model (DFR). */
function logicalTargets(memory: PhysicalMemory, tables: IpiTables, destination: number): readonly Found[] {
  const model = memory.read32(tables.ownPage + VirtualApic.DFR) >>> 28;
  if (model !== FLAT && model !== CLUSTER) return [refuse(IpiFailure.INVALID_TYPE)];
  const cluster = destination >> 4;
  const first = model === FLAT ? 0 : 4 * cluster;
  if (model === CLUSTER && cluster === RESERVED_CLUSTER) return [refuse(IpiFailure.INVALID_TARGET, first)];
  const bits = model === FLAT ? destination : destination & 0xf;
  const found: Found[] = [];
  for (let bit = 0; bits >> bit !== 0; bit++) {
    if (((bits >> bit) & 1) === 0) continue;
    const index = first + bit;
    const entry = memory.read32(tables.logical + LOGICAL_ENTRY_BYTES * index);
    found.push(
      (entry & VALID) === 0
        ? refuse(IpiFailure.INVALID_TARGET, index)
        : physicalTarget(memory, tables, entry & PHYSICAL_ID, index),
    );
  }
  return found;
}

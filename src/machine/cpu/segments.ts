/**
 * Segmentation: what a memory operand must pass on its way from an effective to a linear address, and the loads of
 * segment registers with all their checks.
 * Source: APM vol.2 §4 Segmented Virtual Memory: §4.5.3 Segment Registers in 64-Bit Mode, §4.9 Segment-Protection
 * Overview, §4.10 Data-Access Privilege Checks, §4.12 Segment-Limit and Type Checks, §4.13 Long-Mode Segment Checks.
 */
import { GuestFault, generalProtection, stackFault, Vector } from '../faults.js';
import { Segment, type Slot, segmentSlot } from '../layout/cpu-state.js';
import { isCanonical, u64, uN } from '../units.js';
import {
  Attribute,
  attributesOf,
  type Descriptor,
  dplOf,
  findDescriptor,
  isCode,
  isConforming,
  isData,
  isNull,
  isPresent,
  isSystem,
  isWritableData,
  limitOf,
  loadDescriptor,
  markBusy,
  packSegment,
  readDescriptor,
  readUpperHalf,
  rplOf,
  SystemType,
  selectorError,
  selectorOf,
  setNull,
  setSegment,
  typeOf,
} from './descriptors.js';
import { cplOf, hasParagraphs, is64Bit, isLongMode, isVirtual8086, type SlotReader } from './mode.js';
import { Access, type Transaction } from './transaction.js';

export const segmentNotPresent = (errorCode: number): GuestFault => new GuestFault(Vector.NP, errorCode);
export const invalidTss = (errorCode: number): GuestFault => new GuestFault(Vector.TS, errorCode);

const FOUR_GIB = 0x1_0000_0000;

/**
 * Checks an access through a segment register, in all modes.
 * @param cpu anything that registers can be read from: a transaction.
 * @param segment number of the segment register, prefixes and defaults applied.
 * @param offset effective address, cut to the address size.
 * @param size bytes accessed, at least 1.
 * @param access bits of `Access`; WRITE and FETCH matter here.
 * @returns the linear address of the first byte.
 * @throws GuestFault #GP(0), or #SS(0) through SS: null, wrong type, past the limit, or not canonical.
 */
export function checkSegment(cpu: SlotReader, segment: number, offset: bigint, size: number, access: number): bigint {
  if (is64Bit(cpu)) return longLinear(cpu, segment, offset, size);
  const slot = segmentSlot(segment);
  const word = cpu.get(slot);
  const checkType = (access & Access.FETCH) === 0 && !hasParagraphs(cpu);
  if (!isAllowed(word, offset, size, (access & Access.WRITE) !== 0, checkType)) throw violation(segment, 0);
  return uN(32, cpu.get((slot + 1) as Slot) + offset);
}

/** In 64-bit mode only FS and GS have a base, and only the canonical form is checked (APM vol.2 §4.5.3, §4.13). */
function longLinear(cpu: SlotReader, segment: number, offset: bigint, size: number): bigint {
  const linear = segment >= Segment.FS ? u64(cpu.get((segmentSlot(segment) + 1) as Slot) + offset) : offset;
  if (isCanonical(linear) && (size === 1 || isCanonical(u64(linear + BigInt(size - 1))))) return linear;
  throw violation(segment, 0);
}

const violation = (segment: number, code: number): GuestFault =>
  segment === Segment.SS ? stackFault(code) : generalProtection(code);

/** Type and limit of a legacy segment (APM vol.2 §4.12.1 Determining Limit Violations, table 4-8). */
export function isAllowed(word: bigint, offset: bigint, size: number, write: boolean, checkType: boolean): boolean {
  const attributes = attributesOf(word);
  if (checkType && !typeAllows(attributes, write)) return false;
  const limit = limitOf(word);
  const first = Number(offset);
  const last = first + size - 1;
  if (checkType && (attributes & (Attribute.CODE | Attribute.EXPAND_DOWN)) === Attribute.EXPAND_DOWN) {
    return first > limit && last < ((attributes & Attribute.BIG) !== 0 ? FOUR_GIB : 0x1_0000);
  }
  return last <= limit;
}

function typeAllows(attributes: number, write: boolean): boolean {
  const segment = { attributes };
  if (!isPresent(segment) || isSystem(segment)) return false;
  if (write) return isWritableData(segment);
  return isData(segment) || (attributes & Attribute.READABLE) !== 0;
}

/**
 * Loads ES, SS, DS, FS or GS, as MOV, POP and the far-pointer loads do.
 * @throws GuestFault #GP, #SS, #NP with the selector.
 */
export function loadSegment(tx: Transaction, number: number, selector: number): void {
  if (hasParagraphs(tx)) loadParagraph(tx, number, selector);
  else if (number === Segment.SS) loadStackSegment(tx, selector);
  else loadDataSegment(tx, number, selector);
}

/** Real mode changes selector and base only; virtual-8086 mode sets all (APM vol.2 §4.6.3, §4.12 notes). */
export function loadParagraph(tx: Transaction, number: number, selector: number): void {
  const old = tx.get(segmentSlot(number));
  const base = BigInt(selector) << 4n;
  if (isVirtual8086(tx)) {
    setSegment(tx, number, packSegment(selector, VIRTUAL_8086_ATTRIBUTES, 0xffff), base);
    return;
  }
  const stale = (attributesOf(old) & Attribute.PRESENT) === 0;
  const word = stale ? packSegment(selector, REAL_ATTRIBUTES, 0xffff) : (old & ~0xffffn) | BigInt(selector);
  setSegment(tx, number, word, base);
}

/** Present, DPL 3, read/write data, accessed. */
export const VIRTUAL_8086_ATTRIBUTES = 0xf3;
const REAL_ATTRIBUTES = 0x93;

/** Source: APM vol.2 §4.10.2 Stack-Access Privilege Checks; null selectors: §4.8.4, MOV in APM vol.3. */
function loadStackSegment(tx: Transaction, selector: number): void {
  const cpl = cplOf(tx);
  if (isNull(selector)) {
    if (!is64Bit(tx) || cpl === 3 || rplOf(selector) !== cpl) throw generalProtection(0);
    setNull(tx, Segment.SS, selector);
    return;
  }
  const descriptor = readDescriptor(tx, selector, generalProtection);
  checkStackSegment(descriptor, selector, cpl, generalProtection);
  loadDescriptor(tx, Segment.SS, selector, descriptor);
}

/**
 * The checks of a stack segment for privilege level `cpl`.
 * @param fault #GP, or #TS when the selector comes from a TSS.
 */
export function checkStackSegment(
  descriptor: Descriptor,
  selector: number,
  cpl: number,
  fault: (errorCode: number) => GuestFault,
  ext = 0,
): void {
  const right = rplOf(selector) === cpl && dplOf(descriptor) === cpl && isWritableData(descriptor);
  if (!right) throw fault(selectorError(selector, ext));
  if (!isPresent(descriptor)) throw stackFault(selectorError(selector, ext));
}

/** Source: APM vol.2 §4.10.1 Data-Access Privilege Checks. */
function loadDataSegment(tx: Transaction, number: number, selector: number): void {
  if (isNull(selector)) {
    setNull(tx, number, selector);
    return;
  }
  const descriptor = readDescriptor(tx, selector, generalProtection);
  if (!isReadable(descriptor) || !isVisible(descriptor, selector, cplOf(tx))) {
    throw generalProtection(selectorError(selector));
  }
  if (!isPresent(descriptor)) throw segmentNotPresent(selectorError(selector));
  loadDescriptor(tx, number, selector, descriptor);
}

export const isReadable = (descriptor: Descriptor): boolean =>
  isData(descriptor) || (isCode(descriptor) && (descriptor.attributes & Attribute.READABLE) !== 0);

/** Privilege: conforming code is open to all, else DPL must not be below CPL or RPL. */
export const isVisible = (descriptor: Descriptor, selector: number, cpl: number): boolean =>
  isConforming(descriptor) || dplOf(descriptor) >= Math.max(cpl, rplOf(selector));

/**
 * After a return to an outer level: data segments that it may not use become null.
 * Source: APM vol.2 §4.11.3 Return Control Transfers; APM vol.3 RETF, IRET.
 */
export function dropInnerSegments(tx: Transaction, cpl: number): void {
  for (const number of [Segment.ES, Segment.DS, Segment.FS, Segment.GS]) {
    const segment = { attributes: attributesOf(tx.get(segmentSlot(number))) };
    if (isPresent(segment) && !isConforming(segment) && dplOf(segment) < cpl) setNull(tx, number, 0);
  }
}

/** LLDT. Source: APM vol.3 LLDT; §4.8.3 System Descriptors (sixteen bytes in long mode). */
export function loadLdtr(tx: Transaction, selector: number): void {
  if (isNull(selector)) {
    setNull(tx, Segment.LDTR, selector);
    return;
  }
  const descriptor = readGlobalSystem(tx, selector, [SystemType.LDT]);
  if (!isPresent(descriptor)) throw segmentNotPresent(selectorError(selector));
  setSegment(
    tx,
    Segment.LDTR,
    packSegment(selector, descriptor.attributes, descriptor.limit),
    systemBase(tx, descriptor, selector),
  );
}

/** LTR: the TSS becomes busy. Source: APM vol.3 LTR. */
export function loadTr(tx: Transaction, selector: number): void {
  if (isNull(selector)) throw generalProtection(0);
  const types = isLongMode(tx) ? [SystemType.TSS] : [SystemType.TSS, SystemType.TSS16];
  const descriptor = readGlobalSystem(tx, selector, types);
  if (!isPresent(descriptor)) throw segmentNotPresent(selectorError(selector));
  const base = systemBase(tx, descriptor, selector);
  const attributes = markBusy(tx, descriptor);
  setSegment(tx, Segment.TR, packSegment(selector, attributes, descriptor.limit), base);
}

function readGlobalSystem(tx: Transaction, selector: number, types: readonly number[]): Descriptor {
  if ((selector & 4) !== 0) throw generalProtection(selectorError(selector));
  const descriptor = readDescriptor(tx, selector, generalProtection);
  if (!isSystem(descriptor) || !types.includes(typeOf(descriptor))) throw generalProtection(selectorError(selector));
  return descriptor;
}

function systemBase(tx: Transaction, descriptor: Descriptor, selector: number): bigint {
  if (!isLongMode(tx)) return descriptor.base;
  const base = descriptor.base | ((readUpperHalf(tx, selector, generalProtection) & 0xffff_ffffn) << 32n);
  if (!isCanonical(base)) throw generalProtection(selectorError(selector));
  return base;
}

/** System types that LAR and LSL accept: legacy mode, long mode (APM vol.3 LAR, LSL). */
const LAR_TYPES: ReadonlySet<number> = new Set([1, 2, 3, 4, 5, 9, 0xb, 0xc]);
const LAR_LONG_TYPES: ReadonlySet<number> = new Set([2, 9, 0xb, 0xc]);
const LSL_TYPES: ReadonlySet<number> = new Set([1, 2, 3, 9, 0xb]);
const LSL_LONG_TYPES: ReadonlySet<number> = new Set([2, 9, 0xb]);

/** The descriptor that LAR (`access`) or LSL (`limit`) may show at the current privilege, or undefined. */
export function inspectDescriptor(tx: Transaction, selector: number, what: 'access' | 'limit'): Descriptor | undefined {
  const descriptor = findDescriptor(tx, selector);
  if (descriptor === undefined || !isVisible(descriptor, selector, cplOf(tx))) return undefined;
  if (!isSystem(descriptor)) return descriptor;
  const long = isLongMode(tx);
  const types = what === 'access' ? (long ? LAR_LONG_TYPES : LAR_TYPES) : long ? LSL_LONG_TYPES : LSL_TYPES;
  return types.has(typeOf(descriptor)) ? descriptor : undefined;
}

/** VERR and VERW: whether the segment could be read or written at the current privilege. */
export function canAccess(tx: Transaction, selector: number, write: boolean): boolean {
  const descriptor = findDescriptor(tx, selector);
  if (descriptor === undefined || isSystem(descriptor) || !isVisible(descriptor, selector, cplOf(tx))) return false;
  return write ? isWritableData(descriptor) : isReadable(descriptor);
}

/** Selector of segment register `number`. */
export const readSelector = (cpu: SlotReader, number: number): number => selectorOf(cpu.get(segmentSlot(number)));

/**
 * Control and debug registers: what may be written, and what else a write does: long mode is activated or left, PAE
 * page-directory pointers are loaded, translations are dropped.
 * Source: APM vol.2 §3.1 System-Control Registers, §5.2.4 PAE Paging, §5.5.3 TLB Management, §13.1.1 Debug Registers,
 * §14.6 Enabling and Activating Long Mode.
 */
import { GuestFault, generalProtection, invalidOpcode, Vector } from '../faults.js';
import {
  CR0,
  CR4,
  EFER,
  EMPTY_DELTA,
  R,
  type RegisterName,
  Segment,
  type Slot,
  SvmMode,
  segmentSlot,
} from '../layout/cpu-state.js';
import { hasVirtualApic, writeVirtualTaskPriority } from '../svm/avic.js';
import { ExitCode } from '../svm/exit-code.js';
import { inGuest, taskPriorityWrite, virtualTaskPriority } from '../svm/injection.js';
import { crWrite, crWriteTrap } from '../svm/intercepts.js';
import { openVirtual } from '../svm/interrupt-rules.js';
import { VmExit } from '../svm/vmexit-request.js';
import { sPA } from '../units.js';
import { type CpuProfile, cr4Mask } from './cpuid.js';
import { DR6, DR7 } from './debug.js';
import { Attribute, attributesOf } from './descriptors.js';
import { cplOf, is64Bit, isLongMode, type SlotReader } from './mode.js';
import { Shutdown } from './shutdown.js';
import type { SystemContext } from './system-context.js';
import type { Transaction } from './transaction.js';

/** CR0 bits that exist; the others read as zero and writes to them are dropped (bits 63:32: #GP). */
const CR0_BITS = CR0.PE | CR0.MP | CR0.EM | CR0.TS | CR0.ET | CR0.NE | CR0.WP | CR0.AM | CR0.NW | CR0.CD | CR0.PG;
const HIGH_WORD = ~0xffff_ffffn;
const PAE_PDPTE_RESERVED = 0x1e6n;
const NP_ENABLE = 1n;

/** The address space in use: the host's is 0. */
export const currentAsid = (cpu: SlotReader): number =>
  (cpu.get(R.svmMode) & SvmMode.GUEST) === 0n ? 0 : Number(cpu.get(R.guestAsid));

/** Bits that must be zero in a CR3 (APM vol.2 §3.1.2 CR2 and CR3 Registers); in legacy modes only bits 31:0 exist. */
const cr3Reserved = (profile: CpuProfile): bigint => ~((1n << BigInt(profile.physicalAddressBits)) - 1n);

/** @param lmsw the write is LMSW: its selective intercept does not look at the value (APM vol.2 §15.9, table 15-7). */
export function writeCr0(context: SystemContext, value: bigint, lmsw: boolean, info1: bigint): void {
  const { tx } = context;
  const old = tx.get(R.cr0);
  const cr0 = (value & CR0_BITS) | CR0.ET;
  if (context.exits(crWrite(0), { info1 }, 'before-operands')) return;
  checkCr0(tx, value, old);
  if (exitsByCr0Write(context, lmsw || ((old ^ cr0) & ~(CR0.TS | CR0.MP)) !== 0n, info1)) return;
  const efer = tx.get(R.efer);
  const paged = (cr0 & CR0.PG) !== 0n;
  const long = paged && (efer & EFER.LME) !== 0n;
  tx.set(R.cr0, cr0);
  tx.set(R.efer, long ? efer | EFER.LMA : efer & ~EFER.LMA);
  if (paged && !long && (tx.get(R.cr4) & CR4.PAE) !== 0n) loadPdptes(tx, tx.get(R.cr3));
  if (((old ^ cr0) & (CR0.PG | CR0.WP | CR0.PE)) !== 0n) flushAddressSpace(context);
  context.writeTrap(crWriteTrap(0), cr0);
  stateControl(context, 'cr0', cr0);
}

/** @param selective the write is one that the selective intercept wants. */
export function exitsByCr0Write(context: SystemContext, selective: boolean, info1: bigint): boolean {
  const first = selective && context.profile.deviations.has('cr0-selective-first');
  if (first && context.exits('CR0_SEL_WRITE')) return true;
  return context.exits(crWrite(0), { info1 }) || (selective && context.exits('CR0_SEL_WRITE'));
}

function checkCr0(tx: Transaction, value: bigint, old: bigint): void {
  const has = (bit: bigint): boolean => (value & bit) !== 0n;
  if ((value & HIGH_WORD) !== 0n) throw generalProtection();
  if (has(CR0.PG) && !has(CR0.PE)) throw generalProtection();
  if (has(CR0.NW) && !has(CR0.CD)) throw generalProtection();
  const paging = (old & CR0.PG) !== 0n;
  if (has(CR0.PG) && !paging && (tx.get(R.efer) & EFER.LME) !== 0n) {
    if ((tx.get(R.cr4) & CR4.PAE) === 0n) throw generalProtection();
    if ((attributesOf(tx.get(segmentSlot(Segment.CS))) & Attribute.LONG) !== 0) throw generalProtection();
  }
  if (!has(CR0.PG) && paging && (is64Bit(tx) || (tx.get(R.cr4) & CR4.PCIDE) !== 0n)) throw generalProtection();
}

export function writeCr2(context: SystemContext, value: bigint, info1: bigint): void {
  if (context.exits(crWrite(2), { info1 })) return;
  context.tx.set(R.cr2, value);
  context.writeTrap(crWriteTrap(2), value);
  stateControl(context, 'cr2', value);
}

/** With PCIDs bit 63 of the source asks to keep the translations of the new one. They may go all the same, and do. */
const KEEP_TRANSLATIONS = 1n << 63n;

export function writeCr3(context: SystemContext, source: bigint, info1: bigint): void {
  const { tx } = context;
  const value = (tx.get(R.cr4) & CR4.PCIDE) === 0n ? source : source & ~KEEP_TRANSLATIONS;
  if (context.exits(crWrite(3), { info1 }, 'before-operands')) return;
  if (isLongMode(tx) && (value & cr3Reserved(context.profile)) !== 0n) refuseValue(context);
  if (context.exits(crWrite(3), { info1 })) return;
  const paged = (tx.get(R.cr0) & CR0.PG) !== 0n;
  if (paged && !isLongMode(tx) && (tx.get(R.cr4) & CR4.PAE) !== 0n) loadPdptes(tx, value);
  tx.set(R.cr3, value);
  context.flushTlb({ scope: 'non-global', asid: currentAsid(tx) });
  context.writeTrap(crWriteTrap(3), value);
  stateControl(context, 'cr3', value);
}

/** A value of CR3 or CR4 with reserved bits. @throws GuestFault #GP(0), or under a deviation VmExit. */
function refuseValue({ tx, profile }: SystemContext): never {
  if (inGuest(tx) && profile.deviations.has('cr-value-exits-invalid')) throw new VmExit(ExitCode.INVALID);
  throw generalProtection();
}

/** CR3 bits that hold the process context identifier (APM vol.2 §5.5.1). */
const PCID_BITS = 0xfffn;
/** CR4 bits whose change drops translations (APM vol.2 §5.5.3). */
const CR4_PAGING = CR4.PCIDE | CR4.PSE | CR4.PAE | CR4.PGE | CR4.SMEP | CR4.SMAP;
/** CR4 bits whose change reloads the page-directory pointers. */
const CR4_PAE_RELOAD = CR4.PSE | CR4.PAE | CR4.PGE;

export function writeCr4(context: SystemContext, value: bigint, info1: bigint): void {
  const { tx } = context;
  const old = tx.get(R.cr4);
  if (context.exits(crWrite(4), { info1 }, 'before-operands')) return;
  if ((value & ~cr4Mask(context.profile)) !== 0n) refuseValue(context);
  if (isLongMode(tx) && (value & CR4.PAE) === 0n) throw generalProtection();
  const startsPcids = (value & ~old & CR4.PCIDE) !== 0n;
  if (startsPcids && (!isLongMode(tx) || (tx.get(R.cr3) & PCID_BITS) !== 0n)) throw generalProtection();
  if (context.exits(crWrite(4), { info1 })) return;
  tx.set(R.cr4, value);
  const pae = (tx.get(R.cr0) & CR0.PG) !== 0n && !isLongMode(tx) && (value & CR4.PAE) !== 0n;
  if (pae && ((old ^ value) & CR4_PAE_RELOAD) !== 0n) loadPdptes(tx, tx.get(R.cr3));
  if (context.exits(crWrite(4), { info1 }, 'after-memory')) return;
  if (((old ^ value) & CR4_PAGING) !== 0n) flushAddressSpace(context);
  context.writeTrap(crWriteTrap(4), value);
  stateControl(context, 'cr4', value);
}

const cr8IsVirtual = ({ profile }: SystemContext): boolean => profile.deviations.has('cr8-always-virtual');

/** CR8 holds the task priority; a guest with V_INTR_MASKING or AVIC has its own (APM vol.2 §15.21.2 Virtualizing APIC.TPR). */
export function writeCr8(context: SystemContext, value: bigint, info1: bigint): void {
  if (context.exits(crWrite(8), { info1 }, 'before-operands')) return;
  if ((value & ~0xfn) !== 0n) throw generalProtection();
  if (context.exits(crWrite(8), { info1 })) return;
  const { physical, intControl } = taskPriorityWrite(context.tx, value, cr8IsVirtual(context));
  if (physical) context.writeTaskPriority(value);
  if (intControl !== undefined) {
    context.tx.set(R.intControl, intControl);
    if (hasVirtualApic(context.tx)) writeVirtualTaskPriority(context.tx);
    if (context.profile.deviations.has('virq-mask-latched')) openVirtual(context.tx);
  }
  context.writeTrap(crWriteTrap(8), value);
  stateControl(context, 'cr8', value);
}

export const readCr8 = (context: SystemContext): bigint =>
  virtualTaskPriority(context.tx, cr8IsVirtual(context)) ?? context.readTaskPriority();

const PDPTES: readonly Slot[] = [R.pdpte0, R.pdpte1, R.pdpte2, R.pdpte3];

/**
 * Loads the four page-directory pointers of legacy PAE paging.
 * A guest under nested paging has none loaded: its entries are read on demand (APM vol.2 §15.25.10).
 * @throws GuestFault #GP(0) when a present entry has a reserved bit set.
 */
export function loadPdptes(tx: Transaction, cr3: bigint): void {
  const { profile } = tx.host;
  const nested = (tx.get(R.svmMode) & SvmMode.GUEST) !== 0n && (tx.get(R.nestedControl) & NP_ENABLE) !== 0n;
  if (nested) return;
  const table = Number(cr3 & 0xffff_ffe0n);
  PDPTES.forEach((slot, index) => {
    const entry = tx.readPhysical(sPA(table + 8 * index), 8);
    if ((entry & 1n) !== 0n && (entry & (PAE_PDPTE_RESERVED | cr3Reserved(profile))) !== 0n) throw generalProtection();
    tx.set(slot, entry);
  });
}

/** Drops all translations of the address space in use, global ones too. */
function flushAddressSpace(context: SystemContext): void {
  context.flushTlb({ scope: 'asid', asid: currentAsid(context.tx) });
}

/**
 * Writes EFER. @throws GuestFault #GP(0): a reserved bit, LME while paging, SVME while VM_CR.SVMDIS.
 * Source: APM vol.2 §3.1.7 Extended Feature Enable Register (EFER).
 */
export function writeEfer(context: SystemContext, value: bigint, writable: bigint): void {
  const { tx } = context;
  const old = tx.get(R.efer);
  if ((value & ~(writable | EFER.LMA)) !== 0n) throw generalProtection();
  if (((old ^ value) & EFER.LME) !== 0n && (tx.get(R.cr0) & CR0.PG) !== 0n) throw generalProtection();
  const disabled = (tx.get(R.vmCr) & VM_CR_SVMDIS) !== 0n && !context.profile.deviations.has('svmdis-allows-svme');
  if ((value & EFER.SVME) !== 0n && disabled) throw generalProtection();
  if (
    (old & ~value & EFER.SVME) !== 0n &&
    inGuest(tx) &&
    context.profile.deviations.has('svme-cleared-by-guest-shuts-down')
  ) {
    throw new Shutdown('host');
  }
  const efer = (value & ~EFER.LMA) | (old & EFER.LMA);
  tx.set(R.efer, efer);
  if (((old ^ efer) & EFER.NXE) !== 0n) flushAddressSpace(context);
}

/** VM_CR.SVMDIS: SVM is disabled and EFER.SVME must be zero (APM vol.2 §15.30.1 VM_CR MSR). */
export const VM_CR_SVMDIS = 1n << 4n;
/** HWCR.SmmLock: SMIs cannot be intercepted (APM vol.2 §15.32.1 SmmLock Bit). */
export const HWCR_SMM_LOCK = 1n << 0n;
/** VM_CR.LOCK: SVMDIS cannot be changed. */
export const VM_CR_LOCK = 1n << 3n;

/** Says that the instruction's event is `cpu.control`. */
export function stateControl(context: SystemContext, register: string, value: bigint): void {
  context.outcome({ type: 'cpu.control', register, value, registers: EMPTY_DELTA });
}

/**
 * The debug register that MOV names, after all checks that reading and writing share.
 * @throws GuestFault #UD (DR4 and DR5 under CR4.DE, DR8 and above), #GP (CPL), #DB (DR7.GD).
 */
export function debugRegister(tx: Transaction, number: number): number {
  if (number > 7) throw invalidOpcode();
  const alias = number === 4 || number === 5;
  if (alias && (tx.get(R.cr4) & CR4.DE) !== 0n) throw invalidOpcode();
  if (cplOf(tx) !== 0) throw generalProtection();
  if ((tx.get(R.dr7) & DR7.GD) !== 0n) throw new GuestFault(Vector.DB, undefined, undefined, DR6.BD);
  return alias ? number + 2 : number;
}

export const debugSlot = (number: number): Slot => (number < 4 ? R.dr0 + number : number === 6 ? R.dr6 : R.dr7) as Slot;
export const debugName = (number: number): RegisterName => `dr${number}` as RegisterName;

/** DR6 bits that can be written: B0..B3, BD, BS, BT. */
const DR6_WRITABLE = DR6.BREAKPOINTS | DR6.BD | DR6.BS | DR6.BT;
/** DR7 bits that can be written: enables, LE, GE, GD, R/W and LEN fields. */
const DR7_WRITABLE = 0xffff_0000n | DR7.GD | 0x3ffn;

/** BLD is one on processors without bus lock trap. @throws GuestFault #GP(0) when bits 63:32 of DR6 or DR7 are not zero. */
export function debugValue({ system }: CpuProfile, number: number, value: bigint): bigint {
  if (number < 4) return value;
  if ((value & HIGH_WORD) !== 0n) throw generalProtection();
  if (number === 7) return (value & DR7_WRITABLE) | DR7.ONE;
  const kept = system.has('bus-lock-trap') ? DR6.BLD : 0n;
  return (value & (DR6_WRITABLE | kept)) | (DR6.ONES & ~kept);
}

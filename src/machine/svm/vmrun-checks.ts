/**
 * The consistency checks that VMRUN makes on a VMCB before the guest may run; any of them ends in #VMEXIT(INVALID).
 * Their order cannot be seen by software.
 *
 * What belongs to features that the profile does not offer (SEV, x2AVIC, shadow stacks …) is not looked at: the processor
 * ignores those bits, as the manual says of GMET. TLB_CONTROL has no illegal values in the manual's list; see `vmrun.ts`
 * for the reserved ones. Which checks a deviation leaves out or adds stands in the rules (`vmrun-rules.ts`).
 * Source: APM vol.2 §15.5.1 Basic Operation, Canonicalization and Consistency Checks; §15.10.1 I/O Permissions Map;
 * §15.11 MSR Intercepts; §15.20 Event Injection; §15.21.10 NMI Virtualization; §15.25.3 Enabling Nested Paging; §15.25.4
 * Nested Paging and VMRUN/#VMEXIT; §15.29.4 VMCB Changes for AVIC.
 */
import { CR0, CR4, EFER } from '../layout/cpu-state.js';
import { NestedControl, SegmentWord, VMCB } from '../layout/vmcb.js';
import type { PhysicalMemory } from '../mmu/memory.js';
import { PAGE_BYTES } from '../units.js';
import { eventInjectionValid } from './injection.js';
import { MSRPM_BYTES, mapBase } from './permission-maps.js';
import { AVIC_ENABLE, V_NMI_ENABLE, type VmrunRules } from './vmrun-rules.js';

/** Why VMRUN failed; for people, the guest sees #VMEXIT(INVALID) alone. */
export type VmrunRefusal =
  | 'the VMRUN intercept is clear'
  | 'ASID is 0'
  | 'the I/O permission map passes the highest physical address'
  | 'the MSR permission map passes the highest physical address'
  | 'the MSR permission map is not in RAM'
  | 'TLB_CONTROL is not 0 or 1'
  | 'EVENTINJ is illegal'
  | 'V_NMI_ENABLE is set while the NMI intercept is clear'
  | 'AVIC is enabled without nested paging'
  | 'an AVIC pointer leads out of RAM'
  | 'AVIC_PHYSICAL_MAX_INDEX is above 255'
  | 'NP_ENABLE is set while host paging is off'
  | 'NP_ENABLE is set without nested paging'
  | 'N_CR3 has MBZ bits set'
  | 'G_PAT has an illegal memory type'
  | 'EFER.SVME is clear'
  | 'EFER has MBZ bits set'
  | 'CR0[63:32] are not zero'
  | 'CR0.NW is set while CR0.CD is clear'
  | 'CR3 has MBZ bits set'
  | 'CR4 has MBZ bits set'
  | 'DR6[63:32] are not zero'
  | 'DR7[63:32] are not zero'
  | 'long mode without CR4.PAE'
  | 'long mode without CR0.PE'
  | 'long mode with CS.L and CS.D'
  | 'a PDPE has reserved bits set';

const INTERCEPT_VMRUN = 1;
const word32 = ({ offset }: { readonly offset: number }): number => offset >>> 2;
const { fields } = VMCB;
const CR0_AT = word32(fields.cr0);
const CR3_AT = word32(fields.cr3);
const CR4_AT = word32(fields.cr4);
const EFER_AT = word32(fields.efer);
const DR6_AT = word32(fields.dr6);
const DR7_AT = word32(fields.dr7);
const ASID_AT = word32(fields.guestASID);
const INTERCEPT4_AT = word32(fields.intercept4);
const IOPM_AT = word32(fields.iopmBasePA);
const MSRPM_AT = word32(fields.msrpmBasePA);
const NCR3_AT = word32(fields.nCR3);
const NESTED_AT = word32(fields.nestedControl);
const GPAT_AT = word32(fields.gPAT);
const CS_AT = word32(fields.cs);
const EVENT_AT = word32(fields.eventInj);
const INTERCEPT3_AT = word32(fields.intercept3);
const TLB_CONTROL_AT = word32(fields.tlbControl);
const INT_CONTROL_AT = word32(fields.intControl);
/** What AVIC is told of by its sPA. */
const AVIC_POINTERS_AT = [fields.avicBackingPage, fields.avicLogicalTable, fields.avicPhysicalTable].map(word32);
const AVIC_PHYSICAL_TABLE_AT = word32(fields.avicPhysicalTable);
const MAX_INDEX = 0xfff;
/** Of a guest's physical APIC IDs in xAPIC mode. */
const HIGHEST_INDEX = 255;

const NW = Number(CR0.NW);
const CD = Number(CR0.CD);
const PG = Number(CR0.PG);
const PE = Number(CR0.PE);
const PAE = Number(CR4.PAE);
const LME = Number(EFER.LME);
const SVME = Number(EFER.SVME);
const NP = Number(NestedControl.NP_ENABLE);
const CODE_LONG = Number(SegmentWord.LONG);
const CODE_BIG = Number(SegmentWord.BIG);
const EVENT_VALID = 0x8000_0000;
const INTERCEPT_NMI = 2;
const INTERCEPT_MSR_PROT = 1 << 28;
/** Of TLB_CONTROL. */
const FLUSH_ALL = 1;

/**
 * @param words @param at the VMCB: 32-bit words from index `at` on. @param memory for what it points at.
 * @param hostCr0 @param hostEfer of the host that executes VMRUN. @returns undefined when the guest may run.
 */
export function vmrunRefusal(
  words: Uint32Array,
  at: number,
  memory: PhysicalMemory,
  rules: VmrunRules,
  hostCr0: bigint,
  hostEfer: bigint,
): VmrunRefusal | undefined {
  return (
    refusedControls(words, at, memory, rules, (hostCr0 & CR0.PG) !== 0n, (hostEfer & EFER.LMA) !== 0n) ??
    refusedState(words, at, memory, rules, (hostEfer & EFER.LMA) !== 0n)
  );
}

function refusedControls(
  words: Uint32Array,
  at: number,
  memory: PhysicalMemory,
  rules: VmrunRules,
  hostPaging: boolean,
  hostLongMode: boolean,
): VmrunRefusal | undefined {
  const read = (word: number): number => words[at + word] as number;
  if ((read(INTERCEPT4_AT) & INTERCEPT_VMRUN) === 0) return 'the VMRUN intercept is clear';
  if (read(ASID_AT) === 0 && !rules.allowsAsidZero) return 'ASID is 0';
  if (pageAt(read(IOPM_AT), read(IOPM_AT + 1)) >= rules.iopmLimit) {
    return 'the I/O permission map passes the highest physical address';
  }
  if (pageAt(read(MSRPM_AT), read(MSRPM_AT + 1)) >= rules.msrpmLimit) {
    return 'the MSR permission map passes the highest physical address';
  }
  if (
    rules.refusesUnbackedMsrpm &&
    (read(INTERCEPT3_AT) & INTERCEPT_MSR_PROT) !== 0 &&
    !msrpmInRam(words, at, memory)
  ) {
    return 'the MSR permission map is not in RAM';
  }
  if (rules.refusesFlushByAsid && (read(TLB_CONTROL_AT) & 0xff) > FLUSH_ALL) return 'TLB_CONTROL is not 0 or 1';
  if ((read(INT_CONTROL_AT) & rules.intControl & V_NMI_ENABLE) !== 0 && (read(INTERCEPT3_AT) & INTERCEPT_NMI) === 0) {
    return 'V_NMI_ENABLE is set while the NMI intercept is clear';
  }
  if (rules.avic && (read(INT_CONTROL_AT) & AVIC_ENABLE) !== 0) {
    const refusal = refusedAvic(words, at, memory, rules);
    if (refusal !== undefined) return refusal;
  }
  if ((read(NESTED_AT) & NP) === 0) return undefined;
  if (!rules.nestedPaging)
    return rules.refusesAbsentNestedPaging ? 'NP_ENABLE is set without nested paging' : undefined;
  if (!hostPaging && !rules.allowsUnpagedHost) return 'NP_ENABLE is set while host paging is off';
  if (hostLongMode && (read(NCR3_AT + 1) & rules.nestedCr3HighReserved) !== 0) return 'N_CR3 has MBZ bits set';
  if (!rules.guestPat) return undefined;
  if (!legalTypes(read(GPAT_AT)) || !legalTypes(read(GPAT_AT + 1))) return 'G_PAT has an illegal memory type';
  return undefined;
}

/**
 * AVIC is on. Pointers must lead to addresses that the implementation supports: here those of RAM, for nothing else can
 * hold a page that is written back. Their low 12 bits are not looked at.
 */
function refusedAvic(
  words: Uint32Array,
  at: number,
  memory: PhysicalMemory,
  rules: VmrunRules,
): VmrunRefusal | undefined {
  const read = (word: number): number => words[at + word] as number;
  if (!rules.nestedPaging || (read(NESTED_AT) & NP) === 0) return 'AVIC is enabled without nested paging';
  for (const word of AVIC_POINTERS_AT) {
    if (!memory.isRam(pageAt(read(word), read(word + 1)), PAGE_BYTES)) return 'an AVIC pointer leads out of RAM';
  }
  const highest = read(AVIC_PHYSICAL_TABLE_AT) & MAX_INDEX;
  return highest > HIGHEST_INDEX ? 'AVIC_PHYSICAL_MAX_INDEX is above 255' : undefined;
}

function refusedState(
  words: Uint32Array,
  at: number,
  memory: PhysicalMemory,
  rules: VmrunRules,
  hostLongMode: boolean,
): VmrunRefusal | undefined {
  const read = (word: number): number => words[at + word] as number;
  const efer = read(EFER_AT);
  const cr0 = read(CR0_AT);
  const cr4 = read(CR4_AT);
  const cs = read(CS_AT);
  if ((efer & SVME) === 0) return 'EFER.SVME is clear';
  if ((efer & ~rules.eferAllowed) !== 0 || read(EFER_AT + 1) !== 0) return 'EFER has MBZ bits set';
  if (read(CR0_AT + 1) !== 0) return 'CR0[63:32] are not zero';
  if ((cr0 & CD) === 0 && (cr0 & NW) !== 0) return 'CR0.NW is set while CR0.CD is clear';
  if ((cr4 & ~rules.cr4Allowed) !== 0 || read(CR4_AT + 1) !== 0) return 'CR4 has MBZ bits set';
  if (read(DR6_AT + 1) !== 0) return 'DR6[63:32] are not zero';
  if (read(DR7_AT + 1) !== 0) return 'DR7[63:32] are not zero';
  const longMode = (efer & LME) !== 0 && (cr0 & PG) !== 0;
  if (longMode) {
    if ((cr4 & PAE) === 0) return 'long mode without CR4.PAE';
    if ((cr0 & PE) === 0) return 'long mode without CR0.PE';
    const both = (cs & CODE_LONG) !== 0 && (cs & CODE_BIG) !== 0;
    if (both && !rules.allowsLongAndBig) return 'long mode with CS.L and CS.D';
  } else if ((cr0 & PG) !== 0 && (cr4 & PAE) !== 0) {
    const nested = rules.nestedPaging && (read(NESTED_AT) & NP) !== 0;
    if (!nested && !legalPdptes(memory, read(CR3_AT), rules.addressHighReserved)) return 'a PDPE has reserved bits set';
  }
  // The manual names long mode; processors refuse it in every paging mode (kvm-unit-tests, svm_pae and svm_legacy tests).
  const checksCr3 = rules.checksCr3ByHostMode ? hostLongMode : (cr0 & PG) !== 0;
  if (checksCr3 && (read(CR3_AT + 1) & rules.addressHighReserved) !== 0) return 'CR3 has MBZ bits set';
  const in64Bit = longMode && (cs & CODE_LONG) !== 0;
  if ((read(EVENT_AT) & EVENT_VALID) !== 0) {
    const event = (BigInt(read(EVENT_AT + 1)) << 32n) | BigInt(read(EVENT_AT));
    if (!eventInjectionValid(event, in64Bit, rules.allowsReservedExceptions)) return 'EVENTINJ is illegal';
  }
  return undefined;
}

/** @param at the VMCB's place. */
export function msrpmInRam(words: Uint32Array, at: number, memory: PhysicalMemory): boolean {
  const [low, high] = [words[at + MSRPM_AT] as number, words[at + MSRPM_AT + 1] as number];
  return memory.isRam(mapBase((BigInt(high) << 32n) | BigInt(low)), MSRPM_BYTES);
}

/** The page of a 64-bit address field. Inexact from 2^53 on, which is above every limit. */
const pageAt = (low: number, high: number): number => high * 0x1_0000_0000 + ((low & 0xffff_f000) >>> 0);

/** Four PAT fields: UC, WC, WT, WP, WB and UC- exist, and bits 7:3 of each are clear (APM vol.2 §7.8.1 PAT Register). */
function legalTypes(word: number): boolean {
  if ((word & 0xf8f8_f8f8) !== 0) return false;
  for (let shift = 0; shift < 32; shift += 8) {
    const type = (word >>> shift) & 7;
    if (type === 2 || type === 3) return false;
  }
  return true;
}

/** Bits of a legacy PAE PDPE that must be clear (APM vol.2 §5.2.4 PAE Paging). */
const PDPE_RESERVED = 0x1e6;

/**
 * True when none of the four page-directory-pointer entries at CR3 has reserved bits set; outside RAM they all do.
 * @param cr3 its low word. @param addressHighReserved bits that the high word of an entry must not have.
 */
export function legalPdptes(memory: PhysicalMemory, cr3: number, addressHighReserved: number): boolean {
  const table = (cr3 & 0xffff_ffe0) >>> 0;
  if (!memory.isRam(table, 32)) return false;
  for (let at = table; at < table + 32; at += 8) {
    const low = memory.read32(at);
    const reserved = (low & PDPE_RESERVED) | (memory.read32(at + 4) & addressHighReserved);
    if ((low & 1) !== 0 && reserved !== 0) return false;
  }
  return true;
}

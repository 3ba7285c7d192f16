/**
 * What VMRUN does with the guest's VMCB: read and check it, load the guest's state, take over the controls, or refuse.
 * The guest runs from the machine's next step on; an event in EVENTINJ is left in `eventInjection` for delivery before
 * its first instruction. VMCB clean bits: see clean-bits.ts. Where a deviation loads something else, the rules say so
 * (vmrun-rules.ts).
 * Source: APM vol.2 §15.5.1 Basic Operation, §15.14.4 Pause Intercept Filtering, §15.16.1 TLB Flush, §15.20 Event
 * Injection, §15.21 Interrupt and Local APIC Support, §15.23.1 Hardware Acceleration for LBR Virtualization, §15.25.4
 * Nested Paging and VMRUN/#VMEXIT, §15.29.8.3 Additional VMRUN Handling.
 */
import { DEBUG_CTL_DEFINED } from '../cpu/debug.js';
import type { GuestBlock, SwitchContext } from '../cpu/nested-virtualization.js';
import { invalidOpcode } from '../faults.js';
import {
  Boundary,
  CR0,
  CR4,
  EFER,
  EMPTY_DELTA,
  Flag,
  type HalvesWriter,
  R,
  type Slot,
  SvmMode,
} from '../layout/cpu-state.js';
import { RAM_BASE } from '../layout/linear-memory.js';
import {
  ALL_WORDS,
  decodeVmcbDelta,
  encodeVmcbDelta,
  INTERRUPT_SHADOW,
  NestedControl,
  SegmentWord,
  TlbControl,
  VMCB,
  vmcbChanges,
  W,
} from '../layout/vmcb.js';
import type { PhysicalMemory } from '../mmu/memory.js';
import { startVirtualApic } from './avic.js';
import { changedUnderCleanBit, takeCached } from './clean-bits.js';
import { BOUNDARY_KEPT, BRANCH_RECORD, DR7_ONES, LBR_VIRTUALIZATION, loadPdptes } from './host-state.js';
import { EVENT_VALID } from './injection.js';
import { INTERCEPT_SLOTS, INTERCEPTS } from './intercepts.js';
import type { RegisterImage } from './register-image.js';
import { VmcbImage } from './vmcb-image.js';
import { msrpmInRam, vmrunRefusal } from './vmrun-checks.js';
import { AVIC_ENABLE, INVLPGB_ENABLE, V_NMI_BITS, V_NMI_ENABLE, type VmrunRules } from './vmrun-rules.js';

// Registers and VMCB are handled as 32-bit halves here: see register-image.ts. Most of what follows fits the low one.

const PE = Number(CR0.PE);
const PG = Number(CR0.PG);
const PAE = Number(CR4.PAE);
const LME = Number(EFER.LME);
const LMA = Number(EFER.LMA);
const ET = Number(CR0.ET);
const IF = Number(Flag.IF);
const ONE = Number(Flag.ONE);
const VM = Number(Flag.VM);
const GUEST_MODE = Number(SvmMode.GUEST | SvmMode.GIF);
const HOST_IF = Number(SvmMode.HOST_IF);
const VALID = Number(EVENT_VALID);
const SHADOW = Number(INTERRUPT_SHADOW);
const BOUNDARY_SHADOW = Number(Boundary.INTERRUPT_SHADOW);
/** Defined bits of CR0. ET reads as one. */
const CR0_BITS = Number(
  CR0.PE | CR0.MP | CR0.EM | CR0.TS | CR0.ET | CR0.NE | CR0.WP | CR0.AM | CR0.NW | CR0.CD | CR0.PG,
);
/** Defined bits of RFLAGS; bit 1 reads as one. */
const RFLAGS_BITS = 0x003f_7fd5;
/** DR7: enables, LE, GE, GD, conditions and lengths. */
const DR7_BITS = 0xffff_23ff;
const V_INTR_VECTOR_HIGH = 0xff;
/** Of the word at 120h. */
export const BUS_LOCK_COUNT = 0xffff;
export const NP_ENABLE = Number(NestedControl.NP_ENABLE);
/** The control word at 00Ch, and MSR_PROT in it. */
const INTERCEPT3 = INTERCEPTS.MSR_PROT.offset / 4;
const MSR_PROT = 1 << INTERCEPTS.MSR_PROT.bit;
/** Above the address in the high half of `msrpmBase`: whose map the first guest had. */
const OWN_MSR_MAP = 1 << 30;
const OTHER_MSR_MAP = 1 << 29;
const FIRST_MSR_MAP = OWN_MSR_MAP | OTHER_MSR_MAP;
const DEBUG_CTL_BITS = Number(DEBUG_CTL_DEFINED);
const SEGMENT_BITS = Number(SegmentWord.MASK & 0xffff_ffffn);

const image = new VmcbImage();

/**
 * Reads the VMCB at `vmcb`, clean fields from the processor's cache, and checks it.
 * @throws GuestFault for the deviation that has an MSR permission map outside RAM fault.
 */
export function prepareForVmrun(context: SwitchContext, vmcb: number, rules: VmrunRules): GuestBlock {
  const { tx } = context;
  const { memory } = tx.host;
  const known = context.vmcbShadow.knownWords(vmcb);
  let at = (RAM_BASE + vmcb) / 4;
  let { words } = memory;
  if (rules.faultsOnUnbackedMsrpm && !msrpmInRam(words, at, memory)) throw invalidOpcode();
  let changes = vmcbChanges(memory, vmcb, known, ALL_WORDS);
  const clean = lowOf(words, at, W.vmcbClean) & rules.cleanBits;
  if (clean !== 0 && known !== undefined && changedUnderCleanBit(changes, clean) && tx.get(R.vmcb) === BigInt(vmcb)) {
    const cached = takeCached(known, words, at, changes, clean, rules);
    if (cached.stale.length > 0) {
      context.state({ type: 'svm.stale', vmcb, clean, ignored: cached.stale });
      words = cached.words;
      at = 0;
      changes = cached.changes;
    }
  }
  const asid = lowOf(words, at, W.guestASID);
  const refused = vmrunRefusal(words, at, memory, rules, tx.get(R.cr0), tx.get(R.efer)) !== undefined;
  return { words, at, asid, changes, refused };
}

/** Past the checks: `registers` become the guest's. @param vmcb its sPA. */
export function enterGuest(
  registers: RegisterImage,
  { words, at }: GuestBlock,
  vmcb: number,
  memory: PhysicalMemory,
  rules: VmrunRules,
): void {
  loadControls(registers, words, at, vmcb, rules);
  loadGuest(registers, words, at, memory, rules);
}

/** Whether the guest has a virtual APIC, which is read through the transaction. */
export const startsVirtualApic = ({ words, at }: GuestBlock, rules: VmrunRules): boolean =>
  rules.avic && (lowOf(words, at, W.intControl) & AVIC_ENABLE) !== 0;

/** What of a VMRUN into a guest is not in the register image, and its event. @param to the transaction, or the registers at once. */
export function completeVmrun(
  context: SwitchContext,
  to: HalvesWriter,
  block: GuestBlock,
  vmcb: number,
  rules: VmrunRules,
): void {
  const { tx } = context;
  const { words, at, asid } = block;
  let { changes } = block;
  // Slots behind those of the switch.
  if (startsVirtualApic(block, rules)) startVirtualApic(tx, words, at);
  if (rules.busLockThreshold) to.setHalves(R.busLocks, lowOf(words, at, W.busLockCounter) & BUS_LOCK_COUNT, 0);
  flushTlb(context, highOf(words, at, W.guestASID), asid, rules);
  if (rules.clearsExitInfo2) {
    tx.writeQuad(vmcb + 8 * W.exitInfo2, 0, 0);
    changes = encodeVmcbDelta([...decodeVmcbDelta(changes), [W.exitInfo2, 0n]]);
  }
  context.outcome({ type: 'svm.vmrun', vmcb, asid, words: changes, registers: EMPTY_DELTA });
}

/** The processor's copies of the control fields, GIF, and guest mode itself. */
function loadControls(registers: RegisterImage, words: Uint32Array, at: number, vmcb: number, rules: VmrunRules): void {
  const lettingIn = registers.low(R.rflags) & (rules.hostIfWaits ? lowOf(words, at, W.rflags) : IF) & IF;
  registers.set(R.svmMode, lettingIn === 0 ? GUEST_MODE : GUEST_MODE | HOST_IF);
  registers.set(R.vmcb, vmcb);
  for (let word = 0; word < INTERCEPT_SLOTS.length; word++) {
    const requested = words[at + word] as number;
    registers.set(INTERCEPT_SLOTS[word] as Slot, requested & (rules.interceptMasks[word] as number));
  }
  load(registers, R.iopmBase, words, at, W.iopmBasePA);
  load(registers, R.msrpmBase, words, at, W.msrpmBasePA);
  if (rules.keepsFirstMsrProt && !usesOwnMsrMap(registers, words, at)) {
    const requested = (words[at + INTERCEPT3] as number) & (rules.interceptMasks[INTERCEPT3] as number);
    registers.set(R.intercept3, requested & ~MSR_PROT);
  }
  load(registers, R.tscOffset, words, at, W.tscOffset);
  registers.set(R.guestAsid, lowOf(words, at, W.guestASID));
  const virtualVector = highOf(words, at, W.intControl) & V_INTR_VECTOR_HIGH;
  const intControl = lowOf(words, at, W.intControl) & rules.intControl;
  const virtualNmis = (intControl & V_NMI_ENABLE) === 0 ? V_NMI_BITS : 0;
  registers.set(R.intControl, intControl & ~virtualNmis, virtualVector);
  const filter = highOf(words, at, W.pauseFilterCount) & rules.pauseFilter;
  const pauses = Math.min(filter >>> 16, rules.mostPauses);
  registers.set(R.pauseFilter, pauses, (pauses << 16) | (filter & 0xffff));
  registers.set(R.exitIntInfo, 0);
  if (rules.startsIntInfoFromEvent)
    registers.set(R.exitIntInfo, lowOf(words, at, W.eventInj) & ~VALID, highOf(words, at, W.eventInj));
  loadEvent(registers, words, at, rules);
  const nested = lowOf(words, at, W.nestedControl) & rules.nestedControl;
  registers.set(R.nestedControl, (nested & NP_ENABLE) === 0 ? nested & INVLPGB_ENABLE : nested);
  if ((nested & NP_ENABLE) !== 0) {
    load(registers, R.nestedCr3, words, at, W.nCR3);
    if (rules.guestPat) load(registers, R.guestPat, words, at, W.gPAT);
  }
  const virtExt = lowOf(words, at, W.virtExt) & rules.virtExt;
  registers.set(R.virtExt, virtExt | rules.virtExtForced);
  if ((virtExt & LBR_VIRTUALIZATION) !== 0) exchangeBranchRecord(registers, words, at);
}

/**
 * The deviation `msr-prot-not-turned-on`: the processor stays with the MSR permission map of its first guest, which is the
 * hypervisor's only if that guest had MSR_PROT. Which it was stands above the address in the copy of its base.
 * @returns false when the hypervisor's map is not looked at.
 */
function usesOwnMsrMap(registers: RegisterImage, words: Uint32Array, at: number): boolean {
  const known = registers.high(R.msrpmBase) & FIRST_MSR_MAP;
  const asked = ((words[at + INTERCEPT3] as number) & MSR_PROT) !== 0;
  const first = known !== 0 ? known : asked ? OWN_MSR_MAP : OTHER_MSR_MAP;
  const high = highOf(words, at, W.msrpmBasePA) & ~FIRST_MSR_MAP;
  registers.set(R.msrpmBase, lowOf(words, at, W.msrpmBasePA), high | first);
  return first === OWN_MSR_MAP;
}

/** The host's branch record goes behind the guest (APM vol.2 §15.23.1 Hardware Acceleration for LBR Virtualization). */
function exchangeBranchRecord(registers: RegisterImage, words: Uint32Array, at: number): void {
  for (let index = 0; index < BRANCH_RECORD; index++) {
    registers.copy((R.hostDebugCtl + index) as Slot, (R.debugCtl + index) as Slot);
    load(registers, (R.debugCtl + index) as Slot, words, at, W.debugCtl + index);
  }
  registers.set(R.debugCtl, lowOf(words, at, W.debugCtl) & DEBUG_CTL_BITS);
}

/** EVENTINJ, and nRIP as the return address of software events (APM vol.2 §15.20 Event Injection). */
function loadEvent(registers: RegisterImage, words: Uint32Array, at: number, rules: VmrunRules): void {
  registers.set(R.eventInjection, 0);
  registers.set(R.eventNextRip, 0);
  if ((lowOf(words, at, W.eventInj) & VALID) === 0) return;
  load(registers, R.eventInjection, words, at, W.eventInj);
  if (rules.nextRipSave) load(registers, R.eventNextRip, words, at, W.nRIP);
}

/** The state that VMRUN loads, made canonical; reserved bits read as they do after any other load. */
function loadGuest(
  registers: RegisterImage,
  words: Uint32Array,
  at: number,
  memory: PhysicalMemory,
  rules: VmrunRules,
): void {
  for (let slot = 0; slot < 8; slot += 2) {
    const word = W.es + slot;
    registers.set((R.es + slot) as Slot, lowOf(words, at, word) & SEGMENT_BITS, highOf(words, at, word));
    registers.set((R.es + slot + 1) as Slot, lowOf(words, at, word + 1));
  }
  registers.set(R.gdtrLimit, highOf(words, at, W.gdtrLimit) & 0xffff);
  loadBase(registers, R.gdtrBase, words, at, W.gdtrBase, rules);
  registers.set(R.idtrLimit, highOf(words, at, W.idtrLimit) & 0xffff);
  loadBase(registers, R.idtrBase, words, at, W.idtrBase, rules);

  const cr0 = (lowOf(words, at, W.cr0) & CR0_BITS) | ET;
  const cr4 = lowOf(words, at, W.cr4);
  const efer = lowOf(words, at, W.efer) & ~LMA;
  const longMode = (efer & LME) !== 0 && (cr0 & PG) !== 0;
  const rflags = (lowOf(words, at, W.rflags) & RFLAGS_BITS) | ONE;
  registers.set(R.cr0, cr0);
  load(registers, R.cr2, words, at, W.cr2);
  load(registers, R.cr3, words, at, W.cr3);
  registers.set(R.cr4, cr4);
  registers.set(R.efer, longMode ? efer | LMA : efer);
  registers.set(R.dr6, (lowOf(words, at, W.dr6) & rules.dr6Loaded) | rules.dr6Ones);
  registers.set(R.dr7, (lowOf(words, at, W.dr7) & DR7_BITS) | DR7_ONES);
  registers.set(R.rflags, rflags);
  load(registers, R.rip, words, at, W.rip);
  load(registers, R.rsp, words, at, W.rsp);
  load(registers, R.rax, words, at, W.rax);
  registers.set(R.cpl, privilegeLevel(cr0, rflags, (lowOf(words, at, W.cpl) >>> CPL_SHIFT) & 3));
  const shadow = (lowOf(words, at, W.intShadow) & SHADOW) === 0 ? 0 : BOUNDARY_SHADOW;
  registers.set(R.boundary, (registers.low(R.boundary) & BOUNDARY_KEPT) | shadow);
  const nested = rules.nestedPaging && (lowOf(words, at, W.nestedControl) & NP_ENABLE) !== 0;
  if (!nested && (cr0 & PG) !== 0 && !longMode && (cr4 & PAE) !== 0) {
    loadPdptes(registers, memory, lowOf(words, at, W.cr3));
  }
}

/** The CPL byte within its 64-bit word. */
const CPL_SHIFT = 8 * (VMCB.fields.cpl.offset % 8);

function privilegeLevel(cr0: number, rflags: number, stored: number): number {
  if ((cr0 & PE) === 0) return 0;
  return (rflags & VM) !== 0 ? 3 : stored;
}

const lowOf = (words: Uint32Array, at: number, word: number): number => words[at + 2 * word] as number;
const highOf = (words: Uint32Array, at: number, word: number): number => words[at + 2 * word + 1] as number;

/** Bits 63:48 of a base follow bit 47. */
function loadBase(
  registers: RegisterImage,
  slot: Slot,
  words: Uint32Array,
  at: number,
  word: number,
  rules: VmrunRules,
): void {
  const high = highOf(words, at, word);
  registers.set(slot, lowOf(words, at, word), rules.keepsBasesAsStored ? high : (high << 16) >> 16);
}

function load(registers: RegisterImage, slot: Slot, words: Uint32Array, at: number, word: number): void {
  registers.set(slot, lowOf(words, at, word), highOf(words, at, word));
}

/**
 * TLB_CONTROL. Encodings that are reserved, or need FlushByAsid where the profile has none, drop everything: translations
 * may be dropped at any time, so no software can be wronged by it.
 * @param controls the high half of the word at 058h.
 */
function flushTlb(context: SwitchContext, controls: number, asid: number, rules: VmrunRules): void {
  const control = controls & 0xff;
  if (control === TlbControl.NONE) return;
  const guestOnly = control === TlbControl.GUEST || control === TlbControl.GUEST_NON_GLOBAL;
  context.flushTlb(guestOnly && rules.flushByAsid ? { scope: 'asid', asid } : { scope: 'all' });
}

/**
 * VMRUN failed: the VMCB gets the exit code and loses the event, its guest state stays as it was; the host goes on behind
 * VMRUN with GIF clear and, as after every #VMEXIT, its breakpoints disabled.
 */
export function refuseVmrun(context: SwitchContext, block: GuestBlock, vmcb: number, rules: VmrunRules): void {
  const { tx } = context;
  context.state({ type: 'svm.vmrun', vmcb, asid: block.asid, words: block.changes, registers: EMPTY_DELTA });
  const { words } = tx.host.memory;
  const at = (RAM_BASE + vmcb) / 4;
  if (!rules.keepsGifOnFailure) tx.set(R.svmMode, tx.get(R.svmMode) & ~SvmMode.GIF);
  tx.set(R.vmcb, BigInt(vmcb));
  tx.set(R.dr7, (tx.get(R.dr7) & BigInt(rules.hostDr7)) | BigInt(DR7_ONES));
  image.setQuad(W.exitCode, rules.invalid);
  image.set(W.exitInfo1, 0, 0);
  image.set(W.exitInfo2, 0, 0);
  image.set(W.exitIntInfo, 0, 0);
  if (!rules.keepsEventOnFailure) image.set(W.eventInj, 0, 0);
  if (rules.nextRipSave) image.set(W.nRIP, 0, 0);
  if (rules.decodeAssists) clearInstructionBytes(image, words, at);
  const written = image.store(tx, vmcb, context.vmcbShadow.knownWords(vmcb));
  const exit = { code: rules.invalid, info1: 0n, info2: 0n, intInfo: 0n };
  context.outcome({ type: 'svm.vmexit', vmcb, ...exit, words: written, registers: EMPTY_DELTA });
}

/** The count becomes zero, the bytes stay (APM vol.2 §15.8.4 Nested and Intercepted #PF). @param at the VMCB's place. */
export function clearInstructionBytes(target: VmcbImage, words: Uint32Array, at: number): void {
  const word = W.instructionLength;
  target.set(word, (words[at + 2 * word] as number) & ~0xff, words[at + 2 * word + 1] as number);
}

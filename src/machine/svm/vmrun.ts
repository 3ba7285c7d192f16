/**
 * The world switch into the guest: check the VMCB, keep the host's state behind the guest, load the guest's, take over
 * the controls. The guest runs from the machine's next step on; an event in EVENTINJ is left in `eventInjection` for
 * delivery before its first instruction.
 *
 * The host state stays in the processor, hidden parts of segment registers included (docs/adr/0020); the page at
 * VM_HSAVE_PA is neither read nor written. VMCB clean bits: see clean-bits.ts. Where a deviation loads something else,
 * the rules say so (vmrun-rules.ts).
 * Source: APM vol.2 §15.5.1 Basic Operation, §15.14.4 Pause Intercept Filtering, §15.16.1 TLB Flush, §15.20 Event
 * Injection, §15.21 Interrupt and Local APIC Support, §15.23.1 Hardware Acceleration for LBR Virtualization, §15.25.4
 * Nested Paging and VMRUN/#VMEXIT.
 */
import { DEBUG_CTL_DEFINED } from '../cpu/debug.js';
import type { SystemContext } from '../cpu/system-context.js';
import { invalidOpcode } from '../faults.js';
import { Boundary, CR0, CR4, EFER, EMPTY_DELTA, Flag, R, type Slot, SvmMode } from '../layout/cpu-state.js';
import { RAM_BASE } from '../layout/linear-memory.js';
import {
  ALL_WORDS,
  decodeVmcbDelta,
  encodeVmcbDelta,
  INTERRUPT_SHADOW,
  NestedControl,
  SegmentWord,
  TlbControl,
  VirtExt,
  VMCB,
  vmcbChanges,
  W,
} from '../layout/vmcb.js';
import type { PhysicalMemory } from '../mmu/memory.js';
import { changedUnderCleanBit, takeCached } from './clean-bits.js';
import { EVENT_VALID } from './injection.js';
import { INTERCEPT_SLOTS, INTERCEPTS } from './intercepts.js';
import { RegisterImage } from './register-image.js';
import { VmcbImage } from './vmcb-image.js';
import { msrpmInRam, vmrunRefusal } from './vmrun-checks.js';
import { V_NMI_BITS, V_NMI_ENABLE, type VmrunRules, vmrunRules } from './vmrun-rules.js';

// Registers and VMCB are handled as 32-bit halves here: see register-image.ts. Most of what follows fits the low one.

const PE = Number(CR0.PE);
const PG = Number(CR0.PG);
const PAE = Number(CR4.PAE);
const LME = Number(EFER.LME);
const LMA = Number(EFER.LMA);
const ET = Number(CR0.ET);
const IF = Number(Flag.IF);
const ONE = Number(Flag.ONE);
const RF = Number(Flag.RF);
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
/** DR6: B0..B3, BD, BS, BT; the other bits of the low half read as ones but for bit 12. */
const DR6_BITS = 0xe00f;
const DR6_ONES = 0xffff_0ff0;
/** DR7: enables, LE, GE, GD, conditions and lengths; bit 10 reads as one. */
const DR7_BITS = 0xffff_23ff;
export const DR7_ONES = 0x400;
const V_INTR_VECTOR_HIGH = 0xff;
const NP_ENABLE = Number(NestedControl.NP_ENABLE);
/** The control word at 00Ch, and MSR_PROT in it. */
const INTERCEPT3 = INTERCEPTS.MSR_PROT.offset / 4;
const MSR_PROT = 1 << INTERCEPTS.MSR_PROT.bit;
/** Above the address in the high half of `msrpmBase`: whose map the first guest had. */
const OWN_MSR_MAP = 1 << 30;
const OTHER_MSR_MAP = 1 << 29;
const FIRST_MSR_MAP = OWN_MSR_MAP | OTHER_MSR_MAP;
export const LBR_VIRTUALIZATION = Number(VirtExt.LBR_VIRTUALIZATION);
/** DebugCtl and the four registers behind it, in registers as in the VMCB. */
export const BRANCH_RECORD = 5;
const DEBUG_CTL_BITS = Number(DEBUG_CTL_DEFINED);
const SEGMENT_BITS = Number(SegmentWord.MASK & 0xffff_ffffn);
/** What of `boundary` belongs to the processor and not to the instruction stream. */
export const BOUNDARY_KEPT = Number(
  Boundary.NMI_BLOCKED | Boundary.NMI_PENDING | Boundary.INIT_PENDING | Boundary.SMI_PENDING,
);

const registers = new RegisterImage();
const image = new VmcbImage();

/**
 * VMRUN past its exceptions and its intercept.
 * @param vmcb sPA of a page in RAM, aligned.
 */
export function vmrun(context: SystemContext, vmcb: number): void {
  const { tx } = context;
  const { memory } = tx.host;
  const rules = vmrunRules(context.profile);
  const known = context.vmcbShadow.knownWords(vmcb);
  let at = (RAM_BASE + vmcb) / 4;
  let source = memory.words;
  if (rules.faultsOnUnbackedMsrpm && !msrpmInRam(source, at, memory)) throw invalidOpcode();
  let words = vmcbChanges(memory, vmcb, known, ALL_WORDS);
  const clean = lowOf(source, at, W.vmcbClean) & rules.cleanBits;
  if (clean !== 0 && known !== undefined && changedUnderCleanBit(words, clean) && tx.get(R.vmcb) === BigInt(vmcb)) {
    const cached = takeCached(known, source, at, words, clean, rules);
    if (cached.stale.length > 0) {
      context.state({ type: 'svm.stale', vmcb, clean, ignored: cached.stale });
      source = cached.words;
      at = 0;
      words = cached.changes;
    }
  }
  const asid = lowOf(source, at, W.guestASID);
  if (vmrunRefusal(source, at, memory, rules, tx.get(R.cr0), tx.get(R.efer)) !== undefined) {
    context.state({ type: 'svm.vmrun', vmcb, asid, words, registers: EMPTY_DELTA });
    refuse(context, vmcb, rules);
    return;
  }
  registers.begin(tx);
  saveHost(rules);
  loadControls(source, at, vmcb, rules);
  loadGuest(source, at, memory, rules);
  registers.finish(tx);
  flushTlb(context, highOf(source, at, W.guestASID), asid, rules);
  if (rules.clearsExitInfo2) {
    tx.writeQuad(vmcb + 8 * W.exitInfo2, 0, 0);
    words = encodeVmcbDelta([...decodeVmcbDelta(words), [W.exitInfo2, 0n]]);
  }
  context.outcome((delta) => ({ type: 'svm.vmrun', vmcb, asid, words, registers: delta }));
}

/** What VMRUN keeps of the host (APM vol.2 §15.5.1 Basic Operation, Saving Host State). RIP is the next instruction's. */
function saveHost(rules: VmrunRules): void {
  for (let slot = 0; slot < 8; slot++) registers.copy((R.hostEs + slot) as Slot, (R.es + slot) as Slot);
  registers.copy(R.hostGdtrLimit, R.gdtrLimit);
  registers.copy(R.hostGdtrBase, R.gdtrBase);
  registers.copy(R.hostIdtrLimit, R.idtrLimit);
  registers.copy(R.hostIdtrBase, R.idtrBase);
  registers.copy(R.hostEfer, R.efer);
  registers.copy(R.hostCr0, R.cr0);
  registers.copy(R.hostCr3, R.cr3);
  registers.copy(R.hostCr4, R.cr4);
  // Completion of VMRUN clears RF. Behind RFLAGS stands what comes back of DR7: nothing, but for deviations.
  registers.set(R.hostRflags, registers.low(R.rflags) & ~RF, registers.low(R.dr7) & rules.hostDr7);
  registers.copy(R.hostRip, R.rip);
  registers.copy(R.hostRsp, R.rsp);
  registers.copy(R.hostRax, R.rax);
}

/** The processor's copies of the control fields, GIF, and guest mode itself. */
function loadControls(words: Uint32Array, at: number, vmcb: number, rules: VmrunRules): void {
  const lettingIn = registers.low(R.rflags) & (rules.hostIfWaits ? lowOf(words, at, W.rflags) : IF) & IF;
  registers.set(R.svmMode, lettingIn === 0 ? GUEST_MODE : GUEST_MODE | HOST_IF);
  registers.set(R.vmcb, vmcb);
  for (let word = 0; word < INTERCEPT_SLOTS.length; word++) {
    const requested = words[at + word] as number;
    registers.set(INTERCEPT_SLOTS[word] as Slot, requested & (rules.interceptMasks[word] as number));
  }
  load(R.iopmBase, words, at, W.iopmBasePA);
  load(R.msrpmBase, words, at, W.msrpmBasePA);
  if (rules.keepsFirstMsrProt && !usesOwnMsrMap(words, at)) {
    const requested = (words[at + INTERCEPT3] as number) & (rules.interceptMasks[INTERCEPT3] as number);
    registers.set(R.intercept3, requested & ~MSR_PROT);
  }
  load(R.tscOffset, words, at, W.tscOffset);
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
  loadEvent(words, at, rules);
  const nested = lowOf(words, at, W.nestedControl) & rules.nestedControl;
  registers.set(R.nestedControl, (nested & NP_ENABLE) === 0 ? 0 : nested);
  if ((nested & NP_ENABLE) !== 0) {
    load(R.nestedCr3, words, at, W.nCR3);
    if (rules.guestPat) load(R.guestPat, words, at, W.gPAT);
  }
  const virtExt = lowOf(words, at, W.virtExt) & rules.virtExt;
  registers.set(R.virtExt, virtExt | rules.virtExtForced);
  if ((virtExt & LBR_VIRTUALIZATION) !== 0) exchangeBranchRecord(words, at);
}

/**
 * The deviation `msr-prot-not-turned-on`: the processor stays with the MSR permission map of its first guest, which is the
 * hypervisor's only if that guest had MSR_PROT. Which it was stands above the address in the copy of its base.
 * @returns false when the hypervisor's map is not looked at.
 */
function usesOwnMsrMap(words: Uint32Array, at: number): boolean {
  const known = registers.high(R.msrpmBase) & FIRST_MSR_MAP;
  const asked = ((words[at + INTERCEPT3] as number) & MSR_PROT) !== 0;
  const first = known !== 0 ? known : asked ? OWN_MSR_MAP : OTHER_MSR_MAP;
  const high = highOf(words, at, W.msrpmBasePA) & ~FIRST_MSR_MAP;
  registers.set(R.msrpmBase, lowOf(words, at, W.msrpmBasePA), high | first);
  return first === OWN_MSR_MAP;
}

/** The host's branch record goes behind the guest (APM vol.2 §15.23.1 Hardware Acceleration for LBR Virtualization). */
function exchangeBranchRecord(words: Uint32Array, at: number): void {
  for (let index = 0; index < BRANCH_RECORD; index++) {
    registers.copy((R.hostDebugCtl + index) as Slot, (R.debugCtl + index) as Slot);
    load((R.debugCtl + index) as Slot, words, at, W.debugCtl + index);
  }
  registers.set(R.debugCtl, lowOf(words, at, W.debugCtl) & DEBUG_CTL_BITS);
}

/** EVENTINJ, and nRIP as the return address of software events (APM vol.2 §15.20 Event Injection). */
function loadEvent(words: Uint32Array, at: number, rules: VmrunRules): void {
  registers.set(R.eventInjection, 0);
  registers.set(R.eventNextRip, 0);
  if ((lowOf(words, at, W.eventInj) & VALID) === 0) return;
  load(R.eventInjection, words, at, W.eventInj);
  if (rules.nextRipSave) load(R.eventNextRip, words, at, W.nRIP);
}

/** The state that VMRUN loads, made canonical; reserved bits read as they do after any other load. */
function loadGuest(words: Uint32Array, at: number, memory: PhysicalMemory, rules: VmrunRules): void {
  for (let slot = 0; slot < 8; slot += 2) {
    const word = W.es + slot;
    registers.set((R.es + slot) as Slot, lowOf(words, at, word) & SEGMENT_BITS, highOf(words, at, word));
    registers.set((R.es + slot + 1) as Slot, lowOf(words, at, word + 1));
  }
  registers.set(R.gdtrLimit, highOf(words, at, W.gdtrLimit) & 0xffff);
  loadBase(R.gdtrBase, words, at, W.gdtrBase, rules);
  registers.set(R.idtrLimit, highOf(words, at, W.idtrLimit) & 0xffff);
  loadBase(R.idtrBase, words, at, W.idtrBase, rules);

  const cr0 = (lowOf(words, at, W.cr0) & CR0_BITS) | ET;
  const cr4 = lowOf(words, at, W.cr4);
  const efer = lowOf(words, at, W.efer) & ~LMA;
  const longMode = (efer & LME) !== 0 && (cr0 & PG) !== 0;
  const rflags = (lowOf(words, at, W.rflags) & RFLAGS_BITS) | ONE;
  registers.set(R.cr0, cr0);
  load(R.cr2, words, at, W.cr2);
  load(R.cr3, words, at, W.cr3);
  registers.set(R.cr4, cr4);
  registers.set(R.efer, longMode ? efer | LMA : efer);
  registers.set(R.dr6, (lowOf(words, at, W.dr6) & DR6_BITS) | DR6_ONES);
  registers.set(R.dr7, (lowOf(words, at, W.dr7) & DR7_BITS) | DR7_ONES);
  registers.set(R.rflags, rflags);
  load(R.rip, words, at, W.rip);
  load(R.rsp, words, at, W.rsp);
  load(R.rax, words, at, W.rax);
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

/**
 * In legacy PAE mode the four PDPEs come with CR3 (APM vol.2 §5.2.4 PAE Paging).
 * @param cr3 its low half; `legalPdptes` has looked at them.
 */
export function loadPdptes(target: RegisterImage, memory: PhysicalMemory, cr3: number): void {
  const table = (cr3 & 0xffff_ffe0) >>> 0;
  for (let entry = 0; entry < 4; entry++) {
    const low = memory.read32(table + 8 * entry);
    target.set((R.pdpte0 + entry) as Slot, low, memory.read32(table + 8 * entry + 4));
  }
}

const lowOf = (words: Uint32Array, at: number, word: number): number => words[at + 2 * word] as number;
const highOf = (words: Uint32Array, at: number, word: number): number => words[at + 2 * word + 1] as number;

/** Bits 63:48 of a base follow bit 47. */
function loadBase(slot: Slot, words: Uint32Array, at: number, word: number, rules: VmrunRules): void {
  const high = highOf(words, at, word);
  registers.set(slot, lowOf(words, at, word), rules.keepsBasesAsStored ? high : (high << 16) >> 16);
}

function load(slot: Slot, words: Uint32Array, at: number, word: number): void {
  registers.set(slot, lowOf(words, at, word), highOf(words, at, word));
}

/**
 * TLB_CONTROL. Encodings that are reserved, or need FlushByAsid where the profile has none, drop everything: translations
 * may be dropped at any time, so no software can be wronged by it.
 * @param controls the high half of the word at 058h.
 */
function flushTlb(context: SystemContext, controls: number, asid: number, rules: VmrunRules): void {
  const control = controls & 0xff;
  if (control === TlbControl.NONE) return;
  const guestOnly = control === TlbControl.GUEST || control === TlbControl.GUEST_NON_GLOBAL;
  context.flushTlb(guestOnly && rules.flushByAsid ? { scope: 'asid', asid } : { scope: 'all' });
}

/**
 * VMRUN failed: the VMCB gets the exit code and loses the event, its guest state stays as it was; the host goes on behind
 * VMRUN with GIF clear and, as after every #VMEXIT, its breakpoints disabled.
 */
function refuse(context: SystemContext, vmcb: number, rules: VmrunRules): void {
  const { tx } = context;
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
  context.outcome((delta) => ({ type: 'svm.vmexit', vmcb, ...exit, words: written, registers: delta }));
}

/** The count becomes zero, the bytes stay (APM vol.2 §15.8.4 Nested and Intercepted #PF). @param at the VMCB's place. */
export function clearInstructionBytes(target: VmcbImage, words: Uint32Array, at: number): void {
  const word = W.instructionLength;
  target.set(word, (words[at + 2 * word] as number) & ~0xff, words[at + 2 * word + 1] as number);
}

/**
 * What #VMEXIT writes into the VMCB: the reason, and the guest's state.
 * Source: APM vol.2 §15.6 #VMEXIT, §15.7.1 State Saved on Exit, §15.8.4 Nested and Intercepted #PF, §15.21.10 NMI
 * Virtualization, §15.23.1 Hardware Acceleration for LBR Virtualization, §15.33.2 Virtual GIF.
 */
import type { VmexitSite } from '../cpu/nested-virtualization.js';
import type { Transaction } from '../cpu/transaction.js';
import type { VmcbDelta } from '../events.js';
import { Boundary, R, type Slot } from '../layout/cpu-state.js';
import { RAM_BASE } from '../layout/linear-memory.js';
import { INTERRUPT_SHADOW, IntControl, VMCB, W } from '../layout/vmcb.js';
import { CleanBit } from './clean-bits.js';
import { exceptionExit } from './exit-code.js';
import { BRANCH_RECORD, LBR_VIRTUALIZATION } from './host-state.js';
import { EVENT_VALID } from './injection.js';
import type { RegisterImage } from './register-image.js';
import { VmcbImage } from './vmcb-image.js';
import type { VmExit } from './vmexit-request.js';
import { BUS_LOCK_COUNT, clearInstructionBytes, NP_ENABLE } from './vmrun.js';
import { AVIC_ENABLE, V_NMI_BITS, V_NMI_ENABLE, type VmrunRules } from './vmrun-rules.js';

/** What the processor writes back of the word at 060h; the rest is the hypervisor's, with AVIC V_IRQ as well. */
const V_TPR = Number(IntControl.V_TPR);
const V_IRQ = Number(IntControl.V_IRQ);
const VALID = Number(EVENT_VALID);
const PAGE_FAULT = exceptionExit(14);
const LBR_CLEAN = CleanBit.LAST_BRANCH;
const V_GIF = Number(IntControl.V_GIF);
const V_GIF_ENABLE = Number(IntControl.V_GIF_ENABLE);
const SHADOW = Number(INTERRUPT_SHADOW);
const BOUNDARY_SHADOW = Number(Boundary.INTERRUPT_SHADOW);
/** The CPL byte within its 64-bit word. */
const CPL_SHIFT = 8 * (VMCB.fields.cpl.offset % 8);
const CPL_FIELD = 0xff << CPL_SHIFT;
const MAX_BYTES = 15;

const image = new VmcbImage();

/**
 * Writes the guest's VMCB: why it ended, and its state. @param registers as the guest left them; unchanged.
 * @returns how the machine's copy of the VMCB changes.
 */
export function prepareForVmexit(
  registers: RegisterImage,
  tx: Transaction,
  exit: VmExit,
  site: VmexitSite,
  rules: VmrunRules,
): VmcbDelta {
  const { words } = tx.host.memory;
  const vmcb = registers.low(R.vmcb);
  const at = (RAM_BASE + vmcb) / 4;
  setReason(registers, words, at, exit, site, rules);
  if (rules.busLockThreshold) setBusLocks(registers, words, at);
  setGuest(registers, words, at, exit, rules);
  return image.store(tx, vmcb, site.vmcbShadow.knownWords(vmcb));
}

/** The control area: why, and what the guest had pending. */
function setReason(
  registers: RegisterImage,
  words: Uint32Array,
  at: number,
  exit: VmExit,
  site: VmexitSite,
  rules: VmrunRules,
): void {
  if (rules.clearsTlbControl) image.set(W.guestASID, lowOf(words, at, W.guestASID), tlbControlCleared(words, at));
  const intControl = registers.low(R.intControl);
  const saved =
    V_TPR |
    ((intControl & AVIC_ENABLE) !== 0 ? 0 : V_IRQ) |
    ((intControl & V_GIF_ENABLE) === 0 ? 0 : V_GIF) |
    ((intControl & V_NMI_ENABLE) === 0 ? 0 : V_NMI_BITS);
  const kept = lowOf(words, at, W.intControl) & ~saved;
  const stored = (kept | (intControl & saved)) & ~rules.intControlCleared;
  image.set(W.intControl, stored, highOf(words, at, W.intControl));
  const shadow = (registers.low(R.boundary) & BOUNDARY_SHADOW) === 0 ? 0 : SHADOW;
  image.set(W.intShadow, (lowOf(words, at, W.intShadow) & ~SHADOW) | shadow, highOf(words, at, W.intShadow));
  image.setQuad(W.exitCode, exit.code);
  image.setQuad(W.exitInfo1, exit.info1);
  image.setQuad(W.exitInfo2, exit.info2);
  image.set(W.exitIntInfo, registers.low(R.exitIntInfo), registers.high(R.exitIntInfo));
  if (rules.keepsEventInjection)
    image.set(W.eventInj, lowOf(words, at, W.eventInj) & ~VALID, highOf(words, at, W.eventInj));
  else image.set(W.eventInj, 0, 0);
  const nested = registers.low(R.nestedControl) !== 0;
  if (rules.clearsUnusedNestedCr3 && !nested) image.set(W.nCR3, 0, 0);
  if (rules.clearsLbrCleanBit && virtualizesBranchRecord(registers)) {
    image.set(W.vmcbClean, lowOf(words, at, W.vmcbClean) & ~LBR_CLEAN, highOf(words, at, W.vmcbClean));
  }
  if (rules.nextRipSave) image.setQuad(W.nRIP, site.nextRip);
  if (!rules.decodeAssists) return;
  if (!exit.withBytes || site.bytes === undefined) clearInstructionBytes(image, words, at);
  else if (!rules.omitsInstructionBytes) setInstructionBytes(site.bytes);
}

/** How many bus locks are left (APM vol.2 §15.14.5 Bus Lock Threshold). */
function setBusLocks(registers: RegisterImage, words: Uint32Array, at: number): void {
  const beside = lowOf(words, at, W.busLockCounter) & ~BUS_LOCK_COUNT;
  image.set(W.busLockCounter, beside | registers.low(R.busLocks), highOf(words, at, W.busLockCounter));
}
/** The high half of the word at 058h without its lowest byte. */
const tlbControlCleared = (words: Uint32Array, at: number): number => highOf(words, at, W.guestASID) & ~0xff;

/** The count, then the bytes; those that could not be fetched are zero. */
function setInstructionBytes(bytes: Uint8Array): void {
  const length = Math.min(bytes.length, MAX_BYTES);
  let value = BigInt(length);
  for (let index = 0; index < length; index++) value |= BigInt(bytes[index] as number) << BigInt(8 * (index + 1));
  image.setQuad(W.instructionLength, value);
  image.setQuad(W.instructionLength + 1, value >> 64n);
}

/** The save area: what VMRUN loads. */
function setGuest(registers: RegisterImage, words: Uint32Array, at: number, exit: VmExit, rules: VmrunRules): void {
  for (let slot = 0; slot < 8; slot += 2) {
    save(registers, W.es + slot, (R.es + slot) as Slot);
    image.set(W.es + slot + 1, registers.low((R.es + slot + 1) as Slot), 0);
  }
  image.set(W.gdtrLimit, lowOf(words, at, W.gdtrLimit), registers.low(R.gdtrLimit));
  save(registers, W.gdtrBase, R.gdtrBase);
  image.set(W.idtrLimit, lowOf(words, at, W.idtrLimit), registers.low(R.idtrLimit));
  save(registers, W.idtrBase, R.idtrBase);
  const cpl = (lowOf(words, at, W.cpl) & ~CPL_FIELD) | (registers.low(R.cpl) << CPL_SHIFT);
  image.set(W.cpl, cpl, highOf(words, at, W.cpl));
  save(registers, W.efer, R.efer);
  save(registers, W.cr4, R.cr4);
  save(registers, W.cr3, R.cr3);
  save(registers, W.cr0, R.cr0);
  save(registers, W.dr7, R.dr7);
  save(registers, W.dr6, R.dr6);
  save(registers, W.rflags, R.rflags);
  save(registers, W.rip, R.rip);
  save(registers, W.rsp, R.rsp);
  save(registers, W.rax, R.rax);
  if (rules.storesFaultAddressInCr2 && exit.code === PAGE_FAULT) image.setQuad(W.cr2, exit.info2);
  else save(registers, W.cr2, R.cr2);
  if ((registers.low(R.nestedControl) & NP_ENABLE) !== 0 && rules.guestPat) save(registers, W.gPAT, R.guestPat);
  if (!virtualizesBranchRecord(registers)) return;
  for (let index = 0; index < BRANCH_RECORD; index++) save(registers, W.debugCtl + index, (R.debugCtl + index) as Slot);
}

const virtualizesBranchRecord = (registers: RegisterImage): boolean =>
  (registers.low(R.virtExt) & LBR_VIRTUALIZATION) !== 0;

const lowOf = (words: Uint32Array, at: number, word: number): number => words[at + 2 * word] as number;
const highOf = (words: Uint32Array, at: number, word: number): number => words[at + 2 * word + 1] as number;

function save(registers: RegisterImage, word: number, slot: Slot): void {
  image.set(word, registers.low(slot), registers.high(slot));
}

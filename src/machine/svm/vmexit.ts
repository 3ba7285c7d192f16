/**
 * The world switch back to the host: the guest's state and the reason go into the VMCB, the host's state comes back from
 * behind the guest.
 *
 * The segment registers come back as VMRUN found them, hidden parts included, and no descriptor table is read: the
 * manual leaves that to the implementation (docs/adr/0020). What is left to fail is a PAE host whose page-directory
 * pointers went bad meanwhile: shutdown.
 * Source: APM vol.2 §15.6 #VMEXIT, §15.7.1 State Saved on Exit, §15.8.4 Nested and Intercepted #PF, §15.21.10 NMI
 * Virtualization, §15.23.1 Hardware Acceleration for LBR Virtualization, §15.33.2 Virtual GIF.
 */
import type { CpuProfile } from '../cpu/cpuid.js';
import type { VmcbShadow } from '../cpu/system-context.js';
import type { Transaction } from '../cpu/transaction.js';
import { invariant } from '../errors.js';
import type { EventOf, VmcbDelta } from '../events.js';
import {
  Activity,
  Boundary,
  CR0,
  CR4,
  EFER,
  Flag,
  R,
  type RegisterDelta,
  type Slot,
  SvmMode,
} from '../layout/cpu-state.js';
import { RAM_BASE } from '../layout/linear-memory.js';
import { INTERRUPT_SHADOW, IntControl, VMCB, W } from '../layout/vmcb.js';
import type { PhysicalMemory } from '../mmu/memory.js';
import { CleanBit } from './clean-bits.js';
import { exceptionExit } from './exit-code.js';
import { EVENT_VALID } from './injection.js';
import { RegisterImage } from './register-image.js';
import { VmcbImage } from './vmcb-image.js';
import type { VmExit } from './vmexit-request.js';
import {
  BOUNDARY_KEPT,
  BRANCH_RECORD,
  clearInstructionBytes,
  DR7_ONES,
  LBR_VIRTUALIZATION,
  loadPdptes,
} from './vmrun.js';
import { legalPdptes } from './vmrun-checks.js';
import { V_NMI_BITS, V_NMI_ENABLE, type VmrunRules, vmrunRules } from './vmrun-rules.js';

/** What of the exit the caller knows and the request does not. */
export interface VmexitSite {
  readonly profile: CpuProfile;
  readonly vmcbShadow: VmcbShadow;
  /** RIP behind the intercepted instruction, or zero where none is to be reported. */
  readonly nextRip: bigint;
  /** What could be fetched at CS:RIP, at most 15 bytes; looked at when the request wants it. */
  readonly bytes: Uint8Array | undefined;
}

/** The exit as the event tells it, but for the registers: those the transaction knows when it is complete. */
export interface VmexitOutcome {
  readonly vmcb: number;
  readonly code: bigint;
  readonly info1: bigint;
  readonly info2: bigint;
  readonly intInfo: bigint;
  readonly words: VmcbDelta;
  /** The reloaded host state is illegal: the vCPU shuts down, `activity` says so. */
  readonly hostShutdown: boolean;
}

/** What the processor always writes back of the word at 060h; the rest is the hypervisor's. */
const INT_CONTROL_SAVED = Number(IntControl.V_TPR | IntControl.V_IRQ);
const VALID = Number(EVENT_VALID);
const PAGE_FAULT = exceptionExit(14);
const LBR_CLEAN = CleanBit.LAST_BRANCH;
const V_GIF = Number(IntControl.V_GIF);
const V_GIF_ENABLE = Number(IntControl.V_GIF_ENABLE);
const SHADOW = Number(INTERRUPT_SHADOW);
const BOUNDARY_SHADOW = Number(Boundary.INTERRUPT_SHADOW);
const SINGLE_STEP = Number(Boundary.SINGLE_STEP);
const PE = Number(CR0.PE);
const PG = Number(CR0.PG);
const PAE = Number(CR4.PAE);
const LMA = Number(EFER.LMA);
const TF = Number(Flag.TF);
const VM = Number(Flag.VM);
const RUNNING = Number(Activity.RUNNING);
const SHUTDOWN = Number(Activity.SHUTDOWN);
/** The CPL byte within its 64-bit word. */
const CPL_SHIFT = 8 * (VMCB.fields.cpl.offset % 8);
const CPL_FIELD = 0xff << CPL_SHIFT;
const MAX_BYTES = 15;

const registers = new RegisterImage();
const image = new VmcbImage();

/**
 * @param tx holds the guest's state as the exit shall report it: of an intercepted instruction nothing (abort first), of
 * an interrupted delivery `exitIntInfo`. The host's state is in it afterwards, and the VMCB's writes.
 */
export function decideVmexit(tx: Transaction, exit: VmExit, site: VmexitSite): VmexitOutcome {
  invariant((tx.get(R.svmMode) & SvmMode.GUEST) !== 0n, '#VMEXIT without a guest');
  const { memory } = tx.host;
  const rules = vmrunRules(site.profile);
  const vmcb = Number(tx.get(R.vmcb));
  const intInfo = tx.get(R.exitIntInfo);
  const at = (RAM_BASE + vmcb) / 4;
  registers.begin(tx);
  setReason(memory.words, at, exit, intInfo, site, rules);
  setGuest(memory.words, at, exit, rules);
  const words = image.store(tx, vmcb, site.vmcbShadow.knownWords(vmcb));
  clearControls();
  const hostShutdown = !restoreHost(memory, rules);
  registers.finish(tx);
  return { vmcb, code: exit.code, info1: exit.info1, info2: exit.info2, intInfo, words, hostShutdown };
}

export function vmexitEvent(outcome: VmexitOutcome, delta: RegisterDelta): EventOf<'svm.vmexit'> {
  const { vmcb, code, info1, info2, intInfo, words } = outcome;
  return { type: 'svm.vmexit', vmcb, code, info1, info2, intInfo, words, registers: delta };
}

/** The control area: why, and what the guest had pending. */
function setReason(
  words: Uint32Array,
  at: number,
  exit: VmExit,
  intInfo: bigint,
  site: VmexitSite,
  rules: VmrunRules,
): void {
  if (rules.clearsTlbControl) image.set(W.guestASID, lowOf(words, at, W.guestASID), tlbControlCleared(words, at));
  const intControl = registers.low(R.intControl);
  const saved =
    INT_CONTROL_SAVED |
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
  image.setQuad(W.exitIntInfo, intInfo);
  if (rules.keepsEventInjection)
    image.set(W.eventInj, lowOf(words, at, W.eventInj) & ~VALID, highOf(words, at, W.eventInj));
  else image.set(W.eventInj, 0, 0);
  const nested = registers.low(R.nestedControl) !== 0;
  if (rules.clearsUnusedNestedCr3 && !nested) image.set(W.nCR3, 0, 0);
  if (rules.clearsLbrCleanBit && virtualizesBranchRecord()) {
    image.set(W.vmcbClean, lowOf(words, at, W.vmcbClean) & ~LBR_CLEAN, highOf(words, at, W.vmcbClean));
  }
  if (rules.nextRipSave) image.setQuad(W.nRIP, site.nextRip);
  if (!rules.decodeAssists) return;
  if (!exit.withBytes || site.bytes === undefined) clearInstructionBytes(image, words, at);
  else if (!rules.omitsInstructionBytes) setInstructionBytes(site.bytes);
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
function setGuest(words: Uint32Array, at: number, exit: VmExit, rules: VmrunRules): void {
  for (let slot = 0; slot < 8; slot += 2) {
    save(W.es + slot, (R.es + slot) as Slot);
    image.set(W.es + slot + 1, registers.low((R.es + slot + 1) as Slot), 0);
  }
  image.set(W.gdtrLimit, lowOf(words, at, W.gdtrLimit), registers.low(R.gdtrLimit));
  save(W.gdtrBase, R.gdtrBase);
  image.set(W.idtrLimit, lowOf(words, at, W.idtrLimit), registers.low(R.idtrLimit));
  save(W.idtrBase, R.idtrBase);
  const cpl = (lowOf(words, at, W.cpl) & ~CPL_FIELD) | (registers.low(R.cpl) << CPL_SHIFT);
  image.set(W.cpl, cpl, highOf(words, at, W.cpl));
  save(W.efer, R.efer);
  save(W.cr4, R.cr4);
  save(W.cr3, R.cr3);
  save(W.cr0, R.cr0);
  save(W.dr7, R.dr7);
  save(W.dr6, R.dr6);
  save(W.rflags, R.rflags);
  save(W.rip, R.rip);
  save(W.rsp, R.rsp);
  save(W.rax, R.rax);
  if (rules.storesFaultAddressInCr2 && exit.code === PAGE_FAULT) image.setQuad(W.cr2, exit.info2);
  else save(W.cr2, R.cr2);
  if (registers.low(R.nestedControl) !== 0 && rules.guestPat) save(W.gPAT, R.guestPat);
  if (!virtualizesBranchRecord()) return;
  for (let index = 0; index < BRANCH_RECORD; index++) save(W.debugCtl + index, (R.debugCtl + index) as Slot);
}

const virtualizesBranchRecord = (): boolean => (registers.low(R.virtExt) & LBR_VIRTUALIZATION) !== 0;

const lowOf = (words: Uint32Array, at: number, word: number): number => words[at + 2 * word] as number;
const highOf = (words: Uint32Array, at: number, word: number): number => words[at + 2 * word + 1] as number;

function save(word: number, slot: Slot): void {
  image.set(word, registers.low(slot), registers.high(slot));
}

/** Nothing of the host is intercepted, offset or virtual. What remains has no meaning outside a guest. */
function clearControls(): void {
  registers.set(R.svmMode, 0);
  registers.set(R.interceptCr, 0);
  registers.set(R.interceptDr, 0);
  registers.set(R.interceptExceptions, 0);
  registers.set(R.intercept3, 0);
  registers.set(R.intercept4, 0);
  registers.set(R.intercept5, 0);
  registers.set(R.tscOffset, 0);
  registers.set(R.guestAsid, 0);
  registers.set(R.intControl, 0);
  registers.set(R.nestedControl, 0);
  registers.set(R.exitIntInfo, 0);
  registers.set(R.eventInjection, 0);
  registers.set(R.eventNextRip, 0);
}

/** @returns false when the host cannot go on. */
function restoreHost(memory: PhysicalMemory, rules: VmrunRules): boolean {
  for (let slot = 0; slot < 8; slot++) registers.copy((R.es + slot) as Slot, (R.hostEs + slot) as Slot);
  registers.copy(R.gdtrLimit, R.hostGdtrLimit);
  registers.copy(R.gdtrBase, R.hostGdtrBase);
  registers.copy(R.idtrLimit, R.hostIdtrLimit);
  registers.copy(R.idtrBase, R.hostIdtrBase);
  const rflags = registers.low(R.hostRflags) & ~VM;
  registers.copy(R.efer, R.hostEfer);
  registers.set(R.cr0, registers.low(R.hostCr0) | PE);
  registers.copy(R.cr3, R.hostCr3);
  registers.copy(R.cr4, R.hostCr4);
  registers.set(R.rflags, rflags);
  registers.copy(R.rip, R.hostRip);
  registers.copy(R.rsp, R.hostRsp);
  registers.copy(R.rax, R.hostRax);
  registers.set(R.cpl, 0);
  registers.set(R.dr7, registers.high(R.hostRflags) | DR7_ONES);
  if (virtualizesBranchRecord()) {
    for (let index = 0; index < BRANCH_RECORD; index++) {
      registers.copy((R.debugCtl + index) as Slot, (R.hostDebugCtl + index) as Slot);
    }
  }
  // To the host VMRUN is one instruction, complete now: with TF set its single-step trap is due.
  const step = (rflags & TF) === 0 || rules.dropsHostStep ? 0 : SINGLE_STEP;
  registers.set(R.boundary, (registers.low(R.boundary) & BOUNDARY_KEPT) | step);
  const legal = !hostInPaeMode() || legalPdptes(memory, registers.low(R.hostCr3), rules.addressHighReserved);
  if (legal && hostInPaeMode()) loadPdptes(registers, memory, registers.low(R.hostCr3));
  const goesOn = legal || rules.ignoresBadHostPdptes;
  registers.set(R.activity, goesOn ? RUNNING : SHUTDOWN);
  return goesOn;
}

/** The host's page-directory pointers are read again then (APM vol.2 §15.6 #VMEXIT). */
function hostInPaeMode(): boolean {
  return (
    (registers.low(R.hostCr0) & PG) !== 0 &&
    (registers.low(R.hostEfer) & LMA) === 0 &&
    (registers.low(R.hostCr4) & PAE) !== 0
  );
}

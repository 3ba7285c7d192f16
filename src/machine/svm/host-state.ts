/**
 * The host's state while a guest runs: in the processor, hidden parts of segment registers included (docs/adr/0020). The
 * page at VM_HSAVE_PA is neither read nor written.
 *
 * The segment registers come back as VMRUN found them, and no descriptor table is read: the manual leaves that to the
 * implementation. What is left to fail is a PAE host whose page-directory pointers went bad meanwhile: shutdown.
 * Source: APM vol.2 §15.5.1 Basic Operation, Saving Host State, §15.6 #VMEXIT, §15.23.1 Hardware Acceleration for LBR
 * Virtualization.
 */
import { Activity, Boundary, CR0, CR4, EFER, Flag, R, type Slot } from '../layout/cpu-state.js';
import { VirtExt } from '../layout/vmcb.js';
import type { PhysicalMemory } from '../mmu/memory.js';
import type { RegisterImage } from './register-image.js';
import { legalPdptes } from './vmrun-checks.js';
import type { VmrunRules } from './vmrun-rules.js';

const PE = Number(CR0.PE);
const PG = Number(CR0.PG);
const PAE = Number(CR4.PAE);
const LMA = Number(EFER.LMA);
const RF = Number(Flag.RF);
const TF = Number(Flag.TF);
const VM = Number(Flag.VM);
const RUNNING = Number(Activity.RUNNING);
const SHUTDOWN = Number(Activity.SHUTDOWN);
const SINGLE_STEP = Number(Boundary.SINGLE_STEP);
/** DR7 bit 10 reads as one. */
export const DR7_ONES = 0x400;
export const LBR_VIRTUALIZATION = Number(VirtExt.LBR_VIRTUALIZATION);
/** DebugCtl and the four registers behind it, in registers as in the VMCB. */
export const BRANCH_RECORD = 5;
/**
 * What of `boundary` belongs to the processor and not to the instruction stream. A hypervisor that contains SMM enters it
 * by SMM_CTL before it runs the handler (APM vol.2 §15.22.3 Containerizing Platform SMM).
 */
export const BOUNDARY_KEPT = Number(
  Boundary.NMI_BLOCKED |
    Boundary.NMI_PENDING |
    Boundary.INIT_PENDING |
    Boundary.SMI_PENDING |
    Boundary.IN_SMM |
    (Boundary.NMI_BLOCKED << Boundary.SMM_SHIFT),
);

/** What VMRUN keeps of the host (APM vol.2 §15.5.1 Basic Operation, Saving Host State). RIP is the next instruction's. */
export function saveHost(registers: RegisterImage, rules: VmrunRules): void {
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

/** @returns false when the host cannot go on. */
export function restoreHost(registers: RegisterImage, memory: PhysicalMemory, rules: VmrunRules): boolean {
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
  if ((registers.low(R.virtExt) & LBR_VIRTUALIZATION) !== 0) {
    for (let index = 0; index < BRANCH_RECORD; index++) {
      registers.copy((R.debugCtl + index) as Slot, (R.hostDebugCtl + index) as Slot);
    }
  }
  // To the host VMRUN is one instruction, complete now: with TF set its single-step trap is due.
  const step = (rflags & TF) === 0 || rules.dropsHostStep ? 0 : SINGLE_STEP;
  registers.set(R.boundary, (registers.low(R.boundary) & BOUNDARY_KEPT) | step);
  const legal = !hostInPaeMode(registers) || legalPdptes(memory, registers.low(R.hostCr3), rules.addressHighReserved);
  if (legal && hostInPaeMode(registers)) loadPdptes(registers, memory, registers.low(R.hostCr3));
  const goesOn = legal || rules.ignoresBadHostPdptes;
  registers.set(R.activity, goesOn ? RUNNING : SHUTDOWN);
  return goesOn;
}

/** The host's page-directory pointers are read again then (APM vol.2 §15.6 #VMEXIT). */
function hostInPaeMode(registers: RegisterImage): boolean {
  return (
    (registers.low(R.hostCr0) & PG) !== 0 &&
    (registers.low(R.hostEfer) & LMA) === 0 &&
    (registers.low(R.hostCr4) & PAE) !== 0
  );
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

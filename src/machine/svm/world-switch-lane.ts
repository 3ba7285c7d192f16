/**
 * What a hypervisor does for each run of its guest, on its usual way: CLGI, STGI, VMLOAD, VMSAVE and VMRUN of 64-bit code at
 * CPL 0, outside of a guest, past all their checks. Nothing can fault then and nothing is intercepted, so no transaction is needed: registers
 * and the VMCB are written at once by what the descriptions in `isa/svm.ts` call, too, and the event is the same
 * (docs/adr/0044). Whatever is unusual is declined before anything has happened, and the processor executes it.
 * Source: APM vol.2 §15.5.1 Basic Operation, §15.5.2 VMSAVE and VMLOAD Instructions, §15.17 Global Interrupt Flag, STGI and CLGI Instructions.
 */
import type { SwitchContext, VmcbShadow } from '../cpu/nested-virtualization.js';
import type { CpuProfile } from '../cpu/profile.js';
import type { Transaction } from '../cpu/transaction.js';
import type { DecodedInstruction } from '../decode/decoded.js';
import { type Level, type MachineEvent, type RegisterEvent, withRegisters } from '../events.js';
import { CR0, EFER, R, SvmMode } from '../layout/cpu-state.js';
import { RAM_BASE } from '../layout/linear-memory.js';
import { VMCB_BYTES } from '../layout/vmcb.js';
import type { PhysicalMemory } from '../mmu/memory.js';
import type { DirectRegisters } from '../wasm/direct-registers.js';
import { setGif } from './gif.js';
import { saveHost } from './host-state.js';
import { RegisterImage } from './register-image.js';
import { loadState, softwareChanges, storeState } from './vmload.js';
import { completeVmrun, enterGuest, prepareForVmrun, startsVirtualApic } from './vmrun.js';
import { type VmrunRules, vmrunRules } from './vmrun-rules.js';

/** What the lane needs of the machine around it. */
export interface LaneHost extends VmcbShadow {
  readonly memory: PhysicalMemory;
  readonly profile: CpuProfile;
  readonly directRegisters: DirectRegisters;
  /** States what ran since the last event. */
  flushRun(): void;
  /** States an event whose registers are written already. @param level that of the vCPU before it. */
  stateDirect(event: RegisterEvent, retired: 0 | 1, level: Level): void;
  stateEvent(event: MachineEvent, retired: 0 | 1): void;
}

/**
 * - `declined`: nothing has happened.
 * - `goes-on`: nothing can be due behind it that was not due before it.
 * - `done`: something may be due.
 */
export type LaneOutcome = 'declined' | 'goes-on' | 'done';

const SVME = Number(EFER.SVME);
const PE = Number(CR0.PE);
const PG = Number(CR0.PG);
const GUEST_MODE = Number(SvmMode.GUEST);
const NO_VMCB = -1;
/** The level of whoever executes these. */
const HOST = 1;

export class WorldSwitchLane implements SwitchContext {
  readonly vmcbShadow: VmcbShadow;
  private readonly image = new RegisterImage();
  /** What software changed in the VMCB though its clean bits say otherwise. */
  private stale: MachineEvent | undefined;
  private entered: RegisterEvent | undefined;
  private readonly needsSaveArea: boolean;
  private readonly registers: DirectRegisters;
  private readonly rules: VmrunRules;
  private readonly highAddressBits: number;

  /** @param tx for what VMRUN reads and writes of memory; its registers stay as they are. */
  constructor(
    readonly host: LaneHost,
    readonly tx: Transaction,
  ) {
    this.vmcbShadow = host;
    this.needsSaveArea = host.profile.deviations.has('vmrun-needs-save-area');
    this.registers = host.directRegisters;
    this.rules = vmrunRules(host.profile);
    this.highAddressBits = host.profile.physicalAddressBits - 32;
  }

  /**
   * @param insn the one at RIP, which no trap, breakpoint or shadow concerns: neither before it nor behind it is anything
   * but the next instruction.
   */
  execute(insn: DecodedInstruction): LaneOutcome {
    switch (insn.mnemonic) {
      case 'CLGI':
        return this.isPlain(insn) ? this.changeGif(insn, false) : 'declined';
      case 'STGI':
        return this.isPlain(insn) ? this.changeGif(insn, true) : 'declined';
      case 'VMLOAD':
        return this.vmload(insn);
      case 'VMSAVE':
        return this.vmsave(insn);
      case 'VMRUN':
        return this.vmrun(insn);
      default:
        return 'declined';
    }
  }

  /** Past what `requireSvm` and `requirePaging` ask for, where no intercept is. */
  private isPlain(insn: DecodedInstruction): boolean {
    const { registers } = this;
    return (
      insn.long &&
      (registers.low(R.svmMode) & GUEST_MODE) === 0 &&
      (registers.low(R.efer) & SVME) !== 0 &&
      registers.low(R.cpl) === 0 &&
      (registers.low(R.cr0) & PE) !== 0 &&
      (registers.low(R.cr0) & PG) !== 0
    );
  }

  /** The VMCB at rAX, in RAM; NO_VMCB where the instruction is not plain. */
  private vmcbOf(insn: DecodedInstruction): number {
    if (!this.isPlain(insn) || insn.addressWidth !== 64) return NO_VMCB;
    const low = this.registers.low(R.rax);
    const high = this.registers.high(R.rax);
    if (low % VMCB_BYTES !== 0 || high >>> this.highAddressBits !== 0) return NO_VMCB;
    const vmcb = high * 2 ** 32 + low;
    return this.host.memory.isRam(vmcb, VMCB_BYTES) ? vmcb : NO_VMCB;
  }

  private changeGif(insn: DecodedInstruction, set: boolean): LaneOutcome {
    const { host, registers } = this;
    host.flushRun();
    registers.begin();
    registers.advance(insn.length);
    setGif(registers, set);
    host.stateDirect({ type: 'svm.gif', set, registers: registers.finish() }, 1, HOST);
    return set ? 'done' : 'goes-on';
  }

  private vmload(insn: DecodedInstruction): LaneOutcome {
    const vmcb = this.vmcbOf(insn);
    if (vmcb === NO_VMCB) return 'declined';
    const { host, registers } = this;
    host.flushRun();
    const words = softwareChanges(host.memory, vmcb, host.knownWords(vmcb));
    registers.begin();
    registers.advance(insn.length);
    loadState(registers, host.memory, vmcb, this.rules);
    host.stateDirect({ type: 'svm.vmload', vmcb, words, registers: registers.finish() }, 1, HOST);
    return 'goes-on';
  }

  private vmsave(insn: DecodedInstruction): LaneOutcome {
    const vmcb = this.vmcbOf(insn);
    if (vmcb === NO_VMCB) return 'declined';
    const { host, registers } = this;
    host.flushRun();
    const words = storeState(registers, this, host.memory, vmcb, host.knownWords(vmcb));
    registers.begin();
    registers.advance(insn.length);
    host.stateDirect({ type: 'svm.vmsave', vmcb, words, registers: registers.finish() }, 1, HOST);
    return 'goes-on';
  }

  private vmrun(insn: DecodedInstruction): LaneOutcome {
    const { host, registers, rules, image, tx } = this;
    const vmcb = this.vmcbOf(insn);
    // NMIs that are blocked, SMM, whatever else a boundary may hold.
    if (vmcb === NO_VMCB || registers.low(R.boundary) !== 0 || rules.faultsOnUnbackedMsrpm) return 'declined';
    if (this.needsSaveArea && (registers.low(R.vmHsavePA) | registers.high(R.vmHsavePA)) === 0) return 'declined';
    tx.abort();
    this.stale = undefined;
    const block = prepareForVmrun(this, vmcb, rules);
    if (block.refused || startsVirtualApic(block, rules)) return 'declined';
    host.flushRun();
    if (this.stale !== undefined) host.stateEvent(this.stale, 0);
    image.begin(tx);
    saveHost(image, rules);
    const next = registers.low(R.rip) + insn.length;
    image.set(R.hostRip, next, registers.high(R.rip) + (next > 0xffff_ffff ? 1 : 0));
    enterGuest(image, block, vmcb, host.memory, rules);
    registers.begin();
    image.finish(registers);
    completeVmrun(this, registers, block, vmcb, rules);
    tx.commitMemory();
    const delta = registers.finish();
    host.stateDirect(withRegisters(this.entered as RegisterEvent, delta), 1, HOST);
    return 'done';
  }

  // SwitchContext, for VMRUN

  state(event: MachineEvent): void {
    this.stale = event;
  }
  outcome(event: RegisterEvent): void {
    this.entered = event;
  }
  /** Translations follow their tables (docs/adr/0021). */
  flushTlb(): void {}

  /** At once. @param address of an aligned quadword of RAM. */
  writeQuad(address: number, low: number, high: number): void {
    this.host.memory.writeHalves((RAM_BASE + address) >>> 2, low, high);
  }
}

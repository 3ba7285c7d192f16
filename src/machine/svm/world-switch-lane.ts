/**
 * What a hypervisor does for each run of its guest, on its usual way: CLGI, STGI, VMLOAD, VMSAVE and VMRUN of 64-bit code at
 * CPL 0, outside of a guest, past all their checks. Nothing can fault then and nothing is intercepted, so registers need no
 * transaction: what the descriptions in `isa/svm.ts` call writes them at once, and the event is the same (docs/adr/0044).
 * Whatever is unusual is declined before anything has happened, and the processor executes it.
 * Source: APM vol.2 §15.5.1 Basic Operation, §15.5.2 VMSAVE and VMLOAD Instructions, §15.17 Global Interrupt Flag, STGI and
 * CLGI Instructions.
 */
import type { NestedVirtualization, SwitchContext, VmcbShadow } from '../cpu/nested-virtualization.js';
import type { CpuProfile } from '../cpu/profile.js';
import type { Transaction } from '../cpu/transaction.js';
import type { DecodedInstruction } from '../decode/decoded.js';
import { invariant } from '../errors.js';
import { type Level, type MachineEvent, type RegisterEvent, withRegisters } from '../events.js';
import { CR0, EFER, EMPTY_DELTA, type HalvesWriter, R, SvmMode } from '../layout/cpu-state.js';
import { VMCB_BYTES } from '../layout/vmcb.js';
import type { PhysicalMemory } from '../mmu/memory.js';
import type { DirectRegisters } from '../wasm/direct-registers.js';
import { setGif } from './gif.js';
import { startsVirtualApic } from './vmrun.js';
import { type VmrunRules, vmrunRules } from './vmrun-rules.js';

/** What the lane needs of the machine around it. */
export interface LaneHost extends VmcbShadow {
  readonly memory: PhysicalMemory;
  readonly profile: CpuProfile;
  readonly nested: NestedVirtualization;
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
  private readonly registers: DirectRegisters;
  private readonly rules: VmrunRules;
  private readonly highAddressBits: number;
  private readonly needsSaveArea: boolean;
  /** Of the instruction under way. */
  private length = 0;
  private event: RegisterEvent | undefined;
  /** What stands before its event. */
  private before: MachineEvent | undefined;

  /** @param tx for what is read and written of memory; it holds no register. */
  constructor(
    private readonly host: LaneHost,
    readonly tx: Transaction,
  ) {
    this.vmcbShadow = host;
    this.registers = host.directRegisters;
    this.rules = vmrunRules(host.profile);
    this.highAddressBits = host.profile.physicalAddressBits - 32;
    this.needsSaveArea = host.profile.deviations.has('vmrun-needs-save-area');
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
        return this.moveState(insn, true);
      case 'VMSAVE':
        return this.moveState(insn, false);
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
    this.begin(insn);
    this.host.flushRun();
    setGif(this.target(), set);
    this.outcome({ type: 'svm.gif', set, registers: EMPTY_DELTA });
    this.complete();
    return set ? 'done' : 'goes-on';
  }

  private moveState(insn: DecodedInstruction, loads: boolean): LaneOutcome {
    const vmcb = this.vmcbOf(insn);
    if (vmcb === NO_VMCB) return 'declined';
    const { nested } = this.host;
    this.begin(insn);
    this.host.flushRun();
    if (loads) nested.vmload(this, vmcb);
    else {
      nested.vmsave(this, vmcb);
      // It writes no register but RIP.
      this.target();
    }
    this.complete();
    return 'goes-on';
  }

  private vmrun(insn: DecodedInstruction): LaneOutcome {
    const { host, registers, rules } = this;
    const vmcb = this.vmcbOf(insn);
    // NMIs that are blocked, SMM, whatever else a boundary may hold.
    if (vmcb === NO_VMCB || registers.low(R.boundary) !== 0 || rules.faultsOnUnbackedMsrpm) return 'declined';
    if (this.needsSaveArea && (registers.low(R.vmHsavePA) | registers.high(R.vmHsavePA)) === 0) return 'declined';
    this.begin(insn);
    const block = host.nested.prepareForVmrun(this, vmcb);
    if (block.refused || startsVirtualApic(block, rules)) return 'declined';
    host.flushRun();
    if (this.before !== undefined) host.stateEvent(this.before, 0);
    // The host's RIP is that of the next instruction; the guest's takes its place.
    registers.advanceQuietly(insn.length);
    this.length = 0;
    host.nested.vmrun(this, vmcb, block);
    this.complete();
    return 'done';
  }

  private begin(insn: DecodedInstruction): void {
    this.tx.abort();
    this.length = insn.length;
    this.event = undefined;
    this.before = undefined;
  }

  private complete(): void {
    const { event, tx } = this;
    invariant(event !== undefined, 'an instruction of the lane has an event');
    const delta = this.registers.finish();
    tx.commitMemory();
    this.host.stateDirect(withRegisters(event, delta), 1, HOST);
  }

  // SwitchContext

  target(): HalvesWriter {
    const { registers, length } = this;
    registers.begin();
    if (length > 0) registers.advance(length);
    return registers;
  }
  state(event: MachineEvent): void {
    this.before = event;
  }
  outcome(event: RegisterEvent): void {
    this.event = event;
  }
  /** Translations follow their tables (docs/adr/0021). */
  flushTlb(): void {}
}

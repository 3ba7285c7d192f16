/**
 * SVM behind the operations that the processor knows (cpu/nested-virtualization.ts): each is a few lines here, over the
 * rooms that hold the details. What a profile and its deviations decide is looked up once.
 */
import type { CpuidLeaf, CpuProfile } from '../cpu/cpuid.js';
import type { SlotReader } from '../cpu/mode.js';
import type {
  BlockableEvent,
  DirectWriter,
  GuestBlock,
  InterruptBlock,
  MappedAccess,
  NestedVirtualization,
  RegisterValues,
  SwitchContext,
  VmexitOutcome,
  VmexitSite,
} from '../cpu/nested-virtualization.js';
import type { Transaction } from '../cpu/transaction.js';
import { invariant } from '../errors.js';
import type { EventOf, VmcbDelta } from '../events.js';
import { type LowReader, R, type RegisterDelta, type Slot, SvmMode } from '../layout/cpu-state.js';
import type { PhysicalMemory } from '../mmu/memory.js';
import { AVIC_SLOTS } from './avic.js';
import { svmLeaf } from './features.js';
import { gifSet } from './gif.js';
import { restoreHost, saveHost } from './host-state.js';
import { virtualInterruptDue, virtualNmiDue } from './injection.js';
import { INTERCEPT_SLOTS, INTERCEPTS, type InterceptName, interceptRequested } from './intercepts.js';
import { interruptBlock } from './interrupt-block.js';
import { interruptRules } from './interrupt-rules.js';
import { ioExitInfo, mapBase, msrIntercepted, portIntercepted, unalignedMapBase } from './permission-maps.js';
import { RegisterImage } from './register-image.js';
import { prepareForVmexit } from './vmexit.js';
import { VmExit } from './vmexit-request.js';
import { vmload, vmsave } from './vmload.js';
import { completeVmrun, enterGuest, prepareForVmrun, refuseVmrun } from './vmrun.js';
import { AVIC_ENABLE, vmrunRules } from './vmrun-rules.js';

/** PAT after RESET (APM vol.2 table 7-9): WB, WT, UC-, UC, twice. */
export const PAT_RESET = 0x0007_0406_0007_0406n;
/** 1.0 in 8.32 fixed point (APM vol.2 §15.30.5 TSC Ratio MSR). */
const TSC_RATIO_ONE = 1n << 32n;

/** What means something while a guest runs only. Outside nothing is intercepted, offset or virtual. */
const GUEST_CONTROLS: readonly Slot[] = [
  R.svmMode,
  ...INTERCEPT_SLOTS,
  R.tscOffset,
  R.guestAsid,
  R.intControl,
  R.nestedControl,
  R.exitIntInfo,
  R.eventInjection,
  R.eventNextRip,
];

class NestedSvm implements NestedVirtualization {
  private readonly rules;
  private readonly interrupts;
  private readonly mapBase;
  private readonly everyByte: boolean;
  private readonly tellsSegment: boolean;
  private readonly leaf: CpuidLeaf;
  private readonly image = new RegisterImage();

  constructor(profile: CpuProfile) {
    const { deviations } = profile;
    this.rules = vmrunRules(profile);
    this.leaf = svmLeaf(profile);
    this.interrupts = interruptRules(profile);
    this.mapBase = deviations.has('permission-map-base-unaligned') ? unalignedMapBase : mapBase;
    this.everyByte = deviations.has('ioio-every-byte');
    this.tellsSegment = this.rules.decodeAssists && !deviations.has('ioio-without-segment');
  }

  initialise(): RegisterValues {
    return [
      [R.svmMode, SvmMode.GIF],
      [R.guestPat, PAT_RESET],
      [R.tscRatio, TSC_RATIO_ONE],
    ];
  }

  /** GIF is set then, whatever it was. */
  destroy(): RegisterValues {
    return [...GUEST_CONTROLS, ...AVIC_SLOTS].map((slot) => [slot, slot === R.svmMode ? SvmMode.GIF : 0n] as const);
  }

  features(): CpuidLeaf {
    return this.leaf;
  }

  hostSave(image: RegisterImage): void {
    saveHost(image, this.rules);
  }

  hostRestore(image: RegisterImage, memory: PhysicalMemory): boolean {
    return restoreHost(image, memory, this.rules);
  }

  vmload(context: SwitchContext, vmcb: number): void {
    vmload(context, vmcb, this.rules);
  }

  vmsave(context: SwitchContext, vmcb: number): void {
    vmsave(context, vmcb);
  }

  prepareForVmrun(context: SwitchContext, vmcb: number): GuestBlock {
    return prepareForVmrun(context, vmcb, this.rules);
  }

  vmrun(context: SwitchContext, vmcb: number, block = this.prepareForVmrun(context, vmcb)): void {
    const { image, rules } = this;
    const { tx } = context;
    if (block.refused) {
      refuseVmrun(context, block, vmcb, rules);
      return;
    }
    image.begin(tx);
    this.hostSave(image);
    enterGuest(image, block, vmcb, tx.host.memory, rules);
    const to = context.target();
    image.finish(to);
    completeVmrun(context, to, block, vmcb, rules);
  }

  prepareForVmexit(image: RegisterImage, tx: Transaction, exit: VmExit, site: VmexitSite): VmcbDelta {
    return prepareForVmexit(image, tx, exit, site, this.rules);
  }

  vmexit(tx: Transaction, exit: VmExit, site: VmexitSite, direct?: DirectWriter): VmexitOutcome {
    invariant((tx.get(R.svmMode) & SvmMode.GUEST) !== 0n, '#VMEXIT without a guest');
    const { image } = this;
    const vmcb = Number(tx.get(R.vmcb));
    const intInfo = tx.get(R.exitIntInfo);
    image.begin(tx);
    const words = this.prepareForVmexit(image, tx, exit, site);
    for (const slot of GUEST_CONTROLS) image.set(slot, 0);
    const hostShutdown = !this.hostRestore(image, tx.host.memory);
    const hadVirtualApic = (image.low(R.intControl) & AVIC_ENABLE) !== 0;
    direct?.begin();
    const to = direct ?? tx;
    image.finish(to);
    // Slots behind those of the switch.
    if (hadVirtualApic) for (const slot of AVIC_SLOTS) to.setHalves(slot, 0, 0);
    return { vmcb, code: exit.code, info1: exit.info1, info2: exit.info2, intInfo, words, hostShutdown };
  }

  isIntercepted(low: LowReader, name: InterceptName): boolean {
    return interceptRequested(low, name);
  }

  specialIntercept(cpu: SlotReader, memory: PhysicalMemory, asked: MappedAccess): VmExit | undefined {
    if (asked.kind === 'msr') {
      const map = this.mapBase(cpu.get(R.msrpmBase));
      if (!msrIntercepted(memory, map, asked.msr, asked.write)) return undefined;
      return new VmExit(INTERCEPTS.MSR_PROT.exitCode, asked.write ? 1n : 0n, 0n, true);
    }
    const { access, nextRip } = asked;
    const map = this.mapBase(cpu.get(R.iopmBase));
    if (!portIntercepted(memory, map, access.port, access.size, this.everyByte)) return undefined;
    const info = ioExitInfo(this.tellsSegment ? access : { ...access, segment: 0 });
    return new VmExit(INTERCEPTS.IOIO_PROT.exitCode, info, nextRip, true);
  }

  interruptBlocked(cpu: SlotReader, event: BlockableEvent): InterruptBlock | undefined {
    return interruptBlock(cpu, event, this.interrupts);
  }

  virtualEventDue(cpu: SlotReader): 'virtual-nmi' | 'virtual' | undefined {
    if (virtualNmiDue(cpu)) return 'virtual-nmi';
    return virtualInterruptDue(cpu, this.interrupts) ? 'virtual' : undefined;
  }

  /** While GIF is clear (APM vol.2 table 15-10); single steps are not. */
  breakpointsDiscarded(cpu: SlotReader): boolean {
    return this.interrupts.discardsBreakpoints && !gifSet(cpu);
  }
}

const known = new WeakMap<CpuProfile, NestedVirtualization>();

/** The extension of processors with this profile. */
export function virtualizationOf(profile: CpuProfile): NestedVirtualization {
  const found = known.get(profile);
  if (found !== undefined) return found;
  const made = new NestedSvm(profile);
  known.set(profile, made);
  return made;
}

export function vmexitEvent(outcome: VmexitOutcome, registers: RegisterDelta): EventOf<'svm.vmexit'> {
  const { vmcb, code, info1, info2, intInfo, words } = outcome;
  return { type: 'svm.vmexit', vmcb, code, info1, info2, intInfo, words, registers };
}

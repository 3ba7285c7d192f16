/**
 * KVM's interface at work: what the processor asks of it, what it does before a vCPU goes on, and what inputs of the host
 * mean. Clocks, steal time and the end of interrupts are told here; pages and hypercalls have files of their own.
 * Source: Linux, Documentation/virt/kvm/x86/msr.rst, KVM-specific MSRs; for the end of interrupts also KVM's lapic.c,
 * apic_sync_pv_eoi_to_guest and apic_sync_pv_eoi_from_guest.
 */
import type { CpuidLeaf } from '../cpu/cpuid.js';
import { decideEndOfInterrupt } from '../devices/devices.js';
import { hasVector, highestVector, type LocalApicState } from '../devices/local-apic-state.js';
import { Activity, R } from '../layout/cpu-state.js';
import { type SPA, sPA, TSC_HERTZ, u64 } from '../units.js';
import { fillVcpuTime, fillWallClock, timeScale } from './clock.js';
import { kvmLeaf } from './cpuid.js';
import { isGuestRam, updateStructure } from './guest-ram.js';
import { type KvmHost, paravirtOf, registerOf, wake } from './host.js';
import type { HostInput } from './host-input.js';
import { kvmHypercall } from './hypercall.js';
import type { Hypercall, MissContext, MissOutcome, Paravirt } from './interface.js';
import { acceptsKvmMsr, ENABLED, KvmMsr } from './msr.js';
import { AsyncPages } from './page-faults.js';
import { type ParavirtVcpu, paravirtVcpu, readKvmMsr } from './state.js';
import { nextVersion, Preempted, STEAL_TIME, VCPU_TIME, WALL_CLOCK } from './structures.js';

/** The guest may end the interrupt in service by clearing this. */
const EOI_PENDING = 1n;

export class KvmInterface implements Paravirt {
  readonly pages: AsyncPages;
  private readonly scale = timeScale(TSC_HERTZ);

  constructor(private readonly host: KvmHost) {
    this.pages = new AsyncPages(host);
  }

  /** The state is that of another moment. */
  restored(): void {
    this.pages.restored();
  }

  // What the processor asks for

  cpuidLeaf(leaf: number): CpuidLeaf {
    return kvmLeaf(leaf, this.host.state.vcpus.length);
  }

  readMsr(vcpu: number, msr: number): bigint {
    return readKvmMsr(paravirtOf(this.host), this.vcpu(vcpu), msr);
  }

  writeMsr(vcpu: number, msr: number, value: bigint): boolean {
    if (!acceptsKvmMsr(msr, value, (address, length) => isGuestRam(this.host.memory, address, length))) return false;
    if (msr === KvmMsr.EOI_EN) this.settleEoi(vcpu);
    const { oldClock } = this.vcpu(vcpu);
    if (msr !== KvmMsr.ASYNC_PF_ACK) this.host.stateEvent({ type: 'paravirt.written', vcpu, msr, value }, 0);
    switch (msr) {
      case KvmMsr.WALL_CLOCK:
      case KvmMsr.WALL_CLOCK_NEW:
        this.tellWallClock(vcpu);
        break;
      case KvmMsr.SYSTEM_TIME:
      case KvmMsr.SYSTEM_TIME_NEW:
        this.timeRegistered(vcpu, oldClock);
        break;
      case KvmMsr.STEAL_TIME:
        this.tellStealTime(vcpu);
        break;
      case KvmMsr.ASYNC_PF_EN:
        this.pages.settle(vcpu);
        break;
      case KvmMsr.ASYNC_PF_ACK:
        if ((value & 1n) !== 0n) this.pages.settle(vcpu);
        break;
    }
    return true;
  }

  hypercall(vcpu: number, call: Hypercall): bigint {
    return u64(kvmHypercall(this.host, vcpu, call));
  }

  missPage(vcpu: number, page: SPA, context: MissContext): MissOutcome {
    return this.pages.miss(vcpu, page, context);
  }

  waitForPage(vcpu: number, page: SPA): void {
    this.pages.wait(vcpu, page);
  }

  // What the machine tells

  /** Before a vCPU goes on, whether it runs or waits: a kick ends the HLT that it has executed since. */
  attend(vcpu: number): void {
    if (!this.vcpu(vcpu).kicked || registerOf(this.host, vcpu, R.activity) !== Activity.HALTED) return;
    this.host.stateEvent({ type: 'paravirt.kicked', vcpu, pending: false }, 0);
    wake(this.host, vcpu);
  }

  /** The turn of a vCPU is over. */
  leaves(vcpu: number): void {
    const address = this.stealTimeOf(vcpu);
    if (address === undefined || registerOf(this.host, vcpu, R.activity) !== Activity.RUNNING) return;
    this.host.memory.write(sPA(Number(address) + STEAL_TIME.fields.preempted.offset), 1, BigInt(Preempted.PREEMPTED));
    this.host.stateEvent({ type: 'paravirt.preempted', vcpu, at: this.host.now }, 0);
  }

  /** A vCPU has its turn. */
  enters(vcpu: number): void {
    const { preempted } = this.vcpu(vcpu);
    if (preempted === null) return;
    this.host.stateEvent({ type: 'paravirt.stolen', vcpu, nanoseconds: this.host.now - preempted }, 0);
    this.tellStealTime(vcpu);
  }

  /** Interrupts have come to vCPUs: whether they may be taken depends on whether those in service are over. */
  interruptsArrived(): void {
    for (const [vcpu, { eoiOffered }] of paravirtOf(this.host).vcpus.entries()) {
      if (eoiOffered && highestVector(this.apic(vcpu).irr) >= 0) this.settleEoi(vcpu);
    }
  }

  /** The processor has acknowledged an interrupt of its local APIC. */
  interruptTaken(vcpu: number): void {
    const { eoi, eoiOffered } = this.vcpu(vcpu);
    if ((eoi & ENABLED) === 0n || eoiOffered || !mayOfferEoi(this.apic(vcpu))) return;
    this.host.memory.write(eoiAddress(eoi), 1, EOI_PENDING);
    this.host.stateEvent({ type: 'paravirt.eoi', vcpu, what: 'offered' }, 0);
  }

  /** What is in service is about to be looked at or changed: has the guest ended it? If not, it must do so at its APIC. */
  settleEoi(vcpu: number): void {
    const { eoi, eoiOffered } = this.vcpu(vcpu);
    if (!eoiOffered) return;
    const isTaken = (this.host.memory.read(eoiAddress(eoi), 1) & EOI_PENDING) === 0n;
    if (!isTaken) this.host.memory.write(eoiAddress(eoi), 1, 0n);
    this.host.stateEvent({ type: 'paravirt.eoi', vcpu, what: isTaken ? 'taken' : 'withdrawn' }, 0);
    if (isTaken) this.host.apply(decideEndOfInterrupt(this.host.state.devices, vcpu, this.host.now));
  }

  /** The vCPU's TSC is about to read as virtual time plus `base`. */
  tscMoved(vcpu: number, base: bigint): void {
    this.tellTimes((other) => (other === vcpu ? base : registerOf(this.host, other, R.tscBase)));
  }

  /** INIT. */
  reset(vcpu: number): void {
    this.host.stateEvent({ type: 'paravirt.reset', vcpu }, 0);
  }

  /** After an input was applied. */
  hostActed(input: HostInput): void {
    switch (input.type) {
      case 'input.pages':
        this.pages.changed(input);
        return;
      case 'input.stolen':
        for (const vcpu of paravirtOf(this.host).vcpus.keys()) this.stealFrom(vcpu, input.nanoseconds);
        return;
      case 'input.paused':
        this.tellTimes((vcpu) => registerOf(this.host, vcpu, R.tscBase), true);
        return;
    }
  }

  /** From a vCPU that would have run; from one that waits for its turn this is taken anyway, and told then. */
  private stealFrom(vcpu: number, nanoseconds: number): void {
    if (this.vcpu(vcpu).preempted !== null || registerOf(this.host, vcpu, R.activity) !== Activity.RUNNING) return;
    this.host.stateEvent({ type: 'paravirt.stolen', vcpu, nanoseconds }, 0);
    this.tellStealTime(vcpu);
  }

  // Structures

  private tellWallClock(vcpu: number): void {
    const { memory } = this.host;
    const { wallClock: address, unixSeconds } = paravirtOf(this.host);
    if (address === 0n || !isGuestRam(memory, address, WALL_CLOCK.bytes)) return;
    updateStructure(memory, WALL_CLOCK, address, (fields) => fillWallClock(fields, unixSeconds));
    this.stateUpdate(vcpu, 'wall-clock', address);
  }

  /** A vCPU has registered its clock. @param wasOld whether it had done so by the old number before. */
  private timeRegistered(vcpu: number, wasOld: boolean): void {
    const bases = (other: number): bigint => registerOf(this.host, other, R.tscBase);
    // What the boot processor uses decides for all of them.
    if (vcpu === 0 && this.vcpu(0).oldClock !== wasOld) this.tellTimes(bases);
    else this.tellTime(vcpu, bases);
  }

  private tellTimes(tscBases: (vcpu: number) => bigint, wasStopped = false): void {
    for (const vcpu of paravirtOf(this.host).vcpus.keys()) this.tellTime(vcpu, tscBases, wasStopped);
  }

  private tellTime(vcpu: number, tscBases: (vcpu: number) => bigint, wasStopped = false): void {
    const { memory, now, state } = this.host;
    const { systemTime } = this.vcpu(vcpu);
    const address = systemTime & ~ENABLED;
    if ((systemTime & ENABLED) === 0n || !isGuestRam(memory, address, VCPU_TIME.bytes)) return;
    const base = tscBases(vcpu);
    // Guests that use the old number are too old to know the flag.
    const isStable = !this.vcpu(0).oldClock && state.vcpus.every((_, other) => tscBases(other) === base);
    updateStructure(memory, VCPU_TIME, address, (fields) =>
      fillVcpuTime(fields, { tsc: u64(BigInt(now) + base), now, scale: this.scale, isStable, wasStopped }),
    );
    this.stateUpdate(vcpu, 'clock', address);
  }

  /** Where the vCPU's steal time is told, if it is. */
  private stealTimeOf(vcpu: number): bigint | undefined {
    const { stealTime } = this.vcpu(vcpu);
    const address = stealTime & ~ENABLED;
    return (stealTime & ENABLED) !== 0n && isGuestRam(this.host.memory, address, STEAL_TIME.bytes)
      ? address
      : undefined;
  }

  /** Tells the time stolen since the last update; and that the vCPU runs. */
  private tellStealTime(vcpu: number): void {
    const address = this.stealTimeOf(vcpu);
    if (address === undefined) return;
    const { stolen, reported } = this.vcpu(vcpu);
    updateStructure(this.host.memory, STEAL_TIME, address, (fields) => {
      if ((fields.preempted & Preempted.FLUSH_TLB) !== 0) this.host.engine.flush();
      fields.version = nextVersion(fields.version);
      fields.steal += BigInt(stolen - reported);
      fields.preempted = 0;
    });
    this.stateUpdate(vcpu, 'steal-time', address);
  }

  private stateUpdate(vcpu: number, structure: 'wall-clock' | 'clock' | 'steal-time', address: bigint): void {
    const layout = { 'wall-clock': WALL_CLOCK, clock: VCPU_TIME, 'steal-time': STEAL_TIME }[structure];
    const at = Number(address) + layout.fields.version.offset;
    const version = Number(this.host.memory.read(sPA(at), 4));
    this.host.stateEvent({ type: 'paravirt.updated', vcpu, structure, address, version }, 0);
  }

  private vcpu(vcpu: number): ParavirtVcpu {
    return paravirtVcpu(paravirtOf(this.host), vcpu);
  }
  private apic(vcpu: number): LocalApicState {
    return this.host.state.devices.localApics[vcpu] as LocalApicState;
  }
}

const eoiAddress = (eoi: bigint): SPA => sPA(Number(eoi & ~ENABLED));

/** Not while another interrupt waits, and not for one whose end I/O APICs must hear. */
function mayOfferEoi({ irr, isr, tmr }: LocalApicState): boolean {
  const served = highestVector(isr);
  return served >= 0 && highestVector(irr) < 0 && !hasVector(tmr, served);
}

/** How the processors reach devices: memory behind RAM, ports, MSRs, CR8. What a device decides is applied at once. */

import type { ProcessorBus } from './cpu/processor-host.js';
import type { CpuProfile } from './cpu/profile.js';
import {
  type Decision,
  decideCR8Write,
  decideMmioRead,
  decideMmioWrite,
  decideMsrWrite,
  decidePortRead,
  decidePortWrite,
  decideWideMmioWrite,
  readCR8,
  readMsr,
} from './devices/devices.js';
import { MSR_APIC_BASE } from './devices/local-apic-msr.js';
import type { MachineEvent } from './events.js';
import { R, type RegisterFile } from './layout/cpu-state.js';
import type { KvmInterface } from './paravirt/kvm.js';
import type { MachineState } from './reduce.js';
import { type Nanoseconds, type SPA, sPA } from './units.js';

/** What the bus needs of the machine. */
export interface DeviceBusHost {
  readonly state: MachineState;
  readonly profile: CpuProfile;
  readonly paravirt: KvmInterface | undefined;
  readonly vcpu: number;
  readonly registers: RegisterFile;
  readonly now: Nanoseconds;
  timeAfter(instructions: number): Nanoseconds;
  stateEvent(event: MachineEvent, retired: 0 | 1): void;
  apply(decision: Decision): void;
}

export class DeviceBus implements ProcessorBus {
  constructor(private readonly host: DeviceBusHost) {}

  read(address: SPA, size: number): bigint {
    if (size > 4) return this.read(address, 4) | (this.read(sPA(address + 4), size - 4) << 32n);
    const { host } = this;
    host.paravirt?.settleEoi(host.vcpu);
    const read = decideMmioRead(host.state.devices, host.vcpu, address, size, host.now);
    if (read === undefined) return this.unclaimed('memory', address, size);
    host.apply({ events: read.events, signals: [], request: null });
    return BigInt(read.value);
  }

  write(address: SPA, size: number, value: bigint): void {
    if (size > 4) {
      if (size === 8 && this.writeWhole(address, value)) return;
      this.write(address, 4, value & 0xffff_ffffn);
      this.write(sPA(address + 4), size - 4, value >> 32n);
      return;
    }
    const { host } = this;
    host.paravirt?.settleEoi(host.vcpu);
    const decision = decideMmioWrite(host.state.devices, host.vcpu, address, Number(value), size, host.now);
    if (decision === undefined) this.unclaimed('memory', address, size, value);
    else host.apply(decision);
  }

  /** Eight bytes to a device that takes them as one. @returns false when there is none. */
  private writeWhole(address: SPA, value: bigint): boolean {
    const { host } = this;
    const [low, high] = [Number(value & 0xffff_ffffn), Number(value >> 32n)];
    const decision = decideWideMmioWrite(host.state.devices, host.vcpu, address, low, high, host.now);
    if (decision !== undefined) host.apply(decision);
    return decision !== undefined;
  }

  readPort(port: number, size: number): bigint {
    const { host } = this;
    const read = decidePortRead(host.state.devices, port, size, host.now);
    if (read === undefined) return this.unclaimed('port', port, size);
    host.apply({ events: read.events, signals: [], request: null });
    return BigInt(read.value);
  }

  /** What a port reads so many instructions after those that are counted; undefined where reading is an event. */
  pollPort(port: number, size: number, instructions: number): number | undefined {
    const read = decidePortRead(this.host.state.devices, port, size, this.host.timeAfter(instructions));
    return read?.events.length === 0 ? read.value : undefined;
  }

  writePort(port: number, size: number, value: bigint): void {
    const { host } = this;
    const decision = decidePortWrite(host.state.devices, port, Number(value), size, host.now);
    if (decision === undefined) this.unclaimed('port', port, size, value);
    else host.apply(decision);
  }

  /** Whether a write to a port, at the same time as `pollPort`, is one of which nothing comes. */
  forgetsWrite(port: number, size: number, value: number, instructions: number): boolean {
    const decision = decidePortWrite(this.host.state.devices, port, value, size, this.host.timeAfter(instructions));
    return decision?.events.length === 0 && decision.signals.length === 0 && decision.request === null;
  }

  readMsr(msr: number): bigint | 'fault' | undefined {
    const { host } = this;
    if (msr !== MSR_APIC_BASE) host.paravirt?.settleEoi(host.vcpu);
    return readMsr(host.state.devices, host.vcpu, msr, host.now);
  }

  /** @returns false for #GP, undefined when no device has the MSR. */
  writeMsr(msr: number, value: bigint): boolean | undefined {
    const { host } = this;
    host.paravirt?.settleEoi(host.vcpu);
    const decision = decideMsrWrite(host.state.devices, host.vcpu, msr, value, host.now, {
      tscOffset: host.registers[R.tscBase] as bigint,
      physicalAddressBits: host.profile.physicalAddressBits,
    });
    if (decision === undefined) return undefined;
    if (decision === 'fault') return false;
    host.apply(decision);
    return true;
  }

  readTaskPriority(): bigint {
    return BigInt(readCR8(this.host.state.devices, this.host.vcpu));
  }

  writeTaskPriority(value: bigint): void {
    this.host.apply(decideCR8Write(this.host.state.devices, this.host.vcpu, Number(value)));
  }

  /** Nobody answers. @param written undefined for a read. @returns what floats there. */
  private unclaimed(space: 'memory' | 'port', address: number, size: number, written?: bigint): bigint {
    const value = written ?? (1n << BigInt(8 * size)) - 1n;
    this.host.stateEvent({ type: 'bus.unclaimed', space, address, size, write: written !== undefined, value }, 0);
    return value;
  }
}

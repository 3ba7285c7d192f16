/**
 * The side of the processor that faces the machine: registers, memory, translation, devices and clocks, as transactions
 * and descriptions of instructions ask for them.
 */
import { invariant } from '../errors.js';
import { R, type RegisterFile, type Slot } from '../layout/cpu-state.js';
import type { PhysicalMemory } from '../mmu/memory.js';
import { VIRTUAL_APIC_FRAME } from '../mmu/nested-walk.js';
import { ABSENT_PAGE, nestedErrorCode } from '../mmu/page-walk.js';
import { admitVirtualApicAccess, readVirtualApic, type VirtualApicSite, writeVirtualApic } from '../svm/avic.js';
import type { InterceptName } from '../svm/intercepts.js';
import { NestedPageFault, type VmExit } from '../svm/vmexit-request.js';
import { type Nanoseconds, type SPA, sPA, uN } from '../units.js';
import { accessFault } from './access-fault.js';
import type { NestedVirtualization, VmcbShadow } from './nested-virtualization.js';
import { HWCR_IGNNE_EMULATION } from './numeric-error.js';
import type { ProcessorHost } from './processor-host.js';
import type { CpuProfile } from './profile.js';
import { StoredMsr } from './stored-msrs.js';
import { AbsentPage, Access, type Transaction, type TransactionHost } from './transaction.js';

const MSR_APIC_BASE = 0x1b;
const MSR_TSC_DEADLINE = 0x6e0;
const X2APIC_FIRST = 0x800;

export abstract class MachineAccess implements TransactionHost {
  readonly vmcbShadow: VmcbShadow;
  abstract readonly tx: Transaction;
  abstract isIntercepted(name: InterceptName): boolean;

  constructor(protected readonly machine: ProcessorHost) {
    this.vmcbShadow = machine;
    this.virtualApic = {
      cpu: { get: (slot) => this.get(slot) },
      memory: machine.memory,
      state: (event) => machine.stateEvent(event, 0),
      ringDoorbell: (apicId) => machine.ringDoorbell(apicId),
    };
  }

  get profile(): CpuProfile {
    return this.machine.profile;
  }
  get nested(): NestedVirtualization {
    return this.machine.nested;
  }
  get now(): Nanoseconds {
    return this.machine.now;
  }
  get vcpu(): number {
    return this.machine.vcpu;
  }

  protected get(slot: Slot): bigint {
    return this.machine.registers[slot] as bigint;
  }

  get registers(): RegisterFile {
    return this.machine.registers;
  }
  get memory(): PhysicalMemory {
    return this.machine.memory;
  }

  translate(tx: Transaction, linear: bigint, access: number): SPA {
    const { engine } = this.machine;
    const address = engine.translate(linear, access, tx);
    if (address >= 0) {
      if (address >= VIRTUAL_APIC_FRAME) admitVirtualApicAccess(address - VIRTUAL_APIC_FRAME, access);
      return sPA(address);
    }
    const { result } = engine.walker;
    if (address === ABSENT_PAGE) throw new AbsentPage(sPA(result.sPA));
    throw accessFault(result, linear);
  }

  nestedAddress(address: number, write: boolean): number {
    const { engine } = this.machine;
    const frame = engine.translateNested(address, write ? Access.WRITE : 0);
    if (frame >= 0) return frame;
    if (frame === ABSENT_PAGE) throw new AbsentPage(sPA(engine.walker.result.sPA));
    throw new NestedPageFault(nestedErrorCode(engine.walker.result), BigInt(address));
  }

  get ignoresNumericErrors(): boolean {
    const emulated = (this.get(R.hwcr) & HWCR_IGNNE_EMULATION) !== 0n;
    return emulated ? this.storedMsr(StoredMsr.IGNNE.msr) !== 0n : this.machine.ignne;
  }

  readDevice(address: SPA, size: number): bigint {
    if (address < VIRTUAL_APIC_FRAME) return this.machine.bus.read(address, size);
    return readVirtualApic(this.virtualApic.cpu, this.memory, address - VIRTUAL_APIC_FRAME, size);
  }
  writeDevice(address: SPA, size: number, value: bigint): void {
    if (address < VIRTUAL_APIC_FRAME) this.machine.bus.write(address, size, value);
    else this.exitAfter(writeVirtualApic(this.virtualApic, address - VIRTUAL_APIC_FRAME, size, value));
  }

  /** What the guest's virtual APIC sees of this processor. */
  protected readonly virtualApic: VirtualApicSite;
  /** The exit, if any, follows the instruction or the delivery that is being committed. */
  protected abstract exitAfter(exit: VmExit | undefined): void;

  ringDoorbell(apicId: number): void {
    this.machine.ringDoorbell(apicId);
  }

  readPort(port: number, size: number): bigint {
    return this.machine.bus.readPort(port, size);
  }
  writePort(port: number, size: number, value: bigint): void {
    this.machine.bus.writePort(port, size, value);
  }
  readApicRegister(register: number): bigint | undefined {
    const value = this.machine.bus.readMsr(X2APIC_FIRST + register);
    return value === 'fault' ? undefined : value;
  }
  writeApicRegister(register: number, value: bigint): boolean {
    return this.machine.bus.writeMsr(X2APIC_FIRST + register, value) ?? false;
  }
  readApicBase(): bigint {
    const value = this.machine.bus.readMsr(MSR_APIC_BASE);
    invariant(typeof value === 'bigint', 'the local APIC has its base register');
    return value;
  }
  writeApicBase(value: bigint): boolean {
    return this.machine.bus.writeMsr(MSR_APIC_BASE, value) ?? false;
  }
  readTaskPriority(): bigint {
    return this.machine.bus.readTaskPriority();
  }
  writeTaskPriority(value: bigint): void {
    this.machine.bus.writeTaskPriority(value);
  }
  drawEntropy(): bigint {
    return this.machine.drawEntropy();
  }
  storedMsr(msr: number): bigint {
    return this.machine.storedMsr(msr);
  }
  get resetTime(): bigint {
    return BigInt(this.machine.resetAt);
  }
  readTsc(): bigint {
    return this.machine.readTsc();
  }
  writeTsc(value: bigint): void {
    const base = uN(64, value - this.machine.readTsc() + this.get(R.tscBase));
    this.tx.set(R.tscBase, base);
    this.machine.tscMoved(base);
  }
  readTscDeadline(): bigint {
    const value = this.machine.bus.readMsr(MSR_TSC_DEADLINE);
    return typeof value === 'bigint' ? value : 0n;
  }
  writeTscDeadline(value: bigint): void {
    this.machine.bus.writeMsr(MSR_TSC_DEADLINE, value);
  }
}

/**
 * What the processor's rules see when a debugger writes to registers of a vCPU: a transaction that nobody commits, nothing is
 * intercepted, and whatever reaches beyond registers and RAM is refused.
 */
import type { DecodedInstruction } from '../decode/decoded.js';
import { GuestFault, Vector } from '../faults.js';
import type { Ops } from '../isa/instruction.js';
import type { HalvesWriter, RegisterFile } from '../layout/cpu-state.js';
import type { VmcbWords } from '../layout/vmcb.js';
import type { Machine } from '../machine.js';
import { explainWalk } from '../mmu/explain-walk.js';
import type { PhysicalMemory } from '../mmu/memory.js';
import { pagingFeatures } from '../mmu/page-walk.js';
import { type Nanoseconds, type SPA, sPA } from '../units.js';
import type { CpuidLeaf, CpuProfile } from './cpuid.js';
import type { NestedVirtualization, VmcbShadow } from './nested-virtualization.js';
import type { SystemContext } from './system-context.js';
import { Access, Transaction, type TransactionHost } from './transaction.js';

/** Thrown where a debugger's write is not what it writes to alone. */
export class NotForDebuggers extends Error {
  override name = 'NotForDebuggers';
}

const refuse = (): never => {
  throw new NotForDebuggers('a device has part in it');
};

export class DebuggerContext implements SystemContext, TransactionHost {
  readonly registers: RegisterFile;
  readonly memory: PhysicalMemory;
  readonly profile: CpuProfile;
  readonly nested: NestedVirtualization;
  readonly now: Nanoseconds;
  readonly resetTime: bigint;
  readonly vmcbShadow: VmcbShadow;
  readonly ignoresNumericErrors = true;
  readonly paravirt = undefined;
  readonly tx: Transaction;

  constructor(
    private readonly machine: Machine,
    readonly vcpu: number,
  ) {
    // A parked vCPU's registers lie in an array of the same kind.
    this.registers = machine.state.vcpus[vcpu]?.registers as RegisterFile;
    this.memory = machine.memory;
    this.profile = machine.profile;
    this.nested = machine.nested;
    this.now = machine.now;
    this.resetTime = BigInt(machine.resetAt);
    this.vmcbShadow = { knownWords: (vmcb: number): VmcbWords | undefined => machine.knownWords(vmcb) };
    this.tx = new Transaction(this);
  }

  // Of registers and RAM

  isIntercepted(): boolean {
    return false;
  }
  /** As any observer walks: no accessed or dirty bit is set. */
  translate(_tx: Transaction, linear: bigint, access: number): SPA {
    const { sPA: address, result } = explainWalk(this.memory, this.registers, pagingFeatures(this.profile), linear, {
      write: (access & Access.WRITE) !== 0,
      user: (access & Access.USER) !== 0,
    });
    if (address === undefined) throw new GuestFault(Vector.PF, result.errorCode, linear);
    return sPA(address);
  }
  storedMsr(msr: number): bigint {
    return this.machine.state.vcpus[this.vcpu]?.msrs[msr] ?? 0n;
  }
  intercept(): void {}
  exits(): boolean {
    return false;
  }
  exitsByMsr(): boolean {
    return false;
  }
  exitsByPort(): boolean {
    return false;
  }
  writeTrap(): void {}
  outcome(): void {}
  readonly target: () => HalvesWriter = refuse;
  /** The event that follows drops all translations. */
  flushTlb(): void {}
  plain(): void {}
  pause(): void {}
  nap(): void {}
  /** An MSR that nobody has: what follows is #GP. */
  state(): void {}

  // Of an instruction, which there is none

  get insn(): DecodedInstruction {
    return refuse();
  }
  get ops(): Ops<bigint, boolean, bigint> {
    return refuse();
  }
  faultAfter(): void {
    refuse();
  }

  // Of devices

  readonly cpuidLeaf: () => CpuidLeaf = refuse;
  readonly nestedAddress: () => number = refuse;
  readonly readDevice: () => bigint = refuse;
  readonly writeDevice: () => void = refuse;
  readonly readPort: () => bigint = refuse;
  readonly writePort: () => void = refuse;
  readonly readApicRegister: () => bigint | undefined = refuse;
  readonly writeApicRegister: () => boolean = refuse;
  readonly readApicBase: () => bigint = refuse;
  readonly writeApicBase: () => boolean = refuse;
  readonly readTaskPriority: () => bigint = refuse;
  readonly writeTaskPriority: () => void = refuse;
  readonly ringDoorbell: () => void = refuse;
  readonly drawEntropy: () => bigint = refuse;
  readonly readTsc: () => bigint = refuse;
  readonly writeTsc: () => void = refuse;
  readonly readTscDeadline: () => bigint = refuse;
  readonly writeTscDeadline: () => void = refuse;
}

/**
 * Just enough of a machine for SVM and paging tests: RAM, a register file, a host of transactions that translates
 * nothing, and a system context that notes what instructions ask for.
 */

import { BASE_PROFILE, type CpuProfile } from '../../src/machine/cpu/cpuid.js';
import { lowReader } from '../../src/machine/cpu/mode.js';
import type { SystemContext } from '../../src/machine/cpu/system-context.js';
import { Transaction, type TransactionHost } from '../../src/machine/cpu/transaction.js';
import { type MachineEvent, type RegisterEvent, withRegisters } from '../../src/machine/events.js';
import {
  applyDelta,
  CR0,
  CR4,
  EFER,
  R,
  type RegisterFile,
  type RegisterName,
  SLOT_COUNT,
  type Slot,
  SvmMode,
} from '../../src/machine/layout/cpu-state.js';
import { RAM_BASE } from '../../src/machine/layout/linear-memory.js';
import {
  applyVmcbDelta,
  emptyVmcbWords,
  IntControl,
  VMCB,
  type VmcbWords,
  vmcbQuad,
} from '../../src/machine/layout/vmcb.js';
import { PhysicalMemory } from '../../src/machine/mmu/memory.js';
import type { TlbFlush } from '../../src/machine/mmu/tlb.js';
import { INTERCEPTS, type InterceptName, interceptRequested } from '../../src/machine/svm/intercepts.js';
import { virtualizationOf } from '../../src/machine/svm/nested-svm.js';
import { VmExit } from '../../src/machine/svm/vmexit-request.js';
import { sPA } from '../../src/machine/units.js';

const RAM_BYTES = 0x40_0000;
export const VMCB_AT = 0x8000;
export const CODE64 = 0xffff_ffff_0a9b_0008n;
export const DATA = 0xffff_ffff_0c93_0010n;
export const HOST_RIP = 0xffff_8000_0010_0003n;

export class SvmMachine {
  readonly memory = new PhysicalMemory(RAM_BYTES);
  readonly registers = new BigUint64Array(SLOT_COUNT) as unknown as RegisterFile;
  readonly copies = new Map<number, VmcbWords>();
  readonly events: MachineEvent[] = [];
  readonly flushes: TlbFlush[] = [];
  readonly tx: Transaction;
  private outcome: RegisterEvent | undefined;

  constructor(readonly profile: CpuProfile = BASE_PROFILE) {
    const host: TransactionHost = {
      registers: this.registers,
      memory: this.memory,
      profile,
      ignoresNumericErrors: false,
      isIntercepted: (name) => interceptRequested(lowReader(this.tx), name),
      translate: (_tx, linear) => sPA(Number(linear)),
      readDevice: () => 0n,
      writeDevice: () => {},
    };
    this.tx = new Transaction(host);
    this.hostInLongMode();
  }

  get(name: RegisterName): bigint {
    return this.registers[R[name]] as bigint;
  }

  set(values: Partial<Record<RegisterName, bigint>>): void {
    for (const [name, value] of Object.entries(values)) this.registers[R[name as RegisterName]] = value;
  }

  readonly slot = (slot: Slot): bigint => this.registers[slot] as bigint;

  get vmcb() {
    return VMCB.at(this.memory.view, RAM_BASE + VMCB_AT);
  }

  word(offset: number): bigint {
    return this.memory.quads[vmcbQuad(VMCB_AT) + offset / 8] as bigint;
  }

  setWord(offset: number, value: bigint): void {
    this.memory.quads[vmcbQuad(VMCB_AT) + offset / 8] = value;
  }

  /** A hypervisor in 64-bit mode with SVM enabled, about to execute VMRUN; RIP stands behind it. */
  hostInLongMode(): void {
    this.set({
      cr0: CR0.PE | CR0.PG | CR0.ET | CR0.NE | CR0.WP,
      cr3: 0x1000n,
      cr4: CR4.PAE,
      efer: EFER.SVME | EFER.LME | EFER.LMA | EFER.NXE | EFER.SCE,
      rflags: 0x2n,
      rip: HOST_RIP,
      rsp: 0xffff_8000_0020_0000n,
      rax: BigInt(VMCB_AT),
      cs: CODE64,
      ss: DATA,
      ds: DATA,
      es: DATA,
      gdtrLimit: 0x7fn,
      gdtrBase: 0xffff_8000_0000_1000n,
      idtrLimit: 0xfffn,
      idtrBase: 0xffff_8000_0000_2000n,
      dr6: 0xffff_0ff0n,
      dr7: 0x401n,
      svmMode: SvmMode.GIF,
    });
  }

  /** A guest in 64-bit mode with nested paging that passes every check. */
  longModeGuest(): void {
    const { vmcb } = this;
    vmcb.intercept4 = 1;
    vmcb.guestASID = 5;
    vmcb.nestedControl = 1n;
    vmcb.nCR3 = 0x2000n;
    vmcb.gPAT = 0x0007_0406_0007_0406n;
    vmcb.es = DATA;
    vmcb.cs = CODE64;
    vmcb.ss = DATA;
    vmcb.ds = DATA;
    vmcb.gdtrLimit = 0x3f;
    vmcb.gdtrBase = 0x3000n;
    vmcb.idtrLimit = 0x1ff;
    vmcb.idtrBase = 0x4000n;
    vmcb.efer = EFER.SVME | EFER.LME | EFER.LMA;
    vmcb.cr0 = CR0.PE | CR0.PG | CR0.ET;
    vmcb.cr3 = 0x5000n;
    vmcb.cr4 = CR4.PAE;
    vmcb.dr6 = 0xffff_0ff0n;
    vmcb.dr7 = 0x400n;
    vmcb.rflags = 0x202n;
    vmcb.rip = 0x40_0000n;
    vmcb.rsp = 0x7fff_0000n;
    vmcb.rax = 0x1234n;
    vmcb.cr2 = 0xdead_b000n;
  }

  /** As `longModeGuest`, but a legacy PAE guest without nested paging, its pointers at 6000h. */
  paeGuest(): void {
    this.longModeGuest();
    const { vmcb } = this;
    vmcb.nestedControl = 0n;
    vmcb.efer = EFER.SVME;
    vmcb.cs = 0xffff_ffff_0c9b_0008n;
    vmcb.cr3 = 0x6000n;
  }

  context(overrides: Partial<SystemContext> = {}): SystemContext {
    const context = {
      tx: this.tx,
      target: () => this.tx,
      profile: this.profile,
      nested: virtualizationOf(this.profile),
      insn: { addressWidth: 64, length: 3 },
      vmcbShadow: { knownWords: (vmcb: number) => this.copies.get(vmcb) },
      intercept: (
        name: InterceptName,
        info?: { readonly info1?: bigint; readonly info2?: bigint },
        stage = INTERCEPTS[name].stage,
      ) => {
        if (stage !== INTERCEPTS[name].stage) return;
        if (!interceptRequested(lowReader(this.tx), name)) return;
        throw new VmExit(INTERCEPTS[name].exitCode, info?.info1 ?? 0n, info?.info2 ?? 0n, true);
      },
      outcome: (event: RegisterEvent) => {
        this.outcome = event;
      },
      plain: () => {},
      state: (event: MachineEvent) => this.apply(event),
      flushTlb: (flush: TlbFlush) => this.flushes.push(flush),
      ...overrides,
    };
    return context as unknown as SystemContext;
  }

  /** Runs an instruction's `system` part and commits it, as the machine does. @returns its event. */
  execute(system: (context: SystemContext) => void, overrides: Partial<SystemContext> = {}): MachineEvent | undefined {
    this.outcome = undefined;
    try {
      system(this.context(overrides));
    } catch (raised) {
      this.tx.abort();
      throw raised;
    }
    const event = this.outcome as RegisterEvent | undefined;
    return event === undefined ? undefined : this.commit(event);
  }

  commit(incomplete: RegisterEvent): MachineEvent {
    const event = withRegisters(incomplete, this.tx.delta());
    this.tx.commitMemory();
    this.tx.abort();
    this.apply(event);
    return event;
  }

  /** The reducer's part, as far as SVM is concerned. */
  private apply(event: MachineEvent): void {
    this.events.push(event);
    if ('registers' in event) applyDelta(this.registers, event.registers);
    if ('words' in event) {
      const copy = this.copies.get(event.vmcb) ?? emptyVmcbWords();
      this.copies.set(event.vmcb, copy);
      applyVmcbDelta(copy, event.words);
    }
  }
}

/** A profile with other SVM features. */
export const withSvm = (...features: readonly string[]): CpuProfile => ({
  ...BASE_PROFILE,
  svm: new Set(features) as CpuProfile['svm'],
});

export const V_INTR_MASKING = IntControl.V_INTR_MASKING;

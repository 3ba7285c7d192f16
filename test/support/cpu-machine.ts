/**
 * A processor on a bench: RAM, a register file, descriptor tables that a test writes, and the real decoder and evaluator
 * around the control plane. Paging is the identity; single pages can be taken away.
 */

import { BASE_PROFILE, type CpuProfile } from '../../src/machine/cpu/cpuid.js';
import { type GuestEvent, SoftwareEvent } from '../../src/machine/cpu/exceptions.js';
import { is64Bit } from '../../src/machine/cpu/mode.js';
import { resetRegisters } from '../../src/machine/cpu/reset.js';
import type { SystemContext } from '../../src/machine/cpu/system-context.js';
import { Access, Transaction, type TransactionHost } from '../../src/machine/cpu/transaction.js';
import { Decoder } from '../../src/machine/decode/decode.js';
import type { DecodedInstruction } from '../../src/machine/decode/decoded.js';
import { type MachineEvent, type RegisterEvent, withRegisters } from '../../src/machine/events.js';
import { GuestFault, pageFault } from '../../src/machine/faults.js';
import { Evaluator } from '../../src/machine/isa/evaluate.js';
import { INSTRUCTIONS } from '../../src/machine/isa/instructions.js';
import {
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
import { PhysicalMemory } from '../../src/machine/mmu/memory.js';
import type { TlbFlush } from '../../src/machine/mmu/tlb.js';
import { INTERCEPTS, type InterceptName, interceptRequested } from '../../src/machine/svm/intercepts.js';
import { virtualizationOf } from '../../src/machine/svm/nested-svm.js';
import { ioExitInfo, type PortAccess } from '../../src/machine/svm/permission-maps.js';
import { VmExit } from '../../src/machine/svm/vmexit-request.js';
import { nanoseconds, type SPA, sPA } from '../../src/machine/units.js';
import { leafOf } from './cpuid.js';

export const GDT = 0x1000;
export const IDT = 0x2000;
export const TSS = 0x3000;
const CODE = 0x1_0000;
export const STACK_TOP = 0x2_0000;
export const INNER_STACK_TOP = 0x2_8000;
export const DATA = 0x3_0000;
const RAM_BYTES = 0x10_0000;

/** Selectors of the descriptors that `protectedMode` and `longMode` put into the GDT. */
export const Sel = {
  CODE: 0x08,
  DATA: 0x10,
  USER_CODE: 0x1b,
  USER_DATA: 0x23,
  TSS: 0x28,
  CODE64: 0x38,
  USER_CODE64: 0x43,
  CONFORMING: 0x48,
  CODE16: 0x50,
  SPARE: 0x58,
} as const;

/** A descriptor of eight bytes. `flags` are attribute bits 11:8 (G, D/B, L, AVL from the top), `access` byte 5. */
export function descriptor(base: number, limit: number, access: number, flags: number): bigint {
  return (
    BigInt(limit & 0xffff) |
    (BigInt(base & 0xff_ffff) << 16n) |
    (BigInt(access) << 40n) |
    (BigInt((limit >>> 16) & 0xf) << 48n) |
    (BigInt(flags) << 52n) |
    (BigInt(base >>> 24) << 56n)
  );
}

/** A gate: `type` and DPL in `access`; `words` is IST in long mode, the parameter count of a call gate. */
export function gate(selector: number, offset: number, access: number, words = 0): bigint {
  return (
    BigInt(offset & 0xffff) |
    (BigInt(selector) << 16n) |
    (BigInt(words) << 32n) |
    (BigInt(access) << 40n) |
    (BigInt(offset >>> 16) << 48n)
  );
}

/** How an instruction ended. */
export type Ended =
  | { readonly kind: 'done'; readonly event: MachineEvent | 'plain' }
  | {
      readonly kind: 'fault';
      readonly vector: number;
      readonly errorCode: number | undefined;
      readonly fault: GuestFault;
    }
  | { readonly kind: 'software'; readonly event: GuestEvent }
  | { readonly kind: 'exit'; readonly exit: VmExit };

const DECODERS = new Map<CpuProfile, Decoder>();

function decoderOf(profile: CpuProfile): Decoder {
  const known = DECODERS.get(profile) ?? new Decoder(INSTRUCTIONS, profile.features);
  DECODERS.set(profile, known);
  return known;
}

export class CpuMachine {
  readonly memory = new PhysicalMemory(RAM_BYTES);
  readonly registers = new BigUint64Array(SLOT_COUNT) as unknown as RegisterFile;
  readonly tx: Transaction;
  readonly evaluator: Evaluator;
  readonly events: MachineEvent[] = [];
  readonly flushes: TlbFlush[] = [];
  readonly ports: string[] = [];
  /** What WRMSR wrote, by number. */
  readonly msrs = new Map<number, bigint>();
  readonly missingPages = new Set<number>();
  /** Answers of `readPort`, in order. */
  readonly portInput: bigint[] = [];
  apicBase = 0xfee0_0900n;
  taskPriority = 0n;
  /** What the last instruction left to be delivered. */
  faultAfter: GuestFault | undefined;
  tsc = 1_000_000n;

  constructor(readonly profile: CpuProfile = BASE_PROFILE) {
    const host: TransactionHost = {
      registers: this.registers,
      memory: this.memory,
      profile,
      ignoresNumericErrors: false,
      isIntercepted: (name) => this.intercepted(name),
      translate: (_tx, linear, access) => this.translate(linear, access),
      readDevice: () => 0n,
      writeDevice: () => {},
    };
    this.tx = new Transaction(host);
    this.evaluator = new Evaluator(this.tx);
    for (const [slot, value] of resetRegisters(profile)) this.registers[slot] = value;
    this.set({ cs: 0xffff_009b_0000n, csBase: 0n, rip: BigInt(CODE & 0xffff), rsp: 0x8000n });
  }

  private translate(linear: bigint, access: number): SPA {
    const page = Number(linear >> 12n);
    if (!this.missingPages.has(page)) return sPA(Number(linear % BigInt(RAM_BYTES)));
    const user = (access & Access.USER) !== 0 && (access & Access.IMPLICIT) === 0;
    throw pageFault(linear, ((access & Access.WRITE) !== 0 ? 2 : 0) | (user ? 4 : 0));
  }

  private intercepted(name: InterceptName): boolean {
    return interceptRequested((slot) => Number(BigInt.asUintN(32, this.registers[slot] as bigint)), name);
  }

  get(name: RegisterName): bigint {
    return this.registers[R[name]] as bigint;
  }
  readonly reader = { get: (slot: Slot): bigint => this.registers[slot] as bigint };

  set(values: Partial<Record<RegisterName, bigint>>): this {
    for (const [name, value] of Object.entries(values)) this.registers[R[name as RegisterName]] = value;
    return this;
  }

  read(address: number, size: number): bigint {
    return this.memory.read(sPA(address), size);
  }
  write(address: number, size: number, value: bigint): this {
    this.memory.write(sPA(address), size, value);
    return this;
  }
  /** Puts a descriptor, or its upper half, into the GDT. */
  describe(selector: number, raw: bigint): this {
    return this.write(GDT + (selector & 0xfff8), 8, raw);
  }

  /** 32-bit protected mode at CPL 0 with flat segments, a 32-bit TSS and an empty IDT. */
  protectedMode(): this {
    this.commonTables();
    this.describe(Sel.TSS, descriptor(TSS, 0x1fff, 0x8b, 0));
    this.write(TSS + 4, 4, BigInt(INNER_STACK_TOP)).write(TSS + 8, 2, BigInt(Sel.DATA));
    return this.set({
      cr0: CR0.PE | CR0.ET | CR0.NE,
      cs: 0xffff_ffff_0c9b_0000n | BigInt(Sel.CODE),
      ss: 0xffff_ffff_0c93_0000n | BigInt(Sel.DATA),
      ds: 0xffff_ffff_0c93_0000n | BigInt(Sel.DATA),
      es: 0xffff_ffff_0c93_0000n | BigInt(Sel.DATA),
      fs: 0xffff_ffff_0c93_0000n | BigInt(Sel.DATA),
      gs: 0xffff_ffff_0c93_0000n | BigInt(Sel.DATA),
      tr: 0x1fff_008b_0000n | BigInt(Sel.TSS),
      trBase: BigInt(TSS),
      rip: BigInt(CODE),
      rsp: BigInt(STACK_TOP),
    });
  }

  /** 64-bit mode at CPL 0, with a 64-bit TSS and an empty IDT. */
  longMode(): this {
    this.protectedMode();
    this.describe(Sel.TSS + 8, 0n);
    this.write(TSS + 4, 8, BigInt(INNER_STACK_TOP));
    return this.set({
      cr0: CR0.PE | CR0.PG | CR0.ET | CR0.NE | CR0.WP,
      cr4: CR4.PAE,
      efer: EFER.LME | EFER.LMA | EFER.SCE | EFER.NXE,
      cs: 0xffff_ffff_0a9b_0000n | BigInt(Sel.CODE64),
      idtrLimit: 0xfffn,
    });
  }

  /** The same at CPL 3. */
  atUserLevel(): this {
    const long = is64Bit(this.reader);
    return this.set({
      cpl: 3n,
      cs: (long ? 0xffff_ffff_0afb_0000n : 0xffff_ffff_0cfb_0000n) | BigInt(long ? Sel.USER_CODE64 : Sel.USER_CODE),
      ss: 0xffff_ffff_0cf3_0000n | BigInt(Sel.USER_DATA),
      ds: 0xffff_ffff_0cf3_0000n | BigInt(Sel.USER_DATA),
      es: 0xffff_ffff_0cf3_0000n | BigInt(Sel.USER_DATA),
    });
  }

  /** Virtual-8086 mode: CS = SS = 1000h, at CPL 3. */
  virtual8086(iopl: number): this {
    this.protectedMode();
    const paragraph = 0xffff_00f3_1000n;
    return this.set({
      cpl: 3n,
      rflags: 0x2_0002n | (BigInt(iopl) << 12n),
      cs: paragraph,
      csBase: 0x1_0000n,
      ss: paragraph,
      ssBase: 0x1_0000n,
      ds: paragraph,
      dsBase: 0x1_0000n,
      rip: 0n,
      rsp: 0x8000n,
    });
  }

  private commonTables(): void {
    this.set({
      gdtrBase: BigInt(GDT),
      gdtrLimit: 0xffn,
      idtrBase: BigInt(IDT),
      idtrLimit: 0x7ffn,
      cpl: 0n,
      csBase: 0n,
    });
    this.describe(Sel.CODE, descriptor(0, 0xf_ffff, 0x9b, 0xc));
    this.describe(Sel.DATA, descriptor(0, 0xf_ffff, 0x93, 0xc));
    this.describe(Sel.USER_CODE, descriptor(0, 0xf_ffff, 0xfb, 0xc));
    this.describe(Sel.USER_DATA, descriptor(0, 0xf_ffff, 0xf3, 0xc));
    this.describe(Sel.CODE64, descriptor(0, 0xf_ffff, 0x9b, 0xa));
    this.describe(Sel.USER_CODE64, descriptor(0, 0xf_ffff, 0xfb, 0xa));
    this.describe(Sel.CONFORMING, descriptor(0, 0xf_ffff, 0x9f, 0xc));
    this.describe(Sel.CODE16, descriptor(0x1_0000, 0xffff, 0x9b, 0));
  }

  /** Intercepts of a guest that runs. */
  intercepting(...names: readonly InterceptName[]): this {
    this.registers[R.svmMode] = SvmMode.GUEST | SvmMode.GIF;
    for (const name of names) {
      const { slot, bit } = INTERCEPTS[name];
      this.registers[slot] = (this.registers[slot] as bigint) | (1n << BigInt(bit));
    }
    return this;
  }

  /** Executes the instruction made of `bytes` at CS:RIP, and commits it when it ends well. */
  run(...bytes: readonly number[]): Ended {
    this.tx.abort();
    this.flushes.length = 0;
    this.faultAfter = undefined;
    const insn = this.decode(bytes);
    if (insn === undefined) return this.ended(new GuestFault(6));
    let event: MachineEvent | 'plain' | undefined;
    let outcome: RegisterEvent | undefined;
    const context = this.context(insn, {
      outcome: (own) => {
        outcome = own;
      },
      plain: () => {
        event = 'plain';
      },
    });
    try {
      if ('system' in insn.instruction) {
        const { interceptedFirst } = insn.instruction;
        if (interceptedFirst !== undefined) context.intercept(interceptedFirst);
        this.evaluator.begin(insn);
        insn.instruction.system(context);
      } else {
        this.evaluator.execute(insn);
        event = 'plain';
      }
    } catch (reason) {
      return this.ended(reason);
    }
    const delta = this.tx.delta();
    const ended =
      event ?? withRegisters(outcome ?? { type: 'cpu.system', mnemonic: insn.mnemonic, registers: delta }, delta);
    this.commit();
    if (ended !== 'plain' && ended.type === 'cpu.msr') this.msrs.set(ended.msr, ended.value);
    return { kind: 'done', event: ended };
  }

  /** Runs `action` on the transaction and commits it. @returns the fault that it ended in. */
  attempt(action: (tx: Transaction) => void): Ended {
    this.tx.abort();
    try {
      action(this.tx);
    } catch (reason) {
      return this.ended(reason);
    }
    this.commit();
    return { kind: 'done', event: 'plain' };
  }

  commit(): void {
    this.tx.commitMemory();
    this.tx.commitRegisters();
    this.tx.abort();
  }

  private ended(reason: unknown): Ended {
    this.tx.abort();
    if (reason instanceof GuestFault) {
      return { kind: 'fault', vector: reason.vector, errorCode: reason.errorCode, fault: reason };
    }
    if (reason instanceof SoftwareEvent) return { kind: 'software', event: reason.event };
    if (reason instanceof VmExit) return { kind: 'exit', exit: reason };
    throw reason;
  }

  decode(bytes: readonly number[]): DecodedInstruction | undefined {
    const bits = is64Bit(this.reader) ? 64 : (this.get('cs') & (1n << 26n)) !== 0n ? 32 : 16;
    const real = (this.get('cr0') & CR0.PE) === 0n || (this.get('rflags') & 0x2_0000n) !== 0n;
    const insn = decoderOf(this.profile).decode(Uint8Array.from(bytes), { bits, real });
    return typeof insn === 'object' ? insn : undefined;
  }

  context(insn: DecodedInstruction, hooks: Pick<SystemContext, 'outcome' | 'plain'>): SystemContext {
    const intercept: SystemContext['intercept'] = (name, info, stage = INTERCEPTS[name].stage) => {
      if (stage !== INTERCEPTS[name].stage) return;
      if (!this.intercepted(name)) return;
      throw new VmExit(INTERCEPTS[name].exitCode, info?.info1, info?.info2, true);
    };
    return {
      tx: this.tx,
      target: () => this.tx,
      insn,
      ops: this.evaluator,
      profile: this.profile,
      now: nanoseconds(0),
      vcpu: 0,
      pause: () => {},
      nap: () => {},
      vmcbShadow: { knownWords: () => undefined },
      nested: virtualizationOf(this.profile),
      nestedAddress: (gPA) => gPA,
      writeTrap: () => {},
      cpuidLeaf: (leaf, subleaf) =>
        leafOf(this.profile, leaf, subleaf, {
          osxsave: (this.get('cr4') & CR4.OSXSAVE) !== 0n,
          xcr0: this.get('xcr0'),
        }),
      intercept,
      exits: (...asked) => {
        intercept(...asked);
        return false;
      },
      exitsByMsr: (_msr, write) => {
        if (!this.intercepted('MSR_PROT')) return false;
        throw new VmExit(INTERCEPTS.MSR_PROT.exitCode, write ? 1n : 0n, 0n, true);
      },
      exitsByPort: (access: PortAccess) => {
        if (!this.intercepted('IOIO_PROT')) return false;
        throw new VmExit(INTERCEPTS.IOIO_PROT.exitCode, ioExitInfo(access), 0n, true);
      },
      faultAfter: (fault) => {
        this.faultAfter = fault;
      },
      state: (event) => this.events.push(event),
      flushTlb: (flush) => this.flushes.push(flush),
      readPort: (port, size) => {
        this.ports.push(`in ${port.toString(16)}.${size}`);
        return this.portInput.shift() ?? 0n;
      },
      writePort: (port, size, value) => this.ports.push(`out ${port.toString(16)}.${size}=${value.toString(16)}`),
      readApicRegister: () => undefined,
      writeApicRegister: () => false,
      readApicBase: () => this.apicBase,
      writeApicBase: (value) => {
        this.apicBase = value;
        return true;
      },
      readTaskPriority: () => this.taskPriority,
      writeTaskPriority: (value) => {
        this.taskPriority = value;
      },
      ringDoorbell: () => {},
      storedMsr: (msr) => this.msrs.get(msr) ?? 0n,
      drawEntropy: () => 0x0123_4567_89ab_cdefn,
      resetTime: 0n,
      readTsc: () => this.tsc,
      writeTsc: (value) => {
        this.tsc = value;
      },
      readTscDeadline: () => 0n,
      writeTscDeadline: () => {},
      ...hooks,
    };
  }
}

/** `#GP(18)` and the like; `#UD` without an error code. */
export function faultOf(ended: Ended): string {
  if (ended.kind === 'done') return 'none';
  if (ended.kind === 'exit') return `exit ${ended.exit.code.toString(16)}`;
  if (ended.kind === 'software') return `${ended.event.type} ${ended.event.vector}`;
  const name = {
    0: 'DE',
    1: 'DB',
    6: 'UD',
    7: 'NM',
    10: 'TS',
    11: 'NP',
    12: 'SS',
    13: 'GP',
    14: 'PF',
    16: 'MF',
    17: 'AC',
  }[ended.vector];
  return ended.errorCode === undefined ? `#${name}` : `#${name}(${ended.errorCode.toString(16)})`;
}

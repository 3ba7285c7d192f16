/**
 * Plain cases of control-plane instructions, which need neither a transaction nor an event: STI, POPF, IRET to where it came from,
 * RDTSC, IN and OUT at ports of which nobody learns, PAUSE. The engine executes them between two entries into compiled code. Each leaves
 * the registers as the description of the instruction in `isa/` would, or touches nothing and leaves the instruction to that
 * (docs/adr/0041, 0048).
 * Source: APM vol.3, STI, POPFQ, IRETQ, RDTSC, RDTSCP, IN, OUT, PAUSE.
 */
import type { DecodedInstruction, DecodedOperand } from '../decode/decoded.js';
import { Boundary, CPU_BASE, CR4, Flag, gprSlot, R, type RegisterFile } from '../layout/cpu-state.js';
import { IntControl } from '../layout/vmcb.js';
import type { PhysicalMemory } from '../mmu/memory.js';
import { INTERCEPTS, type InterceptName } from '../svm/intercepts.js';
import { isCanonicalHigh, u64 } from '../units.js';
import { Mode } from './context.js';
import { CODE, DATA, type KnownMemory, PAGE_MASK, wordOf } from './known-memory.js';

/** What the machine around the engine tells of the instruction that comes next. */
export interface Surroundings {
  /** Whether an interrupt waits that a set IF would let in. */
  readonly externalPending: boolean;
  /** The time-stamp counter, before any guest offset, so many instructions after those that the machine has counted. */
  readTsc(instructions: number): bigint;
  /** How many vCPUs there are: with one, nobody else could run while it spins. */
  readonly processors: number;
  readonly bus: PlainBus;
}

/** Accesses to ports without consequences, so many instructions after those that the machine has counted. */
export interface PlainBus {
  /** What a port reads; undefined where reading is an event. @param size 1, 2 or 4. */
  pollPort(port: number, size: number, instructions: number): number | undefined;
  /** Whether nothing comes of a write to a port. */
  forgetsWrite(port: number, size: number, value: number, instructions: number): boolean;
}

/** What became of an instruction; a shadow lies on the next one, which must run alone. */
export type PlainOutcome = 'declined' | 'done' | 'shadowing';

/** Whether the instruction at an RIP is known, and retires as a whole: no repeated string instruction. */
type IsWhole = (low: number, high: number) => boolean;

const INTERRUPT_FLAG = Number(Flag.IF);
const RESUME_FLAG = Number(Flag.RF);
/** Flags that an IRET with them leaves to the evaluator. */
const HEAVY_FLAGS = Number(Flag.TF | Flag.NT | Flag.AC | Flag.VIF | Flag.VIP);
/** What IRET takes of the flags popped, at CPL 0 and where none of `HEAVY_FLAGS` is in play. */
const RETURNED_FLAGS = Number(
  Flag.CF | Flag.PF | Flag.AF | Flag.ZF | Flag.SF | Flag.IF | Flag.DF | Flag.OF | Flag.IOPL | Flag.RF | Flag.ID,
);
/** What POPF takes there. */
const POPPED_FLAGS = RETURNED_FLAGS & ~RESUME_FLAG;
const TSD = Number(CR4.TSD);
const SHADOW = Number(Boundary.INTERRUPT_SHADOW);

/** A virtual event waits for the guest, or may wait where this does not tell. */
const WAITING = Number(IntControl.V_IRQ | IntControl.V_NMI | IntControl.AVIC_ENABLE | IntControl.X2AVIC_ENABLE);
const V_NMI_ENABLE = Number(IntControl.V_NMI_ENABLE);

/** RIP, CS, RFLAGS, RSP, SS. */
const FRAME_BYTES = 40;
const FLAGS_BYTES = 8;
const TSC_RATIO = (CPU_BASE >> 2) + 2 * R.tscRatio;

type Four = [number, number, number, number];
type Five = [number, number, number, number, number];

const [RIP, RFLAGS, RAX, RDX, RSP] = [R.rip, R.rflags, R.rax, R.rdx, R.rsp].map(wordOf) as Five;
const [BOUNDARY, CS, SS, INT_CONTROL] = [R.boundary, R.cs, R.ss, R.intControl].map(wordOf) as Four;

export class PlainCases {
  surroundings: Surroundings | undefined;
  private readonly words: Uint32Array;

  constructor(
    { words }: PhysicalMemory,
    private readonly registers: RegisterFile,
    private readonly known: KnownMemory,
    private readonly isWhole: IsWhole,
  ) {
    this.words = words;
  }

  /** @param mode bits of `Mode`. @param retired instructions of the run before this one. */
  execute(insn: DecodedInstruction, mode: number, retired: number): PlainOutcome {
    const { surroundings } = this;
    if (surroundings === undefined || (mode & Mode.BITS64) === 0 || insn.lock) return 'declined';
    if ((mode & Mode.GUEST) !== 0) return this.executeInGuest(insn, mode, retired, surroundings);
    switch (insn.mnemonic) {
      case 'STI':
        return (mode & Mode.KERNEL) === 0 ? 'declined' : this.setInterruptFlag(insn.length, surroundings);
      case 'POPF':
        return (mode & Mode.KERNEL) === 0 || insn.width !== 64 ? 'declined' : this.popFlags(insn.length, surroundings);
      case 'IRET':
        return (mode & Mode.KERNEL) === 0 || insn.width !== 64 ? 'declined' : this.returnHere(surroundings);
      case 'RDTSC':
      case 'RDTSCP':
        return this.readTsc(insn, mode, surroundings.readTsc(retired)) ? 'done' : 'declined';
      case 'IN':
        return (mode & Mode.KERNEL) !== 0 && this.readPort(insn, surroundings, retired) ? 'done' : 'declined';
      case 'OUT':
        return (mode & Mode.KERNEL) !== 0 && this.forgetsWrite(insn, surroundings, retired) ? 'done' : 'declined';
      case 'PAUSE':
        return surroundings.processors === 1 ? this.skip(insn.length) : 'declined';
      default:
        return 'declined';
    }
  }

  /** The same where no hypervisor wants to know. */
  private executeInGuest(
    insn: DecodedInstruction,
    mode: number,
    retired: number,
    surroundings: Surroundings,
  ): PlainOutcome {
    switch (insn.mnemonic) {
      case 'RDTSC':
      case 'RDTSCP':
        return this.readTscInGuest(insn, insn.mnemonic, mode, retired, surroundings);
      case 'STI':
        return this.mayOpen(mode) ? this.setInterruptFlag(insn.length, surroundings) : 'declined';
      case 'POPF':
        if (!this.mayOpen(mode) || insn.width !== 64 || this.isIntercepted('POPF')) return 'declined';
        return this.popFlags(insn.length, surroundings);
      case 'IRET':
        if (!this.mayOpen(mode) || insn.width !== 64 || this.isIntercepted('IRET')) return 'declined';
        return ((this.words[INT_CONTROL] as number) & V_NMI_ENABLE) !== 0 ? 'declined' : this.returnHere(surroundings);
      default:
        return 'declined';
    }
  }

  /** Whether code of the guest's kernel may set IF unseen: no virtual event waits for that, and no mask is a latch. */
  private mayOpen(mode: number): boolean {
    return (mode & Mode.KERNEL) !== 0 && ((this.words[INT_CONTROL] as number) & WAITING) === 0;
  }

  private isIntercepted(name: InterceptName): boolean {
    const { slot, bit } = INTERCEPTS[name];
    return (((this.words[wordOf(slot)] as number) >>> bit) & 1) !== 0;
  }

  private readTscInGuest(
    insn: DecodedInstruction,
    name: 'RDTSC' | 'RDTSCP',
    mode: number,
    retired: number,
    surroundings: Surroundings,
  ): PlainOutcome {
    const { words, registers } = this;
    if (this.isIntercepted(name)) return 'declined';
    // One, with 32 bits of fraction (APM vol.2 §15.30.5 TSC Ratio MSR).
    if (words[TSC_RATIO] !== 0 || words[TSC_RATIO + 1] !== 1) return 'declined';
    const tsc = u64(surroundings.readTsc(retired) + (registers[R.tscOffset] as bigint));
    return this.readTsc(insn, mode, tsc) ? 'done' : 'declined';
  }

  private skip(length: number): PlainOutcome {
    this.advance(length);
    return 'done';
  }

  /** The instruction in the shadow has run: that of STI is over, and RF has served (APM vol.2 §3.1.6 RFLAGS Register). */
  endShadow(): void {
    (this.words[BOUNDARY] as number) &= ~SHADOW;
    (this.words[RFLAGS] as number) &= ~RESUME_FLAG;
  }

  private setInterruptFlag(length: number, surroundings: Surroundings): PlainOutcome {
    const { words } = this;
    const opens = ((words[RFLAGS] as number) & INTERRUPT_FLAG) === 0;
    if (opens && (this.isSignalled || surroundings.externalPending)) return 'declined';
    this.advance(length);
    if (!opens) return 'done';
    (words[RFLAGS] as number) |= INTERRUPT_FLAG;
    (words[BOUNDARY] as number) |= SHADOW;
    return 'shadowing';
  }

  /** Something is pending, blocked or shadowed at this boundary. */
  private get isSignalled(): boolean {
    return ((this.words[BOUNDARY] as number) | (this.words[BOUNDARY + 1] as number)) !== 0;
  }

  /** Behind it an interrupt comes at once: it has no shadow. */
  private popFlags(length: number, surroundings: Surroundings): PlainOutcome {
    const { words } = this;
    const rflags = words[RFLAGS] as number;
    const [low, high] = [words[RSP] as number, words[RSP + 1] as number];
    const fits = low % 4 === 0 && (low & PAGE_MASK) <= PAGE_MASK + 1 - FLAGS_BYTES;
    const top = fits ? this.known.placeOf(low, high, FLAGS_BYTES) : 0;
    if (top === 0) return 'declined';
    const popped = words[top] as number;
    if (((rflags | popped) & HEAVY_FLAGS) !== 0 || (rflags & RESUME_FLAG) !== 0) return 'declined';
    const flags = (rflags & ~POPPED_FLAGS) | (popped & POPPED_FLAGS);
    const opens = (flags & ~rflags & INTERRUPT_FLAG) !== 0;
    if (opens && (this.isSignalled || surroundings.externalPending)) return 'declined';
    this.advance(length);
    words[RFLAGS] = flags;
    words[RSP] = low + FLAGS_BYTES;
    if (low + FLAGS_BYTES > 0xffff_ffff) words[RSP + 1] = high + 1;
    return 'done';
  }

  /** IRET to the same privilege, with the segments that are loaded. With RF, as behind a fault, the next instruction runs alone. */
  private returnHere(surroundings: Surroundings): PlainOutcome {
    const { words } = this;
    const frame = this.frame();
    if (frame === 0 || this.isSignalled) return 'declined';
    const rflags = words[RFLAGS] as number;
    const popped = words[frame + 4] as number;
    if (((rflags | popped) & HEAVY_FLAGS) !== 0) return 'declined';
    if (
      !this.known.isLoaded(CS, words[frame + 2] as number, CODE) ||
      !this.known.isLoaded(SS, words[frame + 8] as number, DATA)
    )
      return 'declined';
    const [low, high] = [words[frame] as number, words[frame + 1] as number];
    if (!isCanonicalHigh(high)) return 'declined';
    const flags = (rflags & ~RETURNED_FLAGS) | (popped & RETURNED_FLAGS);
    if ((flags & ~rflags & INTERRUPT_FLAG) !== 0 && surroundings.externalPending) return 'declined';
    const resumes = (popped & RESUME_FLAG) !== 0;
    if (resumes && !this.isWhole(low, high)) return 'declined';
    words[RIP] = low;
    words[RIP + 1] = high;
    words[RFLAGS] = flags;
    words[RSP] = words[frame + 6] as number;
    words[RSP + 1] = words[frame + 7] as number;
    return resumes ? 'shadowing' : 'done';
  }

  /** Place of what IRET pops among the words of the memory; 0 where it is not aligned, or not in one page that is known. */
  private frame(): number {
    const [low, high] = [this.words[RSP] as number, this.words[RSP + 1] as number];
    if (low % 4 !== 0 || (low & PAGE_MASK) > PAGE_MASK + 1 - FRAME_BYTES) return 0;
    return this.known.placeOf(low, high, FRAME_BYTES);
  }

  private readTsc(insn: DecodedInstruction, mode: number, tsc: bigint): boolean {
    const { registers } = this;
    if ((mode & Mode.USER) !== 0 && ((this.words[wordOf(R.cr4)] as number) & TSD) !== 0) return false;
    registers[gprSlot(0)] = tsc & 0xffff_ffffn;
    registers[gprSlot(2)] = tsc >> 32n;
    if (insn.mnemonic === 'RDTSCP') registers[gprSlot(1)] = (registers[R.tscAux] as bigint) & 0xffff_ffffn;
    this.advance(insn.length);
    return true;
  }

  /** At CPL 0 all ports may be used (APM vol.2 §12.2.4 I/O-Permission Bitmap). */
  private readPort({ operands, length }: DecodedInstruction, surroundings: Surroundings, retired: number): boolean {
    const { words } = this;
    const [destination, source] = operands;
    const size = (destination?.width ?? 0) / 8;
    const port = this.portOf(source);
    const value = surroundings.bus.pollPort(port, size, retired);
    if (value === undefined) return false;
    const kept = size === 4 ? 0 : -1 << (8 * size);
    words[RAX] = ((words[RAX] as number) & kept) | value;
    if (size === 4) words[RAX + 1] = 0;
    this.advance(length);
    return true;
  }

  private forgetsWrite({ operands, length }: DecodedInstruction, surroundings: Surroundings, retired: number): boolean {
    const [destination, source] = operands;
    const size = (source?.width ?? 0) / 8;
    const rax = this.words[RAX] as number;
    const value = size === 4 ? rax : rax & ((1 << (8 * size)) - 1);
    if (!surroundings.bus.forgetsWrite(this.portOf(destination), size, value, retired)) return false;
    this.advance(length);
    return true;
  }

  /** The port that an operand names: imm8 or DX. */
  private portOf(operand: DecodedOperand | undefined): number {
    return operand?.kind === 'imm' ? Number(operand.value) : (this.words[RDX] as number) & 0xffff;
  }

  /** RIP goes to the next instruction; no bigint is made. */
  private advance(length: number): void {
    const { words } = this;
    const low = (words[RIP] as number) + length;
    words[RIP] = low;
    if (low > 0xffff_ffff) (words[RIP + 1] as number)++;
  }
}

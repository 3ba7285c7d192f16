/**
 * Ops over bigint on a transaction: slow, obvious, the reference meaning of every instruction. The machine also runs it
 * for whatever compiled code leaves: faults, device memory, page crossings, rare instructions.
 */
import { checkAlignment } from '../cpu/alignment.js';
import { dataHits } from '../cpu/debug.js';
import { checkSegment } from '../cpu/segments.js';
import { Access, type Transaction } from '../cpu/transaction.js';
import { AVX_FEATURES, requireAvx, vectorCount } from '../cpu/xstate.js';
import {
  type DecodedInstruction,
  type DecodedOperand,
  type MemoryOperand,
  NO_REGISTER,
  type NumberedOperand,
  type RelativeOperand,
  RIP_BASE,
} from '../decode/decoded.js';
import { invariant } from '../errors.js';
import type { FloatEnvironment } from '../fp/rounding.js';
import {
  ARITHMETIC_FLAGS,
  CR0,
  CR4,
  Flag,
  gprSlot,
  R,
  Segment,
  type Slot,
  segmentSlot,
  xmmSlot,
  ymmSlot,
} from '../layout/cpu-state.js';
import { u64, uN } from '../units.js';
import { ValueEvaluator } from './evaluate-values.js';
import { addFlags, conditionHolds, resultFlags, subFlags } from './flags.js';
import { floatEnvironment, floatOperation, fusedOperation, raiseFloat } from './float.js';
import type {
  ArithmeticFlag,
  ConditionCode,
  Feature,
  FloatOperation,
  FusedOperation,
  Instruction,
  Operand,
  Ops,
  PlainInstruction,
} from './instruction.js';

const FLAG_BITS: Readonly<Record<ArithmeticFlag, bigint>> = {
  cf: Flag.CF,
  pf: Flag.PF,
  af: Flag.AF,
  zf: Flag.ZF,
  sf: Flag.SF,
  of: Flag.OF,
};

const ATTRIBUTE_BIG = 1n << 26n; // bit 10 (D/B) of the attributes, at bits 31:16 of a segment word
const MASK64 = (1n << 64n) - 1n;

/** Instruction sets that need SSE state to be enabled. Source: APM vol.2 §11.3 XSAVE, §3.1.3 CR4.OSFXSR. */
const SSE_FEATURES: ReadonlySet<Feature> = new Set<Feature>([
  'sse',
  'sse2',
  'sse3',
  'ssse3',
  'sse4.1',
  'sse4.2',
  'sse4a',
  'aes',
  'pclmulqdq',
  'sha',
]);

/** Whether CR0.EM, CR0.TS and CR4.OSFXSR decide about an instruction as they do about SSE. */
export const needsSseState = ({ feature, withoutSseState }: Instruction): boolean =>
  feature !== undefined && SSE_FEATURES.has(feature) && withoutSseState !== true;

export class Evaluator extends ValueEvaluator implements Ops<bigint, boolean, bigint> {
  private insn: DecodedInstruction | undefined;
  private nextInstruction = 0n;

  private watching = false;
  private hits = 0n;
  /** Where the last store of an operand went, and how many bytes it had. */
  lastStore = { linear: 0n, bytes: 0 };
  /** Environments of the floating-point operations that raise together; undefined when each does for itself. */
  private joint: FloatEnvironment[] | undefined;

  constructor(readonly tx: Transaction) {
    super();
  }

  /** Starts noting data breakpoints that the next instruction hits. */
  watch(enabled: boolean): void {
    this.watching = enabled;
    this.hits = 0n;
  }

  /** DR6 bits 3:0 of the data breakpoints hit since `watch`. */
  get watchHits(): bigint {
    return this.hits;
  }

  /**
   * Executes one plain instruction, or one iteration of a repeated one, on the transaction.
   * @throws GuestFault, NestedPageFault: the caller aborts the transaction.
   */
  execute(insn: DecodedInstruction): void {
    this.begin(insn);
    const instruction = insn.instruction as PlainInstruction;
    if (needsSseState(instruction)) this.requireSse();
    if (instruction.feature !== undefined && AVX_FEATURES.has(instruction.feature)) requireAvx(this.tx);
    if (insn.rep === 'none') {
      instruction.semantics(this, insn);
      return;
    }
    this.repeat(insn, instruction);
  }

  /** Points the evaluator at `insn` and moves RIP behind it; system instructions start here. */
  begin(insn: DecodedInstruction): void {
    this.insn = insn;
    const rip = this.tx.get(R.rip) + BigInt(insn.length);
    this.nextInstruction = insn.long ? u64(rip) : uN(32, rip);
    this.tx.set(R.rip, this.nextInstruction);
  }

  /**
   * One iteration: RIP stays until the count is used up or the condition ends it. Source: APM vol.3 §1.2.6 Repeat Prefixes.
   */
  private repeat(insn: DecodedInstruction, instruction: PlainInstruction): void {
    const count = this.readGpr(1, insn.addressWidth);
    if (count === 0n) return;
    instruction.semantics(this, insn);
    this.writeGpr(1, insn.addressWidth, uN(insn.addressWidth, count - 1n));
    const compares = /^(CMPS|SCAS)/.test(insn.mnemonic);
    const goesOn = !compares || this.flag('zf') === (insn.rep === 'rep');
    if (count > 1n && goesOn) {
      const rip = this.nextInstruction - BigInt(insn.length);
      this.tx.set(R.rip, insn.long ? u64(rip) : uN(32, rip));
    }
  }

  private requireSse(): void {
    const cr0 = this.tx.get(R.cr0);
    if ((cr0 & CR0.EM) !== 0n || (this.tx.get(R.cr4) & CR4.OSFXSR) === 0n) this.fault('UD');
    if ((cr0 & CR0.TS) !== 0n) this.fault('NM');
  }

  private get current(): DecodedInstruction {
    invariant(this.insn !== undefined, 'no instruction is being evaluated');
    return this.insn;
  }

  // Operands

  read(operand: Operand): bigint {
    const decoded = operand as DecodedOperand;
    switch (decoded.kind) {
      case 'gpr':
        return decoded.high
          ? (this.tx.get(gprSlot(decoded.number)) >> 8n) & 0xffn
          : this.readGpr(decoded.number, decoded.width);
      case 'mem':
        return this.loadAt(decoded.segment, this.offset(decoded), decoded.width, false);
      case 'imm':
        return decoded.value;
      case 'xmm':
        return uN(decoded.width, this.tx.get(xmmSlot(decoded.number)));
      case 'segment':
        return this.tx.get(segmentSlot(decoded.number)) & 0xffffn;
      default:
        throw new Error(`${this.current.mnemonic}: operand of kind ${decoded.kind} is not read this way`);
    }
  }

  readForWrite(operand: Operand): bigint {
    const decoded = operand as DecodedOperand;
    return decoded.kind === 'mem'
      ? this.loadAt(decoded.segment, this.offset(decoded), decoded.width, true)
      : this.read(operand);
  }

  write(operand: Operand, value: bigint): void {
    const decoded = operand as DecodedOperand;
    switch (decoded.kind) {
      case 'gpr':
        if (decoded.high) {
          const old = this.tx.get(gprSlot(decoded.number));
          this.tx.set(gprSlot(decoded.number), (old & ~0xff00n) | ((value & 0xffn) << 8n));
        } else this.writeGpr(decoded.number, decoded.width, value);
        return;
      case 'mem':
        this.storeAt(decoded.segment, this.offset(decoded), decoded.width, value);
        return;
      case 'xmm':
        this.writeVector(operand, value);
        return;
      default:
        throw new Error(`${this.current.mnemonic}: operand of kind ${decoded.kind} is not written this way`);
    }
  }

  address(operand: Operand): bigint {
    return this.offset(operand as MemoryOperand);
  }

  displaced(operand: Operand, bytes: bigint, width: number): Operand {
    const memory = operand as MemoryOperand;
    const moved: MemoryOperand = { ...memory, width, displacement: memory.displacement + BigInt.asIntN(64, bytes) };
    return moved;
  }

  load(segment: 'data' | 'stack', width: number, offset: bigint): bigint {
    const [number, size] = this.implicitSegment(segment);
    return this.loadAt(number, uN(size, offset), width, false);
  }

  store(segment: 'data' | 'stack', width: number, offset: bigint, value: bigint): void {
    const [number, size] = this.implicitSegment(segment);
    this.storeAt(number, uN(size, offset), width, value);
  }

  private implicitSegment(segment: 'data' | 'stack'): readonly [number, number] {
    if (segment === 'stack') return [Segment.SS, this.stackWidth()];
    return [this.current.segmentOverride ?? Segment.DS, this.current.addressWidth];
  }

  readGpr(number: number, width: number): bigint {
    return uN(width, this.tx.get(gprSlot(number)));
  }

  writeGpr(number: number, width: number, value: bigint): void {
    const slot = gprSlot(number);
    if (width >= 32) {
      this.tx.set(slot, uN(width, value));
      return;
    }
    const mask = (1n << BigInt(width)) - 1n;
    this.tx.set(slot, (this.tx.get(slot) & ~mask) | (value & mask));
  }

  // Flags

  flagsAdd(width: number, a: bigint, b: bigint, result: bigint): void {
    this.setArithmeticFlags(addFlags(width, a, b, result));
  }
  flagsSub(width: number, a: bigint, b: bigint, result: bigint): void {
    this.setArithmeticFlags(subFlags(width, a, b, result));
  }
  flagsLogic(width: number, result: bigint): void {
    this.setArithmeticFlags(resultFlags(width, result));
  }
  flagsInc(width: number, a: bigint, result: bigint): void {
    const carry = this.tx.get(R.rflags) & Flag.CF;
    this.setArithmeticFlags((addFlags(width, a, 1n, result) & ~Flag.CF) | carry);
  }
  flagsDec(width: number, a: bigint, result: bigint): void {
    const carry = this.tx.get(R.rflags) & Flag.CF;
    this.setArithmeticFlags((subFlags(width, a, 1n, result) & ~Flag.CF) | carry);
  }
  flagsResult(width: number, result: bigint, carry: boolean, overflow: boolean): void {
    this.setArithmeticFlags(resultFlags(width, result) | (carry ? Flag.CF : 0n) | (overflow ? Flag.OF : 0n));
  }
  setFlag(flag: ArithmeticFlag, value: boolean): void {
    const rflags = this.tx.get(R.rflags);
    this.tx.set(R.rflags, value ? rflags | FLAG_BITS[flag] : rflags & ~FLAG_BITS[flag]);
  }
  flag(flag: ArithmeticFlag): boolean {
    return (this.tx.get(R.rflags) & FLAG_BITS[flag]) !== 0n;
  }
  condition(code: ConditionCode): boolean {
    return conditionHolds(code, this.tx.get(R.rflags));
  }
  directionFlag(): boolean {
    return (this.tx.get(R.rflags) & Flag.DF) !== 0n;
  }
  setDirectionFlag(value: boolean): void {
    const rflags = this.tx.get(R.rflags);
    this.tx.set(R.rflags, value ? rflags | Flag.DF : rflags & ~Flag.DF);
  }
  systemFlags(): bigint {
    return this.tx.get(R.rflags) & ~ARITHMETIC_FLAGS;
  }
  clearInterruptFlag(): void {
    this.tx.set(R.rflags, this.tx.get(R.rflags) & ~Flag.IF);
  }
  arithmeticFlags(): bigint {
    return this.tx.get(R.rflags) & ARITHMETIC_FLAGS;
  }
  setArithmeticFlags(value: bigint): void {
    this.tx.set(R.rflags, (this.tx.get(R.rflags) & ~ARITHMETIC_FLAGS) | (value & ARITHMETIC_FLAGS));
  }

  // Control flow

  /** @throws GuestFault #GP when the target is not canonical or outside the code segment. */
  requireTarget(target: bigint): void {
    checkSegment(this.tx, Segment.CS, this.targetOf(target), 1, Access.FETCH);
  }
  requireRelative(operand: Operand, condition = true): void {
    const { displacement } = operand as RelativeOperand;
    if (condition) this.requireTarget(u64(this.nextInstruction + displacement));
  }
  jump(target: bigint): void {
    this.requireTarget(target);
    this.tx.set(R.rip, this.targetOf(target));
  }
  private targetOf(target: bigint): bigint {
    const { long, width } = this.current;
    return long ? target : uN(width === 16 ? 16 : 32, target);
  }
  jumpRelative(operand: Operand): void {
    const { displacement } = operand as RelativeOperand;
    this.jump(u64(this.nextInstruction + displacement));
  }
  jumpRelativeWhen(condition: boolean, operand: Operand): void {
    if (condition) this.jumpRelative(operand);
  }
  nextRip(): bigint {
    return this.nextInstruction;
  }

  // Stack

  push(width: number, value: bigint): void {
    const size = this.stackWidth();
    const top = uN(size, this.readGpr(4, size) - BigInt(width / 8));
    this.storeAt(Segment.SS, top, width, value);
    this.writeGpr(4, size, top);
  }
  peek(width: number, bytes: number): bigint {
    const size = this.stackWidth();
    return this.loadAt(Segment.SS, uN(size, this.readGpr(4, size) + BigInt(bytes)), width, false);
  }
  moveStack(bytes: bigint): void {
    const size = this.stackWidth();
    this.writeGpr(4, size, uN(size, this.readGpr(4, size) + bytes));
  }
  stackWidth(): 16 | 32 | 64 {
    if (this.current.long) return 64;
    return (this.tx.get(R.ss) & ATTRIBUTE_BIG) !== 0n ? 32 : 16;
  }

  // Strings

  loadSource(width: number): bigint {
    const { segmentOverride, addressWidth } = this.current;
    return this.loadAt(segmentOverride ?? Segment.DS, this.readGpr(6, addressWidth), width, false);
  }
  loadDestination(width: number): bigint {
    return this.loadAt(Segment.ES, this.readGpr(7, this.current.addressWidth), width, false);
  }
  storeDestination(width: number, value: bigint): void {
    this.storeAt(Segment.ES, this.readGpr(7, this.current.addressWidth), width, value);
  }
  advance(register: 'source' | 'destination', width: number): void {
    const { addressWidth } = this.current;
    const number = register === 'source' ? 6 : 7;
    const step = BigInt(width / 8);
    const moved = this.readGpr(number, addressWidth) + (this.directionFlag() ? -step : step);
    this.writeGpr(number, addressWidth, uN(addressWidth, moved));
  }

  // Vectors

  readVector(operand: Operand): bigint {
    const decoded = operand as DecodedOperand;
    if (decoded.kind === 'mem') return this.loadAt(decoded.segment, this.offset(decoded), decoded.width, false);
    invariant(decoded.kind === 'xmm', `${this.current.mnemonic}: a vector operand of kind ${decoded.kind}`);
    const { number, width } = decoded;
    if (width <= 64) return uN(width, this.tx.get(xmmSlot(number)));
    const low = this.quads(xmmSlot(number));
    return width === 128 ? low : low | (this.quads(ymmSlot(number)) << 128n);
  }
  clearVectors(part: 'all' | 'upper'): void {
    for (let number = 0; number < vectorCount(this.tx); number++) {
      if (part === 'all') this.setQuads(xmmSlot(number), 0n);
      this.setQuads(ymmSlot(number), 0n);
    }
  }
  /** The slot and the next one. */
  private quads(slot: Slot): bigint {
    return this.tx.get(slot) | (this.tx.get((slot + 1) as Slot) << 64n);
  }
  private setQuads(slot: Slot, value: bigint): void {
    this.tx.set(slot, value & MASK64);
    this.tx.set((slot + 1) as Slot, (value >> 64n) & MASK64);
  }
  writeVector(operand: Operand, value: bigint): void {
    const decoded = operand as DecodedOperand;
    if (decoded.kind === 'mem') {
      this.storeAt(decoded.segment, this.offset(decoded), decoded.width, uN(decoded.width, value));
      return;
    }
    invariant(decoded.kind === 'xmm', `${this.current.mnemonic}: a vector operand of kind ${decoded.kind}`);
    const { number, width } = decoded;
    const slot = xmmSlot(number);
    if (width <= 64) {
      const mask = (1n << BigInt(width)) - 1n;
      this.tx.set(slot, (this.tx.get(slot) & ~mask) | (value & mask));
      return;
    }
    this.setQuads(slot, value);
    if (width === 256) this.setQuads(ymmSlot(number), value >> 128n);
  }
  writeWhole(operand: Operand, value: bigint): void {
    const { number, width } = operand as NumberedOperand;
    this.setQuads(xmmSlot(number), value);
    this.setQuads(ymmSlot(number), width === 256 ? value >> 128n : 0n);
  }
  readVectorAligned(operand: Operand): bigint {
    this.requireAligned(operand);
    return this.readVector(operand);
  }
  writeVectorAligned(operand: Operand, value: bigint): void {
    this.requireAligned(operand);
    this.writeVector(operand, value);
  }
  private requireAligned(operand: Operand): void {
    const decoded = operand as DecodedOperand;
    if (decoded.kind !== 'mem' || decoded.width < 128) return;
    const bytes = decoded.width / 8;
    const linear = checkSegment(this.tx, decoded.segment, this.offset(decoded), bytes, Access.READ);
    if ((linear & BigInt(bytes - 1)) !== 0n) this.fault('GP');
  }
  elementAt(operand: Operand, number: number, indexWidth: 32 | 64, width: number): Operand {
    const memory = operand as MemoryOperand;
    invariant(memory.vectorIndex !== undefined, `${this.current.mnemonic}: an operand without a vector of indices`);
    const at = number * indexWidth;
    const slot = at < 128 ? xmmSlot(memory.vectorIndex.number) : ymmSlot(memory.vectorIndex.number);
    const index = BigInt.asIntN(indexWidth, this.quads(slot) >> BigInt(at % 128));
    return this.displaced(operand, index << BigInt(memory.scale), width);
  }
  readVectorForWrite(operand: Operand): bigint {
    this.requireAligned(operand);
    const decoded = operand as DecodedOperand;
    if (decoded.kind === 'mem') return this.loadAt(decoded.segment, this.offset(decoded), decoded.width, true);
    return this.readVector(operand);
  }
  float(operation: FloatOperation, a: bigint, b: bigint, immediate = 0n): bigint {
    return this.floating((env) => floatOperation(env, operation, a, b, immediate));
  }
  fused(operation: FusedOperation, x: bigint, y: bigint, z: bigint): bigint {
    return this.floating((env) => fusedOperation(env, operation, x, y, z));
  }
  private floating(compute: (env: FloatEnvironment) => bigint): bigint {
    const env = floatEnvironment(this.tx);
    const result = compute(env);
    if (this.joint === undefined) raiseFloat(this.tx, [env]);
    else this.joint.push(env);
    return result;
  }
  jointly(action: () => void): void {
    const joint: FloatEnvironment[] = [];
    this.joint = joint;
    try {
      action();
    } finally {
      this.joint = undefined;
    }
    raiseFloat(this.tx, joint);
  }
  // Memory

  /** Effective address within the segment, cut to the address size. Source: APM vol.1 §2.2.3 Memory Addressing. */
  private offset(operand: MemoryOperand): bigint {
    let offset = operand.displacement;
    if (operand.base === RIP_BASE) offset += this.nextInstruction;
    else if (operand.base !== NO_REGISTER) offset += this.tx.get(gprSlot(operand.base));
    if (operand.index !== NO_REGISTER) offset += this.tx.get(gprSlot(operand.index)) << BigInt(operand.scale);
    return uN(this.current.addressWidth, offset);
  }

  /** @param forWrite faults as a write will: both permissions are checked before anything is read. */
  private loadAt(segment: number, offset: bigint, width: number, forWrite: boolean): bigint {
    const bytes = width / 8;
    const linear = checkSegment(this.tx, segment, offset, bytes, forWrite ? Access.WRITE : Access.READ);
    const access = this.privilege();
    checkAlignment(this.tx, linear, bytes, this.tx.get(R.cpl));
    if (this.watching) this.hits |= dataHits(this.tx, linear, bytes, forWrite);
    if (forWrite) this.tx.probeWrite(linear, bytes, access);
    return this.tx.readLinear(linear, bytes, access);
  }

  private storeAt(segment: number, offset: bigint, width: number, value: bigint): void {
    const bytes = width / 8;
    const linear = checkSegment(this.tx, segment, offset, bytes, Access.WRITE);
    checkAlignment(this.tx, linear, bytes, this.tx.get(R.cpl));
    if (this.watching) this.hits |= dataHits(this.tx, linear, bytes, true);
    this.lastStore = { linear, bytes };
    this.tx.writeLinear(linear, bytes, value, this.privilege());
  }

  private privilege(): number {
    return this.tx.get(R.cpl) === 3n ? Access.USER : 0;
  }
}

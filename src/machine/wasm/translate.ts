/**
 * Instruction → micro-ops: finds the handler, packs register addresses, displacement and immediate, and puts an address
 * micro-op in front where an operand needs more than base + index * scale + displacement.
 */
import { type DecodedInstruction, type DecodedOperand, type MemoryOperand, RIP_BASE } from '../decode/decoded.js';
import { CONTROL_SLOTS, gprSlot, Segment, type Slot, segmentSlot, slotAddress, xmmSlot } from '../layout/cpu-state.js';
import { Cell, segmentBaseAddress, segmentLimitCell } from '../layout/linear-memory.js';
import { Handler, isCompiled, type KnownHandler, TO_THE_EVALUATOR } from './handlers.js';
import type { Interpreter } from './interpreter.js';
import { isRegister, Uop } from './uop.js';

/** Where an instruction stands in the block that is being written. */
export interface UopPlace {
  /** Offset of the instruction within its linear page. */
  readonly pageOffset: number;
  /** Instructions of the block before it. */
  readonly position: number;
}

/** An instruction as it was written. */
export interface WrittenInstruction {
  readonly insn: DecodedInstruction;
  readonly handler: KnownHandler;
  /** The last of its micro-ops. */
  readonly uop: number;
  /** The address behind it. */
  readonly end: number;
}

/** The micro-ops of a block, as far as they are written: of each instruction the last one. */
export class WrittenBlock {
  readonly handlers: KnownHandler[] = [];
  readonly uops: number[] = [];
  count = 0;
  /** Where the next one goes. */
  end = 0;
  /** Code of 64 bits. */
  long = false;

  begin(first: number, long: boolean): void {
    this.count = 0;
    this.end = first;
    this.long = long;
  }

  add(handler: KnownHandler, uop: number): void {
    this.handlers[this.count] = handler;
    this.uops[this.count] = uop;
    this.count++;
    this.end = uop + Uop.BYTES;
  }

  get last(): number {
    return this.uops[this.count - 1] as number;
  }
}

export class Translator {
  constructor(
    private readonly view: DataView,
    private readonly interpreter: Interpreter,
  ) {}

  /**
   * Writes the micro-ops of `insn` at `at`.
   * @param compiled false leaves it to the evaluator whatever it is.
   */
  write(at: number, insn: DecodedInstruction, place: UopPlace, compiled: boolean): WrittenInstruction {
    const handler =
      compiled && isCompiled(insn) && isPackable(insn, place) ? this.interpreter.handlerOf(insn) : TO_THE_EVALUATOR;
    const number = handler.handler;
    this.head(at, number, insn.length, place);
    let uop = at;
    if (handler !== TO_THE_EVALUATOR) {
      const memory = memoryOperand(insn);
      if (memory !== undefined && needsAddressUop(memory, insn)) {
        this.addressUop(uop, memory, insn, place);
        uop += Uop.BYTES;
        this.head(uop, number, insn.length, place);
        this.address(uop, Cell.ADDRESS, Cell.ZERO, 0, 0);
      } else if (memory !== undefined) this.plainAddress(uop, memory, insn, place);
      this.operands(uop, insn);
    }
    return { insn, handler, uop, end: uop + Uop.BYTES };
  }

  /** Lets one micro-op do two instructions, where there is a handler for the pair. */
  fusePairs({ handlers, uops, count, long }: WrittenBlock): void {
    if (!long) return;
    for (let index = 1; index < count; index++) {
      const { pairs } = handlers[index - 1] as KnownHandler;
      const handler = pairs.size === 0 ? undefined : pairs.get(handlers[index] as KnownHandler);
      if (handler !== undefined) this.view.setUint16((uops[index - 1] as number) + Uop.HANDLER, handler, true);
    }
  }

  /**
   * Finds the instructions of a block whose flags are overwritten before anybody can see them, and takes the handlers
   * that set none. Between such an instruction and the one that overwrites nothing may leave the block.
   */
  dropDeadFlags({ handlers, uops, count }: WrittenBlock): void {
    let dead = false;
    for (let index = count - 1; index >= 0; index--) {
      const { effects, flagless } = handlers[index] as KnownHandler;
      const { readsFlags, overwritesFlags, leaves } = effects;
      if (dead && flagless !== undefined) this.view.setUint16((uops[index] as number) + Uop.HANDLER, flagless, true);
      dead = !leaves && !readsFlags && (overwritesFlags || dead);
    }
  }

  /** Ends a block: execution goes on at `place`, found by RIP. */
  writeEnd(at: number, place: UopPlace): number {
    this.head(at, Handler.END, 0, place);
    return at + Uop.BYTES;
  }

  /** A block that is the rest of another one, from the micro-op `inside` on. */
  writeInside(at: number, pageOffset: number, inside: number): number {
    this.head(at, Handler.INSIDE, 0, { pageOffset, position: 0 });
    this.view.setInt32(at + Uop.LINK, inside, true);
    this.view.setInt32(at + Uop.DISPLACEMENT, this.view.getUint8(inside + Uop.POSITION), true);
    return at + Uop.BYTES;
  }

  private head(at: number, handler: number, length: number, { pageOffset, position }: UopPlace): void {
    const { view } = this;
    view.setUint16(at + Uop.HANDLER, handler, true);
    view.setUint8(at + Uop.POSITION, position);
    view.setUint8(at + Uop.LENGTH, length);
    view.setUint16(at + Uop.PAGE_OFFSET, pageOffset, true);
    view.setInt32(at + Uop.LINK, 0, true);
  }

  private operands(at: number, insn: DecodedInstruction): void {
    const { view } = this;
    const fields = [Uop.REGISTER0, Uop.REGISTER1, Uop.REGISTER2];
    let register = 0;
    for (const operand of insn.operands) {
      if (isRegister(operand)) {
        view.setUint16(at + (fields[register] as number), registerAddress(operand), true);
        register++;
      } else if (operand.kind === 'imm') view.setBigUint64(at + Uop.IMMEDIATE, operand.value, true);
      else if (operand.kind === 'rel') view.setBigInt64(at + Uop.IMMEDIATE, operand.displacement, true);
    }
  }

  private plainAddress(at: number, memory: MemoryOperand, insn: DecodedInstruction, place: UopPlace): void {
    if (memory.base === RIP_BASE) {
      const displacement = Number(memory.displacement) + place.pageOffset + insn.length;
      this.address(at, Cell.RIP_PAGE, indexAddress(memory), memory.scale, displacement);
    } else this.address(at, baseAddress(memory), indexAddress(memory), memory.scale, Number(memory.displacement));
  }

  private addressUop(at: number, memory: MemoryOperand, insn: DecodedInstruction, place: UopPlace): void {
    const bare = isBare(insn);
    this.head(at, addressHandlerOf(insn, bare), insn.length, place);
    this.plainAddress(at, memory, insn, place);
    const { view } = this;
    view.setUint16(at + Uop.REGISTER0, hasBase(memory, insn) ? segmentBaseAddress(memory.segment) : Cell.ZERO, true);
    view.setUint16(at + Uop.REGISTER1, segmentLimitCell(memory.segment), true);
    view.setBigUint64(at + Uop.IMMEDIATE, BigInt(Math.max(1, memory.width / 8) - 1), true);
  }

  private address(at: number, base: number, index: number, scale: number, displacement: number): void {
    const { view } = this;
    view.setUint16(at + Uop.BASE, base, true);
    view.setUint16(at + Uop.INDEX, index, true);
    view.setUint8(at + Uop.SCALE, scale);
    view.setInt32(at + Uop.DISPLACEMENT, displacement, true);
  }
}

export function memoryOperand({ operands }: DecodedInstruction): MemoryOperand | undefined {
  for (const operand of operands) if (operand.kind === 'mem') return operand;
  return undefined;
}

/** Operands that a micro-op has no room for are left to the evaluator. */
function isPackable(insn: DecodedInstruction, place: UopPlace): boolean {
  let immediates = 0;
  for (const operand of insn.operands) {
    if (operand.kind === 'imm' || operand.kind === 'rel') immediates++;
    if (operand.kind !== 'mem') continue;
    const displacement =
      Number(operand.displacement) + (operand.base === RIP_BASE ? place.pageOffset + insn.length : 0);
    if (displacement !== (displacement | 0)) return false;
  }
  return immediates <= 1 && !(insn.lock && insn.operands[0]?.kind !== 'mem');
}

const hasBase = (memory: MemoryOperand, insn: DecodedInstruction): boolean =>
  !insn.long || memory.segment === Segment.FS || memory.segment === Segment.GS;

const needsAddressUop = (memory: MemoryOperand, insn: DecodedInstruction): boolean =>
  insn.addressWidth !== 64 || (hasBase(memory, insn) && !isBare(insn));

/** Their operand is an address and no access. */
const isBare = ({ mnemonic }: DecodedInstruction): boolean => BARE.has(mnemonic);
const BARE: ReadonlySet<string> = new Set(['LEA', 'NOP', 'INVLPG']);

function addressHandlerOf(insn: DecodedInstruction, bare: boolean): number {
  if (bare) return insn.addressWidth === 16 ? Handler.ADDRESS_BARE_16 : Handler.ADDRESS_BARE_32;
  if (insn.long) return insn.addressWidth === 64 ? Handler.ADDRESS_SEGMENT : Handler.ADDRESS_32;
  return insn.addressWidth === 16 ? Handler.ADDRESS_LEGACY_16 : Handler.ADDRESS_LEGACY_32;
}

function registerAddress(operand: DecodedOperand): number {
  if (operand.kind === 'xmm') return slotAddress(xmmSlot(operand.number));
  if (operand.kind === 'segment') return slotAddress(segmentSlot(operand.number));
  if (operand.kind === 'control') return slotAddress(CONTROL_SLOTS.get(operand.number) as Slot);
  return operand.kind === 'gpr' ? slotAddress(gprSlot(operand.number)) + (operand.high ? 1 : 0) : Cell.ZERO;
}

const baseAddress = (memory: MemoryOperand): number =>
  memory.base < 0 ? Cell.ZERO : slotAddress(gprSlot(memory.base));

const indexAddress = (memory: MemoryOperand): number =>
  memory.index < 0 ? Cell.ZERO : slotAddress(gprSlot(memory.index));

/** Unconditional transfers, and whatever the control plane does, end a block: what follows may be no code. */
export function endsBlock(insn: DecodedInstruction, compiled: boolean): boolean {
  return (!compiled && insn.system !== undefined) || /^(JMP|CALL|RET)/.test(insn.mnemonic);
}

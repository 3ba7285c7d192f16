/**
 * Maps from what the code of a handler depends on: the description of an instruction, its sizes, its prefixes, and the kinds
 * and widths of its operands. Registers, addresses and values come from the micro-op. They are looked into for every
 * instruction that is decoded, so that keys are small integers.
 */
import type { DecodedInstruction } from '../decode/decoded.js';
import { invariant } from '../errors.js';
import type { Instruction, Operand } from '../isa/instruction.js';

const REPEATS = { none: 0, rep: 1, repne: 2 } as const;
/** log2 of 16 .. 64, less 4. */
const SIZES = { 8: 3, 16: 0, 32: 1, 64: 2 } as const;

/** Kinds and widths of operands, numbered as they come. */
const OPERANDS = new Map<Operand['kind'], Map<number, number>>();
const OPERAND_BITS = 6;
const MOST_OPERANDS = 4;
let operandsKnown = 0;

function operandNumber({ kind, width }: Operand): number {
  const known = OPERANDS.get(kind)?.get(width);
  if (known !== undefined) return known;
  const widths = OPERANDS.get(kind) ?? new Map<number, number>();
  OPERANDS.set(kind, widths);
  // How far a branch goes is a value. 0 stands for no operand.
  const number = kind === 'rel' ? (widths.values().next().value ?? ++operandsKnown) : ++operandsKnown;
  invariant(number < 1 << OPERAND_BITS, 'there are more kinds of operands than have numbers');
  widths.set(width, number);
  return number;
}

/** What of an instruction, beside its description, its handler depends on. */
function shapeOf({ width, addressWidth, long, rep, operands }: DecodedInstruction): number {
  invariant(operands.length <= MOST_OPERANDS, 'an instruction has more operands than a shape has room for');
  let shape = (((SIZES[width] << 2) | SIZES[addressWidth]) << 3) | (REPEATS[rep] << 1) | (long ? 1 : 0);
  for (let index = 0; index < operands.length; index++)
    shape = (shape << OPERAND_BITS) | operandNumber(operands[index] as Operand);
  return shape;
}

export class ByShape<Value> {
  private readonly maps: Map<Instruction, Map<number, Value>>;

  constructor(other?: ByShape<Value>) {
    this.maps = new Map(other && Array.from(other.maps, ([instruction, map]) => [instruction, new Map(map)] as const));
  }

  get(insn: DecodedInstruction): Value | undefined {
    return this.maps.get(insn.instruction)?.get(shapeOf(insn));
  }

  set(insn: DecodedInstruction, value: Value): void {
    const known = this.maps.get(insn.instruction);
    if (known === undefined) this.maps.set(insn.instruction, new Map([[shapeOf(insn), value]]));
    else known.set(shapeOf(insn), value);
  }

  /** The value for an instruction, made when there is none. */
  once(insn: DecodedInstruction, make: () => Value): Value {
    const known = this.get(insn);
    if (known !== undefined) return known;
    const made = make();
    this.set(insn, made);
    return made;
  }
}

const INSTRUCTION_IDS = new Map<Instruction, number>();

/** An instruction's shape as text. */
export function keyOf(insn: DecodedInstruction): string {
  const id = INSTRUCTION_IDS.get(insn.instruction) ?? INSTRUCTION_IDS.size;
  INSTRUCTION_IDS.set(insn.instruction, id);
  return `${id}:${shapeOf(insn)}`;
}

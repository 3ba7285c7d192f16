/**
 * Instructions that regions leave to the evaluator, decoded, by their RIP: regions say no more than where they stopped.
 * What is here holds as long as the code does and its place in the address space.
 */
import type { DecodedInstruction } from '../decode/decoded.js';
import { addressOf } from './translations.js';

/** Instructions that are remembered, each in its place. */
const HELD = 4096;
/** No context of the jump cache. */
const NOTHING = 0;

export class EvaluatedInstructions {
  private readonly contexts = new Int32Array(HELD);
  private readonly lows = new Int32Array(HELD);
  private readonly highs = new Int32Array(HELD);
  private readonly instructions: (DecodedInstruction | undefined)[] = Array.from({ length: HELD }, () => undefined);
  private isEmpty = true;

  /** @param decode the instruction at an RIP, in the context of now; nothing where only a fetch can tell. */
  constructor(private readonly decode: (rip: bigint) => DecodedInstruction | undefined) {}

  /** @param low @param high words of RIP. @param context as the jump cache has it, that of now. */
  at(low: number, high: number, context: number): DecodedInstruction | undefined {
    const index = (low ^ (low >>> 12) ^ context) & (HELD - 1);
    if (this.contexts[index] === context && this.lows[index] === (low | 0) && this.highs[index] === (high | 0)) {
      return this.instructions[index];
    }
    const insn = this.decode(addressOf(low, high));
    if (insn === undefined) return undefined;
    this.isEmpty = false;
    this.contexts[index] = context;
    this.lows[index] = low;
    this.highs[index] = high;
    this.instructions[index] = insn;
    return insn;
  }

  clear(): void {
    if (this.isEmpty) return;
    this.isEmpty = true;
    this.contexts.fill(NOTHING);
    this.instructions.fill(undefined);
  }
}

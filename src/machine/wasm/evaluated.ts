/**
 * Instructions that regions leave to the evaluator, decoded, by their RIP: regions say no more than where they stopped.
 * What is here holds as long as the code does and its place in the address space.
 */
import type { DecodedInstruction } from '../decode/decoded.js';

interface Evaluated {
  /** As the jump cache has it. */
  readonly context: number;
  readonly insn: DecodedInstruction;
}

const MOST = 4096;

export class EvaluatedInstructions {
  private readonly known = new Map<bigint, Evaluated>();

  /** @param decode gives nothing where only a fetch can tell. */
  at(rip: bigint, context: number, decode: () => DecodedInstruction | undefined): DecodedInstruction | undefined {
    const known = this.known.get(rip);
    if (known?.context === context) return known.insn;
    const insn = decode();
    if (insn === undefined) return undefined;
    if (this.known.size >= MOST) this.known.clear();
    this.known.set(rip, { context, insn });
    return insn;
  }

  clear(): void {
    this.known.clear();
  }
}

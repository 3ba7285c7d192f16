/**
 * Evaluator and interpreter are one instruction set: each form in each of its shapes, run to its end by compiled code,
 * and random sequences, in which flags stay lazy, pairs are fused and branches are linked.
 */
import fc from 'fast-check';
import { beforeAll, describe, expect, it } from 'vitest';
import type { DecodedInstruction } from '../../../src/machine/decode/decoded.js';
import type { Form } from '../../../src/machine/decode/tables.js';
import type { Feature } from '../../../src/machine/isa/instruction.js';
import { sPA } from '../../../src/machine/units.js';
import { Handler, isCompiled } from '../../../src/machine/wasm/handlers.js';
import { HOT_ENCODINGS } from '../../../src/machine/wasm/hot.js';
import { Interpreter } from '../../../src/machine/wasm/interpreter.js';
import { Random } from '../../../tools/fuzz/random.js';
import { type Bits, DATA, differences, EngineBench, STACK_TOP, type Values } from '../../support/engine-bench.js';
import {
  assemble,
  encodeTame,
  randomShape,
  type Shape,
  shapesOf,
  startOf,
  tameRegisters,
} from '../../support/engine-sequences.js';

const FEATURES: readonly Feature[] = ['sse3', 'ssse3', 'sse4.1', 'sse4.2', 'adx', 'aes', 'pclmulqdq'];
const LONGEST_RUN = 250;

class Pair {
  readonly evaluator = new EngineBench('evaluator', FEATURES);
  readonly engine = new EngineBench('engine', FEATURES);
  readonly decoder = this.engine.engine.decoder;
  readonly forms = this.decoder.tables.forms.filter(({ instruction }) => 'semantics' in instruction);

  constructor(readonly bits: Bits) {}

  /** The same random data in both. */
  fill(random: Random): void {
    for (const start of [DATA, STACK_TOP - 0x800]) {
      for (let at = start; at < start + 0x1000; at += 8) {
        const value = random.next64();
        this.evaluator.write(at, 8, value);
        this.engine.write(at, 8, value);
      }
    }
  }

  /** @returns what the tiers disagree in after `count` instructions, or when nothing runs any more. */
  run(code: Uint8Array, registers: Values, count: number): string[] {
    try {
      for (const bench of [this.evaluator, this.engine]) {
        bench.mode(this.bits, registers);
        bench.put(startOf(this.bits), code);
        bench.retired = 0;
        bench.isShutDown = false;
        bench.run(count);
      }
    } catch (bug) {
      // So that the next, smaller case does not fail for this one.
      this.align();
      throw bug;
    }
    return differences(this.evaluator, this.engine);
  }

  /** After a disagreement: the engine's RAM as the evaluator's. */
  align(): void {
    const { memory } = this.evaluator;
    this.engine.memory.copyIn(sPA(0), memory.window(0, memory.ramBytes));
  }
}

const encodingOf = (insn: DecodedInstruction): string => Buffer.from(insn.bytes).toString('hex');
const nameOf = (form: Form, insn: DecodedInstruction): string =>
  `${form.instruction.mnemonic} ${form.text} [${encodingOf(insn)}]`;

/** Random operands of a division seldom give a quotient that fits. */
const MOST_ATTEMPTS = 200;

describe.each([64, 32, 16] as const)('%i-bit code', (bits) => {
  let pair: Pair;
  /** Tells handlers apart as the engine does. */
  let handlers: Interpreter;
  beforeAll(() => {
    pair = new Pair(bits);
    handlers = new Interpreter(pair.engine.memory.wasm, () => 0, []);
  });

  it('means the same to evaluator and engine in every shape of every form, and each handler gets to its end', () => {
    const random = new Random(BigInt(bits));
    pair.fill(random);
    const wrong: string[] = [];
    /** Compiled handlers that always left for the evaluator, with an instruction of theirs. */
    const neverRan = new Map<number, string>();
    const ran = new Set<number>([Handler.ASSIST]);
    const attempt = (form: Form, shape: Shape): boolean => {
      const insn = encodeTame(pair.decoder, form, bits, shape, random);
      if (insn === undefined) return true;
      const handler = isCompiled(insn) ? handlers.handlerOf(insn).handler : Handler.ASSIST;
      pair.engine.helped = 0;
      const found = pair.run(insn.bytes, tameRegisters(bits, random), 1);
      if (found.length > 0) {
        wrong.push(`${nameOf(form, insn)}: ${found.join(', ')}`);
        pair.align();
      }
      if (pair.engine.helped === 0) ran.add(handler);
      if (ran.has(handler)) neverRan.delete(handler);
      else neverRan.set(handler, nameOf(form, insn));
      return ran.has(handler);
    };
    for (const form of pair.forms) {
      for (const shape of shapesOf(form, bits)) {
        let done = attempt(form, shape);
        for (let again = 0; again < MOST_ATTEMPTS && !done; again++) done = attempt(form, shape);
      }
    }
    expect(wrong).toEqual([]);
    expect([...neverRan.values()].filter((name) => !/^UD[012] /.test(name))).toEqual([]);
  });

  it('means the same in sequences, whatever stands before and after an instruction', () => {
    const sequence = fc.record({
      seed: fc.bigInt({ min: 0n, max: (1n << 64n) - 1n }),
      length: fc.integer({ min: 2, max: 10 }),
    });
    pair.fill(new Random(1n));
    fc.assert(
      fc.property(sequence, ({ seed, length }) => {
        const random = new Random(seed);
        const insns = Array.from({ length }, () => randomInstruction(pair, random));
        const registers = tameRegisters(bits, random);
        const order = random.next64();
        const found = pair.run(assemble(insns, new Random(order)), registers, LONGEST_RUN);
        if (found.length > 0) pair.align();
        expect(found, insns.map((insn) => `${insn.mnemonic} ${encodingOf(insn)}`).join('; ')).toEqual([]);
      }),
      { numRuns: 800 },
    );
  });
});

describe('the table of handlers', () => {
  it('has room for all that the instruction set can ask for: a full one would end the session', () => {
    const { engine, memory } = new EngineBench('engine', FEATURES);
    const { decoder } = engine;
    const random = new Random(1n);
    const hot = HOT_ENCODINGS.map((bytes) => decoder.decode(bytes, { bits: 64, real: false }));
    const handlers = new Interpreter(
      memory.wasm,
      () => 0,
      hot.filter((insn) => typeof insn === 'object'),
    );
    const seen = new Set<number>();
    for (const bits of [64, 32, 16] as const) {
      for (const form of decoder.tables.forms) {
        // Handlers go by the address size even where there is no address.
        const shapes = [...shapesOf(form, bits)].flatMap((shape) => [shape, { ...shape, addressSizePrefix: true }]);
        for (const shape of shapes) {
          const insn = encodeTame(decoder, form, bits, shape, random);
          if (insn !== undefined && isCompiled(insn)) seen.add(handlers.handlerOf(insn).handler);
        }
      }
    }
    expect(seen.size).toBeGreaterThan(3000);
  });
});

/** Comparisons and branches more often than their share of the forms, so that pairs and links come about. */
function randomInstruction(pair: Pair, random: Random): DecodedInstruction {
  const { bits, decoder, forms } = pair;
  const wanted = random.oneIn(3)
    ? forms.filter(({ instruction: { mnemonic } }) => /^(CMP|TEST|J[A-Z]+|LOOP\w*|DEC|INC|ADD|MOV)$/.test(mnemonic))
    : forms;
  for (;;) {
    const form = random.pick(wanted);
    const shapes = [...shapesOf(form, bits)];
    if (shapes.length === 0) continue;
    const insn = encodeTame(decoder, form, bits, randomShape(form, bits, random), random);
    if (insn !== undefined && (!leavesSequence(insn) || random.oneIn(8))) return insn;
  }
}

/** Transfers to wherever a register or memory says. */
const leavesSequence = ({ mnemonic, operands }: DecodedInstruction): boolean =>
  /^RET/.test(mnemonic) || (/^(JMP|CALL)/.test(mnemonic) && operands[0]?.kind !== 'rel');

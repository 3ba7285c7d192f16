/** What is copied from a template is what decoding and packing make of the same bytes, in every shape of every form. */
import { beforeEach, describe, expect, it } from 'vitest';
import type { Decoder } from '../../../src/machine/decode/decode.js';
import type { DecodedInstruction } from '../../../src/machine/decode/decoded.js';
import type { Feature } from '../../../src/machine/isa/instruction.js';
import { UOP_BASE } from '../../../src/machine/layout/linear-memory.js';
import type { PhysicalMemory } from '../../../src/machine/mmu/memory.js';
import { isCompiled, TO_THE_EVALUATOR } from '../../../src/machine/wasm/handlers.js';
import { Interpreter } from '../../../src/machine/wasm/interpreter.js';
import { Translator, type UopPlace } from '../../../src/machine/wasm/translate.js';
import { Uop } from '../../../src/machine/wasm/uop.js';
import { type UopTemplate, UopTemplates } from '../../../src/machine/wasm/uop-templates.js';
import { Random } from '../../../tools/fuzz/random.js';
import { CODE, EngineBench, hex } from '../../support/engine-bench.js';
import { encodeTame, shapesOf } from '../../support/engine-sequences.js';

const FEATURES: readonly Feature[] = ['sse3', 'ssse3', 'sse4.1', 'sse4.2', 'adx', 'aes', 'pclmulqdq', 'avx', 'bmi1'];
const LONG = { bits: 64, real: false } as const;
/** Where micro-ops are written: by a template, and without. */
const [FIRST, COPY, WHOLE] = [UOP_BASE, UOP_BASE + 4 * Uop.BYTES, UOP_BASE + 8 * Uop.BYTES] as const;
const MOST_UOPS = 2 * Uop.BYTES;

class Desk {
  readonly memory: PhysicalMemory;
  readonly decoder: Decoder;
  templates: UopTemplates;
  private readonly translator: Translator;
  private readonly code: number;

  constructor() {
    const { engine, memory } = new EngineBench('engine', FEATURES);
    this.memory = memory;
    this.decoder = engine.decoder;
    this.templates = new UopTemplates(memory);
    this.translator = new Translator(memory.view, new Interpreter(memory.wasm, () => 0, []));
    this.code = memory.bytes.byteOffset + memory.window(CODE, 1).byteOffset;
  }

  put(bytes: Uint8Array): DecodedInstruction | undefined {
    this.memory.bytes.set(bytes, this.code);
    const insn = this.decoder.decode(bytes, LONG);
    return typeof insn === 'object' ? insn : undefined;
  }

  /** @returns whether it was compiled code. */
  learn(insn: DecodedInstruction): boolean {
    this.clear(FIRST);
    const written = this.translator.write(FIRST, insn, { pageOffset: 0x7f0, position: 0x2a }, true);
    if (written.handler === TO_THE_EVALUATOR) return false;
    this.templates.learn(written, FIRST);
    return true;
  }

  forget(): void {
    this.templates = new UopTemplates(this.memory);
  }

  find(): UopTemplate | undefined {
    return this.templates.find(this.code);
  }

  copy(template: UopTemplate, place: UopPlace): Uint8Array | undefined {
    this.clear(COPY);
    const last = this.templates.write(COPY, template, this.code, place);
    return last === 0 ? undefined : this.memory.bytes.slice(COPY, COPY + MOST_UOPS);
  }

  whole(insn: DecodedInstruction, place: UopPlace): Uint8Array | undefined {
    this.clear(WHOLE);
    const { handler } = this.translator.write(WHOLE, insn, place, true);
    return handler === TO_THE_EVALUATOR ? undefined : this.memory.bytes.slice(WHOLE, WHOLE + MOST_UOPS);
  }

  private clear(at: number): void {
    this.memory.bytes.fill(0, at, at + MOST_UOPS);
  }
}

const text = (bytes: Uint8Array): string => Buffer.from(bytes).toString('hex');

describe('a template', () => {
  let desk: Desk;
  beforeEach(() => {
    desk = new Desk();
  });

  it('gives the micro-ops of each instruction that begins as its first one did', () => {
    const { decoder } = desk;
    const random = new Random(64n);
    const wrong: string[] = [];
    let [found, missed] = [0, 0];
    for (const form of decoder.tables.forms) {
      desk.forget();
      for (const shape of shapesOf(form, 64)) {
        const first = encodeTame(decoder, form, 64, shape, random);
        if (first === undefined || !isCompiled(first) || !desk.learn(first)) continue;
        const bytes = first.bytes.slice();
        for (let at = first.headLength; at < bytes.length; at++) bytes[at] = random.below(256);
        const second = desk.put(bytes);
        const template = desk.find();
        if (second === undefined || template === undefined) {
          missed++;
          continue;
        }
        found++;
        const place = { pageOffset: random.below(4096 - 15), position: random.below(64) };
        const [copy, whole] = [desk.copy(template, place), desk.whole(second, place)];
        const same = copy === undefined ? whole === undefined : whole !== undefined && text(copy) === text(whole);
        const agree = same && template.length === second.length;
        if (!agree) wrong.push(`${first.mnemonic} ${text(bytes)}`);
      }
    }
    expect(wrong).toEqual([]);
    expect(found).toBeGreaterThan(3000);
    // MOV with a 64-bit offset.
    expect(missed).toBeLessThan(found / 100);
  });

  it.each([
    ['a displacement of one byte, signed', '8b 43 01', '8b 43 80'],
    ['one of four bytes', '8b 83 01 00 00 00', '8b 83 78 56 34 f2'],
    ['one from RIP', '8b 05 01 00 00 00', '8b 05 f0 ff ff ff'],
    ['one behind SIB without a base', '8b 04 0d 01 00 00 00', '8b 04 0d 00 00 00 80'],
    ['both numbers', 'c7 43 01 01 00 00 00', 'c7 43 fe fe ff ff ff'],
    ['an immediate that is sign-extended', '48 83 c0 01', '48 83 c0 ff'],
    ['one that is cut to 16 bits', '66 83 c0 01', '66 83 c0 ff'],
    ['one of 64 bits', '48 b8 01 00 00 00 00 00 00 00', '48 b8 10 32 54 76 98 ba dc fe'],
    ['a relative branch', '0f 84 01 00 00 00', '0f 84 00 ff ff ff'],
    ['a segment override', '65 48 8b 04 25 01 00 00 00', '65 48 8b 04 25 28 00 00 00'],
  ])('has %s of its own', (_, known, other) => {
    desk.learn(desk.put(hex(known)) as DecodedInstruction);
    const insn = desk.put(hex(other)) as DecodedInstruction;
    const place = { pageOffset: 0x123, position: 7 };
    const copy = desk.copy(desk.find() as UopTemplate, place);
    expect(text(copy as Uint8Array)).toBe(text(desk.whole(insn, place) as Uint8Array));
  });

  it('is refused where a displacement from RIP has no room', () => {
    desk.learn(desk.put(hex('8b 05 00 00 00 00')) as DecodedInstruction);
    desk.put(hex('8b 05 ff ff ff 7f'));
    expect(desk.copy(desk.find() as UopTemplate, { pageOffset: 0, position: 0 })).toBeUndefined();
  });

  it.each([
    ['other prefixes', '48 8b 43 01', '8b 43 01'],
    ['another opcode', '8b 43 01', '89 43 01'],
    ['other registers', '8b 43 01', '8b 4b 01'],
    ['another SIB byte', '8b 44 0b 01', '8b 44 13 01'],
  ])('is none for %s', (_, known, other) => {
    desk.learn(desk.put(hex(known)) as DecodedInstruction);
    desk.put(hex(other));
    expect(desk.find()).toBeUndefined();
  });
});

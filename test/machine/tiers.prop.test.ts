/** Evaluator and engine are one instruction set: every form, in every mode, on random operands, faults included. */
import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import type { Tier } from '../../src/machine/cpu/processor-host.js';
import type { Form } from '../../src/machine/decode/tables.js';
import type { Feature } from '../../src/machine/isa/instruction.js';
import { REGISTER_NAMES, SLOT_COUNT, type Slot } from '../../src/machine/layout/cpu-state.js';
import { sPA } from '../../src/machine/units.js';
import { Workbench } from '../../src/machine/workbench.js';
import { type Bits, encode } from '../../tools/fuzz/encode.js';
import { Random } from '../../tools/fuzz/random.js';
import { CODE, prepareMemory, randomRegisters } from '../support/random-instructions.js';

const RAM_BYTES = 0x100000;
const FEATURES: readonly Feature[] = [
  ...(['sse3', 'ssse3', 'sse4.1', 'sse4.2', 'adx', 'aes', 'pclmulqdq'] as const),
  ...(['avx', 'avx2', 'fma', 'f16c'] as const),
];
const RUNS = { numRuns: 2 };

const benches: Readonly<Record<Tier, Workbench>> = {
  evaluator: new Workbench(RAM_BYTES, FEATURES),
  engine: new Workbench(RAM_BYTES, FEATURES),
};
const forms = benches.evaluator.engine.decoder.tables.forms.filter(({ instruction }) => 'semantics' in instruction);

function execute(tier: Tier, bits: Bits, bytes: Uint8Array, registers: readonly bigint[]): void {
  const bench = benches[tier];
  bench.memory.copyIn(sPA(CODE[bits]), bytes);
  for (let slot = 0; slot < SLOT_COUNT; slot++) bench.registers[slot as Slot] = registers[slot] as bigint;
  bench.stateChanged();
  bench.step(tier);
}

/** @returns what the tiers disagree in; undefined when the bytes are no instruction of this form. */
function disagreement(form: Form, bits: Bits, random: Random): string | undefined {
  const bytes = encode(form, bits, random);
  const insn = benches.evaluator.engine.decoder.decode(bytes, { bits, real: false });
  if (typeof insn !== 'object' || insn.form !== form.id) return undefined;
  const registers = randomRegisters(bits, random);
  execute('evaluator', bits, bytes, registers);
  execute('engine', bits, bytes, registers);
  const { evaluator, engine } = benches;
  const differences = REGISTER_NAMES.flatMap((name, slot) => {
    const [expected, found] = [evaluator.registers[slot as Slot], engine.registers[slot as Slot]];
    return expected === found ? [] : [`${name}: ${expected?.toString(16)} and ${found?.toString(16)}`];
  });
  if (Buffer.compare(evaluator.memory.window(0, RAM_BYTES), engine.memory.window(0, RAM_BYTES)) !== 0) {
    differences.push('memory');
  }
  if (differences.length === 0) return undefined;
  const encoding = Buffer.from(bytes.subarray(0, insn.length)).toString('hex');
  return `${form.instruction.mnemonic} ${form.text} [${encoding}]: ${differences.join(', ')}`;
}

describe.each([64, 32, 16] as const)('in %i-bit mode', (bits) => {
  it('the engine does what the evaluator does, for every form', () => {
    fc.assert(
      fc.property(fc.bigInt({ min: 0n, max: (1n << 64n) - 1n }), (seed) => {
        for (const bench of Object.values(benches)) prepareMemory(bench, new Random(seed));
        const random = new Random(seed + 1n);
        expect(forms.flatMap((form) => disagreement(form, bits, random) ?? [])).toEqual([]);
      }),
      RUNS,
    );
  }, 30_000);
});

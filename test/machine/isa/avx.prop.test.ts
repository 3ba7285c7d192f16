/**
 * What AVX shares with SSE: a VEX.128 form does what the SSE form does and clears the upper half; a 256-bit form does so
 * in both halves, where they are independent.
 */
import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import type { Form } from '../../../src/machine/decode/tables.js';
import { R, type Slot, xmmSlot, ymmSlot } from '../../../src/machine/layout/cpu-state.js';
import { sPA } from '../../../src/machine/units.js';
import { Workbench } from '../../../src/machine/workbench.js';
import { Random } from '../../../tools/fuzz/random.js';
import { CODE, prepareMemory, randomRegisters } from '../../support/random-instructions.js';

const bench = new Workbench(0x100000, ['sse3', 'ssse3', 'sse4.1', 'sse4.2', 'aes', 'pclmulqdq']);
prepareMemory(bench, new Random(1n));
const { forms } = bench.engine.decoder.tables;

/** The form without its VEX word and operands: what SSE, VEX.128 and VEX.256 have in common. */
const codeOf = ({ text, instruction }: Form): string =>
  `${instruction.mnemonic.replace(/^V/, '')} ${(text.split(':')[0] ?? '').replace(/^VEX\.\w+ /, '').trim()}`;
const isVector = (form: Form): boolean => form.operands.some(({ addressing }) => /^[VWUM]$/.test(addressing));
const legacy = new Map(forms.filter((form) => !form.vex && isVector(form)).map((form) => [codeOf(form), form]));
const narrow = new Map(forms.filter((form) => form.vex && form.vexL !== 1).map((form) => [codeOf(form), form]));

const MAP_BYTES = [[], [0x0f], [0x0f, 0x38], [0x0f, 0x3a]] as const;
const PREFIXES = ['NP', '66', 'F3', 'F2'];

interface Operands {
  readonly reg: number;
  readonly rm: number;
  readonly first: number;
  readonly immediate: number;
}

function legacyBytes(form: Form, { reg, rm, immediate }: Operands): number[] {
  const prefix = form.prefix === 'NP' ? [] : [Number.parseInt(form.prefix, 16)];
  return [...prefix, ...(MAP_BYTES[form.map] ?? []), form.opcode, 0xc0 | (reg << 3) | rm, immediate];
}

function vexBytes(form: Form, { reg, rm, first, immediate }: Operands): number[] {
  const hasFirst = form.operands.some(({ addressing }) => addressing === 'H');
  const w = form.attributes.has('w1') ? 0x80 : 0;
  const fields = w | ((hasFirst ? ~first & 15 : 15) << 3) | ((form.vexL ?? 0) << 2) | PREFIXES.indexOf(form.prefix);
  return [0xc4, 0xe0 | form.map, fields, form.opcode, 0xc0 | (reg << 3) | rm, immediate];
}

/** The registers after the instruction; undefined when the bytes are no instruction of this form. */
function execute(form: Form, bytes: readonly number[], registers: readonly bigint[]): bigint[] | undefined {
  const insn = bench.engine.decoder.decode(Uint8Array.from(bytes), { bits: 64, real: false });
  if (typeof insn !== 'object' || insn.form !== form.id) return undefined;
  bench.memory.copyIn(sPA(CODE[64]), Uint8Array.from(bytes));
  for (const [slot, value] of registers.entries()) bench.registers[slot as Slot] = value;
  bench.stateChanged();
  bench.step('evaluator');
  expect(bench.exception, form.text).toBeUndefined();
  const after = registers.map((_, slot) => bench.registers[slot as Slot] as bigint);
  after[R.rip] = 0n;
  return after;
}

const seeds = fc.bigInt({ min: 0n, max: (1n << 64n) - 1n });
const check = (property: (random: Random) => string[]): void =>
  fc.assert(
    fc.property(seeds, (seed) => {
      expect(property(new Random(seed))).toEqual([]);
    }),
    { numRuns: 4 },
  );

const operandsOf = (form: Form, random: Random): Operands => {
  const [reg, rm, first] = [random.below(8), random.below(8), random.below(8)];
  return { reg: form.digit ?? reg, rm, first, immediate: random.below(256) };
};

/** They write flags, a general register or memory. */
const WITHOUT_RESULT = /^V(PTEST|U?COMIS.|PCMP.STRI|MASKMOVDQU)$/;

describe('VEX.128', () => {
  const shared = [...narrow.values()].filter((form) => form.mod !== 'memory' && legacy.has(codeOf(form)));

  it('covers the instruction set', () => {
    expect(shared.length).toBeGreaterThan(200);
  });

  it('does what SSE does, and clears the upper half of its destination', () => {
    check((random) =>
      shared.flatMap((form) => {
        const sse = legacy.get(codeOf(form)) as Form;
        const chosen = operandsOf(form, random);
        const written = form.operands[0]?.addressing;
        const same = { ...chosen, first: written === 'V' ? chosen.reg : chosen.rm };
        // SSE has eight comparisons.
        if (form.instruction.mnemonic.startsWith('VCMP')) same.immediate &= 7;
        const registers = randomRegisters(64, random);
        const expected = execute(sse, legacyBytes(sse, same), registers);
        const found = execute(form, vexBytes(form, same), registers);
        if (expected === undefined || found === undefined) return [];
        const { mnemonic } = form.instruction;
        const isRegister = written !== 'E' && written !== 'G' && written !== 'R';
        const cleared = mnemonic.endsWith('STRM')
          ? [0]
          : isRegister && !WITHOUT_RESULT.test(mnemonic)
            ? [same.first]
            : [];
        for (const number of cleared) for (const half of [0, 1]) expected[ymmSlot(number) + half] = 0n;
        return differs(expected, found) ? [`${form.instruction.mnemonic} ${form.text}`] : [];
      }),
    );
  });
});

const differs = (a: readonly bigint[], b: readonly bigint[]): boolean => a.some((value, slot) => value !== b[slot]);

describe('256 bits', () => {
  /** Their halves depend on each other, or on different bits of the immediate byte. */
  const CROSSING =
    /^V(PMOV|MOVMSK|P?TEST|CVT(DQ2PD|PS2PD|PD2|TPD2|PH2PS|PS2PH)|SHUFPD|BLENDP[SD]$|PBLENDD|MPSADBW|PERMIL|P?GATHER|PS[RL][LA][WDQ]$)/;
  const wide = forms.filter(
    (form) =>
      form.vexL === 1 &&
      form.mod !== 'memory' &&
      !CROSSING.test(form.instruction.mnemonic) &&
      form.operands.every(({ addressing, size }) => addressing === 'I' || size === 'qq') &&
      narrow.has(codeOf(form)),
  );

  /** The upper halves as the lower ones. */
  function swapped(registers: readonly bigint[]): bigint[] {
    const result = [...registers];
    for (let number = 0; number < 16; number++) {
      for (const half of [0, 1]) {
        result[xmmSlot(number) + half] = registers[ymmSlot(number) + half] as bigint;
        result[ymmSlot(number) + half] = registers[xmmSlot(number) + half] as bigint;
      }
    }
    return result;
  }

  it('covers the instruction set', () => {
    expect(wide.length).toBeGreaterThan(150);
  });

  it('does in each half what 128 bits do', () => {
    check((random) =>
      wide.flatMap((form) => {
        const half = narrow.get(codeOf(form)) as Form;
        const operands = operandsOf(form, random);
        const registers = randomRegisters(64, random);
        const whole = execute(form, vexBytes(form, operands), registers);
        const low = execute(half, vexBytes(half, operands), registers);
        const high = execute(half, vexBytes(half, operands), swapped(registers));
        if (whole === undefined || low === undefined || high === undefined) return [];
        const destination =
          form.operands[0]?.addressing === 'V' ? operands.reg : form.digit !== undefined ? operands.first : operands.rm;
        const expected = [...low];
        for (const part of [0, 1]) expected[ymmSlot(destination) + part] = high[xmmSlot(destination) + part] as bigint;
        expected[R.mxcsr] = (low[R.mxcsr] as bigint) | (high[R.mxcsr] as bigint);
        return differs(expected, whole) ? [`${form.instruction.mnemonic} ${form.text}`] : [];
      }),
    );
  });
});

/**
 * AVX and AVX2 elements in memory: masked moves and gathers. Only elements whose mask has its sign set are accessed, and
 * only they fault.
 * Source: APM vol.4, VMASKMOVPS, VMASKMOVPD, VPMASKMOVD, VPMASKMOVQ, VGATHERDPS and relatives; §1.3.3 Memory Operands
 * with VSIB Addressing.
 *
 * A fault leaves destination and mask as they were: a gather starts again from its first element.
 */
import { type Feature, type Instruction, instruction } from './instruction.js';
import { three } from './operands.js';
import { elementsOf, vectorOf } from './vector-parts.js';

const MASKED_MOVES: readonly Instruction[] = (
  [
    ['VMASKMOVPS', 'avx', 32, '2C', '2E', 'w0'],
    ['VMASKMOVPD', 'avx', 64, '2D', '2F', 'w0'],
    ['VPMASKMOVD', 'avx2', 32, '8C', '8E', 'w0'],
    ['VPMASKMOVQ', 'avx2', 64, '8C', '8E', 'w1'],
  ] as const
).flatMap(([mnemonic, feature, width, load, store, w]) => [
  instruction({
    mnemonic,
    source: `APM vol.4, ${mnemonic}`,
    forms: ['dq', 'qq'].map((x, l) => `VEX.L${l} 66 0F 38 ${load} /r: V${x}, H${x}, M${x} [${w}]`),
    feature,
    evaluatorOnly: true,
    semantics(ops, insn) {
      const [destination, mask, memory] = three(insn);
      const elements = elementsOf(ops, mask, ops.readVector(mask), width).map((choice, index) => {
        let element = ops.constant(0n);
        ops.when(ops.bit(choice, width - 1), () => {
          element = ops.read(ops.displaced(memory, ops.constant(BigInt((index * width) / 8)), width));
        });
        return element;
      });
      ops.writeWhole(destination, vectorOf(ops, elements, width));
    },
  }),
  instruction({
    mnemonic,
    source: `APM vol.4, ${mnemonic}`,
    forms: ['dq', 'qq'].map((x, l) => `VEX.L${l} 66 0F 38 ${store} /r: M${x}, H${x}, V${x} [${w}]`),
    feature,
    evaluatorOnly: true,
    semantics(ops, insn) {
      const [memory, mask, source] = three(insn);
      const choices = elementsOf(ops, mask, ops.readVector(mask), width);
      elementsOf(ops, source, ops.readVector(source), width).forEach((element, index) => {
        ops.when(ops.bit(choices[index] as typeof element, width - 1), () =>
          ops.write(ops.displaced(memory, ops.constant(BigInt((index * width) / 8)), width), element),
        );
      });
    },
  }),
]);

type VectorSize = 'dq' | 'qq';

/** @param count elements that the shorter of destination and indices has room for. */
const gather = (
  mnemonic: string,
  code: string,
  w: 'w0' | 'w1',
  size: VectorSize,
  widths: { readonly index: 32 | 64; readonly element: 32 | 64; readonly count: number },
): Instruction =>
  instruction({
    mnemonic,
    source: `APM vol.4, ${mnemonic}`,
    forms: [`VEX.${code} /r: V${size}, Y${widths.element === 32 ? 'd' : 'q'}, H${size} [${w}]`],
    feature: 'avx2' satisfies Feature,
    evaluatorOnly: true,
    semantics(ops, insn) {
      const [destination, memory, mask] = three(insn);
      const { index: indexWidth, element: width, count } = widths;
      const choices = elementsOf(ops, mask, ops.readVector(mask), width);
      const gathered = elementsOf(ops, destination, ops.readVector(destination), width)
        .slice(0, count)
        .map((old, number) => {
          let element = old;
          ops.when(ops.bit(choices[number] as typeof old, width - 1), () => {
            element = ops.read(ops.elementAt(memory, number, indexWidth, width));
          });
          return element;
        });
      ops.writeWhole(destination, vectorOf(ops, gathered, width));
      ops.writeWhole(mask, ops.vectorConstant(0n));
    },
  });

const GATHERS: readonly Instruction[] = (
  [
    ['D', '92', 32],
    ['Q', '93', 64],
    ['D', '90', 32],
    ['Q', '91', 64],
  ] as const
).flatMap(([letter, opcode, index], row) =>
  ([32, 64] as const).flatMap((element) =>
    ([128, 256] as const).map((length) => {
      const suffix = row < 2 ? (element === 32 ? 'PS' : 'PD') : element === 32 ? 'D' : 'Q';
      const count = length / Math.max(index, element);
      const size = count * element > 128 ? 'qq' : 'dq';
      return gather(
        `${row < 2 ? 'VGATHER' : 'VPGATHER'}${letter}${suffix}`,
        `L${length === 256 ? 1 : 0} 66 0F 38 ${opcode}`,
        element === 32 ? 'w0' : 'w1',
        size,
        { index, element, count },
      );
    }),
  ),
);

export const AVX_MEMORY_INSTRUCTIONS: readonly Instruction[] = [...MASKED_MOVES, ...GATHERS];

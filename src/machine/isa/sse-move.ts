/**
 * Moves between XMM registers, memory and general registers.
 * Source: APM vol.4. Non-temporal hints mean nothing here; what aligned moves demand, `Ops` checks.
 *
 * Widths do most of the work: reading 16, 32 or 64 bits zero-extends, writing so many bits keeps the rest of a register.
 * A load that clears the upper part is therefore a narrow read into `Vdq`.
 */
import { Gpr, type Instruction, instruction, type Ops, type Static, type VectorMask } from './instruction.js';
import { two } from './operands.js';
import { halvesOf } from './vector-parts.js';

function copy<V, C, X>(ops: Ops<V, C, X>, insn: Static): void {
  const [destination, source] = two(insn);
  ops.writeVector(destination, ops.readVector(source));
}

function copyAligned<V, C, X>(ops: Ops<V, C, X>, insn: Static): void {
  const [destination, source] = two(insn);
  ops.writeVectorAligned(destination, ops.readVectorAligned(source));
}

const UNALIGNED_MOVES: readonly Instruction[] = [
  instruction({
    mnemonic: 'MOVUPS',
    source: 'APM vol.4, MOVUPS',
    forms: ['NP 0F 10 /r: Vdq, Wdq', 'NP 0F 11 /r: Wdq, Vdq'],
    feature: 'sse',
    semantics: copy,
  }),
  instruction({
    mnemonic: 'MOVUPD',
    source: 'APM vol.4, MOVUPD',
    forms: ['66 0F 10 /r: Vdq, Wdq', '66 0F 11 /r: Wdq, Vdq'],
    feature: 'sse2',
    semantics: copy,
  }),
  instruction({
    mnemonic: 'MOVDQU',
    source: 'APM vol.4, MOVDQU',
    forms: ['F3 0F 6F /r: Vdq, Wdq', 'F3 0F 7F /r: Wdq, Vdq'],
    feature: 'sse2',
    semantics: copy,
  }),
  instruction({
    mnemonic: 'LDDQU',
    source: 'APM vol.4, LDDQU',
    forms: ['F2 0F F0 /r: Vdq, Mdq'],
    feature: 'sse3',
    semantics: copy,
  }),
];

const ALIGNED_MOVES: readonly Instruction[] = [
  instruction({
    mnemonic: 'MOVAPS',
    source: 'APM vol.4, MOVAPS',
    forms: ['NP 0F 28 /r: Vdq, Wdq', 'NP 0F 29 /r: Wdq, Vdq'],
    feature: 'sse',
    semantics: copyAligned,
  }),
  instruction({
    mnemonic: 'MOVAPD',
    source: 'APM vol.4, MOVAPD',
    forms: ['66 0F 28 /r: Vdq, Wdq', '66 0F 29 /r: Wdq, Vdq'],
    feature: 'sse2',
    semantics: copyAligned,
  }),
  instruction({
    mnemonic: 'MOVDQA',
    source: 'APM vol.4, MOVDQA',
    forms: ['66 0F 6F /r: Vdq, Wdq', '66 0F 7F /r: Wdq, Vdq'],
    feature: 'sse2',
    semantics: copyAligned,
  }),
  instruction({
    mnemonic: 'MOVNTPS',
    source: 'APM vol.4, MOVNTPS',
    forms: ['NP 0F 2B /r: Mdq, Vdq'],
    feature: 'sse',
    semantics: copyAligned,
  }),
  instruction({
    mnemonic: 'MOVNTPD',
    source: 'APM vol.4, MOVNTPD',
    forms: ['66 0F 2B /r: Mdq, Vdq'],
    feature: 'sse2',
    semantics: copyAligned,
  }),
  instruction({
    mnemonic: 'MOVNTDQ',
    source: 'APM vol.4, MOVNTDQ',
    forms: ['66 0F E7 /r: Mdq, Vdq'],
    feature: 'sse2',
    semantics: copyAligned,
  }),
  instruction({
    mnemonic: 'MOVNTDQA',
    source: 'APM vol.4, MOVNTDQA',
    forms: ['66 0F 38 2A /r: Vdq, Mdq'],
    feature: 'sse4.1',
    semantics: copyAligned,
  }),
];

/** A load clears the rest of the register, a move between registers keeps it. */
const SCALAR_MOVES: readonly Instruction[] = [
  instruction({
    mnemonic: 'MOVSS',
    source: 'APM vol.4, MOVSS',
    forms: ['F3 0F 10 /r: Vdq, Md', 'F3 0F 10 /r: Vd, Ud', 'F3 0F 11 /r: Wd, Vd'],
    feature: 'sse',
    semantics: copy,
  }),
  instruction({
    mnemonic: 'MOVSD',
    source: 'APM vol.4, MOVSD',
    forms: ['F2 0F 10 /r: Vdq, Mq', 'F2 0F 10 /r: Vq, Uq', 'F2 0F 11 /r: Wq, Vq'],
    feature: 'sse2',
    semantics: copy,
  }),
  instruction({
    mnemonic: 'MOVQ',
    source: 'APM vol.4, MOVQ',
    forms: ['F3 0F 7E /r: Vdq, Wq', '66 0F D6 /r: Mq, Vq', '66 0F D6 /r: Udq, Vq'],
    feature: 'sse2',
    semantics: copy,
  }),
  instruction({
    mnemonic: 'MOVNTSS',
    source: 'APM vol.4, MOVNTSS',
    forms: ['F3 0F 2B /r: Md, Vd'],
    feature: 'sse4a',
    semantics: copy,
  }),
  instruction({
    mnemonic: 'MOVNTSD',
    source: 'APM vol.4, MOVNTSD',
    forms: ['F2 0F 2B /r: Mq, Vq'],
    feature: 'sse4a',
    semantics: copy,
  }),
];

function loadHigh<V, C, X>(ops: Ops<V, C, X>, insn: Static): void {
  const [destination, source] = two(insn);
  const high = ops.lane64(ops.readVector(source), 0);
  ops.writeVector(destination, ops.vectorFromLanes(ops.lane64(ops.readVector(destination), 0), high));
}

function storeHigh<V, C, X>(ops: Ops<V, C, X>, insn: Static): void {
  const [destination, source] = two(insn);
  ops.writeVector(destination, ops.vectorFromLow(ops.lane64(ops.readVector(source), 1)));
}

/** Half a register at a time; the other half stays. */
const HALF_MOVES: readonly Instruction[] = [
  instruction({
    mnemonic: 'MOVLPS',
    source: 'APM vol.4, MOVLPS',
    forms: ['NP 0F 12 /r: Vq, Mq', 'NP 0F 13 /r: Mq, Vq'],
    feature: 'sse',
    semantics: copy,
  }),
  instruction({
    mnemonic: 'MOVLPD',
    source: 'APM vol.4, MOVLPD',
    forms: ['66 0F 12 /r: Vq, Mq', '66 0F 13 /r: Mq, Vq'],
    feature: 'sse2',
    semantics: copy,
  }),
  instruction({
    mnemonic: 'MOVHLPS',
    source: 'APM vol.4, MOVHLPS',
    forms: ['NP 0F 12 /r: Vq, Udq'],
    feature: 'sse',
    semantics: storeHigh,
  }),
  instruction({
    mnemonic: 'MOVLHPS',
    source: 'APM vol.4, MOVLHPS',
    forms: ['NP 0F 16 /r: Vdq, Uq'],
    feature: 'sse',
    semantics: loadHigh,
  }),
  instruction({
    mnemonic: 'MOVHPS',
    source: 'APM vol.4, MOVHPS',
    forms: ['NP 0F 16 /r: Vdq, Mq'],
    feature: 'sse',
    semantics: loadHigh,
  }),
  instruction({
    mnemonic: 'MOVHPD',
    source: 'APM vol.4, MOVHPD',
    forms: ['66 0F 16 /r: Vdq, Mq'],
    feature: 'sse2',
    semantics: loadHigh,
  }),
  instruction({
    mnemonic: 'MOVHPS',
    source: 'APM vol.4, MOVHPS',
    forms: ['NP 0F 17 /r: Mq, Vdq'],
    feature: 'sse',
    semantics: storeHigh,
  }),
  instruction({
    mnemonic: 'MOVHPD',
    source: 'APM vol.4, MOVHPD',
    forms: ['66 0F 17 /r: Mq, Vdq'],
    feature: 'sse2',
    semantics: storeHigh,
  }),
];

/** MOVD, and MOVQ with REX.W. */
const GENERAL_MOVES: readonly Instruction[] = [
  instruction({
    mnemonic: 'MOVD',
    source: 'APM vol.4, MOVD',
    forms: ['66 0F 6E /r: Vdq, Ey'],
    feature: 'sse2',
    semantics(ops, insn) {
      const [destination, source] = two(insn);
      ops.writeVector(destination, ops.vectorFromLow(ops.read(source)));
    },
  }),
  instruction({
    mnemonic: 'MOVD',
    source: 'APM vol.4, MOVD',
    forms: ['66 0F 7E /r: Ey, Vy'],
    feature: 'sse2',
    semantics(ops, insn) {
      const [destination, source] = two(insn);
      ops.write(destination, ops.lane64(ops.readVector(source), 0));
    },
  }),
];

/** @param lanes of 128 bits. */
const signMask = (
  mnemonic: string,
  form: string,
  feature: 'sse' | 'sse2',
  operation: VectorMask,
  lanes: bigint,
): Instruction =>
  instruction({
    mnemonic,
    source: `APM vol.4, ${mnemonic}`,
    forms: [form],
    feature,
    semantics(ops, insn) {
      const [destination, source] = two(insn);
      const masks = halvesOf(ops, source, ops.readVector(source)).map((half) => ops.vectorMask(operation, half));
      ops.write(
        destination,
        masks.reduceRight((upper, lower) => ops.or(ops.shl(64, upper, ops.constant(lanes)), lower)),
      );
    },
  });

const SIGN_MASKS: readonly Instruction[] = [
  signMask('MOVMSKPS', 'NP 0F 50 /r: Gd, Udq', 'sse', 'i32x4.bitmask', 4n),
  signMask('MOVMSKPD', '66 0F 50 /r: Gd, Udq', 'sse2', 'i64x2.bitmask', 2n),
  signMask('PMOVMSKB', '66 0F D7 /r: Gd, Udq', 'sse2', 'i8x16.bitmask', 16n),
];

/** Bytes whose mask byte has its sign set go to seg:rDI; the others are neither written nor checked. */
const MASKMOVDQU = instruction({
  mnemonic: 'MASKMOVDQU',
  source: 'APM vol.4, MASKMOVDQU',
  forms: ['66 0F F7 /r: Vdq, Udq'],
  feature: 'sse2',
  evaluatorOnly: true,
  semantics(ops, insn) {
    const [source, maskOperand] = two(insn);
    const data = ops.readVector(source);
    const mask = ops.vectorMask('i8x16.bitmask', ops.readVector(maskOperand));
    const start = ops.readGpr(Gpr.RDI, insn.addressWidth);
    for (let index = 0; index < 16; index++) {
      const byte = ops.shr(64, ops.lane64(data, index < 8 ? 0 : 1), ops.constant(BigInt(8 * (index % 8))));
      ops.when(ops.bit(mask, index), () =>
        ops.store('data', 8, ops.add(insn.addressWidth, start, ops.constant(BigInt(index))), ops.truncate(8, byte)),
      );
    }
  },
});

/** SSE3: elements doubled while they are moved. */
const DUPLICATING_MOVES: readonly Instruction[] = [
  instruction({
    mnemonic: 'MOVSLDUP',
    source: 'APM vol.4, MOVSLDUP',
    forms: ['F3 0F 12 /r: Vdq, Wdq'],
    feature: 'sse3',
    semantics(ops, insn) {
      const [destination, source] = two(insn);
      const value = ops.readVectorAligned(source);
      ops.writeVector(destination, ops.shuffle(value, value, [0, 1, 2, 3, 0, 1, 2, 3, 8, 9, 10, 11, 8, 9, 10, 11]));
    },
  }),
  instruction({
    mnemonic: 'MOVSHDUP',
    source: 'APM vol.4, MOVSHDUP',
    forms: ['F3 0F 16 /r: Vdq, Wdq'],
    feature: 'sse3',
    semantics(ops, insn) {
      const [destination, source] = two(insn);
      const value = ops.readVectorAligned(source);
      ops.writeVector(destination, ops.shuffle(value, value, [4, 5, 6, 7, 4, 5, 6, 7, 12, 13, 14, 15, 12, 13, 14, 15]));
    },
  }),
  instruction({
    mnemonic: 'MOVDDUP',
    source: 'APM vol.4, MOVDDUP',
    forms: ['F2 0F 12 /r: Vdq, Wq'],
    feature: 'sse3',
    semantics(ops, insn) {
      const [destination, source] = two(insn);
      const low = ops.lane64(ops.readVector(source), 0);
      ops.writeVector(destination, ops.vectorFromLanes(low, low));
    },
  }),
];

export const SSE_MOVE_INSTRUCTIONS: readonly Instruction[] = [
  ...UNALIGNED_MOVES,
  ...ALIGNED_MOVES,
  ...SCALAR_MOVES,
  ...HALF_MOVES,
  ...GENERAL_MOVES,
  ...SIGN_MASKS,
  MASKMOVDQU,
  ...DUPLICATING_MOVES,
];

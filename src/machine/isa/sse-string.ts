/**
 * SSE4.2 string comparison: PCMPESTRI, PCMPESTRM, PCMPISTRI, PCMPISTRM.
 * Source: APM vol.4, PCMPESTRI and relatives; §1.5 String Compare Instructions, for the terms used here.
 *
 * Every element of the first operand is compared with all of the second at once; a row is the mask of results. The
 * immediate byte chooses among what is computed: 0 words, 1 signed, 3:2 aggregation, 5:4 polarity, 6 output.
 */
import { Gpr, type Instruction, instruction, type Operand, type Ops, type Static } from './instruction.js';

interface Shape {
  readonly lanes: 'i8x16' | 'i16x8';
  readonly count: 8 | 16;
  readonly width: 8 | 16;
}
const BYTES: Shape = { lanes: 'i8x16', count: 16, width: 8 };
const WORDS: Shape = { lanes: 'i16x8', count: 8, width: 16 };

const allOf = ({ count }: Shape): bigint => (1n << BigInt(count)) - 1n;

/** Which elements of the two strings count, as masks. */
interface Validity<V> {
  readonly first: V;
  readonly second: V;
}

interface Comparison<V> {
  /** IntRes2: one bit for each element of the second string. */
  readonly result: V;
  readonly validity: Validity<V>;
  readonly all: V;
  readonly count: V;
}

/** Elements before the first zero. */
function implicitValidity<V, C, X>(ops: Ops<V, C, X>, shape: Shape, value: X): V {
  const zeros = ops.vectorMask(
    `${shape.lanes}.bitmask`,
    ops.vector(`${shape.lanes}.eq`, value, ops.vectorConstant(0n)),
  );
  const stop = ops.or(zeros, ops.constant(1n << BigInt(shape.count)));
  return ops.sub(64, ops.and(stop, ops.neg(64, stop)), ops.constant(1n));
}

/** As many elements as the register says; its sign does not count. */
function explicitValidity<V, C, X>(ops: Ops<V, C, X>, shape: Shape, width: number, register: number): V {
  const value = ops.readGpr(register, width);
  const length = ops.select(ops.bit(value, width - 1), ops.neg(width, value), value);
  const limit = ops.constant(BigInt(shape.count));
  const clamped = ops.select(ops.lessUnsigned(length, limit), length, limit);
  return ops.sub(64, ops.shl(64, ops.constant(1n), clamped), ops.constant(1n));
}

/** IntRes1 for one element size. */
function aggregate<V, C, X>(ops: Ops<V, C, X>, shape: Shape, a: X, b: X, control: V, validity: Validity<V>): V {
  const { lanes, count, width } = shape;
  const all = ops.constant(allOf(shape));
  const zero = ops.constant(0n);
  const mask = (value: X): V => ops.vectorMask(`${lanes}.bitmask`, value);
  // Signed comparison serves both: unsigned elements get their top bit turned over.
  const signBit = ops.constant(1n << BigInt(width - 1));
  const bias = ops.splat(lanes, ops.select(ops.bit(control, 1), zero, signBit));
  const orderedA = ops.vector('v128.xor', a, bias);
  const orderedB = ops.vector('v128.xor', b, bias);

  let any = zero;
  let ranges = zero;
  let ordered = all;
  let lower = zero;
  let lowerIsValid = ops.bit(zero, 0);
  for (let index = 0; index < count; index++) {
    const bytes = width / 8;
    const indices = Array.from({ length: 16 }, (_, at) => index * bytes + (at % bytes));
    const element = ops.shuffle(a, a, indices);
    const orderedElement = ops.shuffle(orderedA, orderedA, indices);
    const isValid = ops.bit(validity.first, index);
    const equal = ops.and(mask(ops.vector(`${lanes}.eq`, b, element)), validity.second);
    any = ops.or(any, ops.select(isValid, equal, zero));
    const row = ops.select(isValid, equal, all);
    const beyond = ops.constant(allOf(shape) ^ (allOf(shape) >> BigInt(index)));
    ordered = ops.and(ordered, ops.or(ops.shr(64, row, ops.constant(BigInt(index))), beyond));
    if (index % 2 === 0) {
      lower = ops.xor(mask(ops.vector(`${lanes}.gt_s`, orderedElement, orderedB)), all);
      lowerIsValid = isValid;
    } else {
      const upper = ops.xor(mask(ops.vector(`${lanes}.gt_s`, orderedB, orderedElement)), all);
      const within = ops.and(ops.and(lower, upper), validity.second);
      ranges = ops.or(ranges, ops.select(ops.both(lowerIsValid, isValid), within, zero));
    }
  }
  const bothValid = ops.and(validity.first, validity.second);
  const neither = ops.xor(ops.or(validity.first, validity.second), all);
  const each = ops.or(ops.and(mask(ops.vector(`${lanes}.eq`, a, b)), bothValid), neither);
  const isOdd = ops.bit(control, 2);
  return ops.select(ops.bit(control, 3), ops.select(isOdd, ordered, each), ops.select(isOdd, ranges, any));
}

/** Compares, sets the flags, and gives IntRes2. */
function compare<V, C, X>(
  ops: Ops<V, C, X>,
  insn: Static,
  lengths: 'explicit' | 'implicit',
): Comparison<V> & { readonly isWords: C; readonly control: V } {
  const [firstOperand, secondOperand, controlOperand] = insn.operands as readonly [Operand, Operand, Operand];
  const b = ops.readVector(secondOperand);
  const a = ops.readVector(firstOperand);
  const control = ops.read(controlOperand);
  const isWords = ops.bit(control, 0);
  const one = (shape: Shape): Comparison<V> => {
    const validity =
      lengths === 'implicit'
        ? { first: implicitValidity(ops, shape, a), second: implicitValidity(ops, shape, b) }
        : {
            first: explicitValidity(ops, shape, insn.width, Gpr.RAX),
            second: explicitValidity(ops, shape, insn.width, Gpr.RDX),
          };
    const all = ops.constant(allOf(shape));
    const plain = aggregate(ops, shape, a, b, control, validity);
    const inverted = ops.select(ops.bit(control, 5), validity.second, all);
    const result = ops.select(ops.bit(control, 4), ops.xor(plain, inverted), plain);
    return { result, validity, all, count: ops.constant(BigInt(shape.count)) };
  };
  const words = one(WORDS);
  const bytes = one(BYTES);
  const choose = (word: V, byte: V): V => ops.select(isWords, word, byte);
  const result = choose(words.result, bytes.result);
  const all = choose(words.all, bytes.all);
  const validity = {
    first: choose(words.validity.first, bytes.validity.first),
    second: choose(words.validity.second, bytes.validity.second),
  };
  ops.setArithmeticFlags(ops.constant(0n));
  ops.setFlag('cf', ops.negate(ops.isZero(result)));
  ops.setFlag('zf', ops.negate(ops.equal(validity.second, all)));
  ops.setFlag('sf', ops.negate(ops.equal(validity.first, all)));
  ops.setFlag('of', ops.bit(result, 0));
  return { result, validity, all, count: choose(words.count, bytes.count), isWords, control };
}

/** The number of the first or last element found goes to ECX; the number of elements when there is none. */
function index<V, C, X>(ops: Ops<V, C, X>, insn: Static, lengths: 'explicit' | 'implicit'): void {
  const { result, count, control } = compare(ops, insn, lengths);
  const first = ops.countTrailingZeros(32, result);
  const last = ops.sub(32, ops.constant(31n), ops.countLeadingZeros(32, result));
  const found = ops.select(ops.bit(control, 6), last, first);
  ops.writeGpr(Gpr.RCX, 32, ops.select(ops.isZero(result), count, found));
}

const BIT_OF_BYTE = 0x80402010_08040201n;

/** The mask itself goes to XMM0, or an element of ones for each of its bits. */
function mask<V, C, X>(ops: Ops<V, C, X>, insn: Static, lengths: 'explicit' | 'implicit'): void {
  const { result, control, isWords } = compare(ops, insn, lengths);
  const destination = insn.operands[3] as Operand;
  const bits = ops.vectorFromLow(result);
  const spread = ops.shuffle(bits, bits, [0, 0, 0, 0, 0, 0, 0, 0, 1, 1, 1, 1, 1, 1, 1, 1]);
  const pattern = ops.vectorConstant((BIT_OF_BYTE << 64n) | BIT_OF_BYTE);
  const bytes = ops.vector('i8x16.eq', ops.vector('v128.and', spread, pattern), pattern);
  const words = ops.shuffle(bytes, bytes, [0, 0, 1, 1, 2, 2, 3, 3, 4, 4, 5, 5, 6, 6, 7, 7]);
  const lane = (lane64: 0 | 1): V => {
    const elements = ops.select(isWords, ops.lane64(words, lane64), ops.lane64(bytes, lane64));
    return ops.select(ops.bit(control, 6), elements, ops.lane64(bits, lane64));
  };
  ops.writeVector(destination, ops.vectorFromLanes(lane(0), lane(1)));
}

const PCMPESTRM = instruction({
  mnemonic: 'PCMPESTRM',
  source: 'APM vol.4, PCMPESTRM',
  forms: ['66 0F 3A 60 /r: Vdq, Wdq, Ib, XMM0'],
  feature: 'sse4.2',
  semantics: (ops, insn) => mask(ops, insn, 'explicit'),
});

const PCMPESTRI = instruction({
  mnemonic: 'PCMPESTRI',
  source: 'APM vol.4, PCMPESTRI',
  forms: ['66 0F 3A 61 /r: Vdq, Wdq, Ib'],
  feature: 'sse4.2',
  semantics: (ops, insn) => index(ops, insn, 'explicit'),
});

const PCMPISTRM = instruction({
  mnemonic: 'PCMPISTRM',
  source: 'APM vol.4, PCMPISTRM',
  forms: ['66 0F 3A 62 /r: Vdq, Wdq, Ib, XMM0'],
  feature: 'sse4.2',
  semantics: (ops, insn) => mask(ops, insn, 'implicit'),
});

const PCMPISTRI = instruction({
  mnemonic: 'PCMPISTRI',
  source: 'APM vol.4, PCMPISTRI',
  forms: ['66 0F 3A 63 /r: Vdq, Wdq, Ib'],
  feature: 'sse4.2',
  semantics: (ops, insn) => index(ops, insn, 'implicit'),
});

export const SSE_STRING_INSTRUCTIONS: readonly Instruction[] = [PCMPESTRM, PCMPESTRI, PCMPISTRM, PCMPISTRI];

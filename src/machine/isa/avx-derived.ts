/**
 * AVX forms made from the descriptions of SSE: one description, two or three encodings.
 * Source: APM vol.4 §1.3 VEX and XOP Instruction Encodings, §1.5.1 Destination XMM/YMM Registers.
 *
 * The description of an SSE instruction runs with an `Ops` in which its vector operands are others. Its destination, as
 * it reads it, is the operand behind the destination where the AVX form has three; a source of 256 bits is one of its
 * halves; and what it writes is collected. A 256-bit instruction is the description run twice. Whole registers are
 * written at the end, with zeros above; memory operands need no alignment but for the aligned moves.
 */
import { invariant } from '../errors.js';
import {
  type Feature,
  type Instruction,
  instruction,
  type Operand,
  type Ops,
  type PlainInstruction,
  type Semantics,
  type Static,
} from './instruction.js';

export interface Shape {
  /**
   * - `three`: the first source is an operand of its own;
   * - `two`: the operands are those of the SSE form;
   * - `move`: so they are, and the description itself works on vectors of any width.
   */
  readonly operands: 'three' | 'two' | 'move';
  /**
   * What a half of the result takes of a source: its own half, half as many bits as the source has (elements become
   * wider), or all of it (shift counts).
   */
  readonly sources?: 'halves' | 'packed' | 'same';
  /** Results of 64 bits stand side by side: elements become narrower. */
  readonly packsResult?: boolean;
  /** How far the upper half's bits lie above the lower half's in the immediate byte. */
  readonly immediateStep?: number;
  /** Aligned moves keep their rule. */
  readonly aligned?: boolean;
}

type VectorOps<V, C, X> = Partial<Ops<V, C, X>>;

/** `ops` with some operations replaced; all others run on `ops` itself. */
function replaced<V, C, X>(ops: Ops<V, C, X>, operations: VectorOps<V, C, X>): Ops<V, C, X> {
  return new Proxy(ops, {
    get(target, name) {
      const own: unknown = Reflect.get(operations, name);
      if (own !== undefined) return own;
      const value: unknown = Reflect.get(target, name);
      return typeof value === 'function' ? value.bind(target) : value;
    },
  });
}

/** Registers are written whole. */
export function writeResult<V, C, X>(ops: Ops<V, C, X>, destination: Operand, value: X): void {
  if (destination.kind === 'mem') ops.writeVector(destination, value);
  else ops.writeWhole(destination, value);
}

/** The semantics of an AVX form whose operands are those that `describe` expects, but for `shape`. */
export function vexSemantics(describe: Semantics, shape: Shape): Semantics {
  return (ops, insn) => {
    if (shape.operands === 'move') describe(moveOps(ops, shape.aligned === true), insn);
    else byHalves(ops, insn, describe, shape);
  };
}

function moveOps<V, C, X>(ops: Ops<V, C, X>, aligned: boolean): Ops<V, C, X> {
  return replaced(ops, {
    readVectorAligned: (operand) => (aligned ? ops.readVectorAligned(operand) : ops.readVector(operand)),
    writeVector: (operand, value) => writeResult(ops, operand, value),
    writeVectorAligned: (operand, value) => {
      if (operand.kind === 'mem') ops.writeVectorAligned(operand, value);
      else ops.writeWhole(operand, value);
    },
  });
}

function byHalves<V, C, X>(ops: Ops<V, C, X>, insn: Static, describe: Semantics, shape: Shape): void {
  const { operands } = insn;
  const [destination] = operands;
  invariant(destination !== undefined, 'an AVX form has a destination');
  const whole = new Map<Operand, X>();
  const half = (index: 0 | 1): X => describedHalf(ops, insn, describe, shape, index, whole);
  if (operands.every(({ width }) => width < 256)) {
    writeResult(ops, destination, half(0));
    return;
  }
  ops.jointly(() => {
    const low = half(0);
    const high = half(1);
    const result = shape.packsResult
      ? ops.vectorFromLanes(ops.lane64(low, 0), ops.lane64(high, 0))
      : ops.joinHalves(low, high);
    writeResult(ops, destination, result);
  });
}

/** What the description writes into one half. @param whole operands as they have been read: each is read once. */
function describedHalf<V, C, X>(
  ops: Ops<V, C, X>,
  insn: Static,
  describe: Semantics,
  shape: Shape,
  half: 0 | 1,
  whole: Map<Operand, X>,
): X {
  const [destination, second, ...others] = insn.operands as readonly [Operand, Operand, ...Operand[]];
  const three = shape.operands === 'three';
  const read = (operand: Operand): X => {
    const source = three && operand === destination ? second : operand;
    let value = whole.get(source);
    if (value === undefined) {
      value = ops.readVector(source);
      whole.set(source, value);
    }
    if (insn.operands.every(({ width }) => width < 256)) return value;
    return operand === destination || source.width === 256
      ? ops.halfOf(value, half)
      : partOf(ops, value, source.width / 2, shape.sources === 'packed' ? half : 0);
  };
  let result: X | undefined;
  const write = (_destination: Operand, value: X): void => {
    const isPart = destination.kind === 'xmm' && destination.width < 128;
    result = isPart ? lowMerged(ops, read(destination), value, destination.width) : value;
  };
  const readHalf = (operand: Operand): V => {
    const value = ops.read(operand);
    if (operand.kind !== 'imm' || half === 0 || shape.immediateStep === undefined) return value;
    return ops.shr(8, value, ops.constant(BigInt(shape.immediateStep)));
  };
  const halfOps = replaced(ops, {
    readVector: read,
    readVectorAligned: read,
    writeVector: write,
    read: readHalf,
  });
  describe(halfOps, { ...insn, operands: three ? [destination, ...others] : insn.operands });
  invariant(result !== undefined, 'a description writes its destination');
  return result;
}

/** Part `index` of `bits` bits; part 0 may be all there is. */
function partOf<V, C, X>(ops: Ops<V, C, X>, value: X, bits: number, index: 0 | 1): X {
  if (index === 0) return value;
  if (bits === 64) return ops.vectorFromLow(ops.lane64(value, 1));
  return ops.vectorFromLow(ops.shr(64, ops.lane64(value, 0), ops.constant(BigInt(bits))));
}

/** The low `bits` bits of `value` below the rest of `base`. */
export function lowMerged<V, C, X>(ops: Ops<V, C, X>, base: X, value: X, bits: number): X {
  const mask = ops.vectorConstant((1n << BigInt(bits)) - 1n);
  return ops.vector('v128.or', ops.vector('v128.and', value, mask), ops.vector('v128.andnot', base, mask));
}

const WIDER: Readonly<Record<string, string>> = { w: 'd', d: 'q', q: 'dq', dq: 'qq' };

/**
 * `66 0F FC /r: Vdq, Wdq` → `VEX.L1 66 0F FC /r: Vqq, Hqq, Wqq`. Shifts by an immediate byte, whose only vector operand
 * is in ModRM.rm, have their destination in VEX.vvvv.
 */
function vexForm(form: string, length: 'L0' | 'L1' | 'LIG', shape: Shape): string {
  const [code = '', list = ''] = form.split(':');
  const operands = list.split(',').map((operand, index) => {
    const isKept = length !== 'L1' || (index === 0 ? shape.packsResult === true : shape.sources === 'same');
    return operand
      .trim()
      .replace(/^([VWUML])(dq|q|d|w)(?= |$)/, (code, kind, size) => (isKept ? code : `${kind}${WIDER[size]}`));
  });
  if (shape.operands === 'three') {
    const shiftsByImmediate = operands[0]?.startsWith('U') === true && operands[1] === 'Ib';
    operands.splice(shiftsByImmediate ? 0 : 1, 0, length === 'L1' ? 'Hqq' : 'Hdq');
  }
  return `VEX.${length} ${code.trim()}: ${operands.join(', ')}`;
}

/** How a group of SSE instructions becomes AVX ones. */
export interface Derivation extends Shape {
  /** L0: 128 bits only; LIG: scalars, the vector length is not looked at; L0 L1: both lengths. */
  readonly length: 'L0' | 'L1' | 'LIG' | 'L0 L1';
  /** Which set has the 256-bit form. */
  readonly wide?: 'avx' | 'avx2';
  /** Instead of AVX and AVX2. */
  readonly feature?: Feature;
}

/** The SSE instruction's own set, where AVX alone does not bring it. */
const APART: ReadonlySet<Feature | undefined> = new Set<Feature>(['aes', 'pclmulqdq']);

/** @param forms those of the SSE instruction that are meant, or their replacements. */
export function derive(sse: PlainInstruction, derivation: Derivation, forms = sse.forms): readonly Instruction[] {
  const { length, feature = 'avx', wide = feature } = derivation;
  const mnemonic = `V${sse.mnemonic}`;
  const lengths = length === 'L0 L1' ? (['L0', 'L1'] as const) : ([length] as const);
  return lengths.map((one) =>
    instruction({
      mnemonic,
      source: `APM vol.4, ${sse.mnemonic}`,
      forms: forms.map((form) => vexForm(form, one, derivation)),
      feature: one === 'L1' ? wide : feature,
      ...(APART.has(sse.feature) ? { alsoFeature: sse.feature as Feature } : {}),
      evaluatorOnly: sse.evaluatorOnly === true,
      semantics: vexSemantics(sse.semantics, derivation),
    }),
  );
}

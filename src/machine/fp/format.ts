/**
 * Floating-point formats as bit patterns: what a pattern stands for, and how a value is written as a pattern.
 *
 * Source: APM vol.1 §4.4.8 Floating-Point Number Encodings (single and double precision), §6.3.4 Number Encodings
 * (double-extended precision, with its explicit integer bit and the encodings that are unsupported because of it).
 *
 * Invariants: a pattern is an unsigned bigint below 2^width. A finite value is `significand × 2^exponent`, both
 * integers, so `exponent` is the weight of the lowest significand bit and nothing is ever lost by unpacking.
 */

export interface FloatFormat {
  readonly name: string;
  /** Bits of the whole pattern. */
  readonly width: number;
  readonly exponentBits: number;
  /** Bits below the integer bit. */
  readonly fractionBits: number;
  /** Whether the pattern holds the integer bit (double-extended) or it follows from the exponent field. */
  readonly integerBit: 'implicit' | 'explicit';

  /** Significant bits of a normal value: the fraction and the integer bit. */
  readonly precision: number;
  readonly bias: number;
  /** Exponents of the leading bit of the smallest and of the largest normal value. */
  readonly minExponent: number;
  readonly maxExponent: number;

  /** Position of the exponent field. */
  readonly exponentShift: bigint;
  /** The exponent field of infinities and NaNs. */
  readonly maxExponentField: number;
  readonly signMask: bigint;
  readonly fractionMask: bigint;
  /** The integer bit as a value: 2^fractionBits. */
  readonly integerValue: bigint;
  /** The most significant fraction bit, which tells a QNaN from an SNaN. */
  readonly quietMask: bigint;
  /** +infinity and the largest positive finite value. */
  readonly infinity: bigint;
  readonly largest: bigint;
  /** The floating-point indefinite value: a negative QNaN with nothing else in its fraction. */
  readonly indefinite: bigint;
}

/** `unsupported` exists only with an explicit integer bit: unnormals, pseudo-infinities and pseudo-NaNs. */
export type FloatKind = 'zero' | 'denormal' | 'normal' | 'infinity' | 'qnan' | 'snan' | 'unsupported';

export interface Unpacked {
  readonly bits: bigint;
  readonly kind: FloatKind;
  readonly negative: boolean;
  /** Of finite values: the value is significand × 2^exponent. */
  readonly exponent: number;
  readonly significand: bigint;
}

export function floatFormat(
  name: string,
  exponentBits: number,
  fractionBits: number,
  integerBit: 'implicit' | 'explicit' = 'implicit',
): FloatFormat {
  const bias = 2 ** (exponentBits - 1) - 1;
  const maxExponentField = 2 ** exponentBits - 1;
  const exponentShift = BigInt(integerBit === 'explicit' ? fractionBits + 1 : fractionBits);
  const integerValue = 1n << BigInt(fractionBits);
  const fractionMask = integerValue - 1n;
  const quietMask = integerValue >> 1n;
  const width = 1 + exponentBits + Number(exponentShift);
  const signMask = 1n << BigInt(width - 1);
  const integerBitStored = integerBit === 'explicit' ? integerValue : 0n;
  const infinity = (BigInt(maxExponentField) << exponentShift) | integerBitStored;
  return {
    name,
    width,
    exponentBits,
    fractionBits,
    integerBit,
    precision: fractionBits + 1,
    bias,
    minExponent: 1 - bias,
    maxExponent: bias,
    exponentShift,
    maxExponentField,
    signMask,
    fractionMask,
    integerValue,
    quietMask,
    infinity,
    largest: (BigInt(maxExponentField - 1) << exponentShift) | integerBitStored | fractionMask,
    indefinite: signMask | infinity | quietMask,
  };
}

/** Half precision: a storage format, converted to and from single precision (F16C). */
export const F16 = floatFormat('f16', 5, 10);
/** Single precision. */
export const F32 = floatFormat('f32', 8, 23);
/** Double precision. */
export const F64 = floatFormat('f64', 11, 52);
/** Double-extended precision of the x87 stack. */
export const F80 = floatFormat('f80', 15, 63, 'explicit');

/** Takes a pattern apart; the exponent and significand of infinities and NaNs are their raw fields. */
export function unpack(format: FloatFormat, bits: bigint): Unpacked {
  const negative = (bits & format.signMask) !== 0n;
  const field = Number((bits >> format.exponentShift) & BigInt(format.maxExponentField));
  const fraction = bits & format.fractionMask;
  const stored = format.integerBit === 'explicit' ? (bits & format.integerValue) !== 0n : field !== 0;
  const kind = classifyFields(format, field, stored, fraction);
  // Denormals share the exponent of the smallest normals; a pseudo-denormal has its integer bit on top of that.
  const exponent = Math.max(field, 1) - format.bias - format.fractionBits;
  return { bits, kind, negative, exponent, significand: stored ? fraction | format.integerValue : fraction };
}

function classifyFields(format: FloatFormat, field: number, integerBit: boolean, fraction: bigint): FloatKind {
  if (field === 0) return integerBit || fraction !== 0n ? 'denormal' : 'zero';
  if (!integerBit) return 'unsupported';
  if (field !== format.maxExponentField) return 'normal';
  if (fraction === 0n) return 'infinity';
  return (fraction & format.quietMask) !== 0n ? 'qnan' : 'snan';
}

/**
 * Writes a finite value.
 * @param significand below 2^precision, with its integer bit unless the value is denormal or zero.
 * @param exponent of the leading bit of a normal value; ignored (it is the smallest) without integer bit.
 */
export function packFinite(format: FloatFormat, negative: boolean, exponent: number, significand: bigint): bigint {
  const sign = negative ? format.signMask : 0n;
  if (significand < format.integerValue) return sign | significand;
  const stored = format.integerBit === 'explicit' ? significand : significand & format.fractionMask;
  return sign | (BigInt(exponent + format.bias) << format.exponentShift) | stored;
}

export function zero(format: FloatFormat, negative: boolean): bigint {
  return negative ? format.signMask : 0n;
}

export function infinity(format: FloatFormat, negative: boolean): bigint {
  return negative ? format.signMask | format.infinity : format.infinity;
}

export function isNaNKind(x: Unpacked): boolean {
  return x.kind === 'qnan' || x.kind === 'snan';
}

/** Converts an SNaN to the QNaN with the same sign and payload; a QNaN stays itself. */
export function quiet(format: FloatFormat, bits: bigint): bigint {
  return bits | format.quietMask;
}

/** The QNaN of another format: sign and the leading payload bits are kept, as many as fit. */
export function convertNaN(from: FloatFormat, to: FloatFormat, nan: Unpacked): bigint {
  const payload = nan.bits & from.fractionMask;
  const growth = BigInt(to.fractionBits - from.fractionBits);
  return quiet(to, infinity(to, nan.negative) | (payload << growth)); // a negative shift drops the low bits
}

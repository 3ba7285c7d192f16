/** Bit patterns for floating-point tests, and their way to and from JavaScript numbers. */
import fc from 'fast-check';
import { F32, type FloatFormat } from '../../src/machine/fp/format.js';

const view = new DataView(new ArrayBuffer(8));

export function toNumber(format: FloatFormat, bits: bigint): number {
  if (format === F32) {
    view.setUint32(0, Number(bits));
    return view.getFloat32(0);
  }
  view.setBigUint64(0, bits);
  return view.getFloat64(0);
}

/** The pattern of a number, rounded to the format; NaNs become the indefinite value. */
export function fromNumber(format: FloatFormat, value: number): bigint {
  if (Number.isNaN(value)) return format.indefinite;
  if (format === F32) {
    view.setFloat32(0, value);
    return BigInt(view.getUint32(0));
  }
  view.setFloat64(0, value);
  return view.getBigUint64(0);
}

/** Any pattern, with many zeros, denormals, powers of two, neighbours of the limits, infinities and NaNs. */
export function anyPattern(format: FloatFormat): fc.Arbitrary<bigint> {
  const largestPattern = 2n ** BigInt(format.width) - 1n;
  const edges = [0n, format.integerValue, format.quietMask, format.infinity, format.largest, format.infinity | 1n];
  const oneBits = BigInt(format.bias) << format.exponentShift;
  const nearEdge = fc
    .tuple(fc.constantFrom(...edges, oneBits, format.infinity | format.quietMask), fc.bigInt(-3n, 3n), fc.boolean())
    .map(([edge, step, negative]) => {
      const magnitude = BigInt.asUintN(format.width - 1, edge + step);
      return negative ? magnitude | format.signMask : magnitude;
    });
  // Exponents near each other and few significant bits make cancellation, ties and exact results frequent.
  const nearOne = fc
    .tuple(fc.bigInt(-30n, 30n), fc.bigInt(0n, 255n), fc.nat(format.fractionBits - 8), fc.boolean())
    .map(([exponent, fraction, shift, negative]) => {
      const magnitude = oneBits + (exponent << format.exponentShift) + (fraction << BigInt(shift));
      return negative ? magnitude | format.signMask : magnitude;
    });
  return fc.oneof(fc.bigInt(0n, largestPattern), nearOne, nearEdge);
}

export function finitePattern(format: FloatFormat): fc.Arbitrary<bigint> {
  return anyPattern(format).filter((bits) => (bits & format.infinity) !== format.infinity);
}

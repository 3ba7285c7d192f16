/**
 * RCPPS, RCPSS, RSQRTPS, RSQRTSS: the approximate reciprocal and reciprocal square root of one single-precision value.
 *
 * Source: APM vol.4, RCPSS and RSQRTSS. The manual bounds the relative error by 1.5 × 2⁻¹² and leaves the value to the
 * implementation. Here it is the true result rounded to 13 significant bits, which makes the error at most 2⁻¹³.
 *
 * Invariants: MXCSR is neither read nor changed: denormals are always zeros, tiny results always flush to zero, and an
 * SNaN turns quiet without IE.
 */

import { divideExact, squareRootExact } from './exact.js';
import { F32, floatFormat, infinity, isNaNKind, quiet, unpack, zero } from './format.js';
import { type Exact, type FloatEnvironment, NEAREST, roundPack } from './rounding.js';

const ONE = { negative: false, exponent: 0, significand: 1n };

/** Single precision with a short fraction: appending zeros gives the F32 pattern. */
const SHORT = floatFormat('f32 estimate', F32.exponentBits, 12);
const APPENDED_BITS = BigInt(F32.fractionBits - SHORT.fractionBits);

export function reciprocalEstimate(a: bigint): bigint {
  const x = unpack(F32, a);
  switch (x.kind) {
    case 'qnan':
    case 'snan':
      return quiet(F32, a);
    case 'zero':
    case 'denormal':
      return infinity(F32, x.negative);
    case 'infinity':
      return zero(F32, x.negative);
    default:
      return roundShort(divideExact(ONE, x, F32.precision));
  }
}

export function reciprocalSqrtEstimate(a: bigint): bigint {
  const x = unpack(F32, a);
  if (isNaNKind(x)) return quiet(F32, a);
  if (x.kind === 'zero' || x.kind === 'denormal') return infinity(F32, x.negative);
  if (x.negative) return F32.indefinite;
  if (x.kind === 'infinity') return zero(F32, false);
  // 1/√x = √(1/x): the reciprocal has so many bits that cutting it cannot move the estimate beyond its bound.
  return roundShort(squareRootExact(divideExact(ONE, x, F32.precision), F32.precision));
}

function roundShort(exact: Exact): bigint {
  const env: FloatEnvironment = { rounding: NEAREST, daz: true, ftz: true, masks: 0x3f, flags: 0 };
  return roundPack(SHORT, exact, env) << APPENDED_BITS;
}

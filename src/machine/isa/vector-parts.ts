/**
 * Vectors of 128 or 256 bits taken apart into halves or elements, and put together again: for instructions whose halves
 * are not independent. Elements are integers of their width, lowest first.
 * Source: APM vol.1 §4.3 Media Data Types.
 */
import type { Operand, Ops } from './instruction.js';

/** The 128-bit halves of what an operand holds: two of a YMM register, else one. */
export const halvesOf = <V, C, X>(ops: Ops<V, C, X>, { width }: Operand, value: X): readonly X[] =>
  width === 256 ? [ops.halfOf(value, 0), ops.halfOf(value, 1)] : [value];

/** The elements of `width` bits of what an operand holds. */
export function elementsOf<V, C, X>(ops: Ops<V, C, X>, operand: Operand, value: X, width: number): readonly V[] {
  const quads = halvesOf(ops, operand, value).flatMap((half) => [ops.lane64(half, 0), ops.lane64(half, 1)]);
  if (width === 64) return quads;
  return quads.flatMap((quad) =>
    Array.from({ length: 64 / width }, (_, index) =>
      ops.truncate(width, ops.shr(64, quad, ops.constant(BigInt(index * width)))),
    ),
  );
}

/** The inverse, of 128 or 256 bits in all; fewer elements have zeros above them. */
export function vectorOf<V, C, X>(ops: Ops<V, C, X>, elements: readonly V[], width: number): X {
  const perQuad = 64 / width;
  const quad = (number: number): V =>
    elements
      .slice(number * perQuad, (number + 1) * perQuad)
      .map((element, index) => ops.shl(64, element, ops.constant(BigInt(index * width))))
      .reduce((sum, part) => ops.or(sum, part), ops.constant(0n));
  const low = ops.vectorFromLanes(quad(0), quad(1));
  return elements.length * width <= 128 ? low : ops.joinHalves(low, ops.vectorFromLanes(quad(2), quad(3)));
}

/** Whether all bits of some vectors of 128 bits are zero. */
export const areZero = <V, C, X>(ops: Ops<V, C, X>, vectors: readonly X[]): C =>
  ops.isZero(
    vectors
      .map((vector) => ops.or(ops.lane64(vector, 0), ops.lane64(vector, 1)))
      .reduce((sum, part) => ops.or(sum, part)),
  );

/**
 * How each result sets RFLAGS, over bigints: the reference that compiled code is tested against.
 *
 * Every kind defines all six flags. Flags that the manual leaves undefined get a fixed value here, so that all tiers
 * agree and replay is exact. Source: APM vol.1 §3.1.4 Flags Register, APM vol.3 instruction pages.
 *
 * Compiled code keeps flags lazily as two 64-bit cells, which are defined here too:
 * - `result`: the last result, sign-extended: ZF = (result = 0), SF = sign, PF = parity of the low byte;
 * - `carries`: bit 63 = CF; OF = bit 63 xor bit 62; bit 3 = AF; bit 0 inverts SF; bits 15:8 are xored into the parity byte.
 */
import { Flag } from '../layout/cpu-state.js';
import type { ConditionCode } from './instruction.js';

const PARITY_EVEN = (0x6996 ^ 0xffff) >>> 0;

/** PF of a value: set when the low byte has an even number of ones. */
function parity(value: bigint): boolean {
  const byte = Number(value & 0xffn);
  return ((PARITY_EVEN >>> ((byte ^ (byte >>> 4)) & 15)) & 1) === 1;
}

const signOf = (width: number, value: bigint): boolean => (value >> BigInt(width - 1)) % 2n !== 0n;

const bit = (condition: boolean, flag: bigint): bigint => (condition ? flag : 0n);

/** SF, ZF and PF of a result. */
export const resultFlags = (width: number, result: bigint): bigint =>
  bit(result === 0n, Flag.ZF) | bit(signOf(width, result), Flag.SF) | bit(parity(result), Flag.PF);

export function addFlags(width: number, a: bigint, b: bigint, result: bigint): bigint {
  const carries = (a & b) | ((a | b) & ~result);
  return resultFlags(width, result) | carryFlags(width, carries);
}

export function subFlags(width: number, a: bigint, b: bigint, result: bigint): bigint {
  const borrows = (~a & b) | ((~a | b) & result);
  return resultFlags(width, result) | carryFlags(width, borrows);
}

/** CF, OF and AF from the vector of carries out of each bit. */
function carryFlags(width: number, carries: bigint): bigint {
  const carryOut = signOf(width, carries);
  const carryIn = signOf(width - 1, carries);
  return bit(carryOut, Flag.CF) | bit(carryOut !== carryIn, Flag.OF) | bit(signOf(4, carries), Flag.AF);
}

/** Source: APM vol.3 §Jcc, table of conditions. */
export function conditionHolds(code: ConditionCode, rflags: bigint): boolean {
  const has = (flag: bigint): boolean => (rflags & flag) !== 0n;
  switch (code) {
    case 'o':
      return has(Flag.OF);
    case 'no':
      return !has(Flag.OF);
    case 'b':
      return has(Flag.CF);
    case 'ae':
      return !has(Flag.CF);
    case 'e':
      return has(Flag.ZF);
    case 'ne':
      return !has(Flag.ZF);
    case 'be':
      return has(Flag.CF) || has(Flag.ZF);
    case 'a':
      return !has(Flag.CF) && !has(Flag.ZF);
    case 's':
      return has(Flag.SF);
    case 'ns':
      return !has(Flag.SF);
    case 'p':
      return has(Flag.PF);
    case 'np':
      return !has(Flag.PF);
    case 'l':
      return has(Flag.SF) !== has(Flag.OF);
    case 'ge':
      return has(Flag.SF) === has(Flag.OF);
    case 'le':
      return has(Flag.ZF) || has(Flag.SF) !== has(Flag.OF);
    case 'g':
      return !has(Flag.ZF) && has(Flag.SF) === has(Flag.OF);
  }
}

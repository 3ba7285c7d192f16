/**
 * Random encodings of an instruction form: prefixes, registers, addressing and immediates by chance. With an `Aim`
 * operands and branches lead, most of the time, to where there is something; without one every byte is left to chance.
 * Source: APM vol.3 §1 Instruction Encoding.
 */
import type { Form } from '../../src/machine/index.js';
import type { Random } from './random.js';

export type Bits = 16 | 32 | 64;

export interface Aim {
  /** RIP of the instruction. */
  readonly rip: number;
  /** An address of data, as an offset in DS; below 2^31. */
  readonly data: () => number;
  /** An address of code, as an offset in CS. */
  readonly code: () => number;
  readonly selector: () => number;
}

const MAP_BYTES = [[], [0x0f], [0x0f, 0x38], [0x0f, 0x3a]] as const;
const SEGMENT_PREFIXES = [0x26, 0x2e, 0x36, 0x3e, 0x64, 0x65];
const INTERESTING_BYTES = [0x00, 0x01, 0x1f, 0x40, 0x7f, 0x80, 0xff];
const ENCODED_BYTES = 15;

/** What the prefixes settled. */
interface Start {
  readonly bytes: number[];
  readonly operandSize: Bits;
  readonly addressSize: Bits;
}

/** Fifteen bytes that start with an encoding of `form`. Rarely they are another form's after all. */
export function encode(form: Form, bits: Bits, random: Random, aim?: Aim): Uint8Array {
  const inMemory = form.mod === 'memory' || (form.mod === 'any' && random.oneIn(2));
  const start = form.vex ? vexStart(form, bits, random) : legacyStart(form, bits, inMemory, random, aim);
  const { bytes } = start;
  bytes.push(form.opcode + (form.plusR ? random.below(8) : 0));
  if (form.fixedModRM !== undefined) bytes.push(form.fixedModRM);
  else if (form.hasModRM) modRM(form, start, bits, inMemory, random, aim);
  if (aim !== undefined) targets(form, start, random, aim);
  while (bytes.length < ENCODED_BYTES) bytes.push(randomByte(random));
  return Uint8Array.from(bytes.slice(0, ENCODED_BYTES));
}

const randomByte = (random: Random): number =>
  random.oneIn(4) ? random.pick(INTERESTING_BYTES) : random.next32() & 0xff;

function legacyStart(form: Form, bits: Bits, inMemory: boolean, random: Random, aim: Aim | undefined): Start {
  const { prefix, attributes, map } = form;
  const bytes: number[] = [];
  const has66 = prefix !== 'NP' && prefix !== '66' && random.oneIn(3);
  const has67 = random.oneIn(aim === undefined ? 4 : 12);
  if (has66) bytes.push(0x66);
  if (has67) bytes.push(0x67);
  if (random.oneIn(8)) bytes.push(random.pick(SEGMENT_PREFIXES));
  if (attributes.has('rep') && !random.oneIn(3)) bytes.push(random.pick([0xf2, 0xf3]));
  if (attributes.has('lock') && inMemory && random.oneIn(3)) bytes.push(0xf0);
  if (prefix !== 'NP' && prefix !== 'any') bytes.push(Number.parseInt(prefix, 16));
  let wide = false;
  if (bits === 64 && (attributes.has('w1') || random.oneIn(2))) {
    const rex = 0x40 | random.below(16);
    const byte = attributes.has('w1') ? rex | 8 : attributes.has('w0') ? rex & ~8 : rex;
    wide = (byte & 8) !== 0;
    bytes.push(byte);
  }
  bytes.push(...(MAP_BYTES[map] ?? []));
  const operandSize = wide || attributes.has('f64') ? 64 : (bits === 16) === has66 ? 32 : 16;
  return {
    bytes,
    operandSize: bits === 64 ? operandSize : (bits === 16) === has66 ? 32 : 16,
    addressSize: addressSizeOf(bits, has67),
  };
}

function addressSizeOf(bits: Bits, prefix: boolean): Bits {
  if (bits === 64) return prefix ? 32 : 64;
  return (bits === 32) === prefix ? 16 : 32;
}

/** VEX.vvvv is all ones where the form has no operand in it. */
function vexStart({ prefix, map, vexL, attributes, operands }: Form, bits: Bits, random: Random): Start {
  const extensions = bits === 64 ? random.below(8) : 7;
  const hasRegister = operands.some(({ addressing }) => addressing === 'H' || addressing === 'B');
  const register = !hasRegister ? 15 : bits === 64 ? random.below(16) : 8 + random.below(8);
  const pp = ['NP', '66', 'F3', 'F2'].indexOf(prefix);
  const w = attributes.has('w1') ? 1 : attributes.has('w0') ? 0 : random.below(2);
  const l = vexL ?? random.below(2);
  const bytes = [0xc4, (extensions << 5) | map, (w << 7) | (register << 3) | (l << 2) | pp];
  return { bytes, operandSize: bits, addressSize: bits };
}

function modRM(form: Form, start: Start, bits: Bits, inMemory: boolean, random: Random, aim: Aim | undefined): void {
  const { bytes, addressSize } = start;
  const reg = (form.digit ?? random.below(8)) << 3;
  const hasVectorIndex = form.operands.some(({ addressing }) => addressing === 'Y');
  if (!inMemory) bytes.push(0xc0 | reg | random.below(8));
  else if (hasVectorIndex) bytes.push((random.below(3) << 6) | reg | 4);
  else if (aim === undefined || random.oneIn(16)) bytes.push((random.below(3) << 6) | reg | random.below(8));
  else if (addressSize === 16) address16(bytes, reg, random, aim);
  else addressWide(bytes, reg, bits, random, aim);
}

/** Absolute, or a base with a small displacement. */
function address16(bytes: number[], reg: number, random: Random, aim: Aim): void {
  if (random.oneIn(3)) bytes.push(reg | 6, ...little(aim.data(), 2));
  else if (random.oneIn(2)) bytes.push(0x40 | reg | random.below(8), random.below(64));
  else bytes.push(reg | random.pick([0, 1, 2, 3, 4, 5, 7]));
}

/** Absolute or relative to RIP; base and index; or a base alone, with a small displacement or none. */
function addressWide(bytes: number[], reg: number, bits: Bits, random: Random, aim: Aim): void {
  switch (random.below(8)) {
    case 0:
      if (bits === 64) bytes.push(reg | 4, 0x25, ...little(aim.data(), 4));
      else bytes.push(reg | 5, ...little(aim.data(), 4));
      return;
    case 1:
      // The end of the instruction is a few bytes off: it is not known yet.
      bytes.push(reg | 5, ...little(bits === 64 ? aim.data() - aim.rip - 8 : aim.data(), 4));
      return;
    case 2:
    case 3:
      bytes.push(0x40 | reg | 4, random.next32() & 0xff, random.below(64));
      return;
    case 4:
    case 5:
      bytes.push(reg | random.pick([0, 1, 2, 3, 6, 7]));
      return;
    default:
      bytes.push(0x40 | reg | random.pick([0, 1, 2, 3, 5, 6, 7]), random.below(128));
  }
}

/** Operands that lead somewhere by themselves: branches, far pointers, memory without ModRM. */
function targets(form: Form, { bytes, operandSize, addressSize }: Start, random: Random, aim: Aim): void {
  for (const { addressing, size } of form.operands) {
    if (addressing === 'J')
      bytes.push(...little(branchDistance(random), size === 'b' ? 1 : operandSize === 16 ? 2 : 4));
    else if (addressing === 'O') bytes.push(...little(aim.data(), addressSize / 8));
    else if (addressing === 'A') {
      bytes.push(...little(aim.code(), operandSize === 16 ? 2 : 4), ...little(aim.selector(), 2));
    }
  }
}

/** Mostly ahead by a few instructions, sometimes back: a loop. */
const branchDistance = (random: Random): number => (random.oneIn(4) ? -random.below(100) : random.below(40));

function little(value: number, bytes: number): number[] {
  const found: number[] = [];
  for (let index = 0; index < bytes; index++) {
    found.push(index < 4 ? (value >> (8 * index)) & 0xff : value < 0 ? 0xff : 0);
  }
  return found;
}

/**
 * Random instructions that mostly do not fault: operands lie in RAM, relative branches go to instructions of the same
 * sequence. What is compiled shall also run, not only be left to the evaluator.
 */
import type { Decoder } from '../../src/machine/decode/decode.js';
import type { DecodedInstruction } from '../../src/machine/decode/decoded.js';
import type { Form } from '../../src/machine/decode/tables.js';
import type { Random } from '../../tools/fuzz/random.js';
import { type Bits, CODE, DATA, STACK_TOP, type Values } from './engine-bench.js';

/** How an instruction is encoded, as far as its form leaves that open. */
export interface Shape {
  readonly operandSizePrefix: boolean;
  readonly addressSizePrefix: boolean;
  readonly repeat: number;
  readonly lock: boolean;
  readonly segment: number | undefined;
  /** Undefined for none; else its low four bits. */
  readonly rex: number | undefined;
  readonly memory: boolean;
}

const MAP_BYTES = [[], [0x0f], [0x0f, 0x38], [0x0f, 0x3a]] as const;
const VEX_PREFIXES = ['NP', '66', 'F3', 'F2'];
const HLT = 0xf4;

/** RIP of the first instruction. */
export const startOf = (bits: Bits): number => (bits === 16 ? 0x7000 : CODE);

/** Every shape of a form in a mode; segment overrides, LOCK and redundant REX only where no other prefix stands. */
export function* shapesOf(form: Form, bits: Bits): Generator<Shape> {
  const { attributes, mod, prefix } = form;
  const memories = mod === 'memory' ? [true] : mod === 'any' && form.hasModRM ? FLAG : [false];
  const operandSizes = form.vex || prefix === '66' || prefix === 'NP' ? [false] : FLAG;
  const repeats = attributes.has('rep') ? [0, 0xf3, 0xf2] : [0];
  for (const memory of memories) {
    for (const rex of rexesOf(form, bits)) {
      for (const operandSizePrefix of operandSizes) {
        for (const addressSizePrefix of memory || attributes.has('rep') || !form.hasModRM ? FLAG : [false]) {
          const shape = {
            operandSizePrefix,
            addressSizePrefix,
            repeat: 0,
            lock: false,
            segment: undefined,
            rex,
            memory,
          };
          for (const repeat of repeats) yield { ...shape, repeat };
          if (!memory || operandSizePrefix || addressSizePrefix) continue;
          if (!form.vex) yield { ...shape, segment: 0x64 };
          if (attributes.has('lock')) yield { ...shape, lock: true };
        }
      }
    }
  }
}

const FLAG = [false, true];

function rexesOf({ vex, attributes, operands }: Form, bits: Bits): readonly (number | undefined)[] {
  if (bits !== 64) return [undefined];
  if (vex) return attributes.has('w0') ? [0] : attributes.has('w1') ? [8] : [0, 8];
  if (attributes.has('w1')) return [8, 15];
  if (attributes.has('w0')) return [undefined, 7];
  return operands.some(({ size }) => size === 'b') ? [undefined, 0, 15] : [undefined, 15];
}

/** A random one of them, seldom with a segment override. */
export function randomShape(form: Form, bits: Bits, random: Random): Shape {
  const shapes = [...shapesOf(form, bits)].filter(({ segment }) => segment === undefined || random.oneIn(8));
  return random.pick(shapes.length > 0 ? shapes : [...shapesOf(form, bits)]);
}

/** @returns the encoding with operands in RAM, cut to its length; undefined when these bytes are no instruction of the form. */
export function encodeTame(
  decoder: Decoder,
  form: Form,
  bits: Bits,
  shape: Shape,
  random: Random,
): DecodedInstruction | undefined {
  const bytes = form.vex ? vexBytes(form, shape, bits, random) : legacyBytes(form, shape);
  bytes.push(form.opcode + (form.plusR ? random.below(8) : 0));
  if (form.fixedModRM !== undefined) bytes.push(form.fixedModRM);
  else if (form.hasModRM) {
    const reg = form.digit ?? random.below(8);
    if (shape.memory) bytes.push(...memoryBytes(reg, bits, shape, random));
    else bytes.push(0xc0 | (reg << 3) | random.below(8));
  } else if (form.operands.some(({ addressing }) => addressing === 'O')) {
    bytes.push(...little(bits === 16 || (bits === 32 && shape.addressSizePrefix) ? 0x100 : DATA, 8));
  }
  while (bytes.length < 15)
    bytes.push(random.oneIn(3) ? random.pick([0, 1, 0x1f, 0x7f, 0x80, 0xff]) : random.below(256));
  const insn = decoder.decode(Uint8Array.from(bytes), { bits, real: false });
  return typeof insn === 'object' && insn.form === form.id ? insn : undefined;
}

function legacyBytes({ prefix, map }: Form, shape: Shape): number[] {
  const bytes: number[] = [];
  if (shape.operandSizePrefix) bytes.push(0x66);
  if (shape.addressSizePrefix) bytes.push(0x67);
  if (shape.segment !== undefined) bytes.push(shape.segment);
  if (shape.lock) bytes.push(0xf0);
  if (shape.repeat !== 0) bytes.push(shape.repeat);
  if (prefix !== 'NP' && prefix !== 'any') bytes.push(Number.parseInt(prefix, 16));
  if (shape.rex !== undefined) bytes.push(0x40 | shape.rex);
  return [...bytes, ...(MAP_BYTES[map] ?? [])];
}

/** VEX.vvvv is all ones where the form has no operand in it. */
function vexBytes({ prefix, map, vexL, operands }: Form, shape: Shape, bits: Bits, random: Random): number[] {
  const hasRegister = operands.some(({ addressing }) => addressing === 'H' || addressing === 'B');
  const register = !hasRegister ? 15 : bits === 64 ? random.below(16) : 8 + random.below(8);
  const l = (vexL ?? random.below(2)) << 2;
  const prefixes = [...(shape.addressSizePrefix ? [0x67] : []), 0xc4, 0xe0 | map];
  return [...prefixes, (((shape.rex ?? 0) & 8) << 4) | (register << 3) | l | VEX_PREFIXES.indexOf(prefix)];
}

/** ModRM, SIB and displacement of an operand near the pointers of `tameRegisters`; pointers are rBX, rBP, rSI and rDI. */
function memoryBytes(reg: number, bits: Bits, shape: Shape, random: Random): number[] {
  const modrm = (mod: number, rm: number): number => (mod << 6) | (reg << 3) | rm;
  const displacement = random.pick([0, 1, 8, 0x10, 0x70, 0xf0]);
  const wide = random.pick([0, 4, 0x10, 0x20]);
  if ((bits === 32 && shape.addressSizePrefix) || (bits === 16 && !shape.addressSizePrefix)) {
    return random.pick([
      [modrm(0, random.pick([4, 5, 7]))],
      [modrm(1, random.below(8)), displacement],
      [modrm(2, random.pick([4, 5, 7])), ...little(wide, 2)],
      [modrm(0, 6), ...little(0x100 + wide, 2)],
    ]);
  }
  const pointer = random.pick([3, 5, 6, 7]);
  const absolute = bits === 64 ? DATA - CODE + wide : bits === 32 ? DATA + wide : 0x200 + wide;
  return random.pick([
    [modrm(0, random.pick([3, 6, 7]))],
    [modrm(1, pointer), displacement],
    [modrm(2, pointer), ...little(wide, 4)],
    [modrm(0, 5), ...little(absolute, 4)],
    // [pointer + none], [pointer + rCX * scale], [disp32]
    [modrm(1, 4), 0x20 | pointer, displacement],
    [modrm(1, 4), (random.below(4) << 6) | 0x08 | pointer, displacement],
    [modrm(0, 4), 0x25, ...little(bits === 16 ? 0x200 + wide : DATA + wide, 4)],
  ]);
}

const little = (value: number, bytes: number): number[] =>
  Array.from({ length: bytes }, (_, index) => Math.floor(value / 256 ** index) % 256);

/** Registers for such operands: pointers into data, a small rCX, the rest random. In 16-bit code data lies at a base. */
export function tameRegisters(bits: Bits, random: Random): Values {
  const pointer = (): bigint => {
    const offset = random.oneIn(16) ? 0xff8 + random.below(16) : 0x400 + 16 * random.below(0x80);
    return bits === 16 ? BigInt(offset) : BigInt(DATA + offset);
  };
  const number = (): bigint => {
    const value = random.pick([
      random.next64(),
      random.next64(),
      BigInt(random.below(256)),
      -BigInt(random.below(256)),
    ]);
    return BigInt.asUintN(bits === 64 ? 64 : 32, value);
  };
  const values: Values = {
    rax: number(),
    rcx: BigInt(random.below(12)),
    rdx: random.oneIn(2) ? number() : BigInt(random.below(3)),
    rbx: pointer(),
    rbp: pointer(),
    rsi: pointer(),
    rdi: pointer(),
    rsp: BigInt(STACK_TOP - 0x100 + 8 * random.below(8)),
    rflags: 2n | (random.next64() & 0xcd5n & (random.oneIn(4) ? 0xfffn : ~0x400n)),
  };
  if (bits === 64) {
    for (const name of ['r8', 'r10'] as const) values[name] = number();
    values.r9 = BigInt(random.below(12));
    for (const name of ['r11', 'r12', 'r13', 'r14', 'r15'] as const) values[name] = pointer();
    values.fsBase = BigInt(0x10 * random.below(4));
  } else if (bits === 16) {
    for (const name of ['dsBase', 'esBase', 'fsBase'] as const) values[name] = BigInt(DATA + random.below(3) * 0x10);
    values.ssBase = BigInt(random.below(3) * 0x10);
  }
  for (let register = 0; register < 16; register++) {
    values[`xmm${register}` as 'xmm0'] = random.next64();
    values[`xmm${register}High` as 'xmm0High'] = random.next64();
    values[`ymm${register}` as 'ymm0'] = random.next64();
    values[`ymm${register}High` as 'ymm0High'] = random.next64();
  }
  return values;
}

/** Instructions in a row, the relative branches among them patched to stay inside, and HLT. */
export function assemble(sequence: readonly DecodedInstruction[], random: Random): Uint8Array {
  const starts: number[] = [];
  let length = 0;
  for (const insn of sequence) {
    starts.push(length);
    length += insn.length;
  }
  starts.push(length);
  const bytes = new Uint8Array(length + 1);
  sequence.forEach((insn, index) => {
    const start = starts[index] as number;
    bytes.set(insn.bytes, start);
    const relative = insn.operands.find(({ kind }) => kind === 'rel');
    if (relative === undefined) return;
    const next = starts[index + 1] as number;
    // Mostly forward, so that sequences end.
    const target = random.oneIn(6) ? random.pick(starts) : random.pick(starts.slice(index + 1));
    const size = relative.width / 8;
    bytes.set(little(target - next < 0 ? target - next + 256 ** size : target - next, size), next - size);
  });
  bytes[length] = HLT;
  return bytes;
}

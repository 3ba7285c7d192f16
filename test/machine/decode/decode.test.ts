/** Bytes → instruction, against APM vol.3 §1 Instruction Encoding and its appendices. */
import { describe, expect, it } from 'vitest';
import { Decoder } from '../../../src/machine/decode/decode.js';
import {
  type CodeMode,
  type DecodedInstruction,
  type DecodedOperand,
  MAX_INSTRUCTION_BYTES,
  type MemoryOperand,
  NO_REGISTER,
  RIP_BASE,
} from '../../../src/machine/decode/decoded.js';
import type { Feature } from '../../../src/machine/isa/instruction.js';
import { INSTRUCTIONS } from '../../../src/machine/isa/instructions.js';
import { Segment } from '../../../src/machine/layout/cpu-state.js';
import { hex } from '../../support/engine-bench.js';

const FEATURES: readonly Feature[] = [
  'sse',
  'sse2',
  'bmi1',
  'bmi2',
  'popcnt',
  'lzcnt',
  'abm',
  'movbe',
  'crc32',
  'cx16',
  'svm',
];
const decoder = new Decoder(INSTRUCTIONS, new Set(FEATURES));
const MODES = { 16: { bits: 16, real: false }, 32: { bits: 32, real: false }, 64: { bits: 64, real: false } } as const;

const decode = (text: string, mode: CodeMode = MODES[64]) => decoder.decode(hex(text), mode);

function insn(text: string, mode: CodeMode = MODES[64]): DecodedInstruction {
  const decoded = decode(text, mode);
  if (typeof decoded === 'string') throw new Error(`${text} is ${decoded}`);
  return decoded;
}

function memory(text: string, mode: CodeMode = MODES[64]): MemoryOperand {
  const found = insn(text, mode).operands.find((operand): operand is MemoryOperand => operand.kind === 'mem');
  if (found === undefined) throw new Error(`${text} has no memory operand`);
  return found;
}

const GPR8 = ['al', 'cl', 'dl', 'bl', 'spl', 'bpl', 'sil', 'dil'];
const GPR = ['ax', 'cx', 'dx', 'bx', 'sp', 'bp', 'si', 'di'];

/** Operands in a notation of assemblers, with the size of memory in bits. */
function text(operand: DecodedOperand): string {
  switch (operand.kind) {
    case 'gpr':
      return operand.high ? `${'acdb'[operand.number]}h` : registerName(operand.number, operand.width);
    case 'imm':
      return operand.value.toString(16);
    case 'rel':
      return `${operand.displacement < 0n ? '' : '+'}${operand.displacement.toString(16)}`;
    case 'far':
      return `${operand.selector.toString(16)}:${operand.offset.toString(16)}`;
    case 'mem':
      return `m${operand.width}`;
    default:
      return `${operand.kind}${operand.number}`;
  }
}

function registerName(number: number, width: number): string {
  if (number >= 8) return `r${number}${{ 8: 'b', 16: 'w', 32: 'd' }[width] ?? ''}`;
  if (width === 8) return GPR8[number] as string;
  return `${{ 32: 'e', 64: 'r' }[width] ?? ''}${GPR[number]}`;
}

const told = (bytes: string, mode: CodeMode = MODES[64]): string => {
  const { mnemonic, operands } = insn(bytes, mode);
  return `${mnemonic} ${operands.map(text).join(', ')}`.trim();
};

describe('operand sizes (APM vol.3 §1.2.2 Operand-Size Override Prefix)', () => {
  it.each([
    ['01 c8', 'ADD ax, cx', 'ADD eax, ecx', 'ADD eax, ecx'],
    ['66 01 c8', 'ADD eax, ecx', 'ADD ax, cx', 'ADD ax, cx'],
    ['00 c8', 'ADD al, cl', 'ADD al, cl', 'ADD al, cl'],
    ['66 00 c8', 'ADD al, cl', 'ADD al, cl', 'ADD al, cl'],
    ['50', 'PUSH ax', 'PUSH eax', 'PUSH rax'],
    ['66 50', 'PUSH eax', 'PUSH ax', 'PUSH ax'],
    ['83 c0 ff', 'ADD ax, ffff', 'ADD eax, ffffffff', 'ADD eax, ffffffff'],
    ['6a 80', 'PUSH ff80', 'PUSH ffffff80', 'PUSH ffffffffffffff80'],
    ['0f b6 c9', 'MOVZX cx, cl', 'MOVZX ecx, cl', 'MOVZX ecx, cl'],
    ['0f b7 c9', 'MOVZX cx, cx', 'MOVZX ecx, cx', 'MOVZX ecx, cx'],
    ['c8 34 12 05', 'ENTER 1234, 5', 'ENTER 1234, 5', 'ENTER 1234, 5'],
    ['eb fe', 'JMP -2', 'JMP -2', 'JMP -2'],
    ['66 f2 0f 38 f1 c1', 'CRC32 eax, ecx', 'CRC32 eax, cx', 'CRC32 eax, cx'],
  ])('%s', (bytes, in16, in32, in64) => {
    expect([told(bytes, MODES[16]), told(bytes, MODES[32]), told(bytes)]).toEqual([in16, in32, in64]);
  });

  it.each([
    ['48 01 c8', 'ADD rax, rcx'],
    ['66 48 01 c8', 'ADD rax, rcx'], // REX.W is stronger
    ['48 83 c0 80', 'ADD rax, ffffffffffffff80'],
    ['48 81 c0 00 00 00 80', 'ADD rax, ffffffff80000000'],
    ['48 b8 08 07 06 05 04 03 02 01', 'MOV rax, 102030405060708'],
    ['48 c7 c0 ff ff ff ff', 'MOV rax, ffffffffffffffff'],
    ['48 63 c8', 'MOVSXD rcx, eax'],
    ['c2 08 00', 'RET 8'],
    ['66 e8 00 00 00 00', 'CALL +0'], // near branches have 64 bits, whatever the prefixes
    ['48 0f c7 0b', 'CMPXCHG16B m128'],
  ])('%s in 64-bit mode is %s', (bytes, expected) => {
    expect(told(bytes)).toBe(expected);
  });

  it.each([
    ['9a 78 56 34 12 10 00', MODES[32], 'CALLF 10:12345678'],
    ['9a 34 12 10 00', MODES[16], 'CALLF 10:1234'],
    ['66 ea 78 56 34 12 10 00', MODES[16], 'JMPF 10:12345678'],
  ] as const)('far pointers %s', (bytes, mode, expected) => {
    expect(told(bytes, mode)).toBe(expected);
  });
});

describe('REX (APM vol.3 §1.2.7 REX Prefixes)', () => {
  it.each([
    ['88 e0', 'MOV al, ah'],
    ['40 88 e0', 'MOV al, spl'],
    ['b7 01', 'MOV bh, 1'],
    ['40 b7 01', 'MOV dil, 1'],
    ['41 b7 01', 'MOV r15b, 1'],
    ['44 88 e0', 'MOV al, r12b'],
    ['45 01 c8', 'ADD r8d, r9d'],
    ['41 50', 'PUSH r8'],
    ['49 0f c8', 'BSWAP r8'],
    ['4d 0f be c8', 'MOVSX r9, r8b'],
    ['41 90', 'XCHG r8d, eax'],
    ['44 0f 20 c0', 'MOV rax, control8'],
  ])('%s is %s', (bytes, expected) => {
    expect(told(bytes)).toBe(expected);
  });

  it('counts only directly before the opcode', () => {
    expect(told('48 66 01 c8')).toBe('ADD ax, cx');
    expect(told('4f 48 01 c8')).toBe('ADD rax, rcx');
    expect(told('41 2e 50')).toBe('PUSH rax');
    expect(insn('48 66 01 c8').length).toBe(4);
  });

  it('stands behind a mandatory prefix, and in front of it is none', () => {
    expect(told('f3 48 0f b8 c1')).toBe('POPCNT rax, rcx');
    expect(told('48 f3 0f b8 c1')).toBe('POPCNT eax, ecx');
  });

  it('is INC and DEC outside 64-bit mode', () => {
    expect(told('40', MODES[32])).toBe('INC eax');
    expect(told('4f', MODES[16])).toBe('DEC di');
    expect(insn('48 01 c8', MODES[32]).length).toBe(1);
  });
});

describe('prefixes', () => {
  it('of segments give the last one; in 64-bit mode only FS and GS count (APM vol.3 §1.2.4)', () => {
    expect(memory('2e 36 8b 00', MODES[32]).segment).toBe(Segment.SS);
    expect(memory('64 8b 00').segment).toBe(Segment.FS);
    expect(memory('64 2e 8b 00').segment).toBe(Segment.FS);
    expect(memory('65 64 8b 00').segment).toBe(Segment.FS);
    expect(memory('36 8b 00').segment).toBe(Segment.DS);
    expect(insn('3e a4', MODES[32]).segmentOverride).toBe(Segment.DS);
  });

  it.each([
    ['8b 45 00', MODES[32], Segment.SS],
    ['8b 44 24 00', MODES[32], Segment.SS],
    ['8b 44 05 00', MODES[32], Segment.SS],
    ['8b 44 28 00', MODES[32], Segment.DS], // EBP as an index
    ['8b 05 00 00 00 00', MODES[32], Segment.DS],
    ['8b 46 00', MODES[16], Segment.SS], // [BP + 0]
    ['8b 02', MODES[16], Segment.SS], // [BP + SI]
    ['8b 04', MODES[16], Segment.DS], // [SI]
    ['8b 06 00 00', MODES[16], Segment.DS],
    ['a1 00 00 00 00', MODES[32], Segment.DS],
    ['3e 8b 45 00', MODES[32], Segment.DS],
    ['41 8b 45 00', MODES[64], Segment.DS], // R13
  ] as const)('%s has its default segment (APM vol.2 §4.5.3)', (bytes, mode, segment) => {
    expect(memory(bytes, mode).segment).toBe(segment);
  });

  it('of repetition belong to string instructions, or select an opcode, or mean nothing', () => {
    expect(insn('f3 a4').rep).toBe('rep');
    expect(insn('f2 a6').rep).toBe('repne');
    expect(insn('f2 f3 a4').rep).toBe('rep');
    expect(insn('f3 01 c8')).toMatchObject({ mnemonic: 'ADD', rep: 'none' });
    expect(insn('f3 90').mnemonic).toBe('PAUSE');
    expect(insn('90').mnemonic).not.toBe('PAUSE');
    expect(insn('f3 0f b8 c1')).toMatchObject({ mnemonic: 'POPCNT', rep: 'none' });
    expect(told('66 f3 0f b8 c1')).toBe('POPCNT ax, cx');
    expect(insn('f3 0f bc c1').mnemonic).toBe('TZCNT');
    expect(insn('0f bc c1').mnemonic).toBe('BSF');
    expect(insn('f2 f3 0f bc c1').mnemonic).toBe('TZCNT');
  });

  it('select among SSE forms, F2 and F3 before 66 (APM vol.3 §1.2.1)', () => {
    expect(
      ['0f 10 c1', '66 0f 10 c1', 'f3 0f 10 c1', 'f2 0f 10 c1', '66 f3 0f 10 c1'].map((b) => insn(b).mnemonic),
    ).toEqual(['MOVUPS', 'MOVUPD', 'MOVSS', 'MOVSD', 'MOVSS']);
  });

  it.each([
    ['f0 01 08', true],
    ['f0 01 c8', false], // register destination
    ['f0 03 08', false], // memory source
    ['f0 39 08', false], // CMP writes nothing
    ['f0 80 38 00', false],
    ['f0 80 00 00', true],
    ['f0 87 08', true],
    ['f0 86 08', true],
    ['f0 0f b1 08', true],
    ['f0 0f c1 08', true],
    ['f0 0f c7 08', true],
    ['f0 0f ab 08', true],
    ['f0 0f a3 08', false], // BT
    ['f0 0f ba 28 01', true],
    ['f0 0f ba 20 01', false],
    ['f0 f7 10', true], // NOT
    ['f0 f7 18', true], // NEG
    ['f0 f7 20', false], // MUL
    ['f0 fe 00', true],
    ['f0 ff 08', true],
    ['f0 ff 30', false], // PUSH
    ['f0 89 08', false], // MOV
    ['f0 90', false],
    ['f0 a4', false],
    ['f0 d1 20', false], // SHL
  ])('LOCK: %s is allowed: %s (APM vol.3 §1.2.5 Lock Prefix)', (bytes, allowed) => {
    expect(typeof decode(bytes) === 'object').toBe(allowed);
    if (!allowed) expect(decode(bytes)).toBe('invalid');
  });
});

describe('addresses', () => {
  it.each([
    ['8b 00', { base: 0, index: NO_REGISTER, displacement: 0n }],
    ['8b 40 80', { base: 0, displacement: -128n }],
    ['8b 80 00 00 00 80', { base: 0, displacement: -0x8000_0000n }],
    ['8b 05 10 00 00 00', { base: RIP_BASE, displacement: 16n }],
    ['8b 04 24', { base: 4, index: NO_REGISTER }],
    ['8b 04 25 10 00 00 00', { base: NO_REGISTER, index: NO_REGISTER, displacement: 16n }],
    ['8b 04 8d 10 00 00 00', { base: NO_REGISTER, index: 1, scale: 2, displacement: 16n }],
    ['8b 44 8d 10', { base: 5, index: 1, scale: 2, displacement: 16n }],
    ['8b 04 c8', { base: 0, index: 1, scale: 3 }],
    ['8b 04 a0', { base: 0, index: NO_REGISTER }], // RSP is no index
    ['42 8b 04 a0', { base: 0, index: 12, scale: 2 }], // R12 is
    ['41 8b 04 24', { base: 12, index: NO_REGISTER }],
    ['41 8b 45 00', { base: 13, displacement: 0n }],
    ['41 8b 05 10 00 00 00', { base: RIP_BASE, displacement: 16n }], // REX.B is not looked at
    ['41 8b 04 25 10 00 00 00', { base: NO_REGISTER }],
    ['43 8b 44 8d 00', { base: 13, index: 9 }],
    ['67 8b 05 10 00 00 00', { base: RIP_BASE, displacement: 16n }],
  ])('%s of 64-bit mode (APM vol.3 §1.4 ModRM and SIB Bytes)', (bytes, fields) => {
    expect(memory(bytes)).toMatchObject(fields);
    expect(insn(bytes).length).toBe(bytes.split(' ').length);
  });

  it.each([
    ['8b 05 10 00 00 00', { base: NO_REGISTER, displacement: 16n }],
    ['8b 05 00 00 00 80', { base: NO_REGISTER, displacement: -0x8000_0000n }],
    ['8b 04 65 10 00 00 00', { base: NO_REGISTER, index: NO_REGISTER, displacement: 16n }],
    ['8b 6c 24 04', { base: 4, displacement: 4n }],
  ])('%s of 32-bit mode', (bytes, fields) => {
    expect(memory(bytes, MODES[32])).toMatchObject(fields);
  });

  it.each([
    [0, 3, 6],
    [1, 3, 7],
    [2, 5, 6],
    [3, 5, 7],
    [4, 6, NO_REGISTER],
    [5, 7, NO_REGISTER],
    [6, 5, NO_REGISTER],
    [7, 3, NO_REGISTER],
  ])('of 16 bits with rm = %i have base %i and index %i (APM vol.3 table 1-13)', (rm, base, index) => {
    const byte = (value: number): string => value.toString(16).padStart(2, '0');
    const none = rm === 6 ? { base: NO_REGISTER, index: NO_REGISTER, displacement: 0x1234n } : { base, index };
    expect(memory(`8b ${byte(rm)} ${rm === 6 ? '34 12' : ''}`, MODES[16])).toMatchObject(none);
    expect(memory(`8b ${byte(0x40 | rm)} ff`, MODES[16])).toMatchObject({ base, index, displacement: -1n });
    expect(memory(`67 8b ${byte(0x80 | rm)} 00 80`, MODES[32])).toMatchObject({ base, index, displacement: -0x8000n });
  });

  it('have the size of the mode, or the other by prefix; 64-bit mode has no 16-bit addresses', () => {
    const widths = (bytes: string) => [16, 32, 64].map((bits) => insn(bytes, MODES[bits as 16]).addressWidth);
    expect(widths('8b 00')).toEqual([16, 32, 64]);
    expect(widths('67 8b 00')).toEqual([32, 16, 32]);
  });

  it('of MOV to and from rAX have the address size (APM vol.3 MOV)', () => {
    expect(memory('a1 f0 de bc 9a 78 56 34 12').displacement).toBe(0x1234_5678_9abc_def0n);
    expect(memory('67 a1 f0 de bc 9a').displacement).toBe(0x9abc_def0n);
    expect(insn('67 a1 00 00 00 00').length).toBe(6);
    expect(insn('a0 34 12', MODES[16]).length).toBe(3);
    expect(insn('67 a2 34 12', MODES[32]).length).toBe(4);
  });
});

describe('MOV to and from control and debug registers', () => {
  it('takes a register whatever ModRM.mod says, and no displacement (APM vol.3 MOV CRn)', () => {
    for (const modrm of ['03', '43', '83', 'c3']) {
      expect(told(`0f 22 ${modrm}`)).toBe('MOV control0, rbx');
      expect(insn(`0f 22 ${modrm}`).length).toBe(3);
      expect(told(`0f 21 ${modrm}`)).toBe('MOV rbx, debug0');
    }
    expect(insn('0f 20 04 24').length).toBe(3); // no SIB byte
  });

  it('has 64-bit operands in 64-bit mode and 32-bit ones elsewhere, whatever the prefixes', () => {
    expect(told('0f 20 d8')).toBe('MOV rax, control3');
    expect(told('66 0f 20 d8')).toBe('MOV rax, control3');
    expect(told('0f 20 d8', MODES[32])).toBe('MOV eax, control3');
    expect(told('0f 23 f8', MODES[16])).toBe('MOV debug7, eax');
  });
});

describe('VEX (APM vol.3 §1.8 VEX and XOP Prefixes)', () => {
  it.each([
    ['c4 e2 70 f2 c2', 'ANDN eax, ecx, edx'],
    ['c4 e2 f0 f2 c2', 'ANDN rax, rcx, rdx'],
    ['c4 c2 70 f2 c2', 'ANDN eax, ecx, r10d'],
    ['c4 62 38 f2 c2', 'ANDN r8d, r8d, edx'],
    ['c4 e2 79 f7 c2', 'SHLX eax, edx, eax'],
    ['c4 e2 7b f7 c2', 'SHRX eax, edx, eax'],
    ['c4 e2 78 f3 c8', 'BLSR eax, eax'],
    ['c4 e3 7b f0 c2 05', 'RORX eax, edx, 5'],
  ])('%s is %s', (bytes, expected) => {
    expect(told(bytes)).toBe(expected);
    expect(insn(bytes).length).toBe(bytes.split(' ').length);
  });

  it.each(['66', 'f2', 'f3', 'f0', '48'])('after %s is #UD', (prefix) => {
    expect(decode(`${prefix} c4 e2 70 f2 c2`)).toBe('invalid');
  });

  it('allows segment and address-size prefixes in front', () => {
    expect(memory('67 65 c4 e2 70 f2 02')).toMatchObject({ base: 2, segment: Segment.GS });
  });

  it.each([
    ['an unknown map', 'c4 e4 70 f2 c2'],
    ['vector length 256 where 128 is due', 'c4 e2 74 f2 c2'],
    ['another mandatory prefix', 'c4 e2 71 f2 c2'],
  ])('with %s is #UD', (_, bytes) => {
    expect(decode(bytes)).toBe('invalid');
  });

  it('shares its bytes with LES and LDS: outside 64-bit mode by ModRM.mod, in real mode never', () => {
    expect(told('c4 e2 70 f2 c2', MODES[32])).toBe('ANDN eax, ecx, edx');
    expect(insn('c4 00', MODES[32]).mnemonic).toBe('LES');
    expect(insn('c5 00', MODES[16]).mnemonic).toBe('LDS');
    expect(decode('c4 e2 70 f2 c2', { bits: 16, real: true })).toBe('invalid');
    expect(decode('c4 00')).not.toMatchObject({ mnemonic: 'LES' });
  });
});

describe('modes', () => {
  it.each([
    '06',
    '0e',
    '16',
    '1e',
    '27',
    '2f',
    '37',
    '3f',
    '60',
    '61',
    '62 00',
    '9a 00 00 00 00 00 00',
    'ce',
    'd4 0a',
    'd5 0a',
    'd6',
    'ea 00 00 00 00 00 00',
  ])('%s is no instruction of 64-bit mode (APM vol.3 appendix B.3)', (bytes) => {
    expect(decode(bytes)).toBe('invalid');
  });

  it('give 63 two meanings', () => {
    expect(insn('63 c8', MODES[32]).mnemonic).toBe('ARPL');
    expect(insn('63 c8').mnemonic).toBe('MOVSXD');
  });

  it.each(['63 c8', '0f 00 c8', '0f 02 c1', '0f 03 c1'])('%s is #UD in real mode', (bytes) => {
    expect(decode(bytes, { bits: 16, real: true })).toBe('invalid');
    expect(typeof decode(bytes, MODES[16])).toBe('object');
  });

  it('leave out what the CPU profile does not have', () => {
    const plain = new Decoder(INSTRUCTIONS, new Set<Feature>());
    expect(plain.decode(hex('c4 e2 70 f2 c2'), MODES[64])).toBe('invalid');
    // POPCNT's encoding has no older meaning, TZCNT's is BSF.
    expect(plain.decode(hex('f3 0f b8 c1'), MODES[64])).toBe('invalid');
    expect(plain.decode(hex('f3 0f bc c1'), MODES[64])).toMatchObject({ mnemonic: 'BSF' });
  });

  it.each(['8e f0', '8c f8', '0f ff', '0f 04', 'c6 c8 00', 'fe d0', 'ff f8', '8d c0', '62 c0', '0f c7 c8'])(
    '%s is #UD in every mode: no such register, group member or operand',
    (bytes) => {
      for (const mode of Object.values(MODES)) {
        const decoded = decode(bytes, mode);
        // UD0 and UD1 are described, as instructions that raise #UD.
        if (typeof decoded === 'object') expect(decoded.mnemonic).toMatch(/^UD/);
        else expect(decoded).toBe('invalid');
      }
    },
  );
});

describe('lengths', () => {
  const LENGTHS: readonly (readonly [bytes: string, in16: number, in32: number, in64: number])[] = [
    ['90', 1, 1, 1],
    ['05 00 00 00 00', 3, 5, 5],
    ['b8 00 00 00 00', 3, 5, 5],
    ['66 b8 00 00 00 00', 6, 4, 4],
    ['c7 00 00 00 00 00', 4, 6, 6],
    ['81 80 00 00 00 00 00 00 00 00', 6, 10, 10],
    ['69 c0 00 00 00 00', 4, 6, 6],
    ['6b c0 00', 3, 3, 3],
    ['e8 00 00 00 00', 3, 5, 5],
    ['0f 84 00 00 00 00', 4, 6, 6],
    ['c2 00 00', 3, 3, 3],
    ['c8 00 00 00', 4, 4, 4],
    ['cd 00', 2, 2, 2],
    ['f6 00 00', 3, 3, 3],
    ['f6 10', 2, 2, 2],
    ['f7 00 00 00 00 00', 4, 6, 6],
    ['0f ba 20 00', 4, 4, 4],
    ['0f a4 c0 00', 4, 4, 4],
    ['0f 01 d8', 3, 3, 3],
    ['8b 04 05 00 00 00 00', 2, 7, 7],
    ['8b 84 05 00 00 00 00', 4, 7, 7],
    ['0f c8', 2, 2, 2],
    ['e4 00', 2, 2, 2],
  ];
  it.each(LENGTHS)('of %s are %i, %i and %i bytes in 16-, 32- and 64-bit code', (bytes, in16, in32, in64) => {
    const padded = `${bytes} 00 00 00`;
    expect([insn(padded, MODES[16]), insn(padded, MODES[32]), insn(padded)].map(({ length }) => length)).toEqual([
      in16,
      in32,
      in64,
    ]);
  });

  it('count as many bytes as are kept', () => {
    const decoded = insn('66 b8 34 12 90 90');
    expect([...decoded.bytes]).toEqual([0x66, 0xb8, 0x34, 0x12]);
  });

  it('of more than 15 bytes are an error of their own (APM vol.3 §1.1)', () => {
    expect(insn(`${'66 '.repeat(14)} 90`).length).toBe(MAX_INSTRUCTION_BYTES);
    expect(decode(`${'66 '.repeat(15)} 90`)).toBe('too-long');
    expect(decode('66 '.repeat(15))).toBe('too-long');
    expect(decode(`${'2e '.repeat(11)} b8 00 00 00 00`)).toBe('too-long');
    expect(insn(`${'2e '.repeat(10)} b8 00 00 00 00`).length).toBe(15);
  });

  it('are not known while bytes are missing, whichever those are', () => {
    const whole = hex('66 65 48 81 84 8b 78 56 34 12 00 00 00 00');
    for (let length = 0; length < whole.length; length++) {
      expect(decoder.decode(whole.subarray(0, length), MODES[64])).toBe('incomplete');
    }
    expect(decoder.decode(whole, MODES[64])).toMatchObject({ length: whole.length });
  });

  it('do not depend on bytes behind the instruction', () => {
    for (const [bytes, , , length] of LENGTHS) {
      expect(decoder.decode(hex(bytes).subarray(0, length), MODES[64])).toMatchObject({ length });
    }
  });
});

/**
 * The instructions whose handlers stand inside the dispatch function, as sample encodings in 64-bit mode: what compiled
 * integer code executes most. The dispatch function must stay small (docs/adr/0002-interpreter-dispatch.md).
 */

const hex = (text: string): Uint8Array => Uint8Array.from(text.split(' '), (byte) => Number.parseInt(byte, 16));

/** ADD OR ADC SBB AND SUB XOR CMP, by the opcode's bits 5:3. */
const ALU = [0, 1, 4, 5, 6, 7];

function aluEncodings(): string[] {
  return ALU.flatMap((operation) => {
    const opcode = (low: number): string => ((operation << 3) | low).toString(16).padStart(2, '0');
    const digit = (mod: number): string => ((mod << 6) | (operation << 3)).toString(16).padStart(2, '0');
    return [
      `48 ${opcode(1)} c0`, // r64, r64
      `${opcode(1)} c0`, // r32, r32
      `48 ${opcode(3)} 00`, // r64, [m]
      `${opcode(3)} 00`, // r32, [m]
      `48 83 ${digit(3)} 01`, // r64, imm8
      `83 ${digit(3)} 01`, // r32, imm8
      `48 81 ${digit(3)} 00 00 00 00`, // r64, imm32
      `81 ${digit(3)} 00 00 00 00`, // r32, imm32
      ...(operation === 0 || operation === 7
        ? [`48 ${opcode(1)} 00`, `${opcode(1)} 00`, `48 83 ${digit(0)} 01`, `83 ${digit(0)} 01`] // [m], r; [m], imm8
        : []),
      ...(operation === 7 ? [`80 ${digit(0)} 00`, `80 ${digit(3)} 00`, `38 c0`, `3c 00`, `3d 00 00 00 00`] : []),
    ];
  });
}

const CONDITIONS = Array.from({ length: 16 }, (_, condition) => condition.toString(16));

const ENCODINGS: readonly string[] = [
  ...aluEncodings(),
  // MOV
  ...['48 89 c0', '89 c0', '48 8b c0', '8b c0', '48 89 00', '89 00', '48 8b 00', '8b 00', '88 00', '8a 00', '88 c0'],
  ...['48 c7 c0 00 00 00 00', 'c7 00 00 00 00 00', '48 c7 00 00 00 00 00', 'c6 00 00', 'b8 00 00 00 00', '66 89 00'],
  // MOVZX, MOVSX, MOVSXD, LEA
  ...[
    '0f b6 c0',
    '0f b6 00',
    '0f b7 00',
    '0f b7 c0',
    '0f be 00',
    '48 0f be c0',
    '48 63 c0',
    '48 63 00',
    '48 8d 00',
    '8d 00',
  ],
  ...['48 98', '48 99', '99'],
  // TEST
  ...['48 85 c0', '85 c0', '84 c0', 'f6 00 00', 'f6 c0 00', 'a8 00'],
  // INC, DEC, NEG, NOT
  ...['48 ff c0', 'ff c0', '48 ff c8', 'ff c8', '48 f7 d8', 'f7 d8', '48 f7 d0', 'f7 d0'],
  // Shifts by an immediate and by CL
  ...[
    '48 c1 e0 01',
    'c1 e0 01',
    '48 c1 e8 01',
    'c1 e8 01',
    '48 c1 f8 01',
    'c1 f8 01',
    'c1 c0 01',
    'c1 c8 01',
    '48 c1 c0 01',
    '48 c1 c8 01',
  ],
  ...['48 d1 e8', 'd1 e8', '48 d1 e0', 'd1 e0', '48 d1 f8', 'd1 f8', '48 d3 e0', '48 d3 e8', 'd3 e0', 'd3 e8'],
  // IMUL
  ...['48 0f af c0', '0f af c0', '48 0f af 00', '48 6b c0 01', '48 69 c0 00 00 00 00', '6b c0 01', '69 c0 00 00 00 00'],
  // PUSH, POP, CALL, RET, JMP
  ...['50', '58', '6a 00', 'e8 00 00 00 00', 'c3', 'eb 00', 'e9 00 00 00 00', 'ff e0', 'ff d0', 'c9'],
  ...CONDITIONS.map((condition) => `7${condition} 00`),
  ...CONDITIONS.map((condition) => `0f 8${condition} 00 00 00 00`),
  // CMOV and SET of the common conditions
  ...['2', '3', '4', '5', '6', '7', 'c', 'd', 'e', 'f'].map((condition) => `48 0f 4${condition} c0`),
  ...['4', '5'].map((condition) => `0f 9${condition} c0`),
  // XCHG, BT, NOP
  ...['90', '48 0f a3 c0', '48 0f ba e0 00'],
];

export const HOT_ENCODINGS: readonly Uint8Array[] = ENCODINGS.map(hex);

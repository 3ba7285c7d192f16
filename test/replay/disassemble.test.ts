import { describe, expect, it } from 'vitest';
import { BASE_PROFILE } from '../../src/machine/cpu/cpuid.js';
import { type CodeMode, Decoder, INSTRUCTIONS, R, type Registers, SLOT_COUNT } from '../../src/machine/index.js';
import { PhysicalMemory } from '../../src/machine/mmu/memory.js';
import { sPA } from '../../src/machine/units.js';
import { instructionText } from '../../src/replay/disassemble.js';
import { disassemble } from '../../src/replay/index.js';

const decoder = new Decoder(INSTRUCTIONS, BASE_PROFILE.features);
const RIP = 0x40_1000n;

function text(code: string, bits: CodeMode['bits'] = 64): string {
  const bytes = Uint8Array.from(code.split(' '), (byte) => Number.parseInt(byte, 16));
  const insn = decoder.decode(bytes, { bits, real: false });
  if (typeof insn === 'string') throw new Error(`${code} is ${insn}`);
  expect(insn.length).toBe(bytes.length);
  return instructionText(insn, RIP);
}

describe('an instruction in Intel syntax', () => {
  it.each([
    ['48 01 d8', 'add rax, rbx'],
    ['41 8a 44 8d f0', 'mov al, byte [r13+rcx*4-0x10]'],
    ['40 88 f0', 'mov al, sil'],
    ['88 f0', 'mov al, dh'],
    ['66 45 89 c1', 'mov r9w, r8w'],
    ['48 8d 05 10 00 00 00', 'lea rax, [rip+0x10] (0x401017)'],
    ['64 48 8b 04 25 28 00 00 00', 'mov rax, qword fs:[0x28]'],
    ['48 83 c4 f8', 'add rsp, -0x8'],
    ['48 c7 c0 ff ff ff 7f', 'mov rax, 0x7fffffff'],
    ['74 fe', 'je 0x401000'],
    ['e8 fb 0f 00 00', 'call 0x402000'],
    ['f3 48 a5', 'rep movsq'],
    ['f2 ae', 'repne scasb'],
    ['f3 a6', 'repe cmpsb'],
    ['f0 48 0f b1 11', 'lock cmpxchg qword [rcx], rdx'],
    ['48 98', 'cdqe'],
    ['48 cf', 'iretq'],
    ['e3 00', 'jrcxz 0x401002'],
    ['0f 01 d8', 'vmrun'],
    ['0f a2', 'cpuid'],
    ['0f 22 d8', 'mov cr3, rax'],
    ['0f 23 f8', 'mov dr7, rax'],
    ['8e d8', 'mov ds, ax'],
    ['66 0f 6f 00', 'movdqa xmm0, xmmword [rax]'],
    ['c5 ec 58 0b', 'vaddps ymm1, ymm2, ymmword [rbx]'],
    ['c4 c3 7d 19 d1 01', 'vextractf128 xmm9, ymm2, 0x1'],
    ['c4 e2 ed 90 4c 98 10', 'vpgatherdq ymm1, qword [rax+xmm3*4+0x10], ymm2'],
    ['c4 e2 6d 92 0c 1b', 'vgatherdps ymm1, dword [rbx+ymm3], ymm2'],
    ['e6 f4', 'out 0xf4, al'],
    ['48 d1 e0', 'shl rax, 0x1'],
  ])('%s is %s', (code, expected) => {
    expect(text(code)).toBe(expected);
  });

  it.each<[string, CodeMode['bits'], string]>([
    ['8b 40 04', 16, 'mov ax, word [bx+si+0x4]'],
    ['8b 06 34 12', 16, 'mov ax, word [0x1234]'],
    ['ea 00 10 00 00 08 00', 32, 'jmp far 0x8:0x1000'],
    ['60', 32, 'pushad'],
    ['eb fe', 16, 'jmp 0x1000'],
    ['67 8b 07', 32, 'mov eax, dword [bx]'],
  ])('%s in %i-bit code is %s', (code, bits, expected) => {
    expect(text(code, bits)).toBe(expected);
  });
});

describe('disassembling a machine', () => {
  const features = { physicalAddressBits: 48, gigabytePages: true };
  const place = (code: readonly number[], address: number) => {
    const memory = new PhysicalMemory(0x10_0000);
    memory.copyIn(sPA(address), Uint8Array.from(code));
    const registers: Registers = new BigUint64Array(SLOT_COUNT);
    registers[R.cr0] = 0x10n; // real mode
    registers[R.csBase] = 0x1_0000n;
    return { memory, registers, decoder, features };
  };

  it('reads code through the code segment, instruction after instruction', () => {
    const found = disassemble(place([0xb8, 0x34, 0x12, 0xcd, 0x10, 0xf4], 0x1_0100), 0x100n, 3);
    expect(found.map(({ rip, text }) => [rip, text])).toEqual([
      [0x100n, 'mov ax, 0x1234'],
      [0x103n, 'int 0x10'],
      [0x105n, 'hlt'],
    ]);
  });

  it('says where there is no instruction, and no memory', () => {
    const nonsense = disassemble(place([0xf4, 0x0f, 0x04], 0x1_0100), 0x100n, 5);
    expect(nonsense.map(({ text }) => text)).toEqual(['hlt', expect.stringMatching(/^\(.*\) 0f 04/)]);
    expect(disassemble(place([], 0), 0x9_0000n, 5)).toMatchObject([{ text: '(not mapped)' }]);
  });
});

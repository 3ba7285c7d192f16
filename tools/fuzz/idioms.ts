/**
 * Short sequences around instructions that chance alone hardly ever completes, for they want a descriptor, an image in
 * memory or a register just so: a state is saved and loaded again, a selector is one that fits, a mask is legal.
 *
 * Each is written in bytes with its assembly beside it. `M` is memory that the encoding of the mode names by its address.
 */
import type { Bits } from './encode.js';
import { At, Sel } from './memory-map.js';
import type { Random } from './random.js';

interface Idiom {
  /** Where it means what it says; everywhere when absent. */
  readonly bits?: readonly Bits[];
  readonly code: (write: Assembler, random: Random) => void;
}

/** The few encodings that the idioms share. */
class Assembler {
  readonly bytes: number[] = [];

  constructor(readonly bits: Bits) {}

  /** Bytes in hexadecimal. */
  hex(text: string): this {
    for (const byte of text.trim().split(/\s+/)) this.bytes.push(Number.parseInt(byte, 16));
    return this;
  }
  /** MOV r32, imm32. @param number of the register, 0 to 7. */
  move(number: number, value: number): this {
    if (this.bits === 16) this.bytes.push(0x66);
    this.bytes.push(0xb8 | number);
    return this.little(value, 4);
  }
  /** ModRM for memory at `offset` in the data. @param reg its middle field. */
  memory(reg: number, offset: number): this {
    if (this.bits === 16) {
      this.bytes.push((reg << 3) | 6);
      return this.little(offset, 2);
    }
    if (this.bits === 64) this.bytes.push((reg << 3) | 4, 0x25);
    else this.bytes.push((reg << 3) | 5);
    return this.little(At.DATA + offset, 4);
  }
  private little(value: number, bytes: number): this {
    for (let index = 0; index < bytes; index++) this.bytes.push((value >>> (8 * index)) & 0xff);
    return this;
  }
}

const [EAX, ECX, EDX] = [0, 1, 2];
/** An offset in the data, aligned for XSAVE. */
const area = (random: Random): number => 0x400 + 64 * random.below(64);

const IDIOMS: readonly Idiom[] = [
  {
    // mov eax, selector; lldt ax
    code: (write, random) => write.move(EAX, random.pick([Sel.LDT, 0])).hex('0f 00 d0'),
  },
  {
    // mov eax, selector; ltr ax
    code: (write, random) => write.move(EAX, random.pick([Sel.FREE_TSS64, Sel.OTHER_TSS32])).hex('0f 00 d8'),
  },
  {
    // sgdt M; lgdt M, or sidt M; lidt M
    code: (write, random) => {
      const at = area(random);
      const digit = random.below(2);
      write
        .hex('0f 01')
        .memory(digit, at)
        .hex('0f 01')
        .memory(digit | 2, at);
    },
  },
  {
    // xor ecx, ecx; xor edx, edx; mov eax, mask; xsetbv
    code: (write, random) =>
      write
        .move(ECX, 0)
        .move(EDX, 0)
        .move(EAX, random.pick([1, 3, 7]))
        .hex('0f 01 d1'),
  },
  {
    // fxsave M; fxrstor M
    code: (write, random) => {
      const at = area(random);
      write.hex('0f ae').memory(0, at).hex('0f ae').memory(1, at);
    },
  },
  {
    // xsave M; xrstor M with the mask in edx:eax; M has a header of zeros first
    code: (write, random) => {
      const at = area(random);
      zeroHeader(write, at)
        .move(EAX, random.pick([1, 2, 3, 7]))
        .move(EDX, 0);
      write.hex('0f ae').memory(4, at);
      if (random.oneIn(2)) write.move(EAX, 7);
      write.hex('0f ae').memory(5, at);
    },
  },
  {
    // xsaves or xsavec M; xrstors or xrstor M
    code: (write, random) => {
      const at = area(random);
      zeroHeader(write, at)
        .move(EAX, random.pick([1, 2, 3, 7]))
        .move(EDX, 0);
      write.hex('0f c7').memory(random.pick([4, 5]), at);
      if (random.oneIn(3)) write.hex('0f ae').memory(5, at);
      else write.hex('0f c7').memory(3, at);
    },
  },
  {
    // fnstenv M; fldenv M, fnsave M; frstor M
    code: (write, random) => {
      const at = area(random);
      if (random.oneIn(2)) write.hex('d9').memory(6, at).hex('d9').memory(4, at);
      else write.hex('dd').memory(6, at).hex('dd').memory(4, at);
    },
  },
  {
    // stmxcsr M; ldmxcsr M
    code: (write, random) => {
      const at = area(random);
      write.hex('0f ae').memory(3, at).hex('0f ae').memory(2, at);
    },
  },
  {
    // mov rax, crN; mov crN, rax
    code: (write, random) => {
      const register = random.pick([0, 2, 3, 4]);
      const modrm = (0xc0 | (register << 3)).toString(16);
      write.hex(`0f 20 ${modrm}`).hex(`0f 22 ${modrm}`);
    },
  },
  {
    // mov eax, priority; mov cr8, rax: with REX.R, or by LOCK MOV CR0
    code: (write, random) => {
      write.move(EAX, random.below(16));
      write.hex(write.bits === 64 && random.oneIn(2) ? '44 0f 22 c0' : 'f0 0f 22 c0');
    },
  },
  {
    // mov rax, drN; mov drN, rax, none of which enables anything
    code: (write, random) => {
      const modrm = (0xc0 | (random.below(4) << 3)).toString(16);
      write.hex(`0f 21 ${modrm}`).hex(`0f 23 ${modrm}`);
    },
  },
  {
    // mov eax, kind; invpcid eax, M, which holds zeros
    code: (write, random) => {
      const at = area(random);
      write.move(EDX, 0);
      for (const offset of [0, 4, 8, 12]) write.hex('89').memory(EDX, at + offset);
      write.move(EAX, random.below(4)).hex('66 0f 38 82').memory(EAX, at);
    },
  },
  {
    // mov eax, address; xor ecx, ecx; xor edx, edx; monitor; mwait, or monitorx; mwaitx
    code: (write, random) => {
      write
        .move(EAX, write.bits === 16 ? 0x40 : At.DATA + 0x40)
        .move(ECX, 0)
        .move(EDX, 0);
      write.hex(random.oneIn(2) ? '0f 01 c8 0f 01 c9' : '0f 01 fa 0f 01 fb');
    },
  },
  {
    // vpxor ymm5, ymm5, ymm5; vpcmpeqd ymm6, ymm6, ymm6; a gather of any kind: ymm4 <- [M + ymm5 * 8], mask ymm6
    bits: [64, 32],
    code: (write, random) => {
      write.hex('c5 d5 ef ed').hex(random.oneIn(3) ? 'c5 cd ef f6' : 'c5 cd 76 f6');
      write.move(ECX, At.DATA + area(random));
      const opcode = (0x90 | random.below(4)).toString(16);
      const w = random.below(2) << 7;
      const l = random.below(2) << 2;
      write.hex(`c4 e2 ${(w | l | 0x49).toString(16)} ${opcode} 24 e9`);
    },
  },
  {
    // rdmsr; wrmsr of what was read
    code: (write, random) => {
      write.move(ECX, random.pick([0x277, 0xc000_0080, 0xc000_0100, 0xc000_0102, 0x1b, 0x174, 0x2ff, 0xc000_0081]));
      write.hex('0f 32 0f 30');
    },
  },
  {
    // swapgs twice, with something between
    bits: [64],
    code: (write) => write.hex('0f 01 f8 65 48 8b 04 25 00 00 00 00 0f 01 f8'),
  },
  {
    // push flags, change them, pop them
    code: (write, random) => {
      const bit = random.pick(['01', '02', '04', '08', '40']);
      write.hex(
        write.bits === 64
          ? `9c 48 81 34 24 00 ${bit} 00 00 9d`
          : write.bits === 32
            ? `9c 81 34 24 00 ${bit} 00 00 9d`
            : '9c 9d',
      );
    },
  },
  {
    // clgi; something; stgi
    code: (write, random) => write.hex(`0f 01 dd ${random.pick(['90', 'fb', 'f4', '0f a2'])} 0f 01 dc`),
  },
  {
    // in al, port; out port, al: of the interval timer, the interrupt controllers, the clock
    code: (write, random) => {
      const port = random.pick(['20', '21', '40', '42', '43', '61', '70', '71', 'a1']);
      write.hex(`e4 ${port} e6 ${port}`);
    },
  },
];

/** XSAVE headers must be zero but for the mask: eight bytes of mask, then 56 of zeros. */
function zeroHeader(write: Assembler, at: number): Assembler {
  write.move(EAX, 0);
  for (let offset = 512; offset < 512 + 64; offset += 4) write.hex('89').memory(EAX, at + offset);
  return write;
}

export function randomIdiom(bits: Bits, random: Random): readonly number[] {
  const idiom = random.pick(IDIOMS);
  if (idiom.bits?.includes(bits) === false) return [];
  const write = new Assembler(bits);
  idiom.code(write, random);
  return write.bytes;
}

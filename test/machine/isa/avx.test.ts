/** AVX state and its faults, the VEX encodings, and what crosses the halves of a register. */
import { describe, expect, it } from 'vitest';
import {
  CR0,
  CR4,
  R,
  type RegisterName,
  SLOT_COUNT,
  type Slot,
  xmmSlot,
  ymmSlot,
} from '../../../src/machine/layout/cpu-state.js';
import { CpuMachine, DATA, faultOf } from '../../support/cpu-machine.js';

const bytes = (text: string): number[] => text.split(' ').map((byte) => Number.parseInt(byte, 16));

function machine(): CpuMachine {
  const cpu = new CpuMachine().longMode();
  return cpu.set({ cr4: CR4.PAE | CR4.OSXSAVE | CR4.OSXMMEXCPT, xcr0: 7n, mxcsr: 0x1f80n, rbx: BigInt(DATA) });
}

/** Slots of YMM register `number`, lowest first. */
const slots = (number: number): readonly Slot[] =>
  [xmmSlot(number), ymmSlot(number)].flatMap((slot) => [slot, (slot + 1) as Slot]);

/** Registers as four quadwords, lowest first. */
function setYmm(cpu: CpuMachine, number: number, ...quads: readonly bigint[]): CpuMachine {
  slots(number).forEach((slot, index) => {
    cpu.registers[slot] = quads[index] ?? 0n;
  });
  return cpu;
}
const ymm = (cpu: CpuMachine, number: number): readonly bigint[] =>
  slots(number).map((slot) => cpu.registers[slot] as bigint);

/** Doublewords, highest first, as hexadecimal digits; bytes of a register likewise. */
const dwords = (cpu: CpuMachine, number: number): string =>
  ymm(cpu, number)
    .toReversed()
    .flatMap((quad) => [quad >> 32n, quad & 0xffff_ffffn])
    .map((dword) => dword.toString(16))
    .join(' ');

/** Doublewords a0..a7 and b0..b7 in YMM2 and YMM3; YMM1 is full of ones. */
function filled(): CpuMachine {
  const quads = (digit: bigint) => [0n, 2n, 4n, 6n].map((low) => ((digit | (low + 1n)) << 32n) | digit | low);
  const cpu = machine();
  setYmm(cpu, 1, -1n, -1n, -1n, -1n);
  setYmm(cpu, 2, ...quads(0xa0n));
  return setYmm(cpu, 3, ...quads(0xb0n));
}
const executed = (text: string, prepare: (cpu: CpuMachine) => CpuMachine = (cpu) => cpu): CpuMachine => {
  const cpu = prepare(filled());
  expect(faultOf(cpu.run(...bytes(text)))).toBe('none');
  return cpu;
};

describe('enabling (APM vol.4 §2.3 Instruction Exceptions)', () => {
  const VPADDD = 'c5 e9 fe cb'; // xmm1, xmm2, xmm3
  const attempt = (registers: Partial<Record<RegisterName, bigint>>, code = VPADDD): string =>
    faultOf(
      machine()
        .set(registers)
        .run(...bytes(code)),
    );
  const TS = CR0.PE | CR0.PG | CR0.ET | CR0.TS;

  it.each([
    ['nothing in the way', {}, 'none'],
    ['CR4.OSXSAVE clear', { cr4: CR4.PAE }, '#UD'],
    ['XCR0 without AVX', { xcr0: 3n }, '#UD'],
    ['XCR0 without SSE', { xcr0: 1n }, '#UD'],
    ['CR0.TS', { cr0: TS }, '#NM'],
    ['CR0.TS, but not enabled either', { cr0: TS, xcr0: 3n }, '#UD'],
    ['CR0.EM, which means SSE only', { cr0: CR0.PE | CR0.PG | CR0.ET | CR0.EM }, 'none'],
  ] as const)('%s: %s', (_, registers, fault) => {
    expect(attempt(registers)).toBe(fault);
    expect(attempt(registers, 'c5 f8 77')).toBe(fault); // VZEROUPPER
    expect(attempt(registers, 'c5 f8 ae 1b')).toBe(fault); // VSTMXCSR
  });

  it('VEX is #UD in real and virtual-8086 mode', () => {
    const real = new CpuMachine().set({ cr4: CR4.OSXSAVE, xcr0: 7n });
    expect(faultOf(real.run(...bytes(VPADDD)))).toBe('#UD');
    const virtual = new CpuMachine().virtual8086(3).set({ cr4: CR4.OSXSAVE, xcr0: 7n });
    expect(faultOf(virtual.run(...bytes(VPADDD)))).toBe('#UD');
  });
});

describe('VEX encodings (APM vol.4 §1.3)', () => {
  it.each([
    ['LOCK', 'f0 c5 e9 fe cb'],
    ['66', '66 c5 e9 fe cb'],
    ['F2', 'f2 c5 e9 fe cb'],
    ['F3', 'f3 c5 e9 fe cb'],
    ['REX', '48 c5 e9 fe cb'],
    ['VEX.vvvv without an operand in it', 'c5 e9 70 cb 00'],
    ['VEX.L where 128 bits are due', 'c5 fd 6e cb'],
    ['VEX.W where 0 is due', 'c4 e2 f9 18 cb'],
    ['a register where memory is due', 'c4 e2 7d 1a cb'],
    ['VSIB with one register twice', 'c4 e2 69 90 0c 0b'],
    ['VSIB without SIB', 'c4 e2 69 90 0b'],
  ])('#UD: %s', (_, code) => {
    expect(faultOf(machine().run(...bytes(code)))).toBe('#UD');
  });

  it('outside 64-bit mode there are eight registers, and W makes no 64-bit operands', () => {
    const cpu = machine().protectedMode().set({ cr4: CR4.OSXSAVE, efer: 0n, rax: 0x1_0000_0005n });
    setYmm(setYmm(cpu, 2, 1n, 1n), 3, 2n, 2n);
    expect(faultOf(cpu.run(...bytes('c4 c1 29 d4 cb')))).toBe('none'); // VPADDQ xmm1, xmm2, xmm3 with B and vvvv[3] set
    expect(ymm(cpu, 1)).toEqual([3n, 3n, 0n, 0n]);
    expect(faultOf(cpu.run(...bytes('c4 e1 f9 6e c8')))).toBe('none'); // VMOVD xmm1, eax
    expect(ymm(cpu, 1)).toEqual([5n, 0n, 0n, 0n]);
  });

  it('registers 8 to 15 come from R, B, vvvv and the immediate byte', () => {
    const cpu = machine();
    setYmm(setYmm(setYmm(cpu, 10, 1n, 1n), 11, 2n, 2n), 12, 1n << 63n, 0n);
    expect(faultOf(cpu.run(...bytes('c4 43 29 4b cb c0')))).toBe('none'); // VBLENDVPD xmm9, xmm10, xmm11, xmm12
    expect(ymm(cpu, 9)).toEqual([2n, 1n, 0n, 0n]);
  });
});

describe('alignment: only the aligned moves ask for it, for as many bytes as they move', () => {
  const at = (offset: number, code: string): string =>
    faultOf(
      machine()
        .set({ rbx: BigInt(DATA + offset) })
        .run(...bytes(code)),
    );
  it.each([
    ['VMOVAPS xmm', 'c5 f8 28 0b', 16],
    ['VMOVAPS ymm', 'c5 fc 28 0b', 32],
    ['VMOVDQA ymm', 'c5 fd 7f 0b', 32],
    ['VMOVNTDQ ymm', 'c5 fd e7 0b', 32],
    ['VMOVNTDQA ymm', 'c4 e2 7d 2a 0b', 32],
    ['VMOVUPS ymm', 'c5 fc 10 0b', 1],
    ['VPADDD xmm', 'c5 e9 fe 0b', 1],
    ['VADDPS ymm', 'c5 ec 58 0b', 1],
  ])('%s', (_, code, alignment) => {
    for (const offset of [1, 16, 32]) expect(at(offset, code)).toBe(offset % alignment === 0 ? 'none' : '#GP(0)');
  });
});

describe('registers as a whole', () => {
  it('VZEROUPPER and VZEROALL clear what the mode has', () => {
    const upper = executed('c5 f8 77');
    expect([ymm(upper, 1), upper.get('ymm15High')]).toEqual([[2n ** 64n - 1n, 2n ** 64n - 1n, 0n, 0n], 0n]);
    expect(ymm(executed('c5 fc 77'), 2)).toEqual([0n, 0n, 0n, 0n]);
  });

  it('SSE instructions keep the upper half, VEX.128 ones clear it', () => {
    expect(
      dwords(
        executed('66 0f ef c9', (cpu) => cpu.set({ cr4: CR4.PAE | CR4.OSXSAVE | CR4.OSFXSR })),
        1,
      ),
    ).toBe('ffffffff ffffffff ffffffff ffffffff 0 0 0 0');
    expect(dwords(executed('c5 e9 fe cb'), 1)).toBe('0 0 0 0 156 154 152 150');
  });

  it('VLDMXCSR takes what LDMXCSR does', () => {
    const load = (value: bigint): string =>
      faultOf(
        machine()
          .write(DATA, 4, value)
          .run(...bytes('c5 f8 ae 13')),
      );
    expect([load(0x1f80n), load(0x1_0000n)]).toEqual(['none', '#GP(0)']);
  });
});

describe('across the halves (tables of APM vol.4)', () => {
  it.each([
    ['VINSERTF128 0', 'c4 e3 6d 18 cb 00', 'a7 a6 a5 a4 b3 b2 b1 b0'],
    ['VINSERTI128 1', 'c4 e3 6d 38 cb 01', 'b3 b2 b1 b0 a3 a2 a1 a0'],
    ['VEXTRACTF128 1', 'c4 e3 7d 19 d1 01', '0 0 0 0 a7 a6 a5 a4'],
    ['VEXTRACTI128 0', 'c4 e3 7d 39 d1 00', '0 0 0 0 a3 a2 a1 a0'],
    ['VPERM2F128 20h', 'c4 e3 6d 06 cb 20', 'b3 b2 b1 b0 a3 a2 a1 a0'],
    ['VPERM2F128 31h', 'c4 e3 6d 06 cb 31', 'b7 b6 b5 b4 a7 a6 a5 a4'],
    ['VPERM2I128 83h', 'c4 e3 6d 46 cb 83', '0 0 0 0 b7 b6 b5 b4'],
    ['VPERM2I128 18h', 'c4 e3 6d 46 cb 18', 'a7 a6 a5 a4 0 0 0 0'],
    ['VPERMQ 1Bh', 'c4 e3 fd 00 ca 1b', 'a1 a0 a3 a2 a5 a4 a7 a6'],
    ['VPERMPD 4Eh', 'c4 e3 fd 01 ca 4e', 'a3 a2 a1 a0 a7 a6 a5 a4'],
    ['VPERMD', 'c4 e2 65 36 ca', 'a7 a6 a5 a4 a3 a2 a1 a0'],
    ['VPERMILPS 1Bh', 'c4 e3 7d 04 ca 1b', 'a4 a5 a6 a7 a0 a1 a2 a3'],
    ['VPERMILPD 6', 'c4 e3 7d 05 ca 06', 'a5 a4 a7 a6 a3 a2 a1 a0'],
    ['VPBLENDD A5h', 'c4 e3 6d 02 cb a5', 'b7 a6 b5 a4 a3 b2 a1 b0'],
    ['VBLENDPS A5h', 'c4 e3 6d 0c cb a5', 'b7 a6 b5 a4 a3 b2 a1 b0'],
    ['VSHUFPD Ah', 'c5 ed c6 cb 0a', 'b7 b6 a5 a4 b3 b2 a1 a0'],
    ['VBROADCASTSS', 'c4 e2 7d 18 ca', 'a0 a0 a0 a0 a0 a0 a0 a0'],
    ['VBROADCASTSD', 'c4 e2 7d 19 ca', 'a1 a0 a1 a0 a1 a0 a1 a0'],
    ['VPBROADCASTB', 'c4 e2 79 78 ca', '0 0 0 0 a0a0a0a0 a0a0a0a0 a0a0a0a0 a0a0a0a0'],
    ['VPUNPCKLDQ', 'c5 ed 62 cb', 'b5 a5 b4 a4 b1 a1 b0 a0'],
    ['VPMOVZXDQ', 'c4 e2 7d 35 ca', '0 a3 0 a2 0 a1 0 a0'],
    ['VPSLLD by a register', 'c5 ed f2 cd', '14e 14c 14a 148 146 144 142 140'],
    ['VPSLLVD', 'c4 e2 6d 47 cc', 'a7 a6 a5 a4 a3 a2 0 140'],
    ['VPSRAVD', 'c4 e2 6d 46 cc', 'a7 a6 a5 a4 a3 a2 0 50'],
    ['VMOVDDUP', 'c5 ff 12 ca', 'a5 a4 a5 a4 a1 a0 a1 a0'],
  ])('%s', (_, code, expected) => {
    const counts = (cpu: CpuMachine): CpuMachine => setYmm(setYmm(cpu, 4, (33n << 32n) | 1n), 5, 1n);
    expect(dwords(executed(code, counts), 1)).toBe(expected);
  });

  it('signs and tests look at both halves', () => {
    const sign = 1n << 63n;
    const cpu = setYmm(filled(), 2, 0n, 0n, 0n, sign);
    cpu.run(...bytes('c5 fd 50 c2')); // VMOVMSKPD eax, ymm2
    expect(cpu.get('rax')).toBe(8n);
    cpu.run(...bytes('c5 fd d7 c2')); // VPMOVMSKB eax, ymm2
    expect(cpu.get('rax')).toBe(0x8000_0000n);
    const flags = (code: string): bigint => {
      cpu.run(...bytes(code));
      return cpu.get('rflags') & 0x41n;
    };
    expect(flags('c4 e2 7d 17 ca')).toBe(1n); // VPTEST ymm1, ymm2: ymm1 is all ones
    expect(flags('c4 e2 7d 0f d3')).toBe(0x41n); // VTESTPD ymm2, ymm3: no signs there
  });
});

describe('elements in memory', () => {
  const masked = (code: string, prepare: (cpu: CpuMachine) => CpuMachine): { cpu: CpuMachine; fault: string } => {
    const cpu = prepare(filled());
    return { cpu, fault: faultOf(cpu.run(...bytes(code))) };
  };
  const LAST = DATA + 0xffc;
  /** Elements 0 and 2 are chosen; of the four from LAST on, the second begins a page that is not there. */
  const mask = (cpu: CpuMachine, bits: readonly bigint[]): CpuMachine => {
    cpu.missingPages.add((DATA + 0x1000) >> 12);
    cpu.write(LAST, 4, 0x1234n).set({ rbx: BigInt(LAST) });
    return setYmm(cpu, 2, ...bits);
  };
  const SIGN = 1n << 31n;

  it('VMASKMOVPS touches only what its mask names', () => {
    const load = masked('c4 e2 69 2c 0b', (cpu) => mask(cpu, [SIGN]));
    expect([load.fault, ymm(load.cpu, 1)]).toEqual(['none', [0x1234n, 0n, 0n, 0n]]);
    expect(masked('c4 e2 69 2c 0b', (cpu) => mask(cpu, [SIGN << 32n])).fault).toBe('#PF(0)');
    const store = masked('c4 e2 69 2e 1b', (cpu) => mask(cpu, [SIGN]));
    expect([store.fault, store.cpu.read(LAST, 4)]).toEqual(['none', 0xb0n]);
  });

  it('a gather reads what its mask names, and clears the mask', () => {
    const prepare = (cpu: CpuMachine): CpuMachine => {
      setYmm(cpu, 2, SIGN, SIGN << 32n, 0n, 0n);
      setYmm(cpu, 3, 0n, (0xffff_ffffn << 32n) | 2n); // indices 0, 0, 2, -1
      return cpu.write(DATA, 4, 0x11n).write(DATA - 4, 4, 0x99n);
    };
    const { cpu, fault } = masked('c4 e2 69 90 0c 9b', prepare); // VPGATHERDD xmm1, [rbx+xmm3*4], xmm2
    expect([fault, dwords(cpu, 1), ymm(cpu, 2)]).toEqual(['none', '0 0 0 0 99 ffffffff ffffffff 11', [0n, 0n, 0n, 0n]]);
  });

  it('a gather that faults has changed nothing', () => {
    const cpu = mask(filled(), [(SIGN << 32n) | SIGN]);
    setYmm(cpu, 3, 1n << 32n);
    const state = () => Array.from({ length: SLOT_COUNT }, (_, slot) => cpu.registers[slot as Slot]);
    const before = state();
    expect(faultOf(cpu.run(...bytes('c4 e2 69 90 0c 9b')))).toBe('#PF(0)');
    expect(state()).toEqual(before);
  });

  it('quadword indices gather two singles, with zeros above them', () => {
    const { cpu } = masked('c4 e2 69 91 0c 1b', (fresh) =>
      setYmm(setYmm(fresh, 2, (SIGN << 32n) | SIGN, -1n, -1n, -1n), 3, 0n, 4n)
        .write(DATA, 4, 1n)
        .write(DATA + 4, 4, 2n),
    );
    expect(dwords(cpu, 1)).toBe('0 0 0 0 0 0 2 1');
    expect(cpu.registers[R.ymm2]).toBe(0n);
  });
});

describe('floating-point exceptions of 256 bits', () => {
  const VDIVPS = 'c5 ec 5e cb';
  const ONE = 0x3f80_0000n;
  const divide = (mxcsr: bigint, high: bigint): { fault: string; cpu: CpuMachine } => {
    const ones = (ONE << 32n) | ONE;
    const cpu = filled().set({ mxcsr });
    setYmm(cpu, 2, ones, ones, ones, ones);
    setYmm(cpu, 3, (ONE << 32n) | 0x4040_0000n, ones, ones, (ONE << 32n) | high);
    const ended = cpu.run(...bytes(VDIVPS));
    return { fault: ended.kind === 'fault' ? `vector ${ended.vector}` : ended.kind, cpu };
  };

  it('flags of both halves add up', () => {
    const { fault, cpu } = divide(0x1f80n, 0n);
    expect([fault, cpu.get('mxcsr')]).toEqual(['done', 0x1fa4n]);
  });

  it('an unmasked one in the upper half keeps the lower half from computing', () => {
    const { fault, cpu } = divide(0x1d80n, 0n);
    cpu.commit();
    expect([fault, cpu.get('mxcsr'), cpu.get('xmm1')]).toEqual(['vector 19', 0x1d84n, 2n ** 64n - 1n]);
  });

  it('memory faults come first', () => {
    const cpu = filled().set({ mxcsr: 0n, rbx: BigInt(DATA + 0xff0) });
    cpu.missingPages.add((DATA + 0x1000) >> 12);
    expect(faultOf(cpu.run(...bytes('c5 ec 5e 0b')))).toBe('#PF(0)');
  });
});

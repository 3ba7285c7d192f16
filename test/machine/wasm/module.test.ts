/** What the module writer writes is WebAssembly: it validates, and it computes what it says. */
import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { Code, ModuleWriter, Op, ValueType } from '../../../src/machine/wasm/module.js';
import { SIMD } from '../../../src/machine/wasm/simd.js';

const { I32, I64, V128 } = ValueType;
const memory = new WebAssembly.Memory({ initial: 1, maximum: 1 });

/** Validates a module with one exported function and instantiates it. */
function build(code: Code, imports: Record<string, (...values: never[]) => unknown> = {}) {
  const writer = new ModuleWriter();
  for (const name of Object.keys(imports)) writer.importFunction(name, { parameters: [I32], results: [I32] });
  writer.exportFunction('f', writer.addFunction(code));
  return instantiate(writer, imports);
}

function instantiate(writer: ModuleWriter, imports: Record<string, unknown> = {}) {
  const binary = writer.finish(1);
  expect(WebAssembly.validate(binary)).toBe(true);
  const instance = new WebAssembly.Instance(new WebAssembly.Module(binary), { env: { memory, ...imports } });
  return instance.exports as Record<'f', (...values: (number | bigint)[]) => number | bigint> & Record<string, unknown>;
}

const nullary = (result: ValueType): Code => new Code({ parameters: [], results: [result] });

describe('constants', () => {
  it('of 32 and 64 bits are signed LEB128 of every length (WebAssembly Core 2.0 §5.2.2 Integers)', () => {
    const edges = Array.from({ length: 64 }, (_, bit) => 1n << BigInt(bit));
    for (const edge of edges.flatMap((power) => [power, power - 1n, -power, -power - 1n])) {
      expect(build(nullary(I64).i64(edge)).f()).toBe(BigInt.asIntN(64, edge));
      const narrow = Number(BigInt.asIntN(32, edge));
      expect(build(nullary(I32).i32(narrow)).f()).toBe(narrow);
    }
  });

  it('take signed and unsigned spellings of the same bits', () => {
    expect(build(nullary(I32).i32(0xffff_ffff)).f()).toBe(-1);
    expect(build(nullary(I64).i64(0xffff_ffff_ffff_ffffn)).f()).toBe(-1n);
    fc.assert(
      fc.property(fc.bigInt({ min: -(1n << 64n), max: 1n << 64n }), (value) => {
        expect(build(nullary(I64).i64(value)).f()).toBe(BigInt.asIntN(64, value));
      }),
      { numRuns: 50 },
    );
  });

  it('of 128 bits have their lowest byte first', () => {
    const value = 0x0123_4567_89ab_cdef_1122_3344_5566_7788n;
    const half = (lane: number): unknown => build(nullary(I64).v128(value).simd(SIMD.I64X2_EXTRACT_LANE).op(lane)).f();
    expect([half(0), half(1)]).toEqual([0x1122_3344_5566_7788n, 0x0123_4567_89ab_cdefn]);
  });
});

describe('locals', () => {
  it('follow the parameters and keep their types, in any order of declaration', () => {
    const code = new Code({ parameters: [I32, I64], results: [I64] });
    const locals = [I64, I32, I32, V128, I64].map((type) => code.local(type));
    expect(locals).toEqual([2, 3, 4, 5, 6]);
    code.get(1).set(2).get(0).tee(3).set(4).v128(5n).set(5);
    code.get(5).simd(SIMD.I64X2_EXTRACT_LANE).op(0).set(6);
    code
      .get(2)
      .get(3)
      .op(Op.I64_EXTEND_I32_U, Op.I64_ADD)
      .get(4)
      .op(Op.I64_EXTEND_I32_U, Op.I64_ADD)
      .get(6)
      .op(Op.I64_ADD);
    expect(build(code).f(7, 100n)).toBe(119n);
  });

  it('may be more than 127, so that their indices take two bytes', () => {
    const code = nullary(I32);
    const locals = Array.from({ length: 300 }, () => code.local(I32));
    for (const local of locals) code.i32(local).set(local);
    code.i32(0);
    for (const local of locals) code.get(local).op(Op.I32_ADD);
    expect(build(code).f()).toBe((299 * 300) / 2);
  });
});

describe('blocks', () => {
  it('are left by their absolute depth, out of any nesting', () => {
    // Counts down from the parameter in a loop inside two blocks; leaves both at zero.
    const code = new Code({ parameters: [I32], results: [I32] });
    const sum = code.local(I32);
    code.block();
    const outer = code.blockDepth;
    code.block().loop();
    const again = code.blockDepth;
    code.get(0).op(Op.I32_EQZ).if().br(outer).end();
    code.get(sum).get(0).op(Op.I32_ADD).set(sum);
    code.get(0).i32(1).op(Op.I32_SUB).tee(0).brIf(again);
    code.end().end().end().get(sum);
    expect(build(code).f(10)).toBe(55);
    expect(build(code).f(0)).toBe(0);
  });

  it('are chosen by br_table, the last for all others', () => {
    const code = new Code({ parameters: [I32], results: [I32] });
    const depths = Array.from({ length: 200 }, () => code.block().blockDepth).reverse();
    code.block();
    const otherwise = code.blockDepth;
    code.get(0).brTable(depths, otherwise);
    code.end().i32(-1).return();
    for (let index = 0; index < 200; index++)
      code
        .end()
        .i32(1000 + index)
        .return();
    code.op(Op.UNREACHABLE);
    const { f } = build(code);
    expect([0, 1, 63, 64, 127, 128, 199, 200, -1].map((index) => f(index))).toEqual([
      1000, 1001, 1063, 1064, 1127, 1128, 1199, -1, -1,
    ]);
  });

  it('of an if have values and alternatives', () => {
    const code = new Code({ parameters: [I32], results: [I64] });
    code.get(0).if(I64).i64(1n).else().i64(2n).end();
    const { f } = build(code);
    expect([f(5), f(0)]).toEqual([1n, 2n]);
  });
});

describe('memory', () => {
  it('is read and written at offsets of any size, in every width', () => {
    const view = new DataView(memory.buffer);
    view.setBigUint64(0x8010, 0x8877_6655_4433_2211n, true);
    const load = (opcode: number, result: ValueType): unknown =>
      build(nullary(result).i32(0x10).memory(opcode, 0x8000)).f();
    expect(load(Op.I64_LOAD, I64)).toBe(BigInt.asIntN(64, 0x8877_6655_4433_2211n));
    expect(load(Op.I64_LOAD8_U, I64)).toBe(0x11n);
    expect(load(Op.I64_LOAD16_U, I64)).toBe(0x2211n);
    expect(load(Op.I64_LOAD32_U, I64)).toBe(0x4433_2211n);
    expect(load(Op.I32_LOAD, I32)).toBe(0x4433_2211);
    expect(load(Op.I32_LOAD8_U, I32)).toBe(0x11);
    expect(load(Op.I32_LOAD16_U, I32)).toBe(0x2211);
    view.setInt32(0x8010, -5, true);
    expect(load(Op.I64_LOAD32_S, I64)).toBe(-5n);
    for (const [opcode, bytes] of [
      [Op.I64_STORE8, 1],
      [Op.I64_STORE16, 2],
      [Op.I64_STORE32, 4],
      [Op.I64_STORE, 8],
    ] as const) {
      view.setBigUint64(0x100, 0n, true);
      const store = new Code({ parameters: [I64], results: [] });
      build(store.i32(0).get(0).memory(opcode, 0x100)).f(-1n);
      expect(view.getBigUint64(0x100, true)).toBe((1n << BigInt(8 * bytes)) - 1n);
    }
  });

  it('of vectors is read and written', () => {
    const view = new DataView(memory.buffer);
    view.setBigUint64(0x200, 1n, true);
    view.setBigUint64(0x208, 2n, true);
    const code = new Code({ parameters: [], results: [] });
    code.i32(0x300).i32(0x200).simdMemory(SIMD.LOAD).simdMemory(SIMD.STORE);
    build(code).f();
    expect([view.getBigUint64(0x300, true), view.getBigUint64(0x308, true)]).toEqual([1n, 2n]);
  });

  it('is copied and filled', () => {
    const bytes = new Uint8Array(memory.buffer);
    const code = new Code({ parameters: [], results: [] });
    code.i32(0x400).i32(0xab).i32(8).memoryFill().i32(0x500).i32(0x400).i32(4).memoryCopy();
    build(code).f();
    expect([...bytes.subarray(0x500, 0x506)]).toEqual([0xab, 0xab, 0xab, 0xab, 0, 0]);
  });
});

describe('functions', () => {
  it('are imported before they are defined, and called by index', () => {
    const code = new Code({ parameters: [I32], results: [I32] });
    code.get(0).call(0).get(0).call(1).op(Op.I32_SUB);
    const { f } = build(code, { double: (value: number) => 2 * value, square: (value: number) => value * value });
    expect(f(7)).toBe(14 - 49);
  });

  it('share one type entry for each signature', () => {
    const writer = new ModuleWriter();
    const type = { parameters: [I32], results: [I32] };
    expect(writer.typeIndex(type)).toBe(writer.typeIndex({ parameters: [I32], results: [I32] }));
    expect(writer.typeIndex({ parameters: [I64], results: [I32] })).not.toBe(writer.typeIndex(type));
  });

  it('are put into the exported table by the host and called through it', () => {
    const type = { parameters: [I32], results: [I32] };
    const writer = new ModuleWriter();
    const code = new Code({ parameters: [I32, I32], results: [I32] });
    code.get(1).get(0).callIndirect(writer.typeIndex(type));
    writer.exportFunction('f', writer.addFunction(code));
    writer.exportTable('table', 300);
    const { f, table } = instantiate(writer);
    const increment = build(new Code(type).get(0).i32(1).op(Op.I32_ADD));
    (table as WebAssembly.Table).set(299, increment.f);
    expect(f(299, 41)).toBe(42);
    expect(() => f(298, 41)).toThrow();
  });

  it('may be larger than what one or two bytes of a section length can say', () => {
    const code = nullary(I64).i64(0n);
    for (let step = 0; step < 20_000; step++) code.i64(1n).op(Op.I64_ADD);
    expect(build(code).f()).toBe(20_000n);
  });
});

describe('operations', () => {
  const a = 0xf123_4567_89ab_cdefn;
  const signed = BigInt.asIntN(64, a);
  const binary = (opcode: number, x: bigint, y: bigint): unknown => build(nullary(I64).i64(x).i64(y).op(opcode)).f();
  const unary = (opcode: number, x: bigint): unknown => build(nullary(I64).i64(x).op(opcode)).f();
  const compare = (opcode: number, x: bigint, y: bigint): unknown => build(nullary(I32).i64(x).i64(y).op(opcode)).f();

  it('have the numbers of the specification (WebAssembly Core 2.0 §5.4.7 Numeric Instructions)', () => {
    expect(binary(Op.I64_SUB, 5n, 7n)).toBe(-2n);
    expect(binary(Op.I64_MUL, 5n, -7n)).toBe(-35n);
    expect(binary(Op.I64_DIV_S, -35n, 4n)).toBe(-8n);
    expect(binary(Op.I64_DIV_U, -1n, 2n)).toBe((1n << 63n) - 1n);
    expect(binary(Op.I64_REM_S, -35n, 4n)).toBe(-3n);
    expect(binary(Op.I64_REM_U, -1n, 10n)).toBe(5n);
    expect(binary(Op.I64_XOR, a, -1n)).toBe(~signed);
    expect(binary(Op.I64_SHL, a, 4n)).toBe(BigInt.asIntN(64, a << 4n));
    expect(binary(Op.I64_SHR_S, a, 4n)).toBe(signed >> 4n);
    expect(binary(Op.I64_SHR_U, a, 4n)).toBe(a >> 4n);
    expect(binary(Op.I64_ROTL, a, 4n)).toBe(BigInt.asIntN(64, (a << 4n) | (a >> 60n)));
    expect(binary(Op.I64_ROTR, a, 4n)).toBe(BigInt.asIntN(64, (a >> 4n) | (a << 60n)));
    expect(unary(Op.I64_CLZ, 0xffn)).toBe(56n);
    expect(unary(Op.I64_CTZ, 0x100n)).toBe(8n);
    expect(unary(Op.I64_POPCNT, a)).toBe(BigInt(a.toString(2).replaceAll('0', '').length));
    expect(unary(Op.I64_EXTEND8_S, 0x80n)).toBe(-128n);
    expect(unary(Op.I64_EXTEND16_S, 0x8000n)).toBe(-32768n);
    expect(unary(Op.I64_EXTEND32_S, 0x8000_0000n)).toBe(-(1n << 31n));
  });

  it('compare signed and unsigned', () => {
    const table = [
      Op.I64_EQ,
      Op.I64_NE,
      Op.I64_LT_S,
      Op.I64_LT_U,
      Op.I64_GT_S,
      Op.I64_GT_U,
      Op.I64_LE_S,
      Op.I64_LE_U,
      Op.I64_GE_U,
    ];
    expect(table.map((opcode) => compare(opcode, -1n, 1n))).toEqual([0, 1, 1, 0, 0, 1, 1, 0, 1]);
    expect(table.map((opcode) => compare(opcode, 1n, 1n))).toEqual([1, 0, 0, 0, 0, 0, 1, 1, 1]);
  });
});

describe('vector operations', () => {
  const lanes = (value: bigint): bigint[] => [BigInt.asUintN(64, value), value >> 64n];
  const vector = (write: (code: Code) => Code): bigint[] =>
    [0, 1].map((lane) =>
      BigInt.asUintN(64, build(write(nullary(I64)).simd(SIMD.I64X2_EXTRACT_LANE).op(lane)).f() as bigint),
    );

  it('all validate with their operands', () => {
    for (const [name, opcode] of Object.entries(SIMD.OPERATIONS)) {
      const isUnary = /\.(not|abs|neg)$|extend|extadd/.test(name) && !/extmul/.test(name);
      const code = nullary(I64).v128(3n);
      if (!isUnary) code.v128(5n);
      code.simd(opcode).simd(SIMD.I64X2_EXTRACT_LANE).op(0);
      const writer = new ModuleWriter();
      writer.exportFunction('f', writer.addFunction(code));
      expect(WebAssembly.validate(writer.finish(1)), name).toBe(true);
    }
    for (const [name, opcode] of Object.entries(SIMD.SHIFTS)) {
      expect(
        vector((code) => code.v128(0x10n).i32(0).simd(opcode)),
        name,
      ).toEqual(lanes(0x10n));
    }
    for (const opcode of Object.values(SIMD.MASKS)) expect(build(nullary(I32).v128(0n).simd(opcode)).f()).toBe(0);
  });

  it('shuffle, swizzle and replace lanes', () => {
    const a = 0x0f0e_0d0c_0b0a_0908_0706_0504_0302_0100n;
    const b = a | 0x1010_1010_1010_1010_1010_1010_1010_1010n;
    const reversed = Array.from({ length: 16 }, (_, index) => 31 - index);
    expect(
      vector((code) =>
        code
          .v128(a)
          .v128(b)
          .simd(SIMD.SHUFFLE)
          .op(...reversed),
      ),
    ).toEqual([0x1819_1a1b_1c1d_1e1fn, 0x1011_1213_1415_1617n]);
    expect(vector((code) => code.v128(a).v128(0x80_0f01n).simd(SIMD.SWIZZLE))).toEqual([0x0000_0000_0000_0f01n, 0n]);
    expect(vector((code) => code.v128(a).i64(7n).simd(SIMD.I64X2_REPLACE_LANE).op(1))).toEqual([
      0x0706_0504_0302_0100n,
      7n,
    ]);
  });
});

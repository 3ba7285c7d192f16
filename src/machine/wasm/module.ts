/**
 * Writer of WebAssembly binaries: sections, LEB128, locals. It knows the encoding and nothing of AMD64.
 * Source: WebAssembly Core Specification 2.0, chapter 5 "Binary Format".
 */

export const ValueType = { I32: 0x7f, I64: 0x7e, V128: 0x7b } as const;
export type ValueType = (typeof ValueType)[keyof typeof ValueType];

/** Opcodes without immediates, and loads and stores, by their names in the specification. */
export const Op = {
  UNREACHABLE: 0x00,
  ELSE: 0x05,
  END: 0x0b,
  RETURN: 0x0f,
  DROP: 0x1a,
  SELECT: 0x1b,
  I32_LOAD: 0x28,
  I64_LOAD: 0x29,
  I32_LOAD8_U: 0x2d,
  I32_LOAD16_U: 0x2f,
  I64_LOAD8_U: 0x31,
  I64_LOAD16_U: 0x33,
  I64_LOAD32_S: 0x34,
  I64_LOAD32_U: 0x35,
  I32_STORE: 0x36,
  I32_STORE8: 0x3a,
  I64_STORE: 0x37,
  I64_STORE8: 0x3c,
  I64_STORE16: 0x3d,
  I64_STORE32: 0x3e,
  I32_EQZ: 0x45,
  I32_EQ: 0x46,
  I32_NE: 0x47,
  I32_LT_S: 0x48,
  I32_LT_U: 0x49,
  I32_GT_U: 0x4b,
  I32_GE_U: 0x4f,
  I64_EQZ: 0x50,
  I64_EQ: 0x51,
  I64_NE: 0x52,
  I64_LT_S: 0x53,
  I64_LT_U: 0x54,
  I64_GT_S: 0x55,
  I64_GT_U: 0x56,
  I64_LE_S: 0x57,
  I64_LE_U: 0x58,
  I64_GE_U: 0x5a,
  I32_ADD: 0x6a,
  I32_SUB: 0x6b,
  I32_AND: 0x71,
  I32_OR: 0x72,
  I32_XOR: 0x73,
  I32_SHL: 0x74,
  I32_SHR_U: 0x76,
  I32_ROTL: 0x77,
  I32_ROTR: 0x78,
  I64_CLZ: 0x79,
  I64_CTZ: 0x7a,
  I64_POPCNT: 0x7b,
  I64_ADD: 0x7c,
  I64_SUB: 0x7d,
  I64_MUL: 0x7e,
  I64_DIV_S: 0x7f,
  I64_DIV_U: 0x80,
  I64_REM_S: 0x81,
  I64_REM_U: 0x82,
  I64_AND: 0x83,
  I64_OR: 0x84,
  I64_XOR: 0x85,
  I64_SHL: 0x86,
  I64_SHR_S: 0x87,
  I64_SHR_U: 0x88,
  I64_ROTL: 0x89,
  I64_ROTR: 0x8a,
  I32_WRAP_I64: 0xa7,
  I64_EXTEND_I32_S: 0xac,
  I64_EXTEND_I32_U: 0xad,
  I32_POPCNT: 0x69,
  I64_EXTEND8_S: 0xc2,
  I64_EXTEND16_S: 0xc3,
  I64_EXTEND32_S: 0xc4,
} as const;

const EMPTY_BLOCK = 0x40;

export interface FunctionType {
  readonly parameters: readonly ValueType[];
  readonly results: readonly ValueType[];
}

/** The body of one function, written instruction by instruction. */
export class Code {
  readonly bytes: number[] = [];
  readonly locals: ValueType[] = [];
  private depth = 0;

  constructor(readonly type: FunctionType) {}

  /** A new local; @returns its index. */
  local(type: ValueType): number {
    this.locals.push(type);
    return this.type.parameters.length + this.locals.length - 1;
  }

  /** Nesting depth of blocks, for computing branch labels. */
  get blockDepth(): number {
    return this.depth;
  }

  op(...opcodes: number[]): this {
    this.bytes.push(...opcodes);
    return this;
  }

  i32(value: number): this {
    this.bytes.push(0x41);
    writeSigned(this.bytes, BigInt(value | 0));
    return this;
  }

  i64(value: bigint): this {
    this.bytes.push(0x42);
    writeSigned(this.bytes, BigInt.asIntN(64, value));
    return this;
  }

  get(local: number): this {
    this.bytes.push(0x20);
    return this.u32(local);
  }

  set(local: number): this {
    this.bytes.push(0x21);
    return this.u32(local);
  }

  tee(local: number): this {
    this.bytes.push(0x22);
    return this.u32(local);
  }

  /** A load or store; `offset` is added to the address on the stack. Alignment hints are left at none. */
  memory(opcode: number, offset = 0): this {
    this.bytes.push(opcode, 0);
    return this.u32(offset);
  }

  /** SIMD instruction by number, without immediates. */
  simd(number: number): this {
    this.bytes.push(0xfd);
    return this.u32(number);
  }

  simdMemory(number: number, offset = 0): this {
    this.simd(number).bytes.push(0);
    return this.u32(offset);
  }

  v128(value: bigint): this {
    this.simd(0x0c);
    for (let at = 0n; at < 128n; at += 8n) this.bytes.push(Number((value >> at) & 0xffn));
    return this;
  }

  block(): this {
    this.depth++;
    return this.op(0x02, EMPTY_BLOCK);
  }

  loop(): this {
    this.depth++;
    return this.op(0x03, EMPTY_BLOCK);
  }

  if(result?: ValueType): this {
    this.depth++;
    return this.op(0x04, result ?? EMPTY_BLOCK);
  }

  /** An `if` that is seldom taken: where the host knows branch hints, registers are allocated for the other way. */
  ifRare(): this {
    this.rare.push(this.bytes.length);
    return this.if();
  }
  /** Where those stand. */
  readonly rare: number[] = [];

  else(): this {
    return this.op(Op.ELSE);
  }

  end(): this {
    this.depth--;
    return this.op(Op.END);
  }

  /** Branches to the block at absolute depth `target` (its `blockDepth` just after it was opened). */
  br(target: number): this {
    this.bytes.push(0x0c);
    return this.u32(this.depth - target);
  }

  brIf(target: number): this {
    this.bytes.push(0x0d);
    return this.u32(this.depth - target);
  }

  /** @param targets absolute depths, as for `br`. */
  brTable(targets: readonly number[], otherwise: number): this {
    this.bytes.push(0x0e);
    this.u32(targets.length);
    for (const target of targets) this.u32(this.depth - target);
    return this.u32(this.depth - otherwise);
  }

  call(functionIndex: number): this {
    this.bytes.push(0x10);
    return this.u32(functionIndex);
  }

  callIndirect(typeIndex: number): this {
    this.bytes.push(0x11);
    this.u32(typeIndex);
    return this.op(0x00);
  }

  /** memory.copy and memory.fill. */
  memoryCopy(): this {
    return this.op(0xfc, 0x0a, 0x00, 0x00);
  }

  memoryFill(): this {
    return this.op(0xfc, 0x0b, 0x00);
  }

  return(): this {
    return this.op(Op.RETURN);
  }

  /** Puts what `write` writes where the code had `at` bytes: what it depends on is known only from what follows. */
  insert(at: number, write: () => void): void {
    const end = this.bytes.length;
    const rare = this.rare.length;
    write();
    const inserted = this.bytes.splice(end);
    this.bytes.splice(at, 0, ...inserted);
    for (let index = 0; index < this.rare.length; index++) {
      const place = this.rare[index] as number;
      if (index >= rare) this.rare[index] = place - end + at;
      else if (place >= at) this.rare[index] = place + inserted.length;
    }
  }

  private u32(value: number): this {
    writeUnsigned(this.bytes, value);
    return this;
  }
}

/** A module with one imported memory, imported functions, own functions, and an exported table for call_indirect. */
export class ModuleWriter {
  private readonly types: FunctionType[] = [];
  private readonly imports: { readonly name: string; readonly type: number }[] = [];
  private readonly functions: { readonly type: number; code: Code }[] = [];
  private readonly exports: { readonly name: string; readonly index: number }[] = [];
  private table: { readonly name: string; readonly size: number } | undefined;

  typeIndex(type: FunctionType): number {
    const key = JSON.stringify(type);
    const known = this.types.findIndex((other) => JSON.stringify(other) === key);
    return known >= 0 ? known : this.types.push(type) - 1;
  }

  /** Imports `env.name`. All imports come before the first own function. */
  importFunction(name: string, type: FunctionType): number {
    return this.imports.push({ name, type: this.typeIndex(type) }) - 1;
  }

  /** @returns the function's index, for calls. */
  addFunction(code: Code): number {
    this.functions.push({ type: this.typeIndex(code.type), code });
    return this.imports.length + this.functions.length - 1;
  }

  exportFunction(name: string, index: number): void {
    this.exports.push({ name, index });
  }

  /** A table of `size` empty slots for call_indirect, exported for the host to fill. */
  exportTable(tableName: string, size: number): void {
    this.table = { name: tableName, size };
  }

  /** Of each function the branches that are seldom taken. Source: WebAssembly Branch Hinting proposal. */
  private hints(): number[][] {
    return this.functions.flatMap(({ code }, index) => {
      if (code.rare.length === 0) return [];
      const start = encodeLocals(code).length;
      const hints = code.rare.map((at) => [...unsigned(start + at), 1, 0]);
      return [[...unsigned(this.imports.length + index), ...vector(hints)]];
    });
  }

  /** @param memoryPages minimum and maximum of the imported memory `env.memory`. */
  finish(memoryPages: number): Uint8Array {
    const out: number[] = [0x00, 0x61, 0x73, 0x6d, 0x01, 0x00, 0x00, 0x00];
    section(out, 1, vector(this.types.map(encodeType)));
    const memory = [...name('env'), ...name('memory'), 0x02, 0x01, ...unsigned(memoryPages), ...unsigned(memoryPages)];
    const functionImports = this.imports.map((entry) => [
      ...name('env'),
      ...name(entry.name),
      0x00,
      ...unsigned(entry.type),
    ]);
    section(out, 2, vector([memory, ...functionImports]));
    section(out, 3, vector(this.functions.map(({ type }) => unsigned(type))));
    const { table } = this;
    if (table !== undefined) section(out, 4, vector([[0x70, 0x00, ...unsigned(table.size)]]));
    const exports = this.exports.map((entry) => [...name(entry.name), 0x00, ...unsigned(entry.index)]);
    if (table !== undefined) exports.push([...name(table.name), 0x01, 0x00]);
    section(out, 7, vector(exports));
    section(out, 0, [...name('metadata.code.branch_hint'), ...vector(this.hints())]);
    const bodies = this.functions.map(({ code }) => encodeBody(code));
    const header: number[] = unsigned(bodies.length);
    const total = bodies.reduce((sum, body) => sum + body.length, header.length);
    const prefix = [...out, 10, ...unsigned(total), ...header];
    const binary = new Uint8Array(prefix.length + total - header.length);
    binary.set(prefix, 0);
    let at = prefix.length;
    for (const body of bodies) {
      binary.set(body, at);
      at += body.length;
    }
    return binary;
  }
}

function encodeLocals(code: Code): number[] {
  const runs: [number, ValueType][] = [];
  for (const type of code.locals) {
    const last = runs.at(-1);
    if (last?.[1] === type) last[0]++;
    else runs.push([1, type]);
  }
  return vector(runs.map(([count, type]) => [...unsigned(count), type]));
}

function encodeType(type: FunctionType): number[] {
  return [0x60, ...vector(type.parameters.map((t) => [t])), ...vector(type.results.map((t) => [t]))];
}

function encodeBody(code: Code): Uint8Array {
  const locals = encodeLocals(code);
  const size = locals.length + code.bytes.length + 1;
  const head = [...unsigned(size), ...locals];
  const body = new Uint8Array(head.length + code.bytes.length + 1);
  body.set(head, 0);
  body.set(code.bytes, head.length);
  body[body.length - 1] = Op.END;
  return body;
}

function section(out: number[], id: number, content: readonly number[]): void {
  out.push(id, ...unsigned(content.length));
  for (const byte of content) out.push(byte);
}

function vector(items: readonly (readonly number[])[]): number[] {
  const out = unsigned(items.length);
  for (const item of items) for (const byte of item) out.push(byte);
  return out;
}

const name = (text: string): number[] => [
  ...unsigned(text.length),
  ...Array.from(text, (letter) => letter.charCodeAt(0)),
];

function unsigned(value: number): number[] {
  const out: number[] = [];
  writeUnsigned(out, value);
  return out;
}

function writeUnsigned(out: number[], value: number): void {
  let left = value >>> 0;
  while (left >= 0x80) {
    out.push((left & 0x7f) | 0x80);
    left >>>= 7;
  }
  out.push(left);
}

function writeSigned(out: number[], value: bigint): void {
  let left = value;
  for (;;) {
    const byte = Number(left & 0x7fn);
    left >>= 7n;
    const done = (left === 0n && (byte & 0x40) === 0) || (left === -1n && (byte & 0x40) !== 0);
    out.push(done ? byte : byte | 0x80);
    if (done) return;
  }
}

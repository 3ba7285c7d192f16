/**
 * Reads instruction vectors: single instructions with a complete input state and the state that real silicon made of it.
 *
 * A file (format X64VEC01) holds blocks, one for each exact encoding, of vectors that share it. States are stored as
 * differences: an input against the base state of the file, an output against its input.
 */
import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { gunzipSync } from 'node:zlib';
import { InputError } from '../../src/machine/index.js';

export interface X87State {
  readonly fcw: number;
  readonly fsw: number;
  /** Abridged tag word: bit i is set when physical register i is not empty. */
  readonly ftw: number;
  /** ST0 to ST7, 80 bits each. */
  readonly st: readonly bigint[];
}

/** Bytes laid over the data page. */
export interface Patch {
  readonly offset: number;
  readonly bytes: Uint8Array;
}

export interface VectorState {
  /** RAX RCX RDX RBX RSP RBP RSI RDI R8 … R15. */
  readonly gpr: readonly bigint[];
  /** The flags that are compared; the other bits of RFLAGS are the same for all. */
  readonly rflags: bigint;
  readonly xmm: readonly bigint[];
  readonly mxcsr: bigint;
  readonly x87: X87State;
  readonly patches: readonly Patch[];
}

export interface Trap {
  readonly vector: number;
  readonly errorCode: number;
  readonly cr2: bigint;
}

export interface Vector {
  readonly input: VectorState;
  readonly output: VectorState;
  /** The exception that the instruction raised. */
  readonly trap: Trap | undefined;
  readonly rip: bigint;
  readonly undefinedFlags: bigint;
  /** The result is known to differ between vendors. */
  readonly isVendorSpecific: boolean;
}

/** The vectors of one encoding. */
export interface Block {
  readonly form: number;
  readonly instruction: Uint8Array;
  readonly assembly: string;
  /** Place of the instruction in the code page. */
  readonly codeOffset: number;
  readonly undefinedStatus: number;
  /** Ranges of the data page that are not compared: offset and length. */
  readonly ignored: readonly (readonly [number, number])[];
  readonly vectors: readonly Vector[];
}

export interface VectorFile {
  readonly codePage: bigint;
  readonly dataPage: bigint;
  /** Content of the data page before the input's patches. */
  readonly background: Uint8Array;
  readonly blocks: Iterable<Block>;
}

export interface VectorSet {
  readonly files: readonly { readonly file: string; readonly group: string; readonly core: boolean }[];
  readonly forms: readonly { readonly form: string; readonly group: string }[];
}

const COPY_AGAIN = 'Copy the vectors again.';

/** @throws InputError */
export function readIndex(directory: string): VectorSet {
  const path = join(directory, 'index.json');
  const text = readFileSync(path, 'utf8');
  try {
    return JSON.parse(text) as VectorSet;
  } catch (error) {
    throw new InputError(path, `it is no JSON document (${messageOf(error)})`, COPY_AGAIN);
  }
}

const messageOf = (error: unknown): string => (error instanceof Error ? error.message : String(error));

const MAGIC = 'X64VEC01';

/** Bits of a vector's header: which parts follow. */
const Part = {
  GPR_IN: 1 << 0,
  XMM_IN: 1 << 1,
  MEMORY_IN: 1 << 2,
  MXCSR_IN: 1 << 3,
  X87_IN: 1 << 4,
  GPR_OUT: 1 << 5,
  XMM_OUT: 1 << 6,
  MEMORY_OUT: 1 << 7,
  MXCSR_OUT: 1 << 8,
  X87_OUT: 1 << 9,
  TRAP: 1 << 10,
  RIP: 1 << 11,
  UNDEFINED_FLAGS: 1 << 12,
  VENDOR: 1 << 13,
} as const;

const PAGE_FAULT = 14;

/** @throws InputError, also while its blocks are read. */
export function readVectorFile(path: string): VectorFile {
  const cursor = new Cursor(unpacked(path), path);
  if (String.fromCharCode(...cursor.bytes(MAGIC.length)) !== MAGIC) {
    throw new InputError(path, `it does not begin with ${MAGIC}`, 'Give a directory of vectors of that format.');
  }
  const blockCount = cursor.u32();
  cursor.u32(); // number of vectors
  const codePage = cursor.u64();
  const dataPage = cursor.u64();
  const gpr = cursor.list(16, () => cursor.u64());
  const xmm = cursor.list(16, () => cursor.wide(16));
  const mxcsr = BigInt(cursor.u32());
  const [fcw, fsw, ftw] = [cursor.u16(), cursor.u16(), cursor.u8()];
  cursor.bytes(3);
  const st = cursor.list(8, () => cursor.wide(10));
  const background = cursor.bytes(4096);
  const base: VectorState = { gpr, rflags: 0n, xmm, mxcsr, x87: { fcw, fsw, ftw, st }, patches: [] };
  return { codePage, dataPage, background, blocks: readBlocks(cursor, blockCount, codePage, base) };
}

function unpacked(path: string): Uint8Array {
  const packed = readFileSync(path);
  try {
    return new Uint8Array(gunzipSync(packed)); // a Buffer's slices are no copies
  } catch (error) {
    throw new InputError(path, `it cannot be unpacked (${messageOf(error)})`, COPY_AGAIN);
  }
}

function* readBlocks(cursor: Cursor, count: number, codePage: bigint, base: VectorState): Generator<Block> {
  for (let index = 0; index < count; index++) {
    const form = cursor.u16();
    const codeOffset = cursor.u16();
    const length = cursor.u8();
    const ignoredCount = cursor.u8();
    const undefinedStatus = cursor.u16();
    const undefinedFlags = BigInt(cursor.u32());
    const vectorCount = cursor.u16();
    const assemblyLength = cursor.u16();
    const instruction = cursor.bytes(length);
    const assembly = String.fromCharCode(...cursor.bytes(assemblyLength));
    const ignored = cursor.list(ignoredCount, (): readonly [number, number] => [cursor.u16(), cursor.u16()]);
    const start = codePage + BigInt(codeOffset);
    const vectors = cursor.list(vectorCount, () => readVector(cursor, start, length, undefinedFlags, base));
    yield { form, instruction, assembly, codeOffset, undefinedStatus, ignored, vectors };
  }
}

function readVector(cursor: Cursor, start: bigint, length: number, undefinedFlags: bigint, base: VectorState): Vector {
  const parts = cursor.u16();
  const has = (part: number): boolean => (parts & part) !== 0;
  const rflagsIn = BigInt(cursor.u32());
  const rflagsOut = BigInt(cursor.u32());
  const input: VectorState = {
    rflags: rflagsIn,
    gpr: has(Part.GPR_IN) ? cursor.changed(base.gpr, 8) : base.gpr,
    xmm: has(Part.XMM_IN) ? cursor.changed(base.xmm, 16) : base.xmm,
    patches: has(Part.MEMORY_IN) ? cursor.patches() : [],
    mxcsr: has(Part.MXCSR_IN) ? BigInt(cursor.u32()) : base.mxcsr,
    x87: has(Part.X87_IN) ? cursor.x87(base.x87) : base.x87,
  };
  const output: VectorState = {
    rflags: rflagsOut,
    gpr: has(Part.GPR_OUT) ? cursor.changed(input.gpr, 8) : input.gpr,
    xmm: has(Part.XMM_OUT) ? cursor.changed(input.xmm, 16) : input.xmm,
    patches: has(Part.MEMORY_OUT) ? cursor.patches() : [],
    mxcsr: has(Part.MXCSR_OUT) ? BigInt(cursor.u32()) : input.mxcsr,
    x87: has(Part.X87_OUT) ? cursor.x87(input.x87) : input.x87,
  };
  const trap = has(Part.TRAP) ? readTrap(cursor) : undefined;
  const usual = trap === undefined ? start + BigInt(length) : start;
  return {
    input,
    output,
    trap,
    rip: has(Part.RIP) ? cursor.u64() : usual,
    undefinedFlags: has(Part.UNDEFINED_FLAGS) ? BigInt(cursor.u32()) : undefinedFlags,
    isVendorSpecific: has(Part.VENDOR),
  };
}

function readTrap(cursor: Cursor): Trap {
  const vector = cursor.u8();
  const errorCode = cursor.u32();
  return { vector, errorCode, cr2: vector === PAGE_FAULT ? cursor.u64() : 0n };
}

/** A place in the file, and the encodings that occur there; everything is little-endian and unaligned. */
class Cursor {
  private at = 0;
  private readonly view: DataView;

  constructor(
    private readonly data: Uint8Array,
    private readonly path: string,
  ) {
    this.view = new DataView(data.buffer, data.byteOffset, data.byteLength);
  }

  u8(): number {
    return this.view.getUint8(this.skip(1));
  }
  u16(): number {
    return this.view.getUint16(this.skip(2), true);
  }
  u32(): number {
    return this.view.getUint32(this.skip(4), true);
  }
  u64(): bigint {
    return this.view.getBigUint64(this.skip(8), true);
  }
  /** A little-endian number of `length` bytes. */
  wide(length: number): bigint {
    let value = 0n;
    for (let index = 0; index < length; index++) value |= BigInt(this.u8()) << BigInt(8 * index);
    return value;
  }
  bytes(length: number): Uint8Array {
    const from = this.skip(length);
    return this.data.subarray(from, from + length);
  }
  list<Item>(count: number, read: () => Item): Item[] {
    return Array.from({ length: count }, read);
  }
  /** Registers that differ from `from`: a mask, then those whose bit is set. */
  changed(from: readonly bigint[], length: number): bigint[] {
    const mask = this.u16();
    return from.map((value, index) => ((mask >> index) & 1 ? this.wide(length) : value));
  }
  patches(): Patch[] {
    return this.list(this.u16(), () => ({ offset: this.u16(), bytes: this.bytes(this.u16()) }));
  }
  x87(from: X87State): X87State {
    const [fcw, fsw, ftw, mask] = [this.u16(), this.u16(), this.u8(), this.u8()];
    return { fcw, fsw, ftw, st: from.st.map((value, index) => ((mask >> index) & 1 ? this.wide(10) : value)) };
  }

  private skip(length: number): number {
    const from = this.at;
    if (from + length > this.data.length)
      throw new InputError(this.path, `it ends at byte ${this.data.length}, amid a vector`, COPY_AGAIN);
    this.at += length;
    return from;
  }
}

/** Symbols laid out as scripts/kallsyms.c of Linux lays them out, and modules as the kernel keeps them, for tests. */

export interface KernelSymbol {
  readonly address: bigint;
  readonly type: string;
  readonly name: string;
}

export const BASE = 0xffff_ffff_8100_0000n;

export interface KallsymsLayout {
  /** From Linux 6.4 on offsets stand behind the tokens. */
  readonly offsets: 'before' | 'behind';
  /** CONFIG_KALLSYMS_ABSOLUTE_PERCPU: what is below zero is relative to the base. */
  readonly absolute: boolean;
}

const aligned = (bytes: Buffer): Buffer => Buffer.concat([bytes, Buffer.alloc((8 - (bytes.length % 8)) % 8)]);
const u32 = (values: readonly number[]): Buffer => Buffer.from(Uint32Array.from(values, (value) => value >>> 0).buffer);
const u64 = (value: bigint): Buffer => Buffer.from(BigUint64Array.of(value).buffer);

/** Tokens of two and more characters, beside each character for itself. */
const LONG: Readonly<Record<number, string>> = { 1: 'Tsvm_', 2: 'vcpu', 3: 'symbol_', 4: 'dfar_' };

const tokenTexts = Array.from({ length: 256 }, (_, token) => {
  if (LONG[token] !== undefined) return LONG[token];
  return token > 0x20 && token < 0x7f ? String.fromCharCode(token) : '';
});

function compressed(text: string): number[] {
  const tokens: number[] = [];
  for (let rest = text; rest !== ''; ) {
    const long = Object.entries(LONG).find(([, token]) => rest.startsWith(token));
    tokens.push(long === undefined ? rest.charCodeAt(0) : Number(long[0]));
    rest = rest.slice(long?.[1].length ?? 1);
  }
  return tokens;
}

/** @param symbols by address; those below the base are absolute. */
export function kallsyms(symbols: readonly KernelSymbol[], { offsets, absolute }: KallsymsLayout): Buffer {
  const names: Buffer[] = [];
  const markers: number[] = [];
  let length = 0;
  for (const [index, { type, name }] of symbols.entries()) {
    if (index % 256 === 0) markers.push(length);
    const tokens = compressed(`${type}${name}`);
    const head = tokens.length < 0x80 ? [tokens.length] : [(tokens.length & 0x7f) | 0x80, tokens.length >> 7];
    names.push(Buffer.from([...head, ...tokens]));
    length += head.length + tokens.length;
  }
  const places: number[] = [];
  let place = 0;
  for (const text of tokenTexts) {
    places.push(place);
    place += text.length + 1;
  }
  const values = u32(
    symbols.map(({ address }) => {
      if (!absolute) return Number(address - BASE);
      return address < BASE ? Number(address) : Number(BASE - 1n - address);
    }),
  );
  const addresses = [aligned(values), u64(BASE)];
  return Buffer.concat([
    ...(offsets === 'before' ? addresses : []),
    aligned(u32([symbols.length])),
    aligned(Buffer.concat(names)),
    aligned(u32(markers)),
    aligned(Buffer.from(tokenTexts.map((text) => `${text}\0`).join(''), 'latin1')),
    Buffer.from(Uint16Array.from(places).buffer),
    ...(offsets === 'behind' ? addresses : []),
  ]);
}

/** As many symbols as a kernel has at least, in order, after some per-CPU ones. */
export function manySymbols(extra: readonly KernelSymbol[] = []): KernelSymbol[] {
  const perCpu = [0n, 0x1000n].map((address, index) => ({ address, type: 'D', name: `percpu_${index}` }));
  const plain = Array.from({ length: 1200 }, (_, index) => ({
    ...{ address: BASE + BigInt(index * 16), type: index % 3 === 0 ? 'T' : 't', name: `symbol_${index}` },
  }));
  const long = { address: BASE + 0x1_0001n, type: 't', name: 'x'.repeat(300) };
  const data = Array.from({ length: 20 }, (_, index) => ({
    ...{ address: BASE + 0x2_0000n + BigInt(index * 64), type: 'd', name: `far_${index}` },
  }));
  const all = [...plain, long, ...data, ...extra].sort((a, b) => (a.address < b.address ? -1 : 1));
  return [...perCpu, ...all];
}

export interface KernelModule {
  readonly name: string;
  /** Type as `nm` gives it, address, size. */
  readonly symbols: readonly (readonly [type: string, name: string, address: bigint, bytes: number])[];
}

/**
 * The list of modules, to be placed at `linear`: its head, then each `struct module` with its tables.
 * @param tableAt where in `struct module` the pointer to the symbol table is.
 */
export function moduleList(linear: bigint, modules: readonly KernelModule[], tableAt: number): Buffer {
  const MODULE_BYTES = 0x4000;
  const placeOf = (index: number): number => 0x100 + index * MODULE_BYTES;
  const memory = Buffer.alloc(placeOf(modules.length));
  const link = (index: number): bigint => (index >= modules.length ? linear : linear + BigInt(placeOf(index) + 8));
  memory.writeBigUInt64LE(link(0), 0);
  modules.forEach(({ name, symbols }, index) => {
    const at = placeOf(index);
    const [kallsymsAt, symtabAt, typesAt, stringsAt] = [at + 0x800, at + 0x1000, at + 0x2000, at + 0x3000];
    memory.writeBigUInt64LE(link(index + 1), at + 8);
    memory.write(name, at + 24, 'latin1');
    // A pointer to something else comes first.
    memory.writeBigUInt64LE(linear + BigInt(at), at + tableAt - 16);
    memory.writeBigUInt64LE(linear + BigInt(kallsymsAt), at + tableAt);
    memory.writeBigUInt64LE(linear + BigInt(symtabAt), kallsymsAt);
    memory.writeUInt32LE(symbols.length + 1, kallsymsAt + 8);
    memory.writeBigUInt64LE(linear + BigInt(stringsAt), kallsymsAt + 16);
    memory.writeBigUInt64LE(linear + BigInt(typesAt), kallsymsAt + 24);
    let string = 1;
    symbols.forEach(([type, symbol, address, bytes], entry) => {
      const place = symtabAt + 24 * (entry + 1);
      memory.writeUInt32LE(string, place);
      memory.writeBigUInt64LE(address, place + 8);
      memory.writeBigUInt64LE(BigInt(bytes), place + 16);
      memory.write(type, typesAt + entry + 1, 'latin1');
      memory.write(symbol, stringsAt + string, 'latin1');
      string += symbol.length + 1;
    });
  });
  return memory;
}

/**
 * Symbols of a Linux kernel's modules, found in its memory: the list `modules`, and of each module the symbol table that was
 * loaded with it. Where a `struct module` keeps that depends on the kernel's configuration, so it is looked for: a pointer to
 * {Elf64_Sym *symtab; unsigned int num_symtab; char *strtab; char *typetab} whose first symbol and name are empty.
 * Source: Linux, include/linux/module.h, kernel/module/kallsyms.c; 5.2 and later, which have `typetab`.
 */
import type { GuestSymbol } from './symbol-table.js';

/** Reads as many bytes as are mapped from there on. */
export type ReadMemory = (linear: bigint, length: number) => Uint8Array;

const MOST_MODULES = 2000;
const MOST_SYMBOLS = 200_000;
const SYMBOL_BYTES = 24;
const NAME_AT = 16;
const NAME_BYTES = 56;
/** Of what follows the list's two pointers. */
const STRUCT_BYTES = 0x800;
const LONGEST_NAME = 512;
const UPPER_HALF = 1n << 63n;

interface LoadedModule {
  readonly name: string;
  /** From the list's pointers on. */
  readonly bytes: Uint8Array;
}

/** @param head the address of the kernel's symbol `modules`. */
export function moduleSymbols(read: ReadMemory, head: bigint): readonly GuestSymbol[] {
  const symbols: GuestSymbol[] = [];
  let tableAt: number | undefined;
  for (const module of loadedModules(read, head)) {
    const candidates = tableAt === undefined ? places(module) : [tableAt];
    for (const place of candidates) {
      const found = symbolsBehind(read, module, place);
      if (found === undefined) continue;
      tableAt = place;
      symbols.push(...found);
      break;
    }
  }
  return symbols;
}

const numberAt = (bytes: Uint8Array, at: number): bigint =>
  at + 8 <= bytes.length ? new DataView(bytes.buffer, bytes.byteOffset).getBigUint64(at, true) : 0n;

function* loadedModules(read: ReadMemory, head: bigint): Generator<LoadedModule> {
  let node = numberAt(read(head, 8), 0);
  for (let count = 0; node !== head && node >= UPPER_HALF && count < MOST_MODULES; count++) {
    const bytes = read(node, STRUCT_BYTES);
    const name = textOf(bytes.subarray(NAME_AT, NAME_AT + NAME_BYTES));
    if (!/^[\w-]+$/.test(name)) return;
    yield { name, bytes };
    node = numberAt(bytes, 0);
  }
}

function textOf(bytes: Uint8Array): string {
  const end = bytes.indexOf(0);
  return Buffer.from(bytes.subarray(0, end < 0 ? bytes.length : end)).toString('latin1');
}

function* places({ bytes }: LoadedModule): Generator<number> {
  for (let at = NAME_AT + NAME_BYTES; at + 8 <= bytes.length; at += 8) {
    if (numberAt(bytes, at) >= UPPER_HALF) yield at;
  }
}

function symbolsBehind(
  read: ReadMemory,
  { name: module, bytes }: LoadedModule,
  place: number,
): GuestSymbol[] | undefined {
  const table = read(numberAt(bytes, place), 32);
  const [symtab, count, strtab, typetab] = [0, 8, 16, 24].map((at) => numberAt(table, at)) as [
    bigint,
    bigint,
    bigint,
    bigint,
  ];
  const number = Number(count & 0xffff_ffffn);
  if ([symtab, strtab, typetab].some((address) => address < UPPER_HALF) || number < 2 || number > MOST_SYMBOLS)
    return undefined;
  const entries = read(symtab, number * SYMBOL_BYTES);
  if (entries.length < number * SYMBOL_BYTES || entries.subarray(0, SYMBOL_BYTES).some((byte) => byte !== 0))
    return undefined;
  if (read(strtab, 1)[0] !== 0) return undefined;
  const types = read(typetab, number);
  const view = new DataView(entries.buffer, entries.byteOffset, entries.byteLength);
  const symbols: GuestSymbol[] = [];
  for (let index = 1; index < number; index++) {
    const at = index * SYMBOL_BYTES;
    const name = textOf(read(strtab + BigInt(view.getUint32(at, true)), LONGEST_NAME));
    const type = String.fromCharCode(types[index] ?? 0);
    const address = view.getBigUint64(at + 8, true);
    // Imports and what stood in sections that are gone have no address.
    if (name === '' || address < UPPER_HALF || !/^[a-z]$/i.test(type) || type === 'U') continue;
    symbols.push({ address, name, type, module, bytes: Number(view.getBigUint64(at + 16, true)) });
  }
  return symbols;
}

/** Where the kernel's list is, by its own symbols. */
export const modulesHead = (symbols: readonly GuestSymbol[]): bigint | undefined =>
  symbols.find(({ name, type }) => name === 'modules' && /^[db]$/i.test(type))?.address;

/**
 * Names of addresses in one level's address space: of a kernel, its modules, or any program. What `nm` calls the type says what
 * lies there: `t` and `T` are code, others data.
 */
import { grouped, hex } from '../cli/format.js';

export interface GuestSymbol {
  readonly address: bigint;
  readonly name: string;
  /** A letter as `nm` gives it, capital when the symbol is global. */
  readonly type: string;
  /** Undefined where the source does not say it. */
  readonly bytes?: number;
  /** Undefined for the kernel, or the program, itself. */
  readonly module?: string;
}

export interface NamedPlace {
  readonly symbol: GuestSymbol;
  readonly offset: bigint;
}

/** A name reaches so far where neither its size nor another one ends it. */
const LONGEST_REACH = 0x1_0000n;
const UPPER_HALF = 1n << 63n;

export const isCode = ({ type }: GuestSymbol): boolean => /^[tw]$/i.test(type);

export class SymbolTable {
  /** By address; where several stand at one, the one to be told comes last. */
  readonly symbols: readonly GuestSymbol[];
  private readonly byName: ReadonlyMap<string, GuestSymbol>;

  /**
   * @param symbols in any order. Those of the lower half are left out where there are some of the upper: a kernel has offsets
   *   there, of its per-CPU variables, which are no addresses.
   */
  constructor(symbols: readonly GuestSymbol[]) {
    const isKernel = symbols.some(({ address }) => address >= UPPER_HALF);
    const real = isKernel ? symbols.filter(({ address }) => address >= UPPER_HALF) : [...symbols];
    this.symbols = real.sort((a, b) => compare(a.address, b.address) || rank(a) - rank(b));
    this.byName = new Map(this.symbols.map((symbol) => [symbol.name, symbol]));
  }

  /** Names of modules, as they come by address. */
  get modules(): readonly string[] {
    return [...new Set(this.symbols.flatMap(({ module }) => module ?? []))];
  }

  /** One line. @param whose the level. */
  summary(whose: string): string {
    const { symbols, modules } = this;
    const of = modules.length === 0 ? '' : `, of ${modules.join(', ')}, too`;
    return `${whose}: ${grouped(symbols.length)} symbols${of}`;
  }

  find(name: string): GuestSymbol | undefined {
    return this.byName.get(name);
  }

  /** @returns undefined where no name reaches. */
  at(address: bigint): NamedPlace | undefined {
    const { symbols } = this;
    let [low, high] = [0, symbols.length];
    while (low < high) {
      const middle = (low + high) >> 1;
      if ((symbols[middle] as GuestSymbol).address <= address) low = middle + 1;
      else high = middle;
    }
    const symbol = symbols[low - 1];
    if (symbol === undefined) return undefined;
    const offset = address - symbol.address;
    return offset < reachOf(symbol) ? { symbol, offset } : undefined;
  }

  /** `__svm_vcpu_run+0x5c [kvm_amd]`, or undefined. */
  textOf(address: bigint): string | undefined {
    const place = this.at(address);
    if (place === undefined) return undefined;
    const { symbol, offset } = place;
    const within = offset === 0n ? '' : `+0x${hex(offset)}`;
    return `${symbol.name}${within}${symbol.module === undefined ? '' : ` [${symbol.module}]`}`;
  }

  /** Together with others, which are told where both have a name. */
  with(others: SymbolTable): SymbolTable {
    return new SymbolTable([...this.symbols, ...others.symbols]);
  }
}

const reachOf = ({ bytes }: GuestSymbol): bigint =>
  bytes === undefined || bytes === 0 ? LONGEST_REACH : BigInt(bytes);

const compare = (a: bigint, b: bigint): number => (a < b ? -1 : a > b ? 1 : 0);

/** Of several names of one address: those of functions that are global before others, and what is not made up by a compiler. */
const rank = (symbol: GuestSymbol): number =>
  (isCode(symbol) ? 4 : 0) +
  (symbol.type === symbol.type.toUpperCase() ? 2 : 0) +
  (/^(__pfx_|__cfi_|_{2}UNIQUE|\.L|\$)/.test(symbol.name) ? 0 : 1);

/**
 * Translations that a region keeps apart from the TLB, so that an access need not look up what another one has just looked up: a
 * *pair* of tag and addend for accesses through the same registers, which are likely to lie in the same page. Pairs stand at
 * fixed addresses (`Cell.HELD`): a comparison with what stands there costs no register, as locals would.
 *
 * Invariant: a pair holds nothing, or a translation that was entered into the selected bank and is good still; whatever drops
 * translations or selects another bank drops all pairs (`TlbBanks`). So an access finds in a pair what the TLB would tell it, and which accesses have one
 * is a question of speed alone.
 */

import type { DecodedInstruction, GprOperand, MemoryOperand } from '../../decode/decoded.js';
import { RIP_BASE } from '../../decode/decoded.js';
import { Gpr } from '../../isa/instruction.js';
import { Cell, HELD_PAIRS, TLB_ENTRY_BYTES } from '../../layout/linear-memory.js';
import { Emitter } from '../emit.js';
import { type Helpers, LocalPool } from '../emit-values.js';
import { Code, type FunctionType, type ModuleWriter, Op, ValueType } from '../module.js';
import { memoryOperand, nextRip, type RegionInstruction } from './discover.js';
import { TABLE } from './flow.js';
import { goesBack, type Order } from './structure.js';

const GPRS = 16;

/** What a linear address is made of: accesses of one name lie in the same page for some time. */
interface Access {
  readonly name: string;
  /** Registers whose values it depends on. */
  readonly registers: readonly number[];
}

/** Where an access goes: to the operand in memory, or to the stack. */
export type Place = 'operand' | 'stack';

/** What an instruction does with memory and general-purpose registers. */
export interface Footprint {
  readonly accesses: { readonly place: Place; readonly write: boolean }[];
  /** Places of the operands that it writes to. */
  readonly operands: number[];
  /** Registers that it writes to beside those. */
  readonly registers: number[];
}

/** What an instruction means to pairs. */
interface Surveyed {
  readonly accesses: readonly Access[];
  /** Registers that point elsewhere afterwards. */
  readonly changed: readonly number[];
}

/** Addresses that are further apart seldom lie in the same page. */
const NEAR = 4096n;
/** A register that moves by no more points into the same page most of the time. */
const STEP = 512n;

export function accessOf(at: RegionInstruction, place: Place, write: boolean): Access {
  const memory = place === 'stack' ? undefined : memoryOperand(at.insn);
  const { name, registers } = memory === undefined ? STACK : originOf(memory, nextRip(at));
  return { name: write ? `${name}!` : name, registers };
}

/** The stack stays where it is. */
const STACK: Access = { name: 'stack', registers: [] };

/** @param next RIP behind the instruction. */
function originOf({ base, index, scale, displacement, segment }: MemoryOperand, next: bigint): Access {
  if (base === RIP_BASE || (base < 0 && index < 0)) {
    const address = displacement + (base === RIP_BASE ? next : 0n);
    return { name: `${segment}:${address / NEAR}`, registers: [] };
  }
  const around = (displacement + NEAR / 2n) / NEAR;
  if (base === Gpr.RSP && index < 0 && around === 0n) return STACK;
  const registers = [base, index].filter((register) => register >= 0 && register !== Gpr.RSP);
  return { name: `${segment}:${base}+${index}*${scale}+${around}`, registers };
}

export function survey(at: RegionInstruction, { accesses, operands, registers }: Footprint): Surveyed {
  const written = [...registers, ...operands.map((place) => (at.insn.operands[place] as GprOperand).number)];
  return {
    accesses: accesses.map(({ place, write }) => accessOf(at, place, write)),
    changed: written.filter((register) => !isStep(at.insn, register)),
  };
}

const STRINGS = /^(MOVS|STOS|LODS|CMPS|SCAS)$/;

/** Whether what the instruction does to a register it writes to is a step. */
function isStep({ mnemonic, operands, rep }: DecodedInstruction, register: number): boolean {
  if (register === Gpr.RSP) return true;
  if (STRINGS.test(mnemonic)) return rep === 'none' && (register === Gpr.RSI || register === Gpr.RDI);
  const [to, from] = operands;
  if (to?.kind !== 'gpr' || to.number !== register || to.width < 32) return false;
  if (mnemonic === 'INC' || mnemonic === 'DEC') return true;
  if (mnemonic === 'ADD' || mnemonic === 'SUB')
    return from?.kind === 'imm' && isShort(BigInt.asIntN(from.width, from.value));
  return (
    mnemonic === 'LEA' && from?.kind === 'mem' && from.base === register && from.index < 0 && isShort(from.displacement)
  );
}

const isShort = (step: bigint): boolean => step <= STEP && step >= -STEP;

/** How much more often the inside of a loop runs than what is around it. */
const LOOP = 8;
const DEEPEST = 5;

export interface HeldPair {
  /** Where it stands in the memory. */
  readonly cell: number;
  /** Whether it is worth looking at. */
  readonly isLikely: boolean;
  /** The function that looks into the TLB for it: (linear: i64, cell: i32) → 0 for an assist (i32). */
  lookUp(bytes: number, write: boolean): number;
}

/** A tag that is the address of no page, nor what is left of the address of an access. */
const NOTHING = -1n;

/** Looks into the TLB as any access does. */
class LookUpEmitter extends Emitter {
  constructor(code: Code, helpers: Helpers) {
    const nothing = (): void => {};
    super({ code, next: nothing, leave: nothing, assist: nothing }, new LocalPool(code), helpers);
  }

  wholeOf(bytes: number, write: boolean): void {
    const { code } = this;
    // Where the TLB must be filled, the addend is good for this access alone.
    code.get(1).i64(NOTHING).memory(Op.I64_STORE);
    const entry = this.lookUp(0, bytes, write, false, () => {
      code.get(1);
      this.pushPage(0, bytes);
      code.memory(Op.I64_STORE);
    });
    // Of this access, whether or not the pair holds the page.
    code.get(1);
    this.pushAddend(entry, write);
    code.memory(Op.I32_STORE, 8).i32(1);
  }

  protected override assist(): void {
    this.code.i32(0).return();
  }
}

const LOOK_UP: FunctionType = { parameters: [ValueType.I64, ValueType.I32], results: [ValueType.I32] };

/** The functions of a module that look into the TLB for pairs. */
export function lookUps(writer: ModuleWriter, helpers: Helpers): HeldPair['lookUp'] {
  const known = new Map<string, number>();
  return (bytes, write) => {
    const key = `${bytes} ${write}`;
    const found = known.get(key);
    if (found !== undefined) return found;
    const code = new Code(LOOK_UP);
    new LookUpEmitter(code, helpers).wholeOf(bytes, write);
    const index = writer.addFunction(code);
    known.set(key, index);
    return index;
  };
}

/** A set of accesses: a bit for each name. */
type Names = bigint;

export class HeldPages {
  private readonly names: AccessNames;
  private readonly cells = new Map<string, number>();
  /** By node, when it begins: those that came before on some way to it, through registers that point where they did. */
  private readonly before: readonly Names[];
  /** By node, when it ends: those that follow on some way from it, in the same way. */
  private readonly behind: readonly Names[];
  private known: Names = 0n;
  /** Behind each instruction of the node, its changes made. */
  private wanted: readonly Names[] = [];
  private block: readonly Surveyed[] = [];
  private instruction = 0;

  /** @param surveyed the instructions of each block. */
  constructor(
    order: Order,
    private readonly surveyed: readonly (readonly Surveyed[])[],
    private readonly lookUp: HeldPair['lookUp'],
  ) {
    const names = new AccessNames(surveyed);
    this.names = names;
    const nodes = nodesInOrder(order);
    const pass = (block: readonly Surveyed[], known: Names): Names =>
      block.reduce((to, each) => names.pass(to, each), known);
    const passBack = (block: readonly Surveyed[], wanted: Names): Names =>
      block.reduceRight((to, each) => names.passBack(to, each), wanted);
    this.before = names.spread(nodes, order.predecessors, pass);
    this.behind = names.spread(nodes.toReversed(), successorsOf(order), passBack);
    this.worthiest(loopDepths(order))
      .slice(0, HELD_PAIRS)
      .forEach((name, index) => {
        this.cells.set(name, Cell.HELD + index * TLB_ENTRY_BYTES);
      });
  }

  /** Names of the accesses whose pairs save the most look-ups, the best first. @param depths of nodes in loops. */
  private worthiest(depths: readonly number[]): readonly string[] {
    const { names } = this;
    const worth = new Map<string, number>();
    this.surveyed.forEach((block, index) => {
      const often = LOOP ** Math.min(depths[index + 1] as number, DEEPEST);
      let known = this.before[index + 1] as Names;
      for (const each of block) {
        for (const { name } of each.accesses)
          if ((known & names.bitOf(name)) !== 0n) worth.set(name, (worth.get(name) ?? 0) + often);
        known = names.pass(known, each);
      }
    });
    return [...worth].sort(([, a], [, b]) => b - a).map(([name]) => name);
  }

  /** The code that follows is that of a block. */
  begin(node: number): void {
    const { names } = this;
    this.block = this.surveyed[node - 1] as readonly Surveyed[];
    this.instruction = 0;
    this.known = this.before[node] as Names;
    let wanted = this.behind[node] as Names;
    const backwards = this.block.toReversed().map((each) => {
      const here = names.without(wanted, each.changed);
      wanted = names.passBack(wanted, each);
      return here;
    });
    this.wanted = backwards.reverse();
  }

  /** The code of the next instruction has been written. */
  passed(): void {
    this.known = this.names.pass(this.known, this.block[this.instruction++] as Surveyed);
  }

  /** The pair of an access; undefined when it is not worth having one. */
  take({ name, registers }: Access): HeldPair | undefined {
    const cell = this.cells.get(name);
    if (cell === undefined) return undefined;
    const bit = this.names.bitOf(name);
    const isLikely = registers.length === 0 || (this.known & bit) !== 0n;
    const isWanted = ((this.wanted[this.instruction] as Names) & bit) !== 0n;
    return isLikely || isWanted ? { cell, isLikely, lookUp: this.lookUp } : undefined;
  }
}

/** The accesses of a region. */
class AccessNames {
  private readonly bits = new Map<string, Names>();
  /** By register, all but those that go through it. */
  private readonly others: Names[] = Array.from({ length: GPRS }, () => -1n);

  constructor(private readonly surveyed: readonly (readonly Surveyed[])[]) {
    for (const { name, registers } of surveyed.flat().flatMap(({ accesses }) => accesses)) {
      if (this.bits.has(name)) continue;
      const bit = 1n << BigInt(this.bits.size);
      this.bits.set(name, bit);
      for (const register of registers) this.others[register] = (this.others[register] as Names) & ~bit;
    }
  }

  bitOf(name: string): Names {
    return this.bits.get(name) as Names;
  }

  pass(known: Names, { accesses, changed }: Surveyed): Names {
    return this.without(this.with(known, accesses), changed);
  }
  passBack(wanted: Names, { accesses, changed }: Surveyed): Names {
    return this.with(this.without(wanted, changed), accesses);
  }

  private with(names: Names, accesses: readonly Access[]): Names {
    return accesses.reduce((all, { name }) => all | this.bitOf(name), names);
  }
  /** But for those through registers that point elsewhere. */
  without(names: Names, changed: readonly number[]): Names {
    return changed.reduce((left, register) => left & (this.others[register] as Names), names);
  }

  /**
   * By node, what comes to it of all that the others let pass, on some way. The table lets nothing pass: what leads to it goes
   * anywhere.
   * @param from by node, where it comes from. @param through what passes a block of what comes to it.
   */
  spread(
    nodes: readonly number[],
    from: readonly (readonly number[])[],
    through: (block: readonly Surveyed[], names: Names) => Names,
  ): readonly Names[] {
    const come: Names[] = from.map(() => 0n);
    const gone: Names[] = from.map(() => 0n);
    const blocks = from.map((_, node) => this.surveyed[node - 1] ?? []);
    const made = blocks.map((block) => through(block, 0n));
    const kept = blocks.map((block) => through(block, -1n));
    for (let grows = true; grows; ) {
      grows = false;
      for (const node of nodes) {
        const here = (from[node] as readonly number[]).reduce((all, other) => all | (gone[other] as Names), 0n);
        const passed = (made[node] as Names) | ((kept[node] as Names) & here);
        grows ||= passed !== gone[node];
        come[node] = here;
        gone[node] = passed;
      }
    }
    return come;
  }
}

/** All but the table. */
const nodesInOrder = ({ place }: Order): readonly number[] =>
  place
    .flatMap((at, node) => (at === -1 || node === TABLE ? [] : [{ at, node }]))
    .sort((one, other) => one.at - other.at)
    .map(({ node }) => node);

function successorsOf({ predecessors }: Order): readonly (readonly number[])[] {
  const successors: number[][] = predecessors.map(() => []);
  predecessors.forEach((froms, to) => {
    for (const from of froms) successors[from]?.push(to);
  });
  return successors;
}

/** By node, how many loops it stands in; that of the table is none. */
function loopDepths(order: Order): readonly number[] {
  const depths = order.place.map(() => 0);
  order.predecessors.forEach((predecessors, head) => {
    if (head === TABLE || order.place[head] === -1) return;
    const members = new Set<number>();
    const waiting = predecessors.filter((from) => goesBack(order, from, head));
    for (let node = waiting.pop(); node !== undefined; node = waiting.pop()) {
      if (members.has(node)) continue;
      members.add(node);
      if (node !== head) waiting.push(...(order.predecessors[node] as readonly number[]));
    }
    for (const node of members) depths[node] = (depths[node] as number) + 1;
  });
  return depths;
}

/**
 * Writes a region as one function, which the interpreter calls like a handler: with the micro-op at which it is entered,
 * giving the micro-op at which to go on, or 0 to leave the engine.
 *
 * The function begins at a branch table over the places where it may be entered. Returns and other indirect branches go there
 * again when their target is such a place; all other jumps within the region are branches of WebAssembly. The budget is
 * looked at where a loop begins anew, at the table, and wherever a path without either has become as long as a block.
 */
import { gprSlot, R, slotAddress } from '../../layout/cpu-state.js';
import { Cell } from '../../layout/linear-memory.js';
import { ByShape } from '../by-shape.js';
import { type HandlerEffects, type Helpers, LocalPool, NotCompiled } from '../emit-values.js';
import { Code, ModuleWriter, Op, ValueType } from '../module.js';
import { ExitReason, MAX_BLOCK_INSTRUCTIONS, Uop } from '../uop.js';
import type { BlockEnd, RegionBlock, RegionCode, RegionInstruction } from './discover.js';
import {
  type Decision,
  GPRS,
  type KnownFlags,
  NOTHING_KNOWN,
  RegionEmitter,
  type RegionFrame,
  type RegionLocals,
  regionLocals,
  settleFlags,
} from './emit-region.js';
import { type Flow, flowOf, TABLE } from './flow.js';
import { type Footprint, HeldPages, type HeldPair, lookUps, survey } from './held-pages.js';
import type { RegionLayout } from './layout.js';
import { writeStructured } from './structure.js';

const REGION_TYPE = { parameters: [ValueType.I32], results: [ValueType.I32] };

/** An instruction that leaves for the evaluator. */
export interface Leaving {
  readonly rip: bigint;
  /** Instructions of its block that retired before it. */
  readonly before: number;
}

export interface CompiledRegion {
  readonly binary: Uint8Array;
  readonly leavings: readonly Leaving[];
  /** Nodes of the entries, as `RegionLayout.nodeOf` has them. */
  readonly nodes: readonly number[];
}

/**
 * @param pages of the memory. @param checksContext its code lies in several pages: before it runs it must know that all of
 * them are where they were. @param flat its code runs in `Mode.FLAT`.
 */
export function compileRegion(
  region: RegionCode,
  layout: RegionLayout,
  { pages, checksContext, flat }: { readonly pages: number; readonly checksContext: boolean; readonly flat: boolean },
): CompiledRegion {
  const writer = new ModuleWriter();
  const fill = writer.importFunction('fill', REGION_TYPE);
  const lookup = writer.importFunction('lookup', { parameters: [ValueType.I64], results: [ValueType.I32] });
  const helpers = { fill, lookup };
  const body = new RegionFunction(region, layout, { checksContext, flat }, helpers, lookUps(writer, helpers));
  writer.exportFunction('handler', writer.addFunction(body.write()));
  return { binary: writer.finish(pages), leavings: body.leavings, nodes: body.flow.entries };
}

/** Whether a description can be compiled is known only from trying. */
export function isForRegions(at: RegionInstruction): boolean {
  const code = new Code(REGION_TYPE);
  try {
    trialEmitter(code).emit(at, 0);
    return true;
  } catch (reason) {
    if (reason instanceof NotCompiled) return false;
    throw reason;
  }
}

const TRIALS = new ByShape<{ readonly effects: HandlerEffects; readonly footprint: Footprint }>();

/** What an instruction does with flags, memory and registers, and whether it may leave: alike for all with the same handler. */
const trialOf = (at: RegionInstruction): { readonly effects: HandlerEffects; readonly footprint: Footprint } =>
  TRIALS.once(at.insn, () => {
    const emitter = trialEmitter(new Code(REGION_TYPE));
    emitter.emit(at, 0);
    return { effects: emitter.effects, footprint: emitter.footprint };
  });

/** Writes code that nobody will run. */
function trialEmitter(code: Code): RegionEmitter {
  const nothing = (): void => {};
  const frame: RegionFrame = {
    ...{ code, locals: regionLocals(code), slack: code.local(ValueType.I32), bank: code.local(ValueType.I32) },
    ...{ next: nothing, leave: nothing, assist: nothing, evaluate: nothing, flat: false },
  };
  return new RegionEmitter(frame, new LocalPool(code), { fill: 0, lookup: 1 });
}

/** How the code leaves, as a value of a local; larger ones are addresses of leavings. */
const Out = { GO: 0, SPENT: 1 } as const;

class RegionFunction {
  readonly leavings: Leaving[] = [];
  private readonly leavingNumbers = new Map<bigint, number>();
  private readonly code = new Code(REGION_TYPE);
  private readonly locals: RegionLocals = regionLocals(this.code);
  private readonly slack = this.code.local(ValueType.I32);
  private readonly bank = this.code.local(ValueType.I32);
  private readonly out = this.code.local(ValueType.I32);
  private readonly entry = this.code.local(ValueType.I32);
  /** The node that is meant while goals are passed on; 0 in blocks. */
  private readonly goal = this.code.local(ValueType.I32);
  private readonly target = this.code.local(ValueType.I64);
  private readonly emitter: RegionEmitter;
  readonly flow: Flow;
  private readonly held: HeldPages;
  private outLabel = 0;

  constructor(
    private readonly region: RegionCode,
    private readonly layout: RegionLayout,
    private readonly runs: { readonly checksContext: boolean; readonly flat: boolean },
    private readonly helpers: Helpers,
    lookUp: HeldPair['lookUp'],
  ) {
    this.flow = flowOf(region);
    this.held = new HeldPages(
      this.flow.order,
      region.blocks.map(({ instructions }) => instructions.map((at) => survey(at, trialOf(at).footprint))),
      lookUp,
    );
    const nothing = (): void => {};
    const frame: RegionFrame = {
      ...{ code: this.code, locals: this.locals, slack: this.slack, bank: this.bank },
      ...{ next: nothing, leave: nothing, assist: nothing, flat: runs.flat, held: this.held },
      evaluate: (rip, before) => this.evaluate({ rip, before }),
    };
    this.emitter = new RegionEmitter(frame, new LocalPool(this.code), helpers);
  }

  write(): Code {
    const { code, locals, emitter } = this;
    this.writeEntry();
    const loads = code.bytes.length;
    // Their kind is 0, plain.
    code.i32(0).memory(Op.I64_LOAD, Cell.FLAG_RESULT).set(locals.flagResult);
    code.i32(0).memory(Op.I64_LOAD, Cell.FLAG_CARRIES).set(locals.flagCarries);
    code.i32(0).memory(Op.I32_LOAD, Cell.SLACK).set(this.slack);
    code.i32(0).memory(Op.I32_LOAD, Cell.TLB_BANK).set(this.bank);
    this.outLabel = code.block().blockDepth;
    this.writeBlocks();
    code.op(Op.UNREACHABLE).end();
    this.writeExit(emitter.gprsWritten);
    code.insert(loads, () => {
      for (const gpr of new Set([...emitter.gprsRead, ...emitter.gprsWritten])) this.loadGpr(gpr);
    });
    return code;
  }

  private loadGpr(gpr: number): void {
    this.code
      .i32(slotAddress(gprSlot(gpr)))
      .memory(Op.I64_LOAD)
      .set(this.locals.gprs[gpr] as number);
  }

  /** Sees that the region may be entered here; sets the goal, and its RIP as the target. */
  private writeEntry(): void {
    const { code, layout } = this;
    if (this.runs.checksContext) {
      code.i32(0).memory(Op.I32_LOAD, Cell.JUMP_CONTEXT).i32(0).memory(Op.I32_LOAD, layout.context).op(Op.I32_NE).if();
      code.i32(0).get(0).memory(Op.I32_STORE, Cell.EXIT_UOP);
      code.i32(0).i32(ExitReason.CONTEXT).memory(Op.I32_STORE, Cell.EXIT_REASON);
      code.i32(0).return().end();
    }
    code.get(0).memory(Op.I32_LOAD8_U, Uop.ENTRY).set(this.entry);
    code.i32(0).memory(Op.I64_LOAD, Cell.RIP_PAGE).get(0).memory(Op.I64_LOAD16_U, Uop.PAGE_OFFSET).op(Op.I64_ADD);
    code.tee(this.target);
    this.pushRipOfEntry();
    code.op(Op.I64_NE).if();
    // The same code by another address.
    code.get(this.entry).i32(2).op(Op.I32_SHL).memory(Op.I32_LOAD, layout.twinOf(0)).return();
    code.end();
    this.aimAtEntry();
  }

  private aimAtEntry(): void {
    this.code.get(this.entry).i32(1).op(Op.I32_SHL).memory(Op.I32_LOAD16_U, this.layout.nodeOf(0)).set(this.goal);
  }

  private pushRipOfEntry(): void {
    this.code.get(this.entry).i32(3).op(Op.I32_SHL).memory(Op.I64_LOAD, this.layout.ripOf(0));
  }

  // Nodes

  private writeBlocks(): void {
    const { code, flow } = this;
    const passedOn = [...flow.goals.values()].flatMap((goals) => [...goals.values()]);
    writeStructured(flow.order, new Set(passedOn), {
      open: (kind) => (kind === 'loop' ? code.loop() : code.block()).blockDepth,
      close: () => void code.end(),
      node: (node, follow, labelOf) => {
        if (node === TABLE) this.checkBudget();
        if (flow.goals.has(node)) this.passOn(node, labelOf);
        if (node === flow.indirect) this.writeIndirect(() => follow(TABLE));
        else if (node !== TABLE) this.writeBlock(node, follow);
      },
      branch: (label) => void code.br(label),
    });
  }

  /** Goes on towards the goal, if there is one and it is not here. */
  private passOn(node: number, labelOf: (node: number) => number): void {
    const { code, goal } = this;
    const goals = this.flow.goals.get(node) as ReadonlyMap<number, number>;
    const own = code.block().blockDepth;
    const targets = Array.from({ length: Math.max(...goals.keys()) + 1 }, (_, each) => {
      const to = goals.get(each);
      return to === undefined || each === node ? own : labelOf(to);
    });
    if (node === TABLE) code.get(goal).brTable(targets, own);
    else {
      code.get(goal).op(Op.I32_EQZ).brIf(own);
      code.get(goal).brTable(targets, own);
    }
    code.end();
    if (node === TABLE) code.op(Op.UNREACHABLE);
  }

  /** Finds the entry at the target. */
  private writeIndirect(toTable: () => void): void {
    const { code, layout, target } = this;
    code.get(target).get(target).i64(8n).op(Op.I64_SHR_U, Op.I64_XOR, Op.I32_WRAP_I64).i32(0xff).op(Op.I32_AND);
    code.memory(Op.I32_LOAD8_U, layout.hashed).set(this.entry);
    this.pushRipOfEntry();
    code.get(target).op(Op.I64_NE).if();
    this.leave(Out.GO);
    code.end();
    this.aimAtEntry();
    toTable();
  }

  private writeBlock(node: number, follow: (to: number) => void): void {
    const { code, emitter, flow } = this;
    const { rip, instructions, end } = this.region.blocks[node - 1] as RegionBlock;
    emitter.knownFlags = this.knownAt(node);
    if (this.isGoal(node)) code.i32(0).set(this.goal);
    if (flow.checked.has(node)) this.checkBudget(rip);
    const dead = this.deadFlags(instructions);
    this.held.begin(node);
    instructions.forEach((at, retired) => {
      emitter.emit(at, retired, dead[retired]);
      this.held.passed();
    });
    this.known.set(node, emitter.knownFlags);
    if (end.kind === 'assist') {
      this.evaluate({ rip: end.rip, before: instructions.length });
      return;
    }
    const { decision } = emitter;
    if (instructions.length > 0) code.get(this.slack).i32(instructions.length).op(Op.I32_SUB).set(this.slack);
    this.writeEnd(node, end, decision, follow);
  }

  private writeEnd(node: number, end: BlockEnd, decision: Decision | undefined, follow: (to: number) => void): void {
    const { code, flow } = this;
    const to = (rip: bigint): void => {
      const next = flow.nodes.get(rip);
      if (next === undefined) {
        code.i64(rip).set(this.target);
        this.leave(Out.GO);
        return;
      }
      const hop = flow.hop(node, next);
      if (hop !== next) code.i32(next).set(this.goal);
      follow(hop);
    };
    if (end.kind === 'goto') to(end.to);
    else if (end.kind === 'branch' && decision?.kind === 'when') {
      code.get(decision.condition).if();
      to(end.taken);
      code.end();
      to(end.next);
    } else if (end.kind === 'indirect' && decision?.kind === 'to') {
      code.get(decision.target).set(this.target);
      follow(flow.indirect);
    }
  }

  /** What is known of the flags when a block begins that is reached by one way. */
  private knownAt(node: number): KnownFlags {
    const [only, ...others] = this.flow.order.predecessors[node] as readonly number[];
    const isOnly = only !== undefined && others.length === 0 && !this.isGoal(node);
    return (isOnly ? this.known.get(only) : undefined) ?? NOTHING_KNOWN;
  }
  private readonly known = new Map<number, KnownFlags>();

  /** For each instruction, whether flags that it sets are overwritten before anybody can see them. */
  private deadFlags(instructions: readonly RegionInstruction[]): readonly boolean[] {
    const dead: boolean[] = [];
    let next = false;
    for (const at of instructions.toReversed()) {
      dead.unshift(next);
      const { leaves, readsFlags, overwritesFlags } = trialOf(at).effects;
      next = !leaves && !readsFlags && (overwritesFlags || next);
    }
    return dead;
  }

  private isGoal(node: number): boolean {
    return [...this.flow.goals.values()].some((goals) => goals.has(node));
  }

  // The way out

  /** @param rip where to go on with a new budget; the target when undefined. */
  private checkBudget(rip?: bigint): void {
    const { code } = this;
    code.get(this.slack).i32(0).op(Op.I32_LT_S).ifRare();
    if (rip !== undefined) code.i64(rip).set(this.target);
    this.leave(Out.SPENT);
    code.end();
  }

  private evaluate({ rip, before }: Leaving): void {
    this.leave(this.layout.leaving(this.leavingOf(rip, before)));
  }

  /** There is room for one of each instruction, and one of each block's end. */
  private leavingOf(rip: bigint, before: number): number {
    const key = rip * BigInt(MAX_BLOCK_INSTRUCTIONS) + BigInt(before);
    const known = this.leavingNumbers.get(key);
    if (known !== undefined) return known;
    this.leavingNumbers.set(key, this.leavings.length);
    return this.leavings.push({ rip, before }) - 1;
  }

  private leave(out: number): void {
    this.code.i32(out).set(this.out).br(this.outLabel);
  }

  private writeExit(written: ReadonlySet<number>): void {
    const { code, locals, out } = this;
    for (let gpr = 0; gpr < GPRS; gpr++) {
      if (written.has(gpr))
        code
          .i32(slotAddress(gprSlot(gpr)))
          .get(locals.gprs[gpr] as number)
          .memory(Op.I64_STORE);
    }
    settleFlags(code, locals, () => code.local(ValueType.I64));
    code.i32(0).get(locals.flagResult).memory(Op.I64_STORE, Cell.FLAG_RESULT);
    code.i32(0).get(locals.flagCarries).memory(Op.I64_STORE, Cell.FLAG_CARRIES);
    // For the evaluator: charges what has retired of the block.
    code.get(out).i32(Out.SPENT).op(Op.I32_GT_U).if();
    code.i32(0).get(this.slack).get(out).memory(Op.I32_LOAD, 8).op(Op.I32_SUB).memory(Op.I32_STORE, Cell.SLACK);
    code.i32(slotAddress(R.rip)).get(out).memory(Op.I64_LOAD).memory(Op.I64_STORE);
    this.leaveEngine(ExitReason.EVALUATE);
    code.end();
    code.i32(0).get(this.slack).memory(Op.I32_STORE, Cell.SLACK);
    code.get(out).get(this.slack).i32(0).op(Op.I32_LT_S, Op.I32_OR).if();
    code.i32(slotAddress(R.rip)).get(this.target).memory(Op.I64_STORE);
    this.leaveEngine(ExitReason.SPENT);
    code.end();
    code.get(this.target).call(this.helpers.lookup);
  }

  private leaveEngine(reason: number): void {
    this.code.i32(0).i32(reason).memory(Op.I32_STORE, Cell.EXIT_REASON).i32(0).return();
  }
}

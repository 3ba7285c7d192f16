/**
 * What the interpreter executes: the dispatch function with the handlers of common instructions inside, and for all
 * others a handler in a module of its own. All machines of a process share them: compiling is what takes long.
 */
import type { DecodedInstruction } from '../decode/decoded.js';
import type { Instruction, PlainInstruction } from '../isa/instruction.js';
import { ARITHMETIC_FLAGS, CONTROL_SLOTS, R, Segment, slotAddress } from '../layout/cpu-state.js';
import { Cell, JUMP_CACHE_CONTEXT, JUMP_CACHE_ENTRIES, WASM_PAGE_BYTES } from '../layout/linear-memory.js';
import { ByShape, keyOf } from './by-shape.js';
import { deltaFunction } from './delta.js';
import { Emitter } from './emit.js';
import {
  type Frame,
  type HandlerEffects,
  type Helpers,
  LocalPool,
  leaveForAssist,
  NotCompiled,
} from './emit-values.js';
import { Code, ModuleWriter, Op, ValueType } from './module.js';
import { ExitReason, Uop } from './uop.js';

const HANDLER_TYPE = { parameters: [ValueType.I32], results: [ValueType.I32] };
/** Most handlers that can exist; table slots are cheap. */
export const TABLE_SIZE = 16_384;

/** Handlers that belong to no instruction. */
export const Handler = {
  /** Leaves for the evaluator. */
  ASSIST: 0,
  /** The block ends here: goes on at this micro-op's address, by the jump cache. */
  END: 1,
  /** Address micro-ops: see `addressHandlers`. */
  ADDRESS_SEGMENT: 2,
  ADDRESS_32: 3,
  ADDRESS_LEGACY_32: 4,
  ADDRESS_LEGACY_16: 5,
  ADDRESS_BARE_32: 6,
  ADDRESS_BARE_16: 7,
  /** Goes on amid another block: at the micro-op of the link, before which as many instructions stand as the displacement says. */
  INSIDE: 8,
  FIRST_INSTRUCTION: 9,
} as const;

/** A handler's number, what it does around itself, and which handlers may stand in its place. */
export interface KnownHandler {
  readonly handler: number;
  readonly effects: HandlerEffects;
  /** Does the same but sets no flags, for where nobody will see them. */
  flagless?: number;
  /** Do the instruction and the one behind it at once, by the handler of that one. */
  readonly pairs: Map<KnownHandler, number>;
}

export const TO_THE_EVALUATOR: KnownHandler = {
  handler: Handler.ASSIST,
  effects: { readsFlags: true, overwritesFlags: false, leaves: true },
  pairs: new Map(),
};

/** The functions that every machine has, the dispatch function among them. */
export interface Core {
  readonly module: WebAssembly.Module;
  /** Handlers that stand inside the dispatch function. */
  readonly handlers: ByShape<KnownHandler>;
  /** How many there are. */
  readonly count: number;
}

/** A handler in a module of its own. */
export interface Single {
  readonly module: WebAssembly.Module;
  readonly effects: HandlerEffects;
}

const CORES = new Map<string, Core>();
const SINGLES = new Map<string, Single | undefined>();

/** Forgets what was compiled: whoever changes what handlers are made of wants them anew. */
export function forgetHandlers(): void {
  CORES.clear();
  SINGLES.clear();
}

function once<Value>(made: Map<string, Value>, key: string, make: () => Value): Value {
  if (!made.has(key)) made.set(key, make());
  return made.get(key) as Value;
}

/** Modules name the size of the memory that they import. */
const pagesOf = (memory: WebAssembly.Memory): number => memory.buffer.byteLength / WASM_PAGE_BYTES;

/** @param hot instructions whose handlers stand inside the dispatch function. */
export const coreOf = (memory: WebAssembly.Memory, hot: readonly DecodedInstruction[]): Core =>
  once(CORES, `${pagesOf(memory)}:${hot.map(keyOf).join(' ')}`, () => makeCore(memory, hot));

/** @returns undefined when the evaluator must execute it. */
export const singleOf = (memory: WebAssembly.Memory, insn: DecodedInstruction): Single | undefined =>
  once(SINGLES, `${pagesOf(memory)}:${keyOf(insn)}`, () => compileSingle(memory, insn));

function makeCore(memory: WebAssembly.Memory, hot: readonly DecodedInstruction[]): Core {
  const writer = new ModuleWriter();
  const fill = writer.importFunction('fill', HANDLER_TYPE);
  const lookup = writer.addFunction(lookupFunction());
  const dispatch = new Dispatch(hot);
  const run = writer.addFunction(dispatch.write(writer, { fill, lookup }));
  writer.exportFunction('lookup', lookup);
  writer.exportFunction('delta', writer.addFunction(deltaFunction()));
  writer.exportFunction('enter', writer.addFunction(enterFunction(run, lookup)));
  writer.exportTable('table', TABLE_SIZE);
  const { handlers, count } = dispatch;
  return { module: new WebAssembly.Module(writer.finish(pagesOf(memory))), handlers, count };
}

/** The dispatch function, which holds the handlers of hot instructions. */
class Dispatch {
  readonly handlers = new ByShape<KnownHandler>();
  /** Handlers of instructions. */
  count = 0;
  /** One of each shape. */
  private readonly hot: readonly DecodedInstruction[];

  constructor(hot: readonly DecodedInstruction[]) {
    this.hot = uniqueBy(hot, keyOf);
  }

  write(writer: ModuleWriter, helpers: Helpers): Code {
    const code = new Code({ parameters: [ValueType.I32], results: [] });
    const pool = new LocalPool(code);
    const bodies = [...builtInHandlers(), ...this.hotHandlers(), ...this.flaglessHandlers(), ...this.pairHandlers()];
    const slack = code.local(ValueType.I32);
    const bank = code.local(ValueType.I32);
    const loadSlack = (): Code => code.i32(0).memory(Op.I32_LOAD, Cell.SLACK).set(slack);
    const storeSlack = (): Code => code.i32(0).get(slack).memory(Op.I32_STORE, Cell.SLACK);
    loadSlack();
    code.i32(0).memory(Op.I32_LOAD, Cell.TLB_BANK).set(bank);
    code.block();
    const leave = code.blockDepth;
    code.loop();
    const dispatch = code.blockDepth;
    code.block();
    const assist = code.blockDepth;
    code.block();
    const taken = code.blockDepth;
    const frame: Frame = {
      code,
      next: () => code.set(0).br(dispatch),
      slack,
      bank,
      leave: () => code.br(leave),
      assist: () => code.br(assist),
      taken: () => code.set(0).br(taken),
    };
    code.block();
    const otherwise = code.blockDepth;
    const targets: number[] = [];
    for (let index = 0; index < bodies.length; index++) targets.unshift(code.block().blockDepth);
    code.get(0).memory(Op.I32_LOAD16_U, Uop.HANDLER).brTable(targets, otherwise);
    for (const body of bodies) {
      code.end();
      pool.reset();
      body(frame, pool, helpers);
    }
    code.end();
    storeSlack();
    code.get(0).get(0).memory(Op.I32_LOAD16_U, Uop.HANDLER);
    code.callIndirect(writer.typeIndex(HANDLER_TYPE));
    loadSlack();
    code.tee(0);
    code.brIf(dispatch).br(leave);
    code.end();
    pool.reset();
    new Emitter(frame, pool, helpers).takenBranch();
    code.op(Op.UNREACHABLE).end();
    leaveForAssist(code);
    code.br(leave).end().end();
    storeSlack();
    return code;
  }

  private hotHandlers(): HandlerBody[] {
    return this.hot.map((insn) => {
      const { handler, effects, body } = this.next((emitter) =>
        emitter.instruction(insn.instruction as PlainInstruction, insn),
      );
      this.handlers.set(insn, { handler, effects, pairs: new Map() });
      return body;
    });
  }

  /** The next handler of the dispatch function; what its effects are is known when its body is written. */
  private next(write: (emitter: Emitter) => void): { handler: number; effects: HandlerEffects; body: HandlerBody } {
    const effects: HandlerEffects = { readsFlags: false, overwritesFlags: false, leaves: false };
    const body: HandlerBody = (frame, pool, helpers) => {
      const emitter = new Emitter(frame, pool, helpers);
      write(emitter);
      Object.assign(effects, emitter.effects);
      frame.code.op(Op.UNREACHABLE);
    };
    return { handler: Handler.FIRST_INSTRUCTION + this.count++, effects, body };
  }

  private of(insn: DecodedInstruction): KnownHandler {
    return this.handlers.get(insn) as KnownHandler;
  }

  /** Arithmetic that sets no flags: most of it is followed by more of it. */
  private flaglessHandlers(): HandlerBody[] {
    const arithmetic = this.hot.filter(
      ({ mnemonic, operands }) => FLAGLESS_MNEMONICS.has(mnemonic) && operands[0]?.kind === 'gpr',
    );
    return arithmetic.map((insn) => {
      const { handler, body } = this.next((emitter) => {
        emitter.flagsAreDead = true;
        emitter.instruction(insn.instruction as PlainInstruction, insn);
      });
      this.of(insn).flagless = handler;
      return body;
    });
  }

  /** Comparisons with the branch behind them, in one dispatch. */
  private pairHandlers(): HandlerBody[] {
    const branches = uniqueBy(this.hot, ({ mnemonic }) => mnemonic);
    return this.hot.flatMap((first) =>
      branches
        .filter((branch) => isFused(first, branch))
        .map((second) => {
          const { handler, body } = this.next((emitter) => emitter.pair(first, second));
          this.of(first).pairs.set(this.of(second), handler);
          return body;
        }),
    );
  }
}

/** One function in a module of its own; undefined when the evaluator must do it. */
function compileSingle(memory: WebAssembly.Memory, insn: DecodedInstruction): Single | undefined {
  const { instruction } = insn;
  if (!isCompiled(insn)) return undefined;
  const writer = new ModuleWriter();
  const fill = writer.importFunction('fill', HANDLER_TYPE);
  const lookup = writer.importFunction('lookup', { parameters: [ValueType.I64], results: [ValueType.I32] });
  const code = new Code(HANDLER_TYPE);
  const frame: Frame = {
    code,
    next: () => code.return(),
    leave: () => code.i32(0).return(),
    assist: () => {
      leaveForAssist(code);
      code.i32(0).return();
    },
  };
  const emitter = new Emitter(frame, new LocalPool(code), { fill, lookup });
  try {
    emitter.instruction(instruction as PlainInstruction, insn);
  } catch (reason) {
    if (reason instanceof NotCompiled) return undefined;
    throw reason;
  }
  code.op(Op.UNREACHABLE);
  writer.exportFunction('handler', writer.addFunction(code));
  return { module: new WebAssembly.Module(writer.finish(pagesOf(memory))), effects: emitter.effects };
}

/** They set flags and read none. */
const FLAGLESS_MNEMONICS = new Set([
  'ADD',
  'SUB',
  'AND',
  'OR',
  'XOR',
  'INC',
  'DEC',
  'NEG',
  'IMUL',
  'SHL',
  'SHR',
  'SAR',
  'ROL',
  'ROR',
]);

/** Comparisons by the branches that are fused with them: the dispatch function has no room for all. */
const FUSED_BRANCHES: Readonly<Partial<Record<string, ReadonlySet<string>>>> = {
  CMP: new Set(['JE', 'JNE', 'JB', 'JAE', 'JBE', 'JA', 'JL', 'JGE', 'JLE', 'JG']),
  TEST: new Set(['JE', 'JNE', 'JS', 'JNS', 'JLE', 'JG']),
};
const FUSED_WITH_MEMORY: ReadonlySet<string> = new Set(['JE', 'JNE']);

function isFused(first: DecodedInstruction, { mnemonic }: DecodedInstruction): boolean {
  if (FUSED_BRANCHES[first.mnemonic]?.has(mnemonic) !== true) return false;
  return FUSED_WITH_MEMORY.has(mnemonic) || first.operands.every(({ kind }) => kind !== 'mem');
}

function uniqueBy<T>(items: readonly T[], key: (item: T) => string): T[] {
  return [...new Map(items.map((item) => [key(item), item])).values()];
}

type HandlerBody = (frame: Frame, pool: LocalPool, helpers: Helpers) => void;

/** Whether compiled code may execute it; the engine asks before it asks for a handler. */
export const isCompiled = (insn: DecodedInstruction): boolean =>
  'semantics' in insn.instruction &&
  !isForEvaluator(insn.instruction, insn.long) &&
  !isStringElsewhere(insn) &&
  !isOtherControl(insn);

/** CR8, by both of its names, is a register of the local APIC; numbers that name no control register fault. */
const isOtherControl = ({ lock, operands }: DecodedInstruction): boolean =>
  operands.some((operand) => operand.kind === 'control' && (lock || !CONTROL_SLOTS.has(operand.number)));

/** What of the control plane is compiled at all is so in 64-bit mode alone. */
const isForEvaluator = (described: Instruction, long: boolean): boolean =>
  'system' in described ? !long : 'evaluatorOnly' in described && described.evaluatorOnly === true;

/** A string instruction whose source lies in another segment than DS: rare, and its handler would have to know. */
const isStringElsewhere = ({ operands, segmentOverride, long }: DecodedInstruction): boolean =>
  operands.length === 0 &&
  segmentOverride !== undefined &&
  (long ? segmentOverride === Segment.FS || segmentOverride === Segment.GS : segmentOverride !== Segment.DS);

function builtInHandlers(): HandlerBody[] {
  return [
    ({ assist }) => assist(),
    endOfBlock,
    addressHandler({ bits: 64, segment: 'base' }),
    addressHandler({ bits: 32, segment: 'base' }),
    addressHandler({ bits: 32, segment: 'checked' }),
    addressHandler({ bits: 16, segment: 'checked' }),
    addressHandler({ bits: 32, segment: 'none' }),
    addressHandler({ bits: 16, segment: 'none' }),
    (frame, pool, helpers) => new Emitter(frame, pool, helpers).enterInside(),
  ];
}

/** Charges the block and goes on at this micro-op's RIP. */
const endOfBlock: HandlerBody = (frame, pool, helpers) => new Emitter(frame, pool, helpers).endOfBlock();

/**
 * Computes the linear address of the next micro-op's operand into `Cell.ADDRESS`. The segment's base register address
 * stands in REGISTER0, the bytes accessed less one in IMMEDIATE, the limit's cell in REGISTER1.
 */
function addressHandler(kind: { bits: 16 | 32 | 64; segment: 'base' | 'checked' | 'none' }): HandlerBody {
  return ({ code, next, assist }, pool) => {
    const offset = pool.take(ValueType.I64);
    code.get(0).memory(Op.I32_LOAD16_U, Uop.BASE).memory(Op.I64_LOAD);
    code.get(0).memory(Op.I32_LOAD16_U, Uop.INDEX).memory(Op.I64_LOAD);
    code.get(0).memory(Op.I64_LOAD8_U, Uop.SCALE).op(Op.I64_SHL, Op.I64_ADD);
    code.get(0).memory(Op.I64_LOAD32_S, Uop.DISPLACEMENT).op(Op.I64_ADD);
    if (kind.bits < 64) code.i64((1n << BigInt(kind.bits)) - 1n).op(Op.I64_AND);
    code.set(offset);
    if (kind.segment === 'checked') {
      code.get(offset).get(0).memory(Op.I64_LOAD, Uop.IMMEDIATE).op(Op.I64_ADD);
      code.get(0).memory(Op.I32_LOAD16_U, Uop.REGISTER1).memory(Op.I64_LOAD).op(Op.I64_GT_S).if();
      assist();
      code.end();
    }
    code.i32(0).get(offset);
    if (kind.segment !== 'none') code.get(0).memory(Op.I32_LOAD16_U, Uop.REGISTER0).memory(Op.I64_LOAD).op(Op.I64_ADD);
    if (kind.segment === 'checked') code.i64(0xffff_ffffn).op(Op.I64_AND);
    code.memory(Op.I64_STORE, Cell.ADDRESS);
    code.get(0).i32(Uop.BYTES).op(Op.I32_ADD);
    next();
  };
}

/** Jump cache: (rip) → micro-op, with RIP_PAGE set for it; 0 and EXIT_REASON = LOOKUP, RIP stored, when it is not there. */
function lookupFunction(): Code {
  const code = new Code({ parameters: [ValueType.I64], results: [ValueType.I32] });
  const entry = code.local(ValueType.I32);
  const uop = code.local(ValueType.I32);
  code.get(0).get(0).i64(12n).op(Op.I64_SHR_U, Op.I64_XOR, Op.I32_WRAP_I64);
  code.i32(0).memory(Op.I32_LOAD, Cell.JUMP_SALT).op(Op.I32_XOR);
  code
    .i32(JUMP_CACHE_ENTRIES - 1)
    .op(Op.I32_AND)
    .i32(4)
    .op(Op.I32_SHL)
    .i32(0)
    .memory(Op.I32_LOAD, Cell.JUMP_CACHE)
    .op(Op.I32_ADD)
    .tee(entry);
  code.memory(Op.I64_LOAD).get(0).op(Op.I64_EQ);
  code
    .get(entry)
    .memory(Op.I32_LOAD, JUMP_CACHE_CONTEXT)
    .i32(0)
    .memory(Op.I32_LOAD, Cell.JUMP_CONTEXT)
    .op(Op.I32_EQ, Op.I32_AND)
    .if();
  code.get(entry).memory(Op.I32_LOAD, 12).set(uop);
  code
    .i32(0)
    .get(0)
    .get(uop)
    .memory(Op.I64_LOAD16_U, Uop.PAGE_OFFSET)
    .op(Op.I64_SUB)
    .memory(Op.I64_STORE, Cell.RIP_PAGE);
  code.get(uop).return();
  code.end();
  code.i32(slotAddress(R.rip)).get(0).memory(Op.I64_STORE);
  code.i32(0).i32(ExitReason.LOOKUP).memory(Op.I32_STORE, Cell.EXIT_REASON);
  code.i32(0);
  return code;
}

/** Unpacks RFLAGS into the lazy cells, runs, packs them again. */
function enterFunction(run: number, lookup: number): Code {
  const code = new Code({ parameters: [ValueType.I32], results: [] });
  const frame: Frame = { code, next: () => {}, leave: () => {}, assist: () => {} };
  const flags = new Emitter(frame, new LocalPool(code), { fill: 0, lookup });
  const rflags = slotAddress(R.rflags);
  const before = code.local(ValueType.I64);
  code.i32(rflags).memory(Op.I64_LOAD).set(before);
  flags.setArithmeticFlags(before);
  code.get(0).op(Op.I32_EQZ).if();
  code.i32(slotAddress(R.rip)).memory(Op.I64_LOAD).call(lookup).set(0);
  code.end();
  code.get(0).if();
  code.get(0).call(run);
  code.end();
  const after = flags.arithmeticFlags();
  code.i32(rflags).i32(rflags).memory(Op.I64_LOAD).i64(~ARITHMETIC_FLAGS).op(Op.I64_AND);
  code.get(after).op(Op.I64_OR).memory(Op.I64_STORE);
  return code;
}

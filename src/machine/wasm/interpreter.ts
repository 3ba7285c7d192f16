/**
 * The interpreter tier: one WebAssembly function that dispatches decoded instructions by br_table, with the handlers of
 * common instructions inside, and a table of functions for all others, filled when an instruction first needs one.
 *
 * docs/adr/0002-interpreter-dispatch.md has the measurements behind this shape.
 */
import type { DecodedInstruction } from '../decode/decoded.js';
import { invariant } from '../errors.js';
import { ByShape } from './by-shape.js';
import { coreOf, Handler, type KnownHandler, type Single, singleOf, TABLE_SIZE, TO_THE_EVALUATOR } from './handlers.js';

/** Of the table: there are not so many kinds of instructions. */
const KEPT_FOR_HANDLERS = 8192;

interface Exports {
  readonly enter: (uop: number) => void;
  readonly lookup: (rip: bigint) => number;
  readonly delta: () => number;
  readonly table: WebAssembly.Table;
}

export class Interpreter {
  private readonly exports: Exports;
  private readonly handlers: ByShape<KnownHandler>;
  private nextHandler: number;

  /**
   * @param memory the machine's memory. @param fill called on a TLB miss with access and size; see `Emitter.translate`.
   * @param hot instructions whose handlers stand inside the dispatch function.
   */
  constructor(
    private readonly memory: WebAssembly.Memory,
    private readonly fill: (accessAndSize: number) => number,
    hot: readonly DecodedInstruction[],
  ) {
    const { module, handlers, count } = coreOf(memory, hot);
    this.handlers = new ByShape(handlers);
    this.nextHandler = Handler.FIRST_INSTRUCTION + count;
    const instance = new WebAssembly.Instance(module, { env: { memory, fill } });
    this.exports = instance.exports as unknown as Exports;
  }

  /** Runs from `uop`, or from RIP when it is 0, until the engine must stop; `Cell.EXIT_REASON` says why. */
  enter(uop: number): void {
    this.exports.enter(uop);
  }

  /** Compares the register file with its shadow, updates the shadow. @returns bytes of the delta at DELTA_BASE. */
  delta(): number {
    return this.exports.delta();
  }

  /** The handler of an instruction; a new one is compiled when it is the first of its kind. */
  handlerOf(insn: DecodedInstruction): KnownHandler {
    return this.handlers.once(insn, () => {
      const single = singleOf(this.memory, insn);
      return single === undefined ? TO_THE_EVALUATOR : this.place(single);
    });
  }

  /** Puts a handler into the shared table. */
  private place({ module, effects }: Single): KnownHandler {
    const { memory, fill } = this;
    const instance = new WebAssembly.Instance(module, { env: { memory, fill, lookup: this.exports.lookup } });
    const handler = this.nextHandler++;
    invariant(handler < TABLE_SIZE, 'the handler table is full');
    this.exports.table.set(handler, instance.exports.handler);
    return { handler, effects, pairs: new Map() };
  }

  /** Puts the function of a region into the table. @returns its number among the handlers; 0 when the table is full. */
  placeRegion(binary: Uint8Array): number {
    const handler = this.freed.pop() ?? (this.nextHandler < TABLE_SIZE - KEPT_FOR_HANDLERS ? this.nextHandler++ : 0);
    if (handler === 0) return 0;
    const { memory, fill } = this;
    const instance = new WebAssembly.Instance(new WebAssembly.Module(binary), {
      env: { memory, fill, lookup: this.exports.lookup },
    });
    this.exports.table.set(handler, instance.exports.handler);
    return handler;
  }

  /** Places of the table that are in use. */
  get tableUsed(): number {
    return this.nextHandler - this.freed.length;
  }

  /** Nothing leads to the region any more. */
  dropRegion(handler: number): void {
    this.exports.table.set(handler, null);
    this.freed.push(handler);
  }
  private readonly freed: number[] = [];
}

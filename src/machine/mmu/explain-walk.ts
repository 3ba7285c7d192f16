/**
 * A translation told step by step, for whoever looks at a machine from outside: every entry that the walk reads, in its order,
 * the guest's tables and those under them. It is the machine's own walk, watched; no accessed or dirty bit is set.
 * Source: APM vol.2 §5.3 Long-Mode Page Translation, §15.25.5 Nested Table Walk.
 */
import { Access } from '../cpu/transaction.js';
import type { Registers } from '../layout/cpu-state.js';
import { PAGE_BYTES } from '../units.js';
import type { PhysicalMemory } from './memory.js';
import { PageWalker, type PagingFeatures, type WalkResult } from './page-walk.js';
import { observerContext } from './peek.js';
import { PagingMode, type TableRules } from './table-walk.js';

/** An entry that the walk read. */
export interface WalkStep {
  /** Whose table: the guest's own (or, at L1, the only ones), or the nested one under it. */
  readonly table: 'guest' | 'nested';
  /** `PML4E`, `PDPE`, `PDE`, `PTE`. */
  readonly entry: string;
  /** Where it lies, as its tables name places: a gPA for an L2's own tables, otherwise a sPA. */
  readonly address: number;
  readonly sPA: number;
  readonly bytes: 4 | 8;
  readonly value: bigint;
  /** Of a nested entry: which gPA is being translated. */
  readonly gPA: number | undefined;
}

export interface ExplainedWalk {
  readonly steps: readonly WalkStep[];
  /** The sPA of the byte, or undefined after a fault. */
  readonly sPA: number | undefined;
  /** As the walk left it: permissions, page size, error codes. */
  readonly result: Readonly<WalkResult>;
}

/** What the access is, besides reading by the supervisor. */
export interface ExplainedAccess {
  readonly write?: boolean;
  readonly fetch?: boolean;
  readonly user?: boolean;
}

/** @param linear canonical. @param registers of the vCPU whose address space is meant. */
export function explainWalk(
  memory: PhysicalMemory,
  registers: Registers,
  features: PagingFeatures,
  linear: bigint,
  { write = false, fetch = false, user = false }: ExplainedAccess = {},
): ExplainedWalk {
  const context = observerContext(registers, features);
  const log = new WalkLog(memory, formatOf(context), context.nested && formatOf(context.nested));
  const walker = new WatchedWalker(log);
  const access = (write ? Access.WRITE : 0) | (fetch ? Access.FETCH : 0) | (user ? Access.USER : 0);
  const [low, high] = [Number(linear & 0xffff_ffffn) | 0, Number((linear >> 32n) & 0xffff_ffffn) | 0];
  const frame = walker.walk(context, low, high, access);
  const sPA = frame < 0 ? undefined : frame - (frame % PAGE_BYTES) + (low & (PAGE_BYTES - 1));
  const result = { ...walker.result };
  // The last nested walk is for the page itself.
  const steps = log.steps.map((step) =>
    step.table === 'nested' && step.gPA === undefined ? { ...step, gPA: result.gPA } : step,
  );
  return { steps, sPA, result };
}

/** What the entries of tables are called, from the root down, and how long they are. */
interface TableFormat {
  readonly names: readonly string[];
  readonly wide: boolean;
}

function formatOf({ mode, pdptes }: TableRules): TableFormat {
  const names = mode === PagingMode.LONG ? LONG_NAMES : LONG_NAMES.slice(mode === PagingMode.PAE && !pdptes ? 1 : 2);
  return { names, wide: mode !== PagingMode.LEGACY };
}
const LONG_NAMES = ['PML4E', 'PDPE', 'PDE', 'PTE'] as const;

const bytesOf = ({ wide }: TableFormat): 4 | 8 => (wide ? 8 : 4);

/** Notes what is read, in halves as the walk reads it. */
class WalkLog {
  readonly steps: WalkStep[] = [];
  /** RAM that is deaf to what a walk writes and notes. */
  readonly memory: PhysicalMemory;
  /** Entries of the walk under way. */
  private guestEntries = 0;
  private nestedEntries = 0;
  /** The guest's entry that comes next. */
  private pending: { readonly gPA: number; readonly sPA: number } | undefined;
  private translated: number | undefined;
  private awaitsHigh = false;

  constructor(
    memory: PhysicalMemory,
    private readonly guest: TableFormat,
    private readonly nested: TableFormat | undefined,
  ) {
    this.memory = Object.create(memory, {
      markEntry: { value: () => {} },
      noteTable: { value: () => {} },
      read32: {
        value: (address: number): number => {
          const word = memory.read32(address);
          this.note(address, word >>> 0);
          return word;
        },
      },
    }) as PhysicalMemory;
  }

  /** The nested walk for a gPA begins. */
  translates(gPA: number): void {
    this.translated = gPA;
    this.nestedEntries = 0;
    this.pending = undefined;
  }

  /** It has ended: the guest's entry lies there. */
  lies(gPA: number, sPA: number): void {
    this.pending = sPA < 0 ? undefined : { gPA, sPA };
  }

  private note(sPA: number, word: number): void {
    const last = this.steps.at(-1);
    if (this.awaitsHigh && last !== undefined) {
      this.steps[this.steps.length - 1] = { ...last, value: last.value | (BigInt(word) << 32n) };
      this.awaitsHigh = false;
      return;
    }
    const { pending, nested, guest } = this;
    const value = BigInt(word);
    if (nested !== undefined && pending === undefined) {
      const entry = nested.names[this.nestedEntries++] ?? 'entry';
      const bytes = bytesOf(nested);
      this.steps.push({ table: 'nested', entry, address: sPA, sPA, bytes, value, gPA: this.translated });
      this.awaitsHigh = nested.wide;
      return;
    }
    const entry = guest.names[this.guestEntries++] ?? 'entry';
    const address = pending?.gPA ?? sPA;
    this.steps.push({ table: 'guest', entry, address, sPA, bytes: bytesOf(guest), value, gPA: undefined });
    this.awaitsHigh = guest.wide;
    this.pending = undefined;
    this.translated = undefined;
    this.nestedEntries = 0;
  }
}

class WatchedWalker extends PageWalker {
  constructor(private readonly log: WalkLog) {
    super(log.memory);
  }

  override resolve(gPA: number): number {
    this.log.translates(gPA);
    const sPA = super.resolve(gPA);
    this.log.lies(gPA, sPA);
    return sPA;
  }
}

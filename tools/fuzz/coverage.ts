/**
 * What programs have reached: how often each instruction form began and retired, in which modes, and which exceptions,
 * #VMEXITs and events there were. A form that no program executes is tested by none.
 */
import {
  type DecodedInstruction,
  type EventType,
  type ExecutionWatcher,
  exitName,
  type Form,
  type Machine,
  R,
  type StatedEvent,
  VECTOR_NAMES,
} from '../../src/machine/index.js';
import { groupOf } from './code.js';

export interface FormCount {
  readonly group: string;
  readonly mnemonic: string;
  readonly text: string;
  /** Times that it was decoded and began. */
  readonly begun: number;
  /** Times that it retired. */
  readonly completed: number;
  /** Times that the engine left it to the evaluator. */
  readonly assisted: number;
}

const bit = (word: number, index: number): number => (word >>> index) & 1;
const [CS_LONG, CS_BIG] = [25, 26];

/** The mode that instructions execute in, as a number to count by. */
class ModeCounter {
  private readonly words: Uint32Array;

  constructor(
    private readonly counts: Float64Array,
    { registers }: Machine,
  ) {
    this.words = new Uint32Array(registers.buffer, registers.byteOffset, 2 * registers.length);
  }

  count(): void {
    const { words } = this;
    const word = (slot: number): number => words[2 * slot] as number;
    const [cs, cr0, cr4] = [word(R.cs), word(R.cr0), word(R.cr4)];
    const key =
      bit(cs, CS_LONG) |
      (bit(cs, CS_BIG) << 1) |
      (bit(word(R.efer), 10) << 2) |
      (bit(cr0, 0) << 3) |
      (bit(cr0, 31) << 4) |
      (bit(cr4, 5) << 5) |
      (bit(word(R.rflags), 17) << 6) |
      ((word(R.cpl) === 3 ? 1 : 0) << 7) |
      (bit(word(R.svmMode), 0) << 8) |
      (bit(word(R.nestedControl), 0) << 9);
    this.counts[key] = (this.counts[key] as number) + 1;
  }
}

function modeName(key: number): string {
  const is = (index: number): boolean => bit(key, index) === 1;
  const long = is(2);
  const level = is(8) ? `L2${is(9) ? ', nested paging' : ''}` : 'L1';
  const size = is(1) ? '32-bit' : '16-bit';
  const paging = !is(4) ? 'no paging' : is(5) ? 'PAE paging' : '32-bit paging';
  const cpl = `CPL ${is(7) ? 3 : 0}`;
  if (long) return `${level}: ${is(0) ? '64-bit' : `compatibility ${size}`}, ${cpl}`;
  if (!is(3)) return `${level}: real${is(4) ? ', paged' : ''}`;
  if (is(6)) return `${level}: virtual-8086, ${paging}`;
  return `${level}: protected ${size}, ${paging}, ${cpl}`;
}

export class Coverage {
  private readonly begun: Float64Array;
  private readonly completed: Float64Array;
  private readonly assisted: Float64Array;
  private readonly modeCounts = new Float64Array(1 << 10);
  private readonly vectors = new Map<string, number>();
  private readonly exits = new Map<string, number>();
  private readonly events = new Map<EventType, number>();
  private executed = 0;
  private left = 0;

  constructor(private readonly forms: readonly Form[]) {
    this.begun = new Float64Array(forms.length);
    this.completed = new Float64Array(forms.length);
    this.assisted = new Float64Array(forms.length);
  }

  /** Counts what this machine, which runs on the evaluator, executes from now on. */
  watch(machine: Machine): void {
    const modes = new ModeCounter(this.modeCounts, machine);
    machine.watch(this.counter(this.begun, this.completed, () => modes.count()));
  }

  /** Counts what the engine of this machine leaves to the evaluator. */
  watchAssists(machine: Machine): void {
    machine.watch({
      begins: ({ form }) => add(this.assisted, form),
      completes: () => {
        this.left++;
      },
    });
  }

  private counter(begun: Float64Array, completed: Float64Array, each: () => void): ExecutionWatcher {
    return {
      begins: ({ form }: DecodedInstruction) => {
        add(begun, form);
        each();
      },
      completes: ({ form }: DecodedInstruction) => {
        add(completed, form);
        this.executed++;
      },
    };
  }

  count(stated: readonly StatedEvent[]): void {
    for (const { event } of stated) {
      increase(this.events, event.type);
      if (event.type === 'cpu.exception') increase(this.vectors, VECTOR_NAMES[event.vector] ?? String(event.vector));
      else if (event.type === 'svm.vmexit') increase(this.exits, exitName(event.code));
    }
  }

  /** Part of the retired instructions that the engine's compiled code executed. */
  get compiledShare(): number {
    return this.executed === 0 ? 0 : 1 - this.left / this.executed;
  }

  formCounts(): readonly FormCount[] {
    return this.forms.map((form) => ({
      group: groupOf(form),
      mnemonic: form.instruction.mnemonic,
      text: form.text,
      begun: this.begun[form.id] as number,
      completed: this.completed[form.id] as number,
      assisted: this.assisted[form.id] as number,
    }));
  }

  modes(): readonly Counted[] {
    const sums = new Map<string, number>();
    this.modeCounts.forEach((count, key) => {
      if (count > 0) sums.set(modeName(key), (sums.get(modeName(key)) ?? 0) + count);
    });
    return sorted(sums);
  }
  exceptions(): readonly Counted[] {
    return sorted(this.vectors);
  }
  exitCodes(): readonly Counted[] {
    return sorted(this.exits);
  }
  eventTypes(): readonly Counted[] {
    return sorted(this.events);
  }
}

export interface Counted {
  readonly name: string;
  readonly count: number;
}

const sorted = (counts: ReadonlyMap<string, number>): readonly Counted[] =>
  [...counts].map(([name, count]) => ({ name, count })).sort((a, b) => b.count - a.count || (a.name < b.name ? -1 : 1));

function add(counts: Float64Array, index: number): void {
  counts[index] = (counts[index] as number) + 1;
}

function increase<Key>(counts: Map<Key, number>, key: Key): void {
  counts.set(key, (counts.get(key) ?? 0) + 1);
}

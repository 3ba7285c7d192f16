/**
 * Nested exits of a log, each with what L0 made of it: given to L1, or handled in L0.
 *
 * KVM tells of an exit of L2 (`kvm_nested_vmexit`) and, when L1 is to have it, of that (`kvm_nested_vmexit_inject`), before the
 * vCPU runs on (`kvm_entry`). Xen's entry says who runs on. L0 may also give L1 an exit of its own accord, such as an interrupt
 * that came meanwhile; it may handle one exit and give L1 another.
 */
import type { ControlWord } from '../../src/machine/index.js';
import { type ExitFacts, eventVector, isValidEvent, type LogRecord } from './log-event.js';

/** What the log shows between an exit and what became of it. */
export interface Meanwhile {
  /** L0 executed the instruction in L2's place, or served a hypercall. */
  emulated: boolean;
  hypercall: boolean;
  pageFault: boolean;
  /** The MSR of an access that L0 carried out. */
  msr: number | undefined;
}

export interface NestedExit {
  readonly line: number;
  readonly subject: string;
  readonly exit: ExitFacts;
  /** `unknown`: the log ends or has a gap before that shows. */
  readonly outcome: 'reflected' | 'handled' | 'unknown';
  /** L0 gave it to L1 without such an exit of L2. */
  readonly initiative: boolean;
  /** What L1's VMCB asks for; undefined where the log has not told. */
  readonly controls: readonly ControlWord[] | undefined;
  readonly nestedPaging: boolean | undefined;
  readonly meanwhile: Meanwhile;
}

/** L0 delivered an event to L2 itself. */
export interface GivenEvent {
  readonly line: number;
  readonly subject: string;
  readonly what: 'interrupt' | 'exception';
  /** Vector of an interrupt, EXITCODE that an exception's intercept would give. */
  readonly vector: number | undefined;
  readonly code: bigint | undefined;
  readonly controls: readonly ControlWord[] | undefined;
}

export type NestedFact =
  | ({ readonly kind: 'exit' } & NestedExit)
  | ({ readonly kind: 'given' } & GivenEvent)
  /** An exit of L1 itself. */
  | { readonly kind: 'own-exit'; readonly line: number; readonly subject: string; readonly exit: ExitFacts };

interface Subject {
  level: 1 | 2 | undefined;
  controls: readonly ControlWord[] | undefined;
  nestedPaging: boolean | undefined;
  processor: number | undefined;
  /** An exit of L2 whose fate has not shown yet. */
  pending: Pending | undefined;
  /** An exit that may turn out to be L2's in the next line. */
  own: { readonly line: number; readonly exit: ExitFacts } | undefined;
}

interface Pending {
  readonly line: number;
  readonly exit: ExitFacts;
  readonly meanwhile: Meanwhile;
}

const nothingYet = (): Meanwhile => ({ emulated: false, hypercall: false, pageFault: false, msr: undefined });

export class NestedExits {
  private readonly subjects = new Map<string, Subject>();

  /** @param assumed what L1 asks for where the log does not tell. */
  constructor(private readonly assumed?: readonly ControlWord[]) {}

  /** Takes the next record. @returns what it settles. */
  *take(record: LogRecord): Generator<NestedFact, void, void> {
    const { event, line } = record;
    if (event.kind === 'lost') {
      yield* this.forget(event.processor);
      return;
    }
    const subject = this.subjectOf(record);
    const name = record.subject;
    const { pending } = subject;
    const meanwhile = pending?.meanwhile;
    switch (event.kind) {
      case 'entry':
        yield* this.settleOwn(name, subject);
        // Without a word of it that L1 runs on, L2 does.
        yield* this.settle(name, subject, event.nested === false ? 'reflected' : 'handled');
        if (event.nested !== undefined) subject.level = event.nested ? 2 : 1;
        return;
      case 'exit':
        yield* this.settleOwn(name, subject);
        yield* this.settle(name, subject, 'handled');
        subject.own = { line, exit: event };
        return;
      case 'nested-exit':
        // The same exit, told of once more.
        subject.own = undefined;
        yield* this.settle(name, subject, 'handled');
        if (subject.level === 1) subject.controls = undefined;
        subject.level = 2;
        subject.pending = { line, exit: event, meanwhile: nothingYet() };
        return;
      case 'nested-reflected': {
        yield* this.settleOwn(name, subject);
        const same = pending !== undefined && pending.exit.reason.code === event.reason.code;
        if (same) yield* this.settle(name, subject, 'reflected');
        else {
          yield* this.settle(name, subject, 'handled');
          yield this.fact(name, subject, { line, exit: event, meanwhile: nothingYet() }, 'reflected', true);
        }
        subject.level = 1;
        return;
      }
      case 'nested-entry':
        yield* this.settleOwn(name, subject);
        yield* this.settle(name, subject, 'unknown');
        subject.level = 2;
        subject.controls = undefined;
        subject.nestedPaging = event.nestedPaging;
        return;
      case 'intercepts':
        subject.controls = event.controls;
        subject.level = 2;
        return;
      case 'interrupt-given':
      case 'exception-given': {
        const again = event.reinjected === true || cutOff(pending?.exit.intInfo, event);
        if (subject.level !== 2 || again) return;
        const isInterrupt = event.kind === 'interrupt-given';
        // What became of an exit by an exception is said of the exit.
        if (!isInterrupt && pending?.exit.reason.code === event.code) return;
        yield {
          ...{ kind: 'given', line, subject: name, what: isInterrupt ? 'interrupt' : 'exception' },
          ...{ vector: isInterrupt ? event.vector : undefined, code: isInterrupt ? undefined : event.code },
          controls: this.controlsOf(subject),
        };
        return;
      }
      case 'emulated':
        if (meanwhile !== undefined) meanwhile.emulated = true;
        return;
      case 'hypercall':
        if (meanwhile !== undefined) meanwhile.hypercall = true;
        return;
      case 'page-fault':
        if (meanwhile !== undefined) meanwhile.pageFault = true;
        return;
      case 'msr':
        if (meanwhile !== undefined) meanwhile.msr = event.msr;
        return;
      default:
        return;
    }
  }

  /** The log ends here. */
  *finish(): Generator<NestedFact, void, void> {
    yield* this.forget(undefined);
  }

  private subjectOf({ subject, processor }: LogRecord): Subject {
    let found = this.subjects.get(subject);
    if (found === undefined) {
      found = {
        ...{ level: undefined, controls: undefined, nestedPaging: undefined, processor },
        ...{ pending: undefined, own: undefined },
      };
      this.subjects.set(subject, found);
    }
    found.processor = processor;
    return found;
  }

  /** Nothing is known any more of what ran on a processor, or anywhere. */
  private *forget(processor: number | undefined): Generator<NestedFact, void, void> {
    for (const [name, subject] of this.subjects) {
      if (processor !== undefined && subject.processor !== undefined && subject.processor !== processor) continue;
      yield* this.settleOwn(name, subject);
      yield* this.settle(name, subject, 'unknown');
      subject.level = undefined;
      subject.controls = undefined;
      subject.nestedPaging = undefined;
    }
  }

  private *settleOwn(name: string, subject: Subject): Generator<NestedFact, void, void> {
    const { own } = subject;
    if (own === undefined) return;
    subject.own = undefined;
    yield { kind: 'own-exit', subject: name, ...own };
  }

  private *settle(name: string, subject: Subject, outcome: NestedExit['outcome']): Generator<NestedFact, void, void> {
    const { pending } = subject;
    if (pending === undefined) return;
    subject.pending = undefined;
    yield this.fact(name, subject, pending, outcome, false);
  }

  private fact(
    subject: string,
    state: Subject,
    pending: Pending,
    outcome: NestedExit['outcome'],
    initiative: boolean,
  ): NestedFact {
    const { nestedPaging } = state;
    return { kind: 'exit', subject, ...pending, outcome, initiative, nestedPaging, controls: this.controlsOf(state) };
  }

  private controlsOf = ({ controls }: Subject): readonly ControlWord[] | undefined => controls ?? this.assumed;
}

const EXCEPTION_BASE = 0x40n;

/** Whether an exit had cut off this very event, so that it is delivered once more. */
function cutOff(
  intInfo: number | undefined,
  event: Extract<LogRecord['event'], { readonly kind: 'interrupt-given' | 'exception-given' }>,
): boolean {
  if (!isValidEvent(intInfo)) return false;
  const vector = eventVector(intInfo);
  return event.kind === 'interrupt-given' ? event.vector === vector : event.code === EXCEPTION_BASE + BigInt(vector);
}

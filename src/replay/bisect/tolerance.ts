/**
 * What two tapes may differ in, and be taken for the same: events of kinds that are passed over, and status flags that the
 * architecture leaves undefined. Registers are on a tape as what changed; once two differ in something that is passed over, their
 * values are followed on both sides, so that flags which stay different are known, and are no new difference.
 */
import type { JournalRecord, Position } from '../../journal/index.js';
import { decodeDelta, EVENT_FIELDS, R, type Slot, type StatedEvent } from '../../machine/index.js';
import { sameData } from '../fold.js';
import { boundaryBefore } from '../position-pattern.js';
import type { Pair } from './pair.js';
import { STATUS_FLAGS } from './undefined-flags.js';

/** A difference that was passed over. */
export interface PassedOver {
  /** The boundary before the event, on the tape that has it; on the first one when both have. */
  readonly boundary: Position;
  /** The kind of event, or `undefined-flags`. */
  readonly what: string;
  /** The tape that alone has the event. */
  readonly only?: 'first' | 'second' | undefined;
}

export interface ToleranceRules {
  /** Whether events of a type are passed over: what is in them, and that only one tape has them. */
  readonly ignores: (type: string) => boolean;
  /** Whether a run leaves these flags undefined; undefined when such flags are no excuse. */
  readonly leavesUndefined?: ((run: JournalRecord, flags: bigint) => boolean) | undefined;
  /** A register at a boundary of the first tape that both agree on; undefined where nobody can say. */
  readonly registerAt?: ((boundary: Position, vcpu: number, slot: Slot) => bigint | undefined) | undefined;
}

/** What is known of a vCPU's registers on both sides since the first difference. */
interface Followed {
  readonly values: Pair<Map<Slot, bigint>>;
  /** Flags in which the two differ, and may. */
  flags: bigint;
}

/** Registers that change between two places at which both tapes stand. */
export class Stretch {
  private readonly own = new Set<Slot>();

  /** @param isCut one side does in several runs what the other does in one. */
  constructor(readonly isCut = false) {}

  /** Those that count: what an event that is passed over has changed last does not. */
  get changed(): Iterable<Slot> {
    return this.own;
  }

  note(slot: Slot, isPassedOver: boolean): void {
    if (isPassedOver) this.own.delete(slot);
    else this.own.add(slot);
  }
}

export class Tolerance {
  readonly passed: PassedOver[] = [];
  private readonly followed = new Map<number, Followed>();

  constructor(private readonly rules: ToleranceRules) {}

  /** Whether flags differ now that may. */
  get flagsDiffer(): boolean {
    return [...this.followed.values()].some(({ flags }) => flags !== 0n);
  }

  /** Whether an event is passed over where only one tape has it. */
  ignores({ event }: StatedEvent): boolean {
    return this.rules.ignores(event.type);
  }

  /** Whether two events are the same but for what is passed over. Ask for each pair, in order, from the first that differs on. */
  passes(a: JournalRecord, b: JournalRecord): boolean {
    if (a.event.type !== b.event.type || a.retired !== b.retired || a.vcpu !== b.vcpu || a.level !== b.level)
      return false;
    const stretch = new Stretch();
    if (this.ignores(a)) {
      if (!sameData(a.event, b.event)) this.passed.push({ boundary: boundaryBefore(a), what: a.event.type });
      for (const [index, record] of [a, b].entries()) this.follow(index as 0 | 1, record, stretch);
      return true;
    }
    if (!sameFields(a, b)) return false;
    for (const [index, record] of [a, b].entries()) this.follow(index as 0 | 1, record, stretch);
    return this.passesRegisters(a, stretch);
  }

  /** An event that is passed over, and that only one tape has. */
  passOver(index: 0 | 1, record: JournalRecord, stretch: Stretch): void {
    const only = index === 0 ? 'first' : 'second';
    this.passed.push({ boundary: boundaryBefore(record), what: record.event.type, only });
    this.follow(index, record, stretch);
  }

  private followedOf(vcpu: number): Followed {
    let known = this.followed.get(vcpu);
    if (known === undefined) {
      known = { values: [new Map(), new Map()], flags: 0n };
      this.followed.set(vcpu, known);
    }
    return known;
  }

  /** Takes down what an event does to registers. Ask for those of each side in order. */
  follow(index: 0 | 1, record: JournalRecord, stretch: Stretch): void {
    const { vcpu, event } = record;
    if (!('registers' in event)) return;
    const { values } = this.followedOf(vcpu);
    for (const [slot, value] of decodeDelta(event.registers)) {
      values[index].set(slot, value);
      stretch.note(slot, this.ignores(record));
    }
  }

  /**
   * Whether registers are the same behind a stretch, but for what is passed over.
   * @param first what the first tape begins it with. @param last its last run of it.
   */
  passesRegisters(first: JournalRecord, stretch: Stretch, last = first): boolean {
    const boundary = boundaryBefore(first);
    const followed = this.followedOf(first.vcpu);
    for (const slot of stretch.changed) {
      // One of several runs may have undone what another did; and where one side leaves flags as they were, they may still be open.
      const asks = stretch.isCut || (slot === R.rflags && this.rules.leavesUndefined !== undefined);
      const [one, other] = this.valuesOf(followed, slot, asks ? boundary : undefined, first.vcpu);
      // Changed on one side alone, and the same before: they differ now.
      if (one === undefined || other === undefined) return false;
      if (slot !== R.rflags) {
        if (one !== other) return false;
        continue;
      }
      const differ = one ^ other;
      const more = differ & ~followed.flags;
      if (more !== 0n && !this.areOpen(last, more)) return false;
      followed.flags = differ;
    }
    return true;
  }

  /** @param boundary where both sides are asked for what they had there, if nothing is known of one. */
  private valuesOf(
    { values }: Followed,
    slot: Slot,
    boundary: Position | undefined,
    vcpu: number,
  ): Pair<bigint | undefined> {
    const [one, other] = [values[0].get(slot), values[1].get(slot)];
    if (boundary === undefined || (one !== undefined && other !== undefined)) return [one, other];
    const before = this.rules.registerAt?.(boundary, vcpu, slot);
    return [one ?? before, other ?? before];
  }

  private areOpen(run: JournalRecord, flags: bigint): boolean {
    const { leavesUndefined } = this.rules;
    if (leavesUndefined === undefined || run.event.type !== 'cpu.ran' || (flags & ~STATUS_FLAGS) !== 0n) return false;
    if (!leavesUndefined(run, flags)) return false;
    this.passed.push({ boundary: boundaryBefore(run), what: 'undefined-flags' });
    return true;
  }
}

/** All but the registers. */
function sameFields({ event: a }: JournalRecord, { event: b }: JournalRecord): boolean {
  const [first, second] = [a, b] as unknown as Pair<Readonly<Record<string, unknown>>>;
  return EVENT_FIELDS[a.type].every((name) => name === 'registers' || sameData(first[name], second[name]));
}

/**
 * What two tapes may differ in, and be taken for the same: events of kinds that are passed over, and status flags that the
 * architecture leaves undefined. Registers are on a tape as what changed; once two differ in something that is passed over, their
 * values are followed on both sides, so that flags which stay different are known, and are no new difference.
 */
import type { JournalRecord, Position } from '../../journal/index.js';
import { decodeDelta, EVENT_FIELDS, R, type Slot } from '../../machine/index.js';
import { sameData } from '../fold.js';
import type { Pair } from './pair.js';
import { STATUS_FLAGS } from './undefined-flags.js';

/** A difference that was passed over. */
export interface PassedOver {
  /** The boundary before the event. */
  readonly boundary: Position;
  /** The kind of event, or `undefined-flags`. */
  readonly what: string;
}

export interface ToleranceRules {
  /** Whether events of a type are passed over: what is in them, not that they are there. */
  readonly ignores: (type: string) => boolean;
  /** Whether a run leaves these flags undefined; undefined when such flags are no excuse. */
  readonly leavesUndefined?: ((run: JournalRecord, boundary: Position, flags: bigint) => boolean) | undefined;
}

/** What is known of a vCPU's registers on both sides since the first difference. */
interface Followed {
  readonly values: Pair<Map<Slot, bigint>>;
  /** Flags in which the two differ, and may. */
  flags: bigint;
}

export class Tolerance {
  readonly passed: PassedOver[] = [];
  private readonly followed = new Map<number, Followed>();

  constructor(private readonly rules: ToleranceRules) {}

  /** Whether flags differ now that may. */
  get flagsDiffer(): boolean {
    return [...this.followed.values()].some(({ flags }) => flags !== 0n);
  }

  /** Whether two events are the same but for what is passed over. Ask for each pair, in order, from the first that differs on. */
  passes(a: JournalRecord, b: JournalRecord): boolean {
    if (a.event.type !== b.event.type || a.retired !== b.retired || a.vcpu !== b.vcpu || a.level !== b.level)
      return false;
    const boundary = { icount: a.position.icount - BigInt(a.retired), seq: a.position.seq };
    if (this.rules.ignores(a.event.type)) {
      if (!sameData(a.event, b.event)) this.passed.push({ boundary, what: a.event.type });
      this.follow(a, b);
      return true;
    }
    return sameFields(a, b) && this.passesRegisters(a, b, boundary);
  }

  private followedOf(vcpu: number): Followed {
    let known = this.followed.get(vcpu);
    if (known === undefined) {
      known = { values: [new Map(), new Map()], flags: 0n };
      this.followed.set(vcpu, known);
    }
    return known;
  }

  /** @returns the registers that either event changed. */
  private follow(a: JournalRecord, b: JournalRecord): ReadonlySet<Slot> {
    const { values } = this.followedOf(a.vcpu);
    const changed = new Set<Slot>();
    for (const [index, { event }] of [a, b].entries()) {
      if (!('registers' in event)) continue;
      for (const [slot, value] of decodeDelta(event.registers)) {
        values[index as 0 | 1].set(slot, value);
        changed.add(slot);
      }
    }
    return changed;
  }

  private passesRegisters(a: JournalRecord, b: JournalRecord, boundary: Position): boolean {
    const followed = this.followedOf(a.vcpu);
    for (const slot of this.follow(a, b)) {
      const [one, other] = [followed.values[0].get(slot), followed.values[1].get(slot)];
      // Changed on one side alone, and the same before: they differ now.
      if (one === undefined || other === undefined) return false;
      if (slot !== R.rflags) {
        if (one !== other) return false;
        continue;
      }
      const differ = one ^ other;
      const more = differ & ~followed.flags;
      if (more !== 0n && !this.areOpen(a, boundary, more)) return false;
      followed.flags = differ;
    }
    return true;
  }

  private areOpen(run: JournalRecord, boundary: Position, flags: bigint): boolean {
    const { leavesUndefined } = this.rules;
    if (leavesUndefined === undefined || run.event.type !== 'cpu.ran' || (flags & ~STATUS_FLAGS) !== 0n) return false;
    if (!leavesUndefined(run, boundary, flags)) return false;
    this.passed.push({ boundary, what: 'undefined-flags' });
    return true;
  }
}

/** All but the registers. */
function sameFields({ event: a }: JournalRecord, { event: b }: JournalRecord): boolean {
  const [first, second] = [a, b] as unknown as Pair<Readonly<Record<string, unknown>>>;
  return EVENT_FIELDS[a.type].every((name) => name === 'registers' || sameData(first[name], second[name]));
}

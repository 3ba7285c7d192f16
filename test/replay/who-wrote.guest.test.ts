/** The last writer, found by the index of writes, held against a search that looks at every step. */
import { describe, expect, it } from 'vitest';
import { comparePositions, type Position, START } from '../../src/journal/index.js';
import { R, type Slot, type WatchedRange } from '../../src/machine/index.js';
import { covers, indexWrites, lastChange, lastWriter, Timeline, type WriteStep } from '../../src/replay/index.js';
import { recordGuest } from '../support/sessions.js';

const { store } = recordGuest('nested.elf', {
  limit: 60_000,
  checkpointEvery: 20_000,
  commandLine: 'nested.elf rounds=1',
});
const NEVER = () => false;

/** Every step of the tape, in order. */
function* steps(timeline: Timeline): Generator<WriteStep, void, void> {
  timeline.seek(START);
  for (;;) {
    const before = timeline.position;
    if (!timeline.step()) return;
    yield { before, after: timeline.position };
  }
}

/** The last step before `limit` after which `value` is another than before it. */
function lastDifference(timeline: Timeline, limit: Position, value: () => string): WriteStep | undefined {
  let last: WriteStep | undefined;
  timeline.seek(START);
  let old = value();
  for (const step of steps(timeline)) {
    if (comparePositions(step.after, limit) > 0) break;
    const now = value();
    if (now !== old) last = step;
    old = now;
  }
  return last;
}

describe('the last writer', () => {
  const reader = store.read();
  const index = indexWrites(reader, NEVER, { instructions: 3_000n, events: 200n }) ?? [];

  it('is found by an index that covers the tape', () => {
    expect(covers(index, reader.end)).toBe(true);
    expect(covers(index.slice(1), reader.end)).toBe(false);
    expect(covers(index, { icount: reader.end.icount + 1n, seq: reader.end.seq })).toBe(false);
    expect(indexWrites(reader, () => true, { instructions: 100n, events: 9n })).toBeUndefined();
  });

  it('of memory changed it last, or wrote the same again later', () => {
    const timeline = new Timeline(reader);
    const { memory } = timeline.machine;
    timeline.seek(timeline.end);
    const pages = [...new Set(index.slice(1).flatMap(({ pages: named }) => [...named]))].slice(0, 5);
    expect(pages.length).toBeGreaterThan(1);
    for (const [round, page] of pages.entries()) {
      const limit = timeline.seekInstruction((reader.end.icount * BigInt(round + 3)) / 9n);
      const range: WatchedRange = { address: page * 4096 + 8 * (37 * round + 3), length: 8 };
      const bytes = () => Buffer.from(memory.window(range.address, range.length)).toString('hex');
      const found = lastWriter(timeline, index, range, limit);
      const changed = lastDifference(timeline, limit, bytes);
      if (changed === undefined) continue;
      expect(found, `page ${page}`).toBeDefined();
      if (found === undefined) continue;
      expect(comparePositions(found.after, changed.after)).toBeGreaterThanOrEqual(0);
      expect(comparePositions(found.after, limit)).toBeLessThanOrEqual(0);
    }
  });

  it.each<[string, Slot]>([
    ['rbx', R.rbx],
    ['rip', R.rip],
    ['cr3', R.cr3],
    ['efer', R.efer],
    ['guestAsid', R.guestAsid],
  ])('of a register is the step that changed it: %s', (_name, slot) => {
    const timeline = new Timeline(reader);
    for (const part of [2n, 5n, 9n]) {
      const limit = timeline.seekInstruction((reader.end.icount * part) / 9n);
      const value = () => String(timeline.machine.state.vcpus[0]?.registers[slot]);
      const found = lastChange(timeline, reader, { slot, vcpu: 0 }, limit);
      expect(found).toEqual(lastDifference(timeline, limit, value));
    }
  });
});

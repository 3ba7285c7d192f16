/** The last writer, found by the index of writes, held against a search that looks at every step. */
import { describe, expect, it } from 'vitest';
import { comparePositions, type Position, START } from '../../src/journal/index.js';
import { NO_STOP_POINTS, R, type Slot, type WatchedRange } from '../../src/machine/index.js';
import {
  covers,
  finish,
  goingBackToChange,
  indexWrites,
  lastWriter,
  registerValue,
  Timeline,
  type WriteStep,
} from '../../src/replay/index.js';
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
    expect(covers(index, reader)).toBe(true);
    expect(covers(index.slice(1), reader)).toBe(false);
    expect(covers(index, { start: START, end: { icount: reader.end.icount + 1n, seq: reader.end.seq } })).toBe(false);
    expect(indexWrites(reader, () => true, { instructions: 100n, events: 9n })).toBeUndefined();
  });

  /** The last place before `limit` behind a step that wrote to the ranges: by running all of the tape up to there. */
  function lastHit(timeline: Timeline, ranges: readonly WatchedRange[], limit: Position): Position | undefined {
    let last: Position | undefined;
    timeline.seek(START);
    timeline.stopAt({ ...NO_STOP_POINTS, writes: ranges });
    while (timeline.runForward({}, limit).kind === 'hit') {
      if (comparePositions(timeline.position, limit) <= 0) last = timeline.position;
    }
    timeline.stopAt(NO_STOP_POINTS);
    return last;
  }

  it('of memory is the one that running everything finds', () => {
    const timeline = new Timeline(reader);
    const { memory } = timeline.machine;
    const pages = [...new Set(index.slice(1).flatMap(({ pages: named }) => [...named]))];
    expect(pages.length).toBeGreaterThan(1);
    // Words that some instruction changes, whole pages, and words that nobody may ever have written to.
    const asked: WatchedRange[] = pages.flatMap((page, round) => [
      { address: page * 4096, length: 4096 },
      { address: page * 4096 + 8 * (37 * round + 3), length: 8 },
    ]);
    let found = 0;
    for (const [round, range] of asked.entries()) {
      const limit = timeline.seekInstruction((reader.end.icount * BigInt((round % 6) + 3)) / 9n);
      const step = lastWriter(timeline, index, [range], limit);
      expect(step?.after, `${range.address}, ${range.length}`).toEqual(lastHit(timeline, [range], limit));
      if (step === undefined) continue;
      found++;
      const bytes = () => Buffer.from(memory.window(range.address, range.length)).toString('hex');
      const changed = lastDifference(timeline, limit, bytes);
      if (changed !== undefined) expect(comparePositions(step.after, changed.after)).toBeGreaterThanOrEqual(0);
    }
    expect(found).toBeGreaterThan(pages.length / 2);
  });

  it('of memory in several places is the last of them all', () => {
    const timeline = new Timeline(reader);
    const limit = timeline.seek(timeline.end);
    const pages = [...new Set(index.slice(1).flatMap(({ pages: named }) => [...named]))];
    const ranges = pages.slice(0, 3).map((page) => ({ address: page * 4096, length: 4096 }));
    const each = ranges.map((range) => lastWriter(timeline, index, [range], limit)?.after ?? START);
    const [last] = each.sort((a, b) => comparePositions(b, a));
    expect(lastWriter(timeline, index, ranges, limit)?.after).toEqual(last);
  });

  it.each<[string, Slot]>([
    ['rbx', R.rbx],
    ['rip', R.rip],
    ['cr3', R.cr3],
    ['efer', R.efer],
    ['guestAsid', R.guestAsid],
  ])('of a register is the step that changed it: %s', (name, slot) => {
    const timeline = new Timeline(reader);
    for (const part of [2n, 5n, 9n]) {
      const limit = timeline.seekInstruction((reader.end.icount * part) / 9n);
      const value = () => String(timeline.machine.state.vcpus[0]?.registers[slot]);
      const found = finish(goingBackToChange(timeline, registerValue({ name, slot, vcpu: 0 })));
      expect(found).toEqual(lastDifference(timeline, limit, value));
    }
  });
});

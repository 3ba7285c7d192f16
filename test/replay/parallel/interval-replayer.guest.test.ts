/** Intervals replayed in any order come to what a replay in one piece comes to, and meet where they should. */
import { describe, expect, it } from 'vitest';
import type { JournalReader } from '../../../src/journal/index.js';
import { DEFAULT_CONFIG } from '../../../src/machine/index.js';
import {
  finish,
  type IntervalOutcome,
  IntervalReplayer,
  type IntervalStart,
  type Joint,
  Replayer,
} from '../../../src/replay/index.js';
import { MEBIBYTE, type RecordedHow, recordGuest } from '../../support/sessions.js';

/** All intervals between neighbouring checkpoints, in the order that `order` makes. */
function replayIn(reader: JournalReader, order: <Item>(items: readonly Item[]) => readonly Item[]) {
  const starts: IntervalStart[] = [
    { position: reader.start, checkpoint: undefined, isJoint: false },
    ...reader
      .checkpoints()
      .filter(({ position }) => position.seq < reader.end.seq)
      .map(({ id, position }) => ({ position, checkpoint: id, isJoint: true })),
  ];
  const replayer = new IntervalReplayer(reader, undefined);
  const outcomes = new Map<number, IntervalOutcome>();
  for (const index of order([...starts.keys()])) {
    const from = starts[index] as IntervalStart;
    outcomes.set(index, finish(replayer.replaying(from, starts[index + 1]?.position)));
  }
  replayer.close();
  return { starts, outcomes };
}

const backwards = <Item>(items: readonly Item[]): readonly Item[] => items.toReversed();
/** Even ones, then odd ones: no interval goes on from the one before it, and later ones from earlier places. */
const apart = <Item>(items: readonly Item[]): readonly Item[] => [
  ...items.filter((_, index) => index % 2 === 0),
  ...items.filter((_, index) => index % 2 === 1),
];
const forwards = <Item>(items: readonly Item[]): readonly Item[] => items;

const SHORT_SLICES = { sliceInstructions: 5000, checkpointEvery: 20_000 };
const GUESTS: readonly (readonly [file: string, how: RecordedHow])[] = [
  ['compute.elf', { limit: 3_000_000, checkpointEvery: 400_000 }],
  ['nested-timer.elf', { limit: 200_000, ...SHORT_SLICES }],
  ['smp.elf', { config: { ...DEFAULT_CONFIG, ramBytes: 64 * MEBIBYTE, vcpus: 4 }, ...SHORT_SLICES }],
  ['selfmod.elf', { limit: 2_000_000, checkpointEvery: 300_000 }],
];

describe.each(GUESTS)('intervals of %s', (file, how) => {
  const { store } = recordGuest(file, how);
  const reader = store.read();
  const whole = new Replayer(reader).run();

  it.each([
    ['forwards', forwards],
    ['backwards', backwards],
    ['apart', apart],
  ])('are the same %s, and each begins as the one before ended', (name, order) => {
    const { starts, outcomes } = replayIn(reader, order);
    expect(starts.length).toBeGreaterThan(5);
    let digests = 0;
    let events = 0n;
    let reached: Joint | undefined;
    for (const [index, outcome] of [...outcomes].sort(([a], [b]) => a - b)) {
      if (outcome.kind !== 'same') throw new Error(`interval ${index} is ${outcome.kind}`);
      const { entered } = outcome;
      expect(entered !== undefined, 'entered').toBe(name !== 'forwards' || index === 0);
      if (entered !== undefined && reached !== undefined) expect(entered).toEqual(reached);
      ({ reached } = outcome);
      digests += outcome.digests;
      events += BigInt(outcome.events);
    }
    expect(events).toBe(reader.end.seq);
    expect(whole).toMatchObject({ kind: 'identical', digests });
  });
});

describe('an interval', () => {
  const { store } = recordGuest('compute.elf', { limit: 1_500_000, checkpointEvery: 400_000 });
  const reader = store.read();
  const [first, second] = reader.checkpoints();
  if (first === undefined || second === undefined) throw new Error('the tape has no checkpoints');
  const from: IntervalStart = { position: first.position, checkpoint: first.id, isJoint: true };

  it('has a joint that shows a byte of RAM, a register, and what only the loop knows', () => {
    const machineOf = (replayer: IntervalReplayer) =>
      (replayer as unknown as { readonly replayer: Replayer }).replayer.machine;
    const jointAfter = (change: (machine: Replayer['machine']) => void): Joint => {
      const replayer = new IntervalReplayer(reader, undefined);
      finish(replayer.replaying(from, second.position));
      const machine = machineOf(replayer);
      change(machine);
      // It stands at the second one: nothing is run before the joint is taken.
      const next = { position: second.position, checkpoint: second.id, isJoint: true };
      const outcome = finish(replayer.replaying(next, second.position));
      if (outcome.kind !== 'same') throw new Error('it diverged');
      return outcome.reached;
    };
    const usual = jointAfter(() => {});
    const differing = (joint: Joint): readonly string[] =>
      Object.keys(usual).filter((part) => usual[part] !== joint[part]);
    expect(differing(jointAfter(({ memory }) => memory.copyIn(0x50_0000 as never, Uint8Array.of(0x5a))))).toEqual([
      'ram',
    ]);
    expect(
      differing(
        jointAfter((machine) => {
          machine.restore({ ...machine.capture(), interrupted: 0 });
        }),
      ),
    ).toEqual(['loop']);
    expect(
      differing(
        jointAfter((machine) => {
          const point = machine.capture();
          const registers = point.state.vcpus[0]?.registers as unknown as BigUint64Array;
          registers[3] = (registers[3] as bigint) ^ 1n;
          machine.restore(point);
        }),
      ),
    ).toEqual(['cpu']);
  });

  it('says that its checkpoint is gone', () => {
    const replayer = new IntervalReplayer(reader, undefined);
    const gone = { position: { ...first.position, seq: first.position.seq + 1n }, checkpoint: 77, isJoint: true };
    expect(() => finish(replayer.replaying(gone, second.position))).toThrow(/its checkpoint at \d+:\d+ is gone/);
  });
});

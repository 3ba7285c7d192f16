/** Snapshots: any place of a tape as bytes, and the session that goes on from it is the one that was never stopped. */
import { describe, expect, it } from 'vitest';
import {
  formatPosition,
  type JournalReader,
  type JournalRecord,
  memoryStore,
  type Position,
} from '../../../src/journal/index.js';
import {
  decodeSnapshot,
  encodeSnapshot,
  Recorder,
  Replayer,
  type Snapshot,
  stateDigests,
  Timeline,
  takeSnapshot,
} from '../../../src/replay/index.js';
import { recordGuest } from '../../support/sessions.js';

const nested = recordGuest('nested.elf', { limit: 400_000, commandLine: 'nested.elf rounds=3' }).store.read();

function joined(pieces: readonly Uint8Array[]): Uint8Array {
  return new Uint8Array(Buffer.concat(pieces));
}

const throughBytes = (snapshot: Snapshot): Snapshot => decodeSnapshot(joined(encodeSnapshot(snapshot)), 'test');

function snapshotAt(timeline: Timeline, reader: JournalReader): Snapshot {
  return throughBytes(takeSnapshot(timeline.machine, reader, timeline.position));
}

/** Goes on from a snapshot for as long as the tape that it is from. */
function resumed(snapshot: Snapshot, end: Position): JournalReader {
  const store = memoryStore();
  const recorder = Recorder.resume(store, snapshot, { vmtapeVersion: 'test' });
  recorder.endInput();
  let status = recorder.step(Number(end.icount));
  while (status === 'running') status = recorder.step(Number(end.icount));
  recorder.finish();
  return store.read();
}

const text = (record: JournalRecord): string =>
  JSON.stringify(record, (_, value) => (typeof value === 'bigint' ? `${value}n` : value));

/** Places of a tape, spread over it: boundaries and amid runs. */
function places(reader: JournalReader, count: number): readonly bigint[] {
  return Array.from({ length: count }, (_, index) => (reader.end.icount * BigInt(2 * index + 1)) / BigInt(2 * count));
}

describe('a session that goes on from a snapshot', () => {
  it.each(places(nested, 12))('is the one that was never stopped, from instruction %s on', (icount) => {
    const timeline = new Timeline(nested);
    timeline.seekInstruction(icount);
    const snapshot = snapshotAt(timeline, nested);
    const reader = resumed(snapshot, nested.end);
    expect(reader.start).toEqual(timeline.position);
    expect(reader.header.origin?.parent).toBe(nested.historyDigest(timeline.position.seq));
    expect(formatPosition(reader.end)).toBe(formatPosition(nested.end));
    const rest = [...nested.records(timeline.position.seq)];
    expect([...reader.records()].map(text)).toEqual(rest.map(text));
    const outcome = new Replayer(reader).run();
    expect(outcome).toMatchObject({ kind: 'identical' });
  });

  it('is replayed, entered anywhere, and gone back in, to its beginning and no further', () => {
    const original = new Timeline(nested);
    const from = original.seekInstruction(150_001n);
    const reader = resumed(snapshotAt(original, nested), nested.end);
    const timeline = new Timeline(reader);
    expect(timeline.position).toEqual(from);
    for (const icount of [390_000n, 150_001n, 220_123n, 160_000n]) {
      const here = timeline.seekInstruction(icount);
      expect(original.seek(here)).toEqual(here);
      expect(stateDigests(timeline.machine)).toEqual(stateDigests(original.machine));
    }
    timeline.seek(from);
    expect(timeline.stepBack()).toBe(false);
    expect(timeline.runBackward().kind).toBe('end');
    expect(timeline.position).toEqual(from);
  });
});

describe('a snapshot of a machine whose guest programs its timer', () => {
  const picPit = recordGuest('pic-pit.elf').store.read();
  // Between a control word and its count a channel of the 8254 has no load.
  const programmed = [...picPit.records()].filter(
    ({ event }) => event.type === 'pit.programmed' && event.channel === 0,
  );

  it.each(programmed.slice(0, 3).map(({ position }) => position))(
    'is read again, after event %o',
    ({ icount, seq }) => {
      const timeline = new Timeline(picPit);
      timeline.reach({ icount, seq: seq + 1n });
      expect(timeline.machine.state.devices.pit.channels[0]?.load).toBeNull();
      expect(snapshotAt(timeline, picPit).point).toEqual(timeline.machine.capture());
    },
  );
});

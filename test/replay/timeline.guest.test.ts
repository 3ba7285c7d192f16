/** A recording entered anywhere and gone through in both directions, held against plain replays and plain searches. */
import { beforeAll, describe, expect, it } from 'vitest';
import { comparePositions, formatPosition, memoryStore, type Position, START } from '../../src/journal/index.js';
import { DEFAULT_CONFIG, NO_STOP_POINTS, R, type StopPoints } from '../../src/machine/index.js';
import { Cancelled, Replayer, stateDigests, Timeline } from '../../src/replay/index.js';
import { MEBIBYTE, type RecordedHow, type RecordedSession, recordGuest } from '../support/sessions.js';

const hexDigests = (machine: Parameters<typeof stateDigests>[0]): Record<string, string> =>
  Object.fromEntries(
    Object.entries(stateDigests(machine)).map(([part, digest]) => [part, Buffer.from(digest).toString('hex')]),
  );

/** What a replay from the start comes to. */
function replayedTo({ store }: RecordedSession, to: Position): Record<string, string> {
  const replayer = new Replayer(store.read(), { to });
  expect(replayer.run().kind).toBe('reached');
  return hexDigests(replayer.machine);
}

/** Numbers that look random and are the same each time. */
function* numbers(seed: number, below: number): Generator<number, never, void> {
  let state = seed;
  for (;;) {
    state = (Math.imul(state, 1_103_515_245) + 12_345) & 0x7fff_ffff;
    yield state % below;
  }
}

const GUESTS = [
  'nested-timer.elf',
  'smp.elf',
  'exits.elf',
  'paravirt.elf',
  'compute.elf',
  'paging.elf',
  'selfmod.elf',
] as const;
const HOW: Readonly<Record<string, RecordedHow>> = {
  'smp.elf': { config: { ...DEFAULT_CONFIG, ramBytes: 64 * MEBIBYTE, vcpus: 3, quantumInstructions: 700 } },
  'paging.elf': { commandLine: 'paging.elf divide=140 processes=2 frames=130' },
  'selfmod.elf': { commandLine: 'selfmod.elf divide=100' },
  'paravirt.elf': { config: { ...DEFAULT_CONFIG, ramBytes: 64 * MEBIBYTE, paravirt: 'kvm' } },
};
const recordings = new Map<string, RecordedSession>();

function recording(guest: string): RecordedSession {
  const known =
    recordings.get(guest) ?? recordGuest(guest, { checkpointEvery: 200_000, limit: 2_000_000, ...HOW[guest] });
  recordings.set(guest, known);
  return known;
}

describe.each(GUESTS)('a timeline of %s', (guest) => {
  let session: RecordedSession;
  beforeAll(() => {
    session = recording(guest);
  });

  it('comes to the same states as replays from the start, in any order', () => {
    const reader = session.store.read();
    const timeline = new Timeline(reader);
    const random = numbers(7, Number(reader.end.seq));
    for (let round = 0; round < 12; round++) {
      const [record] = reader.records(BigInt(random.next().value));
      if (record === undefined) continue;
      const place = timeline.seek(record.position);
      // A run that ends there may have been stated.
      expect(place.icount).toBeLessThanOrEqual(record.position.icount);
      expect(place.seq).toBeLessThanOrEqual(record.position.seq + 1n);
      expect(timeline.position).toEqual(place);
      expect(hexDigests(timeline.machine), formatPosition(place)).toEqual(replayedTo(session, place));
    }
    expect(timeline.seek(reader.end)).toEqual(reader.end);
    expect(timeline.seek(START)).toEqual(START);
  });

  it('stands amid runs, too', () => {
    const timeline = new Timeline(session.store.read());
    const { icount } = timeline.end;
    for (const part of [3n, 5n, 7n]) {
      timeline.seekInstruction((icount * part) / 11n + 1n);
      const place = timeline.position;
      expect(hexDigests(timeline.machine).cpu).toEqual(replayedTo(session, place).cpu);
    }
  });

  it('stands at an instruction that it is sent to, however events are spread', () => {
    const timeline = new Timeline(session.store.read());
    const random = numbers(11, Number(timeline.end.icount));
    for (let round = 0; round < 25; round++) {
      const icount = BigInt(random.next().value);
      expect(timeline.seekInstruction(icount).icount).toBe(icount);
    }
  });

  it('steps back to where it stepped forwards, over many steps', () => {
    const timeline = new Timeline(session.store.read());
    timeline.seekInstruction(timeline.end.icount / 2n);
    const places: { at: Position; digests: Record<string, string> }[] = [];
    for (let step = 0; step < 75; step++) {
      places.push({ at: timeline.position, digests: hexDigests(timeline.machine) });
      expect(timeline.step()).toBe(true);
    }
    for (const { at, digests } of places.reverse()) {
      expect(timeline.stepBack()).toBe(true);
      expect(timeline.position).toEqual(at);
      expect(hexDigests(timeline.machine)).toEqual(digests);
    }
  });
});

describe('a search', () => {
  const session = () => recording('compute.elf');

  /** Places in a stretch at which a run with stop points stops, found one step at a time. */
  function hitsByStepping(timeline: Timeline, rip: bigint, from: Position, to: Position): string[] {
    const found: string[] = [];
    timeline.seek(from);
    while (comparePositions(timeline.position, to) < 0) {
      timeline.step();
      const here = BigInt(timeline.machine.state.vcpus[0]?.registers[R.rip] ?? 0n);
      if (here === rip && comparePositions(timeline.position, to) < 0) found.push(formatPosition(timeline.position));
    }
    return found;
  }

  it('stops before each instruction at an address, forwards and backwards alike', () => {
    const timeline = new Timeline(session().store.read());
    timeline.seekInstruction(400_000n);
    const rip = timeline.machine.registers[R.rip] as bigint;
    const from = timeline.position;
    const to = timeline.seekInstruction(401_500n);
    const expected = hitsByStepping(timeline, rip, from, to);
    expect(expected.length).toBeGreaterThan(0);
    timeline.stopAt({ ...NO_STOP_POINTS, code: new Set([rip]) });
    timeline.seek(from);
    const forwards: string[] = [];
    while (timeline.runForward({}, to).kind === 'hit') forwards.push(formatPosition(timeline.position));
    expect(forwards).toEqual(expected);
    timeline.seek(to);
    const backwards: string[] = [];
    for (let hit = 0; hit < expected.length; hit++) {
      expect(timeline.runBackward().kind).toBe('hit');
      backwards.push(formatPosition(timeline.position));
    }
    expect(backwards.reverse()).toEqual(expected);
  });

  it('finds the last write to a range of RAM as stepping does', () => {
    const timeline = new Timeline(session().store.read());
    const end = timeline.seekInstruction(300_000n);
    const stack = Number((timeline.machine.registers[R.rsp] as bigint) & 0xffff_ffffn);
    const range = { address: stack - 8, length: 8 };
    const read = () => Buffer.from(timeline.machine.memory.window(range.address, range.length)).toString('hex');
    const value = read();
    const points: StopPoints = { ...NO_STOP_POINTS, writes: [range] };
    timeline.stopAt(points);
    const stop = timeline.runBackward();
    expect(stop).toEqual({ kind: 'hit', hits: [{ kind: 'write', range }], changes: [] });
    const found = timeline.position;
    expect(read()).toBe(value);
    // No step from there on writes to it.
    while (comparePositions(timeline.position, end) < 0) {
      timeline.step();
      expect(read()).toBe(value);
    }
    timeline.seek(found);
    timeline.stepBack();
    expect(timeline.runForward({}, end).kind).toBe('hit');
    expect(timeline.position).toEqual(found);
  });

  it('that finds nothing ends at the start, and knows so the next time', () => {
    const timeline = new Timeline(session().store.read());
    timeline.stopAt({ ...NO_STOP_POINTS, code: new Set([0xdead_beef_0000n]) });
    timeline.seek(timeline.end);
    expect(timeline.runBackward()).toEqual({ kind: 'end' });
    expect(timeline.position).toEqual(START);
    timeline.seek(timeline.end);
    let ticks = 0;
    timeline.runBackward({ tick: () => ++ticks < 0 });
    expect(ticks).toBe(0);
  });

  it('that is given up leaves everything as it was', () => {
    const timeline = new Timeline(session().store.read());
    const place = timeline.seekInstruction(700_001n);
    const before = hexDigests(timeline.machine);
    timeline.stopAt({ ...NO_STOP_POINTS, code: new Set([1n]) });
    let ticks = 0;
    expect(() => timeline.runBackward({ tick: () => ++ticks > 3 })).toThrow(Cancelled);
    expect(timeline.position).toEqual(place);
    expect(hexDigests(timeline.machine)).toEqual(before);
  });
});

describe('a timeline of a tape that was cut', () => {
  it('ends before the step that the tape has but the beginning of', () => {
    const whole = recording('exits.elf').store.read();
    const events = [...whole.records()].map(({ retired, vcpu, level, event }) => ({ retired, vcpu, level, event }));
    for (const length of [4, 101, 102, 103, 104]) {
      const store = memoryStore();
      const { vmtapeVersion, machineVersion, configuration } = whole.header;
      const writer = store.create({ vmtapeVersion, machineVersion, configuration });
      for (const digest of whole.blobDigests()) writer.putBlob(whole.blob(digest) ?? new Uint8Array(0));
      for (const stated of events.slice(0, length)) writer.append(stated);
      writer.close();
      const timeline = new Timeline(store.read());
      const end = timeline.seek(store.read().end);
      expect(end).toEqual(timeline.end);
      expect(comparePositions(end, store.read().end)).toBeLessThanOrEqual(0);
      expect(Number(store.read().end.seq - end.seq)).toBeLessThan(4);
      expect(timeline.stepBack()).toBe(true);
      expect(timeline.step()).toBe(true);
      expect(timeline.step()).toBe(false);
    }
  });
});

/** Where replays begin, stop and find inputs; tapes that end early; tapes that were changed. */
import { beforeAll, describe, expect, it } from 'vitest';
import { type JournalReader, type JournalStore, memoryStore } from '../../src/journal/index.js';
import { type StatedEvent, sPA, UnsupportedError } from '../../src/machine/index.js';
import { foldTape } from '../../src/replay/fold.js';
import {
  eventText,
  LiveSession,
  Recorder,
  Replayer,
  type ReplayOutcome,
  resolvePosition,
  stateDifferences,
  stateDigests,
} from '../../src/replay/index.js';
import { type RecordedSession, recordGuest, sessionOptions } from '../support/sessions.js';

const statedOf = (reader: JournalReader): StatedEvent[] =>
  [...reader.records()].map(({ retired, vcpu, level, event }) => ({ retired, vcpu, level, event }));

/** A tape with the same header and images, but other events. */
function tapeOf(source: JournalStore, events: Iterable<StatedEvent>, end: 'finish' | 'close' = 'finish'): JournalStore {
  const reader = source.read();
  const store = memoryStore();
  const { vmtapeVersion, machineVersion, configuration } = reader.header;
  const writer = store.create({ vmtapeVersion, machineVersion, configuration });
  for (const digest of reader.blobDigests()) writer.putBlob(reader.blob(digest) ?? new Uint8Array(0));
  for (const stated of events) writer.append(stated);
  writer[end]();
  return store;
}

const replay = (store: JournalStore): ReplayOutcome => new Replayer(store.read()).run();

function divergenceOf(outcome: ReplayOutcome) {
  if (outcome.kind !== 'diverged') throw new Error(`the replay is ${outcome.kind}`);
  return outcome.divergence;
}

describe('a replay', () => {
  let session: RecordedSession;
  let events: StatedEvent[];
  beforeAll(() => {
    session = recordGuest('exits.elf');
    events = statedOf(session.store.read());
  });

  it('of a session that its host stopped goes as far, and says so', () => {
    const { store, recorder } = recordGuest('nested-timer.elf', { limit: 123_457 });
    expect(recorder.machine.retired).toBe(123_457);
    expect(replay(store)).toMatchObject({ kind: 'identical', ending: 'stopped', digests: 5 });
  });

  it('begins at the last checkpoint before where it is told to', () => {
    const { store } = recordGuest('compute.elf', { limit: 1_500_000, checkpointEvery: 400_000 });
    const reader = store.read();
    const places = reader.checkpoints().map(({ position }) => position);
    expect(places.map(({ icount }) => icount)).toEqual([400_000n, 800_000n, 1_200_000n, 1_500_000n]);
    for (const [at, place] of places.entries()) {
      const replayer = new Replayer(reader, { from: { icount: place.icount + 100n, seq: place.seq } });
      expect(replayer.start).toEqual(place);
      expect(replayer.run()).toMatchObject({ kind: 'identical', digests: 5 * (places.length - at) });
    }
    const early = new Replayer(reader, { from: { icount: 7n, seq: 1n } });
    expect(early.start.seq).toBe(0n);
  });

  it('from a checkpoint whose RAM is another finds that out', () => {
    const { store } = recordGuest('compute.elf', { limit: 900_000, checkpointEvery: 400_000 });
    const reader = store.read();
    const replayer = new Replayer(reader, { from: { icount: 400_000n, seq: 1000n } });
    const { memory } = replayer.machine;
    memory.write(sPA(0x50_0000), 1, ~memory.read(sPA(0x50_0000), 1) & 0xffn);
    const outcome = replayer.run();
    expect(divergenceOf(outcome).report()).toContain('ram');
  });

  it('of a tape that was cut anywhere is identical up to there', () => {
    for (const length of [0, 1, 3, 4, 100, 101, 102, 103, 104, 2000, events.length - 1]) {
      const cut = tapeOf(session.store, events.slice(0, length), 'close');
      expect(replay(cut), `${length} events`).toMatchObject({ kind: 'identical', tape: 'cut', ending: 'cut' });
    }
  });

  it('finds a complete tape wrong that lacks its last events', () => {
    const divergence = divergenceOf(replay(tapeOf(session.store, events.slice(0, -1))));
    expect(divergence.expected).toBeUndefined();
    expect(divergence.report()).toContain('tape:   ends here');
  });

  it.each([0, 3, 4, 5, 57, 1000])('stops at event %i on demand, in the state that the tape folds to', (seq) => {
    const reader = session.store.read();
    const folded = foldTape(reader, BigInt(seq));
    const replayer = new Replayer(reader, { to: folded.position });
    expect(replayer.run()).toEqual({ kind: 'reached', at: folded.position });
    expect(replayer.compared).toBe(seq);
    expect(replayer.machine.retired).toBe(Number(folded.position.icount));
    expect(stateDifferences(folded.state, replayer.machine.state)).toEqual([]);
  });

  it('stops amid a run on demand', () => {
    const { store } = recordGuest('compute.elf', { limit: 5_000_000 });
    const to = resolvePosition(store.read(), '3456789');
    const replayer = new Replayer(store.read(), { to });
    expect(replayer.run()).toEqual({ kind: 'reached', at: to });
    expect(replayer.machine.retired).toBe(3_456_789);
    expect(replayer.compared).toBe(Number(to.seq));
  });

  it('compares state digests along the way', () => {
    const { store } = recordGuest('compute.elf', { limit: 5_500_000, checkpointEvery: 2_000_000 });
    const positions = [...store.read().digests('ram')].map(({ position }) => position.icount);
    expect(positions).toEqual([2_000_000n, 4_000_000n, 5_500_000n]);
    expect(replay(store)).toMatchObject({ kind: 'identical', digests: 15 });
  });

  it('feeds serial input where it was', () => {
    const input = new TextEncoder().encode('this is longer than the receiver of a 16550');
    const { store } = recordGuest('compute.elf', { input });
    const inputs = statedOf(store.read()).filter(({ event }) => event.type === 'input.serial');
    expect(inputs.length).toBeGreaterThan(0);
    expect(replay(store)).toMatchObject({ kind: 'identical' });
  });

  it.each([
    ['a field', (event: StatedEvent) => ({ ...event, event: { ...event.event, info1: 1n } }), 'svm.vmexit', 'info1'],
    ['the level', (event: StatedEvent) => ({ ...event, level: 1 as const }), 'svm.vmexit', 'level'],
    ['a count', (event: StatedEvent) => ({ ...event, retired: event.retired + 1 }), 'cpu.ran', 'retired'],
  ])('names %s that was changed on the tape', (_, change, type, name) => {
    const at = events.findIndex(({ event }, index) => index > 500 && event.type === type);
    const changed = events.map((stated, index) => (index === at ? (change(stated) as StatedEvent) : stated));
    const divergence = divergenceOf(replay(tapeOf(session.store, changed)));
    expect(divergence.position.seq).toBe(BigInt(at));
    expect(divergence.differences.map((difference) => difference.name)).toEqual([name]);
  });

  it('names a register that was changed on the tape, and shows the code', () => {
    const at = events.findIndex(({ event }, index) => index > 500 && event.type === 'svm.vmexit');
    const changed = events.map((stated, index) => {
      if (index !== at || !('registers' in stated.event)) return stated;
      const registers = stated.event.registers.slice();
      registers[1] = (registers[1] ?? 0) ^ 0x10;
      return { ...stated, event: { ...stated.event, registers } };
    });
    const divergence = divergenceOf(replay(tapeOf(session.store, changed)));
    expect(divergence.differences).toHaveLength(1);
    expect(divergence.level).toBe(2);
    expect(divergence.recent.at(-1)?.position.seq).toBe(BigInt(at - 1));
    const report = divergence.report();
    expect(report).toMatch(/^The replay diverges from the tape at \d+:\d+, in L2\.$/m);
    expect(report).toMatch(/^ {2}tape: {3}L2 #VMEXIT/m);
    expect(report).toMatch(/^ {2}replay: L2 #VMEXIT/m);
    expect(report).toMatch(/0f a2 +cpuid$/m);
    expect(report.split('\n').length).toBeLessThan(60);
  });

  it('finds an event that is missing, one too many, and two exchanged', () => {
    const at = 700;
    const without = events.filter((_, index) => index !== at);
    expect(divergenceOf(replay(tapeOf(session.store, without))).position.seq).toBe(BigInt(at));
    const twice = events.flatMap((stated, index) => (index === at ? [stated, stated] : [stated]));
    expect(divergenceOf(replay(tapeOf(session.store, twice))).position.seq).toBe(BigInt(at + 1));
    const swapped = [...events.slice(0, at), events[at + 1], events[at], ...events.slice(at + 2)] as StatedEvent[];
    expect(divergenceOf(replay(tapeOf(session.store, swapped))).position.seq).toBe(BigInt(at));
  });

  it('finds a state digest that differs where all events are the same', () => {
    const store = tapeOf(session.store, events, 'close');
    const writer = store.continue();
    const digests = stateDigests(session.recorder.machine);
    writer.appendDigest('cpu', digests.cpu);
    writer.appendDigest(
      'ram',
      digests.ram.map((byte) => byte ^ 1),
    );
    writer.finish();
    const divergence = divergenceOf(replay(store));
    expect(divergence.cause).toEqual({ kind: 'digest', parts: ['ram'] });
    expect(divergence.summary).toMatch(/^All events up to \d+:\d+ are the same, but not the state: ram\.$/);
  });

  it('tells of a machine that ends where the tape goes on', () => {
    const longer = [...events, ...events.slice(-2)];
    const divergence = divergenceOf(replay(tapeOf(session.store, longer)));
    expect(divergence.summary).toMatch(/and the tape goes on: the session has ended: debug-exit, status \d+\./);
  });

  it('tells of a machine that fails', () => {
    const { store } = recordGuest('compute.elf', { limit: 3_000_000 });
    const replayer = new Replayer(store.read());
    while (replayer.machine.retired < 1_000_000) replayer.step();
    Object.defineProperty(replayer.machine, 'advance', {
      value: () => {
        throw new UnsupportedError('no such thing');
      },
    });
    expect(divergenceOf(replayer.run()).summary).toContain('the machine fails: no such thing');
  });

  it('is refused for another machine model, configuration, event codec or missing image', () => {
    const reader = session.store.read();
    const other = (change: object): JournalReader =>
      Object.create(reader, { header: { value: { ...reader.header, ...change } } }) as JournalReader;
    expect(() => new Replayer(other({ machineVersion: '0' }))).toThrow(/recorded on machine model 0/);
    expect(() => new Replayer(other({ configuration: {} }))).toThrow(/describes no machine/);
    const { configuration } = reader.header;
    expect(() => new Replayer(other({ configuration: { ...configuration, sliceInstructions: 0 } }))).toThrow(
      /a slice of 0/,
    );
    const bare = memoryStore();
    const writer = bare.create(reader.header);
    for (const stated of events.slice(0, 10)) writer.append(stated);
    writer.finish();
    expect(() => replay(bare)).toThrow(/it has no image [0-9a-f]{64}/);
  });
});

describe('a recorder', () => {
  it('makes no tape of an image that is refused', () => {
    const store = memoryStore();
    const options = { ...sessionOptions('exits.elf'), image: new Uint8Array(10) };
    expect(() => Recorder.boot(store, options)).toThrow(/no Multiboot header/);
    expect(() => store.read()).toThrow(/no such tape/);
  });

  it('records the same transitions at the same places whatever the length of a slice', () => {
    const transitions = (sliceInstructions: number): string[] => {
      const { store } = recordGuest('nested-timer.elf', { sliceInstructions });
      const records = [...store.read().records()].filter(({ event }) => event.type !== 'cpu.ran');
      return records.map((record) => `${record.position.icount} ${eventText(record)}`);
    };
    const whole = transitions(1_000_000_000);
    expect(whole.length).toBeGreaterThan(500);
    expect(transitions(12_345)).toEqual(whole);
  });

  it('counts', () => {
    const { recorder, store } = recordGuest('exits.elf');
    const { end } = store.read();
    expect(recorder.stats).toMatchObject({ instructions: Number(end.icount), events: end.seq });
    expect(recorder.stats.exits).toBeGreaterThan(1000);
  });

  it('leaves a tape that it gives up readable and cut', () => {
    const store = memoryStore();
    const recorder = Recorder.boot(store, sessionOptions('compute.elf'));
    recorder.step();
    recorder.abandon();
    expect(store.read().state).toBe('cut');
    expect(replay(store)).toMatchObject({ kind: 'identical', ending: 'cut' });
  });
});

describe('a live session', () => {
  it('runs without a tape, and states what a recorded one does', () => {
    const stated: StatedEvent[] = [];
    const session = LiveSession.boot(sessionOptions('exits.elf'), (event) => stated.push(event));
    session.endInput();
    while (session.step() === 'running');
    expect(stated).toEqual(statedOf(recordGuest('exits.elf').store.read()));
  });
});

/** The sample guest of KVM's interface, with a host that takes pages and time: what it prints, and that it replays. */
import { beforeAll, describe, expect, it } from 'vitest';
import { DEFAULT_CONFIG, type HostInput, type StatedEvent } from '../../src/machine/index.js';
import {
  FoldChecker,
  foldHistory,
  foldTape,
  Replayer,
  type ScheduledInput,
  stateDifferences,
} from '../../src/replay/index.js';
import { sessionConfig } from '../../src/replay/session.js';
import { guestOutput, MEBIBYTE, type RecordedSession, recordGuest } from '../support/sessions.js';

/** What test/guests/README.md asks of the host. */
const HOST: readonly ScheduledInput[] = [
  {
    instruction: 1_000,
    input: { type: 'input.pages', address: 0x200_0000, bytes: 0x1_0000, present: false, latency: 50_000 },
  },
  { instruction: 2_000, input: { type: 'input.stolen', nanoseconds: 3_000_000 } },
  { instruction: 2_000_000, input: { type: 'input.paused' } },
];
const config = { ...DEFAULT_CONFIG, ramBytes: 64 * MEBIBYTE, paravirt: 'kvm' } as const;
const record = () => recordGuest('paravirt.elf', { config, hostInputs: HOST, checkpointEvery: 300_000 });

describe('the guest of KVM’s interface', () => {
  let session: RecordedSession;
  beforeAll(() => {
    session = record();
  });

  it('prints what is expected, and succeeds', () => {
    expect(session.output.replaceAll('\r', '')).toBe(guestOutput('paravirt'));
    expect(session.recorder.machine.state.ended).toEqual({ reason: 'debug-exit', status: 1 });
  });

  it('finds nothing of it on bare hardware', () => {
    expect(recordGuest('paravirt.elf').output.replaceAll('\r', '')).toBe('no hypervisor\n');
  });

  it('is told to the tape’s header, and what the host did stands where it happened', () => {
    const reader = session.store.read();
    expect(sessionConfig(reader.header).machine.paravirt).toBe('kvm');
    const inputs = [...reader.records()].filter(({ event }) => HOST.some(({ input }) => input.type === event.type));
    expect(inputs.map(({ position, event }) => [Number(position.icount), event])).toEqual(
      HOST.map(({ instruction, input }) => [instruction, input]),
    );
  });

  it('gives the same tape whenever it is recorded', () => {
    const bytes = ({ store }: RecordedSession) => [...store.read().chunks()].map(({ raw }) => raw);
    expect(bytes(record())).toEqual(bytes(session));
  });

  it('replays identically, and folds to the machine at every boundary', () => {
    const reader = session.store.read();
    const fold = new FoldChecker(reader);
    const replayer = new Replayer(reader, { observe: fold.check });
    fold.watch(replayer.machine);
    expect(replayer.run()).toMatchObject({ kind: 'identical', ending: 'ended' });
    expect(fold.checked).toBe(Number(reader.end.seq));
    expect(stateDifferences(foldTape(reader).state, session.recorder.machine.state)).toEqual([]);
  });

  it('folds through Immer to the same state', () => {
    const reader = session.store.read();
    const last = [...foldHistory(reader)].at(-1);
    expect(stateDifferences(last?.state as never, foldTape(reader).state)).toEqual([]);
  });

  it('replays to any boundary at which a page is on its way', () => {
    const reader = session.store.read();
    const missed = [...reader.records()].filter(({ event }) => event.type === 'paravirt.page-missed');
    expect(missed.length).toBeGreaterThan(6);
    for (const { position } of [missed.at(1), missed.at(-1)].filter((record) => record !== undefined)) {
      const to = { icount: position.icount, seq: position.seq + 1n };
      const replayer = new Replayer(reader, { to });
      expect(replayer.run().kind).toBe('reached');
      expect(stateDifferences(foldTape(reader, to.seq).state, replayer.machine.state)).toEqual([]);
      expect(replayer.machine.state.paravirt?.arrivals).toHaveLength(1);
    }
  });

  it('has the state of the interface in its digests', () => {
    const reader = session.store.read();
    const replayer = new Replayer(reader, {
      observe: ({ event }: StatedEvent) => {
        if (event.type !== 'input.paused') return;
        const [vcpu] = replayer.machine.state.paravirt?.vcpus ?? [];
        if (vcpu !== undefined) vcpu.pollControl = 0n; // a change that no event tells, nor RAM shows
      },
    });
    const outcome = replayer.run();
    expect(outcome.kind).toBe('diverged');
    expect(outcome.kind === 'diverged' && outcome.divergence.cause).toMatchObject({
      ...{ kind: 'digest', parts: expect.arrayContaining(['machine']) },
    });
  });
});

describe('inputs of the host', () => {
  const refused: readonly (readonly [HostInput, 'none' | 'kvm', string])[] = [
    [{ type: 'input.paused' }, 'none', '--paravirt kvm'],
    [{ type: 'input.stolen', nanoseconds: 0 }, 'kvm', 'input.stolen'],
    [{ type: 'input.pages', address: 5, bytes: 4096, present: true, latency: 0 }, 'kvm', 'input.pages'],
  ];
  it.each(refused)('%j is refused by a machine with %s before there is a tape', (input, paravirt, named) => {
    const hostInputs = [{ instruction: 5, input }];
    expect(() => recordGuest('paravirt.elf', { config: { ...config, paravirt }, hostInputs })).toThrow(named);
  });

  it('come in order of their instructions, and those at one place in theirs', () => {
    const stolen = (nanoseconds: number): HostInput => ({ type: 'input.stolen', nanoseconds });
    const hostInputs = [
      { instruction: 500, input: stolen(1) },
      { instruction: 0, input: stolen(2) },
      { instruction: 500, input: stolen(3) },
      { instruction: 1_000_000_000, input: stolen(4) },
    ];
    const { store } = recordGuest('hello64.elf', { config, hostInputs });
    const found = [...store.read().records()].filter(({ event }) => event.type === 'input.stolen');
    expect(found.map(({ position, event }) => [Number(position.icount), event])).toEqual([
      [0, stolen(2)],
      [500, stolen(1)],
      [500, stolen(3)],
    ]);
    expect(new Replayer(store.read()).run().kind).toBe('identical');
  });
});

/** The real gdb on a guest of three vCPUs: its threads. And the packets of a step that has to wait for its turn. */
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { type Position, selectRecords } from '../../../src/journal/index.js';
import { DEFAULT_CONFIG, NO_STOP_POINTS, R } from '../../../src/machine/index.js';
import { Timeline } from '../../../src/replay/index.js';
import { MEBIBYTE, type RecordedSession, recordGuest } from '../../support/sessions.js';
import { RemoteClient, type Served, serve } from './client.js';
import { GDB_VERSION, printed, runGdb } from './gdb.js';

const VCPUS = 3;
let session: RecordedSession;
let served: Served;
/** Turns of vCPU 2, by the places at which they begin. */
let turns: readonly Position[];
beforeAll(async () => {
  const config = { ...DEFAULT_CONFIG, ramBytes: 64 * MEBIBYTE, vcpus: VCPUS, quantumInstructions: 700 };
  session = recordGuest('smp.elf', { limit: 70_000, checkpointEvery: 20_000, config });
  served = await serve(session);
  const scheduled = [...selectRecords(session.store.read(), { kind: 'vcpu.scheduled' })];
  turns = scheduled
    .filter(({ vcpu }) => vcpu === 2)
    .map(({ position: { icount, seq } }) => ({ icount, seq: seq + 1n }));
});
afterAll(() => served?.close());

/** Looks at a place of the tape with a timeline of its own. */
function at<Result>(place: Position, look: (timeline: Timeline) => Result): Result {
  const timeline = new Timeline(session.store.read());
  try {
    timeline.seek(place);
    return look(timeline);
  } finally {
    timeline.close();
  }
}

const registerOf = ({ machine: { state } }: Timeline, vcpu: number, slot: keyof typeof R): string =>
  `0x${(state.vcpus[vcpu]?.registers[R[slot]] ?? 0n).toString(16)}`;

const digestsIn = (output: string): string[] =>
  [...output.matchAll(/^(cpu|vmcb|devices|machine|ram) +([0-9a-f]{64})$/gm)].map(([line]) => line);

describe.skipIf(GDB_VERSION === undefined)(`${GDB_VERSION ?? 'gdb'} and three vCPUs`, () => {
  const turn = (index: number): Position => turns[index] as Position;
  const goto = ({ icount, seq }: Position): string[] => [
    `monitor goto ${icount}:${seq}`,
    'maintenance flush register-cache',
  ];

  it('shows a thread for each, with its own registers', async () => {
    const place = turn(3);
    const output = await runGdb(served, [
      ...goto(place),
      'info threads',
      ...[1, 2, 3].flatMap((thread) => [`thread ${thread}`, 'p/x $rip', 'p/x $rsp', 'p/x $cr3']),
    ]);
    expect([...output.matchAll(/Thread 1\.(\d) \(L1 vCPU (\d), runs\)/g)].map(([, , vcpu]) => vcpu)).toEqual(
      expect.arrayContaining(['0', '1', '2']),
    );
    const expected = at(place, (timeline) =>
      Array.from({ length: VCPUS }, (_, vcpu) => [
        registerOf(timeline, vcpu, 'rip'),
        registerOf(timeline, vcpu, 'rsp'),
        registerOf(timeline, vcpu, 'cr3'),
      ]),
    );
    expect(printed(output)).toEqual(expected.flat());
    expect(new Set(expected.map(([, rsp]) => rsp)).size).toBe(VCPUS);
  });

  it('breaks for one vCPU where others pass', async () => {
    // Code that another vCPU comes through first, and vCPU 2 later.
    const start = turn(2);
    const { address, first } = at(start, (timeline) => {
      const address = timeline.machine.nextInstruction;
      timeline.stopAt({ ...NO_STOP_POINTS, code: new Set([address]) });
      const hits: number[] = [];
      while (timeline.runForward().kind === 'hit' && hits.length < 200) {
        hits.push(timeline.machine.vcpu);
        if (timeline.machine.vcpu === 2 && hits.some((vcpu) => vcpu !== 2)) break;
      }
      expect(new Set(hits).size).toBeGreaterThan(1);
      return { address: `0x${address.toString(16)}`, first: hits.findIndex((vcpu) => vcpu !== 2) };
    });
    expect(first).toBeGreaterThanOrEqual(0);
    const plain = await runGdb(served, [...goto(start), `break *${address}`, ...Array(first + 1).fill('continue')]);
    expect(plain.match(/Thread (\d) hit Breakpoint 1/g)?.at(-1)).not.toContain('Thread 3');
    const output = await runGdb(served, [
      ...[...goto(start), `break *${address} thread 3`],
      ...['continue', 'continue', 'p/x $pc', 'reverse-continue', 'p/x $pc', 'info threads'],
    ]);
    expect(output.match(/Thread (\d) hit Breakpoint 1/g)).toEqual(Array(3).fill('Thread 3 hit Breakpoint 1'));
    expect(printed(output)).toEqual([address, address]);
    expect(output).toMatch(/\* 3 +Thread 1\.3/);
  });

  it('steps over the end of a turn and back, to the same state', async () => {
    const [{ icount }] = [turn(4)];
    // Some instructions ahead of the turn, by the thread whose turn it still is.
    const start = icount - 5n;
    const thread = at({ icount: start, seq: 0n }, (timeline) => {
      timeline.seekInstruction(start);
      return timeline.machine.vcpu + 1;
    });
    const steps = (command: string): string[] => Array<string>(9).fill(command);
    const output = await runGdb(served, [
      ...[`monitor goto ${start}`, 'maintenance flush register-cache', `thread ${thread}`, 'monitor digest'],
      ...[...steps('stepi'), 'monitor where', 'info threads', 'monitor digest'],
      ...[...steps('reverse-stepi'), 'monitor where', 'monitor digest'],
      ...[...steps('stepi'), 'monitor digest'],
    ]);
    const digests = digestsIn(output);
    expect(digests).toHaveLength(20);
    // It is the same thread all the time, and the turns of others have passed.
    expect(output).toMatch(new RegExp(`\\* ${thread} +Thread 1\\.${thread}`));
    const places = [...output.matchAll(/^(\d+)(?::\d+)? {2}vCPU \d runs/gm)].map(([, place]) => BigInt(place ?? 0));
    expect(places.at(-2)).toBeGreaterThan(icount);
    expect(places.at(-1)).toBe(start);
    expect(digests.slice(10, 15)).toEqual(digests.slice(0, 5));
    expect(digests.slice(5, 10)).not.toEqual(digests.slice(0, 5));
    expect(digests.slice(15)).toEqual(digests.slice(5, 10));
  });
});

describe('a step of a thread', () => {
  it('waits for the turn of that thread, and no longer', async () => {
    const remote = await RemoteClient.attached(served.address);
    const place = turns.at(-20) as Position;
    await remote.monitor(`goto ${place.icount}:${place.seq}`);
    // vCPU 2 has the turn; vCPU 1 steps.
    const before = at(place, (timeline) => timeline.machine.state.vcpus[1]?.registers[R.rip] as bigint);
    expect(await remote.ask('vCont;s:p1.2')).toMatch(/^T05thread:p1\.2;/);
    const { machine } = served.debuggee;
    expect(machine.vcpu).toBe(1);
    expect(machine.registers[R.rip]).not.toBe(before);
    const turn = at(served.debuggee.position, (timeline) => {
      timeline.stepBack();
      return { rip: timeline.machine.state.vcpus[1]?.registers[R.rip], vcpu: timeline.machine.vcpu };
    });
    // One instruction before, it stood where it had waited.
    expect(turn).toEqual({ rip: before, vcpu: 1 });
    expect(await remote.ask('vCont;s:p1.9')).toMatch(/^E/);
    // The others go on when all do, and whoever comes to a breakpoint first stops.
    expect(await remote.ask('vCont;c:p1.-1')).toMatch(/^T05thread:p1\.\d;replaylog:end;/);
    remote.close();
  });
});

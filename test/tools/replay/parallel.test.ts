/** `vmtape replay --jobs`: says what a replay by one process says, of good tapes and of others. */
import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import Database from 'better-sqlite3';
import { describe, expect, it } from 'vitest';
import {
  type CheckpointInput,
  formatPosition,
  type JournalStore,
  type JournalWriter,
  sqliteStore,
} from '../../../src/journal/index.js';
import type { StatedEvent } from '../../../src/machine/index.js';
import { Replayer, resolvePosition } from '../../../src/replay/index.js';
import { decodePoint, encodePoint } from '../../../src/replay/point-codec.js';
import { recordGuest } from '../../support/sessions.js';
import { STACK, startVmtape, temporaryFolder, until, vmtape } from '../vmtape.js';

const folder = temporaryFolder();

/** What a writer is given instead of what the machine states. */
interface Falsification {
  readonly event?: (stated: StatedEvent, seq: number) => StatedEvent;
  readonly checkpoint?: (checkpoint: CheckpointInput, index: number) => CheckpointInput;
}

/** A tape of `exits.elf` with some thirty checkpoints. */
function record(name: string, { event, checkpoint }: Falsification = {}): string {
  const file = join(folder, name);
  const store = sqliteStore(file);
  const falsifying: JournalStore = {
    read: () => store.read(),
    continue: () => store.continue(),
    create: (description) => {
      const writer = store.create(description);
      let [events, checkpoints] = [0, 0];
      return new Proxy(writer, {
        get: (_, property: keyof JournalWriter) => {
          if (property === 'append') return (stated: StatedEvent) => writer.append(event?.(stated, events++) ?? stated);
          if (property === 'putCheckpoint')
            return (input: CheckpointInput) => writer.putCheckpoint(checkpoint?.(input, checkpoints++) ?? input);
          const value = writer[property];
          return typeof value === 'function' ? value.bind(writer) : value;
        },
      });
    },
  };
  recordGuest('exits.elf', {
    ...{ store: falsifying, commandLine: 'exits.elf n=1500', sliceInstructions: 1000, checkpointEvery: 2000 },
  });
  return file;
}

/** The answer as JSON, without what is another each time. */
function answer(args: readonly string[]): { readonly status: number | null; readonly said: Record<string, unknown> } {
  const { status, stdout, stderr } = vmtape(['replay', ...args, '--json']);
  expect(stderr).not.toMatch(STACK);
  const { seconds: _, mips: __, jobs: ___, ...said } = JSON.parse(stdout) as Record<string, unknown>;
  return { status, said };
}

/** What a replay by one process says of a tape that is not the same, and how much it compared. */
function reportOf(tape: string) {
  const replayer = new Replayer(sqliteStore(tape).read());
  const outcome = replayer.run();
  if (outcome.kind !== 'diverged') throw new Error('the tape is the same');
  const { divergence } = outcome;
  return { at: formatPosition(divergence.position), report: divergence.report(), events: replayer.compared };
}

const withRegister = (checkpoint: CheckpointInput): CheckpointInput => {
  const point = decodePoint(checkpoint.state);
  const registers = point.state.vcpus[0]?.registers as unknown as BigUint64Array;
  registers[9] = (registers[9] as bigint) ^ 1n;
  return { ...checkpoint, state: encodePoint(point) };
};

describe('vmtape replay --jobs', () => {
  it('says of a good tape what one process says, also of a part of it', () => {
    const tape = record('good.vmtape');
    const alone = answer([tape]);
    expect(alone).toMatchObject({ status: 0, said: { outcome: 'identical' } });
    expect(answer([tape, '--jobs', '2'])).toEqual(alone);
    const part = answer([tape, '--from', '7000', '--to', 'vmexit[1200]', '--jobs', '2']);
    const reader = sqliteStore(tape).read();
    const from = { icount: 7000n, seq: reader.chunkAtIcount(7000n)?.end.seq ?? 0n };
    const replayer = new Replayer(reader, { from, to: resolvePosition(reader, 'vmexit[1200]') });
    expect(replayer.run()).toMatchObject({ kind: 'reached' });
    const [start, events] = [formatPosition(replayer.start), replayer.compared - Number(replayer.start.seq)];
    expect(part).toMatchObject({ status: 0, said: { outcome: 'identical', start, events } });
  });

  it('reports the first of two differences as one process does', () => {
    let exits = 0;
    const late = (stated: StatedEvent): StatedEvent =>
      stated.event.type === 'svm.vmexit' && ++exits > 700
        ? { ...stated, event: { ...stated.event, info1: 1n } }
        : stated;
    const tape = record('changed.vmtape', { event: late });
    const report = reportOf(tape);
    expect(answer([tape, '--jobs', '2'])).toMatchObject({ status: 1, said: { outcome: 'diverged', ...report } });
  });

  it('finds RAM that is another at a checkpoint, as one process does', () => {
    const changed = (checkpoint: CheckpointInput, index: number): CheckpointInput => {
      if (index === 12) checkpoint.contents[0] = (checkpoint.contents[0] as number) ^ 1;
      return checkpoint;
    };
    const tape = record('ram.vmtape', { checkpoint: changed });
    const report = reportOf(tape);
    expect(report.report).toContain('ram');
    expect(answer([tape, '--jobs', '2'])).toMatchObject({ status: 1, said: { outcome: 'diverged', ...report } });
  });

  it('finds a checkpoint that holds another machine, where one process does not look', () => {
    const tape = record('checkpoint.vmtape', { checkpoint: (each) => withRegister(each) });
    expect(new Replayer(sqliteStore(tape).read()).run()).toMatchObject({ kind: 'identical' });
    const { status, stdout, stderr } = vmtape(['replay', tape, '--jobs', '2']);
    expect({ status, stdout }).toEqual({ status: 3, stdout: '' });
    expect(stderr).toMatch(/damaged: .*checkpoints.*the checkpoint is not the machine that the tape leads to: cpu\./);
    expect(stderr).toContain('replay without --jobs');
  });

  it('ends with the status of damage where a checkpoint is damaged', () => {
    const tape = record('damaged.vmtape');
    const database = new Database(tape);
    database.exec('UPDATE checkpoints SET state = zeroblob(100) WHERE id > 3');
    database.close();
    const { status, stdout, stderr } = vmtape(['replay', tape, '--jobs', '2']);
    expect({ status, stdout }).toEqual({ status: 3, stdout: '' });
    expect(stderr).toContain('the checkpoint does not match its seal');
  });

  it('ends with a word when a process of it is killed', async () => {
    const tape = join(folder, 'long.vmtape');
    recordGuest('exits.elf', {
      store: sqliteStore(tape),
      commandLine: 'exits.elf n=60000',
      checkpointEvery: 'adaptive',
    });
    const { child, ended } = startVmtape(['replay', tape, '--jobs', '2']);
    const others = () =>
      readFileSync(`/proc/${child.pid}/task/${child.pid}/children`, 'utf8').split(' ').filter(Boolean);
    await until(() => others().length === 1);
    process.kill(Number(others()[0]), 'SIGKILL');
    const { status, stderr } = await ended;
    expect(status).toBe(4);
    expect(stderr).toMatch(/vmtape: a process that replays a part of the tape was ended from outside/);
  });

  it.each([
    [['--jobs', '0'], '--jobs'],
    [['--jobs', '2', '--serial'], '--serial needs the session in its order'],
  ])('refuses %j', (flags, said) => {
    const { status, stderr } = vmtape(['replay', 'none.vmtape', ...flags]);
    expect(status).toBe(2);
    expect(stderr).toContain(said);
  });
});

/** What the operating system can do to a recording: kill it, fill its disk, start another. */
import { type ChildProcess, spawn, spawnSync } from 'node:child_process';
import { once } from 'node:events';
import { existsSync, readdirSync, statSync } from 'node:fs';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { describe, expect, it, onTestFinished } from 'vitest';
import { type Position, parsePosition } from '../../src/journal/record.js';
import { sqliteStore } from '../../src/journal/sqlite-store.js';
import { verifyTape } from '../../src/journal/verify.js';
import { DESCRIPTION, errorOf, expectSame, nestedEvents, statedEvents, temporaryDirectory } from './support.js';

const JOURNAL = new URL('../../dist/src/journal/index.js', import.meta.url).href;

/** Makes the events of `nestedEvents` that are runs; a child process has only the compiled sources. */
const CHILD = `
  import { formatPosition, sqliteStore } from ${JSON.stringify(JOURNAL)};
  const [file, thread] = process.argv.slice(1);
  const store = sqliteStore(file, { thread: thread === 'threaded' });
  const event = (index) => ({
    retired: 1 + (index % 500), vcpu: 0, level: 2,
    event: { type: 'cpu.ran', registers: new Uint8Array(900).map((_, at) => at * index) },
  });
  const say = (text) => process.stdout.write(text + '\\n');
`;

const expectedEvents = (count: number) =>
  Array.from({ length: count }, (_, index) => ({
    ...{ retired: 1 + (index % 500), vcpu: 0, level: 2 },
    event: { type: 'cpu.ran', registers: new Uint8Array(900).map((_value, at) => at * index) },
  }));

function start(program: string, file: string, mode: string): ChildProcess {
  const child = spawn(process.execPath, ['--input-type=module', '-e', CHILD + program, file, mode], {
    stdio: ['ignore', 'pipe', 'inherit'],
  });
  onTestFinished(() => {
    child.kill('SIGKILL');
  });
  return child;
}

/** The next line that the child writes. */
async function line(child: ChildProcess): Promise<string> {
  const [data] = (await once(child.stdout as NodeJS.ReadableStream, 'data')) as [Buffer];
  return data.toString().trim().split('\n').at(-1) ?? '';
}

async function kill(child: ChildProcess): Promise<void> {
  const exited = once(child, 'exit');
  child.kill('SIGKILL');
  await exited;
}

const FOREVER = `
  const writer = store.create({ vmtapeVersion: '0.1.0', machineVersion: '1', configuration: {} });
  for (let index = 0; ; index++) {
    writer.append(event(index));
    if (index === 5000) say('ready');
    if (index > 5000 && index % 20 === 0) Atomics.wait(new Int32Array(new SharedArrayBuffer(4)), 0, 0, 1);
  }
`;
/** A hundred events, then nothing but waiting: the thread must commit them by itself. */
const THEN_BUSY = `
  const writer = store.create({ vmtapeVersion: '0.1.0', machineVersion: '1', configuration: {} });
  for (let index = 0; index < 100; index++) writer.append(event(index));
  say('ready');
  Atomics.wait(new Int32Array(new SharedArrayBuffer(4)), 0, 0);
`;
const HOLD = `
  const writer = store.create({ vmtapeVersion: '0.1.0', machineVersion: '1', configuration: {} });
  writer.append(event(0));
  writer.flush();
  say('ready');
  setInterval(() => {}, 1000);
`;
const UNTIL_FULL = `
  let written = 0;
  const writer = store.create({ vmtapeVersion: '0.1.0', machineVersion: '1', configuration: {} });
  try {
    for (; written < 200000; written++) writer.append(event(written * 7919));
    say('no error');
  } catch (error) {
    const again = (() => { try { writer.append(event(0)); } catch (second) { return second === error; } })();
    say(JSON.stringify([error.name, error.exitStatus, error.message, formatPosition(error.storedTo), again]));
  }
  try { writer.close(); } catch {}
`;

describe('a recording that is killed', () => {
  for (const mode of ['threaded', 'in thread']) {
    it(`keeps all but its last group, and can be continued (${mode})`, async () => {
      const file = join(temporaryDirectory(), 'a.vmtape');
      const child = start(FOREVER, file, mode);
      expect(await line(child)).toBe('ready');
      await sleep(1000);
      await kill(child);
      const store = sqliteStore(file);
      const cut = store.read();
      expect(cut.state).toBe('cut');
      const count = Number(cut.end.seq);
      expect(count).toBeGreaterThan(5000);
      expectSame(statedEvents(cut), expectedEvents(count));
      cut.close();
      expect(verifyTape(file).damage).toEqual([]);
      const writer = store.continue();
      const more = [...nestedEvents(50)];
      for (const stated of more) writer.append(stated);
      writer.finish();
      const reader = store.read();
      expectSame(statedEvents(reader).slice(count), more);
      reader.close();
      expect(verifyTape(file)).toMatchObject({ state: 'complete', damage: [] });
      expect(readdirSync(join(file, '..'))).toEqual(['a.vmtape']);
    });
  }

  it('loses nothing older than a second, even while the machine states no events', async () => {
    const file = join(temporaryDirectory(), 'a.vmtape');
    const child = start(THEN_BUSY, file, 'threaded');
    expect(await line(child)).toBe('ready');
    await sleep(1500);
    await kill(child);
    const reader = sqliteStore(file).read();
    expectSame(statedEvents(reader), expectedEvents(100));
    reader.close();
  });
});

describe('a tape that another process writes', () => {
  it('refuses a second writer, lets readers in, and is free once the other is killed', async () => {
    const file = join(temporaryDirectory(), 'a.vmtape');
    const child = start(HOLD, file, 'threaded');
    expect(await line(child)).toBe('ready');
    const store = sqliteStore(file);
    expect(errorOf(() => store.continue())).toMatchObject({
      exitStatus: 2,
      message: expect.stringContaining('is being written by another process'),
    });
    const reader = store.read();
    expect(reader.state).toBe('recording');
    expectSame(statedEvents(reader), expectedEvents(1));
    reader.close();
    expect(verifyTape(file)).toMatchObject({ state: 'recording', damage: [] });
    await kill(child);
    expect(existsSync(`${file}-lock`), 'the lock file of a killed writer stays, unlocked').toBe(true);
    store.continue().finish();
    expect(readdirSync(join(file, '..'))).toEqual(['a.vmtape']);
  });
});

describe('a full disk', () => {
  const expectReplayable = (file: string, answer: string): void => {
    const [name, exitStatus, message, storedTo, sameAgain] = JSON.parse(answer) as [
      string,
      number,
      string,
      string,
      boolean,
    ];
    expect({ name, exitStatus, sameAgain }).toEqual({ name: 'TapeWriteError', exitStatus: 4, sameAgain: true });
    expect(message).toContain(file);
    expect(message).toContain(`Stored safely up to ${storedTo}`);
    const position = parsePosition(storedTo) as Position;
    const reader = sqliteStore(file).read();
    expect(reader.state).toBe('cut');
    expect(reader.end).toEqual(position);
    expect([...reader.records()]).toHaveLength(Number(position.seq));
    reader.close();
    expect(verifyTape(file).damage).toEqual([]);
  };

  for (const mode of ['threaded', 'in thread']) {
    it(`is reported with what is safe, and the tape stays readable and can be continued (file size limit, ${mode})`, () => {
      const file = join(temporaryDirectory(), 'a.vmtape');
      const child = [process.execPath, '--input-type=module', '-e', CHILD + UNTIL_FULL, file, mode];
      const limit = ['-c', 'ulimit -f 4096; exec "$0" "$@"', ...child];
      const { stdout } = spawnSync('bash', limit, { encoding: 'utf8', timeout: 60_000 });
      expectReplayable(file, stdout);
      const writer = sqliteStore(file).continue();
      for (const stated of nestedEvents(10)) writer.append(stated);
      writer.finish();
      expect(verifyTape(file)).toMatchObject({ state: 'complete', damage: [] });
    });
  }

  const mountable = process.getuid?.() === 0 && process.platform === 'linux';
  it.runIf(mountable)('is named as such', ({ skip }) => {
    const directory = temporaryDirectory();
    const mounted = spawnSync('mount', ['-t', 'tmpfs', '-o', 'size=3m', 'tmpfs', directory]);
    skip(mounted.status !== 0, 'mounting is not allowed here');
    try {
      const file = join(directory, 'a.vmtape');
      const args = ['--input-type=module', '-e', CHILD + UNTIL_FULL, file, 'threaded'];
      const { stdout } = spawnSync(process.execPath, args, { encoding: 'utf8', timeout: 60_000 });
      expect(stdout).toContain('the disk is full');
      expect(statSync(file).size).toBeGreaterThan(0);
      expectReplayable(file, stdout);
    } finally {
      spawnSync('umount', [directory]);
    }
  });

  it('of a directory that does not exist or cannot be written is an error before anything is recorded', () => {
    const file = join(temporaryDirectory(), 'missing', 'a.vmtape');
    expect(errorOf(() => sqliteStore(file).create(DESCRIPTION))).toMatchObject({ exitStatus: 2 });
  });
});

/**
 * `npm run test:moves`: moves of a recorded session between two processes at random positions, while it runs and records,
 * until so many have come while a guest of the guest was live. Each must be the session that never moved: event by event,
 * and when the two tapes are replayed in sequence.
 *
 * Exit status: 0 when all are, 1 when one is not, 2 for wrong usage, 4 when something cannot be run.
 */
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { isDeepStrictEqual } from 'node:util';
import { formatPosition, type JournalReader, type Position, sqliteStore } from '../../src/journal/index.js';
import { R, SvmMode } from '../../src/machine/index.js';
import { Timeline } from '../../src/replay/index.js';
import { parseCount } from '../cli/arguments.js';
import { tuneV8, useEngine } from '../cli/engine.js';
import { Status, UsageError } from '../cli/failure.js';
import { grouped } from '../cli/format.js';
import { Terminal } from '../cli/terminal.js';
import { parseWords, runTool } from '../cli/tool.js';
import { moveBetweenProcesses, vmtape } from './between-processes.js';

tuneV8();

const USAGE = `usage: npm run test:moves -- TAPE [options]
  --moves N    ends when N have come with a guest of the guest live (200)
  --from POS   positions after this one (0:0): instructions of the tape
  --to POS     and before this one (the end)
  --seed S     what positions follow from (1)
  --jobs N     so many at once (2)
  --post-copy  the rest of RAM follows
  --live       only positions at which a guest of the guest is live
  --standing   the session moves at the position, standing, and not a while after it, running
  --folder F   keeps the tapes of moves that went wrong (temporary)`;

/** Instructions of a tape, from one up to another. */
interface Stretch {
  readonly from: number;
  readonly to: number;
}

interface Campaign {
  readonly tape: string;
  /** Where positions are drawn from. */
  readonly stretches: readonly Stretch[];
  readonly flags: readonly string[];
  /** Nothing runs here meanwhile: there is no tape of it. */
  readonly standing: boolean;
  readonly folder: string;
}

interface Moved {
  readonly live: boolean;
  readonly downtime: number;
  /** What is wrong; undefined when nothing is. */
  readonly problem: string | undefined;
}

async function main(words: string[]): Promise<number> {
  const { values, positionals } = parseWords({
    args: words,
    allowPositionals: true,
    options: {
      moves: { type: 'string', default: '200' },
      from: { type: 'string', default: '0' },
      to: { type: 'string' },
      seed: { type: 'string', default: '1' },
      jobs: { type: 'string', default: '2' },
      'post-copy': { type: 'boolean', default: false },
      live: { type: 'boolean', default: false },
      standing: { type: 'boolean', default: false },
      folder: { type: 'string' },
    },
  });
  const [tape, ...others] = positionals;
  if (tape === undefined || others.length > 0) throw new UsageError('Give one tape.');
  useEngine('auto');
  const unbroken = sqliteStore(tape).read();
  const end = Number(unbroken.end.icount);
  const folder = values.folder ?? mkdtempSync(join(tmpdir(), 'vmtape-moves-'));
  const within = {
    from: parseCount(values.from, '--from'),
    to: values.to === undefined ? end : parseCount(values.to, '--to', 1),
  };
  if (within.from >= within.to) throw new UsageError('--from lies behind --to. Give an earlier one.');
  const stretches = values.live ? guestStretches(unbroken, within) : [within];
  if (stretches.length === 0) throw new UsageError('No guest runs there. Give other positions, or leave --live out.');
  const campaign: Campaign = {
    ...{ tape, folder, stretches },
    flags: values['post-copy'] ? ['--post-copy'] : [],
    standing: values.standing,
  };
  const sums = await run(
    campaign,
    parseCount(values.moves, '--moves', 1),
    parseCount(values.jobs, '--jobs', 1),
    numbers(parseCount(values.seed, '--seed')),
  );
  if (values.folder === undefined && sums.wrong === 0) rmSync(folder, { recursive: true });
  const sorted = sums.downtimes.toSorted((a, b) => a - b);
  const p95 = sorted[Math.floor(sorted.length * 0.95)] ?? 0;
  console.log(
    `${sums.moves} moves of ${tape}, ${sums.live} with a guest of the guest live: ${sums.wrong} went wrong; ` +
      `p95 of standing still ${p95.toFixed(1)} ms with ${values.jobs} at once`,
  );
  return sums.wrong === 0 ? Status.DONE : Status.NO;
}

/** From each VMRUN to the #VMEXIT that follows. */
function guestStretches(reader: JournalReader, within: Stretch): readonly Stretch[] {
  const stretches: Stretch[] = [];
  let entered: number | undefined;
  for (const { event, position } of reader.records()) {
    const at = Number(position.icount);
    if (event.type === 'svm.vmrun') entered = at;
    else if (event.type === 'svm.vmexit' && entered !== undefined) {
      if (entered < at && entered >= within.from && at <= within.to) stretches.push({ from: entered, to: at });
      entered = undefined;
    }
  }
  return stretches;
}

/** @param share of all their instructions, below 1. */
function placeIn(stretches: readonly Stretch[], share: number): number {
  let left = Math.floor(share * stretches.reduce((sum, { from, to }) => sum + to - from, 0));
  for (const { from, to } of stretches) {
    if (left < to - from) return from + left;
    left -= to - from;
  }
  return stretches[0]?.from ?? 0;
}

/** So many are enough to look at. */
const MOST_WRONG = 5;

interface Sums {
  moves: number;
  live: number;
  wrong: number;
  readonly downtimes: number[];
}

async function run(campaign: Campaign, wanted: number, jobs: number, random: Generator<number>): Promise<Sums> {
  const terminal = new Terminal({});
  const sums: Sums = { moves: 0, live: 0, wrong: 0, downtimes: [] };
  let begun = 0;
  const { stretches } = campaign;
  const mover = async (): Promise<void> => {
    while (sums.live < wanted && sums.wrong < MOST_WRONG) {
      const number = begun++;
      const at = placeIn(stretches, random.next().value);
      const { live, downtime, problem } = await moveOnce(campaign, number, at);
      sums.moves++;
      sums.downtimes.push(downtime);
      if (problem !== undefined) {
        sums.wrong++;
        terminal.say(`Move ${number} at ${grouped(at)}: ${problem}`);
      } else if (live) sums.live++;
      terminal.status(`${sums.moves} moves, ${sums.live} of ${wanted} with a live guest, ${sums.wrong} wrong`);
    }
  };
  await Promise.all(Array.from({ length: jobs }, mover));
  terminal.clearStatus();
  return sums;
}

/** So late in the session that nothing was left to move. */
const ENDED_FIRST = /the session came to its end before it had moved/;

async function moveOnce(campaign: Campaign, number: number, at: number): Promise<Moved> {
  const [here, there] = [
    join(campaign.folder, `here-${number}.vmtape`),
    join(campaign.folder, `there-${number}.vmtape`),
  ];
  let moved: Moved;
  try {
    const source = [campaign.tape, '--at', String(at), ...campaign.flags];
    const downtime = await moveBetweenProcesses({
      source,
      receiver: [],
      here: campaign.standing ? undefined : here,
      there,
    });
    const tapes = campaign.standing ? [there] : [here, there];
    moved = { downtime, ...compare(campaign.tape, tapes) };
    await vmtape(['replay', '-q', ...tapes]).ended;
  } catch (error) {
    const { message } = error as Error;
    const problem = ENDED_FIRST.test(message) ? undefined : message;
    return { live: false, downtime: 0, problem };
  }
  if (moved.problem === undefined) for (const tape of [here, there]) rmSync(tape, { force: true });
  return moved;
}

/** Holds the tapes of a move against that of the session that never moved. */
function compare(tape: string, names: readonly string[]): Pick<Moved, 'live' | 'problem'> {
  const unbroken = sqliteStore(tape).read();
  const readers = names.map((name) => sqliteStore(name).read());
  const there = readers.at(-1) as JournalReader;
  try {
    return { live: isLive(there), problem: difference(unbroken, readers) };
  } finally {
    for (const reader of [unbroken, ...readers]) reader.close();
  }
}

/** @param readers of the tapes in sequence. */
function difference(unbroken: JournalReader, readers: readonly JournalReader[]): string | undefined {
  let before = unbroken;
  for (const reader of readers) {
    const { start } = reader;
    if (before !== unbroken && formatPosition(start) !== formatPosition(before.end)) {
      return `the tape there begins at ${formatPosition(start)}, and that here ends at ${formatPosition(before.end)}`;
    }
    if (reader.header.origin?.parent !== before.historyDigest(start.seq)) return 'a tape names another parent';
    before = reader;
  }
  if (formatPosition(before.end) !== formatPosition(unbroken.end)) {
    return `it ends at ${formatPosition(before.end)}, unmoved at ${formatPosition(unbroken.end)}`;
  }
  const different = firstDifferentRecord(unbroken, readers);
  return different === undefined ? undefined : `the record at ${formatPosition(different)} is another one`;
}

/** Where the tapes in sequence first have another record. Those that begin amid a run state all of it. */
function firstDifferentRecord(unbroken: JournalReader, readers: readonly JournalReader[]): Position | undefined {
  const expected = unbroken.records(readers[0]?.start.seq);
  for (const reader of readers) {
    for (const record of reader.records()) {
      if (!isDeepStrictEqual(expected.next().value, record)) return record.position;
    }
  }
  return undefined;
}

/** Whether a vCPU runs a guest of the guest where the tape begins. */
function isLive(reader: JournalReader): boolean {
  const timeline = new Timeline(reader);
  timeline.seek(reader.start);
  const live = timeline.machine.state.vcpus.some(
    ({ registers }) => ((registers[R.svmMode] as bigint) & SvmMode.GUEST) !== 0n,
  );
  timeline.close();
  return live;
}

/** Pseudo-random numbers below 1, so that a campaign can be made again. */
function* numbers(seed: number): Generator<number, never, void> {
  for (let state = seed >>> 0; ; ) {
    state = (Math.imul(state, 1664525) + 1013904223) >>> 0;
    yield state / 2 ** 32;
  }
}

await runTool(USAGE, main);

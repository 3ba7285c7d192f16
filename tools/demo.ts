/**
 * `npm run demo`: records the sample nested session, draws its transitions between L1 and L2, replays it, and says that
 * it is identical. The tape is made in a temporary folder, and goes with it.
 */
import { mkdtempSync, readFileSync, rmSync, statSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import pc from 'picocolors';
import { isRecordOf, type JournalReader, sqliteStore } from '../src/journal/index.js';
import { DEFAULT_CONFIG, exitName } from '../src/machine/index.js';
import { Recorder, Replayer } from '../src/replay/index.js';
import { Stopwatch } from './cli/drive.js';
import { byteSize, grouped, pad, plural } from './cli/format.js';
import { PACKAGE_FOLDER, VMTAPE_VERSION } from './version.js';

const IMAGE = 'test/guests/images/nested.elf';
/** Stretches of alike visits shown from either end. */
const SHOWN = 10;
const BAR_COLUMNS = 40;
const HISTOGRAM_ROWS = 16;

/** From one world switch to the next. */
interface Visit {
  /** Event number of the VMRUN. */
  readonly seq: bigint;
  /** Instructions that L1 ran before the VMRUN, and L2 until the exit. */
  readonly before: bigint;
  readonly inside: bigint;
  readonly injected: string | undefined;
  readonly exit: bigint;
  readonly info1: bigint;
}

const say = (text = ''): void => {
  process.stdout.write(`${text}\n`);
};

function main(): number {
  const folder = mkdtempSync(join(tmpdir(), 'vmtape-demo-'));
  try {
    return demo(join(folder, 'nested.vmtape'));
  } finally {
    rmSync(folder, { recursive: true, force: true });
  }
}

function demo(tape: string): number {
  say(pc.bold(`1. Record: ${IMAGE}, a hypervisor (L1) that runs a guest of its own (L2) with VMRUN`));
  say();
  record(tape);
  const reader = sqliteStore(tape).read();
  try {
    say();
    say(pc.bold('2. The tape: every switch between the two levels'));
    say();
    drawTimeline([...visits(reader)]);
    say();
    say(pc.bold('3. Replay: the same machine runs again, and every event is compared'));
    say();
    return replay(reader);
  } finally {
    reader.close();
  }
}

function record(tape: string): void {
  const watch = new Stopwatch();
  let text = '';
  const recorder = Recorder.boot(sqliteStore(tape), {
    ...{ config: DEFAULT_CONFIG, image: readFileSync(join(PACKAGE_FOLDER, IMAGE)), commandLine: 'nested.elf' },
    ...{
      unixSeconds: Math.floor(Date.now() / 1000),
      entropySeed: process.hrtime.bigint(),
      vmtapeVersion: VMTAPE_VERSION,
    },
    observe: ({ event }) => {
      if (event.type === 'uart.transmitted') text += String.fromCharCode(event.byte);
    },
  });
  recorder.endInput();
  while (recorder.step() === 'running');
  const { instructions, events, exits } = recorder.stats;
  recorder.finish();
  const { size } = statSync(tape);
  const lines = text.trimEnd().split('\n');
  say(`   The guest's console ends with: ${pc.green(lines.at(-1) ?? '')}`);
  say(`   ${plural(instructions, 'instruction')}, ${plural(events, 'event')}, ${plural(exits, '#VMEXIT')}`);
  say(
    `   ${byteSize(size)} of tape, ${(size / Math.max(exits, 1)).toFixed(1)} bytes per exit, ${watch.seconds.toFixed(2)} s`,
  );
}

/** World switches in order; a VMRUN that its checks refuse is a visit of no instructions. */
function* visits(reader: JournalReader): Generator<Visit, void, void> {
  let entered: { readonly seq: bigint; readonly before: bigint } | undefined;
  let injected: string | undefined;
  let ran = 0n;
  for (const each of reader.records()) {
    if (isRecordOf(each, 'svm.vmrun')) {
      entered = { seq: each.position.seq, before: ran };
      injected = undefined;
      ran = 0n;
    } else if (isRecordOf(each, 'svm.injected')) {
      injected = `inject vector ${each.event.vector}`;
    } else if (isRecordOf(each, 'svm.vmexit')) {
      const { code, info1 } = each.event;
      yield { ...(entered ?? { seq: each.position.seq, before: 0n }), inside: ran, injected, exit: code, info1 };
      entered = undefined;
      ran = 0n;
    } else {
      ran += BigInt(each.retired);
    }
  }
}

const LANE_COLUMNS = 36;
const COUNT_COLUMNS = 9;

/** Visits one after the other that look alike. */
interface Stretch {
  readonly first: Visit;
  count: number;
}

function stretches(all: readonly Visit[]): readonly Stretch[] {
  const found: Stretch[] = [];
  for (const visit of all) {
    const last = found.at(-1);
    if (last !== undefined && last.first.exit === visit.exit && last.first.injected === visit.injected) last.count++;
    else found.push({ first: visit, count: 1 });
  }
  return found;
}

function drawTimeline(all: readonly Visit[]): void {
  const drawn = stretches(all);
  const hidden = drawn.slice(SHOWN, Math.max(SHOWN, drawn.length - SHOWN));
  const margin = ' '.repeat(COUNT_COLUMNS);
  say(`${margin} ${pad(pc.bold(pc.cyan('L1 hypervisor')), LANE_COLUMNS)}${pc.bold(pc.yellow('L2 guest'))}`);
  for (const stretch of drawn.slice(0, SHOWN)) drawStretch(stretch);
  if (hidden.length > 0) {
    const visits = hidden.reduce((sum, { count }) => sum + count, 0);
    const text = pc.dim(` ${plural(visits, 'more visit')} of L1 to L2`);
    say(`${margin} ${pad(pc.cyan('┊'), LANE_COLUMNS)}${pc.yellow('┊')}${text}`);
  }
  for (const stretch of drawn.slice(SHOWN + hidden.length)) drawStretch(stretch);
  say();
  drawHistogram(all);
}

/** Two lines: down into the guest and back; left and right of them the instructions that each level ran before. */
function drawStretch({ first: { seq, before, inside, injected, exit, info1 }, count }: Stretch): void {
  const entry = ` VMRUN${injected === undefined ? '' : `, ${injected}`} `;
  const reason = ` ${exitName(exit)}${info1 === 0n ? '' : ` ${info1.toString(16)}h`} `;
  const times = count === 1 ? '' : pc.bold(` ×${grouped(count)}`);
  const left = pc.dim(pad(grouped(before), COUNT_COLUMNS, 'right'));
  say(`${left} ${pc.cyan(`┣${line(entry, 8, LANE_COLUMNS - 2)}▶`)}${pc.yellow('┓')} ${pc.dim(`#${seq}`)}`);
  const back = `┣◀${line(reason, LANE_COLUMNS - 13, LANE_COLUMNS - 2)}`;
  say(`${' '.repeat(COUNT_COLUMNS)} ${pc.yellow(`${back}┛`)} ${pc.dim(grouped(inside))}${times}`);
}

/** A line of `columns` with a text that ends, where it fits, `from` its left. */
function line(text: string, from: number, columns: number): string {
  const left = '━'.repeat(Math.max(0, Math.min(from, columns - text.length)));
  return left + text + '━'.repeat(Math.max(0, columns - left.length - text.length));
}

function drawHistogram(all: readonly Visit[]): void {
  const counts = new Map<bigint, number>();
  for (const { exit } of all) counts.set(exit, (counts.get(exit) ?? 0) + 1);
  const rows = [...counts].sort(([, a], [, b]) => b - a);
  const most = rows[0]?.[1] ?? 1;
  say(`   ${pc.bold(`${plural(all.length, 'exit')} of ${plural(rows.length, 'kind')}`)}`);
  for (const [code, count] of rows.slice(0, HISTOGRAM_ROWS)) {
    const bar = '█'.repeat(Math.max(1, Math.round((count / most) * BAR_COLUMNS)));
    say(`   ${pad(exitName(code), 14)} ${pad(grouped(count), 6, 'right')}  ${pc.yellow(bar)}`);
  }
  const rest = rows.slice(HISTOGRAM_ROWS);
  if (rest.length > 0)
    say(pc.dim(`   and ${plural(rest.length, 'kind')} more: ${rest.map(([code]) => exitName(code)).join(' ')}`));
}

function replay(reader: JournalReader): number {
  const watch = new Stopwatch();
  const replayer = new Replayer(reader);
  const outcome = replayer.run();
  if (outcome.kind === 'diverged') {
    say(pc.red(outcome.divergence.report()));
    return 1;
  }
  const compared = `${plural(replayer.compared, 'event')} and ${outcome.kind === 'identical' ? outcome.digests : 0} state digests`;
  say(`   ${pc.green(pc.bold('identical'))}: ${compared} are the same, ${watch.seconds.toFixed(2)} s`);
  return 0;
}

// `npm run demo | head` is nobody's fault.
process.stdout.on('error', () => process.exit());
process.exitCode = main();

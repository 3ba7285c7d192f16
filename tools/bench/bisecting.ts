/**
 * `npm run bench -- bisect`: how soon a late difference between two long tapes is found, and explained. The second tape is the
 * first one with one event changed: as another machine would have recorded it.
 */
import { mkdtempSync, rmSync } from 'node:fs';
import { cpus, tmpdir } from 'node:os';
import { join } from 'node:path';
import {
  type CheckpointEntry,
  type JournalReader,
  type JournalWriter,
  type Position,
  sqliteStore,
} from '../../src/journal/index.js';
import { PAGE_BYTES, type StatedEvent } from '../../src/machine/index.js';
import { bisect, firstDifference, Side } from '../../src/replay/index.js';
import { parseCount } from '../cli/arguments.js';
import { Stopwatch } from '../cli/drive.js';
import { grouped, table } from '../cli/format.js';
import { parseWords } from '../cli/tool.js';
import { VMTAPE_VERSION } from '../version.js';
import { parseSubjects, runVmtape, SUBJECTS } from './subjects.js';

/** 2 thousand million instructions; more than a million events; both at once. */
const USUAL_GUESTS = 'compute,nested,tenant';
/** Options other than those for long sessions: a thousand million instructions, and a tick for each 22,000. */
const OPTIONS: ReadonlyMap<string, string> = new Map([['tenant', 'scale=17 period=220000']]);

export const BISECT_USAGE = `usage: npm run bench -- bisect [options]
  --guests A,B some of: ${SUBJECTS.map(({ name }) => name).join(', ')} (${USUAL_GUESTS})
  --rounds N   the best of N (3)
  --json       one document to stdout`;

interface Result {
  readonly guest: string;
  readonly instructions: string;
  readonly events: string;
  readonly changed: string;
  /** From two closed tapes to the event. */
  readonly eventSeconds: number;
  /** To the whole report. */
  readonly reportSeconds: number;
}

export function bisectBench(args: string[]): number {
  const { values } = parseWords({
    args,
    options: {
      json: { type: 'boolean', default: false },
      guests: { type: 'string', default: USUAL_GUESTS },
      rounds: { type: 'string', default: '3' },
    },
  });
  const rounds = parseCount(values.rounds, '--rounds', 1);
  const folder = mkdtempSync(join(tmpdir(), 'vmtape-bench-'));
  try {
    const results = parseSubjects(values.guests, '--guests').map(({ name, image, long }) => {
      const options = OPTIONS.get(name) ?? long;
      const tape = join(folder, `${name}.vmtape`);
      const changed = join(folder, `${name}-changed.vmtape`);
      runVmtape(['record', '-o', tape], { name, image, options });
      const place = change(tape, changed);
      const result = measure(`${name} ${options}`, [tape, changed], place, rounds);
      for (const file of [tape, changed]) rmSync(file);
      return result;
    });
    const host = { cpu: cpus()[0]?.model ?? 'unknown', node: process.version };
    if (values.json)
      process.stdout.write(`${JSON.stringify({ vmtape: VMTAPE_VERSION, host, rounds, results }, null, 2)}\n`);
    else print(results, `${host.cpu}, Node ${host.node}, best of ${rounds}`);
    return 0;
  } finally {
    rmSync(folder, { recursive: true, force: true });
  }
}

/** Copies a tape with its checkpoints, and changes one event near its end. @returns the boundary before that. */
function change(from: string, to: string): Position {
  const reader = sqliteStore(from).read();
  const { vmtapeVersion, machineVersion, configuration } = reader.header;
  const writer = sqliteStore(to).create({ vmtapeVersion, machineVersion, configuration });
  for (const digest of reader.blobDigests()) writer.putBlob(reader.blob(digest) as Uint8Array);
  const late = reader.end.seq - reader.end.seq / 100n;
  const copier = new CheckpointCopier(reader, writer);
  let place: Position | undefined;
  for (const record of reader.records()) {
    const { position, retired, vcpu, level, event } = record;
    const changes: boolean = place === undefined && position.seq >= late && event.type === 'cpu.ran';
    if (changes) place = { icount: position.icount - BigInt(retired), seq: position.seq };
    writer.append({ retired, vcpu, level, event: changes ? withOtherRegister(event) : event });
    copier.reached(position.seq + 1n);
  }
  writer.finish();
  reader.close();
  if (place === undefined) throw new Error('the tape has no run near its end');
  return place;
}

/** Puts the checkpoints of a tape on another one, as far as that has come. */
class CheckpointCopier {
  private readonly left: CheckpointEntry[];
  private pages: Uint32Array | undefined;

  constructor(
    private readonly reader: JournalReader,
    private readonly writer: JournalWriter,
  ) {
    this.left = [...reader.checkpoints()];
  }

  reached(seq: bigint): void {
    while (this.left[0]?.position.seq === seq) this.copy(this.left.shift() as CheckpointEntry);
  }

  private copy({ id }: CheckpointEntry): void {
    const { reader, writer, pages: before } = this;
    const checkpoint = reader.checkpoint(id);
    if (checkpoint === undefined) return;
    const { pages, position, state } = checkpoint;
    const changed = Uint32Array.from(pages.keys()).filter((page) => pages[page] !== (before?.[page] ?? 0));
    const contents = new Uint8Array(changed.length * PAGE_BYTES);
    for (const [index, page] of changed.entries()) {
      const content = pages[page] as number;
      if (content !== 0) contents.set(reader.page(content), index * PAGE_BYTES);
    }
    writer.putCheckpoint({ position, state, ramPages: pages.length, changed, contents });
    this.pages = pages;
  }
}

/** A run ends with another value in the first register that it changed. */
function withOtherRegister(event: StatedEvent['event']): StatedEvent['event'] {
  if (event.type !== 'cpu.ran') return event;
  const registers = event.registers.slice();
  registers[1] = (registers[1] as number) ^ 1;
  return { ...event, registers: registers as typeof event.registers };
}

function measure(guest: string, tapes: readonly [string, string], place: Position, rounds: number): Result {
  let [eventSeconds, reportSeconds] = [Number.POSITIVE_INFINITY, Number.POSITIVE_INFINITY];
  let end: Position = place;
  for (let round = 0; round < rounds; round++) {
    eventSeconds = Math.min(
      eventSeconds,
      timed(tapes, (readers) => {
        const found = firstDifference(readers).difference?.boundaries[0];
        if (found?.seq !== place.seq) throw new Error(`${guest}: the difference was not found where it is`);
      }),
    );
    reportSeconds = Math.min(
      reportSeconds,
      timed(tapes, (readers) => {
        const sides = [new Side(tapes[0], readers[0]), new Side(tapes[1], readers[1])] as const;
        const found = bisect(sides, { leniency: { hostSaveArea: false }, searchesPolicies: false });
        if (found.kind !== 'differs' || found.event?.boundaries[0].seq !== place.seq) {
          throw new Error(`${guest}: the report tells of another place`);
        }
        end = readers[0].end;
        for (const side of sides) side.close();
      }),
    );
  }
  return {
    ...{ guest, instructions: String(end.icount), events: String(end.seq), changed: `${place.icount}:${place.seq}` },
    ...{ eventSeconds, reportSeconds },
  };
}

/** Seconds from opening both to the end of the work. */
function timed(
  tapes: readonly [string, string],
  work: (readers: readonly [JournalReader, JournalReader]) => void,
): number {
  const watch = new Stopwatch();
  const readers = [sqliteStore(tapes[0]).read(), sqliteStore(tapes[1]).read()] as const;
  try {
    work(readers);
    return watch.seconds;
  } finally {
    for (const reader of readers) reader.close();
  }
}

function print(results: readonly Result[], host: string): void {
  const rows = results.map(({ guest, instructions, events, changed, eventSeconds, reportSeconds }) => [
    guest,
    grouped(BigInt(instructions)),
    grouped(BigInt(events)),
    changed,
    `${eventSeconds.toFixed(3)} s`,
    `${reportSeconds.toFixed(2)} s`,
  ]);
  const heading = ['', 'instructions', 'events', 'changed at', 'to the event', 'to the report'];
  process.stdout.write(
    `${host}\n\n${table([heading, ...rows], ['left', 'right', 'right', 'right', 'right', 'right']).join('\n')}\n`,
  );
}

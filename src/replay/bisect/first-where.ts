/** The first position of a session at which a predicate holds: by scanning it, or, of what once true stays true, by halving. */
import {
  boundaryAfter,
  comparePositions,
  type JournalReader,
  type JournalRecord,
  type Position,
} from '../../journal/index.js';
import type { Machine, StatedEvent } from '../../machine/index.js';
import { PastEnd, TapeFollower } from '../tape-follower.js';
import { Timeline } from '../timeline.js';
import { type Control, finish, type Work } from '../work.js';

/** What a predicate looks at. */
export interface Sight {
  readonly machine: Machine;
  readonly position: Position;
  /** The event that has just happened; undefined amid a run, and at the start. */
  readonly event: StatedEvent | undefined;
  /** What the guest has sent over the serial port, from the start of the tape on; one character for each byte. */
  readonly serial: string;
}

export type Predicate = (sight: Sight) => boolean;

export interface WhereOptions {
  /** Once it holds it does so to the end: then halving finds where. */
  readonly monotonic: boolean;
  /** Looks after each instruction, not only at events. */
  readonly instructions: boolean;
  /** The predicate says nothing of events: where a run makes it true, the instruction is looked for. */
  readonly stateOnly: boolean;
}

/** @returns the first position; undefined when it holds nowhere that was looked at. */
export function firstWhere(
  reader: JournalReader,
  holds: Predicate,
  options: WhereOptions,
  control: Control = {},
): Position | undefined {
  const timeline = new Timeline(reader);
  try {
    const start: Sight = { machine: timeline.machine, position: reader.start, event: undefined, serial: '' };
    if (holds(start)) return reader.start;
    if (options.instructions) return finish(byInstruction(reader, reader.start, '', holds), control);
    const found = options.monotonic ? halve(reader, timeline, holds, control) : scan(reader, holds, control);
    return found && options.stateOnly ? finish(amidRun(reader, found, holds), control) : found?.position;
  } finally {
    timeline.close();
  }
}

interface Found {
  /** The boundary at which it holds. */
  readonly position: Position;
  /** The boundary before, at which it did not. */
  readonly before: Position;
  readonly isRun: boolean;
  readonly serial: string;
}

/** Thrown out of the sink, through the machine. */
class StopScan extends Error {}

function scan(reader: JournalReader, holds: Predicate, { tick }: Control): Found | undefined {
  const follower = new TapeFollower(reader);
  const { machine } = follower;
  let [before, serial, seq] = [reader.start, '', reader.start.seq];
  let found: Found | undefined;
  follower.observe = (event) => {
    const position = { icount: BigInt(machine.retired), seq: ++seq };
    serial += sent(event);
    if (holds({ machine, position, event, serial })) {
      found = { position, before, isRun: event.event.type === 'cpu.ran', serial };
      throw new StopScan();
    }
    before = position;
  };
  try {
    while (comparePositions(follower.position, reader.end) < 0) {
      follower.run(reader.end);
      if (tick?.(follower.position) === true) break;
    }
  } catch (error) {
    if (!(error instanceof StopScan) && !(error instanceof PastEnd)) throw error;
  } finally {
    follower.close();
  }
  return found;
}

const sent = ({ event }: StatedEvent): string =>
  event.type === 'uart.transmitted' ? String.fromCharCode(event.byte) : '';

/** Between places of the timeline; amid a step it is not looked. */
function halve(reader: JournalReader, timeline: Timeline, holds: Predicate, control: Control): Found | undefined {
  const output = serialOutput(reader);
  const holdsAt = (seq: bigint): boolean => {
    const event = recordAt(reader, seq - 1n);
    const position = event === undefined ? reader.start : boundaryAfter(event);
    timeline.seek(position, control);
    return holds({ machine: timeline.machine, position, event, serial: output(seq) });
  };
  let low = reader.start.seq;
  let high = reader.end.seq;
  if (high === low || !holdsAt(high)) return undefined;
  while (high - low > 1n) {
    const middle = (low + high) >> 1n;
    if (holdsAt(middle)) high = middle;
    else low = middle;
  }
  const event = recordAt(reader, high - 1n) as JournalRecord;
  const earlier = recordAt(reader, low - 1n);
  return {
    position: boundaryAfter(event),
    before: earlier === undefined ? reader.start : boundaryAfter(earlier),
    isRun: event.event.type === 'cpu.ran',
    serial: output(low),
  };
}

const recordAt = (reader: JournalReader, seq: bigint): JournalRecord | undefined =>
  seq < reader.start.seq ? undefined : (reader.records(seq).next().value ?? undefined);

/** What was sent before an event of a number. */
function serialOutput(reader: JournalReader): (seq: bigint) => string {
  const seqs: bigint[] = [];
  let all = '';
  for (const chunk of reader.chunks()) {
    const scanning = reader.scanChunk(chunk);
    while (scanning.next()) {
      if (scanning.type !== 'uart.transmitted' || scanning.seq >= reader.end.seq) continue;
      all += sent(scanning.record);
      seqs.push(scanning.seq);
    }
  }
  return (seq) => {
    const count = seqs.findIndex((each) => each >= seq);
    return count < 0 ? all : all.slice(0, count);
  };
}

/** Within the run that made it true, the first instruction after which it holds. */
function* amidRun(reader: JournalReader, found: Found, holds: Predicate): Work<Position> {
  if (!found.isRun) return found.position;
  const within = yield* byInstruction(reader, found.before, found.serial, holds, found.position);
  return within ?? found.position;
}

/** Step by step from a place on. */
function* byInstruction(
  reader: JournalReader,
  from: Position,
  sentBefore: string,
  holds: Predicate,
  to: Position = reader.end,
): Work<Position | undefined> {
  const timeline = new Timeline(reader);
  try {
    yield* timeline.seeking(from);
    let serial = sentBefore;
    let last: StatedEvent | undefined;
    timeline.observe((event) => {
      serial += sent(event);
      last = event;
    });
    while (comparePositions(timeline.position, to) < 0) {
      last = undefined;
      if (!timeline.step()) return undefined;
      const { machine, position } = timeline;
      if (holds({ machine, position, event: last, serial })) return position;
      yield position;
    }
    return undefined;
  } finally {
    timeline.close();
  }
}

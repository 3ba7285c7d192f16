/**
 * Positions as a user writes them, resolved against a tape:
 *
 * - `start`, `end`;
 * - `#seq`: the boundary with so many events before it;
 * - `icount:seq`: the same, and its instruction count is checked: that there, or one amid the run that follows;
 * - `icount`: as soon as so many instructions have retired, which may be amid a run;
 * - `vmexit[3]`, `vmexit:cpuid[0]`, `vmrun[-1]`, `cpu.exception:14`: the boundary right before the n-th event of a kind,
 *   counted from 0, from the end when negative; the first one without brackets. A kind is an event's type or the last
 *   part of it, and what follows the colon one of its details: exit name, vector, mnemonic, register.
 */
import {
  formatPosition,
  type JournalReader,
  type JournalRecord,
  type Position,
  parsePosition,
} from '../journal/index.js';
import { exitCodeNamed, exitName, InputError, type MachineEvent, VECTOR_NAMES } from '../machine/index.js';

const HELP = 'Write icount, icount:seq, #seq, start, end, or an event such as vmexit:cpuid[0].';

/**
 * @returns the position: a boundary, or amid the run that begins after its seq events.
 * @throws InputError when the pattern has no sense, or the tape no such place.
 */
export function resolvePosition(reader: JournalReader, pattern: string): Position {
  const text = pattern.trim();
  if (text === 'start') return reader.start;
  if (text === 'end') return reader.end;
  const pair = parsePosition(text);
  if (pair !== undefined) return requireBoundary(reader, text, pair);
  if (/^#\d+$/.test(text)) return boundaryAt(reader, text, BigInt(text.slice(1)));
  if (/^\d+$/.test(text)) return positionAtIcount(reader, text, BigInt(text));
  return positionOfEvent(reader, text);
}

function requireBoundary(reader: JournalReader, text: string, { icount, seq }: Position): Position {
  const boundary = boundaryAt(reader, text, seq);
  if (boundary.icount !== icount && !isAmidRun(reader, { icount, seq }, boundary)) {
    const problem = `the boundary after ${seq} events is ${formatPosition(boundary)}`;
    throw new InputError(`position ${text}`, problem, `Write that, or #${seq}.`);
  }
  return { icount, seq };
}

function isAmidRun(reader: JournalReader, { icount, seq }: Position, boundary: Position): boolean {
  const next = reader.records(seq).next().value ?? undefined;
  return next?.event.type === 'cpu.ran' && boundary.icount < icount && icount <= next.position.icount;
}

function boundaryAt(reader: JournalReader, text: string, seq: bigint): Position {
  if (seq < reader.start.seq) refuseBeforeStart(reader, text);
  if (seq === reader.start.seq) return reader.start;
  if (seq > reader.end.seq) refusePastEnd(reader, text);
  if (seq === reader.end.seq) return reader.end;
  const { value } = reader.records(seq).next();
  return value === undefined ? reader.end : { icount: value.position.icount - BigInt(value.retired), seq };
}

function positionAtIcount(reader: JournalReader, text: string, icount: bigint): Position {
  if (icount < reader.start.icount) refuseBeforeStart(reader, text);
  if (icount === reader.start.icount) return reader.start;
  const chunk = reader.chunkAtIcount(icount);
  if (chunk === undefined) return refusePastEnd(reader, text);
  for (const { position } of reader.recordsOfChunk(chunk)) {
    if (position.icount === icount) return { icount, seq: position.seq + 1n };
    if (position.icount > icount) return { icount, seq: position.seq };
  }
  return refusePastEnd(reader, text);
}

function refuseBeforeStart(reader: JournalReader, text: string): never {
  const problem = `the tape begins at ${formatPosition(reader.start)}`;
  throw new InputError(`position ${text}`, problem, 'Choose a later one, or ask the tape that it goes on from.');
}

function refusePastEnd(reader: JournalReader, text: string): never {
  const problem = `the tape ends at ${formatPosition(reader.end)}`;
  throw new InputError(`position ${text}`, problem, 'Choose an earlier one, or end.');
}

function positionOfEvent(reader: JournalReader, text: string): Position {
  const match = /^(?<kind>[a-z][a-z0-9.-]*)(:(?<detail>[^[\]]+))?(\[(?<index>-?\d+)\])?$/i.exec(text)?.groups;
  if (match === undefined) throw new InputError(`position ${JSON.stringify(text)}`, 'it is none', HELP);
  const matches = eventMatcher(reader, text, (match.kind ?? '').toLowerCase(), match.detail);
  const index = Number(match.index ?? '0');
  const found = index < 0 ? fromEnd(reader, matches, -index) : fromStart(reader, matches, index);
  if (found instanceof Object) return found;
  const problem =
    found === 0 ? 'the tape has no such event' : `the tape has ${found} such ${found === 1 ? 'event' : 'events'}`;
  throw new InputError(`position ${text}`, problem, 'See vmtape log for what there is.');
}

type Matcher = (event: MachineEvent) => boolean;

/**
 * A test of events by a pattern without an index: `vmexit`, `vmexit:npf`, `cpu.exception:14`.
 * @throws InputError when the pattern has no sense.
 */
export function eventPattern(reader: JournalReader, pattern: string): Matcher {
  const text = pattern.trim();
  const match = /^(?<kind>[a-z][a-z0-9.-]*)(:(?<detail>[^[\]]+))?$/i.exec(text)?.groups;
  if (match === undefined) {
    throw new InputError(`event ${JSON.stringify(text)}`, 'it is none', 'Write a kind, such as vmexit or vmexit:npf.');
  }
  return eventMatcher(reader, text, (match.kind ?? '').toLowerCase(), match.detail);
}

function eventMatcher(reader: JournalReader, text: string, kind: string, detail: string | undefined): Matcher {
  const types = Object.keys(reader.header.events);
  const wanted = new Set(types.filter((type) => type === kind || type.endsWith(`.${kind}`)));
  if (wanted.size === 0) throw new InputError(`position ${text}`, `there are no events of kind ${kind}`, HELP);
  if (detail === undefined) return (event) => wanted.has(event.type);
  const value = detail.trim().toLowerCase();
  if (wanted.has('svm.vmexit') && exitCodeNamed(value) === undefined && !/^0x[0-9a-f]+$/.test(value)) {
    throw new InputError(
      `position ${text}`,
      `there is no exit code ${detail}`,
      'Write one such as cpuid, npf or 0x72.',
    );
  }
  return (event) => wanted.has(event.type) && detailsOf(event).includes(value);
}

/** What may stand behind the colon for an event. */
function detailsOf(event: MachineEvent): readonly string[] {
  if (event.type === 'svm.vmexit') return [exitName(event.code), `0x${event.code.toString(16)}`];
  const details: string[] = [];
  if ('vector' in event && event.vector !== null) {
    const name = event.type === 'cpu.exception' ? VECTOR_NAMES[event.vector] : undefined;
    details.push(String(event.vector), `0x${event.vector.toString(16)}`);
    if (name !== undefined) details.push(name.toLowerCase(), name.toLowerCase().replace('#', ''));
  }
  for (const [field, value] of Object.entries(event)) {
    if (field !== 'type' && typeof value === 'string') details.push(value.toLowerCase());
  }
  return details;
}

/** The boundary at which an event begins. */
export const boundaryBefore = ({ position: { icount, seq }, retired }: JournalRecord): Position => ({
  icount: icount - BigInt(retired),
  seq,
});

/** @returns the boundary, or how many such events there are. */
function fromStart(reader: JournalReader, matches: Matcher, index: number): Position | number {
  let count = 0;
  for (const record of reader.records()) {
    if (matches(record.event) && count++ === index) return boundaryBefore(record);
  }
  return count;
}

function fromEnd(reader: JournalReader, matches: Matcher, index: number): Position | number {
  const last: Position[] = [];
  let count = 0;
  for (const record of reader.records()) {
    if (!matches(record.event)) continue;
    last[count++ % index] = boundaryBefore(record);
  }
  return count < index ? count : (last[count % index] ?? count);
}

/**
 * The next event of a kind on a tape, and the one before: by reading, without running anything.
 */
import type { JournalReader, JournalRecord } from '../journal/index.js';
import type { MachineEvent } from '../machine/index.js';
import type { Work } from './work.js';

export type EventTest = (event: MachineEvent, record: JournalRecord) => boolean;

/** The first event from number `seq` on that matches. */
export function* nextEvent(reader: JournalReader, seq: bigint, matches: EventTest): Work<JournalRecord | undefined> {
  for (const chunk of reader.chunks(seq)) {
    for (const record of reader.recordsOfChunk(chunk)) {
      if (record.position.seq < seq) continue;
      if (record.position.seq >= reader.end.seq) return undefined;
      if (matches(record.event, record)) return record;
    }
    yield chunk.end;
  }
  return undefined;
}

/** The last event before number `seq` that matches. */
export function* previousEvent(
  reader: JournalReader,
  seq: bigint,
  matches: EventTest,
): Work<JournalRecord | undefined> {
  let before = seq;
  while (before > reader.start.seq) {
    const chunk = reader.chunkAt(before - 1n);
    if (chunk === undefined) return undefined;
    let found: JournalRecord | undefined;
    for (const record of reader.recordsOfChunk(chunk)) {
      if (record.position.seq >= before) break;
      if (matches(record.event, record)) found = record;
    }
    if (found !== undefined) return found;
    if (chunk.start.seq >= before) return undefined;
    before = chunk.start.seq;
    yield chunk.start;
  }
  return undefined;
}

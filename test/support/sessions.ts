/** Recorded sessions of the sample guests, for the tests of replay. */
import { readFileSync } from 'node:fs';
import { type JournalReader, type JournalStore, memoryStore } from '../../src/journal/index.js';
import { DEFAULT_CONFIG, type StatedEvent } from '../../src/machine/index.js';
import { Recorder, type RecorderOptions } from '../../src/replay/index.js';

export const MEBIBYTE = 1024 * 1024;

/** The images are committed; `build.sh` beside them makes them. */
export const guestImage = (file: string): Uint8Array =>
  readFileSync(new URL(`../guests/images/${file}`, import.meta.url));

export const guestOutput = (guest: string): string =>
  readFileSync(new URL(`../guests/${guest}.expected`, import.meta.url), 'latin1');

export function sessionOptions(file: string, changes: Partial<RecorderOptions> = {}): RecorderOptions {
  return {
    config: { ...DEFAULT_CONFIG, ramBytes: 64 * MEBIBYTE },
    image: changes.image ?? guestImage(file),
    commandLine: file,
    unixSeconds: 1_700_000_000,
    entropySeed: 0x1234_5678_9abc_def0n,
    vmtapeVersion: 'test',
    ...changes,
  };
}

export interface RecordedSession {
  readonly store: JournalStore;
  readonly recorder: Recorder;
  /** What the guest sent over the serial port. */
  readonly output: string;
}

export interface RecordedHow extends Partial<RecorderOptions> {
  readonly store?: JournalStore;
  /** What the serial port receives. */
  readonly input?: Uint8Array;
  /** Instructions to stop at, as a user's interrupt would. */
  readonly limit?: number;
}

/** Records a guest to its end, or to the limit. */
export function recordGuest(file: string, how: RecordedHow = {}): RecordedSession {
  const { store = memoryStore(), input, limit, ...changes } = how;
  let output = '';
  const observe = (stated: StatedEvent): void => {
    if (stated.event.type === 'uart.transmitted') output += String.fromCharCode(stated.event.byte);
    changes.observe?.(stated);
  };
  const recorder = Recorder.boot(store, { ...sessionOptions(file, changes), observe });
  if (input !== undefined) recorder.feed(input);
  recorder.endInput();
  let status = recorder.step(limit);
  while (status === 'running') status = recorder.step(limit);
  recorder.finish();
  return { store, recorder, output };
}

/** The tape as it is once its checkpoints were dropped. */
export const withoutCheckpoints = (reader: JournalReader): JournalReader =>
  Object.create(reader, { checkpoints: { value: () => [] } }) as JournalReader;

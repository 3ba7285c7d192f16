/** A machine that stands still at a place: of a tape, or where a snapshot was taken. */
import { closeSync, existsSync, openSync, readSync } from 'node:fs';
import { type JournalReader, type Position, sqliteStore } from '../../src/journal/index.js';
import type { Machine } from '../../src/machine/index.js';
import {
  decodeSnapshot,
  isSnapshot,
  LiveSession,
  resolvePosition,
  type Snapshot,
  Timeline,
  takeSnapshot,
} from '../../src/replay/index.js';
import { UsageError } from './failure.js';
import { readInputFile } from './machine-flags.js';

export interface StandingMachine {
  readonly machine: Machine;
  readonly position: Position;
  /** Its contents of RAM hold until `close`. */
  snapshot(): Snapshot;
  close(): void;
}

/** @param at a position; of a tape it is needed, of a snapshot there is none. @throws UsageError */
export function standingMachine(file: string, at: string | undefined): StandingMachine {
  if (beginsAsSnapshot(file)) {
    if (at !== undefined) throw new UsageError(`${file}: a snapshot is at one place. Leave --at out.`);
    const snapshot = decodeSnapshot(readInputFile(file, 'the snapshot'), file);
    const { machine } = LiveSession.resume(snapshot, {}, () => {});
    return { machine, position: snapshot.position, snapshot: () => snapshot, close: () => {} };
  }
  if (at === undefined) throw new UsageError(`${file}: a tape needs --at POS, such as --at end.`);
  const reader = sqliteStore(file).read();
  try {
    return onTape(reader, at);
  } catch (error) {
    reader.close();
    throw error;
  }
}

/** Tapes may be too long to be read whole. */
function beginsAsSnapshot(file: string): boolean {
  if (!existsSync(file))
    throw new UsageError(`${file}: there is no such file. Check the name of the tape or snapshot.`);
  const descriptor = openSync(file, 'r');
  try {
    const first = new Uint8Array(8);
    return readSync(descriptor, first) === first.length && isSnapshot(first);
  } finally {
    closeSync(descriptor);
  }
}

function onTape(reader: JournalReader, at: string): StandingMachine {
  const timeline = new Timeline(reader);
  const position = timeline.seek(resolvePosition(reader, at));
  return {
    machine: timeline.machine,
    position,
    snapshot: () => takeSnapshot(timeline.machine, reader, position),
    close() {
      timeline.close();
      reader.close();
    },
  };
}

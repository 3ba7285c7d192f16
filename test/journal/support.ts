/** Events and tapes for the journal's tests. */
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { isDeepStrictEqual } from 'node:util';
import { expect, onTestFinished } from 'vitest';
import type { CheckpointInput } from '../../src/journal/checkpoint.js';
import type { JournalRecord, Position } from '../../src/journal/record.js';
import type { JournalReader, TapeDescription } from '../../src/journal/store.js';
import type { StatedEvent } from '../../src/machine/events.js';

export const DESCRIPTION: TapeDescription = {
  vmtapeVersion: '0.1.0',
  machineVersion: '1',
  configuration: { ramBytes: 1 << 20, cpu: 'test', devices: ['uart'], seed: null },
};

/** A register delta of `slots` slots that differs with `salt`. */
export function delta(slots: number, salt: number): Uint8Array {
  const bytes = new Uint8Array(slots * 9);
  for (let slot = 0; slot < slots; slot++) {
    bytes[slot * 9] = slot;
    bytes[slot * 9 + 1] = salt & 0xff;
    bytes[slot * 9 + 2] = (salt >> 8) & 0xff;
  }
  return bytes;
}

const word = (index: number, value: bigint): Uint8Array => {
  const bytes = new Uint8Array(10);
  const view = new DataView(bytes.buffer);
  view.setUint16(0, index, true);
  view.setBigUint64(2, value, true);
  return bytes;
};

/** Events of a nested session, four for each exit: L2 runs, exits, L1 runs, enters again. */
export function* nestedEvents(count: number, from = 0): Generator<StatedEvent> {
  for (let index = from; index < from + count; index++) {
    const salt = (index * 2654435761) >>> 7;
    const exit = BigInt(index % 7) + 0x70n;
    switch (index % 4) {
      case 0:
        yield { retired: 1 + (salt % 500), vcpu: 0, level: 2, event: { type: 'cpu.ran', registers: delta(4, salt) } };
        break;
      case 1:
        yield {
          ...{ retired: 0, vcpu: 0, level: 2 },
          event: {
            ...{ type: 'svm.vmexit', vmcb: 0x7000, code: exit, info1: BigInt(salt), info2: 0xffff_8000_0000_0000n },
            ...{ intInfo: 0n, words: word(0xe, exit), registers: delta(6, index) },
          },
        };
        break;
      case 2:
        yield { retired: 40 + (salt % 9), vcpu: 0, level: 1, event: { type: 'cpu.ran', registers: delta(5, index) } };
        break;
      default:
        yield {
          ...{ retired: 1, vcpu: 0, level: 1 },
          event: { type: 'svm.vmrun', vmcb: 0x7000, asid: 1, words: word(0xaf, 0x1000n), registers: delta(6, salt) },
        };
    }
  }
}

/** A page that is told from others by a number; 0 is the page of zeros. */
export const pageOf = (salt: number): Uint8Array =>
  salt === 0 ? new Uint8Array(4096) : new Uint8Array(4096).map((_, at) => (at * salt * 31) ^ (salt >> 3));

/** A checkpoint that gives pages 0, 1, 2 … of RAM the contents that these numbers tell. */
export function checkpointOf(position: Position, salts: readonly number[], state = delta(4, 9)): CheckpointInput {
  const contents = new Uint8Array(4096 * salts.length);
  for (const [page, salt] of salts.entries()) contents.set(pageOf(salt), 4096 * page);
  return { position, state, ramPages: 300, changed: Uint32Array.from(salts.keys()), contents };
}

/** A directory that is gone after the test. */
export function temporaryDirectory(): string {
  const directory = mkdtempSync(join(tmpdir(), 'vmtape-journal-'));
  onTestFinished(() => rmSync(directory, { recursive: true, force: true }));
  return directory;
}

export const toStated = ({ retired, vcpu, level, event }: JournalRecord): StatedEvent => ({
  retired,
  vcpu,
  level,
  event,
});

export const statedEvents = (reader: JournalReader): StatedEvent[] => [...reader.records()].map(toStated);

/** Everything that a reader can give, as a value to compare. */
export function contentOf(reader: JournalReader): unknown {
  return {
    header: reader.header,
    state: reader.state,
    end: reader.end,
    records: [...reader.records()],
    digests: [...reader.digests()],
    checkpoints: reader.checkpoints().map(({ id }) => {
      const checkpoint = reader.checkpoint(id);
      return { ...checkpoint, contents: [...(checkpoint?.pages ?? [])].map((page) => page && reader.page(page)) };
    }),
    blobs: reader.blobDigests().map((digest) => [digest, reader.blob(digest)]),
  };
}

/** As `toEqual`, for values so large that looking for the difference takes longer than the test. */
export function expectSame(actual: unknown, expected: unknown, what = 'the two are the same'): void {
  expect(isDeepStrictEqual(actual, expected), what).toBe(true);
}

/** Runs `attempt` and gives back what it throws. */
export function errorOf(attempt: () => unknown): unknown {
  try {
    attempt();
  } catch (error) {
    return error;
  }
  return undefined;
}

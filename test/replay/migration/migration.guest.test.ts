/** A session that moves is the session that never moved: event by event, over as many hosts as it likes. */
import { describe, expect, it } from 'vitest';
import { formatPosition, type JournalReader, memoryStore } from '../../../src/journal/index.js';
import { DEFAULT_CONFIG, R } from '../../../src/machine/index.js';
import { Recorder, Replayer, stateDigests } from '../../../src/replay/index.js';
import { move, numbers, recordText } from '../../support/migration.js';
import { MEBIBYTE, recordGuest, sessionOptions } from '../../support/sessions.js';

const guests = [
  { file: 'smp.elf', commandLine: 'smp.elf', vcpus: 2, slice: 53, hops: 210 },
  { file: 'nested.elf', commandLine: 'nested.elf rounds=4', vcpus: 1, slice: 97, hops: 40 },
  { file: 'nested-timer.elf', commandLine: 'nested-timer.elf', vcpus: 1, slice: 1009, hops: 20 },
] as const;

describe.each(guests)('$file on $vcpus vCPUs', ({ file, commandLine, vcpus, slice, hops }) => {
  const config = { ...DEFAULT_CONFIG, ramBytes: 16 * MEBIBYTE, vcpus };
  const how = { config, commandLine, sliceInstructions: slice };

  it(`moves ${hops} times, and nothing is lost or doubled`, async () => {
    const unbroken = recordGuest(file, how).store.read();
    const end = Number(unbroken.end.icount);
    const random = numbers(7);
    const at = Array.from({ length: hops }, () => Math.floor(random.next().value * end * 0.98)).sort((a, b) => a - b);
    const readers: JournalReader[] = [];
    let store = memoryStore();
    let recorder = Recorder.boot(store, sessionOptions(file, how));
    recorder.endInput();
    let live = 0;
    let moves = 0;
    for (const place of at) {
      while (recorder.machine.retired < place && recorder.step() === 'running');
      if (recorder.machine.state.ended !== null) break;
      const source = { recorder, store };
      const before = recorder.machine;
      const moved = await move(recorder, file).catch((error: Error) => {
        if (/ended before it had moved/.test(error.message)) return undefined;
        throw error;
      });
      if (moved === undefined) break;
      ({ recorder, store } = moved);
      expect(stateDigests(recorder.machine)).toEqual(stateDigests(before));
      if (before.state.vcpus.some(({ registers }) => ((registers[R.svmMode] as bigint) & 1n) !== 0n)) live++;
      moves++;
      source.recorder.finish();
      readers.push(source.store.read());
    }
    while (recorder.step() === 'running');
    recorder.finish();
    readers.push(store.read());

    expect(moves).toBeGreaterThan(hops * 0.9);
    // The guest of nested.elf runs for some dozen instructions at a time.
    if (file !== 'nested.elf') expect(live).toBeGreaterThan(0);
    const stitched = readers.flatMap((reader) => [...reader.records()].map(recordText));
    const expected = [...unbroken.records()].map(recordText);
    const different = expected.findIndex((record, index) => record !== stitched[index]);
    expect([different, stitched[different], stitched.length]).toEqual([-1, undefined, expected.length]);
    for (const [index, reader] of readers.entries()) {
      const next = readers[index + 1];
      if (next !== undefined) {
        expect(formatPosition(next.start)).toBe(formatPosition(reader.end));
        expect(next.header.origin?.parent).toBe(reader.historyDigest(reader.end.seq));
      }
      if (index % 20 === 0) expect(new Replayer(reader).run()).toMatchObject({ kind: 'identical' });
    }
  }, 170_000);
});

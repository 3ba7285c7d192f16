/** A session that runs at the other side before its RAM is there is still the session that never moved. */
import { describe, expect, it } from 'vitest';
import { formatPosition, type JournalReader, memoryStore } from '../../../src/journal/index.js';
import { DEFAULT_CONFIG, R } from '../../../src/machine/index.js';
import { Recorder, Replayer } from '../../../src/replay/index.js';
import { move, numbers, recordText } from '../../support/migration.js';
import { MEBIBYTE, recordGuest, sessionOptions } from '../../support/sessions.js';

const guests = [
  { file: 'smp.elf', commandLine: 'smp.elf', vcpus: 2, slice: 53, hops: 80 },
  // Both vCPUs run guests, whose local APICs are pages of RAM.
  { file: 'avic.elf', commandLine: 'avic.elf', vcpus: 2, slice: 53, hops: 50 },
  { file: 'nested.elf', commandLine: 'nested.elf rounds=4', vcpus: 1, slice: 97, hops: 60 },
  { file: 'nested-timer.elf', commandLine: 'nested-timer.elf', vcpus: 1, slice: 1009, hops: 30 },
] as const;

describe.each(guests)('$file on $vcpus vCPUs', ({ file, commandLine, vcpus, slice, hops }) => {
  const config = { ...DEFAULT_CONFIG, ramBytes: 16 * MEBIBYTE, vcpus, quantumInstructions: 1000 };
  const how = { config, commandLine, sliceInstructions: slice };

  it(`moves ${hops} times ahead of its RAM, and nothing shows of when a page came`, async () => {
    const unbroken = recordGuest(file, how).store.read();
    const end = Number(unbroken.end.icount);
    const random = numbers(11);
    const at = Array.from({ length: hops }, () => Math.floor(random.next().value * end * 0.95)).sort((a, b) => a - b);
    const readers: JournalReader[] = [];
    let store = memoryStore();
    let recorder = Recorder.boot(store, sessionOptions(file, how));
    recorder.endInput();
    const seen = { moves: 0, live: 0, needed: 0 };
    for (const place of at) {
      while (recorder.machine.retired < place && recorder.step() === 'running');
      if (recorder.machine.state.ended !== null) break;
      const source = { recorder, store };
      const postCopy = {
        rounds: Math.floor(random.next().value * 3),
        stretches: Math.floor(random.next().value * 30),
        background: random.next().value < 0.3,
      };
      const moved = await move(recorder, file, { postCopy }).catch((error: Error) => {
        if (/ended before it had moved/.test(error.message)) return undefined;
        throw error;
      });
      if (moved === undefined) break;
      ({ recorder, store } = moved);
      seen.moves++;
      seen.needed += moved.needed;
      const { vcpus: left } = source.recorder.machine.state;
      if (left.some(({ registers }) => ((registers[R.svmMode] as bigint) & 1n) !== 0n)) seen.live++;
      source.recorder.finish();
      readers.push(source.store.read());
    }
    while (recorder.step() === 'running');
    recorder.finish();
    readers.push(store.read());

    expect(seen.moves).toBeGreaterThan(hops * 0.5);
    expect(seen.needed).toBeGreaterThan(seen.moves);
    // The guest of nested.elf runs for some dozen instructions at a time.
    if (file === 'avic.elf' || file === 'nested-timer.elf') expect(seen.live).toBeGreaterThan(0);
    const stitched = readers.flatMap((reader) => [...reader.records()].map(recordText));
    const expected = [...unbroken.records()].map(recordText);
    const different = expected.findIndex((record, index) => record !== stitched[index]);
    expect([different, stitched[different], stitched.length]).toEqual([-1, undefined, expected.length]);
    for (const [index, reader] of readers.entries()) {
      const next = readers[index + 1];
      if (next !== undefined) expect(formatPosition(next.start)).toBe(formatPosition(reader.end));
      if (index % 10 === 0) expect(new Replayer(reader).run()).toMatchObject({ kind: 'identical' });
    }
  }, 170_000);
});

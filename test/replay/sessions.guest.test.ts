/** Every sample guest: recorded twice the tapes are equal, replayed they are identical, folded they are the machine. */
import { isDeepStrictEqual } from 'node:util';
import { beforeAll, describe, expect, it } from 'vitest';
import type { JournalReader } from '../../src/journal/index.js';
import { DEFAULT_CONFIG } from '../../src/machine/index.js';
import { FoldChecker, foldTape, Replayer, stateDifferences } from '../../src/replay/index.js';
import { MEBIBYTE, type RecordedSession, recordGuest } from '../support/sessions.js';

const GUESTS = [
  'hello64.elf',
  'hello64-elf64.elf',
  'hello64-flat.bin',
  'compute.elf',
  'exits.elf',
  'faults.elf',
  'nested.elf',
  'nested-timer.elf',
  'pic-pit.elf',
  'realmode.elf',
  'torture.elf',
];
const SESSIONS: readonly (readonly [file: string, options: string, vcpus: number])[] = [
  ...GUESTS.map((file) => [file, '', 1] as const),
  ['pointers.elf', 'divide=20', 1],
  ['strings.elf', 'divide=20', 1],
  ['crypto32.elf', 'divide=20', 1],
  ['paging.elf', 'divide=70 processes=2 frames=130', 1],
  ['selfmod.elf', 'divide=100 scale=2', 1],
  ['blocks.elf', 'divide=100 scale=2', 1],
  ['smp.elf', '', 4],
  ['avic.elf', '', 1],
  ['avic.elf', '', 2],
];

const contentOf = (reader: JournalReader): unknown => [
  reader.header,
  reader.end,
  [...reader.chunks()].map(({ raw }) => raw),
  [...reader.digests()],
  reader.blobDigests(),
];

describe.each(SESSIONS)('%s %s on %i vCPUs', (file, options, vcpus) => {
  const how = {
    config: { ...DEFAULT_CONFIG, ramBytes: 64 * MEBIBYTE, vcpus },
    commandLine: `${file} ${options}`.trim(),
  };
  let session: RecordedSession;
  beforeAll(() => {
    session = recordGuest(file, how);
  });

  it('ends by itself', () => {
    expect(session.recorder.machine.state.ended).toMatchObject({ reason: 'debug-exit' });
  });

  it('gives the same tape whenever it is recorded', () => {
    const again = recordGuest(file, how);
    expect(again.output).toBe(session.output);
    expect(isDeepStrictEqual(contentOf(again.store.read()), contentOf(session.store.read()))).toBe(true);
  });

  it('replays identically, and folds to the machine at every boundary', () => {
    const reader = session.store.read();
    const fold = new FoldChecker(reader);
    const replayer = new Replayer(reader, { observe: fold.check });
    fold.watch(replayer.machine);
    expect(replayer.run()).toEqual({
      kind: 'identical',
      end: reader.end,
      tape: 'complete',
      digests: 5,
      ending: 'ended',
    });
    expect(fold.checked).toBe(Number(reader.end.seq));
    expect(stateDifferences(foldTape(reader).state, session.recorder.machine.state)).toEqual([]);
  });
});

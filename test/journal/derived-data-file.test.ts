import { statSync } from 'node:fs';
import { join } from 'node:path';
import { describe, expect, it } from 'vitest';
import { DerivedDataFile } from '../../src/journal/derived-data-file.js';
import { TapeInputError } from '../../src/journal/errors.js';
import { sqliteStore } from '../../src/journal/sqlite-store.js';
import { verifyTape } from '../../src/journal/verify.js';
import {
  checkpointOf,
  DESCRIPTION,
  errorOf,
  nestedEvents,
  pageOf,
  statedEvents,
  temporaryDirectory,
} from './support.js';

function makeTape(end: 'finish' | 'close' = 'finish'): string {
  const file = join(temporaryDirectory(), 'a.vmtape');
  const writer = sqliteStore(file, { thread: false }).create(DESCRIPTION);
  for (const stated of nestedEvents(20)) writer.append(stated);
  writer[end]();
  return file;
}

const read = (file: string) => sqliteStore(file).read();

describe('checkpoints of a tape that is there', () => {
  it('are added in any order, and taken away with the pages that nobody else has', () => {
    const file = makeTape();
    const events = statedEvents(read(file));
    const checkpoints = DerivedDataFile.open(file);
    checkpoints.put(checkpointOf({ icount: 900n, seq: 12n }, [1, 2]));
    checkpoints.put(
      checkpointOf(
        { icount: 100n, seq: 3n },
        Array.from({ length: 60 }, (_, page) => page + 10),
      ),
    );
    checkpoints.close();
    const reader = read(file);
    expect(reader.checkpoints().map(({ id, position: { seq } }) => [id, seq])).toEqual([
      [2, 3n],
      [1, 12n],
    ]);
    reader.close();
    const large = statSync(file).size;
    const again = DerivedDataFile.open(file);
    again.drop([2]);
    // What was dropped is put again, not referred to.
    again.put(checkpointOf({ icount: 950n, seq: 13n }, [10, 1]));
    again.close();
    expect(statSync(file).size).toBeLessThan(large);
    expect(verifyTape(file)).toMatchObject({ damage: [], checkpoints: 2, state: 'complete' });
    const after = read(file);
    const pages = after.checkpoint(after.checkpoints()[1]?.id ?? 0)?.pages ?? [];
    expect([after.page(pages[0] as number), after.page(pages[1] as number)]).toEqual([pageOf(10), pageOf(1)]);
    expect(statedEvents(after)).toEqual(events);
    after.close();
  });

  it('leave a tape that was cut as it was', () => {
    const file = makeTape('close');
    const checkpoints = DerivedDataFile.open(file);
    checkpoints.put(checkpointOf({ icount: 100n, seq: 3n }, [1]));
    checkpoints.close();
    expect(read(file)).toMatchObject({ state: 'cut' });
    expect(verifyTape(file).damage).toEqual([]);
  });

  it('leave no tables behind when all are gone', () => {
    const file = makeTape();
    DerivedDataFile.open(file).close();
    const reader = read(file);
    expect(reader.checkpoints()).toEqual([]);
    reader.close();
    const writer = sqliteStore(file).continue();
    writer.putCheckpoint(checkpointOf(writer.end, [1]));
    writer.finish();
    expect(verifyTape(file)).toMatchObject({ checkpoints: 1, damage: [] });
  });

  it('wait while the tape is written', () => {
    const file = makeTape();
    const writer = sqliteStore(file).continue();
    expect(errorOf(() => DerivedDataFile.open(file))).toBeInstanceOf(TapeInputError);
    writer.finish();
    DerivedDataFile.open(file).close();
  });
});

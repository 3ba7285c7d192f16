import { join } from 'node:path';
import { describe, expect, it } from 'vitest';
import { FIXED, image, type Surroundings, temporaryFolder, vmtape } from './vmtape.js';

const folder = temporaryFolder();

const SURROUNDINGS: readonly Surroundings[] = [
  { env: { TZ: 'Pacific/Kiritimati', LANG: 'C', LC_ALL: 'C' } },
  { env: { TZ: 'America/St_Johns', LANG: 'tr_TR.UTF-8', LC_ALL: 'tr_TR.UTF-8' }, through: ['nice', '-n', '15'] },
];

describe('a session', () => {
  it.each([
    ['hello64.elf', ''],
    ['nested.elf', 'rounds=10'],
    ['nested-timer.elf', ''],
    ['faults.elf', ''],
    ['pic-pit.elf', ''],
    ['realmode.elf', ''],
    ['exits.elf', 'n=2000'],
    ['paging.elf', 'divide=140'],
  ])(
    'of %s is the same, event for event, in two processes with other time zones, locales and priorities',
    (name, append) => {
      const logs = SURROUNDINGS.map((surroundings, index) => {
        const tape = join(folder, `${name}-${index}.vmtape`);
        const args = ['record', image(name), '-o', tape, ...FIXED, '-q', '--serial', 'null', '--append', append];
        expect(vmtape(args, surroundings)).toMatchObject({ status: 0, stderr: '' });
        const { digests } = JSON.parse(vmtape(['info', tape, '--json'], surroundings).stdout);
        return { digests, log: vmtape(['log', tape, '--json'], surroundings).stdout };
      });
      const [first, second] = logs;
      expect(first?.log.length).toBeGreaterThan(1000);
      // Compared by hand: a difference of megabytes would be printed otherwise.
      expect(first?.log === second?.log).toBe(true);
      expect(first?.digests).toBe(second?.digests);
    },
  );
});

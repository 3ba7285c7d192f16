/** What `npm run bench -- speed` runs, each in a process of its own: vmtape in its ways, QEMU and Bochs where they are installed. */
import { rmSync } from 'node:fs';
import { join } from 'node:path';
import type { Bochs } from './bochs.js';
import { type Guest, type QemuMode, qemuVersion, runQemu, runVmtape, type VmtapeRun } from './subjects.js';

export interface Column {
  readonly name: string;
  /** Whose it is, for the plot. */
  readonly program: 'vmtape' | 'QEMU' | 'Bochs';
  /** What runs before a guest of its own does: it is taken off. */
  readonly hasStart: boolean;
  /** @returns seconds. @throws when the machine does not come to the guest's end. */
  run(guest: Guest, folder: string): number;
}

/** Figures of a recording, which the ratios need. */
export interface Recorded {
  readonly instructions: number;
  readonly exits: number;
  readonly tapeBytes: number;
  readonly peakRssBytes: number;
}

/** All that was measured of a guest. */
export interface SpeedResult extends Recorded {
  readonly guest: string;
  readonly columns: readonly {
    readonly name: string;
    readonly program: Column['program'];
    /** The best round, without the start; undefined where the machine did not come to the guest's end. */
    readonly seconds: number | undefined;
    readonly rounds: readonly number[];
    readonly problem?: string | undefined;
  }[];
  readonly ratios: readonly { readonly name: string; readonly ratio: number; readonly goal: number }[];
  readonly bytesPerExit: number | undefined;
  readonly bytesPerThousand: number;
}

export const TIERS = ['interpreter', 'auto', 'jit'] as const;
export type TierName = (typeof TIERS)[number];

const tapeOf = (guest: Guest, folder: string): string => join(folder, `${guest.name}.vmtape`);

export interface ColumnOptions {
  readonly tiers: readonly TierName[];
  readonly jobs: number;
  readonly patience: number;
  readonly bochs: Bochs | undefined;
}

/**
 * In the order in which a round runs them: what is compared stands side by side.
 * @param tiers whose runs are measured; the last one also records and replays. @param jobs processes of the parallel replay.
 * @param patience seconds that others may take. @param recorded hears of each recording.
 */
export function columnsOf(
  { tiers, jobs, patience, bochs }: ColumnOptions,
  recorded: (run: Recorded) => void,
): readonly Column[] {
  const last = tiers.at(-1) ?? 'auto';
  const vmtape = (name: string, run: (guest: Guest, folder: string) => VmtapeRun): Column => ({
    ...{ name, program: 'vmtape', hasStart: false },
    run: (guest, folder) => run(guest, folder).seconds,
  });
  const qemu = (mode: QemuMode, name: string): Column => ({
    ...{ name: `QEMU ${name}`, program: 'QEMU', hasStart: true },
    run: (guest, folder) => runQemu(guest, mode, folder, patience),
  });
  const hasQemu = qemuVersion() !== undefined;
  const others = (...columns: readonly Column[]): readonly Column[] => (hasQemu ? columns : []);
  return [
    vmtape('record', (guest, folder) => {
      const tape = tapeOf(guest, folder);
      rmSync(tape, { force: true });
      const run = runVmtape(['record', '-o', tape, '--engine', last], guest);
      recorded(run);
      return run;
    }),
    ...others(qemu('rr=record', 'record')),
    vmtape('replay', (guest, folder) => runVmtape(['replay', tapeOf(guest, folder), '--engine', last], undefined)),
    vmtape(`replay --jobs ${jobs}`, (guest, folder) =>
      runVmtape(['replay', tapeOf(guest, folder), '--engine', last, '--jobs', String(jobs)], undefined),
    ),
    ...others(qemu('rr=replay', 'replay')),
    ...tiers
      .toReversed()
      .map((tier) =>
        vmtape(tier === 'auto' ? 'run' : `run ${tier}`, (guest) => runVmtape(['run', '--engine', tier], guest)),
      ),
    ...others(qemu('plain', 'plain')),
    ...(bochs === undefined ? [] : [bochsColumn(bochs, patience)]),
  ];
}

const bochsColumn = (bochs: Bochs, patience: number): Column => ({
  ...{ name: 'Bochs', program: 'Bochs', hasStart: true },
  run: (guest, folder) => bochs.run(guest, folder, patience),
});

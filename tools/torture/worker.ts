/**
 * What a process of the pool does: a batch of places, or one half of a case whose other half another process does. It keeps
 * its machines from batch to batch.
 */
import { type JournalReader, type Position, sqliteStore } from '../../src/journal/index.js';
import {
  type ApartCase,
  type OrderChoice,
  resumeApart,
  Torture,
  type TortureFailure,
  type WindowSize,
} from '../../src/replay/index.js';
import { tuneV8 } from '../cli/engine.js';
import { type Failure, failureOf } from '../cli/failure.js';

tuneV8();

export interface TapeSettings {
  readonly tape: string;
  readonly orders: OrderChoice;
  readonly window: WindowSize;
  readonly seed: bigint;
}

export type Task =
  | {
      readonly kind: 'batch';
      readonly tape: TapeSettings;
      readonly places: readonly Position[];
      readonly stops: boolean;
    }
  | { readonly kind: 'save'; readonly tape: TapeSettings; readonly place: Position }
  | { readonly kind: 'resume'; readonly tape: TapeSettings; readonly saved: ApartCase };

export interface BatchSums {
  readonly kind: 'batch';
  /** Places that were saved at, times that a machine was put back, windows that it ran. */
  readonly places: number;
  readonly restores: number;
  readonly windows: number;
  readonly failures: readonly TortureFailure[];
}

export type TaskResult =
  | BatchSums
  | { readonly kind: 'saved'; readonly saved: ApartCase }
  /** What is not as it was. */
  | { readonly kind: 'resumed'; readonly problem: string | undefined }
  | { readonly kind: 'failed'; readonly failure: Failure };

/** Failures of a batch beyond which it ends: a machine that is restored wrongly may be so at every place. */
const MOST_FAILURES = 50;

let reader: JournalReader | undefined;
let torture: Torture | undefined;

/** Called by the pool. */
export function work(task: Task): TaskResult {
  try {
    const { tape } = task;
    reader ??= sqliteStore(tape.tape).read();
    if (task.kind === 'resume') return { kind: 'resumed', problem: resumeApart(reader, task.saved) };
    torture ??= new Torture(reader, tape);
    if (task.kind === 'save') return { kind: 'saved', saved: torture.saveApart(task.place) };
    return batch(torture, task.places, task.stops ? 1 : MOST_FAILURES);
  } catch (error) {
    return { kind: 'failed', failure: failureOf(error) };
  }
}

function batch(machines: Torture, positions: readonly Position[], most: number): BatchSums {
  let [places, restores, windows] = [0, 0, 0];
  const failures: TortureFailure[] = [];
  machines.begin(positions[0] as Position);
  for (const position of positions) {
    const outcome = machines.at(position);
    if (outcome === undefined) continue;
    places++;
    restores += outcome.restores;
    windows += outcome.windows;
    failures.push(...outcome.failures);
    if (failures.length >= most) break;
  }
  return { kind: 'batch', places, restores, windows, failures };
}

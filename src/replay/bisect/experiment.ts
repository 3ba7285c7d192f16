/**
 * What other machines would do at a place of a session: each is put there, with the same registers, devices and RAM, and does
 * one step. So the cause of a difference is found by trying, and not by guessing.
 */
import type { JournalReader } from '../../journal/index.js';
import {
  type EventSink,
  FIRST_EPOCH,
  InvariantError,
  instructionCount,
  Machine,
  type MachineConfig,
  type MachinePoint,
  PAGE_BYTES,
  REGISTER_NAMES,
  type Slot,
  type StatedEvent,
  sPA,
  UnsupportedError,
} from '../../machine/index.js';
import { giveImage } from '../feed-input.js';
import { sameData } from '../fold.js';

/** What a step comes to. */
export interface Outcome {
  /** A run that it ends is not among them. */
  readonly events: readonly StatedEvent[];
  readonly registers: readonly bigint[];
  /** The machine could not do it at all. */
  readonly failure: string | undefined;
}

export const sameOutcome = (a: Outcome, b: Outcome): boolean => sameData(a, b);

export class Experiment {
  private readonly point: MachinePoint;
  private readonly pages: readonly (readonly [page: number, content: Uint8Array])[];

  /** @param machine stands between two steps. */
  constructor(
    machine: Machine,
    private readonly reader: JournalReader,
  ) {
    this.point = machine.capture();
    const { memory } = machine;
    this.pages = Array.from(memory.pagesWrittenSince(FIRST_EPOCH), (page) => [
      page,
      memory.window(page * PAGE_BYTES, PAGE_BYTES).slice(),
    ]);
  }

  /** What a machine of this configuration does next. It must have as much RAM and as many vCPUs. */
  step(config: MachineConfig): Outcome {
    const events: StatedEvent[] = [];
    let sink: EventSink = () => {};
    const machine = new Machine(config, (stated) => sink(stated));
    sink = (stated) => {
      if (stated.event.type !== 'cpu.ran') events.push(stated);
      machine.pause();
    };
    for (const [page, content] of this.pages) machine.memory.copyIn(sPA(page * PAGE_BYTES), content);
    machine.restore(this.point);
    giveImage(machine, this.reader);
    let failure: string | undefined;
    try {
      machine.runUpTo(instructionCount(machine.retired + 1));
    } catch (error) {
      if (!(error instanceof InvariantError) && !(error instanceof UnsupportedError)) throw error;
      failure = error.message;
    }
    const { registers } = machine;
    return { events, registers: REGISTER_NAMES.map((_, slot) => registers[slot as Slot] as bigint), failure };
  }
}

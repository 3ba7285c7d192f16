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
import { differencesOf } from '../divergence.js';
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

/** An event of another type counts more than all that can differ in one. */
const OTHER_EVENT = 10_000;

/**
 * In how much two outcomes differ; 0 when in nothing.
 * @param inEvents only the events are known.
 */
export function outcomeDistance(a: Outcome, b: Outcome, inEvents: boolean): number {
  let distance = a.failure === b.failure ? 0 : OTHER_EVENT;
  for (let index = 0; index < Math.max(a.events.length, b.events.length); index++) {
    distance += eventDistance(a.events[index], b.events[index]);
  }
  if (inEvents) return distance;
  return distance + a.registers.filter((value, slot) => value !== b.registers[slot]).length;
}

function eventDistance(a: StatedEvent | undefined, b: StatedEvent | undefined): number {
  if (a === undefined || b === undefined || a.event.type !== b.event.type) return OTHER_EVENT;
  return sameData(a, b) ? 0 : Math.max(1, differencesOf(a, b, []).length);
}

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

  private readonly outcomes = new Map<string, Outcome>();

  /** What a machine of this configuration does next. It must have as much RAM and as many vCPUs. */
  step(config: MachineConfig): Outcome {
    const key = JSON.stringify(config);
    const outcome = this.outcomes.get(key) ?? this.outcomeOf(config);
    this.outcomes.set(key, outcome);
    return outcome;
  }

  private outcomeOf(config: MachineConfig): Outcome {
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

/** Puts a machine to where a checkpoint of its session was taken. */
import {
  type Checkpoint,
  type CheckpointEntry,
  comparePositions,
  type JournalReader,
  type Position,
} from '../journal/index.js';
import { FIRST_EPOCH, type Machine, PAGE_BYTES, sPA } from '../machine/index.js';
import { giveImage } from './feed-input.js';
import { decodePoint } from './point-codec.js';
import { putPage, RamImage } from './ram-image.js';

/** The last checkpoint of a tape at or before a position. */
export function checkpointBefore(reader: JournalReader, position: Position): CheckpointEntry | undefined {
  return reader.checkpoints().findLast((each) => comparePositions(each.position, position) <= 0);
}

/** Puts a fresh machine to where its tape begins, when the session began elsewhere. */
export function enterOrigin(machine: Machine, reader: JournalReader): void {
  const origin = reader.origin();
  if (origin !== undefined) enterCheckpoint(machine, reader, origin);
}

/** @param machine a fresh one, whose RAM is all zeros. */
export function enterCheckpoint(machine: Machine, reader: JournalReader, { pages, state }: Checkpoint): void {
  for (const [page, content] of pages.entries()) {
    if (content !== 0) machine.memory.copyIn(sPA(page * PAGE_BYTES), reader.page(content));
  }
  machine.restore(decodePoint(state));
  giveImage(machine, reader);
}

/** Puts one machine to several checkpoints of its session, one after the other: pages that are as they should be stay. */
export class Entrance {
  /** RAM when the epoch began. */
  private image: RamImage | undefined;
  private epoch = FIRST_EPOCH;

  /** @param machine a fresh one. */
  constructor(
    private readonly machine: Machine,
    private readonly reader: JournalReader,
  ) {}

  enter(checkpoint: Checkpoint): void {
    const { machine, reader } = this;
    const { memory, retired } = machine;
    if (this.image === undefined && retired === 0) enterCheckpoint(machine, reader, checkpoint);
    else this.reenter(checkpoint);
    this.image = RamImage.of(checkpoint.pages, this.image);
    this.epoch = memory.newEpoch();
  }

  private reenter({ pages, state }: Checkpoint): void {
    const { machine, reader } = this;
    const { memory } = machine;
    const image = this.image ?? RamImage.zeros(pages.length);
    const changed = new Set<number>(memory.pagesWrittenSince(this.epoch));
    for (const page of image.differences(RamImage.of(pages, image))) changed.add(page);
    for (const page of changed) {
      const content = pages[page] as number;
      putPage(memory, page, content === 0 ? ZEROS : reader.page(content));
    }
    const booted = machine.state.boot?.imageDigest;
    machine.restore(decodePoint(state));
    if (machine.state.boot?.imageDigest !== booted) giveImage(machine, reader);
  }
}

const ZEROS = new Uint8Array(PAGE_BYTES);

/**
 * Where each vCPU stands as events go by, by name: what happens has a place in the code even where its event does not say it.
 * RIP is known from the first event on that moves it.
 */
import type { ChunkScan } from '../../src/journal/index.js';
import { eventText } from '../../src/replay/index.js';
import { type LevelSymbols, ripAfter } from './level-symbols.js';

export class Places {
  private readonly rips = new Map<number, bigint>();

  constructor(private readonly symbols: LevelSymbols) {}

  /** Goes past an event. */
  see({ vcpu, record }: ChunkScan): void {
    const rip = ripAfter(record.event);
    if (rip !== undefined) this.rips.set(vcpu, rip);
  }

  /** `name+0x12` of where the event's vCPU stands ahead of it, at its level: a guest at its #VMEXIT. */
  before({ vcpu, level }: ChunkScan): string | undefined {
    return this.symbols.textOf(level, this.rips.get(vcpu));
  }

  /** The event's line, with names of where its vCPU stands ahead of it, and goes on. */
  textOf(scan: ChunkScan): string {
    const { record } = scan;
    const at = this.before(scan);
    const text = this.symbols.inEvent(eventText(record), record.event, record.level);
    return at === undefined ? text : `${text} at ${at}`;
  }
}

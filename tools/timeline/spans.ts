/**
 * Who ran when: the stretches of a session in which one vCPU executed at one level, made from the events' envelopes. An
 * event with instructions says whose they were; a #VMEXIT ends its guest's stretch even when that was empty.
 *
 * Times are virtual: nanoseconds from the instruction count, and from what was skipped.
 */
import type { ChunkScan, JournalReader } from '../../src/journal/index.js';
import { type EventOf, exitName, type Level } from '../../src/machine/index.js';

export interface Instant {
  /** Instructions retired. */
  readonly icount: number;
  /** Events before it. */
  readonly seq: number;
  readonly nanoseconds: number;
}

export interface Span {
  readonly vcpu: number;
  readonly level: Level;
  readonly from: Instant;
  readonly to: Instant;
  /** The #VMEXIT that ended it. */
  readonly exit: string | undefined;
}

/** Time that passed while no vCPU ran. */
export interface Pause {
  readonly from: Instant;
  readonly to: Instant;
  /** Every vCPU waited, or the host took the time. */
  readonly why: 'waits' | 'stolen';
}

export interface SpanSink {
  span(span: Span): void;
  pause(pause: Pause): void;
}

const NANOSECONDS_BEFORE_IT_WAS_SAID = 10;

/** From the tape's header. */
export function nanosecondsPerInstruction({ header }: JournalReader): number {
  const machine = header.configuration.machine as { readonly nanosecondsPerInstruction?: unknown } | undefined;
  const told = machine?.nanosecondsPerInstruction;
  return typeof told === 'number' ? told : NANOSECONDS_BEFORE_IT_WAS_SAID;
}

/** Feed it every event of a session in order, from the start. */
export class SpanTracker {
  private open: { readonly vcpu: number; readonly level: Level; readonly from: Instant } | undefined;
  private skipped = 0;

  constructor(
    private readonly perInstruction: number,
    private readonly sink: SpanSink,
  ) {}

  /** The boundary before the event. */
  before(scan: ChunkScan): Instant {
    return this.at(Number(scan.icount) - scan.retired, Number(scan.seq));
  }

  private at(icount: number, seq: number): Instant {
    return { icount, seq, nanoseconds: icount * this.perInstruction + this.skipped };
  }

  see(scan: ChunkScan): void {
    const { type, retired, vcpu } = scan;
    const isExit = type === 'svm.vmexit';
    if (retired > 0 || isExit) {
      const { open } = this;
      // A VMRUN that fails its checks exits before the guest runs: the guest's stretch is empty, and not its hypervisor's.
      const level = isExit ? 2 : scan.level;
      if (open === undefined || open.vcpu !== vcpu || open.level !== level) {
        const before = this.before(scan);
        this.close(before, undefined);
        this.open = { vcpu, level, from: before };
      }
      if (isExit) this.close(this.after(scan), exitName((scan.event as EventOf<'svm.vmexit'>).code));
    } else if (type === 'time.skipped' || type === 'input.stolen') {
      const { nanoseconds } = scan.event as EventOf<'time.skipped' | 'input.stolen'>;
      const from = this.before(scan);
      this.close(from, undefined);
      this.skipped += nanoseconds;
      this.sink.pause({ from, to: this.after(scan), why: type === 'time.skipped' ? 'waits' : 'stolen' });
    }
  }

  /** The last event has been seen. */
  end(icount: number, seq: number): void {
    this.close(this.at(icount, seq), undefined);
  }

  private after(scan: ChunkScan): Instant {
    return this.at(Number(scan.icount), Number(scan.seq) + 1);
  }

  private close(to: Instant, exit: string | undefined): void {
    const { open } = this;
    this.open = undefined;
    if (open !== undefined) this.sink.span({ ...open, to, exit });
  }
}

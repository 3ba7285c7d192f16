/**
 * Runs a session to its end: slice by slice, so that signals are heard, the console lives and progress is told. Nothing
 * here shows in the session: a slice is a number of instructions, and the host's time only paces the progress line.
 */
import type { EndReason } from '../../src/machine/index.js';
import type { LiveSession, SessionStatus } from '../../src/replay/index.js';
import { OperatingError } from './failure.js';
import { shortCount } from './format.js';
import type { GuestOutput, SerialInput } from './serial-line.js';
import type { Terminal } from './terminal.js';

/** What `run` and `record` drive alike. */
export type DrivenSession = Pick<LiveSession, 'machine' | 'sampler' | 'step' | 'feed' | 'endInput'>;

export type Outcome =
  | { readonly kind: 'ended'; readonly reason: EndReason; readonly status: number }
  /** `--max-instructions` is reached. */
  | { readonly kind: 'limit' }
  /** The host stopped it: a signal, or a console that nobody reads. */
  | { readonly kind: 'stopped'; readonly by: StopCause }
  /** It goes on elsewhere. */
  | { readonly kind: 'moved'; readonly to: string };

export type StopCause = 'SIGINT' | 'SIGTERM' | 'closed console';

export interface Figures {
  readonly instructions: number;
  readonly seconds: number;
  readonly mips: number;
  readonly events: number;
  readonly exits: number;
  readonly tapeBytes: number;
  readonly checkpoints: number;
  readonly peakRssBytes: number;
}

/** Counts of the session so far. */
export interface Counters {
  events(): bigint;
  exits(): number;
  /** Undefined without a tape. */
  tapeBytes(): number | undefined;
  checkpoints(): number;
}

export interface Drive {
  readonly session: DrivenSession;
  readonly counters: Counters;
  readonly input: SerialInput;
  readonly output: GuestOutput;
  readonly terminal: Terminal;
  readonly maxInstructions: number | undefined;
  /** Work between two stretches. @returns an outcome that ends the session here. */
  readonly between?: (status: SessionStatus) => Promise<Outcome | undefined>;
  /** True while what the guest sends must not leave. */
  readonly holdsOutput?: () => boolean;
}

/** The host stopped a session that is somebody else's still: there is nothing to end. */
export class StoppedTooEarly extends OperatingError {
  constructor(by: StopCause) {
    super(`stopped by ${by} before it was handed over`);
  }
}

const PROGRESS_SECONDS = 0.25;
/** A turn of the event loop takes some microseconds, as a fast slice does. */
const TURN_MILLISECONDS = 5;

export async function drive(options: Drive): Promise<Outcome> {
  const { session, counters, input, output, terminal, maxInstructions, between, holdsOutput } = options;
  const signals = new StopSignals(() => input.interrupt());
  const progress = new Progress(session, counters, terminal);
  let turned = performance.now();
  try {
    for (;;) {
      if (signals.cause !== undefined) {
        if (holdsOutput?.() === true) throw new StoppedTooEarly(signals.cause);
        return { kind: 'stopped', by: signals.cause };
      }
      const status = session.step(maxInstructions);
      if (holdsOutput?.() !== true && !output.flush()) return { kind: 'stopped', by: 'closed console' };
      const elsewhere = between === undefined ? undefined : await between(status);
      if (elsewhere !== undefined) return elsewhere;
      if (status === 'ended') return ended(session);
      if (status === 'limit') return { kind: 'limit' };
      progress.tell();
      if (status === 'waiting') await input.more();
      else if (performance.now() - turned < TURN_MILLISECONDS) continue;
      else await turn();
      turned = performance.now();
    }
  } finally {
    signals.release();
    input.stop();
    terminal.clearStatus();
  }
}

function ended({ machine }: DrivenSession): Outcome {
  const { reason, status } = machine.state.ended ?? { reason: 'halted-forever' as const, status: 0 };
  return { kind: 'ended', reason, status };
}

/** Lets the host's event loop turn: signals, stdin. */
const turn = (): Promise<void> => new Promise((resolve) => setImmediate(resolve));

/**
 * The first SIGINT or SIGTERM asks for a clean end. Then the listeners are gone, so that the second one has its default
 * effect: the process dies at once, and the tape is left as a kill leaves it.
 */
/** The first SIGINT or SIGTERM is noted, and the next one kills. */
export class StopSignals {
  cause: 'SIGINT' | 'SIGTERM' | undefined;
  private readonly onSignal = (signal: NodeJS.Signals): void => {
    this.cause = signal === 'SIGTERM' ? 'SIGTERM' : 'SIGINT';
    this.release();
    this.interrupt();
  };

  constructor(private readonly interrupt: () => void = () => {}) {
    process.on('SIGINT', this.onSignal);
    process.on('SIGTERM', this.onSignal);
  }

  release(): void {
    process.off('SIGINT', this.onSignal);
    process.off('SIGTERM', this.onSignal);
  }
}

export class Stopwatch {
  private readonly started = process.hrtime.bigint();

  get seconds(): number {
    return Number(process.hrtime.bigint() - this.started) / 1e9;
  }
}

/** The progress line: rates are those since the line before. */
class Progress {
  private readonly watch = new Stopwatch();
  private last = { seconds: 0, instructions: 0, exits: 0 };

  constructor(
    private readonly session: DrivenSession,
    private readonly counters: Counters,
    private readonly terminal: Terminal,
  ) {}

  tell(): void {
    if (!this.terminal.showsStatus) return;
    const { seconds } = this.watch;
    const elapsed = seconds - this.last.seconds;
    if (elapsed < PROGRESS_SECONDS) return;
    const instructions = this.session.machine.retired;
    const exits = this.counters.exits();
    const mips = (instructions - this.last.instructions) / elapsed / 1e6;
    const exitRate = (exits - this.last.exits) / elapsed;
    this.last = { seconds, instructions, exits };
    const tapeBytes = this.counters.tapeBytes();
    const tape = tapeBytes === undefined ? '' : `, tape ${shortCount(tapeBytes)}B`;
    this.terminal.status(
      `${shortCount(instructions)} instructions, ${mips.toFixed(1)} MIPS, ${shortCount(exitRate)} exits/s${tape}`,
    );
  }
}

/** @param first instructions that had retired before. */
export function figures(session: DrivenSession, counters: Counters, seconds: number, first = 0): Figures {
  const instructions = session.machine.retired - first;
  return {
    instructions,
    seconds: Math.round(seconds * 1e6) / 1e6,
    mips: seconds === 0 ? 0 : Math.round(instructions / seconds / 1e3) / 1e3,
    events: Number(counters.events()),
    exits: counters.exits(),
    tapeBytes: counters.tapeBytes() ?? 0,
    checkpoints: counters.checkpoints(),
    peakRssBytes: process.resourceUsage().maxRSS * 1024,
  };
}

/** How a session came to its end, in words. */
export function describeOutcome(outcome: Outcome): string {
  switch (outcome.kind) {
    case 'moved':
      return `the session has moved to ${outcome.to}`;
    case 'limit':
      return 'stopped at --max-instructions';
    case 'stopped':
      return `stopped by ${outcome.by}`;
    case 'ended': {
      const { reason, status } = outcome;
      const words = {
        'debug-exit': `the guest ended with status ${status}`,
        reset: 'the guest reset the machine',
        shutdown: 'the guest shut down: a triple fault',
        'halted-forever': 'the guest halted, and nothing can wake it',
      };
      return words[reason];
    }
  }
}

/** @param wanted `--guest-status`. @returns the guest's status cut to what a process can say, or 0. */
export const outcomeStatus = (outcome: Outcome, wanted: boolean | undefined): number =>
  wanted === true && outcome.kind === 'ended' && outcome.reason === 'debug-exit' ? outcome.status % 256 : 0;

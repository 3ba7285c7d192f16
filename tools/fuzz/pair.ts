/** Engine and evaluator side by side: the same program, and what they disagree in. */
import { EventEncoder } from '../../src/journal/index.js';
import { R, REGISTER_NAMES, type StatedEvent } from '../../src/machine/index.js';
import type { Script } from './program.js';
import { isRefusal, type Outcome, Subject } from './subject.js';

export interface PairOutcome {
  readonly retired: number;
  /** Empty when the two agree and neither failed. */
  readonly differences: readonly string[];
  readonly spent: boolean;
}

export class Pair {
  readonly engine: Subject;
  readonly evaluator: Subject;
  private readonly encoders = [new EventEncoder(), new EventEncoder()] as const;

  constructor(cpu: string) {
    this.engine = new Subject(cpu, 'engine');
    this.evaluator = new Subject(cpu, 'evaluator');
  }

  run(script: Script, limit: number): PairOutcome {
    const found = this.engine.run(script, limit);
    const expected = this.evaluator.run(script, limit);
    return {
      retired: expected.retired,
      differences: this.differences(expected, found),
      spent: expected.spent || found.spent,
    };
  }

  private differences(expected: Outcome, found: Outcome): readonly string[] {
    const differences: string[] = [];
    for (const [tier, { error }] of [
      ['evaluator', expected],
      ['engine', found],
    ] as const) {
      if (error !== undefined && !isRefusal(error)) differences.push(`${tier} failed: ${error.stack ?? error.message}`);
    }
    if (expected.error?.message !== found.error?.message) {
      differences.push(`refusals: ${expected.error?.message ?? 'none'} and ${found.error?.message ?? 'none'}`);
    }
    if (expected.retired !== found.retired) differences.push(`retired: ${expected.retired} and ${found.retired}`);
    const [ours, theirs] = [this.encoded(0, this.evaluator), this.encoded(1, this.engine)];
    if (Buffer.compare(ours, theirs) !== 0) differences.push(this.firstEvent());
    for (const name of REGISTER_NAMES) {
      const [one, other] = [this.evaluator, this.engine].map(({ machine }) => machine.registers[R[name]] as bigint);
      if (one !== other) differences.push(`${name}: ${one?.toString(16)} and ${other?.toString(16)}`);
    }
    if (Buffer.compare(this.evaluator.ram, this.engine.ram) !== 0) {
      const at = this.evaluator.ram.findIndex((byte, index) => byte !== this.engine.ram[index]);
      differences.push(`RAM at ${at.toString(16)}: ${this.evaluator.ram[at]} and ${this.engine.ram[at]}`);
    }
    return differences;
  }

  private encoded(index: 0 | 1, { stated }: Subject): Uint8Array {
    const encoder = this.encoders[index];
    encoder.reset();
    for (const event of stated) encoder.encode(event);
    return encoder.bytes;
  }

  private firstEvent(): string {
    const encoder = new EventEncoder();
    const bytesOf = (event: StatedEvent | undefined): string => {
      if (event === undefined) return '';
      encoder.reset();
      encoder.encode(event);
      return Buffer.from(encoder.bytes).toString('hex');
    };
    const [expected, found] = [this.evaluator.stated, this.engine.stated];
    let at = 0;
    while (at < expected.length && bytesOf(expected[at]) === bytesOf(found[at])) at++;
    const text = (event: StatedEvent | undefined): string =>
      event === undefined ? 'nothing' : `${event.retired} retired, ${JSON.stringify(event.event, plain)}`;
    return `event ${at} of ${expected.length} and ${found.length}: ${text(expected[at])} and ${text(found[at])}`;
  }
}

const plain = (_: string, value: unknown): unknown =>
  typeof value === 'bigint'
    ? value.toString(16)
    : value instanceof Uint8Array
      ? Buffer.from(value).toString('hex')
      : value;

/** The first machine: a tape, run again step by step, with its registers after each step. */
import { type JournalReader, type Position, toHex } from '../../src/journal/index.js';
import { type Machine, REGISTER_NAMES, type Slot } from '../../src/machine/index.js';
import { type RamDigester, Timeline, Tracer, type TraceStep } from '../../src/replay/index.js';

export interface Taken {
  readonly step: TraceStep;
  /** All registers after it, by slot. */
  readonly registers: BigUint64Array;
  /** Digest of RAM after it, in hexadecimal, where it is asked for. */
  readonly ram: string | undefined;
}

export class Recording {
  private readonly timeline: Timeline;

  /** @throws InputError when this vmtape cannot make the machine of the tape. */
  constructor(private readonly reader: JournalReader) {
    this.timeline = new Timeline(reader);
  }

  get machine(): Machine {
    return this.timeline.machine;
  }

  get start(): Position {
    return this.timeline.start;
  }

  get end(): Position {
    return this.timeline.end;
  }

  /** Stands where so many instructions have retired, before what is due there. @returns the place. */
  to(icount: bigint): Position {
    return this.timeline.seekInstruction(icount);
  }

  registers(): BigUint64Array {
    const { registers } = this.machine;
    return BigUint64Array.from({ length: REGISTER_NAMES.length }, (_, slot) => registers[slot as Slot] as bigint);
  }

  /** Steps that were looked at ahead. */
  private ahead: Taken[] = [];
  private going: Generator<Taken, void, void> | undefined;

  /** Every step between two places; `peek` looks ahead. @param digester of this machine's RAM, asked after each. @throws FollowingError where this vmtape does something else than the tape says. */
  *steps(from: Position, to: Position, digester?: RamDigester): Generator<Taken, void, void> {
    const going = this.trace(from, to, digester);
    this.going = going;
    this.ahead = [];
    try {
      for (let next = this.peek(0); next !== undefined; next = this.peek(0)) {
        this.ahead.shift();
        yield next;
      }
    } finally {
      going.return();
      this.going = undefined;
    }
  }

  /** A step that is still to come, the next one at 0; undefined at the end. */
  peek(index: number): Taken | undefined {
    while (this.ahead.length <= index) {
      const next = this.going?.next();
      if (next === undefined || next.done === true) return undefined;
      this.ahead.push(next.value);
    }
    return this.ahead[index];
  }

  /** Leaves out steps that are still to come. */
  skip(count: number): void {
    this.ahead.splice(0, count);
  }

  private *trace(from: Position, to: Position, digester: RamDigester | undefined): Generator<Taken, void, void> {
    const queue: Taken[] = [];
    const tell = (step: TraceStep): void => {
      queue.push({ step, registers: this.registers(), ram: digester && toHex(digester.digest()) });
    };
    const tracer = new Tracer(this.reader, from, to, tell, this.timeline);
    let goesOn = true;
    try {
      tracer.seek();
      while (goesOn || queue.length > 0) {
        const taken = queue.shift();
        if (taken !== undefined) yield taken;
        else goesOn = tracer.advance(1);
      }
    } finally {
      tracer.release();
    }
  }

  close(): void {
    this.timeline.close();
  }
}

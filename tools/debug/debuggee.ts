/**
 * A recording under a debugger, whichever protocol it speaks: where it stands, what it stops at, and how it gets there. Long
 * ways can be interrupted and say how far they are. Nothing here changes the tape. What a debugger writes, it writes to a
 * diversion: a live machine forked off the recording, or off another diversion, with a tape of its own.
 */
import {
  comparePositions,
  formatPosition,
  type JournalReader,
  type JournalRecord,
  type Position,
} from '../../src/journal/index.js';
import {
  type DebuggerEdit,
  InputError,
  type Machine,
  type MachineEvent,
  NO_STOP_POINTS,
  type StatedEvent,
  type WatchedRange,
} from '../../src/machine/index.js';
import {
  boundaryBefore,
  Cancelled,
  type Diversion,
  eventPattern,
  type Found,
  goingBackToChange,
  nextEvent,
  previousEvent,
  resolvePosition,
  type Timeline,
  type WatchedValue,
  type Work,
} from '../../src/replay/index.js';
import { LevelSymbols } from '../symbols/level-symbols.js';
import { Courses, type KeptTape } from './courses.js';
import { drive, driveInPlace, type Patience } from './driver.js';
import type { AccessKind, Breakpoint, Catch, Halt, Watched, Watchpoint } from './halt.js';
import { runningOn, type Subject, sameSubject } from './views.js';

export class Debuggee {
  /** Names of addresses, where some were given. */
  symbols = new LevelSymbols();
  private readonly courses: Courses;
  /** Told where long work is, now and then. */
  onProgress: ((at: Position) => void) | undefined;
  /** Asked between pieces of long work, for whoever has a way of his own to give up. */
  givesUp: (() => boolean) | undefined;
  private interrupting = false;
  private breakpoints: readonly Breakpoint[] = [];
  private watchpoints: readonly Watchpoint[] = [];
  private catches: readonly Catch[] = [];
  private valuesWatched: readonly Watched[] = [];

  /** @throws InputError when this vmtape cannot make the machine of the tape. */
  constructor(recording: JournalReader) {
    this.courses = new Courses(recording);
  }

  /** The recording's reader is its owner's to close. */
  close(): void {
    this.courses.close();
  }

  /** Of the tape that it is on. */
  get reader(): JournalReader {
    return this.courses.current.reader;
  }

  get timeline(): Timeline {
    return this.courses.current.timeline;
  }

  /** Undefined on the recording itself. */
  get diversion(): Diversion | undefined {
    return this.courses.current.diversion;
  }

  // Diversions

  /** In lines, the innermost first: what is diverted, and from where. Empty on the recording. */
  get diversions(): readonly string[] {
    return this.courses.lines;
  }

  /** Why a diversion does not go on from here; undefined when it does. */
  get stillness(): string | undefined {
    const { diversion, machine } = this;
    if (diversion === undefined || !diversion.timeline.isLive || !diversion.timeline.isStill) return undefined;
    const { ended } = machine.state;
    if (ended !== null) return `the session has ended: ${ended.reason}, status ${ended.status}`;
    return 'every vCPU waits, and no input comes to a diversion';
  }

  /** Makes a live machine of this moment, and goes to it. @throws JournalError when there can be no such tape. */
  fork(kept: KeptTape | undefined): void {
    this.courses.fork(kept);
    this.arm();
  }

  /** Ends the diversion, and goes back to where it was forked. @returns false when there is none. */
  unfork(): boolean {
    if (!this.courses.leave()) return false;
    this.arm();
    return true;
  }

  /** Writes to a vCPU's registers, or to RAM: all edits or none. @throws InputError for what cannot be written, or not here. */
  write(vcpu: number, edits: readonly DebuggerEdit[]): void {
    const { diversion } = this;
    if (diversion === undefined) {
      const problem = 'monitor fork makes a live machine of this moment, which can';
      throw new InputError('a recording cannot be changed', problem, 'See monitor help.');
    }
    diversion.write(vcpu, edits);
  }

  get machine(): Machine {
    return this.timeline.machine;
  }

  get position(): Position {
    return this.timeline.position;
  }

  /** What runs: the level of the vCPU whose turn it is. */
  get subject(): Subject {
    return runningOn(this.machine, this.machine.vcpu);
  }

  subjectOn(vcpu: number): Subject {
    return runningOn(this.machine, vcpu);
  }

  /** The position as any command takes it: amid a run it is an instruction count. */
  get where(): string {
    return this.machine.hasPendingRun ? String(this.position.icount) : formatPosition(this.position);
  }

  /** What is under way ends soon. */
  interrupt(): void {
    this.interrupting = true;
  }

  private get patience(): Patience {
    return { givesUp: () => this.interrupting || this.givesUp?.() === true, progress: this.onProgress };
  }

  /** Long work that an interrupt takes back. @throws Cancelled */
  async work<Result>(work: Work<Result>): Promise<Result> {
    this.interrupting = false;
    return await drive(work, this.patience);
  }

  // What stops

  stopAt(breakpoints: readonly Breakpoint[], watchpoints: readonly Watchpoint[]): void {
    this.breakpoints = breakpoints;
    this.watchpoints = watchpoints;
    this.arm();
  }

  private arm(): void {
    const { breakpoints, watchpoints } = this;
    const ranges = (other: AccessKind): readonly WatchedRange[] =>
      watchpoints.filter(({ access }) => access !== other).flatMap((each) => each.ranges);
    this.timeline.stopAt(
      {
        code: new Set(breakpoints.map(({ address }) => address)),
        writes: ranges('read'),
        reads: ranges('write'),
      },
      this.valuesWatched.flatMap(({ values }) => values),
      (hit) => hit.kind !== 'code' || this.stopsAt(hit.address),
    );
  }

  get watched(): readonly Watched[] {
    return this.valuesWatched;
  }

  /** Instead of those before. None may change with any instruction. */
  watchValues(watched: readonly Watched[]): void {
    this.valuesWatched = watched;
    this.arm();
  }

  private stopsAt(address: bigint): boolean {
    const { subject } = this;
    return this.breakpoints.some((each) => each.address === address && each.stops(subject));
  }

  get caught(): readonly Catch[] {
    return this.catches;
  }

  /** @throws InputError when the pattern has no sense. */
  catchEvents(pattern: string): void {
    this.catches = [...this.catches, { pattern, matches: eventPattern(this.reader, pattern) }];
  }

  /** @returns false when there was none such; without a pattern all go. */
  releaseEvents(pattern?: string): boolean {
    const before = this.catches.length;
    this.catches = pattern === undefined ? [] : this.catches.filter((each) => each.pattern !== pattern);
    return this.catches.length < before;
  }

  // Going

  /** To a position as a user writes it. @throws InputError when there is none such. @throws Cancelled */
  async goto(pattern: string): Promise<Position> {
    return await this.seek(
      this.diversion === undefined ? resolvePosition(this.reader, pattern) : this.resolve(pattern),
    );
  }

  /** The run under way at the end of a diversion is on no tape yet. */
  private resolve(pattern: string): Position {
    const { reader, timeline } = this;
    const text = pattern.trim();
    if (text === 'end') return timeline.end;
    const icount = /^\d+$/.test(text) ? BigInt(text) : undefined;
    const amidRun = icount !== undefined && icount > reader.end.icount && icount <= timeline.end.icount;
    return amidRun ? { icount, seq: timeline.end.seq } : resolvePosition(reader, pattern);
  }

  async seek(position: Position): Promise<Position> {
    return await this.work(this.timeline.seeking(position));
  }

  /** One step: an instruction, or what stands between two. */
  step(): Halt {
    return this.timeline.step() ? { why: 'step' } : { why: 'end' };
  }

  async stepBack(): Promise<Halt> {
    return (await this.work(this.timeline.steppingBack())) ? { why: 'step' } : { why: 'start' };
  }

  /** One step of a subject, which may have to wait for its turn; who runs meanwhile may stop. */
  async stepOf(subject: Subject): Promise<Halt> {
    if (!this.runs(subject)) {
      const halt = await this.untilRuns(subject);
      if (halt.why !== 'step') return halt;
    }
    return this.step();
  }

  /** As `stepOf`, but what others do in between is part of the step: an intercepted instruction ends where its guest goes on. */
  async stepThrough(subject: Subject): Promise<Halt> {
    const halt = await this.stepOf(subject);
    return halt.why !== 'step' || this.runs(subject) ? halt : await this.untilRuns(subject);
  }

  /** The same backwards: to where the subject last ran. */
  async stepBackThrough(subject: Subject): Promise<Halt> {
    if (this.runs(subject)) {
      const halt = await this.stepBack();
      if (halt.why !== 'step' || this.runs(subject)) return halt;
    }
    const ends = (event: MachineEvent, vcpu: number): boolean => {
      if (subject.level === 2) return event.type === 'svm.vmexit' && event.vmcb === subject.vmcb;
      return event.type === 'svm.vmrun' && vcpu === subject.vcpu;
    };
    const { reader, position } = this;
    const last = await this.work(previousEvent(reader, position.seq, (event, { vcpu }) => ends(event, vcpu)));
    if (last === undefined) return { why: 'start' };
    await this.seek(boundaryBefore(last));
    return { why: 'step' };
  }

  /** One step back of a vCPU: what others did since its last one is undone as well. */
  async stepBackOn(vcpu: number): Promise<Halt> {
    const halt = await this.stepBack();
    if (halt.why !== 'step' || this.machine.vcpu === vcpu) return halt;
    // The turn that followed its own.
    let next: JournalRecord | undefined;
    for (let { seq } = this.position; ; ) {
      const turn = await this.work(
        previousEvent(this.reader, seq, (event, { vcpu: of }) => turnOf(event, of) !== undefined),
      );
      if (turn === undefined || turnOf(turn.event, turn.vcpu) === vcpu) break;
      next = turn;
      seq = turn.position.seq;
    }
    await this.seek(next === undefined ? this.reader.start : boundaryBefore(next));
    return { why: comparePositions(this.position, this.reader.start) > 0 ? 'step' : 'start' };
  }

  /** Whether a subject is what its vCPU runs. */
  private runs(subject: Subject): boolean {
    return sameSubject(subject, this.subject);
  }

  private async untilRuns(subject: Subject): Promise<Halt> {
    const begins = beginningOf(subject);
    const turn = await this.turnOf(begins);
    const halt = await this.forward(turn, begins);
    return halt.why === 'end' && turn !== undefined ? { why: 'step' } : halt;
  }

  /** Steps while the same subject runs and `goesOn` says so, to the next breakpoint at most. */
  async stepWhile(goesOn: () => boolean): Promise<Halt> {
    const { subject } = this;
    this.interrupting = false;
    const { reader: _, timeline } = this;
    const stops = (): boolean => !goesOn() || !sameSubject(subject, this.subject);
    function* steps(): Work<boolean> {
      while (timeline.step()) {
        if (stops()) return true;
        yield timeline.position;
      }
      return false;
    }
    const done = await driveInPlace(steps(), this.patience);
    if (done === undefined) return { why: 'interrupted' };
    return done ? { why: 'step' } : { why: 'end' };
  }

  /** Where on the tape a subject runs next; undefined when it never does. */
  private async turnOf(begins: TurnTest): Promise<Position | undefined> {
    const { reader, position } = this;
    const record = await this.work(nextEvent(reader, position.seq, (event, { vcpu }) => begins(event, vcpu)));
    return record && { icount: record.position.icount, seq: record.position.seq + 1n };
  }

  /**
   * Runs to the next stop, or to a position. A diversion runs on where its tape ends.
   * @param begins stops such a run, after the step that states such an event.
   */
  async forward(to?: Position, begins?: TurnTest): Promise<Halt> {
    const here = this.position;
    const end = to ?? this.timeline.end;
    try {
      const caught = await this.nextCaught(here, end);
      this.interrupting = false;
      const stop = await driveInPlace(this.timeline.runningForward(caught?.place ?? end), this.patience);
      if (stop === undefined) return { why: 'interrupted' };
      if (stop.kind === 'hit') return this.haltOf(stop);
      if (caught !== undefined) return { why: 'catch', pattern: caught.pattern };
      const goesOn = to === undefined && this.diversion !== undefined;
      return goesOn
        ? await this.goOn(this.diversion, comparePositions(here, this.position) === 0, begins)
        : { why: 'end' };
    } catch (error) {
      if (error instanceof Cancelled) return { why: 'interrupted' };
      throw error;
    }
  }

  /** @param setsOut it has stopped at what stands here before. */
  private async goOn({ timeline }: Diversion, setsOut: boolean, begins: TurnTest | undefined): Promise<Halt> {
    let pattern: string | undefined;
    const isCaught = ({ event }: StatedEvent): boolean => {
      pattern = this.patternOf(event);
      return pattern !== undefined;
    };
    const stops = {
      before: this.catches.length === 0 ? undefined : isCaught,
      after: begins && (({ event, vcpu }: StatedEvent) => begins(event, vcpu)),
    };
    const stop = await driveInPlace(timeline.goingOn(stops, setsOut), this.patience);
    switch (stop?.kind) {
      case undefined:
        return { why: 'interrupted' };
      case 'hit':
        return this.haltOf(stop);
      case 'before':
        return { why: 'catch', pattern: pattern ?? '' };
      case 'after':
        return { why: 'step' };
      default:
        return { why: 'end' };
    }
  }

  /** Goes back to the last stop. When it is interrupted, it stays where it was. */
  async backward(): Promise<Halt> {
    try {
      const here = this.position;
      if (comparePositions(here, this.reader.start) <= 0) return { why: 'start' };
      const caught = await this.lastCaught(here);
      const stop = await this.work(this.timeline.runningBackward(caught?.place, true));
      if (stop.kind === 'end') {
        return caught === undefined ? { why: 'start' } : { why: 'catch', pattern: caught.pattern };
      }
      const halt = this.haltOf(stop);
      if (halt.why === 'breakpoint') return halt;
      // The machine stands after the access. A breakpoint there comes first on the way back.
      const address = comparePositions(this.position, here) < 0 ? this.breakpointHere : undefined;
      if (address !== undefined) return { why: 'breakpoint', address };
      await this.stepBack();
      return halt;
    } catch (error) {
      if (error instanceof Cancelled) return { why: 'interrupted' };
      throw error;
    }
  }

  private haltOf({ hits, changes }: Found): Halt {
    const [hit] = hits;
    if (hit === undefined) return { why: 'change', changes };
    if (hit.kind === 'code') return { why: 'breakpoint', address: hit.address };
    const watchpoint = this.watchpoints.find(({ ranges }) => ranges.includes(hit.range));
    if (watchpoint === undefined) throw new RangeError('an access was seen that nobody watches');
    return { why: 'watchpoint', watchpoint, changes };
  }

  /** The breakpoint at the instruction that comes next. */
  get breakpointHere(): bigint | undefined {
    const address = this.machine.nextInstruction;
    return this.stopsAt(address) ? address : undefined;
  }

  /** Goes to before the last write to ranges of RAM, whatever else there is to stop at. @returns false when there is none; it has not moved then. */
  async backToWrite(ranges: readonly WatchedRange[]): Promise<boolean> {
    return await this.back(function* (timeline): Work<boolean> {
      timeline.stopAt({ ...NO_STOP_POINTS, writes: ranges });
      const stop = yield* timeline.runningBackward(undefined, true);
      return stop.kind === 'hit' && (yield* timeline.steppingBack());
    });
  }

  /** The same for the last change of a value. */
  async backToChange(value: WatchedValue): Promise<boolean> {
    return await this.back(function* (timeline): Work<boolean> {
      return (yield* goingBackToChange(timeline, value)) !== undefined;
    });
  }

  private async back(search: (timeline: Timeline) => Work<boolean>): Promise<boolean> {
    const here = this.position;
    try {
      const found = await this.work(search(this.timeline));
      if (!found) await this.seek(here);
      return found;
    } catch (error) {
      if (error instanceof Cancelled) await this.seek(here);
      throw error;
    } finally {
      this.arm();
    }
  }

  // Events

  /** The place right before the next event that is caught, after here. */
  private async nextCaught(here: Position, end: Position): Promise<{ place: Position; pattern: string } | undefined> {
    if (this.catches.length === 0) return undefined;
    for (let { seq } = here; ; ) {
      const found = await this.work(nextEvent(this.reader, seq, (event) => this.patternOf(event) !== undefined));
      if (found === undefined) return undefined;
      const place = boundaryBefore(found);
      if (comparePositions(place, end) >= 0) return undefined;
      // The one that is about to happen has been stopped at already; a run may be stated before it.
      const about = here.seq + (this.machine.hasPendingRun ? 1n : 0n);
      const pattern = this.patternOf(found.event) as string;
      if (place.icount > here.icount || place.seq > about) return { place, pattern };
      seq = found.position.seq + 1n;
    }
  }

  private async lastCaught(here: Position): Promise<{ place: Position; pattern: string } | undefined> {
    if (this.catches.length === 0) return undefined;
    const found = await this.work(previousEvent(this.reader, here.seq, (event) => this.patternOf(event) !== undefined));
    return found && { place: boundaryBefore(found), pattern: this.patternOf(found.event) as string };
  }

  private patternOf(event: MachineEvent): string | undefined {
    return this.catches.find(({ matches }) => matches(event))?.pattern;
  }

  /**
   * Goes to right before the next event that matches, or the one before.
   * @returns false when there is none; it has not moved then.
   */
  async gotoEvent(pattern: string, direction: 'next' | 'prev'): Promise<boolean> {
    const matches = eventPattern(this.reader, pattern);
    const here = this.position;
    if (direction === 'prev') {
      const found = await this.work(previousEvent(this.reader, here.seq, matches));
      if (found !== undefined) await this.seek(boundaryBefore(found));
      return found !== undefined;
    }
    for (let { seq } = here; ; ) {
      const found = await this.work(nextEvent(this.reader, seq, matches));
      if (found === undefined) {
        if (comparePositions(this.position, here) !== 0) await this.seek(here);
        return false;
      }
      await this.seek(boundaryBefore(found));
      if (comparePositions(this.position, here) > 0) return true;
      seq = found.position.seq + 1n;
    }
  }
}

type TurnTest = (event: MachineEvent, vcpu: number) => boolean;

/** Whether a subject begins to run with an event. */
const beginningOf =
  (subject: Subject): TurnTest =>
  (event, vcpu) => {
    if (subject.level === 2) return event.type === 'svm.vmrun' && event.vmcb === subject.vmcb;
    if (event.type === 'input.turn') return event.to === subject.vcpu;
    return (event.type === 'vcpu.scheduled' || event.type === 'svm.vmexit') && vcpu === subject.vcpu;
  };

/** Whose turn begins with an event. */
function turnOf(event: MachineEvent, vcpu: number): number | undefined {
  if (event.type === 'input.turn') return event.to;
  return event.type === 'vcpu.scheduled' ? vcpu : undefined;
}

/**
 * Breakpoints and watchpoints of a client (`Z`, `z`), and the recording told of them. They belong to the process that they were
 * set in. A watchpoint is on RAM: what its address means is looked up anew whenever the machine goes on.
 * Source: GDB manual, appendix E.2 Packets.
 */
import type { WatchedRange } from '../../src/machine/index.js';
import type { Debuggee } from '../debug/debuggee.js';
import type { AccessKind, Breakpoint, Watchpoint } from '../debug/halt.js';
import { viewOf, watchedRanges } from '../debug/views.js';
import { EFAULT, EINVAL, OK, UNSUPPORTED } from './answers.js';
import type { Threads } from './threads.js';

/** Software and hardware breakpoints, then watchpoints. */
type PointType = '0' | '1' | '2' | '3' | '4';

interface SetPoint {
  readonly type: PointType;
  readonly address: bigint;
  readonly length: number;
  readonly process: number;
}

const MOST_WATCHED = 0x1000;
const ACCESSES: Readonly<Partial<Record<PointType, AccessKind>>> = { 2: 'write', 3: 'read', 4: 'access' };
/** What a stop reply calls the accesses of a watchpoint. */
export const WATCH_REASONS: Readonly<Record<AccessKind, string>> = { write: 'watch', read: 'rwatch', access: 'awatch' };

export class Points {
  private points: readonly SetPoint[] = [];
  private armed = '';

  constructor(
    private readonly debuggee: Debuggee,
    private readonly threads: Threads,
  ) {}

  /** `Z…` and `z…`. @returns the answer. */
  set(text: string): string {
    if (/^.[5-9],/.test(text)) return UNSUPPORTED;
    const match = /^([Zz])([0-4]),([0-9a-f]{1,16}),([0-9a-f]{1,8})/i.exec(text);
    if (match === null) return EINVAL;
    const [, action, type, address, length] = match as unknown as [string, string, PointType, string, string];
    const point: SetPoint = {
      ...{ type, address: BigInt(`0x${address}`), length: Number.parseInt(length, 16) },
      process: this.threads.looked.process,
    };
    const others = this.points.filter((each) => !samePoint(each, point));
    if (action === 'Z' && isWatchpoint(point) && this.rangesOf(point) === undefined) return EFAULT;
    this.points = action === 'Z' ? [...others, point] : others;
    return OK;
  }

  /** Whether it is a hardware breakpoint that stands there. */
  isHardware(address: bigint): boolean {
    return this.points.some((each) => each.type === '1' && each.address === address);
  }

  /** Tells the recording what to stop at. */
  arm(): void {
    const breakpoints = this.points.flatMap((point): readonly Breakpoint[] => {
      if (isWatchpoint(point)) return [];
      const stops: Breakpoint['stops'] = (subject) => this.threads.processes.ownerOf(subject) === point.process;
      return [{ address: point.address, stops }];
    });
    const watchpoints = this.points.flatMap((point): readonly Watchpoint[] => {
      const access = ACCESSES[point.type];
      const ranges = this.rangesOf(point);
      return access === undefined || ranges === undefined ? [] : [{ name: point.address.toString(16), access, ranges }];
    });
    const key = JSON.stringify([
      this.points.map(({ type, address, process }) => [type, String(address), process]),
      watchpoints,
    ]);
    // The same as before: what is known to hold no hit stays known.
    if (key === this.armed) return;
    this.armed = key;
    this.debuggee.stopAt(breakpoints, watchpoints);
  }

  /** Where in RAM a watchpoint is now; undefined where it is not mapped. */
  private rangesOf({ address, length, process }: SetPoint): readonly WatchedRange[] | undefined {
    if (length < 1 || length > MOST_WATCHED) return undefined;
    const { machine } = this.debuggee;
    const subject = this.threads.subjectOf(process);
    return subject && watchedRanges(machine, viewOf(machine, subject), address, length);
  }
}

const isWatchpoint = ({ type }: SetPoint): boolean => ACCESSES[type] !== undefined;

const samePoint = (a: SetPoint, b: SetPoint): boolean =>
  a.type === b.type &&
  a.address === b.address &&
  a.process === b.process &&
  (!isWatchpoint(a) || a.length === b.length);

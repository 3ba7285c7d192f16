/**
 * A stretch of a tape counted in bins of equally many instructions, in one pass over its chunks: how much each vCPU ran at
 * each level, and what happened. Memory is bounded by the number of bins and lanes, whatever the tape's length.
 *
 * Of single events a bounded number is kept, with text and position: all when there are few, else the first of each kind in
 * each cell of a coarser grid.
 */
import {
  type ChunkScan,
  formatPosition,
  type JournalReader,
  type Position,
  RecordSource,
} from '../../src/journal/index.js';
import { eventText } from '../../src/replay/index.js';
import type { LevelSymbols } from '../symbols/level-symbols.js';
import { Places } from '../symbols/places.js';
import { type LaneName, laneOf, seriesOf } from './kinds.js';

/** Of a lane, what looks alike: an exit code, a vector, a kind. */
export interface Series {
  readonly name: string;
  /** Events in each bin. */
  readonly counts: Uint32Array;
  total: number;
}

/** What one vCPU ran at one level. */
export interface Activity {
  readonly vcpu: number;
  readonly level: 1 | 2;
  /** Instructions in each bin. */
  readonly instructions: Float64Array;
  total: number;
}

export interface EventLane {
  readonly name: LaneName;
  /** Undefined for what is the machine's. */
  readonly vcpu: number | undefined;
  readonly series: readonly Series[];
}

/** An event that can be pointed at. */
export interface Mark {
  readonly lane: number;
  readonly series: number;
  readonly icount: number;
  /** The boundary before it. */
  readonly position: string;
  readonly text: string;
}

export interface TimelineModel {
  readonly from: Position;
  readonly to: Position;
  readonly bins: number;
  readonly activities: readonly Activity[];
  readonly lanes: readonly EventLane[];
  readonly marks: readonly Mark[];
  /** Events that are drawn, of which `marks` may hold only some. */
  readonly events: number;
}

export interface ModelOptions {
  readonly from: Position;
  readonly to: Position;
  readonly bins: number;
  /** How many single events to keep, at most about; none by default. */
  readonly marks?: number;
  /** Names of places in the text of single events. */
  readonly symbols?: LevelSymbols;
}

/** Events between two reports of progress. */
const PROGRESS_EVENTS = 20_000;

/** Yields the number of events done, now and then; returns the model. */
export function* timelineModel(reader: JournalReader, options: ModelOptions): Generator<bigint, TimelineModel, void> {
  const builder = new ModelBuilder(options);
  const { from, to } = options;
  let left = PROGRESS_EVENTS;
  // A run in which the stretch begins or ends is event number `seq` of that place.
  const past = to.seq < reader.end.seq ? to.seq + 1n : to.seq;
  for (const scan of new RecordSource(reader).scan({ fromSeq: from.seq, toSeq: past })) {
    builder.see(scan);
    if (--left > 0) continue;
    left = PROGRESS_EVENTS;
    yield scan.seq;
  }
  return builder.model();
}

const LANE_ORDER: readonly string[] = ['exits', 'injections', 'exceptions', 'interrupts', 'inputs'];

class ModelBuilder {
  private readonly start: number;
  private readonly length: number;
  /** The length, or 1: what lies between two events of one instruction is drawn, too. */
  private readonly span: number;
  private readonly bins: number;
  private readonly activities = new Map<string, Activity>();
  private readonly lanes = new Map<string, { name: LaneName; vcpu: number | undefined; series: Map<string, Series> }>();
  private marks: KeptMark[] = [];
  private events = 0;
  /** Of each series the cells of the grid that have a mark, once there are too many for all. */
  private cells: Map<Series, Uint8Array> | undefined;
  private readonly mostMarks: number;
  private readonly places: Places | undefined;

  constructor(private readonly options: ModelOptions) {
    const { from, to, bins, marks = 0, symbols } = options;
    this.start = Number(from.icount);
    this.length = Number(to.icount) - this.start;
    this.span = Math.max(1, this.length);
    // A bin is one instruction at least.
    this.bins = Math.min(bins, this.span);
    this.mostMarks = marks;
    if (symbols?.isEmpty === false) this.places = new Places(symbols);
  }

  see(scan: ChunkScan): void {
    const { retired } = scan;
    const end = Number(scan.icount) - this.start;
    if (retired > 0) this.ran(scan.vcpu, scan.level, end - retired, end);
    if (scan.seq < this.options.to.seq) this.happened(scan, end - retired);
    this.places?.see(scan);
  }

  private binOf(place: number): number {
    return Math.min(this.bins - 1, Math.floor((place / this.span) * this.bins));
  }

  /** Instructions from place `from` to place `to` of the stretch. */
  private ran(vcpu: number, level: 1 | 2, from: number, to: number): void {
    const first = Math.max(0, from);
    const end = Math.min(this.length, to);
    if (end <= first) return;
    const activity = this.activity(vcpu, level);
    activity.total += end - first;
    const last = this.binOf(end - 1);
    for (let bin = this.binOf(first); bin <= last; bin++) {
      const binStart = Math.ceil((bin * this.span) / this.bins);
      const binEnd = Math.ceil(((bin + 1) * this.span) / this.bins);
      const inside = Math.min(end, binEnd) - Math.max(first, binStart);
      activity.instructions[bin] = (activity.instructions[bin] as number) + inside;
    }
  }

  private activity(vcpu: number, level: 1 | 2): Activity {
    const key = `${vcpu}:${level}`;
    let activity = this.activities.get(key);
    if (activity === undefined) {
      activity = { vcpu, level, instructions: new Float64Array(this.bins), total: 0 };
      this.activities.set(key, activity);
    }
    return activity;
  }

  private happened(scan: ChunkScan, place: number): void {
    const name = laneOf(scan.type);
    if (name === undefined) return;
    const series = this.series(name, scan);
    const bin = this.binOf(Math.max(0, place));
    series.counts[bin] = (series.counts[bin] as number) + 1;
    series.total++;
    this.events++;
    if (this.mostMarks === 0) return;
    if (this.cells === undefined && this.marks.length >= this.mostMarks) this.thin();
    if (this.cells !== undefined && !this.takesCell(series, bin)) return;
    const icount = Number(scan.icount) - scan.retired;
    const position = formatPosition({ icount: BigInt(icount), seq: scan.seq });
    const text = this.places?.textOf(scan) ?? eventText(scan.record);
    this.marks.push({ series, bin, icount, position, text });
  }

  private series(name: LaneName, scan: ChunkScan): Series {
    const vcpu = name === 'inputs' || name.startsWith('device ') ? undefined : scan.vcpu;
    const key = `${name} ${vcpu}`;
    let lane = this.lanes.get(key);
    if (lane === undefined) {
      lane = { name, vcpu, series: new Map() };
      this.lanes.set(key, lane);
    }
    const kind = seriesOf(scan);
    let series = lane.series.get(kind);
    if (series === undefined) {
      series = { name: kind, counts: new Uint32Array(this.bins), total: 0 };
      lane.series.set(kind, series);
    }
    return series;
  }

  /** There are too many marks: of those in one cell the first stays, from here on and backwards. */
  private thin(): void {
    this.cells = new Map();
    this.marks = this.marks.filter(({ series, bin }) => this.takesCell(series, bin));
  }

  private takesCell(series: Series, bin: number): boolean {
    const cells = Math.max(1, Math.floor(this.mostMarks / MARKED_SERIES));
    let taken = this.cells?.get(series);
    if (taken === undefined) {
      taken = new Uint8Array(cells);
      this.cells?.set(series, taken);
    }
    const cell = Math.floor((bin / this.bins) * cells);
    if (taken[cell] === 1) return false;
    taken[cell] = 1;
    return true;
  }

  model(): TimelineModel {
    const { options, bins, events } = this;
    const rank = (name: string): number => (LANE_ORDER.indexOf(name) + LANE_ORDER.length + 1) % (LANE_ORDER.length + 1);
    const lanes = [...this.lanes.values()]
      .sort((a, b) => (a.vcpu ?? MACHINES) - (b.vcpu ?? MACHINES) || rank(a.name) - rank(b.name))
      .map(({ name, vcpu, series }) => ({
        name,
        vcpu,
        series: [...series.values()].sort((a, b) => b.total - a.total),
      }));
    const places = new Map(
      lanes.flatMap(({ series }, lane) => series.map((each, index) => [each, { lane, series: index }] as const)),
    );
    const marks = this.marks.flatMap(({ series, icount, position, text }) => {
      const place = places.get(series);
      return place === undefined ? [] : [{ ...place, icount, position, text }];
    });
    const activities = [...this.activities.values()].sort((a, b) => a.vcpu - b.vcpu || a.level - b.level);
    return { from: options.from, to: options.to, bins, activities, lanes, marks, events };
  }
}

interface KeptMark {
  readonly series: Series;
  readonly bin: number;
  readonly icount: number;
  readonly position: string;
  readonly text: string;
}

/** After all vCPUs. */
const MACHINES = Number.MAX_SAFE_INTEGER;
/** For about so many series the grid of marks is made. */
const MARKED_SERIES = 40;

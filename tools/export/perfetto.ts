/**
 * A tape as a trace that the Perfetto UI and chrome://tracing open, written as it is read. A process for each vCPU with a
 * thread for each level, one for devices with a thread each, one for the machine. Timestamps are the session's virtual
 * time.
 *
 * Source: Trace Event Format (Google, 2016): duration events `X`, instants `i`, metadata `M`; `ts` and `dur` are
 * microseconds, here with three decimals, which is nanoseconds.
 */
import { type ChunkScan, formatPosition, type JournalReader, RecordSource } from '../../src/journal/index.js';
import { eventText } from '../../src/replay/index.js';
import type { LevelSymbols } from '../symbols/level-symbols.js';
import { Places } from '../symbols/places.js';
import { laneOf, seriesOf } from '../timeline/kinds.js';
import { type Instant, nanosecondsPerInstruction, type Pause, type Span, SpanTracker } from '../timeline/spans.js';

/** Processes by number: vCPU n is the n-th from here. */
const FIRST_VCPU = 1;
const MACHINE = 1000;
const DEVICES = 1001;
/** Threads of the machine. */
const TIME = 1;
const INPUTS = 2;

/** Colours that the format has names for; an exit keeps its own throughout. */
const COLOURS = [
  ...['thread_state_running', 'thread_state_iowait', 'rail_response', 'rail_animation', 'rail_load', 'startup'],
  ...['cq_build_running', 'cq_build_passed', 'cq_build_failed', 'cq_build_attempt_failed', 'vsync_highlight_color'],
  ...['detailed_memory_dump', 'generic_work', 'good', 'bad', 'terrible', 'heap_dump_stack_frame'],
] as const;

const colourOf = (name: string): string => {
  let sum = 0;
  for (const unit of name) sum = (sum * 31 + (unit.codePointAt(0) ?? 0)) % 65_521;
  return COLOURS[sum % COLOURS.length] as string;
};

/** Events between two reports of progress. */
const PROGRESS_EVENTS = 5000;

/**
 * @param write is given the file's text, piece by piece. @param symbols name places in its arguments.
 * Yields the number of events done, now and then.
 */
export function* exportPerfetto(
  reader: JournalReader,
  write: (text: string) => void,
  symbols?: LevelSymbols,
): Generator<bigint, void, void> {
  const places = symbols?.isEmpty === false ? new Places(symbols) : undefined;
  const writer = new TraceWriter(write, places);
  const tracker = new SpanTracker(nanosecondsPerInstruction(reader), writer);
  writer.begin();
  let left = PROGRESS_EVENTS;
  for (const scan of new RecordSource(reader).scan({})) {
    const before = tracker.before(scan);
    writer.stands(scan);
    tracker.see(scan);
    writer.event(scan, before);
    places?.see(scan);
    if (--left > 0) continue;
    left = PROGRESS_EVENTS;
    yield scan.seq;
  }
  tracker.end(Number(reader.end.icount), Number(reader.end.seq));
  writer.end();
}

class TraceWriter {
  private readonly named = new Set<string>();
  private readonly devices = new Map<string, number>();
  private separator = '';

  /** Where the vCPU of the event that is seen stands ahead of it. */
  private at: string | undefined;

  constructor(
    private readonly write: (text: string) => void,
    private readonly places: Places | undefined,
  ) {}

  /** Ahead of what ends or happens with an event. */
  stands(scan: ChunkScan): void {
    this.at = this.places?.before(scan);
  }

  begin(): void {
    this.write('{"displayTimeUnit":"ns","traceEvents":[\n');
  }

  end(): void {
    this.write('\n]}\n');
  }

  span({ vcpu, level, from, to, exit }: Span): void {
    const [pid, tid] = this.levelThread(vcpu, level);
    const instructions = to.icount - from.icount;
    this.put({
      ...{ ph: 'X', pid, tid, name: exit ?? `L${level}`, cat: exit === undefined ? 'run' : 'exit' },
      ...{ ts: micro(from.nanoseconds), dur: micro(to.nanoseconds - from.nanoseconds) },
      ...(exit === undefined ? {} : { cname: colourOf(exit) }),
      args: { position: positionText(from), instructions, ...(exit === undefined ? {} : this.place()) },
    });
  }

  pause({ from, to, why }: Pause): void {
    this.name(MACHINE, 'machine', TIME, 'time');
    this.put({
      ...{
        ph: 'X',
        pid: MACHINE,
        tid: TIME,
        name: why === 'waits' ? 'every vCPU waits' : 'taken by the host',
        cat: 'pause',
      },
      ...{ ts: micro(from.nanoseconds), dur: micro(to.nanoseconds - from.nanoseconds) },
      args: { position: positionText(from) },
    });
  }

  event(scan: ChunkScan, at: Instant): void {
    const lane = laneOf(scan.type);
    if (lane === undefined) return;
    // The instruction that an event is ends with it.
    const [pid, tid] = this.thread(scan, lane);
    const name = lane.startsWith('device ') ? scan.type : `${singular(lane)} ${seriesOf(scan)}`;
    const args = { position: positionText(at), text: eventText(scan.record), ...this.place() };
    this.put({ ph: 'i', pid, tid, name, cat: lane, ts: micro(at.nanoseconds), s: 't', args });
  }

  private thread(scan: ChunkScan, lane: string): readonly [pid: number, tid: number] {
    if (lane === 'inputs') {
      this.name(MACHINE, 'machine', INPUTS, 'inputs');
      return [MACHINE, INPUTS];
    }
    if (!lane.startsWith('device ')) return this.levelThread(scan.vcpu, scan.level);
    const device = lane.slice('device '.length);
    const tid = this.devices.get(device) ?? this.devices.size + 1;
    this.devices.set(device, tid);
    this.name(DEVICES, 'devices', tid, device);
    return [DEVICES, tid];
  }

  private levelThread(vcpu: number, level: number): readonly [pid: number, tid: number] {
    const pid = FIRST_VCPU + vcpu;
    this.name(pid, `vCPU ${vcpu}`, level, level === 1 ? 'L1' : 'L2, by its exits');
    return [pid, level];
  }

  /** An exit is where its guest stood. */
  private place(): { readonly at?: string } {
    return this.at === undefined ? {} : { at: this.at };
  }

  /** Says once what a process and a thread are called. */
  private name(pid: number, process: string, tid: number, thread: string): void {
    const key = `${pid}:${tid}`;
    if (this.named.has(key)) return;
    if (!this.named.has(String(pid))) {
      this.named.add(String(pid));
      this.put({ ph: 'M', pid, tid: 0, name: 'process_name', args: { name: process } });
      this.put({ ph: 'M', pid, tid: 0, name: 'process_sort_index', args: { sort_index: pid } });
    }
    this.named.add(key);
    this.put({ ph: 'M', pid, tid, name: 'thread_name', args: { name: thread } });
    this.put({ ph: 'M', pid, tid, name: 'thread_sort_index', args: { sort_index: tid } });
  }

  private put(event: object): void {
    this.write(this.separator + JSON.stringify(event));
    this.separator = ',\n';
  }
}

/** Nanoseconds as microseconds: at most three decimals, which JSON's readers keep up to three months of virtual time. */
const micro = (nanoseconds: number): number => nanoseconds / 1000;
const singular = (lane: string): string => lane.replace(/s$/, '');
const positionText = ({ icount, seq }: Instant): string => formatPosition({ icount: BigInt(icount), seq: BigInt(seq) });

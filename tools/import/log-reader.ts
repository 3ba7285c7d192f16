/**
 * Reads a hypervisor's log as a stream of events, however long it is. Which program wrote a line shows in the line; what is
 * in none of the known forms is counted and kept to be shown, never passed over.
 */
import { closeSync, fstatSync, openSync, readSync } from 'node:fs';
import { InputError } from '../../src/machine/index.js';
import { kvmEvent, kvmFrame, lostOn } from './kvm-text.js';
import type { LogEvent, LogRecord } from './log-event.js';
import { xenLine } from './xen-text.js';

export type Dialect = 'KVM' | 'Xen';

export interface UnparsedLine {
  readonly line: number;
  readonly text: string;
}

/** What a log came to so far. */
export interface LogCounts {
  lines: number;
  /** Events that say something of exits. */
  events: number;
  /** Other events, headers, comments, blank lines. */
  others: number;
  unparsed: number;
  /** The first ones. */
  readonly unparsedLines: UnparsedLine[];
  readonly dialects: Set<Dialect>;
  /** Gaps that the log tells of. */
  gaps: number;
  bytes: number;
}

const CHUNK_BYTES = 1 << 20;
/** No program writes longer lines; what has no end may be anything. */
const MOST_LINE = 1 << 14;
const KEPT_UNPARSED = 10;
const KEPT_CHARACTERS = 160;

/** Comments of tracefs, heads of trace-cmd and perf. */
const HEADER = /^\s*(?:#|$)|^(?:cpus=\d+|version = \d+|trace-cmd\b.*|[\w./-]+\.dat:?)\s*$/;
const TRACE_DAT = Buffer.from([0x17, 0x08, 0x44, ...Buffer.from('tracing')]);

export class LogReader {
  readonly counts: LogCounts = {
    ...{ lines: 0, events: 0, others: 0, unparsed: 0, unparsedLines: [], dialects: new Set(), gaps: 0, bytes: 0 },
  };
  private readonly descriptor: number;
  /** Bytes of the whole file. */
  readonly size: number;
  /** vCPUs by the threads or processors that run them. */
  private readonly running = new Map<string, string>();

  /** @throws InputError for a folder or trace-cmd's binary file; the host's errors. */
  constructor(private readonly path: string) {
    this.descriptor = openSync(path, 'r');
    this.size = fstatSync(this.descriptor).size;
    const head = Buffer.alloc(TRACE_DAT.length);
    if (!fstatSync(this.descriptor).isFile()) return;
    readSync(this.descriptor, head, 0, head.length, 0);
    if (head.equals(TRACE_DAT)) {
      this.close();
      throw new InputError(path, 'it is a trace.dat and no text', 'Give what trace-cmd report -i prints of it.');
    }
  }

  close(): void {
    closeSync(this.descriptor);
  }

  /**
   * All events, in order. @param tick is called now and then.
   * @throws InputError at the end of a file without a single event.
   */
  *records(tick: () => void = () => {}): Generator<LogRecord, void, void> {
    const { counts } = this;
    for (const text of this.lines(tick)) {
      counts.lines++;
      const record = text === undefined ? undefined : this.record(text);
      if (record === undefined) this.keepUnparsed(text ?? 'a line without end');
      else if (record === 'nothing') counts.others++;
      else {
        if (record.event.kind === 'lost') counts.gaps++;
        counts.events++;
        yield record;
      }
    }
    if (counts.events > 0) return;
    const dialects = 'a text of KVM’s trace events (tracefs, trace-cmd report, perf script) or of xentrace';
    const problem =
      counts.dialects.size === 0
        ? `no line of it is of ${dialects}`
        : 'none of its events tells of exits, entries or intercepts';
    throw new InputError(this.path, problem, 'Record at least the events kvm:kvm_nested_* and kvm:kvm_entry.');
  }

  /** Lines without their ends; undefined for one that is too long, or that the file's end has cut. */
  private *lines(tick: () => void): Generator<string | undefined, void, void> {
    const chunk = Buffer.alloc(CHUNK_BYTES);
    let rest = '';
    let skipping = false;
    for (;;) {
      const length = readSync(this.descriptor, chunk, 0, chunk.length, null);
      if (length === 0) break;
      this.counts.bytes += length;
      const parts = (rest + chunk.toString('latin1', 0, length)).split('\n');
      rest = parts.pop() ?? '';
      for (const part of parts) {
        yield skipping || part.length > MOST_LINE ? undefined : part.replace(/\r$/, '');
        skipping = false;
      }
      if (rest.length > MOST_LINE) {
        rest = '';
        skipping = true;
      }
      tick();
    }
    // A value at the end of a line that was cut may be less than was printed.
    if (rest !== '' || skipping) yield undefined;
  }

  /** What a line says; `nothing` for what tells of no exit; undefined when nobody knows. */
  private record(text: string): LogRecord | 'nothing' | undefined {
    const { counts } = this;
    const line = counts.lines;
    if (HEADER.test(text)) return 'nothing';
    const lost = lostOn(text);
    if (lost !== undefined) return this.event({ kind: 'lost', processor: lost }, 'log', lost);
    const frame = kvmFrame(text);
    if (frame !== undefined) {
      counts.dialects.add('KVM');
      const event = kvmEvent(frame);
      if (event === undefined) return undefined;
      if (event.kind === 'other') return 'nothing';
      return this.event(event, this.threadOf(frame.thread, event), frame.processor);
    }
    const xen = xenLine(text);
    if (xen === undefined) return undefined;
    counts.dialects.add('Xen');
    const { event, processor, vcpu } = xen;
    if (event === undefined) return undefined;
    if (event.kind === 'turn') this.running.set(`CPU${processor}`, `d${event.domain}v${event.vcpu}`);
    if (event.kind === 'turn' || event.kind === 'other') return 'nothing';
    const cpu = `CPU${processor}`;
    return { line, processor, subject: vcpu ?? this.running.get(cpu) ?? cpu, event };
  }

  private event(event: LogEvent, subject: string, processor: number | undefined): LogRecord {
    return { line: this.counts.lines, processor, subject, event };
  }

  /** A thread runs one vCPU; some events tell which. A log that was cut to its events is of one. */
  private threadOf(thread: string | undefined, event: LogEvent): string {
    const own = thread ?? 'log';
    if ('vcpu' in event && event.vcpu !== undefined) this.running.set(own, `${event.vcpu}`);
    return own;
  }

  /** The vCPU's number or name, where the log has told it. */
  vcpuOf(subject: string): string | undefined {
    return this.running.get(subject);
  }

  private keepUnparsed(text: string): void {
    const { counts } = this;
    counts.unparsed++;
    if (counts.unparsedLines.length >= KEPT_UNPARSED) return;
    counts.unparsedLines.push({ line: counts.lines, text: printable(text.slice(0, KEPT_CHARACTERS)) });
  }
}

/** Of a file that may be no text at all. */
const printable = (text: string): string => text.replace(/[^\x20-\x7e]/g, '.');

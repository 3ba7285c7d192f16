/**
 * Which threads a client means: by the ids that packets carry, and by what it chose before (`H`). 0 and -1 stand for any.
 * Source: GDB manual, appendix E.2 Packets, thread-id syntax.
 */
import type { RecordedGuest } from '../../src/replay/index.js';
import type { Debuggee } from '../debug/debuggee.js';
import { type Subject, type View, viewOf } from '../debug/views.js';
import { MACHINE, type NumberedThread, Processes, type ThreadId } from './processes.js';

export class Threads {
  readonly processes: Processes;
  /** The client understands `p1.2`; otherwise threads are vCPUs. */
  multiprocess = false;
  /** The one that registers and memory are read of; undefined for whatever runs. */
  general: ThreadId | undefined;
  /** The one that a step is meant for. */
  resumed: ThreadId | undefined;

  constructor(
    private readonly debuggee: Debuggee,
    guests: readonly RecordedGuest[],
  ) {
    this.processes = new Processes(guests);
  }

  get all(): readonly NumberedThread[] {
    return this.processes.threads(this.debuggee.machine);
  }

  /** That of whatever runs. */
  get current(): NumberedThread {
    const { machine } = this.debuggee;
    return this.processes.running(machine, machine.vcpu);
  }

  /** The one that the client looks at. */
  get looked(): NumberedThread {
    return (this.general && this.withId(this.general)) ?? this.current;
  }

  get view(): View {
    return viewOf(this.debuggee.machine, this.looked.subject);
  }

  withId(id: ThreadId): NumberedThread | undefined {
    return this.all.find((each) => each.process === id.process && each.thread === id.thread);
  }

  /** The first one of a process. */
  ofProcess(process: number): NumberedThread | undefined {
    return this.all.find((each) => each.process === process);
  }

  /** Whom a process means: what the client looks at, where that is its own. */
  subjectOf(process: number): Subject | undefined {
    const { looked } = this;
    return looked.process === process ? looked.subject : this.ofProcess(process)?.subject;
  }

  idText({ process, thread }: ThreadId): string {
    return this.multiprocess ? `p${process.toString(16)}.${thread.toString(16)}` : thread.toString(16);
  }

  /** `p1.2`, `p1.-1`, `2`, `-1`, `0`: any is the current one where that fits. */
  find(text: string): NumberedThread | undefined {
    const match = /^(?:p(-1|[0-9a-f]{1,8})(?:\.|$))?(-1|[0-9a-f]{1,8})?$/i.exec(text);
    if (match === null) return undefined;
    const [process, thread] = [match[1], match[2]].map((part) =>
      part === undefined || part === '-1' ? 0 : Number.parseInt(part, 16),
    ) as [number, number];
    const fits = (each: ThreadId): boolean =>
      (process === 0 || each.process === process) && (thread === 0 || each.thread === thread);
    const { current } = this;
    return fits(current) ? current : this.all.find(fits);
  }

  /** `Hg…`, `Hc…` without the H. @returns false when there is none such. */
  choose(text: string): boolean {
    const id = text.slice(1);
    const found = this.find(id);
    if (found === undefined) return false;
    const chosen = /^p?(-1|0)/.test(id) ? undefined : found;
    if (text[0] === 'g') this.general = chosen;
    else if (text[0] === 'c') this.resumed = chosen;
    else return false;
    return true;
  }

  /** A guest that is attached, or its hypervisor: world switches go to another thread. */
  isApart({ subject, process }: NumberedThread): boolean {
    return subject.level === 2
      ? this.processes.ownerOf(subject) === process && process !== MACHINE
      : this.processes.hasGuests;
  }
}

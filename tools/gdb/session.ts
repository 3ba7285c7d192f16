/**
 * One client's session: gdb's packets → a recording under a debugger. It answers packets one after the other; an interrupt may
 * come while it is at one. Nothing that a client sends changes the tape: writes are refused with a word.
 * Source: GDB manual, appendix E.2 Packets, E.3 Stop Reply Packets, E.4 General Query Packets.
 */
import type { Position } from '../../src/journal/index.js';
import { InputError, R, type WatchedRange } from '../../src/machine/index.js';
import { Cancelled, FollowingError, type RecordedGuest } from '../../src/replay/index.js';
import type { Breakpoint, Debuggee, Halt, Watchpoint } from '../debug/debuggee.js';
import { monitor } from '../debug/monitor.js';
import { readMemory, type Subject, sameSubject, type View, viewOf, watchedRanges } from '../debug/views.js';
import { hexOf, hexText, PACKET_BYTES } from './packet.js';
import { MACHINE, type NumberedThread, Processes, type ThreadId } from './processes.js';
import { type Feature, featuresOf, type GdbRegister, registerHex, targetXml } from './registers.js';

/** What a session does with its client and its console. */
export interface SessionHost {
  /** A packet to the client, outside of an answer: `O`. */
  readonly send: (data: string) => void;
  /** A word on the server's own console. */
  readonly say: (text: string) => void;
}

/** An answer, and whether the session is over with it. */
export interface Answer {
  readonly data: string;
  readonly ends?: boolean;
  /** From now on nobody acknowledges. */
  readonly quiet?: boolean;
}

type Answered = string | Answer | Promise<string | Answer>;

const UNSUPPORTED = '';
const OK = 'OK';
/** As Linux numbers them: gdb shows them by their meaning. */
const [EINVAL, EFAULT, ESRCH] = ['E16', 'E0e', 'E03'];
const REFUSED = 'E.a recording cannot be changed: vmtape debug only looks at it';
/** Bytes of memory that one answer can hold. */
const MOST_MEMORY = (PACKET_BYTES - 16) / 2;
const SIGINT = '02';
const SIGTRAP = '05';

interface SetPoint {
  readonly type: '0' | '1' | '2';
  readonly address: bigint;
  readonly length: number;
  readonly process: number;
}

export class GdbSession {
  private readonly processes: Processes;
  private readonly features: readonly Feature[];
  private readonly registers: readonly GdbRegister[];
  /** The client understands `p1.2`; otherwise threads are vCPUs. */
  private multiprocess = false;
  private general: ThreadId | undefined;
  private resumed: ThreadId | undefined;
  private points: readonly SetPoint[] = [];
  private listed: readonly NumberedThread[] = [];

  constructor(
    private readonly debuggee: Debuggee,
    guests: readonly RecordedGuest[],
    private readonly host: SessionHost,
  ) {
    this.processes = new Processes(guests);
    this.features = featuresOf(debuggee.machine);
    this.registers = this.features.flatMap(({ registers }) => registers);
  }

  /** @returns undefined when there is nothing to say. */
  async answer(packet: Uint8Array): Promise<Answer> {
    const text = Buffer.from(packet).toString('latin1');
    try {
      const answered = await this.dispatch(text);
      return typeof answered === 'string' ? { data: answered } : answered;
    } catch (error) {
      if (error instanceof Cancelled) return { data: await this.stopReply({ why: 'interrupted' }) };
      if (error instanceof InputError) return { data: `E.${error.message}` };
      if (error instanceof FollowingError) {
        this.host.say(error.message);
        return { data: `E.${error.message}` };
      }
      throw error;
    }
  }

  /** The client is gone. */
  end(): void {
    this.debuggee.interrupt();
    this.debuggee.stopAt([], []);
    this.debuggee.releaseEvents();
  }

  private dispatch(text: string): Answered {
    const rest = text.slice(1);
    switch (text[0]) {
      case '?':
        return this.stopReply({ why: 'step' });
      case '!':
        return OK;
      case 'g':
        return this.allRegisters();
      case 'p':
        return this.oneRegister(rest);
      case 'm':
        return this.memory(rest);
      case 'G':
      case 'P':
      case 'M':
      case 'X':
        return this.refuseWrite(text);
      case 'H':
        return this.setThread(rest);
      case 'T':
        return this.findThread(rest) === undefined ? ESRCH : OK;
      case 'Z':
      case 'z':
        return this.setPoint(text);
      case 'c':
      case 'C':
        return this.go();
      case 's':
      case 'S':
        return this.stepThread(this.resumed, false);
      case 'b':
        return this.reverse(rest);
      case 'D':
        return this.detach(rest);
      case 'k':
        return { data: OK, ends: true };
      case 'R':
        return this.restart();
      case 'v':
        return this.multiLetter(text);
      case 'q':
      case 'Q':
        return this.query(text);
      default:
        return UNSUPPORTED;
    }
  }

  // Threads

  private get threads(): readonly NumberedThread[] {
    return this.processes.threads(this.debuggee.machine);
  }

  /** That of whatever runs. */
  private get current(): NumberedThread {
    const { machine } = this.debuggee;
    return this.processes.running(machine, machine.vcpu);
  }

  private idText({ process, thread }: ThreadId): string {
    return this.multiprocess ? `p${process.toString(16)}.${thread.toString(16)}` : thread.toString(16);
  }

  /** `p1.2`, `p1.-1`, `2`, `-1`, `0`. 0 and -1 are any, which is the current one where that fits. */
  private findThread(text: string): NumberedThread | undefined {
    const match = /^(?:p(-1|[0-9a-f]{1,8})(?:\.|$))?(-1|[0-9a-f]{1,8})?$/i.exec(text);
    if (match === null) return undefined;
    const [process, thread] = [match[1], match[2]].map((part) =>
      part === undefined || part === '-1' ? 0 : Number.parseInt(part, 16),
    ) as [number, number];
    const fits = (each: ThreadId): boolean =>
      (process === 0 || each.process === process) && (thread === 0 || each.thread === thread);
    const { current } = this;
    return fits(current) ? current : this.threads.find(fits);
  }

  private setThread(text: string): string {
    const found = this.findThread(text.slice(1));
    if (found === undefined) return ESRCH;
    const any = /^p?(-1|0)/.test(text.slice(1));
    if (text[0] === 'g') this.general = any ? undefined : found;
    else if (text[0] === 'c') this.resumed = any ? undefined : found;
    else return EINVAL;
    return OK;
  }

  /** What registers and memory are asked of. */
  private get looked(): NumberedThread {
    const { general, current } = this;
    if (general === undefined) return current;
    return this.threads.find((each) => each.process === general.process && each.thread === general.thread) ?? current;
  }

  private get view(): View {
    return viewOf(this.debuggee.machine, this.looked.subject);
  }

  // Registers and memory

  private allRegisters(): string {
    const place = { machine: this.debuggee.machine, view: this.view };
    return this.registers.map((register) => registerHex(register, place)).join('');
  }

  private oneRegister(text: string): string {
    const register = /^[0-9a-f]{1,4}$/i.test(text) ? this.registers[Number.parseInt(text, 16)] : undefined;
    if (register === undefined) return EINVAL;
    return registerHex(register, { machine: this.debuggee.machine, view: this.view });
  }

  private memory(text: string): string {
    const match = /^([0-9a-f]{1,16}),([0-9a-f]{1,8})$/i.exec(text);
    if (match === null) return EINVAL;
    const length = Math.min(Number.parseInt(match[2] as string, 16), MOST_MEMORY);
    const bytes = readMemory(this.debuggee.machine, this.view, BigInt(`0x${match[1]}`), length);
    return bytes.length === 0 && length > 0 ? EFAULT : hexOf(bytes);
  }

  private refuseWrite(text: string): string {
    // By a write of nothing a client asks whether it may send bytes as they are.
    if (/^X[0-9a-f]+,0:$/i.test(text)) return OK;
    const what = text[0] === 'G' || text[0] === 'P' ? 'registers' : 'memory';
    this.host.say(`refused a write to ${what}: a recording cannot be changed`);
    return REFUSED;
  }

  // Breakpoints and watchpoints

  private setPoint(text: string): string {
    const match = /^([Zz])([0-4]),([0-9a-f]{1,16}),([0-9a-f]{1,8})/i.exec(text);
    if (match === null) return EINVAL;
    const [, action, type, address, length] = match as unknown as [string, string, string, string, string];
    if (type === '3' || type === '4') return UNSUPPORTED;
    const point: SetPoint = {
      type: type as SetPoint['type'],
      address: BigInt(`0x${address}`),
      length: Number.parseInt(length, 16),
      process: this.looked.process,
    };
    const others = this.points.filter((each) => !samePoint(each, point));
    if (action === 'Z' && type === '2' && this.rangesOf(point) === undefined) return EFAULT;
    this.points = action === 'Z' ? [...others, point] : others;
    return OK;
  }

  /** Where in RAM a watchpoint is now; undefined where it is not mapped. */
  private rangesOf({ address, length, process }: SetPoint): readonly WatchedRange[] | undefined {
    if (length < 1 || length > MOST_WATCHED) return undefined;
    const subject = this.looked.process === process ? this.looked.subject : this.subjectOf(process);
    return subject && watchedRanges(this.debuggee.machine, viewOf(this.debuggee.machine, subject), address, length);
  }

  private subjectOf(process: number): Subject | undefined {
    return this.threads.find((each) => each.process === process)?.subject;
  }

  /** Tells the recording what to stop at. */
  private armPoints(): void {
    const breakpoints = this.points.flatMap((point): readonly Breakpoint[] =>
      point.type === '2' ? [] : [{ address: point.address, stops: (subject) => this.concerns(point, subject) }],
    );
    const watchpoints = this.points.flatMap((point): readonly Watchpoint[] => {
      const ranges = point.type === '2' ? this.rangesOf(point) : undefined;
      return ranges === undefined ? [] : [{ name: point.address.toString(16), ranges }];
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
  private armed = '';

  private concerns({ process }: SetPoint, subject: Subject): boolean {
    return this.processes.ownerOf(subject) === process;
  }

  // Going

  private async go(): Promise<string> {
    this.armPoints();
    return await this.stopReply(await this.debuggee.forward());
  }

  /**
   * @param alone nobody else is resumed: gdb steps over a breakpoint, and wants to hear of no other thread.
   */
  private async stepThread(id: ThreadId | undefined, alone: boolean): Promise<string> {
    const { debuggee } = this;
    const { current } = this;
    const thread = id === undefined ? current : (this.threads.find((each) => sameThread(each, id)) ?? current);
    this.armPoints();
    if (!alone || !this.isApart(thread)) return await this.stopReply(await debuggee.stepOf(thread.subject));
    return await this.stopReply(await debuggee.stepThrough(thread.subject), thread);
  }

  /** A guest that is attached, or its hypervisor: world switches go to another thread. */
  private isApart({ subject, process }: NumberedThread): boolean {
    return subject.level === 2
      ? this.processes.ownerOf(subject) === process && process !== MACHINE
      : this.processes.hasGuests;
  }

  private async reverse(action: string): Promise<string> {
    const { debuggee, resumed } = this;
    this.armPoints();
    if (action === 'c') return await this.stopReply(await debuggee.backward());
    if (action !== 's') return UNSUPPORTED;
    const thread = resumed && this.threads.find((each) => sameThread(each, resumed));
    if (thread === undefined || !this.isApart(thread)) return await this.stopReply(await debuggee.stepBack());
    return await this.stopReply(await debuggee.stepBackThrough(thread.subject), thread);
  }

  private async restart(): Promise<string> {
    await this.debuggee.goto('start');
    return await this.stopReply({ why: 'step' });
  }

  /** Of one process among several: the client says by itself when it leaves. */
  private detach(text: string): Answer {
    if (text !== '') this.processes.detach(Number.parseInt(text.slice(1), 16));
    return { data: OK, ends: text === '' };
  }

  private async attach(text: string): Promise<string> {
    const process = Number.parseInt(text, 16);
    if (!this.processes.attach(process)) return ESRCH;
    // The client wants a thread of this process, though another one may run.
    return await this.stopReply(
      { why: 'step' },
      this.threads.find((each) => each.process === process),
    );
  }

  private multiLetter(text: string): Answered {
    if (text === 'vCont?') return 'vCont;c;C;s;S;t;r';
    if (text.startsWith('vCont;')) return this.resume(text.slice('vCont;'.length).split(';'));
    if (text.startsWith('vAttach;')) return this.attach(text.slice('vAttach;'.length));
    if (text.startsWith('vRun;')) return this.restart();
    if (text.startsWith('vKill')) return OK;
    return UNSUPPORTED;
  }

  /** The whole machine goes on, whichever thread is meant; a thread that steps says how far. */
  private async resume(actions: readonly string[]): Promise<string | Answer> {
    for (const action of actions) {
      const [what = '', id] = action.split(':');
      const thread = id === undefined ? undefined : this.findThread(id);
      if (id !== undefined && thread === undefined) return ESRCH;
      if (what[0] === 's' || what[0] === 'S') return await this.stepThread(thread, actions.length === 1);
      if (what[0] === 'r') return await this.stepRange(what.slice(1), thread);
      if (what[0] === 't') return await this.stopReply({ why: 'interrupted' });
      if (what[0] === 'c' || what[0] === 'C') return await this.go();
    }
    return EINVAL;
  }

  /** Steps while the thread is within a range of addresses. */
  private async stepRange(text: string, thread: NumberedThread | undefined): Promise<string> {
    const match = /^([0-9a-f]{1,16}),([0-9a-f]{1,16})$/i.exec(text);
    if (match === null) return EINVAL;
    const [start, end] = [BigInt(`0x${match[1]}`), BigInt(`0x${match[2]}`)];
    const { debuggee, current } = this;
    if (thread !== undefined && !sameSubject(thread.subject, current.subject)) {
      return await this.stepThread(thread, false);
    }
    this.armPoints();
    const halt = await debuggee.stepWhile(() => {
      const rip = debuggee.machine.registers[R.rip] as bigint;
      return rip >= start && rip < end && debuggee.breakpointHere === undefined;
    });
    return await this.stopReply(halt);
  }

  private async stopReply(halt: Halt, current = this.current): Promise<string> {
    // A client takes it that what it asks next is meant for the thread that stopped.
    this.general = current;
    const signal = halt.why === 'interrupted' ? SIGINT : SIGTRAP;
    if (halt.why === 'catch') this.console(`${halt.pattern} is about to happen, at ${this.debuggee.where}\n`);
    const place = { machine: this.debuggee.machine, view: viewOf(this.debuggee.machine, current.subject) };
    const expedited = EXPEDITED.map((name) => {
      const number = this.registers.findIndex((each) => each.name === name);
      const value = registerHex(this.registers[number] as GdbRegister, place);
      // A stop reply has no word for what nobody knows.
      return value.includes('x') ? '' : `${number.toString(16)}:${value};`;
    }).join('');
    return `T${signal}thread:${this.idText(current)};${this.reasonOf(halt)}${expedited}`;
  }

  private reasonOf(halt: Halt): string {
    switch (halt.why) {
      case 'end':
        return 'replaylog:end;';
      case 'start':
        return 'replaylog:begin;';
      case 'watchpoint':
        return `watch:${halt.watchpoint.name};`;
      case 'breakpoint': {
        const hardware = this.points.some(({ type, address }) => type === '1' && address === halt.address);
        return hardware ? 'hwbreak:;' : 'swbreak:;';
      }
      default:
        return '';
    }
  }

  private console(text: string): void {
    this.host.send(`O${hexText(text)}`);
  }

  // Queries

  private query(text: string): Answered {
    const [name = ''] = text.split(/[:,;]/);
    switch (name) {
      case 'qSupported':
        return this.supported(text);
      case 'QStartNoAckMode':
        return { data: OK, quiet: true };
      case 'qAttached':
        return '1';
      case 'qC':
        return `QC${this.idText(this.current)}`;
      case 'qfThreadInfo':
        this.listed = this.threads;
        return this.nextThreads();
      case 'qsThreadInfo':
        return this.nextThreads();
      case 'qThreadExtraInfo':
        return this.threadInfo(text.slice('qThreadExtraInfo,'.length));
      case 'qXfer':
        return this.transfer(text);
      case 'qRcmd':
        return this.command(text.slice('qRcmd,'.length));
      default:
        return UNSUPPORTED;
    }
  }

  private supported(text: string): string {
    this.multiprocess = /[:;]multiprocess\+/.test(text);
    return [
      `PacketSize=${PACKET_BYTES.toString(16)}`,
      ...['QStartNoAckMode+', 'multiprocess+', 'vContSupported+', 'swbreak+', 'hwbreak+'],
      ...['ReverseStep+', 'ReverseContinue+', 'qXfer:features:read+', 'qXfer:memory-map:read+', 'qXfer:osdata:read+'],
    ].join(';');
  }

  private nextThreads(): string {
    if (this.listed.length === 0) return 'l';
    const some = this.listed.slice(0, THREADS_LISTED);
    this.listed = this.listed.slice(THREADS_LISTED);
    return `m${some.map((each) => this.idText(each)).join(',')}`;
  }

  private threadInfo(text: string): string {
    const found = this.findThread(text);
    if (found === undefined) return ESRCH;
    const { subject } = found;
    const { state, vcpu, registers } = viewOf(this.debuggee.machine, subject);
    const guest = subject.level === 2 ? ` VMCB 0x${subject.vmcb.toString(16)} asid ${registers[R.guestAsid]}` : '';
    return hexText(`L${subject.level}${guest} vCPU ${vcpu}, ${STATES[state]}`);
  }

  private transfer(text: string): string {
    const match = /^qXfer:(features|memory-map|osdata):read:([^:]*):([0-9a-f]{1,8}),([0-9a-f]{1,8})$/i.exec(text);
    if (match === null) return UNSUPPORTED;
    const [, object, annex, offset, length] = match as unknown as [string, string, string, string, string];
    const document = this.document(object, annex);
    if (document === undefined) return 'E00';
    const at = Number.parseInt(offset, 16);
    const piece = document.slice(at, at + Math.min(Number.parseInt(length, 16), PACKET_BYTES - 16));
    return `${at + piece.length < document.length ? 'm' : 'l'}${piece}`;
  }

  private document(object: string, annex: string): string | undefined {
    if (object === 'memory-map') return MEMORY_MAP;
    if (object === 'features') return annex === 'target.xml' ? targetXml(this.features) : undefined;
    return annex === 'processes' ? processesXml(this.processes.list) : undefined;
  }

  private async command(text: string): Promise<string> {
    if (!/^([0-9a-f]{2})*$/i.test(text)) return EINVAL;
    const words = Buffer.from(text, 'hex').toString('utf8');
    const { machine } = this.debuggee;
    const lines = await monitor(words, { debuggee: this.debuggee, view: viewOf(machine, this.looked.subject) });
    for (const piece of pieces(`${lines.join('\n')}\n`)) this.console(piece);
    return OK;
  }

  /** Long work tells the client's user now and then. */
  tellProgress(at: Position): void {
    this.console(`… at ${at.icount}:${at.seq}\n`);
  }
}

const THREADS_LISTED = 64;
const MOST_WATCHED = 0x1000;
const EXPEDITED = ['rip', 'rsp', 'rbp'] as const;
const STATES: Readonly<Record<View['state'], string>> = {
  runs: 'runs',
  waits: 'waits behind its guest',
  saved: 'saved in its VMCB',
  absent: 'has not run yet',
};

/** Linear addresses are gdb's addresses: each may be mapped at some time, and none can be written to. */
const MEMORY_MAP = [
  '<?xml version="1.0"?>',
  '<!DOCTYPE memory-map PUBLIC "+//IDN gnu.org//DTD GDB Memory Map V1.0//EN" "http://sourceware.org/gdb/gdb-memory-map.dtd">',
  '<memory-map>',
  '<memory type="ram" start="0x0" length="0x8000000000000000"/>',
  '<memory type="ram" start="0x8000000000000000" length="0x8000000000000000"/>',
  '</memory-map>',
  '',
].join('\n');

/** What `info os processes` lists. */
const processesXml = (processes: Processes['list']): string =>
  [
    '<?xml version="1.0"?>',
    '<!DOCTYPE osdata SYSTEM "osdata.dtd">',
    '<osdata type="processes">',
    ...processes.map(
      ([process, name]) => `<item><column name="pid">${process}</column><column name="command">${name}</column></item>`,
    ),
    '</osdata>',
    '',
  ].join('\n');

const sameThread = (a: ThreadId, b: ThreadId): boolean => a.process === b.process && a.thread === b.thread;
const samePoint = (a: SetPoint, b: SetPoint): boolean =>
  a.type === b.type && a.address === b.address && a.process === b.process && (a.type !== '2' || a.length === b.length);

/** Text in pieces that fit into packets. */
function* pieces(text: string): Generator<string, void, void> {
  const size = PACKET_BYTES / 8;
  for (let at = 0; at < text.length; at += size) yield text.slice(at, at + size);
}

/**
 * Packets that make the machine go, forwards or backwards, and what is said where it stops.
 * Source: GDB manual, appendix E.2 Packets, E.3 Stop Reply Packets.
 */
import { R } from '../../src/machine/index.js';
import type { Debuggee } from '../debug/debuggee.js';
import type { Halt } from '../debug/halt.js';
import { changeLines } from '../debug/monitor.js';
import { sameSubject, viewOf } from '../debug/views.js';
import { EINVAL, ESRCH, SIGINT, SIGTRAP, UNSUPPORTED } from './answers.js';
import { type Points, WATCH_REASONS } from './points.js';
import type { NumberedThread, ThreadId } from './processes.js';
import { type GdbRegister, registerHex } from './registers.js';
import type { Threads } from './threads.js';

/** Registers that a stop reply brings along. */
const EXPEDITED = ['rip', 'rsp', 'rbp'] as const;

export class Going {
  /** @param tell takes text for the console of the client's user. */
  constructor(
    private readonly debuggee: Debuggee,
    private readonly threads: Threads,
    private readonly points: Points,
    private readonly registers: readonly GdbRegister[],
    private readonly tell: (text: string) => void,
  ) {}

  /** `c`. */
  async on(): Promise<string> {
    this.points.arm();
    return await this.stopReply(await this.debuggee.forward());
  }

  /** `s`. */
  async step(): Promise<string> {
    return await this.stepThread(this.threads.resumed, false);
  }

  /** `bc`, `bs`. */
  async reverse(action: string): Promise<string> {
    const { debuggee, threads } = this;
    this.points.arm();
    if (action === 'c') return await this.stopReply(await debuggee.backward());
    if (action !== 's') return UNSUPPORTED;
    const thread = (threads.resumed && threads.withId(threads.resumed)) ?? threads.current;
    if (threads.isApart(thread)) return await this.stopReply(await debuggee.stepBackThrough(thread.subject), thread);
    return await this.stepReply(await debuggee.stepBackOn(viewOf(debuggee.machine, thread.subject).vcpu), thread);
  }

  /** `R`, `vRun`. */
  async restart(): Promise<string> {
    await this.debuggee.goto('start');
    return await this.stopReply({ why: 'step' });
  }

  /** `vCont;…`: the whole machine goes on, whichever thread is meant; a thread that steps says how far. */
  async resume(actions: readonly string[]): Promise<string> {
    for (const action of actions) {
      const [what = '', id] = action.split(':');
      const thread = id === undefined ? undefined : this.threads.find(id);
      if (id !== undefined && thread === undefined) return ESRCH;
      if (what[0] === 's' || what[0] === 'S') return await this.stepThread(thread, actions.length === 1);
      if (what[0] === 'r') return await this.stepRange(what.slice(1), thread);
      if (what[0] === 't') return await this.stopReply({ why: 'interrupted' });
      if (what[0] === 'c' || what[0] === 'C') return await this.on();
    }
    return EINVAL;
  }

  /** @param alone nobody else is resumed: gdb steps over a breakpoint, and wants to hear of no other thread. */
  private async stepThread(id: ThreadId | undefined, alone: boolean): Promise<string> {
    const { debuggee, threads } = this;
    const thread = (id && threads.withId(id)) ?? threads.current;
    this.points.arm();
    if (!threads.isApart(thread)) return await this.stepReply(await debuggee.stepOf(thread.subject), thread);
    if (!alone) return await this.stopReply(await debuggee.stepOf(thread.subject));
    return await this.stopReply(await debuggee.stepThrough(thread.subject), thread);
  }

  /** The thread that has stepped is told of, though the turn may have passed to another with that. */
  private async stepReply(halt: Halt, thread: NumberedThread): Promise<string> {
    return await this.stopReply(halt, halt.why === 'step' ? this.threads.withId(thread) : undefined);
  }

  /** Steps while the thread is within a range of addresses. */
  private async stepRange(text: string, thread: NumberedThread | undefined): Promise<string> {
    const match = /^([0-9a-f]{1,16}),([0-9a-f]{1,16})$/i.exec(text);
    if (match === null) return EINVAL;
    const [start, end] = [BigInt(`0x${match[1]}`), BigInt(`0x${match[2]}`)];
    const { debuggee, threads } = this;
    if (thread !== undefined && !sameSubject(thread.subject, threads.current.subject)) {
      return await this.stepThread(thread, false);
    }
    this.points.arm();
    const halt = await debuggee.stepWhile(() => {
      const rip = debuggee.machine.registers[R.rip] as bigint;
      return rip >= start && rip < end && debuggee.breakpointHere === undefined;
    });
    return await this.stopReply(halt);
  }

  /** A client takes it that what it asks next is meant for the thread that stopped. */
  async stopReply(halt: Halt, thread = this.threads.current): Promise<string> {
    const { debuggee, threads, registers } = this;
    threads.general = thread;
    if (halt.why === 'end' && debuggee.stillness !== undefined) this.tell(`${debuggee.stillness}\n`);
    if (halt.why === 'catch') this.tell(`${halt.pattern} is about to happen, at ${debuggee.where}\n`);
    if (halt.why === 'change' || halt.why === 'watchpoint') {
      for (const line of changeLines(halt.changes)) this.tell(`${line}\n`);
    }
    const place = { machine: debuggee.machine, view: viewOf(debuggee.machine, thread.subject) };
    const expedited = EXPEDITED.map((name) => {
      const number = registers.findIndex((each) => each.name === name);
      const value = registerHex(registers[number] as GdbRegister, place);
      // A stop reply has no word for what nobody knows.
      return value.includes('x') ? '' : `${number.toString(16)}:${value};`;
    }).join('');
    const signal = halt.why === 'interrupted' ? SIGINT : SIGTRAP;
    return `T${signal}thread:${threads.idText(thread)};${this.reasonOf(halt)}${expedited}`;
  }

  private reasonOf(halt: Halt): string {
    switch (halt.why) {
      case 'end':
        return 'replaylog:end;';
      case 'start':
        return 'replaylog:begin;';
      case 'watchpoint':
        return `${WATCH_REASONS[halt.watchpoint.access]}:${halt.watchpoint.name};`;
      case 'breakpoint':
        return this.points.isHardware(halt.address) ? 'hwbreak:;' : 'swbreak:;';
      default:
        return '';
    }
  }
}

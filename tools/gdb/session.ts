/**
 * One client's session: gdb's packets → a recording under a debugger. It answers packets one after the other; an interrupt may
 * come while it is at one. Nothing that a client sends changes the tape: writes are for diversions, and elsewhere refused with a
 * word.
 * Source: GDB manual, appendix E.2 Packets.
 */
import type { Position } from '../../src/journal/index.js';
import { type DebuggerEdit, InputError } from '../../src/machine/index.js';
import { Cancelled, FollowingError, type RecordedGuest } from '../../src/replay/index.js';
import type { Debuggee } from '../debug/debuggee.js';
import { memoryEdits } from '../debug/memory-edits.js';
import { monitor } from '../debug/monitor.js';
import { readMemory, watchedRanges } from '../debug/views.js';
import { type Answer, type Answered, EFAULT, EINVAL, ESRCH, OK, UNSUPPORTED } from './answers.js';
import { Going } from './going.js';
import { hexOf, hexText, PACKET_BYTES } from './packet.js';
import { Points } from './points.js';
import { Queries } from './queries.js';
import { registerEdits } from './register-edits.js';
import { featuresOf, type GdbRegister, registerHex, valueOfHex } from './registers.js';
import { Threads } from './threads.js';

/** What a session does with its client and its console. */
export interface SessionHost {
  /** A packet to the client, outside of an answer: `O`. */
  readonly send: (data: string) => void;
  /** A word on the server's own console. */
  readonly say: (text: string) => void;
}

/** Packets that write. */
const WRITES: ReadonlySet<string> = new Set(['G', 'P', 'M', 'X']);
/** Bytes of memory that one answer can hold. */
const MOST_MEMORY = (PACKET_BYTES - 16) / 2;

export class GdbSession {
  private readonly registers: readonly GdbRegister[];
  private readonly threads: Threads;
  private readonly points: Points;
  private readonly going: Going;
  private readonly queries: Queries;

  constructor(
    private readonly debuggee: Debuggee,
    guests: readonly RecordedGuest[],
    private readonly host: SessionHost,
  ) {
    const features = featuresOf(debuggee.machine);
    this.registers = features.flatMap(({ registers }) => registers);
    this.threads = new Threads(debuggee, guests);
    this.points = new Points(debuggee, this.threads);
    this.going = new Going(debuggee, this.threads, this.points, this.registers, (text) => this.console(text));
    this.queries = new Queries(debuggee, this.threads, features, (text) => this.command(text));
  }

  /** @returns undefined when there is nothing to say. */
  async answer(packet: Uint8Array): Promise<Answer> {
    const text = Buffer.from(packet).toString('latin1');
    try {
      const answered = await this.dispatch(text);
      return typeof answered === 'string' ? { data: answered } : answered;
    } catch (error) {
      if (error instanceof Cancelled) return { data: await this.going.stopReply({ why: 'interrupted' }) };
      if (error instanceof InputError) {
        if (WRITES.has(text[0] as string)) this.host.say(`refused a write: ${error.message}`);
        return { data: refusal(error) };
      }
      if (error instanceof FollowingError) {
        this.host.say(error.message);
        return { data: refusal(error) };
      }
      throw error;
    }
  }

  /** The client is gone. */
  end(): void {
    this.debuggee.stopAt([], []);
    this.debuggee.releaseEvents();
    this.debuggee.watchValues([]);
  }

  private dispatch(text: string): Answered {
    const rest = text.slice(1);
    switch (text[0]) {
      case '?':
        return this.going.stopReply({ why: 'step' });
      case '!':
        return OK;
      case 'g':
        return this.allRegisters();
      case 'p':
        return this.oneRegister(rest);
      case 'm':
        return this.memory(rest);
      case 'G':
        return this.writeAllRegisters(rest);
      case 'P':
        return this.writeRegister(rest);
      case 'M':
      case 'X':
        return this.writeMemory(text);
      case 'H':
        return this.threads.choose(rest) ? OK : ESRCH;
      case 'T':
        return this.threads.find(rest) === undefined ? ESRCH : OK;
      case 'Z':
      case 'z':
        return this.points.set(text);
      case 'c':
      case 'C':
        return this.going.on();
      case 's':
      case 'S':
        return this.going.step();
      case 'b':
        return this.going.reverse(rest);
      case 'D':
        return this.detach(rest);
      case 'k':
        return { data: OK, ends: true };
      case 'R':
        return this.going.restart();
      case 'v':
        return this.multiLetter(text);
      case 'q':
      case 'Q':
        return this.queries.answer(text);
      default:
        return UNSUPPORTED;
    }
  }

  private multiLetter(text: string): Answered {
    if (text === 'vCont?') return 'vCont;c;C;s;S;t;r';
    if (text.startsWith('vCont;')) return this.going.resume(text.slice('vCont;'.length).split(';'));
    if (text.startsWith('vAttach;')) return this.attach(text.slice('vAttach;'.length));
    if (text.startsWith('vRun;')) return this.going.restart();
    if (text.startsWith('vKill')) return OK;
    return UNSUPPORTED;
  }

  /** Of one process among several: the client says by itself when it leaves. */
  private detach(text: string): Answer {
    if (text !== '') this.threads.processes.detach(Number.parseInt(text.slice(1), 16));
    return { data: OK, ends: text === '' };
  }

  private async attach(text: string): Promise<string> {
    const process = Number.parseInt(text, 16);
    if (!this.threads.processes.attach(process)) return ESRCH;
    // The client wants a thread of this process, though another one may run.
    return await this.going.stopReply({ why: 'step' }, this.threads.ofProcess(process));
  }

  // Registers and memory

  private allRegisters(): string {
    const place = { machine: this.debuggee.machine, view: this.threads.view };
    return this.registers.map((register) => registerHex(register, place)).join('');
  }

  private oneRegister(text: string): string {
    const register = /^[0-9a-f]{1,4}$/i.test(text) ? this.registers[Number.parseInt(text, 16)] : undefined;
    if (register === undefined) return EINVAL;
    return registerHex(register, { machine: this.debuggee.machine, view: this.threads.view });
  }

  private memory(text: string): string {
    const match = /^([0-9a-f]{1,16}),([0-9a-f]{1,8})$/i.exec(text);
    if (match === null) return EINVAL;
    const length = Math.min(Number.parseInt(match[2] as string, 16), MOST_MEMORY);
    const bytes = readMemory(this.debuggee.machine, this.threads.view, BigInt(`0x${match[1]}`), length);
    return bytes.length === 0 && length > 0 ? EFAULT : hexOf(bytes);
  }

  // Writes

  private write(edits: readonly DebuggerEdit[]): string {
    this.debuggee.write(this.threads.view.vcpu, edits);
    return OK;
  }

  private writeRegister(text: string): string {
    const match = /^([0-9a-f]{1,4})=((?:[0-9a-f]{2})+)$/i.exec(text);
    const register = this.registers[Number.parseInt(match?.[1] ?? '', 16)];
    if (match === null || register === undefined || match[2]?.length !== register.bits / 4) return EINVAL;
    this.requireDiversion();
    return this.write(registerEdits(register.name, valueOfHex(match[2]), this.threads.view));
  }

  /** Those that are others than they were; what nobody knows, a client cannot mean. */
  private writeAllRegisters(text: string): string {
    if (!/^(?:[0-9a-fx]{2})*$/i.test(text)) return EINVAL;
    this.requireDiversion();
    const place = { machine: this.debuggee.machine, view: this.threads.view };
    let at = 0;
    const edits = this.registers.flatMap((register) => {
      const now = registerHex(register, place);
      const wanted = text.slice(at, at + now.length).toLowerCase();
      at += now.length;
      const isMeant = wanted.length === now.length && wanted !== now && !now.includes('x') && !wanted.includes('x');
      return isMeant ? registerEdits(register.name, valueOfHex(wanted), place.view) : [];
    });
    return this.write(edits);
  }

  /** `M`, bytes in hexadecimal; `X`, as they are. By a write of nothing a client asks whether it may send those. */
  private writeMemory(text: string): string {
    const match = /^[MX]([0-9a-f]{1,16}),([0-9a-f]{1,8}):/i.exec(text);
    if (match === null) return EINVAL;
    const [head, address, length] = match as unknown as [string, string, string];
    const data = Buffer.from(text.slice(head.length), text[0] === 'M' ? 'hex' : 'latin1');
    if (data.length !== Number.parseInt(length, 16)) return EINVAL;
    if (data.length === 0) return OK;
    this.requireDiversion();
    const ranges = watchedRanges(this.debuggee.machine, this.threads.view, BigInt(`0x${address}`), data.length);
    if (ranges === undefined) {
      throw new InputError(
        `0x${address}`,
        'it is not mapped, or no RAM',
        'Nothing was written; see monitor translate.',
      );
    }
    return this.write(memoryEdits(ranges, data));
  }

  /** Ahead of what else may be wrong with a write. @throws InputError on the recording. */
  private requireDiversion(): void {
    if (this.debuggee.diversion === undefined) this.debuggee.write(this.threads.view.vcpu, []);
  }

  // Words for the client's user

  private async command(text: string): Promise<string> {
    if (!/^([0-9a-f]{2})*$/i.test(text)) return EINVAL;
    const words = Buffer.from(text, 'hex').toString('utf8');
    const lines = await monitor(words, { debuggee: this.debuggee, view: this.threads.view });
    for (const piece of pieces(`${lines.join('\n')}\n`)) this.console(piece);
    return OK;
  }

  /** Long work tells now and then how far it is. */
  tellProgress(at: Position): void {
    this.console(`… at ${at.icount}:${at.seq}\n`);
  }

  private console(text: string): void {
    this.host.send(`O${hexText(text)}`);
  }
}

/** gdb shows an error as it came: without what must be escaped on the way. */
const refusal = ({ message }: Error): string => `E.${message.replace(/[#$}*]/g, '')}`;

/** Text in pieces that fit into packets. */
function* pieces(text: string): Generator<string, void, void> {
  const size = PACKET_BYTES / 8;
  for (let at = 0; at < text.length; at += size) yield text.slice(at, at + size);
}

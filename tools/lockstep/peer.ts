/** The driving end of the lockstep interface: another program, asked over its stdin and stdout, or a machine of this process. */
import { type ChildProcess, spawn } from 'node:child_process';
import { createInterface } from 'node:readline';
import { OperatingError } from '../cli/failure.js';
import { ABILITIES, type Ability, type HelloAnswer, type LockstepMachine, PROTOCOL, type Request } from './protocol.js';
import { answerTo } from './serve.js';

/** What starts may have to be fetched first (`npx`), and boots a machine. */
const HELLO_MILLISECONDS = 300_000;
const ANSWER_MILLISECONDS = 120_000;
const PARTING_MILLISECONDS = 5000;
const MOST_SAID = 4000;

type Answered = Readonly<Record<string, unknown>>;

/** How requests get to a machine. */
interface Link {
  /** As it is called in messages. */
  readonly title: string;
  /** What it has said besides. */
  readonly said: string;
  ask(request: Request, patience: number): Promise<Answered>;
  close(): Promise<void>;
}

export class Peer {
  private abilities: ReadonlySet<string> = new Set();
  name = '';
  registers: ReadonlySet<string> = new Set();

  private constructor(private readonly link: Link) {}

  /** @param line a command line, for the shell. */
  static command(line: string): Peer {
    return new Peer(new ProcessLink(line));
  }

  static local(title: string, machine: LockstepMachine): Peer {
    const ask = async (request: Request): Promise<Answered> => (await answerTo(machine, request)) as Answered;
    return new Peer({ title, said: '', ask, close: () => machine.close() });
  }

  can(ability: Ability): boolean {
    return this.abilities.has(ability);
  }

  async hello(request: Omit<Extract<Request, { readonly op: 'hello' }>, 'op' | 'protocol'>): Promise<void> {
    const hello: Request = { op: 'hello', protocol: PROTOCOL, ...request };
    const answer = (await this.ask(hello, HELLO_MILLISECONDS)) as Partial<HelloAnswer>;
    const { protocol, name, can, registers } = answer;
    if (protocol !== PROTOCOL) throw this.fault(`its protocol is ${protocol}, and this vmtape's is ${PROTOCOL}`);
    if (!Array.isArray(registers) || !registers.includes('rip')) {
      throw this.fault('it tells of no registers, or not of rip');
    }
    this.name = typeof name === 'string' ? name : this.link.title;
    this.abilities = new Set(Array.isArray(can) ? can.filter((each) => ABILITIES.includes(each)) : []);
    this.registers = new Set(registers);
    if (!this.can('raise') && !this.can('override')) {
      throw this.fault('it takes neither inputs nor a state, so it cannot be brought to where a tape begins');
    }
  }

  /** @throws OperatingError when it answers with an error, with nonsense, or not. */
  async ask(request: Request, patience = ANSWER_MILLISECONDS): Promise<Answered> {
    try {
      const answer = await this.link.ask(request, patience);
      if (typeof answer.error === 'string') throw new Error(`to ${request.op} it says: ${answer.error}`);
      return answer;
    } catch (error) {
      throw this.fault((error as Error).message);
    }
  }

  private fault(what: string): OperatingError {
    const { title, said } = this.link;
    return new OperatingError(`the other machine (${title}): ${what}${said === '' ? '' : `\n${said}`}`);
  }

  close(): Promise<void> {
    return this.link.close();
  }
}

/** A program that speaks the interface. */
class ProcessLink implements Link {
  private readonly child: ChildProcess;
  private nextId = 1;
  private waiting:
    | { readonly id: number; readonly resolve: (answer: Answered) => void; readonly reject: (error: Error) => void }
    | undefined;
  private heard = '';
  private ended: string | undefined;

  constructor(readonly title: string) {
    this.child = spawn(title, { shell: true, stdio: ['pipe', 'pipe', 'pipe'] });
    const { stdin, stdout, stderr } = this.child;
    stdin?.on('error', () => {});
    stderr?.on('data', (data) => {
      this.heard = (this.heard + String(data)).slice(-MOST_SAID);
    });
    if (stdout !== null) createInterface({ input: stdout }).on('line', (text) => this.take(text));
    this.child.on('error', (error) => this.end(error.message));
    this.child.on('close', (status) => this.end(`it ended with status ${status}`));
  }

  get said(): string {
    return this.heard.trim();
  }

  async ask(request: Request, patience: number): Promise<Answered> {
    const id = this.nextId++;
    if (this.ended !== undefined) throw new Error(this.ended);
    return await new Promise<Answered>((resolve, reject) => {
      const timer = setTimeout(() => this.waiting?.reject(new Error(`it does not answer ${request.op}`)), patience);
      const settle =
        <Value>(done: (value: Value) => void) =>
        (value: Value) => {
          clearTimeout(timer);
          this.waiting = undefined;
          done(value);
        };
      this.waiting = { id, resolve: settle(resolve), reject: settle(reject) };
      this.child.stdin?.write(`${JSON.stringify({ id, ...request })}\n`);
    });
  }

  private take(text: string): void {
    const { waiting } = this;
    if (waiting === undefined) return;
    let answer: unknown;
    try {
      answer = JSON.parse(text);
    } catch {
      waiting.reject(new Error(`it answers with no JSON: ${JSON.stringify(text.slice(0, 80))}`));
      return;
    }
    if (typeof answer !== 'object' || answer === null || (answer as Answered).id !== waiting.id) {
      waiting.reject(new Error('its answer is to no request'));
      return;
    }
    waiting.resolve(answer as Answered);
  }

  private end(why: string): void {
    this.ended ??= why;
    this.waiting?.reject(new Error(this.ended));
  }

  async close(): Promise<void> {
    if (this.ended !== undefined) return;
    const over = new Promise<void>((resolve) => this.child.once('close', () => resolve()));
    this.child.stdin?.end(`${JSON.stringify({ id: 0, op: 'bye' })}\n`);
    const timer = setTimeout(() => this.child.kill('SIGKILL'), PARTING_MILLISECONDS);
    await over;
    clearTimeout(timer);
  }
}

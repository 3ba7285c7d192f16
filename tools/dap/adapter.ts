/**
 * A debug adapter on a recording, for VS Code and other editors: the same as the gdb server offers, through the Debug Adapter
 * Protocol. Threads are levels: each vCPU has one for L1, and one for the guest that it runs. Everything typed into the debug
 * console is a command of `monitor.ts`.
 * Source: Debug Adapter Protocol, specification 1.68.
 */
import {
  DebugSession,
  InitializedEvent,
  InvalidatedEvent,
  OutputEvent,
  Response,
  StoppedEvent,
  TerminatedEvent,
} from '@vscode/debugadapter';
import type { DebugProtocol } from '@vscode/debugprotocol';
import { type JournalReader, sqliteStore } from '../../src/journal/index.js';
import { pagingFeatures, R } from '../../src/machine/index.js';
import { Cancelled, type DisassembledInstruction, disassemble } from '../../src/replay/index.js';
import { Debuggee } from '../debug/debuggee.js';
import type { Breakpoint, Halt, Watched, Watchpoint } from '../debug/halt.js';
import { memoryEdits } from '../debug/memory-edits.js';
import { changeLines, monitor } from '../debug/monitor.js';
import { readMemory, type Subject, sameSubject, type View, viewOf, watchedRanges } from '../debug/views.js';
import { registerEdits } from '../gdb/register-edits.js';
import { featuresOf, type GdbRegister } from '../gdb/registers.js';
import { dataBreakpointInfo, dataBreakpoints } from './data-breakpoints.js';

interface LaunchArguments {
  readonly tape?: unknown;
  readonly at?: unknown;
}

/** Of the request `fork`, which is no part of the protocol: where the diversion's tape is kept, if it is. */
interface ForkArguments {
  readonly tape?: unknown;
}

type Handler = (args: never) => Promise<object | undefined> | object | undefined;

/** Scopes of a frame, and which registers each has. */
const SCOPES: readonly (readonly [name: string, has: (feature: string, register: string) => boolean])[] = [
  ['General registers', (feature) => feature.endsWith('.core') || feature.endsWith('.segments')],
  ['System registers', (feature) => feature === 'vmtape.system'],
  ['SVM', (feature, register) => feature === 'vmtape.svm' && !register.startsWith('vmcb_')],
  ['VMCB', (feature, register) => feature === 'vmtape.svm' && register.startsWith('vmcb_')],
  ['Vector registers', (feature) => feature.endsWith('.sse') || feature.endsWith('.avx')],
];
const MOST_READ = 2 ** 20;
const MOST_DISASSEMBLED = 2000;
const LONGEST_INSTRUCTION = 15;

export class VmtapeDebugSession extends DebugSession {
  private reader: JournalReader | undefined;
  private open: Debuggee | undefined;
  private breakpoints: readonly Breakpoint[] = [];
  private watchpoints: readonly Watchpoint[] = [];
  private watched: readonly Watched[] = [];
  /** The editor wants to hear when something has changed while nothing ran. */
  private toldOfChanges = false;

  private readonly handlers: Readonly<Record<string, Handler>> = {
    initialize: ({ supportsInvalidatedEvent = false }: DebugProtocol.InitializeRequestArguments) => {
      this.toldOfChanges = supportsInvalidatedEvent;
      return CAPABILITIES;
    },
    launch: (args: LaunchArguments) => this.launch(args),
    configurationDone: () => this.halted({ why: 'step' }, 'entry'),
    threads: () => ({ threads: this.subjects().map((each) => ({ id: each.id, name: this.nameOf(each.subject) })) }),
    stackTrace: ({ threadId }: DebugProtocol.StackTraceArguments) => this.stackTrace(threadId),
    scopes: ({ frameId }: DebugProtocol.ScopesArguments) => ({
      scopes: SCOPES.map(([name], index) => ({
        ...{ name, variablesReference: frameId * SCOPES.length + index + 1, expensive: index > 1 },
        presentationHint: 'registers',
      })),
    }),
    variables: ({ variablesReference }: DebugProtocol.VariablesArguments) => this.variables(variablesReference),
    setVariable: (args: DebugProtocol.SetVariableArguments) => this.setVariable(args),
    evaluate: (args: DebugProtocol.EvaluateArguments) => this.evaluate(args),
    fork: ({ tape }: ForkArguments) => this.command(tape === undefined ? 'fork' : `fork ${pathOf(tape)}`),
    unfork: () => this.command('unfork'),
    continue: () => this.goes(() => this.debuggee.forward()),
    reverseContinue: () => this.goes(() => this.debuggee.backward()),
    next: ({ threadId }: DebugProtocol.NextArguments) => this.steps(threadId),
    stepIn: ({ threadId }: DebugProtocol.StepInArguments) => this.steps(threadId),
    stepOut: ({ threadId }: DebugProtocol.StepOutArguments) => this.steps(threadId),
    stepBack: () => this.goes(() => this.debuggee.stepBack()),
    pause: () => this.pause(),
    setBreakpoints: ({ breakpoints = [] }: DebugProtocol.SetBreakpointsArguments) => ({
      breakpoints: breakpoints.map(() => ({
        verified: false,
        message: 'a recording has no sources: break at instructions',
      })),
    }),
    setInstructionBreakpoints: (args: DebugProtocol.SetInstructionBreakpointsArguments) => this.setBreakpointsAt(args),
    setExceptionBreakpoints: (args: DebugProtocol.SetExceptionBreakpointsArguments) => this.setCatches(args),
    dataBreakpointInfo: (args: DebugProtocol.DataBreakpointInfoArguments) => this.dataBreakpointInfo(args),
    setDataBreakpoints: (args: DebugProtocol.SetDataBreakpointsArguments) => this.setDataBreakpoints(args),
    readMemory: (args: DebugProtocol.ReadMemoryArguments) => this.readMemory(args),
    writeMemory: (args: DebugProtocol.WriteMemoryArguments) => this.writeMemory(args),
    disassemble: (args: DebugProtocol.DisassembleArguments) => this.disassemble(args),
    disconnect: () => this.end(),
    terminate: () => this.end(),
  };

  protected override dispatchRequest(request: DebugProtocol.Request): void {
    void this.answer(request);
  }

  private async answer(request: DebugProtocol.Request): Promise<void> {
    const response: DebugProtocol.Response = new Response(request);
    try {
      const handler = Object.hasOwn(this.handlers, request.command) ? this.handlers[request.command] : undefined;
      if (handler === undefined) throw new Error(`a recording cannot do ${request.command}`);
      response.body = await handler((request.arguments ?? {}) as never);
      this.sendResponse(response);
    } catch (error) {
      response.success = false;
      response.message = error instanceof Error ? error.message : String(error);
      this.sendResponse(response);
      return;
    }
    if (request.command === 'launch') this.sendEvent(new InitializedEvent());
    if (request.command === 'disconnect') this.shutdown();
  }

  private get debuggee(): Debuggee {
    if (this.open === undefined) throw new Error('no tape is open: launch first');
    return this.open;
  }

  private async launch({ tape, at = 'start' }: LaunchArguments): Promise<undefined> {
    if (typeof tape !== 'string' || typeof at !== 'string')
      throw new Error('launch.json needs a "tape", and "at" is text');
    this.end();
    this.reader = sqliteStore(tape).read();
    this.open = new Debuggee(this.reader);
    await this.open.goto(at);
  }

  private end(): undefined {
    this.open?.interrupt();
    this.open?.close();
    this.reader?.close();
    this.open = undefined;
    this.reader = undefined;
  }

  // What runs

  /** Two numbers for each vCPU: L1, and what it runs besides. */
  private subjects(): readonly { readonly id: number; readonly subject: Subject }[] {
    return this.debuggee.machine.state.vcpus.flatMap((_, vcpu) => {
      const running = this.debuggee.subjectOn(vcpu);
      const host = { id: 2 * vcpu + 1, subject: { level: 1, vcpu } as const };
      return running.level === 1 ? [host] : [host, { id: 2 * vcpu + 2, subject: running }];
    });
  }

  private subjectOf(id: number): Subject {
    return this.subjects().find((each) => each.id === id)?.subject ?? this.debuggee.subject;
  }

  private get currentId(): number {
    const { subject } = this.debuggee;
    return this.subjects().find((each) => sameSubject(each.subject, subject))?.id ?? 1;
  }

  private viewOf(subject: Subject): View {
    return viewOf(this.debuggee.machine, subject);
  }

  private nameOf(subject: Subject): string {
    const { vcpu, state } = this.viewOf(subject);
    const what = subject.level === 1 ? 'L1' : `L2, VMCB 0x${subject.vmcb.toString(16)}`;
    return `vCPU ${vcpu}: ${what}${state === 'runs' ? '' : ', waits'}`;
  }

  private stackTrace(threadId: number): object {
    const view = this.viewOf(this.subjectOf(threadId));
    const rip = view.registers[R.rip] as bigint;
    const [first] = this.codeFrom(view, rip, 1);
    const frame = { id: threadId, name: `${hex(rip)}  ${first?.text ?? ''}`, line: 0, column: 0 };
    return { stackFrames: [{ ...frame, instructionPointerReference: hex(rip) }], totalFrames: 1 };
  }

  private variables(reference: number): object {
    const [, has] = SCOPES[(reference - 1) % SCOPES.length] as (typeof SCOPES)[number];
    const view = this.viewOf(this.subjectOf(Math.floor((reference - 1) / SCOPES.length)));
    const registers = featuresOf(this.debuggee.machine).flatMap((feature) =>
      feature.registers.filter(({ name }) => has(feature.name, name)),
    );
    return { variables: registers.map((register) => this.variableOf(register, view)) };
  }

  private variableOf(register: GdbRegister, view: View): DebugProtocol.Variable {
    const value = register.read({ machine: this.debuggee.machine, view });
    const name = register.name.replace(/^vmcb_/, '');
    if (value === undefined) return { name, value: 'not known', variablesReference: 0 };
    const pointer = register.type.endsWith('_ptr') ? { memoryReference: hex(value) } : {};
    return { name, value: hex(value), variablesReference: 0, ...pointer };
  }

  private async evaluate({ expression, context, frameId }: DebugProtocol.EvaluateArguments): Promise<object> {
    const view = this.viewOf(frameId === undefined ? this.debuggee.subject : this.subjectOf(frameId));
    const name = expression
      .trim()
      .replace(/^\$/, '')
      .replace(/^vmcb\./, 'vmcb_');
    const register = featuresOf(this.debuggee.machine)
      .flatMap(({ registers }) => registers)
      .find((each) => each.name === name);
    if (register !== undefined) {
      const { value, memoryReference } = this.variableOf(register, view);
      return { result: value, variablesReference: 0, ...(memoryReference === undefined ? {} : { memoryReference }) };
    }
    if (context !== 'repl') throw new Error(`there is no register ${name}`);
    return await this.command(expression, view);
  }

  /** A command of `monitor`. One that moved or changed something makes the editor look again. */
  private async command(text: string, view = this.viewOf(this.debuggee.subject)): Promise<object> {
    const place = (): string => `${this.debuggee.where} ${this.debuggee.diversions.length}`;
    const before = place();
    const lines = await monitor(text, { debuggee: this.debuggee, view });
    if (place() !== before) this.halted({ why: 'step' }, 'goto');
    return { result: lines.join('\n'), variablesReference: 0 };
  }

  /** A register, in a diversion. */
  private setVariable({ variablesReference, name, value }: DebugProtocol.SetVariableArguments): object {
    const [scope, has] = SCOPES[(variablesReference - 1) % SCOPES.length] as (typeof SCOPES)[number];
    const view = this.viewOf(this.subjectOf(Math.floor((variablesReference - 1) / SCOPES.length)));
    const ofVmcb = scope === 'VMCB' ? `vmcb_${name}` : name;
    const register = featuresOf(this.debuggee.machine)
      .flatMap((feature) => feature.registers.filter((each) => has(feature.name, each.name)))
      .find((each) => each.name === ofVmcb);
    if (register === undefined) throw new Error(`there is no register ${name}`);
    const number = numberOf(value, register.bits);
    this.debuggee.write(view.vcpu, registerEdits(register.name, number, view));
    this.changed();
    return this.variableOf(register, this.viewOf(view.subject));
  }

  private changed(): void {
    if (this.toldOfChanges) this.sendEvent(new InvalidatedEvent(['all']));
  }

  // Going

  /** Answers at once, and tells where it stopped later. */
  private goes(work: () => Promise<Halt> | Halt): object {
    void (async () => {
      try {
        this.halted(await work());
      } catch (error) {
        if (error instanceof Cancelled) this.halted({ why: 'interrupted' });
        else {
          this.sendEvent(new OutputEvent(`${error instanceof Error ? error.message : error}\n`, 'stderr'));
          this.sendEvent(new TerminatedEvent());
        }
      }
    })();
    return { allThreadsContinued: true };
  }

  private pause(): undefined {
    this.debuggee.interrupt();
  }

  private steps(threadId: number): object {
    return this.goes(() => this.debuggee.stepOf(this.subjectOf(threadId)));
  }

  private halted(halt: Halt, reason = REASONS[halt.why]): undefined {
    const event: DebugProtocol.StoppedEvent = new StoppedEvent(reason, this.currentId);
    event.body.allThreadsStopped = true;
    event.body.description = descriptionOf(halt) ?? `at ${this.debuggee.where}`;
    this.sendEvent(event);
  }

  // What stops

  private arm(): void {
    this.debuggee.stopAt(this.breakpoints, this.watchpoints);
  }

  private setBreakpointsAt({ breakpoints }: DebugProtocol.SetInstructionBreakpointsArguments): object {
    const addresses = breakpoints.map(({ instructionReference, offset }) => addressOf(instructionReference, offset));
    this.breakpoints = addresses.map((address) => ({ address, stops: () => true }));
    this.arm();
    return { breakpoints: addresses.map((address) => ({ verified: true, instructionReference: hex(address) })) };
  }

  private setCatches({ filters, filterOptions = [] }: DebugProtocol.SetExceptionBreakpointsArguments): object {
    this.debuggee.releaseEvents();
    const wanted = [...filters.map((filterId) => ({ filterId, condition: '' })), ...filterOptions];
    const breakpoints = wanted.flatMap(({ filterId, condition = '' }) => {
      const details = condition.split(/[\s,]+/).filter((each) => each !== '');
      return (details.length === 0 ? [filterId] : details.map((each) => `${filterId}:${each}`)).map((pattern) => {
        try {
          this.debuggee.catchEvents(pattern);
          return { verified: true };
        } catch (error) {
          return { verified: false, message: (error as Error).message };
        }
      });
    });
    return { breakpoints };
  }

  private dataBreakpointInfo(args: DebugProtocol.DataBreakpointInfoArguments): object {
    const { variablesReference } = args;
    const thread =
      variablesReference === undefined ? this.currentId : Math.floor((variablesReference - 1) / SCOPES.length);
    const scope = variablesReference === undefined ? undefined : SCOPES[(variablesReference - 1) % SCOPES.length]?.[0];
    return dataBreakpointInfo(this.debuggee, this.viewOf(this.subjectOf(thread)), thread, args, scope === 'VMCB');
  }

  private setDataBreakpoints({ breakpoints }: DebugProtocol.SetDataBreakpointsArguments): object {
    const { debuggee } = this;
    const set = dataBreakpoints(debuggee, (thread) => this.viewOf(this.subjectOf(thread)), breakpoints);
    // What was typed into the debug console stays.
    const others = debuggee.watched.filter((each) => !this.watched.includes(each));
    this.watchpoints = set.watchpoints;
    this.watched = set.watched;
    this.arm();
    debuggee.watchValues([...others, ...set.watched]);
    return { breakpoints: set.answer };
  }

  // Memory and code

  private readMemory({ memoryReference, offset, count }: DebugProtocol.ReadMemoryArguments): object {
    const address = addressOf(memoryReference, offset);
    const { machine, subject } = this.debuggee;
    const bytes = readMemory(machine, this.viewOf(subject), address, Math.max(0, Math.min(count, MOST_READ)));
    return {
      address: hex(address),
      data: Buffer.from(bytes).toString('base64'),
      unreadableBytes: count - bytes.length,
    };
  }

  /** RAM, in a diversion. */
  private writeMemory({ memoryReference, offset, data }: DebugProtocol.WriteMemoryArguments): object {
    const address = addressOf(memoryReference, offset);
    const { machine, subject } = this.debuggee;
    const view = this.viewOf(subject);
    const bytes = Buffer.from(data, 'base64');
    const ranges = watchedRanges(machine, view, address, bytes.length);
    if (ranges === undefined) throw new Error(`${hex(address)} is not mapped, or no RAM`);
    this.debuggee.write(view.vcpu, memoryEdits(ranges, bytes));
    this.changed();
    return { bytesWritten: bytes.length };
  }

  private codeFrom(view: View, rip: bigint, count: number): readonly DisassembledInstruction[] {
    const { memory, engine, profile } = this.debuggee.machine;
    const place = { memory, registers: view.registers, decoder: engine.decoder, features: pagingFeatures(profile) };
    return disassemble(place, rip, count);
  }

  private disassemble(args: DebugProtocol.DisassembleArguments): object {
    const { memoryReference, offset, instructionOffset = 0 } = args;
    const instructionCount = Math.max(0, Math.min(args.instructionCount, MOST_DISASSEMBLED));
    const start = addressOf(memoryReference, offset);
    const view = this.viewOf(this.debuggee.subject);
    const back = Math.max(0, Math.min(-instructionOffset, MOST_DISASSEMBLED));
    const before = this.codeBefore(view, start, back);
    const after = this.codeFrom(view, start, Math.max(0, instructionOffset) + instructionCount);
    const all = [...before, ...after].slice(
      Math.max(0, instructionOffset),
      Math.max(0, instructionOffset) + instructionCount,
    );
    const last = all.at(-1)?.rip ?? start;
    const lines = all.map(({ rip, bytes, text }) => ({
      address: hex(rip),
      instruction: text,
      ...(bytes.length === 0
        ? { presentationHint: 'invalid' }
        : { instructionBytes: Buffer.from(bytes).toString('hex') }),
    }));
    // As many lines as were asked for.
    for (let at = 1n; lines.length < instructionCount; at++) {
      lines.push({
        address: hex(BigInt.asUintN(64, last + at)),
        instruction: '(not known)',
        presentationHint: 'invalid',
      });
    }
    return { instructions: lines };
  }

  /** So many instructions that end at an address: those of the longest way that comes out there. */
  private codeBefore(view: View, end: bigint, count: number): readonly DisassembledInstruction[] {
    const missing = (have: number): readonly DisassembledInstruction[] =>
      Array.from({ length: count - have }, (_, index) => ({
        ...{ rip: BigInt.asUintN(64, end - BigInt(count - index)), bytes: new Uint8Array(0), text: '(not known)' },
      }));
    if (count === 0) return [];
    for (let distance = Math.min(count * LONGEST_INSTRUCTION, MOST_BACK); distance > 0; distance--) {
      const from = end - BigInt(distance);
      if (from < 0n) continue;
      const code = this.codeFrom(view, from, distance);
      const at = code.findIndex(({ rip }) => rip >= end);
      if (at <= 0 || code[at]?.rip !== end || code.slice(0, at).some(({ bytes }) => bytes.length === 0)) continue;
      const found = code.slice(Math.max(0, at - count), at);
      return [...missing(found.length), ...found];
    }
    return missing(0);
  }
}

function descriptionOf(halt: Halt): string | undefined {
  if (halt.why === 'catch') return `${halt.pattern} is about to happen`;
  if (halt.why !== 'change' && halt.why !== 'watchpoint') return undefined;
  const accessed = halt.why === 'watchpoint' ? [`${halt.watchpoint.access} of ${halt.watchpoint.name}`] : [];
  return [...accessed, ...changeLines(halt.changes)].join('; ');
}

const MOST_BACK = 400;

const hex = (value: bigint): string => `0x${value.toString(16)}`;

function addressOf(reference: string, offset = 0): bigint {
  if (!/^(0x[0-9a-f]{1,16}|\d{1,20})$/i.test(reference)) throw new Error(`${JSON.stringify(reference)} is no address`);
  return BigInt.asUintN(64, BigInt(reference) + BigInt(Math.trunc(offset)));
}

/** What an editor's user typed for a register of so many bits. */
function numberOf(text: string, bits: number): bigint {
  if (!/^(0x[0-9a-f]+|\d+)$/i.test(text.trim()) || BigInt(text) >> BigInt(bits) !== 0n) {
    throw new Error(`${JSON.stringify(text)} is no number of ${bits} bits. Give digits, or hexadecimal ones after 0x`);
  }
  return BigInt(text);
}

function pathOf(tape: unknown): string {
  if (typeof tape !== 'string' || /\s/.test(tape)) throw new Error('"tape" is a path without spaces');
  return tape;
}

const REASONS: Readonly<Record<Halt['why'], string>> = {
  step: 'step',
  breakpoint: 'instruction breakpoint',
  watchpoint: 'data breakpoint',
  change: 'data breakpoint',
  catch: 'exception',
  end: 'end of the recording',
  start: 'start of the recording',
  interrupted: 'pause',
};

const CAPABILITIES: DebugProtocol.Capabilities = {
  supportsConfigurationDoneRequest: true,
  supportsStepBack: true,
  supportsInstructionBreakpoints: true,
  supportsDataBreakpoints: true,
  supportsReadMemoryRequest: true,
  supportsWriteMemoryRequest: true,
  supportsSetVariable: true,
  supportsDisassembleRequest: true,
  supportsSteppingGranularity: true,
  supportsExceptionFilterOptions: true,
  supportsEvaluateForHovers: true,
  supportsTerminateRequest: true,
  exceptionBreakpointFilters: [
    ...(
      [
        ['vmexit', '#VMEXIT', 'exit names: npf cpuid 0x72'],
        ['vmrun', 'VMRUN', ''],
        ['injected', 'Event injected', 'vectors'],
        ['cpu.exception', 'Exception', 'vectors or names: 14 gp'],
        ['cpu.interrupt', 'Interrupt', 'vectors'],
      ] as const
    ).map(([filter, label, conditionDescription]) => ({
      ...{ filter, label, supportsCondition: conditionDescription !== '', conditionDescription },
    })),
  ],
};

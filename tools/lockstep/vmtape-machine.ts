/** vmtape itself behind the lockstep interface: a machine of its own that takes the inputs of a tape, so that versions can be compared. */
import { toHex } from '../../src/journal/index.js';
import {
  checkConfig,
  DEFAULT_CONFIG,
  encodeDelta,
  instructionCount,
  isInput,
  Machine,
  type MachineConfig,
  PAGE_BYTES,
  REGISTER_NAMES,
  type Slot,
  sPA,
} from '../../src/machine/index.js';
import { RamDigester, sha256Hex } from '../../src/replay/index.js';
import { VMTAPE_VERSION } from '../version.js';
import {
  type HelloAnswer,
  hexValue,
  inputOfJson,
  type LockstepMachine,
  PROTOCOL,
  ProtocolFault,
  parseHex,
  type RegisterTexts,
  type Request,
  type StepAnswer,
} from './protocol.js';

type Hello = Extract<Request, { readonly op: 'hello' }>;
type Deliverable = Parameters<Machine['deliver']>[0];

const SLOTS = new Map(REGISTER_NAMES.map((name, slot) => [name as string, slot as Slot]));

/** Without an instruction so often in a row, nothing will come of it. */
const MOST_WAITS = 1000;

export class VmtapeMachine implements LockstepMachine {
  private booted: Machine | undefined;
  private digester: RamDigester | undefined;
  private image: Uint8Array = new Uint8Array();
  private sliceInstructions = 1;
  /** An event came that is no run. */
  private boundary = false;
  private stopsAtBoundary = false;

  async hello({ machine, image, sliceInstructions }: Hello): Promise<HelloAnswer> {
    const config = { ...DEFAULT_CONFIG, ...machine } as MachineConfig;
    checkConfig(config);
    this.image = Buffer.from(image, 'base64');
    this.sliceInstructions = sliceInstructions;
    this.booted = new Machine(config, ({ event }) => {
      if (event.type === 'cpu.ran') return;
      this.boundary = true;
      if (this.stopsAtBoundary) this.machine.pause();
    });
    this.digester = new RamDigester(this.machine.memory);
    return {
      protocol: PROTOCOL,
      name: `vmtape ${VMTAPE_VERSION}`,
      can: ['raise', 'override', 'memory', 'deterministic', 'boundary'],
      registers: REGISTER_NAMES,
    };
  }

  private get machine(): Machine {
    if (this.booted === undefined) throw new ProtocolFault('hello comes first');
    return this.booted;
  }

  async step({ instructions, to }: Extract<Request, { readonly op: 'step' }>): Promise<StepAnswer> {
    const { machine } = this;
    const before: number = machine.retired;
    this.boundary = false;
    this.stopsAtBoundary = to === 'boundary';
    try {
      return { stop: this.run(before + instructions), retired: machine.retired - before };
    } finally {
      this.stopsAtBoundary = false;
    }
  }

  private run(target: number): StepAnswer['stop'] {
    const { machine, sliceInstructions } = this;
    if (machine.retired === target) {
      // What is due here, and no instruction.
      machine.run(instructionCount(target));
      return machine.state.ended === null ? 'count' : 'ended';
    }
    for (let waits = 0; machine.retired < target && waits < MOST_WAITS; ) {
      if (machine.state.ended !== null) return 'ended';
      const retired: number = machine.retired;
      const slice = (Math.floor(retired / sliceInstructions) + 1) * sliceInstructions;
      const stop = machine.runUpTo(instructionCount(Math.min(target, slice)));
      if (machine.retired > retired && machine.retired % sliceInstructions === 0) machine.flushRun();
      if (stop === 'ended') return 'ended';
      if (stop === 'idle') return 'waits';
      if (this.stopsAtBoundary && this.boundary) return 'boundary';
      waits = machine.retired > retired ? 0 : waits + 1;
    }
    return machine.retired < target ? 'waits' : 'count';
  }

  async registers(): Promise<RegisterTexts> {
    const { registers } = this.machine;
    const texts = REGISTER_NAMES.map((name, slot) => [name, hexValue(registers[slot as Slot] as bigint)] as const);
    return Object.fromEntries(texts);
  }

  async ram(): Promise<string> {
    return toHex(this.digester?.digest() ?? new Uint8Array());
  }

  async memory(address: number, length: number): Promise<string> {
    const { memory } = this.machine;
    if (!memory.isRam(address, length)) throw new ProtocolFault(`no RAM at ${hexValue(address)}`);
    return toHex(memory.window(sPA(address), length));
  }

  async raise(json: Readonly<Record<string, unknown>>): Promise<void> {
    const { machine } = this;
    const event = inputOfJson(json);
    if (event.type === 'input.boot') {
      machine.boot({ bytes: this.image, digest: sha256Hex(this.image), commandLine: event.commandLine });
      return;
    }
    if (!isInput(event)) throw new ProtocolFault(`${event.type} is no input`);
    machine.deliver(event as Deliverable);
  }

  /** As a debugger would write. */
  async override({ registers = {}, memory = [] }: Extract<Request, { readonly op: 'override' }>): Promise<void> {
    const { machine } = this;
    for (const { address, bytes } of memory) {
      const data = Buffer.from(bytes, 'hex');
      const start = Number(parseHex(address, 'an address'));
      for (let at = 0; at < data.length; ) {
        const length = Math.min(data.length - at, PAGE_BYTES - ((start + at) % PAGE_BYTES));
        machine.deliver({ type: 'input.debugger-memory', address: start + at, data: data.subarray(at, at + length) });
        at += length;
      }
    }
    const changes = Object.entries(registers).map(([name, value]) => {
      const slot = SLOTS.get(name);
      if (slot === undefined) throw new ProtocolFault(`there is no register ${name}`);
      return [slot, parseHex(value, name)] as const;
    });
    if (changes.length === 0) return;
    machine.deliver({ type: 'input.debugger-registers', target: machine.vcpu, changes: encodeDelta(changes) });
  }

  async close(): Promise<void> {}
}

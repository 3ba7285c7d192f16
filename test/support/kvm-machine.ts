/** A whole machine with KVM's interface, of which a test executes single instructions, at privilege level 0 unless it says so. */
import type { EventOf, EventType, HostInput, MachineConfig, MachineEvent } from '../../src/machine/index.js';
import type { RegisterName } from '../../src/machine/layout/cpu-state.js';
import { sPA } from '../../src/machine/units.js';
import { gate } from './cpu-machine.js';
import { CODE, LiveMachine, STACK_TOP } from './live-machine.js';

/** Where structures may lie. */
export const AREA = 0x21_0000;
const HANDLERS = 0x12_0000;
const HANDLER_BYTES = 0x100;
const IDT = 0x6000;
const CODE_SELECTOR = 0x08;
const HALT = 'f4';
export const WRMSR = '0f30';
const RDMSR = '0f32';
const CPUID = '0fa2';
export const VMMCALL = '0f01d9';
export const VMCALL = '0f01c1';
/** RFLAGS with interrupts on. */
export const IF = 0x202n;

type Values = Partial<Record<RegisterName, bigint>>;

export class KvmMachine extends LiveMachine {
  /** @param code what runs from `CODE` on; HLT stands behind it. */
  constructor(code = '', values: Values = {}, more: Partial<MachineConfig> = {}) {
    super(`${code} ${HALT}`, values, undefined, undefined, { paravirt: 'kvm', ...more });
    this.machine.deliver({ type: 'input.clock', unixSeconds: 1_700_000_000 });
  }

  /** Executes one instruction. @returns the vector of the exception that it raised, or undefined. */
  execute(code: string, values: Values): number | undefined {
    const before = this.vectors.length;
    this.put(CODE, `${code} ${HALT}`).set({ rip: BigInt(CODE), rsp: BigInt(STACK_TOP), activity: 0n, ...values });
    this.run(1);
    return this.vectors[before];
  }

  /** @returns false for #GP. */
  writeMsr(msr: number, value: bigint): boolean {
    const raised = this.execute(WRMSR, { rcx: BigInt(msr), rax: value & 0xffff_ffffn, rdx: value >> 32n });
    if (raised !== undefined && raised !== 13) throw new Error(`WRMSR raised ${raised}`);
    return raised === undefined;
  }
  /** @returns undefined for #GP. */
  readMsr(msr: number): bigint | undefined {
    const raised = this.execute(RDMSR, { rcx: BigInt(msr) });
    return raised === undefined ? (this.get('rdx') << 32n) | this.get('rax') : undefined;
  }
  cpuid(leaf: number): readonly string[] {
    this.execute(CPUID, { rax: BigInt(leaf), rcx: 0n });
    return (['rax', 'rbx', 'rcx', 'rdx'] as const).map((name) => this.get(name).toString(16));
  }
  /** @returns RAX, signed. */
  hypercall(number: number, ...[rbx = 0n, rcx = 0n, rdx = 0n, rsi = 0n]: readonly bigint[]): bigint {
    const raised = this.execute(VMMCALL, { rax: BigInt(number), rbx, rcx, rdx, rsi });
    if (raised !== undefined) throw new Error(`VMMCALL raised ${raised}`);
    return BigInt.asIntN(64, this.get('rax'));
  }

  /** Masks all lines of the 8259 pair: no timer ticks. */
  withoutPics(): this {
    for (const port of [0x21, 0xa1]) this.machine.bus.writePort(port, 1, 0xffn);
    return this;
  }

  /** Gives a vector a handler of its own, of at most 256 bytes. */
  handle(vector: number, code: string): this {
    const at = HANDLERS + HANDLER_BYTES * vector;
    this.memory.write(sPA(IDT + 16 * vector), 8, gate(CODE_SELECTOR, at, 0x8e));
    return this.put(at, code);
  }

  read(address: number, size: 1 | 4 | 8): bigint {
    return this.memory.read(sPA(address), size);
  }
  store(address: number, size: 1 | 4 | 8, value: bigint): this {
    this.memory.write(sPA(address), size, value);
    return this;
  }

  host(...inputs: readonly HostInput[]): this {
    for (const input of inputs) this.machine.deliver(input);
    return this;
  }

  /** The events of some types that were stated so far. */
  eventsOf<Type extends EventType>(...types: readonly Type[]): readonly EventOf<Type>[] {
    return this.events.filter((event: MachineEvent): event is EventOf<Type> => types.includes(event.type as Type));
  }
}

/** Takes pages away. */
export const absent = (address: number, latency: number, bytes = 0x1000): HostInput => ({
  type: 'input.pages',
  address,
  bytes,
  present: false,
  latency,
});

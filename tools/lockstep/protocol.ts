/**
 * The lockstep interface: how a second machine is driven beside a tape. JSON lines over stdin and stdout, a request and its answer
 * each; docs/lockstep.md tells it to those who implement it.
 *
 * Values of registers and addresses are hexadecimal strings with 0x, memory is hexadecimal bytes. Registers have the names of
 * vmtape's own table; a machine tells those that it has.
 */
import { fromHex, toHex } from '../../src/journal/index.js';
import type { MachineEvent } from '../../src/machine/index.js';

export const PROTOCOL = 1;

/** What a machine may be able to do besides stepping and telling its state. */
export const ABILITIES = [
  /** It takes every input of a tape, and does all else by itself: interrupts, time, devices. */
  'raise',
  /** Registers and RAM can be set. */
  'override',
  /** RAM can be read. */
  'memory',
  /** It can be started anew, and does the same again. */
  'deterministic',
  /** `step` to a boundary. */
  'boundary',
] as const;
export type Ability = (typeof ABILITIES)[number];

export interface MachineDescription {
  readonly ramBytes: number;
  readonly vcpus: number;
  readonly [setting: string]: unknown;
}

export type Request =
  | {
      readonly op: 'hello';
      readonly protocol: number;
      readonly machine: MachineDescription;
      readonly sliceInstructions: number;
      /** The boot image, in base64; its command line; where it is entered. */
      readonly image: string;
      readonly commandLine: string;
      readonly entry: string;
    }
  /** So many instructions; with `state`, and the registers then. 0 does what is due here and none. `to`: or to the next boundary, if that comes before. */
  | { readonly op: 'step'; readonly instructions: number; readonly to?: 'boundary'; readonly state?: boolean }
  | { readonly op: 'state' }
  | { readonly op: 'memory'; readonly address: string; readonly length: number }
  | { readonly op: 'raise'; readonly event: Readonly<Record<string, unknown>> }
  | { readonly op: 'override'; readonly registers?: RegisterTexts; readonly memory?: readonly MemoryText[] }
  | { readonly op: 'bye' };

export type RegisterTexts = Readonly<Record<string, string>>;

export interface MemoryText {
  /** Physical. */
  readonly address: string;
  readonly bytes: string;
}

export interface HelloAnswer {
  readonly protocol: number;
  /** For people: name and version. */
  readonly name: string;
  readonly can: readonly string[];
  readonly registers: readonly string[];
}

export interface StateAnswer {
  readonly registers: RegisterTexts;
  /** Digest of RAM; only machines of the same name are held against each other by it. */
  readonly ram?: string;
}

export interface StepAnswer extends Partial<StateAnswer> {
  /** `waits`: for an input. */
  readonly stop: 'count' | 'boundary' | 'waits' | 'ended';
  /** Instructions that were retired by this step; a machine that cannot count says nothing. */
  readonly retired?: number;
}

/** A machine behind the interface. */
export interface LockstepMachine {
  hello(request: Extract<Request, { readonly op: 'hello' }>): Promise<HelloAnswer>;
  step(request: Extract<Request, { readonly op: 'step' }>): Promise<StepAnswer>;
  registers(): Promise<RegisterTexts>;
  /** Digest of RAM, of a machine that has one. */
  ram(): Promise<string | undefined>;
  memory(address: number, length: number): Promise<string>;
  raise(event: Readonly<Record<string, unknown>>): Promise<void>;
  override(request: Extract<Request, { readonly op: 'override' }>): Promise<void>;
  close(): Promise<void>;
}

export const hexValue = (value: bigint | number): string => `0x${value.toString(16)}`;

/** @throws ProtocolFault for anything else. */
export function parseHex(text: unknown, what: string): bigint {
  if (typeof text === 'string' && /^0x[0-9a-f]{1,32}$/i.test(text)) return BigInt(text);
  throw new ProtocolFault(`${what} is ${JSON.stringify(text)}, and a number such as "0x1f" is expected`);
}

/** The other side does not keep to the interface. */
export class ProtocolFault extends Error {
  override name = 'ProtocolFault';
}

/** Fields of inputs that are no plain JSON. */
const BYTES: ReadonlySet<string> = new Set(['data', 'changes']);
const BIG: ReadonlySet<string> = new Set(['seed', 'ticks', 'value']);

/** An input as a request has it. Registers that a boot comes to are no part of the input. */
export function inputJson(event: MachineEvent): Readonly<Record<string, unknown>> {
  const fields = Object.entries(event).filter(([name]) => name !== 'registers');
  return Object.fromEntries(
    fields.map(([name, value]) => {
      if (value instanceof Uint8Array) return [name, toHex(value)];
      return [name, typeof value === 'bigint' ? hexValue(value) : value];
    }),
  );
}

/** @throws ProtocolFault for a field that is none. */
export function inputOfJson(json: Readonly<Record<string, unknown>>): MachineEvent {
  const entries = Object.entries(json).map(([name, value]) => {
    if (BYTES.has(name)) {
      const bytes = typeof value === 'string' && /^(?:[0-9a-f]{2})*$/i.test(value) ? fromHex(value) : undefined;
      if (bytes === undefined) throw new ProtocolFault(`${name} of an input is no string of bytes`);
      return [name, bytes];
    }
    return [name, BIG.has(name) ? parseHex(value, `${name} of an input`) : value];
  });
  return Object.fromEntries(entries) as MachineEvent;
}

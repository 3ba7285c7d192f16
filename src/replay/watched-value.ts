/**
 * What can be watched besides accesses to RAM: a value of the machine's state, which is looked at whenever it may have changed.
 * An access that leaves a value as it was is no change.
 */
import {
  type DevicesState,
  decodeDelta,
  EVENT_FIELDS,
  type Machine,
  type MachineEvent,
  R,
  type RegisterDelta,
  type Slot,
  type WatchedRange,
} from '../machine/index.js';

/**
 * What may change a value. `event`: events alone. `control`: also instructions amid a run, of those that the control plane
 * executes. `instruction`: any instruction, so that nobody who runs compiled code can see it.
 */
export type Grain = 'event' | 'control' | 'instruction';

export interface WatchedValue {
  /** As a user calls it. */
  readonly name: string;
  /** Where it lies in RAM, if it does: then no event is needed to change it. */
  readonly ranges: readonly WatchedRange[];
  readonly grain: Grain;
  /** What it is now, in words: equal words for equal values. */
  read(machine: Machine): string;
  /** Whether an event may change it. Of a run: whether it ends with another value than it began with. */
  suspects(event: MachineEvent, vcpu: number): boolean;
}

const hex = (value: bigint): string => `0x${value.toString(16)}`;

/** A register of a vCPU, or some bits of one. */
export interface WatchedRegister {
  readonly name: string;
  readonly vcpu: number;
  readonly slot: Slot;
  /** All bits when absent. */
  readonly mask?: bigint;
}

export function registerValue({ name, vcpu, slot, mask }: WatchedRegister): WatchedValue {
  const shift = mask === undefined ? 0n : BigInt(mask.toString(2).length - mask.toString(2).replace(/0+$/, '').length);
  return {
    ...{ name, ranges: [], grain: grainOf(slot) },
    read: ({ state }) => {
      const whole = (state.vcpus[vcpu]?.registers[slot] ?? 0n) as bigint;
      return hex(mask === undefined ? whole : (whole & mask) >> shift);
    },
    suspects: (event, of) => {
      if (event.type === 'input.skew') return slot === R.tscBase && event.target === vcpu;
      if (event.type === 'input.debugger-registers') return event.target === vcpu && changes(event.changes, slot);
      return of === vcpu && 'registers' in event && changes(event.registers, slot);
    },
  };
}

function changes(delta: RegisterDelta, slot: Slot): boolean {
  for (const [changed] of decodeDelta(delta)) if (changed === slot) return true;
  return false;
}

/** Slots that plain instructions of the control plane change: what they execute is part of a run. */
const CONTROL_SLOTS: ReadonlySet<Slot> = new Set([
  ...[R.boundary, R.monitorAddress, R.monitorDigest, R.busLocks, R.pauseFilter, R.lastPause, R.svmMode, R.dr6],
  ...[R.lastBranchFrom, R.lastBranchTo, R.lastIntFrom, R.lastIntTo],
]);

function grainOf(slot: Slot): Grain {
  // General registers, RIP, RFLAGS; x87 and vector registers.
  if (slot <= R.rflags || (slot >= R.fcw && slot < R.monitorDigest)) return 'instruction';
  return slot <= R.idtrBase || CONTROL_SLOTS.has(slot) ? 'control' : 'event';
}

/** A model-specific register without a slot. */
export const storedMsrValue = (name: string, vcpu: number, msr: number): WatchedValue => ({
  ...{ name, ranges: [], grain: 'event' },
  read: ({ state }) => hex(state.vcpus[vcpu]?.msrs[msr] ?? 0n),
  suspects: (event, of) => {
    if (event.type === 'input.debugger-msr') return event.target === vcpu && event.msr === msr;
    return of === vcpu && (event.type === 'cpu.reset' || (event.type === 'cpu.msr' && event.msr === msr));
  },
});

/** Bytes of RAM; those of several ranges stand one after the other. */
export const ramValue = (name: string, ranges: readonly WatchedRange[]): WatchedValue => ({
  ...{ name, ranges, grain: 'event' },
  read: ({ memory }) => ranges.map(({ address, length }) => bytesText(memory.window(address, length))).join(' | '),
  suspects: () => true,
});

const WORD_BYTES = 8;

/** Up to a quadword as the number that it is, little-endian; more as bytes. */
const bytesText = (bytes: Uint8Array): string =>
  bytes.length <= WORD_BYTES
    ? hex(bytes.reduceRight((value, byte) => (value << 8n) | BigInt(byte), 0n))
    : hexDigits(bytes);

const hexDigits = (bytes: Uint8Array): string =>
  Array.from(bytes, (byte) => byte.toString(16).padStart(2, '0')).join('');

/** A device of the set: where its state is, and what its events begin with. */
export interface WatchedDevice {
  readonly of: keyof DevicesState;
  readonly events: string;
}

/** By the names that their events have. */
export const WATCHED_DEVICES: Readonly<Record<string, WatchedDevice>> = {
  uart: { of: 'uart', events: 'uart' },
  pic: { of: 'pic', events: 'pic' },
  pit: { of: 'pit', events: 'pit' },
  rtc: { of: 'rtc', events: 'rtc' },
  lapic: { of: 'localApics', events: 'lapic' },
  ioapic: { of: 'ioApic', events: 'ioapic' },
  acpi: { of: 'acpi', events: 'acpi' },
  port92: { of: 'port92', events: 'port92' },
  reset: { of: 'resetPort', events: 'reset' },
  'debug-exit': { of: 'debugExit', events: 'debug-exit' },
  'fw-cfg': { of: 'fwCfg', events: 'fw-cfg' },
  pci: { of: 'pci', events: 'pci' },
  testdev: { of: 'testdev', events: 'testdev' },
  coprocessor: { of: 'coprocessor', events: 'coprocessor' },
  hpet: { of: 'hpet', events: 'hpet' },
  'virtio-block': { of: 'virtioBlock', events: 'virtio' },
  'virtio-console': { of: 'virtioConsole', events: 'virtio' },
};

/** Events that change several devices. */
const SYSTEM_EVENTS: ReadonlySet<string> = new Set(['machine.reset', 'firmware.initialized', 'input.clock']);

/** A part of a device's state. @param path names of fields and numbers of elements, from `DevicesState` on. */
export function deviceValue(name: string, { of, events }: WatchedDevice, path: readonly string[]): WatchedValue {
  const types = new Set(Object.keys(EVENT_FIELDS).filter((type) => type.startsWith(`${events}.`)));
  return {
    ...{ name, ranges: [], grain: 'event' },
    read: ({ state }) => stateText(partOf(state.devices[of], path)),
    suspects: ({ type }) => types.has(type) || SYSTEM_EVENTS.has(type),
  };
}

/** @returns undefined where there is no such part. */
export const partOf = (state: unknown, path: readonly string[]): unknown =>
  path.reduce<unknown>(
    (part, name) =>
      typeof part === 'object' && part !== null ? (part as Readonly<Record<string, unknown>>)[name] : undefined,
    state,
  );

/** Numbers as registers are read, what has parts as JSON. */
function stateText(part: unknown): string {
  if (typeof part === 'number' && Number.isInteger(part) && part >= 0) return hex(BigInt(part));
  return (
    JSON.stringify(part, (_, value: unknown) => {
      if (typeof value === 'bigint') return hex(value);
      return value instanceof Uint8Array ? hexDigits(value) : value;
    }) ?? 'none'
  );
}

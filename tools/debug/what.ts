/**
 * What a user asks about or wants watched, in the words of `who-wrote WHAT` and `monitor watch WHAT`:
 *
 * - `ADDR[,LEN]`: RAM behind a linear address, through the tables of what is looked at; `phys:ADDR[,LEN]`;
 * - `vmcb.FIELD`: of the VMCB in use;
 * - `walk:ADDR`: every entry of the tables that translate a linear address, the nested ones included;
 * - a register of the vCPU, by its slot's name or gdb's: whichever level runs on it; `msr.N`, where it keeps what is written;
 * - `device.NAME`, and parts of its state: `device.pit.channels[0].mode`, `device.lapic[1].tpr`.
 */
import {
  type DebuggerEdit,
  explainWalk,
  InputError,
  isStoredMsr,
  type Machine,
  pagingFeatures,
  R,
  REGISTER_NAMES,
  SEGMENT_NAMES,
  type Slot,
  SvmMode,
  segmentSlot,
  slotOfMsr,
  VMCB,
} from '../../src/machine/index.js';
import { ramValue, registerValue, storedMsrValue, type WatchedValue } from '../../src/replay/index.js';
import { hex } from '../cli/format.js';
import { parseDevice } from './device-path.js';
import { littleEndian, memoryEdits } from './memory-edits.js';
import { elsewhere, nearest } from './nearest.js';
import { type View, watchedRanges } from './views.js';

export const WHAT = 'ADDR[,LEN] | phys:ADDR[,LEN] | vmcb.FIELD | walk:ADDR | REGISTER | msr.N | device.NAME[.PART]';

/** What of it a number can be written to. */
export const WRITABLE = 'ADDR[,LEN] | phys:ADDR[,LEN] | vmcb.FIELD | REGISTER | msr.N';

/** What was asked for: one value, or the entries of a walk. */
export interface What {
  readonly name: string;
  readonly values: readonly WatchedValue[];
}

/** Where words are understood. */
export interface WhatPlace {
  readonly machine: Machine;
  readonly view: View;
  /** Bytes from an address on where no length is given; 8 when absent. */
  readonly length?: number | undefined;
}

const MOST_BYTES = 4096;

/** @throws InputError when there is no such thing. */
export function parseWhat(text: string, place: WhatPlace): What {
  const [, kind = '', rest = ''] = /^(vmcb\.|msr\.|device\.|walk:|phys:)?(.*)$/is.exec(text.trim()) ?? [];
  switch (kind.toLowerCase()) {
    case 'vmcb.':
      return alone(vmcbField(rest, place));
    case 'msr.':
      return alone(modelSpecific(rest, place));
    case 'device.':
      return alone(parseDevice(rest, place.machine, place.view.vcpu));
    case 'walk:':
      return walk(rest, place);
    case 'phys:':
      return alone(physical(rest, place));
    default:
      return alone(/^[0-9]/.test(rest) ? linear(rest, place) : register(rest, place));
  }
}

const alone = (value: WatchedValue): What => ({ name: value.name, values: [value] });

function numberOf(text: string, what: string): bigint {
  if (/^(0x[0-9a-f]{1,16}|\d{1,20})$/i.test(text) && BigInt(text) < 1n << 64n) return BigInt(text);
  throw new InputError(
    `${what} ${JSON.stringify(text)}`,
    'it is no 64-bit number',
    'Give digits, or hexadecimal ones after 0x.',
  );
}

// RAM

/** `ADDR` or `ADDR,LEN`. */
function stretchOf(text: string, { length = 8 }: WhatPlace): { readonly address: bigint; readonly bytes: number } {
  const [first = '', second] = text.split(',', 2);
  const address = numberOf(first, 'the address');
  const bytes = second === undefined ? length : Number(numberOf(second, 'the length'));
  if (bytes >= 1 && bytes <= MOST_BYTES) return { address, bytes };
  throw new InputError(`${bytes} bytes`, 'they are too few or too many', `Give a length from 1 to ${MOST_BYTES}.`);
}

function linear(text: string, place: WhatPlace): WatchedValue {
  const { address, bytes } = stretchOf(text, place);
  const ranges = watchedRanges(place.machine, place.view, address, bytes);
  if (ranges === undefined) {
    throw new InputError(
      text,
      'it is not RAM, or not mapped there',
      'See translate, and give phys: for physical addresses.',
    );
  }
  const places = ranges.map((range) => `${hex(range.address)}h`).join(', ');
  return ramValue(`${hex(address)}h (physical ${places})`, ranges);
}

function physical(text: string, place: WhatPlace): WatchedValue {
  const { address, bytes } = stretchOf(text, place);
  if (!place.machine.memory.isRam(Number(address), bytes)) {
    throw new InputError(`phys:${text}`, 'it is not RAM', 'Registers of devices are device.NAME.');
  }
  return ramValue(`physical ${hex(address)}h`, [{ address: Number(address), length: bytes }]);
}

function vmcbField(name: string, { view: { vmcb } }: WhatPlace): WatchedValue {
  const names = Object.keys(VMCB.fields);
  const found = names.find((each) => each.toLowerCase() === name.toLowerCase());
  if (found === undefined) {
    throw new InputError(
      `vmcb.${name}`,
      'it is no field of the VMCB',
      elsewhere(nearest(name, names), 'vmcb lists them'),
    );
  }
  if (vmcb === undefined) throw new InputError(`vmcb.${found}`, 'no VMCB was used until here', 'Choose a later place.');
  const { offset, bytes } = (VMCB.fields as Readonly<Record<string, { offset: number; bytes: number }>>)[found] as {
    readonly offset: number;
    readonly bytes: number;
  };
  return ramValue(`${found} of the VMCB at ${hex(vmcb)}h`, [{ address: vmcb + offset, length: bytes }]);
}

/**
 * What writing a number to something that was asked about means.
 * @throws InputError when there is no such thing, or it is nothing to write to.
 */
export function editsOf(text: string, value: bigint, place: WhatPlace): readonly DebuggerEdit[] {
  const { values } = parseWhat(text, place);
  const msr = /^msr\.(.*)$/i.exec(text.trim())?.[1];
  if (msr !== undefined) return [{ kind: 'msr', msr: Number(numberOf(msr, 'the MSR')), value }];
  const ranges = values.flatMap((each) => each.ranges);
  const bytes = ranges.reduce((sum, { length }) => sum + length, 0);
  if (values.length === 1 && bytes > 0) {
    if (bytes < 8 && value >> BigInt(8 * bytes) !== 0n) {
      throw new InputError(`0x${hex(value)}`, `it is more than ${bytes} bytes hold`, 'Give a length after a comma.');
    }
    return memoryEdits(ranges, littleEndian(value, bytes));
  }
  const slot = SLOTS.get(plainName(text.trim().replace(/^\$/, '')));
  const segment = SEGMENT_NAMES.findIndex((_, number) => segmentSlot(number) === slot);
  if (segment >= 0 && value < 0x1_0000n) return [{ kind: 'selector', segment, selector: Number(value) }];
  if (slot !== undefined) return [{ kind: 'register', slot, value }];
  throw new InputError(text, 'it is nothing that one writes a number to', 'Give RAM, vmcb.FIELD, a register or msr.N.');
}

/** As the walk finds them now: when an entry changes, others may translate from then on. */
function walk(text: string, { machine, view }: WhatPlace): What {
  const address = numberOf(text, 'the address');
  const { steps } =
    view.state === 'absent'
      ? { steps: [] }
      : explainWalk(machine.memory, view.registers, pagingFeatures(machine.profile), address);
  // Nested entries near the root translate several addresses.
  const entries = new Map(steps.map((step) => [step.sPA, step]));
  if (entries.size === 0) {
    throw new InputError(`walk:${text}`, 'no tables translate it here', 'Choose a place at which paging is on.');
  }
  const values = [...entries.values()].map(({ table, entry, sPA, bytes, gPA }) => {
    const whose = table === 'nested' ? `nested ${entry} for gPA ${hex(gPA ?? 0)}h` : entry;
    return ramValue(`${whose} at ${hex(sPA)}h`, [{ address: sPA, length: bytes }]);
  });
  return { name: `the walk of ${hex(address)}h`, values };
}

// Registers

/** Bits that have a name of their own, and what gdb calls otherwise than the table of slots. */
const NAMED_BITS: Readonly<Record<string, { readonly slot: Slot; readonly mask: bigint }>> = {
  gif: { slot: R.svmMode, mask: SvmMode.GIF },
  guestmode: { slot: R.svmMode, mask: SvmMode.GUEST },
};
const OTHER_NAMES: Readonly<Record<string, Slot>> = {
  asid: R.guestAsid,
  kgsbase: R.kernelGsBase,
  eflags: R.rflags,
};

/** Without regard to case and underscores. */
const plainName = (name: string): string => name.toLowerCase().replaceAll('_', '');
const SLOTS: ReadonlyMap<string, Slot> = new Map([
  ...Object.entries(OTHER_NAMES),
  ...REGISTER_NAMES.map((name) => [plainName(name), R[name]] as const),
]);

function register(text: string, { view: { vcpu } }: WhatPlace): WatchedValue {
  const plain = plainName(text.replace(/^\$/, ''));
  const bits = NAMED_BITS[plain];
  if (bits !== undefined) return registerValue({ name: `${text} of vCPU ${vcpu}`, vcpu, ...bits });
  const slot = SLOTS.get(plain);
  if (slot === undefined) {
    const known = [...REGISTER_NAMES, ...Object.keys(NAMED_BITS), ...Object.keys(OTHER_NAMES)];
    const remedy = elsewhere(nearest(text, known), `Give ${WHAT}`);
    throw new InputError(
      JSON.stringify(text),
      'it is none of what can be asked for: the address of RAM, or a name',
      remedy,
    );
  }
  return registerValue({ name: `${REGISTER_NAMES[slot]} of vCPU ${vcpu}`, vcpu, slot });
}

function modelSpecific(text: string, { view: { vcpu } }: WhatPlace): WatchedValue {
  const msr = Number(numberOf(text, 'the MSR'));
  const name = `MSR ${hex(msr)}h of vCPU ${vcpu}`;
  const slot = slotOfMsr(msr);
  if (slot !== undefined) return registerValue({ name, vcpu, slot });
  if (isStoredMsr(msr)) return storedMsrValue(name, vcpu, msr);
  throw new InputError(
    `MSR ${hex(msr)}h`,
    'it is no register that keeps what is written to it',
    'Those of the local APIC are device.lapic; the TSC is tscBase, and what time adds.',
  );
}

/**
 * What a client's write to one of gdb's registers asks of the machine: where each of them is kept, seen from the view that the
 * client looks at. Whether it can be is the machine's to say.
 */
import {
  type DebuggerEdit,
  fprSlot,
  InputError,
  R,
  SEGMENT_NAMES,
  type Slot,
  SvmMode,
  VMCB,
  xmmSlot,
} from '../../src/machine/index.js';
import { littleEndian } from '../debug/memory-edits.js';
import { HOST_SLOTS, type View } from '../debug/views.js';
import { SEGMENT_ORDER, SYSTEM_SLOTS, topOf } from './registers.js';

const SLOTS = R as Readonly<Record<string, Slot>>;

const register = (slot: Slot, value: bigint): DebuggerEdit => ({ kind: 'register', slot, value });

/** A slot and the next one, from a value of several quadwords. */
const wide = (slot: Slot, value: bigint): readonly DebuggerEdit[] => [
  register(slot, BigInt.asUintN(64, value)),
  register((slot + 1) as Slot, value >> 64n),
];

/** gdb's names of single slots, where they are not the slots' own. */
const OTHER_SLOTS: Readonly<Record<string, Slot>> = {
  ...{ eflags: R.rflags, fctrl: R.fcw, fstat: R.fsw, fs_base: R.fsBase, gs_base: R.gsBase, k_gs_base: R.kernelGsBase },
  ...{ vm_hsave_pa: R.vmHsavePA, vm_cr: R.vmCr },
};
const OWN_NAMES: ReadonlySet<string> = new Set<string>([
  ...['rax', 'rbx', 'rcx', 'rdx', 'rsi', 'rdi', 'rbp', 'rsp', 'r8', 'r9', 'r10', 'r11', 'r12', 'r13', 'r14', 'r15'],
  ...['rip', 'fop', 'mxcsr', ...SYSTEM_SLOTS],
]);

/** Halves of slots: bits from `low` on. */
const HALVES: Readonly<Record<string, { readonly slot: Slot; readonly low: number }>> = {
  fiseg: { slot: R.fip, low: 32 },
  fioff: { slot: R.fip, low: 0 },
  foseg: { slot: R.fdp, low: 32 },
  fooff: { slot: R.fdp, low: 0 },
};

/**
 * @param name gdb's. @param value as wide as the register.
 * @throws InputError where the register is not this view's to write.
 */
export function registerEdits(name: string, value: bigint, view: View): readonly DebuggerEdit[] {
  if (name.startsWith('vmcb_')) return vmcbEdits(name.slice('vmcb_'.length), value, view);
  if (view.state === 'runs') return editsOfRunning(name, value, view);
  if (view.state === 'waits') {
    const kept = HOST_SLOTS.find(([slot]) => slot === SLOTS[name])?.[1];
    if (kept !== undefined) return [register(kept, value)];
    refuse(name, 'it waits behind its guest', 'Write it once the guest has exited.');
  }
  const saved = view.state === 'saved' && Object.hasOwn(VMCB.fields, name);
  if (saved) return vmcbEdits(name, value, view);
  refuse(name, view.state === 'saved' ? 'the guest is saved in its VMCB' : 'it has not run until here', SAVED);
}

const SAVED = 'Write the fields of its VMCB ($vmcb_…).';

function editsOfRunning(name: string, value: bigint, { registers }: View): readonly DebuggerEdit[] {
  const slot = OTHER_SLOTS[name] ?? (OWN_NAMES.has(name) ? SLOTS[name] : undefined);
  if (slot !== undefined) return [register(slot, value)];
  const half = HALVES[name];
  if (half !== undefined) {
    const old = registers[half.slot] as bigint;
    const mask = 0xffff_ffffn << BigInt(half.low);
    return [register(half.slot, (old & ~mask) | (value << BigInt(half.low)))];
  }
  if ((SEGMENT_ORDER as readonly string[]).includes(name)) {
    const segment = (SEGMENT_NAMES as readonly string[]).indexOf(name);
    return [{ kind: 'selector', segment, selector: Number(value & 0xffffn) }];
  }
  if (name === 'gif') {
    const mode = registers[R.svmMode] as bigint;
    return [register(R.svmMode, value === 0n ? mode & ~SvmMode.GIF : mode | SvmMode.GIF)];
  }
  if (name === 'ftag') return [register(R.ftw, abridged(value))];
  const [, bank, digits] = /^(st|xmm|ymm)(\d+)h?$/.exec(name) ?? [];
  const number = Number(digits);
  switch (bank) {
    case 'st':
      return wide(fprSlot((topOf(registers[R.fsw] as bigint) + number) & 7), value);
    case 'xmm':
      return wide(xmmSlot(number), value);
    case 'ymm':
      return wide((R.ymm0 + 2 * number) as Slot, value);
    default:
      refuse(name, 'only the processor itself changes it', 'See docs/debugging.md for what can be written.');
  }
}

/** Of the tag word in full: which registers are not empty (APM vol.1 §6.2.4 x87 Tag Word Register). */
function abridged(tags: bigint): bigint {
  let valid = 0n;
  for (let number = 0n; number < 8n; number++) if (((tags >> (2n * number)) & 3n) !== 3n) valid |= 1n << number;
  return valid;
}

/** A field of the VMCB in RAM, as software would write it. */
function vmcbEdits(name: string, value: bigint, { vmcb }: View): readonly DebuggerEdit[] {
  const field = (VMCB.fields as Readonly<Record<string, { offset: number; bytes: number }>>)[name];
  if (field === undefined || vmcb === undefined) refuse(name, 'no VMCB was used until here', 'Choose a later place.');
  return [{ kind: 'memory', address: vmcb + field.offset, data: littleEndian(value, field.bytes) }];
}

function refuse(what: string, problem: string, remedy: string): never {
  throw new InputError(what, problem, remedy);
}

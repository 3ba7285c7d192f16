/**
 * The registers that gdb is told of, in its order, and how each is read off a view. The first features are gdb's own, so that it
 * knows what they mean; `vmtape.system` has the system registers, `vmtape.svm` what SVM adds, with the fields of the VMCB.
 * Source: GDB manual, appendix G.5.6 i386 Features; APM vol.2 §3 System Resources, appendix B VMCB Layout.
 */
import {
  CR0,
  CR4,
  EFER,
  fprSlot,
  gprSlot,
  type Machine,
  R,
  REGISTER_NAMES,
  readCR8,
  type Slot,
  SvmMode,
  VMCB,
  xmmSlot,
} from '../../src/machine/index.js';
import { type View, vmcbFieldsAt } from '../debug/views.js';

/** What a register may be read from. */
export interface RegisterPlace {
  readonly machine: Machine;
  readonly view: View;
}

export interface GdbRegister {
  readonly name: string;
  readonly bits: number;
  readonly type: string;
  readonly group?: string;
  /** @returns undefined when nobody knows it. */
  readonly read: (place: RegisterPlace) => bigint | undefined;
}

export interface Feature {
  readonly name: string;
  /** Definitions of types, as XML. */
  readonly types: readonly string[];
  readonly registers: readonly GdbRegister[];
}

/** What has not run yet stands at 0: gdb needs a place for everything. */
const known = (slot: Slot, { view }: RegisterPlace): bigint | undefined => {
  if (view.knows(slot)) return view.registers[slot] as bigint;
  return view.state === 'absent' && (slot === R.rip || slot === R.rsp) ? 0n : undefined;
};

/** Bits of a slot. */
const part =
  (slot: Slot, low = 0, bits = 64) =>
  (place: RegisterPlace): bigint | undefined => {
    const value = known(slot, place);
    return value === undefined ? undefined : BigInt.asUintN(bits, value >> BigInt(low));
  };

const register = (
  name: string,
  bits: number,
  type: string,
  read: GdbRegister['read'],
  group?: string,
): GdbRegister => ({ name, bits, type, read, ...(group === undefined ? {} : { group }) });

// org.gnu.gdb.i386.core

/** General registers in gdb's order, by their number in instructions. */
const GDB_ORDER = [0, 3, 1, 2, 6, 7, 5, 4, 8, 9, 10, 11, 12, 13, 14, 15] as const;
const POINTERS: ReadonlySet<string> = new Set(['rsp', 'rbp']);
export const SEGMENT_ORDER = ['cs', 'ss', 'ds', 'es', 'fs', 'gs'] as const;

/** A slot and the next one as 128 bits. */
const wide =
  (slot: Slot) =>
  (place: RegisterPlace): bigint | undefined => {
    const [low, high] = [known(slot, place), known((slot + 1) as Slot, place)];
    return low === undefined || high === undefined ? undefined : low | (high << 64n);
  };

/** ST(number): the register file is in physical order. */
const stackRegister =
  (number: number) =>
  (place: RegisterPlace): bigint | undefined => {
    const status = known(R.fsw, place);
    return status === undefined ? undefined : wide(fprSlot((topOf(status) + number) & 7))(place);
  };

export const topOf = (statusWord: bigint): number => Number((statusWord >> 11n) & 7n);

/** The tag word in full, from the abridged one and the registers (APM vol.1 §6.2.4 x87 Tag Word Register). */
function fullTags(place: RegisterPlace): bigint | undefined {
  const abridged = known(R.ftw, place);
  if (abridged === undefined) return undefined;
  let tags = 0n;
  for (let number = 0; number < 8; number++) {
    const value = wide(fprSlot(number))(place) ?? 0n;
    tags |= (((abridged >> BigInt(number)) & 1n) === 0n ? 3n : tagOf(value)) << BigInt(2 * number);
  }
  return tags;
}

/** Valid, zero or special. */
function tagOf(value: bigint): bigint {
  const exponent = (value >> 64n) & 0x7fffn;
  const significand = BigInt.asUintN(64, value);
  if (exponent === 0n && significand === 0n) return 1n;
  return exponent === 0x7fffn || exponent === 0n || significand >> 63n === 0n ? 2n : 0n;
}

const CORE: Feature = {
  name: 'org.gnu.gdb.i386.core',
  types: [
    flags('i386_eflags', 4, {
      ...{ CF: 0, '': 1, PF: 2, AF: 4, ZF: 6, SF: 7, TF: 8, IF: 9, DF: 10, OF: 11 },
      ...{ NT: 14, RF: 16, VM: 17, AC: 18, VIF: 19, VIP: 20, ID: 21 },
    }),
  ],
  registers: [
    ...GDB_ORDER.map((number) => {
      const name = REGISTER_NAMES[gprSlot(number)] as string;
      return register(name, 64, POINTERS.has(name) ? 'data_ptr' : 'int64', part(gprSlot(number)));
    }),
    register('rip', 64, 'code_ptr', part(R.rip)),
    register('eflags', 32, 'i386_eflags', part(R.rflags, 0, 32)),
    ...SEGMENT_ORDER.map((name) => register(name, 32, 'int32', part(R[name], 0, 16))),
    ...Array.from({ length: 8 }, (_, number) => register(`st${number}`, 80, 'i387_ext', stackRegister(number))),
    register('fctrl', 32, 'int', part(R.fcw), 'float'),
    register('fstat', 32, 'int', part(R.fsw), 'float'),
    register('ftag', 32, 'int', fullTags, 'float'),
    register('fiseg', 32, 'int', part(R.fip, 32, 32), 'float'),
    register('fioff', 32, 'int', part(R.fip, 0, 32), 'float'),
    register('foseg', 32, 'int', part(R.fdp, 32, 32), 'float'),
    register('fooff', 32, 'int', part(R.fdp, 0, 32), 'float'),
    register('fop', 32, 'int', part(R.fop), 'float'),
  ],
};

// org.gnu.gdb.i386.sse, .avx, .segments

const SSE: Feature = {
  name: 'org.gnu.gdb.i386.sse',
  types: [
    '<vector id="v4f" type="ieee_single" count="4"/>',
    '<vector id="v2d" type="ieee_double" count="2"/>',
    '<vector id="v16i8" type="int8" count="16"/>',
    '<vector id="v8i16" type="int16" count="8"/>',
    '<vector id="v4i32" type="int32" count="4"/>',
    '<vector id="v2i64" type="int64" count="2"/>',
    '<union id="vec128"><field name="v4_float" type="v4f"/><field name="v2_double" type="v2d"/>' +
      '<field name="v16_int8" type="v16i8"/><field name="v8_int16" type="v8i16"/>' +
      '<field name="v4_int32" type="v4i32"/><field name="v2_int64" type="v2i64"/>' +
      '<field name="uint128" type="uint128"/></union>',
    flags('i386_mxcsr', 4, {
      ...{ IE: 0, DE: 1, ZE: 2, OE: 3, UE: 4, PE: 5, DAZ: 6, IM: 7, DM: 8, ZM: 9, OM: 10, UM: 11, PM: 12, FZ: 15 },
    }),
  ],
  registers: [
    ...Array.from({ length: 16 }, (_, number) => register(`xmm${number}`, 128, 'vec128', wide(xmmSlot(number)))),
    register('mxcsr', 32, 'i386_mxcsr', part(R.mxcsr), 'vector'),
  ],
};

const AVX: Feature = {
  name: 'org.gnu.gdb.i386.avx',
  types: [],
  registers: Array.from({ length: 16 }, (_, number) =>
    register(`ymm${number}h`, 128, 'uint128', wide((R.ymm0 + 2 * number) as Slot)),
  ),
};

const SEGMENTS: Feature = {
  name: 'org.gnu.gdb.i386.segments',
  types: [],
  registers: [register('fs_base', 64, 'int', part(R.fsBase)), register('gs_base', 64, 'int', part(R.gsBase))],
};

// vmtape.system

/** What gdb calls otherwise than the table of slots, as QEMU does. */
const SYSTEM_NAMES: Readonly<Record<string, string>> = { kernelGsBase: 'k_gs_base' };
export const SYSTEM_SLOTS = [
  ...(['cr0', 'cr2', 'cr3', 'cr4', 'efer', 'xcr0', 'dr0', 'dr1', 'dr2', 'dr3', 'dr6', 'dr7', 'cpl'] as const),
  ...(['kernelGsBase', 'star', 'lstar', 'cstar', 'sfmask', 'sysenterCs', 'sysenterEsp', 'sysenterEip'] as const),
  ...([
    'pat',
    'tscAux',
    'debugCtl',
    'esBase',
    'csBase',
    'ssBase',
    'dsBase',
    'ldtr',
    'ldtrBase',
    'tr',
    'trBase',
  ] as const),
  ...(['gdtrBase', 'gdtrLimit', 'idtrBase', 'idtrLimit'] as const),
] as const;
const SYSTEM_TYPES: Readonly<Record<string, string>> = {
  cr0: 'cr0_flags',
  cr3: 'data_ptr',
  cr4: 'cr4_flags',
  efer: 'efer_flags',
};

const SYSTEM: Feature = {
  name: 'vmtape.system',
  types: [
    flags('cr0_flags', 8, bitNumbers(CR0)),
    flags('cr4_flags', 8, bitNumbers(CR4)),
    flags('efer_flags', 8, bitNumbers(EFER)),
  ],
  registers: [
    ...SYSTEM_SLOTS.map((name) =>
      register(SYSTEM_NAMES[name] ?? name, 64, SYSTEM_TYPES[name] ?? 'uint64', part(R[name]), 'system'),
    ),
    register('cr8', 64, 'uint64', taskPriority, 'system'),
  ],
};

const V_INTR_MASKING = 1n << 24n;

/** The TPR that MOV from CR8 would give: under V_INTR_MASKING the guest's is V_TPR (APM vol.2 §15.21.2 Virtualizing APIC.TPR). */
function taskPriority({ machine, view }: RegisterPlace): bigint | undefined {
  if (view.subject.level === 2) {
    const control = view.vmcb === undefined ? undefined : vmcbFieldsAt(machine, view.vmcb)?.get('intControl');
    const value = view.state === 'runs' ? view.registers[R.intControl] : control;
    if (typeof value !== 'bigint') return undefined;
    if ((value & V_INTR_MASKING) !== 0n) return value & 0xfn;
  }
  return BigInt(readCR8(machine.state.devices, view.vcpu));
}

// vmtape.svm

const svmMode =
  (bit: bigint) =>
  ({ view }: RegisterPlace): bigint | undefined =>
    view.state === 'absent' ? undefined : ((view.registers[R.svmMode] as bigint) & bit) === 0n ? 0n : 1n;

const svmRegisters: readonly GdbRegister[] = [
  register('gif', 8, 'uint8', svmMode(SvmMode.GIF), 'svm'),
  register('guest_mode', 8, 'uint8', svmMode(SvmMode.GUEST), 'svm'),
  register('asid', 32, 'uint32', asidOf, 'svm'),
  register('vmcb', 64, 'data_ptr', ({ view }) => BigInt(view.vmcb ?? 0), 'svm'),
  register('vm_hsave_pa', 64, 'uint64', part(R.vmHsavePA), 'svm'),
  register('vm_cr', 64, 'uint64', part(R.vmCr), 'svm'),
  ...Object.entries(VMCB.fields).map(([name, { bytes, kind }]) =>
    register(`vmcb_${name}`, 8 * bytes, kind === 'bytes' ? `u8x${bytes}` : `uint${8 * bytes}`, vmcbField(name), 'svm'),
  ),
];

/** That of its own address space: the hypervisor's is 0. */
function asidOf({ view }: RegisterPlace): bigint | undefined {
  if (view.state === 'absent') return undefined;
  return view.subject.level === 1 ? 0n : (view.registers[R.guestAsid] as bigint);
}

function vmcbField(name: string): GdbRegister['read'] {
  return ({ machine, view }) => {
    const value = view.vmcb === undefined ? undefined : vmcbFieldsAt(machine, view.vmcb)?.get(name);
    return value instanceof Uint8Array ? fromBytes(value) : value;
  };
}

const fromBytes = (bytes: Uint8Array): bigint => bytes.reduceRight((value, byte) => (value << 8n) | BigInt(byte), 0n);

const byteFields = [...new Set(Object.values(VMCB.fields).map(({ kind, bytes }) => (kind === 'bytes' ? bytes : 0)))];
const SVM: Feature = {
  name: 'vmtape.svm',
  types: byteFields
    .filter((bytes) => bytes > 0)
    .map((bytes) => `<vector id="u8x${bytes}" type="uint8" count="${bytes}"/>`),
  registers: svmRegisters,
};

// All of them

/** Those of a machine's profile. */
export function featuresOf({ profile }: Machine): readonly Feature[] {
  const avx = profile.features.has('avx') ? [AVX] : [];
  return [CORE, SSE, ...avx, SEGMENTS, SYSTEM, SVM];
}

/** The value's bytes in hexadecimal as packets have them, `xx` where it is not known. */
export function registerHex({ bits, read }: GdbRegister, place: RegisterPlace): string {
  const value = read(place);
  if (value === undefined) return 'xx'.repeat(bits / 8);
  const digits = BigInt.asUintN(bits, value)
    .toString(16)
    .padStart(bits / 4, '0');
  return Buffer.from(digits, 'hex').reverse().toString('hex');
}

/** A value from its bytes in hexadecimal, as packets have them. */
export const valueOfHex = (text: string): bigint =>
  text === '' ? 0n : BigInt(`0x${Buffer.from(text, 'hex').reverse().toString('hex')}`);

/** target.xml. */
export function targetXml(features: readonly Feature[]): string {
  const feature = ({ name, types, registers }: Feature): string =>
    [
      `<feature name="${name}">`,
      ...types,
      ...registers.map(
        ({ name: register, bits, type, group }) =>
          `<reg name="${register}" bitsize="${bits}" type="${type}"${group === undefined ? '' : ` group="${group}"`}/>`,
      ),
      '</feature>',
    ].join('\n');
  return [
    '<?xml version="1.0"?>',
    '<!DOCTYPE target SYSTEM "gdb-target.dtd">',
    '<target>',
    '<architecture>i386:x86-64</architecture>',
    ...features.map(feature),
    '</target>',
    '',
  ].join('\n');
}

function flags(id: string, size: number, bits: Readonly<Record<string, number>>): string {
  const fields = Object.entries(bits).map(([name, bit]) => `<field name="${name}" start="${bit}" end="${bit}"/>`);
  return `<flags id="${id}" size="${size}">${fields.join('')}</flags>`;
}

/** Single bits of a table of masks, by name. */
function bitNumbers(masks: Readonly<Record<string, bigint>>): Readonly<Record<string, number>> {
  return Object.fromEntries(Object.entries(masks).map(([name, mask]) => [name, mask.toString(2).length - 1]));
}

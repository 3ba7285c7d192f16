/**
 * The machine at a position as a page: both levels side by side, segments decoded, then what all levels share.
 *
 * Which registers stand where follows from the world switch (APM vol.2 §15.5.1 Basic Operation): while L2 runs, the
 * registers are its own and L1's wait in the host save area; while L1 runs, L2's are those that its VMCB holds. What VMRUN
 * does not switch belongs to whoever runs.
 */
import {
  type Machine,
  type MachineState,
  pagingFeatures,
  R,
  REGISTER_NAMES,
  type Registers,
  type Slot,
  VMCB,
  type VmcbWords,
} from '../../src/machine/index.js';
import type { CodePlace } from '../../src/replay/index.js';
import type { LevelSymbols } from '../symbols/level-symbols.js';
import { hex, table } from './format.js';
import type { Colors } from './terminal.js';

export type VmcbFields = ReadonlyMap<string, bigint | Uint8Array>;

/** A VMCB as the processor last saw it, by field. */
export function vmcbFields(words: VmcbWords): VmcbFields {
  const view = VMCB.at(new DataView(words.buffer, words.byteOffset, words.byteLength), 0);
  return new Map(
    Object.keys(VMCB.fields).map((name) => {
      const value = view[name as keyof typeof view];
      return [name, typeof value === 'number' ? BigInt(value) : value] as const;
    }),
  );
}

/** The VMCB of the guest that runs, or that ran last. */
export function currentVmcb(
  state: MachineState,
): { readonly address: bigint; readonly fields: VmcbFields } | undefined {
  const registers = state.vcpus[state.schedule.vcpu]?.registers;
  const address = registers?.[R.vmcb] ?? 0n;
  const words = state.vmcbs[Number(address)];
  return words === undefined ? undefined : { address, fields: vmcbFields(words) };
}

/** Those of the vCPU whose turn it is. */
export const registersOf = (state: MachineState): Registers => {
  const vcpu = state.vcpus[state.schedule.vcpu];
  if (vcpu === undefined) throw new RangeError('the machine has no vCPU');
  return vcpu.registers;
};

/** How a machine's page tables are to be read. */
export const pagingOf = ({ profile }: Machine) => pagingFeatures(profile);

/** Where the code of the vCPU is read whose turn it is. */
export const codePlace = (machine: Machine): CodePlace => ({
  memory: machine.memory,
  registers: registersOf(machine.state),
  decoder: machine.engine.decoder,
  features: pagingOf(machine),
});

const isGuestRunning = (registers: Registers): boolean => ((registers[R.svmMode] ?? 0n) & 1n) !== 0n;

type Lookup = (name: string) => bigint | undefined;

const PLAIN = [
  ...(['rip', 'rflags', 'rax', 'rcx', 'rdx', 'rbx', 'rsp', 'rbp', 'rsi', 'rdi'] as const),
  ...(['r8', 'r9', 'r10', 'r11', 'r12', 'r13', 'r14', 'r15'] as const),
  ...(['cr0', 'cr2', 'cr3', 'cr4', 'efer', 'dr6', 'dr7', 'cpl'] as const),
] as const;

const SWITCHED = ['es', 'cs', 'ss', 'ds'] as const;
const SEGMENTS = ['es', 'cs', 'ss', 'ds', 'fs', 'gs', 'ldtr', 'tr'] as const;
const TABLES = ['gdtr', 'idtr'] as const;

const capitalized = (name: string): string => name.charAt(0).toUpperCase() + name.slice(1);
const slotNamed = (name: string): Slot | undefined => (R as Readonly<Record<string, Slot>>)[name];

/** What each level's registers are, by name, as far as they are known. */
interface LevelViews {
  readonly L1: Lookup;
  readonly L2: Lookup;
  readonly L1Title: string;
  readonly L2Title: string;
}

function levelViews(state: MachineState): LevelViews {
  const registers = registersOf(state);
  const own: Lookup = (name) => {
    const slot = slotNamed(name);
    return slot === undefined ? undefined : registers[slot];
  };
  const saved = currentVmcb(state);
  if (isGuestRunning(registers)) {
    const host: Lookup = (name) => {
      const slot = slotNamed(`host${capitalized(name)}`);
      return slot === undefined ? undefined : registers[slot];
    };
    return { L1: host, L2: own, L1Title: 'L1, waits', L2Title: 'L2, runs' };
  }
  const guest: Lookup = (name) => {
    const value = saved?.fields.get(name);
    return typeof value === 'bigint' ? value : undefined;
  };
  return {
    ...{ L1: own, L2: guest, L1Title: 'L1, runs' },
    L2Title: saved === undefined ? 'L2, never ran' : `L2, in VMCB ${hex(saved.address)}`,
  };
}

/** The level of the vCPU whose turn it is. */
export const runningLevel = (state: MachineState): 1 | 2 => (isGuestRunning(registersOf(state)) ? 2 : 1);

/** What is named where each level stands. */
export function placeNames(state: MachineState, symbols: LevelSymbols): { readonly L1?: string; readonly L2?: string } {
  const { L1, L2 } = levelViews(state);
  const [first, second] = [symbols.textOf(1, L1('rip')), symbols.textOf(2, L2('rip'))];
  return { ...(first === undefined ? {} : { L1: first }), ...(second === undefined ? {} : { L2: second }) };
}

/** @param symbols name where each level stands. */
export function statePage(state: MachineState, { bold, dim }: Colors, symbols: LevelSymbols): readonly string[] {
  const views = levelViews(state);
  const names = symbols.isEmpty ? undefined : placeNames(state, symbols);
  const value = (lookup: Lookup, name: string): string => {
    const found = lookup(name);
    return found === undefined ? dim('-') : hex(found, 16);
  };
  const segment = (lookup: Lookup, name: string): string => {
    const word = lookup(name);
    return word === undefined ? dim('-') : segmentText(name, word, lookup(`${name}Base`) ?? 0n);
  };
  const descriptorTable = (lookup: Lookup, name: string): string => {
    const base = lookup(`${name}Base`);
    return base === undefined ? dim('-') : `${hex(base, 16)} limit ${hex(lookup(`${name}Limit`) ?? 0n, 4)}`;
  };
  const both = (name: string, show: (lookup: Lookup, name: string) => string): readonly string[] => [
    name,
    show(views.L1, name),
    show(views.L2, name),
  ];
  return [
    ...table([
      ['', bold(views.L1Title), bold(views.L2Title)],
      ...(names === undefined ? [] : [['at', names.L1 ?? dim('-'), names.L2 ?? dim('-')]]),
      ...PLAIN.map((name) => both(name, value)),
      ...SEGMENTS.map((name) => both(name, segment)),
      ...TABLES.map((name) => both(name, descriptorTable)),
    ]),
    '',
    ...modeLines(state),
  ];
}

function modeLines(state: MachineState): readonly string[] {
  const registers = registersOf(state);
  const flags = RFLAGS.filter(([, bit]) => ((registers[R.rflags] ?? 0n) & (1n << BigInt(bit))) !== 0n).map(
    ([name]) => name,
  );
  const mode = registers[R.svmMode] ?? 0n;
  const rest = REGISTER_NAMES.filter((name) => !SHOWN.has(name) && (registers[R[name]] ?? 0n) !== 0n);
  return [
    `flags: ${flags.join(' ') || 'none'}`,
    `SVM: ${isGuestRunning(registers) ? 'guest mode' : 'host mode'}, GIF ${(mode & 2n) === 0n ? 'clear' : 'set'}`,
    `virtual time skipped while halted: ${state.skippedNanoseconds} ns`,
    ...(state.ended === null ? [] : [`ended: ${state.ended.reason}, status ${state.ended.status}`]),
    '',
    'other registers that are not zero:',
    ...table(
      rest.map((name) => [name, hex(registers[R[name]] ?? 0n, 16)]),
      ['left', 'right'],
      '  ',
    ),
  ];
}

const RFLAGS = [
  ...([
    ['CF', 0],
    ['PF', 2],
    ['AF', 4],
    ['ZF', 6],
    ['SF', 7],
    ['TF', 8],
    ['IF', 9],
    ['DF', 10],
    ['OF', 11],
  ] as const),
  ...([
    ['NT', 14],
    ['RF', 16],
    ['VM', 17],
    ['AC', 18],
    ['VIF', 19],
    ['VIP', 20],
    ['ID', 21],
  ] as const),
] as const;

/** What the side-by-side part has shown. */
const SHOWN: ReadonlySet<string> = new Set([
  ...PLAIN.flatMap((name) => [name, `host${capitalized(name)}`]),
  ...SEGMENTS.flatMap((name) => [name, `${name}Base`]),
  ...SWITCHED.flatMap((name) => [`host${capitalized(name)}`, `host${capitalized(name)}Base`]),
  ...TABLES.flatMap((name) => [
    `${name}Base`,
    `${name}Limit`,
    `host${capitalized(name)}Base`,
    `host${capitalized(name)}Limit`,
  ]),
  'svmMode',
]);

/** System segment types in long mode (APM vol.2 table 4-6), by their four bits. */
const SYSTEM_TYPES: Readonly<Record<number, string>> = {
  1: '16-bit TSS',
  2: 'LDT',
  3: 'busy 16-bit TSS',
  9: 'TSS',
  11: 'busy TSS',
};

/** Selector, base, limit, and the attributes in words. @param word selector | attributes << 16 | limit << 32 */
export function segmentText(name: string, word: bigint, base: bigint): string {
  const selector = hex(word & 0xffffn, 4);
  const attributes = Number((word >> 16n) & 0xffffn);
  const limit = word >> 32n;
  const where = `${selector} base ${hex(base)} limit ${hex(limit)}`;
  return (attributes & 0x80) === 0 ? `${where} null` : `${where} ${attributeText(name, attributes)}`;
}

function attributeText(name: string, attributes: number): string {
  const type = attributes & 0xf;
  const ring = `ring ${(attributes >> 5) & 3}`;
  if (name === 'ldtr' || name === 'tr' || (attributes & 0x10) === 0) return SYSTEM_TYPES[type] ?? `system type ${type}`;
  const isCode = (type & 8) !== 0;
  if (isCode) {
    const width = (attributes & 0x200) !== 0 ? '64-bit' : (attributes & 0x400) !== 0 ? '32-bit' : '16-bit';
    return `${width} code${(type & 4) === 0 ? '' : ' conforming'} ${ring}`;
  }
  return `data ${(type & 2) === 0 ? 'read-only' : 'read-write'}${(type & 4) === 0 ? '' : ' expand-down'} ${ring}`;
}

/** Fields of a VMCB with their meaning; zero ones are left out. */
export function vmcbPage(address: bigint, fields: VmcbFields, { bold, dim }: Colors): readonly string[] {
  const meaning = (name: string): string =>
    (VMCB.fields as Readonly<Record<string, { readonly meaning: string }>>)[name]?.meaning ?? '';
  const rows = [...fields]
    .filter(([, value]) => (typeof value === 'bigint' ? value !== 0n : value.some((byte) => byte !== 0)))
    .map(([name, value]) => [
      name,
      typeof value === 'bigint' ? hex(value) : Buffer.from(value).toString('hex'),
      dim(meaning(name)),
    ]);
  return [
    bold(`VMCB at ${hex(address)}, as the processor last saw it; fields that are not zero`),
    ...table(rows, [], '  '),
  ];
}

const DUMP_BYTES = 16;

/** Sixteen bytes a line: address, hexadecimal, characters. */
export function dumpLines(address: bigint, bytes: Uint8Array): readonly string[] {
  const lines: string[] = [];
  for (let at = 0; at < bytes.length; at += DUMP_BYTES) {
    const piece = [...bytes.subarray(at, at + DUMP_BYTES)];
    const digits = piece.map((byte) => hex(byte, 2)).join(' ');
    const characters = piece.map((byte) => (byte >= 0x20 && byte < 0x7f ? String.fromCharCode(byte) : '.')).join('');
    lines.push(
      `${hex(BigInt.asUintN(64, address + BigInt(at)), 16)}  ${digits.padEnd(3 * DUMP_BYTES - 1)}  ${characters}`,
    );
  }
  return lines;
}

/** Everything, for programs: registers and VMCBs by name, 64-bit values as hexadecimal strings. */
export function stateDocument(state: MachineState): object {
  const registers = registersOf(state);
  const text = (value: bigint | Uint8Array): string =>
    typeof value === 'bigint' ? `0x${hex(value)}` : Buffer.from(value).toString('hex');
  return {
    level: isGuestRunning(registers) ? 2 : 1,
    registers: Object.fromEntries(REGISTER_NAMES.map((name) => [name, text(registers[R[name]] ?? 0n)])),
    vmcbs: Object.fromEntries(
      Object.entries(state.vmcbs).map(([address, words]) => [
        `0x${hex(Number(address))}`,
        Object.fromEntries([...vmcbFields(words)].map(([name, value]) => [name, text(value)])),
      ]),
    ),
    devices: state.devices,
    skippedNanoseconds: state.skippedNanoseconds,
    entropy: text(state.entropy),
    ended: state.ended,
  };
}

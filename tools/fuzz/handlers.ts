/**
 * Handlers of exceptions and interrupts. Some halt, and the fuzzer sets the processor to its next state; others go on by
 * themselves: they load all registers from the next of a list of records and return by IRET, to any mode of their world.
 *
 * The code is written in bytes, with its meaning beside it.
 * Source: APM vol.2 §8.2 Vectors, §8.6, §8.7, §8.9 Interrupt Control Transfers.
 */
import { Flag, R } from '../../src/machine/index.js';
import { At, gate, type Image, RECORD_BYTES, RECORD_COUNT, Sel } from './memory-map.js';
import { addressingOf, type Environment, type Mode, randomFlags, ripOf, selectorsOf, type World } from './modes.js';
import type { Random } from './random.js';
import { State } from './state.js';
import { generalRegisters } from './states.js';
import { stackPlace } from './values.js';

const HANDLER_BYTES = 16;
/** Vectors from here on share a handler: interrupts of devices. */
const INTERRUPTS = 32;
const HOP = HANDLER_BYTES * (INTERRUPTS + 2);

const little32 = (value: number): string =>
  [0, 8, 16, 24].map((shift) => ((value >>> shift) & 0xff).toString(16).padStart(2, '0')).join('');
const little16 = (value: number): string => little32(value).slice(0, 4);

/** CLI, so that no interrupt ends the wait; HLT, and again should it be resumed. */
const HALT = 'fa f4 ebfd';

/** How interrupts of the local APIC end. */
export type ApicMode = 'xapic' | 'x2apic';

export interface HandlerStyle {
  /** One exception in so many halts; the others hop. 1: all halt. */
  readonly halting: number;
  readonly apic: ApicMode;
}

export function writeHandlers(image: Image, style: HandlerStyle, random: Random): void {
  writeGates(image, random);
  const worlds = [
    { base: At.HANDLERS64, hop: HOP_64, end: end64(style.apic), jump: jump32 },
    { base: At.HANDLERS32, hop: HOP_32, end: END_32, jump: jump32 },
    { base: At.HANDLERS16, hop: HOP_16, end: END_16, jump: jump16 },
  ];
  for (const { base, hop, end, jump } of worlds) {
    image.put(base + HOP, hop);
    for (let vector = 0; vector < INTERRUPTS; vector++) {
      const at = HANDLER_BYTES * vector;
      image.put(base + at, random.oneIn(style.halting) ? HALT : jump(HOP - at));
    }
    // The interrupt's end, then as exceptions do.
    const interrupt = HANDLER_BYTES * INTERRUPTS;
    image.put(base + interrupt, jump(INTERRUPT_END - interrupt));
    image.put(base + INTERRUPT_END, `${end} ${random.oneIn(style.halting) ? HALT : hop}`);
  }
}
/** Where the handler of interrupts goes on. */
const INTERRUPT_END = HOP + 0x60;
/** JMP to so many bytes from its start. */
const jump32 = (distance: number): string => `e9 ${little32(distance - 5)}`;
const jump16 = (distance: number): string => `e9 ${little16(distance - 3)}`;

function writeGates(image: Image, random: Random): void {
  for (let vector = 0; vector < 256; vector++) {
    const handler = HANDLER_BYTES * Math.min(vector, INTERRUPTS);
    const level = random.oneIn(2) ? 0x60 : 0;
    const type = random.oneIn(16) ? 0xf : 0xe;
    const ist = random.oneIn(8) ? 0 : 1 + random.below(2);
    image.write64(At.IDT64 + 16 * vector, gate(Sel.CODE64, At.HANDLERS64 + handler, 0x80 | level | type, ist));
    const byTask = vector === 8 || random.oneIn(64);
    const narrow = random.oneIn(16) ? 0x8 : 0;
    const legacy = byTask
      ? gate(Sel.OTHER_TSS32, 0, 0x85 | level)
      : gate(Sel.CODE32, At.HANDLERS32 + handler, 0x80 | level | (type & ~narrow));
    image.write64(At.IDT32 + 8 * vector, random.oneIn(48) ? 0n : legacy);
    image.write32(At.IVT + 4 * vector, At.HANDLERS16 + handler);
  }
}

const table = (bits: 64 | 32 | 16): number => RECORD_COUNT * RECORD_BYTES[bits];
const wrap = (bits: 64 | 32 | 16): number => ~table(bits);

/** The record has RDI first, RAX last, without RSP; then RIP, CS, RFLAGS, RSP, SS. R8 to R15 stay as the program left them. */
const HOP_64 = `
  488b2425 ${little32(At.COUNTER64)}
  48810425 ${little32(At.COUNTER64)} ${little32(RECORD_BYTES[64])}
  48812425 ${little32(At.COUNTER64)} ${little32(wrap(64))}
  5f 5e 5d 5b 5a 59 58
  48cf`;

/** As POPA wants it, then EIP, CS, EFLAGS, ESP, SS, ES, DS, FS, GS. */
const HOP_32 = `
  b8 ${little32(Sel.DATA)} 8ed8 8ed0
  8b25 ${little32(At.COUNTER32)}
  8105 ${little32(At.COUNTER32)} ${little32(RECORD_BYTES[32])}
  8125 ${little32(At.COUNTER32)} ${little32(wrap(32))}
  61 cf`;

/** As POPA wants it in 16 bits, then IP, CS, FLAGS. Segment 0 is reached through CS. */
const HOP_16 = `
  31c0 8ed0
  2e 8b26 ${little16(At.COUNTER16)}
  2e 8106 ${little16(At.COUNTER16)} ${little16(RECORD_BYTES[16])}
  2e 8126 ${little16(At.COUNTER16)} ${little16(wrap(16))}
  61 cf`;

/** Ends of interrupt: the 8259A's (OUT 20h), then the APIC's, which in long mode may be an MSR. */
const end64 = (apic: ApicMode): string =>
  apic === 'x2apic' ? 'b020 e620 b90b080000 31c0 31d2 0f30' : 'b020 e620 b9b000e0fe 31c0 8901';
const END_32 = `b8 ${little32(Sel.DATA)} 8ed8 b020 e620 c705 b000e0fe 00000000`;
const END_16 = 'b020 e620';

/** Records of all worlds; those of a world without modes in use lead to any of its modes. */
export function writeRecords(
  image: Image,
  environment: Environment,
  placeOf: (mode: Mode) => number,
  modesOf: (world: World) => readonly Mode[],
  random: Random,
): void {
  image.write64(At.COUNTER64, BigInt(At.RECORDS64));
  image.write32(At.COUNTER32, At.RECORDS32);
  image.write32(At.COUNTER16, At.RECORDS16);
  for (let record = 0; record < RECORD_COUNT; record++) {
    writeRecord64(
      image,
      At.RECORDS64 + record * RECORD_BYTES[64],
      random.pick(modesOf('long')),
      environment,
      placeOf,
      random,
    );
    writeRecord32(
      image,
      At.RECORDS32 + record * RECORD_BYTES[32],
      random.pick(modesOf('protected')),
      environment,
      placeOf,
      random,
    );
    writeRecord16(
      image,
      At.RECORDS16 + record * RECORD_BYTES[16],
      random.pick(modesOf('real')),
      environment,
      placeOf,
      random,
    );
  }
}

function writeRecord64(
  image: Image,
  at: number,
  mode: Mode,
  environment: Environment,
  placeOf: (mode: Mode) => number,
  random: Random,
): void {
  const addressing = addressingOf(mode, environment);
  const state = new State();
  generalRegisters(state, { ...mode, bits: 64 }, addressing, random);
  const order = ['rdi', 'rsi', 'rbp', 'rbx', 'rdx', 'rcx', 'rax'] as const;
  order.forEach((name, index) => {
    image.write64(at + 8 * index, state.get(R[name]));
  });
  const { cs, ss } = selectorsOf(mode);
  const frame = [
    ripOf(mode, addressing, placeOf(mode), random),
    BigInt(cs),
    randomFlags(mode, environment, random),
    state.get(R.rsp),
    BigInt(ss),
  ];
  frame.forEach((value, index) => {
    image.write64(at + 8 * (order.length + index), value);
  });
}

function writeRecord32(
  image: Image,
  at: number,
  mode: Mode,
  environment: Environment,
  placeOf: (mode: Mode) => number,
  random: Random,
): void {
  const addressing = addressingOf(mode, environment);
  const state = new State();
  generalRegisters(state, { ...mode, bits: 32 }, addressing, random);
  (['rdi', 'rsi', 'rbp', 'rsp', 'rbx', 'rdx', 'rcx', 'rax'] as const).forEach((name, index) => {
    image.write32(at + 4 * index, Number(state.get(R[name])));
  });
  const { cs, ss } = selectorsOf(mode);
  const data = mode.virtual8086 ? At.DATA >> 4 : mode.cpl === 3 ? Sel.USER_DATA : Sel.DATA;
  const narrow = mode.virtual8086 || mode.bits === 16;
  const frame = [
    Number(ripOf(mode, addressing, placeOf(mode), random)),
    cs,
    Number(randomFlags(mode, environment, random) & ~Flag.NT),
    narrow ? stackPlace(random) : Number(state.get(R.rsp)),
    ...[ss, data, data, data, data],
  ];
  frame.forEach((value, index) => {
    image.write32(at + 32 + 4 * index, value);
  });
}

function writeRecord16(
  image: Image,
  at: number,
  mode: Mode,
  environment: Environment,
  placeOf: (mode: Mode) => number,
  random: Random,
): void {
  const addressing = addressingOf(mode, environment);
  const state = new State();
  generalRegisters(state, mode, addressing, random);
  (['rdi', 'rsi', 'rbp', 'rsp', 'rbx', 'rdx', 'rcx', 'rax'] as const).forEach((name, index) => {
    image.write16(at + 2 * index, Number(state.get(R[name]) & 0xffffn));
  });
  image.write16(at + 16, placeOf(mode));
  image.write16(at + 18, At.CODE >> 4);
  image.write16(at + 20, Number(randomFlags(mode, environment, random) & 0xffffn));
}

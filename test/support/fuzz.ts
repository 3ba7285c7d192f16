/**
 * Random programs for a whole machine: instructions of every kind with random operands, faults and mode changes, from a
 * seed. Two machines run each program, one on the engine, one on the evaluator alone, and must state the same events.
 *
 * A program is a region of random code in pieces. Every exception and software interrupt goes, on a stack of its own, to a
 * handler that returns to the next of a list of random places: a piece of code, in 64-bit, 32-bit or 16-bit mode, at CPL 0 or
 * 3, with or without single step. So a program that faults all the time still goes on; one that breaks its tables for good
 * ends in shutdown, and one that halts ends there. NMIs end loops.
 */
import { encodeEvent } from '../../src/journal/codec.js';
import type { Form } from '../../src/machine/decode/tables.js';
import type { StatedEvent } from '../../src/machine/index.js';
import { Boundary, CR4, Flag, R, SLOT_COUNT, type Slot } from '../../src/machine/layout/cpu-state.js';
import { sPA } from '../../src/machine/units.js';
import { descriptor, gate } from './cpu-machine.js';
import { CODE, DATA, type LiveMachine } from './live-machine.js';
import { type Bits, encode, type Random } from './random-instructions.js';

/** What `LiveMachine` has at these addresses, and where the fuzzer puts its own. */
const [GDT, IDT, TSS] = [0x5000, 0x6000, 0x7000];
const HANDLERS = 0x9000;
const HANDLER_BYTES = 128;
const PLACES = 0xe000;
const PLACE_BYTES = 32;
const PLACE_COUNT = 128;
const COUNTER = 0xfff0;
const HANDLER_STACK = 0x3_0000;
const PIECES = 96;
const PIECE_BYTES = 128;
const DATA_BYTES = 0x4000;
const STACK = DATA + 0x8000;
/** Exceptions that push an error code (APM vol.2 §8.2). */
const WITH_ERROR_CODE = new Set([8, 10, 11, 12, 13, 14, 17, 21, 29, 30]);

interface Mode {
  readonly bits: Bits;
  readonly cs: number;
  readonly ss: number;
}
/** Selectors 38h and on: 16-bit code of both privilege levels, besides those of `LiveMachine`. */
const MODES: readonly Mode[] = [
  { bits: 64, cs: 0x08, ss: 0x10 },
  { bits: 64, cs: 0x2b, ss: 0x23 },
  { bits: 32, cs: 0x48, ss: 0x10 },
  { bits: 32, cs: 0x1b, ss: 0x23 },
  { bits: 16, cs: 0x40, ss: 0x10 },
];

/** Left out: what stops a program for good nearly every time. */
const DEADLY = /^(HLT|MWAITX?|LGDT|LIDT|LTR|LLDT|INVD|OUTS?|INS?|VMRUN|SKINIT|RSM|IRET)$/;
/** Rare, for they often break the machine: a program in so many has them. */
const RISKY =
  /^(MOV|WRMSR|LMSW|CLTS|SYSCALL|SYSRET|SYSEXIT|SYSENTER|SWAPGS|CLGI|JMP|CALL|RETF|XSETBV|XRSTOR.*|LFS|LGS|LSS)$/;
const RISKY_PROGRAMS = 4;

const isRisky = ({ instruction }: Form): boolean => 'system' in instruction && RISKY.test(instruction.mnemonic);

/** A program in the memory of a fresh machine. Equal generators make equal programs. */
export function writeProgram(live: LiveMachine, random: Random): void {
  const { forms } = live.machine.engine.decoder.tables;
  const risky = random.oneIn(RISKY_PROGRAMS);
  const usable = forms.filter((form) => !DEADLY.test(form.instruction.mnemonic) && (risky || !isRisky(form)));
  writeTables(live);
  writeCode(live, usable, random);
  writePlaces(live, random);
  for (let at = 0; at < DATA_BYTES; at += 8) live.write(DATA + at, random.next64());
  setRegisters(live, random);
}

function writeTables(live: LiveMachine): void {
  live.write(GDT + 0x38, 0n);
  live.write(GDT + 0x40, descriptor(0, 0xf_ffff, 0x9b, 0x8));
  live.write(GDT + 0x48, descriptor(0, 0xf_ffff, 0x9b, 0xc));
  live.write(TSS + 0x24, BigInt(HANDLER_STACK)); // IST1
  for (let vector = 0; vector < 256; vector++) {
    const known = Math.min(vector, 32);
    live.write(IDT + 16 * vector, gate(0x08, HANDLERS + known * HANDLER_BYTES, 0xee, 1));
  }
  for (let vector = 0; vector <= 32; vector++) {
    const dropped = WITH_ERROR_CODE.has(vector) ? '4883c408' : '90909090'; // add rsp, 8
    live.put(
      HANDLERS + vector * HANDLER_BYTES,
      `${dropped}
       50 51
       488b0425f0ff0000 48ff0425f0ff0000
       83e07f c1e005 480500e00000
       488b08 48894c2410
       488b4808 48894c2418
       488b4810 48894c2420
       488b4818 48894c2430
       59 58 48cf`.replace(/\s/g, ''),
    );
  }
}

/** Instructions of one mode after the other, pieces of different modes side by side; what does not fit is cut. */
function writeCode(live: LiveMachine, forms: readonly Form[], random: Random): void {
  for (let piece = 0; piece < PIECES; piece++) {
    const { bits } = modeOfPiece(piece);
    const bytes = new Uint8Array(PIECE_BYTES + 16);
    let at = 0;
    while (at < PIECE_BYTES - 1) {
      const encoded = encode(random.pick(forms), bits, random);
      const insn = live.machine.engine.decoder.decode(encoded, { bits, real: false });
      const length = typeof insn === 'object' ? insn.length : 1 + random.below(3);
      bytes.set(encoded.subarray(0, length), at);
      at += length;
    }
    bytes[PIECE_BYTES - 1] = 0xcc; // INT3
    live.memory.copyIn(sPA(CODE + piece * PIECE_BYTES), bytes.subarray(0, PIECE_BYTES));
  }
}

const modeOfPiece = (piece: number): Mode => MODES[piece % MODES.length] as Mode;

/** Where handlers return to: RIP, CS, flags, SS. The return address is a piece's start, or amid it. */
function writePlaces(live: LiveMachine, random: Random): void {
  for (let place = 0; place < PLACE_COUNT; place++) {
    const piece = random.below(PIECES);
    const { cs, ss } = modeOfPiece(piece);
    const rip = CODE + piece * PIECE_BYTES + (random.oneIn(3) ? random.below(PIECE_BYTES) : 0);
    const flags =
      2n | (random.next64() & 0xcd5n) | (random.oneIn(8) ? Flag.TF : 0n) | (random.oneIn(16) ? Flag.AC : 0n);
    [BigInt(rip), BigInt(cs), flags, BigInt(ss)].forEach((value, index) => {
      live.write(PLACES + place * PLACE_BYTES + 8 * index, value);
    });
  }
  live.write(COUNTER, 0n);
}

function setRegisters(live: LiveMachine, random: Random): void {
  const pointer = (): bigint => BigInt(DATA + random.below(DATA_BYTES));
  for (let slot = 0; slot < 16; slot++) {
    const value = random.pick([random.next64(), pointer(), pointer(), BigInt(random.below(64))]);
    live.machine.registers[slot as Slot] = slot === 4 ? BigInt(STACK + 8 * random.below(64)) : value;
  }
  for (let half = 0; half < 32; half++) live.machine.registers[(R.xmm0 + half) as Slot] = random.next64();
  const alignmentChecks = random.oneIn(4) ? 1n << 18n : 0n;
  for (let slot = 0; slot < SLOT_COUNT; slot++) live.machine.engine.syncShadow(slot as Slot);
  live.set({
    mxcsr: random.oneIn(2) ? 0x1f80n : BigInt(0x1f80 & ~(0x80 << random.below(6))),
    cr0: live.get('cr0') | alignmentChecks,
    cr4: live.get('cr4') | CR4.OSXMMEXCPT | (random.oneIn(2) ? CR4.FSGSBASE : 0n),
    star: (0x1bn << 48n) | (0x08n << 32n),
    lstar: BigInt(CODE),
    sfmask: 0x700n,
    svmMode: 2n,
  });
}

/** Between two interrupts of a program, at most: so that no loop, and no repeated string instruction, takes all of it. */
const LONGEST_STRETCH = 300;

/** Runs a program for `count` instructions, or to its end, with NMIs at places that the generator chooses. */
export function runProgram(live: LiveMachine, count: number, random: Random): void {
  for (let left = count; left > 0; ) {
    const stretch = Math.min(left, 1 + random.below(LONGEST_STRETCH));
    if (live.run(stretch) !== 'limit') return;
    left -= stretch;
    live.set({ boundary: live.get('boundary') | Boundary.NMI_PENDING });
  }
}

/** A machine that leaves nothing to the engine. */
export function onTheEvaluator(live: LiveMachine): LiveMachine {
  Object.defineProperty(live.machine.engine, 'run', { value: () => ({ stop: 'assist', retired: 0 }) });
  return live;
}

/** What a machine stated, encoded as a tape has it. */
export const encodedEvents = (stated: readonly StatedEvent[]): string[] =>
  stated.map((event) => Buffer.from(encodeEvent(event)).toString('hex'));

/**
 * Puts a workbench into the state of a vector, executes one instruction, and tells what differs from the recorded result.
 *
 * The vector's code and data pages are user pages, as the set describes them. Page tables, descriptor tables, a stack and
 * the address of the exception handlers lie in supervisor pages in the upper half, so exceptions are delivered as ever:
 * what the instruction left behind is in the stack frame.
 */
import {
  CR0,
  CR4,
  EFER,
  type Feature,
  fprSlot,
  gprSlot,
  R,
  Segment,
  SLOT_COUNT,
  type Slot,
  segmentSlot,
  sPA,
  type Tier,
  Workbench,
  xmmSlot,
} from '../../src/machine/index.js';
import type { Block, Vector, VectorFile, VectorState } from './reader.js';

/** System-physical places; the lowest 2 MiB are mapped for the supervisor at `SUPERVISOR`. */
const PML4 = 0x1000;
const PDPT_USER = 0x2000;
const PD_USER = 0x3000;
const PT_CODE = 0x4000;
const PT_DATA = 0x5000;
const PDPT_SUPERVISOR = 0x6000;
const PD_SUPERVISOR = 0x7000;
const GDT = 0x8000;
const IDT = 0x9000;
const TSS = 0xa000;
const STACK_TOP = 0xc000;
const HANDLER = 0xd000;
const CODE = 0x10000;
const DATA = 0x11000;
const RAM_BYTES = 0x200000;
const SUPERVISOR = 0xffff_8000_0000_0000n;

const SUPERVISOR_CODE = 0x08;
const USER_DATA = 0x1b;
const USER_CODE = 0x23;
const TSS_SELECTOR = 0x28;
const TSS_LIMIT = 0x67;

/** Page-table entry bits. */
const PRESENT = 1n;
const WRITABLE = 2n;
const USER = 4n;
const LARGE = 1n << 7n;
const NO_EXECUTE = 1n << 63n;

const FLAGS_COMPARED = 0x244cd5n;
/** IF and the bit that is always one. */
const FLAGS_ALWAYS = 0x202n;
const INT3 = 0xcc;
const INVALID_OPCODE = 6;
const PAGE_FAULT = 14;
/** A repeated string instruction ends long before. */
const MAX_STEPS = 5000;

const FEATURES: readonly Feature[] = [
  'sse3',
  'ssse3',
  'sse4.1',
  'sse4.2',
  'adx',
  'aes',
  'pclmulqdq',
  'clflushopt',
  'clwb',
];

/** What was found instead of what is recorded. */
export interface Difference {
  readonly field: string;
  readonly expected: string;
  readonly found: string;
}

/** `region`: the engine, with what is tried compiled as a region. Its policy must be `at-once` when the subject is made. */
export type VectorTier = Tier | 'region';

export class Subject {
  private readonly bench = new Workbench(RAM_BYTES, FEATURES);
  private readonly template: bigint[];
  private prepared: Block | undefined;

  constructor(
    private readonly tier: VectorTier,
    private readonly file: VectorFile,
  ) {
    this.mapPages();
    this.writeDescriptors();
    this.template = this.initialRegisters();
  }

  /** Why the block cannot be tried, or undefined when it can. */
  skipReason(block: Block): string | undefined {
    const isMeantInvalid = block.vectors.every(({ trap }) => trap?.vector === INVALID_OPCODE);
    return isMeantInvalid || this.bench.isDescribed(block.instruction) ? undefined : 'no description';
  }

  /** Executes the vector. @returns the differences, none when it passes. */
  check(block: Block, vector: Vector): readonly Difference[] {
    this.prepare(block, vector);
    const start = this.bench.registers[R.rip] as bigint;
    let steps = 0;
    do {
      this.step();
      steps++;
    } while (
      this.bench.exception === undefined &&
      this.bench.registers[R.rip] === start &&
      steps < MAX_STEPS &&
      isRepeated(block)
    );
    // A branch to a page that is not there completes; the next fetch faults.
    if (vector.trap?.vector === PAGE_FAULT && this.bench.exception === undefined && vector.rip !== start) {
      this.bench.step(this.tier === 'region' ? 'engine' : this.tier);
    }
    return this.compare(block, vector);
  }

  /** What follows the instruction is INT3, where a run ends. */
  private step(): void {
    if (this.tier === 'region') this.bench.runOn();
    else this.bench.step(this.tier);
  }

  /** Whether vectors ran as compiled regions, and how many regions there were. */
  get regions(): number {
    return this.bench.engine.counts.regionsMade;
  }

  // Preparation

  private prepare(block: Block, vector: Vector): void {
    const { bench, file } = this;
    if (this.prepared !== block) {
      this.prepared = block;
      const code = new Uint8Array(4096).fill(INT3);
      code.set(block.instruction, block.codeOffset);
      bench.memory.copyIn(sPA(CODE), code);
    }
    bench.memory.copyIn(sPA(DATA), patched(file.background, vector.input));
    const { registers } = bench;
    for (let slot = 0; slot < SLOT_COUNT; slot++) registers[slot as Slot] = this.template[slot] as bigint;
    const { input } = vector;
    input.gpr.forEach((value, number) => {
      registers[gprSlot(number)] = value;
    });
    input.xmm.forEach((value, number) => {
      registers[xmmSlot(number)] = BigInt.asUintN(64, value);
      registers[(xmmSlot(number) + 1) as Slot] = value >> 64n;
    });
    registers[R.rip] = file.codePage + BigInt(block.codeOffset);
    registers[R.rflags] = input.rflags | FLAGS_ALWAYS;
    registers[R.mxcsr] = input.mxcsr;
    registers[R.fcw] = BigInt(input.x87.fcw);
    registers[R.fsw] = BigInt(input.x87.fsw);
    registers[R.ftw] = BigInt(input.x87.ftw);
    input.x87.st.forEach((value, index) => {
      const slot = fprSlot(physical(input.x87.fsw, index));
      registers[slot] = BigInt.asUintN(64, value);
      registers[(slot + 1) as Slot] = value >> 64n;
    });
    bench.stateChanged();
  }

  private mapPages(): void {
    const { memory } = this.bench;
    const { codePage, dataPage } = this.file;
    const entry = (table: number, linear: bigint, level: number, value: bigint): void => {
      const index = Number((linear >> BigInt(12 + 9 * level)) & 0x1ffn);
      memory.write(sPA(table + 8 * index), 8, value);
    };
    const table = (address: number): bigint => BigInt(address) | PRESENT | WRITABLE | USER;
    for (const [linear, leaf, frame] of [
      [codePage, PT_CODE, BigInt(CODE) | PRESENT | USER],
      [dataPage, PT_DATA, BigInt(DATA) | PRESENT | WRITABLE | USER | NO_EXECUTE],
    ] as const) {
      entry(PML4, linear, 3, table(PDPT_USER));
      entry(PDPT_USER, linear, 2, table(PD_USER));
      entry(PD_USER, linear, 1, table(leaf));
      entry(leaf, linear, 0, frame);
    }
    entry(PML4, SUPERVISOR, 3, BigInt(PDPT_SUPERVISOR) | PRESENT | WRITABLE);
    entry(PDPT_SUPERVISOR, SUPERVISOR, 2, BigInt(PD_SUPERVISOR) | PRESENT | WRITABLE);
    entry(PD_SUPERVISOR, SUPERVISOR, 1, PRESENT | WRITABLE | LARGE);
  }

  private writeDescriptors(): void {
    const { memory } = this.bench;
    const put = (address: number, value: bigint): void => memory.write(sPA(address), 8, BigInt.asUintN(64, value));
    put(GDT + SUPERVISOR_CODE, 0x00af_9b00_0000_ffffn);
    put(GDT + 0x10, 0x00cf_9300_0000_ffffn);
    put(GDT + (USER_DATA & ~3), 0x00cf_f300_0000_ffffn);
    put(GDT + (USER_CODE & ~3), 0x00af_fb00_0000_ffffn);
    const handler = SUPERVISOR + BigInt(HANDLER);
    const gate =
      (handler & 0xffffn) | (BigInt(SUPERVISOR_CODE) << 16n) | (0x8en << 40n) | (((handler >> 16n) & 0xffffn) << 48n);
    for (let vector = 0; vector < 256; vector++) {
      put(IDT + 16 * vector, gate);
      put(IDT + 16 * vector + 8, handler >> 32n);
    }
    put(TSS + 4, SUPERVISOR + BigInt(STACK_TOP)); // RSP0
    memory.write(sPA(TSS + 0x66), 2, BigInt(TSS_LIMIT + 1)); // no I/O permissions
  }

  private initialRegisters(): bigint[] {
    const slots = new Array<bigint>(SLOT_COUNT).fill(0n);
    const segment = (number: number, selector: number, attributes: number, base = 0n, limit = 0xffff_ffffn): void => {
      slots[segmentSlot(number)] = BigInt(selector) | (BigInt(attributes) << 16n) | (limit << 32n);
      slots[segmentSlot(number) + 1] = base;
    };
    segment(Segment.CS, USER_CODE, 0xafb);
    for (const number of [Segment.SS, Segment.DS, Segment.ES, Segment.FS, Segment.GS]) {
      segment(number, USER_DATA, 0xcf3);
    }
    segment(Segment.LDTR, 0, 0);
    segment(Segment.TR, TSS_SELECTOR, 0x8b, SUPERVISOR + BigInt(TSS), BigInt(TSS_LIMIT));
    slots[R.gdtrBase] = SUPERVISOR + BigInt(GDT);
    slots[R.gdtrLimit] = 0x37n;
    slots[R.idtrBase] = SUPERVISOR + BigInt(IDT);
    slots[R.idtrLimit] = 0xfffn;
    slots[R.cpl] = 3n;
    slots[R.cr0] = CR0.PE | CR0.MP | CR0.ET | CR0.NE | CR0.WP | CR0.AM | CR0.PG;
    slots[R.cr3] = BigInt(PML4);
    slots[R.cr4] = CR4.PAE | CR4.OSFXSR | CR4.OSXMMEXCPT;
    slots[R.efer] = EFER.SCE | EFER.LME | EFER.LMA | EFER.NXE;
    slots[R.xcr0] = 1n;
    slots[R.dr6] = 0xffff_0ff0n;
    slots[R.dr7] = 0x400n;
    slots[R.svmMode] = 2n; // GIF
    return slots;
  }

  // Comparison

  private compare(block: Block, vector: Vector): readonly Difference[] {
    const { bench } = this;
    const differences: Difference[] = [];
    const differ = (field: string, expected: bigint, found: bigint): void => {
      if (expected !== found) differences.push({ field, expected: hex(expected), found: hex(found) });
    };
    const { exception, registers } = bench;
    const { output, trap } = vector;
    if (exception?.vector !== trap?.vector || bench.isShutDown) {
      const tell = (number: number | undefined): string => (number === undefined ? 'none' : `#${number}`);
      differences.push({
        field: 'exception',
        expected: tell(trap?.vector),
        found: bench.isShutDown ? 'shutdown' : tell(exception?.vector),
      });
      return differences;
    }
    if (trap !== undefined && exception?.errorCode !== null) {
      differ('error code', BigInt(trap.errorCode), BigInt(exception?.errorCode ?? 0));
    }
    if (trap?.vector === PAGE_FAULT) differ('cr2', trap.cr2, registers[R.cr2] as bigint);
    const frame = this.interrupted();
    differ('rip', vector.rip, frame.rip);
    output.gpr.forEach((value, number) => {
      differ(GPR_NAMES[number] as string, value, number === 4 ? frame.rsp : (registers[gprSlot(number)] as bigint));
    });
    const flagMask = FLAGS_COMPARED & ~vector.undefinedFlags;
    differ('rflags', output.rflags & flagMask, frame.rflags & flagMask);
    output.xmm.forEach((value, number) => {
      const slot = xmmSlot(number);
      const found = (registers[slot] as bigint) | ((registers[(slot + 1) as Slot] as bigint) << 64n);
      differ(`xmm${number}`, value, found);
    });
    differ('mxcsr', output.mxcsr, registers[R.mxcsr] as bigint);
    this.compareX87(block, output, differ);
    this.compareMemory(block, vector, differences);
    return differences;
  }

  private compareX87(
    { undefinedStatus }: Block,
    { x87 }: VectorState,
    differ: (field: string, expected: bigint, found: bigint) => void,
  ): void {
    const { registers } = this.bench;
    const mask = BigInt(0xffff & ~undefinedStatus);
    differ('fcw', BigInt(x87.fcw), registers[R.fcw] as bigint);
    differ('fsw', BigInt(x87.fsw) & mask, (registers[R.fsw] as bigint) & mask);
    differ('ftw', BigInt(x87.ftw), registers[R.ftw] as bigint);
    x87.st.forEach((value, index) => {
      const slot = fprSlot(physical(x87.fsw, index));
      const found = (registers[slot] as bigint) | ((registers[(slot + 1) as Slot] as bigint) << 64n);
      differ(`st${index}`, value, found);
    });
  }

  private compareMemory({ ignored }: Block, vector: Vector, differences: Difference[]): void {
    const expected = patched(patched(this.file.background, vector.input), vector.output);
    const found = this.bench.memory.window(DATA, 4096);
    for (let offset = 0; offset < 4096; offset++) {
      if (expected[offset] === found[offset]) continue;
      if (ignored.some(([from, length]) => offset >= from && offset < from + length)) continue;
      differences.push({
        field: `memory ${hex(this.file.dataPage + BigInt(offset))}`,
        expected: hex(BigInt(expected[offset] as number)),
        found: hex(BigInt(found[offset] as number)),
      });
      if (differences.length > 8) return;
    }
  }

  /** RIP, RSP and RFLAGS of the user program, which an exception pushed on the supervisor's stack. */
  private interrupted(): { readonly rip: bigint; readonly rsp: bigint; readonly rflags: bigint } {
    const { registers, memory, exception } = this.bench;
    if (exception === undefined) {
      return {
        rip: registers[R.rip] as bigint,
        rsp: registers[R.rsp] as bigint,
        rflags: registers[R.rflags] as bigint,
      };
    }
    const slot = (index: number): bigint => memory.read(sPA(STACK_TOP - 40 + 8 * index), 8);
    return { rip: slot(0), rflags: slot(2), rsp: slot(3) };
  }
}

const GPR_NAMES = ['rax', 'rcx', 'rdx', 'rbx', 'rsp', 'rbp', 'rsi', 'rdi'].concat(
  Array.from({ length: 8 }, (_, index) => `r${8 + index}`),
);

const hex = (value: bigint): string => value.toString(16);

/** Physical number of ST(index): the top of the stack is in the status word. */
const physical = (statusWord: number, index: number): number => (((statusWord >> 11) & 7) + index) & 7;

function patched(page: Uint8Array, { patches }: VectorState): Uint8Array {
  const copy = page.slice();
  for (const { offset, bytes } of patches) copy.set(bytes, offset);
  return copy;
}

const isRepeated = ({ assembly }: Block): boolean => /\brep/.test(assembly);

/**
 * Control of the x87 unit, and its environment and state in memory.
 * Source: APM vol.1 §6.4.9 Control; APM vol.2 §11.4.2 Saving Media and x87 State, FSAVE/FNSAVE and FRSTOR Instructions,
 * figures 11-1 to 11-4 (the images in protected and real mode, with 32 and 16 bits); APM vol.5.
 *
 * None of these counts as the last instruction: FOP, FIP and FDP are what they save and load. In memory the tag word has
 * two bits for each register, which are made from what the registers hold; loading looks only for "empty".
 */
import { hasParagraphs } from '../cpu/mode.js';
import { type SystemContext, systemInstruction } from '../cpu/system-context.js';
import type { Transaction } from '../cpu/transaction.js';
import { FCW_INIT } from '../cpu/xstate.js';
import type { MemoryOperand } from '../decode/decoded.js';
import { deviceNotAvailable } from '../faults.js';
import { registerOperand } from '../fp/x87.js';
import { CR0, R } from '../layout/cpu-state.js';
import { uN } from '../units.js';
import type { Instruction } from './instruction.js';
import { memoryAt, operandAt } from './system-operands.js';
import {
  controlWord,
  packPointer,
  physicalRegister,
  pointerOffset,
  pointerSelector,
  readPhysical,
  requireNoX87Error,
  requireX87,
  Status,
  withSummary,
  writePhysical,
} from './x87-unit.js';

const CLEARED_BY_FCLEX = Status.EXCEPTIONS | Status.STACK_FAULT | Status.SUMMARY;

const control = (mnemonic: string, forms: readonly string[], execute: (context: SystemContext) => void): Instruction =>
  systemInstruction({
    mnemonic,
    source: `APM vol.5, ${mnemonic}`,
    forms,
    system(context) {
      requireX87(context.tx);
      execute(context);
      context.plain();
    },
  });

function initialize(tx: Transaction): void {
  tx.set(R.fcw, FCW_INIT);
  for (const slot of [R.fsw, R.ftw, R.fop, R.fip, R.fdp]) tx.set(slot, 0n);
}

const FNINIT = control('FNINIT', ['DB E3:'], ({ tx }) => initialize(tx));

const FNCLEX = control('FNCLEX', ['DB E2:'], ({ tx }) => tx.set(R.fsw, tx.get(R.fsw) & ~CLEARED_BY_FCLEX));

const FNSTCW = control('FNSTCW', ['D9 /7: Mw'], (context) =>
  context.ops.write(operandAt(context, 0), context.tx.get(R.fcw)),
);

const FNSTSW = control('FNSTSW', ['DD /7: Mw'], (context) =>
  context.ops.write(operandAt(context, 0), context.tx.get(R.fsw)),
);

const FNSTSW_AX = control('FNSTSW', ['DF E0:'], ({ tx, ops }) => ops.writeGpr(0, 16, tx.get(R.fsw)));

/** FENI, FDISI and FSETPM of older units: AMD processors execute them as nothing. */
const RESERVED = control('FNENI', ['DB E0:', 'DB E1:', 'DB E4:'], () => {});

const FLDCW = control('FLDCW', ['D9 /5: Mw'], (context) => {
  const { tx, ops } = context;
  requireNoX87Error(tx);
  const fcw = controlWord(ops.read(operandAt(context, 0)));
  tx.set(R.fcw, fcw);
  tx.set(R.fsw, withSummary(tx.get(R.fsw), fcw));
});

const FWAIT = systemInstruction({
  mnemonic: 'FWAIT',
  source: 'APM vol.5, FWAIT',
  forms: ['9B:'],
  system(context) {
    const { tx } = context;
    const both = CR0.MP | CR0.TS;
    if ((tx.get(R.cr0) & both) === both) throw deviceNotAvailable();
    requireNoX87Error(tx);
    context.plain();
  },
});

// The tag word in memory

const Tag = { VALID: 0n, ZERO: 1n, SPECIAL: 2n, EMPTY: 3n } as const;

function fullTags(tx: Transaction): bigint {
  let tags = 0n;
  for (let number = 0; number < 8; number++) tags |= tagOf(tx, number) << BigInt(2 * number);
  return tags;
}

function tagOf(tx: Transaction, number: number): bigint {
  if (((tx.get(R.ftw) >> BigInt(number)) & 1n) === 0n) return Tag.EMPTY;
  const { kind } = registerOperand(readPhysical(tx, number));
  if (kind === 'zero') return Tag.ZERO;
  return kind === 'normal' ? Tag.VALID : Tag.SPECIAL;
}

function abridgedTags(tags: bigint): bigint {
  let abridged = 0n;
  for (let number = 0n; number < 8n; number++) {
    if (((tags >> (2n * number)) & 3n) !== Tag.EMPTY) abridged |= 1n << number;
  }
  return abridged;
}

// The environment in memory: seven fields, of 32 bits or of 16

/** Low part, then selector or the rest of a linear address. The opcode stands with the instruction's. */
interface PointerFields {
  readonly low: bigint;
  readonly high: bigint;
}

const OPCODE_BITS = 0x7ffn;
/** Reserved halves of 32-bit fields are stored as ones. */
const RESERVED_ONES = 0xffff_0000n;

/** An environment as an instruction finds it: where, in what form. */
class EnvironmentImage {
  readonly fieldBits: 16 | 32;
  private readonly linear: boolean;

  constructor(
    private readonly context: SystemContext,
    private readonly memory: MemoryOperand,
  ) {
    this.fieldBits = context.insn.width === 16 ? 16 : 32;
    this.linear = hasParagraphs(context.tx);
  }

  /** Bytes before the registers that FSAVE appends. */
  get bytes(): number {
    return (7 * this.fieldBits) / 8;
  }

  save(): void {
    const { tx } = this.context;
    const instruction = this.pointerFields(tx.get(R.fip));
    const data = this.pointerFields(tx.get(R.fdp));
    const opcode = tx.get(R.fop);
    const ones = this.fieldBits === 32 ? RESERVED_ONES : 0n;
    this.putField(0, tx.get(R.fcw) | ones);
    this.putField(1, tx.get(R.fsw) | ones);
    this.putField(2, fullTags(tx) | ones);
    this.putField(3, instruction.low | (this.linear ? ones : 0n));
    this.putField(4, this.linear ? instruction.high | opcode : instruction.high | (opcode << 16n));
    this.putField(5, data.low | (this.linear ? ones : 0n));
    this.putField(6, this.linear ? data.high : data.high | ones);
  }

  load(): void {
    const { tx } = this.context;
    const fields = Array.from({ length: 7 }, (_, index) => this.field(index));
    const [fcw, fsw, ftw, ip, ipHigh, dp, dpHigh] = fields as [bigint, bigint, bigint, bigint, bigint, bigint, bigint];
    const control = controlWord(fcw);
    tx.set(R.fcw, control);
    tx.set(R.fsw, withSummary(uN(16, fsw), control));
    tx.set(R.ftw, abridgedTags(ftw));
    tx.set(R.fip, this.pointer({ low: ip, high: ipHigh }));
    tx.set(R.fdp, this.pointer({ low: dp, high: dpHigh }));
    if (this.linear) tx.set(R.fop, ipHigh & OPCODE_BITS);
    else if (this.fieldBits === 32) tx.set(R.fop, (ipHigh >> 16n) & OPCODE_BITS);
  }

  /** Real and virtual-8086 mode: a linear address, bits 15:0 and the rest from bit 12 on; else offset and selector. */
  private pointerFields(pointer: bigint): PointerFields {
    const offset = pointerOffset(pointer);
    const selector = pointerSelector(pointer);
    if (!this.linear) return { low: uN(this.fieldBits, offset), high: selector };
    const address = uN(32, offset + (selector << 4n));
    const rest = this.fieldBits === 32 ? address >> 16n : (address >> 16n) & 15n;
    return { low: uN(16, address), high: rest << 12n };
  }

  private pointer({ low, high }: PointerFields): bigint {
    if (!this.linear) return packPointer(low, uN(16, high));
    return packPointer(uN(16, low) | (uN(16, high >> 12n) << 16n), 0n);
  }

  private putField(index: number, value: bigint): void {
    this.put((index * this.fieldBits) / 8, this.fieldBits, uN(this.fieldBits, value));
  }
  private field(index: number): bigint {
    return this.take((index * this.fieldBits) / 8, this.fieldBits);
  }

  /** The registers, ST(0) first: 80 bits each, in pieces that are aligned wherever the image is. */
  saveRegisters(): void {
    const { tx } = this.context;
    for (let index = 0; index < 8; index++) {
      const bits = readPhysical(tx, physicalRegister(tx.get(R.fsw), index));
      for (let word = 0; word < 5; word++) {
        this.put(this.bytes + 10 * index + 2 * word, 16, uN(16, bits >> BigInt(16 * word)));
      }
    }
  }
  /** After `load`, which says where the top of the stack is. */
  loadRegisters(): void {
    const { tx } = this.context;
    for (let index = 0; index < 8; index++) {
      let bits = 0n;
      for (let word = 0; word < 5; word++) {
        bits |= this.take(this.bytes + 10 * index + 2 * word, 16) << BigInt(16 * word);
      }
      writePhysical(tx, physicalRegister(tx.get(R.fsw), index), bits);
    }
  }

  private put(offset: number, width: number, value: bigint): void {
    const { ops } = this.context;
    ops.write(ops.displaced(this.memory, BigInt(offset), width), value);
  }
  private take(offset: number, width: number): bigint {
    const { ops } = this.context;
    return ops.read(ops.displaced(this.memory, BigInt(offset), width));
  }
}

const imageOf = (context: SystemContext): EnvironmentImage => new EnvironmentImage(context, memoryAt(context, 0));

/** Afterwards all exceptions are masked, so that none is pending. */
const FNSTENV = control('FNSTENV', ['D9 /6: M'], (context) => {
  const { tx } = context;
  imageOf(context).save();
  const fcw = tx.get(R.fcw) | Status.EXCEPTIONS;
  tx.set(R.fcw, fcw);
  tx.set(R.fsw, withSummary(tx.get(R.fsw), fcw));
});

const FLDENV = control('FLDENV', ['D9 /4: M'], (context) => {
  requireNoX87Error(context.tx);
  imageOf(context).load();
});

const FNSAVE = control('FNSAVE', ['DD /6: M'], (context) => {
  const image = imageOf(context);
  image.save();
  image.saveRegisters();
  initialize(context.tx);
});

const FRSTOR = control('FRSTOR', ['DD /4: M'], (context) => {
  requireNoX87Error(context.tx);
  const image = imageOf(context);
  image.load();
  image.loadRegisters();
});

export const X87_ENVIRONMENT_INSTRUCTIONS: readonly Instruction[] = [
  FNINIT,
  FNCLEX,
  FNSTCW,
  FNSTSW,
  FNSTSW_AX,
  RESERVED,
  FLDCW,
  FWAIT,
  FNSTENV,
  FLDENV,
  FNSAVE,
  FRSTOR,
];

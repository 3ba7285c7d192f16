/**
 * Segment registers and descriptor tables: loads and stores, and looks at descriptors without loading them.
 * Source: APM vol.3, MOV (segment), PUSH, POP, LDS … LSS, SWAPGS, LGDT, LIDT, LLDT, LTR, SGDT, SIDT, SLDT, STR, LAR, LSL,
 * VERR, VERW, ARPL; UMIP: APM vol.2 §3.1.3 CR4 Register.
 */
import { selectorOf } from '../cpu/descriptors.js';
import { cplOf, is64Bit } from '../cpu/mode.js';
import { canAccess, inspectDescriptor, loadLdtr, loadSegment, loadTr, readSelector } from '../cpu/segments.js';
import { type SystemContext, systemInstruction } from '../cpu/system-context.js';
import type { Transaction } from '../cpu/transaction.js';
import { generalProtection, invalidOpcode } from '../faults.js';
import { Boundary, CR4, R, type RegisterName, Segment } from '../layout/cpu-state.js';
import type { InterceptName } from '../svm/intercepts.js';
import { isCanonical } from '../units.js';
import { farPointer } from './far.js';
import { type Instruction, instruction } from './instruction.js';
import { two } from './operands.js';
import { memoryAt, numberAt, operandAt, readIn, requireCpl0, writeIn } from './system-operands.js';

/** Interrupts and debug traps wait for one instruction, so that SS and rSP can be loaded together (APM vol.2 §8.5). */
function shadowStackLoad(tx: Transaction): void {
  tx.set(R.boundary, tx.get(R.boundary) | Boundary.INTERRUPT_SHADOW | Boundary.DEBUG_SHADOW);
}

const MOV_TO_SEGMENT = systemInstruction({
  mnemonic: 'MOV',
  source: 'APM vol.3, MOV',
  forms: ['8E /r: Sw, Ew'],
  system(context) {
    const number = numberAt(context, 0);
    if (number === Segment.CS) throw invalidOpcode();
    loadSegment(context.tx, number, Number(context.ops.read(operandAt(context, 1))));
    if (number === Segment.SS) shadowStackLoad(context.tx);
  },
});

/** Memory takes 16 bits; a register the selector, zero-extended. */
const MOV_FROM_SEGMENT = instruction({
  mnemonic: 'MOV',
  source: 'APM vol.3, MOV',
  forms: ['8C /r: Mw, Sw', '8C /r: Rv, Sw'],
  semantics(ops, insn) {
    const [destination, source] = two(insn);
    ops.write(destination, ops.read(source));
  },
});

const stackWidth = ({ insn }: SystemContext): 16 | 32 | 64 => (insn.width === 8 ? 16 : insn.width);

const pushSegment = (form: string, number: number): Instruction =>
  systemInstruction({
    mnemonic: 'PUSH',
    source: 'APM vol.3, PUSH',
    forms: [form],
    system(context) {
      context.ops.push(stackWidth(context), BigInt(readSelector(context.tx, number)));
      context.plain();
    },
  });

const popSegment = (form: string, number: number): Instruction =>
  systemInstruction({
    mnemonic: 'POP',
    source: 'APM vol.3, POP',
    forms: [form],
    system(context) {
      const { ops, tx } = context;
      const width = stackWidth(context);
      const selector = Number(ops.peek(width, 0) & 0xffffn);
      ops.moveStack(BigInt(width / 8)); // with the width of the old stack
      loadSegment(tx, number, selector);
      if (number === Segment.SS) shadowStackLoad(tx);
    },
  });

const loadFarPointer = (mnemonic: string, form: string, number: number): Instruction =>
  systemInstruction({
    mnemonic,
    source: 'APM vol.3, LDS, LES, LFS, LGS, LSS',
    forms: [form],
    system(context) {
      const { selector, offset } = farPointer(context, 1);
      loadSegment(context.tx, number, selector);
      context.ops.write(operandAt(context, 0), offset);
    },
  });

const SWAPGS = systemInstruction({
  mnemonic: 'SWAPGS',
  source: 'APM vol.3, SWAPGS',
  forms: ['0F 01 F8: [o64]'],
  system(context) {
    const { tx } = context;
    requireCpl0(context);
    const base = tx.get(R.gsBase);
    tx.set(R.gsBase, tx.get(R.kernelGsBase));
    tx.set(R.kernelGsBase, base);
  },
});

/** CR4.UMIP keeps the addresses of tables from programs. @throws GuestFault #GP(0). */
export function requireUmip({ tx }: SystemContext): void {
  if ((tx.get(R.cr4) & CR4.UMIP) !== 0n && cplOf(tx) !== 0) throw generalProtection();
}

const storeTable = (mnemonic: string, form: string, table: 'gdtr' | 'idtr', intercept: InterceptName): Instruction =>
  systemInstruction({
    mnemonic,
    source: 'APM vol.3, SGDT, SIDT',
    forms: [form],
    system(context) {
      const { tx } = context;
      requireUmip(context);
      if (context.exits(intercept)) return;
      const memory = memoryAt(context, 0);
      writeIn(context, memory, 0, 2, tx.get(R[`${table}Limit`]));
      writeIn(context, memory, 2, is64Bit(tx) ? 8 : 4, tx.get(R[`${table}Base`]));
      context.plain();
    },
  });

const loadTable = (mnemonic: string, form: string, table: 'gdtr' | 'idtr', intercept: InterceptName): Instruction =>
  systemInstruction({
    mnemonic,
    source: 'APM vol.3, LGDT, LIDT',
    forms: [form],
    system(context) {
      const { tx, insn } = context;
      requireCpl0(context);
      if (context.exits(intercept)) return;
      const memory = memoryAt(context, 0);
      const limit = readIn(context, memory, 0, 2);
      let base = readIn(context, memory, 2, is64Bit(tx) ? 8 : 4);
      if (is64Bit(tx)) {
        if (!isCanonical(base)) throw generalProtection();
      } else if (insn.width === 16) base &= 0xff_ffffn;
      tx.set(R[`${table}Limit`], limit);
      tx.set(R[`${table}Base`], base);
    },
  });

const storeSelector = (
  mnemonic: string,
  digit: number,
  register: RegisterName,
  intercept: InterceptName,
): Instruction =>
  systemInstruction({
    mnemonic,
    source: 'APM vol.3, SLDT, STR',
    forms: [`0F 00 /${digit}: Mw [prot]`, `0F 00 /${digit}: Rv [prot]`],
    system(context) {
      requireUmip(context);
      if (context.exits(intercept)) return;
      context.ops.write(operandAt(context, 0), BigInt(selectorOf(context.tx.get(R[register]))));
      context.plain();
    },
  });

const loadSystemSegment = (
  mnemonic: string,
  digit: number,
  intercept: InterceptName,
  load: (tx: Transaction, selector: number) => void,
): Instruction =>
  systemInstruction({
    mnemonic,
    source: 'APM vol.3, LLDT, LTR',
    forms: [`0F 00 /${digit}: Ew [prot]`],
    system(context) {
      requireCpl0(context);
      if (context.exits(intercept)) return;
      load(context.tx, Number(context.ops.read(operandAt(context, 0))));
    },
  });

const verify = (mnemonic: string, digit: number, write: boolean): Instruction =>
  systemInstruction({
    mnemonic,
    source: 'APM vol.3, VERR, VERW',
    forms: [`0F 00 /${digit}: Ew [prot]`],
    system(context) {
      const { tx, ops } = context;
      ops.setFlag('zf', canAccess(tx, Number(ops.read(operandAt(context, 0))), write));
      context.plain();
    },
  });

/** Attributes in descriptor bits 55:40, at the same place of the upper word. */
const ACCESS_RIGHTS = 0x00ff_ff00n;

const LAR = systemInstruction({
  mnemonic: 'LAR',
  source: 'APM vol.3, LAR',
  forms: ['0F 02 /r: Gv, Ew [prot]'],
  system(context) {
    const { tx, ops } = context;
    const descriptor = inspectDescriptor(tx, Number(ops.read(operandAt(context, 1))), 'access');
    if (descriptor !== undefined) ops.write(operandAt(context, 0), (descriptor.raw >> 32n) & ACCESS_RIGHTS);
    ops.setFlag('zf', descriptor !== undefined);
    context.plain();
  },
});

const LSL = systemInstruction({
  mnemonic: 'LSL',
  source: 'APM vol.3, LSL',
  forms: ['0F 03 /r: Gv, Ew [prot]'],
  system(context) {
    const { tx, ops } = context;
    const descriptor = inspectDescriptor(tx, Number(ops.read(operandAt(context, 1))), 'limit');
    if (descriptor !== undefined) ops.write(operandAt(context, 0), BigInt(descriptor.limit));
    ops.setFlag('zf', descriptor !== undefined);
    context.plain();
  },
});

/** Raises the RPL of a selector to that of another. */
const ARPL = systemInstruction({
  mnemonic: 'ARPL',
  source: 'APM vol.3, ARPL',
  forms: ['63 /r: Ew, Gw [i64] [prot]'],
  system(context) {
    const { ops } = context;
    const destination = operandAt(context, 0);
    const selector = ops.readForWrite(destination);
    const rpl = ops.read(operandAt(context, 1)) & 3n;
    const raise = (selector & 3n) < rpl;
    if (raise) ops.write(destination, (selector & ~3n) | rpl);
    ops.setFlag('zf', raise);
    context.plain();
  },
});

export const SEGMENT_INSTRUCTIONS: readonly Instruction[] = [
  MOV_TO_SEGMENT,
  MOV_FROM_SEGMENT,
  pushSegment('06: [i64]', Segment.ES),
  pushSegment('0E: [i64]', Segment.CS),
  pushSegment('16: [i64]', Segment.SS),
  pushSegment('1E: [i64]', Segment.DS),
  pushSegment('0F A0: [d64]', Segment.FS),
  pushSegment('0F A8: [d64]', Segment.GS),
  popSegment('07: [i64]', Segment.ES),
  popSegment('17: [i64]', Segment.SS),
  popSegment('1F: [i64]', Segment.DS),
  popSegment('0F A1: [d64]', Segment.FS),
  popSegment('0F A9: [d64]', Segment.GS),
  loadFarPointer('LES', 'C4 /r: Gv, Mp [i64]', Segment.ES),
  loadFarPointer('LDS', 'C5 /r: Gv, Mp [i64]', Segment.DS),
  loadFarPointer('LSS', '0F B2 /r: Gv, Mp', Segment.SS),
  loadFarPointer('LFS', '0F B4 /r: Gv, Mp', Segment.FS),
  loadFarPointer('LGS', '0F B5 /r: Gv, Mp', Segment.GS),
  SWAPGS,
  storeTable('SGDT', '0F 01 /0: M', 'gdtr', 'GDTR_READ'),
  storeTable('SIDT', '0F 01 /1: M', 'idtr', 'IDTR_READ'),
  loadTable('LGDT', '0F 01 /2: M', 'gdtr', 'GDTR_WRITE'),
  loadTable('LIDT', '0F 01 /3: M', 'idtr', 'IDTR_WRITE'),
  storeSelector('SLDT', 0, 'ldtr', 'LDTR_READ'),
  storeSelector('STR', 1, 'tr', 'TR_READ'),
  loadSystemSegment('LLDT', 2, 'LDTR_WRITE', loadLdtr),
  loadSystemSegment('LTR', 3, 'TR_WRITE', loadTr),
  verify('VERR', 4, false),
  verify('VERW', 5, true),
  ...[LAR, LSL, ARPL],
];

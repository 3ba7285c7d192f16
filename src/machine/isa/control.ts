/**
 * Control, debug and extended control registers, the time-stamp counter, and model-specific registers.
 * Source: APM vol.3, MOV CRn, MOV DRn, SMSW, LMSW, CLTS, RDMSR, WRMSR, RDTSC, RDTSCP, RDPMC, XGETBV, XSETBV.
 * Where each intercept stands: svm/intercepts.ts.
 */
import {
  debugName,
  debugRegister,
  debugSlot,
  debugValue,
  exitsByCr0Write,
  readCr8,
  stateControl,
  writeCr0,
  writeCr2,
  writeCr3,
  writeCr4,
  writeCr8,
} from '../cpu/control-registers.js';
import { cplOf } from '../cpu/mode.js';
import { guestTsc, readMsr, writeMsr } from '../cpu/msr.js';
import { PERFORMANCE_COUNTERS, StoredMsr } from '../cpu/stored-msrs.js';
import { type SystemContext, systemInstruction } from '../cpu/system-context.js';
import { isLegalXcr0, statesInUse } from '../cpu/xstate.js';
import { generalProtection, invalidOpcode } from '../faults.js';
import { CONTROL_SLOTS, CR0, CR4, EMPTY_DELTA, R, type Slot } from '../layout/cpu-state.js';
import { crRead, crWrite, crWriteTrap, drRead, drWrite, type InterceptName } from '../svm/intercepts.js';
import { uN } from '../units.js';
import { Gpr, type Instruction } from './instruction.js';
import { copy } from './move.js';
import { requireUmip } from './segment.js';
import { gprAt, numberAt, operandAt, requireCpl0 } from './system-operands.js';

/** MOV to and from CRn and DRn has 64 bits in 64-bit mode and 32 bits elsewhere, whatever the prefixes. */
const moveWidth = ({ insn }: SystemContext): 32 | 64 => (insn.long ? 64 : 32);
/** EXITINFO1 of a MOV CRn: bit 63, and the general-purpose register (APM vol.2 §15.8.1 Decode Assists). */
const moveInfo = (gpr: number): bigint => (1n << 63n) | BigInt(gpr);

/** EXITINFO1 of a MOV from CRn. */
function readInfo({ profile: { deviations } }: SystemContext, number: number, gpr: number): bigint {
  if (number === 8 && deviations.has('cr8-read-without-info')) return 0n;
  return deviations.has('cr-read-without-mov-bit') ? BigInt(gpr) : moveInfo(gpr);
}

const CONTROL_REGISTERS: ReadonlySet<number> = new Set([...CONTROL_SLOTS.keys(), 8]);

/** LOCK MOV CR0 is how code outside 64-bit mode names CR8 (APM vol.2 §15.21.3 TPR Access in 32-Bit Mode). */
function controlRegister(context: SystemContext, operand: number): number {
  const number = numberAt(context, operand);
  const { lock } = context.insn;
  if (lock && (number !== 0 || !context.profile.system.has('alt-mov-cr8'))) throw invalidOpcode();
  if (!CONTROL_REGISTERS.has(number)) throw invalidOpcode();
  requireCpl0(context);
  return lock ? 8 : number;
}

const MOV_FROM_CR = systemInstruction({
  mnemonic: 'MOV',
  source: 'APM vol.3, MOV CRn',
  forms: ['0F 20 /r: Rd, Cd [cr8]'],
  system(context) {
    const number = controlRegister(context, 1);
    const gpr = gprAt(context, 0).number;
    if (context.exits(crRead(number), { info1: readInfo(context, number, gpr) })) return;
    const value = number === 8 ? readCr8(context) : context.tx.get(CONTROL_SLOTS.get(number) as Slot);
    context.ops.writeGpr(gpr, moveWidth(context), uN(moveWidth(context), value));
    context.plain();
  },
  semantics: copy,
});

const MOV_TO_CR = systemInstruction({
  mnemonic: 'MOV',
  source: 'APM vol.3, MOV CRn',
  forms: ['0F 22 /r: Cd, Rd [cr8]'],
  system(context) {
    const number = controlRegister(context, 0);
    const gpr = gprAt(context, 1).number;
    const value = context.ops.readGpr(gpr, moveWidth(context));
    const info1 = moveInfo(gpr);
    if (number === 0) writeCr0(context, value, false, info1);
    else if (number === 2) writeCr2(context, value, info1);
    else if (number === 3) writeCr3(context, value, info1);
    else if (number === 4) writeCr4(context, value, info1);
    else writeCr8(context, value, info1);
  },
});

/** Only a deviation puts the intercept there. DR8 and above do not exist. */
const exitsAfterCpl = (context: SystemContext, encoded: number, name: InterceptName, gpr: number): boolean =>
  encoded < 8 && cplOf(context.tx) === 0 && context.exits(name, { info1: BigInt(gpr) }, 'after-cpl');

const MOV_FROM_DR = systemInstruction({
  mnemonic: 'MOV',
  source: 'APM vol.3, MOV DRn',
  forms: ['0F 21 /r: Rd, Dd'],
  system(context) {
    const encoded = numberAt(context, 1);
    const gpr = gprAt(context, 0).number;
    if (exitsAfterCpl(context, encoded, drRead(encoded), gpr)) return;
    const number = debugRegister(context.tx, encoded);
    if (context.exits(drRead(encoded), { info1: BigInt(gpr) })) return;
    const width = moveWidth(context);
    context.ops.writeGpr(gpr, width, uN(width, context.tx.get(debugSlot(number))));
    context.plain();
  },
});

const MOV_TO_DR = systemInstruction({
  mnemonic: 'MOV',
  source: 'APM vol.3, MOV DRn',
  forms: ['0F 23 /r: Dd, Rd'],
  system(context) {
    const encoded = numberAt(context, 0);
    const gpr = gprAt(context, 1).number;
    if (exitsAfterCpl(context, encoded, drWrite(encoded), gpr)) return;
    const number = debugRegister(context.tx, encoded);
    if (context.exits(drWrite(encoded), { info1: BigInt(gpr) }, 'before-operands')) return;
    const value = debugValue(context.profile, number, context.ops.readGpr(gpr, moveWidth(context)));
    if (context.exits(drWrite(encoded), { info1: BigInt(gpr) })) return;
    context.tx.set(debugSlot(number), value);
    stateControl(context, debugName(number), value);
  },
});

/** Memory takes 16 bits of CR0; a register as many as the operand size. */
const SMSW = systemInstruction({
  mnemonic: 'SMSW',
  source: 'APM vol.3, SMSW',
  forms: ['0F 01 /4: Mw', '0F 01 /4: Rv'],
  system(context) {
    requireUmip(context);
    if (context.exits(crRead(0))) return;
    const operand = operandAt(context, 0);
    context.ops.write(operand, uN(operand.width, context.tx.get(R.cr0)));
    context.plain();
  },
});

/** Writes PE, MP, EM and TS; PE cannot be cleared. The intercepts stand before the memory operand. */
const LMSW = systemInstruction({
  mnemonic: 'LMSW',
  source: 'APM vol.3, LMSW',
  forms: ['0F 01 /6: Ew'],
  system(context) {
    requireCpl0(context);
    const { deviations } = context.profile;
    const byValue = deviations.has('lmsw-selective-by-value');
    if (!byValue && exitsByCr0Write(context, true, 0n)) return;
    if (byValue && !deviations.has('cr0-selective-first') && context.exits(crWrite(0))) return;
    const cr0 = context.tx.get(R.cr0);
    const value = context.ops.read(operandAt(context, 0)) & 0xfn;
    writeCr0(context, (cr0 & ~0xfn) | (cr0 & CR0.PE) | value, !byValue, 0n);
  },
});

const CLTS = systemInstruction({
  mnemonic: 'CLTS',
  source: 'APM vol.3, CLTS',
  forms: ['0F 06:'],
  system(context) {
    requireCpl0(context);
    if (context.exits(crWrite(0))) return;
    const cr0 = context.tx.get(R.cr0) & ~CR0.TS;
    context.tx.set(R.cr0, cr0);
    context.writeTrap(crWriteTrap(0), cr0);
    stateControl(context, 'cr0', cr0);
  },
});

/** EDX:EAX. */
function writePair(context: SystemContext, value: bigint): void {
  context.ops.writeGpr(Gpr.RAX, 32, uN(32, value));
  context.ops.writeGpr(Gpr.RDX, 32, value >> 32n);
}

const readPair = ({ ops }: SystemContext): bigint => ops.readGpr(Gpr.RAX, 32) | (ops.readGpr(Gpr.RDX, 32) << 32n);

const RDMSR = systemInstruction({
  mnemonic: 'RDMSR',
  source: 'APM vol.3, RDMSR',
  forms: ['0F 32:'],
  system(context) {
    requireCpl0(context);
    const msr = Number(context.ops.readGpr(Gpr.RCX, 32));
    if (context.exitsByMsr(msr, false)) return;
    writePair(context, readMsr(context, msr));
    context.plain();
  },
});

const WRMSR = systemInstruction({
  mnemonic: 'WRMSR',
  source: 'APM vol.3, WRMSR',
  forms: ['0F 30:'],
  system(context) {
    requireCpl0(context);
    const msr = Number(context.ops.readGpr(Gpr.RCX, 32));
    const value = readPair(context);
    if (context.exitsByMsr(msr, true)) return;
    const kept = writeMsr(context, msr, value);
    if (kept) context.outcome({ type: 'cpu.msr', msr, value, registers: EMPTY_DELTA });
  },
});

/** @throws GuestFault #GP(0) when CR4.TSD keeps the counter from programs. */
function requireTimeStamp({ tx }: SystemContext): void {
  if ((tx.get(R.cr4) & CR4.TSD) !== 0n && cplOf(tx) !== 0) throw generalProtection();
}

const RDTSC = systemInstruction({
  mnemonic: 'RDTSC',
  source: 'APM vol.3, RDTSC',
  forms: ['0F 31:'],
  system(context) {
    requireTimeStamp(context);
    if (context.exits('RDTSC')) return;
    writePair(context, guestTsc(context));
    context.plain();
  },
});

const RDTSCP = systemInstruction({
  mnemonic: 'RDTSCP',
  source: 'APM vol.3, RDTSCP',
  forms: ['0F 01 F9:'],
  feature: 'rdtscp',
  system(context) {
    requireTimeStamp(context);
    if (context.exits('RDTSCP')) return;
    writePair(context, guestTsc(context));
    context.ops.writeGpr(Gpr.RCX, 32, uN(32, context.tx.get(R.tscAux)));
    context.plain();
  },
});

const RDPMC = systemInstruction({
  mnemonic: 'RDPMC',
  source: 'APM vol.3, RDPMC',
  forms: ['0F 33:'],
  system(context) {
    const { tx, ops } = context;
    if ((tx.get(R.cr4) & CR4.PCE) === 0n && cplOf(tx) !== 0) throw generalProtection();
    if (context.exits('RDPMC', {}, 'before-operands')) return;
    const counter = Number(ops.readGpr(Gpr.RCX, 32));
    if (counter >= PERFORMANCE_COUNTERS) throw generalProtection();
    if (context.exits('RDPMC')) return;
    writePair(context, readMsr(context, StoredMsr.PERFORMANCE_COUNTER.msr + counter));
    context.plain();
  },
});

function requireXsave({ tx }: SystemContext): void {
  if ((tx.get(R.cr4) & CR4.OSXSAVE) === 0n) throw invalidOpcode();
}

/** ECX = 1: the enabled states that are in use. */
const XGETBV = systemInstruction({
  mnemonic: 'XGETBV',
  source: 'APM vol.3, XGETBV',
  forms: ['NP 0F 01 D0:'],
  system(context) {
    requireXsave(context);
    const { tx, ops, profile } = context;
    const register = ops.readGpr(Gpr.RCX, 32);
    if (register > 1n || (register === 1n && !profile.features.has('xsavec'))) throw generalProtection();
    const xcr0 = tx.get(R.xcr0);
    writePair(context, register === 0n ? xcr0 : xcr0 & statesInUse(tx));
    context.plain();
  },
});

/** Only the #UD of a clear CR4.OSXSAVE comes before the intercept. */
const XSETBV = systemInstruction({
  mnemonic: 'XSETBV',
  source: 'APM vol.3, XSETBV',
  forms: ['NP 0F 01 D1:'],
  system(context) {
    requireXsave(context);
    context.intercept('XSETBV');
    requireCpl0(context);
    const value = readPair(context);
    if (context.ops.readGpr(Gpr.RCX, 32) !== 0n || !isLegalXcr0(context.profile, value)) throw generalProtection();
    context.tx.set(R.xcr0, value);
    stateControl(context, 'xcr0', value);
  },
});

export const CONTROL_INSTRUCTIONS: readonly Instruction[] = [
  ...[MOV_FROM_CR, MOV_TO_CR, MOV_FROM_DR, MOV_TO_DR, SMSW, LMSW, CLTS],
  ...[RDMSR, WRMSR, RDTSC, RDTSCP, RDPMC, XGETBV, XSETBV],
];

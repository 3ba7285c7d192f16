/**
 * Port I/O: permission by IOPL and the bitmap of the task-state segment, then the intercept, then the access. String
 * forms do one iteration at a time.
 * Source: APM vol.3, IN, OUT, INS, OUTS; APM vol.2 §12.2.4 I/O-Permission Bitmap, §15.10 IOIO Intercepts.
 */
import { checkAlignment } from '../cpu/alignment.js';
import { ioHits } from '../cpu/debug.js';
import { attributesOf, limitOf, SystemType } from '../cpu/descriptors.js';
import { accessAt, cplOf, ioplOf, isLongMode, isProtected, isVirtual8086 } from '../cpu/mode.js';
import { checkSegment } from '../cpu/segments.js';
import { type SystemContext, systemInstruction } from '../cpu/system-context.js';
import { Access, type Transaction } from '../cpu/transaction.js';
import { generalProtection } from '../faults.js';
import { Boundary, Flag, R, Segment } from '../layout/cpu-state.js';
import { u64, uN } from '../units.js';
import { Gpr, type Instruction } from './instruction.js';
import { operandAt, ownRip } from './system-operands.js';

/** Offset of the bitmap's base in the TSS. */
const BITMAP_BASE = 0x66;

/**
 * May this program use `size` ports from `port`? CPL up to IOPL says yes; above it, and always in virtual-8086 mode, all
 * of their bits in the bitmap must be clear. The bitmap is read two bytes at a time, so it must reach one byte further.
 * @throws GuestFault #GP(0).
 */
function checkPortPermission(tx: Transaction, port: number, size: number): void {
  if (!isProtected(tx) || (cplOf(tx) <= ioplOf(tx) && !isVirtual8086(tx))) return;
  const tr = tx.get(R.tr);
  const limit = limitOf(tr);
  const type = attributesOf(tr) & 0xf;
  if ((type !== SystemType.TSS && type !== SystemType.TSS_BUSY) || limit < BITMAP_BASE + 1) throw generalProtection();
  const read = (offset: number): bigint => {
    const linear = tx.get(R.trBase) + BigInt(offset);
    return tx.readLinear(isLongMode(tx) ? u64(linear) : uN(32, linear), 2, Access.IMPLICIT);
  };
  const at = Number(read(BITMAP_BASE)) + (port >>> 3);
  if (at + 1 > limit) throw generalProtection();
  const bits = (1n << BigInt(size)) - 1n;
  if (((read(at) >> BigInt(port & 7)) & bits) !== 0n) throw generalProtection();
}

/** Permission, then the intercept. The access is the caller's. @returns false when it exits. */
function beginsAccess(context: SystemContext, port: number, size: number, input: boolean, string: boolean): boolean {
  const { tx, insn } = context;
  checkPortPermission(tx, port, size);
  const exits = context.exitsByPort({
    input,
    string,
    rep: insn.rep !== 'none',
    size,
    addressWidth: insn.addressWidth,
    segment: input ? Segment.ES : (insn.segmentOverride ?? Segment.DS),
    port,
  });
  if (exits) return false;
  const hits = ioHits(tx, port, size);
  if (hits !== 0n) tx.set(R.boundary, tx.get(R.boundary) | (hits << Boundary.BREAKPOINTS_SHIFT));
  return true;
}

/** Bytes of the access: operands of 64 bits count as 32. */
const accessBytes = (width: number): number => Math.min(width, 32) / 8;

const IN = systemInstruction({
  mnemonic: 'IN',
  source: 'APM vol.3, IN',
  forms: ['E4: AL, Ib', 'E5: eAX, Ib', 'EC: AL, DX', 'ED: eAX, DX'],
  system(context) {
    const { ops } = context;
    const destination = operandAt(context, 0);
    const port = Number(ops.read(operandAt(context, 1)));
    const size = destination.width / 8;
    if (!beginsAccess(context, port, size, true, false)) return;
    ops.write(destination, context.readPort(port, size));
    context.plain();
  },
});

const OUT = systemInstruction({
  mnemonic: 'OUT',
  source: 'APM vol.3, OUT',
  forms: ['E6: Ib, AL', 'E7: Ib, eAX', 'EE: DX, AL', 'EF: DX, eAX'],
  system(context) {
    const { ops } = context;
    const source = operandAt(context, 1);
    const port = Number(ops.read(operandAt(context, 0)));
    const size = source.width / 8;
    if (!beginsAccess(context, port, size, false, false)) return;
    context.writePort(port, size, ops.read(source));
    context.plain();
  },
});

/**
 * One iteration of a string instruction; RIP stays while iterations are left.
 * @param pointer rSI or rDI. @param access false when it exits.
 */
function iterate(context: SystemContext, pointer: number, size: number, access: () => boolean): void {
  const { tx, ops, insn } = context;
  const { addressWidth } = insn;
  const repeats = insn.rep !== 'none';
  const count = ops.readGpr(Gpr.RCX, addressWidth);
  context.plain();
  if (repeats && count === 0n) return;
  if (!access()) return;
  const step = BigInt((tx.get(R.rflags) & Flag.DF) !== 0n ? -size : size);
  ops.writeGpr(pointer, addressWidth, uN(addressWidth, ops.readGpr(pointer, addressWidth) + step));
  if (!repeats) return;
  ops.writeGpr(Gpr.RCX, addressWidth, count - 1n);
  if (count > 1n) tx.set(R.rip, ownRip(context));
}

const INS = systemInstruction({
  mnemonic: 'INS',
  source: 'APM vol.3, INS',
  forms: ['6C: [b] [rep]', '6D: [rep]'],
  system(context) {
    const { tx, ops, insn } = context;
    const size = accessBytes(insn.width);
    iterate(context, Gpr.RDI, size, () => {
      const port = Number(ops.readGpr(Gpr.RDX, 16));
      if (!beginsAccess(context, port, size, true, true)) return false;
      const linear = checkSegment(tx, Segment.ES, ops.readGpr(Gpr.RDI, insn.addressWidth), size, Access.WRITE);
      // Memory must be writable before the port is read, for a device read cannot be taken back.
      checkAlignment(tx, linear, size, tx.get(R.cpl));
      tx.probeWrite(linear, size, accessAt(cplOf(tx)));
      ops.storeDestination(8 * size, context.readPort(port, size));
      return true;
    });
  },
});

const OUTS = systemInstruction({
  mnemonic: 'OUTS',
  source: 'APM vol.3, OUTS',
  forms: ['6E: [b] [rep]', '6F: [rep]'],
  system(context) {
    const { ops, insn } = context;
    const size = accessBytes(insn.width);
    iterate(context, Gpr.RSI, size, () => {
      const port = Number(ops.readGpr(Gpr.RDX, 16));
      if (!beginsAccess(context, port, size, false, true)) return false;
      context.writePort(port, size, ops.loadSource(8 * size));
      return true;
    });
  },
});

export const IO_INSTRUCTIONS: readonly Instruction[] = [IN, OUT, INS, OUTS];

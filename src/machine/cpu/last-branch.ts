/**
 * Control-transfer recording: while DebugCtl.LBR is set, every branch, interrupt and exception leaves its source and
 * target in four registers, as segment offsets. While it is set instructions go one at a time (`Processor.mustStep`).
 * VMRUN and #VMEXIT are no control transfers of the code that they switch between.
 * Source: APM vol.2 §13.1.1.8 Control-Transfer Breakpoint Features; §15.23 Last Branch Record Virtualization.
 */
import { Vector } from '../faults.js';
import { R } from '../layout/cpu-state.js';
import { DEBUG_CTL } from './debug.js';
import type { GuestEvent } from './exceptions.js';
import type { SlotReader } from './mode.js';
import type { Transaction } from './transaction.js';

const recordsTransfers = (cpu: SlotReader): boolean => (cpu.get(R.debugCtl) & DEBUG_CTL.LBR) !== 0n;

/** TF traps on taken branches only (DebugCtl.BTF). */
export const stepsBranches = (cpu: SlotReader): boolean => (cpu.get(R.debugCtl) & DEBUG_CTL.BTF) !== 0n;

const BRANCH = /^(J|CALL|RET|LOOP|IRET|SYSCALL|SYSRET|SYSENTER|SYSEXIT|RSM)/;
const ALWAYS = /^(JMP|CALL|RET|IRET|SYS|RSM)/;

/**
 * Whether an instruction that completed transferred control. A conditional branch to the instruction behind it cannot be
 * told from one that was not taken.
 * @param next RIP behind the instruction.
 */
export const isTakenBranch = (cpu: SlotReader, mnemonic: string, next: bigint): boolean =>
  BRANCH.test(mnemonic) && (ALWAYS.test(mnemonic) || cpu.get(R.rip) !== next);

/** A branch completed in the transaction. @param from RIP of the instruction. */
export function recordBranch(tx: Transaction, from: bigint): void {
  if (!recordsTransfers(tx)) return;
  tx.set(R.lastBranchFrom, from);
  tx.set(R.lastBranchTo, tx.get(R.rip));
}

/**
 * An event is about to leave for its handler, in the transaction. #DB stops the recording and alters nothing else; #MC
 * and INT1 leave the two registers of the last interrupt alone.
 * @param from RIP of the interrupted instruction.
 */
export function recordEvent(tx: Transaction, event: GuestEvent, from: bigint): void {
  if (!recordsTransfers(tx)) return;
  if (event.type === 'exception' && event.vector === Vector.DB) {
    tx.set(R.debugCtl, tx.get(R.debugCtl) & ~DEBUG_CTL.LBR);
    return;
  }
  if (event.type !== 'icebp' && (event.type !== 'exception' || event.vector !== Vector.MC)) {
    tx.set(R.lastIntFrom, tx.get(R.lastBranchFrom));
    tx.set(R.lastIntTo, tx.get(R.lastBranchTo));
  }
  tx.set(R.lastBranchFrom, from);
  tx.set(R.lastBranchTo, tx.get(R.rip));
}

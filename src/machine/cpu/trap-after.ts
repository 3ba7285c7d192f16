/**
 * What a completed instruction leaves for the boundary behind it: RF is over, TF and data breakpoints trap, and a branch
 * is recorded. Source: APM vol.2 §13.1.3 Single Stepping, §13.1.1 Debug Registers, §13.1.6 Control-Transfer Recording;
 * §3.1.6 RFLAGS Register, Resume Flag.
 */
import type { DecodedInstruction } from '../decode/decoded.js';
import { Boundary, Flag, type LowReader, R, SvmMode } from '../layout/cpu-state.js';
import { DEBUG_CTL } from './debug.js';
import { codeOffset } from './instruction-fetch.js';
import { isTakenBranch, recordBranch, stepsBranches } from './last-branch.js';
import type { SlotReader } from './mode.js';
import type { Transaction } from './transaction.js';

const STEPPING = Number(Flag.RF | Flag.TF);
const WATCHING = Number(DEBUG_CTL.LBR | DEBUG_CTL.BTF);

/** False when an instruction without data breakpoints and bus locks leaves nothing. @param start registers before it. */
export const mayTrapAfter = (tx: Transaction, start: LowReader): boolean =>
  ((start(R.rflags) | tx.low(R.rflags)) & STEPPING) !== 0 || (start(R.debugCtl) & WATCHING) !== 0;

/**
 * @param tx the instruction's transaction, complete but for this. @param start registers before it.
 * @param hits data breakpoints that it met, as in DR6. @param busLocked it took a bus lock that traps.
 */
export function trapAfter(
  tx: Transaction,
  insn: DecodedInstruction,
  start: SlotReader,
  hits: bigint,
  busLocked: boolean,
): void {
  // VMRUN that entered the guest: RF and TF of the host wait behind it (svm/vmrun.ts, svm/vmexit.ts).
  if (insn.mnemonic === 'VMRUN' && (tx.get(R.svmMode) & SvmMode.GUEST) !== 0n) return;
  // Another task, or the program that an SMI interrupted: RF and TF are its own.
  if (insn.mnemonic === 'RSM' || (insn.mnemonic !== 'LTR' && tx.get(R.tr) !== start.get(R.tr))) return;
  const before = start.get(R.rflags);
  const repeats = insn.rep !== 'none' && tx.get(R.rip) === start.get(R.rip);
  if ((before & Flag.RF) !== 0n && !repeats && !/^(IRET|POPF)/.test(insn.mnemonic)) {
    tx.set(R.rflags, tx.get(R.rflags) & ~Flag.RF);
  }
  const watches = (start.get(R.debugCtl) & (DEBUG_CTL.LBR | DEBUG_CTL.BTF)) !== 0n;
  const counts = !watches || watchBranch(tx, insn, start.get(R.rip));
  // SYSCALL and SYSRET step by the TF that they load (kvm-unit-tests, syscall TF handling).
  const steps = counts && ((/^SYS(CALL|RET)/.test(insn.mnemonic) ? tx.get(R.rflags) : before) & Flag.TF) !== 0n;
  if (hits === 0n && !steps && !busLocked) return;
  // A VMRUN that failed.
  if (insn.mnemonic === 'VMRUN' && tx.host.profile.deviations.has('failed-vmrun-not-stepped')) return;
  const traps =
    (steps ? Boundary.SINGLE_STEP : 0n) | (busLocked ? Boundary.BUS_LOCK : 0n) | (hits << Boundary.BREAKPOINTS_SHIFT);
  tx.set(R.boundary, tx.get(R.boundary) | traps);
}

/** Records a branch. @returns whether TF traps behind this instruction. */
function watchBranch(tx: Transaction, insn: DecodedInstruction, from: bigint): boolean {
  const taken = isTakenBranch(tx, insn.mnemonic, codeOffset(tx, from + BigInt(insn.length)));
  if (taken) recordBranch(tx, from);
  return taken || !stepsBranches(tx);
}

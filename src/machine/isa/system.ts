/**
 * What is left of the control plane: identification, interrupt flag, flags as a whole, waiting, caches and barriers,
 * random numbers.
 * Source: APM vol.3, CPUID, HLT, CLI, STI, PUSHF, POPF, MONITOR, MWAIT, PAUSE, RSM, RDRAND, RDSEED, CLAC,
 * STAC, LFENCE, MFENCE, SFENCE, CLFLUSH.
 */
import { mergeFlags } from '../cpu/interrupt-return.js';
import { accessAt, cplOf, ioplOf, isVirtual8086 } from '../cpu/mode.js';
import { lineChanged, lineDigest, MONITOR_LINE_BYTES, Monitor } from '../cpu/monitor.js';
import { checkSegment } from '../cpu/segments.js';
import { resume } from '../cpu/smm.js';
import { type SystemContext, systemInstruction } from '../cpu/system-context.js';
import { Access, type Transaction } from '../cpu/transaction.js';
import { ownsVirtualInterrupts, poppedFlags, shownFlags, virtualizesFlags } from '../cpu/virtual-8086.js';
import { generalProtection, invalidOpcode } from '../faults.js';
import { Activity, ARITHMETIC_FLAGS, Boundary, EMPTY_DELTA, Flag, R, Segment } from '../layout/cpu-state.js';
import { virtualEventPending } from '../svm/injection.js';
import { pausePasses } from '../svm/pause-filter.js';
import { Gpr, type Instruction, instruction } from './instruction.js';
import { operandAt, requireCpl0 } from './system-operands.js';

const CPUID = systemInstruction({
  mnemonic: 'CPUID',
  source: 'APM vol.3, CPUID',
  forms: ['0F A2:'],
  interceptedFirst: 'CPUID',
  system(context) {
    const { ops } = context;
    const leaf = context.cpuidLeaf(Number(ops.readGpr(Gpr.RAX, 32)), Number(ops.readGpr(Gpr.RCX, 32)));
    ops.writeGpr(Gpr.RAX, 32, BigInt(leaf.eax));
    ops.writeGpr(Gpr.RBX, 32, BigInt(leaf.ebx));
    ops.writeGpr(Gpr.RCX, 32, BigInt(leaf.ecx));
    ops.writeGpr(Gpr.RDX, 32, BigInt(leaf.edx));
    context.plain();
  },
});

const HLT = systemInstruction({
  mnemonic: 'HLT',
  source: 'APM vol.3, HLT',
  forms: ['F4:'],
  system(context) {
    requireCpl0(context);
    if (context.exits('HLT')) return;
    if (!virtualEventPending(context.tx) && context.exits('IDLE_HLT')) return;
    context.tx.set(R.activity, Activity.HALTED);
    context.outcome({ type: 'cpu.halted', registers: EMPTY_DELTA });
  },
});

/**
 * The flag that CLI and STI act on. CPL is 0 in real mode and 3 in virtual-8086 mode.
 * @throws GuestFault #GP(0) when CPL is above IOPL and there is no virtual flag.
 */
function interruptFlag(tx: Transaction): bigint {
  if (cplOf(tx) <= ioplOf(tx)) return Flag.IF;
  if (ownsVirtualInterrupts(tx)) return Flag.VIF;
  throw generalProtection();
}

const CLI = systemInstruction({
  mnemonic: 'CLI',
  source: 'APM vol.3, CLI',
  forms: ['FA:'],
  system(context) {
    const { tx } = context;
    tx.set(R.rflags, tx.get(R.rflags) & ~interruptFlag(tx));
    context.plain();
  },
  semantics: (ops) => ops.clearInterruptFlag(),
});

/** What lets interrupts into a guest for which one waits is an event: its hypervisor is waiting, too. Other flags are plain. */
function stateFlags(context: SystemContext, rflags: bigint): void {
  const { tx } = context;
  const opens = (rflags & Flag.IF) !== 0n && (tx.get(R.rflags) & Flag.IF) === 0n;
  tx.set(R.rflags, rflags);
  if (!opens || !virtualEventPending(tx)) context.plain();
}

/** Interrupts are let in after the next instruction, when they were not before (APM vol.2 §15.21.5). */
const STI = systemInstruction({
  mnemonic: 'STI',
  source: 'APM vol.3, STI',
  forms: ['FB:'],
  system(context) {
    const { tx } = context;
    const flag = interruptFlag(tx);
    const rflags = tx.get(R.rflags);
    if (flag === Flag.VIF) {
      if ((rflags & Flag.VIP) !== 0n) throw generalProtection();
      tx.set(R.rflags, rflags | Flag.VIF);
      context.plain();
      return;
    }
    if ((rflags & Flag.IF) === 0n) tx.set(R.boundary, tx.get(R.boundary) | Boundary.INTERRUPT_SHADOW);
    stateFlags(context, rflags | Flag.IF);
  },
});

/** Virtual-8086 mode needs IOPL 3, or virtual interrupts, for the flags as a whole. */
function requireFlagAccess({ tx }: SystemContext): void {
  if (isVirtual8086(tx) && ioplOf(tx) < 3) throw generalProtection();
}

const flagsWidth = ({ insn }: SystemContext): 16 | 32 | 64 => (insn.width === 8 ? 16 : insn.width);

const PUSHF = systemInstruction({
  mnemonic: 'PUSHF',
  source: 'APM vol.3, PUSHF',
  forms: ['9C: [d64]'],
  interceptedFirst: 'PUSHF',
  system(context) {
    const width = flagsWidth(context);
    const rflags = context.tx.get(R.rflags) & ~(Flag.VM | Flag.RF);
    const virtual = virtualizesFlags(context.tx, width);
    if (!virtual) requireFlagAccess(context);
    context.ops.push(width, BigInt.asUintN(width, virtual ? shownFlags(rflags) : rflags));
    context.plain();
  },
  semantics(ops, { width }) {
    const shown = ops.and(ops.systemFlags(), ops.constant(BigInt.asUintN(64, ~(Flag.VM | Flag.RF))));
    ops.push(width, ops.truncate(width, ops.or(shown, ops.arithmeticFlags())));
  },
});

const POPF = systemInstruction({
  mnemonic: 'POPF',
  source: 'APM vol.3, POPF',
  forms: ['9D: [d64]'],
  interceptedFirst: 'POPF',
  system(context) {
    const { tx, ops } = context;
    const width = flagsWidth(context);
    const virtual = virtualizesFlags(tx, width);
    if (!virtual) requireFlagAccess(context);
    const popped = ops.peek(width, 0);
    ops.moveStack(BigInt(width / 8));
    if (virtual) stateFlags(context, poppedFlags(tx.get(R.rflags), popped));
    else stateFlags(context, mergeFlags(tx, popped, width, 0n) & ~Flag.RF);
  },
});

/** Neither has extensions that ECX could name (CPUID Fn0000_0005_ECX), and only MONITORX and MWAITX are for programs. */
function requireMonitor({ tx, ops }: SystemContext, extensions: bigint, everyone: boolean): void {
  if (!everyone && cplOf(tx) !== 0) throw invalidOpcode();
  if ((ops.readGpr(Gpr.RCX, 32) & ~extensions) !== 0n) throw generalProtection();
}

/** No RAM is there, so nobody writes to it. */
const NOWHERE = 2 ** 52 - MONITOR_LINE_BYTES;

/** MONITOR reads a byte at rAX. @returns the sPA of its line. */
function readLine({ tx, ops, insn }: SystemContext): number {
  const segment = insn.segmentOverride ?? Segment.DS;
  const linear = checkSegment(tx, segment, ops.readGpr(Gpr.RAX, insn.addressWidth), 1, Access.READ);
  const access = accessAt(cplOf(tx));
  tx.readLinear(linear, 1, access);
  const address = tx.host.translate(tx, linear, access);
  return address - (address % MONITOR_LINE_BYTES);
}

const monitor = (mnemonic: string, form: string, feature: 'monitor' | 'mwaitx'): Instruction =>
  systemInstruction({
    mnemonic,
    source: `APM vol.3, ${mnemonic}`,
    forms: [form],
    feature,
    system(context) {
      const { tx } = context;
      requireMonitor(context, 0n, feature === 'mwaitx');
      const blind = context.profile.deviations.has('monitor-without-access');
      const line = blind ? NOWHERE : readLine(context);
      if (context.exits('MONITOR')) return;
      tx.set(R.monitorAddress, BigInt(line) | Monitor.ARMED);
      tx.set(R.monitorDigest, lineDigest(tx.host.memory, line));
    },
  });

/** ECX of MWAITX: end at an interrupt though it is masked, and end when EBX ticks of the counter have passed. */
const MWAITX_INTERRUPT = 1n;
const MWAITX_TIMER = 2n;

/**
 * Waits for an interrupt, or for another vCPU to write to the monitored line. Unarmed it does nothing, as when the line
 * has been written to already. A wait with a timer is a nap: it ends with the timer, or sooner when something happens,
 * which it may for any reason. One that a masked interrupt may end without a timer is over at once.
 */
const monitorWait = (mnemonic: string, form: string, feature: 'monitor' | 'mwaitx'): Instruction =>
  systemInstruction({
    mnemonic,
    source: `APM vol.3, ${mnemonic}`,
    forms: [form],
    feature,
    system(context) {
      const { tx, ops } = context;
      const extended = feature === 'mwaitx';
      requireMonitor(context, extended ? MWAITX_INTERRUPT | MWAITX_TIMER : 0n, extended);
      const monitored = tx.get(R.monitorAddress);
      const armed = (monitored & Monitor.ARMED) !== 0n;
      if (armed && context.exits('MWAIT_ARMED')) return;
      if (context.exits('MWAIT')) return;
      if (!armed) return;
      const written = lineChanged(tx, tx.host.memory);
      tx.set(R.monitorAddress, 0n);
      const extensions = ops.readGpr(Gpr.RCX, 32);
      if ((extensions & MWAITX_TIMER) !== 0n && !written) {
        context.nap(ops.readGpr(Gpr.RBX, 32), (extensions & MWAITX_INTERRUPT) !== 0n);
      }
      if (extensions !== 0n || written) return;
      tx.set(R.monitorAddress, (monitored & ~Monitor.ARMED) | Monitor.WAITING);
      tx.set(R.activity, Activity.MWAIT);
      context.outcome({ type: 'cpu.halted', registers: EMPTY_DELTA });
    },
  });

const PAUSE = systemInstruction({
  mnemonic: 'PAUSE',
  source: 'APM vol.3, PAUSE',
  forms: ['F3 90:'],
  system(context) {
    if (!pausePasses(context) && context.exits('PAUSE')) return;
    context.pause();
    context.plain();
  },
});

const RSM = systemInstruction({
  mnemonic: 'RSM',
  source: 'APM vol.3, RSM',
  forms: ['0F AA:'],
  interceptedFirst: 'RSM',
  system: resume,
});

const random = (mnemonic: string, form: string, feature: 'rdrand' | 'rdseed'): Instruction =>
  systemInstruction({
    mnemonic,
    source: `APM vol.3, ${mnemonic}`,
    forms: [form],
    feature,
    system(context) {
      const { tx, ops } = context;
      const destination = operandAt(context, 0);
      ops.write(destination, BigInt.asUintN(destination.width, context.drawEntropy()));
      tx.set(R.rflags, (tx.get(R.rflags) & ~ARITHMETIC_FLAGS) | Flag.CF);
      context.plain();
    },
  });

const accessCheck = (mnemonic: string, form: string, set: boolean): Instruction =>
  systemInstruction({
    mnemonic,
    source: 'APM vol.3, CLAC, STAC',
    forms: [form],
    feature: 'smap',
    system(context) {
      const { tx } = context;
      if (cplOf(tx) !== 0) throw invalidOpcode();
      const rflags = tx.get(R.rflags);
      tx.set(R.rflags, set ? rflags | Flag.AC : rflags & ~Flag.AC);
      context.plain();
    },
  });

/** Every access is done when its instruction is: barriers have nothing to wait for. */
const barrier = (mnemonic: string, digit: number): Instruction =>
  instruction({
    mnemonic,
    source: `APM vol.3, ${mnemonic}`,
    forms: [`NP 0F AE /${digit}: Rd`],
    semantics: () => {},
  });

export const SYSTEM_INSTRUCTIONS: readonly Instruction[] = [
  ...[CPUID, HLT, CLI, STI, PUSHF, POPF, PAUSE, RSM],
  monitor('MONITOR', '0F 01 C8:', 'monitor'),
  monitor('MONITORX', 'NP 0F 01 FA:', 'mwaitx'),
  monitorWait('MWAIT', '0F 01 C9:', 'monitor'),
  monitorWait('MWAITX', 'NP 0F 01 FB:', 'mwaitx'),
  random('RDRAND', '0F C7 /6: Rv', 'rdrand'),
  random('RDSEED', '0F C7 /7: Rv', 'rdseed'),
  accessCheck('CLAC', 'NP 0F 01 CA:', false),
  accessCheck('STAC', 'NP 0F 01 CB:', true),
  barrier('LFENCE', 5),
  barrier('MFENCE', 6),
  barrier('SFENCE', 7),
];

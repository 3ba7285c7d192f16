/**
 * Dropping translations of linear addresses.
 * Source: APM vol.3, INVLPG, INVLPGB, INVPCID, TLBSYNC; APM vol.2 §5.5.1 Process Context Identifiers, §5.5.3 TLB
 * Management, §15.9 Instruction Intercepts (table 15-7), appendix B (offset 090h, bit 7).
 *
 * Translations are not tagged with process context identifiers: whatever concerns one of them drops all of the address
 * space, which is always allowed.
 */
import { currentAsid } from '../cpu/control-registers.js';
import { INVLPGB_COUNT_MAX } from '../cpu/cpuid.js';
import { is64Bit } from '../cpu/mode.js';
import { checkSegment } from '../cpu/segments.js';
import { type SystemContext, systemInstruction } from '../cpu/system-context.js';
import { Access } from '../cpu/transaction.js';
import type { MemoryOperand } from '../decode/decoded.js';
import { generalProtection, invalidOpcode } from '../faults.js';
import { CR4, R, Segment, type Slot, SvmMode, segmentSlot } from '../layout/cpu-state.js';
import { NestedControl } from '../layout/vmcb.js';
import { isCanonical, u64, uN } from '../units.js';
import { Gpr, type Instruction } from './instruction.js';
import { memoryAt, operandAt, readIn, requireCpl0 } from './system-operands.js';

/** The operand's linear address; it is neither checked nor accessed. */
function linearOf({ tx, ops }: SystemContext, memory: MemoryOperand): bigint {
  const based = !is64Bit(tx) || memory.segment >= Segment.FS;
  const base = based ? tx.get((segmentSlot(memory.segment) + 1) as Slot) : 0n;
  return is64Bit(tx) ? u64(base + ops.address(memory)) : uN(32, base + ops.address(memory));
}

const INVLPG = systemInstruction({
  mnemonic: 'INVLPG',
  source: 'APM vol.3, INVLPG',
  forms: ['0F 01 /7: M'],
  system(context) {
    const { tx } = context;
    requireCpl0(context);
    const linear = linearOf(context, memoryAt(context, 0));
    if (context.exits('INVLPG', { info1: linear })) return;
    if (isCanonical(linear)) context.flushTlb({ scope: 'page', asid: currentAsid(tx), linear });
    context.plain();
  },
  // Translations follow their tables (docs/adr/0021): there is none to drop.
  semantics: () => {},
});

/** Kinds of INVPCID: one address of a PCID, a PCID, everything with and without global translations. */
const Kind = { ADDRESS: 0n, CONTEXT: 1n, ALL_WITH_GLOBAL: 2n, ALL: 3n } as const;
const PCID_BITS = 0xfffn;

/** The descriptor: PCID in bits 11:0, reserved up to bit 63, then the linear address. */
const INVPCID = systemInstruction({
  mnemonic: 'INVPCID',
  source: 'APM vol.3, INVPCID',
  forms: ['66 0F 38 82 /r: Gy, Mdq [f64]'],
  feature: 'invpcid',
  system(context) {
    const { tx, ops } = context;
    requireCpl0(context);
    const memory = memoryAt(context, 1);
    const kind = ops.read(operandAt(context, 0));
    const untold = context.profile.deviations.has('invpcid-without-info');
    context.intercept('INVPCID', untold ? {} : { info1: linearOf(context, memory), info2: kind });
    if (kind > Kind.ALL) throw generalProtection();
    const effective = uN(context.insn.addressWidth, ops.address(memory));
    checkSegment(tx, memory.segment, effective, 16, Access.READ);
    const context64 = readIn(context, memory, 0, 8);
    const linear = readIn(context, memory, 8, 8);
    const onePcid = kind === Kind.ADDRESS || kind === Kind.CONTEXT;
    const pcids = (tx.get(R.cr4) & CR4.PCIDE) !== 0n;
    if ((context64 & ~PCID_BITS) !== 0n || (onePcid && !pcids && context64 !== 0n)) throw generalProtection();
    if (kind === Kind.ADDRESS && !isCanonical(linear)) throw generalProtection();
    context.flushTlb({ scope: 'asid', asid: currentAsid(tx) });
    context.plain();
  },
});

/**
 * INVLPGB and TLBSYNC in a guest are the hypervisor's to allow, on processors with TlbiCtl; on others they always work.
 * @throws GuestFault #UD, #GP(0).
 */
function requireBroadcast(context: SystemContext): void {
  const { tx, profile } = context;
  const guest = (tx.get(R.svmMode) & SvmMode.GUEST) !== 0n;
  const allowed = !profile.svm.has('tlbi-ctl') || (tx.get(R.nestedControl) & NestedControl.INVLPGB_ENABLE) !== 0n;
  if (guest && !allowed) throw invalidOpcode();
  requireCpl0(context);
}

/** What INVLPGB compares, in rAX[5:0]; a component that is not valid matches whatever a translation has. */
const Match = { PCID: 1n << 1n, ASID: 1n << 2n } as const;
const INVLPGB_RAX_RESERVED = 0xfc0n;
const INVLPGB_COUNT_BITS = 0xffffn;
const INVLPGB_ECX_RESERVED = 0x7fff_0000n;
const INVLPGB_EDX_RESERVED = 0xf000_0000n;

/** Reserved bits, more pages than there may be, or an address space or process context that cannot exist. */
function isIllegalInvlpgb({ tx, ops, profile }: SystemContext, rax: bigint): boolean {
  const ecx = ops.readGpr(Gpr.RCX, 32);
  const edx = ops.readGpr(Gpr.RDX, 32);
  const asids = profile.features.has('svm') ? profile.asids : 1;
  const pcid = (edx >> 16n) & PCID_BITS;
  return (
    (rax & INVLPGB_RAX_RESERVED) !== 0n ||
    (ecx & INVLPGB_ECX_RESERVED) !== 0n ||
    (edx & INVLPGB_EDX_RESERVED) !== 0n ||
    (ecx & INVLPGB_COUNT_BITS) > BigInt(INVLPGB_COUNT_MAX) ||
    (edx & 0xffffn) >= BigInt(asids) ||
    ((rax & Match.PCID) !== 0n && pcid !== 0n && (tx.get(R.cr4) & CR4.PCIDE) === 0n)
  );
}

/**
 * Drops what matches, on every processor. Which pages are meant, and whether global and nested translations are, makes no
 * difference here: all of an address space goes. A guest has none but its own, whatever EDX says.
 */
const INVLPGB = systemInstruction({
  mnemonic: 'INVLPGB',
  source: 'APM vol.3, INVLPGB',
  forms: ['NP 0F 01 FE:'],
  feature: 'invlpgb',
  system(context) {
    const { tx, ops, insn } = context;
    requireBroadcast(context);
    context.intercept('INVLPGB');
    const rax = ops.readGpr(Gpr.RAX, insn.addressWidth);
    if (isIllegalInvlpgb(context, rax)) {
      context.intercept('INVLPGB_ILLEGAL');
      throw generalProtection();
    }
    const guest = (tx.get(R.svmMode) & SvmMode.GUEST) !== 0n;
    const named = Number(ops.readGpr(Gpr.RDX, 32) & 0xffffn);
    if (!guest && (rax & Match.ASID) === 0n) context.flushTlb({ scope: 'all' });
    else context.flushTlb({ scope: 'everywhere', asid: guest ? currentAsid(tx) : named });
  },
});

/** Every INVLPGB is done when it retires: there is nothing to wait for. */
const TLBSYNC = systemInstruction({
  mnemonic: 'TLBSYNC',
  source: 'APM vol.3, TLBSYNC',
  forms: ['NP 0F 01 FF:'],
  feature: 'invlpgb',
  system(context) {
    requireBroadcast(context);
    context.intercept('TLBSYNC');
    context.plain();
  },
});

export const TRANSLATION_INSTRUCTIONS: readonly Instruction[] = [INVLPG, INVPCID, INVLPGB, TLBSYNC];

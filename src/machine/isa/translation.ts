/**
 * Dropping translations of linear addresses.
 * Source: APM vol.3, INVLPG, INVPCID; APM vol.2 §5.5.1 Process Context Identifiers, §5.5.3 TLB Management.
 *
 * Translations are not tagged with process context identifiers: whatever concerns one of them drops all of the address
 * space, which is always allowed.
 */
import { currentAsid } from '../cpu/control-registers.js';
import { is64Bit } from '../cpu/mode.js';
import { checkSegment } from '../cpu/segments.js';
import { type SystemContext, systemInstruction } from '../cpu/system-context.js';
import { Access } from '../cpu/transaction.js';
import type { MemoryOperand } from '../decode/decoded.js';
import { generalProtection } from '../faults.js';
import { CR4, R, Segment, type Slot, segmentSlot } from '../layout/cpu-state.js';
import { isCanonical, u64, uN } from '../units.js';
import type { Instruction } from './instruction.js';
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
    context.intercept('INVLPG', { info1: linear });
    if (isCanonical(linear)) context.flushTlb({ scope: 'page', asid: currentAsid(tx), linear });
    context.plain();
  },
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

export const TRANSLATION_INSTRUCTIONS: readonly Instruction[] = [INVLPG, INVPCID];

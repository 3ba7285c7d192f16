/**
 * Cache lines. There are no caches: what is flushed or written back has only the faults of its access.
 * Source: APM vol.3, CLFLUSH, CLFLUSHOPT, CLWB, CLZERO, INVD, WBINVD, WBNOINVD.
 */
import { accessAt, cplOf } from '../cpu/mode.js';
import { checkSegment } from '../cpu/segments.js';
import { systemInstruction } from '../cpu/system-context.js';
import { Access } from '../cpu/transaction.js';
import { Segment } from '../layout/cpu-state.js';
import { type Feature, Gpr, type Instruction, instruction } from './instruction.js';
import { one } from './operands.js';
import { requireCpl0 } from './system-operands.js';

/** As CPUID says: Fn0000_0001_EBX[CLFlush] in quadwords. */
const LINE_BYTES = 64;

/** Faults as a one-byte read does. */
const lineInstruction = (mnemonic: string, form: string, feature?: Feature): Instruction =>
  instruction({
    mnemonic,
    source: `APM vol.3, ${mnemonic}`,
    forms: [form],
    ...(feature === undefined ? {} : { feature }),
    evaluatorOnly: true,
    semantics: (ops, insn) => {
      ops.read(one(insn));
    },
  });

/** Zeroes the line that holds the byte at rAX. */
const CLZERO = systemInstruction({
  mnemonic: 'CLZERO',
  source: 'APM vol.3, CLZERO',
  forms: ['0F 01 FC:'],
  feature: 'clzero',
  system(context) {
    const { tx, ops, insn } = context;
    const line = ops.readGpr(Gpr.RAX, insn.addressWidth) & ~BigInt(LINE_BYTES - 1);
    const linear = checkSegment(tx, insn.segmentOverride ?? Segment.DS, line, LINE_BYTES, Access.WRITE);
    for (let at = 0; at < LINE_BYTES; at += 8) tx.writeLinear(linear + BigInt(at), 8, 0n, accessAt(cplOf(tx)));
    context.plain();
  },
});

const INVD = systemInstruction({
  mnemonic: 'INVD',
  source: 'APM vol.3, INVD',
  forms: ['0F 08:'],
  system(context) {
    requireCpl0(context);
    if (context.exits('INVD')) return;
    context.plain();
  },
});

/** Where WBNOINVD is unknown its prefix is ignored, and it is this one. */
const writeBack = (mnemonic: string, form: string, feature?: Feature): Instruction =>
  systemInstruction({
    mnemonic,
    source: 'APM vol.3, WBINVD, WBNOINVD',
    forms: [form],
    ...(feature === undefined ? {} : { feature }),
    system(context) {
      requireCpl0(context);
      if (context.exits('WBINVD')) return;
      context.plain();
    },
  });

export const CACHE_INSTRUCTIONS: readonly Instruction[] = [
  lineInstruction('CLFLUSH', 'NP 0F AE /7: Mb'),
  lineInstruction('CLFLUSHOPT', '66 0F AE /7: Mb', 'clflushopt'),
  lineInstruction('CLWB', '66 0F AE /6: Mb', 'clwb'),
  CLZERO,
  INVD,
  writeBack('WBINVD', '0F 09:'),
  writeBack('WBNOINVD', 'F3 0F 09:', 'wbnoinvd'),
];

/**
 * String instructions: one element. Repetition under REP prefixes is done around the description, which is why rCX does
 * not occur here; after CMPS and SCAS it looks at ZF.
 * Source: APM vol.3 §1.2.6 Repeat Prefixes; MOVSx, CMPSx, STOSx, LODSx, SCASx. INSx and OUTSx are control plane.
 */
import { Gpr, type Instruction, instruction } from './instruction.js';

const MOVS = instruction({
  mnemonic: 'MOVS',
  source: 'APM vol.3, MOVS',
  forms: ['A4: [rep] [b]', 'A5: [rep]'],
  semantics(ops, { width }) {
    ops.storeDestination(width, ops.loadSource(width));
    ops.advance('source', width);
    ops.advance('destination', width);
  },
});

const CMPS = instruction({
  mnemonic: 'CMPS',
  source: 'APM vol.3, CMPS',
  forms: ['A6: [rep] [b]', 'A7: [rep]'],
  semantics(ops, { width }) {
    const a = ops.loadSource(width);
    const b = ops.loadDestination(width);
    ops.advance('source', width);
    ops.advance('destination', width);
    ops.flagsSub(width, a, b, ops.sub(width, a, b));
  },
});

const STOS = instruction({
  mnemonic: 'STOS',
  source: 'APM vol.3, STOS',
  forms: ['AA: [rep] [b]', 'AB: [rep]'],
  semantics(ops, { width }) {
    ops.storeDestination(width, ops.readGpr(Gpr.RAX, width));
    ops.advance('destination', width);
  },
});

const LODS = instruction({
  mnemonic: 'LODS',
  source: 'APM vol.3, LODS',
  forms: ['AC: [rep] [b]', 'AD: [rep]'],
  semantics(ops, { width }) {
    ops.writeGpr(Gpr.RAX, width, ops.loadSource(width));
    ops.advance('source', width);
  },
});

const SCAS = instruction({
  mnemonic: 'SCAS',
  source: 'APM vol.3, SCAS',
  forms: ['AE: [rep] [b]', 'AF: [rep]'],
  semantics(ops, { width }) {
    const a = ops.readGpr(Gpr.RAX, width);
    const b = ops.loadDestination(width);
    ops.advance('destination', width);
    ops.flagsSub(width, a, b, ops.sub(width, a, b));
  },
});

export const STRING_INSTRUCTIONS: readonly Instruction[] = [MOVS, CMPS, STOS, LODS, SCAS];

/**
 * Instructions that do nothing here, those that are meant to be invalid, and CRC32.
 * Source: APM vol.3, NOP, PREFETCHlevel, PREFETCH, UD0, UD1, UD2, CRC32.
 */
import { type Instruction, instruction } from './instruction.js';
import { two } from './operands.js';

/** 90h without REX.B; with it, it is XCHG rAX, r8. The hint space 0F 19–1F has RDSSP and ENDBR, no-operations, too. */
const NOP = instruction({
  mnemonic: 'NOP',
  source: 'APM vol.3, NOP',
  forms: [
    '90: [b0]',
    '0F 19 /r: Ev',
    '0F 1A /r: Ev',
    '0F 1B /r: Ev',
    '0F 1C /r: Ev',
    '0F 1D /r: Ev',
    '0F 1E /r: Ev',
    '0F 1F /r: Ev',
  ],
  semantics: () => {},
});

/** A hint without effect on a machine without caches; a register operand makes it a no-operation. */
const PREFETCH = instruction({
  mnemonic: 'PREFETCH',
  source: 'APM vol.3, PREFETCHlevel',
  forms: ['0F 18 /r: Ev'],
  semantics: () => {},
});

const PREFETCHW = instruction({
  mnemonic: 'PREFETCHW',
  source: 'APM vol.3, PREFETCH, PREFETCHW',
  forms: ['0F 0D /r: Mb'],
  semantics: () => {},
});

const UD2 = instruction({
  mnemonic: 'UD2',
  source: 'APM vol.3, UD0, UD1, UD2',
  forms: ['0F 0B:'],
  semantics: (ops) => ops.fault('UD'),
});

const UD1 = instruction({
  mnemonic: 'UD1',
  source: 'APM vol.3, UD0, UD1, UD2',
  forms: ['0F B9 /r: Gv, Ev'],
  semantics: (ops) => ops.fault('UD'),
});

const UD0 = instruction({
  mnemonic: 'UD0',
  source: 'APM vol.3, UD0, UD1, UD2',
  forms: ['0F FF:'],
  semantics: (ops) => ops.fault('UD'),
});

/** The Castagnoli polynomial 11EDC6F41h, its bits in reverse order, as the checksum's are. */
const CRC32C_POLYNOMIAL = 0x82f63b78n;

const CRC32 = instruction({
  mnemonic: 'CRC32',
  source: 'APM vol.3, CRC32',
  forms: ['F2 0F 38 F0 /r: Gy, Eb', 'F2 0F 38 F1 /r: Gy, Ev'],
  feature: 'crc32',
  evaluatorOnly: true,
  semantics(ops, insn) {
    const [checksum, data] = two(insn);
    const one = ops.constant(1n);
    let rest = ops.xor(ops.truncate(32, ops.read(checksum)), ops.read(data));
    for (let bit = 0; bit < data.width; bit++) {
      const feedback = ops.select(ops.bit(rest, 0), ops.constant(CRC32C_POLYNOMIAL), ops.constant(0n));
      rest = ops.xor(ops.shr(64, rest, one), feedback);
    }
    ops.write(checksum, rest);
  },
});

export const MISCELLANEOUS_INSTRUCTIONS: readonly Instruction[] = [NOP, PREFETCH, PREFETCHW, UD2, UD1, UD0, CRC32];

/**
 * Instructions on single flags, and on the low byte of rFLAGS through AH.
 * Source: APM vol.3, CLC, CMC, STC, CLD, STD, LAHF, SAHF. IF and all that needs a privilege is control plane.
 */
import { Gpr, type Instruction, instruction, type Ops } from './instruction.js';

const CLC = instruction({
  mnemonic: 'CLC',
  source: 'APM vol.3, CLC',
  forms: ['F8:'],
  semantics: (ops) => ops.setFlag('cf', ops.bit(ops.constant(0n), 0)),
});

const STC = instruction({
  mnemonic: 'STC',
  source: 'APM vol.3, STC',
  forms: ['F9:'],
  semantics: (ops) => ops.setFlag('cf', ops.bit(ops.constant(1n), 0)),
});

const CMC = instruction({
  mnemonic: 'CMC',
  source: 'APM vol.3, CMC',
  forms: ['F5:'],
  semantics: (ops) => ops.setFlag('cf', ops.negate(ops.flag('cf'))),
});

const CLD = instruction({
  mnemonic: 'CLD',
  source: 'APM vol.3, CLD',
  forms: ['FC:'],
  semantics: (ops) => ops.setDirectionFlag(false),
});

const STD = instruction({
  mnemonic: 'STD',
  source: 'APM vol.3, STD',
  forms: ['FD:'],
  semantics: (ops) => ops.setDirectionFlag(true),
});

/** SF, ZF, AF, PF and CF, as they lie in the low byte of rFLAGS. */
const LOW_FLAGS = 0xd5n;
/** Bit 1 of rFLAGS always reads as one. */
const ONE_FLAG = 0x02n;
const OVERFLOW_FLAG = 0x800n;

const LAHF = instruction({
  mnemonic: 'LAHF',
  source: 'APM vol.3, LAHF',
  forms: ['9F:'],
  semantics(ops) {
    const flags = ops.or(ops.and(ops.arithmeticFlags(), ops.constant(LOW_FLAGS)), ops.constant(ONE_FLAG));
    ops.writeGpr(Gpr.RAX, 16, ops.or(ops.shl(16, flags, ops.constant(8n)), ops.readGpr(Gpr.RAX, 8)));
  },
});

const SAHF = instruction({
  mnemonic: 'SAHF',
  source: 'APM vol.3, SAHF',
  forms: ['9E:'],
  semantics(ops) {
    const low = ops.and(readAH(ops), ops.constant(LOW_FLAGS));
    ops.setArithmeticFlags(ops.or(ops.and(ops.arithmeticFlags(), ops.constant(OVERFLOW_FLAG)), low));
  },
});

const readAH = <V, C, X>(ops: Ops<V, C, X>): V => ops.shr(16, ops.readGpr(Gpr.RAX, 16), ops.constant(8n));

/** Undocumented, but every processor has it: AL becomes all ones or zero, by CF. */
const SALC = instruction({
  mnemonic: 'SALC',
  source: 'APM vol.3 appendix A.1, opcode D6h (reserved)',
  forms: ['D6: [i64]'],
  semantics: (ops) => ops.writeGpr(Gpr.RAX, 8, ops.neg(8, ops.fromBool(ops.flag('cf')))),
});

export const FLAG_INSTRUCTIONS: readonly Instruction[] = [CLC, STC, CMC, CLD, STD, LAHF, SAHF, SALC];

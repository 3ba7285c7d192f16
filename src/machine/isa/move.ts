/**
 * Data movement: MOV, MOVZX, MOVSX, LEA, exchanges, conditional moves, byte swaps.
 * Source: APM vol.3 §3. MOV of segment, control and debug registers is control plane and stands elsewhere.
 */
import { hex } from './forms.js';
import { CONDITIONS, Gpr, type Instruction, instruction, type Ops, type Static } from './instruction.js';
import { one, two } from './operands.js';

export function copy<V, C, X>(ops: Ops<V, C, X>, insn: Static): void {
  const [destination, source] = two(insn);
  ops.write(destination, ops.read(source));
}

const MOV = instruction({
  mnemonic: 'MOV',
  source: 'APM vol.3, MOV',
  forms: [
    '88 /r: Eb, Gb',
    '89 /r: Ev, Gv',
    '8A /r: Gb, Eb',
    '8B /r: Gv, Ev',
    'A0: AL, Ob',
    'A1: rAX, Ov',
    'A2: Ob, AL',
    'A3: Ov, rAX',
    'B0+r: Zb, Ib',
    'B8+r: Zv, Iv',
    'C6 /0: Eb, Ib',
    'C7 /0: Ev, Iz',
  ],
  semantics: copy,
});

/** Weakly ordered stores are ordinary ones here: there is one processor at a time. */
const MOVNTI = instruction({
  mnemonic: 'MOVNTI',
  source: 'APM vol.3, MOVNTI',
  forms: ['NP 0F C3 /r: My, Gy'],
  feature: 'sse2',
  withoutSseState: true,
  semantics: copy,
});

const MOVZX = instruction({
  mnemonic: 'MOVZX',
  source: 'APM vol.3, MOVZX',
  forms: ['0F B6 /r: Gv, Eb', '0F B7 /r: Gv, Ew'],
  semantics: copy,
});

const MOVSX = instruction({
  mnemonic: 'MOVSX',
  source: 'APM vol.3, MOVSX, MOVSXD',
  forms: ['0F BE /r: Gv, Eb', '0F BF /r: Gv, Ew'],
  semantics: copySigned,
});

/** Without REX.W it is a plain move, of 32 or 16 bits. */
const MOVSXD = instruction({
  mnemonic: 'MOVSXD',
  source: 'APM vol.3, MOVSX, MOVSXD',
  forms: ['63 /r: Gv, Ed [o64]'],
  semantics: copySigned,
});

function copySigned<V, C, X>(ops: Ops<V, C, X>, insn: Static): void {
  const [destination, source] = two(insn);
  const value = ops.read(source);
  ops.write(
    destination,
    source.width < destination.width
      ? ops.signExtend(source.width, destination.width, value)
      : ops.truncate(destination.width, value),
  );
}

const LEA = instruction({
  mnemonic: 'LEA',
  source: 'APM vol.3, LEA',
  forms: ['8D /r: Gv, M'],
  semantics(ops, insn) {
    const [destination, source] = two(insn);
    ops.write(destination, ops.truncate(insn.width, ops.address(source)));
  },
});

const XCHG = instruction({
  mnemonic: 'XCHG',
  source: 'APM vol.3, XCHG',
  forms: ['86 /r: Eb, Gb [lock]', '87 /r: Ev, Gv [lock]', '90+r: Zv, rAX'],
  semantics(ops, insn) {
    const [first, second] = two(insn);
    const a = ops.readForWrite(first);
    const b = ops.read(second);
    ops.write(first, b);
    ops.write(second, a);
  },
});

const XADD = instruction({
  mnemonic: 'XADD',
  source: 'APM vol.3, XADD',
  forms: ['0F C0 /r: Eb, Gb [lock]', '0F C1 /r: Ev, Gv [lock]'],
  semantics(ops, insn) {
    const [destination, source] = two(insn);
    const a = ops.readForWrite(destination);
    const b = ops.read(source);
    const sum = ops.add(insn.width, a, b);
    if (destination.kind === 'mem') {
      ops.write(destination, sum);
      ops.write(source, a);
    } else {
      ops.write(source, a); // the sum wins when both are one register
      ops.write(destination, sum);
    }
    ops.flagsAdd(insn.width, a, b, sum);
  },
});

const CMPXCHG = instruction({
  mnemonic: 'CMPXCHG',
  source: 'APM vol.3, CMPXCHG',
  forms: ['0F B0 /r: Eb, Gb [lock]', '0F B1 /r: Ev, Gv [lock]'],
  semantics(ops, insn) {
    const { width } = insn;
    const [destination, source] = two(insn);
    const expected = ops.readGpr(Gpr.RAX, width);
    const present = ops.readForWrite(destination);
    const replacement = ops.read(source);
    const isEqual = ops.equal(expected, present);
    if (destination.kind === 'mem') {
      ops.write(destination, ops.select(isEqual, replacement, present)); // memory is written in any case
      ops.when(ops.negate(isEqual), () => ops.writeGpr(Gpr.RAX, width, present));
    } else {
      ops.when(
        isEqual,
        () => ops.write(destination, replacement),
        () => ops.writeGpr(Gpr.RAX, width, present),
      );
    }
    ops.flagsSub(width, expected, present, ops.sub(width, expected, present));
  },
});

const CMPXCHG8B = instruction({
  mnemonic: 'CMPXCHG8B',
  source: 'APM vol.3, CMPXCHG8B, CMPXCHG16B',
  forms: ['0F C7 /1: Mq [lock] [w0]'],
  semantics(ops, insn) {
    const destination = one(insn);
    const present = ops.readForWrite(destination);
    const join = (high: number, low: number) =>
      ops.or(ops.shl(64, ops.readGpr(high, 32), ops.constant(32n)), ops.readGpr(low, 32));
    const isEqual = ops.equal(join(Gpr.RDX, Gpr.RAX), present);
    ops.write(destination, ops.select(isEqual, join(Gpr.RCX, Gpr.RBX), present));
    ops.when(ops.negate(isEqual), () => {
      ops.writeGpr(Gpr.RAX, 32, ops.truncate(32, present));
      ops.writeGpr(Gpr.RDX, 32, ops.shr(64, present, ops.constant(32n)));
    });
    ops.setFlag('zf', isEqual);
  },
});

const CMPXCHG16B = instruction({
  mnemonic: 'CMPXCHG16B',
  source: 'APM vol.3, CMPXCHG8B, CMPXCHG16B',
  forms: ['0F C7 /1: Mdq [lock] [w1]'],
  feature: 'cx16',
  semantics(ops, insn) {
    const destination = one(insn);
    const present = ops.readVectorForWrite(destination);
    const low = ops.lane64(present, 0);
    const high = ops.lane64(present, 1);
    const isEqual = ops.both(ops.equal(ops.readGpr(Gpr.RAX, 64), low), ops.equal(ops.readGpr(Gpr.RDX, 64), high));
    ops.writeVectorAligned(
      destination,
      ops.vectorFromLanes(
        ops.select(isEqual, ops.readGpr(Gpr.RBX, 64), low),
        ops.select(isEqual, ops.readGpr(Gpr.RCX, 64), high),
      ),
    );
    ops.when(ops.negate(isEqual), () => {
      ops.writeGpr(Gpr.RAX, 64, low);
      ops.writeGpr(Gpr.RDX, 64, high);
    });
    ops.setFlag('zf', isEqual);
  },
});

const BSWAP = instruction({
  mnemonic: 'BSWAP',
  source: 'APM vol.3, BSWAP',
  forms: ['0F C8+r: Zv'],
  semantics(ops, insn) {
    const register = one(insn);
    // The manual leaves 16 bits undefined; processors clear the register's low word.
    ops.write(register, insn.width === 16 ? ops.constant(0n) : swapBytes(ops, insn, ops.read(register)));
  },
});

const MOVBE = instruction({
  mnemonic: 'MOVBE',
  source: 'APM vol.3, MOVBE',
  forms: ['0F 38 F0 /r: Gv, Mv', '0F 38 F1 /r: Mv, Gv'],
  feature: 'movbe',
  semantics(ops, insn) {
    const [destination, source] = two(insn);
    ops.write(destination, swapBytes(ops, insn, ops.read(source)));
  },
});

function swapBytes<V, C, X>(ops: Ops<V, C, X>, { width }: Static, value: V): V {
  return width === 32 || width === 64 ? ops.byteSwap(width, value) : ops.rol(16, value, ops.constant(8n));
}

/** The source is read whatever the condition, and a 32-bit register is zero-extended even when nothing moves. */
const CMOV: readonly Instruction[] = CONDITIONS.map((code, index) =>
  instruction({
    mnemonic: `CMOV${code.toUpperCase()}`,
    source: 'APM vol.3, CMOVcc',
    forms: [`0F ${hex(0x40 + index)} /r: Gv, Ev`],
    semantics(ops, insn) {
      const [destination, source] = two(insn);
      const value = ops.read(source);
      ops.write(destination, ops.select(ops.condition(code), value, ops.read(destination)));
    },
  }),
);

const SET: readonly Instruction[] = CONDITIONS.map((code, index) =>
  instruction({
    mnemonic: `SET${code.toUpperCase()}`,
    source: 'APM vol.3, SETcc',
    forms: [`0F ${hex(0x90 + index)} /r: Eb`],
    semantics: (ops, insn) => ops.write(one(insn), ops.fromBool(ops.condition(code))),
  }),
);

const XLAT = instruction({
  mnemonic: 'XLAT',
  source: 'APM vol.3, XLAT',
  forms: ['D7:'],
  semantics(ops, insn) {
    const table = ops.readGpr(Gpr.RBX, insn.addressWidth);
    const entry = ops.add(insn.addressWidth, table, ops.readGpr(Gpr.RAX, 8));
    ops.writeGpr(Gpr.RAX, 8, ops.load('data', 8, entry));
  },
});

/** CBW, CWDE, CDQE: the accumulator's lower half, sign-extended. */
const CBW = instruction({
  mnemonic: 'CBW',
  source: 'APM vol.3, CBW, CWDE, CDQE',
  forms: ['98:'],
  semantics(ops, { width }) {
    ops.writeGpr(Gpr.RAX, width, ops.signExtend(width / 2, width, ops.readGpr(Gpr.RAX, width / 2)));
  },
});

/** CWD, CDQ, CQO: the accumulator's sign in all bits of rDX. */
const CWD = instruction({
  mnemonic: 'CWD',
  source: 'APM vol.3, CWD, CDQ, CQO',
  forms: ['99:'],
  semantics(ops, { width }) {
    ops.writeGpr(Gpr.RDX, width, ops.sar(width, ops.readGpr(Gpr.RAX, width), ops.constant(BigInt(width - 1))));
  },
});

export const MOVE_INSTRUCTIONS: readonly Instruction[] = [
  MOV,
  MOVNTI,
  MOVZX,
  MOVSX,
  MOVSXD,
  LEA,
  XCHG,
  XADD,
  CMPXCHG,
  CMPXCHG8B,
  CMPXCHG16B,
  BSWAP,
  MOVBE,
  ...CMOV,
  ...SET,
  XLAT,
  CBW,
  CWD,
];

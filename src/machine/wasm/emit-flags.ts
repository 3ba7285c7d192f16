/**
 * Flags, lazily: the last result and its carries in two cells, as isa/flags.ts tells. A condition right behind the
 * comparison that it is about needs no cells; an instruction whose flags nobody will see writes none.
 */
import type { ArithmeticFlag, ConditionCode } from '../isa/instruction.js';
import { ARITHMETIC_FLAGS, R, slotAddress } from '../layout/cpu-state.js';
import { Cell } from '../layout/linear-memory.js';
import { type C, SIGN, type V, ValueEmitter } from './emit-values.js';
import { type Code, Op } from './module.js';

const FLAG_MASK = 0xc000_0000_0000_0008n;

/** What the flags were last set from, within one handler: conditions need not unpack the cells. */
export type FlagSource =
  | { readonly kind: 'sub'; readonly width: number; readonly a: V; readonly b: V; readonly result: V }
  | { readonly kind: 'logic'; readonly width: number; readonly result: V };

/** Conditions that are the opposite of another. */
const NEGATIONS: Readonly<Partial<Record<ConditionCode, ConditionCode>>> = {
  no: 'o',
  ae: 'b',
  ne: 'e',
  a: 'be',
  ns: 's',
  np: 'p',
  ge: 'l',
  g: 'le',
};

export abstract class FlagEmitter extends ValueEmitter {
  protected flagSource: FlagSource | undefined;
  /** The instructions that follow overwrite the flags before anybody sees them. */
  flagsAreDead = false;

  protected setLazy(width: number, result: V, carries: () => void): void {
    const { code } = this;
    if (this.conditions === 0) this.effects.overwritesFlags = true;
    this.storeFlagResult(() => {
      code.get(result);
      this.extendOnStack(width);
    });
    this.storeCarries(carries);
  }

  /** Normalises the vector of carries in local `c`: bits 63 and 62 for CF and OF, bit 3 for AF. */
  protected normalCarries(width: number, c: V): void {
    const { code } = this;
    if (width === 64) {
      code.get(c).i64(FLAG_MASK).op(Op.I64_AND);
      return;
    }
    code
      .get(c)
      .i64(BigInt(64 - width))
      .op(Op.I64_SHL)
      .i64(3n << 62n)
      .op(Op.I64_AND);
    code.get(c).i64(8n).op(Op.I64_AND, Op.I64_OR);
  }

  protected carriesOfAdd(a: V, b: V, result: V): V {
    const { code } = this;
    code.get(a).get(b).op(Op.I64_AND);
    code.get(a).get(b).op(Op.I64_OR).get(result).i64(-1n).op(Op.I64_XOR, Op.I64_AND, Op.I64_OR);
    return this.result();
  }

  protected carriesOfSub(a: V, b: V, result: V): V {
    const { code } = this;
    code.get(a).i64(-1n).op(Op.I64_XOR);
    const inverted = this.result();
    code.get(inverted).get(b).op(Op.I64_AND);
    code.get(inverted).get(b).op(Op.I64_OR).get(result).op(Op.I64_AND, Op.I64_OR);
    return this.result();
  }

  flagsAdd(width: number, a: V, b: V, result: V): void {
    if (this.flagsAreDead) return;
    const carries = this.carriesOfAdd(a, b, result);
    this.setLazy(width, result, () => this.normalCarries(width, carries));
  }
  flagsSub(width: number, a: V, b: V, result: V): void {
    if (this.flagsAreDead) return;
    this.flagSource = { kind: 'sub', width, a, b, result };
    const carries = this.carriesOfSub(a, b, result);
    this.setLazy(width, result, () => this.normalCarries(width, carries));
  }
  flagsLogic(width: number, result: V): void {
    if (this.flagsAreDead) return;
    this.flagSource = { kind: 'logic', width, result };
    this.setLazy(width, result, () => this.code.i64(0n));
  }
  flagsInc(width: number, a: V, result: V): void {
    if (!this.flagsAreDead) this.keepingCarry(width, result, this.carriesOfAdd(a, this.constant(1n), result));
  }
  flagsDec(width: number, a: V, result: V): void {
    if (!this.flagsAreDead) this.keepingCarry(width, result, this.carriesOfSub(a, this.constant(1n), result));
  }
  /** Takes OF and AF from `carries` and CF from the flags as they are. */
  protected keepingCarry(width: number, result: V, carries: V): void {
    const { code, effects } = this;
    const { overwritesFlags } = effects;
    this.normalCarries(width, carries);
    const normal = this.result();
    this.pushCarries().i64(SIGN).op(Op.I64_AND);
    const carry = this.result();
    this.setLazy(width, result, () => {
      this.withOverflow(carry, () =>
        code.get(normal).get(normal).i64(1n).op(Op.I64_SHL, Op.I64_XOR).i64(SIGN).op(Op.I64_AND),
      );
      code.get(normal).i64(8n).op(Op.I64_AND, Op.I64_OR);
    });
    effects.overwritesFlags = overwritesFlags;
  }
  /** CF in bit 63 of local `carry`; writes the pair of bits that also gives the overflow left at bit 63 by `overflow`. */
  protected withOverflow(carry: V, overflow: () => void): void {
    const { code } = this;
    code.get(carry).get(carry);
    overflow();
    code.op(Op.I64_XOR).i64(1n).op(Op.I64_SHR_U, Op.I64_OR);
  }
  flagsResult(width: number, result: V, carry: C, overflow: C): void {
    if (this.flagsAreDead) return;
    const carryBit = this.atSign(carry);
    const overflowBit = this.atSign(overflow);
    this.setLazy(width, result, () => this.withOverflow(carryBit, () => this.code.get(overflowBit)));
  }
  /** The truth at bit 63. */
  protected atSign(c: C): V {
    this.code.get(c).op(Op.I64_EXTEND_I32_U).i64(63n).op(Op.I64_SHL);
    return this.result();
  }
  protected carries(): V {
    this.pushCarries();
    return this.result();
  }

  // Where the lazy flags are held; `value` leaves what to store on the stack.

  protected pushFlagResult(): Code {
    return this.code.i32(0).memory(Op.I64_LOAD, Cell.FLAG_RESULT);
  }
  protected pushCarries(): Code {
    return this.code.i32(0).memory(Op.I64_LOAD, Cell.FLAG_CARRIES);
  }
  protected storeFlagResult(value: () => void): void {
    this.code.i32(0);
    value();
    this.code.memory(Op.I64_STORE, Cell.FLAG_RESULT);
  }
  protected storeCarries(value: () => void): void {
    this.code.i32(0);
    value();
    this.code.memory(Op.I64_STORE, Cell.FLAG_CARRIES);
  }

  setFlag(flag: ArithmeticFlag, value: C): void {
    if (this.flagsAreDead) return;
    const { code } = this;
    const carries = this.carries();
    const sign = this.atSign(value);
    switch (flag) {
      case 'cf':
        this.storeCarries(() => {
          code
            .get(carries)
            .i64(~(3n << 62n))
            .op(Op.I64_AND);
          this.withOverflow(sign, () =>
            code.get(carries).get(carries).i64(1n).op(Op.I64_SHL, Op.I64_XOR).i64(SIGN).op(Op.I64_AND),
          );
          code.op(Op.I64_OR);
        });
        return;
      case 'of':
        this.storeCarries(() => {
          code
            .get(carries)
            .i64(~(1n << 62n))
            .op(Op.I64_AND);
          code.get(carries).get(sign).op(Op.I64_XOR).i64(SIGN).op(Op.I64_AND).i64(1n).op(Op.I64_SHR_U, Op.I64_OR);
        });
        return;
      case 'af':
        this.storeCarries(() => {
          code.get(carries).i64(~8n).op(Op.I64_AND).get(sign).i64(60n).op(Op.I64_SHR_U, Op.I64_OR);
        });
        return;
      default: {
        const bit = { zf: 6n, sf: 7n, pf: 2n }[flag];
        const flags = this.arithmeticFlags();
        code
          .get(flags)
          .i64(~(1n << bit))
          .op(Op.I64_AND);
        code.get(value).op(Op.I64_EXTEND_I32_U).i64(bit).op(Op.I64_SHL, Op.I64_OR);
        this.setArithmeticFlags(this.result());
      }
    }
  }

  flag(flag: ArithmeticFlag): C {
    const { code } = this;
    this.effects.readsFlags = true;
    const result = (): Code => this.pushFlagResult();
    const carries = (): Code => this.pushCarries();
    switch (flag) {
      case 'cf':
        carries().i64(0n).op(Op.I64_LT_S);
        break;
      case 'of': {
        const c = this.carries();
        code.get(c).get(c).i64(1n).op(Op.I64_SHL, Op.I64_XOR).i64(0n).op(Op.I64_LT_S);
        break;
      }
      case 'zf':
        result().op(Op.I64_EQZ);
        break;
      case 'sf':
        result();
        carries().i64(63n).op(Op.I64_SHL, Op.I64_XOR).i64(0n).op(Op.I64_LT_S);
        break;
      case 'af':
        carries().i64(3n).op(Op.I64_SHR_U, Op.I32_WRAP_I64).i32(1).op(Op.I32_AND);
        break;
      case 'pf':
        result();
        carries().i64(8n).op(Op.I64_SHR_U, Op.I64_XOR).i64(0xffn).op(Op.I64_AND, Op.I64_POPCNT);
        code.op(Op.I32_WRAP_I64).i32(1).op(Op.I32_AND, Op.I32_EQZ);
        break;
    }
    return this.truth();
  }

  condition(code: ConditionCode): C {
    return this.directCondition(code) ?? this.cellCondition(code);
  }

  /** From the operands of the comparison before, when it stands in the same handler. */
  protected directCondition(code: ConditionCode): C | undefined {
    const source = this.flagSource;
    if (source === undefined) return undefined;
    const negated = NEGATIONS[code];
    if (negated !== undefined) {
      const positive = this.directCondition(negated);
      return positive === undefined ? undefined : this.negate(positive);
    }
    const { width, result } = source;
    if (code === 'e') return this.isZero(result);
    if (code === 's') return this.signOf(width, result);
    if (source.kind === 'logic') {
      if (code === 'l') return this.signOf(width, result);
      return code === 'le' ? this.either(this.isZero(result), this.signOf(width, result)) : undefined;
    }
    switch (code) {
      case 'b':
        return this.compare(Op.I64_LT_U, source.a, source.b, 64);
      case 'be':
        return this.compare(Op.I64_LE_U, source.a, source.b, 64);
      case 'l':
        return this.compare(Op.I64_LT_S, source.a, source.b, width);
      case 'le':
        return this.compare(Op.I64_LE_S, source.a, source.b, width);
      default:
        return undefined;
    }
  }

  protected signOf(width: number, value: V): C {
    this.code
      .get(value)
      .i64(BigInt(width - 1))
      .op(Op.I64_SHR_U, Op.I32_WRAP_I64);
    return this.truth();
  }

  /** Compares two values as signed numbers of `width` bits (64 for unsigned ones of any width). */
  protected compare(opcode: number, a: V, b: V, width: number): C {
    const { code } = this;
    code.get(a);
    this.extendOnStack(width);
    code.get(b);
    this.extendOnStack(width);
    code.op(opcode);
    return this.truth();
  }

  protected cellCondition(code: ConditionCode): C {
    switch (code) {
      case 'o':
        return this.flag('of');
      case 'no':
        return this.negate(this.flag('of'));
      case 'b':
        return this.flag('cf');
      case 'ae':
        return this.negate(this.flag('cf'));
      case 'e':
        return this.flag('zf');
      case 'ne':
        return this.negate(this.flag('zf'));
      case 'be':
        return this.either(this.flag('cf'), this.flag('zf'));
      case 'a':
        return this.negate(this.condition('be'));
      case 's':
        return this.flag('sf');
      case 'ns':
        return this.negate(this.flag('sf'));
      case 'p':
        return this.flag('pf');
      case 'np':
        return this.negate(this.flag('pf'));
      case 'l':
        return this.less();
      case 'ge':
        return this.negate(this.less());
      case 'le':
        return this.either(this.flag('zf'), this.less());
      case 'g':
        return this.negate(this.condition('le'));
    }
  }

  /** SF ≠ OF: the sign of result ^ carries ^ carries << 1 ^ carries << 63. */
  protected less(): C {
    this.effects.readsFlags = true;
    const c = this.carries();
    const { code } = this;
    this.pushFlagResult();
    code.get(c).i64(63n).op(Op.I64_SHL, Op.I64_XOR);
    code.get(c).op(Op.I64_XOR).get(c).i64(1n).op(Op.I64_SHL, Op.I64_XOR).i64(0n).op(Op.I64_LT_S);
    return this.truth();
  }

  directionFlag(): C {
    this.code.i32(slotAddress(R.rflags)).memory(Op.I32_LOAD).i32(10).op(Op.I32_SHR_U).i32(1).op(Op.I32_AND);
    return this.truth();
  }
  setDirectionFlag(value: boolean): void {
    this.storeSystemFlag(0x400n, value);
  }
  systemFlags(): V {
    this.code.i32(slotAddress(R.rflags)).memory(Op.I64_LOAD).i64(~ARITHMETIC_FLAGS).op(Op.I64_AND);
    return this.result();
  }
  clearInterruptFlag(): void {
    this.storeSystemFlag(0x200n, false);
  }
  /** Flags that are not lazy stand in the register file. */
  private storeSystemFlag(flag: bigint, value: boolean): void {
    const { code } = this;
    code.i32(slotAddress(R.rflags)).i32(slotAddress(R.rflags)).memory(Op.I64_LOAD);
    if (value) code.i64(flag).op(Op.I64_OR);
    else code.i64(~flag).op(Op.I64_AND);
    code.memory(Op.I64_STORE);
  }

  arithmeticFlags(): V {
    const { code } = this;
    const bits = (['cf', 'pf', 'af', 'zf', 'sf', 'of'] as const).map((name) => this.flag(name));
    const places = [0, 2, 4, 6, 7, 11];
    bits.forEach((bit, index) => {
      code
        .get(bit)
        .i32(places[index] as number)
        .op(Op.I32_SHL);
      if (index > 0) code.op(Op.I32_OR);
    });
    code.op(Op.I64_EXTEND_I32_U);
    return this.result();
  }

  setArithmeticFlags(value: V): void {
    const { code } = this;
    const bitAt = (from: bigint): V => {
      code.get(value).i64(from).op(Op.I64_SHR_U).i64(1n).op(Op.I64_AND);
      return this.result();
    };
    const [cf, pf, af, zf, sf, of] = [0n, 2n, 4n, 6n, 7n, 11n].map(bitAt) as [V, V, V, V, V, V];
    this.storeFlagResult(() => code.get(zf).i64(1n).op(Op.I64_XOR));
    this.storeCarries(() => {
      code.get(cf).i64(63n).op(Op.I64_SHL);
      code.get(cf).get(of).op(Op.I64_XOR).i64(62n).op(Op.I64_SHL, Op.I64_OR);
      code.get(af).i64(3n).op(Op.I64_SHL, Op.I64_OR);
      code.get(sf).op(Op.I64_OR);
      code.get(zf).get(pf).op(Op.I64_XOR).i64(8n).op(Op.I64_SHL, Op.I64_OR);
    });
  }
}

/**
 * Which status flags an instruction leaves undefined: two processors may differ in them, and both be right.
 * Source: APM vol.3 appendix E Instruction Effects on RFLAGS.
 */
import { Flag } from '../../machine/index.js';

const { CF, PF, AF, ZF, SF, OF } = Flag;
export const STATUS_FLAGS = CF | PF | AF | ZF | SF | OF;

/** Of the status flags: what an instruction sets by a rule, and what to nobody knows what. */
interface Effect {
  readonly sets: bigint;
  readonly leaves: bigint;
}

const effect = (leaves: bigint, sets = STATUS_FLAGS & ~leaves): Effect => ({ sets, leaves });

const entries = (mnemonics: string, what: Effect): readonly (readonly [string, Effect])[] =>
  mnemonics.split(' ').map((mnemonic) => [mnemonic, what] as const);

const EFFECTS: ReadonlyMap<string, Effect> = new Map([
  ...entries(
    'add adc sub sbb cmp neg xadd cmpxchg popf popfw popfd popfq sahf comiss comisd ucomiss ucomisd',
    effect(0n),
  ),
  ...entries('cmpsb cmpsw cmpsd cmpsq scasb scasw scasd scasq ptest popcnt fcomi fucomi fcomip fucomip', effect(0n)),
  ...entries('inc dec', effect(0n, STATUS_FLAGS & ~CF)),
  ...entries('clc stc cmc', effect(0n, CF)),
  ...entries('cmpxchg8b cmpxchg16b arpl lar lsl verr verw', effect(0n, ZF)),
  ...entries('and or xor test', effect(AF)),
  // OF is defined for a count of 1 alone, AF never; the count is not looked at.
  ...entries('shl sal shr sar shld shrd', effect(AF | OF)),
  ...entries('rol ror rcl rcr', effect(OF, CF)),
  ...entries('mul imul', effect(SF | ZF | AF | PF)),
  ...entries('div idiv', effect(STATUS_FLAGS)),
  ...entries('bsf bsr', effect(STATUS_FLAGS & ~ZF)),
  ...entries('bt bts btr btc', effect(OF | SF | AF | PF, CF)),
  ...entries('lzcnt tzcnt', effect(OF | SF | AF | PF)),
  ...entries('andn blsi blsmsk blsr bzhi', effect(AF | PF)),
  ...entries('bextr', effect(AF | SF | PF)),
  ...entries('daa das', effect(OF)),
  ...entries('aaa aas', effect(OF | SF | ZF | PF)),
  ...entries('aam aad', effect(OF | AF | CF)),
]);

const PREFIXES: ReadonlySet<string> = new Set(['lock', 'rep', 'repe', 'repne', 'repz', 'repnz']);

/** Whether the instructions, the last ones first, leave all of these flags undefined; what sets a flag last has the word. */
export function leaveUndefined(latest: Iterable<{ readonly text: string }>, flags: bigint): boolean {
  let left = flags;
  for (const { text } of latest) {
    const words = text.split(' ');
    const found = EFFECTS.get(words.find((word) => !PREFIXES.has(word)) ?? '');
    if (found === undefined) continue;
    if ((found.sets & left) !== 0n) return false;
    left &= ~found.leaves;
    if (left === 0n) return true;
  }
  return false;
}

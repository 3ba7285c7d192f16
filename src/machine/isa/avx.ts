/**
 * AVX and AVX2: the instructions that SSE has too, by groups that become VEX forms in the same way (`avx-derived.ts`).
 * Source: APM vol.4, the page of each instruction; appendix A of APM vol.3 for the vector lengths.
 */
import { invariant } from '../errors.js';
import { type Derivation, derive } from './avx-derived.js';
import type { Instruction, PlainInstruction } from './instruction.js';
import { SSE_CRYPTO_INSTRUCTIONS } from './sse-crypto.js';
import { comparisons, SSE_FLOAT_INSTRUCTIONS } from './sse-fp.js';
import { SSE_INTEGER_INSTRUCTIONS } from './sse-int.js';
import { SSE_LATER_INTEGER_INSTRUCTIONS } from './sse-int-later.js';
import { SSE_MOVE_INSTRUCTIONS } from './sse-move.js';
import { SSE_SHUFFLE_INSTRUCTIONS } from './sse-shuffle.js';
import { SSE_STRING_INSTRUCTIONS } from './sse-string.js';

const SSE: readonly Instruction[] = [
  ...SSE_MOVE_INSTRUCTIONS,
  ...SSE_INTEGER_INSTRUCTIONS,
  ...SSE_LATER_INTEGER_INSTRUCTIONS,
  ...SSE_SHUFFLE_INSTRUCTIONS,
  ...SSE_FLOAT_INSTRUCTIONS,
  ...SSE_STRING_INSTRUCTIONS,
  ...SSE_CRYPTO_INSTRUCTIONS,
];

const isPlain = (described: Instruction): described is PlainInstruction => 'semantics' in described;

/** All descriptions with one of these mnemonics, a few have two, and their forms that `accepts` takes. */
function group(
  mnemonics: string,
  derivation: Derivation,
  accepts: (form: string) => boolean = () => true,
): readonly Instruction[] {
  return mnemonics.split(/\s+/).flatMap((mnemonic) => {
    const found = SSE.filter(isPlain).filter((sse) => sse.mnemonic === mnemonic && sse.forms.some(accepts));
    invariant(found.length > 0, `there is no SSE instruction ${mnemonic}`);
    return found.flatMap((sse) => derive(sse, derivation, sse.forms.filter(accepts)));
  });
}

/** The one description with this mnemonic, in forms of its own. */
function reformed(mnemonic: string, derivation: Derivation, ...forms: readonly string[]): readonly Instruction[] {
  const sse = SSE.filter(isPlain).find((described) => described.mnemonic === mnemonic);
  invariant(sse !== undefined, `there is no SSE instruction ${mnemonic}`);
  return derive(sse, derivation, forms);
}

const THREE: Derivation = { operands: 'three', length: 'L0 L1' };
const THREE_OF_INTEGERS: Derivation = { ...THREE, wide: 'avx2' };
const TWO: Derivation = { operands: 'two', length: 'L0 L1' };
const TWO_OF_INTEGERS: Derivation = { ...TWO, wide: 'avx2' };
const MOVE: Derivation = { operands: 'move', length: 'L0 L1' };
const MOVE_128: Derivation = { ...MOVE, length: 'L0' };
const MOVE_SCALAR: Derivation = { ...MOVE, length: 'LIG' };

const FLOATING_POINT = [
  ...group(
    `ADDPS ADDPD MULPS MULPD SUBPS SUBPD MINPS MINPD DIVPS DIVPD MAXPS MAXPD HADDPS HADDPD HSUBPS HSUBPD ADDSUBPS
    ADDSUBPD DPPS`,
    THREE,
  ),
  ...group('DPPD', { ...THREE, length: 'L0' }),
  ...group(
    `ADDSS ADDSD MULSS MULSD SUBSS SUBSD MINSS MINSD DIVSS DIVSD MAXSS MAXSD SQRTSS SQRTSD RSQRTSS RCPSS ROUNDSS
    ROUNDSD CVTSS2SD CVTSD2SS CVTSI2SS CVTSI2SD`,
    { ...THREE, length: 'LIG' },
  ),
  ...comparisons(31n)
    .filter(isPlain)
    .flatMap((sse) => derive(sse, { ...THREE, length: sse.mnemonic.startsWith('CMPS') ? 'LIG' : 'L0 L1' })),
  ...group('SQRTPS SQRTPD RSQRTPS RCPPS ROUNDPS ROUNDPD CVTDQ2PS CVTPS2DQ CVTTPS2DQ', TWO),
  ...group('CVTPS2PD CVTDQ2PD', { ...TWO, sources: 'packed' }),
  ...group('CVTPD2PS CVTPD2DQ CVTTPD2DQ', { ...TWO, packsResult: true }),
  ...group('UCOMISS UCOMISD COMISS COMISD CVTTSS2SI CVTSS2SI CVTTSD2SI CVTSD2SI', MOVE_SCALAR),
];

const BITWISE_AND_SHUFFLES = [
  ...group('ANDPS ANDPD ANDNPS ANDNPD ORPS ORPD XORPS XORPD UNPCKLPS UNPCKLPD UNPCKHPS UNPCKHPD SHUFPS', THREE),
  ...group('SHUFPD BLENDPD', { ...THREE, immediateStep: 2 }),
  ...group('BLENDPS', { ...THREE, immediateStep: 4 }),
  ...reformed('BLENDVPS', THREE, '66 0F 3A 4A /r: Vdq, Wdq, Ldq [w0]'),
  ...reformed('BLENDVPD', THREE, '66 0F 3A 4B /r: Vdq, Wdq, Ldq [w0]'),
  ...reformed('PBLENDVB', THREE_OF_INTEGERS, '66 0F 3A 4C /r: Vdq, Wdq, Ldq [w0]'),
  ...group('MOVSLDUP MOVSHDUP', TWO),
  ...reformed('MOVDDUP', { ...TWO, length: 'L0' }, 'F2 0F 12 /r: Vdq, Wq'),
  ...reformed('MOVDDUP', { ...TWO, length: 'L1' }, 'F2 0F 12 /r: Vdq, Wdq'),
  ...group('INSERTPS', { ...THREE, length: 'L0' }),
];

const INTEGERS = [
  ...group(
    `PAND PANDN POR PXOR PADDB PADDW PADDD PADDQ PADDSB PADDSW PADDUSB PADDUSW PSUBB PSUBW PSUBD PSUBQ PSUBSB PSUBSW
    PSUBUSB PSUBUSW PCMPEQB PCMPEQW PCMPEQD PCMPEQQ PCMPGTB PCMPGTW PCMPGTD PCMPGTQ PMINUB PMINUW PMINUD PMINSB PMINSW
    PMINSD PMAXUB PMAXUW PMAXUD PMAXSB PMAXSW PMAXSD PAVGB PAVGW PMULLW PMULLD PMULHW PMULHUW PMULHRSW PMULUDQ PMULDQ
    PMADDWD PMADDUBSW PSADBW PACKSSWB PACKUSWB PACKSSDW PACKUSDW PUNPCKLBW PUNPCKLWD PUNPCKLDQ PUNPCKLQDQ PUNPCKHBW
    PUNPCKHWD PUNPCKHDQ PUNPCKHQDQ PHADDW PHADDD PHADDSW PHSUBW PHSUBD PHSUBSW PSIGNB PSIGNW PSIGND PSHUFB PALIGNR
    PBLENDW PSRLDQ PSLLDQ`,
    THREE_OF_INTEGERS,
  ),
  ...group('PSRLW PSRLD PSRLQ PSRAW PSRAD PSLLW PSLLD PSLLQ', { ...THREE_OF_INTEGERS, sources: 'same' }),
  ...group('MPSADBW', { ...THREE_OF_INTEGERS, immediateStep: 3 }),
  ...group('PABSB PABSW PABSD PSHUFD PSHUFLW PSHUFHW', TWO_OF_INTEGERS),
  ...group(
    `PMOVSXBW PMOVSXBD PMOVSXBQ PMOVSXWD PMOVSXWQ PMOVSXDQ PMOVZXBW PMOVZXBD PMOVZXBQ PMOVZXWD PMOVZXWQ PMOVZXDQ`,
    { ...TWO_OF_INTEGERS, sources: 'packed' },
  ),
  ...group('PHMINPOSUW', { ...TWO, length: 'L0' }),
  ...group('PINSRB PINSRW PINSRD', { ...THREE, length: 'L0' }),
  ...group('PEXTRB PEXTRW PEXTRD EXTRACTPS PCMPESTRM PCMPESTRI PCMPISTRM PCMPISTRI', MOVE_128),
  ...group('PTEST MOVMSKPS MOVMSKPD', MOVE),
  ...group('PMOVMSKB', { ...MOVE, wide: 'avx2' }),
];

const loads = (form: string): boolean => /: V/.test(form);
const stores = (form: string): boolean => /: M/.test(form);

const MOVES = [
  ...group('MOVUPS MOVUPD MOVDQU LDDQU', MOVE),
  ...group('MOVAPS MOVAPD MOVDQA MOVNTPS MOVNTPD MOVNTDQ', { ...MOVE, aligned: true }),
  ...group('MOVNTDQA', { ...MOVE, aligned: true, wide: 'avx2' }),
  ...group('MOVD MOVQ MASKMOVDQU', MOVE_128),
  ...group('MOVLPS MOVLPD MOVHPS MOVHPD MOVHLPS MOVLHPS', { ...THREE, length: 'L0' }, loads),
  ...group('MOVLPS MOVLPD MOVHPS MOVHPD', MOVE_128, stores),
  ...reformed('MOVSS', MOVE_SCALAR, 'F3 0F 10 /r: Vdq, Md', 'F3 0F 11 /r: Md, Vd'),
  ...reformed('MOVSD', MOVE_SCALAR, 'F2 0F 10 /r: Vdq, Mq', 'F2 0F 11 /r: Mq, Vq'),
];

/** Between registers MOVSS and MOVSD have three operands; the first is ModRM.reg or, in the other direction, ModRM.rm. */
const SCALAR_MOVES = [
  ...reformed('MOVSS', { ...THREE, length: 'LIG' }, 'F3 0F 10 /r: Vd, Ud', 'F3 0F 11 /r: Ud, Vd'),
  ...reformed('MOVSD', { ...THREE, length: 'LIG' }, 'F2 0F 10 /r: Vq, Uq', 'F2 0F 11 /r: Uq, Vq'),
];

const CRYPTOGRAPHY = [
  ...group('AESENC AESENCLAST AESDEC AESDECLAST PCLMULQDQ', { ...THREE, length: 'L0' }),
  ...group('AESIMC AESKEYGENASSIST', { ...TWO, length: 'L0' }),
];

export const AVX_DERIVED_INSTRUCTIONS: readonly Instruction[] = [
  ...MOVES,
  ...SCALAR_MOVES,
  ...BITWISE_AND_SHUFFLES,
  ...FLOATING_POINT,
  ...INTEGERS,
  ...CRYPTOGRAPHY,
];

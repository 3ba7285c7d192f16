/** Transcendental functions: true values, special operands, and how they meet. APM vol.1 §6.4.4, APM vol.5. */
import { describe, expect, it } from 'vitest';
import type { Unpacked } from '../../../src/machine/fp/format.js';
import { DE, IE, PE, UE, ZE } from '../../../src/machine/fp/rounding.js';
import { registerOperand } from '../../../src/machine/fp/x87.js';
import { constant } from '../../../src/machine/fp/x87-constants.js';
import { type X87Environment, x87Environment } from '../../../src/machine/fp/x87-rounding.js';
import {
  arctangentOf,
  cosine,
  isAngleTooLarge,
  logarithmOfSumTimes,
  logarithmTimes,
  powerOfTwoLessOne,
  sine,
  tangent,
} from '../../../src/machine/fp/x87-transcendental.js';

const FUNCTIONS: Readonly<Record<string, (x: Unpacked, y: Unpacked, env: X87Environment) => bigint>> = {
  sine: (x, _, env) => sine(x, env),
  cosine: (x, _, env) => cosine(x, env),
  tangent: (x, _, env) => tangent(x, env),
  powerOfTwoLessOne: (x, _, env) => powerOfTwoLessOne(x, env),
  arctangentOf,
  logarithmTimes,
  logarithmOfSumTimes,
};

function compute(
  name: string,
  rounding: number,
  operands: readonly bigint[],
): { readonly bits: bigint; readonly flags: number } {
  const env = x87Environment(0x33f | (rounding << 10));
  const [x, y] = [operands[0] as bigint, operands[1] ?? 0n].map(registerOperand) as [Unpacked, Unpacked];
  const bits = (FUNCTIONS[name] as (typeof FUNCTIONS)[string])(x, y, env);
  return { bits, flags: env.flags };
}

/** Function, rounding control, operands (y before x), and the true value rounded, computed with 600 bits elsewhere. Angles reduced by π of 66 bits. */
const TRUE_VALUES: readonly (readonly [string, number, readonly bigint[], bigint])[] = [
  ['sine', 2, [0x400395c92e064713b9aan], 0xbffc8102f8fc28dec7fcn],
  ['sine', 2, [0x3fe9eb5c6fce326f1a50n], 0x3fe9eb5c6fce3266d047n],
  ['sine', 2, [0xbfba97252629a548fc29n], 0xbfba97252629a548fc28n],
  ['sine', 3, [0x3682ec99f192c66175ban], 0x3682ec99f192c66175b9n],
  ['sine', 2, [0x3ffdae28e496e9cf1bedn], 0x3ffdaad21061e5a57bacn],
  ['sine', 1, [0xbffdd7758b0debebaa21n], 0xbffdd127f00202dc3ccfn],
  ['sine', 1, [0x4038a8d7cf76b4af2fe3n], 0xbffed8eb14e106fd8f03n],
  ['sine', 2, [0x4002b77200246bbf7718n], 0xbffee44500fc3fddc8b9n],
  ['cosine', 1, [0x400fd9b3369a1205f7c1n], 0x3ffd926b524513a929c3n],
  ['cosine', 0, [0xc002b1bebea65ac2d27fn], 0x3ffbe7f002db84e23f28n],
  ['cosine', 3, [0x4039a13773611c2b87afn], 0x3ffec33d552459266510n],
  ['cosine', 1, [0x3fe3be06f131b1a300e6n], 0x3ffefffffffffffffee5n],
  ['cosine', 3, [0x3fd9d10b4bb8ee14fd3an], 0x3ffeffffffffffffffffn],
  ['cosine', 2, [0x3ff5d5e041ad74091282n], 0x3ffeffffe9aa221b70bbn],
  ['cosine', 2, [0xbffce0639ce86b5e59e2n], 0x3ffef9e0d572afada861n],
  ['cosine', 2, [0x3fe69747e81a2ab0d819n], 0x3ffeffffffffffffd34en],
  ['tangent', 1, [0xbfebb123522346a72449n], 0xbfebb12352234718394dn],
  ['tangent', 1, [0xc000df213629e6a61749n], 0xbffdb7e37953f9e907ecn],
  ['tangent', 0, [0x3fafe500000000000000n], 0x3fafe500000000000000n],
  ['tangent', 0, [0xc002e0baa8a504573235n], 0xc002ae3101030739a156n],
  ['tangent', 0, [0xc004887ac0e30e450a4cn], 0x3ffdef911de32dd844a7n],
  ['tangent', 2, [0xbfbcf539ea5c3bf3fb2cn], 0xbfbcf539ea5c3bf3fb2cn],
  ['tangent', 1, [0xc03ba1caec0c9c777031n], 0x400089bedc10f724a66fn],
  ['tangent', 0, [0x40018668aac8fa8c132bn], 0x3fffe3b40929f6257019n],
  ['arctangentOf', 0, [0xc048f7550573fd7737fcn, 0x4013b6da7f37d1c542ban], 0xbfffc90fdaa22168bf40n],
  ['arctangentOf', 0, [0xbfc793ab7918cb57d16bn, 0xc057dd8ece0e5f00ae7fn], 0xc000c90fdaa22168c235n],
  ['arctangentOf', 0, [0x400fd2fa2df0fd8db52an, 0x402da665f527c5869200n], 0x3fe1a24ab92c47b011ddn],
  ['arctangentOf', 3, [0x4005f394abd9c20e9878n, 0xc01ad5501cc65398179bn], 0x4000c90fd8597b17047fn],
  ['arctangentOf', 1, [0x4004c7dcb4fbe31f36b5n, 0x3fc5e600000000000000n], 0x3fffc90fdaa22168c233n],
  ['arctangentOf', 0, [0xbfabcd2bd91de7ff7dfan, 0xc01aa400000000000000n], 0xc000c90fdaa22168c235n],
  ['arctangentOf', 1, [0x3ffee300000000000000n, 0xbfffae9c9e408eaa98ccn], 0x4000a42c5e485b72a97cn],
  ['arctangentOf', 2, [0xbffde3b209adfa19bc2an, 0x3fffe243abbe940019een], 0xbffcfc61ac453ed474e0n],
  ['powerOfTwoLessOne', 3, [0xbff79579abd3ab80b5f7n], 0xbff6cee3b52de7547681n],
  ['powerOfTwoLessOne', 1, [0x3fb18d95b48907b1858an], 0x3fb0c447377d4c154409n],
  ['powerOfTwoLessOne', 3, [0xbfbafb01c2190cbc3e88n], 0xbfbaadfc157be5d0368en],
  ['powerOfTwoLessOne', 2, [0x3fd0a0790f18f7d1c1ebn], 0x3fcfde7670be6a48ebf7n],
  ['powerOfTwoLessOne', 0, [0xbfc199216a7e2fba0110n], 0xbfc0d448b3b1d100a8afn],
  ['powerOfTwoLessOne', 1, [0x3fcff6e5ef28a797a27en], 0x3fcfab2303dd46ab2414n],
  ['powerOfTwoLessOne', 1, [0xbfdeaf00000000000000n], 0xbfddf299fcc4975fc8b8n],
  ['powerOfTwoLessOne', 3, [0x3feacc6db4779e2ebdcfn], 0x3fea8db2f8384743c735n],
  ['logarithmTimes', 2, [0xc0068900000000000000n, 0x3fe2b6ea7d77e50e61adn], 0x400af3e709cc45719207n],
  ['logarithmTimes', 0, [0x3feed43f7264eec5f730n, 0x3ffeec83285b2dc46bc7n], 0xbfebc1f533f7ca1fae78n],
  ['logarithmTimes', 0, [0xc024f2a147d189fd9236n, 0x3fd58b48bd78836e4490n], 0x402a9ec38be0a8da2169n],
  ['logarithmTimes', 2, [0x4015ed80000000000000n, 0x3ffeb0ad56f314f4dd2en], 0xc014fe237d0a7337a1c3n],
  ['logarithmTimes', 0, [0x9d8e8e00000000000000n, 0x6dd3cd5d1794a0547f87n], 0x9d9bcb5fc6cb436def87n],
  ['logarithmTimes', 2, [0x7720b386ce594e77ef6bn, 0x4fa7fa08254c88afbc86n], 0x772cafb63f9615df9f41n],
  ['logarithmTimes', 1, [0x3fdec480000000000000n, 0x3fe8c98a9ce6cf192768n], 0xbfe3893672137b7e0e21n],
  ['logarithmTimes', 1, [0xbfd1bd39db7c2ae7b5fan, 0x3fd4e3c77e3cc9e249f7n], 0x3fd6f95b068c67649cc4n],
  ['logarithmOfSumTimes', 2, [0xc02ced4662da5cb77c58n, 0xbfe0f95d8b461f78588fn], 0x400fa6b8ced337750971n],
  ['logarithmOfSumTimes', 1, [0xbff7f2fb8669194a865en, 0xbfd6f66d2b3c481f74e6n], 0x3fd0a8b85ac34e0b3008n],
  ['logarithmOfSumTimes', 2, [0xc02ed8afb26e525bfa40n, 0xbfdc9c3cf8ffad712961n], 0x400cbec9f893c6c4c335n],
  ['logarithmOfSumTimes', 1, [0x4019f6cde7ef3e61de66n, 0xbfbd9188d8e23919d0d8n], 0xbfd8ca6b868800f3ea49n],
  ['logarithmOfSumTimes', 3, [0xbff5e621ceaec4b46951n, 0xbfebef58b0ef9ff06d3an], 0x3fe39b34c9dba75db5c6n],
  ['logarithmOfSumTimes', 3, [0x3fcfbcae982a614e077cn, 0xbfd3b91d1e4c524b9548n], 0xbfa4c4d5ec4d7f463524n],
  ['logarithmOfSumTimes', 3, [0xc019f1b1e8cdd272ca27n, 0xbfc3bdd64b6fcc0514adn], 0x3fdf814959274c9706d6n],
  ['logarithmOfSumTimes', 0, [0xc00d84c66dcc3dee2f90n, 0x3fc2d10ada6bfee6221en], 0xbfd19c6ae806c1c7c1den],
];

const ZERO = 0n;
const MINUS = 1n << 79n;
const ONE = 0x3fff_8000_0000_0000_0000n;
const TWO = 0x4000_8000_0000_0000_0000n;
const HALF = 0x3ffe_8000_0000_0000_0000n;
const INFINITY = 0x7fff_8000_0000_0000_0000n;
const INDEFINITE = 0xffff_c000_0000_0000_0000n;
const DENORMAL = 1n;
const PI = 0x4000_c90f_daa2_2168_c235n;
const exponentMoved = (bits: bigint, by: bigint): bigint => bits + (by << 64n);

describe('transcendental functions', () => {
  it.each(TRUE_VALUES)('%s with rounding control %i of %o', (name, rounding, operands, expected) => {
    expect(compute(name, rounding, operands)).toEqual({ bits: expected, flags: PE });
  });

  it.each([
    ['sine', [ZERO], ZERO, 0],
    ['sine', [MINUS], MINUS, 0],
    ['sine', [INFINITY], INDEFINITE, IE],
    ['sine', [DENORMAL], DENORMAL, DE | UE | PE],
    ['sine', [PI], 0xbfbf_8000_0000_0000_0000n, PE],
    ['cosine', [MINUS], ONE, 0],
    ['tangent', [MINUS], MINUS, 0],
    ['powerOfTwoLessOne', [MINUS | ONE], MINUS | HALF, PE],
    ['powerOfTwoLessOne', [MINUS | INFINITY], MINUS | ONE, 0],
    ['powerOfTwoLessOne', [INFINITY], INFINITY, 0],
    ['powerOfTwoLessOne', [TWO], TWO, PE],
    ['arctangentOf', [ZERO, ONE], ZERO, 0],
    ['arctangentOf', [MINUS, MINUS], MINUS | PI, PE],
    ['arctangentOf', [ONE, ZERO], exponentMoved(PI, -1n), PE],
    ['arctangentOf', [MINUS | INFINITY, INFINITY], MINUS | exponentMoved(PI, -2n), PE],
    ['arctangentOf', [ONE, MINUS | INFINITY], PI, PE],
    ['arctangentOf', [ONE, ONE], exponentMoved(PI, -2n), PE],
    ['logarithmTimes', [TWO, ONE], ZERO, 0],
    ['logarithmTimes', [TWO, HALF], MINUS | TWO, PE],
    ['logarithmTimes', [ONE, ZERO], MINUS | INFINITY, ZE],
    ['logarithmTimes', [ZERO, ZERO], INDEFINITE, IE],
    ['logarithmTimes', [INFINITY, ONE], INDEFINITE, IE],
    ['logarithmTimes', [INFINITY, HALF], MINUS | INFINITY, 0],
    ['logarithmTimes', [ZERO, INFINITY], INDEFINITE, IE],
    ['logarithmTimes', [ONE, MINUS | ONE], INDEFINITE, IE],
    ['logarithmOfSumTimes', [ONE, MINUS], MINUS, 0],
    ['logarithmOfSumTimes', [TWO, ONE], TWO, PE],
    ['logarithmOfSumTimes', [INFINITY, ZERO], INDEFINITE, IE],
    ['logarithmOfSumTimes', [ONE, MINUS | INFINITY], INDEFINITE, IE],
  ] as const)('%s of %o', (name, operands, bits, flags) => {
    expect(compute(name, 0, operands)).toEqual({ bits, flags });
  });

  it('refuse angles from 2^63 on (APM vol.5, FSIN)', () => {
    expect(isAngleTooLarge(registerOperand(exponentMoved(ONE, 63n)))).toBe(true);
    expect(isAngleTooLarge(registerOperand(exponentMoved(ONE, 63n) - 1n))).toBe(false);
    expect(isAngleTooLarge(registerOperand(INFINITY))).toBe(false);
  });
});

describe('constants (APM vol.5, FLDPI and its kin)', () => {
  it.each([
    ['one', 0, ONE],
    ['zero', 0, ZERO],
    ['pi', 0, PI],
    ['pi', 1, PI - 1n],
    ['pi', 2, PI],
    ['log2of10', 0, 0x4000_d49a_784b_cd1b_8afen],
    ['log2of10', 2, 0x4000_d49a_784b_cd1b_8affn],
    ['log2ofE', 0, 0x3fff_b8aa_3b29_5c17_f0bcn],
    ['log10of2', 0, 0x3ffd_9a20_9a84_fbcf_f799n],
    ['ln2', 0, 0x3ffe_b172_17f7_d1cf_79acn],
    ['ln2', 3, 0x3ffe_b172_17f7_d1cf_79abn],
  ] as const)('%s with rounding control %i', (name, rounding, bits) => {
    expect(constant(name, rounding)).toBe(bits);
  });
});

/** Random numbers from a seed (sfc32, seeded by SplitMix64): the same on every host, and fast enough to make code with. */

const TWO_32 = 0x1_0000_0000;

export class Random {
  private a: number;
  private b: number;
  private c: number;
  private counter: number;

  constructor(seed: bigint) {
    const [first, second] = [splitMix(seed), splitMix(seed + GOLDEN)];
    this.a = Number(first & 0xffff_ffffn) | 0;
    this.b = Number(first >> 32n) | 0;
    this.c = Number(second & 0xffff_ffffn) | 0;
    this.counter = Number(second >> 32n) | 0;
    for (let round = 0; round < 12; round++) this.next32();
  }

  /** 0 to 2^32 - 1. */
  next32(): number {
    const sum = (this.a + this.b + this.counter) | 0;
    this.counter = (this.counter + 1) | 0;
    this.a = this.b ^ (this.b >>> 9);
    this.b = (this.c + (this.c << 3)) | 0;
    this.c = (((this.c << 21) | (this.c >>> 11)) + sum) | 0;
    return sum >>> 0;
  }
  next64(): bigint {
    return (BigInt(this.next32()) << 32n) | BigInt(this.next32());
  }
  /** 0 to `limit` - 1. @param limit at most 2^21. */
  below(limit: number): number {
    return Math.floor((this.next32() * limit) / TWO_32);
  }
  /** True once in `times`. */
  oneIn(times: number): boolean {
    return this.below(times) === 0;
  }
  pick<Item>(items: readonly Item[]): Item {
    return items[this.below(items.length)] as Item;
  }
  /** One of `choices`, each as often as its weight says. */
  weighted<Item>(choices: readonly (readonly [weight: number, item: Item])[]): Item {
    let left = this.below(choices.reduce((sum, [weight]) => sum + weight, 0));
    for (const [weight, item] of choices) {
      left -= weight;
      if (left < 0) return item;
    }
    throw new RangeError('nothing to choose from');
  }
}

const GOLDEN = 0x9e37_79b9_7f4a_7c15n;

function splitMix(state: bigint): bigint {
  let z = BigInt.asUintN(64, state + GOLDEN);
  z = BigInt.asUintN(64, (z ^ (z >> 30n)) * 0xbf58_476d_1ce4_e5b9n);
  z = BigInt.asUintN(64, (z ^ (z >> 27n)) * 0x94d0_49bb_1331_11ebn);
  return z ^ (z >> 31n);
}

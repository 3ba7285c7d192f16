/** Random numbers from a seed, the same on every host. Source: Steele, Lea and Flood, Fast Splittable Pseudorandom Number Generators. */

export interface Range {
  readonly least: number;
  readonly most: number;
}

export class SplitMix64 {
  constructor(private state: bigint) {}

  private next(): bigint {
    this.state = BigInt.asUintN(64, this.state + 0x9e37_79b9_7f4a_7c15n);
    let z = this.state;
    z = BigInt.asUintN(64, (z ^ (z >> 30n)) * 0xbf58_476d_1ce4_e5b9n);
    z = BigInt.asUintN(64, (z ^ (z >> 27n)) * 0x94d0_49bb_1331_11ebn);
    return z ^ (z >> 31n);
  }

  below(count: number): number {
    return Number(this.next() % BigInt(count));
  }

  /** Small numbers as likely as large ones: each octave of the range has the same share. */
  spread({ least, most }: Range): number {
    const octaves = 32 - Math.clz32(Math.floor(most / least));
    const low = least * 2 ** this.below(octaves);
    return Math.min(most, low + this.below(low));
  }

  /** The same items in an order of chance, each order as likely. */
  shuffled<Item>(items: readonly Item[]): Item[] {
    const left = [...items];
    return items.map(() => left.splice(this.below(left.length), 1)[0] as Item);
  }
}

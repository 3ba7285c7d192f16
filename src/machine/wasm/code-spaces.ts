/**
 * Numbers of address spaces, for the jump cache: a space is one for as long as its tables are the same, and in legacy modes its
 * code segment. A flush makes it have new ones, so that its entries match no more.
 */
export class CodeSpaces {
  /** Of each address space, by what its code depends on. */
  private readonly numbers = new Map<number, Map<string, number>>();
  private next = FIRST;

  /** @param end numbers are less. @param onEnd all are used: from now on they mean something else. */
  constructor(
    private readonly end: number,
    private readonly onEnd: () => void,
  ) {}

  /** @param addressSpace an ASID of a vCPU. @param code what the place of code follows from. */
  numberOf(addressSpace: number, code: string): number {
    const known = this.numbers.get(addressSpace)?.get(code);
    if (known !== undefined) return known;
    if (this.next >= this.end) {
      this.onEnd();
      this.numbers.clear();
      this.next = FIRST;
    }
    const number = this.next++;
    const spaces = this.numbers.get(addressSpace);
    if (spaces === undefined) this.numbers.set(addressSpace, new Map([[code, number]]));
    else spaces.set(code, number);
    return number;
  }

  /** @param addressSpace undefined for all. */
  drop(addressSpace: number | undefined): void {
    if (addressSpace === undefined) this.numbers.clear();
    else this.numbers.delete(addressSpace);
  }
}

/** An entry that leads nowhere has 0. */
const FIRST = 1;

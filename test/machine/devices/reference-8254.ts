/**
 * One counter of the 8254 as the data sheet tells it, a clock pulse at a time: count register, counting element, OUT.
 * Slow and obvious; `pit-8254.prop.test.ts` holds the device against it.
 */
export class ReferenceCounter {
  out: boolean;
  /** The counting element, 0 … 9999 or 65535; undefined before it was first loaded. */
  element: number | undefined;
  nullCount = true;
  private register: number | undefined;
  private loadsNext = false;
  private triggered = false;
  /** Mode 0: half of a new count was written. */
  private stopped = false;
  /** Modes 4 and 5: the strobe of the running count is still to come. */
  private armed = false;
  /** Mode 3: the running count is odd. */
  private odd = false;

  constructor(
    readonly mode: number,
    readonly bcd: boolean,
    private gate: boolean,
  ) {
    this.out = mode !== 0;
  }

  writeFirstByte(): void {
    if (this.mode !== 0 || this.register === undefined) return;
    this.stopped = true;
    this.out = false;
  }

  /** @param count as a number; 0 is the largest, for it is counted down through 65535 or 9999. */
  writeCount(count: number): void {
    const first = this.register === undefined;
    this.register = count;
    this.nullCount = true;
    if (this.mode === 0) {
      this.out = false;
      this.stopped = false;
    }
    if (this.mode === 0 || this.mode === 4) this.loadsNext = true;
    if ((this.mode === 2 || this.mode === 3) && first) this.loadsNext = true;
  }

  setGate(gate: boolean): void {
    if (gate && !this.gate && this.register !== undefined && this.mode !== 0 && this.mode !== 4) this.triggered = true;
    if (!gate && (this.mode === 2 || this.mode === 3)) this.out = true;
    this.gate = gate;
  }

  /** One pulse of the clock. */
  clock(): void {
    if (this.loadsNext || this.triggered) {
      this.load();
      this.out = this.mode !== 0 && this.mode !== 1;
      this.armed = true;
      this.loadsNext = false;
      this.triggered = false;
      return;
    }
    if (this.mode === 4 || this.mode === 5) this.out = true;
    const counts = this.gate || this.mode === 1 || this.mode === 5;
    if (this.element === undefined || !counts || this.stopped) return;
    if (this.mode === 2) this.countRate();
    else if (this.mode === 3) this.countSquare();
    else this.countDown();
  }

  private load(): void {
    const count = this.register as number;
    this.odd = this.mode === 3 && count % 2 === 1;
    this.element = this.odd ? count - 1 : count;
    this.nullCount = false;
  }

  private decrement(by: number): number {
    const modulus = this.bcd ? 10_000 : 65_536;
    this.element = ((this.element as number) - by + modulus) % modulus;
    return this.element;
  }

  private countDown(): void {
    if (this.decrement(1) !== 0) return;
    if (this.mode < 4) this.out = true;
    else if (this.armed) this.out = false;
    this.armed = false;
  }

  private countRate(): void {
    if (this.element === 1) {
      this.load();
      this.out = true;
    } else if (this.decrement(1) === 1) this.out = false;
  }

  private countSquare(): void {
    const expires = this.odd && this.out ? this.element === 0 : this.element === 2;
    if (expires) {
      this.load();
      this.out = !this.out;
    } else this.decrement(2);
  }
}

/**
 * What packer and unpacker know of a chunk so far, and what they expect of it: see packing.ts.
 *
 * A *value* is a 64-bit number, kept as two 32-bit halves. A *location* is where values are looked for: a register of a vCPU, a
 * word of a VMCB, a field of an event type. Two that share a number mislead a prediction and nothing else.
 */

/** How a value of an event is encoded; see codec.ts. */
export const TYPE = { NONE: 0, INTEGER: 1, UNSIGNED: 2, OTHER: 3 } as const;

/** What is said of a value that is not as it was expected. */
export const CODE = {
  EXPECTED: 0,
  /** An item of a list is not there: the register or word holds what it held. */
  ABSENT: 1,
  /** As the expectation of this way says: see WAY. */
  WAYS: 2,
  /** What a location holds, whose number follows. */
  LOCATION: 5,
  /** One of the last values that were told by a difference; how many of them lie between follows. */
  RECENT: 6,
  /** The difference to the last value follows in so many bytes, 0 to 8. */
  DIFFERENCE: 7,
  /** It is of another type, which follows; then the value. */
  TYPE: 16,
} as const;

/** Ways to expect a value: the last one there; as far from it as it was from the one before; what a location holds. */
const WAY = { LAST: 0, STEP: 1, LOCATION: 2 } as const;

/** Words of a prediction. */
const ID = 0;
const LAST = 1;
const STEP = 3;
const LINK = 5;
const WAY_TAKEN = 6;
const TYPE_SEEN = 7;
export const PREDICTION = 8;

const LOCATIONS = 1 << 14;
const VALUES = 1 << 12;
const RECENT = 1 << 8;
/** Values below this are everywhere: where one stands says nothing. */
const TELLING = 0x100;
/** vCPUs and levels of events that are packed. */
export const MOST_WHERE = 4096;
/** Slot of RIP among the registers. */
const RIP = 16;

/** A field of an event at a place: one prediction, or one for each item that its list has had, ascending by id. */
export interface Field {
  count: number;
  predictions: Int32Array;
  /** The encoding of a value of no other type. */
  other: Uint8Array | undefined;
}

/** What is expected of an event where it stands. The first field is `retired`. */
export interface Place {
  readonly kind: number;
  readonly where: number;
  readonly fields: readonly Field[];
  /** Another kind of event in the same context. */
  readonly sibling: Place | undefined;
}

const NO_PLACE: Place = { kind: -1, where: -1, fields: [], sibling: undefined };

export class Model {
  /** The value that `expect` came to. */
  low = 0;
  high = 0;
  /** Whether the item at hand is expected to be absent. */
  absent = false;
  /** Four words for each location: its value's halves, and 1 when it is known. */
  private readonly held = new Int32Array(4 * LOCATIONS);
  /** The location that had a value last, by the value's hash. */
  private readonly holders = new Uint16Array(VALUES);
  private readonly recentLows = new Int32Array(RECENT);
  private readonly recentHighs = new Int32Array(RECENT);
  /** Numbers of recent values by their hash; they are counted from 1. */
  private readonly recentNumbers = new Int32Array(VALUES);
  private recentCount = 0;
  /** The place entered last in each context. */
  private readonly contexts = new Map<number, Place>();
  /** The first place of each context, which leads to the others. */
  private readonly places = new Map<number, Place>();
  /** The place of each kind of event that was made last. */
  private readonly latest = new Map<number, Place>();
  private before = NO_PLACE;
  private context = 0;
  private next = NO_PLACE;

  /** @returns the place of the event that is expected next. */
  expected(): Place {
    const { kind, where } = this.before;
    const rip = this.held[4 * locationOfItem(where >> 1, RIP)] as number;
    this.context = Math.imul(Math.imul(rip, 0x9e3779b1) ^ (kind * 64 + where), 0x85ebca6b) >>> 2;
    this.next = this.contexts.get(this.context) ?? NO_PLACE;
    return this.next;
  }

  /** The place of the next event, which is of this kind. @param fields how many there are. */
  enter(kind: number, where: number, fields: number): Place {
    const { next } = this;
    const isExpected = next.kind === kind && next.where === where;
    const place = isExpected ? next : (this.find(kind, where) ?? this.make(kind, where, fields));
    if (!isExpected) this.contexts.set(this.context, place);
    this.before = place;
    return place;
  }

  private find(kind: number, where: number): Place | undefined {
    let place = this.places.get(this.context);
    while (place !== undefined && (place.kind !== kind || place.where !== where)) place = place.sibling;
    return place;
  }

  /** A new place expects what was expected at the one of its kind before it. */
  private make(kind: number, where: number, count: number): Place {
    const event = kind * MOST_WHERE + where;
    const like = this.latest.get(event)?.fields ?? Array.from({ length: count }, () => emptyField());
    const fields = like.map((field) => ({ ...field, predictions: field.predictions.slice() }));
    const place = { kind, where, fields, sibling: this.places.get(this.context) };
    this.places.set(this.context, place);
    this.latest.set(event, place);
    return place;
  }

  /** Expects the value of a prediction. */
  expect(predictions: Int32Array, at: number): void {
    this.expectBy(predictions[at + WAY_TAKEN] as number, predictions, at);
  }

  private expectBy(way: number, predictions: Int32Array, at: number): void {
    const low = predictions[at + LAST] as number;
    const high = predictions[at + LAST + 1] as number;
    if (way === WAY.LAST) {
      this.low = low;
      this.high = high;
    } else if (way === WAY.STEP) {
      const stepLow = predictions[at + STEP] as number;
      const sum = (low >>> 0) + (stepLow >>> 0);
      this.low = sum | 0;
      this.high = (high + (predictions[at + STEP + 1] as number) + (sum > 0xffff_ffff ? 1 : 0)) | 0;
    } else {
      const link = 4 * (predictions[at + LINK] as number);
      this.low = this.held[link] as number;
      this.high = this.held[link + 1] as number;
    }
  }

  /** Expects an item of a list: it is absent where its location is to hold what it holds. */
  expectItem(predictions: Int32Array, at: number, location: number): void {
    this.expect(predictions, at);
    this.absent = this.holds(location, this.low, this.high);
  }

  holds(location: number, low: number, high: number): boolean {
    const { held } = this;
    const word = 4 * location;
    return held[word] === low && held[word + 1] === high && held[word + 2] === 1;
  }

  /** How a value that was not expected is told shortest. The location that it means stands in `low`. */
  codeOf(predictions: Int32Array, at: number, low: number, high: number): number {
    for (let way = 0; way <= WAY.LOCATION; way++) {
      this.expectBy(way, predictions, at);
      if (this.low === low && this.high === high) return CODE.WAYS + way;
    }
    if (high !== 0 || low >>> 0 >= TELLING) {
      const holder = this.holders[hashOf(low, high)] as number;
      if (this.holds(holder, low, high)) {
        this.low = holder;
        return CODE.LOCATION;
      }
      const number = this.recentNumbers[hashOf(low, high)] as number;
      const slot = number & (RECENT - 1);
      const distance = this.recentCount - number + 1;
      if (distance <= RECENT && number > 0 && this.recentLows[slot] === low && this.recentHighs[slot] === high) {
        this.low = distance;
        return CODE.RECENT;
      }
    }
    return CODE.DIFFERENCE;
  }

  /** Takes the value that a code of a way, a location or a recent value means; it stands in `low` and `high` then. */
  take(code: number, operand: number, predictions: Int32Array, at: number): void {
    if (code === CODE.RECENT) {
      const slot = (this.recentCount - operand + 1) & (RECENT - 1);
      this.low = this.recentLows[slot] as number;
      this.high = this.recentHighs[slot] as number;
      return;
    }
    if (code === CODE.LOCATION) {
      predictions[at + LINK] = operand;
      predictions[at + WAY_TAKEN] = WAY.LOCATION;
    } else {
      predictions[at + WAY_TAKEN] = code - CODE.WAYS;
    }
    this.expect(predictions, at);
  }

  /** Takes a value that is in no location and near no other. */
  takeNew(predictions: Int32Array, at: number, low: number, high: number): void {
    const hash = hashOf(low, high);
    const holder = this.holders[hash] as number;
    if (this.holds(holder, low, high)) predictions[at + LINK] = holder;
    const number = ++this.recentCount;
    this.recentNumbers[hash] = number;
    this.recentLows[number & (RECENT - 1)] = low;
    this.recentHighs[number & (RECENT - 1)] = high;
  }

  /** What the prediction comes to: an item that is absent has what its location holds. */
  settleAbsent(predictions: Int32Array, at: number, location: number): void {
    const { held } = this;
    const word = 4 * location;
    if (held[word + 2] === 1) this.learn(predictions, at, held[word] as number, held[word + 1] as number);
  }

  /** What the prediction comes to, and that its location holds it. @param shadow a second location, where others find it. */
  settle(predictions: Int32Array, at: number, location: number, low: number, high: number, shadow = location): void {
    this.learn(predictions, at, low, high);
    this.hold(location, low, high);
    if (shadow !== location) this.hold(shadow, low, high);
    this.holders[hashOf(low, high)] = shadow;
  }

  private hold(location: number, low: number, high: number): void {
    const { held } = this;
    const word = 4 * location;
    held[word] = low;
    held[word + 1] = high;
    held[word + 2] = 1;
  }

  private learn(predictions: Int32Array, at: number, low: number, high: number): void {
    const lastLow = predictions[at + LAST] as number;
    predictions[at + STEP] = (low - lastLow) | 0;
    const borrow = low >>> 0 < lastLow >>> 0 ? 1 : 0;
    predictions[at + STEP + 1] = (high - (predictions[at + LAST + 1] as number) - borrow) | 0;
    predictions[at + LAST] = low;
    predictions[at + LAST + 1] = high;
  }

  /** Enters an item that the list has not had. */
  addItem(field: Field, id: number, location: number): void {
    let index = 0;
    while (index < field.count && (field.predictions[index * PREDICTION] as number) < id) index++;
    if ((field.count + 1) * PREDICTION > field.predictions.length) {
      const grown = new Int32Array(2 * (field.count + 1) * PREDICTION);
      grown.set(field.predictions);
      field.predictions = grown;
    }
    const at = index * PREDICTION;
    field.predictions.copyWithin(at + PREDICTION, at, field.count * PREDICTION);
    field.predictions.fill(0, at, at + PREDICTION);
    field.predictions[at + ID] = id;
    field.predictions[at + LAST] = this.held[4 * location] as number;
    field.predictions[at + LAST + 1] = this.held[4 * location + 1] as number;
    field.count++;
  }
}

export const idAt = (predictions: Int32Array, at: number): number => predictions[at + ID] as number;
export const typeAt = (predictions: Int32Array, at: number): number => predictions[at + TYPE_SEEN] as number;
export const setTypeAt = (predictions: Int32Array, at: number, type: number): void => {
  predictions[at + TYPE_SEEN] = type;
};
export const lastLowAt = (predictions: Int32Array, at: number): number => predictions[at + LAST] as number;
export const lastHighAt = (predictions: Int32Array, at: number): number => predictions[at + LAST + 1] as number;

/** The value that a prediction begins again with when it is of another type than it was. */
export function beginAgain(predictions: Int32Array, at: number, low: number, high: number): void {
  predictions[at + LAST] = low;
  predictions[at + LAST + 1] = high;
  predictions[at + WAY_TAKEN] = WAY.LAST;
}

/** Of a register by its vCPU, or of a word by the page of its VMCB and `OWNERS_OF_WORDS`. */
export const locationOfItem = (owner: number, id: number): number => (owner * 0x2f3 * 256 + id) & (LOCATIONS - 1);
/** Of what a register held last at a level: the other level goes on with it. */
export const shadowOfItem = (where: number, id: number): number => (0x3000 + where * 256 + id) & (LOCATIONS - 1);
/** Of a field by the type of event. */
export const locationOfField = (kind: number, field: number): number => (0x2000 + kind * 16 + field) & (LOCATIONS - 1);

const hashOf = (low: number, high: number): number =>
  (Math.imul(low ^ Math.imul(high, 0x85ebca6b), 0x9e3779b1) >>> 20) & (VALUES - 1);

const emptyField = (): Field => ({ count: 0, predictions: new Int32Array(PREDICTION), other: undefined });

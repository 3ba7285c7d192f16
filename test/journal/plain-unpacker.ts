/** Unpacks events by docs/tape-format.md ("Packing") alone, with nothing of the journal's: slow and plain. */

type Way = 0 | 1 | 2;
interface Prediction {
  readonly id: number;
  last: bigint;
  step: bigint;
  link: number;
  way: Way;
  type: number;
  other: Buffer;
}
interface Place {
  readonly kind: number;
  readonly where: number;
  readonly fields: Prediction[][];
}

const ID_BYTES: Record<string, number> = { registers: 1, changes: 1, words: 2, ignored: 2 };
const u64 = (value: bigint): bigint => BigInt.asUintN(64, value);
const low = (value: bigint): number => Number(BigInt.asIntN(32, value));
const newPrediction = (id: number, last: bigint): Prediction => ({
  ...{ id, last, step: 0n, link: 0, way: 0, type: 0, other: Buffer.alloc(0) },
});
const hashOf = (value: bigint): number =>
  Math.imul(low(value) ^ Math.imul(low(value >> 32n), 0x85ebca6b), 0x9e3779b1) >>> 20;

class Stream {
  private at = 0;
  constructor(private readonly bytes: Buffer) {}
  get ended(): boolean {
    return this.at === this.bytes.length;
  }
  take(count: number): Buffer {
    this.at += count;
    return this.bytes.subarray(this.at - count, this.at);
  }
  byte(): number {
    return this.take(1).readUInt8();
  }
  integer(): number {
    const byte = this.byte();
    return byte < 0x80 ? byte : byte - 0x80 + 0x80 * this.integer();
  }
  unsigned(count: number): bigint {
    return this.take(count).reduceRight((value, byte) => (value << 8n) | BigInt(byte), 0n);
  }
}

/** @param packed what follows the byte 1. @param table the tape's event types with their fields. */
export function unpackPlainly(packed: Buffer, table: readonly (readonly [string, readonly string[]])[]): Buffer {
  const all = new Stream(packed);
  const stream = (): Stream => new Stream(all.take(all.integer()));
  const [flags, heads, codes, values] = [stream(), stream(), stream(), stream()];
  const locations = new Map<number, bigint>();
  const holders = new Map<number, number>();
  const recent: bigint[] = [];
  const [entered, places, made] = [new Map<number, Place>(), new Map<string, Place>(), new Map<string, Place>()];
  const output: Buffer[] = [];
  let before = { kind: -1, where: -1 };
  let distance = 0;

  const itemLocation = (owner: number, id: number): number => (owner * 755 * 256 + id) % 2 ** 14;
  const held = (location: number): bigint => locations.get(location) ?? 0n;

  function enter(isNew: boolean): Place {
    const rip = low(held(itemLocation(Math.max(0, before.where >> 1), 16)));
    const mixed = Math.imul(rip, 0x9e3779b1) ^ (before.kind * 64 + before.where);
    const context = Math.imul(mixed, 0x85ebca6b) >>> 2;
    let place = entered.get(context);
    if (isNew) {
      const [kind, where] = [heads.integer(), heads.integer()];
      const [key, like] = [`${context} ${kind} ${where}`, made.get(`${kind} ${where}`)];
      place = places.get(key);
      if (place === undefined) {
        const fields = (table[kind]?.[1] ?? []).map((name) => (ID_BYTES[name] ? [] : [newPrediction(0, 0n)]));
        place = like ? structuredClone(like) : { kind, where, fields: [[newPrediction(0, 0n)], ...fields] };
        for (const field of place.fields) for (const each of field) each.other = Buffer.from(each.other);
        places.set(key, place);
        made.set(`${kind} ${where}`, place);
      }
    }
    if (place === undefined) throw new Error('no event is expected');
    entered.set(context, place);
    before = place;
    return place;
  }

  const nextCode = (): number => {
    if (distance === 0 || --distance > 0) return 0;
    const code = codes.byte();
    distance = codes.integer();
    return code;
  };
  const byWay = (prediction: Prediction, way: Way): bigint =>
    way === 0 ? prediction.last : way === 1 ? u64(prediction.last + prediction.step) : held(prediction.link);
  const difference = (last: bigint, count: number): bigint => {
    const zigzag = values.unsigned(count);
    return u64(last + ((zigzag >> 1n) ^ -(zigzag & 1n)));
  };

  function valueAs(prediction: Prediction, code: number): bigint {
    if (code === 5) prediction.link = Number(values.unsigned(2));
    if (code >= 2 && code <= 5) prediction.way = Math.min(code - 2, 2) as Way;
    if (code <= 5) return byWay(prediction, prediction.way);
    if (code === 6) return recent.at(-1 - values.byte()) as bigint;
    const value = difference(prediction.last, code - 7);
    const holder = holders.get(hashOf(value)) ?? 0;
    if (locations.get(holder) === value) prediction.link = holder;
    recent.push(value);
    return value;
  }

  function learn(prediction: Prediction, value: bigint): void {
    prediction.step = u64(value - prediction.last);
    prediction.last = value;
  }

  function settle(prediction: Prediction, value: bigint, ...there: number[]): void {
    learn(prediction, value);
    for (const location of there) locations.set(location, value);
    holders.set(hashOf(value), there.at(-1) as number);
  }

  function scalar(prediction: Prediction, location: number): Buffer {
    let code = nextCode();
    if (code === 16) {
      prediction.type = values.byte();
      if (prediction.type !== 3) {
        prediction.last = difference(prediction.last, values.byte());
        prediction.way = 0;
      }
      code = nextCode();
    }
    if (prediction.type === 3) {
      if (code === 7) prediction.other = heads.take(heads.integer());
      return prediction.other;
    }
    const value = valueAs(prediction, code);
    settle(prediction, value, location);
    return prediction.type === 2 ? uint64(value) : integer(Number(BigInt.asIntN(64, value)));
  }

  function list(predictions: readonly Prediction[], owner: number, idBytes: number, where: number): Buffer {
    const items: Buffer[] = [];
    for (const prediction of predictions) {
      const { id } = prediction;
      const location = itemLocation(owner, id);
      const isAbsent = locations.get(location) === byWay(prediction, prediction.way);
      const code = nextCode();
      if (code === 1 || (code === 0 && isAbsent)) {
        if (locations.has(location)) learn(prediction, held(location));
        continue;
      }
      const value = valueAs(prediction, code);
      const shadow = idBytes === 1 ? [(12288 + where * 256 + id) % 2 ** 14] : [];
      settle(prediction, value, location, ...shadow);
      const item = Buffer.alloc(idBytes + 8);
      item.writeUIntLE(id, 0, idBytes);
      item.writeBigUInt64LE(value, idBytes);
      items.push(item);
    }
    return binary(Buffer.concat(items));
  }

  while (!flags.ended) {
    const flag = flags.byte();
    const place = enter((flag & 1) !== 0);
    const { kind, where, fields } = place;
    const shape = ['retired', ...(table[kind]?.[1] ?? [])].map((name) => ID_BYTES[name] ?? 0);
    const ownerOf = (idBytes: number): number =>
      idBytes === 1 ? where >> 1 : 32 + (low(fields[1]?.[0]?.last ?? 0n) >>> 12);
    for (let number = flag & 2 ? heads.integer() : 0; number !== 0; number = heads.integer()) {
      const id = heads.integer();
      const owner = ownerOf(shape[number] as number);
      const field = fields[number] as Prediction[];
      field.push(newPrediction(id, held(itemLocation(owner, id))));
      field.sort((a, b) => a.id - b.id);
    }
    distance = flag & 4 ? codes.integer() : 0;
    const encoded = fields.map((field, number) => {
      const idBytes = shape[number] as number;
      return idBytes === 0
        ? scalar(field[0] as Prediction, (8192 + kind * 16 + number) % 2 ** 14)
        : list(field, ownerOf(idBytes), idBytes, where);
    });
    const [retired, ...others] = encoded as [Buffer, ...Buffer[]];
    output.push(Buffer.from([0x90 + shape.length + 2]), integer(kind), retired, integer(where), ...others);
  }
  return Buffer.concat(output);
}

// msgpack

function integer(value: number): Buffer {
  const bytes = Buffer.alloc(9);
  if (value >= -32 && value < 128) return bytes.subarray(0, bytes.writeInt8(value));
  const forms: readonly [number, boolean, () => number][] = [
    [0xcc, value >= 0 && value < 2 ** 8, () => bytes.writeUInt8(value, 1)],
    [0xcd, value >= 0 && value < 2 ** 16, () => bytes.writeUInt16BE(value, 1)],
    [0xce, value >= 0 && value < 2 ** 32, () => bytes.writeUInt32BE(value, 1)],
    [0xd0, value < 0 && value >= -(2 ** 7), () => bytes.writeInt8(value, 1)],
    [0xd1, value < 0 && value >= -(2 ** 15), () => bytes.writeInt16BE(value, 1)],
    [0xd2, value < 0 && value >= -(2 ** 31), () => bytes.writeInt32BE(value, 1)],
    [0xcb, true, () => bytes.writeDoubleBE(value, 1)],
  ];
  const [code, , write] = forms.find(([, fits]) => fits) as (typeof forms)[number];
  bytes[0] = code;
  return bytes.subarray(0, write());
}

function uint64(value: bigint): Buffer {
  const bytes = Buffer.from([0xcf, 0, 0, 0, 0, 0, 0, 0, 0]);
  bytes.writeBigUInt64BE(value, 1);
  return bytes;
}

function binary(content: Buffer): Buffer {
  const [code, bytes] = content.length < 2 ** 8 ? [0xc4, 1] : content.length < 2 ** 16 ? [0xc5, 2] : [0xc6, 4];
  const header = Buffer.alloc(1 + bytes);
  header[0] = code;
  header.writeUIntBE(content.length, 1, bytes);
  return Buffer.concat([header, content]);
}

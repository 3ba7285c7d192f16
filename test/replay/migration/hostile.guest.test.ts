/** Whatever comes between the two: the source goes on as if nothing had happened, and a second attempt succeeds. */
import { describe, expect, it } from 'vitest';
import { type JournalRecord, memoryStore } from '../../../src/journal/index.js';
import { DEFAULT_CONFIG } from '../../../src/machine/index.js';
import { ProtocolError, Recorder } from '../../../src/replay/index.js';
import { FRAME_HEAD_BYTES, FrameReader, FrameWriter, KINDS } from '../../../src/replay/migration/messages.js';
import { type Move, move, type Tamper } from '../../support/migration.js';
import { MEBIBYTE, recordGuest, sessionOptions } from '../../support/sessions.js';

const FILE = 'nested.elf';
const how = {
  config: { ...DEFAULT_CONFIG, ramBytes: 16 * MEBIBYTE },
  commandLine: 'nested.elf rounds=1',
  sliceInstructions: 500,
};
const text = (record: JournalRecord): string =>
  JSON.stringify(record, (_, value) => (typeof value === 'bigint' ? `${value}n` : value));
const unbroken = [...recordGuest(FILE, how).store.read().records()].map(text);

/** Boots a session, lets it come into its guest, tries to move it, moves it for good, and runs it to its end. */
async function survive(attempt: Move, message: RegExp): Promise<void> {
  const store = memoryStore();
  const source = Recorder.boot(store, sessionOptions(FILE, how));
  source.endInput();
  while (source.machine.retired < 80_000) source.step();
  const made = memoryStore();
  await expect(move(source, FILE, { store: made, ...attempt })).rejects.toThrow(message);
  const moved = await move(source, FILE);
  source.finish();
  while (moved.recorder.step() === 'running');
  moved.recorder.finish();
  const stitched = [...store.read().records(), ...moved.store.read().records()].map(text);
  expect(stitched).toEqual(unbroken);
}

/** Does something to the first message of a kind. */
function at(kind: keyof typeof KINDS, change: Tamper): Tamper {
  let done = false;
  return (bytes) => {
    if (done || bytes[4] !== KINDS[kind].code) return [bytes];
    done = true;
    return change(bytes);
  };
}

const flipped = (bytes: Uint8Array): readonly Uint8Array[] => {
  const place = FRAME_HEAD_BYTES + Math.floor((bytes.length - FRAME_HEAD_BYTES) * 0.7);
  bytes[place] = (bytes[place] as number) ^ 0x10;
  return [bytes];
};
const kinds = {
  toDestination: ['hello', 'offer', 'pages', 'round', 'state', 'yours'],
  toSource: ['hello', 'accept', 'running', 'safe'],
} as const;
const directions = Object.entries(kinds).flatMap(([direction, names]) =>
  names.map((name) => [direction, name] as const),
);

describe('a peer that vanishes', () => {
  it.each(directions)('%s, at its %s', async (direction, kind) => {
    await survive({ [direction]: at(kind, () => [undefined]) }, /closed the connection|wait/);
  });

  it.each(directions)('%s, amid its %s', async (direction, kind) => {
    const half: Tamper = (bytes) => [bytes.subarray(0, Math.ceil(bytes.length / 2)), undefined];
    await survive({ [direction]: at(kind, half) }, /closed the connection/);
  });
});

describe('messages', () => {
  it.each([
    ['pages', /unpacked|RAM|state is not|cannot be read|has no|too long/],
    ['state', /damaged|cannot be read|state is not|has no|missing/],
    ['offer', /.+/],
  ] as const)('of kind %s with a flipped bit are found out', async (kind, message) => {
    await survive({ toDestination: at(kind, flipped) }, message);
  });

  it.each(['hello', 'offer', 'pages', 'state'] as const)('of kind %s that come twice are refused', async (kind) => {
    await survive({ toDestination: at(kind, (bytes) => [bytes, bytes.slice()]) }, /came in the place of/);
  });

  it('that are left out or come in another order are refused', async () => {
    await survive({ toDestination: at('pages', () => []) }, /message 3 came in the place of 2/);
    let held: Uint8Array | undefined;
    const swapped: Tamper = (bytes) => {
      if (held !== undefined) {
        const first = held;
        held = undefined;
        return [bytes, first];
      }
      if (bytes[4] !== KINDS.pages.code) return [bytes];
      held = bytes;
      return [];
    };
    await survive({ toDestination: swapped }, /came in the place of/);
  });

  it('that claim to be larger than they may be are refused before anything is made for them', async () => {
    const huge = (bytes: Uint8Array): readonly Uint8Array[] => {
      new DataView(bytes.buffer, bytes.byteOffset).setUint32(0, 0xffff_ffff, true);
      return [bytes];
    };
    await survive({ toDestination: at('offer', huge) }, /offer message of 4294967295 bytes is too long/);
    await survive({ toDestination: at('state', huge) }, /state message of 4294967295 bytes is too long/);
  });

  it('in pieces of any size are put together', () => {
    const writer = new FrameWriter();
    const frames = [
      writer.frame('round', { round: 1 }),
      writer.frame('pages', { zeros: new Uint8Array(8), numbers: new Uint8Array(4000), data: new Uint8Array(70) }),
      writer.frame('yours', {}),
    ];
    const whole = new Uint8Array(Buffer.concat(frames));
    for (const size of [1, 2, 7, 64, 1000, whole.length]) {
      const reader = new FrameReader();
      const kindsRead: string[] = [];
      for (let start = 0; start < whole.length; start += size) {
        kindsRead.push(...reader.take(whole.subarray(start, start + size)).map(({ kind }) => kind));
      }
      expect(kindsRead).toEqual(['round', 'pages', 'yours']);
    }
  });

  it('that are garbage are refused', () => {
    const garbage = Uint8Array.from({ length: 4000 }, (_, index) => (index * 7919) & 0xff);
    expect(() => new FrameReader().take(garbage)).toThrow(ProtocolError);
  });
});

describe('a destination', () => {
  it('refuses more RAM, and another processor, before anything moves', async () => {
    await survive({ terms: { memory: 8 * MEBIBYTE } }, /the session has 16777216 bytes of RAM, and there is room for/);
    await survive({ terms: { cpu: 'zen-4' } }, /the session's CPU is vmtape-base, and this side takes zen-4 only/);
  });

  it('that cannot make its tape says so, and the source goes on', async () => {
    const full = {
      ...memoryStore(),
      create: () => {
        throw new Error('no space left on device');
      },
    };
    await survive({ store: full }, /no space left on device/);
  });
});

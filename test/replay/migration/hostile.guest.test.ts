/** Whatever comes between the two: the source goes on as if nothing had happened, and a second attempt succeeds. */
import { describe, expect, it } from 'vitest';
import { compress, decompress, type JournalRecord, memoryStore } from '../../../src/journal/index.js';
import { DEFAULT_CONFIG, PAGE_BYTES } from '../../../src/machine/index.js';
import { ProtocolError, Recorder } from '../../../src/replay/index.js';
import {
  FRAME_HEAD_BYTES,
  FrameReader,
  FrameWriter,
  KINDS,
  type Kind,
  type Offer,
  type Pages,
  type Payloads,
  type State,
} from '../../../src/replay/migration/messages.js';
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
  const moving = move(source, FILE, { store: made, ...attempt });
  await expect(moving.then(({ rounds }) => `moved in ${rounds} rounds`)).rejects.toThrow(message);
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

describe('while pages follow a session that runs at the other side', () => {
  const postCopy = { rounds: 0, stretches: 10, background: false };

  /** Does something to the first message of a kind that comes after the state. */
  function afterState(kind: keyof typeof KINDS, change: Tamper): Tamper {
    let isAfter = false;
    const tamper = at(kind, change);
    return (bytes) => {
      if (bytes[4] === KINDS.state.code) isAfter = true;
      return isAfter ? tamper(bytes) : [bytes];
    };
  }

  /** Another message in the place of one, with its number. */
  function inPlace<Name extends Kind>(kind: Name, change: (was: never) => Payloads[Name]): Tamper {
    return (bytes) => {
      const reader = new FrameReader();
      const number = new DataView(bytes.buffer, bytes.byteOffset).getUint32(5, true);
      Object.assign(reader, { number });
      const [was] = reader.take(bytes);
      const frame = new FrameWriter().frame(kind, change(was as never));
      new DataView(frame.buffer).setUint32(5, number, true);
      return [frame];
    };
  }

  const phase = {
    toDestination: ['state', 'pages', 'yours'],
    toSource: ['running', 'need', 'safe'],
  } as const;
  const places = Object.entries(phase).flatMap(([direction, names]) => names.map((name) => [direction, name] as const));

  it.each(places)('a peer may vanish %s, at its %s', async (direction, kind) => {
    const change = (): readonly undefined[] => [undefined];
    const tamper = direction === 'toSource' ? at(kind, change) : afterState(kind, change);
    await survive({ postCopy, [direction]: tamper }, /closed the connection/);
  });

  it.each(places)('a peer may vanish %s, amid its %s', async (direction, kind) => {
    const half: Tamper = (bytes) => [bytes.subarray(0, Math.ceil(bytes.length / 2)), undefined];
    await survive(
      { postCopy, [direction]: direction === 'toSource' ? at(kind, half) : afterState(kind, half) },
      /closed/,
    );
  });

  it('a flipped bit in a page is found out', async () => {
    await survive(
      { postCopy, toDestination: afterState('pages', flipped) },
      /unpacked|digest says|cannot be read|RAM|not due/,
    );
  });

  it.each([
    ['other contents', (was: Pages) => ({ ...was, data: other(was) }), /page \d+ does not hold what its digest says/],
    [
      'zeros',
      (was: Pages) => ({ ...was, data: compress(new Uint8Array(rawBytes(was))) }),
      /does not hold what its digest/,
    ],
    ['zeros by number', (was: Pages) => ({ ...was, zeros: was.numbers }), /zeros came after the state/],
    [
      'a page that is not due',
      (was: Pages) => ({ ...was, numbers: beyond(was, 4000) }),
      /page 4000 came, which is not due/,
    ],
    [
      'a page beyond RAM',
      (was: Pages) => ({ ...was, numbers: beyond(was, 1 << 20) }),
      /page 1048576 came, which is not due/,
    ],
    [
      'fewer contents',
      (was: Pages) => ({ ...was, data: compress(new Uint8Array(0)) }),
      /0 bytes of pages came instead/,
    ],
    ['no numbers', (was: Pages) => ({ ...was, numbers: new Uint8Array(3) }), /end amid one/],
  ] as const)('%s in the place of a page are refused', async (_, change, message) => {
    await survive({ postCopy, toDestination: afterState('pages', inPlace('pages', change)) }, message);
  });

  it('a page comes once', async () => {
    const twice: Tamper = (bytes) => {
      const [frame] = inPlace('pages', (was) => was)(bytes) as readonly [Uint8Array];
      const again = frame.slice();
      const view = new DataView(again.buffer);
      view.setUint32(5, view.getUint32(5, true) + 1, true);
      return [frame, again];
    };
    await survive(
      { postCopy, toDestination: afterState('pages', twice) },
      /came, which is not due|came in the place of/,
    );
  });

  it.each([
    ['numbers out of order', (was: State) => ({ ...was, later: reversed(was.later) }), /not in order/],
    ['too few digests', (was: State) => ({ ...was, laterDigests: new Uint8Array(32) }), /lack digests/],
    [
      'pages beyond RAM',
      (was: State) => ({ ...was, later: new Uint8Array(was.later.length).fill(0xff) }),
      /beyond RAM/,
    ],
    [
      'other digests',
      (was: State) => ({ ...was, laterDigests: was.laterDigests.fill(7) }),
      /the ram state is not that/,
    ],
    [
      'fewer pages',
      (was: State) => ({ ...was, later: new Uint8Array(0), laterDigests: new Uint8Array(0) }),
      /the ram state is not that/,
    ],
  ] as const)('a state with %s is refused', async (_, change, message) => {
    await survive({ postCopy, toDestination: at('state', inPlace('state', change)) }, message);
  });

  it('pages are not left for later unless that was offered', async () => {
    const hidden: Tamper = inPlace('offer', (was: Offer) => ({ ...was, postCopy: false }));
    await survive({ postCopy, toDestination: at('offer', hidden) }, /left for later without an offer/);
  });

  it.each([
    ['a page that was not left', 1000],
    ['a page beyond RAM', 1 << 20],
    ['half a page', 1.5],
    ['no number', Number.NaN],
  ] as const)('the source gives %s to nobody', async (_, page) => {
    const toSource = at(
      'need',
      inPlace('need', () => ({ page })),
    );
    await survive({ postCopy, toSource }, /was asked for, which was not left here/);
  });

  it('the source does not let go before all pages are there', async () => {
    await survive(
      {
        postCopy,
        toSource: at(
          'need',
          inPlace('safe', () => ({})),
        ),
      },
      /a safe message came where another/,
    );
    await survive(
      {
        postCopy,
        toSource: at(
          'running',
          inPlace('safe', () => ({})),
        ),
      },
      /a safe message came where another/,
    );
    await survive(
      {
        postCopy,
        toSource: at(
          'safe',
          inPlace('running', () => ({ position: '' })),
        ),
      },
      /a running message came/,
    );
  });

  it('a destination that cannot make its tape says so, and the source goes on', async () => {
    const store = memoryStore();
    const full = {
      ...store,
      create: (description: never) =>
        Object.assign(store.create(description), {
          putCheckpoint: () => {
            throw new Error('no space left on device');
          },
        }),
    };
    await survive({ postCopy, store: full as never }, /no space left on device/);
  });
});

const rawBytes = ({ numbers }: Pages): number => (numbers.length / 4) * PAGE_BYTES;

/** The same pages with one bit of one of them changed. */
function other(was: Pages): Uint8Array {
  const raw = decompress(was.data, rawBytes(was));
  raw[raw.length - 1] = (raw.at(-1) as number) ^ 1;
  return compress(raw);
}

function beyond({ numbers }: Pages, page: number): Uint8Array {
  const changed = numbers.slice();
  new DataView(changed.buffer).setUint32(0, page, true);
  return changed;
}

const reversed = (numbers: Uint8Array): Uint8Array =>
  new Uint8Array(new Uint32Array(numbers.slice().buffer).reverse().buffer);

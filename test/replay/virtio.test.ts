/** Sessions with virtio devices: what a guest writes to its disk is on the tape, in snapshots, and nowhere else. */
import { describe, expect, it } from 'vitest';
import { memoryStore } from '../../src/journal/index.js';
import { DEFAULT_CONFIG, InputError, packBoot, SECTOR_BYTES } from '../../src/machine/index.js';
import {
  decodeSnapshot,
  encodeSnapshot,
  foldTape,
  LiveSession,
  Recorder,
  Replayer,
  stateDifferences,
  stateDigests,
  Timeline,
  takeSnapshot,
} from '../../src/replay/index.js';
import { exit, poke, request, roundTrip, setup, waitFor } from '../support/virtio-guest.js';
import { flatImage } from '../tools/flat-image.js';

const RAM = 2 << 20;
const DISK = Uint8Array.from({ length: 16 * SECTOR_BYTES }, (_, at) => (at >> 9) + 1);
const [READ, WRITE, FLUSH] = [0, 1, 4];
const DATA = 0x3_2000;
const sector = (writable: boolean, address = DATA) => ({ address, bytes: SECTOR_BYTES, writable });

/** Reads sector 1, writes "vmtape!!" to the start of sector 2, reads it back elsewhere, says "hi" on the console, takes a byte. */
const GUEST = [
  ...setup('virtioBlock'),
  ...request(READ, 1, [sector(true)], 0),
  ...[...poke(DATA, 0x6174_6d76), ...poke(DATA + 4, 0x2121_6570)],
  ...request(WRITE, 2, [sector(false)], 1),
  ...request(FLUSH, 0, [], 2),
  ...request(READ, 2, [sector(true, DATA + 0x1000)], 3),
  ...setup('virtioConsole', 2),
  ...poke(DATA + 0x2000, 0x6968),
  ...roundTrip('virtioConsole', 1, [{ address: DATA + 0x2000, bytes: 2 }], 0),
  ...roundTrip('virtioConsole', 0, [{ address: DATA + 0x3000, bytes: 4, writable: true }], 0),
  ...waitFor(DATA + 0x3000, 0x4f59),
];

const options = (code: readonly number[], reset: 'end' | 'boot' = 'end', disk = DISK) => ({
  config: { ...DEFAULT_CONFIG, ramBytes: RAM, diskBytes: DISK.length, virtioConsole: true, reset },
  image: packBoot({ image: flatImage(code), protocol: undefined, modules: [], disk }),
  ...{
    commandLine: 'flat',
    unixSeconds: 1_700_000_000,
    entropySeed: 1n,
    vmtapeVersion: 'test',
    sliceInstructions: 500,
  },
});

function recorded(code: readonly number[], reset: 'end' | 'boot' = 'end') {
  const store = memoryStore();
  let sent = '';
  const recorder = Recorder.boot(store, {
    ...options(code, reset),
    checkpointEvery: 1000,
    observe: ({ event }) => {
      if (event.type === 'virtio.transmitted') sent += String.fromCharCode(...event.data);
    },
  });
  recorder.feedConsole(new TextEncoder().encode('YO'));
  recorder.endInput();
  while (recorder.step(2_000_000) === 'running');
  recorder.finish();
  return { store, machine: recorder.machine, sent };
}

describe('a session with virtio devices', () => {
  const { store, machine, sent } = recorded([...GUEST, ...exit(1)]);
  const reader = store.read();

  it('reads, writes and flushes, and talks over its console', () => {
    expect(machine.state.ended).toEqual({ reason: 'debug-exit', status: 3 });
    expect(Buffer.from(machine.memory.window(DATA, 8)).toString('latin1')).toBe('vmtape!!');
    // The rest of the sector is what sector 1 held.
    expect(machine.memory.window(DATA + 0x1000, SECTOR_BYTES)).toEqual(machine.memory.window(DATA, SECTOR_BYTES));
    expect(machine.memory.window(DATA + 8, 1)[0]).toBe(2);
    expect(machine.memory.window(RAM + 2 * SECTOR_BYTES, SECTOR_BYTES)).toEqual(
      machine.memory.window(DATA, SECTOR_BYTES),
    );
    expect(sent).toBe('hi');
    expect(Buffer.from(machine.memory.window(DATA + 0x3000, 2)).toString()).toBe('YO');
  });

  it('replays from the tape alone, identically, and folds to the same state', () => {
    const replayer = new Replayer(store.read());
    expect(replayer.run().kind).toBe('identical');
    expect(stateDigests(replayer.machine)).toEqual(stateDigests(machine));
    expect(stateDifferences(foldTape(reader, reader.end.seq).state, machine.state)).toEqual([]);
  });

  it('goes on from a snapshot of any place to the same end', () => {
    const timeline = new Timeline(reader);
    const places = [...reader.records(0n)].filter(({ event }) => /^virtio\.(notified|requested)/.test(event.type));
    expect(places.length).toBeGreaterThan(8);
    for (const { position } of places.filter((_, index) => index % 3 === 0)) {
      const at = timeline.seek({ icount: position.icount, seq: position.seq });
      const bytes = Buffer.concat(encodeSnapshot(takeSnapshot(timeline.machine, reader, at)));
      const live = LiveSession.resume(decodeSnapshot(bytes, 'snapshot'), {}, () => {});
      live.feedConsole(new TextEncoder().encode('YO'));
      live.endInput();
      while (live.step(2_000_000) === 'running');
      expect(live.machine.state.ended).toEqual({ reason: 'debug-exit', status: 3 });
      expect(live.machine.memory.window(RAM, DISK.length)).toEqual(machine.memory.window(RAM, DISK.length));
    }
    timeline.close();
  });

  it('keeps its disk through a reset, which loads the image again', () => {
    // The second time sector 2 holds what was written the first time: the exit then.
    const code = [
      ...setup('virtioBlock'),
      ...request(READ, 2, [sector(true, DATA + 0x1000)], 0),
      ...[0x81, 0x3d, 0x00, 0x30, 0x03, 0x00, 0x76, 0x6d, 0x74, 0x61], // CMP DWORD [DATA + 1000h], "vmta"
      ...[0x75, 0x04], // JNE over the exit
      ...exit(2),
      ...[...poke(DATA, 0x6174_6d76)],
      ...request(WRITE, 2, [sector(false)], 1),
      ...[0xb0, 0xfe, 0xe6, 0x64, 0xf4], // MOV AL, FEh; OUT 64h, AL; HLT
    ];
    const again = recorded(code, 'boot');
    expect(again.machine.state.ended).toEqual({ reason: 'debug-exit', status: 5 });
    expect(new Replayer(again.store.read()).run().kind).toBe('identical');
  });

  it('has the disk of its configuration, or does not boot', () => {
    const boot = (disk: typeof DISK) => () => LiveSession.boot(options([...exit(1)], 'end', disk), () => {});
    expect(boot(DISK)).not.toThrow();
    expect(boot(new Uint8Array(0))).toThrow(InputError);
    expect(boot(DISK.subarray(512))).toThrow(/disk: the boot package has 7680 bytes of it, and the machine 8192/);
  });

  it('shows guests nothing of the disk as memory', () => {
    expect(machine.memory.isRam(RAM, 1)).toBe(false);
    expect(machine.memory.keptBytes).toBe(RAM + 65_536);
  });
});

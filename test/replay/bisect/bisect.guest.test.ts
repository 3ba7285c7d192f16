/**
 * Differences planted in sessions of the sample guests are found at the very event, and what this vmtape can run is run to the
 * very instruction. Mutations of the machine hold while the second session is recorded, and no longer: it is another machine's.
 */
import { afterEach, beforeEach, describe, expect, it, vi } from 'vitest';
import { formatPosition, type JournalReader, memoryStore, PageTree, pageDigest } from '../../../src/journal/index.js';
import { PIT_8254 } from '../../../src/machine/devices/pit-8254.js';
import { DEFAULT_CONFIG, PAGE_BYTES, sPA } from '../../../src/machine/index.js';
import { VmcbImage } from '../../../src/machine/svm/vmcb-image.js';
import { Emitter } from '../../../src/machine/wasm/emit.js';
import { forgetHandlers } from '../../../src/machine/wasm/handlers.js';
import {
  type Bisection,
  bisect,
  type Divergence,
  Recorder,
  Replayer,
  Side,
  type Snapshot,
  Timeline,
  takeSnapshot,
} from '../../../src/replay/index.js';
import { MEBIBYTE, recordGuest } from '../../support/sessions.js';

const OPTIONS = { leniency: { hostSaveArea: false }, searchesPolicies: false };

const between = (first: JournalReader, second: JournalReader): Bisection =>
  bisect([new Side('first', first), new Side('second', second)], OPTIONS);

function differing(first: JournalReader, second: JournalReader): Divergence {
  const found = between(first, second);
  if (found.kind !== 'differs') throw new Error(`they are ${found.kind}`);
  return found;
}

const tapeOf = (...args: Parameters<typeof recordGuest>): JournalReader => recordGuest(...args).store.read();

/** Where the tape itself says that this machine does something else: the boundary before the event. */
function replayDiverges(tape: JournalReader): string {
  const outcome = new Replayer(tape).run();
  if (outcome.kind !== 'diverged') throw new Error(outcome.kind);
  return formatPosition(outcome.divergence.position);
}

beforeEach(forgetHandlers);
afterEach(() => {
  vi.restoreAllMocks();
  forgetHandlers();
});

describe('two tapes', () => {
  it('of one session are the same', () => {
    expect(between(tapeOf('hello64.elf'), tapeOf('hello64.elf'))).toMatchObject({ kind: 'same' });
  });

  it('of which one was stopped amid a run: it ends there', () => {
    const whole = tapeOf('compute.elf', { limit: 400_000 });
    const short = tapeOf('compute.elf', { limit: 123_457 });
    expect(between(short, whole)).toMatchObject({ kind: 'ends', which: 'first', at: { icount: 123_457n } });
    expect(between(whole, short)).toMatchObject({ kind: 'ends', which: 'second', at: { icount: 123_457n } });
  });

  it('of which one was stopped between two events: it ends there', () => {
    const whole = tapeOf('compute.elf', { limit: 400_000 });
    const short = tapeOf('compute.elf', { limit: 200_000 });
    expect(between(short, whole)).toMatchObject({ kind: 'ends', which: 'first', at: { icount: 200_000n } });
  });
});

describe('an input that differs is named:', () => {
  it('the clock', () => {
    const found = differing(tapeOf('hello64.elf'), tapeOf('hello64.elf', { unixSeconds: 1_700_000_001 }));
    expect(found).toMatchObject({ place: { icount: 0n, seq: 0n }, causes: [{ kind: 'input', name: 'input.clock' }] });
    expect(found.transitions.fields).toContainEqual(
      expect.objectContaining({ name: 'unixSeconds', first: '0x6553f100', second: '0x6553f101' }),
    );
  });

  it('a byte that the serial port receives', () => {
    const bytes = (text: string): Uint8Array => new TextEncoder().encode(text);
    const first = tapeOf('compute.elf', { input: bytes('good'), limit: 300_000 });
    const second = tapeOf('compute.elf', { input: bytes('gold'), limit: 300_000 });
    const found = differing(first, second);
    const [record] = [...first.records(found.place.seq)];
    expect(record?.event.type).toBe('input.serial');
    expect(found.causes[0]).toMatchObject({ kind: 'input', name: 'input.serial' });
  });
});

describe('another machine is found out at the event that it stated:', () => {
  it('one with another flag in one instruction', () => {
    const healthy = tapeOf('compute.elf', { limit: 300_000 });
    vi.spyOn(Emitter.prototype, 'flagsSub').mockImplementation(function (this: Emitter, width, _a, _b, result) {
      this.flagsLogic(width, result);
    });
    forgetHandlers();
    const sick = tapeOf('compute.elf', { limit: 300_000 });
    vi.restoreAllMocks();
    forgetHandlers();
    const found = differing(healthy, sick);
    expect(formatPosition(found.event?.boundaries[0] ?? { icount: 0n, seq: 0n })).toBe(replayDiverges(sick));
    expect(found.causes).toContainEqual(expect.objectContaining({ kind: 'machine' }));
    expect(found.problems[0]).toBeUndefined();
  });

  it('one with another device register', () => {
    const healthy = tapeOf('pic-pit.elf');
    const real = PIT_8254.decideRead.bind(PIT_8254);
    vi.spyOn(PIT_8254, 'decideRead').mockImplementation((state, at, size, now) => {
      const read = real(state, at, size, now);
      return at === 0 ? { ...read, value: read.value ^ 1 } : read;
    });
    const sick = tapeOf('pic-pit.elf');
    vi.restoreAllMocks();
    const found = differing(healthy, sick);
    expect(formatPosition(found.event?.boundaries[0] ?? { icount: 0n, seq: 0n })).toBe(replayDiverges(sick));
    expect(found.transitions.fields.length).toBeGreaterThan(0);
  });
});

describe('RAM that differs amid a session', () => {
  /** Of the machine with this deviation, which the guest does not meet, a world switch spoils a byte of RAM besides. */
  function spoil(address: number, spoils: (old: bigint) => bigint): void {
    const store = VmcbImage.prototype.store;
    vi.spyOn(VmcbImage.prototype, 'store').mockImplementation(function (this: VmcbImage, tx, ...more) {
      const delta = store.call(this, tx, ...more);
      const { memory, profile } = tx.host;
      if (profile.deviations.has('ioio-every-byte')) {
        memory.write(sPA(address), 1, spoils(memory.read(sPA(address), 1)));
      }
      return delta;
    });
  }
  const config = { ...DEFAULT_CONFIG, ramBytes: 16 * MEBIBYTE };
  const options = { config, commandLine: 'nested.elf rounds=1' };
  const deviating = { ...options, config: { ...config, deviations: ['ioio-every-byte'] as const } };

  it('is found at its step by halving, where no event ever tells', () => {
    const unused = config.ramBytes - 5;
    spoil(unused, (old) => (old + 1n) & 0xffn);
    const [first, second] = [tapeOf('nested.elf', options), tapeOf('nested.elf', deviating)];
    const found = differing(first, second);
    expect(found).toMatchObject({ hidden: true, event: undefined, digests: ['ram'] });
    const exits = [...first.records()].filter(
      ({ event }) => event.type === 'svm.vmexit' || event.type === 'svm.vmsave',
    );
    // The first world switch that stores a VMCB.
    expect(found.place.icount).toBe((exits[0]?.position.icount ?? 0n) - BigInt(exits[0]?.retired ?? 0));
    expect(found.transitions.memory).toMatchObject([{ address: unused }]);
  });

  it('is found at its step, long before an event tells', () => {
    const plain = tapeOf('nested.elf', options);
    const timeline = new Timeline(plain);
    timeline.seekInstruction(30_000n);
    const { memory } = timeline.machine;
    // What the guest says at its end.
    const text = Buffer.from(memory.window(0, memory.ramBytes)).indexOf('exits in');
    timeline.close();
    spoil(text, () => 0x45n);
    const found = differing(plain, tapeOf('nested.elf', deviating));
    // A register that was read from there.
    expect(found.event?.records.map((record) => record?.event.type)).toEqual(['cpu.ran', 'cpu.ran']);
    expect(found.hidden).toBe(true);
    expect(found.place.icount).toBeLessThan((found.event?.boundaries[0].icount ?? 0n) - 10_000n);
    expect(found.transitions.memory).toMatchObject([{ address: text }]);
  });
});

describe('what the two differ in only by configuration', () => {
  it('is told to the instruction: another processor', () => {
    const first = tapeOf('nested.elf', { limit: 200_000 });
    const config = { ...DEFAULT_CONFIG, ramBytes: 64 * MEBIBYTE, cpu: 'vmtape-base,-nrips' };
    const found = differing(first, tapeOf('nested.elf', { config, limit: 200_000 }));
    expect(found.transitions.sides[0].before?.instruction?.text).toBe('cpuid');
    expect(found.causes[0]).toMatchObject({ kind: 'configuration', name: 'cpu', effect: 'whole' });
  });
});

describe('sessions that go on from elsewhere', () => {
  /** Goes on from a snapshot to the end. */
  function resumed(snapshot: Snapshot): JournalReader {
    const store = memoryStore();
    const recorder = Recorder.resume(store, snapshot, { vmtapeVersion: 'test' });
    recorder.endInput();
    while (recorder.step() === 'running');
    recorder.finish();
    return store.read();
  }

  function snapshotAt(tape: JournalReader, icount: bigint): Snapshot {
    const timeline = new Timeline(tape);
    timeline.seekInstruction(icount);
    return takeSnapshot(timeline.machine, tape, timeline.position);
  }

  it('are the same as the session that they come from', () => {
    const whole = tapeOf('strings.elf', { limit: 2_000_000 });
    const snapshot = snapshotAt(whole, 1_234_567n);
    const store = memoryStore();
    const recorder = Recorder.resume(store, snapshot, { vmtapeVersion: 'test' });
    while (recorder.machine.retired < 2_000_000) recorder.step(2_000_000);
    recorder.finish();
    expect(between(whole, store.read())).toMatchObject({ kind: 'same' });
    expect(between(store.read(), whole)).toMatchObject({ kind: 'same' });
  });

  it('without a page of RAM differ from the beginning', () => {
    const whole = tapeOf('pointers.elf', { limit: 3_000_000 });
    const snapshot = snapshotAt(whole, 1_500_000n);
    const pages = snapshot.ram.pages.slice();
    // The last page that holds anything but code and tables: part of the heap.
    const page = pages.findLastIndex((content) => content !== 0);
    pages[page] = 0;
    const without = resumedWithout(snapshot, pages);
    const found = differing(resumedWithout(snapshot, snapshot.ram.pages), without);
    expect(found).toMatchObject({ hidden: true, place: snapshot.position, causes: [{ kind: 'origin' }] });
    expect(Math.floor((found.transitions.memory[0]?.address ?? 0) / PAGE_BYTES)).toBe(page);
  });

  function resumedWithout(snapshot: Snapshot, pages: Uint32Array): JournalReader {
    const { contents } = snapshot.ram;
    const tree = new PageTree(pages.length);
    for (const [page, content] of pages.entries()) {
      if (content !== 0) tree.set(page, pageDigest(contents[content - 1] as Uint8Array));
    }
    return resumed({ ...snapshot, ram: { pages, contents }, digests: { ...snapshot.digests, ram: tree.root() } });
  }
});

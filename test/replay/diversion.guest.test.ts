/**
 * Diversions: live machines of a moment of a tape. What happens to one is on a tape of its own, which replays, and which can be
 * gone back in; the tape that it comes from stays as it is.
 */
import { createHash } from 'node:crypto';
import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { afterEach, describe, expect, it, vi } from 'vitest';
import {
  formatPosition,
  type JournalReader,
  type JournalStore,
  type JournalWriter,
  memoryStore,
  type StateDigest,
  sqliteStore,
} from '../../src/journal/index.js';
import type * as DebuggerInputs from '../../src/machine/debugger-input.js';
import { DEFAULT_CONFIG, type DebuggerEdit, type MachineEvent, R } from '../../src/machine/index.js';
import {
  Diversion,
  FoldChecker,
  finish,
  Replayer,
  resolvePosition,
  stateDigests,
  Timeline,
} from '../../src/replay/index.js';
import { MEBIBYTE, recordGuest } from '../support/sessions.js';
import { temporaryFolder, vmtape } from '../tools/vmtape.js';

const { broken } = vi.hoisted(() => ({ broken: { followRegisters: false, putInMemory: false } }));
vi.mock('../../src/machine/debugger-input.js', async (original) => {
  const real = await original<typeof DebuggerInputs>();
  return {
    ...real,
    followRegisters: (...args: Parameters<typeof real.followRegisters>) => {
      if (!broken.followRegisters) real.followRegisters(...args);
    },
    putInMemory: (...args: Parameters<typeof real.putInMemory>) => {
      if (!broken.putInMemory) real.putInMemory(...args);
    },
  };
});

const nested = recordGuest('nested.elf', { limit: 100_000, checkpointEvery: 20_000 }).store.read();
const AFTER_VMRUN = 0x10_2383n;
const OPTIONS = { vmtapeVersion: 'test' };

interface Forked {
  readonly diversion: Diversion;
  readonly store: JournalStore;
  readonly timeline: Diversion['timeline'];
}

function fork(reader: JournalReader, at: string, store = memoryStore(), checkpointEvery?: number): Forked {
  const parent = new Timeline(reader);
  parent.seek(resolvePosition(reader, at));
  const place = { reader, machine: parent.machine, position: parent.position };
  const diversion = new Diversion(store, place, { ...OPTIONS, checkpointEvery });
  expect(diversion.timeline.position).toEqual(parent.position);
  expect(stateDigests(diversion.timeline.machine)).toEqual(stateDigests(parent.machine));
  return { diversion, store, timeline: diversion.timeline };
}

const register = (name: keyof typeof R, value: bigint): DebuggerEdit => ({ kind: 'register', slot: R[name], value });
const memory = (address: number, ...bytes: number[]): DebuggerEdit => ({
  kind: 'memory',
  address,
  data: Uint8Array.from(bytes),
});

const goOn = ({ timeline }: Forked, before?: (event: MachineEvent) => boolean) =>
  finish(timeline.goingOn({ before: before && (({ event }) => before(event)) }, true));

/** Replays a tape, folding beside. */
function replayed(reader: JournalReader) {
  const fold = new FoldChecker(reader);
  const replayer = new Replayer(reader, { observe: fold.check });
  fold.watch(replayer.machine);
  const outcome = replayer.run();
  return outcome.kind === 'diverged' ? `diverged: ${outcome.divergence.report()}` : outcome.kind;
}

/** The same events on another tape, but for those that `change` replaces; undefined drops one. */
function copied(
  reader: JournalReader,
  change: (event: MachineEvent, retired: number) => { event: MachineEvent; retired: number } | undefined,
): JournalReader {
  const store = memoryStore();
  const digests: StateDigest[] = [];
  const writer: JournalWriter = store.create(reader.header);
  for (const digest of reader.blobDigests()) writer.putBlob(reader.blob(digest) as Uint8Array);
  const origin = reader.origin();
  if (origin !== undefined) {
    const pages = [...origin.pages].flatMap((content, page) => (content === 0 ? [] : [[page, content] as const]));
    const contents = new Uint8Array(pages.length * 4096);
    for (const [index, [, content]] of pages.entries()) contents.set(reader.page(content), index * 4096);
    const changed = Uint32Array.from(pages, ([page]) => page);
    const { position, state } = origin;
    writer.putCheckpoint({ position, state, ramPages: origin.pages.length, changed, contents });
  }
  for (const { kind, value, position } of reader.digests()) {
    const isThere = kind === 'ram' && position.seq === reader.start.seq;
    if (!isThere) digests.push({ kind, value, position });
  }
  for (const { event, retired, vcpu, level } of reader.records()) {
    const kept = change(event, retired);
    if (kept !== undefined) writer.append({ vcpu, level, ...kept });
  }
  for (const { kind, value, position } of digests) writer.appendDigest(kind, value, position);
  writer.finish();
  return store.read();
}

describe('a diversion', () => {
  // At a boundary in L2; amid a run in L1; before a VMRUN; amid a run in L2.
  it.each(['vmexit:npf[0]', '50000', 'vmrun[3]', '84030'])(
    'from %s that nobody writes to does what the tape does',
    (at) => {
      const forked = fork(nested, at);
      const { timeline, diversion, store } = forked;
      const from = timeline.position;
      while (timeline.position.icount < nested.end.icount) finish(timeline.goingOn({ after: () => true }, true));
      const original = [...nested.records(from.seq)].map(({ event, vcpu, level }) => ({ event, vcpu, level }));
      const own = [...diversion.tape.records()].map(({ event, vcpu, level }) => ({ event, vcpu, level }));
      // The recording was stopped amid a run.
      const common = Math.min(original.length, own.length) - 1;
      expect(common).toBeGreaterThan(30);
      expect(own.slice(0, common)).toEqual(original.slice(0, common));
      diversion.finish();
      expect(replayed(store.read())).toBe('identical');
    },
  );

  it.each(['vmexit:npf[0]', '50000', 'vmrun[3]', '84030'])(
    'from %s records what is written to it, and replays to the bit, writes included',
    (at) => {
      const forked = fork(nested, at);
      const { timeline, diversion, store } = forked;
      diversion.write(0, [register('r15', 0x1234n), memory(0x20_0000, 1, 2, 3)]);
      for (let step = 0; step < 37; step++) timeline.step();
      diversion.write(0, [register('dr3', 0x4321n)]);
      timeline.stopAt({ code: new Set([AFTER_VMRUN]), writes: [], reads: [] });
      expect(goOn(forked).kind).toBe('hit');
      expect(timeline.machine.nextInstruction).toBe(AFTER_VMRUN);
      diversion.write(0, [memory(0x20_0ff8, 9, 9)]);
      timeline.stopAt({ code: new Set(), writes: [], reads: [] });
      timeline.step();
      diversion.finish();
      const kinds = [...store.read().records()].map(({ event }) => event.type);
      expect(kinds.filter((kind) => kind === 'input.debugger-registers')).toHaveLength(2);
      expect(kinds.filter((kind) => kind === 'input.debugger-memory')).toHaveLength(2);
      expect(replayed(store.read())).toBe('identical');
    },
  );

  it('is gone back in to its beginning and no further, and comes again to where it was', () => {
    const forked = fork(nested, '84030');
    const { timeline, diversion } = forked;
    const start = timeline.position;
    const places = [{ position: start, digests: stateDigests(timeline.machine) }];
    const note = (): void => {
      places.push({ position: timeline.position, digests: stateDigests(timeline.machine) });
    };
    diversion.write(0, [register('r15', 1n)]);
    note();
    for (let step = 0; step < 100; step++) timeline.step();
    note();
    goOn(forked, ({ type }) => type === 'svm.vmexit');
    note();
    diversion.write(0, [memory(0x20_0000, 7)]);
    note();
    for (let round = 0; round < 3; round++) {
      for (let step = 0; step < 40; step++) timeline.step();
      note();
    }
    for (const { position, digests } of [...places].reverse().concat(places)) {
      timeline.seek(position);
      expect(timeline.position).toEqual(position);
      expect(stateDigests(timeline.machine)).toEqual(digests);
    }
    expect(timeline.isLive).toBe(true);
    timeline.seek(start);
    expect(timeline.stepBack()).toBe(false);
    expect(timeline.runBackward().kind).toBe('end');
    expect(timeline.position).toEqual(start);
    // Step by step forwards: the last one is the first that nothing is recorded of.
    while (!timeline.isLive) expect(timeline.step()).toBe(true);
    expect(timeline.position).toEqual(places.at(-1)?.position);
    diversion.finish();
  });

  it('stops ahead of events, without having gone through them', () => {
    const forked = fork(nested, '50000');
    const { timeline, diversion, store } = forked;
    const isExit = ({ type }: MachineEvent): boolean => type === 'svm.vmexit';
    const stops: string[] = [];
    for (let stop = 0; stop < 5; stop++) {
      expect(goOn(forked, isExit).kind).toBe('before');
      expect(timeline.isLive).toBe(true);
      expect([...diversion.tape.records()].filter(({ event }) => isExit(event))).toHaveLength(stop);
      stops.push(String(timeline.position.icount));
    }
    const exits = [...nested.records(resolvePosition(nested, '50000').seq)].filter(({ event }) => isExit(event));
    expect(stops).toEqual(exits.slice(0, 5).map(({ position, retired }) => String(position.icount - BigInt(retired))));
    // What is written there is on the tape right before the event.
    diversion.write(0, [register('r15', 5n)]);
    timeline.step();
    const types = [...diversion.tape.records()].map(({ event }) => event.type);
    const after = types.slice(types.indexOf('input.debugger-registers') + 1);
    expect(after.length).toBeLessThan(4);
    expect(after).toContain('svm.vmexit');
    diversion.finish();
    expect(replayed(store.read())).toBe('identical');
  });

  it('is refused before anything has booted', () => {
    expect(() => fork(nested, 'start')).toThrow(/nothing has booted/);
  });

  it('refuses writes to its past, and after its end', () => {
    const forked = fork(nested, '50000');
    const { timeline, diversion } = forked;
    for (let step = 0; step < 10; step++) timeline.step();
    timeline.stepBack();
    expect(() => diversion.write(0, [register('rax', 1n)])).toThrow(/monitor goto end.*monitor fork/);
    timeline.seek(timeline.end);
    expect(goOn(forked).kind).toBe('still');
    expect(timeline.machine.state.ended).not.toBeNull();
    expect(timeline.step()).toBe(false);
    expect(() => diversion.write(0, [register('rax', 1n)])).toThrow(/ended/);
    diversion.finish();
  });

  it('can be diverted from', () => {
    const outer = fork(nested, 'vmexit:npf[0]');
    outer.diversion.write(0, [register('r15', 1n)]);
    for (let step = 0; step < 50; step++) outer.timeline.step();
    outer.timeline.seek(outer.diversion.origin);
    outer.timeline.step();
    outer.timeline.step();
    const { tape: reader } = outer.diversion;
    const store = memoryStore();
    const { machine, position } = outer.timeline;
    const inner = new Diversion(store, { reader, machine, position }, OPTIONS);
    inner.write(0, [register('r15', 2n)]);
    for (let step = 0; step < 50; step++) inner.timeline.step();
    inner.finish();
    expect(store.read().header.origin?.parent).toBe(reader.historyDigest(position.seq));
    expect(replayed(store.read())).toBe('identical');
    expect(outer.timeline.position).toEqual(position);
    outer.diversion.finish();
    expect(replayed(outer.store.read())).toBe('identical');
  });

  it('stands still where every vCPU waits for an input, and goes on when a debugger wakes one', () => {
    // What ends by a halt that nothing can end is recorded up to there: no input comes.
    const { store } = recordGuest('hello64.elf', {});
    const reader = store.read();
    const forked = fork(reader, '100');
    // HLT with interrupts disabled, where it stands.
    const { machine } = forked.timeline;
    const rip = Number(machine.nextInstruction);
    forked.diversion.write(0, [memory(rip, 0xfa, 0xf4, 0xeb, 0xfe)]);
    expect(goOn(forked).kind).toBe('still');
    expect(machine.state.ended).toBeNull();
    const waits = forked.timeline.position;
    expect(forked.timeline.step()).toBe(false);
    forked.diversion.write(0, [register('rbx', 3n)]);
    forked.timeline.stepBack();
    expect(forked.timeline.position.icount).toBe(waits.icount);
    forked.diversion.finish();
    expect(replayed(forked.store.read())).toBe('identical');
  });

  it('of a machine with several vCPUs takes writes to each of them', () => {
    const config = { ...DEFAULT_CONFIG, ramBytes: 64 * MEBIBYTE, vcpus: 3, quantumInstructions: 700 };
    const smp = recordGuest('smp.elf', { limit: 70_000, config }).store.read();
    const forked = fork(smp, '60000');
    const { timeline, diversion, store } = forked;
    for (let vcpu = 0; vcpu < 3; vcpu++) {
      diversion.write(vcpu, [register('r15', BigInt(vcpu + 1)), register('dr0', BigInt(vcpu))]);
      expect(timeline.machine.state.vcpus[vcpu]?.registers[R.r15]).toBe(BigInt(vcpu + 1));
      for (let step = 0; step < 30; step++) timeline.step();
    }
    const end = finish(timeline.goingOn({ after: ({ event }) => event.type === 'vcpu.scheduled' }, true));
    expect(end.kind).toBe('after');
    const digests = stateDigests(timeline.machine);
    timeline.seek(diversion.origin);
    timeline.seek(timeline.end);
    expect(stateDigests(timeline.machine)).toEqual(digests);
    diversion.finish();
    expect(replayed(store.read())).toBe('identical');
  });
});

describe('what a debugger wrote', () => {
  const forked = fork(nested, 'vmexit:npf[0]');
  forked.diversion.write(0, [register('r15', 0x1234n)]);
  for (let step = 0; step < 40; step++) forked.timeline.step();
  forked.diversion.write(0, [register('rbx', 0x4321n), memory(0x20_0000, 1)]);
  for (let step = 0; step < 400; step++) forked.timeline.step();
  forked.diversion.finish();
  const reader = forked.store.read();
  const isWrite = ({ type }: MachineEvent): boolean => type.startsWith('input.debugger-');

  it('is replayed from a copy that is the same', () => {
    expect(replayed(copied(reader, (event, retired) => ({ event, retired })))).toBe('identical');
  });

  it('diverges when it stands an instruction later', () => {
    let moved = false;
    let shift = 0;
    const other = copied(reader, (event, retired) => {
      if (event.type === 'cpu.ran' && !moved && retired > 1) {
        moved = true;
        shift = 1;
        return { event, retired: retired + 1 };
      }
      if (event.type === 'cpu.ran' && shift === 1) {
        shift = 0;
        return { event, retired: retired - 1 };
      }
      return { event, retired };
    });
    expect(moved).toBe(true);
    expect(replayed(other)).toContain('diverged');
  });

  it('diverges when it is missing, or another', () => {
    expect(replayed(copied(reader, (event, retired) => (isWrite(event) ? undefined : { event, retired })))).toContain(
      'diverged',
    );
    const other = copied(reader, (event, retired) =>
      event.type === 'input.debugger-registers'
        ? { event: { ...event, changes: event.changes.map((byte, at) => (at === 1 ? byte ^ 1 : byte)) }, retired }
        : { event, retired },
    );
    expect(replayed(other)).toContain('diverged');
  });
});

describe('a machine that is broken on purpose', () => {
  afterEach(() => {
    vi.restoreAllMocks();
    broken.followRegisters = false;
    broken.putInMemory = false;
  });
  const forked = fork(nested, '50000');
  forked.diversion.write(0, [register('r15', 0x1234n)]);
  for (let step = 0; step < 20; step++) forked.timeline.step();
  forked.diversion.write(0, [register('r15', 0x4321n), memory(0x20_0000, 1)]);
  for (let step = 0; step < 2000; step++) forked.timeline.step();
  forked.diversion.finish();
  const reader = forked.store.read();

  it('diverges when it keeps a write for a change of the next run', () => {
    expect(replayed(reader)).toBe('identical');
    broken.followRegisters = true;
    expect(replayed(reader)).toContain('diverged');
  });

  it('diverges when a write does not reach RAM', () => {
    broken.putInMemory = true;
    expect(replayed(reader)).toContain('diverged');
  });

  it('is told from a replay that runs on past a write', () => {
    const methods = Replayer.prototype as unknown as { endsPendingRun: () => boolean };
    vi.spyOn(methods, 'endsPendingRun').mockImplementation(() => false);
    expect(replayed(reader)).toContain('diverged');
  });
});

describe('a diversion that is kept', () => {
  const folder = temporaryFolder();
  const [parent, child] = [join(folder, 'parent.vmtape'), join(folder, 'child.vmtape')];
  const sha256 = (file: string): string => createHash('sha256').update(readFileSync(file)).digest('hex');

  it('is a tape that goes on from the other, which is the same to the byte', () => {
    recordGuest('nested.elf', { store: sqliteStore(parent), limit: 100_000, checkpointEvery: 20_000 });
    const before = sha256(parent);
    const reader = sqliteStore(parent).read();
    const forked = fork(reader, '84030', sqliteStore(child), 20_000);
    const { diversion, timeline } = forked;
    diversion.write(0, [register('r15', 0x1234n)]);
    timeline.stopAt({ code: new Set([AFTER_VMRUN]), writes: [], reads: [] });
    for (let stop = 0; stop < 3; stop++) expect(goOn(forked).kind).toBe('hit');
    const place = timeline.position;
    // Looked at while it is written.
    timeline.stepBack();
    expect(timeline.runBackward().kind).toBe('hit');
    expect([...diversion.tape.records()].at(-1)?.position.seq).toBe(place.seq - 1n);
    timeline.seek(timeline.end);
    timeline.stopAt({ code: new Set(), writes: [], reads: [] });
    goOn(forked);
    diversion.finish();
    reader.close();
    expect(sha256(parent)).toBe(before);
    const kept = sqliteStore(child).read();
    expect(kept.state).toBe('complete');
    expect(formatPosition(kept.start)).toMatch(/^84030:/);
    expect(kept.checkpoints().length).toBeGreaterThan(5);
    expect(replayed(kept)).toBe('identical');
    kept.close();
    const { status, stdout, stderr } = vmtape(['replay', parent, child]);
    expect({ status, stderr }).toEqual({ status: 0, stderr: '' });
    expect(stdout.match(/identical/g)).toHaveLength(2);
    expect(vmtape(['log', child, '--kind', 'input.*']).stdout).toContain('debugger: vCPU 0 r15 := 0x1234');
    expect(vmtape(['verify', child]).status).toBe(0);
  }, 180_000);

  it('is refused where there is a tape of that name already', () => {
    expect(() => fork(nested, '50000', sqliteStore(child))).toThrow(/child\.vmtape/);
  });
});

/**
 * What the architecture leaves open, as a difference between two sessions: it is named as such, and passed over where that is
 * asked for, also where one session alone has it; what differs besides is found all the same.
 */
import { afterEach, beforeEach, describe, expect, it, vi } from 'vitest';
import { type JournalReader, memoryStore, PageTree, pageDigest } from '../../../src/journal/index.js';
import { PAGE_BYTES, R } from '../../../src/machine/index.js';
import { Emitter } from '../../../src/machine/wasm/emit.js';
import { forgetHandlers } from '../../../src/machine/wasm/handlers.js';
import {
  type Bisection,
  type BisectOptions,
  bisect,
  CHAOS_DECISIONS,
  type Divergence,
  type Perturbation,
  Recorder,
  Side,
  Timeline,
  takeSnapshot,
} from '../../../src/replay/index.js';
import { bisectionDocument } from '../../../tools/bisect/document.js';
import { page } from '../../../tools/bisect/page.js';
import { recordGuest } from '../../support/sessions.js';

const OPTIONS: BisectOptions = { leniency: { hostSaveArea: false }, searchesPolicies: false };
const WITHOUT_CHAOS: BisectOptions = { ...OPTIONS, ignores: (type) => CHAOS_DECISIONS.has(type) };

const between = (first: JournalReader, second: JournalReader, options = OPTIONS): Bisection =>
  bisect([new Side('first', first), new Side('second', second)], options);

function differing(...args: Parameters<typeof between>): Divergence & { readonly kind: 'differs' } {
  const found = between(...args);
  if (found.kind !== 'differs') throw new Error(`they are ${found.kind}`);
  return found;
}

const COLORS = { bold: (text: string) => text, dim: (text: string) => text } as Parameters<typeof page>[2];
const textOf = (found: Bisection): string => page(found, ['first', 'second'], COLORS).join('\n');

const tapeOf = (...args: Parameters<typeof recordGuest>): JournalReader => recordGuest(...args).store.read();

describe('decisions of chaos that one session alone has', () => {
  const LIMIT = 300_000;
  const bytes = (text: string): Uint8Array => new TextEncoder().encode(text);
  const holds: readonly Perturbation[] = [50_000, 70_001, 100_000, 150_123].map((at) => ({
    ...{ at, kind: 'hold', vcpu: 0, nanoseconds: 100 },
  }));
  const compute = (text: string, chaos?: readonly Perturbation[]): JournalReader =>
    tapeOf('compute.elf', { limit: LIMIT, input: bytes(text), ...(chaos === undefined ? {} : { chaos }) });

  it('are named as open', () => {
    const found = differing(compute('input'), compute('input', holds));
    expect(found.place.icount).toBe(50_000n);
    expect(found.open).toMatchObject({ isAll: true, differences: [{ kind: 'chaos' }] });
    expect(textOf(found)).toMatch(/leaves open.*both may be right/);
    expect(textOf(found)).toMatch(/second session: L1 chaos: vCPU 0 takes no .*--equivalent chaos passes it over/);
    expect(bisectionDocument(found, ['first', 'second'])).toMatchObject({
      open: { all: true, differences: [{ kind: 'chaos' }] },
    });
  });

  it('are passed over, on either side, and the runs that they cut held against whole ones', () => {
    const [plain, held] = [compute('input'), compute('input', holds)];
    const passed = (only: string) => holds.map(() => ({ what: 'input.hold', only }));
    expect(between(plain, held, WITHOUT_CHAOS)).toMatchObject({ kind: 'same', effort: { passed: passed('second') } });
    expect(between(held, plain, WITHOUT_CHAOS)).toMatchObject({ kind: 'same', effort: { passed: passed('first') } });
    expect(between(plain, held, { ...OPTIONS, ignores: (type) => type === 'input.turn' }).kind).toBe('differs');
    const others = holds.map((hold) => ({ ...hold, at: hold.at + 777 }));
    expect(between(held, compute('input', others), WITHOUT_CHAOS).kind).toBe('same');
  });

  it('do not hide what differs behind them: the place is told as each tape numbers its events', () => {
    const found = differing(compute('good'), compute('gold', holds), WITHOUT_CHAOS);
    expect(found.transitions.sides.map(({ events }) => events[0]?.event.type)).toEqual([
      'input.serial',
      'input.serial',
    ]);
    expect(found.causes[0]).toMatchObject({ kind: 'input', name: 'input.serial' });
    expect(found.place.icount).toBe(found.placeOnSecond.icount);
    // Each is an event, and cuts a run in two.
    const before = holds.filter(({ at }) => BigInt(at) < found.place.icount).length;
    expect(before).toBeGreaterThan(0);
    expect(found.placeOnSecond.seq - found.place.seq).toBe(BigInt(2 * before));
  });

  it('do not hide that one session ends earlier', () => {
    const short = tapeOf('compute.elf', { limit: 160_000, input: bytes('input') });
    expect(between(short, compute('input', holds), WITHOUT_CHAOS)).toMatchObject({ kind: 'ends', which: 'first' });
  });
});

describe('flags that an instruction leaves undefined', () => {
  beforeEach(forgetHandlers);
  afterEach(() => {
    vi.restoreAllMocks();
    forgetHandlers();
  });

  type FlagsOf = (this: Emitter, width: number, result: Parameters<Emitter['flagsLogic']>[1]) => void;

  function otherProcessor(of: 'flagsLogic' | 'flagsSub', flags: FlagsOf): JournalReader {
    vi.spyOn(Emitter.prototype, of).mockImplementation(function (this: Emitter, ...values: readonly unknown[]) {
      flags.call(this, values[0] as number, values.at(-1) as Parameters<FlagsOf>[1]);
    });
    forgetHandlers();
    const tape = tapeOf('compute.elf', { limit: 200_000 });
    vi.restoreAllMocks();
    forgetHandlers();
    return tape;
  }

  /** AND, OR, XOR and TEST set AF: a carry out of bit 3. */
  const otherAND = (): JournalReader =>
    otherProcessor('flagsLogic', function (width, result) {
      this.flagsAdd(width, this.constant(8n), this.constant(8n), result);
    });

  it('are named as open, and passed over', () => {
    const [own, other] = [tapeOf('compute.elf', { limit: 200_000 }), otherAND()];
    const found = differing(own, other);
    expect(found.open).toMatchObject({ isAll: true, differences: [{ kind: 'undefined-flags' }] });
    expect(textOf(found)).toMatch(
      /AF: the last instruction to touch it leaves it undefined.*--equivalent undefined-flags/,
    );
    const lenient = between(own, other, { ...OPTIONS, undefinedFlags: true });
    expect(lenient.kind).toBe('same');
    expect(lenient.effort.passed.every(({ what }) => what === 'undefined-flags')).toBe(true);
    expect(lenient.effort.passed.length).toBeGreaterThan(0);
  });

  const otherCMP = (): JournalReader =>
    otherProcessor('flagsSub', function (width, result) {
      this.flagsLogic(width, result);
    });

  it('are not those that the instruction defines', () => {
    const [own, other] = [tapeOf('compute.elf', { limit: 200_000 }), otherCMP()];
    const found = differing(own, other, { ...OPTIONS, undefinedFlags: true });
    expect(found.open).toEqual({ isAll: false, differences: [] });
  });
});

describe('the host save area', () => {
  it('is named as open, and passed over, other RAM not', () => {
    const whole = tapeOf('nested.elf', { limit: 90_000 });
    const timeline = new Timeline(whole);
    timeline.seekInstruction(60_000n);
    const snapshot = takeSnapshot(timeline.machine, whole, timeline.position);
    const area = Number(timeline.machine.registers[R.vmHsavePA]) / PAGE_BYTES;
    /** Goes on with a page of other content. */
    const resumed = (...pages: readonly number[]): JournalReader => {
      const changed = snapshot.ram.pages.slice();
      for (const page of pages) changed[page] = snapshot.ram.contents.length + 1;
      const contents = [...snapshot.ram.contents, new Uint8Array(PAGE_BYTES).fill(0x5a)];
      const tree = new PageTree(changed.length);
      for (const [page, content] of changed.entries()) {
        if (content !== 0) tree.set(page, pageDigest(contents[content - 1] as Uint8Array));
      }
      const store = memoryStore();
      const ram = { pages: changed, contents };
      const digests = { ...snapshot.digests, ram: tree.root() };
      const recorder = Recorder.resume(store, { ...snapshot, ram, digests }, { vmtapeVersion: 'test' });
      while (recorder.machine.retired < 70_000) recorder.step(70_000);
      recorder.finish();
      return store.read();
    };
    const [plain, other] = [resumed(), resumed(area)];
    const found = differing(plain, other);
    expect(found.open).toMatchObject({ isAll: true, differences: [{ kind: 'host-save-area' }] });
    expect(textOf(found)).toMatch(/is the page at VM_HSAVE_PA.*--equivalent host-save-area passes it over/);
    const lenient = { ...OPTIONS, leniency: { hostSaveArea: true } };
    expect(between(plain, other, lenient)).toMatchObject({
      kind: 'same',
      effort: { passed: [{ what: 'host-save-area' }] },
    });
    const unused = snapshot.ram.pages.lastIndexOf(0);
    const more = differing(plain, resumed(area, unused), lenient);
    expect(more.transitions.memory).toMatchObject([{ address: unused * PAGE_BYTES }]);
    expect(more.open.isAll).toBe(false);
  });
});

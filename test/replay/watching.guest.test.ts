/** Every kind of stop point, in both directions, held against a look at each single step of a whole tape. */
import { beforeAll, describe, expect, it } from 'vitest';
import { formatPosition, START } from '../../src/journal/index.js';
import {
  DEFAULT_CONFIG,
  type Machine,
  type MemoryWatcher,
  NO_STOP_POINTS,
  PAGE_BYTES,
  R,
  REGISTER_NAMES,
  SLOT_COUNT,
  type StopPoints,
  SvmMode,
  VMCB,
} from '../../src/machine/index.js';
import {
  deviceValue,
  finish,
  ramValue,
  registerValue,
  storedMsrValue,
  Timeline,
  WATCHED_DEVICES,
  type WatchedValue,
} from '../../src/replay/index.js';
import { MEBIBYTE, type RecordedHow, type RecordedSession, recordGuest } from '../support/sessions.js';

/** A step after which something was hit. */
interface Met {
  readonly at: string;
  /** What changed, with its values. */
  readonly changes: readonly string[];
}

interface Access {
  readonly at: string;
  readonly icount: bigint;
  readonly address: number;
  readonly length: number;
}

interface Walked {
  readonly session: RecordedSession;
  /** All data reads of the tape, as the evaluator makes them, and all writes. */
  readonly loads: readonly Access[];
  readonly stores: readonly Access[];
  /** Linear addresses of instructions, and the places before them. */
  readonly executed: ReadonlyMap<bigint, readonly string[]>;
  /** For each value the steps that changed it. */
  readonly changes: ReadonlyMap<string, readonly Met[]>;
}

const text = (value: WatchedValue, old: string, now: string): string => `${value.name}: ${old} → ${now}`;

/** Goes through a whole tape step by step, on the evaluator, and looks at everything after each of them. */
function walk(session: RecordedSession, values: readonly WatchedValue[]): Walked {
  const timeline = new Timeline(session.store.read());
  const { machine } = timeline;
  let step: Omit<Access, 'at' | 'icount'>[] = [];
  let stepStores: Omit<Access, 'at' | 'icount'>[] = [];
  const watcher: MemoryWatcher = {
    ...{ writtenPages: new Set(), readPages: new Set(), sent: () => {} },
    stored: (address, length) => stepStores.push({ address, length }),
    loaded: (address, length) => step.push({ address, length }),
  };
  const loads: Access[] = [];
  const stores: Access[] = [];
  const changes = new Map<string, Met[]>(values.map(({ name }) => [name, []]));
  const executed = new Map<bigint, string[]>();
  const known = values.map((value) => value.read(machine));
  const isRegister = values.map(({ ranges, suspects }) => ranges.length === 0 && !suspects(RESET, 0));
  let files = registerFiles(machine);
  machine.watch({ begins: () => {}, completes: () => {} }, 'evaluator');
  machine.memory.watch(watcher);
  for (;;) {
    const before = { at: formatPosition(timeline.position), next: machine.nextInstruction, icount: machine.retired };
    if (!timeline.step()) break;
    const at = formatPosition(timeline.position);
    if (machine.retired > before.icount) executed.set(before.next, [...(executed.get(before.next) ?? []), before.at]);
    const { icount } = timeline.position;
    for (const each of step) loads.push({ at, icount, ...each });
    for (const each of stepStores) stores.push({ at, icount, ...each });
    step = [];
    stepStores = [];
    // Most steps change general registers alone; and the reducer alone changes devices.
    const hasEvents = !at.endsWith(before.at.slice(before.at.indexOf(':')));
    const now = registerFiles(machine);
    const registersChanged = now.some((file, vcpu) => !file.equals(files[vcpu] as Buffer));
    files = now;
    for (const [index, value] of values.entries()) {
      if (value.ranges.length === 0 && !(isRegister[index] === true ? registersChanged : hasEvents)) continue;
      const [old, now] = [known[index] as string, value.read(machine)];
      if (now === old) continue;
      known[index] = now;
      changes.get(value.name)?.push({ at, changes: [text(value, old, now)] });
    }
  }
  timeline.close();
  return { session, loads, stores, executed, changes };
}

const RESET = { type: 'machine.reset', at: 0 } as const;

/** What stands behind the general registers, of each vCPU. */
const registerFiles = ({ state }: Machine): Buffer[] =>
  state.vcpus.map(({ registers }) => {
    const { buffer, byteOffset } = registers as unknown as BigUint64Array;
    return Buffer.from(Buffer.from(buffer, byteOffset + 8 * R.es, 8 * (SLOT_COUNT - R.es)));
  });

const found = (timeline: Timeline, stop: ReturnType<Timeline['runForward']>): Met => ({
  at: formatPosition(timeline.position),
  changes: stop.kind === 'hit' ? stop.changes.map((change) => text(change.value, change.old, change.new)) : [],
});

function forwards(timeline: Timeline, points: StopPoints, values: readonly WatchedValue[] = []): readonly Met[] {
  timeline.seek(START);
  timeline.stopAt(points, values);
  const all: Met[] = [];
  for (let stop = timeline.runForward(); stop.kind === 'hit'; stop = timeline.runForward())
    all.push(found(timeline, stop));
  expect(timeline.position).toEqual(timeline.end);
  return all;
}

/** Of those, each. */
const NAMED = /^(gif|guest mode|vmcb|entry|tpr|pit|(efer|cr3|tr|guestAsid) of 0|device.lapic)/;

const MOST_BACK = 15;

/** From the end, and as many as that at most. */
function backwards(timeline: Timeline, points: StopPoints, values: readonly WatchedValue[] = []): readonly Met[] {
  timeline.seek(timeline.end);
  timeline.stopAt(points, values);
  const all: Met[] = [];
  let stop = finish(timeline.runningBackward(START, true));
  for (; stop.kind === 'hit' && all.length < MOST_BACK; stop = timeline.runBackward())
    all.unshift(found(timeline, stop));
  if (stop.kind === 'end') expect(timeline.position).toEqual(START);
  return all;
}

/** Steps that hit, each once. */
const places = (met: readonly { readonly at: string }[]): readonly string[] => [...new Set(met.map(({ at }) => at))];

const overlaps = (range: { readonly address: number; readonly length: number }, access: Access): boolean =>
  access.address < range.address + range.length && range.address < access.address + access.length;

function compare(walked: Walked, points: StopPoints, expected: readonly string[]): void {
  const timeline = new Timeline(walked.session.store.read());
  expect(places(forwards(timeline, points))).toEqual(expected);
  expect(places(backwards(timeline, points))).toEqual(expected.slice(-MOST_BACK));
  timeline.close();
}

function compareValues(walked: Walked, values: readonly WatchedValue[]): void {
  const timeline = new Timeline(walked.session.store.read());
  for (const value of values) {
    const expected = walked.changes.get(value.name) ?? [];
    expect(forwards(timeline, NO_STOP_POINTS, [value])).toEqual(expected);
    expect(backwards(timeline, NO_STOP_POINTS, [value])).toEqual(expected.slice(-MOST_BACK));
  }
  timeline.close();
}

/** All that events and the control plane change, of every vCPU. */
const allRegisters = (vcpus: number): readonly WatchedValue[] =>
  Array.from({ length: vcpus }, (_, vcpu) => vcpu).flatMap((vcpu) =>
    REGISTER_NAMES.map((name) => registerValue({ name: `${name} of ${vcpu}`, vcpu, slot: R[name] })).filter(
      ({ grain }) => grain !== 'instruction',
    ),
  );

const allDevices = (): readonly WatchedValue[] =>
  Object.entries(WATCHED_DEVICES).map(([name, device]) => deviceValue(`device.${name}`, device, []));

const VMCB_ADDRESS = 0x126000;
const field = (name: 'exitCode' | 'guestASID' | 'nCR3' | 'rip' | 'vmcbClean' | 'intControl'): WatchedValue => {
  const { offset, bytes } = VMCB.fields[name];
  return ramValue(`vmcb.${name}`, [{ address: VMCB_ADDRESS + offset, length: bytes }]);
};

const NESTED_VALUES = [
  ...allRegisters(1),
  ...allDevices(),
  registerValue({ name: 'gif', vcpu: 0, slot: R.svmMode, mask: SvmMode.GIF }),
  registerValue({ name: 'guest mode', vcpu: 0, slot: R.svmMode, mask: SvmMode.GUEST }),
  storedMsrValue('msr', 0, 0xc001_0015),
  ...(['exitCode', 'guestASID', 'nCR3', 'rip'] as const).map(field),
  // The top of both levels' tables, and the leaf of the page that L2 faults at.
  ...[0x128000, 0x12e010, 0x117008].map((address) => ramValue(`entry ${address}`, [{ address, length: 8 }])),
  deviceValue('pit mode', WATCHED_DEVICES.pit as never, ['channels', '0', 'mode']),
  deviceValue('tpr', WATCHED_DEVICES.lapic as never, ['0', 'tpr']),
];

const SESSIONS: Readonly<Record<string, { readonly how: RecordedHow; readonly values: readonly WatchedValue[] }>> = {
  'nested.elf': {
    how: { checkpointEvery: 20_000, commandLine: 'nested.elf rounds=1', limit: 84_500 },
    values: NESTED_VALUES,
  },
  'smp.elf': {
    how: {
      ...{ checkpointEvery: 20_000, limit: 70_000 },
      config: { ...DEFAULT_CONFIG, ramBytes: 64 * MEBIBYTE, vcpus: 3, quantumInstructions: 700 },
    },
    values: [...allRegisters(3), ...allDevices()],
  },
};

describe.each(Object.keys(SESSIONS))('%s', (guest) => {
  const { how, values } = SESSIONS[guest] as (typeof SESSIONS)[string];
  let walked: Walked;
  beforeAll(() => {
    walked = walk(recordGuest(guest, how), values);
  }, 180_000);

  it('stops before instructions, wherever runs end and moments are kept', () => {
    const byCount = [...walked.executed].sort(([, a], [, b]) => a.length - b.length);
    // A rare one, a middling one, one of a loop.
    const chosen = [0, 0.3, 0.6, 0.9].map((part) => byCount[Math.floor(byCount.length * part)] as (typeof byCount)[0]);
    for (const [address, at] of chosen) compare(walked, { ...NO_STOP_POINTS, code: new Set([address]) }, at);
    const both = chosen.slice(1, 3);
    const order = [...walked.executed.values()].length;
    expect(order).toBeGreaterThan(100);
    const merged = both.flatMap(([, at]) => at.map((each) => each)).sort(byPosition);
    compare(walked, { ...NO_STOP_POINTS, code: new Set(both.map(([address]) => address)) }, merged);
  });

  it('stops after data reads, of whatever instruction and level', () => {
    const ranges = rangesOf(walked.loads);
    for (const range of ranges) {
      const expected = places(walked.loads.filter((access) => overlaps(range, access)));
      expect(expected.length).toBeGreaterThan(0);
      compare(walked, { ...NO_STOP_POINTS, reads: [range] }, expected);
    }
  });

  it('stops after writes, whoever makes them', () => {
    for (const range of rangesOf(walked.stores)) {
      const expected = places(walked.stores.filter((access) => overlaps(range, access)));
      compare(walked, { ...NO_STOP_POINTS, writes: [range] }, expected);
    }
  });

  it('stops after accesses of both kinds, in several places', () => {
    const reads = rangesOf(walked.loads).slice(0, 3);
    const writes = [...reads.slice(0, 1), ...rangesOf(walked.stores).slice(0, 2)];
    const expected = places(
      [
        ...walked.loads.filter((access) => reads.some((range) => overlaps(range, access))),
        ...walked.stores.filter((access) => writes.some((range) => overlaps(range, access))),
      ].sort((a, b) => byPosition(a.at, b.at)),
    );
    compare(walked, { ...NO_STOP_POINTS, reads, writes }, expected);
  });

  it('stops after each change of a value that is no access', () => {
    const changed = values.filter(({ name }) => (walked.changes.get(name) ?? []).length > 0);
    expect(changed.length).toBeGreaterThan(guest === 'nested.elf' ? 50 : 20);
    // Each for itself, which lets the search read the tape instead of running it.
    const some = changed.filter((_, index) => index % Math.ceil(changed.length / 16) === 0);
    compareValues(walked, [...some, ...changed.filter(({ name }) => NAMED.test(name))]);
  });

  it('says what has changed where several values are watched, and finds nothing where none does', () => {
    const changed = values.filter(({ name }) => (walked.changes.get(name) ?? []).length > 0);
    const still = values.filter((value) => !changed.includes(value));
    const timeline = new Timeline(walked.session.store.read());
    expect(forwards(timeline, NO_STOP_POINTS, still)).toEqual([]);
    expect(backwards(timeline, NO_STOP_POINTS, still)).toEqual([]);
    const expected = new Map<string, string[]>();
    for (const value of changed)
      for (const { at, changes } of walked.changes.get(value.name) ?? [])
        expected.set(at, [...(expected.get(at) ?? []), ...changes]);
    const all = forwards(timeline, NO_STOP_POINTS, changed);
    expect(all).toEqual([...expected].map(([at, changes]) => ({ at, changes })).sort((a, b) => byPosition(a.at, b.at)));
  });
});

function byPosition(a: string, b: string): number {
  const [one, other] = [a, b].map((each) => each.split(':').map(BigInt)) as [bigint[], bigint[]];
  const [icounts, seqs] = [0, 1].map((index) => (one[index] as bigint) - (other[index] as bigint)) as [bigint, bigint];
  return Number(icounts === 0n ? seqs : icounts);
}

/** Places in RAM that were accessed: of several pages, a rare one, a frequent one, a part of one, and a whole page. */
function rangesOf(accesses: readonly Access[]): readonly { readonly address: number; readonly length: number }[] {
  const counts = new Map<string, number>();
  for (const { address, length } of accesses)
    if (length <= 16) counts.set(`${address},${length}`, (counts.get(`${address},${length}`) ?? 0) + 1);
  const sorted = [...counts]
    .sort(([, a], [, b]) => a - b)
    .map(([key]) => key.split(',').map(Number) as [number, number]);
  const at = (part: number) => sorted[Math.floor((sorted.length - 1) * part)] as [number, number];
  const some = [0, 0.2, 0.4, 0.6, 0.8, 0.95].map(at).map(([address, length]) => ({ address, length }));
  const [wide] = sorted.filter(([, length]) => length >= 4).map(([address]) => ({ address: address + 1, length: 1 }));
  const [rare] = some;
  const page = { address: Math.floor((rare?.address ?? 0) / PAGE_BYTES) * PAGE_BYTES, length: PAGE_BYTES };
  return [...some, ...(wide === undefined ? [] : [wide]), page];
}

describe('a search for changes', () => {
  it('reads the tape where that is enough: nothing runs for what no event suspects', () => {
    const { store } = recordGuest('nested.elf', { ...SESSIONS['nested.elf']?.how });
    const timeline = new Timeline(store.read());
    const value = storedMsrValue('a machine-check bank', 0, 0x400);
    timeline.seek(timeline.end);
    timeline.stopAt(NO_STOP_POINTS, [value]);
    const places: number[] = [];
    const tick = (): boolean => {
      places.push(timeline.machine.retired);
      return false;
    };
    expect(timeline.runBackward({ tick })).toEqual({ kind: 'end' });
    // It looked into every stretch, and stood where it was until it went to the start.
    expect(new Set(places)).toEqual(new Set([Number(timeline.end.icount)]));
    timeline.seek(timeline.end);
    places.length = 0;
    timeline.runBackward({ tick });
    expect(places).toEqual([]);
  });
});

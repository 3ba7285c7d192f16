/**
 * Torture, and how one knows that it finds anything: every bug of the zoo is found, where and in which field
 * docs/torture.md says; without a fault nothing is.
 */
import { readFileSync } from 'node:fs';
import { afterAll, describe, expect, it } from 'vitest';
import { formatPosition, type JournalReader, memoryStore, type Position } from '../../../src/journal/index.js';
import {
  parseOrders,
  parsePlaces,
  placesIn,
  Recorder,
  resolvePosition,
  resumeApart,
  sampled,
  Torture,
  type TortureFailure,
} from '../../../src/replay/index.js';
import type { Components } from '../../../src/replay/snapshot/components.js';
import type { RestoreFault } from '../../../src/replay/torture/fault.js';
import { recordGuest, sessionOptions, withoutCheckpoints } from '../../support/sessions.js';
import { ZOO, type ZooBug } from './zoo.js';

const SETTINGS = { orders: parseOrders('all'), window: { instructions: 2000, events: 200 }, seed: 1n };

/** A tape of a guest, and machines to torture it on, whose fault can be switched. */
class Rack {
  readonly reader: JournalReader;
  readonly places: readonly Position[];
  private fault: RestoreFault = {};
  private readonly torture: Torture;

  constructor(file: string) {
    this.reader = recordGuest(file).store.read();
    const stretch = { from: resolvePosition(this.reader, 'vmrun[0]'), to: this.reader.end };
    this.places = [...placesIn(this.reader, parsePlaces('all'), stretch)];
    this.torture = new Torture(this.reader, SETTINGS, {
      saved: (components) => this.fault.saved?.(components) ?? components,
      put: (name, arrived, fresh) => this.fault.put?.(name, arrived, fresh),
      page: (page, content) => this.fault.page?.(page, content) ?? content,
      restored: (machine) => this.fault.restored?.(machine),
    });
  }

  /** @param fault undefined for none. @returns what the first place with failures gives. */
  first(fault: RestoreFault | undefined, places = this.places): readonly TortureFailure[] {
    this.fault = fault ?? {};
    this.torture.begin(places[0] as Position);
    for (const place of places) {
      const failures = this.torture.at(place)?.failures ?? [];
      if (failures.length > 0) return failures;
    }
    return [];
  }

  apart(place: Position): string | undefined {
    this.fault = {};
    return resumeApart(this.reader, this.torture.saveApart(place));
  }

  close(): void {
    this.torture.close();
  }
}

const racks = new Map<string, Rack>();
function rackOf(guest: ZooBug['guest']): Rack {
  const rack = racks.get(guest) ?? new Rack(guest);
  racks.set(guest, rack);
  return rack;
}
afterAll(() => {
  for (const rack of racks.values()) rack.close();
});

/** Kind of the event behind which it was saved, and its place. */
const eventOf = ({ around, saved }: TortureFailure): string =>
  `${formatPosition(saved)}, after ${(around[0] ?? '')
    .replace(/^\S+ (L\d)/, '$1')
    .split(/[ =:]/)
    .slice(0, 2)
    .join(' ')}`;

function rowOf({ name, bug, source }: ZooBug, failures: readonly TortureFailure[]): string {
  const [atOnce, running] = (['restored', 'running'] as const).map((shown) =>
    failures.find((each) => each.shown === shown),
  );
  const first = atOnce ?? running;
  if (first === undefined) return `| ${name} | not found |`;
  const [difference] = first.differences;
  const field = difference === undefined ? 'none' : `\`${difference.component}\` ${difference.field}`;
  const orders = [...new Set(failures.flatMap((each) => each.orders))].filter((order) => !order.startsWith('random'));
  const which = orders.length === SETTINGS.orders.known.length ? 'every' : orders.join(', ');
  return `| ${name} | ${bug} | ${source} | ${eventOf(first)} | ${which} | ${field} | ${ranOn(running)} |`;
}

/** What the rest of the window showed. */
function ranOn(running: TortureFailure | undefined): string {
  if (running === undefined) return 'nothing';
  return running.stopped === undefined ? 'its end' : `an event, at ${formatPosition(running.at)}`;
}

describe('the bug zoo', () => {
  const page = readFileSync(new URL('../../../docs/torture.md', import.meta.url), 'utf8');

  it.each(ZOO.map((bug) => [bug.name, bug] as const))('%s is found as docs/torture.md says', (name, bug) => {
    const rack = rackOf(bug.guest);
    const row = rowOf(bug, rack.first(bug.fault()));
    expect(page.split('\n').find((line) => line.startsWith(`| ${name} |`))).toBe(row);
  });

  it('has a row for every bug, and no other', () => {
    const [zoo = ''] = page.split('## Campaigns');
    const rows = zoo.split('\n').filter((line) => /^\| [a-z0-9]+(-[a-z0-9]+)+ \|/.test(line));
    expect(rows).toHaveLength(ZOO.length);
  });
});

describe('a state that cannot be put back', () => {
  it('is a failure that names the component', () => {
    const dropped = (components: Components): Components =>
      new Map([...components].filter(([name]) => name !== 'vcpu.0.nested'));
    const [failure, ...more] = rackOf('torture.elf').first({ saved: dropped });
    expect(failure).toMatchObject({
      shown: 'saved',
      stopped: 'vcpu.0.nested: nothing was put there. Use the vmtape that it is from.',
    });
    expect(more).toEqual([]);
  });
});

describe('torture of a tape that was cut', () => {
  it('goes as far as the tape does', () => {
    const store = memoryStore();
    const recorder = Recorder.boot(store, sessionOptions('torture.elf', { sliceInstructions: 500 }));
    while (recorder.machine.retired < 31_000) recorder.step();
    recorder.abandon();
    const reader = store.read();
    expect(reader.state).toBe('cut');
    const torture = new Torture(reader, SETTINGS);
    const places = [...placesIn(reader, parsePlaces('all'), { from: reader.start, to: reader.end })].slice(-20);
    torture.begin(places[0] as Position);
    const outcomes = places.flatMap((place) => torture.at(place) ?? []);
    torture.close();
    expect(outcomes.length).toBeGreaterThan(10);
    expect(outcomes.at(-1)?.position).toEqual(reader.end);
    expect(outcomes.flatMap(({ failures }) => failures)).toEqual([]);
  });
});

describe('torture of a tape whose session was stopped amid a run', () => {
  it('goes to its end, with and without a checkpoint there', () => {
    const store = memoryStore();
    const recorder = Recorder.boot(store, sessionOptions('torture.elf', { commandLine: 'torture.elf rounds=1' }));
    while (recorder.step(30_340) !== 'limit');
    recorder.finish();
    const whole = store.read();
    expect([...whole.records()].at(-1)?.event.type).toBe('cpu.ran');
    for (const reader of [whole, withoutCheckpoints(whole)]) {
      const torture = new Torture(reader, SETTINGS);
      const places = [...placesIn(reader, parsePlaces('all'), { from: reader.start, to: reader.end })].slice(-20);
      torture.begin(places[0] as Position);
      const outcomes = places.flatMap((place) => torture.at(place) ?? []);
      torture.close();
      expect(outcomes.at(-1)?.position).toEqual(reader.end);
      expect(outcomes.flatMap(({ failures }) => failures)).toEqual([]);
    }
  });
});

describe('torture without a fault', () => {
  it.each(['torture.elf', 'nested-timer.elf'] as const)('finds nothing in %s', (guest) => {
    const rack = rackOf(guest);
    expect(rack.first(undefined, sampled(rack.places, 60, 7n).places)).toEqual([]);
  });

  it('finds nothing in machines that never ran the session', () => {
    const rack = rackOf('torture.elf');
    expect(rack.apart(rack.places[100] as Position)).toBeUndefined();
  });
});

/**
 * Torture: at each place of a session saves the machine, takes what was saved through a snapshot's bytes, puts it back into
 * another machine in every order, and runs that on for a window. It must do what the tape says, and be at the end of the
 * window what the unbroken session was there, bit for bit.
 *
 * Two timelines go through the session once: one stands where it is saved, one where windows end. A third machine is the one
 * that is restored. What it is restored to is held at once against what was saved, field by field; the run then shows what
 * no component has. Orders that lead to the same machine are run once: it would do the same again.
 */
import { comparePositions, formatPosition, type JournalReader, joined, type Position } from '../../journal/index.js';
import { InputError, keptBytes, type MachinePoint, PAGE_BYTES } from '../../machine/index.js';
import { recordText } from '../event-text.js';
import { sameData } from '../fold.js';
import { sessionConfig } from '../session.js';
import { type Components, componentsOf, freshComponents, Restoration } from '../snapshot/components.js';
import { takeSnapshot } from '../snapshot/snapshot.js';
import { decodeSnapshot, encodeSnapshot } from '../snapshot/snapshot-file.js';
import { Timeline } from '../timeline.js';
import type { ApartCase } from './apart.js';
import { componentDifferences, type FieldDifference, pageDifference } from './differences.js';
import type { Arrived, RestoreFault } from './fault.js';
import { inOrder, type OrderChoice, ordersAt, type RestoreOrder } from './orders.js';
import { Subject } from './subject.js';
import { Windows } from './windows.js';

export interface TortureSettings {
  readonly orders: OrderChoice;
  /** A machine runs on for so many instructions at least, or so many events. */
  readonly window: { readonly instructions: number; readonly events: number };
  /** Of random orders. */
  readonly seed: bigint;
}

/** A machine that was restored and is not the one that was saved. */
export interface TortureFailure {
  /** Where it was saved, and the events before and after. */
  readonly saved: Position;
  readonly around: readonly string[];
  /** Orders that lead to the same machine. */
  readonly orders: readonly string[];
  /** What was saved cannot be put back; or it shows at once, or in running on. */
  readonly shown: 'saved' | 'restored' | 'running';
  readonly at: Position;
  /** The first of them. */
  readonly differences: readonly FieldDifference[];
  /** Why it did not get to the end of its window. */
  readonly stopped: string | undefined;
}

/** What orders have led to. */
interface Restored {
  readonly point: MachinePoint;
  readonly orders: string[];
}

export interface PlaceOutcome {
  readonly position: Position;
  /** Times that the machine was put back. */
  readonly restores: number;
  readonly windows: number;
  readonly failures: readonly TortureFailure[];
}

/** Differences that a failure tells; a wrong register spreads. */
const TOLD_DIFFERENCES = 12;

export class Torture {
  private readonly here: Timeline;
  private readonly windows: Windows;
  private readonly subject: Subject;
  private readonly config;
  private readonly fresh: Components;
  private last: Position | undefined;
  private readonly orderedNames = new Map<string, readonly string[]>();

  /** @throws InputError when this vmtape cannot make the machine of the tape. */
  constructor(
    private readonly reader: JournalReader,
    private readonly settings: TortureSettings,
    private readonly fault?: RestoreFault,
  ) {
    this.config = sessionConfig(reader.header).machine;
    this.fresh = freshComponents(this.config);
    this.here = new Timeline(reader);
    this.windows = new Windows(reader, settings.window);
    this.subject = new Subject(reader, this.here.machine.memory, fault);
  }

  close(): void {
    this.here.close();
    this.windows.close();
    this.subject.close();
  }

  /** Goes to where the next places are, at or before the first of them. */
  begin(place: Position): void {
    this.windows.begin(this.here.seek(place));
    this.last = undefined;
  }

  /** The first place at or after `place`, as a case for another process. */
  saveApart(place: Position): ApartCase {
    this.begin(place);
    this.goTo(place);
    const { machine, position } = this.here;
    const snapshot = joined(encodeSnapshot(takeSnapshot(machine, this.reader, position)));
    return { snapshot, ...this.windows.digestsFrom(position) };
  }

  /**
   * Saves at the first place at or after `place`; call `begin` before, and it with places in order.
   * @returns undefined when the machine was saved there already, or the session has no such place.
   */
  at(place: Position): PlaceOutcome | undefined {
    if (!this.goTo(place)) return undefined;
    const { position } = this.here;
    const point = this.here.machine.capture();
    const orders = ordersAt(this.settings.orders, this.settings.seed + 1_000_003n * position.seq + position.icount);
    const kinds = this.putBackInOrders(point, orders);
    if (kinds instanceof InputError) {
      const how = { shown: 'saved', at: position, stopped: kinds.message, differences: [] } as const;
      const failure = {
        saved: position,
        around: this.around(position),
        orders: orders.map(({ name }) => name),
        ...how,
      };
      return { position, restores: 0, windows: 0, failures: [failure] };
    }
    const failures = kinds.flatMap((restored) => this.restoreAndRun(point, restored));
    return { position, restores: orders.length, windows: kinds.length, failures };
  }

  /** @returns each machine that the orders lead to, or why they lead to none. */
  private putBackInOrders(point: MachinePoint, orders: readonly RestoreOrder[]): readonly Restored[] | InputError {
    const kinds: Restored[] = [];
    try {
      const read = componentsOf(this.throughBytes(point));
      const saved = this.fault?.saved?.(read) ?? read;
      for (const order of orders) {
        const restored = this.putBack(saved, order);
        const same = kinds.find((kind) => sameData(kind.point, restored));
        if (same === undefined) kinds.push({ point: restored, orders: [order.name] });
        else same.orders.push(order.name);
      }
      return kinds;
    } catch (error) {
      if (error instanceof InputError) return error;
      throw error;
    }
  }

  private goTo(place: Position): boolean {
    const { here } = this;
    const position = comparePositions(here.position, place) < 0 ? here.reach(place) : here.position;
    if (this.last !== undefined && comparePositions(position, this.last) <= 0) return false;
    this.last = position;
    return true;
  }

  /** The file format carries what a machine is; RAM is left out, for it would be most of the work. */
  private throughBytes(point: MachinePoint): MachinePoint {
    const { vmtapeVersion, machineVersion, configuration } = this.reader.header;
    const none = new Uint8Array(0);
    const bytes = encodeSnapshot({
      description: { vmtapeVersion, machineVersion, configuration },
      position: this.here.position,
      parent: undefined,
      point,
      ram: { pages: new Uint32Array(keptBytes(this.config) / PAGE_BYTES), contents: [] },
      image: undefined,
      digests: { cpu: none, vmcb: none, devices: none, machine: none, ram: none },
    });
    return decodeSnapshot(joined(bytes), 'torture').point;
  }

  private putBack(saved: Components, order: RestoreOrder): MachinePoint {
    const arrived: Arrived = new Map();
    for (const name of this.namesIn(order)) {
      const fields = saved.get(name);
      if (fields === undefined) continue;
      arrived.set(name, fields);
      this.fault?.put?.(name, arrived, this.fresh);
    }
    const restoration = new Restoration(this.config);
    for (const [name, fields] of arrived) restoration.put(name, fields);
    return restoration.finish();
  }

  /** A machine has the same components everywhere. */
  private namesIn(order: RestoreOrder): readonly string[] {
    const names = this.orderedNames.get(order.name) ?? inOrder(this.fresh.keys(), order);
    if (this.settings.orders.known.includes(order)) this.orderedNames.set(order.name, names);
    return names;
  }

  private restoreAndRun(original: MachinePoint, restored: Restored): readonly TortureFailure[] {
    const { subject } = this;
    const { position } = this.here;
    const memory = this.here.machine.memory;
    const pages = subject.takeRam();
    subject.enter(position, restored.point);
    const failures: TortureFailure[] = [];
    const fail = (
      how: Pick<TortureFailure, 'shown' | 'at' | 'stopped'>,
      differences: readonly FieldDifference[],
    ): void => {
      const told = differences.slice(0, TOLD_DIFFERENCES);
      failures.push({
        saved: position,
        around: this.around(position),
        orders: restored.orders,
        ...how,
        differences: told,
      });
    };
    const found = [
      ...pointDifferences(original, subject.machine.capture()),
      ...pages.flatMap((page) => this.comparePage(page, memory.window(page * PAGE_BYTES, PAGE_BYTES))),
    ];
    if (found.length > 0) fail({ shown: 'restored', at: position, stopped: undefined }, found);
    const window = this.windows.from(position);
    const end = subject.run(window.end) ?? this.standsElsewhere(window.end);
    if (end !== undefined) {
      const [, next = 'its end'] = this.around(end.at);
      fail({ shown: 'running', at: end.at, stopped: `${end.what}: ${next}` }, []);
      return failures;
    }
    const touched = new Set([...subject.writtenPages, ...window.pages]);
    const differences = [
      ...pointDifferences(window.point, subject.machine.capture()),
      ...[...touched].flatMap((page) => this.comparePage(page, window.page(page))),
    ];
    if (differences.length > 0) fail({ shown: 'running', at: window.end, stopped: undefined }, differences);
    return failures;
  }

  /** A machine that states the same events at other instruction counts. */
  private standsElsewhere(end: Position): { readonly what: string; readonly at: Position } | undefined {
    const { position: at } = this.subject;
    if (comparePositions(at, end) === 0) return undefined;
    return { what: `it stands at ${formatPosition(at)} instead of ${formatPosition(end)}`, at };
  }

  private comparePage(page: number, expected: Uint8Array): readonly FieldDifference[] {
    const found = this.subject.machine.memory.window(page * PAGE_BYTES, PAGE_BYTES);
    const difference = pageDifference(page, expected, found);
    return difference === undefined ? [] : [difference];
  }

  /** The events before and after a place. */
  private around({ seq }: Position): readonly string[] {
    const texts: string[] = seq > this.reader.start.seq ? [] : ['its start'];
    for (const record of this.reader.records(seq - BigInt(1 - texts.length))) {
      if (record.position.seq > seq) break;
      texts.push(recordText(record));
    }
    return texts;
  }
}

const pointDifferences = (expected: MachinePoint, found: MachinePoint): readonly FieldDifference[] =>
  sameData(expected, found) ? [] : componentDifferences(componentsOf(expected), componentsOf(found));

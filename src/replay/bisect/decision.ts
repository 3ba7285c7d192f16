/**
 * The decision behind an intercept that one session takes and another does not, or takes otherwise: the row of the table as
 * each side has it, the bits that were looked at, and who wrote them.
 */
import type { Position } from '../../journal/index.js';
import {
  decodeDelta,
  type EventOf,
  exitName,
  explainMsr,
  explainPort,
  explainRefusal,
  INTERCEPTS,
  type Intercept,
  type InterceptInForce,
  interceptInForce,
  interceptOfExit,
  isInvalidExit,
  type MapAnswer,
  R,
  type Slot,
  type StatedEvent,
  SvmMode,
  vmcbFieldsOfWord,
} from '../../machine/index.js';
import type { Pair } from './pair.js';
import type { Side } from './side.js';
import type { Before, Transition } from './transition.js';
import { type WriterAnswer, writerOfByte, writerOfVmcb } from './writers.js';

/** A row of the table of intercepts, on one side. */
export interface RowThere extends InterceptInForce {
  /** A guest ran. */
  readonly inGuest: boolean;
  /** The processor's copy of the VMCB's bit. */
  readonly set: boolean;
  /** The side exits by this row. */
  readonly taken: boolean;
  /** Of rows that a permission map decides with. */
  readonly map?: MapAnswer | undefined;
  readonly writer: WriterAnswer;
  readonly mapWriter?: WriterAnswer | undefined;
}

export interface InterceptDecision {
  readonly row: Intercept;
  /** EXITCODE by its short name. */
  readonly exit: string;
  /** sPA of the VMCB, the field that holds the bit, and the field's offset. */
  readonly vmcb: number;
  readonly field: string;
  readonly sides: Pair<RowThere | undefined>;
}

/** A VMRUN that one side refuses. */
export interface EntryDecision {
  readonly vmcb: number;
  /** The check that fails on each side; undefined when none does. */
  readonly refusals: Pair<string | undefined>;
}

export interface Decisions {
  readonly intercepts: readonly InterceptDecision[];
  readonly entry: EntryDecision | undefined;
}

type VmExitEvent = EventOf<'svm.vmexit'>;

const exitOf = (events: readonly StatedEvent[]): VmExitEvent | undefined =>
  events.map(({ event }) => event).find((event): event is VmExitEvent => event.type === 'svm.vmexit');

export function decisionsAt(sides: Pair<Side>, transitions: Pair<Transition>, places: Pair<Position>): Decisions {
  const exits = [exitOf(transitions[0].events), exitOf(transitions[1].events)] as const;
  const invalid = exits.find((exit) => exit !== undefined && isInvalidExit(exit.code));
  const rows = new Map<Intercept, VmExitEvent>();
  for (const exit of exits) {
    const row = exit && interceptOfExit(exit.code);
    if (exit !== undefined && row !== undefined) rows.set(row, exit);
  }
  const intercepts = [...rows].map(([row, exit]) => interceptAt(sides, transitions, exits, row, exit, places));
  return {
    intercepts: intercepts.length > 0 ? intercepts : loadedDifferently(sides, transitions, places),
    entry: invalid && {
      vmcb: invalid.vmcb,
      refusals: [refusal(sides[0], invalid.vmcb, places[0]), refusal(sides[1], invalid.vmcb, places[1])],
    },
  };
}

/** Rows whose bits a VMRUN takes over on one side only; no exit tells yet. */
function loadedDifferently(
  sides: Pair<Side>,
  transitions: Pair<Transition>,
  places: Pair<Position>,
): readonly InterceptDecision[] {
  const [first, second] = [vmrunOf(transitions[0]), vmrunOf(transitions[1])];
  if (first === undefined || second === undefined) return [];
  const loaded = [first, second].map(({ event, before }) => {
    const changed = new Map(decodeDelta(event.registers));
    return (slot: Slot): bigint => changed.get(slot) ?? (before.registers[slot] as bigint);
  }) as unknown as Pair<(slot: Slot) => bigint>;
  const differ = ({ slot, bit }: Intercept): boolean =>
    (((loaded[0](slot) ^ loaded[1](slot)) >> BigInt(bit)) & 1n) === 1n;
  const { vmcb } = first.event;
  return Object.values(INTERCEPTS)
    .filter(differ)
    .slice(0, MOST_ROWS)
    .map((row) => {
      const there = (index: 0 | 1, before: Before): RowThere => ({
        ...interceptInForce(before.profile, row.name),
        inGuest: true,
        set: ((loaded[index](row.slot) >> BigInt(row.bit)) & 1n) === 1n,
        taken: false,
        writer: writerOfVmcb(sides[index], vmcb, byteOf(row), places[index]),
      });
      return { ...rowPlace(row, vmcb), sides: [there(0, first.before), there(1, second.before)] };
    });
}

const MOST_ROWS = 8;

function vmrunOf({
  events,
  before,
}: Transition): { readonly event: EventOf<'svm.vmrun'>; readonly before: Before } | undefined {
  const event = events.map((stated) => stated.event).find((each) => each.type === 'svm.vmrun');
  return event === undefined || before === undefined ? undefined : { event: event as EventOf<'svm.vmrun'>, before };
}

/** Offset in the VMCB of the byte that holds the bit. */
const byteOf = ({ offset, bit }: Intercept): number => offset + (bit >> 3);

function rowPlace(row: Intercept, vmcb: number): Omit<InterceptDecision, 'sides'> {
  const field = vmcbFieldsOfWord(row.offset >> 3)[(row.offset & 4) === 0 ? 0 : 1] ?? `+${row.offset.toString(16)}h`;
  return { row, exit: exitName(row.exitCode), vmcb, field };
}

function refusal(side: Side, vmcb: number, place: Position): string | undefined {
  const machine = side.at(place)?.machine;
  return machine && explainRefusal(machine.profile, machine.registers, machine.memory, vmcb);
}

function interceptAt(
  sides: Pair<Side>,
  [first, second]: Pair<Transition>,
  exits: Pair<VmExitEvent | undefined>,
  row: Intercept,
  exit: VmExitEvent,
  places: Pair<Position>,
): InterceptDecision {
  const there = (index: 0 | 1, before: Before | undefined): RowThere | undefined =>
    before && rowThere(sides[index], before, exits[index], row, exit, places[index]);
  return { ...rowPlace(row, exit.vmcb), sides: [there(0, first.before), there(1, second.before)] };
}

function rowThere(
  side: Side,
  before: Before,
  own: VmExitEvent | undefined,
  row: Intercept,
  exit: VmExitEvent,
  place: Position,
): RowThere {
  const { registers, profile } = before;
  const memory = side.at(place)?.machine.memory ?? before.memory;
  const map = mapOf({ ...before, memory }, row, exit);
  const bit = map?.bits.find(({ set }) => set) ?? map?.bits[0];
  const inGuest = ((registers[R.svmMode] as bigint) & SvmMode.GUEST) !== 0n;
  const set = (((registers[row.slot] as bigint) >> BigInt(row.bit)) & 1n) === 1n;
  const inForce = interceptInForce(profile, row.name);
  // The copy of a bit that is not looked at is clear; what the VMCB says is in RAM.
  const inMemory = ((memory.window(exit.vmcb + byteOf(row), 1)[0] as number) >> (row.bit & 7)) & 1;
  return {
    ...inForce,
    inGuest,
    set: inForce.ignored ? inMemory === 1 : set,
    taken: own?.code === row.exitCode,
    map,
    writer: writerOfVmcb(side, exit.vmcb, byteOf(row), place),
    mapWriter: bit && writerOfByte(side, bit.address, place),
  };
}

/** EXITINFO1 tells which access it was (APM vol.2 §15.10.3 (I)OIO Intercept Information, §15.11 MSR Intercepts). */
function mapOf({ profile, registers, memory }: Before, row: Intercept, exit: VmExitEvent): MapAnswer | undefined {
  if (row.name === 'IOIO_PROT') {
    const port = Number((exit.info1 >> 16n) & 0xffffn);
    const size = Number((exit.info1 >> 4n) & 7n);
    return explainPort(profile, registers, memory, port, size);
  }
  if (row.name === 'MSR_PROT') {
    const msr = Number((registers[R.rcx] as bigint) & 0xffff_ffffn);
    return explainMsr(profile, registers, memory, msr, (exit.info1 & 1n) === 1n);
  }
  return undefined;
}

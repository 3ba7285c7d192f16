/**
 * Registers, VMCBs and devices at any boundary, folded from a tape without running guest code, by the reducers that the
 * live machine runs (law 5): in place, for a state somewhere, or as immutable values, for a history.
 */
import { boundaryAfter, type JournalReader, type JournalRecord, type Position } from '../journal/index.js';
import {
  type EventSink,
  initialState,
  type Machine,
  type MachineState,
  REGISTER_NAMES,
  type Registers,
  reduce,
  type Slot,
  stateAfter,
  VMCB,
  type VmcbWords,
  vmcbFieldsOfWord,
  vmcbWord,
} from '../machine/index.js';
import { hex } from './event-text.js';
import { decodePoint } from './point-codec.js';
import { sessionConfig } from './session.js';

/** A state and the boundary where it stands. */
export interface FoldedState {
  readonly position: Position;
  readonly state: MachineState;
}

/** The state before the first event of a tape: at power-on, or at its origin. Amid a run there, that before the run. */
function firstState(reader: JournalReader): MachineState {
  const origin = reader.origin();
  if (origin === undefined) return initialState(sessionConfig(reader.header).machine);
  const { state, shadow } = decodePoint(origin.state);
  const vcpus = state.vcpus.map(({ registers, msrs }, vcpu) => {
    const stated = vcpu === state.schedule.vcpu && shadow !== undefined ? shadow : registers;
    return { registers: Array.from(stated as ArrayLike<bigint>) as Registers, msrs };
  });
  return { ...state, vcpus };
}

/** @param seq number of events before the boundary; the end of the tape when absent. */
export function foldTape(reader: JournalReader, seq: bigint = reader.end.seq): FoldedState {
  const state = firstState(reader);
  let position = reader.start;
  if (seq <= position.seq) return { position, state };
  for (const record of reader.records()) {
    reduce(state, record.event, record.vcpu);
    position = boundaryAfter(record);
    if (position.seq >= seq) break;
  }
  return { position, state };
}

/** The state after every event, from power-on: immutable values that share structure with their neighbours. */
export function* foldHistory(
  reader: JournalReader,
): Generator<FoldedState & { readonly record: JournalRecord | undefined }> {
  let state = firstState(reader);
  yield { position: reader.start, state, record: undefined };
  for (const record of reader.records()) {
    state = stateAfter(state, record.event, record.vcpu);
    yield { position: boundaryAfter(record), state, record };
  }
}

/** A field in which two states differ. */
export interface StateDifference {
  /** `vcpu 0 rax`, `vmcb 0x7000 rip`, `devices.pit.channels.0.count` … */
  readonly path: string;
  readonly first: string;
  readonly second: string;
}

/** Where two states differ, in order; empty when they are equal bit for bit. */
export function stateDifferences(first: MachineState, second: MachineState): readonly StateDifference[] {
  const differences: StateDifference[] = [];
  const vcpus = Math.max(first.vcpus.length, second.vcpus.length);
  for (let vcpu = 0; vcpu < vcpus; vcpu++) {
    const [a, b] = [first.vcpus[vcpu], second.vcpus[vcpu]];
    registerDifferences(`vcpu ${vcpu}`, a?.registers, b?.registers, differences);
    dataDifferences(`vcpu ${vcpu} msrs`, a?.msrs, b?.msrs, differences);
  }
  for (const address of new Set([...Object.keys(first.vmcbs), ...Object.keys(second.vmcbs)])) {
    vmcbDifferences(`vmcb ${hex(Number(address))}`, first.vmcbs[address], second.vmcbs[address], differences);
  }
  const { vcpus: _a, vmcbs: _b, ...firstRest } = first;
  const { vcpus: _c, vmcbs: _d, ...secondRest } = second;
  dataDifferences('', firstRest, secondRest, differences);
  return differences;
}

function registerDifferences(
  path: string,
  first: Registers | undefined,
  second: Registers | undefined,
  found: StateDifference[],
): void {
  for (let slot = 0; slot < REGISTER_NAMES.length; slot++) {
    const a = first?.[slot as Slot];
    const b = second?.[slot as Slot];
    if (a !== b) found.push({ path: `${path} ${REGISTER_NAMES[slot]}`, first: text(a), second: text(b) });
  }
}

/** A copy that is not there is one of all zeros. */
function vmcbDifferences(
  path: string,
  first: VmcbWords | undefined,
  second: VmcbWords | undefined,
  found: StateDifference[],
): void {
  for (let word = 0; word < VMCB.bytes / 8; word++) {
    const low = 2 * word;
    if ((first?.[low] ?? 0) === (second?.[low] ?? 0) && (first?.[low + 1] ?? 0) === (second?.[low + 1] ?? 0)) continue;
    const name = vmcbFieldsOfWord(word).join('+') || `+${hex(word * 8)}`;
    const value = (words: VmcbWords | undefined): string => text(words === undefined ? 0n : vmcbWord(words, word));
    found.push({ path: `${path} ${name}`, first: value(first), second: value(second) });
  }
}

function dataDifferences(path: string, first: unknown, second: unknown, found: StateDifference[]): void {
  if (Object.is(first, second)) return;
  if (isObject(first) && isObject(second)) {
    for (const key of new Set([...Object.keys(first), ...Object.keys(second)])) {
      dataDifferences(path === '' ? key : `${path}.${key}`, first[key], second[key], found);
    }
    return;
  }
  found.push({ path, first: text(first), second: text(second) });
}

const isObject = (value: unknown): value is Readonly<Record<string, unknown>> =>
  typeof value === 'object' && value !== null;

const text = (value: unknown): string =>
  typeof value === 'bigint' ? hex(value) : value === undefined ? 'absent' : (JSON.stringify(value) ?? String(value));

/** A fold that differs from the machine that runs: a change that no event tells, or a reducer that depends on more. */
export class FoldMismatch extends Error {
  override name = 'FoldMismatch';
  constructor(
    readonly position: Position,
    readonly record: JournalRecord,
    readonly differences: readonly StateDifference[],
  ) {
    const lines = differences.map(({ path, first, second }) => `${path}: folded ${first}, live ${second}`);
    super(
      `after event ${record.position.seq} (${record.event.type}) the fold is not the machine's state:\n${lines.join('\n')}`,
    );
  }
}

/**
 * Law 5 at every boundary: folds a tape in step with a machine that replays it, and compares the two after each event.
 * Give `check` to the replayer to observe with.
 */
export class FoldChecker {
  /** Boundaries compared. */
  checked = 0;
  private readonly state: MachineState;
  private readonly records: Generator<JournalRecord, void, void>;
  private live: MachineState | undefined;

  constructor(reader: JournalReader) {
    this.state = firstState(reader);
    this.records = reader.records();
  }

  /** Tells which machine replays. */
  watch({ state }: Pick<Machine, 'state'>): void {
    this.live = state;
  }

  /** @throws FoldMismatch */
  readonly check: EventSink = () => {
    const { done, value: record } = this.records.next();
    if (done === true || this.live === undefined) return;
    reduce(this.state, record.event, record.vcpu);
    if (!sameData(this.state, this.live)) {
      throw new FoldMismatch(boundaryAfter(record), record, stateDifferences(this.state, this.live));
    }
    this.checked++;
  };
}

/** As `stateDifferences`, for states that are expected to be the same: says nothing but yes or no. */
export function sameData(first: unknown, second: unknown): boolean {
  if (first === second) return true;
  if (!isObject(first) || !isObject(second)) return Object.is(first, second);
  if (isList(first)) return isList(second) && sameItems(first, second);
  let keys = 0;
  for (const key in first) {
    if (!sameData(first[key], second[key])) return false;
    keys++;
  }
  return keys === Object.keys(second).length;
}

type List = ArrayLike<unknown>;
const isList = (value: object): value is List => Array.isArray(value) || ArrayBuffer.isView(value);

function sameItems(first: List, second: List): boolean {
  const { length } = first;
  if (length !== second.length) return false;
  for (let index = 0; index < length; index++) {
    const a = first[index];
    const b = second[index];
    if (a !== b && !(typeof a === 'object' && sameData(a, b))) return false;
  }
  return true;
}

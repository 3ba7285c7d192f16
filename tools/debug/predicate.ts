/**
 * Expressions made into predicates over a machine and what has just happened to it. Names are those of `WHAT` (`what.ts`) and:
 *
 * - `icount`, `seq`, `vcpu`, `level` (1 or 2) of the place;
 * - `event`, its type, and `event.FIELD`; `exit`, the name of a #VMEXIT that has just happened, such as "npf";
 * - `serial`, all that the guest has sent; `vmcb.FIELD`, of the VMCB in use there.
 *
 * What there is not (a field of another event, memory that is not mapped, a VMCB before the first VMRUN) equals nothing, is less
 * than nothing, and makes nothing true.
 */
import {
  EVENT_FIELDS,
  exitName,
  type Machine,
  pagingFeatures,
  peekLinear,
  R,
  type Registers,
  sPA,
  VMCB,
} from '../../src/machine/index.js';
import type { Predicate, Sight, WatchedValue } from '../../src/replay/index.js';
import { UsageError } from '../cli/failure.js';
import { type BinaryOperator, type Expression, parseExpression, refuseExpression } from './expression.js';
import { elsewhere, nearest } from './nearest.js';
import { runningOn, viewOf } from './views.js';
import { parseWhat } from './what.js';

type Value = bigint | string | undefined;
type Getter = (sight: Sight) => Value;

export interface CompiledPredicate {
  readonly holds: Predicate;
  /** It says nothing of events. */
  readonly stateOnly: boolean;
}

/** @param machine where names are understood. @throws UsageError with a caret where the expression is wrong. */
export function compilePredicate(text: string, machine: Machine): CompiledPredicate {
  const compiler = new Compiler(text, machine);
  const get = compiler.compile(parseExpression(text));
  return { holds: (sight) => isTrue(get(sight)), stateOnly: !compiler.usesEvents };
}

const isTrue = (value: Value): boolean => value !== undefined && value !== 0n && value !== '';
const truth = (value: boolean): bigint => (value ? 1n : 0n);
const cut = (value: bigint): bigint => BigInt.asUintN(64, value);

const PLACE: Readonly<Record<string, Getter>> = {
  icount: ({ position }) => position.icount,
  seq: ({ position }) => position.seq,
  vcpu: ({ machine }) => BigInt(machine.vcpu),
  level: ({ machine }) => BigInt(machine.level),
  serial: ({ serial }) => serial,
};
const EVENT: Readonly<Record<string, Getter>> = {
  event: ({ event }) => event?.event.type,
  exit: ({ event }) => (event?.event.type === 'svm.vmexit' ? exitName(event.event.code) : undefined),
};
const FIELD_NAMES = [...new Set(Object.values(EVENT_FIELDS).flat())];

const MOST_BYTES = 8;

class Compiler {
  usesEvents = false;

  constructor(
    private readonly text: string,
    private readonly machine: Machine,
  ) {}

  compile(expression: Expression): Getter {
    switch (expression.kind) {
      case 'number':
      case 'text':
        return () => expression.value;
      case 'name':
        return this.name(expression.name, expression.at);
      case 'memory':
        return this.memory(expression);
      case 'unary':
        return this.unary(expression);
      case 'binary':
        return this.binary(expression);
    }
  }

  private name(name: string, at: number): Getter {
    const plain = name.toLowerCase();
    const place = PLACE[plain];
    if (place !== undefined) return place;
    const event =
      EVENT[plain] ?? (plain.startsWith('event.') ? this.eventField(name.slice('event.'.length), at) : undefined);
    if (event !== undefined) {
      this.usesEvents = true;
      return event;
    }
    if (plain.startsWith('vmcb.')) return this.vmcbField(name.slice('vmcb.'.length), at);
    return this.what(name, at);
  }

  private refuse(at: number, problem: string, remedy: string): never {
    return refuseExpression(this.text, at, problem, remedy);
  }

  private eventField(name: string, at: number): Getter {
    const field = FIELD_NAMES.find((each) => each.toLowerCase() === name.toLowerCase());
    if (field === undefined) {
      const remedy = elsewhere(nearest(name, FIELD_NAMES), 'See docs/generated/events.md');
      this.refuse(at, `no event has a field ${JSON.stringify(name)}`, remedy);
    }
    return ({ event }) => {
      const value = (event?.event as unknown as Readonly<Record<string, unknown>> | undefined)?.[field];
      if (typeof value === 'bigint' || typeof value === 'string') return value;
      if (typeof value === 'number') return cut(BigInt(value));
      return typeof value === 'boolean' ? truth(value) : undefined;
    };
  }

  private vmcbField(name: string, at: number): Getter {
    const names = Object.keys(VMCB.fields);
    const found = names.find((each) => each.toLowerCase() === name.toLowerCase());
    if (found === undefined) {
      const remedy = elsewhere(nearest(name, names), 'See docs/generated for the fields');
      this.refuse(at, `the VMCB has no field ${JSON.stringify(name)}`, remedy);
    }
    const fields = VMCB.fields as Readonly<Record<string, { readonly offset: number; readonly bytes: number }>>;
    const { offset, bytes } = fields[found] as { readonly offset: number; readonly bytes: number };
    return ({ machine }) => {
      const vmcb = Number(machine.registers[R.vmcb] as bigint);
      return vmcb === 0 ? undefined : numberIn(machine, vmcb + offset, Math.min(bytes, MOST_BYTES));
    };
  }

  /** What `who-wrote` and `watch` know by name. */
  private what(name: string, at: number): Getter {
    const { machine } = this;
    let values: readonly WatchedValue[];
    try {
      ({ values } = parseWhat(name, { machine, view: viewOf(machine, runningOn(machine, machine.vcpu)) }));
    } catch (error) {
      if (!(error instanceof Error)) throw error;
      return this.refuse(at, error.message.replace(/[.?]$/, ''), 'Or give icount, seq, level, event, exit, serial.');
    }
    const [value] = values;
    return (sight) => readAs(value?.read(sight.machine));
  }

  private memory({ space, address, bytes, at }: Expression & { kind: 'memory' }): Getter {
    const place = this.compile(address);
    const length = bytes === undefined ? () => 8n : this.compile(bytes);
    if (bytes?.kind === 'number' && (bytes.value < 1n || bytes.value > BigInt(MOST_BYTES))) {
      this.refuse(at, `${bytes.value} bytes are no number`, `Give a length from 1 to ${MOST_BYTES}.`);
    }
    return (sight) => {
      const [from, count] = [place(sight), length(sight)];
      if (typeof from !== 'bigint' || typeof count !== 'bigint' || count < 1n || count > BigInt(MOST_BYTES))
        return undefined;
      return space === 'phys'
        ? numberIn(sight.machine, Number(from), Number(count))
        : linear(sight.machine, from, Number(count));
    };
  }

  private unary({ operator, operand }: Expression & { kind: 'unary' }): Getter {
    const get = this.compile(operand);
    if (operator === '!') return (sight) => truth(!isTrue(get(sight)));
    return (sight) => {
      const value = get(sight);
      if (typeof value !== 'bigint') return undefined;
      return cut(operator === '-' ? -value : ~value);
    };
  }

  private binary({ operator, left, right, at }: Expression & { kind: 'binary' }): Getter {
    const [a, b] = [this.compile(left), this.compile(right)];
    if (operator === '&&') return (sight) => truth(isTrue(a(sight)) && isTrue(b(sight)));
    if (operator === '||') return (sight) => truth(isTrue(a(sight)) || isTrue(b(sight)));
    if (left.kind === 'number' && right.kind === 'text') {
      this.refuse(at, 'a number and a text have nothing in common', 'Compare numbers with numbers.');
    }
    return (sight) => calculated(operator, a(sight), b(sight));
  }
}

function calculated(operator: BinaryOperator, a: Value, b: Value): Value {
  if (a === undefined || b === undefined) return operator === '!=' ? truth(a !== b) : undefined;
  if (operator === '==') return truth(a === b);
  if (operator === '!=') return truth(a !== b);
  if (operator === '~') return truth(String(a).includes(String(b)));
  if (typeof a !== 'bigint' || typeof b !== 'bigint') return undefined;
  switch (operator) {
    case '<':
      return truth(a < b);
    case '<=':
      return truth(a <= b);
    case '>':
      return truth(a > b);
    case '>=':
      return truth(a >= b);
    case '|':
      return a | b;
    case '^':
      return a ^ b;
    case '&':
      return a & b;
    case '<<':
      return b > 63n ? 0n : cut(a << b);
    case '>>':
      return b > 63n ? 0n : a >> b;
    case '+':
      return cut(a + b);
    case '-':
      return cut(a - b);
    case '*':
      return cut(a * b);
    case '/':
      return b === 0n ? undefined : a / b;
    case '%':
      return b === 0n ? undefined : a % b;
    default:
      throw new UsageError(`--where: ${operator} is no operator.`);
  }
}

/** What a watched value reads as: a number, a truth, or text. */
function readAs(text: string | undefined): Value {
  if (text === undefined || text === 'none' || text === 'null') return undefined;
  if (/^0x[0-9a-f]+$/.test(text)) return BigInt(text);
  if (text === 'true' || text === 'false') return truth(text === 'true');
  return text.startsWith('"') ? (JSON.parse(text) as string) : text;
}

const numberOf = (bytes: Uint8Array): bigint => bytes.reduceRight((value, byte) => (value << 8n) | BigInt(byte), 0n);

const numberIn = ({ memory }: Machine, address: number, bytes: number): Value =>
  memory.isRam(address, bytes) ? numberOf(memory.window(sPA(address), bytes)) : undefined;

function linear(machine: Machine, address: bigint, bytes: number): Value {
  const { memory, profile, registers } = machine;
  const found = peekLinear(memory, registers as unknown as Registers, pagingFeatures(profile), address, bytes);
  return found.length === bytes ? numberOf(found) : undefined;
}

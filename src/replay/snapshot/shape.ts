/**
 * Holds data from elsewhere against the same data of a fresh machine: the fields, their kinds, and how many there are. So the
 * state of a device is described once, by the device.
 */
import { InputError } from '../../machine/index.js';

const U64_END = 1n << 64n;
const REMEDY = 'Use the vmtape that it is from.';

/**
 * What is not there in a fresh machine (null, an empty list or record) may be anything plain; a number may be absent (null),
 * and so may a record within another: the 8254 has no load between a control word and its count.
 * @param path names the place in errors. @throws InputError where `value` is not such data.
 */
export function requireShape(template: unknown, value: unknown, path: string): void {
  if (template === null) {
    requirePlain(value, path);
  } else if (typeof template === 'number') {
    if (value !== null && !(typeof value === 'number' && Number.isFinite(value))) refuse(path, 'a number', value);
  } else if (typeof template !== 'object') {
    if (typeof value !== typeof template) refuse(path, `a ${typeof template}`, value);
    requirePlain(value, path);
  } else if (template instanceof Uint8Array) {
    if (!(value instanceof Uint8Array)) refuse(path, 'bytes', value);
  } else if (Array.isArray(template)) {
    requireList(template, value, path);
  } else {
    requireRecord(template as Readonly<Record<string, unknown>>, value, path);
  }
}

function requireMember(template: unknown, value: unknown, path: string): void {
  if (value !== null || !isRecord(template)) requireShape(template, value, path);
}

function requireList(template: readonly unknown[], value: unknown, path: string): void {
  if (!Array.isArray(value)) refuse(path, 'a list', value);
  if (template.length === 0) requirePlain(value, path);
  else if (value.length !== template.length) refuse(path, `a list of ${template.length}`, value);
  for (const [index, item] of template.entries()) requireMember(item, value[index], `${path}.${index}`);
}

function requireRecord(template: Readonly<Record<string, unknown>>, value: unknown, path: string): void {
  if (!isRecord(value)) refuse(path, 'a record', value);
  const names = Object.keys(template);
  for (const name of names) {
    if (!Object.hasOwn(value, name)) throw new InputError(`${path}.${name}`, 'it is missing', REMEDY);
    requireMember(template[name], value[name], `${path}.${name}`);
  }
  const unknown = Object.keys(value).find((name) => !Object.hasOwn(template, name));
  if (names.length === 0) requirePlain(value, path);
  else if (unknown !== undefined) throw new InputError(`${path}.${unknown}`, 'this machine has no such field', REMEDY);
}

/** Data without behaviour: what a state may consist of. */
function requirePlain(value: unknown, path: string): void {
  if (value === null || typeof value === 'boolean' || typeof value === 'string') return;
  if (value instanceof Uint8Array) return;
  if (typeof value === 'number' && Number.isFinite(value)) return;
  if (typeof value === 'bigint' && value >= 0n && value < U64_END) return;
  if (!Array.isArray(value) && !isRecord(value)) refuse(path, 'plain data', value);
  for (const [name, item] of Object.entries(value)) requirePlain(item, `${path}.${name}`);
}

const isRecord = (value: unknown): value is Readonly<Record<string, unknown>> =>
  typeof value === 'object' && value !== null && Object.getPrototypeOf(value) === Object.prototype;

function refuse(path: string, expected: string, value: unknown): never {
  const found =
    value === undefined
      ? 'nothing'
      : value === null
        ? 'null'
        : Array.isArray(value)
          ? `a list of ${value.length}`
          : typeof value;
  throw new InputError(path, `${expected} is expected there, and ${found} is there`, REMEDY);
}

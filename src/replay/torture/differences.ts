/** Where two states of a machine differ, by component and field. */
import { PAGE_BYTES, VMCB, vmcbFieldsOfWord } from '../../machine/index.js';
import { hex } from '../event-text.js';
import type { Components } from '../snapshot/components.js';

export interface FieldDifference {
  /** `vcpu.0.nested`, `svm.vmcbs`, `device.pit`; `ram` for memory. */
  readonly component: string;
  /** `guestPat`; with a VMCB's address before it; a page and the first byte that differs. */
  readonly field: string;
  readonly expected: string;
  readonly found: string;
}

/** Empty when they are equal bit for bit. */
export function componentDifferences(expected: Components, found: Components): readonly FieldDifference[] {
  const differences: FieldDifference[] = [];
  for (const component of new Set([...expected.keys(), ...found.keys()])) {
    compare(component, '', expected.get(component), found.get(component), differences);
  }
  return differences;
}

function compare(component: string, path: string, expected: unknown, found: unknown, to: FieldDifference[]): void {
  if (expected === found) return;
  if (expected instanceof Uint8Array && found instanceof Uint8Array) {
    compareBytes(component, path, expected, found, to);
  } else if (isRecord(expected) && isRecord(found)) {
    for (const key of new Set([...Object.keys(expected), ...Object.keys(found)])) {
      // Copies of VMCBs are kept by their address.
      const name = component === 'svm.vmcbs' ? hex(Number(key)) : key;
      compare(component, path === '' ? name : `${path}.${name}`, expected[key], found[key], to);
    }
  } else if (!Object.is(expected, found)) {
    to.push({ component, field: path, expected: text(expected), found: text(found) });
  }
}

/** Copies of VMCBs by their fields, other bytes by the first that differs. */
function compareBytes(
  component: string,
  path: string,
  expected: Uint8Array,
  found: Uint8Array,
  to: FieldDifference[],
): void {
  const isVmcb = component === 'svm.vmcbs' && expected.length === VMCB.bytes && found.length === VMCB.bytes;
  const step = isVmcb ? 8 : 1;
  const length = Math.max(expected.length, found.length);
  for (let at = 0; at < length; at += step) {
    if (sameRange(expected, found, at, step)) continue;
    const names = isVmcb ? vmcbFieldsOfWord(at / 8).join('+') : '';
    const field = `${path === '' ? '' : `${path}.`}${names === '' ? `+${hex(at)}` : names}`;
    to.push({ component, field, expected: bytesText(expected, at, step), found: bytesText(found, at, step) });
    if (!isVmcb) return;
  }
}

function sameRange(a: Uint8Array, b: Uint8Array, at: number, count: number): boolean {
  for (let offset = at; offset < at + count; offset++) if (a[offset] !== b[offset]) return false;
  return true;
}

/** The first byte in which a page differs, as a difference; undefined when it is the same. */
export function pageDifference(page: number, expected: Uint8Array, found: Uint8Array): FieldDifference | undefined {
  if (sameWords(expected, found)) return undefined;
  const at = expected.findIndex((byte, index) => byte !== found[index]);
  const field = `page ${hex(page * PAGE_BYTES)} +${hex(at)}`;
  return { component: 'ram', field, expected: bytesText(expected, at, 8), found: bytesText(found, at, 8) };
}

/** Pages of RAM, which lie at whole words. */
function sameWords(a: Uint8Array, b: Uint8Array): boolean {
  const left = new Uint32Array(a.buffer, a.byteOffset, PAGE_BYTES / 4);
  const right = new Uint32Array(b.buffer, b.byteOffset, PAGE_BYTES / 4);
  for (let word = 0; word < PAGE_BYTES / 4; word++) if (left[word] !== right[word]) return false;
  return true;
}

const isRecord = (value: unknown): value is Readonly<Record<string, unknown>> =>
  typeof value === 'object' && value !== null && !(value instanceof Uint8Array);

/** As they stand in memory. */
const bytesText = (bytes: Uint8Array, at: number, count: number): string =>
  at >= bytes.length
    ? 'absent'
    : [...bytes.subarray(at, at + count)].map((byte) => byte.toString(16).padStart(2, '0')).join(' ');

const text = (value: unknown): string =>
  typeof value === 'bigint' ? hex(value) : value === undefined ? 'absent' : (JSON.stringify(value) ?? String(value));

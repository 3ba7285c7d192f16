/**
 * Parts of the devices' state by name: `pit.channels[0].mode`. Devices have the names that their events have; what follows is
 * as `vmtape show --json` prints it. A name that does not exist is refused with those that do.
 */
import { InputError, type Machine } from '../../src/machine/index.js';
import { deviceValue, partOf, WATCHED_DEVICES, type WatchedValue } from '../../src/replay/index.js';
import { nearest } from './nearest.js';

/** @param text what stands behind `device.`. @param vcpu whose local APIC is meant when none is named. */
export function parseDevice(text: string, { state: { devices } }: Machine, vcpu: number): WatchedValue {
  const [first = '', ...rest] = partsOf(text);
  // Some are there only where they are configured.
  const there = Object.entries(WATCHED_DEVICES).flatMap(([each, { of }]) => (devices[of] === undefined ? [] : [each]));
  const name = there.find((each) => each === first.toLowerCase());
  const device = name === undefined ? undefined : WATCHED_DEVICES[name];
  if (name === undefined || device === undefined) refuse(`device.${text}`, first, there);
  const isIndexed = device.of === 'localApics';
  const wanted = isIndexed && !/^\d+$/.test(rest[0] ?? '') ? [String(vcpu), ...rest] : rest;
  const path: string[] = [];
  for (const word of wanted) {
    const part = partOf(devices[device.of], path);
    const names = typeof part === 'object' && part !== null ? Object.keys(part) : [];
    path.push(names.find((each) => each.toLowerCase() === word.toLowerCase()) ?? refuse(`device.${text}`, word, names));
  }
  return deviceValue(
    `device.${name}${path.map((each) => (/^\d+$/.test(each) ? `[${each}]` : `.${each}`)).join('')}`,
    device,
    path,
  );
}

/** `a[0].b` and `a.0.b` alike. */
const partsOf = (text: string): readonly string[] => text.replace(/\[(\w+)\]/g, '.$1').split('.');

const MOST_LISTED = 40;

function refuse(whole: string, word: string, names: readonly string[]): never {
  const near = nearest(word, names);
  const problem = word === '' ? 'a name is missing' : `there is no ${JSON.stringify(word)}`;
  if (names.length === 0) throw new InputError(whole, problem, 'What stands before it has no parts.');
  if (near.length > 0) throw new InputError(whole, problem, `Is it ${near.join(', ')}?`);
  const listed = names.slice(0, MOST_LISTED).join(', ');
  throw new InputError(whole, problem, `There are: ${listed}${names.length > MOST_LISTED ? ', …' : ''}.`);
}

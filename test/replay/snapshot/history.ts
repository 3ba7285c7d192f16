/**
 * A past that components could have had: changes of the kinds that happen to a machine's state. Today's fields are the newest
 * versions here. So the ways from version to version, which today's vmtape has none of yet, are held against a kept file.
 */
import { InputError } from '../../../src/machine/index.js';
import type { ComponentFormats } from '../../../src/replay/snapshot/component-formats.js';
import type { Fields } from '../../../src/replay/snapshot/components.js';

/** Without a field that the version before had no room for. @param initial what a machine has there that never used it. */
const without = (component: string, field: string, initial: unknown) => (fields: Fields) => {
  const { [field]: value, ...rest } = fields;
  if (value === initial) return rest;
  throw new InputError(`${component}.${field}`, 'the version before has no room for it', 'Write a newer one.');
};

const NANOSECONDS = 1_000_000_000;

export const HISTORY: ComponentFormats = {
  'machine.time': {
    version: 3,
    upgrades: {
      // One number instead of two.
      1: ({ skipped, ...rest }) => {
        const [seconds, nanoseconds] = skipped as [number, number];
        return { ...rest, skippedNanoseconds: seconds * NANOSECONDS + nanoseconds };
      },
      // A field more.
      2: (fields) => ({ ...fields, resetAt: 0 }),
    },
    downgrades: {
      3: without('machine.time', 'resetAt', 0),
      2: ({ skippedNanoseconds, ...rest }) => {
        const all = skippedNanoseconds as number;
        return { ...rest, skipped: [Math.floor(all / NANOSECONDS), all % NANOSECONDS] };
      },
    },
  },
  // In each vCPU.
  'vcpu.nested': {
    version: 2,
    upgrades: { 1: (fields) => ({ ...fields, busLocks: 0n }) },
    downgrades: { 2: without('vcpu.nested', 'busLocks', 0n) },
  },
  // Another name.
  'device.port92': {
    version: 2,
    upgrades: { 1: ({ control }) => ({ value: control }) },
    downgrades: { 2: ({ value }) => ({ control: value }) },
  },
};

export const OLDEST: Readonly<Record<string, number>> = { 'machine.time': 1, 'vcpu.nested': 1, 'device.port92': 1 };

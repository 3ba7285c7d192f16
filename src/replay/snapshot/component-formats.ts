/**
 * Versions of components: what a change of a machine's state does to snapshots. A component whose fields change gets the next
 * version here, with the ways to and from the version before; a test holds today's fields against those on record.
 */
import { InputError } from '../../machine/index.js';
import { type Fields, familyOf } from './components.js';

export interface ComponentFormat {
  /** What is written, and the newest that is read. */
  readonly version: number;
  /** False when a machine can be resumed without it, by a vmtape that does not know it. */
  readonly mandatory?: boolean;
  /** By version: to the one after it. */
  readonly upgrades?: Readonly<Record<number, (fields: Fields) => Fields>>;
  /** By version: to the one before it. @throws InputError when that one has no room for what is there. */
  readonly downgrades?: Readonly<Record<number, (fields: Fields) => Fields>>;
}

/** By family: `vcpu.regs` for `vcpu.0.regs`. Who is not listed is of the first version. */
export type ComponentFormats = Readonly<Record<string, ComponentFormat>>;

export const COMPONENT_FORMATS: ComponentFormats = {};

export const formatOf = (component: string, formats: ComponentFormats): ComponentFormat =>
  formats[familyOf(component)] ?? { version: 1 };

/** @throws InputError when there is no way from that version. */
export function upgraded(name: string, fields: Fields, from: number, formats: ComponentFormats): Fields {
  const format = formatOf(name, formats);
  let now = fields;
  for (let version = from; version < format.version; version++) {
    now = (format.upgrades?.[version] ?? refuse(name, version, version + 1))(now);
  }
  return now;
}

/** @param to version to write. @throws InputError when there is no way, or no room for what is there. */
export function downgraded(name: string, fields: Fields, to: number, formats: ComponentFormats): Fields {
  const format = formatOf(name, formats);
  let now = fields;
  for (let { version } = format; version > to; version--) {
    now = (format.downgrades?.[version] ?? refuse(name, version, version - 1))(now);
  }
  return now;
}

function refuse(name: string, from: number, to: number): never {
  throw new InputError(name, `there is no way from version ${from} to ${to}`, 'Use the vmtape that it is from.');
}

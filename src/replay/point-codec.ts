/**
 * A point of a session ↔ bytes, for checkpoints: msgpack as msgpackr writes it, with its extensions for typed arrays. The
 * bytes are for the machine model that the tape's header names; `requireSameModel` stands before every use.
 */
import { Packr } from 'msgpackr';
import type { MachinePoint } from '../machine/index.js';

const packr = new Packr({ useRecords: false, moreTypes: true, mapsAsObjects: true, variableMapSize: true });

/** @returns fresh bytes that nothing else refers to. */
export const encodePoint = (point: MachinePoint): Uint8Array => new Uint8Array(packr.pack(point));

/** @throws when the bytes are no point. */
export function decodePoint(bytes: Uint8Array): MachinePoint {
  const point = packr.unpack(bytes) as Partial<MachinePoint> | null;
  if (typeof point?.retired !== 'number' || !Array.isArray(point.state?.vcpus)) {
    throw new TypeError('the checkpoint holds no state of a machine');
  }
  return point as MachinePoint;
}

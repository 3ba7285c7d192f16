/** What of a session is drawn, and in which lane; alike in terminals, pages and Perfetto. */
import type { ChunkScan } from '../../src/journal/index.js';
import { type EventOf, exitName, VECTOR_NAMES } from '../../src/machine/index.js';

export type LaneName = 'exits' | 'injections' | 'exceptions' | 'interrupts' | 'inputs' | `device ${string}`;

/** Kinds that have lanes of their own, or none: what runs is drawn as time, world switches by their exits. */
const LANES: Readonly<Record<string, LaneName>> = {
  'svm.vmexit': 'exits',
  'svm.injected': 'injections',
  'cpu.exception': 'exceptions',
  'cpu.interrupt': 'interrupts',
};
/** What is in front of the dot of kinds that belong to no device. */
const NO_DEVICE = new Set(['cpu', 'svm', 'time', 'vcpu', 'machine', 'entropy']);

/** The lane of a kind of event; undefined for those that are not drawn. */
export function laneOf(kind: string): LaneName | undefined {
  const known = LANES[kind];
  if (known !== undefined) return known;
  const [room = ''] = kind.split('.');
  if (room === 'input') return 'inputs';
  return NO_DEVICE.has(room) ? undefined : `device ${room}`;
}

/** What tells events of a lane apart: the exit, the vector, the kind. */
export function seriesOf(scan: ChunkScan): string {
  const { type } = scan;
  switch (type) {
    case 'svm.vmexit':
      return exitName((scan.event as EventOf<'svm.vmexit'>).code);
    case 'svm.injected':
    case 'cpu.exception': {
      const { vector } = scan.event as EventOf<'svm.injected' | 'cpu.exception'>;
      return VECTOR_NAMES[vector] ?? vectorText(vector);
    }
    case 'cpu.interrupt': {
      const { vector, source } = scan.event as EventOf<'cpu.interrupt'>;
      return source === 'external' ? vectorText(vector) : `${source} ${vectorText(vector)}`;
    }
    default:
      return type.slice(type.indexOf('.') + 1);
  }
}

const vectorText = (vector: number): string => `0x${vector.toString(16).padStart(2, '0')}`;

/**
 * What a session will stand still for, done once before: the state of a machine as bytes and back, and its digests. The first
 * time takes several times as long as the next.
 */
import { joined, START } from '../../journal/index.js';
import type { Machine } from '../../machine/index.js';
import { describeSession, type SessionConfig } from '../session.js';
import { snapshotWithoutRam } from '../snapshot/snapshot.js';
import { decodeSnapshot, encodeSnapshot } from '../snapshot/snapshot-file.js';

export function rehearse(machine: Machine, session: SessionConfig): void {
  const place = { position: START, parent: undefined, image: undefined };
  const snapshot = snapshotWithoutRam(machine, describeSession(session, 'rehearsal'), place);
  decodeSnapshot(joined(encodeSnapshot(snapshot)), 'rehearsal');
}

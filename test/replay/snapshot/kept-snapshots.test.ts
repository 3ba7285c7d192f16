/**
 * Snapshots that were kept: both are one session (`nested.elf rounds=2`, 16 MiB, amid L2). `nested-l2-format-1.vmsnap` is of
 * `vmtape snapshot`, with today's components. `nested-l2-older-components.vmsnap` is that one written with the oldest
 * versions of `history.ts`.
 *
 * Who changes a machine's state on purpose gives the component a version and adds its ways to `component-formats.ts`; these
 * files stay as they are.
 */
import { readFileSync } from 'node:fs';
import { describe, expect, it } from 'vitest';
import { decompress } from '../../../src/journal/index.js';
import { R } from '../../../src/machine/index.js';
import {
  decodeSnapshot,
  decodeSnapshotHeader,
  encodeSnapshot,
  LiveSession,
  type Snapshot,
  stateDigests,
} from '../../../src/replay/index.js';
import { componentsOf } from '../../../src/replay/snapshot/components.js';
import { HISTORY, OLDEST } from './history.js';

const file = (name: string): Uint8Array => new Uint8Array(readFileSync(new URL(name, import.meta.url)));
const today = file('nested-l2-format-1.vmsnap');
const older = file('nested-l2-older-components.vmsnap');
const bytesOf = (pieces: readonly Uint8Array[]): Uint8Array => new Uint8Array(Buffer.concat(pieces));
const versioned = (versions: Readonly<Record<string, number>>): Uint8Array =>
  bytesOf(encodeSnapshot(decodeSnapshot(today, 'today'), { components: HISTORY, versions }));

/** Runs a session to its end. */
function ended(snapshot: Snapshot) {
  let output = '';
  const session = LiveSession.resume(snapshot, {}, ({ event }) => {
    if (event.type === 'uart.transmitted') output += String.fromCharCode(event.byte);
  });
  session.endInput();
  while (session.step() === 'running');
  const { machine } = session;
  const digests = Object.entries(stateDigests(machine)).map(([part, digest]) => [
    part,
    Buffer.from(digest).toString('hex'),
  ]);
  return { ended: machine.state.ended, retired: machine.retired, output, digests: Object.fromEntries(digests) };
}

/** What the session comes to when it is not stopped, on machine model 9: digests of its own tape. */
const END = {
  ended: { reason: 'debug-exit', status: 1 },
  retired: 117_349,
  output: expect.stringContaining('76 exits in 2 rounds, checksum of L2 b1ade24930b2cba4'),
  digests: {
    cpu: '60082310610d39290961ebc48eac43d82ab350f5400c81f2c41cbb34fe246bc6',
    vmcb: '702cecc1a54268fd00dff884b2652fde5718a3bb57ff2e7517c8c3d5bb90a99a',
    devices: 'b5f859095af0a85f2377ea1ab7f6809bb198d1908b446387d281026b82cff093',
    machine: '277bf0e163adc9c08c2b9baf1664686a69ef0da3068cb11be9c55eaf5ebaf396',
    ram: '568ff0a7b3efb9ed23979ec63fbe7748c5823c1036a5d842041c6ed9ab0627ad',
  },
};

/** The components of a snapshot as they stand in it, with their versions. Compression may change; what is in it may not. */
function componentsIn(data: Uint8Array): ReadonlyMap<string, readonly [version: number, packed: string]> {
  const { parts } = decodeSnapshotHeader(data, 'file');
  let at = data.length - parts.reduce((sum, { length }) => sum + length, 0);
  const found = new Map<string, readonly [number, string]>();
  for (const { name, version, length, unpacked } of parts) {
    const content = data.subarray(at, at + length);
    at += length;
    if (name === 'image' || name.startsWith('ram.')) continue;
    found.set(name, [version, Buffer.from(decompress(content, unpacked)).toString('hex')]);
  }
  return found;
}

describe('a snapshot that was kept', () => {
  it('is read, and its session comes to the end that it had', () => {
    const snapshot = decodeSnapshot(today, 'today');
    expect((snapshot.point.state.vcpus[0]?.registers[R.svmMode] as bigint) & 1n).toBe(1n);
    expect(ended(snapshot)).toEqual(END);
  });

  it('holds what this vmtape writes of the same machine', () => {
    expect(componentsIn(bytesOf(encodeSnapshot(decodeSnapshot(today, 'today'))))).toEqual(componentsIn(today));
  });
});

describe('a snapshot that was kept, with older versions of components', () => {
  it('is brought up to date step by step, and its session comes to the same end', () => {
    const snapshot = decodeSnapshot(older, 'older', HISTORY);
    expect(componentsOf(snapshot.point)).toEqual(componentsOf(decodeSnapshot(today, 'today').point));
    expect(ended(snapshot)).toEqual(END);
  });

  it("is what today's becomes when it is written for an older vmtape", () => {
    expect(componentsIn(versioned(OLDEST))).toEqual(componentsIn(older));
    expect(
      [...componentsIn(older)].filter(([name, content]) => componentsIn(today).get(name)?.[1] !== content[1]),
    ).toHaveLength(3);
  });

  it('may stand between: each component has its own version', () => {
    const between = versioned({ 'machine.time': 2, 'device.port92': 1 });
    const versions = [...componentsIn(between)].map(([name, [version]]) => [name, version]);
    expect(Object.fromEntries(versions)).toMatchObject({ 'machine.time': 2, 'device.port92': 1, 'vcpu.0.nested': 2 });
    const { point } = decodeSnapshot(between, 'between', HISTORY);
    expect(componentsOf(point)).toEqual(componentsOf(decodeSnapshot(today, 'today').point));
  });

  it('is refused by the name of the component without a way to today', () => {
    expect(() => decodeSnapshot(older, 'older')).toThrow(/^machine\.time\.skippedNanoseconds: it is missing/);
    const gap = { ...HISTORY, 'machine.time': { ...HISTORY['machine.time'], version: 3, upgrades: {} } };
    expect(() => decodeSnapshot(older, 'older', gap)).toThrow(/machine\.time: there is no way from version 1 to 2/);
  });

  it('is refused by an older vmtape, by name and version', () => {
    const read = () => decodeSnapshot(versioned({}), 'newer.vmsnap');
    expect(read).toThrow(/newer\.vmsnap: machine\.time is of version 3, and this vmtape knows versions up to 1/);
  });

  it('is not made of what it has no room for', () => {
    const snapshot = decodeSnapshot(today, 'today');
    const state = { ...snapshot.point.state, resetAt: 12_345 };
    const reset = { ...snapshot, point: { ...snapshot.point, state } };
    const write = (versions: Readonly<Record<string, number>>) =>
      encodeSnapshot(reset, { components: HISTORY, versions });
    expect(() => write(OLDEST)).toThrow(/machine\.time\.resetAt: the version before has no room for it/);
    expect(() => write({ 'machine.time': 3, 'vcpu.nested': 1 })).not.toThrow();
    expect(() => write({ 'device.pit': 0 })).toThrow(/device\.pit: there is no way from version 1 to 0/);
  });
});

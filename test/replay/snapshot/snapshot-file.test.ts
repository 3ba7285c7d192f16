/** Snapshots as bytes: what is not as it was written, or not known here, is refused by name. */
import { createHash } from 'node:crypto';
import { describe, expect, it } from 'vitest';
import { R, type Slot } from '../../../src/machine/index.js';
import {
  decodeSnapshot,
  encodeSnapshot,
  LiveSession,
  type Snapshot,
  Timeline,
  takeSnapshot,
  withProfile,
} from '../../../src/replay/index.js';
import { sessionConfig } from '../../../src/replay/session.js';
import { type Components, componentsOf, Restoration } from '../../../src/replay/snapshot/components.js';
import { recordGuest } from '../../support/sessions.js';

const reader = recordGuest('nested.elf', { limit: 60_000, commandLine: 'nested.elf rounds=1' }).store.read();
const timeline = new Timeline(reader);
const snapshot = takeSnapshot(timeline.machine, reader, timeline.seek(timeline.end));
const bytesOf = (pieces: readonly Uint8Array[]): Uint8Array => new Uint8Array(Buffer.concat(pieces));
const bytes = bytesOf(encodeSnapshot(snapshot));
const HEAD = 48;

const refusal = (
  data: Uint8Array,
): { readonly name: string; readonly message: string; readonly exitStatus?: number } => {
  try {
    decodeSnapshot(data, 'guest.vmsnap');
  } catch (error) {
    return error as Error;
  }
  throw new Error('it was taken for good');
};

/** The same with another header, whose digest is right. */
function withHeader(
  change: (header: { parts: { name: string; mandatory: boolean; version: number }[] }) => void,
): Uint8Array {
  const length = Buffer.from(bytes).readUInt32LE(12);
  const header = JSON.parse(Buffer.from(bytes.subarray(HEAD, HEAD + length)).toString());
  change(header);
  const json = Buffer.from(JSON.stringify(header));
  const head = Buffer.from(bytes.subarray(0, HEAD));
  head.writeUInt32LE(json.length, 12);
  head.set(createHash('sha256').update(json).digest(), 16);
  return bytesOf([head, json, bytes.subarray(HEAD + length)]);
}

/** The same with another value in a register of its vCPU. */
function withRegister(of: Snapshot, slot: Slot, value: bigint): Snapshot {
  const { point } = of;
  const vcpus = point.state.vcpus.map(({ registers, msrs }) => {
    const changed = (registers as unknown as BigUint64Array).slice();
    changed[slot] = value;
    return { msrs, registers: changed as unknown as typeof registers };
  });
  return { ...of, point: { ...point, state: { ...point.state, vcpus } } };
}

describe('a snapshot as bytes', () => {
  it('is the same again', () => {
    const again = decodeSnapshot(bytes, 'guest.vmsnap');
    expect(componentsOf(again.point)).toEqual(componentsOf(snapshot.point));
    expect(bytesOf(encodeSnapshot(again))).toEqual(bytes);
  });

  it('ends nowhere before its end', () => {
    for (let length = 0; length < bytes.length; length += 1 + Math.floor(length / 60)) {
      const { name, message } = refusal(bytes.subarray(0, length));
      if (length === 0) expect(message).toMatch(/no snapshot/);
      else expect({ length, name }).toEqual({ length, name: 'SnapshotDamagedError' });
    }
    expect(refusal(bytesOf([bytes, new Uint8Array(3)])).message).toMatch(/3 bytes follow its last part/);
  });

  it('holds nothing but what was written', () => {
    for (let at = 0; at < bytes.length; at += 1 + Math.floor(at / 80)) {
      const damaged = bytes.slice();
      damaged[at] = (damaged[at] as number) ^ (1 << (at % 8));
      const { name, message, exitStatus } = refusal(damaged);
      expect(message).toMatch(/^guest\.vmsnap: /);
      // The first bytes say what it is, and of which format.
      if (at >= 12) expect({ at, name, exitStatus }).toEqual({ at, name: 'SnapshotDamagedError', exitStatus: 3 });
    }
  });

  it('of a newer format is refused by its number', () => {
    const newer = bytes.slice();
    newer[8] = 9;
    expect(refusal(newer).message).toMatch(/format 9.*up to 1.*Use a newer vmtape/);
  });

  it('with a part that is not known is refused by its name, unless it can do without', () => {
    const renamed = (mandatory: boolean): Uint8Array =>
      withHeader(({ parts }) => {
        const part = parts.find(({ name }) => name === 'device.pit');
        if (part !== undefined) Object.assign(part, { name: 'device.gpu', mandatory });
      });
    expect(refusal(renamed(true)).message).toMatch(/device\.gpu is of version 1, and this vmtape knows no such part/);
    expect(refusal(renamed(false)).message).toMatch(/^device\.pit: nothing was put there/);
  });

  it('with a part of a newer version is refused by its name', () => {
    const newer = withHeader(({ parts }) => {
      const part = parts.find(({ name }) => name === 'vcpu.0.nested');
      if (part !== undefined) part.version = 3;
    });
    expect(refusal(newer).message).toMatch(/vcpu\.0\.nested is of version 3, and this vmtape knows versions up to 1/);
  });
});

describe('components', () => {
  const { machine } = sessionConfig(snapshot.description);
  const components: Components = componentsOf(snapshot.point);

  it('come back in any order', () => {
    const names = [...components.keys()];
    const orders = [names, names.toReversed(), names.toSorted(), names.toSorted((a, b) => (a.length - b.length) % 5)];
    for (const order of orders) {
      const restoration = new Restoration(machine);
      for (const name of order) restoration.put(name, components.get(name) ?? {});
      expect(componentsOf(restoration.finish())).toEqual(components);
    }
  });

  it('are all needed, and the one that is missing is named', () => {
    for (const missing of components.keys()) {
      const restoration = new Restoration(machine);
      for (const [name, fields] of components) if (name !== missing) restoration.put(name, fields);
      expect(() => restoration.finish()).toThrow(`${missing}: nothing was put there`);
    }
  });

  it.each<[string, (fields: Record<string, unknown>) => void, RegExp]>([
    ['vcpu.0.regs', (fields) => delete fields.rax, /vcpu\.0\.regs\.rax: it is missing/],
    ['vcpu.0.regs', (fields) => Object.assign(fields, { rax: 5 }), /vcpu\.0\.regs\.rax: a bigint is expected/],
    ['vcpu.0.regs', (fields) => Object.assign(fields, { rax: -1n }), /vcpu\.0\.regs\.rax: plain data is expected/],
    [
      'vcpu.0.regs',
      (fields) => Object.assign(fields, { eax: 1n }),
      /vcpu\.0\.regs\.eax: this machine has no such field/,
    ],
    [
      'device.pit',
      (fields) => Object.assign(fields, { channels: [] }),
      /device\.pit\.channels: a list of 3 is expected/,
    ],
    ['device.uart', (fields) => Object.assign(fields, { ier: 'x' }), /device\.uart\.ier: a number is expected/],
    [
      'svm.vmcbs',
      (fields) => Object.assign(fields, { 4097: new Uint8Array(4096) }),
      /svm\.vmcbs\.4097: that is no copy/,
    ],
    ['machine.run', (fields) => Object.assign(fields, { stated: {} }), /machine\.run\.stated\.rax: it is missing/],
  ])('of %s that are no fields of it are refused', (name, change, message) => {
    const fields = structuredClone(components.get(name)) as Record<string, unknown>;
    change(fields);
    expect(() => new Restoration(machine).put(name, fields)).toThrow(message);
  });

  it('that are not what was digested are refused when the machine is entered', () => {
    const other = withRegister(snapshot, R.rbx, 0x1234n);
    expect(() => LiveSession.resume(other, {}, () => {})).toThrow(/the cpu state is not what it was/);
  });
});

describe('another processor', () => {
  it('takes what it has all features of', () => {
    const moved = withProfile(snapshot, 'zen-4');
    const session = LiveSession.resume(moved, {}, () => {});
    expect(session.session.machine.cpu).toBe('zen-4');
    session.endInput();
    expect(session.step(timeline.machine.retired + 1000)).toBe('limit');
  });

  it('is refused while what it lacks is in use', () => {
    const smep = withRegister(snapshot, R.cr4, 1n << 20n);
    expect(() => withProfile(smep, 'k8-f')).toThrow(
      /CPU profile k8-f: the guest uses what it does not have: bits 100000h of CR4 \(vCPU 0\)/,
    );
    const guest = withRegister(withRegister(snapshot, R.svmMode, 1n), R.nestedControl, 1n);
    expect(() => withProfile(guest, 'k8-f')).toThrow(/nested paging \(vCPU 0\)/);
    expect(() => withProfile(snapshot, 'z80')).toThrow(/there is none such/);
  });
});

import { createHash } from 'node:crypto';
import { describe, expect, it } from 'vitest';
import {
  DEFAULT_CONFIG,
  initialState,
  instructionCount,
  type MachineState,
  R,
  RAM_BASE,
} from '../../src/machine/index.js';
import { PhysicalMemory } from '../../src/machine/mmu/memory.js';
import { sPA } from '../../src/machine/units.js';
import { stateDigests } from '../../src/replay/index.js';
import { canonicalBytes } from '../../src/replay/state-digest.js';

const RAM_BYTES = 0x20_0000;
const CONFIG = { ...DEFAULT_CONFIG, ramBytes: RAM_BYTES };

const machineWith = (state: MachineState = initialState(CONFIG), retired = 0) => ({
  state,
  retired: instructionCount(retired),
  memory: new PhysicalMemory(RAM_BYTES),
});

const hexOf = (digests: Readonly<Record<string, Uint8Array>>): Record<string, string> =>
  Object.fromEntries(Object.entries(digests).map(([kind, value]) => [kind, Buffer.from(value).toString('hex')]));

/** The parts whose digest a change of the state changes. */
function changedBy(change: (state: MachineState) => void): string[] {
  const state = initialState(CONFIG);
  const before = hexOf(stateDigests(machineWith(state)));
  change(state);
  const after = hexOf(stateDigests(machineWith(state)));
  return Object.keys(before).filter((part) => before[part] !== after[part]);
}

describe('state digests', () => {
  it('are the same for the same state, however its keys are ordered and its registers held', () => {
    const state = initialState(CONFIG);
    const reordered = {
      ...state,
      vcpus: [{ registers: BigUint64Array.from(state.vcpus[0]?.registers as unknown as bigint[]), msrs: {} }],
      devices: Object.fromEntries(Object.entries(state.devices).reverse()),
    } as unknown as MachineState;
    expect(stateDigests(machineWith(reordered))).toEqual(stateDigests(machineWith(state)));
  });

  it.each<[string, (state: MachineState) => void]>([
    ['cpu', ({ vcpus }) => ((vcpus[0]?.registers as bigint[])[R.xmm15] = 1n)],
    ['cpu', ({ vcpus }) => Object.assign(vcpus[0]?.msrs ?? {}, { '1024': 1n })],
    ['vmcb', ({ vmcbs }) => (vmcbs['28672'] = new Uint32Array(1024))],
    ['devices', ({ devices }) => (devices.uart.scr = 1)],
    ['machine', (state) => (state.skippedNanoseconds = 1)],
    ['machine', (state) => (state.entropy = 1n)],
    ['machine', (state) => (state.ended = { reason: 'reset', status: 0 })],
  ])('tell the parts of the state apart: %s', (part, change) => {
    expect(changedBy(change)).toEqual([part]);
  });

  it('of VMCBs do not depend on the order in which they were first seen', () => {
    const first = initialState(CONFIG);
    const second = initialState(CONFIG);
    const [a, b] = [new Uint32Array(1024).fill(1), new Uint32Array(1024).fill(2)];
    Object.assign(first.vmcbs, { 4294967296: a, 28672: b });
    Object.assign(second.vmcbs, { 28672: b, 4294967296: a });
    expect(stateDigests(machineWith(first)).vmcb).toEqual(stateDigests(machineWith(second)).vmcb);
  });

  it('count instructions', () => {
    expect(stateDigests(machineWith(initialState(CONFIG), 1)).machine).not.toEqual(stateDigests(machineWith()).machine);
  });
});

describe('the digest of RAM', () => {
  it('is zero for RAM that is zero', () => {
    expect(stateDigests(machineWith()).ram).toEqual(new Uint8Array(32));
  });

  it('is a tree of SHA-256 digests over pages', () => {
    const machine = machineWith();
    machine.memory.write(sPA(0x3008), 8, 0x1234n);
    const sha256 = (bytes: Uint8Array): Uint8Array => createHash('sha256').update(bytes).digest();
    const leaves = new Uint8Array(256 * 32);
    leaves.set(sha256(machine.memory.bytes.subarray(RAM_BASE + 0x3000, RAM_BASE + 0x4000)), 3 * 32);
    const root = new Uint8Array(2 * 32); // 512 pages: two nodes of 256
    root.set(sha256(leaves), 0);
    expect(stateDigests(machine).ram).toEqual(new Uint8Array(sha256(root)));
  });

  it.each([0, 0x3fff, 0x10_0000, RAM_BYTES - 1])('sees a byte at %i', (address) => {
    const machine = machineWith();
    machine.memory.write(sPA(address), 1, 1n);
    const { ram } = stateDigests(machine);
    expect(ram).not.toEqual(new Uint8Array(32));
    machine.memory.write(sPA(address), 1, 2n);
    expect(stateDigests(machine).ram).not.toEqual(ram);
    machine.memory.write(sPA(address), 1, 0n);
    expect(stateDigests(machine).ram).toEqual(new Uint8Array(32));
  });
});

describe('the canonical form', () => {
  it('is the same for equal values only', () => {
    const values = [null, false, true, 0, 1, 0n, 1n, '', 'a', [], [0], [[]], {}, { a: 0 }, { b: 0 }, { a: 1 }];
    const more = [new Uint8Array(0), Uint8Array.of(0), 1.5, -1, 2 ** 60, { a: { a: 0 } }, ['a', 'b'], 'ab', ['ab']];
    const forms = [...values, ...more].map((value) => Buffer.from(canonicalBytes(value)).toString('hex'));
    expect(new Set(forms).size).toBe(forms.length);
  });

  it('knows neither the order of keys, nor negative zero, nor absent fields', () => {
    expect(canonicalBytes({ a: 1, b: -0, c: undefined })).toEqual(canonicalBytes({ b: 0, a: 1 }));
  });

  it('takes values larger than its first buffer', () => {
    const long = 'x'.repeat(100_000);
    expect(canonicalBytes([long, long]).length).toBe(2 * (100_000 + 5) + 5);
  });

  it.each([[() => 0], [Symbol('s')], [new Map()], [-1n], [1n << 64n]])('refuses what is no plain data: %s', (value) => {
    expect(() => canonicalBytes(value)).toThrow(/state holds/);
  });
});

import { describe, expect, it } from 'vitest';
import { KvmMsr } from '../../../src/machine/paravirt/msr.js';
import { AREA, KvmMachine } from '../../support/kvm-machine.js';

const stolen = (nanoseconds: number) => ({ type: 'input.stolen', nanoseconds }) as const;
const read = (live: KvmMachine) => [live.read(AREA, 8), live.read(AREA + 8, 4), live.read(AREA + 16, 1)];

describe('steal time (Linux, kvm/x86/msr.rst, MSR_KVM_STEAL_TIME)', () => {
  it('is 0 where nothing was stolen, and the vCPU is not preempted', () => {
    const live = new KvmMachine().store(AREA + 16, 1, 1n);
    live.writeMsr(KvmMsr.STEAL_TIME, BigInt(AREA) | 1n);
    live.run(100);
    expect(read(live)).toEqual([0n, 2n, 0n]);
  });

  it('grows by what the host takes, and virtual time with it', () => {
    const live = new KvmMachine();
    live.writeMsr(KvmMsr.STEAL_TIME, BigInt(AREA) | 1n);
    const { now } = live.machine;
    live.host(stolen(7_000));
    expect(live.machine.now).toBe(now + 7_000);
    expect(read(live)).toEqual([7_000n, 4n, 0n]);
    live.host(stolen(1), stolen(2));
    expect(read(live)).toEqual([7_003n, 8n, 0n]);
  });

  it('tells at its registration what was taken before, and each nanosecond once', () => {
    const live = new KvmMachine().host(stolen(500));
    live.writeMsr(KvmMsr.STEAL_TIME, BigInt(AREA) | 1n);
    expect(read(live)).toEqual([500n, 2n, 0n]);
    live.writeMsr(KvmMsr.STEAL_TIME, 0n);
    live.host(stolen(30));
    expect(read(live)).toEqual([500n, 2n, 0n]);
    live.writeMsr(KvmMsr.STEAL_TIME, BigInt(AREA) | 1n);
    expect(read(live)).toEqual([530n, 4n, 0n]);
  });
});

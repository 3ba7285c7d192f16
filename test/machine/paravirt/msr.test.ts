import { describe, expect, it } from 'vitest';
import { KvmMsr } from '../../../src/machine/paravirt/msr.js';
import { AREA, KvmMachine } from '../../support/kvm-machine.js';
import { LiveMachine } from '../../support/live-machine.js';

const area = BigInt(AREA);

describe("KVM's MSRs (Linux, kvm/x86/msr.rst)", () => {
  it.each<[keyof typeof KvmMsr, bigint]>([
    ['WALL_CLOCK', 0n],
    ['SYSTEM_TIME', 0n],
    ['WALL_CLOCK_NEW', 0n],
    ['SYSTEM_TIME_NEW', 0n],
    ['ASYNC_PF_EN', 0n],
    ['STEAL_TIME', 0n],
    ['EOI_EN', 0n],
    ['POLL_CONTROL', 1n],
    ['ASYNC_PF_INT', 0n],
    ['ASYNC_PF_ACK', 0n],
    ['MIGRATION_CONTROL', 1n],
  ])('%s reads as %i at power-on', (name, value) => {
    expect(new KvmMachine().readMsr(KvmMsr[name])).toBe(value);
  });

  it.each<[keyof typeof KvmMsr, bigint, boolean]>([
    ['ASYNC_PF_EN', area | 0xfn, true],
    ['ASYNC_PF_EN', area | 0x10n, false],
    ['ASYNC_PF_EN', area | 0x20n, false],
    ['ASYNC_PF_EN', 0xfff0_0009n, false], // enabled, and not RAM
    ['ASYNC_PF_EN', 0xfff0_0001n, true], // not enabled without the interrupt
    ['STEAL_TIME', area | 1n, true],
    ['STEAL_TIME', area | 2n, false],
    ['STEAL_TIME', area | 0x20n, false],
    ['EOI_EN', area | 5n, true],
    ['EOI_EN', area | 2n, false],
    ['EOI_EN', 0xfff0_0001n, false],
    ['EOI_EN', 0xfff0_0000n, true],
    ['POLL_CONTROL', 0n, true],
    ['POLL_CONTROL', 2n, false],
    ['ASYNC_PF_INT', 0xffn, true],
    ['ASYNC_PF_INT', 0x100n, false],
    ['MIGRATION_CONTROL', 0n, true],
    ['MIGRATION_CONTROL', 2n, false],
  ])('%s takes %x: %s; refused values are #GP', (name, value, taken) => {
    const live = new KvmMachine();
    const before = live.readMsr(KvmMsr[name]);
    expect(live.writeMsr(KvmMsr[name], value)).toBe(taken);
    expect(live.readMsr(KvmMsr[name])).toBe(taken ? value : before);
    expect(live.eventsOf('cpu.msr-unknown')).toEqual([]);
  });

  it('takes acknowledgements and keeps none', () => {
    const live = new KvmMachine();
    expect(live.writeMsr(KvmMsr.ASYNC_PF_ACK, 1n)).toBe(true);
    expect(live.readMsr(KvmMsr.ASYNC_PF_ACK)).toBe(0n);
    expect(live.eventsOf('paravirt.written')).toEqual([]);
  });

  it.each([0x4b56_4d09, 0x4b56_4dff])('%i is none of them: #GP and an event', (msr) => {
    const live = new KvmMachine();
    expect(live.readMsr(msr)).toBeUndefined();
    expect(live.eventsOf('cpu.msr-unknown')).toHaveLength(1);
  });

  it.each(Object.entries(KvmMsr))('%s is unknown on bare hardware', (_name, msr) => {
    const live = new LiveMachine('0f32 f4', { rcx: BigInt(msr) });
    live.run();
    expect(live.vectors).toEqual([13]);
    expect(live.events).toContainEqual({ type: 'cpu.msr-unknown', msr, write: false, value: 0n });
  });

  it('that point into RAM are cleared by INIT; the rest stays', () => {
    const live = new KvmMachine();
    live.writeMsr(KvmMsr.SYSTEM_TIME_NEW, area | 1n);
    live.writeMsr(KvmMsr.STEAL_TIME, area | 1n);
    live.writeMsr(KvmMsr.POLL_CONTROL, 0n);
    live.writeMsr(KvmMsr.WALL_CLOCK_NEW, area);
    live.machine.resetDevicesOfVcpu();
    const names = ['SYSTEM_TIME_NEW', 'STEAL_TIME', 'POLL_CONTROL', 'WALL_CLOCK_NEW'] as const;
    expect(names.map((name) => live.readMsr(KvmMsr[name]))).toEqual([0n, 0n, 0n, area]);
  });
});

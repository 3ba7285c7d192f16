import { describe, expect, it } from 'vitest';
import { timeScale } from '../../../src/machine/paravirt/clock.js';
import { KvmMsr } from '../../../src/machine/paravirt/msr.js';
import { nextVersion } from '../../../src/machine/paravirt/structures.js';
import { AREA, KvmMachine } from '../../support/kvm-machine.js';

/** The structure's fields: version, TSC, time, multiplier, shift, flags. */
const fieldsAt = (live: KvmMachine, at = AREA) => ({
  version: live.read(at, 4),
  tsc: live.read(at + 8, 8),
  time: live.read(at + 16, 8),
  multiplier: live.read(at + 24, 4),
  shift: BigInt.asIntN(8, live.read(at + 28, 1)),
  flags: live.read(at + 29, 1),
});
const ENABLED = BigInt(AREA) | 1n;

describe('the scale of a TSC', () => {
  it.each<[bigint, number, number]>([
    [1_000_000_000n, 0x8000_0000, 1],
    [2_000_000_000n, 0x8000_0000, 0],
    [2_500_000_000n, 0xcccc_cccc, -1],
    [999_999_999n, 0x8000_0002, 1],
    [1_000n, 0xf424_0000, 20],
    [0x1_0000_0000_0000n, 0xee6b_2800, -18],
  ])('of %i Hz is %x shifted by %i', (hertz, multiplier, shift) => {
    const scale = timeScale(hertz);
    expect(scale.shift).toBe(shift);
    expect(scale.multiplier).toBe(multiplier);
    expect(scale.multiplier).toBeGreaterThanOrEqual(2 ** 31);
    expect(scale.multiplier).toBeLessThan(2 ** 32);
  });

  it.each([1n, 3n, 999n, 1_193_182n, 999_999_999n, 1_000_000_001n, 3_000_000_000n, 5_700_000_000n])(
    'of %i Hz is behind a second by at most one part in 2^31',
    (hertz) => {
      const { multiplier, shift } = timeScale(hertz);
      const shifted = shift < 0 ? hertz >> BigInt(-shift) : hertz << BigInt(shift);
      const nanoseconds = (shifted * BigInt(multiplier)) >> 32n;
      expect(nanoseconds).toBeLessThanOrEqual(1_000_000_000n);
      expect(nanoseconds).toBeGreaterThanOrEqual(999_999_998n);
    },
  );
});

describe('a version', () => {
  it.each([
    [0, 2],
    [2, 4],
    [1, 4],
    [0xffff_fffe, 0],
    [0xffff_ffff, 2],
  ])('after %i is %i', (before, after) => {
    expect(nextVersion(before)).toBe(after);
  });
});

describe('kvmclock (Linux, kvm/x86/msr.rst, MSR_KVM_SYSTEM_TIME_NEW)', () => {
  it('is written when it is registered: time, TSC and scale of that moment', () => {
    const live = new KvmMachine();
    live.host({ type: 'input.stolen', nanoseconds: 5_000 });
    live.store(AREA + 4, 4, 0xdeadn);
    const { now } = live.machine;
    expect(live.writeMsr(KvmMsr.SYSTEM_TIME_NEW, ENABLED)).toBe(true);
    expect(fieldsAt(live)).toEqual({
      ...{ version: 2n, tsc: BigInt(now), time: BigInt(now), multiplier: 0x8000_0000n, shift: 1n, flags: 1n },
    });
    expect(live.read(AREA + 4, 4)).toBe(0n);
    expect(live.readMsr(KvmMsr.SYSTEM_TIME_NEW)).toBe(ENABLED);
    expect(live.readMsr(KvmMsr.SYSTEM_TIME)).toBe(ENABLED);
    expect(live.eventsOf('paravirt.updated')).toEqual([
      { type: 'paravirt.updated', vcpu: 0, structure: 'clock', address: BigInt(AREA), version: 2 },
    ]);
  });

  it('is written anew when the TSC is, so that time goes on', () => {
    const live = new KvmMachine();
    live.writeMsr(KvmMsr.SYSTEM_TIME_NEW, ENABLED);
    const { now } = live.machine;
    live.writeMsr(0x10, 1_000_000n);
    expect(fieldsAt(live)).toMatchObject({ version: 4n, tsc: 1_000_000n, time: BigInt(now) });
  });

  it('promises no stable TSC to a guest that registers by the old number', () => {
    const live = new KvmMachine();
    live.writeMsr(KvmMsr.SYSTEM_TIME, ENABLED);
    expect(fieldsAt(live)).toMatchObject({ version: 2n, flags: 0n });
    live.writeMsr(KvmMsr.SYSTEM_TIME_NEW, ENABLED);
    expect(fieldsAt(live)).toMatchObject({ version: 4n, flags: 1n });
  });

  it('tells once that the host paused the guest, until the guest clears that', () => {
    const live = new KvmMachine();
    live.writeMsr(KvmMsr.SYSTEM_TIME_NEW, ENABLED);
    live.host({ type: 'input.paused' });
    expect(fieldsAt(live)).toMatchObject({ version: 4n, flags: 3n });
    live.writeMsr(0x10, 0n);
    expect(fieldsAt(live)).toMatchObject({ version: 6n, flags: 3n });
    live.store(AREA + 29, 1, 1n);
    live.writeMsr(0x10, 0n);
    expect(fieldsAt(live)).toMatchObject({ version: 8n, flags: 1n });
  });

  it('is left alone while bit 0 is clear, and outside RAM', () => {
    const live = new KvmMachine();
    expect(live.writeMsr(KvmMsr.SYSTEM_TIME_NEW, BigInt(AREA))).toBe(true);
    expect(live.writeMsr(KvmMsr.SYSTEM_TIME_NEW, 0xfff0_0001n)).toBe(true);
    expect(live.writeMsr(KvmMsr.SYSTEM_TIME_NEW, 0xffff_ffff_ffff_f001n)).toBe(true);
    live.host({ type: 'input.paused' });
    expect(live.eventsOf('paravirt.updated')).toEqual([]);
    expect(live.readMsr(KvmMsr.SYSTEM_TIME_NEW)).toBe(0xffff_ffff_ffff_f001n);
  });

  it('drops what was decoded where it is written', () => {
    // Two more in the version, and `mov al, 1; hlt` is `mov dl, 1; hlt`.
    const live = new KvmMachine().put(AREA, 'b001 f4 90').set({ rip: BigInt(AREA), rdx: 0n });
    live.run();
    expect([live.get('rax'), live.get('rdx')]).toEqual([1n, 0n]);
    live.writeMsr(KvmMsr.SYSTEM_TIME_NEW, ENABLED);
    live.set({ rip: BigInt(AREA), rax: 0n, rdx: 0n, activity: 0n });
    live.run();
    expect([live.get('rax'), live.get('rdx')]).toEqual([0n, 1n]);
  });
});

describe('the wall clock (MSR_KVM_WALL_CLOCK_NEW)', () => {
  it.each([KvmMsr.WALL_CLOCK, KvmMsr.WALL_CLOCK_NEW])('by MSR %i is the time at power-on', (msr) => {
    const live = new KvmMachine();
    live.host({ type: 'input.stolen', nanoseconds: 2_500_000_000 });
    live.store(AREA, 4, 5n);
    live.writeMsr(msr, BigInt(AREA));
    expect([live.read(AREA, 4), live.read(AREA + 4, 4), live.read(AREA + 8, 4)]).toEqual([8n, 1_700_000_000n, 0n]);
    live.writeMsr(msr, BigInt(AREA));
    expect(live.read(AREA, 4)).toBe(10n);
    expect(live.readMsr(KvmMsr.WALL_CLOCK)).toBe(BigInt(AREA));
  });

  it('is not written to address 0', () => {
    const live = new KvmMachine();
    live.writeMsr(KvmMsr.WALL_CLOCK_NEW, 0n);
    expect(live.eventsOf('paravirt.updated')).toEqual([]);
  });
});

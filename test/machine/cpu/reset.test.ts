import { describe, expect, it } from 'vitest';
import { BASE_PROFILE } from '../../../src/machine/cpu/cpuid.js';
import { initRegisters, resetRegisters, startupRegisters, withStartup } from '../../../src/machine/cpu/reset.js';
import { Activity, Boundary, CR0, R, SvmMode } from '../../../src/machine/layout/cpu-state.js';
import { CpuMachine } from '../../support/cpu-machine.js';

describe('RESET and INIT (APM vol.2 §14.1 Processor Initialization)', () => {
  it('RESET starts at FFFF_FFF0h', () => {
    const registers = resetRegisters(BASE_PROFILE);
    expect([registers.get(R.csBase), registers.get(R.rip)]).toEqual([0xffff_0000n, 0xfff0n]);
    expect(registers.get(R.svmMode)).toBe(SvmMode.GIF);
  });

  it('INIT keeps caching bits, vectors and MSRs, and forgets NMIs and guest mode', () => {
    const cpu = new CpuMachine().longMode().set({ boundary: Boundary.NMI_PENDING | Boundary.NMI_BLOCKED });
    cpu.set({ cr0: cpu.get('cr0') | CR0.CD, svmMode: SvmMode.GUEST });
    const changes = initRegisters(cpu.reader, BASE_PROFILE, true);
    expect(changes.get(R.cr0)).toBe(CR0.CD | CR0.ET);
    expect([changes.get(R.boundary), changes.get(R.activity)]).toEqual([0n, Activity.WAIT_FOR_SIPI]);
    expect(changes.get(R.svmMode)).toBe(SvmMode.GIF);
    for (const slot of [R.xmm0, R.pat, R.star, R.mtrrDefType, R.fcw]) expect(changes.has(slot)).toBe(false);
  });

  it.each([
    ['clears SVMDIS', 0x12n, 0x02n],
    ['keeps it under LOCK', 0x18n, 0x18n],
  ])('INIT %s (§15.30.1 VM_CR MSR)', (_what, before, after) => {
    const cpu = new CpuMachine().longMode().set({ vmCr: before });
    expect(initRegisters(cpu.reader, BASE_PROFILE, false).get(R.vmCr)).toBe(after);
  });

  it('a start-up interrupt begins at its vector, once the vCPU waits for it', () => {
    const cpu = new CpuMachine().longMode();
    expect(withStartup(cpu.reader, 0x9f)).toBeUndefined();
    const boundary = withStartup(cpu.set({ activity: Activity.WAIT_FOR_SIPI }).reader, 0x9f) as bigint;
    const changes = startupRegisters(cpu.set({ boundary }).reader);
    expect([changes.get(R.boundary), changes.get(R.activity)]).toEqual([0n, Activity.RUNNING]);
    expect([changes.get(R.csBase), changes.get(R.rip)]).toEqual([0x9_f000n, 0n]);
    expect((changes.get(R.cs) as bigint) & 0xffffn).toBe(0x9f00n);
  });
});

/** The time-stamp counter and what hangs on it, on a whole machine: code reads it, virtual time drives it. */
import { describe, expect, it } from 'vitest';
import { cpuidLeaf } from '../../../src/machine/cpu/cpuid.js';
import { CPU_PROFILES } from '../../../src/machine/cpu/profiles.js';
import { LiveMachine } from '../../support/live-machine.js';

const HLT = 'f4';
const RDTSC = '0f31';
const RDTSCP = '0f01f9';
const RDMSR = '0f32';
const WRMSR = '0f30';
const NOP = '90';
const TSC = 0x10;
const TSC_ADJUST = 0x3b;
const TSC_DEADLINE = 0x6e0;
const TSC_AUX = 0xc000_0103;
const GP = 13;

const bytes = (value: number): string =>
  [0, 8, 16, 24].map((shift) => ((value >>> shift) & 0xff).toString(16).padStart(2, '0')).join('');
/** MOV ECX. */
const ecx = (value: number): string => `b9${bytes(value)}`;
/** MOV EAX; XOR EDX. */
const value = (low: number): string => `b8${bytes(low)} 31d2`;
const readMsr = (msr: number): string => `${ecx(msr)} ${RDMSR}`;
const writeMsr = (msr: number, low: number): string => `${value(low)} ${ecx(msr)} ${WRMSR}`;
/** Instructions of `writeMsr` up to and with WRMSR. */
const WRITE = 4;

const ran = (code: string, cpu?: string, values = {}) => {
  const live = new LiveMachine(`${code} ${HLT}`, values, cpu);
  live.run();
  return live;
};
const edxEax = (live: LiveMachine): bigint => (live.get('rdx') << 32n) | live.get('rax');

describe('time-stamp counter (APM vol.2 §13.2.4 Time-Stamp Counter)', () => {
  it.each([
    ['RDTSC', `${NOP} ${RDTSC}`, 10n],
    ['RDTSCP', `${NOP}${NOP} ${RDTSCP}`, 20n],
    ['RDMSR', readMsr(TSC), 10n],
  ])('%s tells the nanoseconds of virtual time', (_, code, tsc) => {
    expect(edxEax(ran(code))).toBe(tsc);
  });

  it('counts on from what is written', () => {
    // At WRMSR's own time the counter has the value; RDTSC comes one instruction later.
    expect(edxEax(ran(`${writeMsr(TSC, 1_000_000)} ${RDTSC}`))).toBe(1_000_010n);
  });

  it('counts while the vCPU halts: its rate is invariant (CPUID Fn8000_0007 EDX bit 8)', () => {
    // The PIT's channel 0 in mode 0, then HLT until it interrupts; the handler halts for good.
    const live = ran(`b030 e643 b0ff e640 e640 b0fe e621 fb ${HLT}`);
    expect(live.events.map(({ type }) => type)).toContain('time.skipped');
    live.put(0x10_0000, `${RDTSC} ${HLT}`).set({ rip: 0x10_0000n, activity: 0n, rflags: 2n });
    live.run();
    expect(edxEax(live)).toBeGreaterThan(54_000_000n);
  });

  it('RDTSCP and RDPID read TSC_AUX, 32 bits of it (APM vol.3, RDTSCP, RDPID)', () => {
    const live = ran(`${writeMsr(TSC_AUX, 0x8765_4321)} ${RDTSCP} f30fc7fe`);
    expect([live.get('rcx'), live.get('rsi')]).toEqual([0x8765_4321n, 0x8765_4321n]);
  });

  it('is reported as it is, by profile', () => {
    const bit = (cpu: string, number: number, register: 'ebx' | 'ecx' | 'edx', at: number) => {
      const profile = CPU_PROFILES.find(({ name }) => name === cpu);
      if (profile === undefined) throw new Error(cpu);
      const dynamic = { apicId: 0, processors: 1, apicEnabled: true, osxsave: false, xcr0: 1n };
      return ((cpuidLeaf(profile, number, 0, dynamic)[register] >>> at) & 1) === 1;
    };
    const told = CPU_PROFILES.map(({ name }) => [
      name,
      bit(name, 0x8000_0007, 'edx', 8), // invariant
      bit(name, 0x8000_0001, 'edx', 27), // RDTSCP
      bit(name, 7, 'ebx', 1), // TSC_ADJUST
      bit(name, 1, 'ecx', 24), // TSC deadline
      bit(name, 0x8000_0001, 'ecx', 3), // extended local APIC registers
    ]);
    expect(told).toEqual([
      ['vmtape-base', true, true, true, true, false],
      ['k8-f', false, true, false, false, true],
      ['zen-2', true, true, false, false, true],
      ['zen-4', true, true, false, false, true],
      ['xen-nested', true, true, false, false, false],
      ['xen-4.17-nested', true, true, false, false, false],
      ['xen-4.19-nested', true, true, false, false, false],
      ['kvm-nested', true, true, false, false, false],
    ]);
  });
});

describe('TSC_ADJUST (Intel SDM vol.3 §18.17.3 Time-Stamp Counter Adjustment)', () => {
  it('is zero after reset and counts what is written to the counter', () => {
    expect(edxEax(ran(readMsr(TSC_ADJUST)))).toBe(0n);
    expect(edxEax(ran(`${writeMsr(TSC, 1000)} ${readMsr(TSC_ADJUST)}`))).toBe(1000n - BigInt(10 * (WRITE - 1)));
  });

  it('moves the counter by as much as it is changed', () => {
    const live = ran(`${writeMsr(TSC_ADJUST, 5_000_000)} ${RDTSC}`);
    expect(edxEax(live)).toBe(5_000_000n + BigInt(10 * WRITE));
    const back = ran(`${writeMsr(TSC_ADJUST, 5_000_000)} ${writeMsr(TSC_ADJUST, 0)} ${RDTSC}`);
    expect(edxEax(back)).toBe(BigInt(10 * 2 * WRITE));
  });

  it('does not exist where it is not reported: #GP', () => {
    expect(ran(readMsr(TSC_ADJUST), 'zen-4').vectors).toEqual([GP]);
    expect(ran(writeMsr(TSC_ADJUST, 0), 'vmtape-base,-tsc-adjust').vectors).toEqual([GP]);
  });
});

describe('TSC deadline (Intel SDM vol.3 §11.5.4.1 TSC-Deadline Mode)', () => {
  /** MOV DWORD [address], value, through RDI. */
  const store = (address: number, word: number): string => `bf${bytes(address)} c707${bytes(word)}`;
  const TIMER_ENTRY = 0xfee0_0320;
  /** MOV AL, FFh; OUT 21h, AL: no interrupt from the 8259. */
  const MASK_8259 = 'b0ff e621';
  /** The local APIC's page is not in the tests' tables: map it with one huge page. */
  const mapped = (code: string, cpu?: string) => {
    const live = new LiveMachine(`${MASK_8259} ${code}`, { rflags: 2n }, cpu);
    live.write(0x2000 + 8 * 3, 0xc000_0000n | 0x83n | 0x67n);
    live.set({ cr3: 0x1000n });
    live.run();
    return live;
  };

  it('interrupts when the counter comes to it, and disarms itself', () => {
    const live = mapped(
      `${store(TIMER_ENTRY, 0x4_00ef)} ${writeMsr(TSC_DEADLINE, 1000)} ${readMsr(TSC_DEADLINE)} 89c6 fb ${HLT}`,
      'vmtape-base',
    );
    expect(live.get('rsi')).toBe(1000n);
    expect(live.vectors).toEqual([0xef]);
    expect(live.machine.now).toBeGreaterThanOrEqual(1000);
    live.put(0x10_0000, `${readMsr(TSC_DEADLINE)} ${HLT}`).set({ rip: 0x10_0000n, activity: 0n, rflags: 2n });
    live.run();
    expect(edxEax(live)).toBe(0n);
  });

  it('falls earlier when software moves the counter forward', () => {
    const live = mapped(
      `${store(TIMER_ENTRY, 0x4_00ef)} ${writeMsr(TSC_DEADLINE, 0x4000_0000)} ${writeMsr(TSC, 0x3fff_f000)} fb ${HLT}`,
    );
    expect(live.vectors).toEqual([0xef]);
    expect(live.machine.now).toBeLessThan(10_000);
  });

  it('is a reserved bit and no MSR where it is not reported', () => {
    const live = mapped(`${store(TIMER_ENTRY, 0x4_00ef)} 8b07 89c6 ${readMsr(TSC_DEADLINE)} ${HLT}`, 'zen-2');
    expect([live.get('rsi'), live.vectors]).toEqual([0xefn, [GP]]);
  });
});

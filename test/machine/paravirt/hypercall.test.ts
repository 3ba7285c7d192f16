import { describe, expect, it } from 'vitest';
import { KvmCall, KvmError } from '../../../src/machine/paravirt/hypercall.js';
import { ExitCode } from '../../../src/machine/svm/exit-code.js';
import { AREA, KvmMachine, VMCALL, VMMCALL } from '../../support/kvm-machine.js';
import { CODE, LiveMachine, USER_SEGMENTS } from '../../support/live-machine.js';
import { NestedMachine } from '../../support/nested-machine.js';

const call = Object.fromEntries(Object.entries(KvmCall).map(([name, number]) => [name, Number(number)])) as Record<
  keyof typeof KvmCall,
  number
>;
/** Code and data segments of 32-bit protected mode, as the register file packs them. */
const CODE32 = 0xffff_ffff_0c9b_0008n;
const irr = (live: LiveMachine) => live.machine.state.devices.localApics[0]?.irr;

describe('a hypercall (Linux, kvm/x86/hypercalls.rst)', () => {
  it('is VMMCALL: number in RAX, result in RAX, nothing else changes', () => {
    const live = new KvmMachine();
    expect(live.hypercall(call.VAPIC_POLL_IRQ, 1n, 2n, 3n, 4n)).toBe(0n);
    expect((['rbx', 'rcx', 'rdx', 'rsi', 'rip'] as const).map((name) => live.get(name))).toEqual([
      ...[1n, 2n, 3n, 4n],
      BigInt(CODE + 3),
    ]);
    expect(live.eventsOf('paravirt.hypercall')).toMatchObject([{ number: 1n, result: 0n, patched: false }]);
  });

  it.each([0, 2, 3, 4, 6, 7, 8, 13, 1000])('%i is unknown: ENOSYS', (number) => {
    expect(new KvmMachine().hypercall(number)).toBe(KvmError.ENOSYS);
  });

  it('with bits above 32 in its number is unknown in 64-bit mode, and not outside it', () => {
    const live = new KvmMachine();
    const rax = (1n << 32n) | KvmCall.VAPIC_POLL_IRQ;
    live.execute(VMMCALL, { rax });
    expect(live.get('rax')).toBe(BigInt.asUintN(64, KvmError.ENOSYS));
    live.execute(VMMCALL, { rax, cs: CODE32 });
    expect(live.get('rax')).toBe(0n);
    live.execute(VMMCALL, { rax: 99n, cs: CODE32 });
    expect(live.get('rax')).toBe(BigInt.asUintN(32, KvmError.ENOSYS));
  });

  it('is the kernel’s alone: EPERM', () => {
    const live = new KvmMachine();
    live.execute(VMMCALL, { rax: 1n, ...USER_SEGMENTS });
    expect(live.get('rax')).toBe(BigInt.asUintN(64, KvmError.EPERM));
    expect(live.vectors).toEqual([]);
  });

  it('is #UD on bare hardware', () => {
    for (const code of [VMMCALL, VMCALL]) {
      const live = new LiveMachine(`${code} f4`);
      live.run();
      expect(live.vectors).toEqual([6]);
    }
  });

  it.each([
    ['VMMCALL', VMMCALL],
    ['VMCALL', VMCALL],
  ])('by %s of L2 is none to L0: #UD where L1 does not intercept it', (_name, code) => {
    const live = new NestedMachine(code, {}, undefined, undefined, { paravirt: 'kvm' }).intercept('EXCEPTION_6');
    expect(live.exit().code).toBe(0x46n);
    const intercepting = new NestedMachine(VMMCALL, {}, undefined, undefined, { paravirt: 'kvm' }).intercept('VMMCALL');
    expect(intercepting.exit().code).toBe(ExitCode.VMMCALL);
  });
});

describe('VMCALL, as KVM mends it on AMD processors', () => {
  it('becomes VMMCALL in RAM, and is made', () => {
    const live = new KvmMachine();
    expect(live.execute(VMCALL, { rax: 77n })).toBeUndefined();
    expect(live.get('rax')).toBe(BigInt.asUintN(64, KvmError.ENOSYS));
    expect(live.memory.window(CODE, 3)).toEqual(Uint8Array.of(0x0f, 0x01, 0xd9));
    expect(live.eventsOf('paravirt.hypercall')).toMatchObject([{ number: 77n, patched: true }]);
    live.set({ rip: BigInt(CODE), rax: 1n, activity: 0n });
    live.run(1);
    expect(live.eventsOf('paravirt.hypercall')).toMatchObject([{ patched: true }, { number: 1n, patched: false }]);
  });

  it('keeps its prefixes, and may cross a page', () => {
    const live = new KvmMachine().put(0x10_0ffd, `66 ${VMCALL} f4`);
    live.set({ rip: 0x10_0ffdn, rax: 1n });
    live.run(1);
    expect(live.memory.window(0x10_0ffd, 4)).toEqual(Uint8Array.of(0x66, 0x0f, 0x01, 0xd9));
    expect(live.get('rip')).toBe(0x10_1001n);
  });

  it('is #PF where the program may not write', () => {
    const live = new KvmMachine();
    live.store(0x3000, 8, live.read(0x3000, 8) & ~2n); // the first 2 MiB, read-only
    live.machine.engine.flush();
    expect(live.execute(VMCALL, { rax: 1n })).toBe(14);
    expect([live.get('cr2'), live.memory.window(CODE, 3)]).toEqual([BigInt(CODE), Uint8Array.of(0x0f, 0x01, 0xc1)]);
  });

  it('is found at CS base + RIP outside 64-bit mode', () => {
    const live = new KvmMachine();
    live.execute(VMCALL, { rax: 1n, rip: BigInt(CODE - 0x1000), csBase: 0x1000n, cs: CODE32 });
    expect(live.memory.window(CODE, 3)).toEqual(Uint8Array.of(0x0f, 0x01, 0xd9));
    expect(live.get('rax')).toBe(0n);
  });
});

describe('KICK_CPU', () => {
  it('ends the next HLT of the vCPU, interrupts on or off, and only that', () => {
    const live = new KvmMachine();
    expect(live.hypercall(call.KICK_CPU, 0n, 0n)).toBe(0n);
    live.put(CODE, 'f4 ffc0 f4 ffc0').set({ rip: BigInt(CODE), rax: 0n, rflags: 2n });
    expect(live.run()).toBe('idle');
    expect([live.get('rax'), live.get('rip')]).toEqual([1n, BigInt(CODE + 4)]);
    expect(live.eventsOf('paravirt.kicked').map(({ pending }) => pending)).toEqual([true, false]);
  });

  it('of a vCPU that there is not does nothing', () => {
    const live = new KvmMachine();
    expect(live.hypercall(call.KICK_CPU, 0n, 7n)).toBe(0n);
    expect(live.eventsOf('paravirt.kicked')).toEqual([]);
  });
});

describe('CLOCK_PAIRING', () => {
  it('gives wall-clock time and TSC of one moment', () => {
    const live = new KvmMachine().host({ type: 'input.stolen', nanoseconds: 3_250_000_000 });
    live.writeMsr(0x10, 0x1234_5678_9abcn);
    live.store(AREA + 24, 8, -1n).store(AREA + 56, 8, -1n);
    const { now } = live.machine;
    const tsc = live.machine.readTsc();
    expect(live.hypercall(call.CLOCK_PAIRING, BigInt(AREA), 0n)).toBe(0n);
    expect([0, 8, 16, 24, 56].map((at) => live.read(AREA + at, 8))).toEqual([
      ...[1_700_000_003n, BigInt(now) - 3_000_000_000n, tsc, 0n, 0n],
    ]);
  });

  it.each<[string, bigint, bigint, bigint]>([
    ['another clock', BigInt(AREA), 1n, KvmError.EOPNOTSUPP],
    ['what is not RAM', 0xfee0_0000n, 0n, KvmError.EFAULT],
    ['the edge of RAM', (16n << 20n) - 32n, 0n, KvmError.EFAULT],
    ['an address beyond all', 1n << 63n, 0n, KvmError.EFAULT],
  ])('refuses %s', (_what, address, type, error) => {
    expect(new KvmMachine().hypercall(call.CLOCK_PAIRING, address, type)).toBe(error);
  });
});

describe('SEND_IPI', () => {
  it.each<[string, bigint, bigint, bigint, bigint]>([
    ['in the low bitmap', 1n, 0n, 0n, 1n],
    ['among others in the low bitmap', 0xffn, 0n, 0n, 1n],
    ['not in it', 2n, 0n, 0n, 0n],
    ['behind the lowest', 1n, 0n, 1n, 0n],
    ['far behind the lowest', 0xffff_ffffn, 0n, 0xffff_ffffn, 0n],
    ['in the high bitmap, around the end', 0n, 1n, 0xffff_ffc0n, 1n],
    ['in the high bitmap alone', 0n, 1n, 0n, 0n],
  ])('reaches the APIC whose id is %s', (_where, low, high, lowest, count) => {
    const live = new KvmMachine();
    expect(live.hypercall(call.SEND_IPI, low, high, lowest, 0x40n)).toBe(count);
    expect(irr(live)).toEqual([0, 0, Number(count), 0, 0, 0, 0, 0]);
  });

  it('has bitmaps of 32 bits outside 64-bit mode', () => {
    const live = new KvmMachine();
    live.execute(VMMCALL, { rax: 10n, rbx: 0n, rcx: 1n, rdx: 0xffff_ffe0n, rsi: 0x40n, cs: CODE32 });
    expect(live.get('rax')).toBe(1n);
  });

  it.each([0x840n, 0x4_0040n, 0x8_0040n])('refuses the command %x: logical destinations and shorthands', (icr) => {
    expect(new KvmMachine().hypercall(call.SEND_IPI, 1n, 0n, 0n, icr)).toBe(KvmError.EINVAL);
  });

  it('counts nobody while the APIC is disabled', () => {
    const live = new KvmMachine();
    live.writeMsr(0x1b, 0xfee0_0000n);
    expect(live.hypercall(call.SEND_IPI, 1n, 0n, 0n, 0x40n)).toBe(0n);
  });

  it('brings NMIs', () => {
    const live = new KvmMachine();
    expect(live.execute(VMMCALL, { rax: 10n, rbx: 1n, rcx: 0n, rdx: 0n, rsi: 0x400n })).toBe(2);
    expect(live.get('rax')).toBe(1n);
  });

  it('kicks by a remote read, leaves ExtINT alone, and lets an INIT go that is de-asserted', () => {
    const live = new KvmMachine();
    expect(live.hypercall(call.SEND_IPI, 1n, 0n, 0n, 0x300n)).toBe(1n);
    expect(live.eventsOf('paravirt.kicked')).toHaveLength(1);
    expect(live.hypercall(call.SEND_IPI, 1n, 0n, 0n, 0x700n)).toBe(0n);
    expect(live.hypercall(call.SEND_IPI, 1n, 0n, 0n, 0x8500n)).toBe(0n);
    expect(live.eventsOf('cpu.pended')).toEqual([]);
  });
});

describe('SCHED_YIELD', () => {
  it('succeeds: there is nobody to yield to', () => {
    expect(new KvmMachine().hypercall(call.SCHED_YIELD, 0n)).toBe(0n);
  });
});

describe('MAP_GPA_RANGE', () => {
  it.each<[string, bigint, bigint, bigint, bigint]>([
    ['a plain range', 0x1000n, 4n, 0n, 0n],
    ['a preferred page size', 0x20_0000n, 512n, 1n, 0n],
    ['an encrypted range, which there cannot be', 0x1000n, 4n, 0x10n, KvmError.EOPNOTSUPP],
    ['half a page', 0x800n, 1n, 0n, KvmError.EINVAL],
    ['no pages', 0x1000n, 0n, 0n, KvmError.EINVAL],
    ['too many pages', 0x1000n, (1n << 64n) - 1n, 0n, KvmError.EINVAL],
    ['reserved attributes', 0x1000n, 1n, 0x20n, KvmError.EINVAL],
  ])('answers %s', (_what, address, pages, attributes, result) => {
    expect(new KvmMachine().hypercall(call.MAP_GPA_RANGE, address, pages, attributes)).toBe(result);
  });
});

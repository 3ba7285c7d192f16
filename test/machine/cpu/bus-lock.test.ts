/** Bus locks: what is one, the threshold of a guest, and the trap for programs. */
import { describe, expect, it } from 'vitest';
import { CR0, R } from '../../../src/machine/layout/cpu-state.js';
import { ExitCode } from '../../../src/machine/svm/exit-code.js';
import { DATA, LiveMachine, USER, USER_SEGMENTS } from '../../support/live-machine.js';
import { GUEST_CODE, NestedMachine } from '../../support/nested-machine.js';

/** Eight bytes at RBX. */
const LOCK_INC = 'f048ff03';
const XCHG = '488703';
const LOCK_CMPXCHG = 'f0480fb113';
const LOCK_BTS = 'f0480fab0b';
const LOCK_CMPXCHG16B = 'f0480fc70b';
const INC = '48ff03';
const MOV_CR0 = '0f20c0';
const SPLIT = DATA + 60;
const RBX_TO = (address: number): string => `48c7c3${Buffer.from(Uint32Array.of(address).buffer).toString('hex')}`;
const RCX_TO = (value: number): string => `48c7c1${Buffer.from(Int32Array.of(value).buffer).toString('hex')}`;

/** A guest that may take `count` bus locks. */
function guest(code: string, count: number, values: ConstructorParameters<typeof LiveMachine>[1] = {}): NestedMachine {
  const live = new NestedMachine(code, values).intercept('BUSLOCK_THRESHOLD');
  live.vmcb.busLockCounter = count;
  return live;
}
const outcome = (live: NestedMachine): [bigint, number, bigint] => {
  const { code } = live.exit();
  return [code, live.vmcb.busLockCounter, live.vmcb.rip - BigInt(GUEST_CODE)];
};

describe('bus lock threshold (APM vol.2 §15.14.5 Bus Lock Threshold)', () => {
  it('the lock that finds a count of zero does not happen, and exits', () => {
    const live = guest(`${RBX_TO(SPLIT)} ${LOCK_INC} ${LOCK_INC} ${LOCK_INC}`, 2);
    live.write(SPLIT, 5n);
    expect(outcome(live)).toEqual([ExitCode.BUSLOCK, 0, 15n]);
    const { info1, info2 } = live.events.findLast(({ type }) => type === 'svm.vmexit') as {
      info1: bigint;
      info2: bigint;
    };
    expect([info1, info2, live.vmcb.nRIP]).toEqual([0n, 0n, 0n]);
    expect(live.memory.read(SPLIT as never, 8)).toBe(7n);
  });

  it('goes on with a new count, and writes back what is left of it', () => {
    const live = guest(`${RBX_TO(SPLIT)} ${LOCK_INC}`, 0);
    expect(outcome(live)).toEqual([ExitCode.BUSLOCK, 0, 7n]);
    live.vmcb.busLockCounter = 3;
    expect(live.again().code).toBe(ExitCode.HLT);
    expect(live.vmcb.busLockCounter).toBe(2);
  });

  it.each([
    ['XCHG, which locks by itself', XCHG],
    ['CMPXCHG', LOCK_CMPXCHG],
    ['BTS of a bit far from its operand', `${RCX_TO(-512 * 8)} ${LOCK_BTS}`],
  ])('counts %s', (_what, code) => {
    expect(outcome(guest(`${RBX_TO(SPLIT)} ${code}`, 9)).slice(0, 2)).toEqual([ExitCode.HLT, 8]);
  });

  it.each([
    ['an access within a line, though it is not aligned', `${RBX_TO(DATA + 3)} ${LOCK_INC}`],
    ['an aligned access to two quadwords', `${RBX_TO(DATA + 48)} ${LOCK_CMPXCHG16B}`],
    ['an access that is not locked', `${RBX_TO(SPLIT)} ${INC}`],
    ['XCHG of registers', '4893'],
    ['a bit whose place lies within a line', `${RBX_TO(SPLIT)} ${RCX_TO(64)} ${LOCK_BTS}`],
  ])('does not count %s', (_what, code) => {
    expect(outcome(guest(code, 0)).slice(0, 2)).toEqual([ExitCode.HLT, 0]);
  });

  it('faults of the operand come first', () => {
    const live = guest(`${RBX_TO(0x7fff_fffc)} ${LOCK_INC}`, 0).intercept('EXCEPTION_14');
    expect(live.exit().code).toBe(0x4en);
  });

  it('nothing counts without the intercept, nor on a processor that does not report it', () => {
    const code = `${RBX_TO(SPLIT)} ${LOCK_INC}`;
    const open = new NestedMachine(code);
    open.vmcb.busLockCounter = 7;
    expect(outcome(open).slice(0, 2)).toEqual([ExitCode.HLT, 7]);
    const older = new NestedMachine(code, {}, 'zen-4').intercept('BUSLOCK_THRESHOLD');
    expect(outcome(older)[0]).toBe(ExitCode.HLT);
  });

  it('outside of a guest there is no threshold', () => {
    const live = guest('90', 0);
    live.exit();
    live.put(0x10_0000, `${RBX_TO(SPLIT)} ${LOCK_INC} f4`).set({ rip: 0x10_0000n, activity: 0n });
    live.run();
    expect(live.get('rip')).toBe(0x10_000cn);
  });
});

describe('memory types (APM vol.2 §7.3.3 Cacheable Locks and Bus Locks, §7.7, §7.8.5, §15.25.8)', () => {
  const ALIGNED = `${RBX_TO(DATA)} ${LOCK_INC}`;
  const WB = 0x0606_0606_0606_0606n;
  const countsWith = (values: ConstructorParameters<typeof LiveMachine>[1], change?: (live: NestedMachine) => void) => {
    const live = guest(ALIGNED, 0, values);
    change?.(live);
    return live.exit().code === ExitCode.BUSLOCK;
  };
  /** The page of 2 MiB that holds the data, in the tables that host and guest share. */
  const DATA_ENTRY = 0x3000 + 8 * (DATA >> 21);
  const withPageBits = (bits: bigint) => (live: NestedMachine) =>
    live.write(DATA_ENTRY, live.memory.read(DATA_ENTRY as never, 8) | bits);
  const withCachesOff = (live: NestedMachine): void => {
    live.vmcb.cr0 |= CR0.CD;
  };
  const withGuestPat = (live: NestedMachine): void => {
    live.nestedPaging().vmcb.gPAT = 4n;
  };
  const [PWT, PAT] = [8n, 0x1000n];

  it.each<[string, Parameters<typeof countsWith>, boolean]>([
    ['as the BIOS hands it over', [{}], false],
    ['MTRRs off', [{ mtrrDefType: 0x6n }], true],
    ['uncacheable by default', [{ mtrrDefType: 0x800n }], true],
    ['a range of write-through', [{ mtrrBase1: 4n, mtrrMask1: 0xff_ff00_0800n }], true],
    [
      'a range of write-back over another default',
      [{ mtrrDefType: 0x800n, mtrrBase1: 6n, mtrrMask1: 0xff_ff00_0800n }],
      false,
    ],
    [
      'uncacheable over write-back',
      [{ mtrrBase1: 6n, mtrrMask1: 0x800n, mtrrBase2: 0n, mtrrMask2: 0xff_ff00_0800n }],
      true,
    ],
    ['write-through by the page', [{}, withPageBits(PWT)], true],
    ['PAT of the page, whose entry is write-back', [{ pat: WB }, withPageBits(PAT | PWT)], false],
    ['PAT of the page', [{ pat: 0x0706_0606_0606_0606n }, withPageBits(PAT | PWT | 0x10n)], true],
    ['caches off', [{}, withCachesOff], true],
    ["the guest's own PAT", [{}, withGuestPat], true],
    ['nested paging, all of it write-back', [{}, (live) => void live.nestedPaging()], false],
    ['write-through by the nested page', [{}, (live) => void withPageBits(PWT)(live.nestedPaging())], true],
  ])('%s', (_what, values, counts) => {
    expect(countsWith(...values)).toBe(counts);
  });

  it('asks the fixed ranges below 1 MiB', () => {
    const at = (address: number): bigint => guest(`${RBX_TO(address)} ${LOCK_INC}`, 0).exit().code;
    expect([0x9_0000, 0xa_0000, 0xc_8000, 0xf_fff8, 0x7_fff8].map(at)).toEqual([
      ExitCode.HLT,
      ExitCode.BUSLOCK,
      ExitCode.BUSLOCK,
      ExitCode.BUSLOCK,
      ExitCode.HLT,
    ]);
  });
});

describe('bus lock trap (APM vol.2 §13.1.3.6 Bus Lock Trap)', () => {
  const BLCKDB = 4n;
  const BLD = 1n << 11n;
  const program = (
    code: string,
    values: ConstructorParameters<typeof LiveMachine>[1] = {},
    cpu = 'zen-5',
  ): LiveMachine =>
    new LiveMachine(
      '',
      { ...USER_SEGMENTS, rip: BigInt(USER), debugCtl: BLCKDB, dr6: 0xffff_0ff0n, ...values },
      cpu,
    ).put(USER, `${RBX_TO(SPLIT)} ${code} 90`);

  it('traps behind the instruction, with DR6.BLD clear', () => {
    const live = program(LOCK_INC);
    live.run(20);
    expect([live.vectors, live.pushedRip]).toEqual([[1], BigInt(USER + 11)]);
    expect(live.get('dr6')).toBe(0xffff_07f0n);
    expect(live.memory.read(SPLIT as never, 8)).toBe(1n);
  });

  it('other debug exceptions leave BLD as it is', () => {
    for (const bld of [0n, BLD]) {
      const live = program('90', { debugCtl: 0n, dr6: 0xffff_07f0n | bld, rflags: 0x102n });
      live.run(20);
      expect(live.get('dr6')).toBe(0xffff_47f0n | bld);
    }
  });

  it.each([
    ['at privilege level 0', { cpl: 0n }],
    ['without DebugCtl.BLCKDB', { debugCtl: 0n }],
  ])('does not trap %s', (_when, values) => {
    const live = program(LOCK_INC, values);
    live.run(3);
    expect(live.vectors).toEqual([]);
  });

  it('MOV DR6 writes BLD where there is a trap; elsewhere it reads as one', () => {
    const MOV_DR6 = '0f23f0 0f21f1 f4';
    const written = (cpu: string): bigint => {
      const live = new LiveMachine(MOV_DR6, { rax: 0n }, cpu);
      live.run(3);
      return live.get('rcx');
    };
    expect([written('zen-5'), written('zen-4')]).toEqual([0xffff_07f0n, 0xffff_0ff0n]);
  });

  it('on a processor without it bit 2 of DebugCtl is storage', () => {
    const live = program(LOCK_INC, {}, 'zen-4');
    live.run(3);
    expect([live.vectors, live.get('debugCtl')]).toEqual([[], BLCKDB]);
  });

  it('comes out of a guest as any trap does: intercepted, or its own', () => {
    const live = new NestedMachine(`${RBX_TO(SPLIT)} ${LOCK_INC}`, { debugCtl: BLCKDB }, 'zen-5').intercept(
      'EXCEPTION_1',
    );
    live.vmcb.cs = USER_SEGMENTS.cs as bigint;
    live.vmcb.ss = USER_SEGMENTS.ss as bigint;
    live.vmcb.cpl = 3;
    live.vmcb.dr6 = 0xffff_0ff0n;
    expect([live.exit().code, live.vmcb.rip, live.vmcb.dr6]).toEqual([0x41n, BigInt(GUEST_CODE + 11), 0xffff_07f0n]);
  });
});

it('LOCK MOV CR0, which is CR8, locks no memory', () => {
  const live = guest(`f0${MOV_CR0}`, 0);
  expect(live.exit().code).toBe(ExitCode.HLT);
  expect(live.machine.registers[R.busLocks]).toBe(0n);
});

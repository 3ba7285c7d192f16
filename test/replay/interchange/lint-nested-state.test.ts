/** Every rule by which KVM refuses a nested state, with a blob that breaks it alone; and what KVM does not keep. */
import { describe, expect, it } from 'vitest';
import { DEFAULT_CONFIG, InputError, machineProfile } from '../../../src/machine/index.js';
import {
  lintNestedState,
  NESTED_RULES,
  type NestedContext,
} from '../../../src/replay/interchange/lint-nested-state.js';
import { type Blob, goodNestedState, NESTED, NESTED_VMCB } from './kvm-layout.js';

const SREGS = { cr0: 0x8001_0033n, cr3: 0x11_1000n, efer: 0x1d01n };
const EVENTS = { 'smi.smm': 0n };
const CONTEXT: NestedContext = { sregs: SREGS, events: EVENTS, separatePat: true };
const rulesOf = (bytes: Uint8Array, context: NestedContext = CONTEXT): readonly string[] =>
  lintNestedState(bytes, 'blob', context).refusals.map(({ rule }) => rule);

type Breaking = readonly [rule: string, change: (blob: Blob) => void, context?: NestedContext];

const BREAKING: readonly Breaking[] = [
  ['unknown-flags', (blob) => blob.set16(NESTED.flags, 0x8101)],
  ['format', (blob) => blob.set16(NESTED.format, 0)],
  ['format', (blob) => blob.set16(NESTED.format, 7)],
  ['vmx-flags', (blob) => blob.set16(NESTED.flags, 0x105)],
  ['vmx-flags', (blob) => blob.set16(NESTED.flags, 0x109)],
  ['svme', () => {}, { ...CONTEXT, sregs: { ...SREGS, efer: 0xd01n } }],
  ['smm', () => {}, { ...CONTEXT, events: { 'smi.smm': 1n } }],
  ['vmcb-pa', (blob) => blob.set64(NESTED.vmcbPa, 0x12_6010n)],
  ['vmcb-pa', (blob) => blob.set64(NESTED.vmcbPa, 1n << 48n)],
  ['vmcb-size', (blob) => blob.set32(NESTED.size, 4223)],
  ['vmrun-intercept', (blob) => blob.set32(NESTED_VMCB.intercept4, 0xfe)],
  ['asid', (blob) => blob.set32(NESTED_VMCB.asid, 0)],
  ['ncr3', (blob) => blob.set64(NESTED_VMCB.nCR3, 1n << 48n)],
  ['msrpm', (blob) => blob.set64(NESTED_VMCB.msrpm, (1n << 48n) - 0x1000n)],
  ['iopm', (blob) => blob.set64(NESTED_VMCB.iopm, (1n << 48n) - 0x2000n)],
  [
    'vnmi',
    (blob) => {
      blob.set64(NESTED_VMCB.intControl, 1n << 26n);
      blob.set32(NESTED_VMCB.intercept3, 1);
    },
  ],
  ['event-inj', (blob) => blob.set64(NESTED_VMCB.eventInj, 0x8000_0100n)],
  ['event-inj', (blob) => blob.set64(NESTED_VMCB.eventInj, 0x8000_0302n)],
  ['event-inj', (blob) => blob.set64(NESTED_VMCB.eventInj, 0x8000_0309n)],
  ['l2-cr0', () => {}, { ...CONTEXT, sregs: { ...SREGS, cr0: 0xa001_0033n } }],
  ['l1-cr0-pg', (blob) => blob.set64(NESTED_VMCB.cr0, 0x0001_0033n)],
  ['l1-rflags-vm', (blob) => blob.set64(NESTED_VMCB.rflags, 0x2_0002n)],
  ['l1-efer-svme', (blob) => blob.set64(NESTED_VMCB.efer, 0xd01n)],
  ['l1-cr0-nw', (blob) => blob.set64(NESTED_VMCB.cr0, 0xa001_0033n)],
  ['l1-cr0-high', (blob) => blob.set64(NESTED_VMCB.cr0, 0x1_8001_0033n)],
  ['l1-dr6', (blob) => blob.set64(NESTED_VMCB.dr6, 0x1_ffff_0ff0n)],
  ['l1-dr7', (blob) => blob.set64(NESTED_VMCB.dr7, 0x1_0000_0400n)],
  ['l1-pae', (blob) => blob.set64(NESTED_VMCB.cr4, 0n)],
  ['l1-cr3', (blob) => blob.set64(NESTED_VMCB.cr3, 1n << 48n)],
  ['l1-cs', (blob) => blob.set16(NESTED_VMCB.csAttributes, 0x69b)],
  ['l1-cr4', (blob) => blob.set64(NESTED_VMCB.cr4, 0x8020n)],
  ['l1-efer', (blob) => blob.set64(NESTED_VMCB.efer, 0x1d03n)],
  ['gpat', (blob) => blob.set64(NESTED.gpat, 2n)],
  ['l2-cr3', () => {}, { ...CONTEXT, sregs: { ...SREGS, cr3: 1n << 48n } }],
];

describe('a nested state', () => {
  it('is taken when nothing is wrong with it, of L1 as well as of L2', () => {
    expect(lintNestedState(goodNestedState().bytes, 'blob', CONTEXT)).toMatchObject({ refusals: [], unchecked: [] });
    const outside = goodNestedState();
    outside.set16(NESTED.flags, 0x100);
    outside.set32(NESTED.size, 128);
    expect(rulesOf(outside.bytes.subarray(0, 128))).toEqual([]);
    // EFER.SVME clear: GIF alone may be set.
    expect(rulesOf(outside.bytes.subarray(0, 128), { ...CONTEXT, sregs: { ...SREGS, efer: 0n } })).toEqual([]);
  });

  it.each(BREAKING.map(([rule, change, context = CONTEXT]) => ({ rule, change, context })))(
    'is refused for $rule alone',
    ({ rule, change, context }) => {
      const blob = goodNestedState();
      change(blob);
      expect(rulesOf(blob.bytes, context)).toEqual([rule]);
    },
  );

  it('is refused for the rules that go with others', () => {
    const small = goodNestedState();
    small.set32(NESTED.size, 127);
    expect(rulesOf(small.bytes)).toEqual(['size', 'vmcb-size']);
    const pending = goodNestedState();
    pending.set16(NESTED.flags, 0x102);
    expect(rulesOf(pending.bytes)).toEqual(['run-pending']);
    const real = goodNestedState();
    real.set64(NESTED_VMCB.cr0, 0x8001_0032n);
    real.set64(NESTED_VMCB.efer, 0x1001n);
    expect(rulesOf(real.bytes)).toEqual(['l1-cr0-pe']);
    expect(lintNestedState(goodNestedState().bytes.subarray(0, 4000), 'blob', CONTEXT).refusals).toEqual([
      { rule: 'truncated', errno: 'EFAULT', text: expect.stringMatching(/4000 of 4224/) },
    ]);
  });

  it('has no rule without such a case', () => {
    const cases = new Set([...BREAKING.map(([rule]) => rule), 'size', 'run-pending', 'l1-cr0-pe', 'truncated']);
    expect([...cases].sort()).toEqual([...NESTED_RULES].sort());
  });

  it('is not refused at the borders', () => {
    const blob = goodNestedState();
    blob.set64(NESTED_VMCB.msrpm, (1n << 48n) - 0x2000n);
    blob.set64(NESTED_VMCB.iopm, (1n << 48n) - 0x3000n);
    blob.set64(NESTED.vmcbPa, (1n << 48n) - 0x1000n);
    blob.set64(NESTED_VMCB.eventInj, 0x8000_0b0en);
    expect(rulesOf(blob.bytes)).toEqual([]);
    expect(rulesOf(blob.bytes, { ...CONTEXT, addressBits: 47 })).toEqual(['vmcb-pa', 'msrpm', 'iopm']);
    // Reserved bits are masked, an event without its valid bit is none, N_CR3 counts under nested paging.
    blob.set64(NESTED_VMCB.eventInj, 0x7fff_ff02n);
    blob.set64(NESTED_VMCB.nCR3, 1n << 60n);
    blob.set64(NESTED_VMCB.nestedControl, 0n);
    expect(rulesOf(blob.bytes)).toEqual([]);
  });

  it('is held against the bits of a profile', () => {
    const blob = goodNestedState();
    blob.set64(NESTED_VMCB.cr4, 0x80_0020n);
    expect(rulesOf(blob.bytes)).toEqual([]);
    const profile = machineProfile(DEFAULT_CONFIG);
    expect(rulesOf(blob.bytes, { ...CONTEXT, profile, addressBits: 48 })).toEqual(['l1-cr4']);
  });

  it('says what it could not check', () => {
    expect(lintNestedState(goodNestedState().bytes, 'blob').unchecked).toEqual(['svme', 'smm', 'l2-cr0', 'l2-cr3']);
  });

  it('is none below 128 bytes', () => {
    expect(() => lintNestedState(new Uint8Array(127), 'blob')).toThrow(InputError);
  });
});

describe('what KVM does not keep', () => {
  const statesOf = (change: (blob: Blob) => void): readonly string[] => {
    const blob = goodNestedState();
    change(blob);
    return lintNestedState(blob.bytes, 'blob', CONTEXT).notKept.map(({ state }) => state);
  };
  it.each<readonly [string, (blob: Blob) => void]>([
    ['clean bits', (blob) => blob.set32(NESTED_VMCB.clean, 1)],
    ['interrupt shadow of L2', (blob) => blob.set64(NESTED_VMCB.intState, 1n)],
    ['nRIP', (blob) => blob.set64(NESTED_VMCB.nRIP, 0x1000n)],
    ['branch record', (blob) => blob.set64(NESTED_VMCB.virtExt, 1n)],
    [
      'PAUSE filter',
      (blob) => {
        blob.set32(NESTED_VMCB.intercept3, (1 << 23) | 3);
        blob.set16(NESTED_VMCB.pauseFilterCount, 5);
      },
    ],
    ['AVIC of L2', (blob) => blob.set64(NESTED_VMCB.avicBackingPage, 0x1000n)],
    ['bus lock count', (blob) => blob.set16(NESTED_VMCB.busLocks, 1)],
    ['low bits of permission maps', (blob) => blob.set64(NESTED_VMCB.iopm, 0x20_0001n)],
    ['VMLOAD state in the save area', (blob) => blob.set64(NESTED_VMCB.fs, 0x10n)],
    ['encrypted guests', (blob) => blob.set64(NESTED_VMCB.ghcb, 0x1000n)],
  ])('is named: %s', (state, change) => {
    expect(statesOf(() => {})).toEqual([]);
    expect(statesOf(change)).toEqual([state]);
  });

  it('is L2’s PAT in kernels that share it', () => {
    const { notKept } = lintNestedState(goodNestedState().bytes, 'blob');
    expect(notKept.map(({ state }) => state)).toEqual(['PAT of L2']);
  });
});

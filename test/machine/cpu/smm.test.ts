import { describe, expect, it } from 'vitest';
import { hasHandler } from '../../../src/machine/cpu/smm.js';
import { Activity, Boundary, CR0, Flag, SvmMode } from '../../../src/machine/layout/cpu-state.js';
import { CpuMachine, faultOf } from '../../support/cpu-machine.js';
import { CODE, LiveMachine, STACK_TOP } from '../../support/live-machine.js';

const SMBASE = 0x3_0000;
const ENTRY = SMBASE + 0x8000;
const HLT = 'f4';
const RSM = '0faa';
const SEEN = 0x9000;
/** MOV DWORD [9000h], 12345678h; RSM: 16-bit code. */
const HANDLER = `66c706009078563412 ${RSM}`;
const at = BigInt;

/** 64-bit mode with an SMI pending at its first instruction. */
function machine(handler: string, code = `90 90 ${HLT}`, values: ConstructorParameters<typeof LiveMachine>[1] = {}) {
  return new LiveMachine(code, { boundary: Boundary.SMI_PENDING, rax: 0xaan, r15: 0xffn, ...values }).put(
    ENTRY,
    handler,
  );
}
const area = (live: LiveMachine, offset: number, size = 8) => live.memory.read((SMBASE + offset) as never, size);
const mnemonics = (live: LiveMachine) =>
  live.events.flatMap((event) => (event.type === 'cpu.system' ? [event.mnemonic] : []));

describe('an SMI with a handler in SMRAM (APM vol.2 §10.3 Using SMM)', () => {
  it('starts it as table 10-3 says', () => {
    const live = machine(HANDLER);
    live.run(0);
    expect([live.get('cs'), live.get('csBase'), live.get('rip')]).toEqual([
      0xffff_ffff_0893_3000n,
      at(SMBASE),
      0x8000n,
    ]);
    expect([live.get('ds'), live.get('dsBase'), live.get('rflags')]).toEqual([0xffff_ffff_0893_0000n, 0n, 2n]);
    expect([live.get('cr0'), live.get('cr4'), live.get('efer'), live.get('dr7')]).toEqual([
      CR0.ET | CR0.NE | CR0.WP,
      0n,
      0n,
      0x400n,
    ]);
  });

  it('saves the state as table 10-1 says', () => {
    const live = machine(HANDLER);
    live.run(0);
    expect([area(live, 0xff78), area(live, 0xfff8), area(live, 0xff80), area(live, 0xffd8)]).toEqual([
      at(CODE),
      0xaan,
      0xffn,
      at(STACK_TOP),
    ]);
    expect([area(live, 0xfe10, 2), area(live, 0xfe12, 2), area(live, 0xfe14, 4)]).toEqual([8n, 0xa9bn, 0xffff_ffffn]);
    expect([area(live, 0xfe64, 2), area(live, 0xfe98)]).toEqual([0x3fn, 0x7000n]);
    expect([area(live, 0xfefc, 4), area(live, 0xff00, 4)]).toEqual([0x3_0064n, at(SMBASE)]);
    expect([area(live, 0xff50), area(live, 0xfed8)]).toEqual([0x1000n, 0n]);
  });

  it('returns by RSM to where it was', () => {
    const live = machine(HANDLER);
    const before = ['cs', 'ss', 'cr0', 'cr3', 'cr4', 'efer', 'rflags', 'dr7', 'tr', 'gdtrBase', 'cpl'] as const;
    const values = before.map((name) => live.get(name));
    live.run();
    expect(mnemonics(live)).toEqual(['SMI', 'RSM']);
    expect(live.memory.read(SEEN as never, 4)).toBe(0x1234_5678n);
    expect([live.get('rip'), live.get('boundary')]).toEqual([at(CODE + 3), 0n]);
    expect(before.map((name) => live.get(name))).toEqual(values);
  });

  it('gives the handler another SMBASE for the next time, by the area (§10.2.2)', () => {
    const live = machine(`66c7060000000000 ${RSM}`);
    live.put(ENTRY, `66 2e c7 06 00ff 00000500 ${RSM}`).run();
    expect(live.get('smBase')).toBe(0x5_0000n);
  });

  it('keeps the shadow of MOV SS and a pending single step for the program', () => {
    const pending = Boundary.INTERRUPT_SHADOW | Boundary.DEBUG_SHADOW | Boundary.SINGLE_STEP;
    const live = machine(RSM, HLT, { boundary: Boundary.SMI_PENDING | pending, activity: 0n });
    live.run(1);
    expect(live.get('boundary')).toBe(pending);
  });

  it('goes back to HLT, or not, as the auto-halt entry says (§10.3.7)', () => {
    const halted = machine(RSM, HLT, { activity: Activity.HALTED });
    halted.run(1);
    expect([area(halted, 0xfec9, 1), halted.get('activity')]).toEqual([1n, Activity.HALTED]);
    const going = machine(`2e c606c9fe00 ${RSM}`, `90 90 ${HLT}`, { activity: Activity.HALTED });
    going.run(3);
    expect([going.get('activity'), going.get('rip')]).toEqual([Activity.RUNNING, at(CODE + 1)]);
  });
});

describe('what waits for the end of SMM (APM vol.2 §10.3.3)', () => {
  it.each([
    ['NMI', Boundary.NMI_PENDING],
    ['INIT', Boundary.INIT_PENDING],
  ])('%s', (_name, bit) => {
    const live = machine(HANDLER, HLT, { boundary: Boundary.SMI_PENDING | bit });
    live.run(1);
    expect([live.vectors, mnemonics(live)]).toEqual([[], ['SMI']]);
    live.run();
    expect(live.memory.read(SEEN as never, 4)).toBe(0x1234_5678n);
    if (bit === Boundary.NMI_PENDING) expect(live.vectors).toEqual([2]);
    else expect(mnemonics(live)).toEqual(['SMI', 'RSM', 'INIT']);
  });

  it('another SMI', () => {
    const live = machine(HANDLER);
    live.run(0);
    live.set({ boundary: live.get('boundary') | Boundary.SMI_PENDING }).run();
    expect(mnemonics(live)).toEqual(['SMI', 'RSM', 'SMI', 'RSM']);
  });

  it('an NMI stays blocked for a program that was in its handler', () => {
    const live = machine(RSM, HLT, { boundary: Boundary.SMI_PENDING | Boundary.NMI_BLOCKED });
    live.run(1);
    expect(live.get('boundary')).toBe(Boundary.NMI_BLOCKED);
  });
});

describe('an SMI that finds no handler', () => {
  it('is one whose handler only returns', () => {
    const live = new LiveMachine(`90 90 ${HLT}`, { boundary: Boundary.SMI_PENDING });
    live.run();
    expect([mnemonics(live), live.get('rip')]).toEqual([['SMI'], at(CODE + 3)]);
  });

  it('takes zeros at its entry point, and SMRAM outside RAM, for none', () => {
    const cpu = new CpuMachine();
    expect(hasHandler(cpu.tx)).toBe(false);
    cpu.write(ENTRY + 15, 1, 1n);
    expect(hasHandler(cpu.tx)).toBe(true);
    expect(hasHandler(cpu.set({ smBase: 0xf_8000n }).tx)).toBe(false);
  });
});

describe('RSM (APM vol.2 §10.4 Leaving SMM)', () => {
  it('is #UD outside SMM, after the intercept', () => {
    expect(faultOf(new CpuMachine().longMode().run(0x0f, 0xaa))).toBe('#UD');
    expect(faultOf(new CpuMachine().longMode().intercepting('RSM').run(0x0f, 0xaa))).toBe('exit 73');
  });

  const spoilt: readonly (readonly [string, number, bigint])[] = [
    ['CR0.PG without PE', 0xff58, 0x8000_0010n],
    ['CR0.NW without CD', 0xff58, 0x2000_0011n],
    ['CR0[63:32]', 0xff58, 0x1_8000_0011n],
    ['CR3 above the physical width', 0xff50, 1n << 40n],
    ['CR4 with a reserved bit', 0xff48, 0x8020n],
    ['DR6[63:32]', 0xff68, 1n << 32n],
    ['DR7[63:32]', 0xff60, 1n << 32n],
    ['EFER with a reserved bit', 0xfed0, 0x502n],
    ['long mode without PAE', 0xff48, 0n],
    ['CS.L with CS.D', 0xfe10, 0xe9b_0008n],
    ['another revision', 0xfef8, 0x1n << 32n],
  ];
  it.each(spoilt)('shuts the processor down for %s', (_name, offset, value) => {
    const live = machine(RSM);
    live.run(0);
    live.write(SMBASE + offset, value);
    live.run();
    expect(live.events.map(({ type }) => type)).toContain('cpu.shutdown');
  });

  it('derives LMA and VM, and makes bases canonical', () => {
    const live = machine(RSM);
    live.run(0);
    live.write(SMBASE + 0xff70, Flag.VM | 2n).write(SMBASE + 0xfe68, 0x8000_0000_0000n);
    live.write(SMBASE + 0xfed0, 0x1100n | 1n);
    live.run(1);
    expect([live.get('rflags'), live.get('efer')]).toEqual([2n, 0x1501n]);
    expect(live.get('gdtrBase')).toBe(0xffff_8000_0000_0000n);
  });
});

describe('SMI and a running guest (APM vol.2 §15.13.3, §15.22 SMM Support)', () => {
  const guest = { svmMode: SvmMode.GUEST | SvmMode.GIF, guestAsid: 1n, vmcb: 0x40_0000n, cr4: 0x620n };

  it('runs the handler outside the guest, and RSM goes back into it', () => {
    const live = machine(HANDLER, `90 90 ${HLT}`, guest);
    live.run(0);
    expect([live.get('svmMode'), area(live, 0xfed8), area(live, 0xfee0)]).toEqual([SvmMode.GIF, 1n, 0x40_0000n]);
    live.run(3);
    expect([live.get('svmMode'), live.get('rip')]).toEqual([SvmMode.GUEST | SvmMode.GIF, at(CODE + 1)]);
  });

  it('exits with its source when intercepted, unless HWCR.SmmLock is set', () => {
    const live = machine(HANDLER, HLT, { ...guest, intercept3: 4n });
    live.run(0);
    expect(live.events[0]).toMatchObject({ type: 'svm.vmexit', code: 0x62n, info1: 1n });
    const locked = machine(HANDLER, HLT, { ...guest, intercept3: 4n, hwcr: 1n });
    locked.run(0);
    expect(mnemonics(locked)).toEqual(['SMI']);
  });
});

/** x87 errors with CR0.NE clear: FERR#, the freeze, IRQ 13, IGNNE# and the intercept. */
import { describe, expect, it } from 'vitest';
import { StoredMsr } from '../../../src/machine/cpu/stored-msrs.js';
import { Activity, CR0, Flag } from '../../../src/machine/layout/cpu-state.js';
import { ExitCode } from '../../../src/machine/svm/exit-code.js';
import { CODE, LiveMachine } from '../../support/live-machine.js';
import { GUEST_CODE, handlerAt, NestedMachine } from '../../support/nested-machine.js';

const HLT = 'f4';
/** FLD1, FLDZ, FDIVP: ZE is pending behind the third. */
const DIVIDE_BY_ZERO = 'd9e8 d9ee def9';
const FLD1 = 'd9e8';
const FNCLEX = 'dbe2';
const STI = 'fb';
const IRQ_13 = 0x75;
const ENABLED = CR0.PE | CR0.ET | CR0.WP | CR0.PG;
/** ZE is unmasked and the stack is empty. */
const UNMASKED = { cr0: ENABLED, fcw: 0x37bn, fsw: 0n, ftw: 0n };
/** out f0h, al; mov al, 20h; out a0h, al; out 20h, al */
const ACKNOWLEDGE = 'e6f0 b020 e6a0 e620';
const IRETQ = '48cf';

/** A program on a machine whose timer is masked at the 8259. */
function machine(code: string, values: ConstructorParameters<typeof LiveMachine>[1]): LiveMachine {
  const live = new LiveMachine(code, values);
  live.machine.bus.writePort(0x21, 1, 0xb9n);
  live.stated.length = 0;
  return live;
}

const coprocessor = (live: LiveMachine) => live.machine.state.devices.coprocessor;

describe('FERR# and the freeze (APM vol.2 §3.1.1 CR0 Register, NE; IBM AT Technical Reference, port F0h)', () => {
  it('freezes in front of the next waiting instruction, and IRQ 13 ends it there', () => {
    const live = machine(`${DIVIDE_BY_ZERO} ${FLD1}`, { ...UNMASKED, rflags: 2n | Flag.IF });
    live.run();
    expect(live.vectors).toEqual([IRQ_13]);
    expect(live.memory.read(Number(live.get('rsp')) as never, 8)).toBe(BigInt(CODE + 6));
    expect(live.events.map(({ type }) => type)).toEqual([
      'coprocessor.ferr',
      'pic.line',
      'ioapic.line',
      'cpu.halted',
      'pic.acknowledged',
      'cpu.interrupt',
      'cpu.halted',
    ]);
    expect(live.retired).toBe(4); // the handler's HLT
  });

  it('stays frozen while interrupts are masked', () => {
    const live = machine(`${DIVIDE_BY_ZERO} ${FLD1}`, UNMASKED);
    expect(live.run()).toBe('idle');
    expect([live.get('activity'), live.get('rip'), live.retired]).toEqual([Activity.FERR_FREEZE, BigInt(CODE + 6), 3]);
  });

  it('freezes in the shadow of STI, too, and the interrupt still comes', () => {
    const live = machine(`${DIVIDE_BY_ZERO} ${STI} ${FLD1}`, UNMASKED);
    live.run();
    expect(live.vectors).toEqual([IRQ_13]);
  });

  it.each([
    ['FWAIT', '9b'],
    ['an MMX instruction', '0fefc0'],
  ])('%s waits as well', (_what, code) => {
    const live = machine(`${DIVIDE_BY_ZERO} ${code}`, UNMASKED);
    live.run();
    expect(live.get('activity')).toBe(Activity.FERR_FREEZE);
  });

  it('instructions that do not wait pass, and nobody is told', () => {
    const live = machine(`${DIVIDE_BY_ZERO} ${FNCLEX} ${FLD1} ${HLT}`, UNMASKED);
    live.run();
    expect([live.retired, coprocessor(live)]).toEqual([6, { ferr: false, latched: false, ignne: false }]);
  });

  it('is #MF instead while NE is set', () => {
    const live = machine(`${DIVIDE_BY_ZERO} ${FLD1}`, { ...UNMASKED, cr0: ENABLED | CR0.NE });
    live.run();
    expect(live.vectors).toEqual([16]);
  });

  it('FERR# falls behind the very instruction that clears the error, plain ones too: FLDCW masks it', () => {
    const FLDCW = 'd92c2500002000'; // [200000h]
    const live = machine(`${DIVIDE_BY_ZERO} ${FLD1} ${FLDCW} 90 90 90 ${HLT}`, { ...UNMASKED, rflags: 2n | Flag.IF });
    live.put(handlerAt(IRQ_13), `${ACKNOWLEDGE} ${IRETQ}`).put(0x20_0000, '7f03');
    live.run();
    let retired = 0;
    const edges = live.stated.flatMap(({ event, retired: more }) => {
      retired += more;
      return event.type === 'coprocessor.ferr' ? [[retired, event.asserted]] : [];
    });
    // Three of the division; five of the handler, FLD1, FLDCW.
    expect(edges).toEqual([
      [3, true],
      [10, false],
    ]);
  });

  it('port F0h asserts IGNNE#, with which x87 instructions pass until the error is cleared', () => {
    const again = `${FNCLEX} ${DIVIDE_BY_ZERO} ${FLD1}`;
    const live = machine(`${DIVIDE_BY_ZERO} ${FLD1} ${again}`, { ...UNMASKED, rflags: 2n | Flag.IF });
    live.put(handlerAt(IRQ_13), `${ACKNOWLEDGE} ${IRETQ}`);
    live.run(9);
    expect(live.get('rip')).toBe(BigInt(CODE + 8));
    expect(coprocessor(live)).toEqual({ ferr: true, latched: false, ignne: true });
    live.run(1);
    expect(coprocessor(live)).toEqual({ ferr: false, latched: false, ignne: false });
    live.put(handlerAt(IRQ_13), HLT);
    live.run();
    expect(live.vectors).toEqual([IRQ_13, IRQ_13]);
  });

  it('a write to port F0h without FERR# asserts nothing', () => {
    const live = machine(`e6f0 ${HLT}`, UNMASKED);
    live.run();
    expect(coprocessor(live)).toEqual({ ferr: false, latched: false, ignne: false });
  });
});

describe('the IGNNE MSR (APM vol.2 §15.30.2 IGNNE MSR)', () => {
  /** Writes the MSR, then executes `code`. */
  const write = (value: bigint, code: string, hwcr = 1n << 8n): LiveMachine =>
    machine(`0f30 ${code}`, { ...UNMASKED, rcx: BigInt(StoredMsr.IGNNE.msr), rax: value, rdx: 0n, hwcr });

  it('lets errors pass while HWCR.IgnneEm is set', () => {
    const live = write(1n, `${DIVIDE_BY_ZERO} ${FLD1} 0f32 ${HLT}`);
    live.run();
    expect(live.vectors).toEqual([]);
    expect([live.get('activity'), live.get('rax')]).toEqual([Activity.HALTED, 1n]);
    expect(coprocessor(live).ferr).toBe(false);
  });

  it('has no effect without HWCR.IgnneEm, and shows the signal', () => {
    const live = write(1n, `0f32 ${DIVIDE_BY_ZERO} ${FLD1}`, 0n);
    live.run();
    expect([live.get('activity'), live.get('rax')]).toEqual([Activity.FERR_FREEZE, 0n]);
  });

  it('has one bit', () => {
    const live = write(2n, HLT);
    live.run();
    expect(live.vectors).toEqual([13]);
  });
});

describe('Ferr_Freeze intercept (APM vol.2 §15.14.2 Ferr_Freeze Intercept)', () => {
  const guest = (rflags: bigint): NestedMachine => {
    const live = new NestedMachine(`${DIVIDE_BY_ZERO} ${FLD1}`, { fcw: 0x37bn, fsw: 0n, ftw: 0n });
    live.vmcb.cr0 = ENABLED;
    live.vmcb.rflags = rflags;
    return live;
  };
  const FROZEN_AT = BigInt(GUEST_CODE + 6);

  it('exits in place of the freeze, after FERR# went out', () => {
    const live = guest(2n).intercept('FERR_FREEZE');
    const exit = live.exit();
    expect([exit.code, exit.info1, exit.info2]).toEqual([ExitCode.FERR_FREEZE, 0n, 0n]);
    expect([live.vmcb.rip, live.vmcb.nRIP, live.get('activity')]).toEqual([FROZEN_AT, 0n, Activity.HALTED]);
    expect(coprocessor(live)).toEqual({ ferr: true, latched: true, ignne: false });
  });

  it('without it IRQ 13 comes, here to the hypervisor', () => {
    const live = guest(2n | Flag.IF).intercept('INTR');
    expect([live.exit().code, live.vmcb.rip]).toEqual([ExitCode.INTR, FROZEN_AT]);
  });
});

import { describe, expect, it } from 'vitest';
import { installVectors } from '../../../src/machine/boot/firmware.js';
import { Activity, CR0, Flag } from '../../../src/machine/layout/cpu-state.js';
import { LiveMachine } from '../../support/live-machine.js';

const CODE_AT = 0x8_0000;
const segment = (selector: bigint, access: bigint): bigint => selector | (access << 16n) | (0xffffn << 32n);

/** A program in real mode, with the vectors of the BIOS and the timer masked. */
function realMode(code: string): LiveMachine {
  const live = new LiveMachine('', {
    cr0: CR0.ET,
    cr4: 0n,
    efer: 0n,
    rflags: 2n | Flag.IF,
    cs: segment(0x8000n, 0x9bn),
    csBase: BigInt(CODE_AT),
    ss: segment(0x7000n, 0x93n),
    ssBase: 0x7_0000n,
    rsp: 0xfff0n,
    rip: 0n,
    idtrBase: 0n,
    idtrLimit: 0x3ffn,
    fcw: 0x37bn,
    fsw: 0n,
    ftw: 0n,
  });
  installVectors(live.memory);
  live.machine.bus.writePort(0x21, 1, 0xb9n);
  return live.put(CODE_AT, code);
}

describe('interrupt handlers of the BIOS (IBM PC AT technical reference)', () => {
  it('IRQ 13 clears the latch of the coprocessor, and goes on to the vector of the NMI', () => {
    // FLD1, FLDZ, FDIVP with ZE unmasked, FLD1, HLT
    const live = realMode('d9e8 d9ee def9 d9e8 f4');
    live.run(200);
    expect(live.vectors).toEqual([0x75, 2]);
    expect([live.get('activity'), live.get('rip')]).toEqual([Activity.HALTED, 9n]);
    expect(live.machine.state.devices.coprocessor).toEqual({ ferr: true, latched: false, ignne: true });
    expect(live.machine.state.devices.pic.chips.map(({ inService }) => inService)).toEqual([0, 0]);
  });
});

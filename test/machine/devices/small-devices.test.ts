import { describe, expect, it } from 'vitest';
import { DEBUG_EXIT, debugExitStatus } from '../../../src/machine/devices/debug-exit.js';
import { FIRMWARE_CONFIGURATION, FW_CFG } from '../../../src/machine/devices/fw-cfg.js';
import { PC_TESTDEV, TESTDEV } from '../../../src/machine/devices/pc-testdev.js';
import { PCI, PCI_CONFIG } from '../../../src/machine/devices/pci-config.js';
import { PORT_92 } from '../../../src/machine/devices/port92.js';
import { POST_CODE } from '../../../src/machine/devices/post-code.js';
import { RESET, RESET_PORT } from '../../../src/machine/devices/reset-port.js';
import { Bench, given, read, write } from './given.js';

describe('reset ports', () => {
  it('resets when CF9h bit 2 rises (82371AB, Reset Control Register)', () => {
    given(RESET_PORT).when(write(RESET.CONTROL, 0x02)).then({ type: 'reset.controlled', value: 0x02 });
    given(RESET_PORT, [{ type: 'reset.controlled', value: 0x02 }])
      .when(write(RESET.CONTROL, 0x06))
      .then({ type: 'reset.controlled', value: 0x06 }, { type: 'reset.requested', port: 0xcf9 });
  });

  it('asks for INIT alone while CF9h bit 1 is clear (82371AB, Reset Control Register)', () => {
    given(RESET_PORT)
      .when(write(RESET.CONTROL, 0x04))
      .then({ type: 'reset.controlled', value: 0x04 }, { type: 'reset.init-requested', port: 0xcf9 });
    given(RESET_PORT, [{ type: 'reset.controlled', value: 0x04 }])
      .when(write(RESET.CONTROL, 0x04))
      .then();
  });

  it('resets by 8042 commands FEh and D1h, and is idle otherwise (IBM AT Technical Reference, Keyboard)', () => {
    const it = new Bench(RESET_PORT);
    expect(it.read(RESET.KEYBOARD_COMMAND)).toBe(0);
    expect(it.write(RESET.KEYBOARD_COMMAND, 0xfe).at(-1)).toEqual({ type: 'reset.init-requested', port: 0x64 });
    it.write(RESET.KEYBOARD_COMMAND, 0xd1);
    expect(it.write(RESET.KEYBOARD_DATA, 0xdf)).toHaveLength(1); // A20 on, no reset
    it.write(RESET.KEYBOARD_COMMAND, 0xd1);
    expect(it.write(RESET.KEYBOARD_DATA, 0xde).at(-1)).toEqual({ type: 'reset.init-requested', port: 0x60 });
  });

  it('answers the read of its output port (IBM AT Technical Reference, command D0h)', () => {
    const it = new Bench(RESET_PORT);
    it.write(RESET.KEYBOARD_COMMAND, 0xd0);
    expect(it.read(RESET.KEYBOARD_COMMAND) & 1).toBe(1);
    expect(it.read(RESET.KEYBOARD_DATA)).toBe(0x03);
    expect(it.read(RESET.KEYBOARD_COMMAND) & 1).toBe(0);
  });

  it('resets when bit 0 of port 92h rises, and keeps A20 (PS/2 Technical Reference, System Control Port A)', () => {
    given(PORT_92).when(read(0)).thenValue(2);
    given(PORT_92).when(write(0, 0x02)).then();
    given(PORT_92).when(write(0, 0x03)).then({ type: 'port92.written', value: 0x03, reset: true });
    given(PORT_92, [{ type: 'port92.written', value: 0x03, reset: true }])
      .when(write(0, 0x01))
      .then({ type: 'port92.written', value: 0x01, reset: false });
  });
});

describe('devices of the test bench', () => {
  it('debug-exit asks for the end with (value << 1) | 1 (QEMU isa-debug-exit)', () => {
    given(DEBUG_EXIT)
      .when(write(0, 0x10, 0, 4))
      .then({ type: 'debug-exit.requested', value: 0x10 });
    expect([0, 0x10, 0xffff_ffff].map(debugExitStatus)).toEqual([1, 0x21, 0x1_ffff_ffff]);
  });

  it('fw_cfg tells signature, interface, RAM and processors (QEMU docs/specs/fw_cfg.rst)', () => {
    const it = new Bench(FIRMWARE_CONFIGURATION, {
      ...FIRMWARE_CONFIGURATION.initial(),
      ramBytes: 0x1_2345_6000,
      vcpus: 3,
    });
    const item = (key: number, bytes: number) => {
      it.write(FW_CFG.SELECTOR, key, 0, 2);
      return Array.from({ length: bytes }, () => it.read(FW_CFG.DATA));
    };
    expect(String.fromCharCode(...item(0x00, 4))).toBe('QEMU');
    expect(item(0x01, 4)).toEqual([1, 0, 0, 0]);
    expect(item(0x03, 9)).toEqual([0x00, 0x60, 0x45, 0x23, 0x01, 0, 0, 0, 0]);
    expect(item(0x05, 2)).toEqual([3, 0]);
    expect(item(0x0f, 2)).toEqual([3, 0]);
    expect(item(0x19, 4)).toEqual([0, 0, 0, 0]);
  });

  it('PCI has an address register and no devices (PCI 3.0 §3.2.2.3.2)', () => {
    const it = new Bench(PCI_CONFIG);
    it.write(PCI.ADDRESS, 0x8000_0003, 0, 4);
    expect(it.read(PCI.ADDRESS, 0, 4)).toBe(0x8000_0000);
    expect([1, 2, 4].map((size) => it.read(PCI.DATA, 0, size))).toEqual([0xff, 0xffff, 0xffff_ffff]);
    given(PCI_CONFIG)
      .when(write(PCI.ADDRESS, 0x80, 0, 1))
      .then();
  });

  it('delay ports are silent', () => {
    given(POST_CODE).when(write(0, 0x55)).then();
    given(POST_CODE).when(read(0)).thenValue(0xff);
  });

  it('pc-testdev reads back in all widths (QEMU pc-testdev; kvm-unit-tests x86/realmode.c)', () => {
    const it = new Bench(PC_TESTDEV);
    it.write(TESTDEV.VALUE, 0x1234_5678, 0, 4);
    expect(it.read(TESTDEV.VALUE, 0, 4)).toBe(0x1234_5678);
    it.write(TESTDEV.VALUE, 0xff, 0, 1);
    it.write(TESTDEV.VALUE + 2, 0xabcd, 0, 2);
    expect(it.read(TESTDEV.VALUE, 0, 4)).toBe(0xabcd_56ff);
    given(PC_TESTDEV)
      .when(write(TESTDEV.FLUSH, 0x1000, 0, 4))
      .then();
    given(PC_TESTDEV)
      .when(write(TESTDEV.LINES + 14, 1))
      .then({ type: 'testdev.line', line: 14, level: true });
  });

  it('pc-testdev keeps bytes in its memory window, across words too (QEMU pc-testdev, iomem)', () => {
    const it = new Bench(PC_TESTDEV);
    it.write(TESTDEV.MEMORY + 2, 0x8899_aabb, 0, 4);
    expect(it.read(TESTDEV.MEMORY, 0, 4)).toBe(0xaabb_0000);
    expect(it.read(TESTDEV.MEMORY + 2, 0, 4)).toBe(0x8899_aabb);
    expect(it.read(TESTDEV.MEMORY + 3, 0, 2)).toBe(0x99aa);
    it.write(TESTDEV.MEMORY + 2, 0, 0, 4);
    expect(it.state.memory).toEqual({});
    it.write(TESTDEV.MEMORY + 0xffff, 0xff, 0, 1);
    expect(it.read(TESTDEV.MEMORY + 0xffff)).toBe(0xff);
  });
});

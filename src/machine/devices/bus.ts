/**
 * The buses: which ports and which memory belong to which device, and what becomes of accesses wider than a device.
 *
 * Source: IBM AT Technical Reference, I/O Address Map; MultiProcessor Specification 1.4, table 3-1 for the I/O APIC; the
 * ports of QEMU's devices for the test bench as there.
 */
import type { Nanoseconds } from '../units.js';
import { ACPI, ACPI_PM, ACPI_PORT } from './acpi-pm-timer.js';
import { COPROCESSOR_ERROR } from './coprocessor-error.js';
import { DEBUG_EXIT } from './debug-exit.js';
import type { Device, ReadDecision } from './device.js';
import type { DeviceEvent, DevicesState } from './device-set.js';
import { FIRMWARE_CONFIGURATION, FW_CFG, FW_CFG_PORT } from './fw-cfg.js';
import { decideWideWrite, HPET_TIMERS } from './hpet.js';
import { HPET_BASE, HPET_BYTES } from './hpet-state.js';
import { IO_APIC, IOAPIC_BASE } from './io-apic.js';
import { PC_TESTDEV, TESTDEV, TESTDEV_LINES, TESTDEV_MEMORY_BASE, TESTDEV_MEMORY_BYTES } from './pc-testdev.js';
import { PCI, PCI_CONFIG, PCI_PORT } from './pci-config.js';
import { PIC, PIC_8259 } from './pic-8259.js';
import { PIT, PIT_8254 } from './pit-8254.js';
import { PORT_92 } from './port92.js';
import { POST_CODE } from './post-code.js';
import { RESET, RESET_PORT } from './reset-port.js';
import { RTC, RTC_MC146818 } from './rtc-mc146818.js';
import { UART } from './uart-16550.js';
import { VIRTIO_DEVICES, VIRTIO_NAMES, VIRTIO_PLACES, VIRTIO_REGISTER_BYTES, type VirtioState } from './virtio-mmio.js';

// --- the port map ----------------------------------------------------------------------------------------------------

/** A device at its place in the machine's state. */
interface Slot {
  readonly read: (state: DevicesState, register: number, size: number, now: Nanoseconds) => ReadDecision<DeviceEvent>;
  readonly write: (
    state: DevicesState,
    register: number,
    value: number,
    size: number,
    now: Nanoseconds,
  ) => readonly DeviceEvent[];
  /** A write of 64 bits at a multiple of 8, where it is more than two of 32. */
  readonly writeWide?: (
    state: DevicesState,
    register: number,
    low: number,
    high: number,
    now: Nanoseconds,
  ) => readonly DeviceEvent[];
}

/** A device that understands every access width. */
function slot<State, Event extends DeviceEvent>(
  select: (state: DevicesState) => State,
  device: Device<State, Event>,
): Slot {
  return {
    read: (state, register, size, now) => device.decideRead(select(state), register, size, now),
    write: (state, register, value, size, now) => device.decideWrite(select(state), register, value, size, now),
  };
}

/**
 * A device on an 8-bit bus: the bus controller splits wider accesses into bytes, each of which sees what the one before
 * did, on a scratch copy. Bytes beyond `end`, the device's next register elsewhere, read as ones.
 */
function byteSlot<State, Event extends DeviceEvent>(
  select: (state: DevicesState) => State,
  device: Device<State, Event>,
  end: number,
): Slot {
  return {
    read(state, register, size, now) {
      if (size === 1) return device.decideRead(select(state), register, 1, now);
      const scratch = structuredClone(select(state));
      const events: Event[] = [];
      let value = 0;
      for (let at = 0; at < size; at += 1) {
        let byte = 0xff;
        if (register + at < end) {
          const read = device.decideRead(scratch, register + at, 1, now);
          for (const event of read.events) device.reduce(scratch, event);
          events.push(...read.events);
          byte = read.value;
        }
        value += byte * 256 ** at;
      }
      return { value, events };
    },
    write(state, register, value, size, now) {
      if (size === 1) return device.decideWrite(select(state), register, value & 0xff, 1, now);
      const scratch = structuredClone(select(state));
      const events: Event[] = [];
      for (let at = 0; at < size && register + at < end; at += 1) {
        const step = device.decideWrite(scratch, register + at, (value >>> (at * 8)) & 0xff, 1, now);
        for (const event of step) device.reduce(scratch, event);
        events.push(...step);
      }
      return events;
    },
  };
}

const UART_SLOT = byteSlot((state) => state.uart, UART, 8);
const MASTER_SLOT = byteSlot((state) => state.pic, PIC_8259, PIC.SLAVE_COMMAND);
const SLAVE_SLOT = byteSlot((state) => state.pic, PIC_8259, PIC.MASTER_ELCR);
const ELCR_SLOT = byteSlot((state) => state.pic, PIC_8259, PIC.MASTER_ELCR + 2);
const PIT_SLOT = byteSlot((state) => state.pit, PIT_8254, PIT.PORT_61);
const PORT_61_SLOT = byteSlot((state) => state.pit, PIT_8254, PIT.PORT_61 + 1);
const RTC_SLOT = byteSlot((state) => state.rtc, RTC_MC146818, 2);
const COPROCESSOR_SLOT = byteSlot((state) => state.coprocessor, COPROCESSOR_ERROR, 1);
const PORT_92_SLOT = byteSlot((state) => state.port92, PORT_92, 1);
const RESET_SLOT = byteSlot((state) => state.resetPort, RESET_PORT, RESET.KEYBOARD_DATA);
const KEYBOARD_DATA_SLOT = byteSlot((state) => state.resetPort, RESET_PORT, RESET.KEYBOARD_COMMAND);
const KEYBOARD_COMMAND_SLOT = byteSlot((state) => state.resetPort, RESET_PORT, RESET.KEYBOARD_COMMAND + 1);
const ACPI_SLOT = slot((state) => state.acpi, ACPI_PM);
const FW_CFG_SLOT = slot((state) => state.fwCfg, FIRMWARE_CONFIGURATION);
const PCI_SLOT = slot((state) => state.pci, PCI_CONFIG);
const DEBUG_EXIT_SLOT = slot((state) => state.debugExit, DEBUG_EXIT);
const POST_CODE_SLOT = slot((state) => state.postCode, POST_CODE);
const TESTDEV_SLOT = slot((state) => state.testdev, PC_TESTDEV);
const IO_APIC_SLOT = slot((state) => state.ioApic, IO_APIC);
const HPET_SLOT: Slot = {
  ...slot((state) => state.hpet, HPET_TIMERS),
  writeWide: (state, register, low, high, now) => decideWideWrite(state.hpet, register, low, high, now),
};

/** A port, or a place in memory, and the device register behind it. */
export interface BusClaim {
  readonly slot: Slot;
  readonly register: number;
}

/** First port, number of ports, device, register at the first port. */
const PORT_RANGES: readonly (readonly [number, number, Slot, number])[] = [
  [0x20, 2, MASTER_SLOT, PIC.MASTER_COMMAND],
  [0x40, 4, PIT_SLOT, PIT.CHANNEL_0],
  [0x60, 1, KEYBOARD_DATA_SLOT, RESET.KEYBOARD_DATA],
  [0x61, 1, PORT_61_SLOT, PIT.PORT_61],
  [0x64, 1, KEYBOARD_COMMAND_SLOT, RESET.KEYBOARD_COMMAND],
  [0x70, 2, RTC_SLOT, RTC.INDEX],
  [0x80, 16, POST_CODE_SLOT, 0],
  [0x92, 1, PORT_92_SLOT, 0],
  [0xa0, 2, SLAVE_SLOT, PIC.SLAVE_COMMAND],
  [0xe0, 8, TESTDEV_SLOT, TESTDEV.VALUE],
  [0xe8, 4, TESTDEV_SLOT, TESTDEV.VALUE],
  [0xed, 1, POST_CODE_SLOT, 0],
  [0xf0, 1, COPROCESSOR_SLOT, 0],
  [0xf1, 1, POST_CODE_SLOT, 0],
  [0xf4, 4, DEBUG_EXIT_SLOT, 0],
  [0x3f8, 8, UART_SLOT, 0],
  [0x4d0, 2, ELCR_SLOT, PIC.MASTER_ELCR],
  [FW_CFG_PORT, 2, FW_CFG_SLOT, FW_CFG.SELECTOR],
  [ACPI_PORT, ACPI.PORTS, ACPI_SLOT, ACPI.STATUS],
  [PCI_PORT, 8, PCI_SLOT, PCI.ADDRESS],
  [0x2000, TESTDEV_LINES, TESTDEV_SLOT, TESTDEV.LINES],
];

const PORTS: ReadonlyMap<number, BusClaim> = new Map(
  PORT_RANGES.flatMap(([first, count, owner, register]) =>
    Array.from({ length: count }, (_, at): [number, BusClaim] => [
      first + at,
      { slot: owner, register: register + at },
    ]),
  ),
);

/** The reset control register lies inside PCI's address register; a byte access reaches it. */
const RESET_CONTROL_PORT = 0xcf9;
const RESET_CONTROL: BusClaim = { slot: RESET_SLOT, register: RESET.CONTROL };

/** The device at a port. */
export const portClaim = (port: number, size: number): BusClaim | undefined =>
  port === RESET_CONTROL_PORT && size === 1 ? RESET_CONTROL : PORTS.get(port);

// --- memory ----------------------------------------------------------------------------------------------------------

const PAGE = 4096;

const MEMORY_RANGES: readonly (readonly [number, number, Slot, number])[] = [
  [IOAPIC_BASE, PAGE, IO_APIC_SLOT, 0],
  [HPET_BASE, HPET_BYTES, HPET_SLOT, 0],
  [TESTDEV_MEMORY_BASE, TESTDEV_MEMORY_BYTES, TESTDEV_SLOT, TESTDEV.MEMORY],
];

const VIRTIO_SLOTS = VIRTIO_NAMES.map((name) => ({
  ...{ name, base: VIRTIO_PLACES[name].base },
  slot: slot((state) => state[name] as VirtioState, VIRTIO_DEVICES[name]),
}));

/** The device at a system-physical address; local APICs are the vCPUs' own and not here. */
export function memoryClaim(state: DevicesState, address: number): BusClaim | undefined {
  for (const [first, bytes, owner, register] of MEMORY_RANGES) {
    if (address >= first && address < first + bytes) return { slot: owner, register: register + address - first };
  }
  for (const { name, base, slot: owner } of VIRTIO_SLOTS) {
    const within = address >= base && address < base + VIRTIO_REGISTER_BYTES;
    if (within && state[name] !== undefined) return { slot: owner, register: address - base };
  }
  return undefined;
}

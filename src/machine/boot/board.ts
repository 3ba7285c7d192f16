/** The board as the firmware's tables tell of it: processors, interrupt inputs, and devices that nobody would find otherwise. */
import type { MachineConfig } from '../config.js';
import type { DevicesState } from '../devices/devices.js';
import { VIRTIO_NAMES, type VirtioName } from '../devices/virtio-mmio.js';

/** What the firmware's tables say of the board: how many vCPUs, and how interrupts reach the I/O APIC. */
export interface Board {
  readonly vcpus: number;
  /** Width of the ACPI timer. */
  readonly timerBits: number;
  /** Virtio devices that there are. */
  readonly virtio: readonly VirtioName[];
  /** Whether there are ACPI tables. */
  readonly acpiTables: boolean;
}

/** As the machine and its devices are configured. */
export const boardOf = ({ acpiTables }: MachineConfig, devices: DevicesState): Board => ({
  vcpus: devices.localApics.length,
  timerBits: devices.acpi.timerBits,
  virtio: VIRTIO_NAMES.filter((name) => devices[name] !== undefined),
  acpiTables,
});

/** As its register has it after reset. */
export const IOAPIC_ID = 0;

/** MPS INTI flags, the same in ACPI and MP tables: polarity in bits 1:0, trigger mode in bits 3:2. */
const ACTIVE_HIGH_LEVEL = 0xd;
const AS_THE_BUS = 0;

/**
 * ISA interrupts that do not come to the input of their own number: the 8254 comes to input 2, and the SCI is
 * level-triggered (`devices/interrupt-wiring.ts`).
 */
export const ISA_OVERRIDES = [
  { irq: 0, input: 2, flags: AS_THE_BUS },
  { irq: 9, input: 9, flags: ACTIVE_HIGH_LEVEL },
] as const;

/**
 * The devices of the machine as one thing: one state, one event union, one reducer, and the shape of a decision.
 *
 * Source: the machine of IBM AT Technical Reference, with the interrupt controllers of MultiProcessor Specification 1.4.
 */
import { invariant, unreachable } from '../errors.js';
import type { Nanoseconds } from '../units.js';
import { ACPI_EVENT_FIELDS, ACPI_PM, type AcpiEvent, type AcpiState } from './acpi-pm-timer.js';
import { configureMemory } from './cmos-memory.js';
import {
  COPROCESSOR_ERROR,
  COPROCESSOR_EVENT_FIELDS,
  type CoprocessorErrorEvent,
  type CoprocessorErrorState,
} from './coprocessor-error.js';
import {
  DEBUG_EXIT,
  DEBUG_EXIT_EVENT_FIELDS,
  type DebugExitEvent,
  type DebugExitState,
  debugExitStatus,
} from './debug-exit.js';
import { type FieldTable, NO_EVENTS } from './device.js';
import { FIRMWARE_CONFIGURATION, FW_CFG_EVENT_FIELDS, type FwCfgEvent, type FwCfgState } from './fw-cfg.js';
import { HPET_TIMERS } from './hpet.js';
import { HPET_EVENT_FIELDS, type HpetEvent, type HpetState } from './hpet-state.js';
import { IO_APIC, IOAPIC_EVENT_FIELDS, type IoApicEvent, type IoApicState } from './io-apic.js';
import * as lapic from './local-apic.js';
import { LOCAL_APIC } from './local-apic.js';
import { type ApicFeatures, LAPIC_EVENT_FIELDS, type LocalApicEvent, type LocalApicState } from './local-apic-state.js';
import { PC_TESTDEV, type PcTestdevEvent, type PcTestdevState, TESTDEV_EVENT_FIELDS } from './pc-testdev.js';
import { PCI_CONFIG, PCI_EVENT_FIELDS, type PciConfigEvent, type PciConfigState } from './pci-config.js';
import { PIC, PIC_8259, PIC_EVENT_FIELDS, type PicEvent, type PicState } from './pic-8259.js';
import { PIT, PIT_8254, PIT_EVENT_FIELDS, type PitEvent, type PitState } from './pit-8254.js';
import { PORT_92, PORT92_EVENT_FIELDS, type Port92Event, type Port92State } from './port92.js';
import { POST_CODE, type PostCodeState } from './post-code.js';
import { RESET_EVENT_FIELDS, RESET_PORT, type ResetPortEvent, type ResetPortState } from './reset-port.js';
import { RTC_EVENT_FIELDS, RTC_MC146818, type RtcEvent, type RtcState, rtcWithClock } from './rtc-mc146818.js';
import { UART, UART_EVENT_FIELDS, type UartEvent, type UartState } from './uart-16550.js';
import {
  initialVirtio,
  SECTOR_BYTES,
  VIRTIO_DEVICES,
  type VirtioEvent,
  type VirtioName,
  type VirtioState,
} from './virtio-mmio.js';

export type DeviceEvent =
  | UartEvent
  | PicEvent
  | PitEvent
  | RtcEvent
  | LocalApicEvent
  | IoApicEvent
  | AcpiEvent
  | Port92Event
  | ResetPortEvent
  | DebugExitEvent
  | FwCfgEvent
  | PciConfigEvent
  | PcTestdevEvent
  | CoprocessorErrorEvent
  | HpetEvent
  | VirtioEvent;

/** Those of virtio stand apart: they came after the ones that follow here on a tape. */
export const DEVICE_EVENT_FIELDS: FieldTable<Exclude<DeviceEvent, VirtioEvent>> = {
  ...UART_EVENT_FIELDS,
  ...PIC_EVENT_FIELDS,
  ...PIT_EVENT_FIELDS,
  ...RTC_EVENT_FIELDS,
  ...LAPIC_EVENT_FIELDS,
  ...IOAPIC_EVENT_FIELDS,
  ...ACPI_EVENT_FIELDS,
  ...PORT92_EVENT_FIELDS,
  ...RESET_EVENT_FIELDS,
  ...DEBUG_EXIT_EVENT_FIELDS,
  ...FW_CFG_EVENT_FIELDS,
  ...PCI_EVENT_FIELDS,
  ...TESTDEV_EVENT_FIELDS,
  ...COPROCESSOR_EVENT_FIELDS,
  ...HPET_EVENT_FIELDS,
};

/** Plain data throughout: it is folded under Immer, put into snapshots and digested. */
export interface DevicesState {
  uart: UartState;
  pic: PicState;
  pit: PitState;
  rtc: RtcState;
  /** One for each vCPU, by its index. */
  localApics: LocalApicState[];
  ioApic: IoApicState;
  acpi: AcpiState;
  port92: Port92State;
  resetPort: ResetPortState;
  debugExit: DebugExitState;
  fwCfg: FwCfgState;
  pci: PciConfigState;
  testdev: PcTestdevState;
  postCode: PostCodeState;
  coprocessor: CoprocessorErrorState;
  hpet: HpetState;
  /** Only where they are configured. */
  virtioBlock?: VirtioState;
  virtioConsole?: VirtioState;
}

export interface DevicesConfig {
  readonly ramBytes: number;
  readonly vcpus: number;
  /** Width of the ACPI timer; 24 when absent. */
  readonly pmTimerBits?: 24 | 32;
  /** What the processors' local APICs have; everything when absent. */
  readonly apic?: ApicFeatures;
  /** The HPET can send its interrupts as messages (its FSB option); not when absent. */
  readonly hpetMessages?: boolean;
  /** Of the medium of the virtio block device; 0 or absent for none. */
  readonly diskBytes?: number;
  /** Whether there is a virtio console. */
  readonly virtioConsole?: boolean;
}

/**
 * The devices at power-on: memory sizes in CMOS, the bootstrap APIC in virtual wire mode.
 */
export function initialDevices(config: DevicesConfig): DevicesState {
  const state: DevicesState = {
    uart: UART.initial(),
    pic: PIC_8259.initial(),
    pit: PIT_8254.initial(),
    rtc: RTC_MC146818.initial(),
    localApics: Array.from({ length: config.vcpus }, (_, id) => lapic.initialLocalApic(id, config.apic)),
    ioApic: IO_APIC.initial(),
    acpi: { ...ACPI_PM.initial(), timerBits: config.pmTimerBits ?? 24 },
    port92: PORT_92.initial(),
    resetPort: RESET_PORT.initial(),
    debugExit: DEBUG_EXIT.initial(),
    fwCfg: { ...FIRMWARE_CONFIGURATION.initial(), ramBytes: config.ramBytes, vcpus: config.vcpus },
    pci: PCI_CONFIG.initial(),
    testdev: PC_TESTDEV.initial(),
    postCode: POST_CODE.initial(),
    coprocessor: COPROCESSOR_ERROR.initial(),
    hpet: { ...HPET_TIMERS.initial(), messages: config.hpetMessages ?? false },
    ...virtioDevices(config),
  };
  configureMemory(state.rtc, config);
  lapic.enterVirtualWireMode(localApic(state, 0));
  return state;
}

const virtioDevices = ({ diskBytes = 0, virtioConsole = false }: DevicesConfig) => ({
  ...(diskBytes === 0 ? {} : { virtioBlock: initialVirtio('virtioBlock', diskBytes / SECTOR_BYTES) }),
  ...(virtioConsole ? { virtioConsole: initialVirtio('virtioConsole', 0) } : {}),
});

/** Register and value of each write that a BIOS makes to the 8259 pair; the masks are SeaBIOS's. */
const PIC_PROGRAM: readonly (readonly [register: number, value: number])[] = [
  [PIC.MASTER_COMMAND, 0x11],
  [PIC.MASTER_DATA, 0x08],
  [PIC.MASTER_DATA, 0x04],
  [PIC.MASTER_DATA, 0x01],
  [PIC.SLAVE_COMMAND, 0x11],
  [PIC.SLAVE_DATA, 0x70],
  [PIC.SLAVE_DATA, 0x02],
  [PIC.SLAVE_DATA, 0x01],
  [PIC.MASTER_DATA, 0xb8],
  [PIC.SLAVE_DATA, 0x8f],
];
/** Channel 0: both bytes, mode 2; the count is 65536. */
const PIT_PROGRAM: readonly (readonly [register: number, value: number])[] = [
  [PIT.COMMAND, 0x34],
  [PIT.CHANNEL_0, 0],
  [PIT.CHANNEL_0, 0],
];

/** Programs the 8259 pair to vectors 08h and 70h and the timer to 18.2 Hz, as a BIOS hands them over. In place. */
export function handOver(state: DevicesState, start: Nanoseconds): void {
  for (const [register, value] of PIC_PROGRAM) {
    for (const event of PIC_8259.decideWrite(state.pic, register, value, 1, start)) PIC_8259.reduce(state.pic, event);
  }
  for (const [register, value] of PIT_PROGRAM) {
    for (const event of PIT_8254.decideWrite(state.pit, register, value, 1, start)) PIT_8254.reduce(state.pit, event);
  }
}

/** The clock's base (`input.clock`): the only input that a device's state takes as it comes. In place. */
export function reduceClock(state: DevicesState, unixSeconds: number): void {
  state.rtc = rtcWithClock(state.rtc, unixSeconds);
}

/** Applies a device event in place. */
export function reduceDevices(state: DevicesState, event: DeviceEvent): void {
  switch (event.type) {
    case 'uart.transmitted':
    case 'uart.looped':
    case 'uart.received':
    case 'uart.taken':
    case 'uart.written':
    case 'uart.transmitter-acknowledged':
    case 'uart.errors-read':
    case 'uart.modem-read':
      UART.reduce(state.uart, event);
      return;
    case 'pic.line':
    case 'pic.pulse':
    case 'pic.acknowledged':
    case 'pic.spurious':
    case 'pic.polled':
    case 'pic.initialized':
    case 'pic.configured':
    case 'pic.masked':
    case 'pic.ended':
    case 'pic.moded':
    case 'pic.triggered':
      PIC_8259.reduce(state.pic, event);
      return;
    case 'pit.programmed':
    case 'pit.half-written':
    case 'pit.loaded':
    case 'pit.latched':
    case 'pit.read':
    case 'pit.output':
    case 'pit.controlled':
    case 'pit.stopped':
    case 'pit.channel-check':
      PIT_8254.reduce(state.pit, event);
      return;
    case 'rtc.selected':
    case 'rtc.written':
    case 'rtc.set':
    case 'rtc.held':
    case 'rtc.flagged':
    case 'rtc.flags-read':
    case 'rtc.nmi-masked':
      RTC_MC146818.reduce(state.rtc, event);
      return;
    case 'lapic.written':
    case 'lapic.based':
    case 'lapic.accepted':
    case 'lapic.acknowledged':
    case 'lapic.ended':
    case 'lapic.extint':
    case 'lapic.lint':
    case 'lapic.error':
    case 'lapic.timer-set':
    case 'lapic.tsc-deadline-set':
    case 'lapic.timer-fired':
    case 'lapic.reset':
    case 'lapic.remote-read':
    case 'lapic.signalled':
      LOCAL_APIC.reduce(localApic(state, event.apic), event);
      return;
    case 'ioapic.selected':
    case 'ioapic.written':
    case 'ioapic.line':
    case 'ioapic.sent':
    case 'ioapic.ended':
      IO_APIC.reduce(state.ioApic, event);
      return;
    case 'acpi.enabled':
    case 'acpi.controlled':
    case 'acpi.sleep-requested':
    case 'acpi.timer-carried':
    case 'acpi.status-cleared':
    case 'acpi.alarm':
      ACPI_PM.reduce(state.acpi, event);
      return;
    case 'port92.written':
      PORT_92.reduce(state.port92, event);
      return;
    case 'reset.controlled':
    case 'reset.keyboard-written':
    case 'reset.keyboard-read':
    case 'reset.requested':
    case 'reset.init-requested':
      RESET_PORT.reduce(state.resetPort, event);
      return;
    case 'debug-exit.requested':
      DEBUG_EXIT.reduce(state.debugExit, event);
      return;
    case 'fw-cfg.selected':
    case 'fw-cfg.read':
      FIRMWARE_CONFIGURATION.reduce(state.fwCfg, event);
      return;
    case 'pci.addressed':
      PCI_CONFIG.reduce(state.pci, event);
      return;
    case 'testdev.written':
    case 'testdev.line':
    case 'testdev.stored':
      PC_TESTDEV.reduce(state.testdev, event);
      return;
    case 'coprocessor.ferr':
    case 'coprocessor.acknowledged':
      COPROCESSOR_ERROR.reduce(state.coprocessor, event);
      return;
    case 'hpet.written':
    case 'hpet.fired':
      HPET_TIMERS.reduce(state.hpet, event);
      return;
    case 'virtio.written':
    case 'virtio.notified':
    case 'virtio.requested':
    case 'virtio.transmitted':
    case 'virtio.arrived':
    case 'virtio.received':
    case 'virtio.served':
    case 'virtio.broken':
      VIRTIO_DEVICES[event.device].reduce(virtioState(state, event.device), event);
      return;
    default:
      unreachable(event);
  }
}

/** @throws InvariantError where there is no such device: it states no events. */
function virtioState(state: DevicesState, device: VirtioName): VirtioState {
  const found = state[device];
  invariant(found !== undefined, 'a virtio device that is not there states no events');
  return found;
}

/** The local APIC of a vCPU. */
export function localApic(state: DevicesState, vcpu: number): LocalApicState {
  return state.localApics[vcpu] as LocalApicState;
}

// --- decisions -------------------------------------------------------------------------------------------------------

/** Something that a vCPU must hear besides an ordinary interrupt. */
export interface CpuSignal {
  readonly vcpu: number;
  readonly kind: 'nmi' | 'smi' | 'init' | 'sipi';
  /** SIPI: the page at which the vCPU starts; 0 otherwise. */
  readonly vector: number;
}

/** What the guest asked of the machine as a whole. */
export type MachineRequest =
  /** The end of the session. */
  | { readonly kind: 'end'; readonly reason: 'debug-exit' | 'shutdown'; readonly status: number }
  /** RESET, of processors and devices. */
  | { readonly kind: 'reset' }
  /** INIT, of every processor. */
  | { readonly kind: 'init' };

/** What happens: events to apply in order, then signals to vCPUs, then perhaps what concerns the whole machine. */
export interface Decision {
  readonly events: readonly DeviceEvent[];
  readonly signals: readonly CpuSignal[];
  readonly request: MachineRequest | null;
}

export interface AcknowledgeDecision {
  readonly vector: number;
  readonly events: readonly DeviceEvent[];
}

/** Nothing happens; one object, so that the machine may compare. */
export const NO_DECISION: Decision = { events: NO_EVENTS, signals: [], request: null };

const requestOf = (event: DeviceEvent): MachineRequest | null => {
  switch (event.type) {
    case 'debug-exit.requested':
      return { kind: 'end', reason: 'debug-exit', status: debugExitStatus(event.value) };
    case 'reset.requested':
      return { kind: 'reset' };
    case 'reset.init-requested':
      return { kind: 'init' };
    case 'port92.written':
      return event.reset ? { kind: 'init' } : null;
    case 'acpi.sleep-requested':
      return { kind: 'end', reason: 'shutdown', status: 0 };
    default:
      return null;
  }
};

/** Events and signals as a decision; what they ask of the machine follows from the events. */
export function decision(events: readonly DeviceEvent[], signals: readonly CpuSignal[] = []): Decision {
  if (events.length === 0 && signals.length === 0) return NO_DECISION;
  let request: MachineRequest | null = null;
  for (const event of events) request ??= requestOf(event);
  return { events, signals, request };
}

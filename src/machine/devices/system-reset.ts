/**
 * What resets do to the devices: RESET itself, and the firmware that sets them up before it boots. INIT concerns the
 * processors alone, and reaches no device but their local APICs.
 *
 * Both work out of the state, which holds all that configured it: folds have no configuration at hand.
 * Source: Motorola MC146818A data sheet, RESET; 82371AB (PIIX4) data sheet, RC Reset Control Register.
 */
import type { Nanoseconds } from '../units.js';
import { type DevicesState, handOver, initialDevices, localApic } from './device-set.js';
import { RTC, RTC_MC146818, type RtcState, rtcAfterReset } from './rtc-mc146818.js';
import { SECTOR_BYTES, VIRTIO_NAMES } from './virtio-mmio.js';

/** As at power-on, at a later time. */
function devicesAt(state: DevicesState, at: Nanoseconds): DevicesState {
  const devices = initialDevices({
    ramBytes: state.fwCfg.ramBytes,
    vcpus: state.fwCfg.vcpus,
    pmTimerBits: state.acpi.timerBits === 32 ? 32 : 24,
    apic: localApic(state, 0).features,
    hpetMessages: state.hpet.messages,
    diskBytes: (state.virtioBlock?.capacity ?? 0) * SECTOR_BYTES,
    virtioConsole: state.virtioConsole !== undefined,
  });
  devices.acpi.statusSince = at;
  return devices;
}

/** RESET reaches every device. The clock goes on: its battery keeps the time and the memory. In place. */
export function resetDevices(state: DevicesState, at: Nanoseconds): void {
  Object.assign(state, { ...devicesAt(state, at), rtc: rtcAfterReset(state.rtc, at) });
}

/** Register and value of each write that a BIOS makes to the clock: its usual rates and format, no interrupts. */
const RTC_PROGRAM: readonly (readonly [index: number, value: number])[] = [
  [0x0a, 0x26],
  [0x0b, 0x02],
];

/**
 * The firmware sets up the devices that it knows for a boot, whatever state they are in. Port 92h and the reset control
 * register are not among them, nor is the test bench: only RESET changes those. In place.
 */
export function initializeDevices(state: DevicesState, at: Nanoseconds): void {
  const fresh = devicesAt(state, at);
  const { uart, pic, pit, localApics, ioApic, acpi, resetPort, fwCfg, pci, coprocessor, hpet } = fresh;
  const { control } = state.resetPort;
  const rtc = initializedClock(state.rtc, at);
  Object.assign(state, { uart, pic, pit, rtc, localApics, ioApic, acpi, fwCfg, pci, coprocessor, hpet });
  for (const name of VIRTIO_NAMES) if (state[name] !== undefined) Object.assign(state[name], fresh[name]);
  state.resetPort = { ...resetPort, control };
  handOver(state, at);
}

function initializedClock(state: RtcState, at: Nanoseconds): RtcState {
  const rtc = rtcAfterReset(state, at);
  for (const [index, value] of RTC_PROGRAM) {
    for (const [register, byte] of [[RTC.INDEX, index] as const, [RTC.DATA, value] as const]) {
      for (const event of RTC_MC146818.decideWrite(rtc, register, byte, 1, at)) RTC_MC146818.reduce(rtc, event);
    }
  }
  return rtc;
}

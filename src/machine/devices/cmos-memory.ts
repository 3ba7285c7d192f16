/**
 * What a BIOS leaves in the clock's battery-backed memory about the machine.
 *
 * Source: IBM AT Technical Reference, Real-Time Clock/CMOS RAM; for the bytes from 34h on, QEMU and SeaBIOS.
 */
import type { RtcState } from './rtc-mc146818.js';
import { floorDivide } from './ticks.js';

const KIB = 1024;
const MIB = 1024 * KIB;
const GIB = 1024 * MIB;

/** Memory sizes and the number of processors. In place. */
export function configureMemory(state: RtcState, config: { readonly ramBytes: number; readonly vcpus: number }): void {
  const below4G = Math.min(config.ramBytes, 3 * GIB);
  const put = (index: number, value: number, bytes: number): void => {
    for (let at = 0; at < bytes; at += 1) state.memory[index + at] = floorDivide(value, 256 ** at) & 0xff;
  };
  const extendedKiB = Math.max(floorDivide(below4G, KIB) - KIB, 0);
  put(0x15, 640, 2); // base memory, KiB
  put(0x17, Math.min(extendedKiB, 0xffff), 2); // above 1 MiB, KiB
  put(0x30, Math.min(extendedKiB, 0xffff), 2);
  put(0x34, Math.min(Math.max(floorDivide(below4G - 16 * MIB, 64 * KIB), 0), 0xffff), 2); // above 16 MiB, 64 KiB
  put(0x5b, floorDivide(config.ramBytes - below4G, 64 * KIB), 3); // above 4 GiB, 64 KiB
  put(0x5f, config.vcpus - 1, 1);
}

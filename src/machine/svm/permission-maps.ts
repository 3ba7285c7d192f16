/**
 * The two bitmaps by which a hypervisor picks I/O ports and MSRs to intercept. A set bit means: exit.
 *
 * A map that lies outside RAM reads as all ones, hence intercepts everything.
 * Source: APM vol.2 §15.10 IOIO Intercepts, §15.11 MSR Intercepts.
 */
import type { PhysicalMemory } from '../mmu/memory.js';
import { sPA } from '../units.js';

export const IOPM_BYTES = 0x3000;
export const MSRPM_BYTES = 0x2000;
const ADDRESS_MASK = 0x000f_ffff_ffff_ffffn;
const PAGE_MASK = 0x000f_ffff_ffff_f000n;

/** The maps' base in a VMCB: bits 11:0 are ignored, and those above the physical address. */
export const mapBase = (field: bigint): number => Number(field & PAGE_MASK);
/** The same for the deviation `permission-map-base-unaligned`. */
export const unalignedMapBase = (field: bigint): number => Number(field & ADDRESS_MASK);

/**
 * True when any byte of the access has its bit set. An access at port FFFFh reads on into the third page: the map has
 * 64K + 3 bits and does not wrap.
 * @param base sPA of the map. @param size 1, 2 or 4.
 * @param everyByte the deviation `ioio-every-byte`: the bits of all bytes must be set.
 */
export function portIntercepted(
  memory: PhysicalMemory,
  base: number,
  port: number,
  size: number,
  everyByte = false,
): boolean {
  for (let bit = port; bit < port + size; bit++) {
    const denied = ((mapByte(memory, base + (bit >>> 3)) >>> (bit & 7)) & 1) !== 0;
    if (denied !== everyByte) return denied;
  }
  return everyByte;
}

/** First MSR of each range that the map covers, 2000h MSRs each. */
const MSR_RANGES = [0x0000_0000, 0xc000_0000, 0xc001_0000] as const;
const MSRS_PER_RANGE = 0x2000;

/**
 * True when the access exits; an MSR outside the map's ranges always does. Two bits an MSR: read, then write.
 * @param base sPA of the map.
 */
export function msrIntercepted(memory: PhysicalMemory, base: number, msr: number, write: boolean): boolean {
  const bit = msrMapBit(msr, write);
  return bit === undefined || ((mapByte(memory, base + (bit >>> 3)) >>> (bit & 7)) & 1) !== 0;
}

/** The bit of the map that stands for an access, counted from its base; undefined for an MSR outside the map's ranges. */
export function msrMapBit(msr: number, write: boolean): number | undefined {
  const range = MSR_RANGES.findIndex((first) => msr >= first && msr < first + MSRS_PER_RANGE);
  if (range < 0) return undefined;
  return 8 * 0x800 * range + 2 * (msr - (MSR_RANGES[range] as number)) + (write ? 1 : 0);
}

const mapByte = (memory: PhysicalMemory, address: number): number =>
  memory.isRam(address, 1) ? Number(memory.read(sPA(address), 1)) : 0xff;

/** EXITINFO1 of a #VMEXIT(IOIO). Source: APM vol.2 §15.10.3 (I)OIO Intercept Information. */
export interface PortAccess {
  readonly input: boolean;
  readonly string: boolean;
  readonly rep: boolean;
  /** 1, 2 or 4 bytes. */
  readonly size: number;
  /** 16, 32 or 64 bits. */
  readonly addressWidth: number;
  /** Segment register by number, of string accesses with decode assists; INS always has ES, 0. */
  readonly segment: number;
  readonly port: number;
}

export function ioExitInfo({ input, string, rep, size, addressWidth, segment, port }: PortAccess): bigint {
  return BigInt(
    (input ? 1 : 0) +
      (string ? 1 << 2 : 0) +
      (rep ? 1 << 3 : 0) +
      (size << 4) +
      ((addressWidth / 16) << 7) +
      (string ? segment << 10 : 0) +
      port * 0x1_0000,
  );
}

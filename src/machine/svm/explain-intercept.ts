/**
 * Why an intercept is taken or is not: the row of the table as a processor has it, and the bits that decide. Nothing here is
 * asked by the machine itself.
 * Source: APM vol.2 §15.9 Instruction Intercepts, §15.10 IOIO Intercepts, §15.11 MSR Intercepts.
 */
import type { CpuProfile } from '../cpu/profile.js';
import { R, type Registers } from '../layout/cpu-state.js';
import { RAM_BASE } from '../layout/linear-memory.js';
import type { PhysicalMemory } from '../mmu/memory.js';
import { interceptMasks, stagesUnder } from '../policy/catalogue.js';
import { sPA } from '../units.js';
import { ExitCode } from './exit-code.js';
import { INTERCEPTS, type Intercept, type InterceptName, type InterceptStage } from './intercepts.js';
import { IOPM_BYTES, MSRPM_BYTES, mapBase, msrMapBit, unalignedMapBase } from './permission-maps.js';
import { type VmrunRefusal, vmrunRefusal } from './vmrun-checks.js';
import { vmrunRules } from './vmrun-rules.js';

/** The row by which an exit came about; undefined for those without one: VMEXIT_INVALID, NPF. */
export const interceptOfExit = (code: bigint): Intercept | undefined =>
  Object.values(INTERCEPTS).find(({ exitCode }) => exitCode === code);

/** A row as a processor with its deviations has it. */
export interface InterceptInForce {
  readonly stage: InterceptStage;
  /** The bit is not looked at. */
  readonly ignored: boolean;
}

export function interceptInForce({ deviations }: CpuProfile, name: InterceptName): InterceptInForce {
  const { offset, bit } = INTERCEPTS[name];
  const mask = interceptMasks(deviations)[offset / 4] as number;
  return { stage: stagesUnder(deviations)[name], ignored: ((mask >>> bit) & 1) === 0 };
}

/** A bit of a permission map. */
export interface MapBit {
  /** sPA of its byte. */
  readonly address: number;
  readonly bit: number;
  /** A map outside RAM reads as ones. */
  readonly set: boolean;
}

/** What the map says of an access. */
export interface MapAnswer {
  /** sPA of the map, as the processor takes it. */
  readonly base: number;
  readonly bits: readonly MapBit[];
  /** All of the bits must be set, not one alone. */
  readonly everyByte: boolean;
}

/** Bits of the I/O permission map, one for each byte of the access. @param registers of the guest that accesses. */
export function explainPort(
  { deviations }: CpuProfile,
  registers: Registers,
  memory: PhysicalMemory,
  port: number,
  size: number,
): MapAnswer {
  const base = baseOf(deviations, registers[R.iopmBase] as bigint);
  const bits = Array.from({ length: size }, (_, byte) => port + byte)
    .filter((bit) => bit < IOPM_BYTES * 8)
    .map((bit) => mapBit(memory, base, bit));
  return { base, bits, everyByte: deviations.has('ioio-every-byte') };
}

/** The bit of the MSR permission map; none for an MSR that the map does not cover, which always exits. */
export function explainMsr(
  { deviations }: CpuProfile,
  registers: Registers,
  memory: PhysicalMemory,
  msr: number,
  write: boolean,
): MapAnswer {
  const base = baseOf(deviations, registers[R.msrpmBase] as bigint);
  const bit = msrMapBit(msr, write);
  const covered = bit !== undefined && bit < MSRPM_BYTES * 8;
  return { base, bits: covered ? [mapBit(memory, base, bit)] : [], everyByte: false };
}

const baseOf = (deviations: CpuProfile['deviations'], field: bigint): number =>
  deviations.has('permission-map-base-unaligned') ? unalignedMapBase(field) : mapBase(field);

function mapBit(memory: PhysicalMemory, base: number, bit: number): MapBit {
  const address = base + (bit >>> 3);
  const byte = memory.isRam(address, 1) ? Number(memory.read(sPA(address), 1)) : 0xff;
  return { address, bit: bit & 7, set: ((byte >>> (bit & 7)) & 1) !== 0 };
}

/** Why VMRUN would refuse the VMCB in RAM; undefined when the guest may run. @param host registers of L1. */
export function explainRefusal(
  profile: CpuProfile,
  host: Registers,
  memory: PhysicalMemory,
  vmcb: number,
): VmrunRefusal | undefined {
  if (!memory.isRam(vmcb, 0x1000) || vmcb % 0x1000 !== 0) return undefined;
  const [cr0, efer] = [host[R.cr0] as bigint, host[R.efer] as bigint];
  return vmrunRefusal(memory.words, (RAM_BASE + vmcb) / 4, memory, vmrunRules(profile), cr0, efer);
}

export const isInvalidExit = (code: bigint): boolean => BigInt.asIntN(32, code) === BigInt.asIntN(32, ExitCode.INVALID);

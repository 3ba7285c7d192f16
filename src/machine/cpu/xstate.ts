/**
 * Extended processor state as XSAVE sees it: components, where they lie in the save area, which are enabled, which are
 * not in their initial configuration.
 * Source: APM vol.2 §11.5 XSAVE/XRSTOR Instructions; APM vol.3 appendix E.4.13 Function Dh.
 *
 * Invariant: AVX is the only component behind the header, so it has the same offset in the standard and the compacted
 * format.
 */
import { deviceNotAvailable, invalidOpcode } from '../faults.js';
import type { Feature } from '../isa/instruction.js';
import { CR0, CR4, fprSlot, R, type Slot, xmmSlot, ymmSlot } from '../layout/cpu-state.js';
import { is64Bit, type SlotReader } from './mode.js';

/** Bits of XCR0 and XSTATE_BV. */
export const XState = { X87: 1n << 0n, SSE: 1n << 1n, AVX: 1n << 2n } as const;

/** Bytes of the legacy region with the header behind it. */
const XSAVE_HEADER_END = 576;
export const AVX_STATE = { offset: XSAVE_HEADER_END, bytes: 256 } as const;

/** Bits that XCR0 may have. */
export const xcr0Mask = ({ features }: { readonly features: ReadonlySet<Feature> }): bigint =>
  XState.X87 | XState.SSE | (features.has('avx') ? XState.AVX : 0n);

/** Whether XSETBV takes a value: x87 always, AVX with SSE alone (APM vol.3, XSETBV). */
export const isLegalXcr0 = (profile: { readonly features: ReadonlySet<Feature> }, value: bigint): boolean =>
  (value & XState.X87) !== 0n &&
  (value & ~xcr0Mask(profile)) === 0n &&
  (value & (XState.AVX | XState.SSE)) !== XState.AVX;

/** Instruction sets that need AVX state to be enabled. */
export const AVX_FEATURES: ReadonlySet<Feature> = new Set<Feature>(['avx', 'avx2', 'fma', 'f16c']);

/** Whether the operating system has enabled AVX state; CR0.EM and CR4.OSFXSR say nothing about it. */
export const isAvxEnabled = (cpu: SlotReader): boolean =>
  (cpu.get(R.cr4) & CR4.OSXSAVE) !== 0n && (~cpu.get(R.xcr0) & (XState.SSE | XState.AVX)) === 0n;

/** What every AVX instruction asks first. @throws GuestFault #UD, #NM. Source: APM vol.4 §2.3 Instruction Exceptions. */
export function requireAvx(cpu: SlotReader): void {
  if (!isAvxEnabled(cpu)) throw invalidOpcode();
  if ((cpu.get(R.cr0) & CR0.TS) !== 0n) throw deviceNotAvailable();
}

/** Bytes of a save area with these components. */
export const areaBytes = (components: bigint): number =>
  XSAVE_HEADER_END + ((components & XState.AVX) !== 0n ? AVX_STATE.bytes : 0);

/** The control word that FNINIT sets: all exceptions masked, 64 bits of precision, to nearest. */
export const FCW_INIT = 0x37fn;
export const MXCSR_INIT = 0x1f80n;

/** Vector registers that exist in this mode; the others keep their values. */
export const vectorCount = (cpu: SlotReader): number => (is64Bit(cpu) ? 16 : 8);
export const highHalf = (slot: Slot): Slot => (slot + 1) as Slot;

/** The x87 registers that FNINIT and an initial configuration set, with the values of the latter. */
export const X87_INIT: readonly (readonly [Slot, bigint])[] = [
  [R.fcw, FCW_INIT],
  ...[R.fsw, R.ftw, R.fop, R.fip, R.fdp].map((slot) => [slot, 0n] as const),
  ...Array.from({ length: 8 }, (_, number) => fprSlot(number)).flatMap((slot) => [
    [slot, 0n] as const,
    [highHalf(slot), 0n] as const,
  ]),
];

function anySet(cpu: SlotReader, slotOf: (number: number) => Slot): boolean {
  for (let number = 0; number < vectorCount(cpu); number++) {
    if (cpu.get(slotOf(number)) !== 0n || cpu.get(highHalf(slotOf(number))) !== 0n) return true;
  }
  return false;
}

/** Whether XMM registers differ from their initial value; MXCSR is asked for apart. */
export const xmmInUse = (cpu: SlotReader): boolean => anySet(cpu, xmmSlot);

/** XINUSE: the components that are not in their initial configuration. MXCSR belongs to SSE here. */
export function statesInUse(cpu: SlotReader): bigint {
  const x87 = X87_INIT.some(([slot, value]) => cpu.get(slot) !== value);
  const sse = xmmInUse(cpu) || cpu.get(R.mxcsr) !== MXCSR_INIT;
  return (x87 ? XState.X87 : 0n) | (sse ? XState.SSE : 0n) | (anySet(cpu, ymmSlot) ? XState.AVX : 0n);
}

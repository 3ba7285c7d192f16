/**
 * Register values after RESET and INIT.
 * Source: APM vol.2 §14.1 Initial Processor State (table 14-1), §14.1.4 External Initialization Using INIT.
 */
import { Activity, Boundary, CR0, Flag, R, Segment, type Slot, segmentSlot } from '../layout/cpu-state.js';
import { PAT_RESET, virtualizationOf } from '../svm/nested-svm.js';
import { VM_CR_LOCK, VM_CR_SVMDIS } from './control-registers.js';
import { type CpuProfile, signature } from './cpuid.js';
import { DR6, DR7 } from './debug.js';
import { packSegment } from './descriptors.js';
import type { SlotReader } from './mode.js';
import { SMBASE_RESET } from './smm.js';

/** The processor that executes the firmware. */
export const BOOTSTRAP_VCPU = 0;

/** HWCR.TscFreqSel: the time-stamp counter runs at one rate. */
const HWCR_TSC_FREQUENCY_SELECT = 1n << 24n;
const MXCSR_RESET = 0x1f80n;

/** Registers that RESET and INIT set alike. */
function common(profile: CpuProfile): [Slot, bigint][] {
  const segment = (number: number, selector: number, attributes: number, base: bigint): [Slot, bigint][] => [
    [segmentSlot(number), packSegment(selector, attributes, 0xffff)],
    [(segmentSlot(number) + 1) as Slot, base],
  ];
  const data = [Segment.ES, Segment.SS, Segment.DS, Segment.FS, Segment.GS].flatMap((number) =>
    segment(number, 0, 0x93, 0n),
  );
  const generalPurpose = Array.from({ length: 16 }, (_, number): [Slot, bigint] => [number as Slot, 0n]);
  return [
    ...generalPurpose,
    [R.rdx, BigInt(signature(profile))],
    [R.rip, 0xfff0n],
    [R.rflags, Flag.ONE],
    ...data,
    ...segment(Segment.CS, 0xf000, 0x9b, 0xffff_0000n),
    ...segment(Segment.LDTR, 0, 0x82, 0n),
    ...segment(Segment.TR, 0, 0x8b, 0n),
    [R.gdtrLimit, 0xffffn],
    [R.gdtrBase, 0n],
    [R.idtrLimit, 0xffffn],
    [R.idtrBase, 0n],
    [R.cpl, 0n],
    [R.cr2, 0n],
    [R.cr3, 0n],
    [R.cr4, 0n],
    [R.efer, 0n],
    [R.dr0, 0n],
    [R.dr1, 0n],
    [R.dr2, 0n],
    [R.dr3, 0n],
    [R.dr6, DR6.ONES],
    [R.dr7, DR7.ONE],
    [R.monitorAddress, 0n],
    [R.monitorDigest, 0n],
  ];
}

/** Every register that is not 0 after RESET, and those of `common`; all other slots are 0. */
export function resetRegisters(profile: CpuProfile): ReadonlyMap<Slot, bigint> {
  return new Map([
    ...common(profile),
    [R.cr0, CR0.CD | CR0.NW | CR0.ET],
    [R.xcr0, 1n],
    [R.smBase, SMBASE_RESET],
    [R.pat, PAT_RESET],
    [R.hwcr, HWCR_TSC_FREQUENCY_SELECT],
    [R.fcw, 0x40n],
    [R.ftw, 0xffn], // 5555h in full form: all registers hold zero, none is empty
    [R.mxcsr, MXCSR_RESET],
    [R.activity, Activity.RUNNING],
    ...virtualizationOf(profile).initialise(),
  ]);
}

/** A start-up interrupt that came after the INIT. */
const STARTUP = Boundary.SIPI_PENDING | (0xffn << Boundary.SIPI_VECTOR_SHIFT);

/**
 * What INIT changes: CR0.CD and NW, the x87 and SSE state, MTRRs and most MSRs stay. An NMI that is blocked or pending
 * is forgotten, and the processor leaves HLT and shutdown.
 * @param waits true for a processor that waits for SIPI afterwards: all but the bootstrap processor.
 */
export function initRegisters(cpu: SlotReader, profile: CpuProfile, waits: boolean): ReadonlyMap<Slot, bigint> {
  const kept = cpu.get(R.cr0) & (CR0.CD | CR0.NW);
  return new Map([
    ...common(profile),
    [R.cr0, kept | CR0.ET],
    ...virtualizationOf(profile).destroy(),
    [R.boundary, cpu.get(R.boundary) & (Boundary.SMI_PENDING | STARTUP)],
    [R.vmCr, vmCrAfterInit(cpu.get(R.vmCr))],
    [R.activity, waits ? Activity.WAIT_FOR_SIPI : Activity.RUNNING],
  ]);
}

/** INIT clears SVMDIS unless it is locked (APM vol.2 §15.30.1 VM_CR MSR). */
const vmCrAfterInit = (vmCr: bigint): bigint => ((vmCr & VM_CR_LOCK) === 0n ? vmCr & ~VM_CR_SVMDIS : vmCr);

/** What the pending start-up interrupt changes (APM vol.2 §16.5 Interprocessor Interrupts). */
export function startupRegisters(cpu: SlotReader): ReadonlyMap<Slot, bigint> {
  const boundary = cpu.get(R.boundary);
  const vector = Number((boundary >> Boundary.SIPI_VECTOR_SHIFT) & 0xffn);
  return new Map<Slot, bigint>([
    [R.cs, packSegment(vector << 8, 0x9b, 0xffff)],
    [R.csBase, BigInt(vector) << 12n],
    [R.rip, 0n],
    [R.boundary, boundary & ~STARTUP],
    [R.activity, Activity.RUNNING],
  ]);
}

/**
 * `boundary` once a start-up interrupt has arrived; undefined when it is ignored: the vCPU neither waits for one nor has
 * an INIT pending that will make it wait.
 */
export function withStartup(cpu: SlotReader, vector: number): bigint | undefined {
  const boundary = cpu.get(R.boundary);
  const waits = cpu.get(R.activity) === Activity.WAIT_FOR_SIPI || (boundary & Boundary.INIT_PENDING) !== 0n;
  if (!waits || (boundary & Boundary.SIPI_PENDING) !== 0n) return undefined;
  return boundary | Boundary.SIPI_PENDING | (BigInt(vector) << Boundary.SIPI_VECTOR_SHIFT);
}

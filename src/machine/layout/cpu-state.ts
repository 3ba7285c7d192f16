/**
 * The register file of a vCPU: one table of 64-bit slots. Everything that a vCPU remembers between two instructions
 * stands here, from RAX to "an NMI is pending"; there is no CPU state anywhere else.
 *
 * The slots of the vCPU that runs lie at `CPU_BASE` in the WebAssembly memory, slot n at `CPU_BASE + 8n`; a history
 * keeps them as an array of bigints. Register deltas in events, snapshots, diffs and debuggers all go by this table.
 *
 * Invariant: outside the engine every slot is canonical: RFLAGS has its flags (none are pending lazily), segment slots
 * are packed as in the VMCB, unused high bits are zero.
 */
import { invariant } from '../errors.js';
import { word32At } from './little-endian.js';

/** Slots in order. A slot's number is its place here; new slots go to the end of their group only with a new tape version. */
export const REGISTER_NAMES = [
  // General-purpose registers, RIP, RFLAGS (APM vol.1 §3.1 Registers)
  ...(['rax', 'rcx', 'rdx', 'rbx', 'rsp', 'rbp', 'rsi', 'rdi'] as const),
  ...(['r8', 'r9', 'r10', 'r11', 'r12', 'r13', 'r14', 'r15', 'rip', 'rflags'] as const),
  // Segments: word = selector | attributes << 16 | limit << 32, as in the VMCB save area (APM vol.2 appendix B)
  ...(['es', 'esBase', 'cs', 'csBase', 'ss', 'ssBase', 'ds', 'dsBase', 'fs', 'fsBase', 'gs', 'gsBase'] as const),
  ...(['ldtr', 'ldtrBase', 'tr', 'trBase', 'gdtrLimit', 'gdtrBase', 'idtrLimit', 'idtrBase', 'cpl'] as const),
  // Control and debug registers (APM vol.2 §3.1 System-Control Registers, §13.1 Software-Debug Resources)
  ...(['cr0', 'cr2', 'cr3', 'cr4', 'efer', 'xcr0', 'dr0', 'dr1', 'dr2', 'dr3', 'dr6', 'dr7'] as const),
  // PAE page-directory-pointer entries, loaded with CR3 (APM vol.2 §5.2.4 PAE Paging)
  ...(['pdpte0', 'pdpte1', 'pdpte2', 'pdpte3'] as const),
  // Model-specific registers (APM vol.2 appendix A)
  ...(['star', 'lstar', 'cstar', 'sfmask', 'kernelGsBase', 'sysenterCs', 'sysenterEsp', 'sysenterEip'] as const),
  ...(['pat', 'tscAux', 'tscBase', 'debugCtl', 'lastBranchFrom', 'lastBranchTo', 'lastIntFrom', 'lastIntTo'] as const),
  ...(['mtrrDefType', 'syscfg', 'hwcr', 'vmCr', 'vmHsavePA', 'miscEnable', 'mcgStatus', 'mcgCtl'] as const),
  ...([
    'mtrrBase0',
    'mtrrMask0',
    'mtrrBase1',
    'mtrrMask1',
    'mtrrBase2',
    'mtrrMask2',
    'mtrrBase3',
    'mtrrMask3',
  ] as const),
  ...([
    'mtrrBase4',
    'mtrrMask4',
    'mtrrBase5',
    'mtrrMask5',
    'mtrrBase6',
    'mtrrMask6',
    'mtrrBase7',
    'mtrrMask7',
  ] as const),
  ...(['mtrrFix64K0', 'mtrrFix16K0', 'mtrrFix16K1', 'mtrrFix4K0', 'mtrrFix4K1', 'mtrrFix4K2', 'mtrrFix4K3'] as const),
  ...(['mtrrFix4K4', 'mtrrFix4K5', 'mtrrFix4K6', 'mtrrFix4K7', 'xss', 'specCtrl'] as const),
  // System-management mode (APM vol.2 §10.2.2 SMBASE Register)
  ...(['smBase'] as const),
  // What the next instruction boundary must know: see PENDING_*, HALTED … below
  ...(['activity', 'boundary', 'monitorAddress'] as const),
  // SVM (APM vol.2 §15): mode, the processor's copy of the running VMCB's controls, the host state behind the guest
  // (deviations keep two things above values that have no such bits: the host's DR7 in bits 63:32 of hostRflags, and whose
  // MSR permission map came first in bits 62:61 of msrpmBase)
  ...(['svmMode', 'vmcb', 'interceptCr', 'interceptDr', 'interceptExceptions', 'intercept3', 'intercept4'] as const),
  ...(['intercept5', 'pauseFilter', 'iopmBase', 'msrpmBase', 'tscOffset', 'guestAsid', 'intControl'] as const),
  ...(['nestedControl', 'nestedCr3', 'virtExt', 'guestPat', 'exitIntInfo', 'tscRatio'] as const),
  ...(['eventInjection', 'eventNextRip', 'lastPause', 'svmKey'] as const),
  ...(['hostEs', 'hostEsBase', 'hostCs', 'hostCsBase', 'hostSs', 'hostSsBase', 'hostDs', 'hostDsBase'] as const),
  ...(['hostGdtrLimit', 'hostGdtrBase', 'hostIdtrLimit', 'hostIdtrBase'] as const),
  ...(['hostEfer', 'hostCr0', 'hostCr3', 'hostCr4', 'hostRflags', 'hostRip', 'hostRsp', 'hostRax'] as const),
  ...(['hostDebugCtl', 'hostLastBranchFrom', 'hostLastBranchTo', 'hostLastIntFrom', 'hostLastIntTo'] as const),
  // x87 and SSE (APM vol.1 §4, §6); ST registers in physical order, two slots each: significand, sign and exponent
  ...(['fcw', 'fsw', 'ftw', 'fop', 'fip', 'fdp', 'mxcsr'] as const),
  ...(['fpr0', 'fpr0High', 'fpr1', 'fpr1High', 'fpr2', 'fpr2High', 'fpr3', 'fpr3High'] as const),
  ...(['fpr4', 'fpr4High', 'fpr5', 'fpr5High', 'fpr6', 'fpr6High', 'fpr7', 'fpr7High'] as const),
  ...(['xmm0', 'xmm0High', 'xmm1', 'xmm1High', 'xmm2', 'xmm2High', 'xmm3', 'xmm3High'] as const),
  ...(['xmm4', 'xmm4High', 'xmm5', 'xmm5High', 'xmm6', 'xmm6High', 'xmm7', 'xmm7High'] as const),
  ...(['xmm8', 'xmm8High', 'xmm9', 'xmm9High', 'xmm10', 'xmm10High', 'xmm11', 'xmm11High'] as const),
  ...(['xmm12', 'xmm12High', 'xmm13', 'xmm13High', 'xmm14', 'xmm14High', 'xmm15', 'xmm15High'] as const),
  // AVX (APM vol.1 §4.2.1): the upper halves of the YMM registers, whose lower halves are the XMM registers
  ...(['ymm0', 'ymm0High', 'ymm1', 'ymm1High', 'ymm2', 'ymm2High', 'ymm3', 'ymm3High'] as const),
  ...(['ymm4', 'ymm4High', 'ymm5', 'ymm5High', 'ymm6', 'ymm6High', 'ymm7', 'ymm7High'] as const),
  ...(['ymm8', 'ymm8High', 'ymm9', 'ymm9High', 'ymm10', 'ymm10High', 'ymm11', 'ymm11High'] as const),
  ...(['ymm12', 'ymm12High', 'ymm13', 'ymm13High', 'ymm14', 'ymm14High', 'ymm15', 'ymm15High'] as const),
  // Behind the others, for the numbers of slots are on tapes: the line at monitorAddress (cpu/monitor.ts)
  ...(['monitorDigest'] as const),
  // How many bus locks the guest may still take (APM vol.2 §15.14.5 Bus Lock Threshold)
  ...(['busLocks'] as const),
  // The guest's virtual APIC: gPA of its page with bit 0 set, and what AVIC was told of it; all zero while AVIC is off
  // (APM vol.2 §15.29.4.2 AVIC VMCB Fields)
  ...(['avicApicBar', 'avicBackingPage', 'avicLogicalTable', 'avicPhysicalTable'] as const),
] as const;

export type RegisterName = (typeof REGISTER_NAMES)[number];

/** Registers by their 32-bit halves: no bigint is made. */
export interface HalvesReader {
  low(slot: Slot): number;
  high(slot: Slot): number;
}

/** The same to be changed. */
export interface HalvesWriter extends HalvesReader {
  setHalves(slot: Slot, low: number, high: number): void;
}

declare const slotBrand: unique symbol;
/** Place of a register in the table above. */
export type Slot = number & { readonly [slotBrand]: true };
/** Reads the low half of a register: enough for flags and controls, and no bigint is made. */
export type LowReader = (slot: Slot) => number;

export const SLOT_COUNT = REGISTER_NAMES.length;
invariant(SLOT_COUNT <= 256, 'a register delta names a slot in one byte');
invariant(new Set(REGISTER_NAMES).size === SLOT_COUNT, 'register names must be unique');

/** Slot numbers by name: `registers[R.rax]`. */
export const R = Object.fromEntries(REGISTER_NAMES.map((name, slot) => [name, slot])) as {
  readonly [Name in RegisterName]: Slot;
};

/** The slots as a history keeps them (array) or as they lie in memory (BigUint64Array); both index alike. */
export interface Registers {
  [slot: Slot]: bigint;
  readonly length: number;
}

/** The registers of a live vCPU: slots that lie in memory. */
export type RegisterFile = Registers & Pick<BigUint64Array, 'buffer' | 'byteOffset'>;

/** General-purpose register `number` (0 = RAX … 15 = R15) as a slot. */
export const gprSlot = (number: number): Slot => number as Slot;
/** Low slot of XMM register `number`; the high half follows it. */
export const xmmSlot = (number: number): Slot => (R.xmm0 + 2 * number) as Slot;
/** Slot of bits 191:128 of YMM register `number`; bits 255:192 follow it. */
export const ymmSlot = (number: number): Slot => (R.ymm0 + 2 * number) as Slot;
/** Low slot of physical x87 register `number`; sign and exponent follow it. */
export const fprSlot = (number: number): Slot => (R.fpr0 + 2 * number) as Slot;

/** Segment registers by their number in the ModRM reg field, then LDTR and TR. */
export const SEGMENT_NAMES = ['es', 'cs', 'ss', 'ds', 'fs', 'gs', 'ldtr', 'tr'] as const;
export const Segment = { ES: 0, CS: 1, SS: 2, DS: 3, FS: 4, GS: 5, LDTR: 6, TR: 7 } as const;
/** Word slot of segment `number`; the base follows it. */
export const segmentSlot = (number: number): Slot => (R.es + 2 * number) as Slot;

/** By their numbers, the control registers that are in the register file. CR8 is the local APIC's. */
export const CONTROL_SLOTS: ReadonlyMap<number, Slot> = new Map([
  [0, R.cr0],
  [2, R.cr2],
  [3, R.cr3],
  [4, R.cr4],
]);

/** Address of slot 0 in the WebAssembly memory. */
export const CPU_BASE = 0x1000;
export const slotAddress = (slot: Slot): number => CPU_BASE + 8 * slot;

/** `activity`: what the vCPU does instead of executing. */
export const Activity = {
  RUNNING: 0n,
  HALTED: 1n,
  SHUTDOWN: 2n,
  WAIT_FOR_SIPI: 3n,
  MWAIT: 4n,
  FERR_FREEZE: 5n,
  /** For a page that the host has taken away; an interrupt ends it, too (`paravirt/page-faults.ts`). */
  PAGE_WAIT: 6n,
} as const;

/** Bits of `boundary`: what the next instruction boundary must know. */
export const Boundary = {
  /** Interrupts are held for one instruction after STI, MOV SS, POP SS (APM vol.2 §8.5). */
  INTERRUPT_SHADOW: 1n << 0n,
  /** The shadow stems from MOV SS or POP SS and holds debug traps too. */
  DEBUG_SHADOW: 1n << 1n,
  /** An NMI is being handled; IRET unblocks (APM vol.2 §8.2.3 NMI). */
  NMI_BLOCKED: 1n << 2n,
  NMI_PENDING: 1n << 3n,
  /** RFLAGS.TF was set when the last instruction began: a single-step #DB is due. */
  SINGLE_STEP: 1n << 4n,
  /** An INIT is pending (held while GIF is clear). */
  INIT_PENDING: 1n << 5n,
  SMI_PENDING: 1n << 6n,
  /** A start-up interrupt came to a vCPU that waits for it, or will once its INIT is processed; its vector above. */
  SIPI_PENDING: 1n << 7n,
  SIPI_VECTOR_SHIFT: 48n,
  /** Data breakpoint hits DR0..DR3 of the last instruction, as DR6 bits 3:0 at bits 11:8. */
  BREAKPOINTS_SHIFT: 8n,
  /** The last instruction took a bus lock that traps. */
  BUS_LOCK: 1n << 14n,
  /** System-management mode: SMIs and INITs wait. */
  IN_SMM: 1n << 15n,
  /** What RSM puts back: bits 11:0 of the interrupted program, and its CPL in bits 13:12; from bit 16 on. */
  SMM_SHIFT: 16n,
} as const;

/** Bits of `svmMode`. */
export const SvmMode = {
  /** An L2 runs: between VMRUN and #VMEXIT. */
  GUEST: 1n << 0n,
  /** The global interrupt flag (APM vol.2 §15.17). */
  GIF: 1n << 1n,
  /** RFLAGS.IF of the host when VMRUN executed; gates physical interrupts under V_INTR_MASKING (§15.21.1). */
  HOST_IF: 1n << 2n,
  /** The mask of virtual interrupts is open, where it is a latch (`svm/interrupt-rules.ts`). */
  VIRQ_OPEN: 1n << 3n,
} as const;

/** RFLAGS bits (APM vol.2 §3.1.6 RFLAGS Register). */
export const Flag = {
  CF: 1n << 0n,
  ONE: 1n << 1n,
  PF: 1n << 2n,
  AF: 1n << 4n,
  ZF: 1n << 6n,
  SF: 1n << 7n,
  TF: 1n << 8n,
  IF: 1n << 9n,
  DF: 1n << 10n,
  OF: 1n << 11n,
  IOPL: 3n << 12n,
  NT: 1n << 14n,
  RF: 1n << 16n,
  VM: 1n << 17n,
  AC: 1n << 18n,
  VIF: 1n << 19n,
  VIP: 1n << 20n,
  ID: 1n << 21n,
} as const;
export const ARITHMETIC_FLAGS = Flag.CF | Flag.PF | Flag.AF | Flag.ZF | Flag.SF | Flag.OF;

/** CR0 bits (APM vol.2 §3.1.1). */
export const CR0 = {
  PE: 1n << 0n,
  MP: 1n << 1n,
  EM: 1n << 2n,
  TS: 1n << 3n,
  ET: 1n << 4n,
  NE: 1n << 5n,
  WP: 1n << 16n,
  AM: 1n << 18n,
  NW: 1n << 29n,
  CD: 1n << 30n,
  PG: 1n << 31n,
} as const;

/** CR4 bits (APM vol.2 §3.1.3). */
export const CR4 = {
  VME: 1n << 0n,
  PVI: 1n << 1n,
  TSD: 1n << 2n,
  DE: 1n << 3n,
  PSE: 1n << 4n,
  PAE: 1n << 5n,
  MCE: 1n << 6n,
  PGE: 1n << 7n,
  PCE: 1n << 8n,
  OSFXSR: 1n << 9n,
  OSXMMEXCPT: 1n << 10n,
  UMIP: 1n << 11n,
  LA57: 1n << 12n,
  FSGSBASE: 1n << 16n,
  PCIDE: 1n << 17n,
  OSXSAVE: 1n << 18n,
  SMEP: 1n << 20n,
  SMAP: 1n << 21n,
  PKE: 1n << 22n,
  CET: 1n << 23n,
} as const;

/** EFER bits (APM vol.2 §3.1.7). */
export const EFER = {
  SCE: 1n << 0n,
  LME: 1n << 8n,
  LMA: 1n << 10n,
  NXE: 1n << 11n,
  SVME: 1n << 12n,
  LMSLE: 1n << 13n,
  FFXSR: 1n << 14n,
  TCE: 1n << 15n,
} as const;

/**
 * A register delta: 9 bytes for each changed slot, ascending: slot number, then the new value, little-endian.
 * The form in which events carry registers; made by the engine or by `encodeDelta`.
 */
export type RegisterDelta = Uint8Array;
export const DELTA_ENTRY_BYTES = 9;
export const EMPTY_DELTA: RegisterDelta = new Uint8Array(0);

/** @param changes slots in any order; the last value of a slot counts. */
export function encodeDelta(changes: Iterable<readonly [Slot, bigint]>): RegisterDelta {
  const entries = [...new Map(changes)].sort(([a], [b]) => a - b);
  const delta = new Uint8Array(entries.length * DELTA_ENTRY_BYTES);
  const view = new DataView(delta.buffer);
  let at = 0;
  for (const [slot, value] of entries) {
    delta[at] = slot;
    view.setBigUint64(at + 1, value, true);
    at += DELTA_ENTRY_BYTES;
  }
  return delta;
}

/** The slots and values of a delta, in order. */
export function* decodeDelta(delta: RegisterDelta): Generator<readonly [Slot, bigint]> {
  const view = new DataView(delta.buffer, delta.byteOffset, delta.byteLength);
  for (let at = 0; at < delta.length; at += DELTA_ENTRY_BYTES) {
    yield [view.getUint8(at) as Slot, view.getBigUint64(at + 1, true)];
  }
}

/** Writes a delta into `registers`, in place. */
export function applyDelta(registers: Registers, delta: RegisterDelta): void {
  if (registers instanceof BigUint64Array) {
    applyToMemory(registers, delta);
    return;
  }
  const view = new DataView(delta.buffer, delta.byteOffset, delta.byteLength);
  for (let at = 0; at < delta.length; at += DELTA_ENTRY_BYTES) {
    registers[view.getUint8(at) as Slot] = view.getBigUint64(at + 1, true);
  }
}

/** The same for registers in memory, in halves: no bigint is made. */
function applyToMemory(registers: BigUint64Array, delta: RegisterDelta): void {
  const words = halvesOf(registers);
  for (let at = 0; at < delta.length; at += DELTA_ENTRY_BYTES) {
    const word = 2 * (delta[at] as number);
    words[word] = word32At(delta, at + 1);
    words[word + 1] = word32At(delta, at + 5);
  }
}

/** The registers as 32-bit words. Making the view costs more than what it is for, so that of each file is made once. */
function halvesOf(registers: BigUint64Array): Uint32Array {
  const known = HALVES.get(registers);
  if (known !== undefined) return known;
  const halves = new Uint32Array(registers.buffer, registers.byteOffset, 2 * registers.length);
  HALVES.set(registers, halves);
  return halves;
}
const HALVES = new WeakMap<BigUint64Array, Uint32Array>();

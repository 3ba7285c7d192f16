/**
 * System-management mode: what an SMI saves and where its handler starts, and the way back by RSM.
 *
 * The state-save area and the handler lie in ordinary RAM: ASeg and TSeg are not set apart. No firmware puts a handler
 * there, so an SMI that finds only zeros at its entry point is one whose handler merely returns. What the area has no
 * place for (CPL, shadows, pending debug traps, whether NMIs were blocked) waits in the upper half of `boundary`. A
 * guest that an SMI interrupts, not intercepted, stays behind the handler: SVM Guest in the area says so.
 * No SMI here stems from an I/O instruction, so the restart dword is never valid.
 * Source: APM vol.2 §10.2 SMM Resources (table 10-1), §10.3 Using SMM (table 10-3), §10.4 Leaving SMM, §15.22 SMM Support.
 */
import { GuestFault, invalidOpcode } from '../faults.js';
import {
  Activity,
  Boundary,
  CR0,
  CR4,
  EFER,
  Flag,
  gprSlot,
  R,
  Segment,
  type Slot,
  SvmMode,
  segmentSlot,
} from '../layout/cpu-state.js';
import { VMCB_BYTES } from '../layout/vmcb.js';
import { signExtend, sPA, uN } from '../units.js';
import { loadPdptes } from './control-registers.js';
import { cr4Mask, eferMask } from './cpuid.js';
import { DR7 } from './debug.js';
import { attributesOf, limitOf, packSegment, selectorOf, setSegment } from './descriptors.js';
import { Shutdown } from './shutdown.js';
import type { SystemContext } from './system-context.js';
import type { Transaction } from './transaction.js';

/** SMBASE after RESET. */
export const SMBASE_RESET = 0x3_0000n;
const ENTRY = 0x8000;
/** How much of the handler is looked at. */
const ENTRY_BYTES = 16;

/** Offsets from SMBASE (table 10-1). Segment registers have 16 bytes each. */
const Area = {
  SEGMENTS: 0xfe00,
  GDTR: 0xfe60,
  LDTR: 0xfe70,
  IDTR: 0xfe80,
  TR: 0xfe90,
  IO_RIP: 0xfea0,
  IO_RCX: 0xfea8,
  IO_RSI: 0xfeb0,
  IO_RDI: 0xfeb8,
  IO_DWORD: 0xfec0,
  IO_RESTART: 0xfec8,
  AUTO_HALT: 0xfec9,
  EFER: 0xfed0,
  SVM_GUEST: 0xfed8,
  SVM_VMCB: 0xfee0,
  SVM_INTERRUPT: 0xfee8,
  REVISION: 0xfefc,
  SMBASE: 0xff00,
  SVM_PAT: 0xff20,
  SVM_HOST_EFER: 0xff28,
  SVM_HOST_CR4: 0xff30,
  SVM_HOST_CR3: 0xff38,
  SVM_HOST_CR0: 0xff40,
  CR4: 0xff48,
  CR3: 0xff50,
  CR0: 0xff58,
  DR7: 0xff60,
  DR6: 0xff68,
  RFLAGS: 0xff70,
  RIP: 0xff78,
  /** R15 first, RAX last. */
  REGISTERS: 0xff80,
} as const;

/** SMBASE relocation, I/O instruction restart, and the level of AMD64 (§10.2.4). */
const REVISION = 0x3_0064n;

/** The slots that stand in the area as they are. */
const PLAIN: readonly (readonly [number, Slot])[] = [
  [Area.EFER, R.efer],
  [Area.CR4, R.cr4],
  [Area.CR3, R.cr3],
  [Area.CR0, R.cr0],
  [Area.DR7, R.dr7],
  [Area.DR6, R.dr6],
  [Area.RFLAGS, R.rflags],
  [Area.RIP, R.rip],
];
/** What RSM does not read. */
const SVM_STATE: readonly (readonly [number, Slot])[] = [
  [Area.SVM_VMCB, R.vmcb],
  [Area.SVM_INTERRUPT, R.intControl],
  [Area.SVM_PAT, R.guestPat],
  [Area.SVM_HOST_EFER, R.hostEfer],
  [Area.SVM_HOST_CR4, R.hostCr4],
  [Area.SVM_HOST_CR3, R.hostCr3],
  [Area.SVM_HOST_CR0, R.hostCr0],
];
const { ES, CS, SS, DS, FS, GS, LDTR, TR } = Segment;
const SEGMENT_PLACES: readonly (readonly [number, number])[] = [
  ...[ES, CS, SS, DS, FS, GS].map((number): readonly [number, number] => [Area.SEGMENTS + 16 * number, number]),
  [Area.LDTR, LDTR],
  [Area.TR, TR],
];
const TABLES: readonly (readonly [number, Slot, Slot])[] = [
  [Area.GDTR, R.gdtrLimit, R.gdtrBase],
  [Area.IDTR, R.idtrLimit, R.idtrBase],
];
const registerPlace = (number: number): number => Area.REGISTERS + 8 * (15 - number);

/** Present, writable, four gigabytes. */
const FLAT_ATTRIBUTES = 0x893;
const FLAT_LIMIT = 0xffff_ffff;
/** What of `boundary` belongs to the interrupted program. */
const INTERRUPTED =
  Boundary.INTERRUPT_SHADOW |
  Boundary.DEBUG_SHADOW |
  Boundary.NMI_BLOCKED |
  Boundary.SINGLE_STEP |
  Boundary.BUS_LOCK |
  (0xfn << Boundary.BREAKPOINTS_SHIFT);
const CPL_SHIFT = 12n;

/** True when an SMI has a handler to go to. */
export function hasHandler(tx: Transaction): boolean {
  const base = Number(tx.get(R.smBase));
  if (!tx.host.memory.isRam(base, 0x1_0000)) return false;
  return [0, 8].some((offset) => tx.readPhysical(sPA(base + ENTRY + offset), ENTRY_BYTES / 2) !== 0n);
}

/** Saves the state and enters the handler. */
export function enterSmm(tx: Transaction): void {
  const base = tx.get(R.smBase);
  save(tx, Number(base));
  const boundary = tx.get(R.boundary);
  const interrupted = (boundary & INTERRUPTED) | (tx.get(R.cpl) << CPL_SHIFT);
  tx.set(
    R.boundary,
    (boundary & ~INTERRUPTED) | Boundary.IN_SMM | Boundary.NMI_BLOCKED | (interrupted << Boundary.SMM_SHIFT),
  );
  tx.set(R.activity, Activity.RUNNING);
  tx.set(R.svmMode, tx.get(R.svmMode) & ~SvmMode.GUEST);
  for (const number of [ES, SS, DS, FS, GS]) setSegment(tx, number, packSegment(0, FLAT_ATTRIBUTES, FLAT_LIMIT), 0n);
  setSegment(tx, CS, packSegment(Number(uN(16, base >> 4n)), FLAT_ATTRIBUTES, FLAT_LIMIT), base);
  tx.set(R.cpl, 0n);
  tx.set(R.rip, BigInt(ENTRY));
  tx.set(R.rflags, Flag.ONE);
  tx.set(R.cr0, tx.get(R.cr0) & ~(CR0.PE | CR0.EM | CR0.TS | CR0.PG));
  tx.set(R.cr4, 0n);
  tx.set(R.dr7, DR7.ONE);
  tx.set(R.efer, 0n);
}

function save(tx: Transaction, base: number): void {
  const put = (offset: number, size: number, value: bigint): void =>
    tx.writePhysical(sPA(base + offset), size, uN(8 * size, value));
  for (const [offset, number] of SEGMENT_PLACES) {
    const word = tx.get(segmentSlot(number));
    put(offset, 2, BigInt(selectorOf(word)));
    put(offset + 2, 2, BigInt(attributesOf(word)));
    put(offset + 4, 4, BigInt(limitOf(word)));
    put(offset + 8, 8, tx.get((segmentSlot(number) + 1) as Slot));
  }
  for (const [offset, limit, tableBase] of TABLES) {
    put(offset + 4, 2, tx.get(limit));
    put(offset + 8, 8, tx.get(tableBase));
  }
  for (const [offset, slot] of [...PLAIN, ...SVM_STATE]) put(offset, 8, tx.get(slot));
  for (let number = 0; number < 16; number++) put(registerPlace(number), 8, tx.get(gprSlot(number)));
  put(Area.IO_RIP, 8, tx.get(R.rip));
  put(Area.IO_RCX, 8, tx.get(R.rcx));
  put(Area.IO_RSI, 8, tx.get(R.rsi));
  put(Area.IO_RDI, 8, tx.get(R.rdi));
  put(Area.IO_DWORD, 4, 0n);
  put(Area.IO_RESTART, 1, 0n);
  put(Area.AUTO_HALT, 1, tx.get(R.activity) === Activity.HALTED ? 1n : 0n);
  put(Area.SVM_GUEST, 8, tx.get(R.svmMode) & SvmMode.GUEST);
  put(Area.REVISION, 4, REVISION);
  put(Area.SMBASE, 4, tx.get(R.smBase));
}

/**
 * RSM, past its intercept.
 * @throws GuestFault #UD outside SMM; Shutdown.
 */
export function resume(context: SystemContext): void {
  const { tx } = context;
  const boundary = tx.get(R.boundary);
  if ((boundary & Boundary.IN_SMM) === 0n) throw invalidOpcode();
  context.intercept('RSM', {}, 'after-privilege');
  const base = Number(tx.get(R.smBase));
  const read = (offset: number, size: number): bigint => tx.readPhysical(sPA(base + offset), size);
  for (const [offset, slot] of PLAIN) tx.set(slot, read(offset, 8));
  for (let number = 0; number < 16; number++) tx.set(gprSlot(number), read(registerPlace(number), 8));
  restoreSegments(tx, read);
  restoreControl(context, read(Area.REVISION, 4));
  if (read(Area.IO_RESTART, 1) !== 0n) restartIo(tx, read);
  const interrupted = boundary >> Boundary.SMM_SHIFT;
  tx.set(R.boundary, (boundary & uN(12, ~INTERRUPTED)) | (interrupted & INTERRUPTED));
  tx.set(R.cpl, (tx.get(R.rflags) & Flag.VM) === 0n ? (interrupted >> CPL_SHIFT) & 3n : 3n);
  tx.set(R.activity, read(Area.AUTO_HALT, 1) === 0n ? Activity.RUNNING : Activity.HALTED);
  tx.set(R.svmMode, tx.get(R.svmMode) | (read(Area.SVM_GUEST, 8) & SvmMode.GUEST));
  // A #VMEXIT of the guest that goes on will find its VMCB by this address alone.
  tx.host.memory.touch(Number(tx.get(R.vmcb)), VMCB_BYTES);
  tx.set(R.smBase, read(Area.SMBASE, 4));
  loadPointers(tx);
  context.flushTlb({ scope: 'all' });
}

type ReadArea = (offset: number, size: number) => bigint;

/** Bases are made canonical, and those that long mode does not use are cut (§10.4). */
function restoreSegments(tx: Transaction, read: ReadArea): void {
  for (const [offset, number] of SEGMENT_PLACES) {
    const word = packSegment(Number(read(offset, 2)), Number(read(offset + 2, 2)), Number(read(offset + 4, 4)));
    const segmentBase = read(offset + 8, 8);
    setSegment(tx, number, word, number <= DS ? uN(32, segmentBase) : signExtend(48, segmentBase));
  }
  for (const [offset, limit, tableBase] of TABLES) {
    tx.set(limit, read(offset + 4, 2));
    tx.set(tableBase, signExtend(48, read(offset + 8, 8)));
  }
}

const HIGH_WORD = ~0xffff_ffffn;
/** L and D of a code segment, at bits 31:16 of the packed word. */
const [CODE_LONG, CODE_BIG] = [1n << 25n, 1n << 26n];
const RFLAGS_BITS = 0x003f_7fd5n;

/** What the restored registers must not be, and what is derived from them (§10.4 Leaving SMM). @throws Shutdown */
function restoreControl({ tx, profile }: SystemContext, revision: bigint): void {
  const [cr0, cr3, cr4, efer] = [tx.get(R.cr0), tx.get(R.cr3), tx.get(R.cr4), tx.get(R.efer)];
  const paging = (cr0 & CR0.PG) !== 0n;
  const long = paging && (efer & EFER.LME) !== 0n;
  const cs = tx.get(R.cs);
  const illegal =
    (paging && (cr0 & CR0.PE) === 0n) ||
    ((cr0 & CR0.NW) !== 0n && (cr0 & CR0.CD) === 0n) ||
    (cr0 & HIGH_WORD) !== 0n ||
    cr3 >> BigInt(profile.physicalAddressBits) !== 0n ||
    (cr4 & ~cr4Mask(profile)) !== 0n ||
    ((tx.get(R.dr6) | tx.get(R.dr7)) & HIGH_WORD) !== 0n ||
    (efer & ~(eferMask(profile) | EFER.LMA)) !== 0n ||
    (long && (cr4 & CR4.PAE) === 0n) ||
    (long && (cs & CODE_LONG) !== 0n && (cs & CODE_BIG) !== 0n) ||
    revision !== REVISION;
  if (illegal) throw new Shutdown();
  tx.set(R.efer, long ? efer | EFER.LMA : efer & ~EFER.LMA);
  const rflags = (tx.get(R.rflags) & RFLAGS_BITS) | Flag.ONE;
  const virtual8086 = (cr0 & CR0.PE) !== 0n && !long;
  tx.set(R.rflags, virtual8086 ? rflags : rflags & ~Flag.VM);
}

/** The handler asks for the I/O instruction again (§10.3.8). */
function restartIo(tx: Transaction, read: ReadArea): void {
  tx.set(R.rip, read(Area.IO_RIP, 8));
  tx.set(R.rcx, read(Area.IO_RCX, 8));
  tx.set(R.rsi, read(Area.IO_RSI, 8));
  tx.set(R.rdi, read(Area.IO_RDI, 8));
}

/** Page-directory pointers of a return to PAE paging. @throws Shutdown when they have reserved bits set. */
function loadPointers(tx: Transaction): void {
  const pae = (tx.get(R.cr0) & CR0.PG) !== 0n && (tx.get(R.cr4) & CR4.PAE) !== 0n;
  if (!pae || (tx.get(R.efer) & EFER.LMA) !== 0n) return;
  try {
    loadPdptes(tx, tx.get(R.cr3));
  } catch (fault) {
    throw fault instanceof GuestFault ? new Shutdown() : fault;
  }
}

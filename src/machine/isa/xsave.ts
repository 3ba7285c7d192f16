/**
 * Saving and restoring extended processor state: XSAVE, XSAVEOPT, XSAVEC, XSAVES, XRSTOR, XRSTORS.
 * Source: APM vol.4, XSAVE, XSAVEOPT, XSAVEC, XRSTOR; APM vol.3, XSAVES, XRSTORS; APM vol.2 §11.5 XSAVE/XRSTOR Instructions.
 *
 * The initialisation optimisation is taken whenever a state has its initial value, the modified optimisation never:
 * what is saved is a function of the registers. MXCSR goes with SSE in the compacted format; in the standard format it
 * is saved and restored with SSE or AVX, whatever XSTATE_BV says.
 */
import { checkSegment } from '../cpu/segments.js';
import { type SystemContext, systemInstruction } from '../cpu/system-context.js';
import { Access } from '../cpu/transaction.js';
import {
  AVX_STATE,
  highHalf,
  MXCSR_INIT,
  statesInUse,
  vectorCount,
  X87_INIT,
  XState,
  xmmInUse,
} from '../cpu/xstate.js';
import { deviceNotAvailable, generalProtection, invalidOpcode } from '../faults.js';
import { CR0, CR4, R, type Slot, xmmSlot, ymmSlot } from '../layout/cpu-state.js';
import { uN } from '../units.js';
import {
  Image,
  loadVectors,
  loadX87,
  type Put,
  saveMxcsr,
  saveVectors,
  saveX87,
  type Take,
  takeMxcsr,
} from './fpu-control.js';
import { type Feature, Gpr, type Instruction } from './instruction.js';
import { memoryAt, readIn, requireCpl0, writeIn } from './system-operands.js';

/** The header behind the legacy region (APM vol.2 §11.5.4 XSAVE Area). */
const Header = { STATE_BV: 512, COMP_BV: 520, RESERVED: 528, END: 576 } as const;
const COMPACTED = 1n << 63n;
const AREA_ALIGNMENT = 63n;
const MXCSR_USERS = XState.SSE | XState.AVX;

interface Area {
  readonly put: Put;
  readonly take: Take;
  /** XCR0, with XSS for the supervisor's instructions. */
  readonly enabled: bigint;
  /** The requested-feature bitmap: those of them that EDX:EAX names. */
  readonly requested: bigint;
}

/** @throws GuestFault #UD, #NM; #GP(0) by privilege and alignment. */
function openArea(context: SystemContext, access: number, supervisor: boolean): Area {
  const { tx, ops } = context;
  if ((tx.get(R.cr4) & CR4.OSXSAVE) === 0n) throw invalidOpcode();
  if ((tx.get(R.cr0) & CR0.TS) !== 0n) throw deviceNotAvailable();
  if (supervisor) requireCpl0(context);
  const memory = memoryAt(context, 0);
  const linear = checkSegment(tx, memory.segment, ops.address(memory), 1, access);
  if ((linear & AREA_ALIGNMENT) !== 0n) throw generalProtection();
  const enabled = tx.get(R.xcr0) | (supervisor ? tx.get(R.xss) : 0n);
  return {
    put: (offset, size, value) => writeIn(context, memory, offset, size, uN(8 * size, value)),
    take: (offset, size) => readIn(context, memory, offset, size),
    enabled,
    requested: enabled & ((ops.readGpr(Gpr.RDX, 32) << 32n) | ops.readGpr(Gpr.RAX, 32)),
  };
}

/** Writes the states of `components` without MXCSR. */
function saveStates(context: SystemContext, put: Put, components: bigint): void {
  const { tx } = context;
  if ((components & XState.X87) !== 0n) saveX87(context, put);
  if ((components & XState.SSE) !== 0n) saveVectors(tx, put, Image.XMM, xmmSlot);
  if ((components & XState.AVX) !== 0n) saveVectors(tx, put, AVX_STATE.offset, ymmSlot);
}

/** XSAVE and XSAVEOPT: of the header only XSTATE_BV is written, and in it only the bits of requested states. */
function saveStandard(context: SystemContext, optimised: boolean): void {
  const { tx } = context;
  const { put, take, requested } = openArea(context, Access.WRITE, false);
  const sse = xmmInUse(tx) ? XState.SSE : 0n;
  const inUse = (statesInUse(tx) & ~XState.SSE) | sse;
  const stateBv = take(Header.STATE_BV, 8);
  saveStates(context, put, optimised ? requested & inUse : requested);
  if ((requested & MXCSR_USERS) !== 0n) saveMxcsr(context, put);
  put(Header.STATE_BV, 8, (stateBv & ~requested) | (requested & inUse));
  context.plain();
}

/** XSAVEC and XSAVES: the whole of XSTATE_BV and XCOMP_BV is written, and only states in use. */
function saveCompacted(context: SystemContext, supervisor: boolean): void {
  const { put, requested } = openArea(context, Access.WRITE, supervisor);
  const saved = requested & statesInUse(context.tx);
  saveStates(context, put, saved);
  if ((saved & XState.SSE) !== 0n) saveMxcsr(context, put);
  put(Header.STATE_BV, 8, saved);
  put(Header.COMP_BV, 8, requested | COMPACTED);
  context.plain();
}

/**
 * @returns XSTATE_BV, and whether the format is the compacted one.
 * @throws GuestFault #GP(0) when the header is not one that this processor could have written.
 */
function checkHeader(
  { profile }: SystemContext,
  { take, enabled }: Area,
  supervisor: boolean,
): { readonly stateBv: bigint; readonly compacted: boolean } {
  const stateBv = take(Header.STATE_BV, 8);
  const compBv = take(Header.COMP_BV, 8);
  const compacted = (compBv & COMPACTED) !== 0n && profile.features.has('xsavec');
  if (supervisor && !compacted) throw generalProtection();
  const layout = compacted ? compBv & ~COMPACTED : enabled;
  if ((layout & ~enabled) !== 0n || (stateBv & ~layout) !== 0n) throw generalProtection();
  if (!compacted && compBv !== 0n) throw generalProtection();
  const reservedEnd = compacted ? Header.END : Header.RESERVED + 8;
  for (let at = Header.RESERVED; at < reservedEnd; at += 8) if (take(at, 8) !== 0n) throw generalProtection();
  return { stateBv, compacted };
}

function clearVectors({ tx }: SystemContext, slotOf: (number: number) => Slot): void {
  for (let number = 0; number < vectorCount(tx); number++) {
    tx.set(slotOf(number), 0n);
    tx.set(highHalf(slotOf(number)), 0n);
  }
}

/** Requested states come from the area, or are initialised where XSTATE_BV says that it has none. */
function restore(context: SystemContext, supervisor: boolean): void {
  const { tx } = context;
  const area = openArea(context, Access.READ, supervisor);
  const { take, requested } = area;
  const { stateBv, compacted } = checkHeader(context, area, supervisor);
  const has = (set: bigint, state: bigint): boolean => (set & state) !== 0n;
  if (compacted ? has(requested & stateBv, XState.SSE) : has(requested, MXCSR_USERS)) {
    tx.set(R.mxcsr, takeMxcsr(take));
  } else if (has(requested, XState.SSE)) tx.set(R.mxcsr, MXCSR_INIT);
  if (has(requested, XState.X87)) {
    if (has(stateBv, XState.X87)) loadX87(context, take);
    else for (const [slot, value] of X87_INIT) tx.set(slot, value);
  }
  if (has(requested, XState.SSE)) {
    if (has(stateBv, XState.SSE)) loadVectors(tx, take, Image.XMM, xmmSlot);
    else clearVectors(context, xmmSlot);
  }
  if (has(requested, XState.AVX)) {
    if (has(stateBv, XState.AVX)) loadVectors(tx, take, AVX_STATE.offset, ymmSlot);
    else clearVectors(context, ymmSlot);
  }
  context.plain();
}

/** REX.W gives the 64-bit forms: XSAVE64 and so on. */
const xsave = (
  mnemonic: string,
  form: string,
  feature: Feature,
  execute: (context: SystemContext) => void,
): Instruction =>
  systemInstruction({ mnemonic, source: `APM vol.4, ${mnemonic}`, forms: [form], feature, system: execute });

export const XSAVE_INSTRUCTIONS: readonly Instruction[] = [
  xsave('XSAVE', 'NP 0F AE /4: M', 'xsave', (context) => saveStandard(context, false)),
  xsave('XSAVEOPT', 'NP 0F AE /6: M', 'xsaveopt', (context) => saveStandard(context, true)),
  xsave('XSAVEC', 'NP 0F C7 /4: M', 'xsavec', (context) => saveCompacted(context, false)),
  xsave('XSAVES', 'NP 0F C7 /5: M', 'xsaves', (context) => saveCompacted(context, true)),
  xsave('XRSTOR', 'NP 0F AE /5: M', 'xsave', (context) => restore(context, false)),
  xsave('XRSTORS', 'NP 0F C7 /3: M', 'xsaves', (context) => restore(context, true)),
];

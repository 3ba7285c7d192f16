/**
 * What a debugger's write to registers comes to: the processor's own rules for the instruction that would write there say
 * what is refused and what else changes. They run on a transaction of their own, with no intercepts and no devices, so that
 * a refusal leaves nothing behind.
 * Source: APM vol.2 §3.1 System-Control Registers, §4.5 Segment Registers, §13.1.1 Debug Registers, §1.3.2 Long Mode.
 */
import { debugValue, writeCr0, writeCr2, writeCr3, writeCr4 } from './cpu/control-registers.js';
import { DebuggerContext, NotForDebuggers } from './cpu/debugger-context.js';
import { selectorOf } from './cpu/descriptors.js';
import { hasParagraphs, is64Bit, isLongMode } from './cpu/mode.js';
import { msrOfSlot, writeMsr } from './cpu/msr.js';
import { loadParagraph, loadSegment } from './cpu/segments.js';
import { isStoredMsr } from './cpu/stored-msrs.js';
import { isLegalXcr0 } from './cpu/xstate.js';
import type { DebuggerInput } from './debugger-input.js';
import { InputError } from './errors.js';
import { GuestFault, VECTOR_NAMES } from './faults.js';
import { MXCSR_BITS } from './isa/fpu-control.js';
import { controlWord, withSummary } from './isa/x87-unit.js';
import { Flag, R, REGISTER_NAMES, Segment, type Slot, SvmMode, segmentSlot } from './layout/cpu-state.js';
import type { Machine } from './machine.js';
import { isCanonical, PAGE_BYTES } from './units.js';

/** What a debugger asks for. */
export type DebuggerEdit =
  /** A register by its slot; of a segment register its base or, by `selector`, the register as a load would leave it. */
  | { readonly kind: 'register'; readonly slot: Slot; readonly value: bigint }
  | { readonly kind: 'selector'; readonly segment: number; readonly selector: number }
  | { readonly kind: 'msr'; readonly msr: number; readonly value: bigint }
  /** RAM from a sPA on. */
  | { readonly kind: 'memory'; readonly address: number; readonly data: Uint8Array };

/** RFLAGS bits that exist (APM vol.2 §3.1.6 RFLAGS Register). */
const RFLAGS_BITS = Object.values(Flag).reduce((all, flag) => all | flag, 0n);

type Rule = (context: DebuggerContext, value: bigint) => void;

const plain =
  (slot: Slot, bits = 64): Rule =>
  ({ tx }, value) => {
    if (value >> BigInt(bits) !== 0n) throw new NotForDebuggers(`it has ${bits} bits`);
    tx.set(slot, value);
  };

const linear =
  (slot: Slot): Rule =>
  ({ tx }, value) => {
    if (!isCanonical(value)) throw new NotForDebuggers('the address is not canonical');
    tx.set(slot, value);
  };

const throughMsr =
  (msr: number): Rule =>
  (context, value) => {
    writeMsr(context, msr, value);
  };

function writeRip({ tx }: DebuggerContext, value: bigint): void {
  if (is64Bit(tx) && !isCanonical(value)) throw new NotForDebuggers('the address is not canonical');
  if (!is64Bit(tx) && value >> 32n !== 0n) throw new NotForDebuggers('outside 64-bit mode it has 32 bits');
  tx.set(R.rip, value);
}

function writeRflags({ tx }: DebuggerContext, value: bigint): void {
  if ((value & ~RFLAGS_BITS) !== 0n) throw new NotForDebuggers('it sets reserved bits');
  if ((value & Flag.ONE) === 0n) throw new NotForDebuggers('bit 1 is always one');
  if (((value ^ tx.get(R.rflags)) & Flag.VM) !== 0n) {
    throw new NotForDebuggers('virtual-8086 mode is entered and left by IRET and by task switches, with all segments');
  }
  tx.set(R.rflags, value);
}

function writeXcr0({ tx, profile }: DebuggerContext, value: bigint): void {
  if (!profile.features.has('xsave')) throw new NotForDebuggers('the processor has no XSAVE');
  if (!isLegalXcr0(profile, value))
    throw new NotForDebuggers('it sets reserved bits, or AVX without SSE, or clears x87');
  tx.set(R.xcr0, value);
}

const debugRegister =
  (number: number): Rule =>
  ({ tx, profile }, value) =>
    tx.set((R.dr0 + (number < 4 ? number : number - 2)) as Slot, debugValue(profile, number, value));

/** Hidden bases: 64 bits where they have an effect in long mode, else 32. */
const base =
  (slot: Slot, wide: boolean): Rule =>
  (context, value) => {
    if (wide && isLongMode(context.tx)) linear(slot)(context, value);
    else plain(slot, 32)(context, value);
  };

/** A guest under nested paging has one of its own (APM vol.2 §15.25.8 Combining Memory Types, MTRRs). */
function writePat(context: DebuggerContext, value: bigint): void {
  if ((context.tx.get(R.svmMode) & SvmMode.GUEST) !== 0n)
    throw new NotForDebuggers('a guest runs, which may have its own');
  writeMsr(context, MSR_PAT, value);
}
const MSR_PAT = 0x277;

function writeGif({ tx }: DebuggerContext, value: bigint): void {
  const mode = tx.get(R.svmMode);
  if ((mode & SvmMode.GUEST) !== 0n && (value & SvmMode.GIF) === 0n) {
    throw new NotForDebuggers('a guest runs with GIF set');
  }
  if (((value ^ mode) & ~SvmMode.GIF) !== 0n)
    throw new NotForDebuggers('only VMRUN and #VMEXIT enter and leave a guest');
  tx.set(R.svmMode, value);
}

/** Slots that a debugger may write, each with its rule. What is not here belongs to the processor alone. */
const RULES: ReadonlyMap<Slot, Rule> = new Map<Slot, Rule>([
  ...range(R.rax, 16).map((slot) => [slot, plain(slot)] as const),
  [R.rip, writeRip],
  [R.rflags, writeRflags],
  // What the hypervisor finds behind its guest's #VMEXIT.
  [R.hostRip, linear(R.hostRip)],
  [R.hostRsp, plain(R.hostRsp)],
  [R.hostRax, plain(R.hostRax)],
  ...[R.esBase, R.csBase, R.ssBase, R.dsBase].map((slot) => [slot, base(slot, false)] as const),
  ...[R.ldtrBase, R.trBase, R.gdtrBase, R.idtrBase].map((slot) => [slot, base(slot, true)] as const),
  [R.fsBase, base(R.fsBase, true)],
  [R.gsBase, base(R.gsBase, true)],
  ...[R.gdtrLimit, R.idtrLimit].map((slot) => [slot, plain(slot, 16)] as const),
  [R.cr0, (context, value) => writeCr0(context, value, false, 0n)],
  [R.cr2, (context, value) => writeCr2(context, value, 0n)],
  [R.cr3, (context, value) => writeCr3(context, value, 0n)],
  [R.cr4, (context, value) => writeCr4(context, value, 0n)],
  [R.xcr0, writeXcr0],
  ...[0, 1, 2, 3, 6, 7].map(
    (number) => [(R.dr0 + (number < 4 ? number : number - 2)) as Slot, debugRegister(number)] as const,
  ),
  [R.pat, writePat],
  [R.svmMode, writeGif],
  [
    R.fcw,
    ({ tx }, value) => {
      tx.set(R.fcw, controlWord(value));
      tx.set(R.fsw, withSummary(tx.get(R.fsw), controlWord(value)));
    },
  ],
  [R.fsw, ({ tx }, value) => tx.set(R.fsw, withSummary(BigInt.asUintN(16, value), tx.get(R.fcw)))],
  [R.ftw, plain(R.ftw, 8)],
  [R.fop, plain(R.fop, 11)],
  [R.fip, plain(R.fip)],
  [R.fdp, plain(R.fdp)],
  [
    R.mxcsr,
    ({ tx }, value) => {
      if ((value & ~MXCSR_BITS) !== 0n) throw new NotForDebuggers('it sets reserved bits');
      tx.set(R.mxcsr, value);
    },
  ],
  ...range(R.fpr0, 16).map((slot, index) => [slot, plain(slot, index % 2 === 0 ? 64 : 16)] as const),
  ...range(R.xmm0, 64).map((slot) => [slot, plain(slot)] as const),
]);

function range(first: Slot, count: number): readonly Slot[] {
  return Array.from({ length: count }, (_, index) => (first + index) as Slot);
}

/** Loads a selector as MOV would. CS is loaded by far transfers, which bring a CPL and an entry point along. */
function loadSelector(context: DebuggerContext, segment: number, selector: number): void {
  const { tx } = context;
  if (selectorOf(tx.get(segmentSlot(segment))) === selector) return;
  if (hasParagraphs(tx) && segment <= Segment.GS) loadParagraph(tx, segment, selector);
  else if (segment === Segment.CS || segment > Segment.GS) {
    throw new NotForDebuggers('in protected mode it is loaded by far transfers, LLDT and LTR alone');
  } else loadSegment(tx, segment, selector);
}

/**
 * Works out what edits come to, all of them or none.
 * @param machine stands between two steps.
 * @returns inputs to deliver, in order; none where nothing changes.
 * @throws InputError naming the first edit that cannot be.
 */
export function decideDebuggerWrite(
  machine: Machine,
  target: number,
  edits: readonly DebuggerEdit[],
): readonly DebuggerInput[] {
  const context = new DebuggerContext(machine, target);
  const inputs: DebuggerInput[] = [];
  for (const edit of edits) {
    try {
      const input = apply(machine, context, target, edit);
      if (input !== undefined) inputs.push(input);
    } catch (error) {
      throw new InputError(nameOf(edit), reasonOf(error), 'Nothing was written.');
    }
  }
  const changes = context.tx.delta().slice();
  return changes.length === 0 ? inputs : [{ type: 'input.debugger-registers', target, changes }, ...inputs];
}

function apply(
  { memory }: Machine,
  context: DebuggerContext,
  target: number,
  edit: DebuggerEdit,
): DebuggerInput | undefined {
  switch (edit.kind) {
    case 'memory':
      if (!memory.isRam(edit.address, edit.data.length)) throw new NotForDebuggers('it is no RAM');
      if ((edit.address % PAGE_BYTES) + edit.data.length > PAGE_BYTES) throw new NotForDebuggers('it crosses a page');
      return edit.data.length === 0
        ? undefined
        : { type: 'input.debugger-memory', address: edit.address, data: edit.data.slice() };
    case 'selector':
      loadSelector(context, edit.segment, edit.selector);
      return undefined;
    case 'msr':
      writeMsr(context, edit.msr, edit.value);
      return isStoredMsr(edit.msr)
        ? { type: 'input.debugger-msr', target, msr: edit.msr, value: edit.value }
        : undefined;
    case 'register': {
      if (context.tx.get(edit.slot) === edit.value) return undefined;
      const msr = msrOfSlot(edit.slot);
      const rule = RULES.get(edit.slot) ?? (msr === undefined ? undefined : throughMsr(msr));
      if (rule === undefined) throw new NotForDebuggers('only the processor itself changes it');
      rule(context, edit.value);
    }
  }
  return undefined;
}

function nameOf(edit: DebuggerEdit): string {
  switch (edit.kind) {
    case 'memory':
      return `physical 0x${edit.address.toString(16)}`;
    case 'selector':
      return `${REGISTER_NAMES[segmentSlot(edit.segment)]} 0x${edit.selector.toString(16)}`;
    case 'msr':
      return `MSR 0x${edit.msr.toString(16)} = 0x${edit.value.toString(16)}`;
    case 'register':
      return `${REGISTER_NAMES[edit.slot]} = 0x${edit.value.toString(16)}`;
  }
}

function reasonOf(error: unknown): string {
  if (error instanceof NotForDebuggers) return error.message;
  if (error instanceof GuestFault) {
    return `an instruction that writes this gets ${VECTOR_NAMES[error.vector] ?? `vector ${error.vector}`}`;
  }
  if (error instanceof Error) throw error;
  // A world switch, or a shutdown.
  return 'the processor would leave what it does';
}

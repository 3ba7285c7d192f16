/**
 * The table of intercepts: which VMCB bit asks for it, which EXITCODE it gives, and at which *stage* of its instruction
 * the check stands. Intercepts are this data and no code paths: descriptions of instructions call
 * `context.intercept(name)` where the row's stage says, and deviations are small diffs against the rows (`policy/`).
 *
 * Source: APM vol.2 §15.7 Intercept Operation, §15.9 Instruction Intercepts (table 15-7), §15.10 IOIO Intercepts,
 * §15.11 MSR Intercepts, §15.12 Exception Intercepts, §15.13 Interrupt Intercepts, §15.14 Miscellaneous Intercepts;
 * appendix B (table B-1) for the bits.
 */
import { type LowReader, R, type Slot, SvmMode } from '../layout/cpu-state.js';
import {
  crReadExit,
  crWriteExit,
  crWriteTrapExit,
  drReadExit,
  drWriteExit,
  EXCEPTION_VECTORS,
  type ExceptionVector,
  ExitCode,
  exceptionExit,
  REGISTER_NUMBERS,
  type RegisterNumber,
} from './exit-code.js';

const GUEST_MODE = Number(SvmMode.GUEST);

/** Where the check stands among the exceptions of an instruction. */
export type InterceptStage =
  /** Wins against every exception of the instruction. */
  | 'before-exceptions'
  /** After the privilege check alone, before other exceptions of the register that is named. The manual has no row here. */
  | 'after-cpl'
  /** After #UD and the privilege check, before the operand's value is looked at. The manual has no row here. */
  | 'before-operands'
  /** After #UD, the privilege check and what else does not depend on memory; before memory is read or written. */
  | 'after-privilege'
  /** After the exceptions of memory operands as well. */
  | 'after-memory';

/** What raises it. Only instructions take their stage literally. */
export type InterceptKind =
  | 'instruction'
  /** Tested when the exception is recognised, ahead of its combination with an earlier one. */
  | 'exception'
  /** Tested at an instruction boundary. */
  | 'event'
  /** Tested after the instruction has committed. */
  | 'trap'
  /** Tested after the new TSS was validated, before the switch. */
  | 'task-switch';

interface Row {
  /** Byte offset of the control word in the VMCB, and the bit in its 32 bits. */
  readonly offset: 0x000 | 0x004 | 0x008 | 0x00c | 0x010 | 0x014;
  readonly bit: number;
  readonly exitCode: bigint;
  readonly kind: InterceptKind;
  readonly stage: InterceptStage;
  /** What EXITINFO1 and EXITINFO2 hold; undefined where the manual leaves them undefined, and zero is written. */
  readonly info1?: string;
  readonly info2?: string;
  /** EXITINFO1 needs DecodeAssists (APM vol.2 §15.8 Decode Assists); it is zero without. */
  readonly assisted?: true;
}

const MOV_CR = 'bits 3:0 GPR number, bit 63 set for MOV (decode assists)';
const MOV_DR = 'bits 3:0 GPR number (decode assists)';
const NEXT_RIP = 'rIP of the next instruction';

type NumberedName =
  | `CR${RegisterNumber}_${'READ' | 'WRITE' | 'WRITE_TRAP'}`
  | `DR${RegisterNumber}_${'READ' | 'WRITE'}`
  | `EXCEPTION_${ExceptionVector}`;

const before = (bit: number, exitCode: bigint, info1?: string): Row => third('before-exceptions', bit, exitCode, info1);
const after = (bit: number, exitCode: bigint, info1?: string): Row => third('after-privilege', bit, exitCode, info1);
const event = (bit: number, exitCode: bigint): Row => ({ ...before(bit, exitCode), kind: 'event' });
const before4 = (bit: number, exitCode: bigint): Row => ({ ...before(bit, exitCode), offset: 0x010 });
const after4 = (bit: number, exitCode: bigint): Row => ({ ...after(bit, exitCode), offset: 0x010 });
const after5 = (bit: number, exitCode: bigint): Row => ({ ...after(bit, exitCode), offset: 0x014 });

function third(stage: InterceptStage, bit: number, exitCode: bigint, info1?: string): Row {
  return { offset: 0x00c, bit, exitCode, kind: 'instruction', stage, ...(info1 === undefined ? {} : { info1 }) };
}

const NAMED = {
  INTR: event(0, ExitCode.INTR),
  NMI: event(1, ExitCode.NMI),
  SMI: { ...event(2, ExitCode.SMI), info1: 'source of the SMI', info2: 'rIP of the I/O instruction' },
  INIT: event(3, ExitCode.INIT),
  VINTR: event(4, ExitCode.VINTR),
  /** MOV to CR0 that changes more than TS and MP, and every LMSW. CR0_WRITE wins when both are set. */
  CR0_SEL_WRITE: after(5, ExitCode.CR0_SEL_WRITE),
  IDTR_READ: after(6, ExitCode.IDTR_READ),
  GDTR_READ: after(7, ExitCode.GDTR_READ),
  LDTR_READ: after(8, ExitCode.LDTR_READ),
  TR_READ: after(9, ExitCode.TR_READ),
  IDTR_WRITE: after(10, ExitCode.IDTR_WRITE),
  GDTR_WRITE: after(11, ExitCode.GDTR_WRITE),
  LDTR_WRITE: after(12, ExitCode.LDTR_WRITE),
  TR_WRITE: after(13, ExitCode.TR_WRITE),
  RDTSC: after(14, ExitCode.RDTSC),
  RDPMC: after(15, ExitCode.RDPMC),
  PUSHF: before(16, ExitCode.PUSHF),
  POPF: before(17, ExitCode.POPF),
  CPUID: before(18, ExitCode.CPUID),
  RSM: before(19, ExitCode.RSM),
  IRET: before(20, ExitCode.IRET),
  INTn: { ...before(21, ExitCode.SWINT, 'vector (decode assists)'), assisted: true },
  INVD: after(22, ExitCode.INVD),
  PAUSE: before(23, ExitCode.PAUSE),
  HLT: after(24, ExitCode.HLT),
  INVLPG: { ...after(25, ExitCode.INVLPG, 'linear address (decode assists)'), assisted: true },
  INVLPGA: after(26, ExitCode.INVLPGA),
  IOIO_PROT: { ...after(27, ExitCode.IOIO, 'kind, size and port of the access'), info2: NEXT_RIP },
  MSR_PROT: after(28, ExitCode.MSR, '0 for RDMSR, 1 for WRMSR'),
  TASK_SWITCH: {
    ...third('after-memory', 29, ExitCode.TASK_SWITCH, 'selector of the incoming TSS'),
    info2: 'error code, and how the switch came about',
    kind: 'task-switch',
  },
  FERR_FREEZE: event(30, ExitCode.FERR_FREEZE),
  SHUTDOWN: event(31, ExitCode.SHUTDOWN),
  /** Must be set in every VMCB that runs. */
  VMRUN: after4(0, ExitCode.VMRUN),
  VMMCALL: before4(1, ExitCode.VMMCALL),
  VMLOAD: after4(2, ExitCode.VMLOAD),
  VMSAVE: after4(3, ExitCode.VMSAVE),
  STGI: after4(4, ExitCode.STGI),
  CLGI: after4(5, ExitCode.CLGI),
  SKINIT: after4(6, ExitCode.SKINIT),
  RDTSCP: after4(7, ExitCode.RDTSCP),
  ICEBP: before4(8, ExitCode.ICEBP),
  WBINVD: after4(9, ExitCode.WBINVD),
  MONITOR: { ...after4(10, ExitCode.MONITOR), stage: 'after-memory' },
  MWAIT: after4(11, ExitCode.MWAIT),
  /** Only when the monitor is armed; tested before MWAIT. */
  MWAIT_ARMED: after4(12, ExitCode.MWAIT_CONDITIONAL),
  /** After the #UD of CR4.OSXSAVE, before #GP. */
  XSETBV: before4(13, ExitCode.XSETBV),
  RDPRU: after4(14, ExitCode.RDPRU),
  EFER_WRITE_TRAP: {
    ...after4(15, ExitCode.EFER_WRITE_TRAP),
    kind: 'trap',
    stage: 'after-memory',
    info1: 'value written',
  },
  INVLPGB: after5(0, ExitCode.INVLPGB),
  INVLPGB_ILLEGAL: after5(1, ExitCode.INVLPGB_ILLEGAL),
  INVPCID: {
    ...after5(2, ExitCode.INVPCID),
    info1: 'linear address of the descriptor',
    info2: 'kind of invalidation',
  },
  MCOMMIT: after5(3, ExitCode.MCOMMIT),
  TLBSYNC: after5(4, ExitCode.TLBSYNC),
  BUSLOCK_THRESHOLD: { ...event(5, ExitCode.BUSLOCK), offset: 0x014 },
  /** HLT wins when both are set. */
  IDLE_HLT: after5(6, ExitCode.IDLE_HLT),
} satisfies Readonly<Record<string, Row>>;

/** Every intercept. Numbered ones are made by `crRead(3)`, `exceptionIntercept(14)` and their like. */
export type InterceptName = keyof typeof NAMED | NumberedName;

export interface Intercept extends Row {
  readonly name: InterceptName;
  /** The processor's copy of the control word. */
  readonly slot: Slot;
}

/** Names by number, made once: putting one together at each access costs more than the look at its bit. */
const named = <N extends number>(numbers: readonly N[], name: (number: N) => InterceptName) => {
  const names = numbers.map(name);
  return (number: number): InterceptName => names[number] as InterceptName;
};
export const crRead = named(REGISTER_NUMBERS, (register) => `CR${register}_READ`);
export const crWrite = named(REGISTER_NUMBERS, (register) => `CR${register}_WRITE`);
export const crWriteTrap = named(REGISTER_NUMBERS, (register) => `CR${register}_WRITE_TRAP`);
export const drRead = named(REGISTER_NUMBERS, (register) => `DR${register}_READ`);
export const drWrite = named(REGISTER_NUMBERS, (register) => `DR${register}_WRITE`);
export const exceptionIntercept = named(EXCEPTION_VECTORS, (vector) => `EXCEPTION_${vector}`);

/** The processor's copies of the control words, in the order of the VMCB. */
export const INTERCEPT_SLOTS = [
  R.interceptCr,
  R.interceptDr,
  R.interceptExceptions,
  R.intercept3,
  R.intercept4,
  R.intercept5,
] as const;

/** Vectors whose #VMEXIT reports the error code in EXITINFO1 (APM vol.2 §15.12 Exception Intercepts). */
const WITH_ERROR_CODE: ReadonlySet<number> = new Set([8, 10, 11, 12, 13, 14, 17, 21, 30]);

function numberedRows(): [NumberedName, Row][] {
  const rows: [NumberedName, Row][] = [];
  const instruction = { kind: 'instruction', stage: 'after-privilege', assisted: true } as const;
  for (const n of REGISTER_NUMBERS) {
    const trap = { kind: 'trap', stage: 'after-memory', info1: 'value written' } as const;
    rows.push(
      [`CR${n}_READ`, { offset: 0x000, bit: n, exitCode: crReadExit(n), ...instruction, info1: MOV_CR }],
      [`CR${n}_WRITE`, { offset: 0x000, bit: 16 + n, exitCode: crWriteExit(n), ...instruction, info1: MOV_CR }],
      [`DR${n}_READ`, { offset: 0x004, bit: n, exitCode: drReadExit(n), ...instruction, info1: MOV_DR }],
      [`DR${n}_WRITE`, { offset: 0x004, bit: 16 + n, exitCode: drWriteExit(n), ...instruction, info1: MOV_DR }],
      [`CR${n}_WRITE_TRAP`, { offset: 0x010, bit: 16 + n, exitCode: crWriteTrapExit(n), ...trap }],
    );
  }
  for (const vector of EXCEPTION_VECTORS) {
    rows.push([
      `EXCEPTION_${vector}`,
      {
        offset: 0x008,
        bit: vector,
        exitCode: exceptionExit(vector),
        kind: 'exception',
        stage: 'before-exceptions',
        ...(WITH_ERROR_CODE.has(vector) ? { info1: 'error code' } : {}),
        ...(vector === 14 ? { info2: 'faulting linear address' } : {}),
      },
    ]);
  }
  return rows;
}

/** All rows by name. */
export const INTERCEPTS = Object.fromEntries(
  [...numberedRows(), ...(Object.entries(NAMED) as [keyof typeof NAMED, Row][])].map(
    ([name, row]): [InterceptName, Intercept] => [
      name,
      { ...row, name, slot: INTERCEPT_SLOTS[row.offset / 4] as Slot },
    ],
  ),
) as Readonly<Record<InterceptName, Intercept>>;

/**
 * True when a guest runs and its VMCB asks for this intercept. The host's controls are all clear (APM vol.2 §15.6
 * #VMEXIT), so the test of the mode is there only to say so.
 */
export function interceptRequested(low: LowReader, name: InterceptName): boolean {
  const { slot, bit } = INTERCEPTS[name];
  return (low(R.svmMode) & GUEST_MODE) !== 0 && ((low(slot) >>> bit) & 1) === 1;
}

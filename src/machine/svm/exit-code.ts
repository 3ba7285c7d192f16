/**
 * EXITCODE: names and numbers of the reasons for a #VMEXIT, and the short names by which people ask for them
 * (`vmexit:cpuid`, `vmexit:npf`). The short name is the manual's without `VMEXIT_`, in lower case, with hyphens.
 *
 * Failures are negative numbers of 64 bits: VMEXIT_INVALID is -1 in all of them.
 * Source: APM vol.2 appendix C SVM Intercept Exit Codes.
 */

type Below<Count extends number, Found extends number[] = []> = Found['length'] extends Count
  ? Found[number]
  : Below<Count, [...Found, Found['length']]>;
/** Numbers of control and debug registers. */
export type RegisterNumber = Below<16>;
/** Vectors of exceptions. */
export type ExceptionVector = Below<32>;

export const REGISTER_NUMBERS = Array.from({ length: 16 }, (_, number) => number) as readonly RegisterNumber[];
export const EXCEPTION_VECTORS = Array.from({ length: 32 }, (_, vector) => vector) as readonly ExceptionVector[];

/** Exceptions by vector, as the manual's EXITCODE names spell them; vectors without a name are `VECTORn`. */
const EXCEPTION_MNEMONICS: Readonly<Partial<Record<ExceptionVector, string>>> = {
  0: 'DE',
  1: 'DB',
  3: 'BP',
  4: 'OF',
  5: 'BR',
  6: 'UD',
  7: 'NM',
  8: 'DF',
  10: 'TS',
  11: 'NP',
  12: 'SS',
  13: 'GP',
  14: 'PF',
  16: 'MF',
  17: 'AC',
  18: 'MC',
  19: 'XF',
  21: 'CP',
  28: 'HV',
  29: 'VC',
  30: 'SX',
};

/** EXITCODE by name, those of numbered registers and of exceptions apart: `crReadExit` and the others below. */
export const ExitCode = {
  INTR: 0x60n,
  NMI: 0x61n,
  SMI: 0x62n,
  INIT: 0x63n,
  VINTR: 0x64n,
  CR0_SEL_WRITE: 0x65n,
  IDTR_READ: 0x66n,
  GDTR_READ: 0x67n,
  LDTR_READ: 0x68n,
  TR_READ: 0x69n,
  IDTR_WRITE: 0x6an,
  GDTR_WRITE: 0x6bn,
  LDTR_WRITE: 0x6cn,
  TR_WRITE: 0x6dn,
  RDTSC: 0x6en,
  RDPMC: 0x6fn,
  PUSHF: 0x70n,
  POPF: 0x71n,
  CPUID: 0x72n,
  RSM: 0x73n,
  IRET: 0x74n,
  SWINT: 0x75n,
  INVD: 0x76n,
  PAUSE: 0x77n,
  HLT: 0x78n,
  INVLPG: 0x79n,
  INVLPGA: 0x7an,
  IOIO: 0x7bn,
  MSR: 0x7cn,
  TASK_SWITCH: 0x7dn,
  FERR_FREEZE: 0x7en,
  SHUTDOWN: 0x7fn,
  VMRUN: 0x80n,
  VMMCALL: 0x81n,
  VMLOAD: 0x82n,
  VMSAVE: 0x83n,
  STGI: 0x84n,
  CLGI: 0x85n,
  SKINIT: 0x86n,
  RDTSCP: 0x87n,
  ICEBP: 0x88n,
  WBINVD: 0x89n,
  MONITOR: 0x8an,
  MWAIT: 0x8bn,
  MWAIT_CONDITIONAL: 0x8cn,
  XSETBV: 0x8dn,
  RDPRU: 0x8en,
  EFER_WRITE_TRAP: 0x8fn,
  INVLPGB: 0xa0n,
  INVLPGB_ILLEGAL: 0xa1n,
  INVPCID: 0xa2n,
  MCOMMIT: 0xa3n,
  TLBSYNC: 0xa4n,
  BUSLOCK: 0xa5n,
  IDLE_HLT: 0xa6n,
  NPF: 0x400n,
  AVIC_INCOMPLETE_IPI: 0x401n,
  AVIC_NOACCEL: 0x402n,
  VMGEXIT: 0x403n,
  INVALID: 0xffff_ffff_ffff_ffffn,
  BUSY: 0xffff_ffff_ffff_fffen,
  IDLE_REQUIRED: 0xffff_ffff_ffff_fffdn,
} as const;

export const crReadExit = (register: RegisterNumber): bigint => BigInt(register);
export const crWriteExit = (register: RegisterNumber): bigint => BigInt(0x10 + register);
export const drReadExit = (register: RegisterNumber): bigint => BigInt(0x20 + register);
export const drWriteExit = (register: RegisterNumber): bigint => BigInt(0x30 + register);
export const exceptionExit = (vector: ExceptionVector): bigint => BigInt(0x40 + vector);
export const crWriteTrapExit = (register: RegisterNumber): bigint => BigInt(0x90 + register);

const SHORT_NAMES = new Map<bigint, string>([
  ...REGISTER_NUMBERS.flatMap((n): [bigint, string][] => [
    [crReadExit(n), `cr${n}-read`],
    [crWriteExit(n), `cr${n}-write`],
    [drReadExit(n), `dr${n}-read`],
    [drWriteExit(n), `dr${n}-write`],
    [crWriteTrapExit(n), `cr${n}-write-trap`],
  ]),
  ...EXCEPTION_VECTORS.map((vector): [bigint, string] => [
    exceptionExit(vector),
    `excp-${(EXCEPTION_MNEMONICS[vector] ?? `VECTOR${vector}`).toLowerCase()}`,
  ]),
  ...Object.entries(ExitCode).map(([name, code]): [bigint, string] => [code, name.toLowerCase().replaceAll('_', '-')]),
]);
const CODES = new Map([...SHORT_NAMES].map(([code, name]) => [name, code]));

/** All exit codes with their short names, ascending. */
export const EXIT_CODES: readonly (readonly [code: bigint, shortName: string])[] = [...SHORT_NAMES].sort(([a], [b]) =>
  a < b ? -1 : 1,
);

/** `cpuid`, `npf`, `cr3-write`, `excp-pf` …; a code that the manual does not list is written in hexadecimal. */
export const exitName = (code: bigint): string => SHORT_NAMES.get(code) ?? `0x${code.toString(16)}`;

/** The manual's name: `VMEXIT_CPUID`. */
export const manualExitName = (code: bigint): string => {
  const name = SHORT_NAMES.get(code);
  return name === undefined ? `0x${code.toString(16)}` : `VMEXIT_${name.toUpperCase().replaceAll('-', '_')}`;
};

/** The code of a short name or of a manual's name; undefined when there is none. */
export const exitCodeNamed = (name: string): bigint | undefined =>
  CODES.get(
    name
      .toLowerCase()
      .replace(/^vmexit_/, '')
      .replaceAll('_', '-'),
  );

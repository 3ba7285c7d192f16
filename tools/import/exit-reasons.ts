/**
 * Names of exits in the logs of hypervisors → EXITCODE. The names are derived from the machine's own; written down is only
 * what a program spells otherwise.
 *
 * - KVM's trace events spell `read_cr0`, `PF excp`, `npf`, and a few as nothing else does (arch/x86/include/uapi/asm/svm.h).
 * - libtraceevent's plug-in, which trace-cmd prints with, spells `EXIT_READ_CR0`, `EXIT_EXCP_PF` (plugin_kvm.c).
 * - Xen's xenalyze spells `VMEXIT_CR0_READ`, `VMEXIT_EXCEPTION_PF` (tools/xentrace/xenalyze.c).
 *
 * A code without a name is printed as hexadecimal by KVM, as `UNKNOWN (decimal)` by the plug-in.
 */
import { EXIT_CODES, ExitCode, exitCodeNamed } from '../../src/machine/index.js';
import type { Reason } from './log-event.js';

/** What KVM calls otherwise than the manual, read and write of registers and exceptions apart. */
const KVM_NAMES: Readonly<Record<string, bigint>> = {
  interrupt: ExitCode.INTR,
  io: ExitCode.IOIO,
  hypercall: ExitCode.VMMCALL,
  read_rt: ExitCode.TR_READ,
  write_rt: ExitCode.TR_WRITE,
  mwait_cond: ExitCode.MWAIT_CONDITIONAL,
  avic_unaccelerated_access: ExitCode.AVIC_NOACCEL,
  invalid_guest_state: ExitCode.INVALID,
  err: ExitCode.INVALID,
  'idle-halt': ExitCode.IDLE_HLT,
  write_efer_trap: ExitCode.EFER_WRITE_TRAP,
};

function kvmName(shortName: string): string {
  const register = /^(.+)-(read|write|write-trap)$/.exec(shortName);
  if (register !== null && /^(cr\d+|dr\d+|idtr|gdtr|ldtr|tr)$/.test(register[1] ?? '')) {
    const [, name, access = ''] = register;
    return access === 'write-trap' ? `write_${name}_trap` : `${access}_${name}`;
  }
  return shortName.replaceAll('-', '_');
}

const NAMES = new Map<string, bigint>([
  ...EXIT_CODES.flatMap(([code, name]): [string, bigint][] => [
    [kvmName(name), code],
    [name.replaceAll('-', '_'), code],
  ]),
  ...Object.entries(KVM_NAMES),
]);

/** Of two names for one exit, logs may have either. */
export function exitReason(text: string): Reason {
  return { text, code: codeOf(text.trim()) };
}

function codeOf(text: string): bigint | undefined {
  const hexadecimal = /^0x([0-9a-f]{1,16})$/i.exec(text);
  if (hexadecimal !== null) return codeOfNumber(BigInt(text));
  const unknown = /^UNKNOWN \((\d{1,20})\)$/.exec(text);
  if (unknown !== null) return codeOfNumber(BigInt(unknown[1] ?? ''));
  const exception = /^(?:([A-Z]{2}) excp|(?:VM)?EXIT_(?:EXCP|EXCEPTION)_([A-Z]{2}))$/.exec(text);
  if (exception !== null) return exitCodeNamed(`excp-${exception[1] ?? exception[2]}`);
  const bare = text.replace(/^(?:VM)?EXIT_/, '');
  // VMX has a CPUID and an HLT too: capitals without prefix.
  return bare === text && text !== text.toLowerCase() ? undefined : NAMES.get(bare.toLowerCase());
}

/** Logs show EXITCODE in 32 bits, or in 64. */
export function codeOfNumber(value: bigint): bigint {
  const failure = BigInt.asUintN(64, BigInt.asIntN(32, value));
  return value >> 31n === 1n && failure >= ExitCode.IDLE_REQUIRED ? failure : value;
}

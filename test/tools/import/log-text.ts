/**
 * Logs as hypervisors write them, from one script of what happened: each form of each event, as the kernels of a generation
 * print it, and as libtraceevent's plug-in does, in the frames of tracefs, trace-cmd and perf.
 */
import { writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { exitCodeNamed } from '../../../src/machine/index.js';

export interface Exit {
  /** Short name of vmtape's. */
  readonly exit: string;
  readonly rip?: bigint;
  readonly info1?: bigint;
  readonly info2?: bigint;
  readonly intInfo?: number;
}

export interface Intercepts {
  readonly crRead?: number;
  readonly crWrite?: number;
  readonly exceptions?: number;
  readonly word3?: number;
  readonly word4?: number;
  readonly word5?: number;
}

export type Happening =
  | ({ readonly what: 'exit' | 'nested-exit' | 'reflected' } & Exit)
  | { readonly what: 'entry' }
  | ({ readonly what: 'vmrun'; readonly nestedPaging?: boolean } & Intercepts)
  | { readonly what: 'interrupt' | 'exception'; readonly vector: number; readonly reinjected?: boolean }
  | { readonly what: 'msr'; readonly msr: number; readonly write: boolean }
  | { readonly what: 'pio'; readonly port: number }
  | { readonly what: 'page-fault'; readonly address: bigint }
  | { readonly what: 'emulated' | 'hypercall' };

/** A vCPU, and what happened on it. */
export interface Step {
  readonly vcpu: number;
  readonly happening: Happening;
}

const x = (value: bigint | number, digits = 1): string => value.toString(16).padStart(digits, '0');
const MNEMONICS = ['DE', 'DB', '', 'BP', 'OF', 'BR', 'UD', 'NM', 'DF', '', 'TS', 'NP', 'SS', 'GP', 'PF'] as const;

/** Names that the kernel does not derive from the manual's. Written down here apart from the importer's table, from svm.h. */
const KERNEL: Readonly<Record<string, string>> = {
  intr: 'interrupt',
  ioio: 'io',
  vmmcall: 'hypercall',
  'tr-read': 'read_rt',
  'tr-write': 'write_rt',
  invalid: 'invalid_guest_state',
  'idle-hlt': 'idle-halt',
  'avic-noaccel': 'avic_unaccelerated_access',
};
/** Codes that the kernel has no name for, and prints as numbers. */
const NAMELESS =
  /^(?:rdpru|mwait-conditional|mcommit|tlbsync|invlpgb|invlpgb-illegal|cr(?!(?:0|2|3|4|8)-)\d+-.*|cr2-write-trap|cr3-write-trap|dr(?![0-7]-)\d+-.*|excp-(?:vector\d+|cp|hv|vc|sx))$/;

function kernelReason(name: string): string {
  if (KERNEL[name] !== undefined) return KERNEL[name];
  if (NAMELESS.test(name)) return `0x${x(exitCodeNamed(name) ?? 0n)}`;
  const exception = /^excp-(..)$/.exec(name);
  if (exception !== null) return `${exception[1]?.toUpperCase()} excp`;
  const access = /^((?:cr|dr)\d+|idtr|gdtr|ldtr)-(read|write)$/.exec(name);
  if (access !== null) return `${access[2]}_${access[1]}`;
  const trap = /^(cr\d+|efer)-write-trap$/.exec(name);
  return trap === null ? name.replaceAll('-', '_') : `write_${trap[1]}_trap`;
}

/** The plug-in knows names of its own, and prints others in decimal. */
function pluginReason(name: string): string {
  const code = exitCodeNamed(name) ?? 0n;
  if (name === 'invalid') return 'EXIT_ERR';
  if (name === 'avic-noaccel') return 'EXIT_AVIC_UNACCELERATED_ACCESS';
  if ((code > 0x8dn && code < 0x400n) || NAMELESS.test(name)) return `UNKNOWN (${code})`;
  const access = /^((?:cr|dr)\d+)-(read|write)$/.exec(name);
  if (access !== null) return `EXIT_${access[2]}_${access[1]}`.toUpperCase();
  return `EXIT_${name.toUpperCase().replaceAll('-', '_')}`;
}

interface Printer {
  exit(vcpu: number, exit: Exit): string;
  nestedExit(vcpu: number, exit: Exit): string;
  reflected(exit: Exit): string;
  entry(vcpu: number): string;
  vmrun(paging: boolean): readonly [name: string, text: string];
  intercepts(what: Required<Intercepts>): string;
  interrupt(vector: number, reinjected: boolean): string;
  exception(vector: number, reinjected: boolean): string;
  pageFault(vcpu: number, address: bigint): string;
}

const RIP = 0xffff_ffff_8100_1234n;
const withDefaults = ({ exit, rip = RIP, info1 = 0n, info2 = 0n, intInfo = 0 }: Exit): Required<Exit> => ({
  ...{ exit, rip, info1, info2, intInfo },
});

function extText(exit: Exit): string {
  const { info1, info2, intInfo } = withDefaults(exit);
  return `ext_inf1: 0x${x(info1, 16)} ext_inf2: 0x${x(info2, 16)} ext_int: 0x${x(intInfo, 8)} ext_int_err: 0x00000000`;
}

function exit2020(vcpu: number, exit: Exit): string {
  const { exit: name, rip, info1, info2, intInfo } = withDefaults(exit);
  return `vcpu ${vcpu} reason ${kernelReason(name)} rip 0x${x(rip)} info1 0x${x(info1, 16)} info2 0x${x(info2, 16)} intr_info 0x${x(intInfo, 8)} error_code 0x00000000`;
}

function pluginTail(exit: Exit): string {
  const { info1, info2, intInfo } = withDefaults(exit);
  return `info1 ${x(info1)} info2 ${x(info2)} int_info ${x(intInfo)} int_info_err 0`;
}

const words = ({ crRead, crWrite, exceptions }: Required<Intercepts>): string =>
  `cr_read: ${x(crRead, 4)} cr_write: ${x(crWrite, 4)} excp: ${x(exceptions, 8)}`;

/** Kernels up to 3.x. */
const OLDEST: Printer = {
  exit: (_, exit) => `reason ${kernelReason(exit.exit)} rip 0x${x(withDefaults(exit).rip)}`,
  nestedExit: (_, exit) =>
    `rip: 0x${x(withDefaults(exit).rip, 16)} reason: ${kernelReason(exit.exit)} ${extText(exit)}`,
  reflected: (exit) => `reason: ${kernelReason(exit.exit)} ${extText(exit)}`,
  entry: (vcpu) => `vcpu ${vcpu}`,
  vmrun: (paging) => [
    'kvm_nested_vmrun',
    `rip: 0x${x(RIP, 16)} vmcb: 0x0000000012345000 nrip: 0x${x(RIP, 16)} int_ctl: 0x01000000 event_inj: 0x00000000 npt: ${paging ? 'on' : 'off'}`,
  ],
  intercepts: (what) => `${words(what)} intercept: ${x((BigInt(what.word4) << 32n) | BigInt(what.word3), 16)}`,
  interrupt: (vector) => `irq ${vector}`,
  exception: (vector) => `#${MNEMONICS[vector]} (0x0)`,
  pageFault: (_, address) => `address ${x(address)} error_code 6`,
};

const KERNEL_4: Printer = {
  ...OLDEST,
  exit: (_, exit) => {
    const { info1, info2, rip } = withDefaults(exit);
    return `reason ${kernelReason(exit.exit)} rip 0x${x(rip)} info ${x(info1)} ${x(info2)}`;
  },
};

const KERNEL_5_10: Printer = {
  ...OLDEST,
  exit: exit2020,
  nestedExit: exit2020,
  entry: (vcpu) => `vcpu ${vcpu}, rip 0x${x(RIP)}`,
  intercepts: (what) => `${words(what)} intercepts: ${x(what.word3, 8)} ${x(what.word4, 8)} ${x(what.word5, 8)}`,
};

const KERNEL_6_13: Printer = {
  ...KERNEL_5_10,
  exit: (vcpu, exit) => `${exit2020(vcpu, exit)} requests 0x0000000000000040`,
  entry: (vcpu) => `vcpu ${vcpu}, rip 0x${x(RIP)} intr_info 0x80000020 error_code 0x00000000 [immediate exit]`,
  vmrun: (paging) => [
    'kvm_nested_vmenter',
    `rip: 0x${x(RIP, 16)} vmcb: 0x0000000012345000 nested_rip: 0x${x(RIP, 16)} int_ctl: 0x01000000 event_inj: 0x00000000 nested_npt=${paging ? 'y nested_cr3' : 'n guest_cr3'}: 0x0000000000abc000`,
  ],
  interrupt: (vector, reinjected) => `IRQ 0x${x(vector)}${reinjected ? ' [reinjected]' : ''}`,
  exception: (vector, reinjected) => `#${MNEMONICS[vector]}${reinjected ? ' [reinjected]' : ''}`,
  pageFault: (vcpu, address) => `vcpu ${vcpu} rip 0x${x(RIP)} address 0x${x(address, 16)} error_code 0x100000006`,
};

/** libtraceevent's plug-in prints these of any kernel; other events have the kernel's text. */
const plugged = (kernel: Printer): Printer => ({
  ...kernel,
  exit: (_, exit) => {
    const { info1, info2, rip } = withDefaults(exit);
    return `reason ${pluginReason(exit.exit)} rip 0x${x(rip)} some_function+0x1c info ${x(info1)} ${x(info2)}`;
  },
  nestedExit: (_, exit) =>
    ` rip ${x(withDefaults(exit).rip)} reason ${pluginReason(exit.exit)} ${pluginTail(exit)}`.trim(),
  reflected: (exit) => `reason ${pluginReason(exit.exit)} ${pluginTail(exit)}`,
  entry: (vcpu) => `vcpu ${vcpu} rip 0x${x(RIP)}`,
});

/** A plug-in that is older than the kernel does not find what it looks for, and the kernel's text follows. */
const LOST_FIELDS: Printer = {
  ...plugged(KERNEL_5_10),
  nestedExit: (vcpu, exit) => `CAN'T FIND FIELD "rip"<CANT FIND FIELD exit_code>${exit2020(vcpu, exit)}`,
};

type FramePrinter = (vcpu: number, name: string, text: string, index: number) => string;

const time = (index: number): string => `3410.${String(5610 + index).padStart(6, '0')}`;
const FRAMES: Readonly<Record<string, FramePrinter>> = {
  tracefs: (vcpu, name, text, index) =>
    `       CPU ${vcpu}/KVM-50${40 + vcpu}    [00${vcpu}] d..1.  ${time(index)}: ${name}: ${text}`,
  tgid: (vcpu, name, text, index) =>
    ` qemu [0]: x-50${40 + vcpu} (   5001) [00${vcpu}] .....  ${time(index)}: ${name}: ${text}`,
  traceCmd: (vcpu, name, text, index) =>
    ` qemu-system-x86-50${40 + vcpu}  [00${vcpu}]  ${time(index)}: ${`${name}:`.padEnd(21)} ${text}`,
  perf: (vcpu, name, text, index) =>
    `CPU ${vcpu}/KVM  5001/50${40 + vcpu} [00${vcpu}]  ${time(index)}:   kvm:${name}: ${text}`,
  bare: (_, name, text) => ` ${`${name}:`.padEnd(21)} ${text}`,
};

interface Generation {
  readonly frame: keyof typeof FRAMES;
  readonly printer: Printer;
  /** What stands ahead of the events. */
  readonly head: readonly string[];
}

const TRACEFS_HEAD = ['# tracer: nop', '#', '#           TASK-PID     CPU#  |||||  TIMESTAMP  FUNCTION'];

/** Every generation and dialect. */
export const GENERATIONS: Readonly<Record<string, Generation>> = {
  'tracefs of the first kernels': { frame: 'tracefs', printer: OLDEST, head: TRACEFS_HEAD },
  'tracefs of Linux 4': { frame: 'tgid', printer: KERNEL_4, head: TRACEFS_HEAD },
  'tracefs of Linux 5.10': { frame: 'tracefs', printer: KERNEL_5_10, head: TRACEFS_HEAD },
  'tracefs of Linux 6.13': { frame: 'tracefs', printer: KERNEL_6_13, head: TRACEFS_HEAD },
  'trace-cmd on Linux 4': { frame: 'traceCmd', printer: plugged(KERNEL_4), head: ['version = 6', 'cpus=8'] },
  'trace-cmd on Linux 6.13': { frame: 'traceCmd', printer: plugged(KERNEL_6_13), head: ['cpus=8'] },
  'trace-cmd older than its kernel': { frame: 'traceCmd', printer: LOST_FIELDS, head: ['cpus=8'] },
  'perf script': { frame: 'perf', printer: KERNEL_6_13, head: [] },
  'events alone, as mails quote them': { frame: 'bare', printer: KERNEL_5_10, head: [] },
};

function* texts(printer: Printer, { vcpu, happening }: Step): Generator<readonly [name: string, text: string]> {
  switch (happening.what) {
    case 'exit':
      yield ['kvm_exit', printer.exit(vcpu, happening)];
      return;
    case 'nested-exit':
      // The kernel tells of each exit of L2 twice.
      yield ['kvm_exit', printer.exit(vcpu, happening)];
      yield ['kvm_nested_vmexit', printer.nestedExit(vcpu, happening)];
      return;
    case 'reflected':
      yield ['kvm_nested_vmexit_inject', printer.reflected(happening)];
      return;
    case 'entry':
      yield ['kvm_entry', printer.entry(vcpu)];
      return;
    case 'vmrun': {
      const { nestedPaging = true, what: _, ...own } = happening;
      const none = { crRead: 0, crWrite: 0, exceptions: 0, word3: 0, word4: 1, word5: 0 };
      yield printer.vmrun(nestedPaging);
      yield ['kvm_nested_intercepts', printer.intercepts({ ...none, ...own })];
      return;
    }
    case 'interrupt':
      yield ['kvm_inj_virq', printer.interrupt(happening.vector, happening.reinjected === true)];
      return;
    case 'exception':
      yield ['kvm_inj_exception', printer.exception(happening.vector, happening.reinjected === true)];
      return;
    case 'msr':
      yield ['kvm_msr', `msr_${happening.write ? 'write' : 'read'} ${x(happening.msr)} = 0x1`];
      return;
    case 'pio':
      yield ['kvm_pio', `pio_read at 0x${x(happening.port)} size 1 count 1 val 0x4 `];
      return;
    case 'page-fault':
      yield ['kvm_page_fault', printer.pageFault(vcpu, happening.address)];
      return;
    case 'emulated':
      yield ['kvm_emulate_insn', '0:ffffffff81001234:0f 20 c0 (prot64)'];
      return;
    case 'hypercall':
      yield ['kvm_hypercall', 'nr 0x1 a0 0x0 a1 0x0 a2 0x0 a3 0x0'];
  }
}

export interface RenderedLog {
  readonly lines: readonly string[];
  /** The line of each step's last event, from 1 on. */
  readonly lineOf: readonly number[];
}

export function renderLog(generation: string, steps: readonly Step[]): RenderedLog {
  const { frame, printer, head } = GENERATIONS[generation] as Generation;
  const lines = [...head];
  const lineOf: number[] = [];
  for (const step of steps) {
    for (const [name, text] of texts(printer, step)) {
      lines.push((FRAMES[frame] as FramePrinter)(step.vcpu, name, text, lines.length));
    }
    lineOf.push(lines.length);
  }
  return { lines, lineOf };
}

let files = 0;
export function logFile(folder: string, lines: readonly string[], end = '\n'): string {
  const file = join(folder, `log-${files++}.txt`);
  writeFileSync(file, lines.join('\n') + end);
  return file;
}

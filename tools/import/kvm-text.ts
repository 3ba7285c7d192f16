/**
 * KVM's trace events as text, line by line. A line is a *frame* (who, where, when, which event) and the event's own text.
 *
 * The text is that of the kernel (tracefs; its forms have changed with the years), or that of libtraceevent's plug-in, which
 * `trace-cmd report` prints with. Each event is told by itself which it is: one report has both, as the plug-in knows few events.
 * Source: Linux, arch/x86/kvm/trace.h from 2.6.32 on; libtraceevent, plugins/plugin_kvm.c; Linux, Documentation/trace/ftrace.rst.
 */
import { type ControlWord, exitCodeNamed } from '../../src/machine/index.js';
import { exitReason } from './exit-reasons.js';
import type { ExitFacts, LogEvent } from './log-event.js';

export interface Frame {
  /** Thread of the host; undefined in a log that was cut to its events. */
  readonly thread: string | undefined;
  readonly processor: number | undefined;
  readonly name: string;
  readonly text: string;
}

/** tracefs and trace-cmd: `comm-pid (tgid) [cpu] flags time: event: text`; a comm may have any characters in it. */
const TRACE = /^\s*(.*)-(\d+)\s+(?:\(\s*[-\d]+\)\s+)?\[(\d+)\]\s+(?:[^\s:]+\s+)?[\d.]+:\s+(?:\w+:)?(\w+):(.*)$/;
/** perf script: `comm pid/tid [cpu] time: system:event: text`. */
const PERF = /^\s*(.*?)\s+(?:\d+\/)?(\d+)\s+\[(\d+)\]\s+[\d.]+:\s+(?:\w+:)?(\w+):(.*)$/;
/** As people quote it. */
const BARE = /^\s*(?:kvm:)?(kvm_\w+):(.*)$/;

/** `CPU:3 [LOST 127 EVENTS]` of tracefs, `CPU:3 [127 EVENTS DROPPED]` and without a number of trace-cmd. */
const LOST = /^\s*CPU:(\d+)\s+\[(?:LOST \d+ EVENTS|(?:\d+ )?EVENTS DROPPED)\]\s*$/;

/** The processor that has lost events there; undefined when the line says nothing like that. */
export function lostOn(line: string): number | undefined {
  const match = LOST.exec(line);
  return match === null ? undefined : Number(match[1]);
}

export function kvmFrame(line: string): Frame | undefined {
  const framed = TRACE.exec(line) ?? PERF.exec(line);
  if (framed !== null) {
    const [, , thread, processor, name = '', text = ''] = framed;
    return { thread, processor: Number(processor), name, text: text.trim() };
  }
  const bare = BARE.exec(line);
  if (bare === null) return undefined;
  return { thread: undefined, processor: undefined, name: bare[1] ?? '', text: (bare[2] ?? '').trim() };
}

type Groups = Readonly<Record<string, string | undefined>>;

/** One form of an event's text. */
interface Form {
  readonly pattern: RegExp;
  readonly read: (groups: Groups) => LogEvent;
}

/** Hexadecimal with or without 0x, of 64 bits at most. */
const H = (name: string): string => `(?:0x)?(?<${name}>[0-9a-f]{1,16})`;
const W = (name: string): string => `(?:0x)?(?<${name}>[0-9a-f]{1,8})`;
const N = (name: string): string => `(?<${name}>\\d{1,9})`;
/** A name may have blanks, dashes and parentheses in it. */
const REASON = '(?<reason>\\S.*?)';
/** The plug-in may name the function of a guest's address. */
const FUNCTION = '(?: \\S+?)?';

const form = (pattern: string, read: Form['read']): Form => ({ pattern: new RegExp(`^${pattern}$`), read });

const big = (text: string | undefined): bigint | undefined => (text === undefined ? undefined : BigInt(`0x${text}`));
const word = (text: string | undefined): number | undefined =>
  text === undefined ? undefined : Number.parseInt(text, 16);
const decimal = (text: string | undefined): number | undefined => (text === undefined ? undefined : Number(text));

const facts = ({ reason = '', rip, info1, info2, intInfo }: Groups): ExitFacts => ({
  reason: exitReason(reason),
  rip: big(rip),
  info1: big(info1),
  info2: big(info2),
  intInfo: word(intInfo),
});

type Told = 'exit' | 'nested-exit';

/** Since 5.10 kvm_exit and kvm_nested_vmexit are one text; newer kernels add requests, and marks in brackets. */
const EXIT_2020 = `vcpu ${N('vcpu')} reason ${REASON} rip ${H('rip')} info1 ${H('info1')} info2 ${H('info2')} intr_info ${W('intInfo')} error_code ${W('error')}(?: requests ${H('requests')})?(?: \\[[^\\]]*\\])*`;
const exit2020 = (kind: Told): Form =>
  form(EXIT_2020, (groups) => ({ kind, vcpu: decimal(groups.vcpu), ...facts(groups) }));

const EXT = `ext_inf1: ${H('info1')} ext_inf2: ${H('info2')} ext_int: ${W('intInfo')} ext_int_err: ${W('error')}`;
const PLUGIN = `info1 ${H('info1')} info2 ${H('info2')} int_info ${W('intInfo')} int_info_err ${W('error')}`;

const vmrun = (groups: Groups): LogEvent => ({
  kind: 'nested-entry',
  rip: big(groups.rip),
  vmcb: big(groups.vmcb),
  eventInjection: word(groups.inject),
  nestedPaging: groups.paging === undefined ? undefined : /^(on|y)$/.test(groups.paging),
});

/** `0x81` or `IRQ 0x81`; and what an exit had cut off, given once more. */
const REINJECTED = '(?<again> ?\\[reinjected\\])?';
const MNEMONIC = '#(?<name>[A-Z]{2})';

function exceptionGiven({ name = '', again, error }: Groups): LogEvent {
  const code = exitCodeNamed(`excp-${name}`);
  if (code === undefined) return { kind: 'other' };
  // The old form prints an error code always, and never says that it is the second time.
  const reinjected = again !== undefined ? true : error === undefined ? false : undefined;
  return { kind: 'exception-given', code, reinjected };
}

const other = form('.*', () => ({ kind: 'other' }));
const emulated = form('.*', () => ({ kind: 'emulated' }));

/** Forms of each event, the newest first. An event that is not here says nothing of exits. */
const FORMS: Readonly<Record<string, readonly Form[]>> = {
  kvm_entry: [
    // Since 6.13 with what is injected; trace-cmd has no comma.
    form(
      `vcpu ${N('vcpu')}(?:,? rip ${H('rip')}${FUNCTION})?(?: intr_info ${W('intInfo')} error_code ${W('error')})?(?: ?\\[immediate exit\\])?`,
      ({ vcpu }) => ({ kind: 'entry', vcpu: decimal(vcpu) }),
    ),
  ],
  kvm_exit: [
    exit2020('exit'),
    form(`reason ${REASON} rip ${H('rip')}${FUNCTION}(?: info ${H('info1')} ${H('info2')})?`, (groups) => ({
      kind: 'exit',
      ...facts(groups),
    })),
  ],
  kvm_nested_vmexit: [
    exit2020('nested-exit'),
    form(`rip: ${H('rip')} reason: ${REASON} ${EXT}`, (groups) => ({ kind: 'nested-exit', ...facts(groups) })),
    form(`rip ${H('rip')}${FUNCTION} ?reason ${REASON} ${PLUGIN}`, (groups) => ({
      kind: 'nested-exit',
      ...facts(groups),
    })),
  ],
  kvm_nested_vmexit_inject: [
    form(`reason: ${REASON} ${EXT}`, (groups) => ({ kind: 'nested-reflected', ...facts(groups) })),
    form(`reason ${REASON} ${PLUGIN}`, (groups) => ({ kind: 'nested-reflected', ...facts(groups) })),
  ],
  kvm_nested_vmrun: [
    form(
      `rip: ${H('rip')} vmcb: ${H('vmcb')} nrip: ${H('nested')} int_ctl: ${W('control')} event_inj: ${W('inject')} npt: (?<paging>on|off)`,
      vmrun,
    ),
  ],
  kvm_nested_vmenter: [
    form(
      `rip: ${H('rip')} (?:vmcb|vmcs): ${H('vmcb')} nested_rip: ${H('nested')} int_ctl: ${W('control')} event_inj: ${W('inject')} nested_(?:npt|ept)[=:] ?(?<paging>y|n|on|off)(?: (?:nested_cr3|nested_eptp|guest_cr3): ${H('root')})?`,
      vmrun,
    ),
  ],
  kvm_nested_intercepts: [
    form(
      `cr_read: ${W('crRead')} cr_write: ${W('crWrite')} excp: ${W('exceptions')} intercepts: ${W('word3')} ${W('word4')} ${W('word5')}`,
      (groups) => ({ kind: 'intercepts', controls: controlsOf(groups) }),
    ),
    form(
      `cr_read: ${W('crRead')} cr_write: ${W('crWrite')} excp: ${W('exceptions')} intercept: ${H('both')}`,
      (groups) => {
        const both = big(groups.both) ?? 0n;
        const [word3, word4] = [both & 0xffff_ffffn, both >> 32n].map((value) => value.toString(16));
        return { kind: 'intercepts', controls: controlsOf({ ...groups, word3, word4 }) };
      },
    ),
  ],
  kvm_nested_intr_vmexit: [form(`rip: ${H('rip')}`, () => ({ kind: 'other' }))],
  kvm_inj_virq: [
    form(`(?<what>IRQ|Soft/INTn) ${W('vector')}${REINJECTED}`, ({ what, vector, again }) =>
      what === 'IRQ'
        ? { kind: 'interrupt-given', vector: word(vector) ?? 0, reinjected: again !== undefined }
        : { kind: 'other' },
    ),
    form(`irq ${N('vector')}`, ({ vector }) => ({
      kind: 'interrupt-given',
      vector: decimal(vector) ?? 0,
      reinjected: undefined,
    })),
  ],
  kvm_inj_exception: [
    form(`${MNEMONIC}(?: \\(${H('error')}\\))?${REINJECTED}`, exceptionGiven),
    form(`(?:0x)?[0-9a-f]+(?: \\(${H('error')}\\))?${REINJECTED}`, () => ({ kind: 'other' })),
  ],
  kvm_msr: [
    form(`msr_(?<access>read|write) ${W('msr')} = ${H('value')}(?: \\(#GP\\))?`, ({ access, msr }) => ({
      kind: 'msr',
      msr: word(msr) ?? 0,
      write: access === 'write',
    })),
  ],
  kvm_pio: [
    form(
      `pio_(?<access>read|write) at ${W('port')} size ${N('size')} count ${N('count')}(?: val ${W('value')})?(?: \\(\\.\\.\\.\\))?`,
      ({ access, port, size }) => ({
        kind: 'port',
        port: word(port) ?? 0,
        size: decimal(size) ?? 0,
        write: access === 'write',
      }),
    ),
  ],
  kvm_page_fault: [
    form(
      `(?:vcpu ${N('vcpu')} rip ${H('rip')} )?address ${H('address')} error_code ${H('error')}`,
      ({ address, error }) => ({ kind: 'page-fault', address: big(address) ?? 0n, errorCode: big(error) ?? 0n }),
    ),
  ],
  kvm_emulate_insn: [emulated],
  kvm_hypercall: [form('nr .*', () => ({ kind: 'hypercall' }))],
  kvm_hv_hypercall: [form('code .*', () => ({ kind: 'hypercall' }))],
};

/** Control words as the event shows them: nothing of debug registers, and of word 5 only the newer form. */
function controlsOf({ crRead, crWrite, exceptions, word3, word4, word5 }: Groups): readonly ControlWord[] {
  const known = (text: string | undefined): ControlWord =>
    text === undefined ? { value: 0, known: 0 } : { value: (word(text) ?? 0) | 0, known: -1 };
  const cr = ((word(crWrite) ?? 0) << 16) | ((word(crRead) ?? 0) & 0xffff);
  return [{ value: cr, known: -1 }, known(undefined), known(exceptions), known(word3), known(word4), known(word5)];
}

/** What trace-cmd prints ahead of an event that its plug-in does not find its fields in. */
const MISSING_FIELDS = /^(?:CAN'T FIND FIELD "\w*"|<CAN'?T FIND FIELD \w*>)+/;

/** What an event says; undefined when it is one of those that say something, in no form that is known. */
export function kvmEvent({ name, text }: Pick<Frame, 'name' | 'text'>): LogEvent | undefined {
  const forms = FORMS[name] ?? [other];
  const plain = text.replace(MISSING_FIELDS, '');
  for (const { pattern, read } of forms) {
    const match = pattern.exec(plain);
    if (match !== null) return read(match.groups ?? {});
  }
  return undefined;
}

/**
 * Xen's trace as text: what xentrace_format prints by its `formats` file, and what `xenalyze --dump-all` prints.
 *
 * Xen marks the events of a nested guest: an exit from L2 is an nVMEXIT, and whether L2 or L1 runs on shows in the entry that
 * follows. Records that the `formats` file does not have are printed raw; exits of SVM are among those in most versions.
 * Source: Xen, tools/xentrace/formats; xen/include/public/trace.h; tools/xentrace/xenalyze.c.
 */
import { codeOfNumber, exitReason } from './exit-reasons.js';
import type { LogEvent } from './log-event.js';

export interface XenLine {
  /** Host processor of xentrace_format. */
  readonly processor: number | undefined;
  /** `d1v0` of xenalyze. */
  readonly vcpu: string | undefined;
  /** Undefined when it is of the form, and does not say what its event says. */
  readonly event: LogEvent | undefined;
}

/** `CPU3  123456 (+    1200)  VMEXIT      [ exitcode = 0x…, rIP  = 0x… ]` */
const FORMATTED = /^CPU(\d{1,5})\s+(?:\d+\s+)?(?:\(\+\s*\d+\)\s+)?(\S[^[]*?)\s*(?:\[(.*)\])?\s*$/;
/** `]  1.234567890 -x-- d1v0 vmexit exit_reason VMEXIT_NPF eip ffff…`: a mark, seconds, processors, domain and vCPU. */
const ANALYZED = /^[\] !]?\s*\d+\.\d+ \S+ +(d\d+v\d+|d\?v\?)\s+(\S.*)$/;

const RAW = /^unknown \(0x([0-9a-f]{1,16})\)$/;
const RUNSTATE = /^(?:continue_running|\w+_to_running)$/;

/** Record numbers of xen/include/public/trace.h. */
const Trc = {
  ENTRY: 0x8_1001,
  VMX_EXIT: 0x8_1002,
  SVM_EXIT: 0x8_1003,
  LOST: 0x1_f001,
  NESTED: 0x400,
  WIDE: 0x100,
} as const;

export function xenLine(line: string): XenLine | undefined {
  const formatted = FORMATTED.exec(line);
  if (formatted !== null) {
    const [, processor, name = '', fields = ''] = formatted;
    return { processor: Number(processor), vcpu: undefined, event: formattedEvent(name, fields) };
  }
  const analyzed = ANALYZED.exec(line);
  if (analyzed === null) return undefined;
  const [, vcpu, text = ''] = analyzed;
  return { processor: undefined, vcpu, event: analyzedEvent(text) };
}

function formattedEvent(name: string, fields: string): LogEvent | undefined {
  const raw = RAW.exec(name);
  if (raw !== null) return rawEvent(Number.parseInt(raw[1] ?? '', 16), numbers(fields));
  if (name === 'VMENTRY' || name === 'nVMENTRY') return { kind: 'entry', nested: name === 'nVMENTRY' };
  if (name === 'VMEXIT' || name === 'nVMEXIT') {
    const [code, rip] = numbers(fields);
    return code === undefined || rip === undefined ? undefined : exit(name === 'nVMEXIT', code, rip);
  }
  if (name.startsWith('lost_records')) return { kind: 'lost' };
  if (RUNSTATE.test(name)) {
    const [both] = numbers(fields);
    return both === undefined ? undefined : { kind: 'turn', domain: Number(both >> 16n), vcpu: Number(both & 0xffffn) };
  }
  return { kind: 'other' };
}

function rawEvent(record: number, [first, second, third]: readonly bigint[]): LogEvent | undefined {
  const nested = (record & Trc.NESTED) !== 0;
  switch (record & ~(Trc.NESTED | Trc.WIDE)) {
    case Trc.ENTRY:
      return { kind: 'entry', nested };
    case Trc.SVM_EXIT: {
      if (first === undefined || second === undefined) return undefined;
      const wide = (record & Trc.WIDE) !== 0;
      if (wide && third === undefined) return undefined;
      return exit(nested, first, wide ? second | ((third ?? 0n) << 32n) : second);
    }
    default:
      return { kind: record === Trc.LOST ? 'lost' : 'other' };
  }
}

const exit = (nested: boolean, number: bigint, rip: bigint): LogEvent => {
  const code = codeOfNumber(number);
  return { kind: nested ? 'nested-exit' : 'exit', reason: { text: `0x${code.toString(16)}`, code }, rip };
};

function analyzedEvent(text: string): LogEvent | undefined {
  if (/^vmentry\b/.test(text)) return { kind: 'entry' };
  if (!/^vmexit\b/.test(text)) return { kind: 'other' };
  const match = /^vmexit exit_reason (\S+) eip ([0-9a-f]{1,16})/.exec(text);
  if (match === null) return undefined;
  const [, name = '', rip] = match;
  const reason = /^[0-9a-f]+$/.test(name) ? { text: name, code: codeOfNumber(BigInt(`0x${name}`)) } : exitReason(name);
  return { kind: 'exit', reason, rip: BigInt(`0x${rip}`) };
}

/** All numbers of a record's fields: they stand as hexadecimal with 0x, of 64 bits as two words in one. */
const numbers = (fields: string): readonly bigint[] =>
  [...fields.matchAll(/0x([0-9a-f]{1,16})\b/gi)].map(([, digits]) => BigInt(`0x${digits}`));

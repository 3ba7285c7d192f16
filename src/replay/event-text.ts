/**
 * Each event as one line of text, used alike by the log, by reports and by tests.
 *
 * Registers are told by the names of those that changed; RIP with its value, for it says where the vCPU goes on.
 */
import { formatPosition, type JournalRecord } from '../journal/index.js';
import {
  decodeDelta,
  decodeVmcbDelta,
  EVENT_FIELDS,
  type EventOf,
  type EventType,
  exitName,
  type MachineEvent,
  PAGE_BYTES,
  R,
  REGISTER_NAMES,
  type RegisterDelta,
  type StatedEvent,
  VECTOR_NAMES,
  vmcbFieldsOfWord,
} from '../machine/index.js';

/** `L2 #VMEXIT cpuid …`, without the position. */
export const eventText = ({ level, retired, event }: StatedEvent): string => `L${level} ${wordsOf(event, retired)}`;

/** The line of an event with its place on the tape: `icount:seq L2 …`. */
export const recordText = (record: JournalRecord): string => `${formatPosition(record.position)} ${eventText(record)}`;

export const hex = (value: number | bigint): string => `0x${value.toString(16)}`;

type Describe<Type extends EventType> = (event: EventOf<Type>, retired: number) => string;

/** Events that read better than by their fields; the values of the registers they change come after. */
const DESCRIPTIONS: { readonly [Type in EventType]?: Describe<Type> } = {
  'cpu.ran': (_, retired) => `ran ${retired} ${retired === 1 ? 'instruction' : 'instructions'}`,
  'cpu.exception': ({ vector, errorCode }) => `exception ${vectorName(vector)}${errorText(errorCode)}`,
  'cpu.interrupt': ({ vector, source }) => `${source} interrupt ${hex(vector)}`,
  'cpu.system': ({ mnemonic }) => mnemonic,
  'cpu.control': ({ register, value }) => `${register} := ${hex(value)}`,
  'cpu.msr': ({ msr, value }) => `MSR ${hex(msr)} := ${hex(value)}`,
  'cpu.msr-unknown': ({ msr, write, value }) =>
    write ? `unknown MSR ${hex(msr)} := ${hex(value)}` : `read of unknown MSR ${hex(msr)}`,
  'cpu.halted': () => 'halted',
  'cpu.woke': () => 'woke',
  'cpu.pended': ({ what }) => `${what.toUpperCase()} is pending`,
  'cpu.shutdown': () => 'shutdown',
  'cpu.task-switched': ({ selector, cause, vector, errorCode }) =>
    `switched to task ${hex(selector)} by ${cause}${vector === null ? '' : ` ${vectorName(vector)}${errorText(errorCode)}`}`,
  'svm.vmrun': ({ vmcb, asid, words }) => `VMRUN vmcb=${hex(vmcb)} asid=${asid}${vmcbText('changed', words)}`,
  'svm.vmexit': ({ vmcb, code, info1, info2, intInfo, words }) =>
    `#VMEXIT ${exitName(code)} info1=${hex(info1)} info2=${hex(info2)}` +
    `${intInfo === 0n ? '' : ` intinfo=${hex(intInfo)}`} vmcb=${hex(vmcb)}${vmcbText('wrote', words)}`,
  'svm.injected': ({ kind, vector, errorCode }) =>
    `injected ${INJECTED_KINDS[kind] ?? `event of type ${kind}`} ${vectorName(vector)}${errorText(errorCode)}`,
  'svm.gif': ({ set }) => (set ? 'STGI' : 'CLGI'),
  'svm.vmload': ({ vmcb, words }) => `VMLOAD vmcb=${hex(vmcb)}${vmcbText('changed', words)}`,
  'svm.vmsave': ({ vmcb, words }) => `VMSAVE vmcb=${hex(vmcb)}${vmcbText('wrote', words)}`,
  'svm.invlpga': ({ linear, asid }) => `INVLPGA ${hex(linear)} asid=${asid}`,
  'svm.stale': ({ vmcb, clean, ignored }) =>
    `clean bits ${hex(clean)} of vmcb=${hex(vmcb)} are wrong:${vmcbText('ignored', ignored)}`,
  'avic.written': ({ offset, value }) => `virtual APIC ${hex(offset)} := ${hex(value)}`,
  'avic.doorbell': () => 'doorbell',
  'avic.acknowledged': ({ vector }) =>
    vector === null ? 'virtual APIC: the interrupt is gone' : `virtual APIC gave interrupt ${hex(vector)}`,
  'input.boot': ({ imageDigest, commandLine }) =>
    `input: boot of image ${imageDigest.slice(0, 12)}, command line ${JSON.stringify(commandLine)}`,
  'input.serial': ({ data }) => `input: serial ${bytesText(data)}`,
  'input.console': ({ data }) => `input: console ${bytesText(data)}`,
  'input.clock': ({ unixSeconds }) => `input: clock at ${unixSeconds} s`,
  'input.entropy': ({ seed }) => `input: entropy seed ${hex(seed)}`,
  'input.nmi': () => 'input: NMI button',
  'input.debugger-registers': ({ target, changes }) =>
    `debugger: vCPU ${target}${[...decodeDelta(changes)].map(([slot, value]) => ` ${REGISTER_NAMES[slot]} := ${hex(value)}`).join(',')}`,
  'input.debugger-msr': ({ target, msr, value }) => `debugger: vCPU ${target} MSR ${hex(msr)} := ${hex(value)}`,
  'input.debugger-memory': ({ address, data }) => `debugger: RAM at ${hex(address)} := ${bytesText(data)}`,
  'entropy.drawn': ({ value }) => `drew ${hex(value)}`,
  'input.turn': ({ to, until }) => `chaos: the turn of vCPU ${to}, until ${until}`,
  'input.hold': ({ target, until }) => `chaos: vCPU ${target} takes no interrupts until ${until} ns`,
  'input.skew': ({ target, ticks }) => `chaos: the TSC of vCPU ${target} moves by ${BigInt.asIntN(64, ticks)}`,
  'vcpu.scheduled': ({ until }) => `its turn, until ${until}`,
  'time.skipped': ({ nanoseconds }) => `skipped ${nanoseconds} ns`,
  'bus.unclaimed': ({ space, address, size, write, value }) =>
    `${space} ${hex(address)} is nobody's: ${write ? `write of ${hex(value)}` : 'read'}, ${size} bytes`,
  'cpu.reset': () => 'RESET',
  'machine.reset': ({ at }) => `RESET of the devices at ${at} ns`,
  'firmware.resumed': ({ code }) => `firmware: shutdown code ${hex(code)}, goes on where 40:67h says`,
  'firmware.initialized': ({ at }) => `firmware: devices set up at ${at} ns`,
  'firmware.booted': () => 'firmware: boot image loaded again',
  'machine.ended': ({ reason, status }) => `ended: ${reason}, status ${status}`,
  'uart.transmitted': ({ byte }) => `uart transmitted ${bytesText([byte])}`,
  'uart.received': ({ data }) => `uart received ${bytesText(data)}`,
  'virtio.notified': ({ device, queue }) => `${virtioName(device)} queue ${queue} notified`,
  'virtio.requested': ({ device, operation, sector, sectors, status }) =>
    `${virtioName(device)} ${operation}${sectors === 0 ? '' : ` of ${sectors} sectors at ${hex(sector)}`}${status === 0 ? '' : `: status ${status}`}`,
  'virtio.transmitted': ({ device, data }) => `${virtioName(device)} transmitted ${bytesText(data)}`,
  'virtio.arrived': ({ device, data }) => `${virtioName(device)}: ${bytesText(data)} arrived`,
  'virtio.received': ({ device, count }) => `${virtioName(device)} received ${count} bytes`,
  'virtio.served': ({ device, queue, used, interrupts }) =>
    `${virtioName(device)} queue ${queue} served up to ${hex(used)}${interrupts ? ', interrupts' : ''}`,
  'virtio.broken': ({ device, queue, problem }) => `${virtioName(device)} queue ${queue} is broken: ${problem}`,
  'input.pages': ({ address, bytes, present, latency }) =>
    `input: ${bytes} bytes from ${hex(address)} are ${present ? 'there again' : `gone, back ${latency} ns after an access`}`,
  'input.stolen': ({ nanoseconds }) => `input: the host took ${nanoseconds} ns`,
  'input.paused': () => 'input: the host paused the guest',
  'paravirt.updated': ({ structure, address, version }) => `wrote ${structure} at ${hex(address)}, version ${version}`,
  'paravirt.eoi': ({ what }) => `end of interrupt by memory: ${what}`,
  'paravirt.hypercall': ({ number, result, patched }) =>
    `hypercall ${number} gave ${BigInt.asIntN(64, result)}${patched ? ', VMCALL is now VMMCALL' : ''}`,
  'paravirt.preempted': ({ vcpu }) => `vCPU ${vcpu} is preempted`,
  'paravirt.stolen': ({ vcpu, nanoseconds }) => `vCPU ${vcpu} lost ${nanoseconds} ns`,
  'paravirt.kicked': ({ vcpu, pending }) => `vCPU ${vcpu}: ${pending ? 'kicked' : 'the kick ended HLT'}`,
  'paravirt.page-missed': ({ page, token, arrival }) =>
    `missed page ${hex(page * PAGE_BYTES)}, there at ${arrival} ns${token === null ? '' : `, token ${hex(token)}`}`,
  'paravirt.page-arrived': ({ page }) => `page ${hex(page * PAGE_BYTES)} is there`,
  'paravirt.page-ready': ({ vcpu, token }) => `vCPU ${vcpu}: page ready, token ${hex(token)}`,
};

const VIRTIO_WORDS = { virtioBlock: 'virtio block', virtioConsole: 'virtio console' } as const;
const virtioName = (device: keyof typeof VIRTIO_WORDS): string => VIRTIO_WORDS[device];

/** EVENTINJ.TYPE in words (APM vol.2 §15.20 Event Injection). */
export const INJECTED_KINDS: Readonly<Record<number, string>> = {
  0: 'interrupt',
  2: 'NMI',
  3: 'exception',
  4: 'software interrupt',
};

function wordsOf(event: MachineEvent, retired: number): string {
  const describe = DESCRIPTIONS[event.type] as Describe<EventType> | undefined;
  const text = describe === undefined ? fieldsText(event) : describe(event, retired);
  return 'registers' in event ? `${text}${deltaText(event.registers)}` : text;
}

/** The type and all fields, for events that need no words of their own. */
function fieldsText(event: MachineEvent): string {
  const values = event as unknown as Readonly<Record<string, unknown>>;
  const fields: readonly string[] = EVENT_FIELDS[event.type] ?? Object.keys(event).filter((name) => name !== 'type');
  const shown = fields.filter((name) => name !== 'registers');
  return [event.type, ...shown.map((name) => `${name}=${valueText(values[name])}`)].join(' ');
}

/** A field's value as a person reads it. */
export function valueText(value: unknown): string {
  if (typeof value === 'bigint') return hex(value);
  if (typeof value === 'number') return value > 9 ? hex(value) : String(value);
  if (value instanceof Uint8Array) return bytesText(value);
  return typeof value === 'string' ? value : (JSON.stringify(value) ?? 'nothing');
}

const vectorName = (vector: number): string => VECTOR_NAMES[vector] ?? hex(vector);
const errorText = (errorCode: number | null): string => (errorCode === null ? '' : ` error=${hex(errorCode)}`);

const LISTED_REGISTERS = 6;

function deltaText(delta: RegisterDelta): string {
  let goesOn = '';
  const names: string[] = [];
  for (const [slot, value] of decodeDelta(delta)) {
    if (slot === R.rip) goesOn = ` rip=${hex(value)}`;
    else names.push(REGISTER_NAMES[slot] ?? `slot ${slot}`);
  }
  return goesOn + listText(names, LISTED_REGISTERS);
}

const LISTED_FIELDS = 6;

/** @param verb what happened to the fields: software changed them before, the processor wrote them now, or did not look. */
function vmcbText(verb: 'changed' | 'wrote' | 'ignored', words: Uint8Array): string {
  const names = [...decodeVmcbDelta(words)].flatMap(([word]): readonly string[] => {
    const fields = vmcbFieldsOfWord(word);
    return fields.length === 0 ? [`+${hex(word * 8)}`] : fields;
  });
  return names.length === 0 ? '' : ` ${verb}${listText([...new Set(names)], LISTED_FIELDS)}`;
}

function listText(names: readonly string[], most: number): string {
  if (names.length === 0) return '';
  const more = names.length > most ? ` +${names.length - most}` : '';
  return ` [${names.slice(0, most).join(' ')}${more}]`;
}

const LISTED_BYTES = 32;

/** Printable bytes as text, all in hexadecimal otherwise. */
function bytesText(data: Uint8Array | readonly number[]): string {
  const bytes = [...data.slice(0, LISTED_BYTES)];
  const more = data.length > LISTED_BYTES ? ` … (${data.length} bytes)` : '';
  const printable = bytes.every(
    (byte) => (byte >= 0x20 && byte < 0x7f) || byte === 0x0a || byte === 0x0d || byte === 0x09,
  );
  if (printable && bytes.length > 0) return `${JSON.stringify(String.fromCharCode(...bytes))}${more}`;
  return `${bytes.map((byte) => byte.toString(16).padStart(2, '0')).join(' ')}${more}`;
}

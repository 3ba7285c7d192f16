/**
 * What a client asks about the target: what it can do, its threads, its processes and its descriptions.
 * Source: GDB manual, appendix E.4 General Query Packets, G Target Descriptions.
 */
import { R } from '../../src/machine/index.js';
import type { Debuggee } from '../debug/debuggee.js';
import { type View, viewOf } from '../debug/views.js';
import { type Answered, ESRCH, OK, UNSUPPORTED } from './answers.js';
import { hexText, PACKET_BYTES } from './packet.js';
import type { NumberedThread, Processes } from './processes.js';
import { type Feature, targetXml } from './registers.js';
import type { Threads } from './threads.js';

const THREADS_LISTED = 64;
const STATES: Readonly<Record<View['state'], string>> = {
  runs: 'runs',
  waits: 'waits behind its guest',
  saved: 'saved in its VMCB',
  absent: 'has not run yet',
};

export class Queries {
  /** Threads that are still to be told of. */
  private listed: readonly NumberedThread[] = [];

  /** @param command answers `qRcmd`, what a user typed to `monitor`. */
  constructor(
    private readonly debuggee: Debuggee,
    private readonly threads: Threads,
    private readonly features: readonly Feature[],
    private readonly command: (text: string) => Promise<string>,
  ) {}

  answer(text: string): Answered {
    const [name = ''] = text.split(/[:,;]/);
    switch (name) {
      case 'qSupported':
        return this.supported(text);
      case 'QStartNoAckMode':
        return { data: OK, quiet: true };
      case 'qAttached':
        return '1';
      case 'qC':
        return `QC${this.threads.idText(this.threads.current)}`;
      case 'qfThreadInfo':
        this.listed = this.threads.all;
        return this.nextThreads();
      case 'qsThreadInfo':
        return this.nextThreads();
      case 'qThreadExtraInfo':
        return this.threadInfo(text.slice('qThreadExtraInfo,'.length));
      case 'qXfer':
        return this.transfer(text);
      case 'qRcmd':
        return this.command(text.slice('qRcmd,'.length));
      default:
        return UNSUPPORTED;
    }
  }

  private supported(text: string): string {
    this.threads.multiprocess = /[:;]multiprocess\+/.test(text);
    return [
      `PacketSize=${PACKET_BYTES.toString(16)}`,
      ...['QStartNoAckMode+', 'multiprocess+', 'vContSupported+', 'swbreak+', 'hwbreak+'],
      ...['ReverseStep+', 'ReverseContinue+', 'qXfer:features:read+', 'qXfer:memory-map:read+', 'qXfer:osdata:read+'],
    ].join(';');
  }

  private nextThreads(): string {
    if (this.listed.length === 0) return 'l';
    const some = this.listed.slice(0, THREADS_LISTED);
    this.listed = this.listed.slice(THREADS_LISTED);
    return `m${some.map((each) => this.threads.idText(each)).join(',')}`;
  }

  private threadInfo(text: string): string {
    const found = this.threads.find(text);
    if (found === undefined) return ESRCH;
    const { subject } = found;
    const { state, vcpu, registers } = viewOf(this.debuggee.machine, subject);
    const guest = subject.level === 2 ? ` VMCB 0x${subject.vmcb.toString(16)} asid ${registers[R.guestAsid]}` : '';
    return hexText(`L${subject.level}${guest} vCPU ${vcpu}, ${STATES[state]}`);
  }

  private transfer(text: string): string {
    const match = /^qXfer:(features|memory-map|osdata):read:([^:]*):([0-9a-f]{1,8}),([0-9a-f]{1,8})$/i.exec(text);
    if (match === null) return UNSUPPORTED;
    const [, object, annex, offset, length] = match as unknown as [string, string, string, string, string];
    const document = this.document(object, annex);
    if (document === undefined) return 'E00';
    const at = Number.parseInt(offset, 16);
    const piece = document.slice(at, at + Math.min(Number.parseInt(length, 16), PACKET_BYTES - 16));
    return `${at + piece.length < document.length ? 'm' : 'l'}${piece}`;
  }

  private document(object: string, annex: string): string | undefined {
    if (object === 'memory-map') return MEMORY_MAP;
    if (object === 'features') return annex === 'target.xml' ? targetXml(this.features) : undefined;
    return annex === 'processes' ? processesXml(this.threads.processes.list) : undefined;
  }
}

/** Linear addresses are gdb's addresses: each may be mapped at some time, and none can be written to. */
const MEMORY_MAP = [
  '<?xml version="1.0"?>',
  '<!DOCTYPE memory-map PUBLIC "+//IDN gnu.org//DTD GDB Memory Map V1.0//EN" "http://sourceware.org/gdb/gdb-memory-map.dtd">',
  '<memory-map>',
  '<memory type="ram" start="0x0" length="0x8000000000000000"/>',
  '<memory type="ram" start="0x8000000000000000" length="0x8000000000000000"/>',
  '</memory-map>',
  '',
].join('\n');

/** What `info os processes` lists. */
const processesXml = (processes: Processes['list']): string =>
  [
    '<?xml version="1.0"?>',
    '<!DOCTYPE osdata SYSTEM "osdata.dtd">',
    '<osdata type="processes">',
    ...processes.map(
      ([process, name]) => `<item><column name="pid">${process}</column><column name="command">${name}</column></item>`,
    ),
    '</osdata>',
    '',
  ].join('\n');

/**
 * An ELF core file of an address space, in the form of Linux for x86-64: a thread for each vCPU, a PT_LOAD for each mapped
 * range. The file's memory is the machine's RAM, once and sparse: page `sPA` lies at `memoryAt + sPA`, and every range that
 * maps it points there. So a page that is mapped many times costs headers alone.
 *
 * Source: System V ABI, chapters 4 and 5; AMD64 ABI §3.4 for the order of registers; Linux, include/linux/elfcore.h, for the
 * layout of NT_PRSTATUS and NT_PRPSINFO.
 */
import { joined } from '../../journal/index.js';
import { type MappedRange, PAGE_BYTES, R, type RegisterName, type Registers } from '../../machine/index.js';
import { FXSAVE_BYTES, xsaveArea } from './xsave-area.js';

/** A vCPU. */
export interface CoreThread {
  /** From 1 on. */
  readonly id: number;
  readonly registers: Registers;
  /** Components of its XSAVE state, as bits of XCR0. */
  readonly components: bigint;
}

export interface CoreDescription {
  /** The first is the one that a debugger begins with. */
  readonly threads: readonly CoreThread[];
  readonly ranges: readonly MappedRange[];
  /** What debuggers show as the command that was run, at most 79 bytes. */
  readonly title: string;
  /** What Linux's notes have no room for, as a note of our own. */
  readonly details: object;
}

export interface CoreHead {
  /** All that stands before the memory. */
  readonly bytes: Uint8Array;
  /** Where RAM begins in the file, a multiple of 4096. */
  readonly memoryAt: number;
}

const EHDR_BYTES = 64;
const PHDR_BYTES = 56;
const SHDR_BYTES = 64;
const ET_CORE = 4;
const EM_X86_64 = 62;
const PT_LOAD = 1;
const PT_NOTE = 4;
const PF = { X: 1, W: 2, R: 4 } as const;
/** More program headers than e_phnum can count: their number stands in the first section header. */
const PN_XNUM = 0xffff;

const NT_PRSTATUS = 1;
const NT_FPREGSET = 2;
const NT_PRPSINFO = 3;
const NT_X86_XSTATE = 0x202;
/** Of our own: a number that nobody else has, for some readers go by it alone. Its contents are JSON. */
const NT_VMTAPE = 0x766d_7470;
const PRSTATUS_BYTES = 336;
const PRSTATUS_PID = 32;
const PRSTATUS_REGISTERS = 112;
const PRSTATUS_FP_VALID = 328;
const PRPSINFO_BYTES = 136;
const PRPSINFO_NAME = { offset: 40, bytes: 16 } as const;
const PRPSINFO_COMMAND = { offset: 56, bytes: 80 } as const;

/** user_regs_struct; undefined is orig_rax, which no vCPU has. */
const USER_REGISTERS: readonly (RegisterName | undefined)[] = [
  ...(['r15', 'r14', 'r13', 'r12', 'rbp', 'rbx', 'r11', 'r10', 'r9', 'r8', 'rax', 'rcx', 'rdx', 'rsi', 'rdi'] as const),
  ...[undefined, 'rip' as const, 'cs' as const, 'rflags' as const, 'rsp' as const, 'ss' as const],
  ...(['fsBase', 'gsBase', 'ds', 'es', 'fs', 'gs'] as const),
];
const NO_SYSTEM_CALL = 0xffff_ffff_ffff_ffffn;
const SELECTORS: ReadonlySet<string> = new Set(['cs', 'ss', 'ds', 'es', 'fs', 'gs']);

export function elfCoreHead({ threads, ranges, title, details }: CoreDescription): CoreHead {
  const notes = joined([
    ...threads.flatMap((thread, index) => notesOf(thread, index === 0 ? title : undefined)),
    note('VMTAPE', NT_VMTAPE, new TextEncoder().encode(JSON.stringify(details))),
  ]);
  const headers = ranges.length + 1;
  const many = headers >= PN_XNUM;
  const sectionAt = EHDR_BYTES + headers * PHDR_BYTES;
  const notesAt = sectionAt + (many ? SHDR_BYTES : 0);
  const memoryAt = Math.ceil((notesAt + notes.length) / PAGE_BYTES) * PAGE_BYTES;
  const bytes = new Uint8Array(memoryAt);
  const view = new DataView(bytes.buffer);
  writeFileHeader(view, many ? PN_XNUM : headers, many ? sectionAt : 0);
  writeProgramHeader(view, 0, { type: PT_NOTE, flags: 0, offset: notesAt, bytes: notes.length });
  for (const [index, { linear, physical, sPA, bytes: length, writable, executable }] of ranges.entries()) {
    const flags = PF.R | (writable ? PF.W : 0) | (executable ? PF.X : 0);
    const range = { type: PT_LOAD, flags, offset: memoryAt + sPA, bytes: length, linear, physical };
    writeProgramHeader(view, index + 1, range);
  }
  // sh_info of the first section header.
  if (many) view.setUint32(sectionAt + 44, headers, true);
  bytes.set(notes, notesAt);
  return { bytes, memoryAt };
}

function writeFileHeader(view: DataView, programHeaders: number, sectionAt: number): void {
  // Magic, ELFCLASS64, little-endian, version 1, System V ABI.
  for (const [at, byte] of [0x7f, 0x45, 0x4c, 0x46, 2, 1, 1, 0].entries()) view.setUint8(at, byte);
  view.setUint16(16, ET_CORE, true);
  view.setUint16(18, EM_X86_64, true);
  view.setUint32(20, 1, true);
  view.setBigUint64(32, BigInt(EHDR_BYTES), true);
  view.setBigUint64(40, BigInt(sectionAt), true);
  view.setUint16(52, EHDR_BYTES, true);
  view.setUint16(54, PHDR_BYTES, true);
  view.setUint16(56, programHeaders, true);
  view.setUint16(58, SHDR_BYTES, true);
  view.setUint16(60, sectionAt === 0 ? 0 : 1, true);
}

interface ProgramHeader {
  readonly type: number;
  readonly flags: number;
  readonly offset: number;
  readonly bytes: number;
  readonly linear?: bigint;
  readonly physical?: number;
}

function writeProgramHeader(view: DataView, index: number, header: ProgramHeader): void {
  const { type, flags, offset, bytes, linear = 0n, physical = 0 } = header;
  const at = EHDR_BYTES + index * PHDR_BYTES;
  view.setUint32(at, type, true);
  view.setUint32(at + 4, flags, true);
  view.setBigUint64(at + 8, BigInt(offset), true);
  view.setBigUint64(at + 16, linear, true);
  view.setBigUint64(at + 24, BigInt(physical), true);
  view.setBigUint64(at + 32, BigInt(bytes), true);
  view.setBigUint64(at + 40, type === PT_LOAD ? BigInt(bytes) : 0n, true);
  view.setBigUint64(at + 48, BigInt(type === PT_LOAD ? PAGE_BYTES : 4), true);
}

/** In the order that debuggers expect: what follows a NT_PRSTATUS is of its thread. */
function notesOf({ id, registers, components }: CoreThread, title: string | undefined): readonly Uint8Array[] {
  const area = xsaveArea(registers, components);
  return [
    note('CORE', NT_PRSTATUS, prstatus(id, registers)),
    ...(title === undefined ? [] : [note('CORE', NT_PRPSINFO, prpsinfo(id, title))]),
    note('CORE', NT_FPREGSET, area.subarray(0, FXSAVE_BYTES)),
    note('LINUX', NT_X86_XSTATE, area),
  ];
}

function prstatus(id: number, registers: Registers): Uint8Array {
  const bytes = new Uint8Array(PRSTATUS_BYTES);
  const view = new DataView(bytes.buffer);
  view.setUint32(PRSTATUS_PID, id, true);
  for (const [index, name] of USER_REGISTERS.entries()) {
    const value = name === undefined ? NO_SYSTEM_CALL : (registers[R[name]] as bigint);
    const shown = name !== undefined && SELECTORS.has(name) ? value & 0xffffn : value;
    view.setBigUint64(PRSTATUS_REGISTERS + 8 * index, shown, true);
  }
  view.setUint32(PRSTATUS_FP_VALID, 1, true);
  return bytes;
}

function prpsinfo(id: number, title: string): Uint8Array {
  const bytes = new Uint8Array(PRPSINFO_BYTES);
  new DataView(bytes.buffer).setUint32(24, id, true);
  const text = new TextEncoder().encode(title);
  for (const { offset, bytes: room } of [PRPSINFO_NAME, PRPSINFO_COMMAND]) {
    bytes.set(text.subarray(0, room - 1), offset);
  }
  return bytes;
}

/** Name and contents, each filled up to four bytes. */
function note(owner: string, type: number, contents: Uint8Array): Uint8Array {
  const name = new TextEncoder().encode(`${owner}\0`);
  const nameEnd = 12 + Math.ceil(name.length / 4) * 4;
  const bytes = new Uint8Array(nameEnd + Math.ceil(contents.length / 4) * 4);
  const view = new DataView(bytes.buffer);
  view.setUint32(0, name.length, true);
  view.setUint32(4, contents.length, true);
  view.setUint32(8, type, true);
  bytes.set(name, 12);
  bytes.set(contents, nameEnd);
  return bytes;
}

/** A core file of what runs at a level: which vCPUs are in it, what nobody knows of them, and the file itself. */
import { closeSync, ftruncateSync, openSync, writeSync } from 'node:fs';
import {
  CR0,
  EFER,
  InputError,
  type Machine,
  type MappedRange,
  mappedRanges,
  PAGE_BYTES,
  pagingFeatures,
  R,
  REGISTER_NAMES,
  type Registers,
  type Slot,
  xcr0Mask,
} from '../../src/machine/index.js';
import { type CoreHead, elfCoreHead } from '../../src/replay/index.js';
import { type Subject, type View, viewOf } from '../debug/views.js';

/** What is to be shown. */
export interface CoreRequest {
  readonly level: 1 | 2;
  /** Whose address space it is; the vCPU whose turn it is by default, of L2 the first that has a guest. */
  readonly vcpu: number | undefined;
  /** Where the machine stands, in words. */
  readonly position: string;
}

export interface Core {
  readonly head: CoreHead;
  readonly ranges: readonly MappedRange[];
  /** Pages of RAM that some range maps, in ascending order. */
  readonly pages: readonly number[];
  readonly threads: readonly View[];
  /** What whoever opens it should know, a sentence each. */
  readonly remarks: readonly string[];
}

/** So many ranges are no address space any more, but tables that lead into themselves. */
const MOST_RANGES = 1 << 20;

/** @throws InputError when there is no such vCPU or guest, or its tables map too much. */
export function coreOf(machine: Machine, request: CoreRequest): Core {
  const first = viewOf(machine, subjectOf(machine, request));
  const views = [first, ...(request.level === 1 ? othersBeside(machine, first) : [])];
  const ranges = rangesOf(machine, first);
  const components = xcr0Mask(machine.profile);
  const threads = views.map((view) => ({ id: view.vcpu + 1, registers: knownRegisters(view), components }));
  const title = `vmtape L${request.level}, vCPU ${first.vcpu}, at ${request.position}`;
  const details = { level: request.level, position: request.position, vcpus: views.map(detailsOf) };
  const head = elfCoreHead({ threads, ranges, title, details });
  return { head, ranges, pages: pagesOf(ranges), threads: views, remarks: remarksOn(machine, views, request.level) };
}

function subjectOf({ state }: Machine, { level, vcpu }: CoreRequest): Subject {
  if (vcpu !== undefined && vcpu >= state.vcpus.length) {
    const problem = `the machine has ${state.vcpus.length} of them, counted from 0`;
    throw new InputError(`vCPU ${vcpu}`, problem, 'Give another --vcpu.');
  }
  if (level === 1) return { level, vcpu: vcpu ?? state.schedule.vcpu };
  const order = [state.schedule.vcpu, ...state.vcpus.keys()];
  const candidates = vcpu === undefined ? order : [vcpu];
  for (const candidate of candidates) {
    const vmcb = Number(state.vcpus[candidate]?.registers[R.vmcb] ?? 0n);
    if (vmcb !== 0) return { level, vmcb };
  }
  const whose = vcpu === undefined ? 'no vCPU' : `not vCPU ${vcpu}`;
  throw new InputError('L2', `${whose} has run a guest by then`, 'Choose a later position, or --level L1.');
}

const value = ({ registers }: View, slot: Slot): bigint => registers[slot] as bigint;
const isPaged = (view: View): boolean => (value(view, R.cr0) & CR0.PG) !== 0n;

/** vCPUs of the hypervisor that have the same tables: a core file has one address space. */
function othersBeside(machine: Machine, first: View): readonly View[] {
  return [...machine.state.vcpus.keys()]
    .filter((vcpu) => vcpu !== first.vcpu)
    .map((vcpu) => viewOf(machine, { level: 1, vcpu }))
    .filter((view) => sameTables(view, first));
}

const sameTables = (a: View, b: View): boolean =>
  isPaged(a) === isPaged(b) && (!isPaged(a) || [R.cr3, R.efer].every((slot) => value(a, slot) === value(b, slot)));

function rangesOf(machine: Machine, view: View): readonly MappedRange[] {
  const ranges: MappedRange[] = [];
  if (view.state === 'absent') throw new InputError('L2', 'its VMCB is not in RAM', 'Choose another position.');
  for (const range of mappedRanges(machine.memory, view.registers, pagingFeatures(machine.profile))) {
    if (ranges.push(range) > MOST_RANGES) {
      const problem = `its page tables map more than ${MOST_RANGES} separate ranges, so they lead into themselves`;
      throw new InputError('address space', problem, 'vmtape show --memory reads places of it.');
    }
  }
  return ranges;
}

function pagesOf(ranges: readonly MappedRange[]): readonly number[] {
  const pages = new Set<number>();
  for (const { sPA, bytes } of ranges) {
    for (let at = sPA; at < sPA + bytes; at += PAGE_BYTES) pages.add(at / PAGE_BYTES);
  }
  return [...pages].sort((a, b) => a - b);
}

/** What nobody knows is zero. */
const knownRegisters = (view: View): Registers =>
  REGISTER_NAMES.map((_, slot) => (view.knows(slot as Slot) ? value(view, slot as Slot) : 0n)) as unknown as Registers;

const DETAILS = ['rip', 'cr0', 'cr2', 'cr3', 'cr4', 'efer', 'cpl', 'csBase', 'vmcb', 'nestedCr3', 'guestAsid'] as const;

const detailsOf = (view: View): object => ({
  ...{ vcpu: view.vcpu, state: view.state },
  ...Object.fromEntries(
    DETAILS.filter((name) => view.knows(R[name])).map((name) => [name, `0x${value(view, R[name]).toString(16)}`]),
  ),
});

const GENERAL = REGISTER_NAMES.slice(0, R.rflags + 1);

function remarksOn(machine: Machine, views: readonly View[], level: 1 | 2): readonly string[] {
  const [first] = views as [View];
  const remarks: string[] = [];
  const unknown = GENERAL.filter((name) => !first.knows(R[name]));
  if (unknown.length > 0) {
    const where = first.state === 'waits' ? 'waits behind its guest' : 'is saved in its VMCB';
    const other = level === 1 ? 'its guest has' : 'its hypervisor has';
    remarks.push(`L${level} ${where}: ${unknown.join(', ')} and the vector registers are what ${other}, and zero here`);
  }
  const absent = machine.state.vcpus.length - views.length;
  if (level === 1 && absent > 0) {
    remarks.push(`${absent} more vCPUs have other page tables; --vcpu gives them a core file of their own`);
  }
  const csBits = value(first, R.cs);
  const long = (value(first, R.efer) & EFER.LMA) !== 0n && (csBits & (1n << 25n)) !== 0n;
  if (!long) {
    const width = (csBits & (1n << 26n)) === 0n ? 'i8086' : 'i386';
    const base = value(first, R.csBase);
    const where = base === 0n ? '' : `; its code begins at ${base.toString(16)}h, which is to be added to rip`;
    remarks.push(`the code that runs is no 64-bit code: tell gdb "set architecture ${width}"${where}`);
  }
  return remarks;
}

/** Writes it, with holes where pages are zeros. */
export function writeCore(path: string, machine: Machine, { head, pages }: Core): void {
  const descriptor = openSync(path, 'wx');
  try {
    write(descriptor, head.bytes, 0);
    for (const page of pages) {
      const content = machine.memory.window(page * PAGE_BYTES, PAGE_BYTES);
      if (content.some((byte) => byte !== 0)) write(descriptor, content, head.memoryAt + page * PAGE_BYTES);
    }
    const last = pages.at(-1);
    ftruncateSync(descriptor, head.memoryAt + (last === undefined ? 0 : (last + 1) * PAGE_BYTES));
  } finally {
    closeSync(descriptor);
  }
}

function write(descriptor: number, bytes: Uint8Array, position: number): void {
  for (let at = 0; at < bytes.length; ) at += writeSync(descriptor, bytes, at, bytes.length - at, position + at);
}

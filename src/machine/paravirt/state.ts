/**
 * The state of KVM's interface, its events, and their reducer. What the guest keeps in its RAM (versions, flags, tokens)
 * is not here.
 * Source: Linux, Documentation/virt/kvm/x86/msr.rst, KVM-specific MSRs; hypercalls.rst, KVM Hypercalls Documentation.
 */
import type { FieldTable } from '../devices/device.js';
import { unreachable } from '../errors.js';
import type { RegisterDelta } from '../layout/cpu-state.js';
import { PAGE_BYTES } from '../units.js';
import { type AbsentRange, withoutPages, withPages } from './absent-pages.js';
import type { HostInput } from './host-input.js';
import { asyncPfWorks, KvmMsr } from './msr.js';

/** A page on its way to a guest. */
export interface PageArrival {
  readonly page: number;
  /** When it is there, in virtual nanoseconds. */
  readonly at: number;
}

/** A page that a vCPU was told to be absent: it is owed a "page ready". */
export interface MissedPage {
  readonly page: number;
  readonly token: number;
}

export interface ParavirtVcpu {
  /** SYSTEM_TIME, and whether it came by the old number. */
  systemTime: bigint;
  oldClock: boolean;
  stealTime: bigint;
  /** Nanoseconds that were taken from this vCPU, and how many of them the guest has been told of. */
  stolen: number;
  reported: number;
  /** When another vCPU had its turn though this one could run, in nanoseconds; null while it may run. */
  preempted: number | null;
  /** EOI_EN. */
  eoi: bigint;
  /** Bit 0 of its word is set, for the highest vector in service. */
  eoiOffered: boolean;
  pollControl: bigint;
  /** A kick waits for the next HLT. */
  kicked: boolean;
  /** ASYNC_PF_EN and ASYNC_PF_INT. */
  asyncPf: bigint;
  asyncPfInterrupt: bigint;
  /** Number of the next token. */
  nextToken: number;
  missed: MissedPage[];
  /** The page that it waits for, when it does (`Activity.PAGE_WAIT`). */
  awaited: number | null;
  /** Tokens of pages that are there, in the order in which they came. */
  ready: number[];
}

export interface ParavirtState {
  /** Wall-clock time at power-on: seconds since 1970-01-01T00:00:00Z. */
  unixSeconds: number;
  wallClock: bigint;
  migrationControl: bigint;
  /** Pages that are not there. */
  absent: AbsentRange[];
  /** In the order in which they come. */
  arrivals: PageArrival[];
  readonly vcpus: ParavirtVcpu[];
}

export type ParavirtEvent =
  | HostInput
  /** An MSR took a value. */
  | { readonly type: 'paravirt.written'; readonly vcpu: number; readonly msr: number; readonly value: bigint }
  /** A structure in guest RAM was written anew; `version` is the one that it has now. */
  | {
      readonly type: 'paravirt.updated';
      readonly vcpu: number;
      readonly structure: 'wall-clock' | 'clock' | 'steal-time';
      readonly address: bigint;
      readonly version: number;
    }
  /**
   * The guest may end the interrupt in service by clearing a bit in its RAM; it has done so (`lapic.ended` follows); or the
   * bit was taken back, and it must write to its APIC.
   */
  | {
      readonly type: 'paravirt.eoi';
      readonly vcpu: number;
      readonly what: 'offered' | 'taken' | 'withdrawn';
    }
  /** A hypercall was made. `patched`: by VMCALL, which was replaced in RAM by VMMCALL. */
  | {
      readonly type: 'paravirt.hypercall';
      readonly number: bigint;
      readonly result: bigint;
      readonly patched: boolean;
      readonly registers: RegisterDelta;
    }
  /** Another vCPU has its turn though this one could run. */
  | { readonly type: 'paravirt.preempted'; readonly vcpu: number; readonly at: number }
  /** So many nanoseconds were taken from a vCPU: by the others, or by the host. */
  | { readonly type: 'paravirt.stolen'; readonly vcpu: number; readonly nanoseconds: number }
  /** A kick waits for the vCPU's next HLT, or has ended one. */
  | { readonly type: 'paravirt.kicked'; readonly vcpu: number; readonly pending: boolean }
  /** An absent page was needed; it is there at `arrival`. The guest is told of it by `token`; null when it waits. */
  | {
      readonly type: 'paravirt.page-missed';
      readonly vcpu: number;
      readonly page: number;
      readonly token: number | null;
      readonly arrival: number;
    }
  /** A page is there again. */
  | { readonly type: 'paravirt.page-arrived'; readonly page: number }
  /** A vCPU is told that a page is there. */
  | { readonly type: 'paravirt.page-ready'; readonly vcpu: number; readonly token: number }
  /** INIT: the registers that point into RAM are clear. */
  | { readonly type: 'paravirt.reset'; readonly vcpu: number };

export const PARAVIRT_EVENT_FIELDS: FieldTable<ParavirtEvent> = {
  'input.pages': ['address', 'bytes', 'present', 'latency'],
  'input.stolen': ['nanoseconds'],
  'input.paused': [],
  'paravirt.written': ['vcpu', 'msr', 'value'],
  'paravirt.updated': ['vcpu', 'structure', 'address', 'version'],
  'paravirt.eoi': ['vcpu', 'what'],
  'paravirt.hypercall': ['number', 'result', 'patched', 'registers'],
  'paravirt.preempted': ['vcpu', 'at'],
  'paravirt.stolen': ['vcpu', 'nanoseconds'],
  'paravirt.kicked': ['vcpu', 'pending'],
  'paravirt.page-missed': ['vcpu', 'page', 'token', 'arrival'],
  'paravirt.page-arrived': ['page'],
  'paravirt.page-ready': ['vcpu', 'token'],
  'paravirt.reset': ['vcpu'],
};

/** The token that stands for every page. */
const EVERY_PAGE = 0xffff_ffff;
/** Numbers of tokens have 20 bits, above those of the vCPU, and are never 0. */
const TOKEN_VCPU_BITS = 12;
const TOKEN_NUMBERS = 2 ** 20;

export const tokenOf = (vcpu: number, number: number): number => number * 2 ** TOKEN_VCPU_BITS + vcpu;

/** What INIT clears. */
const pointers = () => ({
  systemTime: 0n,
  oldClock: false,
  stealTime: 0n,
  eoi: 0n,
  eoiOffered: false,
  kicked: false,
  asyncPf: 0n,
  asyncPfInterrupt: 0n,
  missed: [],
  awaited: null,
  ready: [],
});

/** At power-on. No memory is encrypted, so the guest may be migrated; the host may poll. */
export const initialParavirt = (vcpus: number): ParavirtState => ({
  unixSeconds: 0,
  wallClock: 0n,
  migrationControl: 1n,
  absent: [],
  arrivals: [],
  vcpus: Array.from({ length: vcpus }, () => ({
    ...{ stolen: 0, reported: 0, preempted: null, pollControl: 1n, nextToken: 1 },
    ...pointers(),
  })),
});

export const paravirtVcpu = (state: ParavirtState, vcpu: number): ParavirtVcpu => state.vcpus[vcpu] as ParavirtVcpu;

/** Applies an event in place; registers and time are the caller's. */
export function reduceParavirt(state: ParavirtState, event: ParavirtEvent): void {
  switch (event.type) {
    case 'input.pages': {
      const range = { first: event.address / PAGE_BYTES, pages: event.bytes / PAGE_BYTES, latency: event.latency };
      state.absent = event.present
        ? withoutPages(state.absent, range.first, range.pages)
        : withPages(state.absent, range);
      return;
    }
    case 'paravirt.written':
      write(state, paravirtVcpu(state, event.vcpu), event.msr, event.value);
      return;
    case 'paravirt.updated':
      if (event.structure !== 'steal-time') return;
      paravirtVcpu(state, event.vcpu).reported = paravirtVcpu(state, event.vcpu).stolen;
      return;
    case 'paravirt.eoi':
      paravirtVcpu(state, event.vcpu).eoiOffered = event.what === 'offered';
      return;
    case 'paravirt.preempted':
      paravirtVcpu(state, event.vcpu).preempted = event.at;
      return;
    case 'paravirt.stolen':
      paravirtVcpu(state, event.vcpu).stolen += event.nanoseconds;
      paravirtVcpu(state, event.vcpu).preempted = null;
      return;
    case 'paravirt.kicked':
      paravirtVcpu(state, event.vcpu).kicked = event.pending;
      return;
    case 'paravirt.page-missed':
      miss(state, paravirtVcpu(state, event.vcpu), event);
      return;
    case 'paravirt.page-arrived':
      arrive(state, event.page);
      return;
    case 'paravirt.page-ready':
      paravirtVcpu(state, event.vcpu).ready.shift();
      return;
    case 'paravirt.reset':
      Object.assign(paravirtVcpu(state, event.vcpu), pointers());
      return;
    case 'input.stolen': // time is the machine's
    case 'input.paused':
    case 'paravirt.hypercall':
      return;
    default:
      unreachable(event);
  }
}

/** What RDMSR gives. */
export function readKvmMsr(state: ParavirtState, vcpu: ParavirtVcpu, msr: number): bigint {
  switch (msr) {
    case KvmMsr.WALL_CLOCK:
    case KvmMsr.WALL_CLOCK_NEW:
      return state.wallClock;
    case KvmMsr.SYSTEM_TIME:
    case KvmMsr.SYSTEM_TIME_NEW:
      return vcpu.systemTime;
    case KvmMsr.ASYNC_PF_EN:
      return vcpu.asyncPf;
    case KvmMsr.STEAL_TIME:
      return vcpu.stealTime;
    case KvmMsr.EOI_EN:
      return vcpu.eoi;
    case KvmMsr.POLL_CONTROL:
      return vcpu.pollControl;
    case KvmMsr.ASYNC_PF_INT:
      return vcpu.asyncPfInterrupt;
    case KvmMsr.MIGRATION_CONTROL:
      return state.migrationControl;
    default: // ASYNC_PF_ACK
      return 0n;
  }
}

function write(state: ParavirtState, vcpu: ParavirtVcpu, msr: number, value: bigint): void {
  switch (msr) {
    case KvmMsr.WALL_CLOCK:
    case KvmMsr.WALL_CLOCK_NEW:
      state.wallClock = value;
      return;
    case KvmMsr.SYSTEM_TIME:
    case KvmMsr.SYSTEM_TIME_NEW:
      vcpu.systemTime = value;
      vcpu.oldClock = msr === KvmMsr.SYSTEM_TIME;
      return;
    case KvmMsr.ASYNC_PF_EN:
      vcpu.asyncPf = value;
      if (!asyncPfWorks(value)) {
        vcpu.missed = [];
        vcpu.ready = [];
      } else if (vcpu.ready.length === 0) vcpu.ready.push(EVERY_PAGE);
      return;
    case KvmMsr.STEAL_TIME:
      vcpu.stealTime = value;
      return;
    case KvmMsr.EOI_EN:
      vcpu.eoi = value;
      return;
    case KvmMsr.POLL_CONTROL:
      vcpu.pollControl = value;
      return;
    case KvmMsr.ASYNC_PF_INT:
      vcpu.asyncPfInterrupt = value;
      return;
    case KvmMsr.MIGRATION_CONTROL:
      state.migrationControl = value;
      return;
  }
}

function miss(
  state: ParavirtState,
  vcpu: ParavirtVcpu,
  { page, token, arrival }: Extract<ParavirtEvent, { readonly type: 'paravirt.page-missed' }>,
): void {
  if (!state.arrivals.some((known) => known.page === page)) {
    const after = state.arrivals.findIndex(({ at }) => at > arrival);
    state.arrivals.splice(after < 0 ? state.arrivals.length : after, 0, { page, at: arrival });
  }
  if (token === null) {
    vcpu.awaited = page;
    return;
  }
  vcpu.missed.push({ page, token });
  vcpu.nextToken = (vcpu.nextToken % (TOKEN_NUMBERS - 1)) + 1;
}

function arrive(state: ParavirtState, page: number): void {
  state.absent = withoutPages(state.absent, page, 1);
  state.arrivals = state.arrivals.filter((arrival) => arrival.page !== page);
  for (const vcpu of state.vcpus) {
    const found = vcpu.missed.find((missed) => missed.page === page);
    if (found === undefined) continue;
    vcpu.missed = vcpu.missed.filter((missed) => missed !== found);
    vcpu.ready.push(found.token);
  }
}

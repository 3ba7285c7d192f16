/**
 * A hypervisor and its guests: a loop around VMRUN that lets the guest go on behind whatever it exited for, and VMCBs with
 * random states, intercepts, injected events and nested paging.
 * Source: APM vol.2 §15.5 VMRUN Instruction, §15.20 Event Injection, §15.25 Nested Paging; appendix B VMCB Layout.
 */
import { R, VMCB } from '../../src/machine/index.js';
import { At, VMCB_COUNT } from './memory-map.js';
import type { LegacyPaging, Mode } from './modes.js';
import type { Random } from './random.js';
import type { State } from './state.js';

const PAGE_BYTES = 4096;
export const VMCB_LIST = Array.from({ length: VMCB_COUNT }, (_, index) => At.VMCBS + index * PAGE_BYTES);

/** What the loop does besides VMRUN. */
export interface HypervisorStyle {
  readonly bits: 64 | 32;
  readonly loads: boolean;
  readonly saves: boolean;
  /** STGI behind the exit: what was held is taken there. */
  readonly opens: boolean;
}

const EXIT_CODE_AND_HLT = '7078';
const NEXT_RIP = 'c8000000';
const RIP = '78050000';

/** Code in hexadecimal, with rAX at the VMCB; it halts when the guest did, or when there is no next RIP. */
export function hypervisorCode({ bits, loads, saves, opens }: HypervisorStyle): string {
  const wide = bits === 64 ? '48' : '';
  const head = `${loads ? '0f01da' : ''}0f01d8${saves ? '0f01db' : ''}${opens ? '0f01dc' : ''}8378${EXIT_CODE_AND_HLT}`;
  const middle = `${wide}8b88${NEXT_RIP}${wide}85c9`;
  const tail = `${wide}8988${RIP}`;
  const size = (code: string): number => code.length / 2;
  const jump = 2;
  const toEnd = (between: number): string => `74${hex8(between)}`;
  const body = `${head}${toEnd(size(middle) + jump + size(tail) + jump)}${middle}${toEnd(size(tail) + jump)}${tail}`;
  return `${body}eb${hex8(-(size(body) + jump))}faf4ebfd`;
}

const hex8 = (value: number): string => (value & 0xff).toString(16).padStart(2, '0');

/** Fields that a VMCB has under the names of the registers. */
const SAVED = [
  ...[
    'es',
    'esBase',
    'cs',
    'csBase',
    'ss',
    'ssBase',
    'ds',
    'dsBase',
    'fs',
    'fsBase',
    'gs',
    'gsBase',
    'ldtr',
    'ldtrBase',
  ],
  ...[
    'tr',
    'trBase',
    'gdtrBase',
    'idtrBase',
    'cr0',
    'cr2',
    'cr3',
    'cr4',
    'efer',
    'dr6',
    'dr7',
    'rflags',
    'rip',
    'rsp',
    'rax',
  ],
  ...['star', 'lstar', 'cstar', 'sfmask', 'kernelGsBase', 'sysenterCs', 'sysenterEsp', 'sysenterEip', 'debugCtl'],
] as const satisfies readonly (keyof typeof R)[];

const EVENT_VALID = 0x8000_0000n;
/** INTR, NMI, exception, software interrupt; 1 is reserved. */
const EVENT_TYPES = [0, 0, 2, 3, 3, 3, 3, 4, 4] as const;
const EXCEPTIONS = [0, 1, 3, 5, 6, 7, 8, 10, 11, 12, 13, 14, 16, 17, 19] as const;

export interface GuestStyle {
  readonly mode: Mode;
  /** Paging of the host, which is the format of the nested tables; none without paging. */
  readonly hostPaging: 'long' | LegacyPaging;
}

/** The 4 KiB of a VMCB for a guest with these registers. */
export function randomVmcb(guest: State, { hostPaging }: GuestStyle, random: Random): Uint8Array {
  const bytes = new Uint8Array(PAGE_BYTES);
  const vmcb = VMCB.at(new DataView(bytes.buffer), 0);
  for (const name of SAVED) vmcb[name] = guest.get(R[name]);
  vmcb.gdtrLimit = Number(guest.get(R.gdtrLimit));
  vmcb.idtrLimit = Number(guest.get(R.idtrLimit));
  vmcb.cpl = Number(guest.get(R.cpl));
  vmcb.efer |= 0x1000n; // SVME
  vmcb.gPAT = 0x0007_0406_0007_0406n;
  writeIntercepts(vmcb, random);
  writeControls(vmcb, hostPaging, random);
  // Something that a consistency check, or the guest, will not like.
  if (random.oneIn(24)) bytes[random.below(0x400) + (random.oneIn(2) ? 0x400 : 0)] = random.next32() & 0xff;
  return bytes;
}

type Vmcb = ReturnType<typeof VMCB.at>;

function writeIntercepts(vmcb: Vmcb, random: Random): void {
  // One bit in 2, 4, 8 or none.
  const density = random.pick([0, 1, 2, 3, 3]);
  const bits = (): number => {
    let word = density === 0 ? 0 : -1;
    for (let round = 0; round < density; round++) word &= random.next32();
    return word >>> 0;
  };
  vmcb.interceptCr = bits();
  vmcb.interceptDr = bits();
  vmcb.interceptExceptions = random.oneIn(2) ? 0 : bits();
  const halts = random.oneIn(4) ? 0 : 1 << 24;
  const shutdown = random.oneIn(4) ? 0 : 1 << 31;
  vmcb.intercept3 = (bits() | halts | shutdown) >>> 0;
  vmcb.intercept4 = (bits() | (random.oneIn(64) ? 0 : 1)) >>> 0;
  vmcb.intercept5 = bits();
}

function writeControls(vmcb: Vmcb, hostPaging: GuestStyle['hostPaging'], random: Random): void {
  const some = (bit: bigint, times: number): bigint => (random.oneIn(times) ? bit : 0n);
  vmcb.pauseFilterCount = random.below(4);
  vmcb.pauseFilterThreshold = random.below(40);
  vmcb.iopmBasePA = BigInt(At.IO_MAP);
  vmcb.msrpmBasePA = BigInt(At.MSR_MAP);
  vmcb.tscOffset = random.next64();
  vmcb.guestASID = random.oneIn(64) ? 0 : 1 + random.below(3);
  vmcb.tlbControl = random.pick([0, 0, 0, 1, 3, 7, 2]);
  vmcb.intControl =
    BigInt(random.below(16)) |
    some(1n << 8n, 4) |
    some(1n << 9n, 2) |
    some(1n << 11n, 8) |
    some(1n << 12n, 8) |
    (BigInt(random.below(16)) << 16n) |
    some(1n << 20n, 4) |
    some(1n << 24n, 3) |
    some(1n << 25n, 4) |
    some(1n << 26n, 24) |
    (BigInt(32 + random.below(224)) << 32n);
  vmcb.intShadow = some(1n, 8);
  vmcb.virtExt = some(1n, 6) | some(2n, 6);
  // Rarely honest: what software changed behind set bits must not be seen.
  vmcb.vmcbClean = random.oneIn(3) ? random.next32() & 0xfff : 0;
  if (hostPaging !== 'none' && random.oneIn(2)) {
    vmcb.nestedControl = 1n | some(8n, 8);
    vmcb.nCR3 = BigInt(
      hostPaging === 'long'
        ? At.NESTED_PML4
        : hostPaging === 'pae'
          ? At.NESTED_PAE_POINTERS
          : At.NESTED_LEGACY_DIRECTORY,
    );
  }
  if (random.oneIn(3)) vmcb.eventInj = randomEvent(random);
}

function randomEvent(random: Random): bigint {
  if (random.oneIn(32)) return random.next64();
  const type = random.pick(EVENT_TYPES);
  const vector = type === 3 ? random.pick(EXCEPTIONS) : random.below(256);
  const errorCode = random.oneIn(3) ? (BigInt(random.next32() & 0xffff) << 32n) | (1n << 11n) : 0n;
  return EVENT_VALID | errorCode | BigInt((type << 8) | vector);
}

/** I/O and MSR permission maps: one bit in eight is set, in some programs all are clear. */
export function writePermissionMaps(write8: (address: number, value: number) => void, random: Random): void {
  if (random.oneIn(3)) return;
  for (const [start, bytes] of [
    [At.IO_MAP, 3 * PAGE_BYTES],
    [At.MSR_MAP, 2 * PAGE_BYTES],
  ] as const) {
    for (let at = start; at < start + bytes; at++)
      write8(at, random.next32() & random.next32() & random.next32() & 0xff);
  }
}

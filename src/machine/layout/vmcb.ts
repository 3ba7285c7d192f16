/**
 * The virtual machine control block: 4 KiB that describe a guest, controls in the first half, saved state from 400h on.
 * The field table serves whoever looks at a VMCB by name; the world switch works on its 64-bit words, `W`.
 *
 * Events carry a VMCB as its changed words (`VmcbDelta`): the machine keeps a copy of every VMCB that the processor has
 * touched, as it was when it last did, and an event says what differs from that copy. A copy starts as all zeros.
 * Source: APM vol.2 appendix B VMCB Layout, tables B-1 and B-2; §15.5.1 Basic Operation for segment attributes.
 */

import type { VmcbDelta } from '../events.js';
import type { PhysicalMemory } from '../mmu/memory.js';
import { bytes, layout, u8, u16, u32, u64 } from './layout.js';
import { RAM_BASE } from './linear-memory.js';
import { putWord32, word32At } from './little-endian.js';
import { keep, room } from './slab.js';

export const VMCB_BYTES = 4096;

export const VMCB = layout('VMCB', VMCB_BYTES, {
  interceptCr: u32(0x000, 'bit n: read of CRn; bit 16+n: write of CRn'),
  interceptDr: u32(0x004, 'bit n: read of DRn; bit 16+n: write of DRn'),
  interceptExceptions: u32(0x008, 'bit n: exception vector n'),
  intercept3: u32(0x00c, 'INTR … SHUTDOWN, see svm/intercepts.ts'),
  intercept4: u32(0x010, 'VMRUN … CR write traps; bit 0 must be set'),
  intercept5: u32(0x014, 'INVLPGB … IDLE_HLT'),
  pauseFilterThreshold: u16(0x03c, 'PAUSEs further apart than this reload the count'),
  pauseFilterCount: u16(0x03e, 'PAUSEs before an exit'),
  iopmBasePA: u64(0x040, 'sPA of the 12 KiB I/O permission map; low 12 bits ignored'),
  msrpmBasePA: u64(0x048, 'sPA of the 8 KiB MSR permission map; low 12 bits ignored'),
  tscOffset: u64(0x050, 'added to the time-stamp counter, modulo 2^64'),
  guestASID: u32(0x058, 'address space of the guest; 0 is the host and refused by VMRUN'),
  tlbControl: u8(0x05c, 'translations to drop at VMRUN: TlbControl'),
  intControl: u64(0x060, 'virtual interrupts: IntControl'),
  intShadow: u64(0x068, 'bit 0: the guest is in an interrupt shadow'),
  exitCode: u64(0x070, 'reason of the #VMEXIT, see svm/exit-code.ts'),
  exitInfo1: u64(0x078, 'more about it, by exit code'),
  exitInfo2: u64(0x080, 'more about it, by exit code'),
  exitIntInfo: u64(0x088, 'the event whose delivery was cut short; format of eventInj'),
  nestedControl: u64(0x090, 'nested paging and encryption: NestedControl'),
  avicApicBar: u64(0x098, 'AVIC: guest-physical address of the APIC'),
  ghcbPA: u64(0x0a0, 'SEV-ES: guest-hypervisor communication block'),
  eventInj: u64(0x0a8, 'event to deliver on entry, see svm/injection.ts'),
  nCR3: u64(0x0b0, 'sPA of the nested page-table root'),
  virtExt: u64(0x0b8, 'bit 0: LBR virtualization; bit 1: virtualized VMLOAD and VMSAVE'),
  vmcbClean: u32(0x0c0, 'bit n clear: group n of fields changed since the last #VMEXIT'),
  nRIP: u64(0x0c8, 'address of the instruction after the intercepted one, or 0'),
  instructionLength: u8(0x0d0, 'bytes fetched: 0..15'),
  instructionBytes: bytes(0x0d1, 15, 'guest instruction bytes at CS:rIP'),
  avicBackingPage: u64(0x0e0, 'AVIC: sPA of the virtual APIC page'),
  avicLogicalTable: u64(0x0f0, 'AVIC: sPA of the logical id table'),
  avicPhysicalTable: u64(0x0f8, 'AVIC: sPA of the physical id table, and its highest index'),
  vmsaPA: u64(0x108, 'SEV-ES: sPA of the encrypted save area'),
  busLockCounter: u16(0x120, 'bus locks before an exit'),
  hostSoftware: bytes(0x3e0, 32, 'left to the hypervisor'),
  es: u64(0x400, 'selector, attributes << 16, limit << 32'),
  esBase: u64(0x408, 'low 32 bits are implemented'),
  cs: u64(0x410, 'selector, attributes << 16, limit << 32'),
  csBase: u64(0x418, 'low 32 bits are implemented'),
  ss: u64(0x420, 'selector, attributes << 16, limit << 32'),
  ssBase: u64(0x428, 'low 32 bits are implemented'),
  ds: u64(0x430, 'selector, attributes << 16, limit << 32'),
  dsBase: u64(0x438, 'low 32 bits are implemented'),
  fs: u64(0x440, 'VMLOAD and VMSAVE only'),
  fsBase: u64(0x448, 'VMLOAD and VMSAVE only'),
  gs: u64(0x450, 'VMLOAD and VMSAVE only'),
  gsBase: u64(0x458, 'VMLOAD and VMSAVE only'),
  gdtrLimit: u32(0x464, '16 bits'),
  gdtrBase: u64(0x468, 'canonical'),
  ldtr: u64(0x470, 'VMLOAD and VMSAVE only'),
  ldtrBase: u64(0x478, 'VMLOAD and VMSAVE only'),
  idtrLimit: u32(0x484, '16 bits'),
  idtrBase: u64(0x488, 'canonical'),
  tr: u64(0x490, 'VMLOAD and VMSAVE only'),
  trBase: u64(0x498, 'VMLOAD and VMSAVE only'),
  cpl: u8(0x4cb, 'privilege level; real mode makes it 0, virtual-8086 mode 3'),
  efer: u64(0x4d0, 'SVME must be set'),
  cr4: u64(0x548, 'MBZ bits refuse VMRUN'),
  cr3: u64(0x550, 'sPA, or gPA under nested paging'),
  cr0: u64(0x558, 'PG without PE is allowed: paged real mode'),
  dr7: u64(0x560, 'bits 63:32 must be zero'),
  dr6: u64(0x568, 'bits 63:32 must be zero'),
  rflags: u64(0x570, ''),
  rip: u64(0x578, 'neither checked nor made canonical'),
  rsp: u64(0x5d8, ''),
  sCet: u64(0x5e0, 'shadow stacks'),
  ssp: u64(0x5e8, 'shadow stacks'),
  isstAddr: u64(0x5f0, 'shadow stacks'),
  rax: u64(0x5f8, ''),
  star: u64(0x600, 'VMLOAD and VMSAVE only'),
  lstar: u64(0x608, 'VMLOAD and VMSAVE only'),
  cstar: u64(0x610, 'VMLOAD and VMSAVE only'),
  sfmask: u64(0x618, 'VMLOAD and VMSAVE only'),
  kernelGsBase: u64(0x620, 'VMLOAD and VMSAVE only'),
  sysenterCs: u64(0x628, 'VMLOAD and VMSAVE only'),
  sysenterEsp: u64(0x630, 'VMLOAD and VMSAVE only'),
  sysenterEip: u64(0x638, 'VMLOAD and VMSAVE only'),
  cr2: u64(0x640, 'not written by an intercepted #PF'),
  gPAT: u64(0x668, 'the guest’s PAT, under nested paging'),
  debugCtl: u64(0x670, 'under LBR virtualization'),
  lastBranchFrom: u64(0x678, 'under LBR virtualization'),
  lastBranchTo: u64(0x680, 'under LBR virtualization'),
  lastIntFrom: u64(0x688, 'under LBR virtualization'),
  lastIntTo: u64(0x690, 'under LBR virtualization'),
  debugExtnCtl: u64(0x698, 'LBR stack virtualization'),
  specCtrl: u64(0x6e0, 'virtualized SPEC_CTRL'),
});

type VmcbField = keyof typeof VMCB.fields;

/** Index of the 64-bit word that holds a field: `quads[W.rip]`. */
export const W = Object.fromEntries(
  Object.entries(VMCB.fields).map(([name, { offset }]) => [name, offset >>> 3]),
) as Readonly<Record<VmcbField, number>>;

/** Values of tlbControl. Source: APM vol.2 §15.16.1 TLB Flush, table 15-9. */
export const TlbControl = { NONE: 0, ALL: 1, GUEST: 3, GUEST_NON_GLOBAL: 7 } as const;

/** Bits of intControl. Source: APM vol.2 §15.21 Interrupt and Local APIC Support, appendix B. */
export const IntControl = {
  V_TPR: 0xffn,
  V_IRQ: 1n << 8n,
  V_GIF: 1n << 9n,
  V_NMI: 1n << 11n,
  V_NMI_MASK: 1n << 12n,
  V_INTR_PRIO: 0xfn << 16n,
  V_IGN_TPR: 1n << 20n,
  V_INTR_MASKING: 1n << 24n,
  V_GIF_ENABLE: 1n << 25n,
  V_NMI_ENABLE: 1n << 26n,
  X2AVIC_ENABLE: 1n << 30n,
  AVIC_ENABLE: 1n << 31n,
  V_INTR_VECTOR: 0xffn << 32n,
} as const;

/** Bit of intShadow. */
export const INTERRUPT_SHADOW = 1n;

/** Bits of nestedControl. */
export const NestedControl = {
  NP_ENABLE: 1n << 0n,
  SEV_ENABLE: 1n << 1n,
  SEV_ES_ENABLE: 1n << 2n,
  GMET_ENABLE: 1n << 3n,
  SSS_CHECK_ENABLE: 1n << 4n,
  ROGPT_ENABLE: 1n << 6n,
  /** INVLPGB and TLBSYNC, which are #UD otherwise. */
  INVLPGB_ENABLE: 1n << 7n,
} as const;

/** Bits of virtExt. Source: APM vol.2 §15.23.1, §15.33.1, appendix B. */
export const VirtExt = { LBR_VIRTUALIZATION: 1n << 0n, VMLOAD_VMSAVE: 1n << 1n } as const;

/** Bits of a segment's attributes within the packed word, at bits 31:16. */
export const SegmentWord = {
  PRESENT: 1n << 23n,
  /** L. */
  LONG: 1n << 25n,
  /** D or B. */
  BIG: 1n << 26n,
  /** Bits that the processor keeps: bits 15:12 of the attributes do not exist. */
  MASK: 0xffff_ffff_0fff_ffffn,
} as const;

/** A VMCB as the processor last saw it: 1024 words of 32 bits. */
export type VmcbWords = Uint32Array;
/** Pairs of first and last-plus-one 64-bit word. */
export type WordRanges = readonly number[];

const wordsOf = (...offsets: readonly number[]): WordRanges => offsets.map((offset) => offset / 8);
/** What VMRUN reads and #VMEXIT writes, with all that a VMCB means: controls, the hypervisor's bytes, the save area. */
export const ALL_WORDS = wordsOf(0x000, 0x170, 0x3e0, 0x400, 0x400, 0x6f0);
/** What VMLOAD reads and VMSAVE writes. Source: APM vol.2 §15.5.2 VMSAVE and VMLOAD Instructions. */
export const VMLOAD_WORDS = wordsOf(0x440, 0x460, 0x470, 0x480, 0x490, 0x4a0, 0x600, 0x640);

export const emptyVmcbWords = (): VmcbWords => new Uint32Array(VMCB_BYTES / 4);

/** Word index, then value. */
export const VMCB_DELTA_ENTRY_BYTES = 10;
const NOTHING_KNOWN = emptyVmcbWords();

/** Makes one delta after another, words in ascending order, without allocating before the end. */
export class VmcbDeltaBuilder {
  private slab: Uint8Array = new Uint8Array(0);
  private start = 0;
  private end = 0;

  /** Begins a delta of at most as many words as a VMCB has. Nothing else may be built until `finish`. */
  begin(): void {
    const { slab, at } = room((VMCB_BYTES / 8) * VMCB_DELTA_ENTRY_BYTES);
    this.slab = slab;
    this.start = at;
    this.end = at;
  }

  /** @param low @param high the two halves of the word's value. */
  add(word: number, low: number, high: number): void {
    const { slab, end } = this;
    slab[end] = word;
    slab[end + 1] = word >>> 8;
    putWord32(slab, end + 2, low);
    putWord32(slab, end + 6, high);
    this.end = end + VMCB_DELTA_ENTRY_BYTES;
  }

  /** The delta. */
  finish(): VmcbDelta {
    return keep(this.end - this.start);
  }
}

const changes = new VmcbDeltaBuilder();

/** Place of a VMCB's first 64-bit word among `memory.quads`. */
export const vmcbQuad = (vmcb: number): number => (RAM_BASE + vmcb) / 8;

/**
 * What software changed: the words in `ranges` where memory differs from the known copy.
 * @param vmcb sPA of a page in RAM. @param known the copy, undefined for a VMCB never seen.
 */
export function vmcbChanges(
  memory: PhysicalMemory,
  vmcb: number,
  known: VmcbWords | undefined,
  ranges: WordRanges,
): VmcbDelta {
  const { words } = memory;
  const base = (RAM_BASE + vmcb) / 4;
  const copy = known ?? NOTHING_KNOWN;
  changes.begin();
  for (let range = 0; range < ranges.length; range += 2) {
    const end = 2 * (ranges[range + 1] as number);
    for (let at = 2 * (ranges[range] as number); at < end; at += 4) {
      const here = base + at;
      const low = difference(words, here, copy, at);
      const high = difference(words, here + 2, copy, at + 2);
      if ((low | high) === 0) continue;
      if (low !== 0) changes.add(at >>> 1, words[here] as number, words[here + 1] as number);
      if (high !== 0) changes.add((at >>> 1) + 1, words[here + 2] as number, words[here + 3] as number);
    }
  }
  return changes.finish();
}

/** 0 when the 64-bit words are the same. */
const difference = (words: Uint32Array, here: number, copy: VmcbWords, at: number): number =>
  ((words[here] as number) ^ (copy[at] as number)) | ((words[here + 1] as number) ^ (copy[at + 1] as number));

/** Brings a copy up to date, in place: the reducer's part. */
export function applyVmcbDelta(words: VmcbWords, delta: VmcbDelta): void {
  for (let at = 0; at < delta.length; at += VMCB_DELTA_ENTRY_BYTES) {
    const word = 2 * ((delta[at] as number) | ((delta[at + 1] as number) << 8));
    words[word] = word32At(delta, at + 2);
    words[word + 1] = word32At(delta, at + 6);
  }
}

/** Word indices and values of a delta, in order. */
export function* decodeVmcbDelta(delta: VmcbDelta): Generator<readonly [word: number, value: bigint]> {
  const view = new DataView(delta.buffer, delta.byteOffset, delta.byteLength);
  for (let at = 0; at < delta.length; at += VMCB_DELTA_ENTRY_BYTES) {
    yield [view.getUint16(at, true), view.getBigUint64(at + 2, true)];
  }
}

/** @param words in any order; the last value of a word counts. */
export function encodeVmcbDelta(words: Iterable<readonly [word: number, value: bigint]>): VmcbDelta {
  const entries = [...new Map(words)].sort(([a], [b]) => a - b);
  const delta = new Uint8Array(entries.length * VMCB_DELTA_ENTRY_BYTES);
  const view = new DataView(delta.buffer);
  entries.forEach(([word, value], index) => {
    view.setUint16(index * VMCB_DELTA_ENTRY_BYTES, word, true);
    view.setBigUint64(index * VMCB_DELTA_ENTRY_BYTES + 2, value, true);
  });
  return delta;
}

const FIELDS_BY_WORD: readonly (readonly VmcbField[])[] = (() => {
  const names: VmcbField[][] = Array.from({ length: VMCB_BYTES / 8 }, () => []);
  for (const [name, { offset, bytes: length }] of Object.entries(VMCB.fields)) {
    for (let word = offset >>> 3; word < (offset + length) / 8; word++) names[word]?.push(name as VmcbField);
  }
  return names;
})();

/** Names of the fields that share a 64-bit word. */
export const vmcbFieldsOfWord = (word: number): readonly VmcbField[] => FIELDS_BY_WORD[word] ?? [];

/** Gives a 64-bit word of a known copy: for views that want no memory. */
export const vmcbWord = (words: VmcbWords, word: number): bigint =>
  (BigInt(words[2 * word + 1] ?? 0) << 32n) | BigInt(words[2 * word] ?? 0);

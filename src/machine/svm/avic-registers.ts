/**
 * The registers of a guest's virtual APIC: where they stand in its page, and what AVIC's permissions filter makes of an
 * access. Each is 32 bits wide at a 16-byte boundary; the filter looks at bits 11:4 of the offset alone, so that the
 * twelve bytes behind a register share its fate.
 *
 * CPUID Fn8000_000A EDX[27] is clear in every profile: the extended LVT entries fault.
 * Source: APM vol.2 §15.29.3.1 Virtual APIC Register Accesses, table 15-22.
 */

/** Offsets of those that AVIC itself reads or writes. */
export const VirtualApic = {
  ID: 0x020,
  TPR: 0x080,
  PPR: 0x0a0,
  EOI: 0x0b0,
  DFR: 0x0e0,
  ISR: 0x100,
  TMR: 0x180,
  IRR: 0x200,
  ICR_LOW: 0x300,
  ICR_HIGH: 0x310,
} as const;

/** Distance between two registers, and between two words of ISR, TMR and IRR. */
export const REGISTER_STRIDE = 16;
/** Bytes of a register; what lies behind them up to the next is undefined. */
export const REGISTER_BYTES = 4;

export type Behaviour =
  /** The page is read or written, and that is all. */
  | 'allowed'
  /** AVIC acts on the value that was written. */
  | 'accelerated'
  /** #VMEXIT(AVIC_NOACCEL) behind the instruction, whose write stands. */
  | 'trap'
  /** #VMEXIT(AVIC_NOACCEL) instead of the access. */
  | 'fault';

interface Row {
  readonly first: number;
  readonly last: number;
  readonly read: Behaviour;
  readonly write: Behaviour;
}

const row = (first: number, last: number, read: Behaviour, write: Behaviour): Row => ({ first, last, read, write });

/** What is in no row is allowed. */
const ROWS: readonly Row[] = [
  row(0x020, 0x020, 'allowed', 'trap'), // ID
  row(0x030, 0x030, 'allowed', 'fault'), // version
  row(0x080, 0x080, 'allowed', 'accelerated'), // TPR
  row(0x090, 0x090, 'fault', 'fault'), // APR
  row(0x0a0, 0x0a0, 'allowed', 'fault'), // PPR
  row(0x0b0, 0x0b0, 'allowed', 'accelerated'), // EOI
  row(0x0c0, 0x0f0, 'allowed', 'trap'), // remote read, LDR, DFR, spurious interrupt vector
  row(0x100, 0x270, 'allowed', 'fault'), // ISR, TMR, IRR
  row(0x280, 0x280, 'allowed', 'trap'), // ESR
  row(0x300, 0x300, 'allowed', 'accelerated'), // ICR low; ICR high is allowed
  row(0x320, 0x380, 'allowed', 'trap'), // LVT entries, timer initial count
  row(0x390, 0x390, 'fault', 'fault'), // timer current count
  row(0x3e0, 0x3e0, 'allowed', 'trap'), // timer divide configuration
  row(0x400, 0x420, 'fault', 'fault'), // extended feature and control, SEOI
  row(0x480, 0x4f0, 'fault', 'fault'), // interrupt enable
  row(0x500, 0xff0, 'fault', 'fault'), // extended LVT entries, and what is reserved
];

const REGISTERS = 0x1000 / REGISTER_STRIDE;
const behaviours = (access: 'read' | 'write'): readonly Behaviour[] =>
  Array.from({ length: REGISTERS }, (_, index) => {
    const offset = index * REGISTER_STRIDE;
    return ROWS.find(({ first, last }) => offset >= first && offset <= last)?.[access] ?? 'allowed';
  });
const READS = behaviours('read');
const WRITES = behaviours('write');

/** The register that a byte of the page belongs to. */
export const registerAt = (offset: number): number => offset - (offset % REGISTER_STRIDE);

/** @param offset of the first byte within the page. */
export const behaviourAt = (offset: number, write: boolean): Behaviour =>
  (write ? WRITES : READS)[offset >>> 4] as Behaviour;

/**
 * The MultiProcessor table, for guests that look for it and not for ACPI: processors, the ISA bus, the I/O APIC, and
 * which input each interrupt reaches.
 *
 * Source: MultiProcessor Specification 1.4, §4.1 MP Floating Pointer Structure, §4.2 MP Configuration Table Header, §4.3
 * Base MP Configuration Table Entries (table 4-3 on).
 */
import { IOAPIC_BASE } from '../devices/io-apic.js';
import { APIC_DEFAULT_BASE } from '../devices/local-apic-state.js';
import type { PlacedTable } from './acpi-tables.js';
import { type Board, IOAPIC_ID, ISA_OVERRIDES } from './board.js';
import { TableWriter } from './table-writer.js';

const POINTER_BYTES = 16;
const REVISION_1_4 = 4;
/** Feature byte 2, bit 7: the machine starts with the 8259 pair wired past the APICs, through an IMCR. There is none. */
const NO_IMCR = 0;

const ENTRY = { PROCESSOR: 0, BUS: 1, IO_APIC: 2, IO_INTERRUPT: 3, LOCAL_INTERRUPT: 4 } as const;
const ENABLED = 1;
const BOOTSTRAP = 2;
const LOCAL_APIC_VERSION = 0x14;
const IOAPIC_VERSION = 0x20;
/** FPU and APIC on chip. */
const FEATURES = 0x201;
const ISA_BUS = 0;
const INTERRUPT = { INT: 0, NMI: 1, EXTINT: 3 } as const;
const AS_THE_BUS = 0;
const ISA_IRQS = 16;
/** IRQ 2 is the cascade of the 8259 pair. */
const CASCADE = 2;
const ALL_LOCAL_APICS = 0xff;

/** @param at sPA of the floating pointer, 16-byte aligned. @returns it, and the table behind it. */
export function mpTables(board: Board, at: number): readonly PlacedTable[] {
  const table = configuration(board);
  const tableAt = at + POINTER_BYTES;
  const pointer = new TableWriter()
    .text(4, '_MP_')
    .number(4, tableAt)
    .number(1, POINTER_BYTES / 16)
    .number(1, REVISION_1_4)
    .number(1, 0)
    .number(1, 0) // no default configuration: there is a table
    .number(1, NO_IMCR)
    .zeros(3)
    .checksum(10);
  return [
    { address: at, bytes: pointer.finish() },
    { address: tableAt, bytes: table },
  ];
}

function configuration({ vcpus }: Board): Uint8Array {
  const writer = new TableWriter()
    .text(4, 'PCMP')
    .number(2, 0)
    .number(1, REVISION_1_4)
    .number(1, 0)
    .text(8, 'VMTAPE')
    .text(12, 'PC')
    .number(4, 0)
    .number(2, 0) // no OEM table
    .number(2, 0)
    .number(4, APIC_DEFAULT_BASE)
    .number(2, 0)
    .number(1, 0)
    .number(1, 0);
  let entries = 0;
  const entry = (kind: number): TableWriter => {
    entries++;
    return writer.number(1, kind);
  };
  for (let id = 0; id < vcpus; id++) {
    const flags = id === 0 ? ENABLED | BOOTSTRAP : ENABLED;
    entry(ENTRY.PROCESSOR).number(1, id).number(1, LOCAL_APIC_VERSION).number(1, flags);
    writer.number(4, 0).number(4, FEATURES).zeros(8);
  }
  entry(ENTRY.BUS).number(1, ISA_BUS).text(6, 'ISA');
  entry(ENTRY.IO_APIC).number(1, IOAPIC_ID).number(1, IOAPIC_VERSION).number(1, ENABLED).number(4, IOAPIC_BASE);
  for (let irq = 0; irq < ISA_IRQS; irq++) {
    if (irq === CASCADE) continue;
    const { input, flags } = ISA_OVERRIDES.find((override) => override.irq === irq) ?? {
      input: irq,
      flags: AS_THE_BUS,
    };
    entry(ENTRY.IO_INTERRUPT).number(1, INTERRUPT.INT).number(2, flags);
    writer.number(1, ISA_BUS).number(1, irq).number(1, IOAPIC_ID).number(1, input);
  }
  const local = (kind: number, destination: number, lint: number): void => {
    entry(ENTRY.LOCAL_INTERRUPT).number(1, kind).number(2, AS_THE_BUS).number(1, ISA_BUS).number(1, 0);
    writer.number(1, destination).number(1, lint);
  };
  local(INTERRUPT.EXTINT, 0, 0);
  local(INTERRUPT.NMI, ALL_LOCAL_APICS, 1);
  return writer.set(4, 2, writer.length).set(34, 2, entries).checksum(7).finish();
}

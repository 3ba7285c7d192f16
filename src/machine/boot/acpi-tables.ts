/**
 * The ACPI tables of the board: RSDP, RSDT, XSDT, FADT, FACS, DSDT, MADT and HPET. They name what the board has and
 * nothing else: the fixed hardware at its ports, local APICs, one I/O APIC with the overrides of inputs 2 and 9, and the
 * HPET. The DSDT holds the S5 state, and virtio devices where there are some.
 *
 * Source: ACPI Specification 6.5, §5.2.5.3 RSDP Structure, §5.2.6 System Description Table Header, §5.2.7 RSDT, §5.2.8
 * XSDT, §5.2.9 FADT (table 5.9), §5.2.10 FACS, §5.2.12 MADT, §20.2 AML Grammar Definition; IA-PC HPET Specification 1.0a,
 * §3.2.4 The ACPI 2.0 HPET Description Table.
 */
import { ACPI, ACPI_PORT } from '../devices/acpi-pm-timer.js';
import { CAPABILITIES, HPET_BASE } from '../devices/hpet-state.js';
import { IOAPIC_BASE } from '../devices/io-apic.js';
import { APIC_DEFAULT_BASE } from '../devices/local-apic-state.js';
import { VIRTIO_PLACES, VIRTIO_REGISTER_BYTES } from '../devices/virtio-mmio.js';
import { type Board, IOAPIC_ID, ISA_OVERRIDES } from './board.js';
import { TableWriter } from './table-writer.js';

/** Where a table stands, and its bytes. */
export interface PlacedTable {
  readonly address: number;
  readonly bytes: Uint8Array;
}

const OEM = 'VMTAPE';
const CREATOR = 'VMTP';
const HEADER_CHECKSUM = 9;
const HEADER_LENGTH = 4;
const FACS_BYTES = 64;
const RSDP_BYTES = 36;
const RSDP_V1_BYTES = 20;

/** ACPI generic address spaces (§5.2.3.2). */
const SPACE = { MEMORY: 0, PORT: 1 } as const;
/** Access size of a generic address. */
const ACCESS = { NONE: 0, BYTE: 1, WORD: 2, DWORD: 3 } as const;

const SCI = 9;
/** The index of the century in CMOS. */
const CENTURY = 0x32;
/** C2 and C3 are not there: their latencies say so. */
const NO_C2 = 101;
const NO_C3 = 1001;
/** IAPC_BOOT_ARCH: devices of the PC are there, but neither a keyboard controller to probe nor VGA. */
const BOOT_LEGACY_DEVICES = 0x0001;
const BOOT_NO_VGA = 0x0004;
/** Fixed feature flags. */
const FLAG_WBINVD = 1 << 0;
const FLAG_C1 = 1 << 2;
const FLAG_NO_POWER_BUTTON = 1 << 4;
const FLAG_NO_SLEEP_BUTTON = 1 << 5;
const FLAG_TIMER_32_BITS = 1 << 8;
const FLAG_RESET_REGISTER = 1 << 10;
const RESET_PORT = 0xcf9;
const RESET_VALUE = 0x06;

/** Name (\_S5_, Package () { 0, 0, 0, 0 }): SLP_TYP of both control blocks, and two reserved. */
const S5 = [0x08, 0x5c, 0x5f, 0x53, 0x35, 0x5f, 0x12, 0x06, 0x04, 0x00, 0x00, 0x00, 0x00];

/**
 * Scope (\\_SB_) with a device for each virtio one, by the ID that stands for its registers in memory: where those are, and its
 * interrupt. Nothing where there is none.
 */
function systemBus({ virtio }: Board): readonly number[] {
  if (virtio.length === 0) return [];
  const devices = virtio.flatMap((name, index) => virtioDevice(`VIO${index}`, index, VIRTIO_PLACES[name]));
  return [SCOPE_OP, ...packaged([...ascii('\\_SB_'), ...devices])];
}

function virtioDevice(name: string, id: number, { base, line }: { base: number; line: number }): readonly number[] {
  const named = (field: string, data: readonly number[]): readonly number[] => [NAME_OP, ...ascii(field), ...data];
  const memory = [FIXED_MEMORY, 9, 0, 1, ...u32(base), ...u32(VIRTIO_REGISTER_BYTES)];
  const interrupt = [EXTENDED_INTERRUPT, 6, 0, CONSUMER_LEVEL_HIGH, 1, ...u32(line)];
  const resources = [...memory, ...interrupt, END_TAG, 0];
  return [
    ...DEVICE_OP,
    ...packaged([
      ...ascii(name),
      ...named('_HID', [STRING_PREFIX, ...ascii('LNRO0005'), 0]),
      ...named('_UID', [BYTE_PREFIX, id]),
      ...named('_CRS', [BUFFER_OP, ...packaged([BYTE_PREFIX, resources.length, ...resources])]),
    ]),
  ];
}

const ascii = (text: string): readonly number[] => [...new TextEncoder().encode(text)];
const u32 = (value: number): readonly number[] => [0, 8, 16, 24].map((shift) => (value >>> shift) & 0xff);

/** Behind its length, which counts itself (§20.2.4 Package Length Encoding). */
function packaged(body: readonly number[]): readonly number[] {
  if (body.length + 1 < 0x40) return [body.length + 1, ...body];
  const length = body.length + 2;
  return [0x40 | (length & 0xf), length >> 4, ...body];
}

/** AML (§20.2) and resource descriptors (§6.4). */
const SCOPE_OP = 0x10;
const NAME_OP = 0x08;
const BUFFER_OP = 0x11;
const DEVICE_OP = [0x5b, 0x82];
const STRING_PREFIX = 0x0d;
const BYTE_PREFIX = 0x0a;
const FIXED_MEMORY = 0x86;
const EXTENDED_INTERRUPT = 0x89;
const CONSUMER_LEVEL_HIGH = 0x01;
const END_TAG = 0x79;

/** MADT: a PC has the 8259 pair as well. */
const PCAT_COMPAT = 1;
const MADT = { LOCAL_APIC: 0, IO_APIC: 1, OVERRIDE: 2, LOCAL_NMI: 4 } as const;
const PROCESSOR_ENABLED = 1;
const ALL_PROCESSORS = 0xff;
const LINT1 = 1;
/** HPET: the least ticks between two interrupts of a periodic timer without loss. */
const HPET_LEAST_TICKS = 100;

/**
 * @param at sPA from which on the tables stand, 64-byte aligned.
 * @returns the tables; the first is the RSDP.
 */
export function acpiTables(board: Board, at: number): readonly PlacedTable[] {
  let free = at;
  const place = (bytes: Uint8Array, alignment = 16): PlacedTable => {
    const address = Math.ceil(free / alignment) * alignment;
    free = address + bytes.length;
    return { address, bytes };
  };
  // The RSDP is found by its place on a 16-byte boundary; it names the others.
  const rsdpAt = place(new Uint8Array(RSDP_BYTES));
  const facs = place(facsTable(), FACS_BYTES);
  const dsdt = place(table('DSDT', 2, (writer) => writer.raw([...S5, ...systemBus(board)])));
  const fadt = place(fadtTable(board, facs.address, dsdt.address));
  const madt = place(madtTable(board));
  const hpet = place(hpetTable());
  const listed = [fadt, madt, hpet];
  const rsdt = place(table('RSDT', 1, (writer) => addresses(writer, 4, listed)));
  const xsdt = place(table('XSDT', 1, (writer) => addresses(writer, 8, listed)));
  const rsdp = { address: rsdpAt.address, bytes: rsdpTable(rsdt.address, xsdt.address) };
  return [rsdp, facs, dsdt, ...listed, rsdt, xsdt];
}

/** A table behind its header: length and checksum are known when its body is written. */
function table(signature: string, revision: number, body: (writer: TableWriter) => void): Uint8Array {
  const writer = new TableWriter()
    .text(4, signature)
    .number(4, 0)
    .number(1, revision)
    .number(1, 0)
    .text(6, OEM)
    .text(8, `${OEM}PC`)
    .number(4, 1)
    .text(4, CREATOR)
    .number(4, 1);
  body(writer);
  return writer.set(HEADER_LENGTH, 4, writer.length).checksum(HEADER_CHECKSUM).finish();
}

function addresses(writer: TableWriter, size: 4 | 8, tables: readonly PlacedTable[]): void {
  for (const { address } of tables) writer.number(size, address);
}

function rsdpTable(rsdt: number, xsdt: number): Uint8Array {
  return new TableWriter()
    .text(8, 'RSD PTR ')
    .number(1, 0)
    .text(6, OEM)
    .number(1, 2)
    .number(4, rsdt)
    .number(4, RSDP_BYTES)
    .number(8, xsdt)
    .number(1, 0)
    .zeros(3)
    .checksum(8, 0, RSDP_V1_BYTES)
    .checksum(32)
    .finish();
}

/** No global lock, no waking vector: the machine knows no sleep that it could wake from. */
function facsTable(): Uint8Array {
  const writer = new TableWriter().text(4, 'FACS').number(4, FACS_BYTES).zeros(24).number(1, 2);
  return writer.zeros(FACS_BYTES - writer.length).finish();
}

function genericAddress(writer: TableWriter, space: number, bits: number, access: number, address: number): void {
  writer.number(1, space).number(1, bits).number(1, 0).number(1, access).number(8, address);
}

function fadtTable({ timerBits }: Board, facs: number, dsdt: number): Uint8Array {
  const event = ACPI_PORT + ACPI.STATUS;
  const control = ACPI_PORT + ACPI.CONTROL;
  const timer = ACPI_PORT + ACPI.TIMER;
  const timerFlag = timerBits === 32 ? FLAG_TIMER_32_BITS : 0;
  const buttons = FLAG_NO_POWER_BUTTON | FLAG_NO_SLEEP_BUTTON;
  return table('FACP', 6, (writer) => {
    writer.number(4, facs).number(4, dsdt).number(1, 0);
    writer.number(1, 0); // preferred profile: unspecified
    writer.number(2, SCI);
    writer.number(4, 0).number(1, 0).number(1, 0).number(1, 0).number(1, 0); // no SMI command port: ACPI mode from the start
    writer.number(4, event).number(4, 0).number(4, control).number(4, 0).number(4, 0).number(4, timer);
    writer.number(4, 0).number(4, 0); // no general-purpose events
    writer.number(1, 4).number(1, 2).number(1, 0).number(1, 4);
    writer.number(1, 0).number(1, 0).number(1, 0).number(1, 0);
    writer.number(2, NO_C2).number(2, NO_C3).number(2, 0).number(2, 0);
    writer.number(1, 0).number(1, 0); // no duty cycle
    writer.number(1, 0).number(1, 0).number(1, CENTURY); // the alarm has neither day nor month
    writer.number(2, BOOT_LEGACY_DEVICES | BOOT_NO_VGA).number(1, 0);
    writer.number(4, FLAG_WBINVD | FLAG_C1 | buttons | timerFlag | FLAG_RESET_REGISTER);
    genericAddress(writer, SPACE.PORT, 8, ACCESS.BYTE, RESET_PORT);
    writer.number(1, RESET_VALUE).number(2, 0).number(1, 5); // no Arm, minor version 5
    writer.number(8, 0).number(8, dsdt); // FACS stands in its 32-bit field
    genericAddress(writer, SPACE.PORT, 32, ACCESS.WORD, event);
    genericAddress(writer, SPACE.PORT, 0, ACCESS.NONE, 0);
    genericAddress(writer, SPACE.PORT, 16, ACCESS.WORD, control);
    genericAddress(writer, SPACE.PORT, 0, ACCESS.NONE, 0);
    genericAddress(writer, SPACE.PORT, 0, ACCESS.NONE, 0);
    genericAddress(writer, SPACE.PORT, 32, ACCESS.DWORD, timer);
    for (let register = 0; register < 4; register++) genericAddress(writer, SPACE.PORT, 0, ACCESS.NONE, 0);
    writer.zeros(8); // hypervisor vendor: none
  });
}

function madtTable({ vcpus }: Board): Uint8Array {
  return table('APIC', 5, (writer) => {
    writer.number(4, APIC_DEFAULT_BASE).number(4, PCAT_COMPAT);
    for (let id = 0; id < vcpus; id++) {
      writer.number(1, MADT.LOCAL_APIC).number(1, 8).number(1, id).number(1, id).number(4, PROCESSOR_ENABLED);
    }
    writer.number(1, MADT.IO_APIC).number(1, 12).number(1, IOAPIC_ID).number(1, 0);
    writer.number(4, IOAPIC_BASE).number(4, 0);
    for (const { irq, input, flags } of ISA_OVERRIDES) {
      writer.number(1, MADT.OVERRIDE).number(1, 10).number(1, 0).number(1, irq).number(4, input).number(2, flags);
    }
    writer.number(1, MADT.LOCAL_NMI).number(1, 6).number(1, ALL_PROCESSORS).number(2, 0).number(1, LINT1);
  });
}

function hpetTable(): Uint8Array {
  return table('HPET', 1, (writer) => {
    writer.number(4, CAPABILITIES >>> 0);
    genericAddress(writer, SPACE.MEMORY, 64, ACCESS.NONE, HPET_BASE);
    writer.number(1, 0).number(2, HPET_LEAST_TICKS).number(1, 0);
  });
}

/**
 * What a BIOS leaves behind. In every processor: caches on, and memory types in the MTRRs. In memory, for a guest that
 * goes back to real mode: an interrupt vector table whose handlers return, and acknowledge where the 8259 pair wants it;
 * there is no firmware behind it, INT n does nothing. IRQ 13 also clears the coprocessor's latch, so that its handler's
 * x87 instructions pass, and goes on to the NMI's vector, which is where programs hook numeric errors. A jump to the
 * entry point at FFFF:0 resets the processor, and `restart.ts` does what the firmware would. For a guest that looks for
 * its processors and interrupts: MP tables, and those of ACPI unless the machine is configured without. For one that places its own start-up code in conventional memory,
 * as Xen does: where that ends, in the BIOS data area.
 * Source: IBM PC AT technical reference, ROM BIOS entry points; vectors 08h..0Fh and 70h..77h are the hardware's.
 */
import type { CpuProfile } from '../cpu/profile.js';
import { CR0, R, type Slot } from '../layout/cpu-state.js';
import { MAX_RAM_BYTES } from '../layout/linear-memory.js';
import type { PhysicalMemory } from '../mmu/memory.js';
import { sPA } from '../units.js';
import { acpiTables, type PlacedTable } from './acpi-tables.js';
import type { Board } from './board.js';
import { mpTables } from './mp-table.js';
import { CONVENTIONAL_END } from './segments.js';

const ROM_SEGMENT = 0xf000;
/** The traditional address of the dummy handler. */
const DUMMY_HANDLER = 0xff53;
const MASTER_HANDLER = 0xfea5;
const SLAVE_HANDLER = 0xfec0;
const NUMERIC_HANDLER = 0xfed0;
const NUMERIC_VECTOR = 0x75;

/** iret */
const DUMMY_CODE = [0xcf];
/** push ax; mov al, 20h; out 20h, al; pop ax; iret */
const MASTER_CODE = [0x50, 0xb0, 0x20, 0xe6, 0x20, 0x58, 0xcf];
/** push ax; mov al, 20h; out a0h, al; out 20h, al; pop ax; iret */
const SLAVE_CODE = [0x50, 0xb0, 0x20, 0xe6, 0xa0, 0xe6, 0x20, 0x58, 0xcf];
/** push ax; xor al, al; out f0h, al; mov al, 20h; out a0h, al; out 20h, al; pop ax; int 2; iret */
const NUMERIC_CODE = [0x50, 0x30, 0xc0, 0xe6, 0xf0, 0xb0, 0x20, 0xe6, 0xa0, 0xe6, 0x20, 0x58, 0xcd, 0x02, 0xcf];

/** Where the processor begins, and a program that jumps to FFFF:0 for a reset: a far jump to the traditional entry. */
const RESET_ENTRY = 0xfff0;
const POST_ENTRY = 0xe05b;
/** jmp f000:e05b */
const RESET_CODE = [0xea, 0x5b, 0xe0, 0x00, 0xf0];
/** mov al, feh; out 64h, al; hlt; jmp to the hlt: the keyboard controller resets the processor, and the machine boots. */
const POST_CODE = [0xb0, 0xfe, 0xe6, 0x64, 0xf4, 0xeb, 0xfd];

/** Where the tables stand: guests look for them on 16-byte boundaries between E0000h and FFFFFh. */
const ACPI_TABLES = 0xf_0000;
const MP_TABLES = 0xf_8000;

/** Words of the BIOS data area: segment of the extended BIOS data area, KiB of conventional memory. */
const BDA_EBDA_SEGMENT = 0x40e;
const BDA_MEMORY_KIB = 0x413;

/** @returns sPA and contents of the RSDP, for loaders that tell of it; undefined where there are no ACPI tables. */
export const rsdpOf = (board: Board): PlacedTable | undefined =>
  board.acpiTables ? acpiTables(board, ACPI_TABLES)[0] : undefined;

export function installFirmware(memory: PhysicalMemory, board: Board): void {
  installVectors(memory);
  memory.write(sPA(BDA_EBDA_SEGMENT), 2, BigInt(CONVENTIONAL_END >> 4));
  memory.write(sPA(BDA_MEMORY_KIB), 2, BigInt(CONVENTIONAL_END >> 10));
  memory.copyIn(sPA(ROM_SEGMENT * 16 + RESET_ENTRY), Uint8Array.from(RESET_CODE));
  memory.copyIn(sPA(ROM_SEGMENT * 16 + POST_ENTRY), Uint8Array.from(POST_CODE));
  const acpi = board.acpiTables ? acpiTables(board, ACPI_TABLES) : [];
  for (const { address, bytes } of [...acpi, ...mpTables(board, MP_TABLES)]) {
    memory.copyIn(sPA(address), bytes);
  }
}

/** Where the handler of a vector stands in the ROM. */
function handlerOf(vector: number): number {
  if (vector === NUMERIC_VECTOR) return NUMERIC_HANDLER;
  if (vector >> 3 === 0x08 >> 3) return MASTER_HANDLER;
  return vector >> 3 === 0x70 >> 3 ? SLAVE_HANDLER : DUMMY_HANDLER;
}

/** Writes the table at 0 and its handlers into the ROM area. */
export function installVectors(memory: PhysicalMemory): void {
  const rom = ROM_SEGMENT * 16;
  memory.copyIn(sPA(rom + DUMMY_HANDLER), Uint8Array.from(DUMMY_CODE));
  memory.copyIn(sPA(rom + MASTER_HANDLER), Uint8Array.from(MASTER_CODE));
  memory.copyIn(sPA(rom + SLAVE_HANDLER), Uint8Array.from(SLAVE_CODE));
  memory.copyIn(sPA(rom + NUMERIC_HANDLER), Uint8Array.from(NUMERIC_CODE));
  for (let vector = 0; vector < 256; vector++) {
    memory.write(sPA(4 * vector), 4, BigInt((handlerOf(vector) | (ROM_SEGMENT << 16)) >>> 0));
  }
}

/** Eight fixed ranges of one type: write-back, uncacheable for video memory, write-protect for ROMs. */
const ALL_WB = 0x0606_0606_0606_0606n;
const ALL_UC = 0n;
const ALL_WP = 0x0505_0505_0505_0505n;
const ROM_RANGES = 8;
/** E, FE, and write-back. */
const DEFAULT_WB = 0xc06n;
const RANGE_VALID = 0x800n;
const VARIABLE_RANGES = 8;

/**
 * Registers of each processor as a BIOS hands them over, on top of RESET: RAM is write-back, what devices and the ROM at
 * 4 GiB occupy is not.
 * Source: APM vol.2 §7.7 Memory-Type Range Registers.
 */
export function handedOverRegisters({ physicalAddressBits }: CpuProfile): readonly (readonly [Slot, bigint])[] {
  const devices = BigInt(MAX_RAM_BYTES);
  const mask = (1n << BigInt(physicalAddressBits)) - (0x1_0000_0000n - devices);
  return [
    [R.cr0, CR0.ET],
    [R.mtrrDefType, DEFAULT_WB],
    [R.mtrrFix64K0, ALL_WB],
    [R.mtrrFix16K0, ALL_WB],
    [R.mtrrFix16K1, ALL_UC],
    ...Array.from({ length: ROM_RANGES }, (_, index) => [(R.mtrrFix4K0 + index) as Slot, ALL_WP] as const),
    [R.mtrrBase0, devices],
    [R.mtrrMask0, mask | RANGE_VALID],
    ...Array.from({ length: 2 * (VARIABLE_RANGES - 1) }, (_, index) => [(R.mtrrBase1 + index) as Slot, 0n] as const),
  ];
}

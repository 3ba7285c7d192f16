/**
 * What a BIOS leaves in memory for a boot loader's guest. For one that goes back to real mode: an interrupt vector table
 * whose handlers return, and acknowledge where the 8259 pair wants it; there is no firmware behind it, INT n does
 * nothing. For one that looks for its processors and interrupts: ACPI and MP tables.
 * Source: IBM PC AT technical reference, ROM BIOS entry points; vectors 08h..0Fh and 70h..77h are the hardware's.
 */
import type { PhysicalMemory } from '../mmu/memory.js';
import { sPA } from '../units.js';
import { acpiTables } from './acpi-tables.js';
import type { Board } from './board.js';
import { mpTables } from './mp-table.js';

const ROM_SEGMENT = 0xf000;
/** The traditional address of the dummy handler. */
const DUMMY_HANDLER = 0xff53;
const MASTER_HANDLER = 0xfea5;
const SLAVE_HANDLER = 0xfec0;

/** iret */
const DUMMY_CODE = [0xcf];
/** push ax; mov al, 20h; out 20h, al; pop ax; iret */
const MASTER_CODE = [0x50, 0xb0, 0x20, 0xe6, 0x20, 0x58, 0xcf];
/** push ax; mov al, 20h; out a0h, al; out 20h, al; pop ax; iret */
const SLAVE_CODE = [0x50, 0xb0, 0x20, 0xe6, 0xa0, 0xe6, 0x20, 0x58, 0xcf];

/** Where the tables stand: guests look for them on 16-byte boundaries between E0000h and FFFFFh. */
const ACPI_TABLES = 0xf_0000;
const MP_TABLES = 0xf_8000;

export function installFirmware(memory: PhysicalMemory, board: Board): void {
  installVectors(memory);
  for (const { address, bytes } of [...acpiTables(board, ACPI_TABLES), ...mpTables(board, MP_TABLES)]) {
    memory.copyIn(sPA(address), bytes);
  }
}

/** Writes the table at 0 and its handlers into the ROM area. */
function installVectors(memory: PhysicalMemory): void {
  const rom = ROM_SEGMENT * 16;
  memory.copyIn(sPA(rom + DUMMY_HANDLER), Uint8Array.from(DUMMY_CODE));
  memory.copyIn(sPA(rom + MASTER_HANDLER), Uint8Array.from(MASTER_CODE));
  memory.copyIn(sPA(rom + SLAVE_HANDLER), Uint8Array.from(SLAVE_CODE));
  for (let vector = 0; vector < 256; vector++) {
    const offset =
      vector >= 0x08 && vector < 0x10 ? MASTER_HANDLER : vector >> 3 === 0x70 >> 3 ? SLAVE_HANDLER : DUMMY_HANDLER;
    memory.write(sPA(4 * vector), 4, BigInt((offset | (ROM_SEGMENT << 16)) >>> 0));
  }
}

/** Ways to reset a PC, as 32-bit or 64-bit code, and a machine that boots a few bytes of code. */
import {
  DEFAULT_CONFIG,
  Machine,
  type MachineConfig,
  type MachineState,
  type Slot,
  type StatedEvent,
} from '../../src/machine/index.js';
import { instructionCount } from '../../src/machine/units.js';
import { flatImage } from '../tools/flat-image.js';

/** MOV AL, value; OUT port, AL */
const out = (port: number, value: number): string => `b0${byte(value)} e6${byte(port)}`;
/** MOV EDX, port; MOV AL, value; OUT DX, AL */
const outDX = (port: number, value: number): string =>
  `ba${byte(port & 0xff)}${byte(port >> 8)}0000 b0${byte(value)} ee`;
const byte = (value: number): string => value.toString(16).padStart(2, '0');

/** Every source of INIT for the bootstrap processor, but the local APIC's. */
export const INIT_SOURCES: readonly (readonly [name: string, code: string])[] = [
  ['port 92h, bit 0', out(0x92, 0x03)],
  ['8042 command FEh', out(0x64, 0xfe)],
  ['8042 output port, bit 0', `${out(0x64, 0xd1)} ${out(0x60, 0x02)}`],
  ['CF9h without SYS_RST', outDX(0xcf9, 0x04)],
];
/** RESET. */
export const RESET_SOURCES: readonly (readonly [name: string, code: string])[] = [
  ['CF9h with SYS_RST', outDX(0xcf9, 0x06)],
  ['CF9h with SYS_RST and FULL_RST', outDX(0xcf9, 0x0e)],
];

/** LIDT of zeros; UD2 */
export const TRIPLE_FAULT = ['a triple fault', '0f011d00003000 0f0b'] as const;

/** Where a warm start goes on: real-mode segment and offset. */
export const RESUME = { selector: 0x0a00, offset: 0x0040 } as const;
export const RESUME_AT = 16 * RESUME.selector + RESUME.offset;

/** Leaves the shutdown code in CMOS. */
export const shutdownCode = (code: number): string => `${out(0x70, 0x0f)} ${out(0x71, code)}`;

export const bytesOf = (hex: string): number[] => [...Buffer.from(hex.replaceAll(' ', ''), 'hex')];

/** The number of boots, in RAM that no image covers. */
export const BOOTS = 0x7000;

/**
 * 32-bit code: counts its boots; the second one ends the session with the count, the first goes on with `code`.
 * INC DWORD [BOOTS]; MOV EAX, [BOOTS]; CMP AL, 2; JB; OUT F4h, AL
 */
export const bootsTwice = (code: string): readonly number[] =>
  bytesOf(`ff0500700000 a100700000 3c02 7202 e6f4 ${code} f4`);

/** The machine as the image finds it. */
export interface Entry {
  readonly registers: readonly bigint[];
  readonly devices: MachineState['devices'];
}

export class BootedMachine {
  readonly stated: StatedEvent[] = [];
  readonly machine: Machine;
  /** What each boot hands over. */
  readonly entries: Entry[] = [];

  /** @param image 32-bit code, or a whole image. */
  constructor(image: readonly number[] | Uint8Array, config: Partial<MachineConfig> = {}) {
    this.machine = new Machine({ ...DEFAULT_CONFIG, ramBytes: 16 << 20, ...config }, (stated) => this.take(stated));
    const bytes = image instanceof Uint8Array ? image : flatImage(image);
    this.machine.boot({ bytes, digest: 'its-digest', commandLine: 'flat' });
  }

  private take(stated: StatedEvent): void {
    this.stated.push(stated);
    const { type } = stated.event;
    if (type !== 'input.boot' && type !== 'firmware.booted') return;
    const { registers, state } = this.machine;
    const values = Array.from({ length: registers.length }, (_, slot) => registers[slot as Slot] as bigint);
    this.entries.push({ registers: values, devices: structuredClone(state.devices) });
  }

  run(count = 5000): string {
    return this.machine.advance(instructionCount(this.machine.retired + count));
  }

  /** Runs to the end. */
  whole(): this {
    this.run();
    return this;
  }

  get types(): string[] {
    return this.stated.map(({ event }) => event.type).filter((type) => type !== 'cpu.ran');
  }
}

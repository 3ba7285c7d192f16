/** Boot images loaded into RAM alone, for a look at what they are told; and run, to hear what they found. */
import { type BootPackage, packBoot } from '../../src/machine/boot/boot-package.js';
import { loadBootImage } from '../../src/machine/boot/load-image.js';
import { DEFAULT_CONFIG, Machine } from '../../src/machine/index.js';
import { PhysicalMemory } from '../../src/machine/mmu/memory.js';
import { instructionCount, sPA } from '../../src/machine/units.js';
import { joined } from './boot-images.js';

const RAM_BYTES = 0x80_0000;
const LIMIT = 10_000;

export interface Booting extends Partial<Omit<BootPackage, 'image'>> {
  readonly commandLine?: string;
  readonly ramBytes?: number;
  /** Of a look at RAM alone. */
  readonly acpiTables?: boolean;
}

const packed = (image: Uint8Array, { protocol, modules = [] }: Booting): Uint8Array =>
  packBoot({ image, protocol, modules });

/** @throws InputError */
export function loaded(image: Uint8Array, how: Booting = {}) {
  const { commandLine = '', ramBytes = RAM_BYTES, acpiTables = true } = how;
  const memory = new PhysicalMemory(ramBytes);
  const board = { vcpus: 1, timerBits: 24, virtio: [], acpiTables };
  const registers = new Map(loadBootImage(memory, board, packed(image, how), commandLine));
  const u32 = (address: number): number => memory.read32(address);
  const u64 = (address: number): number => Number(memory.read(sPA(address), 8));
  return { memory, registers, u32, u64, text: (address: number) => textAt(memory, address) };
}

function textAt(memory: PhysicalMemory, address: number): string {
  const bytes: number[] = [];
  for (let at = address; memory.read(sPA(at), 1) !== 0n; at++) bytes.push(Number(memory.read(sPA(at), 1)));
  return new TextDecoder().decode(Uint8Array.from(bytes));
}

/** @returns what the guest sent over the serial port until it ended through port F4h; else where it was. */
export function heard(image: Uint8Array, how: Booting = {}): string {
  let text = '';
  const machine = new Machine({ ...DEFAULT_CONFIG, ramBytes: how.ramBytes ?? RAM_BYTES }, ({ event }) => {
    if (event.type === 'uart.transmitted') text += String.fromCharCode(event.byte);
  });
  machine.boot({ bytes: packed(image, how), digest: '', commandLine: how.commandLine ?? '' });
  machine.advance(instructionCount(LIMIT));
  const { ended } = machine.state;
  return ended?.reason === 'debug-exit' ? text : `${text} at ${machine.nextInstruction.toString(16)}h, not ended`;
}

export interface Note {
  readonly owner: string;
  readonly type: number;
  readonly content: Uint8Array;
}

/** The contents of a PT_NOTE segment. */
export function notes(...given: readonly Note[]): Uint8Array {
  return joined(
    ...given.map(({ owner, type, content }) => {
      const padded = (length: number): number => Math.ceil(length / 4) * 4;
      const bytes = new Uint8Array(12 + padded(owner.length + 1) + padded(content.length));
      const view = new DataView(bytes.buffer);
      view.setUint32(0, owner.length + 1, true);
      view.setUint32(4, content.length, true);
      view.setUint32(8, type, true);
      bytes.set(new TextEncoder().encode(owner), 12);
      bytes.set(content, 12 + padded(owner.length + 1));
      return bytes;
    }),
  );
}

/** A little-endian word. */
export const word = (value: number): Uint8Array => new Uint8Array(Uint32Array.of(value).buffer);

export const fromHex = (text: string): Uint8Array => Uint8Array.from(Buffer.from(text.replaceAll(/\s/g, ''), 'hex'));

/** Sends the string at ESI or RSI; the same bytes in 32-bit and 64-bit code. */
export const SEND_TEXT = '66baf803 ac 84c0 7403 ee ebf8';
/** Sends ECX bytes from ESI, then ends with status 1. */
export const SEND_BYTES_AND_END = '66baf803 f36e b000 e6f4 ebfe';
/** The same in real mode. */
export const SEND_TEXT16 = 'baf803 ac 84c0 7403 ee ebf8 b000 e6f4 ebfe';

/** A Multiboot image around a few bytes of 32-bit code: header with load addresses, no ELF. */

const LOAD_ADDRESS = 0x10_0000;
const MAGIC = 0x1bad_b002;
/** The header has load addresses. */
const FLAGS = 1 << 16;
const HEADER_BYTES = 32;

/** @param code what runs first, at 100020h, interrupts off. */
export function flatImage(code: readonly number[]): Uint8Array {
  const image = new Uint8Array(HEADER_BYTES + code.length);
  const view = new DataView(image.buffer);
  const end = LOAD_ADDRESS + image.length;
  const fields = [MAGIC, FLAGS, -(MAGIC + FLAGS), LOAD_ADDRESS, LOAD_ADDRESS, end, end, LOAD_ADDRESS + HEADER_BYTES];
  for (const [index, field] of fields.entries()) view.setUint32(4 * index, field, true);
  image.set(code, HEADER_BYTES);
  return image;
}

/** `mov edx, port` */
const port = (number: number): readonly number[] => [0xba, number & 0xff, number >> 8, 0, 0];

/** Sends back what the serial port receives, until a `q`; then ends with status 1. */
export const ECHO: readonly number[] = [
  ...port(0x3fd),
  0xec, // in al, dx
  ...[0xa8, 0x01], // test al, 1
  ...[0x74, 0xf6], // jz: poll again
  ...port(0x3f8),
  ...[0xec, 0xee], // in al, dx; out dx, al
  ...[0x3c, 0x71], // cmp al, 'q'
  ...[0x75, 0xeb], // jne: poll again
  ...[0x31, 0xc0], // xor eax, eax
  ...port(0xf4),
  0xee, // out dx, al
];

/** `cli; hlt`, without end. */
export const HALT: readonly number[] = [0xfa, 0xf4, 0xeb, 0xfd];

/** `jmp $`. */
export const SPIN: readonly number[] = [0xeb, 0xfe];

/**
 * The virtio session's devices: a disk that its init reads and writes, whose file must stay as it was, and a console that it
 * talks over (test/guests/l1/virtio.c).
 */
import { readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';

const BLOCK_BYTES = 4096;
const DISK_BYTES = 1 << 20;
const READ_AT = 16 * BLOCK_BYTES;
const FLIPPED = 0x5a;
/** What the console receives. */
const GREETING = 'from the host';

export interface VirtioDevices {
  /** Flags of vmtape. */
  readonly flags: readonly string[];
  /** Lines of the serial console. */
  readonly expected: readonly string[];
  /** Looks at disk and console when the session is over. @returns what is wrong. */
  readonly check: () => string | undefined;
}

/** FNV-1a of 32 bits, in eight hexadecimal digits. */
export function fnv1a(bytes: Uint8Array): string {
  let sum = 0x811c_9dc5;
  for (const byte of bytes) sum = Math.imul(sum ^ byte, 0x0100_0193);
  return (sum >>> 0).toString(16).padStart(8, '0');
}

/** Each word of 32 bits is its own number: no two blocks are alike. */
const diskContents = (): Uint8Array =>
  new Uint8Array(Uint32Array.from({ length: DISK_BYTES / 4 }, (_, at) => at).buffer);

/** @param folder keeps the disk, and what goes over the console. */
export function virtioDevices(folder: string): VirtioDevices {
  const disk = join(folder, 'virtio.disk');
  const output = join(folder, 'virtio.console.txt');
  const input = join(folder, 'virtio.input.txt');
  const contents = diskContents();
  const block = contents.subarray(READ_AT, READ_AT + BLOCK_BYTES);
  writeFileSync(disk, contents);
  writeFileSync(input, `${GREETING}\n`);
  return {
    flags: ['--disk', disk, '--console', `file:${output}`, '--console-input', input],
    expected: [
      `VDA-READ ${fnv1a(block)}`,
      `VDA-WROTE ${fnv1a(block.map((byte) => byte ^ FLIPPED))}`,
      `HVC-GOT ${GREETING}`,
    ],
    check: () => {
      if (!readFileSync(disk).equals(contents)) return `${disk} is not as it was`;
      const said = readFileSync(output, 'latin1');
      return /^HVC-UP\r?$/m.test(said) ? undefined : `no line HVC-UP in ${output}`;
    },
  };
}

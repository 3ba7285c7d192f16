/** What the guest `crypto32` is expected to print, computed by OpenSSL and with bigints. */
import { createCipheriv, createHash } from 'node:crypto';
import { expect, it } from 'vitest';
import { guestOutput } from '../support/sessions.js';

const LOG_BYTES = 262_144;
const SQUARINGS = 15;
const FIBONACCI = 6000;

/** The log that the guest writes: whole lines while 128 bytes are left, then blanks to the end of a block. */
function log(): Buffer {
  const number = (value: number, digits: number): string => String(value % 10 ** digits).padStart(digits, '0');
  let text = '';
  for (let n = 0; text.length + 128 <= LOG_BYTES; n++) {
    const day = number(1 + (Math.floor(n / 3600) % 28), 2);
    const path = `${n % 3 ? 'GET /item/' : 'POST /order/'}${number((n * 7919) % 100_000, 5)}`;
    const status = n % 11 ? 200 : 404;
    text += `2026-01-${day} host${number((n * 7) % 40, 2)} ${path} status ${status} in ${number((n * n) % 997, 3)} ms\n`;
  }
  return Buffer.from(text.padEnd(Math.ceil(text.length / 64) * 64));
}

/** Key and nonce of RFC 8439 §2.4.2; the first block has number 1. */
function encrypted(plain: Buffer): Buffer {
  const key = Uint8Array.from({ length: 32 }, (_, index) => index);
  const counterAndNonce = Buffer.from('0100000000000000' + '0000004a00000000', 'hex');
  return createCipheriv('chacha20', key, counterAndNonce).update(plain);
}

/** ISO 3309. */
function crc32(bytes: Uint8Array): string {
  let rest = 0xffff_ffff;
  for (const byte of bytes) {
    rest ^= byte;
    for (let bit = 0; bit < 8; bit++) rest = (rest >>> 1) ^ (rest & 1 ? 0xedb8_8320 : 0);
  }
  return (~rest >>> 0).toString(16).padStart(8, '0');
}

/** 32-bit words from the lowest, without zeros above. */
function wordsOf(value: bigint): Buffer {
  const digits = value.toString(16);
  return Buffer.from(digits.padStart(Math.ceil(digits.length / 8) * 8, '0'), 'hex').reverse();
}

function fibonacci(n: number): bigint {
  let [value, next] = [0n, 1n];
  for (let step = 0; step < n; step++) [value, next] = [next, value + next];
  return value;
}

it('crypto32 is expected to print what other programs compute', () => {
  const plain = log();
  const power = wordsOf(3n ** (1n << BigInt(SQUARINGS)));
  expect(guestOutput('crypto32').trimEnd().split('\n')).toEqual([
    `md5 of the log ${createHash('md5').update(plain).digest('hex')}`,
    `sha1 of what was sent ${createHash('sha1').update(encrypted(plain)).digest('hex')}`,
    `crc32 of what was received ${crc32(plain)}`,
    `3^(2^${SQUARINGS}) has ${power.length / 4} words, crc32 ${crc32(power)}`,
    `fibonacci ${FIBONACCI}, crc32 ${crc32(wordsOf(fibonacci(FIBONACCI)))}`,
  ]);
});

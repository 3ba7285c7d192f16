/**
 * Digests over the rows of a tape. All are SHA-256 over a purpose and a row's fields, written so that no two rows have
 * the same bytes: an integer as 8 bytes little-endian, text (UTF-8) and bytes behind their length as such an integer.
 */
import { createHash } from 'node:crypto';

export type DigestField = bigint | number | string | Uint8Array;

/** @param purpose keeps the digests of different tables apart. */
export function digestOf(purpose: string, ...fields: readonly DigestField[]): Uint8Array {
  const hash = createHash('sha256');
  for (const field of [purpose, ...fields]) {
    if (typeof field === 'bigint' || typeof field === 'number') {
      hash.update(integerBytes(field));
    } else {
      const bytes = typeof field === 'string' ? Buffer.from(field, 'utf8') : field;
      hash.update(integerBytes(bytes.length)).update(bytes);
    }
  }
  return plain(hash.digest());
}

/** @throws TypeError where the digest is another content's. */
export function requireDigest(content: Uint8Array, digest: string): void {
  if (contentDigest(content) !== digest)
    throw new TypeError(`content cannot be kept as ${digest}: its digest is another`);
}

/** SHA-256 of content, in hex: the name of a blob. */
export const contentDigest = (content: Uint8Array): string => createHash('sha256').update(content).digest('hex');

export const sameBytes = (a: Uint8Array, b: Uint8Array): boolean => Buffer.compare(a, b) === 0;

/** True when `part` stands anywhere in `whole`. */
export const containsBytes = (whole: Uint8Array, part: Uint8Array): boolean => asBuffer(whole).includes(asBuffer(part));

const asBuffer = ({ buffer, byteOffset, byteLength }: Uint8Array): Buffer =>
  Buffer.from(buffer, byteOffset, byteLength);

/** The same bytes as a plain Uint8Array: what leaves the journal is no Buffer. */
export const plain = ({ buffer, byteOffset, byteLength }: Uint8Array): Uint8Array =>
  new Uint8Array(buffer, byteOffset, byteLength);

function integerBytes(value: bigint | number): Uint8Array {
  const bytes = Buffer.alloc(8);
  bytes.writeBigInt64LE(BigInt(value));
  return bytes;
}

export const toHex = (bytes: Uint8Array): string =>
  Buffer.from(bytes.buffer, bytes.byteOffset, bytes.length).toString('hex');
export const fromHex = (text: string): Uint8Array => new Uint8Array(Buffer.from(text, 'hex'));

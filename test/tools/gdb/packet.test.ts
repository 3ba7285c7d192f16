/** Framing: whatever way a stream is cut, and whatever else is in it. */
import { describe, expect, it } from 'vitest';
import { framed, type Incoming, PACKET_BYTES, PacketReader } from '../../../tools/gdb/packet.js';
import { checksum } from './client.js';

const read = (...chunks: readonly (string | Uint8Array)[]): string[] => {
  const reader = new PacketReader();
  return chunks.flatMap((chunk) =>
    [...reader.read(typeof chunk === 'string' ? Buffer.from(chunk, 'latin1') : chunk)].map(text),
  );
};
const text = (each: Incoming): string =>
  each.kind === 'packet' ? `packet ${Buffer.from(each.data).toString('latin1')}` : each.kind;
const packet = (data: string): string => `$${data}#${checksum(data)}`;

describe('a stream of packets', () => {
  it('is taken apart however it is cut', () => {
    const stream = `+${packet('qSupported')}-\u0003${packet('')}${packet('m1000,4')}`;
    const expected = ['ack', 'packet qSupported', 'nak', 'interrupt', 'packet ', 'packet m1000,4'];
    expect(read(stream)).toEqual(expected);
    expect(read(...stream)).toEqual(expected);
  });

  it('has escapes', () => {
    expect(read(packet('X0,3:}\u0003}\u0004}]'))).toEqual(['packet X0,3:#$}']);
  });

  it('may have wrong checksums, or none', () => {
    expect(read('$g#00', packet('g'))).toEqual(['bad', 'packet g']);
    expect(read('$g#zz', packet('g'))).toEqual(['bad', 'packet g']);
  });

  it('may break a packet off: the next one counts', () => {
    expect(read(`$qSuppor${packet('g')}`)).toEqual(['packet g']);
  });

  it('may hold a packet that is too long, which is refused whole', () => {
    const longest = 'a'.repeat(PACKET_BYTES);
    expect(read(packet(longest))).toEqual([`packet ${longest}`]);
    expect(read(packet(`${longest}a`), packet('g'))).toEqual(['bad', 'packet g']);
  });

  it('is nonsense when there is no end of what is no packet', () => {
    expect(read('GET / HTTP/1.1\r\n\r\n', packet('g'))).toEqual(['packet g']);
    expect(read('x'.repeat(0x1_0001))).toEqual(['nonsense']);
    expect(read(`$${'x'.repeat(0x2_0000)}`)).toContain('nonsense');
  });

  it('is written so that it can be read', () => {
    const data = Uint8Array.from({ length: 256 }, (_, byte) => byte);
    const [only, ...more] = [...new PacketReader().read(framed(data))];
    expect(more).toEqual([]);
    expect(only).toEqual({ kind: 'packet', data });
  });
});

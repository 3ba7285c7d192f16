/*
 * Two compressors with their inverses. The first is of the LZ77 kind, with chains of places that have the same three
 * bytes: a control byte below 128 announces so many literals and one more, others a length (its low 7 bits and 3) and
 * two bytes of distance. The second counts runs: a byte that stands twice is followed by how many more there are.
 */
#include "strings.h"

#define HASHES 4096
#define TRIES 16
#define SHORTEST 3
#define LONGEST (127 + SHORTEST)

static u8 packed_bytes[TEXT + TEXT / 64 + 64], unpacked[TEXT];
static u32 newest[HASHES], older[TEXT];

static u32 hash_at(const u8 *at) { return ((u32)at[0] << 16 ^ (u32)at[1] << 8 ^ at[2]) * 2654435761u >> 20; }

static void note(const u8 *text, u64 at, u64 length)
{
        u32 hash;
        if (at + SHORTEST > length)
                return;
        hash = hash_at(text + at);
        older[at] = newest[hash];
        newest[hash] = (u32)at + 1;
}

static u64 longest_match(const u8 *text, u64 at, u64 length, u64 *distance)
{
        u64 best = 0, most = length - at < LONGEST ? length - at : LONGEST;
        u32 place = most < SHORTEST ? 0 : newest[hash_at(text + at)];
        for (u32 tries = 0; place && tries < TRIES && at - (place - 1) < 65536; tries++, place = older[place - 1]) {
                const u8 *there = text + place - 1;
                u64 n = 0;
                if (best && (best == most || there[best] != text[at + best]))
                        continue;
                while (n < most && there[n] == text[at + n])
                        n++;
                if (n > best) {
                        best = n;
                        *distance = at - (place - 1);
                }
        }
        return best >= SHORTEST ? best : 0;
}

static u8 *literals(u8 *to, const u8 *from, u64 n)
{
        while (n) {
                u64 some = n < 128 ? n : 128;
                *to++ = (u8)(some - 1);
                to = copy(to, from, some);
                from += some;
                n -= some;
        }
        return to;
}

static u64 pack(const u8 *text, u64 length)
{
        u8 *to = packed_bytes;
        u64 plain = 0, at = 0;
        fill(newest, 0, sizeof newest);
        while (at < length) {
                u64 distance = 0, n = longest_match(text, at, length, &distance);
                if (!n) {
                        note(text, at++, length);
                        plain++;
                        continue;
                }
                to = literals(to, text + at - plain, plain);
                plain = 0;
                *to++ = (u8)(128 + n - SHORTEST);
                *to++ = (u8)distance;
                *to++ = (u8)(distance >> 8);
                for (u64 end = at + n; at < end; at++)
                        note(text, at, length);
        }
        return (u64)(literals(to, text + at - plain, plain) - packed_bytes);
}

static u64 unpack(u64 length)
{
        const u8 *at = packed_bytes, *end = packed_bytes + length;
        u8 *to = unpacked;
        while (at < end) {
                u8 control = *at++;
                if (control < 128) {
                        to = copy(to, at, control + 1u);
                        at += control + 1;
                } else {
                        to = copy_up(to, to - (at[0] | (u64)at[1] << 8), control - 128u + SHORTEST);
                        at += 2;
                }
        }
        return (u64)(to - unpacked);
}

u64 compress(const u8 *text, u64 length, u64 *packed)
{
        u64 n = pack(text, length);
        if (unpack(n) != length || equal_bytes(unpacked, text, length) != length)
                guest_exit(30);
        *packed += n;
        return checksum(0, packed_bytes, n);
}

u64 run_lengths(const u8 *bytes, u64 length, u64 *packed)
{
        u8 *to = packed_bytes, *back = unpacked;
        for (u64 at = 0; at < length;) {
                u64 run = 1;
                while (at + run < length && run < 257 && bytes[at + run] == bytes[at])
                        run++;
                *to++ = bytes[at];
                if (run > 1) {
                        *to++ = bytes[at];
                        *to++ = (u8)(run - 2);
                }
                at += run;
        }
        for (const u8 *at = packed_bytes; at < to;) {
                u64 run = at + 1 < to && at[1] == at[0] ? at[2] + 2u : 1;
                fill(back, *at, run);
                back += run;
                at += run > 1 ? 3 : 1;
        }
        if ((u64)(back - unpacked) != length || equal_bytes(unpacked, bytes, length) != length)
                guest_exit(31);
        *packed += (u64)(to - packed_bytes);
        return checksum(0, packed_bytes, (u64)(to - packed_bytes));
}

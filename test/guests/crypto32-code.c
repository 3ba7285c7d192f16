/*
 * The 32-bit part of the guest `crypto32`. build.sh compiles it for i386 and links it with 64-bit code, host.sh for the
 * host. Sources: RFC 8439 §2.3, RFC 1321 §3.4, RFC 3174 §6.1, ISO 3309.
 */
#include "crypto32.h"

#define POINTER(type, address) ((type *)(__UINTPTR_TYPE__)(address))

static u32 rotate(u32 value, u32 count) { return value << count | value >> (32 - count); }

#define QUARTER(a, b, c, d)                                             \
        do {                                                            \
                a += b; d = rotate(d ^ a, 16); c += d; b = rotate(b ^ c, 12); \
                a += b; d = rotate(d ^ a, 8); c += d; b = rotate(b ^ c, 7);   \
        } while (0)

void chacha20(struct job *job)
{
        const u8 *from = POINTER(const u8, job->from);
        u8 *to = POINTER(u8, job->to);
        u32 start[16] = {0x61707865, 0x3320646e, 0x79622d32, 0x6b206574}, x[16];
        for (u32 n = 0; n < 8; n++)
                start[4 + n] = job->key[n];
        start[12] = job->counter;
        for (u32 n = 0; n < 3; n++)
                start[13 + n] = job->nonce[n];
        for (u32 left = job->length; left; start[12]++) {
                u32 some = left < 64 ? left : 64;
                for (u32 n = 0; n < 16; n++)
                        x[n] = start[n];
                for (u32 round = 0; round < 10; round++) {
                        QUARTER(x[0], x[4], x[8], x[12]);
                        QUARTER(x[1], x[5], x[9], x[13]);
                        QUARTER(x[2], x[6], x[10], x[14]);
                        QUARTER(x[3], x[7], x[11], x[15]);
                        QUARTER(x[0], x[5], x[10], x[15]);
                        QUARTER(x[1], x[6], x[11], x[12]);
                        QUARTER(x[2], x[7], x[8], x[13]);
                        QUARTER(x[3], x[4], x[9], x[14]);
                }
                for (u32 n = 0; n < some; n++)
                        *to++ = *from++ ^ (u8)((x[n / 4] + start[n / 4]) >> n % 4 * 8);
                left -= some;
        }
        job->counter = start[12];
}

/* floor(2^32 |sin(n + 1)|) */
static const u32 md5_constants[64] = {
        0xd76aa478, 0xe8c7b756, 0x242070db, 0xc1bdceee, 0xf57c0faf, 0x4787c62a, 0xa8304613, 0xfd469501, 0x698098d8, 0x8b44f7af, 0xffff5bb1,
        0x895cd7be, 0x6b901122, 0xfd987193, 0xa679438e, 0x49b40821, 0xf61e2562, 0xc040b340, 0x265e5a51, 0xe9b6c7aa, 0xd62f105d, 0x02441453,
        0xd8a1e681, 0xe7d3fbc8, 0x21e1cde6, 0xc33707d6, 0xf4d50d87, 0x455a14ed, 0xa9e3e905, 0xfcefa3f8, 0x676f02d9, 0x8d2a4c8a, 0xfffa3942,
        0x8771f681, 0x6d9d6122, 0xfde5380c, 0xa4beea44, 0x4bdecfa9, 0xf6bb4b60, 0xbebfbc70, 0x289b7ec6, 0xeaa127fa, 0xd4ef3085, 0x04881d05,
        0xd9d4d039, 0xe6db99e5, 0x1fa27cf8, 0xc4ac5665, 0xf4292244, 0x432aff97, 0xab9423a7, 0xfc93a039, 0x655b59c3, 0x8f0ccc92, 0xffeff47d,
        0x85845dd1, 0x6fa87e4f, 0xfe2ce6e0, 0xa3014314, 0x4e0811a1, 0xf7537e82, 0xbd3af235, 0x2ad7d2bb, 0xeb86d391,
};
static const u8 md5_shifts[4][4] = {{7, 12, 17, 22}, {5, 9, 14, 20}, {4, 11, 16, 23}, {6, 10, 15, 21}};

void md5(struct job *job)
{
        const u32 *words = POINTER(const u32, job->from);
        for (u32 left = job->length; left; left -= 64, words += 16) {
                u32 a = job->state[0], b = job->state[1], c = job->state[2], d = job->state[3];
                for (u32 n = 0; n < 64; n++) {
                        u32 mixed, at, old = d;
                        switch (n / 16) {
                        case 0: mixed = (b & c) | (~b & d); at = n; break;
                        case 1: mixed = (d & b) | (~d & c); at = 5 * n + 1; break;
                        case 2: mixed = b ^ c ^ d; at = 3 * n + 5; break;
                        default: mixed = c ^ (b | ~d); at = 7 * n;
                        }
                        d = c;
                        c = b;
                        b += rotate(a + mixed + md5_constants[n] + words[at % 16], md5_shifts[n / 16][n % 4]);
                        a = old;
                }
                job->state[0] += a;
                job->state[1] += b;
                job->state[2] += c;
                job->state[3] += d;
        }
}

void sha1(struct job *job)
{
        const u32 *words = POINTER(const u32, job->from);
        for (u32 left = job->length; left; left -= 64, words += 16) {
                u32 w[80], a = job->state[0], b = job->state[1], c = job->state[2], d = job->state[3], e = job->state[4];
                for (u32 n = 0; n < 16; n++)
                        w[n] = __builtin_bswap32(words[n]);
                for (u32 n = 16; n < 80; n++)
                        w[n] = rotate(w[n - 3] ^ w[n - 8] ^ w[n - 14] ^ w[n - 16], 1);
                for (u32 n = 0; n < 80; n++) {
                        u32 mixed = n < 20   ? ((b & c) | (~b & d)) + 0x5a827999
                                    : n < 40 ? (b ^ c ^ d) + 0x6ed9eba1
                                    : n < 60 ? ((b & c) | (b & d) | (c & d)) + 0x8f1bbcdc
                                             : (b ^ c ^ d) + 0xca62c1d6;
                        u32 next = rotate(a, 5) + mixed + e + w[n];
                        e = d;
                        d = c;
                        c = rotate(b, 30);
                        b = a;
                        a = next;
                }
                job->state[0] += a;
                job->state[1] += b;
                job->state[2] += c;
                job->state[3] += d;
                job->state[4] += e;
        }
}

void crc32_table(struct job *job)
{
        u32 *table = POINTER(u32, job->to);
        for (u32 byte = 0; byte < 256; byte++) {
                u32 rest = byte;
                for (u32 bit = 0; bit < 8; bit++)
                        rest = rest >> 1 ^ (rest & 1 ? 0xedb88320 : 0);
                table[byte] = rest;
        }
}

void crc32(struct job *job)
{
        const u8 *from = POINTER(const u8, job->from);
        const u32 *table = POINTER(const u32, job->to);
        u32 rest = ~job->state[0];
        for (u32 n = 0; n < job->length; n++)
                rest = rest >> 8 ^ table[(rest ^ from[n]) & 0xff];
        job->state[0] = ~rest;
}

void square(struct job *job)
{
        const u32 *from = POINTER(const u32, job->from);
        u32 *to = POINTER(u32, job->to);
        for (u32 n = 0; n < 2 * job->length; n++)
                to[n] = 0;
        for (u32 n = 0; n < job->length; n++) {
                u32 carry = 0, factor = from[n];
                for (u32 m = 0; m < job->length; m++) {
                        u32 low = from[m], high;
                        __asm__("mull %3\n\t"
                                "addl %4, %0\n\t"
                                "adcl $0, %1\n\t"
                                "addl %0, %2\n\t"
                                "adcl $0, %1"
                                : "+&a"(low), "=&d"(high), "+m"(to[n + m])
                                : "rm"(factor), "rm"(carry)
                                : "cc");
                        carry = high;
                }
                to[n + job->length] = carry;
        }
}

/* to += from; the carry */
static u32 add(u32 *to, const u32 *from, u32 words)
{
        u32 carry;
        /* LEA and DEC leave the carry alone */
        __asm__ volatile("clc\n"
                         "1:\tmovl (%0), %3\n\t"
                         "adcl %3, (%1)\n\t"
                         "lea 4(%0), %0\n\t"
                         "lea 4(%1), %1\n\t"
                         "decl %2\n\t"
                         "jnz 1b\n\t"
                         "sbbl %3, %3\n\t"
                         "negl %3"
                         : "+&r"(from), "+&r"(to), "+&r"(words), "=&r"(carry)::"memory", "cc");
        return carry;
}

void fibonacci(struct job *job)
{
        u32 *value = POINTER(u32, job->from), *next = POINTER(u32, job->to), words = 1;
        for (u32 n = 0; n < job->counter; n++) {
                u32 *sum = value;
                if (add(value, next, words))
                        value[words++] = 1;
                value = next;
                next = sum;
        }
        job->from = (u32)(__UINTPTR_TYPE__)value;
        job->length = words - !value[words - 1];
}

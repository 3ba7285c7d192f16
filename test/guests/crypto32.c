/*
 * crypto32: 32-bit code of rotations, additions, tables and carries: ChaCha20, MD5, SHA-1, CRC-32, long numbers. The
 * loops run in protected mode without pages, with both formats of tables, and in compatibility mode, by turns.
 * A log is sent in records through a small buffer: encrypted, hashed, decrypted at the other end. Prints the digests.
 * Options: scale=N (1), how often all of it runs; divide=N (1), the Nth part of a round's work.
 */
#include "lib/guest.h"
#include "crypto32.h"

#define LOG 262144
#define RECORD 16384

static u8 text[LOG] __attribute__((aligned(64))), received[LOG] __attribute__((aligned(64)));
static u8 record[RECORD] __attribute__((aligned(64)));
static u32 table[256], value[WORDS], result[2 * WORDS], other[WORDS];
static struct job job;
static u32 turn;
u32 directory32[1024] PAGE_ALIGNED;
u64 pointers_pae[4] __attribute__((aligned(32)));

#ifdef HOST
static void call(void (*function)(struct job *)) { function(&job); }
static void modes_init(void) {}
#else
void call32(u32 function, u32 argument, u32 mode);

static void call(void (*function)(struct job *)) { call32((u32)(u64)function, (u32)(u64)&job, turn++ & 3); }

/* The identity map in the other two formats. */
static void modes_init(void)
{
        const u64 *pointers = (const u64 *)(pml4[0] & ~0xffful);
        for (u32 n = 0; n < 1024; n++)
                directory32[n] = n << 22 | 0x83;
        for (u32 n = 0; n < 4; n++)
                pointers_pae[n] = (pointers[n] & ~0xffful) | 1;
}
#endif

#define ADDRESS(object) ((u32)(u64)(object))

static void data(const void *from, void *to, u64 length)
{
        job.from = ADDRESS(from);
        job.to = ADDRESS(to);
        job.length = (u32)length;
}

static u32 checksum(const void *from, u64 length)
{
        data(from, table, length);
        job.state[0] = 0;
        call(crc32);
        return job.state[0];
}

static char *put(char *at, const char *part)
{
        while (*part)
                *at++ = *part++;
        return at;
}

static char *put_number(char *at, u32 number, u32 digits)
{
        for (u32 n = digits; n; n--, number /= 10)
                at[n - 1] = (char)('0' + number % 10);
        return at + digits;
}

/* A line of the log for each request, blanks to the end of the last block. */
static u64 write_log(u64 limit)
{
        char *at = (char *)text;
        for (u32 n = 0; (u64)(at - (char *)text) + 128 <= limit; n++) {
                at = put(at, "2026-01-");
                at = put_number(at, 1 + n / 3600 % 28, 2);
                at = put(at, " host");
                at = put_number(at, n * 7 % 40, 2);
                at = put(at, n % 3 ? " GET /item/" : " POST /order/");
                at = put_number(at, n * 7919 % 100000, 5);
                at = put(at, n % 11 ? " status 200 in " : " status 404 in ");
                at = put_number(at, n * n % 997, 3);
                at = put(at, " ms\n");
        }
        while ((at - (char *)text) % 64)
                *at++ = ' ';
        return (u64)(at - (char *)text);
}

static const u32 md5_start[5] = {0x67452301, 0xefcdab89, 0x98badcfe, 0x10325476, 0};
static const u32 sha1_start[5] = {0x67452301, 0xefcdab89, 0x98badcfe, 0x10325476, 0xc3d2e1f0};

/* Goes on with a hash over the next blocks. */
static void hash(void (*function)(struct job *), u32 state[5], const void *from, u64 length)
{
        data(from, 0, length);
        memcpy(job.state, state, sizeof job.state);
        call(function);
        memcpy(state, job.state, sizeof job.state);
}

/* The block that ends a message of whole blocks. */
static void last_block(u8 block[64], u64 length, int big_endian)
{
        memset(block, 0, 64);
        block[0] = 0x80;
        for (u32 n = 0; n < 8; n++)
                block[56 + n] = (u8)(length * 8 >> (big_endian ? 56 - 8 * n : 8 * n));
}

struct digests { u32 md5[5], sha1[5], crc; };

static u32 send(u64 length, struct digests *digests)
{
        static u8 block[64];
        u32 counter = 1, back = 1;
        memcpy(digests->md5, md5_start, sizeof md5_start);
        memcpy(digests->sha1, sha1_start, sizeof sha1_start);
        for (u64 at = 0; at < length; at += RECORD) {
                u64 some = length - at < RECORD ? length - at : RECORD;
                hash(md5, digests->md5, text + at, some);
                data(text + at, record, some);
                job.counter = counter;
                call(chacha20);
                counter = job.counter;
                hash(sha1, digests->sha1, record, some);
                data(record, received + at, some);
                job.counter = back;
                call(chacha20);
                back = job.counter;
        }
        last_block(block, length, 0);
        hash(md5, digests->md5, block, 64);
        last_block(block, length, 1);
        hash(sha1, digests->sha1, block, 64);
        digests->crc = checksum(received, length);
        return !memcmp(text, received, length);
}

/* 3 to the power of 2 to the power of n, by squares; gives its words. */
static u64 power(u32 n)
{
        u64 words = 1;
        value[0] = 3;
        while (n--) {
                data(value, result, words);
                call(square);
                words = 2 * words - !result[2 * words - 1];
                memcpy(value, result, words * sizeof *value);
        }
        return words;
}

/* CRC-32 of the nth Fibonacci number, which comes of sums. */
static u32 fibonacci_checksum(u32 n)
{
        memset(value, 0, sizeof value);
        memset(other, 0, sizeof other);
        other[0] = 1;
        data(value, other, 0);
        job.counter = n;
        call(fibonacci);
        return checksum((const void *)(u64)job.from, job.length * 4ul);
}

/* The examples of RFC 8439 §2.4.2, whose key and nonce stay, and of ISO 3309. */
static int known_answers(void)
{
        static const u8 encrypted[16] = {0x6e, 0x2e, 0x35, 0x9a, 0x25, 0x68, 0xf9, 0x80, 0x41, 0xba, 0x07, 0x28, 0xdd, 0x0d, 0x69, 0x81};
        static const char plain[] = "Ladies and Gentlemen", digits[] = "123456789";
        for (u32 n = 0; n < 8; n++)
                job.key[n] = 0x03020100 + n * 0x04040404;
        job.nonce[1] = 0x4a000000;
        job.counter = 1;
        data(plain, record, sizeof encrypted);
        call(chacha20);
        data(0, table, 0);
        call(crc32_table);
        return !memcmp(record, encrypted, sizeof encrypted) && checksum(digits, 9) == 0xcbf43926;
}

static u32 big_endian(u32 word) { return __builtin_bswap32(word); }

int guest_main(void)
{
        u64 scale = option("scale", 1), divide = option("divide", 1), bytes = LOG / divide, words = 0;
        u32 squarings = 15, sums = (u32)(6000 / divide), power_crc = 0, fibonacci_crc = 0;
        struct digests digests = {0};
        for (u64 n = divide; n > 1; n /= 4)     /* twice as long a number takes four times the work */
                squarings--;
        modes_init();
        if (!known_answers())
                return 1;
        for (u64 n = 0; n < scale; n++) {
                u64 length = write_log(bytes < 256 ? 256 : bytes);
                memset(received, 0, length);
                if (!send(length, &digests))
                        return 2;
                words = power(squarings);
                power_crc = checksum(value, words * 4);
                fibonacci_crc = fibonacci_checksum(sums);
        }
        print("md5 of the log ");
        for (u32 n = 0; n < 4; n++)
                print("%08x", (u64)big_endian(digests.md5[n]));
        print("\nsha1 of what was sent ");
        for (u32 n = 0; n < 5; n++)
                print("%08x", (u64)digests.sha1[n]);
        print("\ncrc32 of what was received %08x\n3^(2^%u) has %u words, crc32 %08x\n", (u64)digests.crc, (u64)squarings, words, (u64)power_crc);
        print("fibonacci %u, crc32 %08x\n", (u64)sums, (u64)fibonacci_crc);
        return 0;
}

/*
 * compute: an integer workload for benches, plain 64-bit code with no device or
 * privileged instruction in its loops: sieve, quicksort, SHA-256, a linked list,
 * recursion, matrix product. Prints a checksum of each.
 * Option: scale=N (1), how often each part runs; about 50 million instructions at 1.
 */
#include "lib/guest.h"

#define SIEVE 100000
#define SORT 32768
#define LIST 65536
#define HASHED 131072
#define FIB 27
#define MATRIX 128

static u8 composite[SIEVE];
static u32 values[SORT];
static u8 message[HASHED + 72];
static struct node { struct node *next; u64 value; } nodes[LIST];
static u64 a[MATRIX][MATRIX], b[MATRIX][MATRIX], c[MATRIX][MATRIX];

static u64 random_state;
static u64 random(void)
{
        random_state ^= random_state << 13;
        random_state ^= random_state >> 7;
        random_state ^= random_state << 17;
        return random_state;
}

static u64 sieve(void)
{
        u64 sum = 0;
        memset(composite, 0, sizeof composite);
        for (u32 i = 2; i < SIEVE; i++) {
                if (composite[i])
                        continue;
                sum += i;
                for (u64 n = (u64)i * i; n < SIEVE; n += i)
                        composite[n] = 1;
        }
        return sum;
}

static void quicksort(u32 *low, u32 *high)
{
        while (low < high) {
                u32 pivot = low[(high - low) / 2], *i = low, *j = high;
                while (i <= j) {
                        while (*i < pivot)
                                i++;
                        while (*j > pivot)
                                j--;
                        if (i <= j) {
                                u32 swap = *i;
                                *i++ = *j;
                                *j-- = swap;
                        }
                }
                quicksort(low, j);
                low = i;
        }
}

static u64 sort(void)
{
        u64 sum = 0;
        for (u32 i = 0; i < SORT; i++)
                values[i] = (u32)random();
        quicksort(values, values + SORT - 1);
        for (u32 i = 0; i < SORT; i++) {
                if (i && values[i - 1] > values[i])
                        return 0;
                sum = sum * 31 + values[i];
        }
        return sum;
}

static const u32 sha_constants[64] = {
        0x428a2f98, 0x71374491, 0xb5c0fbcf, 0xe9b5dba5, 0x3956c25b, 0x59f111f1, 0x923f82a4, 0xab1c5ed5, 0xd807aa98, 0x12835b01,
        0x243185be, 0x550c7dc3, 0x72be5d74, 0x80deb1fe, 0x9bdc06a7, 0xc19bf174, 0xe49b69c1, 0xefbe4786, 0x0fc19dc6, 0x240ca1cc,
        0x2de92c6f, 0x4a7484aa, 0x5cb0a9dc, 0x76f988da, 0x983e5152, 0xa831c66d, 0xb00327c8, 0xbf597fc7, 0xc6e00bf3, 0xd5a79147,
        0x06ca6351, 0x14292967, 0x27b70a85, 0x2e1b2138, 0x4d2c6dfc, 0x53380d13, 0x650a7354, 0x766a0abb, 0x81c2c92e, 0x92722c85,
        0xa2bfe8a1, 0xa81a664b, 0xc24b8b70, 0xc76c51a3, 0xd192e819, 0xd6990624, 0xf40e3585, 0x106aa070, 0x19a4c116, 0x1e376c08,
        0x2748774c, 0x34b0bcb5, 0x391c0cb3, 0x4ed8aa4a, 0x5b9cca4f, 0x682e6ff3, 0x748f82ee, 0x78a5636f, 0x84c87814, 0x8cc70208,
        0x90befffa, 0xa4506ceb, 0xbef9a3f7, 0xc67178f2,
};
static u32 rotate(u32 value, u32 count) { return value >> count | value << (32 - count); }

static void sha256(const u8 *text, u64 length, u32 state[8])
{
        static const u32 initial[8] = {0x6a09e667, 0xbb67ae85, 0x3c6ef372, 0xa54ff53a, 0x510e527f, 0x9b05688c, 0x1f83d9ab, 0x5be0cd19};
        u64 padded = (length + 9 + 63) & ~63ul;
        memcpy(message, text, length);
        memset(message + length, 0, padded - length);
        message[length] = 0x80;
        for (u32 i = 0; i < 8; i++)
                message[padded - 1 - i] = (u8)(length * 8 >> i * 8);
        memcpy(state, initial, sizeof initial);
        for (u8 *block = message; block < message + padded; block += 64) {
                u32 w[64], s[8];
                for (u32 i = 0; i < 16; i++)
                        w[i] = (u32)block[i * 4] << 24 | (u32)block[i * 4 + 1] << 16 | (u32)block[i * 4 + 2] << 8 | block[i * 4 + 3];
                for (u32 i = 16; i < 64; i++)
                        w[i] = w[i - 16] + w[i - 7] + (rotate(w[i - 15], 7) ^ rotate(w[i - 15], 18) ^ w[i - 15] >> 3) +
                               (rotate(w[i - 2], 17) ^ rotate(w[i - 2], 19) ^ w[i - 2] >> 10);
                memcpy(s, state, sizeof s);
                for (u32 i = 0; i < 64; i++) {
                        u32 t1 = s[7] + (rotate(s[4], 6) ^ rotate(s[4], 11) ^ rotate(s[4], 25)) + ((s[4] & s[5]) ^ (~s[4] & s[6])) +
                                 sha_constants[i] + w[i];
                        u32 t2 = (rotate(s[0], 2) ^ rotate(s[0], 13) ^ rotate(s[0], 22)) + ((s[0] & s[1]) ^ (s[0] & s[2]) ^ (s[1] & s[2]));
                        for (u32 n = 7; n; n--)
                                s[n] = s[n - 1];
                        s[4] += t1;
                        s[0] = t1 + t2;
                }
                for (u32 i = 0; i < 8; i++)
                        state[i] += s[i];
        }
}

static u64 hash(void)
{
        static u8 text[HASHED];
        u32 state[8];
        for (u32 i = 0; i < HASHED; i++)
                text[i] = (u8)(i * 7);
        sha256(text, HASHED, state);
        return (u64)state[0] << 32 | state[1];
}

/* Follows a chain that visits all nodes in an order unlike that in memory. */
static u64 list(void)
{
        u64 sum = 0, at = 0;
        for (u32 i = 0; i < LIST; i++) {
                u64 next = (at * 5 + 12345) % LIST;     /* a full cycle: 5 - 1 divides by 4, 12345 is odd */
                nodes[at].next = &nodes[next];
                nodes[at].value = random();
                at = next;
        }
        struct node *node = nodes;
        for (u32 i = 0; i < 4 * LIST; i++, node = node->next)
                sum = sum * 31 + node->value;
        return sum;
}

static __attribute__((noinline)) u64 fib(u64 n) { return n < 2 ? n : fib(n - 1) + fib(n - 2); }

static u64 matrix(void)
{
        u64 sum = 0;
        for (u32 i = 0; i < MATRIX; i++)
                for (u32 j = 0; j < MATRIX; j++) {
                        a[i][j] = random();
                        b[i][j] = random();
                }
        for (u32 i = 0; i < MATRIX; i++)
                for (u32 j = 0; j < MATRIX; j++) {
                        u64 cell = 0;
                        for (u32 k = 0; k < MATRIX; k++)
                                cell += a[i][k] * b[k][j];
                        c[i][j] = cell;
                        sum ^= cell + (sum << 3) + (sum >> 5);
                }
        return sum;
}

int guest_main(void)
{
        u64 scale = option("scale", 1), sums[6] = {0};
        u32 state[8];
        sha256((const u8 *)"abc", 3, state);
        if (state[0] != 0xba7816bf || state[7] != 0xf20015ad)
                return 1;
        random_state = 0x9e3779b97f4a7c15;
        for (u64 n = 0; n < scale; n++) {
                sums[0] += sieve();
                sums[1] += sort();
                sums[2] += hash();
                sums[3] += list();
                sums[4] += fib(FIB);
                sums[5] += matrix();
        }
        print("sieve %x\nsort %x\nsha256 %x\nlist %x\nfib %u\nmatrix %x\n", sums[0], sums[1], sums[2], sums[3], sums[4], sums[5]);
        return sums[0] == 454396537 * scale && sums[4] == 196418 * scale ? 0 : 2;
}

/* What the 64-bit and the 32-bit part of the guest `crypto32` agree on: addresses and counts are 32 bits wide for both. */
#ifndef CRYPTO32_H
#define CRYPTO32_H

typedef unsigned char u8;
typedef unsigned int u32;

#define WORDS 2048      /* of a long number */

/* Where the 32-bit code runs: crypto32-switch.S */
#define IN_COMPATIBILITY_MODE 0
#define IN_PROTECTED_MODE 1
#define WITH_PAGES 2    /* protected mode, tables of two levels, pages of 4 MiB */
#define WITH_PAE 3      /* protected mode, tables of three levels, pages of 2 MiB */

struct job {
        u32 from, to, length;
        u32 counter;            /* ChaCha20: of the first block */
        u32 key[8], nonce[3];
        u32 state[5];           /* of a hash */
};

/* 32-bit code. Hashes take whole blocks of 64 bytes. */
void chacha20(struct job *job);
void md5(struct job *job);
void sha1(struct job *job);
void crc32_table(struct job *job);      /* to: 256 words */
void crc32(struct job *job);            /* to: the table; state[0] */
void square(struct job *job);           /* to = from², length words of `from`; twice as many are written */
/* from: 0, to: 1, and room for more words, which are 0; leaves in `from` and `length` where number `counter` is */
void fibonacci(struct job *job);

#endif

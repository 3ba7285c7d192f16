/* What the parts of the guest `strings` share. */
#ifndef STRINGS_H
#define STRINGS_H

#include "../lib/guest.h"

#define TEXT 90112      /* bytes of the text */

/* A stretch of bytes, without a 0 behind it. */
struct piece { const u8 *at; u64 length; };

/* bytes.c: by string instructions, as libc and compilers have them */
u64 length_of(const char *text);                        /* REPNE SCASB */
u8 *copy(u8 *target, const void *source, u64 length);   /* REP MOVSQ and MOVSB; gives the end */
u8 *copy_up(u8 *target, const u8 *source, u64 length);  /* REP MOVSB; a target that overlaps repeats the source */
void fill(void *target, u8 value, u64 length);          /* REP STOSQ and STOSB */
u64 equal_bytes(const u8 *a, const u8 *b, u64 length);  /* REPE CMPSB: how many at the beginning */
const u8 *find_byte(const u8 *at, const u8 *end, u8 byte);      /* REPNE SCASB; `end` if there is none */
u64 checksum(u64 sum, const u8 *at, u64 length);

/* grammar.c: paragraphs of sentences, up to `limit` bytes; no words but those of its lists */
u64 write_text(u8 *text, u64 limit, int unicode);

/* The parts; each ends the guest when two of its ways to a result disagree. */
u64 count_words(const u8 *text, u64 length, u64 *sorted);       /* words.c */
u64 search(const u8 *text, u64 length);                         /* search.c */
u64 compress(const u8 *text, u64 length, u64 *packed);          /* compress.c */
u64 run_lengths(const u8 *bytes, u64 length, u64 *packed);
u64 code_points(const u8 *text, u64 length);                    /* utf8.c */
u64 numbers(u64 lines, u8 *buffer, u64 *length);                /* numbers.c: leaves its table in the buffer */

#endif

/* What the parts of the guest `pointers` share. */
#ifndef POINTERS_H
#define POINTERS_H

#include "../lib/guest.h"

/* text.c: a number below `limit`; it decides what is done, and is no content of memory */
extern u64 choice_state;
u32 choose(u32 limit);
u64 length_of(const char *text);
int compare(const char *a, const char *b);
/* These give the place of the 0 that they write. */
char *append(char *at, const char *text);
char *append_number(char *at, u32 value);

/* heap.c */
extern u64 allocations, blocks_searched;
void heap_init(void);
void *allocate(u64 bytes);
void release(void *memory);
char *copy_of(const char *text);
/* all that was allocated is free again, and one block */
int heap_is_whole(void);

/* The parts: each gives a checksum, for the Nth part of the work that it does at 1. */
u64 people(u64 divide, u64 *sorted);
u64 paths(u64 divide, u64 *left);
u64 expressions(u64 divide);

#endif

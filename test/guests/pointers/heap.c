/*
 * The heap. A block begins with its size; the size stands at its end, too, while it is free, and then it is in the list
 * of its class. Sizes are multiples of 16, so the low bits are free for what is known of it and of the block before.
 */
#include "pointers.h"

#define HEAP (8u << 20)
#define CLASSES 32
#define USED 1ul
#define USED_BEFORE 2ul
#define LEAST 32ul

struct block { u64 head; struct block *next, *previous; };
static u8 heap[HEAP + 16] __attribute__((aligned(16)));
static struct block *free_blocks[CLASSES];
u64 allocations, blocks_searched;

static u64 size_of(const struct block *block) { return block->head & ~15ul; }
static struct block *after(struct block *block) { return (struct block *)((u8 *)block + size_of(block)); }
static u64 *tail(struct block *block) { return (u64 *)after(block) - 1; }

static u32 class_of(u64 size)
{
        u32 class = size < 512 ? (u32)(size / 32) : 16 + (63 - (u32)__builtin_clzl(size) - 9);
        return class < CLASSES ? class : CLASSES - 1;
}

static void list_free(struct block *block)
{
        struct block **list = &free_blocks[class_of(size_of(block))];
        *tail(block) = size_of(block);
        block->previous = 0;
        block->next = *list;
        if (*list)
                (*list)->previous = block;
        *list = block;
}

static void unlist(struct block *block)
{
        if (block->next)
                block->next->previous = block->previous;
        if (block->previous)
                block->previous->next = block->next;
        else
                free_blocks[class_of(size_of(block))] = block->next;
}

void heap_init(void)
{
        struct block *whole = (struct block *)(heap + 8);
        memset(free_blocks, 0, sizeof free_blocks);
        whole->head = (HEAP - 16) | USED_BEFORE;
        after(whole)->head = USED;      /* ends the heap */
        list_free(whole);
}

void *allocate(u64 bytes)
{
        u64 size = (bytes + 8 + 15) & ~15ul;
        if (size < LEAST)
                size = LEAST;
        allocations++;
        for (u32 class = class_of(size); class < CLASSES; class++)
                for (struct block *block = free_blocks[class]; block; block = block->next) {
                        u64 rest = size_of(block) - size;
                        blocks_searched++;
                        if (size_of(block) < size)
                                continue;
                        unlist(block);
                        if (rest >= LEAST) {
                                struct block *second = (struct block *)((u8 *)block + size);
                                second->head = rest | USED_BEFORE;
                                list_free(second);
                                block->head = size | (block->head & USED_BEFORE);
                        }
                        block->head |= USED;
                        if (rest < LEAST)
                                after(block)->head |= USED_BEFORE;
                        return (u8 *)block + 8;
                }
        print("FAIL the heap is full\n");
        guest_exit(2);
}

void release(void *memory)
{
        struct block *block = (struct block *)((u8 *)memory - 8), *next = after(block);
        u64 size = size_of(block);
        if (!(next->head & USED)) {
                unlist(next);
                size += size_of(next);
        }
        if (!(block->head & USED_BEFORE)) {
                block = (struct block *)((u8 *)block - ((u64 *)block)[-1]);
                unlist(block);
                size += size_of(block);
        }
        block->head = size | USED_BEFORE;
        after(block)->head &= ~USED_BEFORE;
        list_free(block);
}

int heap_is_whole(void) { return ((struct block *)(heap + 8))->head == ((HEAP - 16) | USED_BEFORE); }

char *copy_of(const char *text)
{
        u64 bytes = length_of(text) + 1;
        char *copy = allocate(bytes);
        memcpy(copy, text, bytes);
        return copy;
}

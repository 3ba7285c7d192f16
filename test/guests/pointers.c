/*
 * pointers: what compiled C with calls and pointers does. An allocator with free lists and boundary tags, balanced trees,
 * a hash table with chained entries, an interpreter of expressions by function pointers, recursion. Memory looks as that
 * of such a program does: records, names, small numbers, pointers.
 * Prints a checksum or count of each part; sums that two ways must agree on are compared.
 * Options: scale=N (1), how often all of it runs; divide=N (1), the Nth part of a round's work.
 */
#include "pointers/pointers.h"

/* Ways to set n queens on n rows; bits are the columns taken and the diagonals seen from this row. */
static u64 queens(u32 all, u32 columns, u32 left, u32 right)
{
        u64 ways = 0;
        if (columns == all)
                return 1;
        for (u32 open = all & ~(columns | left | right); open; open &= open - 1) {
                u32 here = open & -open;
                ways += queens(all, columns | here, (left | here) << 1, (right | here) >> 1);
        }
        return ways;
}

int guest_main(void)
{
        u64 scale = option("scale", 1), divide = option("divide", 1), sums[5] = {0}, ways = 0;
        choice_state = 0x2545f4914f6cdd1d;
        heap_init();
        for (u64 n = 0; n < scale; n++) {
                sums[0] += people(divide, &sums[1]);
                sums[2] += paths(divide, &sums[3]);
                sums[4] += expressions(divide);
                ways += divide == 1 ? queens((1 << 9) - 1, 0, 0, 0) : queens((1 << 5) - 1, 0, 0, 0);
                if (!heap_is_whole())
                        return 6;
        }
        print("people %x\nsorted %x\npaths %x, left %u\nexpressions %x\nqueens %u\n", sums[0], sums[1], sums[2], sums[3], sums[4], ways);
        print("allocations %u, blocks searched %u\n", allocations, blocks_searched);
        return ways == (divide == 1 ? 352 : 10) * scale ? 0 : 7;
}

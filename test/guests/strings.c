/*
 * strings: byte-wise code. A text by a grammar, its words in a trie and sorted, searches by three methods, compression
 * and its inverse, UTF-8, numbers written and read; with the string instructions that libc and compilers have for such
 * work. Prints a checksum of each part.
 * Options: scale=N (1), how often all of it runs; divide=N (1), the Nth part of a round's work.
 */
#include "strings/strings.h"

static u8 text[TEXT], table[TEXT];

int guest_main(void)
{
        u64 scale = option("scale", 1), divide = option("divide", 1), length = 0, words = 0, sums[8] = {0}, packed[2] = {0};
        for (u64 n = 0; n < scale; n++) {
                u64 limit = TEXT / divide < 2304 ? 2304 : TEXT / divide, bytes;
                length = write_text(text, limit, 0);
                sums[0] = checksum(sums[0], text, length);
                words += count_words(text, length, &sums[1]);
                sums[2] += search(text, length);
                sums[3] += compress(text, length, &packed[0]);
                length = write_text(text, limit, 1);
                sums[4] += code_points(text, length);
                sums[5] += numbers(2500 / divide, table, &bytes);
                sums[6] += compress(table, bytes, &packed[0]);
                /* a page of a listing: the lines in columns of blanks */
                fill(table, ' ', limit);
                for (u64 at = 0, line = 0; line + 80 <= limit; line += 80, at++)
                        copy(table + line + at % 5, text + at % 64 * 16, at * 13 % 48);
                sums[7] += run_lengths(table, limit, &packed[1]);
        }
        print("text %x\nwords %u, sorted %x\nfound %x\ncompressed %x, ", sums[0], words, sums[1], sums[2], sums[3] + sums[6]);
        print("bytes %u\ncode points %x\nnumbers %d\nruns %x, bytes %u\n", packed[0], sums[4], sums[5], sums[7], packed[1]);
        return 0;
}

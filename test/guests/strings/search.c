/* Where a text has a word: Knuth-Morris-Pratt, Boyer-Moore-Horspool, and first byte by SCAS must find the same. */
#include "strings.h"

static const char *const wanted[] = {"computer", "the quiet garden", "because a", "that remembers the", "e", "mountain.", "zebra", "near a strange book"};

static u64 by_prefixes(const u8 *text, u64 length, const u8 *word, u64 n, u64 *sum)
{
        u64 failure[64] = {0}, matched = 0, found = 0;
        for (u64 at = 1; at < n; at++) {
                while (matched && word[at] != word[matched])
                        matched = failure[matched - 1];
                matched += word[at] == word[matched];
                failure[at] = matched;
        }
        matched = 0;
        for (u64 at = 0; at < length; at++) {
                while (matched && text[at] != word[matched])
                        matched = failure[matched - 1];
                matched += text[at] == word[matched];
                if (matched == n) {
                        found++;
                        *sum = *sum * 31 + at + 1 - n;
                        matched = failure[matched - 1];
                }
        }
        return found;
}

static u64 by_last_byte(const u8 *text, u64 length, const u8 *word, u64 n, u64 *sum)
{
        u8 shift[256];
        u64 found = 0;
        fill(shift, (u8)n, sizeof shift);
        for (u64 at = 0; at + 1 < n; at++)
                shift[word[at]] = (u8)(n - 1 - at);
        for (u64 at = 0; at + n <= length; at += shift[text[at + n - 1]]) {
                u64 left = n;
                while (left && text[at + left - 1] == word[left - 1])
                        left--;
                if (!left) {
                        found++;
                        *sum = *sum * 31 + at;
                }
        }
        return found;
}

static u64 by_first_byte(const u8 *text, u64 length, const u8 *word, u64 n, u64 *sum)
{
        const u8 *end = text + length;
        u64 found = 0;
        for (const u8 *at = find_byte(text, end, *word); (u64)(end - at) >= n; at = find_byte(at + 1, end, *word))
                if (equal_bytes(at, word, n) == n) {
                        found++;
                        *sum = *sum * 31 + (u64)(at - text);
                }
        return found;
}

u64 search(const u8 *text, u64 length)
{
        u64 total = 0;
        for (u32 each = 0; each < ARRAY_LENGTH(wanted); each++) {
                const u8 *word = (const u8 *)wanted[each];
                u64 n = length_of(wanted[each]), sums[3] = {0};
                u64 found = by_prefixes(text, length, word, n, &sums[0]);
                if (by_last_byte(text, length, word, n, &sums[1]) != found || sums[1] != sums[0])
                        guest_exit(20);
                if (by_first_byte(text, length, word, n, &sums[2]) != found || sums[2] != sums[0])
                        guest_exit(21);
                total = total * 31 + sums[0] + found;
        }
        return total;
}

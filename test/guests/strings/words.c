/* Words of a text: counted in a trie, then all of them sorted, and the two held against each other. */
#include "strings.h"

#define NODES 4096
#define WORDS 32768

struct trie { struct trie *children[26]; u32 count; };
static struct trie nodes[NODES];
static struct piece words[WORDS], sorted_words[WORDS];
static u32 nodes_used;

static int is_letter(u8 byte) { return (u8)((byte | 0x20) - 'a') < 26; }

static u64 tokenize(const u8 *text, u64 length)
{
        const u8 *end = text + length;
        u64 n = 0;
        for (const u8 *at = text; at < end && n < WORDS;) {
                const u8 *from = at;
                while (at < end && is_letter(*at))
                        at++;
                if (at > from)
                        words[n++] = (struct piece){from, (u64)(at - from)};
                else
                        at++;
        }
        return n;
}

static void count(const struct piece *word)
{
        struct trie *node = nodes;
        for (u64 n = 0; n < word->length; n++) {
                struct trie **child = &node->children[(word->at[n] | 0x20) - 'a'];
                if (!*child) {
                        if (nodes_used == NODES)
                                guest_exit(10);
                        *child = &nodes[nodes_used++];
                }
                node = *child;
        }
        node->count++;
}

static int order(const struct piece *a, const struct piece *b)
{
        for (u64 n = 0; n < a->length && n < b->length; n++) {
                int difference = (a->at[n] | 0x20) - (b->at[n] | 0x20);
                if (difference)
                        return difference;
        }
        return a->length < b->length ? -1 : a->length > b->length;
}

static void merge_sort(struct piece *from, struct piece *to, u64 n)
{
        u64 half = n / 2, a = 0, b = half;
        if (n < 2) {
                if (n)
                        *to = *from;
                return;
        }
        merge_sort(to, from, half);
        merge_sort(to + half, from + half, n - half);
        for (u64 at = 0; at < n; at++)
                to[at] = b == n || (a < half && order(&from[a], &from[b]) <= 0) ? from[a++] : from[b++];
}

/* In alphabetical order, as the sorted words are. */
static u64 compare_trie(const struct trie *node, u64 at, u64 n, u64 *sum)
{
        if (node->count) {
                u64 end = at;
                while (end < n && order(&sorted_words[end], &sorted_words[at]) == 0)
                        end++;
                if (end - at != node->count)
                        guest_exit(11);
                *sum = checksum(*sum, sorted_words[at].at, sorted_words[at].length) + node->count;
                at = end;
        }
        for (u32 letter = 0; letter < 26; letter++)
                if (node->children[letter])
                        at = compare_trie(node->children[letter], at, n, sum);
        return at;
}

u64 count_words(const u8 *text, u64 length, u64 *sorted)
{
        u64 n = tokenize(text, length), sum = 0;
        fill(nodes, 0, nodes_used * sizeof *nodes);
        nodes_used = 1;
        for (u64 word = 0; word < n; word++)
                count(&words[word]);
        copy((u8 *)sorted_words, words, n * sizeof *words);
        merge_sort(words, sorted_words, n);
        if (compare_trie(nodes, 0, n, &sum) != n)
                guest_exit(12);
        *sorted += sum;
        return n;
}

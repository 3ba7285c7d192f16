/* A hash table of path names, with chains; it doubles when it is full. */
#include "pointers.h"

struct entry { struct entry *next; char *key; u32 hash, count; };
struct table { struct entry **chains; u32 mask, entries; };

static u32 hash_of(const char *text)
{
        u32 hash = 2166136261;
        while (*text)
                hash = (hash ^ (u8)*text++) * 16777619;
        return hash;
}

static void table_init(struct table *table, u32 chains)
{
        table->chains = allocate(chains * sizeof *table->chains);
        memset(table->chains, 0, chains * sizeof *table->chains);
        table->mask = chains - 1;
        table->entries = 0;
}

static struct entry **find(const struct table *table, const char *key, u32 hash)
{
        struct entry **link = &table->chains[hash & table->mask];
        while (*link && ((*link)->hash != hash || compare((*link)->key, key)))
                link = &(*link)->next;
        return link;
}

static void grow(struct table *table)
{
        struct table old = *table;
        table_init(table, (old.mask + 1) * 2);
        for (u32 n = 0; n <= old.mask; n++)
                for (struct entry *entry = old.chains[n], *next; entry; entry = next) {
                        struct entry **chain = &table->chains[entry->hash & table->mask];
                        next = entry->next;
                        entry->next = *chain;
                        *chain = entry;
                }
        table->entries = old.entries;
        release(old.chains);
}

static void remove_entry(struct table *table, struct entry **link)
{
        struct entry *entry = *link;
        *link = entry->next;
        release(entry->key);
        release(entry);
        table->entries--;
}

u64 paths(u64 divide, u64 *left)
{
        static const char *const folders[] = {"bin", "doc", "include", "lib", "man", "share", "src", "test"};
        static const char *const endings[] = {".c", ".h", ".o", ".txt"};
        struct table table;
        u64 sum = 0;
        u32 steps = (u32)(20000 / divide);
        table_init(&table, 16);
        for (u32 step = 0; step < steps; step++) {
                char key[80], *at = append(key, "/usr/");
                struct entry **link;
                u32 hash;
                at = append(at, folders[choose(ARRAY_LENGTH(folders))]);
                at = append(at, "/");
                at = append(at, folders[choose(ARRAY_LENGTH(folders))]);
                at = append(at, "/file");
                at = append_number(at, choose(200));
                append(at, endings[choose(ARRAY_LENGTH(endings))]);
                hash = hash_of(key);
                link = find(&table, key, hash);
                if (!*link) {
                        struct entry *entry = allocate(sizeof *entry);
                        *entry = (struct entry){0, copy_of(key), hash, 1};
                        *link = entry;
                        if (++table.entries > table.mask)
                                grow(&table);
                } else if (++(*link)->count == 4) {
                        sum = sum * 31 + hash;
                        remove_entry(&table, link);
                }
        }
        *left += table.entries;
        for (u32 n = 0; n <= table.mask; n++)
                while (table.chains[n]) {
                        sum += table.chains[n]->hash * table.chains[n]->count;
                        remove_entry(&table, &table.chains[n]);
                }
        release(table.chains);
        return sum;
}

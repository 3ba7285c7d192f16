/* Address spaces: their tables, and what system calls do with them. Source: APM vol.2 §5.5 Translation-Lookaside Buffer. */
#include "paging.h"

#define NO_FLUSH (1ul << 63)    /* of CR3: keep what the TLB has for this PCID (§5.5.1 Process Context Identifiers) */
#define CR4_PGE (1 << 7)
#define CR4_PCIDE (1 << 17)

struct space *current;
int use_pcid, use_global;
struct counts counts;

static u64 *table_at(u64 *entry, int make)
{
        if (!*entry) {
                if (!make)
                        return 0;
                *entry = frame_take_zero() | PRESENT | WRITABLE | FOR_USER;
        }
        return (u64 *)(*entry & ADDRESS);
}

static u64 *walk(u64 *root, u64 address, int make)
{
        u64 *table = root;
        for (u32 shift = 39; shift > 12; shift -= 9)
                if (!(table = table_at(&table[address >> shift & 511], make)))
                        return 0;
        return &table[address >> 12 & 511];
}

u64 *entry_of(struct space *space, u64 address, int make) { return walk(space->root, address, make); }

struct area *area_of(struct space *space, u64 address)
{
        for (struct area *area = space->areas; area < space->areas + AREAS; area++)
                if (address >= area->start && address < area->start + area->pages * PAGE)
                        return area;
        return 0;
}

void changed(struct space *space, u64 address)
{
        if (space != current) {
                space->stale = 1;
                return;
        }
        counts.invlpg++;
        invlpg(address);
}

/* The kernel's own view of a frame; its pages are global where there are such, so no CR3 drops them. */
void map_window(u64 frame, u32 which)
{
        *walk(pml4, WINDOW + which * PAGE, 1) = frame | PRESENT | WRITABLE | (use_global ? GLOBAL : 0);
        counts.invlpg++;
        invlpg(WINDOW + which * PAGE);
}

void spaces_init(void)
{
        struct cpuid features = cpuid(1, 0);
        use_global = option("global", 1) && features.edx & 1 << 13;
        use_pcid = option("pcid", 1) && features.ecx & 1 << 17;
        map_window(0, 0);       /* all spaces share the tables from here on */
        if (use_global) {
                u64 *pointers = (u64 *)(pml4[0] & ADDRESS);
                for (u32 n = 0; n < 4; n++)
                        for (u64 *entry = (u64 *)(pointers[n] & ADDRESS), *end = entry + 512; entry < end; entry++)
                                *entry |= GLOBAL;
                write_cr4(read_cr4() | CR4_PGE);
        }
        if (use_pcid)
                write_cr4(read_cr4() | CR4_PCIDE);
}

void space_make(struct space *space, u32 pcid)
{
        space->root = (u64 *)frame_take_zero();
        space->root[0] = pml4[0];
        space->root[WINDOW >> 39] = pml4[WINDOW >> 39];
        space->areas[0] = (struct area){HEAP_START, HEAP_PAGES, 0, 1};
        space->areas[1] = (struct area){FILE_START, FILE_PAGES, 1, 1};
        space->areas[2] = (struct area){STACK_START, STACK_PAGES, 0, 1};
        space->areas[3] = (struct area){SPARE_START, 0, 0, 1};
        space->pcid = pcid;
        space->stale = 1;
}

void space_switch(struct space *space)
{
        u64 keep = use_pcid && !space->stale ? NO_FLUSH : 0;
        counts.switches++;
        space->stale = 0;
        current = space;
        write_cr3((u64)space->root | (use_pcid ? space->pcid : 0) | keep);
}

/* To the kernel's own tables. */
void space_leave(void)
{
        current = 0;
        write_cr3((u64)pml4);
}

/* Parent and child share all pages, and may write to none. */
void space_fork(struct space *parent, struct space *child, u32 pcid)
{
        counts.forks++;
        ensure_frames(all_spaces, space_count);
        space_make(child, pcid);
        memcpy(child->areas, parent->areas, sizeof child->areas);
        for (struct area *area = parent->areas; area < parent->areas + AREAS; area++)
                for (u64 n = 0; n < area->pages; n++) {
                        u64 address = area->start + n * PAGE, *from, *to;
                        ensure_frames(all_spaces, space_count);
                        from = entry_of(parent, address, 0);
                        if (!from || !*from)
                                continue;
                        to = entry_of(child, address, 1);
                        if (*from & SWAPPED) {
                                u64 frame = frame_take();
                                swap_in((u32)(*from >> 12), frame);
                                *from = frame | PRESENT | FOR_USER | PRIVATE;
                                counts.swapped_in++;
                        }
                        if (*from & DIRTY)
                                *from |= PRIVATE;
                        *from &= ~(WRITABLE | DIRTY);
                        *to = *from & ~ACCESSED;
                        frame_share(*from & ADDRESS);
                }
        space_switch(parent);   /* the TLB knows pages as writable */
        parent->stale = 1;
        space_switch(parent);
}

static void drop_entry(u64 *entry)
{
        if (*entry & PRESENT)
                frame_drop(*entry & ADDRESS);
        else if (*entry & SWAPPED)
                swap_drop((u32)(*entry >> 12));
        *entry = 0;
}

static void free_tables(u64 *table, u32 level)
{
        for (u32 n = 0; level > 1 && n < 512; n++)
                if (table[n])
                        free_tables((u64 *)(table[n] & ADDRESS), level - 1);
        frame_drop((u64)table);
}

void space_end(struct space *space)
{
        for (struct area *area = space->areas; area < space->areas + AREAS; area++)
                for (u64 n = 0; n < area->pages; n++) {
                        u64 *entry = entry_of(space, area->start + n * PAGE, 0);
                        if (entry)
                                drop_entry(entry);
                }
        if (space->root[USER >> 39])
                free_tables((u64 *)(space->root[USER >> 39] & ADDRESS), 3);
        frame_drop((u64)space->root);
}

void unmap(u64 start, u64 pages)
{
        for (u64 n = 0; n < pages; n++) {
                u64 *entry = entry_of(current, start + n * PAGE, 0);
                if (!entry || !*entry)
                        continue;
                drop_entry(entry);
                changed(current, start + n * PAGE);
        }
}

void move(u64 from, u64 to, u64 pages)
{
        for (u64 n = 0; n < pages; n++) {
                u64 *old = entry_of(current, from + n * PAGE, 1), *new = entry_of(current, to + n * PAGE, 1);
                *new = *old;
                *old = 0;
                changed(current, from + n * PAGE);
                counts.moved++;
        }
}

void protect(u64 start, u64 pages, int writable)
{
        area_of(current, start)->writable = writable;
        for (u64 n = 0; !writable && n < pages; n++) {
                u64 *entry = entry_of(current, start + n * PAGE, 0);
                if (!entry || !(*entry & WRITABLE))
                        continue;
                *entry &= ~WRITABLE;    /* the fault of a later write gives it back */
                changed(current, start + n * PAGE);
        }
}

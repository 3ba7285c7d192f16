/* Page faults: pages come when they are asked for, are copied when two have them, and go when there are too few. */
#include "paging.h"

#define ENOUGH 24       /* frames for the longest operation between two looks */

#define ERROR_PRESENT 1
#define ERROR_WRITE 2

static u64 zero_frame, recovery;
static u32 hand_space, hand_page;

/* The nth page of a space. */
static u64 page_of(const struct space *space, u64 n)
{
        for (const struct area *area = space->areas; area < space->areas + AREAS; area++) {
                if (n < area->pages)
                        return area->start + n * PAGE;
                n -= area->pages;
        }
        return 0;
}

static void evict(struct space *space, u64 address, u64 *entry)
{
        u64 frame = *entry & ADDRESS;
        if (area_of(space, address)->is_file && !(*entry & (DIRTY | PRIVATE))) {
                *entry = 0;
                counts.dropped++;
        } else {
                *entry = (u64)swap_out(frame) << 12 | SWAPPED;
                counts.swapped_out++;
        }
        changed(space, address);
        frame_drop(frame);
}

/* The clock's hand goes over all pages: what was used since it came by last stays, and what is shared. */
void ensure_frames(struct space *spaces[], u32 n)
{
        while (frames_free() < ENOUGH) {
                struct space *space = spaces[hand_space % n];
                u64 address = page_of(space, hand_page), *entry;
                if (!address) {
                        hand_space = (hand_space + 1) % n;
                        hand_page = 0;
                        continue;
                }
                hand_page++;
                entry = entry_of(space, address, 0);
                if (!entry || !(*entry & PRESENT) || frame_users(*entry & ADDRESS) > 1)
                        continue;
                if (*entry & ACCESSED) {
                        *entry &= ~ACCESSED;
                        changed(space, address);
                } else {
                        evict(space, address, entry);
                }
        }
}

static void missing(const struct area *area, u64 address, u64 *entry, int write)
{
        u64 frame, allowed = PRESENT | FOR_USER | (area->writable ? WRITABLE : 0);
        if (*entry & SWAPPED) {
                frame = frame_take();
                swap_in((u32)(*entry >> 12), frame);
                *entry = frame | allowed | PRIVATE;
                counts.swapped_in++;
        } else if (area->is_file) {
                frame = frame_take();
                copy_frame(frame, file_page((address - area->start) / PAGE));
                *entry = frame | allowed;
                counts.from_file++;
        } else if (write) {
                *entry = frame_take_zero() | allowed;
                counts.zero++;
        } else {
                frame_share(zero_frame);
                *entry = zero_frame | PRESENT | FOR_USER;
                counts.zero_shared++;
        }
}

/* A write to a page that is present, in an area that may be written. */
static void make_writable(u64 *entry)
{
        u64 old = *entry & ADDRESS, frame;
        if (frame_users(old) == 1) {
                *entry |= WRITABLE;
                counts.reused++;
                return;
        }
        frame = frame_take();
        copy_frame(frame, (const void *)old);
        frame_drop(old);
        *entry = frame | PRESENT | WRITABLE | FOR_USER | PRIVATE;
        counts.copied++;
}

/* The fault says what the tables do not: the TLB is wrong. */
static int contradicts(const u64 *entry, u64 error)
{
        if (!entry || !(*entry & PRESENT))
                return (error & ERROR_PRESENT) != 0;
        return !(error & ERROR_PRESENT) || !(error & ERROR_WRITE) || *entry & WRITABLE;
}

static void page_fault(struct trap_frame *frame)
{
        u64 address = read_cr2() & ~(PAGE - 1), *entry;
        const struct area *area = area_of(current, address);
        int write = (frame->error & ERROR_WRITE) != 0;
        if (!area || (write && !area->writable)) {
                if (!recovery) {
                        print("FAIL page fault at %x, error %x, rip %x\n", read_cr2(), frame->error, frame->rip);
                        guest_exit(20);
                }
                counts.refused++;
                frame->rip = recovery;
                return;
        }
        entry = entry_of(current, address, 0);
        if (contradicts(entry, frame->error))
                guest_exit(21);
        ensure_frames(all_spaces, space_count); /* this page may be evicted now */
        entry = entry_of(current, address, 1);
        if (!(*entry & PRESENT)) {
                missing(area, address, entry, write);
        } else if (write && !(*entry & WRITABLE)) {
                make_writable(entry);
                changed(current, address);
        }
}

int refuses(u64 address, int write)
{
        u32 refused = 1;
        u64 value;
        if (write)
                __asm__ volatile("movq $1f, %1\n\tmovq (%2), %3\n\tmovq %3, (%2)\n\txorl %0, %0\n1:"
                                 : "+&r"(refused), "=m"(recovery), "+r"(address), "=&r"(value)::"memory", "cc");
        else
                __asm__ volatile("movq $1f, %1\n\tmovq (%2), %3\n\txorl %0, %0\n1:"
                                 : "+&r"(refused), "=m"(recovery), "+r"(address), "=&r"(value)::"memory", "cc");
        recovery = 0;
        return (int)refused;
}

void faults_init(void)
{
        zero_frame = frame_take_zero();
        trap_set(14, page_fault);
}

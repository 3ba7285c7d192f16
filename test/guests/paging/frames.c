/* Physical pages by a list of free ones that goes through them, and the slots that pages are evicted to. */
#include "paging.h"

#define SLOTS 1024

static u8 pool[FRAMES][PAGE] PAGE_ALIGNED, slots[SLOTS][PAGE] PAGE_ALIGNED;
static u16 users[FRAMES], next_free_slot[SLOTS];
static u64 *free_frames, free_count;
static u32 free_slot, used_slots;

static u32 number_of(u64 frame) { return (u32)((frame - (u64)pool) / PAGE); }

void frames_init(u64 count)
{
        if (count > FRAMES)
                guest_exit(12);
        for (u64 n = count; n; n--) {
                *(u64 **)pool[n - 1] = free_frames;
                free_frames = (u64 *)pool[n - 1];
        }
        free_count = count;
        for (u32 n = 0; n < SLOTS; n++)
                next_free_slot[n] = (u16)(n + 1);
}

u64 frame_take(void)
{
        u64 *frame = free_frames;
        if (!frame)
                guest_exit(10);
        free_frames = *(u64 **)frame;
        free_count--;
        users[number_of((u64)frame)] = 1;
        return (u64)frame;
}

u64 frame_take_zero(void)
{
        u64 frame = frame_take(), *at = (u64 *)frame, words = PAGE_WORDS;
        __asm__ volatile("rep stosq" : "+D"(at), "+c"(words) : "a"(0ul) : "memory");
        return frame;
}

void frame_share(u64 frame) { users[number_of(frame)]++; }

void frame_drop(u64 frame)
{
        if (--users[number_of(frame)])
                return;
        *(u64 **)frame = free_frames;
        free_frames = (u64 *)frame;
        free_count++;
}

u32 frame_users(u64 frame) { return users[number_of(frame)]; }
u64 frames_free(void) { return free_count; }
u32 slots_used(void) { return used_slots; }

static void copy_words(void *to, const void *from)
{
        u64 words = PAGE_WORDS;
        __asm__ volatile("rep movsq" : "+D"(to), "+S"(from), "+c"(words)::"memory");
}

void copy_frame(u64 to, const void *from)
{
        map_window(to, 0);
        copy_words((void *)WINDOW, from);
}

/* Lines of 64 bytes with their numbers. */
const u8 *file_page(u64 page)
{
        static u8 file[FILE_PAGES][PAGE] PAGE_ALIGNED;
        static const char line[] = "the kernel keeps one page for each that needs it, line 0000000.\n";
        u8 *at = file[page];
        if (*at)
                return at;
        for (u64 n = page * 64; n < (page + 1) * 64; n++, at += 64) {
                memcpy(at, line, 64);
                for (u64 digit = 61, left = n; left; digit--, left /= 10)
                        at[digit] = (u8)('0' + left % 10);
        }
        return file[page];
}

u32 swap_out(u64 frame)
{
        u32 slot = free_slot;
        if (slot == SLOTS)
                guest_exit(11);
        free_slot = next_free_slot[slot];
        used_slots++;
        map_window(frame, 1);
        copy_words(slots[slot], (const void *)(WINDOW + PAGE));
        return slot;
}

void swap_drop(u32 slot)
{
        next_free_slot[slot] = (u16)free_slot;
        free_slot = slot;
        used_slots--;
}

void swap_in(u32 slot, u64 frame)
{
        copy_frame(frame, slots[slot]);
        swap_drop(slot);
}

/* What the parts of the guest `paging` share: frames, address spaces, what processes do in them. */
#ifndef PAGING_H
#define PAGING_H

#include "../lib/guest.h"

#define PAGE 4096ul
#define PAGE_WORDS 512

/* Linear addresses: the kernel has the first 512 GiB, as it is; each process the next; then a window of the kernel. */
#define USER (1ul << 39)
#define HEAP_START USER
#define HEAP_PAGES 48
#define FILE_START (USER + (1ul << 30))
#define FILE_PAGES 32
#define STACK_START (USER + (2ul << 30))
#define STACK_PAGES 16
#define SPARE_START (USER + (3ul << 30))        /* where heap pages are moved for a while */
#define SPARE_PAGES 4
#define WINDOW (2ul << 39)

#define PRESENT 1ul
#define WRITABLE 2ul
#define FOR_USER 4ul
#define ACCESSED (1ul << 5)
#define DIRTY (1ul << 6)
#define LARGE (1ul << 7)
#define GLOBAL (1ul << 8)
/* of the software: */
#define SWAPPED (1ul << 9)      /* not present: in the slot that the address tells */
#define PRIVATE (1ul << 10)     /* not to be had from the file again */
#define ADDRESS 0x000ffffffffff000ul

struct area { u64 start, pages; int is_file, writable; };
#define AREAS 4
struct space {
        u64 *root;
        struct area areas[AREAS];
        u32 pcid;
        int stale;              /* the TLB may hold what its tables no longer say */
};

extern struct space *current;
extern int use_pcid, use_global;
struct counts { u64 zero, zero_shared, from_file, copied, reused, swapped_in, swapped_out, dropped, refused, invlpg, switches, forks, moved; };
extern struct counts counts;

/* frames.c: physical pages with counts of their users */
#define FRAMES 560
void frames_init(u64 count);
const u8 *file_page(u64 page);          /* of the file, which comes when it is first asked for */
u64 frame_take(void);                   /* its address; the content is what it was */
u64 frame_take_zero(void);
void frame_share(u64 frame);
void frame_drop(u64 frame);
u32 frame_users(u64 frame);
u64 frames_free(void);
u32 slots_used(void);
u32 swap_out(u64 frame);                /* the slot that has its content now */
void swap_in(u32 slot, u64 frame);      /* and the slot is free */
void swap_drop(u32 slot);
void copy_frame(u64 to, const void *from);      /* through the window */

/* spaces.c */
void spaces_init(void);
void space_make(struct space *space, u32 pcid);
void space_fork(struct space *parent, struct space *child, u32 pcid);
void space_end(struct space *space);
void space_switch(struct space *space);
void space_leave(void);
u64 *entry_of(struct space *space, u64 address, int make);      /* 0 when there is no table and none shall be made */
struct area *area_of(struct space *space, u64 address);
void changed(struct space *space, u64 address); /* an entry that may be in the TLB */
void unmap(u64 start, u64 pages);
void move(u64 from, u64 to, u64 pages);
void protect(u64 start, u64 pages, int writable);
void map_window(u64 frame, u32 which);

/* fault.c */
void faults_init(void);
void ensure_frames(struct space *spaces[], u32 n);      /* evicts until some are free */
extern struct space *all_spaces[];
extern u32 space_count;
int refuses(u64 address, int write);    /* tries an access: 1 when the page fault says no */

#endif

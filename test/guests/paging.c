/*
 * paging: a kernel's work with page tables. Processes in address spaces of their own take turns; pages come by page fault
 * (zeros, a file, what was evicted), are shared after fork and copied when written, evicted by the accessed and dirty
 * bits, moved, protected, unmapped. INVLPG, CR3, PCIDs and global pages where CPUID offers them.
 * What a process finds in its memory depends on none of that: the sums are computed by plain arrays in paging.test.ts.
 * Options: scale=N (1), how often all of it runs; divide=N (1), the Nth part of the turns; processes=N (8);
 * frames=N (560), pages of memory that they have together; pcid=0, global=0: without.
 */
#include "paging/paging.h"

#define PROCESSES 8
#define TURNS 3000

struct process { struct space space; u64 id, sum, turn; };
static struct process processes[PROCESSES];
struct space *all_spaces[PROCESSES];
u32 space_count;
static u64 process_count;
static u64 next_id;

#define HEAP ((volatile u64 *)HEAP_START)
#define BYTES ((volatile u8 *)FILE_START)
#define STACK ((volatile u64 *)STACK_START)

static void start(struct process *process)
{
        ensure_frames(all_spaces, space_count);
        process->id = ++next_id;
        process->sum = process->turn = 0;
        space_make(&process->space, (u32)(process - processes) + 1);
}

static void add(struct process *process, u64 value) { process->sum = process->sum * 31 + value; }

/* What a program does: counters all over its heap, records one after the other, text, a deep stack. */
static void work(struct process *process)
{
        u64 turn = process->turn, id = process->id, letters = 0, depth = (turn * 7 + id) % 60;
        for (u64 k = 0; k < 32; k++) {
                u64 index = (id * 37 + turn * 101 + k * 1801) % (HEAP_PAGES * PAGE_WORDS);
                HEAP[index] += turn + k;
                add(process, HEAP[index]);
        }
        for (u64 n = 0; n < 4; n++)
                for (u64 word = 0, page = (turn * 4 + n) % HEAP_PAGES; word < 32; word++)
                        HEAP[page * PAGE_WORDS + word] += word * id;
        for (u64 n = 0, page = (turn + id) % FILE_PAGES; n < 256; n++)
                letters += BYTES[page * PAGE + n] == 'e';
        add(process, letters);
        if (turn % 4 == 0)
                BYTES[(turn * 5 + id) % FILE_PAGES * PAGE + turn % 256] = 'e';
        for (u64 n = 0; n < depth; n++)
                if (n % 2)
                        STACK[STACK_PAGES * PAGE_WORDS - 1 - n * 128] += id + n;
                else
                        STACK[STACK_PAGES * PAGE_WORDS - 1 - n * 128] = turn + n;
        for (u64 n = depth; n--;)
                add(process, STACK[STACK_PAGES * PAGE_WORDS - 1 - n * 128]);
}

/* What a program asks of the kernel. */
static void calls(struct process *process)
{
        u64 turn = process->turn, id = process->id, page = (turn + id * 5) % (HEAP_PAGES - SPARE_PAGES), from = HEAP_START + page * PAGE;
        struct area *areas = process->space.areas;
        if (turn % 8 == 7)
                unmap(STACK_START, STACK_PAGES);
        if (turn % 16 == 5) {
                areas[3].pages = SPARE_PAGES;
                move(from, SPARE_START, SPARE_PAGES);
                areas[0].pages = 0;
                add(process, ((volatile u64 *)SPARE_START)[turn % PAGE_WORDS] + (u64)refuses(from, 0));
                ((volatile u64 *)SPARE_START)[PAGE_WORDS + turn % PAGE_WORDS] += 3;
                areas[0].pages = HEAP_PAGES;
                move(SPARE_START, from, SPARE_PAGES);
                areas[3].pages = 0;
                add(process, (u64)refuses(SPARE_START, 0));
        }
        if (turn % 16 == 9) {
                protect(HEAP_START, HEAP_PAGES, 0);
                add(process, HEAP[page * PAGE_WORDS] + (u64)refuses(from, 1));
                protect(HEAP_START, HEAP_PAGES, 1);
                add(process, (u64)refuses(from, 1));
        }
}

/* Now and then a process forks, in place of another one; or it ends, and a new one begins. */
static void life(struct process *process)
{
        struct process *other = &processes[(process - processes + process->id) % process_count];
        if (process->turn % 64 == 20 && other != process) {
                space_end(&other->space);
                other->space.areas[0].pages = other->space.areas[1].pages = other->space.areas[2].pages = 0;
                space_fork(&process->space, &other->space, (u32)(other - processes) + 1);
                other->sum = process->sum;
                other->turn = process->turn + 1;
                other->id = ++next_id;
        } else if (process->turn % 256 == 200) {
                space_leave();
                space_end(&process->space);
                start(process);
        }
}

int guest_main(void)
{
        u64 scale = option("scale", 1), turns = TURNS / option("divide", 1), sum = 0, alive = 0;
        process_count = option("processes", PROCESSES);
        if (!process_count || process_count > PROCESSES)
                return 1;
        frames_init(option("frames", FRAMES));
        spaces_init();
        faults_init();
        for (u64 round = 0; round < scale; round++) {
                next_id = 0;
                for (space_count = 0; space_count < process_count; space_count++) {
                        all_spaces[space_count] = &processes[space_count].space;
                        start(&processes[space_count]);
                }
                for (u64 turn = 0; turn < turns; turn++) {
                        struct process *process = &processes[turn * 3 % process_count];
                        space_switch(&process->space);
                        work(process);
                        calls(process);
                        process->turn++;
                        life(process);
                }
                space_leave();
                alive = frames_free();
                for (u32 n = 0; n < process_count; n++) {
                        sum = sum * 31 + processes[n].sum;
                        space_end(&processes[n].space);
                }
                space_count = 0;
                if (slots_used())
                        return 2;
        }
        print("sum %x, processes %u\n", sum, next_id);
        print("free frames %u, then %u\n", alive, frames_free());
        print("faults: zeros %u, shared zeros %u, of the file %u, copied %u, reused %u, swapped in %u, refused %u\n", counts.zero,
              counts.zero_shared, counts.from_file, counts.copied, counts.reused, counts.swapped_in, counts.refused);
        print("evicted %u, dropped %u, moved %u, forks %u, switches %u, invlpg %u\n", counts.swapped_out, counts.dropped, counts.moved,
              counts.forks, counts.switches, counts.invlpg);
        return 0;
}

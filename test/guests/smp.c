/*
 * smp: several processors. The bootstrap processor starts the others by INIT and two start-up interrupts; then all of
 * them count under LOCK and under a spinlock, get interrupts from each other, see page tables change after a shootdown,
 * sleep in HLT and MWAIT until they are woken, and each runs an L2 of its own.
 * Proves: INIT/SIPI, IPIs to one and to all others, locked instructions, TLB shootdown, MONITOR and MWAIT, SVM state
 * for each processor.
 * Options: cpus=N (as many as CPUID says), rounds=N (200), work=N (0): iterations of a loop that each processor runs at
 * the end, for benches.
 */
#include "smp.h"
#include "lib/svm.h"

#define STARTUP_VECTOR 0x8
#define APIC(offset) (*(volatile u32 *)(0xfee00000ul + (offset)))
#define APIC_ID 0x20
#define APIC_EOI 0xb0
#define APIC_SPURIOUS 0xf0
#define APIC_ICR 0x300
#define APIC_ICR_HIGH 0x310
#define ICR_INIT 0x4500
#define ICR_STARTUP 0x4600
#define ICR_FIXED 0x4000
#define ICR_PENDING (1 << 12)
#define ICR_OTHERS (3 << 18)
#define COUNT_VECTOR 0x38
#define SHOOTDOWN_VECTOR 0x39
#define WAKE_VECTOR 0x3a
#define CPUID_MONITOR (1 << 3)        /* ECX */
#define CPUID_HTT (1 << 28)           /* EDX: EBX[23:16] counts processors */

extern char startup[], startup_end[], l2_entry[];
u64 world_switches(void *vmcb, u64 n, u64 *l2_counter);

char stacks[MAX_PROCESSORS * STACK_BYTES] __attribute__((aligned(16)));
u32 processors_started = 1;     /* the bootstrap processor has number 0 */
struct table_pointer idt_pointer;

static u64 processors, rounds, work;
static u8 apic_ids[MAX_PROCESSORS], vmcbs[MAX_PROCESSORS][4096] PAGE_ALIGNED, l2_stacks[MAX_PROCESSORS][1024];
static u8 save_areas[MAX_PROCESSORS][4096] PAGE_ALIGNED;
static volatile u64 arrived, phase, locked_count, guarded_count, lock;
static volatile u64 interrupts[MAX_PROCESSORS], wakes[MAX_PROCESSORS], shootdowns, wrong;
static volatile u64 line[8] __attribute__((aligned(64)));
static u64 windows[2][512] PAGE_ALIGNED;
static volatile u64 pages[2][512] PAGE_ALIGNED;
static u64 sums[MAX_PROCESSORS];

static inline void pause(void) { __asm__ volatile("pause" ::: "memory"); }
static inline void add(volatile u64 *counter, u64 n) { __asm__ volatile("lock addq %1, %0" : "+m"(*counter) : "r"(n) : "memory"); }
static inline u64 exchange(volatile u64 *at, u64 value)
{
        __asm__ volatile("xchgq %0, %1" : "+r"(value), "+m"(*at)::"memory");
        return value;
}

static u64 number(void)
{
        u8 id = (u8)(APIC(APIC_ID) >> 24);
        for (u64 n = 0; n < processors; n++)
                if (apic_ids[n] == id)
                        return n;
        return 0;
}

static void send(u64 processor, u32 command)
{
        APIC(APIC_ICR_HIGH) = (u32)apic_ids[processor] << 24;
        APIC(APIC_ICR) = command;
        while (APIC(APIC_ICR) & ICR_PENDING)
                pause();
}

/* Everyone waits until everyone has come. */
static void meet(void)
{
        u64 now = phase;
        add(&arrived, 1);
        if (arrived == processors) {
                arrived = 0;
                phase = now + 1;
        }
        while (phase == now)
                pause();
}

static void on_count(struct trap_frame *frame)
{
        (void)frame;
        interrupts[number()]++;
        APIC(APIC_EOI) = 0;
}

static void on_wake(struct trap_frame *frame)
{
        (void)frame;
        wakes[number()]++;
        APIC(APIC_EOI) = 0;
}

/* The page at the window that both tables of the guest share. */
#define WINDOW 0x40000000ul
static void on_shootdown(struct trap_frame *frame)
{
        (void)frame;
        invlpg(WINDOW);
        add(&shootdowns, 1);
        APIC(APIC_EOI) = 0;
}

static void count(u64 me)
{
        for (u64 n = 0; n < rounds; n++) {
                add(&locked_count, 1);
                while (exchange(&lock, 1))
                        pause();
                guarded_count++;
                exchange(&lock, 0);
        }
        if (me == 0)
                print("ok   processors started: %u\n", (u64)processors_started);
}

/* Each sends to the next one, which must have had them all in the end. */
static void interrupt_next(u64 me)
{
        sti();
        meet();
        for (u64 n = 0; n < rounds; n++) {
                u64 next = (me + 1) % processors, before = interrupts[next];
                send(next, ICR_FIXED | COUNT_VECTOR);
                while (interrupts[next] == before)
                        pause();
        }
        meet();
        cli();
}

/* The first processor turns the window to the other page and tells the others; then all must read the new one. */
static void shoot_down(u64 me)
{
        sti();
        meet();
        for (u64 n = 0; n < rounds; n++) {
                if (me == 0) {
                        windows[1][0] = (u64)pages[(n + 1) & 1] | 3;
                        invlpg(WINDOW);
                        shootdowns = 0;
                        APIC(APIC_ICR) = ICR_OTHERS | ICR_FIXED | SHOOTDOWN_VECTOR;
                        while (shootdowns != processors - 1)
                                pause();
                }
                meet();
                if (*(volatile u64 *)WINDOW != pages[(n + 1) & 1][0])
                        add(&wrong, 1);
                meet();
        }
        cli();
}

/* All but the first halt; the first wakes them, one after the other. */
static void wake_from_halt(u64 me)
{
        meet();
        if (me == 0) {
                for (u64 n = 1; n < processors; n++)
                        send(n, ICR_FIXED | WAKE_VECTOR);
        } else {
                while (wakes[me] == 0)
                        wait_for_interrupt();
        }
        meet();
}

static void wake_by_store(u64 me)
{
        meet();
        if (me == 0) {
                line[0] = 1;
        } else {
                while (line[0] == 0) {
                        __asm__ volatile("monitor" ::"a"(line), "c"(0), "d"(0) : "memory");
                        if (line[0] == 0)
                                __asm__ volatile("mwait" ::"a"(0), "c"(0) : "memory");
                }
        }
        meet();
}

static void run_guest(u64 me)
{
        u64 counted;
        wrmsr(MSR_EFER, rdmsr(MSR_EFER) | EFER_SVME);
        wrmsr(MSR_VM_HSAVE_PA, (u64)save_areas[me]);
        vmcb_long_mode(vmcbs[me], l2_entry, l2_stacks[me] + sizeof l2_stacks[me], read_cr3());
        VMCB32(vmcbs[me], INTERCEPT_3) = 1 << INTERCEPT3_CPUID;
        VMCB32(vmcbs[me], INTERCEPT_4) |= 1 << INTERCEPT4_VMMCALL;
        VMCB32(vmcbs[me], GUEST_ASID) = (u32)(1 + me % 8);
        if (world_switches(vmcbs[me], rounds, &counted) != rounds || counted != rounds)
                add(&wrong, 1);
}

static void compute(u64 me)
{
        u64 sum = me;
        for (u64 n = 0; n < work; n++)
                sum = (sum ^ n) * 0x9e3779b97f4a7c15ul + (sum >> 29);
        sums[me] = sum;
}

static u64 failures;
static void report(const char *what, int passed)
{
        print(passed ? "ok   %s\n" : "FAIL %s\n", what);
        if (!passed)
                failures++;
}

static void run(u64 me)
{
        int has_monitor = cpuid(1, 0).ecx & CPUID_MONITOR, has_svm = cpuid(0x80000001, 0).ecx & 1 << 2;
        u64 interrupted = 1, woken = 1;
        APIC(APIC_SPURIOUS) = 0x1ff;
        meet();
        count(me);
        meet();
        if (me == 0) {
                report("locked additions", locked_count == processors * rounds);
                report("additions under a spinlock", guarded_count == processors * rounds);
        }
        interrupt_next(me);
        if (me == 0) {
                for (u64 n = 0; n < processors; n++)
                        interrupted &= interrupts[n] == rounds;
                report("interrupts from each to the next", (int)interrupted);
        }
        shoot_down(me);
        if (me == 0)
                report("page tables after a shootdown", wrong == 0);
        wake_from_halt(me);
        if (me == 0) {
                for (u64 n = 1; n < processors; n++)
                        woken &= wakes[n] == 1;
                report("HLT until an interrupt", (int)woken);
        }
        if (has_monitor)
                wake_by_store(me);
        if (me == 0)
                print(has_monitor ? "ok   %s\n" : "skip %s\n", "MWAIT until a store");
        meet();
        if (has_svm)
                run_guest(me);
        meet();
        if (me == 0) {
                if (has_svm)
                        report("an L2 on each", wrong == 0);
                else
                        print("skip an L2 on each\n");
        }
        compute(me);
        meet();
}

void processor_main(u64 me)
{
        apic_ids[me] = (u8)(APIC(APIC_ID) >> 24);
        add(&arrived, 1);
        while (phase == 0)
                pause();
        run(me);
}

static void prepare_window(void)
{
        u64 *pdpt = (u64 *)(pml4[0] & ~0xffful), *directory = (u64 *)(pdpt[WINDOW >> 30] & ~0xffful);
        pages[0][0] = 1;
        pages[1][0] = 2;
        windows[1][0] = (u64)pages[0] | 3;
        directory[0] = (u64)windows[1] | 3;
        invlpg(WINDOW);
}

int guest_main(void)
{
        processors = option("cpus", cpuid(1, 0).edx & CPUID_HTT ? cpuid(1, 0).ebx >> 16 & 0xff : 1);
        rounds = option("rounds", 200);
        work = option("work", 0);
        if (processors == 0 || processors > MAX_PROCESSORS)
                return 1;
        __asm__ volatile("sidt %0" : "=m"(idt_pointer));
        out8(0x21, 0xff);       /* the 8259 pair stays silent */
        out8(0xa1, 0xff);
        trap_set(COUNT_VECTOR, on_count);
        trap_set(SHOOTDOWN_VECTOR, on_shootdown);
        trap_set(WAKE_VECTOR, on_wake);
        npt_identity();
        prepare_window();
        memcpy((void *)((u64)STARTUP_VECTOR << 12), startup, (u64)(startup_end - startup));
        apic_ids[0] = (u8)(APIC(APIC_ID) >> 24);
        APIC(APIC_SPURIOUS) = 0x1ff;
        APIC(APIC_ICR) = ICR_OTHERS | ICR_INIT;
        APIC(APIC_ICR) = ICR_OTHERS | ICR_STARTUP | STARTUP_VECTOR;
        APIC(APIC_ICR) = ICR_OTHERS | ICR_STARTUP | STARTUP_VECTOR;
        while (processors_started != processors)
                pause();
        while (arrived != processors - 1)
                pause();
        arrived = 0;
        phase = 1;
        run(0);
        if (work != 0)
                print("sums of the loop: %x first, %x last\n", sums[0], sums[processors - 1]);
        return failures == 0 ? 0 : 2;
}

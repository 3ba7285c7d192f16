/*
 * paravirt: the interface of KVM, as a kernel and as a hypervisor meet it.
 * Proves: CPUID leaves, kvmclock and wall clock, steal time, the end of interrupts by memory, hypercalls, and pages that
 * are absent: told by #PF and interrupt, waited for with interrupts on and off, and all of this while L2 runs.
 * The host must do what test/guests/README.md says. Without the interface it says so and succeeds.
 */
#include "lib/svm.h"

#define MSR_WALL_CLOCK 0x4b564d00
#define MSR_SYSTEM_TIME 0x4b564d01
#define MSR_ASYNC_PF_EN 0x4b564d02
#define MSR_STEAL_TIME 0x4b564d03
#define MSR_EOI_EN 0x4b564d04
#define MSR_ASYNC_PF_INT 0x4b564d06
#define MSR_ASYNC_PF_ACK 0x4b564d07

#define ASYNC_PF_ENABLED 1
#define ASYNC_PF_SEND_ALWAYS 2
#define ASYNC_PF_AS_VMEXIT 4
#define ASYNC_PF_AS_INTERRUPT 8
#define EVERY_PAGE 0xffffffff

#define APIC(offset) (*(volatile u32 *)(0xfee00000ul + (offset)))
#define APIC_EOI 0xb0
#define APIC_SPURIOUS 0xf0
#define APIC_IN_SERVICE 0x100
#define APIC_TIMER 0x320
#define APIC_LINT0 0x350
#define APIC_INITIAL_COUNT 0x380
#define APIC_DIVIDE 0x3e0
#define VECTOR_READY 0x30
#define VECTOR_CALL 0x31
#define VECTOR_TIMER 0x38
#define EXIT_PF 0x4e

/* Here the host takes pages away; each takes 50 us to come back. */
#define ABSENT 0x2000000ul
#define LATENCY 50000
#define SHORTER 20000

static volatile struct { u32 version, pad0; u64 tsc, time; u32 mul; signed char shift; u8 flags; } clock __attribute__((aligned(64)));
static volatile struct { u32 version, seconds, nanoseconds; } wall_clock;
static volatile struct { u64 steal; u32 version, flags; u8 preempted; u8 pad[47]; } steal_time __attribute__((aligned(64)));
static volatile struct { u32 flags, token, pad[14]; } page_events __attribute__((aligned(64)));
static struct { u64 seconds, nanoseconds, tsc; u32 flags, pad[9]; } pairing __attribute__((aligned(64)));
static volatile u32 eoi_word;
static volatile u64 calls, shortcuts, ticks, faults, ready, tick_rip;
static volatile u32 last_token, ready_token;
static u8 vmcb[4096] PAGE_ALIGNED, l2_stack[4096] PAGE_ALIGNED;
static struct l2_registers regs;
extern char l2_entry[];

static void check(int condition, u32 value, const char *what)
{
        print("%s %s\n", condition ? "ok  " : "FAIL", what);
        if (!condition)
                guest_exit(value);
}

static i64 hypercall(u64 number, u64 a0, u64 a1, u64 a2, u64 a3)
{
        i64 result;
        __asm__ volatile("vmmcall" : "=a"(result) : "a"(number), "b"(a0), "c"(a1), "d"(a2), "S"(a3) : "memory");
        return result;
}

/* As Linux has it before it knows the vendor; KVM mends it. */
static __attribute__((noinline)) i64 other_vendors_hypercall(u64 number)
{
        i64 result;
        __asm__ volatile("vmcall" : "=a"(result) : "a"(number), "b"(0), "c"(0), "d"(0), "S"(0) : "memory");
        return result;
}

static u64 rdtsc(void)
{
        u32 low, high;
        __asm__ volatile("rdtsc" : "=a"(low), "=d"(high));
        return (u64)high << 32 | low;
}

static u64 now(void)
{
        u64 ticks_since = rdtsc() - clock.tsc;
        ticks_since = clock.shift < 0 ? ticks_since >> -clock.shift : ticks_since << clock.shift;
        return clock.time + (u64)((unsigned __int128)ticks_since * clock.mul >> 32);
}

static int in_service(u32 vector) { return APIC(APIC_IN_SERVICE + vector / 32 * 0x10) >> vector % 32 & 1; }

/* What the handler of a paravirtualized kernel does: the APIC only where the bit is clear. */
static void end_of_interrupt(void)
{
        u8 was_set;
        __asm__ volatile("btrl $0, %0; setc %1" : "+m"(eoi_word), "=r"(was_set)::"memory");
        if (was_set)
                shortcuts++;
        else
                APIC(APIC_EOI) = 0;
}

static void on_call(struct trap_frame *frame)
{
        (void)frame;
        calls++;
        end_of_interrupt();
}

static void on_timer(struct trap_frame *frame)
{
        ticks++;
        tick_rip = frame->rip;
        APIC(APIC_EOI) = 0;
}

static void on_ready(struct trap_frame *frame)
{
        (void)frame;
        ready_token = page_events.token;
        ready++;
        page_events.token = 0;
        wrmsr(MSR_ASYNC_PF_ACK, 1);
        APIC(APIC_EOI) = 0;
}

static void await(u32 token)
{
        while (ready_token != token)
                wait_for_interrupt();
}

static void on_fault(struct trap_frame *frame)
{
        if (page_events.flags != 1 || frame->error)
                check(0, 20, "a page fault that is none of the host's");
        faults++;
        last_token = (u32)read_cr2();
        page_events.flags = 0;
        await(last_token);
}

static __attribute__((noinline, noclone)) u8 touch(u64 page)
{
        u8 value;
        __asm__ volatile("touching: movb (%1), %0" : "=r"(value) : "r"(ABSENT + page * 4096) : "memory");
        return value;
}
extern char touching[];

static void leaves(void)
{
        struct cpuid features = cpuid(0x40000001, 0);
        print("KVM features %8x, hints %x\n", features.eax, features.edx);
        check(cpuid(0x40000000, 0).eax == 0x40000001, 1, "highest leaf");
}

static void clocks(void)
{
        u32 version;
        u64 before, between, after;
        wrmsr(MSR_WALL_CLOCK, (u64)&wall_clock);
        print("wall clock %u s, %u ns, version %u\n", wall_clock.seconds, wall_clock.nanoseconds, wall_clock.version);
        wrmsr(MSR_SYSTEM_TIME, (u64)&clock | 1);
        print("clock mul %x, shift %u, flags %u, version %u\n", clock.mul, (u64)clock.shift, clock.flags, clock.version);
        before = rdtsc();
        between = now();
        after = rdtsc();
        check(before < between && between < after, 2, "system time is that of the TSC");
        version = clock.version;
        while (clock.version == version)        /* the host pauses */
                ;
        check(clock.flags == 3 && clock.version == version + 2, 3, "the guest was paused");
        clock.flags = 1;
        before = now();
        check(hypercall(9, (u64)&pairing, 0, 0, 0) == 0, 4, "clock pairing");
        check(pairing.seconds == wall_clock.seconds && before < pairing.nanoseconds && pairing.nanoseconds < now(), 5,
              "both clocks agree");
        wrmsr(MSR_STEAL_TIME, (u64)&steal_time | 1);
        print("stolen %u ns, version %u\n", steal_time.steal, steal_time.version);
}

static void interrupts(void)
{
        wrmsr(MSR_EOI_EN, (u64)&eoi_word | 1);
        for (int n = 0; n < 3; n++) {
                check(hypercall(10, 1, 0, 0, VECTOR_CALL) == 1, 6, "IPI by hypercall");
                sti();
                __asm__ volatile("nop");
                cli();
        }
        check(calls == 3 && shortcuts == 3 && !in_service(VECTOR_CALL), 7, "three interrupts ended by memory");
        wrmsr(MSR_EOI_EN, 0);
        check(hypercall(5, 0, 0, 0, 0) == 0, 8, "a kick");
        __asm__ volatile("hlt");        /* would be for ever: interrupts are off */
        check(1, 9, "ended HLT");
        print("unknown hypercall %d, VMCALL %d\n", -hypercall(77, 0, 0, 0, 0), -other_vendors_hypercall(77));
}

static void take_pages(u64 how)
{
        ready_token = 0;
        wrmsr(MSR_ASYNC_PF_EN, (u64)&page_events | ASYNC_PF_ENABLED | ASYNC_PF_AS_INTERRUPT | how);
        await(EVERY_PAGE);
}

static void pages(void)
{
        u64 start;
        wrmsr(MSR_ASYNC_PF_INT, VECTOR_READY);
        take_pages(ASYNC_PF_SEND_ALWAYS);
        sti();
        for (u64 page = 0; page < 4; page++)
                touch(page);
        cli();
        print("pages missed %u, ready %u, last token %x\n", faults, ready, last_token);

        start = now();
        touch(4);
        check(now() - start >= LATENCY && faults == 4, 11, "interrupts off: waits for the page");

        take_pages(0);
        start = now();
        APIC(APIC_INITIAL_COUNT) = SHORTER;
        sti();
        touch(5);
        cli();
        check(now() - start >= LATENCY && faults == 4, 12, "not told in the kernel: waits for the page");
        check(ticks == 1 && tick_rip == (u64)touching, 13, "interrupts reach it meanwhile");
}

static u64 run(void)
{
        __asm__ volatile("clgi" ::: "memory");
        sti();
        svm_run(vmcb, &regs);
        cli();
        return VMCB64(vmcb, EXITCODE);
}

static void l2_pages(void)
{
        npt_identity();
        vmcb_long_mode(vmcb, l2_entry, l2_stack + sizeof l2_stack, read_cr3());
        VMCB32(vmcb, INTERCEPT_3) = 1u << INTERCEPT3_INTR;
        VMCB32(vmcb, INTERCEPT_4) |= 1 << INTERCEPT4_VMMCALL;
        VMCB64(vmcb, V_CONTROL) = V_INTR_MASKING;

        take_pages(ASYNC_PF_SEND_ALWAYS | ASYNC_PF_AS_VMEXIT);
        regs.rdi = ABSENT + 6 * 4096;
        check(run() == EXIT_PF && VMCB64(vmcb, EXITINFO1) == 0 && page_events.flags == 1, 14, "L2 misses a page: #VMEXIT(#PF)");
        page_events.flags = 0;
        await((u32)VMCB64(vmcb, EXITINFO2));
        check(run() == EXIT_VMMCALL, 15, "and goes on when it is ready");
        VMCB64(vmcb, RIP) += 3;

        take_pages(ASYNC_PF_SEND_ALWAYS);
        ticks = 0;
        regs.rdi = ABSENT + 7 * 4096;
        APIC(APIC_INITIAL_COUNT) = SHORTER;
        check(run() == EXIT_INTR && ticks == 1 && VMCB64(vmcb, RIP) == (u64)l2_entry, 16, "L1 is not told: L2 waits, interrupts end its turn");
        check(run() == EXIT_VMMCALL && page_events.flags == 0, 17, "and L2 goes on when the page is there");
}

int guest_main(void)
{
        if (!(cpuid(1, 0).ecx >> 31)) {
                print("no hypervisor\n");
                return 0;
        }
        if (svm_enable())
                return 10;
        out8(0x21, 0xff);       /* the PICs are silent */
        out8(0xa1, 0xff);
        wrmsr(MSR_APIC_BASE, rdmsr(MSR_APIC_BASE) | 1 << 11);
        APIC(APIC_SPURIOUS) = 0x13f;
        APIC(APIC_LINT0) = 0x10000;
        APIC(APIC_DIVIDE) = 0xb;        /* by 1 */
        APIC(APIC_TIMER) = VECTOR_TIMER;
        trap_set(14, on_fault);
        trap_set(VECTOR_READY, on_ready);
        trap_set(VECTOR_CALL, on_call);
        trap_set(VECTOR_TIMER, on_timer);
        leaves();
        clocks();
        interrupts();
        pages();
        l2_pages();
        return 0;
}

/*
 * avic: an L2 with a virtual APIC on each processor, two at most. L1 does what a hypervisor must: it keeps the tables of
 * physical and logical IDs, emulates what AVIC leaves to it, and wakes who is not running. L2 sends interrupts to itself
 * and to the other, plays with priorities, and looks how often L1 was needed for it.
 * Proves: the virtual APIC page, TPR, CR8, PPR, EOI of edge and level, IPIs, doorbells, IsRunning, the two exits.
 * Without AVIC it prints `no AVIC` and succeeds. Options: cpus=N (as many as CPUID says, 2 at most), rounds=N (50).
 * Source: APM vol.2 §15.29 Advanced Virtual Interrupt Controller.
 */
#include "smp.h"
#include "lib/svm.h"

#define STARTUP_VECTOR 0x8
#define GUESTS 2
#define APIC(offset) (*(volatile u32 *)(0xfee00000ul + (offset))) /* L1: its own; L2: the virtual one */
#define APIC_ID 0x20
#define APIC_VERSION 0x30
#define APIC_TPR 0x80
#define APIC_APR 0x90
#define APIC_PPR 0xa0
#define APIC_EOI 0xb0
#define APIC_LDR 0xd0
#define APIC_DFR 0xe0
#define APIC_SPURIOUS 0xf0
#define APIC_ISR 0x100
#define APIC_TMR 0x180
#define APIC_IRR 0x200
#define APIC_ICR 0x300
#define APIC_ICR_HIGH 0x310
#define ICR_NMI (4 << 8)
#define ICR_LOGICAL (1 << 11)
#define ICR_SELF (1 << 18)
#define ICR_ALL (2 << 18)
#define ICR_OTHERS (3 << 18)
#define ICR_INIT_OTHERS 0xc4500
#define ICR_STARTUP_OTHERS 0xc4600

#define CPUID_SVM_AVIC (1 << 13)
#define CPUID_HTT (1 << 28)
#define MSR_DOORBELL 0xc001011b
#define AVIC_ENABLE (1ul << 31)
#define ENTRY_VALID (1ul << 63)
#define ENTRY_RUNNING (1ul << 62)
#define LOGICAL_VALID (1u << 31)
#define FLAT 0xffffffff
#define CLUSTERS 0x0fffffff

#define EXIT_INCOMPLETE_IPI 0x401
#define EXIT_NOACCEL 0x402
#define WRITTEN (1ul << 32)
enum { INVALID_TYPE, NOT_RUNNING, INVALID_TARGET, INVALID_PAGE, INVALID_VECTOR, COMPLETE = 99 };

/* what L2 asks of L1 by VMMCALL, in RAX, with an argument in RDI */
enum { FINISH = 1, PEND_LEVEL, PARK, RING_OTHER };

/* what interrupts mean to L2 */
#define PLAIN 0x41
#define LOW 0x42
#define LOW_TOO 0x43
#define HIGH 0x91
#define LEVEL 0x61
#define PING 0x51
#define PONG 0x52

extern char startup[], startup_end[], l2_handlers[];
void avic_run(void *vmcb, struct l2_registers *registers);
void l2_interrupt(u64 vector);

char stacks[MAX_PROCESSORS * STACK_BYTES] __attribute__((aligned(16)));
u32 processors_started = 1;
struct table_pointer idt_pointer;

static u8 vmcbs[GUESTS][4096] PAGE_ALIGNED, save_areas[GUESTS][4096] PAGE_ALIGNED, l2_stacks[GUESTS][8192];
static u8 pages[GUESTS][4096] PAGE_ALIGNED;
static u64 physical_ids[512] PAGE_ALIGNED;
static u32 logical_ids[1024] PAGE_ALIGNED;
static struct l2_registers registers[GUESTS];
static struct idt_gate l2_idt[256] __attribute__((aligned(16)));
static u64 guests, rounds;
static volatile u64 awake[GUESTS], host_ids[GUESTS], ready;

/* what L1 saw of each guest */
static volatile u64 exits[GUESTS], level_ends, traps, faults, last_offset, last_failure, last_index;
/* what L2 saw */
static volatile u64 taken[GUESTS][256], order[8], orders, failed, round_trips, finished;

#define PAGE32(n, offset) (*(volatile u32 *)(pages[n] + (offset)))
static inline void pause(void) { __asm__ volatile("pause" ::: "memory"); }

/* --- L1 ---------------------------------------------------------------------------------------------------------- */

static void stop(u64 n, const char *text)
{
        u8 *vmcb = vmcbs[n];
        print("FAIL L1 %u: %s: exit %x, info %x %x, rip %x\n", n, text, VMCB64(vmcb, EXITCODE), VMCB64(vmcb, EXITINFO1),
              VMCB64(vmcb, EXITINFO2), VMCB64(vmcb, RIP));
        guest_exit(2);
}

static void set_running(u64 n, u64 running)
{
        *(volatile u64 *)&physical_ids[n] = ENTRY_VALID | (u64)pages[n] | (running ? ENTRY_RUNNING | host_ids[n] : 0);
}

/* The table follows LDR and DFR of a guest. */
static void place_logical_id(u64 n)
{
        u32 id = PAGE32(n, APIC_LDR) >> 24;
        for (u64 i = 0; i < ARRAY_LENGTH(logical_ids); i++)
                if (logical_ids[i] == (LOGICAL_VALID | n))
                        logical_ids[i] = 0;
        u32 base = PAGE32(n, APIC_DFR) == FLAT ? 0 : id >> 4 << 2;
        u32 bits = PAGE32(n, APIC_DFR) == FLAT ? id : id & 15;
        if (bits)
                logical_ids[base + (u32)__builtin_ctz(bits)] = LOGICAL_VALID | (u32)n;
}

static void request(u64 n, u64 vector, u64 level)
{
        u32 bit = 1u << vector % 32;
        u64 word = vector / 32 * 16;
        if (level)
                __atomic_or_fetch(&PAGE32(n, APIC_TMR + word), bit, __ATOMIC_SEQ_CST);
        __atomic_or_fetch(&PAGE32(n, APIC_IRR + word), bit, __ATOMIC_SEQ_CST);
}

/* The end of a level-triggered interrupt: AVIC has left it in service. */
static void end_level(u64 n, u64 vector)
{
        volatile u32 *served = &PAGE32(n, APIC_ISR + vector / 32 * 16);
        if (vector != LEVEL || !(*served & 1u << vector % 32))
                stop(n, "EOI of what is not in service");
        *served &= ~(1u << vector % 32);
        PAGE32(n, APIC_TMR + vector / 32 * 16) &= ~(1u << vector % 32);
        PAGE32(n, APIC_PPR) = PAGE32(n, APIC_TPR);
        level_ends++;
}

static void on_noaccel(u64 n)
{
        u8 *vmcb = vmcbs[n];
        u64 info = VMCB64(vmcb, EXITINFO1), offset = info & 0xff0;
        u8 *code = (u8 *)VMCB64(vmcb, RIP);
        last_offset = info;
        if (info == (WRITTEN | APIC_EOI)) {
                end_level(n, VMCB64(vmcb, EXITINFO2) & 0xff);
        } else if ((code[0] == 0x8b || code[0] == 0x89) && code[1] == 0x02) {
                /* a fault: the access that L2 makes with (%rdx) is still ahead */
                if (code[0] == 0x8b)
                        VMCB64(vmcb, RAX) = 0x5a000000 | offset;
                VMCB64(vmcb, RIP) += 2;
                faults++;
        } else {
                if (!(info & WRITTEN))
                        stop(n, "a read that traps");
                if (offset == APIC_LDR || offset == APIC_DFR)
                        place_logical_id(n);
                traps++;
        }
}

static void on_incomplete_ipi(u64 n)
{
        u8 *vmcb = vmcbs[n];
        if (VMCB64(vmcb, EXITINFO1) != ((u64)PAGE32(n, APIC_ICR_HIGH) << 32 | PAGE32(n, APIC_ICR)))
                stop(n, "EXITINFO1 is not the command");
        last_failure = VMCB64(vmcb, EXITINFO2) >> 32;
        last_index = VMCB64(vmcb, EXITINFO2) & 0xfff;
        if (last_failure == NOT_RUNNING && last_index < GUESTS)
                awake[last_index] = 1;
}

/* Until another guest's interrupt for this one makes L1 run it again. */
static void park(u64 n)
{
        set_running(n, 0);
        awake[n] = 0;
        ready = 1;
        while (!awake[n])
                pause();
        set_running(n, 1);
}

/* Runs a guest to its end. */
static void serve(u64 n)
{
        u8 *vmcb = vmcbs[n];
        for (;;) {
                avic_run(vmcb, &registers[n]);
                exits[n]++;
                switch (VMCB64(vmcb, EXITCODE)) {
                case EXIT_NOACCEL: on_noaccel(n); continue;
                case EXIT_INCOMPLETE_IPI: on_incomplete_ipi(n); continue;
                case EXIT_VMMCALL: break;
                default: stop(n, "what exit is that");
                }
                VMCB64(vmcb, RIP) += 3;
                switch (VMCB64(vmcb, RAX)) {
                case FINISH: return;
                case PEND_LEVEL: request(n, registers[n].rdi, 1); break;
                case PARK: park(n); break;
                case RING_OTHER:
                        request(1 - n, registers[n].rdi, 0);
                        wrmsr(MSR_DOORBELL, host_ids[1 - n]);
                        break;
                default: stop(n, "what does it ask for");
                }
        }
}

static void l2_first(void);
static void l2_second(void);

static void prepare(u64 n)
{
        u8 *vmcb = vmcbs[n];
        wrmsr(MSR_EFER, rdmsr(MSR_EFER) | EFER_SVME);
        wrmsr(MSR_VM_HSAVE_PA, (u64)save_areas[n]);
        host_ids[n] = APIC(APIC_ID) >> 24;
        PAGE32(n, APIC_ID) = (u32)n << 24;
        PAGE32(n, APIC_VERSION) = 0x50014;
        PAGE32(n, APIC_DFR) = FLAT;
        PAGE32(n, APIC_LDR) = 1u << (24 + n);
        place_logical_id(n);
        set_running(n, 1);
        vmcb_long_mode(vmcb, n == 0 ? (void *)l2_first : (void *)l2_second, l2_stacks[n] + sizeof l2_stacks[n] - 8, read_cr3());
        VMCB16(vmcb, IDTR + 4) = sizeof l2_idt - 1;
        VMCB64(vmcb, IDTR + 8) = (u64)l2_idt;
        VMCB32(vmcb, INTERCEPT_4) |= 1 << INTERCEPT4_VMMCALL;
        VMCB32(vmcb, GUEST_ASID) = (u32)n + 1;
        VMCB64(vmcb, V_CONTROL) = AVIC_ENABLE | V_INTR_MASKING;
        VMCB64(vmcb, V_APIC_BAR) = 0xfee00000;
        VMCB64(vmcb, AVIC_BACKING_PAGE) = (u64)pages[n];
        VMCB64(vmcb, AVIC_LOGICAL_IDS) = (u64)logical_ids;
        VMCB64(vmcb, AVIC_PHYSICAL_IDS) = (u64)physical_ids | (guests - 1);
}

/* --- L2 ---------------------------------------------------------------------------------------------------------- */

static inline void ask(u64 what, u64 argument) { __asm__ volatile("vmmcall" ::"a"(what), "D"(argument) : "memory"); }
static inline u32 load_through(u32 offset)
{
        u64 value;
        __asm__ volatile(".byte 0x8b, 0x02" : "=a"(value) : "d"(0xfee00000ul + offset) : "memory");
        return (u32)value;
}
static inline void store_through(u32 offset, u32 value)
{
        __asm__ volatile(".byte 0x89, 0x02" ::"a"(value), "d"(0xfee00000ul + offset) : "memory");
}
static inline u64 me(void) { return APIC(APIC_ID) >> 24; }

static void check(u64 good, const char *text)
{
        if (good)
                return;
        print("FAIL L2 %u: %s\n", me(), text);
        failed++;
}

static void send(u64 destination, u32 command)
{
        last_failure = COMPLETE;
        APIC(APIC_ICR_HIGH) = (u32)destination << 24;
        APIC(APIC_ICR) = command;
}

void l2_interrupt(u64 vector)
{
        u64 n = me();
        if (vector < 32) {
                print("FAIL L2 %u: exception %u\n", n, vector);
                failed++;
                ask(FINISH, 0);
        }
        taken[n][vector]++;
        if (vector == LOW || vector == LOW_TOO || vector == HIGH)
                order[orders++ & 7] = vector;
        if (vector == LOW) {
                check(APIC(APIC_PPR) == 0x40, "PPR is not the class in service");
                send(0, ICR_SELF | LOW_TOO);    /* waits for the end of this one */
                send(0, ICR_SELF | HIGH);       /* does not */
                sti();
                __asm__ volatile("nop");
                cli();
        }
        if (vector == PING && round_trips & 1)
                send(1u << (1 - n), ICR_LOGICAL | PONG);
        else if (vector == PING)
                send(1 - n, PONG);
        APIC(APIC_EOI) = 0;
}

static void self_ipi(void)
{
        u64 before = exits[0];
        send(0, ICR_SELF | PLAIN);
        check(taken[0][PLAIN] == 1, "by shorthand");
        send(0, PLAIN);
        check(taken[0][PLAIN] == 2, "by physical ID");
        send(1, ICR_LOGICAL | PLAIN);
        check(taken[0][PLAIN] == 3, "by logical ID");
        check(exits[0] == before, "none of them needs L1");
        print("ok   IPIs to itself\n");
}

static void priorities(void)
{
        u64 before = exits[0];
        APIC(APIC_TPR) = 0x47;
        check(read_cr8() == 4 && APIC(APIC_PPR) == 0x47, "TPR goes to CR8 and PPR");
        send(0, ICR_SELF | PLAIN);
        check(taken[0][PLAIN] == 3 && APIC(APIC_IRR + PLAIN / 32 * 16) == 1u << PLAIN % 32, "TPR holds its own class");
        write_cr8(3);
        check(taken[0][PLAIN] == 4, "CR8 lets it through");
        check(APIC(APIC_TPR) == 0x30, "CR8 goes to TPR");
        APIC(APIC_TPR) = 0;
        send(0, ICR_SELF | LOW);
        check(orders == 3 && order[0] == LOW && order[1] == HIGH && order[2] == LOW_TOO, "the higher class comes first");
        check(APIC(APIC_PPR) == 0, "PPR falls to TPR");
        check(exits[0] == before, "none of it needs L1");
        print("ok   priorities\n");
}

static void level(void)
{
        for (u64 n = 1; n <= 3; n++) {
                ask(PEND_LEVEL, LEVEL);
                check(taken[0][LEVEL] == n && level_ends == n, "L1 ends it");
        }
        check(APIC(APIC_PPR) == 0 && APIC(APIC_TMR + LEVEL / 32 * 16) == 0, "nothing is left of it");
        print("ok   level-triggered interrupts\n");
}

static void registers_of_l1(void)
{
        static const u16 trapping[] = {0x20, 0xc0, 0xd0, 0xe0, 0xf0, 0x280, 0x320, 0x330, 0x340, 0x350, 0x360, 0x370, 0x380, 0x3e0};
        static const u16 unreadable[] = {0x90, 0x390, 0x400, 0x410, 0x420, 0x480, 0x4f0, 0x500, 0x530, 0x540, 0xff0};
        static const u16 read_only[] = {0x30, 0xa0, 0x100, 0x170, 0x180, 0x1f0, 0x200, 0x270};
        static const u16 plain[] = {0x00, 0x40, 0x290, 0x310, 0x3a0, 0x430};
        u64 before = traps;
        for (u64 i = 0; i < ARRAY_LENGTH(trapping); i++) {
                u32 value = APIC(trapping[i]);
                APIC(trapping[i]) = value;
                check(last_offset == (WRITTEN | trapping[i]), "a trap names its register");
                check(APIC(trapping[i]) == value, "a trap comes behind the write");
        }
        check(traps == before + ARRAY_LENGTH(trapping), "writes trap");
        before = faults;
        for (u64 i = 0; i < ARRAY_LENGTH(unreadable); i++) {
                check(load_through(unreadable[i]) == (0x5a000000u | unreadable[i]), "a read faults");
                store_through(unreadable[i], 1);
                check(last_offset == (WRITTEN | unreadable[i]), "a write faults");
        }
        for (u64 i = 0; i < ARRAY_LENGTH(read_only); i++) {
                u32 value = load_through(read_only[i]);
                store_through(read_only[i], ~value);
                check(load_through(read_only[i]) == value, "a write that faults has no effect");
        }
        check(faults == before + 2 * ARRAY_LENGTH(unreadable) + ARRAY_LENGTH(read_only), "faults");
        before = exits[0];
        for (u64 i = 0; i < ARRAY_LENGTH(plain); i++) {
                APIC(plain[i]) = 0x1234567;
                check(APIC(plain[i]) == 0x1234567, "memory");
        }
        check(exits[0] == before, "memory needs no L1");
        print("ok   registers that L1 must see to\n");
}

static void failures(void)
{
        send(0, ICR_SELF | ICR_NMI);
        check(last_failure == INVALID_TYPE, "an NMI is L1's");
        send(0, ICR_SELF | 5);
        check(last_failure == INVALID_VECTOR, "vector 5");
        send(9, PLAIN);
        check(last_failure == INVALID_TARGET && last_index == 9, "there is no processor 9");
        send(0x80, ICR_LOGICAL | PLAIN);
        check(last_failure == INVALID_TARGET && last_index == 7, "nobody has logical ID 7");
        APIC(APIC_DFR) = CLUSTERS;
        APIC(APIC_LDR) = 0x34000000;
        send(0x34, ICR_LOGICAL | PLAIN);
        check(last_failure == COMPLETE && taken[0][PLAIN] == 5, "cluster 3, APIC 2");
        send(0x31, ICR_LOGICAL | PLAIN);
        check(last_failure == INVALID_TARGET && last_index == 12, "cluster 3, APIC 0");
        APIC(APIC_LDR) = 0x01000000;
        APIC(APIC_DFR) = FLAT;
        print("ok   IPIs that need L1\n");
}

static void wait_for(volatile u64 *counter, u64 value)
{
        while (*counter < value)
                pause();
}

static void exchange_interrupts(void)
{
        ready = 0;
        wait_for(&finished, 1);         /* the other one stands in its HLT loop, or will */
        u64 mine = exits[0], theirs = exits[1];
        for (round_trips = 0; round_trips < rounds; round_trips++) {
                if (round_trips & 1)
                        send(1u << 1, ICR_LOGICAL | PING);
                else
                        send(1, PING);
                wait_for(&taken[0][PONG], round_trips + 1);
        }
        check(exits[0] == mine && exits[1] == theirs, "nobody needs L1");
        send(0, ICR_OTHERS | PLAIN);
        wait_for(&taken[1][PLAIN], 1);
        send(0, ICR_ALL | PLAIN);
        wait_for(&taken[1][PLAIN], 2);
        check(taken[0][PLAIN] == 6, "a broadcast includes the sender, the others do not");
        check(exits[0] == mine && exits[1] == theirs, "broadcasts need no L1");
        print("ok   %u round trips between two guests\n", rounds);
        ask(RING_OTHER, HIGH);
        wait_for(&taken[1][HIGH], 1);
        check(exits[1] == theirs, "a doorbell needs no exit where it rings");
        print("ok   doorbell\n");
}

static void wake_other(void)
{
        finished = 2;                   /* the other one parks */
        send(1, PLAIN);                 /* and leaves its HLT for that */
        wait_for(&ready, 1);
        send(1, LOW_TOO);
        check(last_failure == NOT_RUNNING && last_index == 1, "L1 is told that it is not running");
        wait_for(&taken[1][LOW_TOO], 1);
        print("ok   an interrupt for a guest that is not running\n");
}

static void l2_first(void)
{
        sti();
        self_ipi();
        priorities();
        level();
        registers_of_l1();
        failures();
        if (guests > 1) {
                exchange_interrupts();
                wake_other();
        }
        finished = 3;
        if (guests > 1)
                send(1, PLAIN);
        ask(FINISH, 0);
}

static void l2_second(void)
{
        finished = 1;
        while (finished < 2)
                wait_for_interrupt();
        ask(PARK, 0);
        while (finished < 3)
                wait_for_interrupt();
        ask(FINISH, 0);
}

/* --- both processors --------------------------------------------------------------------------------------------- */

void processor_main(u64 n)
{
        if (n < guests) {
                prepare(n);
                serve(n);
                awake[n] = 2;
        }
        __asm__ volatile("cli\n\thlt");
}

int guest_main(void)
{
        struct cpuid basic = cpuid(1, 0);
        guests = option("cpus", basic.edx & CPUID_HTT ? basic.ebx >> 16 & 0xff : 1);
        if (guests > GUESTS)
                guests = GUESTS;
        rounds = option("rounds", 50);
        if (svm_enable())
                return 1;
        if (!(cpuid(0x8000000a, 0).edx & CPUID_SVM_AVIC)) {
                print("no AVIC\n");
                return 0;
        }
        __asm__ volatile("sidt %0" : "=m"(idt_pointer));
        out8(0x21, 0xff);       /* the 8259 pair stays silent */
        out8(0xa1, 0xff);
        npt_identity();
        for (u64 vector = 0; vector < 256; vector++) {
                u64 at = (u64)l2_handlers + 16 * vector;
                l2_idt[vector] = (struct idt_gate){(u16)at, SEL_CODE64, 0, 0x8e, (u16)(at >> 16), (u32)(at >> 32), 0};
        }
        APIC(APIC_SPURIOUS) = 0x1ff;
        if (guests > 1) {
                memcpy((void *)((u64)STARTUP_VECTOR << 12), startup, (u64)(startup_end - startup));
                APIC(APIC_ICR) = ICR_INIT_OTHERS;
                APIC(APIC_ICR) = ICR_STARTUP_OTHERS | STARTUP_VECTOR;
        }
        prepare(0);
        serve(0);
        if (guests > 1)
                while (awake[1] != 2)
                        pause();
        print("guests %u, failed checks %u\n", guests, failed);
        return failed ? 3 : 0;
}

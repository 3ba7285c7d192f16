/*
 * lost-wakeup: an L1 with a race, and its fix. The second processor hands work to the first, one piece at a time, each
 * with an interrupt. The first looks for work; when there is none it runs L2, which halts: an interrupt then is a
 * #VMEXIT(INTR), and it looks again. But between the look and VMRUN an interrupt is taken by L1 itself, whose handler
 * only acknowledges it. L2 then halts for an interrupt that has been, and the second processor waits for ever.
 * With fixed=1 CLGI comes before the look: the interrupt stays pending and ends L2's stay at once.
 * Proves: nothing by itself; it is what chaos must find. Ends with 3 when a wake-up was lost.
 * Options: pieces=N (50), fixed=1, patience=N (300000): looks that the second processor takes before it gives up.
 */
#include "smp.h"
#include "lib/svm.h"

#define STARTUP_VECTOR 0x8
#define APIC(offset) (*(volatile u32 *)(0xfee00000ul + (offset)))
#define APIC_EOI 0xb0
#define APIC_SPURIOUS 0xf0
#define APIC_ICR 0x300
#define ICR_INIT_OTHERS 0xc4500
#define ICR_STARTUP_OTHERS 0xc4600
#define ICR_FIXED_OTHERS 0xc4000
#define WORK_VECTOR 0x38
#define LOST 3

extern char startup[], startup_end[], l2_entry[];

char stacks[MAX_PROCESSORS * STACK_BYTES] __attribute__((aligned(16)));
u32 processors_started = 1;
struct table_pointer idt_pointer;

static u8 vmcb[4096] PAGE_ALIGNED, l2_stack[1024];
static struct l2_registers regs;
static u64 pieces, patience;
static volatile u64 posted, done;

static inline void pause(void) { __asm__ volatile("pause" ::: "memory"); }

static void on_work(struct trap_frame *frame)
{
        (void)frame;
        APIC(APIC_EOI) = 0;
}

/* The second processor. */
void processor_main(u64 me)
{
        (void)me;
        APIC(APIC_SPURIOUS) = 0x1ff;
        for (u64 n = 1; n <= pieces; n++) {
                posted = n;
                APIC(APIC_ICR) = ICR_FIXED_OTHERS | WORK_VECTOR;
                for (u64 looks = 0; done != n; looks++) {
                        if (looks == patience) {
                                print("piece %u was posted, and nobody woke up\n", n);
                                guest_exit(LOST);
                        }
                        pause();
                }
        }
        __asm__ volatile("cli\n\thlt");
}

/* What a piece of work is does not matter, but that it takes a while. */
static u64 work_on(u64 n)
{
        for (u32 i = 0; i < 100; i++)
                n = n * 0x9e3779b97f4a7c15ul + (n >> 31);
        return n;
}

int guest_main(void)
{
        u64 fixed = option("fixed", 0), sum = 0;
        pieces = option("pieces", 50);
        patience = option("patience", 300000);
        if (svm_enable())
                return 1;
        __asm__ volatile("sidt %0" : "=m"(idt_pointer));
        out8(0x21, 0xff);       /* the 8259 pair stays silent */
        out8(0xa1, 0xff);
        trap_set(WORK_VECTOR, on_work);
        npt_identity();
        vmcb_long_mode(vmcb, l2_entry, l2_stack + sizeof l2_stack, read_cr3());
        VMCB32(vmcb, INTERCEPT_3) = 1 << INTERCEPT3_INTR;
        VMCB64(vmcb, V_CONTROL) = V_INTR_MASKING;
        memcpy((void *)((u64)STARTUP_VECTOR << 12), startup, (u64)(startup_end - startup));
        APIC(APIC_SPURIOUS) = 0x1ff;
        APIC(APIC_ICR) = ICR_INIT_OTHERS;
        APIC(APIC_ICR) = ICR_STARTUP_OTHERS | STARTUP_VECTOR;
        sti();
        while (done != pieces) {
                if (fixed)
                        __asm__ volatile("clgi" ::: "memory");
                if (posted == done) {
                        svm_run(vmcb, &regs);   /* GIF is set afterwards: L1 takes the interrupt then */
                        continue;
                }
                if (fixed)
                        __asm__ volatile("stgi" ::: "memory");
                sum += work_on(posted);
                done = posted;
        }
        cli();
        print("pieces %u, sum %x\n", done, sum);
        return 0;
}

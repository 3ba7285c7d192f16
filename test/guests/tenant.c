/*
 * tenant: a hypervisor has one tenant, the program of the guest `pointers`, and does for it what hypervisors do: gives it
 * memory page by page when it is first touched, and takes the processor back at every tick of the local APIC timer, which
 * it passes on as a virtual interrupt. Between two ticks the tenant computes undisturbed.
 * Prints what `pointers` does, and whether every tick arrived.
 * Options: those of `pointers`; period=N of the APIC timer (1000000).
 */
#include "lib/svm.h"

#define APIC(offset) (*(volatile u32 *)(0xfee00000ul + (offset)))
#define APIC_EOI 0xb0
#define APIC_SPURIOUS 0xf0
#define APIC_TIMER 0x320
#define APIC_LINT0 0x350
#define APIC_LINT1 0x360
#define APIC_INITIAL_COUNT 0x380
#define APIC_DIVIDE 0x3e0
#define TIMER_PERIODIC (1 << 17)
#define TIMER_VECTOR 0x38
#define TENANT_VECTOR 0x34
#define RFLAGS_IF 0x200ul
#define PAGE_2M (1ul << 21)
/* Where the tenant's memory is given by the page: more than the image takes. */
#define GIVEN_BY_PAGE 16

extern char l2_entry[], l2_tick[];
extern volatile u64 l2_ticks;
static u8 vmcb[4096] PAGE_ALIGNED, l2_stack[64 * 1024] PAGE_ALIGNED;
static u64 npt_tables[GIVEN_BY_PAGE][512] PAGE_ALIGNED;
static struct idt_gate l2_idt[64] __attribute__((aligned(16)));
static struct l2_registers regs;
static volatile u64 ticks;
static u64 passed_on, pages_given;

static void stop(u32 value, const char *text)
{
        print("FAIL %s: exit %x, info1 %x, info2 %x, rip %x, rflags %x\n", text, VMCB64(vmcb, EXITCODE), VMCB64(vmcb, EXITINFO1),
              VMCB64(vmcb, EXITINFO2), VMCB64(vmcb, RIP), VMCB64(vmcb, RFLAGS));
        guest_exit(value);
}

static void on_timer(struct trap_frame *frame)
{
        (void)frame;
        ticks++;
        APIC(APIC_EOI) = 0;
}

static void prepare(u64 period)
{
        u64 handler = (u64)l2_tick;
        out8(0x21, 0xff);       /* the PICs are silent */
        out8(0xa1, 0xff);
        trap_set(TIMER_VECTOR, on_timer);
        wrmsr(MSR_APIC_BASE, rdmsr(MSR_APIC_BASE) | 1 << 11);
        APIC(APIC_SPURIOUS) = 0x13f;
        APIC(APIC_LINT0) = 0x10000;
        APIC(APIC_LINT1) = 0x10000;
        APIC(APIC_DIVIDE) = 0xb;        /* by 1 */
        APIC(APIC_TIMER) = TIMER_PERIODIC | TIMER_VECTOR;
        npt_identity();
        for (u64 n = 0; n < GIVEN_BY_PAGE; n++)
                npt_split(n * PAGE_2M, npt_tables[n]);
        vmcb_long_mode(vmcb, l2_entry, l2_stack + sizeof l2_stack, read_cr3());
        l2_idt[TENANT_VECTOR] = (struct idt_gate){(u16)handler, SEL_CODE64, 0, 0x8e, (u16)(handler >> 16), (u32)(handler >> 32), 0};
        VMCB64(vmcb, IDTR + 8) = (u64)l2_idt;
        VMCB64(vmcb, RFLAGS) |= RFLAGS_IF;
        VMCB32(vmcb, INTERCEPT_3) = 1u << INTERCEPT3_INTR | 1u << INTERCEPT3_SHUTDOWN;
        VMCB32(vmcb, INTERCEPT_4) |= 1 << INTERCEPT4_VMMCALL;
        VMCB64(vmcb, V_CONTROL) = V_INTR_MASKING;
        APIC(APIC_INITIAL_COUNT) = (u32)period;
}

/* One stay of the tenant. L1's IF is set around VMRUN, so that its ticks count; GIF holds them until STGI. */
static u64 stay(void)
{
        u64 before = ticks;
        __asm__ volatile("clgi" ::: "memory");
        sti();
        svm_run(vmcb, &regs);
        cli();
        if (ticks != before && !(VMCB64(vmcb, V_CONTROL) & V_IRQ)) {
                VMCB64(vmcb, V_CONTROL) =
                        V_INTR_MASKING | V_IRQ | V_PRIORITY(TENANT_VECTOR >> 4) | V_VECTOR(TENANT_VECTOR);
                passed_on++;
        }
        return VMCB64(vmcb, EXITCODE);
}

static void give_page(u64 gpa)
{
        u64 *entry = &npt_tables[gpa / PAGE_2M][gpa >> 12 & 511];
        if (gpa >= GIVEN_BY_PAGE * PAGE_2M || *entry)
                stop(2, "no page to give");
        *entry = (gpa & ~0xffful) | 7;
        pages_given++;
}

int guest_main(void)
{
        if (svm_enable())
                return 1;
        prepare(option("period", 1000000));
        for (u64 code = stay(); code != EXIT_VMMCALL; code = stay()) {
                if (code == EXIT_NPF)
                        give_page(VMCB64(vmcb, EXITINFO2));
                else if (code != EXIT_INTR)
                        stop(3, "unexpected exit");
        }
        APIC(APIC_INITIAL_COUNT) = 0;
        if (regs.rbx)
                return (int)regs.rbx;
        /* The last one may wait still. */
        print("pages given as touched, ticks %s\n",
              passed_on && passed_on - l2_ticks <= 1 ? "arrived" : "lost");
        return passed_on && passed_on - l2_ticks <= 1 && pages_given ? 0 : 4;
}

/*
 * nested-timer: physical interrupts end L2's turns, virtual ones reach it.
 * L1 arms the local APIC timer (one shot) and runs an L2 that spins. With
 * V_INTR_MASKING and the INTR intercept each tick is a #VMEXIT(INTR); L1 takes it
 * at STGI, and injects an interrupt into L2, by V_IRQ and by EVENTINJ in turn,
 * whose handler answers by VMMCALL. The last ticks come while L2 has RFLAGS.IF
 * clear: physical interrupts still arrive, the virtual one waits.
 * Proves: GIF, V_INTR_MASKING, V_IRQ, V_TPR, EVENTINJ of interrupts, APIC timer.
 * Options: ticks=N (20), period=N of the APIC timer (100000),
 * strict=1: a priority equal to V_TPR is masked too.
 */
#include "lib/svm.h"

#define APIC(offset) (*(volatile u32 *)(0xfee00000ul + (offset)))
#define APIC_TPR 0x80
#define APIC_EOI 0xb0
#define APIC_SPURIOUS 0xf0
#define APIC_IN_SERVICE 0x100
#define APIC_REQUEST 0x200
#define APIC_TIMER 0x320
#define APIC_LINT0 0x350
#define APIC_LINT1 0x360
#define APIC_INITIAL_COUNT 0x380
#define APIC_DIVIDE 0x3e0
#define TIMER_VECTOR 0x38
#define VECTOR_VIRTUAL_IRQ 0x34
#define VECTOR_INJECTED 0x35
#define RFLAGS_IF 0x200ul

extern char l2_entry[], l2_virtual_irq[], l2_injected[];
static u8 vmcb[4096] PAGE_ALIGNED, l2_stack[4096] PAGE_ALIGNED;
static struct idt_gate l2_idt[64] __attribute__((aligned(16)));
static struct l2_registers regs;
static volatile u64 ticks;
static u64 intr_exits, virtual_irqs, injected, answers;

static void stop(u32 value, const char *text)
{
        print("FAIL %s: exit %x, rip %x, rflags %x, v_control %x, ticks %u\n", text, VMCB64(vmcb, EXITCODE), VMCB64(vmcb, RIP),
              VMCB64(vmcb, RFLAGS), VMCB64(vmcb, V_CONTROL), ticks);
        guest_exit(value);
}

static void on_timer(struct trap_frame *frame)
{
        (void)frame;
        if (!(APIC(APIC_IN_SERVICE + (TIMER_VECTOR / 32) * 0x10) & 1u << TIMER_VECTOR % 32))
                stop(2, "the timer vector is not in service");
        ticks++;
        APIC(APIC_EOI) = 0;
}

static void l2_gate(u32 vector, char *handler)
{
        u64 at = (u64)handler;
        l2_idt[vector] = (struct idt_gate){(u16)at, SEL_CODE64, 0, 0x8e, (u16)(at >> 16), (u32)(at >> 32), 0};
}

/* L1's IF is set around VMRUN, so that physical interrupts count; GIF holds them until STGI. */
static u64 run(void)
{
        __asm__ volatile("clgi" ::: "memory");
        sti();
        svm_run(vmcb, &regs);
        cli();
        return VMCB64(vmcb, EXITCODE);
}

static void tick(u64 period)
{
        u64 before = ticks;
        APIC(APIC_INITIAL_COUNT) = (u32)period;
        if (run() != EXIT_INTR)
                stop(3, "expected INTR");
        intr_exits++;
        if (ticks != before + 1)
                stop(4, "STGI did not deliver the tick");
}

static void answer(u64 vector)
{
        if (run() != EXIT_VMMCALL)
                stop(5, "expected VMMCALL");
        if (regs.rbx != vector || VMCB64(vmcb, RFLAGS) & RFLAGS_IF)
                stop(6, "wrong handler");
        if (VMCB64(vmcb, V_CONTROL) & V_IRQ || VMCB64(vmcb, EVENTINJ) & EVENT_VALID)
                stop(7, "still pending after delivery");
        VMCB64(vmcb, RIP) += 3;
        answers++;
}

static void pend_virtual(u64 tpr)
{
        VMCB64(vmcb, V_CONTROL) = V_INTR_MASKING | V_IRQ | V_PRIORITY(VECTOR_VIRTUAL_IRQ >> 4) | V_VECTOR(VECTOR_VIRTUAL_IRQ) | tpr;
        virtual_irqs++;
}

/* Lets L2 return from its handler to the spin loop. */
static void settle(void)
{
        regs.r9 = 1;
        if (run() != EXIT_VMMCALL || regs.r9)
                stop(8, "L2 is not in its loop");
        if (!(VMCB64(vmcb, RFLAGS) & RFLAGS_IF))
                stop(12, "IRETQ did not restore IF");
        VMCB64(vmcb, RIP) += 3;
}

static void prepare(void)
{
        out8(0x21, 0xff);       /* the PICs are silent */
        out8(0xa1, 0xff);
        trap_set(TIMER_VECTOR, on_timer);
        wrmsr(MSR_APIC_BASE, rdmsr(MSR_APIC_BASE) | 1 << 11);
        APIC(APIC_SPURIOUS) = 0x13f;
        APIC(APIC_LINT0) = 0x10000;
        APIC(APIC_LINT1) = 0x10000;
        APIC(APIC_TPR) = 0;
        APIC(APIC_DIVIDE) = 0xb;        /* by 1 */
        APIC(APIC_TIMER) = TIMER_VECTOR;
        npt_identity();
        vmcb_long_mode(vmcb, l2_entry, l2_stack + sizeof l2_stack, read_cr3());
        l2_gate(VECTOR_VIRTUAL_IRQ, l2_virtual_irq);
        l2_gate(VECTOR_INJECTED, l2_injected);
        VMCB64(vmcb, IDTR + 8) = (u64)l2_idt;
        VMCB64(vmcb, RFLAGS) |= RFLAGS_IF;
        VMCB32(vmcb, INTERCEPT_3) = 1 << INTERCEPT3_INTR;
        VMCB32(vmcb, INTERCEPT_4) |= 1 << INTERCEPT4_VMMCALL;
        VMCB64(vmcb, V_CONTROL) = V_INTR_MASKING;
}

int guest_main(void)
{
        u64 count = option("ticks", 20), period = option("period", 100000);
        if (svm_enable())
                return 1;
        prepare();
        for (u64 n = 0; n < count; n++) {
                tick(period);
                if (n & 1) {
                        VMCB64(vmcb, EVENTINJ) = EVENT_VALID | EVENT_INTR | VECTOR_INJECTED;
                        injected++;
                        answer(VECTOR_INJECTED);
                } else {
                        pend_virtual(0);
                        answer(VECTOR_VIRTUAL_IRQ);
                }
        }
        print("ticks %u, INTR exits %u\n", ticks, intr_exits);
        print("injected by V_IRQ %u, by EVENTINJ %u, answered by L2 %u\n", virtual_irqs, injected, answers);

        settle();
        VMCB64(vmcb, RFLAGS) &= ~RFLAGS_IF;
        tick(period);
        print("tick while L2 has interrupts off: taken by L1\n");
        pend_virtual(0);
        tick(period);
        if (!(VMCB64(vmcb, V_CONTROL) & V_IRQ))
                stop(9, "V_IRQ lost while IF is clear");
        print("V_IRQ while L2 has interrupts off: pending\n");
        VMCB64(vmcb, RFLAGS) |= RFLAGS_IF;
        answer(VECTOR_VIRTUAL_IRQ);
        settle();
        pend_virtual((VECTOR_VIRTUAL_IRQ >> 4) + (option("strict", 0) ? 0 : 1));        /* QEMU 7 takes it when equal */
        tick(period);
        if (!(VMCB64(vmcb, V_CONTROL) & V_IRQ))
                stop(10, "V_IRQ not masked by V_TPR");
        print("V_IRQ masked by V_TPR: pending\n");
        VMCB8(vmcb, V_CONTROL) = (VECTOR_VIRTUAL_IRQ >> 4) - 1;
        answer(VECTOR_VIRTUAL_IRQ);
        print("V_IRQ above V_TPR: taken\n");
        if (APIC(APIC_REQUEST + (TIMER_VECTOR / 32) * 0x10) & 1u << TIMER_VECTOR % 32)
                return 11;
        print("ticks %u, INTR exits %u, answered by L2 %u\n", ticks, intr_exits, answers);
        return 0;
}

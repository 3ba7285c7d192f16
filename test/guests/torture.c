/*
 * torture: an L2 with all the state that saving and restoring nested guests has lost
 * elsewhere: its own PAT, TSC offset and branch record, L1's branch record behind it,
 * a pause filter, interrupt shadows, V_IRQ, EVENTINJ of every type with nRIP, blocked
 * NMIs, system management mode entered from L2, and an entry that fails.
 * Proves: that all of it works; the tests of `vmtape torture` save it at each boundary.
 * Option: rounds=N (4), each with one event of every kind.
 */
#include "lib/svm.h"

#define VMCB_PAUSE_FILTER_THRESHOLD 0x03c
#define VMCB_PAUSE_FILTER_COUNT 0x03e
#define VMCB_DEBUGCTL 0x670
#define MSR_DEBUGCTL 0x1d9
#define LBR 1
#define INTERCEPT3_PAUSE 23
#define EVENT_SOFTWARE (4ul << 8)
#define APIC(offset) (*(volatile u32 *)(0xfee00000ul + (offset)))
#define APIC_SPURIOUS 0xf0
#define APIC_COMMAND 0x300
#define SEND_SMI_TO_SELF 0x40200
#define SMM_HANDLER 0x38000ul
#define SMM_COUNTER 0x9000ul
#define VECTOR_NMI 2
#define VECTOR_VIRTUAL 0x34
#define VECTOR_SOFTWARE 0x35
#define L2_PAT 0x0007010600070106ul

extern char l2_entry[], l2_virtual[], l2_software[], l2_nmi[], l2_continue[];
static u8 vmcb[4096] PAGE_ALIGNED, l2_stack[4096] PAGE_ALIGNED;
static struct idt_gate l2_idt[64] __attribute__((aligned(16)));
static struct l2_registers regs;

/* inc word [9000h]; nop; rsm, in the 16-bit mode in which SMM begins */
static const u8 smm_handler[] = {0xff, 0x06, 0x00, 0x90, 0x90, 0x0f, 0xaa};

static void l2_gate(u32 vector, char *handler)
{
        u64 at = (u64)handler;
        l2_idt[vector] = (struct idt_gate){(u16)at, SEL_CODE64, 0, 0x8e, (u16)(at >> 16), (u32)(at >> 32), 0};
}

static void prepare(void)
{
        npt_identity();
        vmcb_long_mode(vmcb, l2_entry, l2_stack + sizeof l2_stack, read_cr3());
        l2_gate(VECTOR_NMI, l2_nmi);
        l2_gate(VECTOR_VIRTUAL, l2_virtual);
        l2_gate(VECTOR_SOFTWARE, l2_software);
        VMCB64(vmcb, IDTR + 8) = (u64)l2_idt;
        VMCB32(vmcb, INTERCEPT_3) = 1 << INTERCEPT3_PAUSE;
        VMCB32(vmcb, INTERCEPT_4) |= 1 << INTERCEPT4_VMMCALL;
        VMCB16(vmcb, PAUSE_FILTER_COUNT) = 1000;
        VMCB16(vmcb, PAUSE_FILTER_THRESHOLD) = 100;
        VMCB64(vmcb, G_PAT) = L2_PAT;
        VMCB64(vmcb, TSC_OFFSET) = 0x123456789a;
        VMCB64(vmcb, LBR_VIRT_ENABLE) = 1;
        VMCB64(vmcb, DEBUGCTL) = LBR;
        VMCB64(vmcb, CR2) = 0x12345000;
        VMCB64(vmcb, SYSENTER_ESP) = 0xffff800000001000;
        wrmsr(MSR_DEBUGCTL, LBR);
        wrmsr(MSR_APIC_BASE, rdmsr(MSR_APIC_BASE) | 1 << 11);
        APIC(APIC_SPURIOUS) = 0x13f;
        out8(0x21, 0xff);       /* the PICs are silent */
        out8(0xa1, 0xff);
        memcpy((void *)SMM_HANDLER, smm_handler, sizeof smm_handler);
        *(volatile u16 *)SMM_COUNTER = 0;
}

static void stay_in_l2(void)
{
        sti();
        svm_run(vmcb, &regs);
        cli();
}

/* SMIs wait until VMRUN sets GIF: then they find L2. */
static void run(int with_smi)
{
        __asm__ volatile("clgi" ::: "memory");
        if (with_smi)
                APIC(APIC_COMMAND) = SEND_SMI_TO_SELF;
        stay_in_l2();
        if (VMCB64(vmcb, EXITCODE) != EXIT_VMMCALL) {
                print("FAIL exit %x, rip %x\n", VMCB64(vmcb, EXITCODE), VMCB64(vmcb, RIP));
                guest_exit(2);
        }
        VMCB64(vmcb, RIP) += 3;
}

static int refused(void)
{
        VMCB32(vmcb, GUEST_ASID) = 0;
        stay_in_l2();
        VMCB32(vmcb, GUEST_ASID) = 1;
        return VMCB64(vmcb, EXITCODE) == EXIT_INVALID;
}

int guest_main(void)
{
        u64 rounds = option("rounds", 4), smis;
        if (svm_enable())
                return 1;
        prepare();
        if (!refused())
                return 5;
        for (u64 n = 0; n < rounds; n++) {
                VMCB64(vmcb, V_CONTROL) = V_INTR_MASKING | V_IRQ | V_IGN_TPR | V_VECTOR(VECTOR_VIRTUAL);
                run(0);
                VMCB64(vmcb, EVENTINJ) = EVENT_VALID | EVENT_SOFTWARE | VECTOR_SOFTWARE;
                VMCB64(vmcb, NRIP) = (u64)l2_continue;
                run(0);
                VMCB64(vmcb, EVENTINJ) = EVENT_VALID | EVENT_NMI | VECTOR_NMI;
                VMCB32(vmcb, CLEAN) = ~0u;
                run(0);
                run(1);
                VMCB32(vmcb, CLEAN) = 0;
        }
        smis = *(volatile u16 *)SMM_COUNTER;
        print("virtual %u, software %u, NMI %u, SMI %u\n", regs.r10, regs.r11, regs.r12, smis);
        print("L2 %u rounds, its PAT %x\n", regs.r8, regs.r13);
        if (regs.r10 != rounds || regs.r11 != rounds || regs.r12 != rounds || smis != rounds)
                return 3;
        if (regs.r8 != 4 * rounds || regs.r13 != L2_PAT || rdmsr(MSR_PAT) == L2_PAT)
                return 4;
        return 0;
}

/*
 * Events at instruction boundaries: physical interrupts, NMI, SMI, INIT, virtual interrupts, shutdown, FERR. L1 sends the
 * physical ones to itself while GIF is clear; VMRUN sets it, and so does STGI when L2 is left, so what L2 did not take
 * reaches L1.
 * Source: APM vol.2 §15.13 Interrupt Intercepts, §15.14.2 Ferr_Freeze Intercept, §15.14.3 Shutdown Intercept,
 * §15.17 Global Interrupt Flag, §15.21 Interrupt and Local APIC Support.
 */
#include "intercepts.h"

INSTRUCTION(nop, "nop");
INSTRUCTION(rdtsc, "rdtsc");
INSTRUCTION(ud2, "ud2");
INSTRUCTION16(ud2_16, "ud2");
INSTRUCTION(load, "movq (%rbx), %rax");
CODE_BYTES(fwait, "fwait", "64", "fninit; fldcw (%rbx); fld1; fldz; fdivrp", "fwait");

#define APIC(offset) (*(volatile u32 *)(0xfee00000ul + (offset)))
#define APIC_ID 0x20
#define APIC_TPR 0x80
#define APIC_EOI 0xb0
#define APIC_SPURIOUS 0xf0
#define APIC_IN_SERVICE 0x100
#define APIC_REQUEST 0x200
#define APIC_COMMAND 0x300
#define APIC_DESTINATION 0x310
#define APIC_LINT0 0x350
#define APIC_LINT1 0x360
#define FIXED 0x000
#define SEND_SMI 0x200
#define SEND_NMI 0x400
#define SEND_INIT 0x500
#define ASSERT 0x4000

static volatile u32 interrupts_in_l1, nmis_in_l1;
volatile u32 inits_in_l1;

static int in_set(u32 registers) { return APIC(registers + PHYSICAL_VECTOR / 32 * 0x10) >> PHYSICAL_VECTOR % 32 & 1; }

static void on_interrupt(struct trap_frame *frame)
{
        (void)frame;
        interrupts_in_l1++;
        APIC(APIC_EOI) = 0;
}

static void on_nmi(struct trap_frame *frame)
{
        (void)frame;
        nmis_in_l1++;
}

/* #SX pushes an error code, which the stubs of lib/trap.S do not know of. */
extern char on_redirected_init[];
__asm__("on_redirected_init: incl inits_in_l1(%rip)\n\taddq $8, %rsp\n\tiretq");

void events_prepare(void)
{
        out8(0x21, 0xff);       /* the PICs are silent */
        out8(0xa1, 0xff);
        trap_set(PHYSICAL_VECTOR, on_interrupt);
        trap_set(NMI, on_nmi);
        idt[SX].offset_low = (u16)(u64)on_redirected_init;
        idt[SX].offset_middle = (u16)((u64)on_redirected_init >> 16);
        wrmsr(MSR_APIC_BASE, rdmsr(MSR_APIC_BASE) | 1 << 11);
        APIC(APIC_SPURIOUS) = 0x13f;
        APIC(APIC_LINT0) = 0x10000;
        APIC(APIC_LINT1) = 0x10000;
        APIC(APIC_TPR) = 0;
        watchdog_prepare(APIC(APIC_ID) >> 24);
}

static void send(u32 command)
{
        APIC(APIC_DESTINATION) = APIC(APIC_ID);
        APIC(APIC_COMMAND) = command | ASSERT;
}

/* Waits with an armed monitor, if it is armed, for an interrupt that is pending already. */
void disarm_monitor(void)
{
        if (!has(MONITOR_MWAIT))
                return;
        send(FIXED | PHYSICAL_VECTOR);
        __asm__ volatile("sti\n\tmwait\n\tcli" ::"a"(0), "c"(0) : "memory");
}

/* IRET ends the blocking of NMIs that an NMI in L2 began. */
static void unblock_nmis(void)
{
        __asm__ volatile("movl %%ss, %%eax\n\tpushq %%rax\n\tleaq 8(%%rsp), %%rax\n\tpushq %%rax\n\tpushfq\n\tmovl %%cs, %%eax\n\t"
                         "pushq %%rax\n\tpushq $1f\n\tiretq\n1:"
                         ::: "rax", "memory", "cc");
}

/* ---- INTR ---- */

void send_interrupt(const struct trial *trial, int on)
{
        (void)trial;
        (void)on;
        interrupts_in_l1 = 0;
        if (trial->flags & HOST_IF)     /* or L1 would take it before VMRUN */
                __asm__ volatile("clgi" ::: "memory");
        send(FIXED | PHYSICAL_VECTOR);
}

static void send_interrupt_rdtsc(const struct trial *trial, int on)
{
        send_interrupt(trial, on);
        VMCB32(vmcb, INTERCEPT_3) |= 1 << 14;
}

static void send_interrupt_in_shadow(const struct trial *trial, int on)
{
        send_interrupt(trial, on);
        VMCB64(vmcb, INTERRUPT_SHADOW) = 1;
}

static void send_interrupt_masked_virtually(const struct trial *trial, int on)
{
        send_interrupt(trial, on);
        VMCB64(vmcb, V_CONTROL) |= V_INTR_MASKING;
}

/* An intercepted interrupt is not acknowledged; L1 gets what L2 did not. */
const char *interrupt_in_l1(const struct trial *trial, int on)
{
        u32 requested = in_set(APIC_REQUEST), in_service = in_set(APIC_IN_SERVICE), taken = interrupts_in_l1;
        const int exits = VMCB64(vmcb, EXITCODE) == EXIT_INTR;
        (void)on;
        if (in_service)
                APIC(APIC_EOI) = 0;
        sti();
        __asm__ volatile("nop\n\tnop");
        cli();
        if (exits && (in_service || requested + taken != 1))
                return "the interrupt is not pending in L1";
        if (exits && interrupts_in_l1 != 1)
                return "L1 did not get the interrupt";
        return taken != 0 && !(trial->flags & HOST_IF) ? "L1 took it with interrupts off" : 0;
}

#define INTERRUPT FAULTS(PHYSICAL_VECTOR)
#define LATER TRAPS(PHYSICAL_VECTOR)

static const struct trial intr_trials[] = {
        {&nop, "IF set", KERNEL64, .off = INTERRUPT, .rflags = RFLAGS_IF, .prepare = send_interrupt, .inspect = interrupt_in_l1},
        {&nop, "IF set", USER64, .off = INTERRUPT, .rflags = RFLAGS_IF, .prepare = send_interrupt, .inspect = interrupt_in_l1},
        {&nop, "IF clear", KERNEL64, .on = COMPLETES, .prepare = send_interrupt, .inspect = interrupt_in_l1},
        {&nop, "IF set, in an interrupt shadow", KERNEL64, .off = LATER, .on = EXITS_AFTER, .rflags = RFLAGS_IF,
         .prepare = send_interrupt_in_shadow, .inspect = interrupt_in_l1},
        {&nop, "V_INTR_MASKING, host IF set, IF clear", KERNEL64, .off = INTERRUPT, .flags = HOST_IF,
         .prepare = send_interrupt_masked_virtually, .inspect = interrupt_in_l1},
        {&nop, "V_INTR_MASKING, host IF clear, IF set", KERNEL64, .on = COMPLETES, .rflags = RFLAGS_IF,
         .prepare = send_interrupt_masked_virtually, .inspect = interrupt_in_l1},
        {&rdtsc, "IF set, RDTSC intercepted, too", KERNEL64, .off = INTERRUPT, .rflags = RFLAGS_IF,
         .prepare = send_interrupt_rdtsc, .inspect = interrupt_in_l1},
        {&ud2, "IF set", KERNEL64, .off = INTERRUPT, .rflags = RFLAGS_IF, .prepare = send_interrupt, .inspect = interrupt_in_l1},
};

/* ---- NMI ---- */

static void send_nmi(const struct trial *trial, int on)
{
        (void)trial;
        (void)on;
        nmis_in_l1 = 0;
        __asm__ volatile("clgi" ::: "memory");
        send(SEND_NMI);
}

static void send_nmi_rdtsc(const struct trial *trial, int on)
{
        send_nmi(trial, on);
        VMCB32(vmcb, INTERCEPT_3) |= 1 << 14;
}

static const char *nmi_in_l1(const struct trial *trial, int on)
{
        (void)trial;
        unblock_nmis();
        if (nmis_in_l1 != (u32)(on != 0))
                return on ? "L1 did not get the NMI" : "L1 got the NMI";
        return 0;
}

static const struct trial nmi_trials[] = {
        {&nop, 0, KERNEL64, .off = FAULTS(NMI), .prepare = send_nmi, .inspect = nmi_in_l1},
        {&nop, 0, USER64, .off = FAULTS(NMI), .prepare = send_nmi, .inspect = nmi_in_l1},
        {&rdtsc, "RDTSC intercepted, too", KERNEL64, .off = FAULTS(NMI), .prepare = send_nmi_rdtsc, .inspect = nmi_in_l1},
        {&ud2, 0, KERNEL64, .off = FAULTS(NMI), .prepare = send_nmi, .inspect = nmi_in_l1},
};

/* ---- SMI ---- */

static void send_smi(const struct trial *trial, int on)
{
        (void)trial;
        (void)on;
        __asm__ volatile("clgi" ::: "memory");
        send(SEND_SMI);
}

static void send_smi_rdtsc(const struct trial *trial, int on)
{
        send_smi(trial, on);
        if (on)
                VMCB32(vmcb, INTERCEPT_3) |= 1 << 14;
}

/* Under HWCR.SmmLock the intercept is ignored. There is no way back but a reset, so this comes last. */
static void lock_smm(const struct trial *trial, int on)
{
        wrmsr(MSR_HWCR, rdmsr(MSR_HWCR) | HWCR_SMM_LOCK);
        send_smi(trial, on);
}

static const char *smm_is_locked(const struct trial *trial, int on)
{
        (void)trial;
        (void)on;
        return rdmsr(MSR_HWCR) & HWCR_SMM_LOCK ? 0 : "HWCR.SmmLock cannot be set";
}

#define SMI_EXTERNAL 1
static const struct trial smi_trials[] = {
        {&nop, 0, KERNEL64, .needs = SMM_UNLOCKED, .info1 = SMI_EXTERNAL, .mask = 1, .flags = INFO1, .prepare = send_smi},
        {&nop, 0, USER64, .needs = SMM_UNLOCKED, .info1 = SMI_EXTERNAL, .mask = 1, .flags = INFO1, .prepare = send_smi},
        {&rdtsc, "RDTSC intercepted, too", KERNEL64, .needs = SMM_UNLOCKED, .info1 = SMI_EXTERNAL, .mask = 1, .flags = INFO1,
         .prepare = send_smi_rdtsc},
        {&nop, "HWCR.SmmLock", KERNEL64, .on = COMPLETES, .needs = SMM_LOCK, .prepare = lock_smm, .inspect = smm_is_locked},
};

/* ---- INIT ---- */

void send_init(const struct trial *trial, int on)
{
        (void)trial;
        (void)on;
        inits_in_l1 = 0;
        __asm__ volatile("clgi" ::: "memory");
        send(SEND_INIT);
}

static void send_init_rdtsc(const struct trial *trial, int on)
{
        send_init(trial, on);
        VMCB32(vmcb, INTERCEPT_3) |= 1 << 14;
}

/* An intercepted INIT stays pending; VM_CR.R_INIT makes #SX of it when L1 sets GIF. */
static const char *init_in_l1(const struct trial *trial, int on)
{
        (void)trial;
        if (inits_in_l1 != (u32)(on != 0))
                return on ? "L1 did not get the INIT" : "L1 got the INIT";
        return 0;
}

static const struct trial init_trials[] = {
        {&nop, "VM_CR.R_INIT", KERNEL64, .off = FAULTS(SX), .fault.error = 1, .needs = REDIRECTED_INIT, .prepare = send_init,
         .inspect = init_in_l1},
        {&nop, "VM_CR.R_INIT", USER64, .off = FAULTS(SX), .fault.error = 1, .needs = REDIRECTED_INIT, .prepare = send_init,
         .inspect = init_in_l1},
        {&rdtsc, "VM_CR.R_INIT, RDTSC intercepted, too", KERNEL64, .off = FAULTS(SX), .fault.error = 1, .needs = REDIRECTED_INIT,
         .prepare = send_init_rdtsc, .inspect = init_in_l1},
};

/* ---- VINTR ---- */

static void in_shadow(const struct trial *trial, int on)
{
        (void)trial;
        (void)on;
        VMCB64(vmcb, INTERRUPT_SHADOW) = 1;
}

static void rdtsc_intercepted(const struct trial *trial, int on)
{
        (void)trial;
        (void)on;
        VMCB32(vmcb, INTERCEPT_3) |= 1 << 14;
}

static void interrupt_intercepted(const struct trial *trial, int on)
{
        send_interrupt(trial, on);
        VMCB32(vmcb, INTERCEPT_3) |= 1 << INTERCEPT3_INTR;
}

/* V_IRQ is cleared by the delivery alone. */
static const char *virtual_irq(const struct trial *trial, int on)
{
        const int delivered = !on && (trial->off & 0xff) >= FAULTS_ && (trial->off & 0xff) <= TRAPS_;
        const int pending = (VMCB64(vmcb, V_CONTROL) & V_IRQ) != 0;
        if (delivered == pending)
                return pending ? "V_IRQ is still set" : "V_IRQ was cleared";
        return 0;
}

#define VIRTUAL FAULTS(VIRTUAL_VECTOR)
#define PENDING_AT(tpr) (V_IRQ | V_PRIORITY(VIRTUAL_VECTOR >> 4) | V_VECTOR(VIRTUAL_VECTOR) | (tpr))

static const struct trial vintr_trials[] = {
        {&nop, "IF set", KERNEL64, .off = VIRTUAL, .rflags = RFLAGS_IF, .v_control = PENDING_VIRTUAL, .inspect = virtual_irq},
        {&nop, "IF set", USER64, .off = VIRTUAL, .rflags = RFLAGS_IF, .v_control = PENDING_VIRTUAL, .inspect = virtual_irq},
        {&nop, "IF set", REAL, .off = VIRTUAL, .rflags = RFLAGS_IF, .v_control = PENDING_VIRTUAL, .inspect = virtual_irq},
        {&nop, "IF clear", KERNEL64, .on = COMPLETES, .v_control = PENDING_VIRTUAL, .inspect = virtual_irq},
        {&nop, "priority above V_TPR", KERNEL64, .off = VIRTUAL, .rflags = RFLAGS_IF,
         .v_control = PENDING_AT((VIRTUAL_VECTOR >> 4) - 1), .inspect = virtual_irq},
        {&nop, "priority equal to V_TPR", KERNEL64, .on = COMPLETES, .rflags = RFLAGS_IF,
         .v_control = PENDING_AT(VIRTUAL_VECTOR >> 4), .inspect = virtual_irq},
        {&nop, "priority below V_TPR", KERNEL64, .on = COMPLETES, .rflags = RFLAGS_IF,
         .v_control = PENDING_AT((VIRTUAL_VECTOR >> 4) + 1), .inspect = virtual_irq},
        {&nop, "priority below V_TPR, V_IGN_TPR", KERNEL64, .off = VIRTUAL, .rflags = RFLAGS_IF,
         .v_control = PENDING_AT((VIRTUAL_VECTOR >> 4) + 1) | V_IGN_TPR, .inspect = virtual_irq},
        {&nop, "in an interrupt shadow", KERNEL64, .off = TRAPS(VIRTUAL_VECTOR), .on = EXITS_AFTER, .rflags = RFLAGS_IF,
         .v_control = PENDING_VIRTUAL, .prepare = in_shadow, .inspect = virtual_irq},
        {&nop, "virtual GIF clear", KERNEL64, .on = COMPLETES, .rflags = RFLAGS_IF, .v_control = PENDING_VIRTUAL | V_GIF_ENABLE,
         .needs = VGIF, .inspect = virtual_irq},
        {&nop, "virtual GIF set", KERNEL64, .off = VIRTUAL, .rflags = RFLAGS_IF, .v_control = PENDING_VIRTUAL | V_GIF_ENABLE | V_GIF,
         .needs = VGIF, .inspect = virtual_irq},
        {&rdtsc, "RDTSC intercepted, too", KERNEL64, .off = VIRTUAL, .rflags = RFLAGS_IF, .v_control = PENDING_VIRTUAL,
         .prepare = rdtsc_intercepted, .inspect = virtual_irq},
        {&ud2, "IF set", KERNEL64, .off = VIRTUAL, .rflags = RFLAGS_IF, .v_control = PENDING_VIRTUAL, .inspect = virtual_irq},
        {&nop, "a physical interrupt intercepted, too", KERNEL64, .off = EXITS, .on = EXITS, .exit = EXIT_INTR, .rflags = RFLAGS_IF,
         .v_control = PENDING_VIRTUAL, .prepare = interrupt_intercepted, .inspect = interrupt_in_l1},
};

/* ---- SHUTDOWN ---- */

static void no_handlers(const struct trial *trial, int on)
{
        (void)trial;
        (void)on;
        *(u32 *)(vmcb + VMCB_IDTR + 4) = 0;
}

static void no_handlers_df(const struct trial *trial, int on)
{
        no_handlers(trial, on);
        VMCB32(vmcb, INTERCEPT_EXCEPTIONS) = 1 << DF;
}

static void no_handlers_gp(const struct trial *trial, int on)
{
        no_handlers(trial, on);
        VMCB32(vmcb, INTERCEPT_EXCEPTIONS) = 1 << GP;
}

static void no_gate_of_gp(const struct trial *trial, int on)
{
        (void)trial;
        (void)on;
        l2_idt64[GP].type = 0x6e;
}

#define UNSAVED .flags = NO_NEXT_RIP | NO_INTINFO       /* the state is undefined then */
static const struct trial shutdown_trials[] = {
        {&ud2, "no handlers", KERNEL64, .off = NOT_RUN, .on = EXITS_ANYWHERE, .prepare = no_handlers, UNSAVED},
        {&ud2, "no handlers", USER64, .off = NOT_RUN, .on = EXITS_ANYWHERE, .prepare = no_handlers, UNSAVED},
        {&ud2_16, "no handlers", REAL, .off = NOT_RUN, .on = EXITS_ANYWHERE, .prepare = no_handlers, UNSAVED},
        {&ud2, "no handlers, EXCEPTION_8 set, too", KERNEL64, .off = NOT_RUN, .on = EXITS_ANYWHERE, .exit = 0x48,
         .intinfo = EVENT_VALID | EVENT_EXCEPTION | EVENT_ERROR_VALID | GP | (u64)(UD * 8 + 3) << 32, .prepare = no_handlers_df},
        {&ud2, "no handlers, EXCEPTION_13 set, too", KERNEL64, .off = NOT_RUN, .on = EXITS, .exit = 0x4d,
         .intinfo = EVENT_VALID | EVENT_EXCEPTION | UD, .prepare = no_handlers_gp},
        {&load, "a handler of #DF alone", KERNEL64, .off = FAULTS(DF), .on = FAULTS(DF), .rbx = NON_CANONICAL,
         .prepare = no_gate_of_gp},
};

/* ---- FERR_FREEZE ---- */

static void x87_unmasked(const struct trial *trial, int on)
{
        (void)trial;
        (void)on;
        *(u16 *)DATA = 0x037b;  /* all masked but zero divide */
}

/* Without the intercept the processor waits for an interrupt that FERR# is wired to; with CR0.NE set there is no FERR#. */
static const struct trial ferr_trials[] = {
        {&fwait, "CR0.NE clear", KERNEL64, .off = NOT_RUN, .rbx = GOOD, .cr0 = CR0_NE, .prepare = x87_unmasked},
        {&fwait, "CR0.NE set", KERNEL64, .off = FAULTS(MF), .on = FAULTS(MF), .rbx = GOOD, .prepare = x87_unmasked},
};

#define EVENT_ROW(name, bit, exit, trials) {name, VMCB_INTERCEPT_3, bit, exit, BEFORE_EXCEPTIONS, 1, ALWAYS, TRIALS(trials)}

static const struct row table[] = {
        EVENT_ROW("INTR", INTERCEPT3_INTR, EXIT_INTR, intr_trials),
        EVENT_ROW("NMI", INTERCEPT3_NMI, EXIT_NMI, nmi_trials),
        EVENT_ROW("SMI", 2, 0x62, smi_trials),
        EVENT_ROW("INIT", 3, 0x63, init_trials),
        EVENT_ROW("VINTR", INTERCEPT3_VINTR, EXIT_VINTR, vintr_trials),
        EVENT_ROW("FERR_FREEZE", 30, 0x7e, ferr_trials),
        EVENT_ROW("SHUTDOWN", INTERCEPT3_SHUTDOWN, EXIT_SHUTDOWN, shutdown_trials),
};

void check_events(void) { check_rows(table, ARRAY_LENGTH(table)); }

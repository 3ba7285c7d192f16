/*
 * Instructions that wait: PAUSE and its filter, HLT, MONITOR, MWAIT. Where L2 may wait, an interrupt is pending, virtual or
 * physical, and STI's shadow holds it back until the instruction has begun.
 * Source: APM vol.2 §15.9 Instruction Intercepts (table 15-7), §15.14.4 Pause Intercept Filtering; APM vol.3, MONITOR, MWAIT.
 */
#include "intercepts.h"

INSTRUCTION(pause_, "pause");
#define EIGHT_PAUSES "pause; pause; pause; pause; pause; pause; pause; pause"
CODE_BYTES(pauses, "pause, eight times", "64", "", EIGHT_PAUSES);
CODE_BYTES(slow_pauses, "pause, eight times, far apart", "64", "",
           "movl $8, %ecx\n1: pause\n movl $5000, %edx\n2: decl %edx\n jnz 2b\n loop 1b");
INSTRUCTION(hlt, "hlt");
INSTRUCTION16(hlt16, "hlt");
AFTER(sti_hlt, "sti", "hlt");
CODE_BYTES(sti_hlt16, "sti; hlt", "16", "sti", "hlt");
INSTRUCTION(monitor, "monitor");
INSTRUCTION(monitor_fs, "fs monitor");
ENCODED(monitorx, "monitorx", "0x0f, 0x01, 0xfa");
INSTRUCTION(mwait, "mwait");
AFTER(sti_mwait, "sti", "mwait");
AFTER(monitor_mwait, "monitor; sti", "mwait");
CODE_BYTES(sti_mwaitx, "sti; mwaitx", "64", "sti", ".byte 0x0f, 0x01, 0xfb");
CODE_BYTES(monitorx_mwaitx, "monitorx; sti; mwaitx", "64", ".byte 0x0f, 0x01, 0xfa; sti", ".byte 0x0f, 0x01, 0xfb");

#define PAUSES_TO_PASS 3
#define PAUSE_BYTES 2

static void filter(u16 count, u16 threshold)
{
        *(volatile u16 *)(vmcb + 0x03c) = threshold;
        *(volatile u16 *)(vmcb + 0x03e) = count;
}

static void count_alone(const struct trial *trial, int on)
{
        (void)trial;
        (void)on;
        filter(PAUSES_TO_PASS, 0);
}

static void count_and_threshold(const struct trial *trial, int on)
{
        (void)trial;
        (void)on;
        filter(PAUSES_TO_PASS, 0xffff);
}

static void count_and_low_threshold(const struct trial *trial, int on)
{
        (void)trial;
        (void)on;
        filter(PAUSES_TO_PASS, 100);
}

/*
 * The manual has the exit both when the count "reaches zero" (§15.14.4) and when it "goes below zero" (table 15-7). With a
 * threshold the first PAUSE may reload the count, for the last one before it was long ago.
 */
static const char *count_ran_out(const struct trial *trial, int on)
{
        u64 passed = (VMCB64(vmcb, RIP) - rip_tested) / PAUSE_BYTES, most = PAUSES_TO_PASS;
        if (trial->prepare == count_and_threshold)
                most++;
        return on && (passed < PAUSES_TO_PASS - 1 || passed > most) ? "the count did not run out there" : 0;
}

static const struct trial pause_trials[] = {
        {&pause_, 0, KERNEL64},
        {&pause_, 0, USER64},
        {&pauses, "filter count 0", KERNEL64, .on = EXITS, .flags = NO_NEXT_RIP},
        {&pauses, "filter count 3", KERNEL64, .on = EXITS_ANYWHERE, .needs = PAUSE_FILTER, .prepare = count_alone,
         .inspect = count_ran_out, .flags = NO_NEXT_RIP},
        {&pauses, "filter count 3, high threshold", USER64, .on = EXITS_ANYWHERE, .needs = PAUSE_THRESHOLD,
         .prepare = count_and_threshold, .inspect = count_ran_out, .flags = NO_NEXT_RIP},
        {&slow_pauses, "filter count 3, low threshold", KERNEL64, .on = COMPLETES, .needs = PAUSE_THRESHOLD,
         .prepare = count_and_low_threshold},
};

static void also_hlt(const struct trial *trial, int on)
{
        (void)trial;
        (void)on;
        VMCB32(vmcb, INTERCEPT_3) |= 1 << INTERCEPT3_HLT;
}

/* Intercepted or not, the physical interrupt is there to end it. */
#define WOKEN .off = TRAPS(PHYSICAL_VECTOR), .prepare = send_interrupt, .inspect = interrupt_in_l1

static void send_interrupt_also_hlt(const struct trial *trial, int on)
{
        send_interrupt(trial, on);
        also_hlt(trial, on);
}

static const struct trial hlt_trials[] = {
        {&sti_hlt, "a physical interrupt pending", KERNEL64, WOKEN},
        {&sti_hlt, "a virtual interrupt pending", KERNEL64, .off = TRAPS(VIRTUAL_VECTOR), .v_control = PENDING_VIRTUAL},
        {&sti_hlt16, "a physical interrupt pending", REAL, WOKEN},
        {&hlt, 0, USER64, {PRIVILEGE, GP, 0}},
        {&hlt16, 0, V86, {PRIVILEGE, GP, 0}},
}, idle_trials[] = {
        {&sti_hlt, "a physical interrupt pending", KERNEL64, WOKEN, .needs = IDLE_HLT_INTERCEPT},
        {&hlt, 0, USER64, {PRIVILEGE, GP, 0}, .needs = IDLE_HLT_INTERCEPT},
        {&sti_hlt, "a virtual interrupt pending", KERNEL64, .off = TRAPS(VIRTUAL_VECTOR), .on = TRAPS(VIRTUAL_VECTOR),
         .v_control = PENDING_VIRTUAL, .needs = IDLE_HLT_INTERCEPT},
        {&sti_hlt, "a physical interrupt pending, HLT set, too", KERNEL64, .on = EXITS, .off = EXITS, .exit = EXIT_HLT,
         .needs = IDLE_HLT_INTERCEPT, .prepare = send_interrupt_also_hlt, .inspect = interrupt_in_l1},
};

static void monitor_unarmed(const struct trial *trial, int on)
{
        (void)trial;
        (void)on;
        disarm_monitor();
}

static void address_by_fs(const struct trial *trial, int on)
{
        (void)trial;
        (void)on;
        *(u64 *)(vmcb + VMCB_FS + 8) = ABSENT - GOOD;
}

/* All exceptions come first, those of the address as well. */
static const struct trial monitor_trials[] = {
        {&monitor, 0, KERNEL64, .rax = GOOD},
        {&monitor, 0, USER64, {PRIVILEGE, UD, 0}, .rax = GOOD},
        {&monitor, "ECX 1", KERNEL64, {PRIVILEGE, GP, 0}, .rax = GOOD, .rcx = 1},
        {&monitor, "page absent", KERNEL64, {OPERAND, PF, 0}, .rax = ABSENT, .cr2 = ABSENT},
        {&monitor, "not canonical", KERNEL64, {OPERAND, GP, 0}, .rax = NON_CANONICAL},
        {&monitor_fs, "page absent by FS.base", KERNEL64, {OPERAND, PF, 0}, .rax = GOOD, .cr2 = ABSENT, .prepare = address_by_fs},
        {&monitor, "page read-only", KERNEL64, .rax = READ_ONLY},
        {&monitorx, 0, USER64, .rax = GOOD, .needs = MWAITX},
        {&monitorx, "page absent", USER64, {OPERAND, PF, PF_USER}, .rax = ABSENT, .cr2 = ABSENT, .needs = MWAITX},
        {&monitorx, "page of the supervisor", USER64, {OPERAND, PF, PF_PRESENT | PF_USER}, .rax = SUPERVISOR, .cr2 = SUPERVISOR,
         .needs = MWAITX},
};

#define MWAIT_BIT 11
#define MWAIT_ARMED_BIT 12
#define EXIT_MWAIT 0x8b
#define EXIT_MWAIT_ARMED 0x8c

static void also_mwait(const struct trial *trial, int on)
{
        (void)trial;
        (void)on;
        disarm_monitor();
        VMCB32(vmcb, INTERCEPT_4) |= 1 << MWAIT_BIT;
}

static void also_mwait_armed(const struct trial *trial, int on)
{
        (void)trial;
        (void)on;
        disarm_monitor();
        VMCB32(vmcb, INTERCEPT_4) |= 1 << MWAIT_ARMED_BIT;
}

/* The interrupt comes behind MWAIT, whether that has waited or not. */
#define WAITS .off = TRAPS(VIRTUAL_VECTOR), .rax = GOOD, .v_control = PENDING_VIRTUAL
#define NOT_ARMED .off = TRAPS(VIRTUAL_VECTOR), .v_control = PENDING_VIRTUAL, .prepare = monitor_unarmed

static const struct trial mwait_trials[] = {
        {&sti_mwait, "not armed", KERNEL64, NOT_ARMED},
        {&monitor_mwait, "armed", KERNEL64, WAITS},
        {&mwait, 0, USER64, {PRIVILEGE, UD, 0}, .prepare = monitor_unarmed},
        {&mwait, "ECX 2", KERNEL64, {PRIVILEGE, GP, 0}, .rcx = 2, .prepare = monitor_unarmed},
        {&sti_mwait, "not armed, MWAIT_ARMED set, too", KERNEL64, .off = TRAPS(VIRTUAL_VECTOR), .v_control = PENDING_VIRTUAL,
         .prepare = also_mwait_armed},
        {&monitor_mwait, "armed, MWAIT_ARMED set, too", KERNEL64, .off = EXITS, .on = EXITS, .exit = EXIT_MWAIT_ARMED, .rax = GOOD,
         .v_control = PENDING_VIRTUAL, .prepare = also_mwait_armed},
        {&sti_mwaitx, "IOPL 3, not armed", USER64, NOT_ARMED, .rflags = RFLAGS_IOPL, .needs = MWAITX},
        {&monitorx_mwaitx, "IOPL 3, armed", USER64, WAITS, .rflags = RFLAGS_IOPL, .needs = MWAITX},
}, armed_trials[] = {
        {&monitor_mwait, "armed", KERNEL64, WAITS},
        {&sti_mwait, "not armed", KERNEL64, .on = TRAPS(VIRTUAL_VECTOR), NOT_ARMED},
        {&mwait, 0, USER64, {PRIVILEGE, UD, 0}, .prepare = monitor_unarmed},
        {&mwait, "ECX 2", KERNEL64, {PRIVILEGE, GP, 0}, .rcx = 2, .prepare = monitor_unarmed},
        {&sti_mwait, "not armed, MWAIT set, too", KERNEL64, .off = EXITS, .on = EXITS, .exit = EXIT_MWAIT,
         .v_control = PENDING_VIRTUAL, .prepare = also_mwait},
        {&monitorx_mwaitx, "IOPL 3, armed", USER64, WAITS, .rflags = RFLAGS_IOPL, .needs = MWAITX},
        {&sti_mwaitx, "IOPL 3, not armed", USER64, .on = TRAPS(VIRTUAL_VECTOR), NOT_ARMED, .rflags = RFLAGS_IOPL, .needs = MWAITX},
};

static const struct row table[] = {
        {"PAUSE", VMCB_INTERCEPT_3, 23, 0x77, BEFORE_EXCEPTIONS, 0, ALWAYS, TRIALS(pause_trials)},
        {"HLT", VMCB_INTERCEPT_3, INTERCEPT3_HLT, EXIT_HLT, AFTER_PRIVILEGE, 0, ALWAYS, TRIALS(hlt_trials)},
        {"MONITOR", VMCB_INTERCEPT_4, 10, 0x8a, AFTER_MEMORY, 0, MONITOR_MWAIT, TRIALS(monitor_trials)},
        {"MWAIT", VMCB_INTERCEPT_4, MWAIT_BIT, EXIT_MWAIT, AFTER_PRIVILEGE, 0, MONITOR_MWAIT, TRIALS(mwait_trials)},
        {"MWAIT_ARMED", VMCB_INTERCEPT_4, MWAIT_ARMED_BIT, EXIT_MWAIT_ARMED, AFTER_PRIVILEGE, 0, MONITOR_MWAIT, TRIALS(armed_trials)},
        {"IDLE_HLT", VMCB_INTERCEPT_5, 6, 0xa6, AFTER_PRIVILEGE, 0, ALWAYS, TRIALS(idle_trials)},
};

void check_waiting(void) { check_rows(table, ARRAY_LENGTH(table)); }

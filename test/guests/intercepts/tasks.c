/*
 * Task switches, in legacy mode: by JMP, CALL, IRET, and events through task gates. The task-state segment and the gate
 * are checked first; nothing of the switch has happened when the exit comes.
 * Source: APM vol.2 §15.14.1 Task Switch Intercept, §12.3 Hardware Task-Management in Legacy Mode.
 */
#include "intercepts.h"

INSTRUCTION32(jump, "ljmp $0x70, $0");
INSTRUCTION32(jump_busy, "ljmp $0x80, $0");
INSTRUCTION32(jump_absent, "ljmp $0x88, $0");
INSTRUCTION32(jump_short, "ljmp $0x90, $0");
INSTRUCTION32(call, "lcall $0x70, $0");
INSTRUCTION32(call_busy, "lcall $0x80, $0");
INSTRUCTION32(iret, "iretl");
INSTRUCTION32(int_gate, "int $0x21");
INSTRUCTION32(load_ds, "movl %edx, %ds");
INSTRUCTION32(ud2, "ud2");

/* EXITINFO2 */
#define BY_IRET (1ul << 36)
#define BY_JUMP (1ul << 38)
#define HAS_ERROR_CODE (1ul << 44)
#define OUTGOING_RF (1ul << 48)

#define BAD_SELECTOR 0x1230

static void task_gate(u32 vector, u32 selector) { l2_idt32[vector] = (u64)selector << 16 | 0xe500ul << 32; }

static void gate_to_task(const struct trial *trial, int on)
{
        (void)on;
        task_gate(trial->instruction == &load_ds ? GP : trial->instruction == &ud2 ? UD : 0x21, SEL_TSS_FREE);
}

static void gate_to_busy_task(const struct trial *trial, int on)
{
        (void)trial;
        (void)on;
        task_gate(0x21, SEL_TSS_BUSY);
}

static void gate_to_absent_task(const struct trial *trial, int on)
{
        (void)trial;
        (void)on;
        task_gate(0x21, SEL_TSS_ABSENT);
}

static void linked_to(u16 selector) { l2_tss32.link = selector; }

static void back_link(const struct trial *trial, int on)
{
        (void)trial;
        (void)on;
        linked_to(SEL_TSS_BUSY);
}

static void back_link_to_free(const struct trial *trial, int on)
{
        (void)trial;
        (void)on;
        linked_to(SEL_TSS_FREE);
}

#define INFO .flags = INFO1 | INFO2
static const struct trial trials[] = {
        {&jump, 0, KERNEL32, .off = SWITCHES, .info1 = SEL_TSS_FREE, .info2 = BY_JUMP, INFO},
        {&call, 0, KERNEL32, .off = SWITCHES, .info1 = SEL_TSS_FREE, INFO},
        {&iret, "RFLAGS.NT", KERNEL32, .off = SWITCHES, .rflags = RFLAGS_NT, .info1 = SEL_TSS_BUSY, .info2 = BY_IRET, INFO,
         .prepare = back_link},
        {&int_gate, "task gate", KERNEL32, .off = SWITCHES, .info1 = SEL_TSS_FREE, INFO, .intinfo = EVENT_VALID | EVENT_SOFTWARE | 0x21,
         .prepare = gate_to_task},
        {&int_gate, "task gate", USER32, .off = SWITCHES, .info1 = SEL_TSS_FREE, INFO, .intinfo = EVENT_VALID | EVENT_SOFTWARE | 0x21,
         .prepare = gate_to_task},
        {&load_ds, "#GP through a task gate", KERNEL32, .off = SWITCHES, .rdx = BAD_SELECTOR, .info1 = SEL_TSS_FREE,
         .info2 = HAS_ERROR_CODE | OUTGOING_RF | BAD_SELECTOR, INFO, .intinfo = EVENT_VALID | EVENT_EXCEPTION | EVENT_ERROR_VALID |
         GP | (u64)BAD_SELECTOR << 32, .prepare = gate_to_task},
        {&ud2, "#UD through a task gate", USER32, .off = SWITCHES, .info1 = SEL_TSS_FREE, .info2 = OUTGOING_RF, INFO,
         .intinfo = EVENT_VALID | EVENT_EXCEPTION | UD, .prepare = gate_to_task},

        {&jump, "TSS of DPL 0", USER32, {OPERAND, GP, SEL_TSS_FREE}},
        {&jump_busy, "busy", KERNEL32, {OPERAND, GP, SEL_TSS_BUSY}},
        {&call_busy, "busy", KERNEL32, {OPERAND, GP, SEL_TSS_BUSY}},
        {&jump_absent, "TSS absent", KERNEL32, {OPERAND, NP, SEL_TSS_ABSENT}},
        {&jump_short, "TSS too short", KERNEL32, {OPERAND, TS, SEL_TSS_SHORT}},
        {&iret, "RFLAGS.NT, the back link is of a task that is not busy", KERNEL32, {OPERAND, TS, SEL_TSS_FREE}, .rflags = RFLAGS_NT,
         .prepare = back_link_to_free},
        {&int_gate, "task gate, busy", KERNEL32, {OPERAND, GP, SEL_TSS_BUSY}, .prepare = gate_to_busy_task},
        {&int_gate, "task gate, TSS absent", KERNEL32, {OPERAND, NP, SEL_TSS_ABSENT}, .prepare = gate_to_absent_task},
};

static const struct row row = {"TASK_SWITCH", VMCB_INTERCEPT_3, 29, 0x7d, AFTER_MEMORY, 1, ALWAYS, TRIALS(trials)};

void check_tasks(void) { check_row(&row); }

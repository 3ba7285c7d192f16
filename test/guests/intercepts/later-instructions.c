/*
 * Instructions of later processors: RDPRU, INVPCID, INVLPGB, TLBSYNC, MCOMMIT, and bus locks. Where CPUID does not report
 * one, it is #UD, and its intercept changes nothing.
 * Source: APM vol.2 §15.9 Instruction Intercepts (table 15-7), §15.14.5 Bus Lock Threshold; APM vol.3.
 */
#include "intercepts.h"

ENCODED(rdpru, "rdpru", "0x0f, 0x01, 0xfd");
ENCODED(invpcid, "invpcid (%rbx), %rdx", "0x66, 0x0f, 0x38, 0x82, 0x13");
ENCODED(invlpgb, "invlpgb", "0x0f, 0x01, 0xfe");
ENCODED(tlbsync, "tlbsync", "0x0f, 0x01, 0xff");
ENCODED(mcommit, "mcommit", "0xf3, 0x0f, 0x01, 0xfa");
INSTRUCTION(split_lock, "lock addl $1, 62(%rbx)");

#define INVPCID_ALL 2
#define INVPCID_BAD 4

static const struct trial rdpru_trials[] = {
        {&rdpru, 0, KERNEL64},
        {&rdpru, 0, USER64},
        {&rdpru, "CR4.TSD", KERNEL64, .cr4 = CR4_TSD},
        {&rdpru, "CR4.TSD", USER64, {PRIVILEGE, UD, 0}, .cr4 = CR4_TSD},
}, invpcid_trials[] = {
        {&invpcid, 0, KERNEL64, .rbx = GOOD, .rdx = INVPCID_ALL, .info1 = GOOD, .info2 = INVPCID_ALL, .flags = INFO1 | INFO2},
        {&invpcid, 0, USER64, {PRIVILEGE, GP, 0}, .rbx = GOOD, .rdx = INVPCID_ALL},
        {&invpcid, "no such type", KERNEL64, {OPERAND, GP, 0}, .rbx = GOOD, .rdx = INVPCID_BAD, .info1 = GOOD,
         .info2 = INVPCID_BAD, .flags = INFO1 | INFO2},
        {&invpcid, "page absent", KERNEL64, {OPERAND, PF, 0}, .rbx = ABSENT, .rdx = INVPCID_ALL, .info1 = ABSENT,
         .info2 = INVPCID_ALL, .flags = INFO1 | INFO2},
        {&invpcid, "page absent", USER64, {PRIVILEGE, GP, 0}, .rbx = ABSENT, .rdx = INVPCID_ALL},
        {&invpcid, "not canonical", KERNEL64, {OPERAND, GP, 0}, .rbx = NON_CANONICAL, .rdx = INVPCID_ALL},
};

static void allow_in_guest(const struct trial *trial, int on)
{
        (void)trial;
        (void)on;
        if (has(INVLPGB_IN_GUEST))
                VMCB64(vmcb, NP_ENABLE) |= 1 << 7;
}

/* RAX 2: all addresses of the PCID in EDX[27:16]. Bits 11:6 of RAX are reserved, which makes an INVLPGB illegal. */
static const struct trial invlpgb_trials[] = {
        {&invlpgb, 0, KERNEL64, .rax = 2, .rdx = 1, .prepare = allow_in_guest},
        {&invlpgb, 0, USER64, {PRIVILEGE, GP, 0}, .rax = 2, .rdx = 1, .prepare = allow_in_guest},
        {&invlpgb, "reserved bits of RAX", KERNEL64, {OPERAND, GP, 0}, .rax = 2 | 1 << 11, .rdx = 1, .prepare = allow_in_guest},
        {&invlpgb, "reserved bits of RAX", USER64, {PRIVILEGE, GP, 0}, .rax = 2 | 1 << 11, .rdx = 1, .prepare = allow_in_guest},
}, illegal_trials[] = {
        {&invlpgb, "reserved bits of RAX", KERNEL64, {OPERAND, GP, 0}, .rax = 2 | 1 << 11, .rdx = 1, .prepare = allow_in_guest},
        {&invlpgb, "reserved bits of RAX", USER64, {PRIVILEGE, GP, 0}, .rax = 2 | 1 << 11, .rdx = 1, .prepare = allow_in_guest},
        {&invlpgb, 0, KERNEL64, .on = COMPLETES, .rax = 2, .rdx = 1, .prepare = allow_in_guest},
}, tlbsync_trials[] = {
        {&tlbsync, 0, KERNEL64, .prepare = allow_in_guest},
        {&tlbsync, 0, USER64, {PRIVILEGE, GP, 0}, .prepare = allow_in_guest},
}, mcommit_trials[] = {
        {&mcommit, "EFER.MCOMMIT clear", KERNEL64, {DECODE, UD, 0}},
        {&mcommit, "EFER.MCOMMIT clear", USER64, {DECODE, UD, 0}},
};

#define BUS_LOCK_COUNTER 0x120

static void one_bus_lock(const struct trial *trial, int on)
{
        (void)trial;
        (void)on;
        *(volatile u16 *)(vmcb + BUS_LOCK_COUNTER) = 1;
}

static const char *counter_is_zero(const struct trial *trial, int on)
{
        (void)trial;
        return on && *(volatile u16 *)(vmcb + BUS_LOCK_COUNTER) != 0 ? "the counter was not written" : 0;
}

/* A locked access across cache lines. */
static const struct trial bus_lock_trials[] = {
        {&split_lock, "counter 0", KERNEL64, .rbx = GOOD, .needs = BUS_LOCK_THRESHOLD, .info1 = 0, .info2 = 0, .flags = INFO1 | INFO2},
        {&split_lock, "counter 1", KERNEL64, .on = COMPLETES, .rbx = GOOD, .needs = BUS_LOCK_THRESHOLD, .prepare = one_bus_lock,
         .inspect = counter_is_zero},
};

static const struct row table[] = {
        {"RDPRU", VMCB_INTERCEPT_4, 14, 0x8e, AFTER_PRIVILEGE, 0, RDPRU, TRIALS(rdpru_trials)},
        {"INVLPGB", VMCB_INTERCEPT_5, 0, 0xa0, AFTER_PRIVILEGE, 0, INVLPGB, TRIALS(invlpgb_trials)},
        {"INVLPGB_ILLEGAL", VMCB_INTERCEPT_5, 1, 0xa1, AFTER_PRIVILEGE, 0, INVLPGB, TRIALS(illegal_trials)},
        {"INVPCID", VMCB_INTERCEPT_5, 2, 0xa2, AFTER_PRIVILEGE, 0, INVPCID, TRIALS(invpcid_trials)},
        {"MCOMMIT", VMCB_INTERCEPT_5, 3, 0xa3, AFTER_PRIVILEGE, 0, MCOMMIT, TRIALS(mcommit_trials)},
        {"TLBSYNC", VMCB_INTERCEPT_5, 4, 0xa4, AFTER_PRIVILEGE, 0, INVLPGB, TRIALS(tlbsync_trials)},
        {"BUSLOCK_THRESHOLD", VMCB_INTERCEPT_5, 5, 0xa5, BEFORE_EXCEPTIONS, 1, ALWAYS, TRIALS(bus_lock_trials)},
};

void check_later_instructions(void) { check_rows(table, ARRAY_LENGTH(table)); }

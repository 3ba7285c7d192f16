/*
 * Debug registers. DR4 and DR5 are other names of DR6 and DR7 unless CR4.DE is
 * set, with intercepts of their own.
 * Source: APM vol.2 §15.9 Instruction Intercepts (table 15-7), §13.1.1 Debug Registers.
 */
#include "intercepts.h"

#define FROM_DR(n) INSTRUCTION(from_dr##n, "mov %db" #n ", %rdx");
#define TO_DR(n) INSTRUCTION(to_dr##n, "mov %rdx, %db" #n);
#define EACH(X) X(0) X(1) X(2) X(3) X(4) X(5) X(6) X(7) X(8) X(9) X(10) X(11) X(12) X(13) X(14) X(15)
EACH(FROM_DR)
EACH(TO_DR)
#define POINTER_FROM(n) &from_dr##n,
#define POINTER_TO(n) &to_dr##n,
static const struct instruction *const from_dr[] = {EACH(POINTER_FROM)}, *const to_dr[] = {EACH(POINTER_TO)};
INSTRUCTION(from_dr7_r13, "mov %db7, %r13");

#define RDX 2
#define R13 13
#define DR6_VALUE 0xffff0ff0
#define DR7_VALUE 0x400

static void check_dr(u32 n, int write)
{
        const struct instruction *it = (write ? to_dr : from_dr)[n];
        const int control = n == 4 || n == 5 || n == 6 || n == 7;
        const u64 value = n == 4 || n == 6 ? DR6_VALUE : n == 5 || n == 7 ? DR7_VALUE : 0;
        const struct trial each[] = {
                {it, .mode = KERNEL64, .rdx = value, .info1 = RDX, .flags = INFO1_ASSIST},
                {it, .mode = USER64, .fault = {PRIVILEGE, GP, 0}, .rdx = value},
                {it, "DR7.GD", KERNEL64, {PRIVILEGE, DB, 0}, .rdx = value, .dr7 = DR7_GD},
                {it, "CR4.DE", KERNEL64, .rdx = value, .cr4 = CR4_DE, .info1 = RDX, .flags = INFO1_ASSIST},
                {it, "bit 32", KERNEL64, {PRIVILEGE, GP, 0}, .rdx = value | 1ul << 32},
        }, aliases[] = {
                each[0], each[1], each[2],
                {it, "CR4.DE", KERNEL64, {DECODE, UD, 0}, .rdx = value, .cr4 = CR4_DE},
                each[4],
        }, seventh[] = {
                each[0], each[1], each[2], each[3],
                {&from_dr7_r13, 0, KERNEL64, .info1 = R13, .flags = INFO1_ASSIST},
        }, none[] = {
                {it, 0, KERNEL64, {DECODE, UD, 0}},
                {it, 0, USER64, {DECODE, UD, 0}},
        };
        char name[24];
        struct row row = {numbered(name, "DR", n, write ? "_WRITE" : "_READ"), VMCB_INTERCEPT_DR, (u8)(write * 16 + n),
                          (u16)(0x20 + write * 0x10 + n), AFTER_PRIVILEGE, n >= 8, ALWAYS, each, control && write ? 5 : 4};
        if (n == 4 || n == 5)
                row.trials = aliases;
        if (n == 7 && !write) {
                row.trials = seventh;
                row.count = ARRAY_LENGTH(seventh);
        }
        if (n >= 8) {
                row.trials = none;
                row.count = ARRAY_LENGTH(none);
        }
        check_row(&row);
}

void check_debug_registers(void)
{
        for (u32 n = 0; n < 16; n++)
                check_dr(n, 0);
        for (u32 n = 0; n < 16; n++)
                check_dr(n, 1);
}

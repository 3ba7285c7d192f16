/*
 * Loads and stores of GDTR, IDTR, LDTR and TR: #UD and #GP of privilege first, then the
 * intercept, then memory and descriptors.
 * Source: APM vol.2 §15.9 Instruction Intercepts (table 15-7).
 */
#include "intercepts.h"

INSTRUCTION(sidt, "sidt (%rbx)");
INSTRUCTION(sgdt, "sgdt (%rbx)");
INSTRUCTION(lidt, "lidt (%rbx)");
INSTRUCTION(lgdt, "lgdt (%rbx)");
INSTRUCTION16(sidt16, "sidt (%bx)");
INSTRUCTION16(sgdt16, "sgdt (%bx)");
INSTRUCTION16(lidt16, "lidt (%bx)");
INSTRUCTION16(lgdt16, "lgdt (%bx)");
INSTRUCTION(sldt_register, "sldt %dx");
INSTRUCTION(sldt_memory, "sldt (%rbx)");
INSTRUCTION(str_register, "str %dx");
INSTRUCTION(str_memory, "str (%rbx)");
INSTRUCTION(lldt_register, "lldt %dx");
INSTRUCTION(lldt_memory, "lldt (%rbx)");
INSTRUCTION(ltr_register, "ltr %dx");
INSTRUCTION(ltr_memory, "ltr (%rbx)");
INSTRUCTION16(sldt16, "sldt %dx");
INSTRUCTION16(str16, "str %dx");
INSTRUCTION16(lldt16, "lldt %dx");
INSTRUCTION16(ltr16, "ltr %dx");

#define DATA16 (DATA - LOW)

/* What LIDT and LGDT are to read: the tables that L2 has, so that it can go on; the RDX of a trial is XORed in. */
static void table_in_memory(const struct trial *trial, u32 field)
{
        u64 base = *(u64 *)(vmcb + field + 8) ^ trial->rdx;
        memcpy((void *)DATA, vmcb + field + 4, 2);
        memcpy((void *)(DATA + 2), &base, 8);
}

static void idt_in_memory(const struct trial *trial, int on)
{
        (void)on;
        table_in_memory(trial, VMCB_IDTR);
}

static void gdt_in_memory(const struct trial *trial, int on)
{
        (void)on;
        table_in_memory(trial, VMCB_GDTR);
}

static void selector_in_memory(const struct trial *trial, int on)
{
        (void)on;
        *(u16 *)DATA = (u16)trial->rdx;
}

#define STORE_TABLE(it, it16)                                                                              \
        {                                                                                                  \
                {&it, 0, KERNEL64, .rbx = GOOD},                                                           \
                {&it, 0, USER64, .rbx = GOOD},                                                             \
                {&it16, 0, REAL, .rbx = DATA16},                                                           \
                {&it, "CR4.UMIP", KERNEL64, .rbx = GOOD, .cr4 = CR4_UMIP, .needs = UMIP},                  \
                {&it, "CR4.UMIP", USER64, {PRIVILEGE, GP, 0}, .rbx = GOOD, .cr4 = CR4_UMIP, .needs = UMIP}, \
                {&it, "CR4.UMIP, page absent", USER64, {PRIVILEGE, GP, 0}, .rbx = ABSENT, .cr4 = CR4_UMIP, \
                 .needs = UMIP},                                                                           \
                {&it, "page absent", KERNEL64, {OPERAND, PF, PF_WRITE}, .rbx = ABSENT},                    \
                {&it, "page absent", USER64, {OPERAND, PF, PF_WRITE | PF_USER}, .rbx = ABSENT},            \
                {&it, "page read-only", KERNEL64, {OPERAND, PF, PF_PRESENT | PF_WRITE}, .rbx = READ_ONLY}, \
                {&it, "not canonical", KERNEL64, {OPERAND, GP, 0}, .rbx = NON_CANONICAL},                  \
        }
#define LOAD_TABLE(it, it16, contents)                                                                     \
        {                                                                                                  \
                {&it, 0, KERNEL64, .rbx = GOOD, .prepare = contents, .flags = COMMITS},                    \
                {&it16, 0, REAL, .rbx = DATA16, .prepare = contents},                                      \
                {&it, 0, USER64, {PRIVILEGE, GP, 0}, .rbx = GOOD, .prepare = contents},                    \
                {&it16, 0, V86, {PRIVILEGE, GP, 0}, .rbx = DATA16, .prepare = contents},                   \
                {&it, "page absent", USER64, {PRIVILEGE, GP, 0}, .rbx = ABSENT},                           \
                {&it, "page absent", KERNEL64, {OPERAND, PF, 0}, .rbx = ABSENT},                           \
                {&it, "not canonical", KERNEL64, {OPERAND, GP, 0}, .rbx = NON_CANONICAL},                  \
                {&it, "base not canonical", KERNEL64, {OPERAND, GP, 0}, .rbx = GOOD, .rdx = 1ul << 62,     \
                 .prepare = contents},                                                                     \
        }
#define STORE_SELECTOR(in_register, in_memory, it16)                                                       \
        {                                                                                                  \
                {&in_register, 0, KERNEL64},                                                               \
                {&in_register, 0, USER64},                                                                 \
                {&it16, 0, REAL, {DECODE, UD, 0}},                                                         \
                {&it16, 0, V86, {DECODE, UD, 0}},                                                          \
                {&in_register, "CR4.UMIP", KERNEL64, .cr4 = CR4_UMIP, .needs = UMIP},                      \
                {&in_register, "CR4.UMIP", USER64, {PRIVILEGE, GP, 0}, .cr4 = CR4_UMIP, .needs = UMIP},    \
                {&in_memory, 0, USER64, .rbx = GOOD},                                                      \
                {&in_memory, "page absent", KERNEL64, {OPERAND, PF, PF_WRITE}, .rbx = ABSENT},             \
                {&in_memory, "page read-only", USER64, {OPERAND, PF, PF_PRESENT | PF_WRITE | PF_USER},     \
                 .rbx = READ_ONLY},                                                                        \
                {&in_memory, "not canonical", KERNEL64, {OPERAND, GP, 0}, .rbx = NON_CANONICAL},           \
        }
#define LOAD_SELECTOR(in_register, in_memory, it16, good)                                                  \
        {                                                                                                  \
                {&in_register, 0, KERNEL64, .rdx = good},                                                  \
                {&in_register, 0, USER64, {PRIVILEGE, GP, 0}, .rdx = good},                                \
                {&it16, 0, REAL, {DECODE, UD, 0}},                                                         \
                {&it16, 0, V86, {DECODE, UD, 0}},                                                          \
                {&in_memory, 0, KERNEL64, .rbx = GOOD, .rdx = good, .prepare = selector_in_memory},        \
                {&in_memory, "page absent", USER64, {PRIVILEGE, GP, 0}, .rbx = ABSENT},                    \
                {&in_memory, "page absent", KERNEL64, {OPERAND, PF, 0}, .rbx = ABSENT},                    \
                {&in_memory, "not canonical", KERNEL64, {OPERAND, GP, 0}, .rbx = NON_CANONICAL},           \
                {&in_register, "selector of a code segment", KERNEL64, {OPERAND, GP, SEL_CODE64},          \
                 .rdx = SEL_CODE64},                                                                       \
                {&in_register, "selector past the table", KERNEL64, {OPERAND, GP, GDT_SLOTS * 8},          \
                 .rdx = GDT_SLOTS * 8},                                                                    \
        }

static const struct trial sidt_trials[] = STORE_TABLE(sidt, sidt16), sgdt_trials[] = STORE_TABLE(sgdt, sgdt16),
                          lidt_trials[] = LOAD_TABLE(lidt, lidt16, idt_in_memory),
                          lgdt_trials[] = LOAD_TABLE(lgdt, lgdt16, gdt_in_memory),
                          sldt_trials[] = STORE_SELECTOR(sldt_register, sldt_memory, sldt16),
                          str_trials[] = STORE_SELECTOR(str_register, str_memory, str16),
                          lldt_trials[] = LOAD_SELECTOR(lldt_register, lldt_memory, lldt16, SEL_LDT),
                          ltr_trials[] = LOAD_SELECTOR(ltr_register, ltr_memory, ltr16, SEL_TSS_FREE);

static const struct row table[] = {
        {"IDTR_READ", VMCB_INTERCEPT_3, 6, 0x66, AFTER_PRIVILEGE, 0, ALWAYS, TRIALS(sidt_trials)},
        {"GDTR_READ", VMCB_INTERCEPT_3, 7, 0x67, AFTER_PRIVILEGE, 0, ALWAYS, TRIALS(sgdt_trials)},
        {"LDTR_READ", VMCB_INTERCEPT_3, 8, 0x68, AFTER_PRIVILEGE, 0, ALWAYS, TRIALS(sldt_trials)},
        {"TR_READ", VMCB_INTERCEPT_3, 9, 0x69, AFTER_PRIVILEGE, 0, ALWAYS, TRIALS(str_trials)},
        {"IDTR_WRITE", VMCB_INTERCEPT_3, 10, 0x6a, AFTER_PRIVILEGE, 0, ALWAYS, TRIALS(lidt_trials)},
        {"GDTR_WRITE", VMCB_INTERCEPT_3, 11, 0x6b, AFTER_PRIVILEGE, 0, ALWAYS, TRIALS(lgdt_trials)},
        {"LDTR_WRITE", VMCB_INTERCEPT_3, 12, 0x6c, AFTER_PRIVILEGE, 0, ALWAYS, TRIALS(lldt_trials)},
        {"TR_WRITE", VMCB_INTERCEPT_3, 13, 0x6d, AFTER_PRIVILEGE, 0, ALWAYS, TRIALS(ltr_trials)},
};

void check_descriptor_tables(void) { check_rows(table, ARRAY_LENGTH(table)); }

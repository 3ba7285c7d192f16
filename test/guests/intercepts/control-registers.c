/*
 * Control registers: MOV to and from CRn, SMSW, LMSW, CLTS; the selective
 * intercept of CR0; traps behind writes.
 * Source: APM vol.2 §15.8.1 MOV CRx/DRx Intercepts, §15.9 Instruction Intercepts (table 15-7).
 */
#include "intercepts.h"

#define FROM_CR(n) INSTRUCTION(from_cr##n, "mov %cr" #n ", %rdx");
#define TO_CR(n) INSTRUCTION(to_cr##n, "mov %rdx, %cr" #n);
#define EACH(X) X(0) X(1) X(2) X(3) X(4) X(5) X(6) X(7) X(8) X(9) X(10) X(11) X(12) X(13) X(14) X(15)
EACH(FROM_CR)
EACH(TO_CR)
#define POINTER_FROM(n) &from_cr##n,
#define POINTER_TO(n) &to_cr##n,
static const struct instruction *const from_cr[] = {EACH(POINTER_FROM)}, *const to_cr[] = {EACH(POINTER_TO)};

INSTRUCTION(from_cr0_r13, "mov %cr0, %r13");
INSTRUCTION(to_cr0_r13, "mov %r13, %cr0");
INSTRUCTION32(from_cr3_32, "mov %cr3, %edx");
INSTRUCTION32(to_cr3_32, "mov %edx, %cr3");
ENCODED(lock_from_cr0, "lock mov %cr0, %edx", "0xf0, 0x0f, 0x20, 0xc2");
ENCODED(lock_to_cr0, "lock mov %edx, %cr0", "0xf0, 0x0f, 0x22, 0xc2");
ENCODED(lock_from_cr3, "lock mov %cr3, %rdx", "0xf0, 0x0f, 0x20, 0xda");
INSTRUCTION(smsw_register, "smsw %rdx");
INSTRUCTION(smsw_memory, "smsw (%rbx)");
INSTRUCTION16(smsw_real, "smsw %dx");
INSTRUCTION(lmsw_register, "lmsw %dx");
INSTRUCTION(lmsw_memory, "lmsw (%rbx)");
INSTRUCTION(clts, "clts");

#define MOV_CR(gpr) (1ul << 63 | (gpr))
#define RDX 2
#define R13 13

static int exists(u32 n) { return n == 0 || n == 2 || n == 3 || n == 4 || n == 8; }

/* What L2 has in CRn, so that writing it changes nothing; CR3 comes from the VMCB. */
static const u64 values[16] = {[0] = L2_CR0, [2] = CR2_AT_FIRST, [4] = L2_CR4, [8] = 0};
static const u64 bad_pdpt[4] __attribute__((aligned(32))) = {0x1e7};    /* reserved bits of a present entry */

static void value_of_cr3(const struct trial *trial, int on)
{
        (void)trial;
        (void)on;
        regs.rdx = VMCB64(vmcb, CR3);
}

static void value_in_r13(const struct trial *trial, int on)
{
        (void)on;
        regs.r13 = trial->rdx;
}

static void address_of_bad_pdpt(const struct trial *trial, int on)
{
        (void)trial;
        (void)on;
        regs.rdx = (u64)bad_pdpt;
}

static const struct trial reads_of_cr0[] = {
        {&from_cr0_r13, 0, KERNEL64, .info1 = MOV_CR(R13), .flags = INFO1_ASSIST},
        {&smsw_register, 0, KERNEL64, .flags = INFO1_ASSIST},
        {&smsw_register, 0, USER64, .flags = INFO1_ASSIST},
        {&smsw_real, 0, REAL, .flags = INFO1_ASSIST},
        {&smsw_register, "CR4.UMIP", KERNEL64, .cr4 = CR4_UMIP, .needs = UMIP, .flags = INFO1_ASSIST},
        {&smsw_register, "CR4.UMIP", USER64, {PRIVILEGE, GP, 0}, .cr4 = CR4_UMIP, .needs = UMIP},
        {&smsw_memory, 0, USER64, .rbx = GOOD, .flags = INFO1_ASSIST},
        {&smsw_memory, "page absent", KERNEL64, {OPERAND, PF, PF_WRITE}, .rbx = ABSENT, .flags = INFO1_ASSIST},
        {&smsw_memory, "page read-only", USER64, {OPERAND, PF, PF_PRESENT | PF_WRITE | PF_USER}, .rbx = READ_ONLY},
        {&smsw_memory, "not canonical", KERNEL64, {OPERAND, GP, 0}, .rbx = NON_CANONICAL},
};

static const struct trial reads_of_cr8[] = {
        {&lock_from_cr0, 0, KERNEL32, .needs = ALT_MOV_CR8, .info1 = MOV_CR(RDX), .flags = INFO1_ASSIST},
        {&lock_from_cr0, 0, USER32, {PRIVILEGE, GP, 0}, .needs = ALT_MOV_CR8},
        {&lock_from_cr3, 0, KERNEL64, {DECODE, UD, 0}},
};

static const struct trial reads_of_cr3[] = {
        {&from_cr3_32, 0, PAE32, .flags = INFO1_ASSIST, .info1 = MOV_CR(RDX)},
        {&from_cr3_32, 0, V86, {PRIVILEGE, GP, 0}},
};

static const struct trial writes_of_cr0[] = {
        {&to_cr0_r13, 0, KERNEL64, .rdx = L2_CR0, .prepare = value_in_r13, .info1 = MOV_CR(R13), .flags = INFO1_ASSIST},
        {&to_cr0, "WP changes", KERNEL64, .rdx = L2_CR0 ^ CR0_WP, .info1 = MOV_CR(RDX), .flags = INFO1_ASSIST},
        {&to_cr0, "bit 32", KERNEL64, {PRIVILEGE, GP, 0}, .rdx = L2_CR0 | 1ul << 32},
        {&to_cr0, "PG without PE", KERNEL64, {PRIVILEGE, GP, 0}, .rdx = L2_CR0 & ~1ul},
        {&to_cr0, "NW without CD", KERNEL64, {PRIVILEGE, GP, 0}, .rdx = L2_CR0 | 1 << 29},
        {&to_cr0, "PG off in 64-bit mode", KERNEL64, {PRIVILEGE, GP, 0}, .rdx = L2_CR0 & ~CR0_PG},
        {&lmsw_register, 0, KERNEL64, .rdx = 3, .flags = INFO1_ASSIST},
        {&lmsw_register, 0, USER64, {PRIVILEGE, GP, 0}, .rdx = 3},
        {&lmsw_memory, 0, KERNEL64, .rbx = GOOD, .flags = INFO1_ASSIST},
        {&lmsw_memory, "page absent", KERNEL64, {OPERAND, PF, 0}, .rbx = ABSENT},
        {&lmsw_memory, "page absent", USER64, {PRIVILEGE, GP, 0}, .rbx = ABSENT},
        {&lmsw_memory, "not canonical", KERNEL64, {OPERAND, GP, 0}, .rbx = NON_CANONICAL},
        {&clts, 0, KERNEL64, .flags = INFO1_ASSIST},
        {&clts, "TS set", KERNEL64, .cr0 = CR0_TS, .flags = INFO1_ASSIST},
        {&clts, 0, USER64, {PRIVILEGE, GP, 0}},
};

static const struct trial writes_of_cr3[] = {
        {&to_cr3, 0, KERNEL64, .prepare = value_of_cr3, .info1 = MOV_CR(RDX), .flags = INFO1_ASSIST},
        {&to_cr3, "bit 60", KERNEL64, {PRIVILEGE, GP, 0}, .rdx = 1ul << 60},
        {&to_cr3_32, "PAE, pointers legal", PAE32, .prepare = value_of_cr3, .info1 = MOV_CR(RDX),
         .flags = INFO1_ASSIST | WITHOUT_NP},
        {&to_cr3_32, "PAE, a pointer with reserved bits", PAE32, {OPERAND, GP, 0}, .prepare = address_of_bad_pdpt,
         .info1 = MOV_CR(RDX), .flags = INFO1_ASSIST | WITHOUT_NP},
};

static const struct trial writes_of_cr4[] = {
        {&to_cr4, "bit 63", KERNEL64, {PRIVILEGE, GP, 0}, .rdx = L2_CR4 | 1ul << 63},
        {&to_cr4, "PAE off in long mode", KERNEL64, {PRIVILEGE, GP, 0}, .rdx = L2_CR4 & ~CR4_PAE},
        {&to_cr4, "TSD changes", KERNEL64, .rdx = L2_CR4 | CR4_TSD, .info1 = MOV_CR(RDX), .flags = INFO1_ASSIST},
        {&to_cr4, "PCIDE set", KERNEL64, .rdx = L2_CR4 | CR4_PCIDE, .needs = PCID, .info1 = MOV_CR(RDX), .flags = INFO1_ASSIST},
};

static const struct trial writes_of_cr8[] = {
        {&to_cr8, "bit 4", KERNEL64, {PRIVILEGE, GP, 0}, .rdx = 0x10},
        {&to_cr8, "bit 63", KERNEL64, {PRIVILEGE, GP, 0}, .rdx = 1ul << 63},
        {&lock_to_cr0, 0, KERNEL32, .needs = ALT_MOV_CR8, .info1 = MOV_CR(RDX), .flags = INFO1_ASSIST},
        {&lock_to_cr0, 0, USER32, {PRIVILEGE, GP, 0}, .needs = ALT_MOV_CR8},
};

static void also_cr0_write(const struct trial *trial, int on)
{
        (void)trial;
        (void)on;
        VMCB32(vmcb, INTERCEPT_CR) |= 1 << 16;
}

/* Only changes of other bits than TS and MP count, but every LMSW does, and CLTS never. */
static const struct trial selective_writes[] = {
        {&to_cr0, "WP changes", KERNEL64, .rdx = L2_CR0 ^ CR0_WP},
        {&to_cr0, "AM changes", KERNEL64, .rdx = L2_CR0 ^ CR0_AM},
        {&to_cr0, "NE changes", KERNEL64, .rdx = L2_CR0 ^ CR0_NE},
        {&to_cr0, "EM changes", KERNEL64, .rdx = L2_CR0 ^ 4},
        {&to_cr0, "CD changes", KERNEL64, .rdx = L2_CR0 ^ 1 << 30},
        {&to_cr0, "TS and WP change", KERNEL64, .rdx = L2_CR0 ^ CR0_TS ^ CR0_WP},
        {&to_cr0, "nothing changes", KERNEL64, .on = COMPLETES, .rdx = L2_CR0},
        {&to_cr0, "TS changes", KERNEL64, .on = COMPLETES, .rdx = L2_CR0 ^ CR0_TS},
        {&to_cr0, "MP changes", KERNEL64, .on = COMPLETES, .rdx = L2_CR0 ^ 2},
        {&to_cr0, "TS and MP change", KERNEL64, .on = COMPLETES, .rdx = L2_CR0 ^ CR0_TS ^ 2},
        {&to_cr0, "WP changes", USER64, {PRIVILEGE, GP, 0}, .rdx = L2_CR0 ^ CR0_WP},
        {&to_cr0, "WP changes, bit 32", KERNEL64, {PRIVILEGE, GP, 0}, .rdx = (L2_CR0 ^ CR0_WP) | 1ul << 32},
        {&to_cr0, "PG off in 64-bit mode", KERNEL64, {PRIVILEGE, GP, 0}, .rdx = L2_CR0 & ~CR0_PG},
        {&to_cr0, "WP changes, CR0_WRITE set, too", KERNEL64, .off = EXITS, .on = EXITS, .exit = 0x10,
         .rdx = L2_CR0 ^ CR0_WP, .prepare = also_cr0_write},
        {&lmsw_register, "nothing changes", KERNEL64, .rdx = 3},
        {&lmsw_register, "TS changes", KERNEL64, .rdx = 3 | CR0_TS},
        {&lmsw_register, "EM changes", KERNEL64, .rdx = 7},
        {&lmsw_register, 0, USER64, {PRIVILEGE, GP, 0}, .rdx = 3},
        {&lmsw_memory, "page absent", KERNEL64, {OPERAND, PF, 0}, .rbx = ABSENT},
        {&lmsw_register, "CR0_WRITE set, too", KERNEL64, .off = EXITS, .on = EXITS, .exit = 0x10, .rdx = 3,
         .prepare = also_cr0_write},
        {&clts, "TS set", KERNEL64, .on = COMPLETES, .cr0 = CR0_TS},
};

static u32 add(struct trial *to, const struct trial *from, u32 count)
{
        memcpy(to, from, count * sizeof *to);
        return count;
}

/* MOV at both privilege levels, and what there is for this register alone. */
static void check_cr(u32 n, int write)
{
        const struct instruction *it = (write ? to_cr : from_cr)[n];
        struct trial trials[24];
        u32 count = 2;
        memset(trials, 0, sizeof trials);
        trials[0] = (struct trial){it, .mode = KERNEL64, .rdx = write ? values[n] : 0, .info1 = MOV_CR(RDX), .flags = INFO1_ASSIST};
        if (write && n == 3)
                trials[0].prepare = value_of_cr3;
        trials[1] = (struct trial){it, .mode = USER64, .fault = {PRIVILEGE, GP, 0}, .rdx = trials[0].rdx};
        if (!exists(n)) {
                trials[0].fault.position = trials[1].fault.position = DECODE;
                trials[0].fault.vector = trials[1].fault.vector = UD;
        } else if (n == 0) {
                count += write ? add(trials + 2, TRIALS(writes_of_cr0)) : add(trials + 2, TRIALS(reads_of_cr0));
        } else if (n == 3) {
                count += write ? add(trials + 2, TRIALS(writes_of_cr3)) : add(trials + 2, TRIALS(reads_of_cr3));
        } else if (n == 4 && write) {
                count += add(trials + 2, TRIALS(writes_of_cr4));
        } else if (n == 8) {
                count += write ? add(trials + 2, TRIALS(writes_of_cr8)) : add(trials + 2, TRIALS(reads_of_cr8));
        }
        char name[24];
        check_row(&(struct row){numbered(name, "CR", n, write ? "_WRITE" : "_READ"), VMCB_INTERCEPT_CR, (u8)(write * 16 + n),
                                (u16)(write * 0x10 + n), AFTER_PRIVILEGE, !exists(n), ALWAYS, trials, count});
}

void check_control_registers(void)
{
        for (u32 n = 0; n < 16; n++)
                check_cr(n, 0);
        for (u32 n = 0; n < 16; n++)
                check_cr(n, 1);
        check_row(&(struct row){"CR0_SEL_WRITE", VMCB_INTERCEPT_3, INTERCEPT3_CR0_SEL_WRITE, EXIT_CR0_SEL_WRITE, AFTER_PRIVILEGE, 0,
                                ALWAYS, TRIALS(selective_writes)});
}

static const char *value_is_written(const struct trial *trial, int on)
{
        u64 value = trial->rdx;
        if (trial->instruction == &to_cr3)
                value = VMCB64(vmcb, CR3);
        if (on && VMCB64(vmcb, EXITINFO1) != value)
                return "EXITINFO1 is not the value written";
        if (trial->instruction == &to_cr4 && VMCB64(vmcb, CR4) != value)
                return "CR4 has not the value written";
        return 0;
}

/* The exit follows the instruction. The manual does not say what nRIP is then. */
static void check_write_trap(u32 n)
{
        const u16 flags = COMMITS | NO_NEXT_RIP;
        const struct trial trials[] = {
                {to_cr[n], .mode = KERNEL64, .on = EXITS_AFTER, .rdx = n == 4 ? L2_CR4 | CR4_TSD : values[n], .flags = flags,
                 .prepare = n == 3 ? value_of_cr3 : 0, .inspect = value_is_written},
                {to_cr[n], .mode = USER64, .fault = {PRIVILEGE, GP, 0}, .rdx = values[n]},
                {to_cr[n], "bit 60", KERNEL64, {PRIVILEGE, GP, 0}, .rdx = values[n] | 1ul << 60},
                {&lmsw_register, 0, KERNEL64, .on = EXITS_AFTER, .rdx = 3, .flags = flags},
                {&clts, "TS set", KERNEL64, .on = EXITS_AFTER, .cr0 = CR0_TS, .flags = flags | INFO1, .info1 = L2_CR0},
                {&lmsw_memory, "page absent", KERNEL64, {OPERAND, PF, 0}, .rbx = ABSENT},
        }, none[] = {
                {to_cr[n], 0, KERNEL64, {DECODE, UD, 0}},
        };
        char name[24];
        struct row row = {numbered(name, "CR", n, "_WRITE_TRAP"), VMCB_INTERCEPT_4, (u8)(16 + n), (u16)(0x90 + n), AFTER_MEMORY, 1,
                          ALWAYS, trials, n == 0 ? 6 : n == 2 ? 2 : 3};
        if (!exists(n)) {
                row.trials = none;
                row.count = 1;
        }
        check_row(&row);
}

void check_write_traps(void)
{
        for (u32 n = 0; n < 16; n++)
                check_write_trap(n);
}

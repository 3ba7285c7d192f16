/*
 * Instructions that stand alone: time-stamp and performance counters, flags, CPUID, RSM, IRET, INTn, caches,
 * INVLPG, RDTSCP, ICEBP, XSETBV.
 * Source: APM vol.2 §15.8.2 INTn Intercepts, §15.8.3 INVLPG and INVLPGA Intercepts, §15.9 Instruction Intercepts
 * (table 15-7), §8.1.3 and §8.8 for virtual-8086 mode.
 */
#include "intercepts.h"

INSTRUCTION(rdtsc, "rdtsc");
INSTRUCTION(rdpmc, "rdpmc");
INSTRUCTION(pushf, "pushfq");
INSTRUCTION16(pushf16, "pushf");
INSTRUCTION(popf, "popfq");
INSTRUCTION16(popf16, "popf");
INSTRUCTION(cpuid_, "cpuid");
ENCODED(lock_cpuid, "lock cpuid", "0xf0, 0x0f, 0xa2");
INSTRUCTION(rsm, "rsm");
INSTRUCTION16(rsm16, "rsm");
INSTRUCTION(iret, "iretq");
INSTRUCTION16(iret16, "iret");
INSTRUCTION(int_handled, "int $0x21");
INSTRUCTION(int_exception, "int $0xe");
INSTRUCTION(int_past_table, "int $0x80");
INSTRUCTION16(int16_handled, "int $0x21");
INSTRUCTION(invd, "invd");
INSTRUCTION(wbinvd, "wbinvd");
ENCODED(wbnoinvd, "wbnoinvd", "0xf3, 0x0f, 0x09");
INSTRUCTION(invlpg_, "invlpg (%rbx)");
INSTRUCTION(invlpg_fs, "invlpg %fs:(%rbx)");
INSTRUCTION(rdtscp, "rdtscp");
ENCODED(icebp, "icebp", "0xf1");
INSTRUCTION(xsetbv, "xsetbv");

#define IRETQ_BYTES 40

static const struct trial rdtsc_trials[] = {
        {&rdtsc, 0, KERNEL64},
        {&rdtsc, 0, USER64},
        {&rdtsc, "CR4.TSD", KERNEL64, .cr4 = CR4_TSD},
        {&rdtsc, "CR4.TSD", USER64, {PRIVILEGE, GP, 0}, .cr4 = CR4_TSD},
        {&rdtsc, 0, REAL},
        {&rdtsc, "CR4.TSD", V86, {PRIVILEGE, GP, 0}, .cr4 = CR4_TSD},
}, rdtscp_trials[] = {
        {&rdtscp, 0, KERNEL64},
        {&rdtscp, 0, USER64},
        {&rdtscp, "CR4.TSD", KERNEL64, .cr4 = CR4_TSD},
        {&rdtscp, "CR4.TSD", USER64, {PRIVILEGE, GP, 0}, .cr4 = CR4_TSD},
}, rdpmc_trials[] = {
        {&rdpmc, 0, KERNEL64},
        {&rdpmc, "CR4.PCE", USER64, .cr4 = CR4_PCE},
        {&rdpmc, "CR4.PCE clear", USER64, {PRIVILEGE, GP, 0}},
        {&rdpmc, "no such counter", KERNEL64, {PRIVILEGE, GP, 0}, .rcx = 0x12345678},
};

/* An IRETQ frame that leads behind the instruction: RDX is XORed into its CS. */
static void return_frame(const struct trial *trial, int on)
{
        u64 *frame = (u64 *)(VMCB64(vmcb, RSP) -= IRETQ_BYTES);
        (void)on;
        frame[0] = rip_next;
        frame[1] = *(u16 *)(vmcb + VMCB_CS) ^ trial->rdx;
        frame[2] = VMCB64(vmcb, RFLAGS);
        frame[3] = VMCB64(vmcb, RSP) + IRETQ_BYTES;
        frame[4] = *(u16 *)(vmcb + VMCB_SS);
}

static void return_frame16(const struct trial *trial, int on)
{
        u16 *frame = (u16 *)(LOW + (VMCB64(vmcb, RSP) -= 6));
        (void)trial;
        (void)on;
        frame[0] = (u16)rip_next;
        frame[1] = SEGMENT16;
        frame[2] = 2;
}

#define PUSHES PF_WRITE
#define POPS 0
/* Before any exception: privilege in virtual-8086 mode, and the stack. */
#define FLAGS_AND_STACK(it, it16, access)                                                                  \
        {&it, 0, KERNEL64}, {&it, 0, USER64}, {&it16, 0, REAL},                                            \
                {&it16, "IOPL 3", V86, .rflags = RFLAGS_IOPL}, {&it16, "IOPL 0", V86, {PRIVILEGE, GP, 0}}, \
                {&it, "stack page absent", KERNEL64, {OPERAND, PF, access}, .rsp = ABSENT + 0x800,         \
                 .cr2 = ABSENT + 0x800 - (access ? 8 : 0)},                                                \
                {&it, "stack page absent", USER64, {OPERAND, PF, access | PF_USER}, .rsp = ABSENT + 0x800, \
                 .cr2 = ABSENT + 0x800 - (access ? 8 : 0)},                                                \
                {&it, "stack not canonical", KERNEL64, {OPERAND, SS, 0}, .rsp = NON_CANONICAL},            \
                {&it, "stack not canonical", USER64, {OPERAND, SS, 0}, .rsp = NON_CANONICAL}

static void flags_on_stack(const struct trial *trial, int on)
{
        (void)on;
        if (trial->mode == REAL || trial->mode == V86)
                *(u16 *)(LOW + (VMCB64(vmcb, RSP) -= 2)) = 2;
        else
                *(u64 *)(VMCB64(vmcb, RSP) -= 8) = 2;
}

static const struct trial pushf_trials[] = {
        FLAGS_AND_STACK(pushf, pushf16, PUSHES),
        {&pushf, "stack page read-only", USER64, {OPERAND, PF, PF_PRESENT | PF_WRITE | PF_USER}, .rsp = READ_ONLY + 0x800,
         .cr2 = READ_ONLY + 0x7f8},
}, popf_trials[] = {
        {&popf, 0, KERNEL64, .prepare = flags_on_stack},
        {&popf, 0, USER64, .prepare = flags_on_stack},
        {&popf16, 0, REAL, .prepare = flags_on_stack},
        {&popf16, "IOPL 3", V86, .rflags = RFLAGS_IOPL, .prepare = flags_on_stack},
        {&popf16, "IOPL 0", V86, {PRIVILEGE, GP, 0}, .prepare = flags_on_stack},
        {&popf, "stack page absent", KERNEL64, {OPERAND, PF, 0}, .rsp = ABSENT + 0x800, .cr2 = ABSENT + 0x800},
        {&popf, "stack page absent", USER64, {OPERAND, PF, PF_USER}, .rsp = ABSENT + 0x800, .cr2 = ABSENT + 0x800},
        {&popf, "stack not canonical", KERNEL64, {OPERAND, SS, 0}, .rsp = NON_CANONICAL},
}, cpuid_trials[] = {
        {&cpuid_, 0, KERNEL64},
        {&cpuid_, 0, USER64},
        {&cpuid_, 0, REAL},
        {&cpuid_, 0, V86},
        {&lock_cpuid, 0, KERNEL64, {DECODE, UD, 0}},
}, rsm_trials[] = {
        {&rsm, "no SMM", KERNEL64, {PRIVILEGE, UD, 0}},
        {&rsm, "no SMM", USER64, {PRIVILEGE, UD, 0}},
        {&rsm16, "no SMM", REAL, {PRIVILEGE, UD, 0}},
}, iret_trials[] = {
        {&iret, 0, KERNEL64, .prepare = return_frame},
        {&iret, 0, USER64, .prepare = return_frame},
        {&iret16, 0, REAL, .prepare = return_frame16},
        {&iret16, "IOPL 3", V86, .rflags = RFLAGS_IOPL, .prepare = return_frame16},
        {&iret16, "IOPL 0", V86, {PRIVILEGE, GP, 0}, .prepare = return_frame16},
        {&iret, "CS null", KERNEL64, {OPERAND, GP, 0}, .rdx = SEL_CODE64, .prepare = return_frame},
        {&iret, "CS a data segment", KERNEL64, {OPERAND, GP, SEL_DATA}, .rdx = SEL_CODE64 ^ SEL_DATA, .prepare = return_frame},
        {&iret, "RFLAGS.NT", KERNEL64, {PRIVILEGE, GP, 0}, .rflags = RFLAGS_NT, .prepare = return_frame},
        {&iret, "stack page absent", KERNEL64, {OPERAND, PF, 0}, .rsp = ABSENT + 0x800, .cr2 = ABSENT + 0x800},
        {&iret, "stack page absent", USER64, {OPERAND, PF, PF_USER}, .rsp = ABSENT + 0x800, .cr2 = ABSENT + 0x800},
        {&iret, "stack not canonical", KERNEL64, {OPERAND, SS, 0}, .rsp = NON_CANONICAL},
};

#define GATE_ERROR(vector) ((vector)*8 + 2)

static void gate_for_kernel(const struct trial *trial, int on)
{
        (void)trial;
        (void)on;
        l2_idt64[0x21].type = 0x8e;
}

static void gate_absent(const struct trial *trial, int on)
{
        (void)trial;
        (void)on;
        l2_idt64[0x21].type = 0x6e;
}

/* INT3 has an intercept of another kind (EXCEPTION_3), and INTn none of that kind. */
static const struct trial int_trials[] = {
        {&int_handled, 0, KERNEL64, .off = TRAPS(0x21), .info1 = 0x21, .flags = INFO1_ASSIST},
        {&int_handled, 0, USER64, .off = TRAPS(0x21), .info1 = 0x21, .flags = INFO1_ASSIST},
        {&int_exception, 0, USER64, .off = TRAPS(PF), .info1 = 0xe, .flags = INFO1_ASSIST, .cr2 = CR2_AT_FIRST},
        {&int16_handled, 0, REAL, .off = TRAPS(0x21), .info1 = 0x21, .flags = INFO1_ASSIST},
        {&int16_handled, "IOPL 3", V86, .off = TRAPS(0x21), .rflags = RFLAGS_IOPL, .info1 = 0x21, .flags = INFO1_ASSIST},
        {&int16_handled, "IOPL 0", V86, {PRIVILEGE, GP, 0}, .info1 = 0x21, .flags = INFO1_ASSIST},
        {&int_past_table, "past the IDT", KERNEL64, {OPERAND, GP, GATE_ERROR(0x80)}, .info1 = 0x80, .flags = INFO1_ASSIST},
        {&int_past_table, "past the IDT", USER64, {OPERAND, GP, GATE_ERROR(0x80)}, .info1 = 0x80, .flags = INFO1_ASSIST},
        {&int_handled, "gate of DPL 0", USER64, {OPERAND, GP, GATE_ERROR(0x21)}, .info1 = 0x21, .flags = INFO1_ASSIST,
         .prepare = gate_for_kernel},
        {&int_handled, "gate absent", KERNEL64, {OPERAND, NP, GATE_ERROR(0x21)}, .info1 = 0x21, .flags = INFO1_ASSIST,
         .prepare = gate_absent},
};

static const struct trial invd_trials[] = {
        {&invd, 0, KERNEL64},
        {&invd, 0, USER64, {PRIVILEGE, GP, 0}},
        {&invd, 0, REAL},
        {&invd, 0, V86, {PRIVILEGE, GP, 0}},
}, wbinvd_trials[] = {
        {&wbinvd, 0, KERNEL64},
        {&wbinvd, 0, USER64, {PRIVILEGE, GP, 0}},
        {&wbinvd, 0, REAL},
        {&wbnoinvd, 0, KERNEL64},       /* WBINVD where there is none */
        {&wbnoinvd, 0, USER64, {PRIVILEGE, GP, 0}},
};

#define FS_BASE 0x1000

static void base_of_fs(const struct trial *trial, int on)
{
        (void)trial;
        (void)on;
        *(u64 *)(vmcb + VMCB_FS + 8) = FS_BASE;
}

/* The operand is neither translated nor checked. */
static const struct trial invlpg_trials[] = {
        {&invlpg_, 0, KERNEL64, .rbx = GOOD + 0x123, .info1 = GOOD + 0x123, .flags = INFO1_ASSIST},
        {&invlpg_, 0, USER64, {PRIVILEGE, GP, 0}, .rbx = GOOD},
        {&invlpg_, "page absent", KERNEL64, .rbx = ABSENT, .info1 = ABSENT, .flags = INFO1_ASSIST},
        {&invlpg_, "page absent", USER64, {PRIVILEGE, GP, 0}, .rbx = ABSENT},
        {&invlpg_, "not canonical", KERNEL64, .rbx = NON_CANONICAL, .info1 = NON_CANONICAL, .flags = INFO1_ASSIST},
        {&invlpg_fs, "FS.base 1000h", KERNEL64, .rbx = GOOD, .info1 = GOOD + FS_BASE, .flags = INFO1_ASSIST, .prepare = base_of_fs},
};

/* The trap of ICEBP is no interceptable #DB, and nothing comes before its own intercept. */
static void also_db(const struct trial *trial, int on)
{
        (void)trial;
        (void)on;
        VMCB32(vmcb, INTERCEPT_EXCEPTIONS) = 1 << DB;
}

static const struct trial icebp_trials[] = {
        {&icebp, 0, KERNEL64, .off = TRAPS(DB)},
        {&icebp, 0, USER64, .off = TRAPS(DB)},
        {&icebp, 0, REAL, .off = TRAPS(DB)},
        {&icebp, 0, V86, .off = TRAPS(DB)},
        {&icebp, "EXCEPTION_1 set, too", KERNEL64, .off = TRAPS(DB), .prepare = also_db},
}, xsetbv_trials[] = {
        {&xsetbv, 0, KERNEL64, .cr4 = CR4_OSXSAVE, .rax = 3},
        {&xsetbv, "CR4.OSXSAVE clear", KERNEL64, {DECODE, UD, 0}, .rax = 3},
        {&xsetbv, "CR4.OSXSAVE clear", USER64, {DECODE, UD, 0}, .rax = 3},
        {&xsetbv, 0, USER64, {PRIVILEGE, GP, 0}, .cr4 = CR4_OSXSAVE, .rax = 3},
        {&xsetbv, "no such register", KERNEL64, {PRIVILEGE, GP, 0}, .cr4 = CR4_OSXSAVE, .rax = 3, .rcx = 1},
        {&xsetbv, "x87 off", KERNEL64, {PRIVILEGE, GP, 0}, .cr4 = CR4_OSXSAVE, .rax = 2},
        {&xsetbv, "bit 63", KERNEL64, {PRIVILEGE, GP, 0}, .cr4 = CR4_OSXSAVE, .rax = 3, .rdx = 1ul << 31},
};

static const struct row third[] = {
        {"RDTSC", VMCB_INTERCEPT_3, 14, 0x6e, AFTER_PRIVILEGE, 0, ALWAYS, TRIALS(rdtsc_trials)},
        {"RDPMC", VMCB_INTERCEPT_3, 15, 0x6f, AFTER_PRIVILEGE, 0, ALWAYS, TRIALS(rdpmc_trials)},
        {"PUSHF", VMCB_INTERCEPT_3, 16, 0x70, BEFORE_EXCEPTIONS, 0, ALWAYS, TRIALS(pushf_trials)},
        {"POPF", VMCB_INTERCEPT_3, 17, 0x71, BEFORE_EXCEPTIONS, 0, ALWAYS, TRIALS(popf_trials)},
        {"CPUID", VMCB_INTERCEPT_3, 18, 0x72, BEFORE_EXCEPTIONS, 0, ALWAYS, TRIALS(cpuid_trials)},
        {"RSM", VMCB_INTERCEPT_3, 19, 0x73, BEFORE_EXCEPTIONS, 0, ALWAYS, TRIALS(rsm_trials)},
        {"IRET", VMCB_INTERCEPT_3, 20, 0x74, BEFORE_EXCEPTIONS, 0, ALWAYS, TRIALS(iret_trials)},
        {"INTn", VMCB_INTERCEPT_3, 21, 0x75, BEFORE_EXCEPTIONS, 0, ALWAYS, TRIALS(int_trials)},
        {"INVD", VMCB_INTERCEPT_3, 22, 0x76, AFTER_PRIVILEGE, 0, ALWAYS, TRIALS(invd_trials)},
        {"INVLPG", VMCB_INTERCEPT_3, 25, 0x79, AFTER_PRIVILEGE, 0, ALWAYS, TRIALS(invlpg_trials)},
        {"RDTSCP", VMCB_INTERCEPT_4, 7, 0x87, AFTER_PRIVILEGE, 0, RDTSCP, TRIALS(rdtscp_trials)},
        {"ICEBP", VMCB_INTERCEPT_4, 8, 0x88, BEFORE_EXCEPTIONS, 0, ALWAYS, TRIALS(icebp_trials)},
        {"WBINVD", VMCB_INTERCEPT_4, 9, 0x89, AFTER_PRIVILEGE, 0, ALWAYS, TRIALS(wbinvd_trials)},
        {"XSETBV", VMCB_INTERCEPT_4, 13, 0x8d, BEFORE_EXCEPTIONS, 0, XSAVE, TRIALS(xsetbv_trials)},
};

void check_instructions(void) { check_rows(third, ARRAY_LENGTH(third)); }

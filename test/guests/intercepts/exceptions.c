/*
 * Exceptions by vector: recognised, then intercepted, before CR2 is written, a double fault made, or the IDT looked at.
 * INTn, interrupts and injected events of the same vectors are none of them.
 * Source: APM vol.2 §15.7.1 State Saved on Exit, §15.7.2 Intercepts During IDT Interrupt Delivery, §15.8.4 Nested and
 * Intercepted #PF, §15.12 Exception Intercepts.
 */
#include "intercepts.h"

INSTRUCTION(divide, "divl %ecx");
INSTRUCTION(nop, "nop");
INSTRUCTION(load, "movq (%rbx), %rax");
INSTRUCTION(store, "movb %al, (%rbx)");
INSTRUCTION(int3, "int3");
INSTRUCTION16(int3_16, "int3");
INSTRUCTION32(into, "into");
INSTRUCTION32(bound, "bound %ecx, (%ebx)");
INSTRUCTION(ud2, "ud2");
INSTRUCTION(fnop, "fnop");
INSTRUCTION(movaps, "movaps %xmm0, %xmm1");
INSTRUCTION(load_ds, "movl %edx, %ds");
INSTRUCTION(load_ss, "movl %edx, %ss");
INSTRUCTION(load_by_rbp, "movq (%rbp), %rax");
INSTRUCTION(jump, "jmp *%rbx");
INSTRUCTION(load_unaligned, "movl 1(%rbx), %eax");
INSTRUCTION(int_any, "int $0x21");
ENCODED(icebp, "icebp", "0xf1");
INSTRUCTION(from_dr0, "mov %db0, %rdx");
CODE_BYTES(fwait, "fwait", "64", "fninit; fldcw (%rbx); fld1; fldz; fdivrp", "fwait");
CODE_BYTES(divss, "divss %xmm1, %xmm0", "64", "ldmxcsr (%rbx); xorps %xmm1, %xmm1; movss 8(%rbx), %xmm0", "divss %xmm1, %xmm0");

#define GATE_ERROR(vector) ((vector)*8 + 2)
#define EXCEPTION_INFO(vector) (EVENT_VALID | EVENT_EXCEPTION | (vector))
#define WITH_ERROR(code) (EVENT_ERROR_VALID | (u64)(code) << 32)
#define SOFTWARE_INFO(vector) (EVENT_VALID | EVENT_SOFTWARE | (vector))

/* ---- what each trial needs besides ---- */

static void watch_data(const struct trial *trial, int on)
{
        (void)on;
        write_dr0(trial->rbx);
}

static const char *data_was_watched(const struct trial *trial, int on)
{
        (void)trial;
        (void)on;
        write_dr0(0);
        return VMCB64(vmcb, DR6) & 1 ? 0 : "DR6.B0 is clear";
}

static void also_rdtsc(const struct trial *trial, int on)
{
        watch_data(trial, on);
        VMCB32(vmcb, INTERCEPT_3) |= 1 << 14;
        *(u16 *)rip_next = 0x310f;
}

static const char *single_step_in_dr6(const struct trial *trial, int on)
{
        (void)trial;
        (void)on;
        return VMCB64(vmcb, DR6) & 1 << 14 ? 0 : "DR6.BS is clear";
}

static const char *access_in_dr6(const struct trial *trial, int on)
{
        (void)trial;
        (void)on;
        if (!(VMCB64(vmcb, DR6) & 1 << 13))
                return "DR6.BD is clear";
        return VMCB64(vmcb, DR7) & DR7_GD ? "DR7.GD is still set" : 0;
}

static void overflow(const struct trial *trial, int on)
{
        (void)trial;
        (void)on;
        VMCB64(vmcb, RFLAGS) |= 1 << 11;
}

static void bounds(const struct trial *trial, int on)
{
        (void)trial;
        (void)on;
        ((u32 *)DATA)[0] = 1;
        ((u32 *)DATA)[1] = 2;
}

static void x87_unmasked(const struct trial *trial, int on)
{
        (void)trial;
        (void)on;
        *(u16 *)DATA = 0x037b;  /* all masked but zero divide */
}

static void sse_unmasked(const struct trial *trial, int on)
{
        (void)trial;
        (void)on;
        *(u32 *)DATA = 0x1d80;
        ((u32 *)DATA)[2] = 0x3f800000;
}

static void rbp_not_canonical(const struct trial *trial, int on)
{
        (void)trial;
        (void)on;
        regs.rbp = NON_CANONICAL;
}

static void short_task_state(const struct trial *trial, int on)
{
        (void)trial;
        (void)on;
        *(u32 *)(vmcb + VMCB_TR + 4) = 0x10;
}

static void gate_absent(u32 vector) { l2_idt64[vector].type = 0x6e; }

static void gp_gate_absent(const struct trial *trial, int on)
{
        (void)trial;
        (void)on;
        gate_absent(GP);
}

/* #NP and #DF at once: the one that is recognised first exits. */
static void also_np_and_df(const struct trial *trial, int on)
{
        gp_gate_absent(trial, on);
        VMCB32(vmcb, INTERCEPT_EXCEPTIONS) |= 1 << NP | 1 << DF;
}

static void int_gate_absent(const struct trial *trial, int on)
{
        (void)trial;
        (void)on;
        gate_absent(0x21);
}

static void inject(u32 vector, u64 error)
{
        VMCB64(vmcb, EVENTINJ) = EVENT_VALID | EVENT_EXCEPTION | vector | error;
}

static void inject_ud(const struct trial *trial, int on)
{
        (void)trial;
        (void)on;
        inject(UD, 0);
}

static void inject_ud_gate_absent(const struct trial *trial, int on)
{
        inject_ud(trial, on);
        gate_absent(UD);
}

static void inject_gp(const struct trial *trial, int on)
{
        (void)trial;
        (void)on;
        inject(GP, WITH_ERROR(0));
}

static void inject_pf(const struct trial *trial, int on)
{
        (void)trial;
        (void)on;
        inject(PF, WITH_ERROR(PF_WRITE));
}

/* Fifteen bytes from CS:RIP on, for a fault of data; none for that of a fetch. */
static const char *instruction_bytes(const struct trial *trial, int on)
{
        u32 length = VMCB8(vmcb, GUEST_INSN_LEN);
        if (!on || !has(DECODE_ASSISTS))
                return 0;
        if (trial->instruction == &jump)
                return length ? "bytes of a fetch that faulted are reported" : 0;
        if (length < (u32)(rip_next - rip_tested) || length > 15)
                return "the count of instruction bytes is wrong";
        return memcmp(vmcb + VMCB_GUEST_INSN_BYTES, (void *)rip_tested, length) ? "the instruction bytes are wrong" : 0;
}

/* ---- trials by vector ---- */

#define E(vector, error) {PRIVILEGE, vector, error}
#define INT3_EXIT .flags = NEXT_RIP
#define WATCH_QUADWORD (3 | 3 << 16 | 2 << 18)  /* reads and writes by DR0 */

static const struct trial de[] = {
        {&divide, 0, KERNEL64, E(DE, 0)},
        {&divide, 0, USER64, E(DE, 0)},
}, db[] = {
        {&nop, "RFLAGS.TF", KERNEL64, .off = TRAPS(DB), .on = EXITS_AFTER, .rflags = RFLAGS_TF, .inspect = single_step_in_dr6},
        {&nop, "RFLAGS.TF", USER64, .off = TRAPS(DB), .on = EXITS_AFTER, .rflags = RFLAGS_TF, .inspect = single_step_in_dr6},
        {&load, "data breakpoint", KERNEL64, .off = TRAPS(DB), .on = EXITS_AFTER, .rbx = GOOD, .dr7 = WATCH_QUADWORD,
         .prepare = watch_data, .inspect = data_was_watched},
        {&load, "data breakpoint, RDTSC follows and is intercepted", KERNEL64, .off = TRAPS(DB), .on = EXITS_AFTER, .rbx = GOOD,
         .dr7 = WATCH_QUADWORD, .prepare = also_rdtsc, .inspect = data_was_watched},
        {&from_dr0, "DR7.GD", KERNEL64, E(DB, 0), .dr7 = DR7_GD, .flags = COMMITS, .inspect = access_in_dr6},
        {&icebp, "no interceptable #DB", KERNEL64, .off = TRAPS(DB), .on = TRAPS(DB)},
}, bp[] = {
        {&int3, 0, KERNEL64, .off = TRAPS(BP), INT3_EXIT},
        {&int3, 0, USER64, .off = TRAPS(BP), INT3_EXIT},
        {&int3_16, 0, REAL, .off = TRAPS(BP), INT3_EXIT},
}, of[] = {
        {&into, "OF set", KERNEL32, .off = TRAPS(OF), .prepare = overflow, INT3_EXIT},
        {&into, "OF set", USER32, .off = TRAPS(OF), .prepare = overflow, INT3_EXIT},
        {&into, "OF clear", KERNEL32, .on = COMPLETES},
}, br[] = {
        {&bound, "outside", KERNEL32, E(BR, 0), .rbx = DATA, .rcx = 3, .prepare = bounds, INT3_EXIT},
        {&bound, "outside", USER32, E(BR, 0), .rbx = DATA, .rcx = 0, .prepare = bounds, INT3_EXIT},
        {&bound, "inside", KERNEL32, .on = COMPLETES, .rbx = DATA, .rcx = 1, .prepare = bounds},
}, ud[] = {
        {&ud2, 0, KERNEL64, E(UD, 0)},
        {&ud2, 0, USER64, E(UD, 0)},
        {&ud2, 0, REAL, E(UD, 0)},
        {&ud2, 0, V86, E(UD, 0)},
        {&nop, "injected", KERNEL64, .off = FAULTS(UD), .on = FAULTS(UD), .prepare = inject_ud},
}, nm[] = {
        {&fnop, "CR0.TS", KERNEL64, E(NM, 0), .cr0 = CR0_TS},
        {&fnop, "CR0.EM", USER64, E(NM, 0), .cr0 = 4},
        {&movaps, "CR0.TS", KERNEL64, E(NM, 0), .cr0 = CR0_TS},
}, df[] = {
        /* #GP, and #NP on the way to its handler */
        {&load, "the gate of #GP absent", KERNEL64, .off = FAULTS(DF), .on = EXITS_ANYWHERE, .rbx = NON_CANONICAL,
         .intinfo = EXCEPTION_INFO(GP) | WITH_ERROR(0), .prepare = gp_gate_absent},
}, ts[] = {
        {&int_any, "TSS too short for its stack", KERNEL64, E(TS, SEL_TSS), .intinfo = SOFTWARE_INFO(0x21), .prepare = short_task_state},
}, np[] = {
        {&load_ds, 0, KERNEL64, E(NP, SEL_NOT_PRESENT), .rdx = SEL_NOT_PRESENT, .info1 = SEL_NOT_PRESENT, .flags = INFO1},
        {&load_ds, 0, USER64, E(NP, SEL_NOT_PRESENT), .rdx = SEL_NOT_PRESENT | 3, .info1 = SEL_NOT_PRESENT, .flags = INFO1},
        {&int_any, "gate absent", KERNEL64, E(NP, GATE_ERROR(0x21)), .info1 = GATE_ERROR(0x21), .flags = INFO1,
         .intinfo = SOFTWARE_INFO(0x21), .prepare = int_gate_absent},
        /* before it is made a double fault, which is intercepted as well */
        {&load, "the gate of #GP absent, EXCEPTION_8 set, too", KERNEL64, .off = NOT_RUN, .on = EXITS, .rbx = NON_CANONICAL,
         .info1 = GATE_ERROR(GP) | 1, .flags = INFO1, .intinfo = EXCEPTION_INFO(GP) | WITH_ERROR(0), .prepare = also_np_and_df},
        {&nop, "the gate of an injected #UD absent", KERNEL64, E(NP, GATE_ERROR(UD) | 1), .info1 = GATE_ERROR(UD) | 1,
         .flags = INFO1, .intinfo = EXCEPTION_INFO(UD), .prepare = inject_ud_gate_absent},
}, ss[] = {
        {&load_by_rbp, "not canonical", KERNEL64, E(SS, 0), .info1 = 0, .flags = INFO1, .prepare = rbp_not_canonical},
        {&load_by_rbp, "not canonical", USER64, E(SS, 0), .info1 = 0, .flags = INFO1, .prepare = rbp_not_canonical},
        {&load_ss, "segment absent", KERNEL64, E(SS, SEL_STACK_ABSENT), .rdx = SEL_STACK_ABSENT, .info1 = SEL_STACK_ABSENT,
         .flags = INFO1},
}, gp[] = {
        {&load, "not canonical", KERNEL64, E(GP, 0), .rbx = NON_CANONICAL, .info1 = 0, .flags = INFO1},
        {&load, "not canonical", USER64, E(GP, 0), .rbx = NON_CANONICAL, .info1 = 0, .flags = INFO1},
        {&load_ds, "past the GDT", KERNEL64, E(GP, GDT_SLOTS * 8), .rdx = GDT_SLOTS * 8, .info1 = GDT_SLOTS * 8, .flags = INFO1},
        {&nop, "injected", KERNEL64, .off = FAULTS(GP), .on = FAULTS(GP), .prepare = inject_gp},
}, pf[] = {
        {&load, "page absent", KERNEL64, E(PF, 0), .rbx = ABSENT, .info1 = 0, .info2 = ABSENT, .flags = INFO1 | INFO2,
         .inspect = instruction_bytes},
        {&store, "page absent", USER64, E(PF, PF_WRITE | PF_USER), .rbx = ABSENT, .info1 = PF_WRITE | PF_USER, .info2 = ABSENT,
         .flags = INFO1 | INFO2, .inspect = instruction_bytes},
        {&store, "page read-only", KERNEL64, E(PF, PF_PRESENT | PF_WRITE), .rbx = READ_ONLY, .info1 = PF_PRESENT | PF_WRITE,
         .info2 = READ_ONLY, .flags = INFO1 | INFO2, .inspect = instruction_bytes},
        {&load, "page of the supervisor", USER64, E(PF, PF_PRESENT | PF_USER), .rbx = SUPERVISOR, .info1 = PF_PRESENT | PF_USER,
         .info2 = SUPERVISOR, .flags = INFO1 | INFO2, .inspect = instruction_bytes},
        {&jump, "fetch from an absent page", USER64, .off = NOT_RUN, .on = EXITS_ANYWHERE, .rbx = ABSENT, .info1 = PF_USER | PF_FETCH,
         .info2 = ABSENT, .flags = INFO1 | INFO2, .inspect = instruction_bytes},
        {&nop, "injected", KERNEL64, .off = FAULTS(PF), .on = FAULTS(PF), .fault = {.error = PF_WRITE}, .cr2 = CR2_AT_FIRST,
         .prepare = inject_pf},
}, mf[] = {
        {&fwait, 0, KERNEL64, E(MF, 0), .rbx = GOOD, .prepare = x87_unmasked},
        {&fwait, 0, USER64, E(MF, 0), .rbx = GOOD, .prepare = x87_unmasked},
}, ac[] = {
        {&load_unaligned, "CR0.AM and RFLAGS.AC", USER64, E(AC, 0), .rbx = GOOD, .cr0 = CR0_AM, .rflags = RFLAGS_AC, .info1 = 0,
         .flags = INFO1},
        {&load_unaligned, "CR0.AM and RFLAGS.AC", KERNEL64, .on = COMPLETES, .rbx = GOOD, .cr0 = CR0_AM, .rflags = RFLAGS_AC},
}, xf[] = {
        {&divss, 0, KERNEL64, E(XF, 0), .rbx = GOOD, .prepare = sse_unmasked},
        {&divss, 0, USER64, E(XF, 0), .rbx = GOOD, .prepare = sse_unmasked},
};

/* An INIT that VM_CR.R_INIT turns into #SX. */
static const struct trial sx[] = {
        {&nop, "redirected INIT", KERNEL64, E(SX, 1), .info1 = 1, .flags = INFO1, .needs = REDIRECTED_INIT, .prepare = send_init},
        {&nop, "redirected INIT", USER64, E(SX, 1), .info1 = 1, .flags = INFO1, .needs = REDIRECTED_INIT, .prepare = send_init},
};

static const struct { const struct trial *trials; u32 count; } by_vector[EXCEPTIONS] = {
        [DE] = {TRIALS(de)}, [DB] = {TRIALS(db)}, [BP] = {TRIALS(bp)}, [OF] = {TRIALS(of)}, [BR] = {TRIALS(br)},
        [UD] = {TRIALS(ud)}, [NM] = {TRIALS(nm)}, [DF] = {TRIALS(df)}, [TS] = {TRIALS(ts)}, [NP] = {TRIALS(np)},
        [SS] = {TRIALS(ss)}, [GP] = {TRIALS(gp)}, [PF] = {TRIALS(pf)}, [MF] = {TRIALS(mf)}, [AC] = {TRIALS(ac)},
        [XF] = {TRIALS(xf)}, [SX] = {TRIALS(sx)},
};

#define VECTOR2 2       /* bits whose effect is undefined (APM vol.2 §15.12.3, §15.12.10) */
#define VECTOR9 9

/* What every vector has: INTn and interrupts that use it are not intercepted by its bit. */
static void check_exception(u32 vector)
{
        static u8 code[] = {0xcd, 0};
        char name[16], text[16];
        const struct instruction software = {numbered(text, "int $", vector, ""), code, code, code + sizeof code};
        struct trial trials[12];
        u32 count = 0, undefined = vector == VECTOR2 || vector == VECTOR9;
        code[1] = (u8)vector;
        for (; count < by_vector[vector].count; count++)
                trials[count] = by_vector[vector].trials[count];
        if (!count)
                trials[count++] = (struct trial){.instruction = &nop, .needs = undefined ? DEFINED_EFFECT : NO_WAY};
        if (!undefined) {
                trials[count++] = (struct trial){&software, .mode = KERNEL64, .off = TRAPS(vector), .on = TRAPS(vector), .cr2 = CR2_AT_FIRST};
                trials[count++] = (struct trial){
                        &nop, "virtual interrupt of that vector", KERNEL64, .off = FAULTS(vector), .on = FAULTS(vector),
                        .rflags = RFLAGS_IF, .cr2 = CR2_AT_FIRST, .flags = INTERRUPTED,
                        .v_control = V_IRQ | V_IGN_TPR | V_PRIORITY(1) | V_VECTOR(vector),
                };
        }
        check_row(&(struct row){numbered(name, "EXCEPTION_", vector, ""), VMCB_INTERCEPT_EXCEPTIONS, (u8)vector, (u16)(0x40 + vector),
                                BEFORE_EXCEPTIONS, 1, ALWAYS, trials, count});
}

void check_exceptions(void)
{
        for (u32 vector = 0; vector < EXCEPTIONS; vector++)
                check_exception(vector);
}

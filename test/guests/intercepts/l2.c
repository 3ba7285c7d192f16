/* What L2 finds: page tables, descriptor tables, handlers, and its state in each mode. */
#include "intercepts.h"

struct idt_gate l2_idt64[64] __attribute__((aligned(16)));
u64 l2_idt32[64] __attribute__((aligned(16))), l2_gdt[GDT_SLOTS] __attribute__((aligned(16)));
struct tss64 l2_tss64 __attribute__((aligned(128)));
struct tss32 l2_tss32 __attribute__((aligned(128))), l2_other_task __attribute__((aligned(128)));
u64 l2_pdpt32[4] __attribute__((aligned(32)));
static u64 root[512] PAGE_ALIGNED, pdpt[512] PAGE_ALIGNED, directory[512] PAGE_ALIGNED, window_directory[512] PAGE_ALIGNED,
        window_table[512] PAGE_ALIGNED;

#define PRESENT 1ul
#define WRITABLE 2ul
#define USER 4ul
#define ALL (PRESENT | WRITABLE | USER)

/* Bytes of a handler, in any mode: CPUID and VMMCALL, of which one is always intercepted. */
static const u8 handler[] = {0x0f, 0xa2, 0x0f, 0x01, 0xd9, 0xf4};

void l2_memory(void)
{
        root[0] = (u64)pdpt | ALL;
        pdpt[0] = (u64)directory | ALL;
        pdpt[1] = (u64)window_directory | ALL;
        l2_pdpt32[0] = (u64)directory | PRESENT;
        for (u64 n = 0; n < 512; n++)
                directory[n] = n << 21 | 0x80 | ALL;
        window_directory[0] = (u64)window_table | ALL;
        window_table[(GOOD - WINDOW) / 4096] = DATA | ALL;
        window_table[(READ_ONLY - WINDOW) / 4096] = DATA | PRESENT | USER;
        window_table[(SUPERVISOR - WINDOW) / 4096] = DATA | PRESENT | WRITABLE;
        memset((void *)HANDLERS, 0xf4, 4096);
        for (u64 vector = 0; vector < 64; vector++) {
                memcpy((void *)(HANDLERS + vector * 16), handler, sizeof handler);
                ((u32 *)REAL_IVT)[vector] = (u32)((HANDLERS - LOW + vector * 16) | SEGMENT16 << 16);
        }
}

static u64 descriptor32(u64 base, u64 limit, u64 access)
{
        return (base & 0xffffff) << 16 | (base >> 24 & 0xff) << 56 | access << 40 | (limit & 0xffff);
}

static void descriptors(void)
{
        memcpy(l2_gdt, gdt, sizeof l2_gdt);
        l2_gdt[SEL_TSS / 8] = descriptor32((u64)&l2_tss32, sizeof l2_tss32 - 1, 0x8b);
        l2_gdt[SEL_TSS / 8 + 1] = 0;
        l2_gdt[SEL_NOT_PRESENT / 8] = 0x00cf73000000ffff;
        l2_gdt[SEL_LDT / 8] = descriptor32((u64)l2_gdt, 0, 0x82);
        l2_gdt[SEL_LDT / 8 + 1] = 0;
        l2_gdt[SEL_TSS_FREE / 8] = descriptor32((u64)&l2_other_task, sizeof l2_other_task - 1, 0x89);
        l2_gdt[SEL_TSS_FREE / 8 + 1] = 0;
        l2_gdt[SEL_TSS_BUSY / 8] = descriptor32((u64)&l2_other_task, sizeof l2_other_task - 1, 0x8b);
        l2_gdt[SEL_TSS_ABSENT / 8] = descriptor32((u64)&l2_other_task, sizeof l2_other_task - 1, 0x09);
        l2_gdt[SEL_TSS_SHORT / 8] = descriptor32((u64)&l2_other_task, 0x66, 0x89);
        l2_gdt[SEL_STACK_ABSENT / 8] = 0x00cf13000000ffff;
}

/*
 * Gates for all privilege levels. Those of 64-bit mode have a stack of their own, so that that of L2 may be unusable;
 * not so #TS, for what it tells of may be the task-state segment that has the stack.
 */
static void gates(void)
{
        for (u32 vector = 0; vector < 64; vector++) {
                u64 at = HANDLERS + vector * 16;
                l2_idt64[vector] = (struct idt_gate){(u16)at, SEL_CODE64, vector != TS, 0xee, (u16)(at >> 16), 0, 0};
                l2_idt32[vector] = (at & 0xffff) | (u64)SEL_CODE32 << 16 | 0xee00ul << 32 | (at >> 16) << 48;
        }
}

static void task_states(void)
{
        memset(&l2_tss64, 0, sizeof l2_tss64);
        l2_tss64.rsp[0] = KERNEL_STACK_TOP;
        l2_tss64.ist[0] = IST_STACK_TOP;
        l2_tss64.io_map = __builtin_offsetof(struct tss64, io_bits);
        memset(l2_tss64.io_bits, 0xff, sizeof l2_tss64.io_bits);
        memset(&l2_tss32, 0, sizeof l2_tss32);
        l2_tss32.esp0 = KERNEL_STACK_TOP;
        l2_tss32.ss0 = SEL_DATA;
        l2_tss32.io_map = __builtin_offsetof(struct tss32, io_bits);
        memset(l2_tss32.io_bits, 0xff, sizeof l2_tss32.io_bits);
        l2_other_task = l2_tss32;
        l2_other_task.eip = HANDLERS + OTHER_TASK * 16;
        l2_other_task.eflags = 2;
        l2_other_task.esp = KERNEL_STACK_TOP;
        l2_other_task.cs = SEL_CODE32;
        l2_other_task.es = l2_other_task.ss = l2_other_task.ds = l2_other_task.fs = l2_other_task.gs = SEL_DATA;
}

static void clear(void *target, u64 bytes)
{
        u64 count = bytes / 8;
        __asm__ volatile("rep stosq" : "+D"(target), "+c"(count) : "a"(0) : "memory");
}

void l2_reset(void)
{
        descriptors();
        gates();
        task_states();
        clear(iopm, sizeof iopm);
        clear(msrpm, sizeof msrpm);
        clear((void *)DATA, 64);
}

static void segment(u32 field, u16 selector, u16 attributes, u32 limit, u64 base)
{
        u64 at = (u64)vmcb + field;
        *(u16 *)at = selector;
        *(u16 *)(at + 2) = attributes;
        *(u32 *)(at + 4) = limit;
        *(u64 *)(at + 8) = base;
}

static void data_segments(u16 selector, u16 attributes, u32 limit, u64 base)
{
        for (u32 field = VMCB_ES; field <= VMCB_GS; field += 0x10)
                if (field != VMCB_CS)
                        segment(field, selector, attributes, limit, base);
}

/* CS, the data segments and the stack of a mode. */
static void program(enum mode mode)
{
        int user = mode == USER64 || mode == USER32 || mode == V86;
        u16 dpl = user ? 0x60 : 0;
        VMCB8(vmcb, CPL) = user ? 3 : 0;
        VMCB64(vmcb, RIP) = CODE;
        VMCB64(vmcb, RSP) = user ? USER_STACK_TOP : KERNEL_STACK_TOP;
        if (mode == REAL || mode == V86) {
                segment(VMCB_CS, SEGMENT16, mode == V86 ? 0xf3 : 0x9b, 0xffff, LOW);
                data_segments(SEGMENT16, 0x93 | dpl, 0xffff, LOW);
                VMCB64(vmcb, RIP) -= LOW;
                VMCB64(vmcb, RSP) -= LOW;
                return;
        }
        data_segments(user ? SEL_USER_DATA : SEL_DATA, 0xc93 | dpl, 0xffffffff, 0);
        if (mode == KERNEL64 || mode == USER64)
                segment(VMCB_CS, user ? SEL_USER_CODE64 : SEL_CODE64, 0xa9b | dpl, 0xffffffff, 0);
        else
                segment(VMCB_CS, user ? SEL_USER_CODE32 : SEL_CODE32, 0xc9b | dpl, 0xffffffff, 0);
}

void l2_state(const struct trial *trial)
{
        enum mode mode = trial->mode;
        int is_long = mode == KERNEL64 || mode == USER64;
        vmcb_long_mode(vmcb, 0, 0, (u64)root);
        program(mode);
        /* An ASID for each way to translate, so that no flush is needed. */
        VMCB32(vmcb, GUEST_ASID) = is_long ? 1 : mode == PAE32 ? 2 : 3;
        if (!has(NESTED_PAGING) || trial->flags & WITHOUT_NP) {
                VMCB64(vmcb, NP_ENABLE) = VMCB64(vmcb, N_CR3) = 0;
                VMCB32(vmcb, GUEST_ASID) += 3;
        }
        segment(VMCB_LDTR, SEL_LDT, 0x82, 0, (u64)l2_gdt);
        segment(VMCB_GDTR, 0, 0, sizeof l2_gdt - 1, (u64)l2_gdt);
        VMCB64(vmcb, CR4) = is_long || mode == PAE32 ? L2_CR4 : L2_CR4 & ~CR4_PAE;
        if (is_long) {
                segment(VMCB_IDTR, 0, 0, sizeof l2_idt64 - 1, (u64)l2_idt64);
                segment(VMCB_TR, SEL_TSS, 0x8b, sizeof l2_tss64 - 1, (u64)&l2_tss64);
        } else {
                segment(VMCB_IDTR, 0, 0, sizeof l2_idt32 - 1, (u64)l2_idt32);
                segment(VMCB_TR, SEL_TSS, 0x8b, sizeof l2_tss32 - 1, (u64)&l2_tss32);
                VMCB64(vmcb, EFER) = EFER_SVME;
                VMCB64(vmcb, CR0) = mode == PAE32 ? L2_CR0 : L2_CR0 & ~(CR0_PG | CR0_WP);
                VMCB64(vmcb, CR3) = mode == PAE32 ? (u64)l2_pdpt32 : 0;
        }
        if (mode == REAL) {
                VMCB64(vmcb, CR0) &= ~1ul;
                segment(VMCB_IDTR, 0, 0, 64 * 4 - 1, REAL_IVT);
        }
        VMCB64(vmcb, CR0) ^= trial->cr0;
        VMCB64(vmcb, CR4) ^= has(XSAVE) ? trial->cr4 : trial->cr4 & ~CR4_OSXSAVE;
        VMCB64(vmcb, RFLAGS) ^= trial->rflags | (mode == V86 ? RFLAGS_VM : 0);
        VMCB64(vmcb, DR7) |= trial->dr7;
        VMCB64(vmcb, V_CONTROL) |= trial->v_control;
        VMCB64(vmcb, RAX) = trial->rax;
        if (trial->rsp)
                VMCB64(vmcb, RSP) = trial->rsp;
        VMCB64(vmcb, CR2) = CR2_AT_FIRST;
        VMCB64(vmcb, IOPM_BASE_PA) = (u64)iopm;
        VMCB64(vmcb, MSRPM_BASE_PA) = (u64)msrpm;
        regs = (struct l2_registers){.rbx = trial->rbx, .rcx = trial->rcx, .rdx = trial->rdx, .rsi = trial->rbx, .rdi = trial->rbx};
}

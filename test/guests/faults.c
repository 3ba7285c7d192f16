/*
 * faults: exceptions and privilege changes, one line each.
 * Proves: vector, error code, saved CS:RIP, CR2 and DR6 of #DE, #DB, #BP, #OF,
 * #BR, #UD, #NM, #DF, #TS, #NP, #SS, #GP, #PF (every kind), #MF; CPL 0 to 3 and
 * back by IRETQ, INT n, SYSCALL/SYSRET, call gate; compatibility mode; accessed
 * and dirty bits. A check that needs a CPUID feature says `skip` without it.
 * Option: strict=1 adds what the manual demands and not every emulator does:
 * #AC, #XF, #SS of non-canonical addresses, segment limits and others.
 * Source: APM vol.2 §8.2 Vectors, §8.4 Error Codes, §5.6 Page Protection.
 */
#include "lib/guest.h"
#include "faults.h"

enum { DE, DB, BP = 3, OF, BR, UD, NM, DF, TS = 10, NP, SS, GP, PF, MF = 16, AC, XF = 19, USER_END = 0x30, NONE = 0xff };
#define ANY 0xdeaddeaddeaddeadul
#define GATE_ERROR(vector) (strict ? (vector)*8 + 2 : ANY)       /* QEMU 7 says vector * 16 + 2 in long mode */
#define RESERVED_ERROR(bits) (strict ? 9 | (bits) : ANY)        /* QEMU 7 leaves out P */
#define CR2_UNTOUCHED 0x5a5a5a5a5000ul

/* Test pages at USER_BASE + n * 4096 */
enum { CODE, STACK, DATA, READ_ONLY, SUPERVISOR, MISSING, RESERVED, SUPERVISOR_READ_ONLY, PAGES };
#define ADDRESS(page) (USER_BASE + (u64)(page)*4096)
#define P 1ul
#define W 2ul
#define U 4ul
#define A 0x20ul
#define D 0x40ul
#define PS 0x80ul
#define NX (1ul << 63)
#define NON_CANONICAL 0x0000900000000000ul

struct user_entry { u64 rip, cs, rflags; };

extern u64 transfer[8], probe_rsp;
extern char probe_landing[], user_code[], p_user[], watched[], syscall_entry[], syscall_entry32[], syscall_entry_compat[],
        gate_entry[];
void run_probe(void *probe, u64 argument);

static u64 table[512] PAGE_ALIGNED, pages[PAGES][512] PAGE_ALIGNED;
static struct trap_frame seen;
static u64 seen_cr2, seen_dr6, seen_handler_rsp;
static u32 checks, failed, first_failed;
static int strict;

static void trap_land(struct trap_frame *frame)
{
        seen = *frame;
        seen_cr2 = read_cr2();
        seen_dr6 = read_dr6();
        seen_handler_rsp = (u64)(frame + 1);
        frame->rip = (u64)probe_landing;
        frame->cs = SEL_CODE64;
        frame->ss = SEL_DATA;
        frame->rsp = probe_rsp;
        frame->rflags = 2;
}

static void verdict(const char *text, int good)
{
        checks++;
        if (!good && !failed++)
                first_failed = checks;
        print("%s %s", good ? "ok  " : "FAIL", text);
        if (!good)
                print(": vector %u, error %x, cs:rip %x:%x, cr2 %x, dr6 %x", seen.vector, seen.error, seen.cs, seen.rip, seen_cr2,
                      seen_dr6);
        print("\n");
}

static int attempt(void *probe, u64 argument, u32 vector, u64 error, u64 rip, u64 cr2)
{
        seen = (struct trap_frame){.vector = NONE};
        write_cr2(CR2_UNTOUCHED);
        write_dr6(0xffff0ff0);
        seen_cr2 = CR2_UNTOUCHED;
        run_probe(probe, argument);
        return seen.vector == vector && (vector == NONE || ((rip == ANY || seen.rip == rip) && (error == ANY || seen.error == error))) &&
               (cr2 == ANY || seen_cr2 == cr2);
}

/* FAULT("text", probe, argument, vector, error): a trap that leaves CR2 alone */
#define FAULT(text, name, argument, vector, error)                                                        \
        do {                                                                                               \
                extern char p_##name[], f_##name[];                                                        \
                verdict(text, attempt(p_##name, argument, vector, error, (u64)f_##name, CR2_UNTOUCHED));   \
        } while (0)
#define PAGE_FAULT(text, name, address, error)                                                             \
        do {                                                                                               \
                extern char p_##name[], f_##name[];                                                        \
                verdict(text, attempt(p_##name, address, PF, error, (u64)f_##name, address));              \
        } while (0)
#define WORKS(text, name, argument)                                                                        \
        do {                                                                                               \
                extern char p_##name[];                                                                    \
                verdict(text, attempt(p_##name, argument, NONE, 0, ANY, CR2_UNTOUCHED));                   \
        } while (0)
#define DEBUG(text, name, bits)                                                                            \
        do {                                                                                               \
                extern char p_##name[], f_##name[];                                                        \
                int good = attempt(p_##name, 0, DB, 0, (u64)f_##name, CR2_UNTOUCHED);                      \
                write_dr7(0x400);                                                                          \
                verdict(text, good && (seen_dr6 & 0xe00f) == (bits));                                      \
        } while (0)
#define COMPAT(text, name, vector, error)                                                                  \
        do {                                                                                               \
                extern char p_compat[], p_##name[], f_##name[];                                            \
                int good = attempt(p_compat, (u64)p_##name, vector, error, (u64)f_##name, CR2_UNTOUCHED);  \
                verdict(text, good && seen.cs == SEL_CODE32);                                              \
        } while (0)

static int in_user(char *entry, u64 cs, u64 rflags, u32 vector, u64 error, char *rip, u64 cr2)
{
        struct user_entry start = {USER_BASE + (u64)(entry - user_code), cs, rflags};
        u64 expected = rip ? USER_BASE + (u64)(rip - user_code) : ANY;
        return attempt(p_user, (u64)&start, vector, error, expected, cr2) && (seen.cs & 3) == 3 && seen.ss == SEL_USER_DATA &&
               seen_handler_rsp == tss.rsp[0];
}
#define USER_FAULT(text, name, vector, error)                                                              \
        do {                                                                                               \
                extern char u_##name[];                                                                    \
                verdict(text, in_user(u_##name, SEL_USER_CODE64, 2, vector, error, u_##name, CR2_UNTOUCHED)); \
        } while (0)
#define USER_FAULT_AT(text, name, vector, error)                                                           \
        do {                                                                                               \
                extern char u_##name[], u_##name##_at[];                                                   \
                verdict(text, in_user(u_##name, SEL_USER_CODE64, 2, vector, error, u_##name##_at, CR2_UNTOUCHED)); \
        } while (0)
#define USER_PAGE_FAULT(text, name, error, address)                                                        \
        do {                                                                                               \
                extern char u_##name[];                                                                    \
                verdict(text, in_user(u_##name, SEL_USER_CODE64, 2, PF, error, u_##name, address));        \
        } while (0)
#define USER_WORKS(text, name, rflags)                                                                     \
        do {                                                                                               \
                extern char u_##name[];                                                                    \
                verdict(text, in_user(u_##name, SEL_USER_CODE64, rflags, USER_END, 0, 0, CR2_UNTOUCHED));  \
        } while (0)

static void map_pages(void)
{
        u64 *pdpt = (u64 *)(pml4[0] & ~0xffful), *directory = (u64 *)(pdpt[1] & ~0xffful);
        pml4[0] |= U;
        pdpt[1] |= U;
        directory[0] = (u64)table | P | W | U;
        directory[1] = 1ul << 13 | PS | P | W;  /* a reserved bit of a 2 MiB entry */
        table[CODE] = (u64)user_code | P | U;
        table[STACK] = (u64)pages[STACK] | P | W | U | NX;
        table[DATA] = (u64)pages[DATA] | P | W | U | NX;
        table[READ_ONLY] = (u64)pages[READ_ONLY] | P | U | NX;
        table[SUPERVISOR] = (u64)pages[SUPERVISOR] | P | W | NX;
        table[MISSING] = 0;
        table[RESERVED] = (u64)pages[RESERVED] | P | W | 1ul << 51;
        table[SUPERVISOR_READ_ONLY] = (u64)pages[SUPERVISOR_READ_ONLY] | P | NX;
        write_cr3(read_cr3());
}

static void divide_and_debug(void)
{
        FAULT("#DE division by zero", div_zero, 0, DE, 0);
        FAULT("#DE quotient too large", idiv_overflow, 0, DE, 0);
        DEBUG("#DB single step", step, 0x4000);
        DEBUG("#DB single step inside REP STOS", step_rep, 0x4000);
        verdict("#DB in REP leaves the iterations that remain", seen.rcx == 2 && seen.rdi == (u64)watched + 1);
        extern char f_break_exec[];
        write_dr0((u64)f_break_exec);
        write_dr7(0x402);
        DEBUG("#DB DR0 instruction breakpoint", break_exec, 1);
        write_dr1((u64)watched);
        write_dr7(0x408 | 1 << 20 | 3 << 22);
        DEBUG("#DB DR1 write breakpoint, 4 bytes, read passes", break_write, 2);
        write_dr2((u64)watched);
        write_dr7(0x420 | 3 << 24 | 2 << 26);
        DEBUG("#DB DR2 access breakpoint, last of 8 bytes", break_access, 4);
        write_cr4(read_cr4() | 8);
        write_dr3(0x80);
        write_dr7(0x480 | 2 << 28);
        DEBUG("#DB DR3 I/O breakpoint", break_io, 8);
        FAULT("#UD MOV from DR4 with CR4.DE", mov_dr4, 0, UD, 0);
        write_cr4(read_cr4() & ~8ul);
        WORKS("MOV from DR4 without CR4.DE", mov_dr4, 0);
        FAULT("#BP INT3", int3, 0, BP, 0);
        FAULT("#BP INT 3 of two bytes", int_3, 0, BP, 0);
}

static void invalid_opcodes(void)
{
        FAULT("#UD UD2", ud2, 0, UD, 0);
        FAULT("#UD PUSH ES in 64-bit mode", push_es, 0, UD, 0);
        FAULT("#UD LOCK with a register destination", lock_register, 0, UD, 0);
        FAULT("#UD MOV from CR1", mov_cr1, 0, UD, 0);
        FAULT("#UD RSM outside SMM", rsm, 0, UD, 0);
        FAULT("#UD VMRUN without EFER.SVME", vmrun, 0, UD, 0);
        FAULT("#UD VMMCALL without a hypervisor", vmmcall, 0, UD, 0);
        FAULT("#UD SYSENTER in long mode", sysenter, 0, UD, 0);
        FAULT("#UD SYSCALL without EFER.SCE", syscall, 0, UD, 0);
        FAULT("#UD XSETBV without CR4.OSXSAVE", xsetbv, 0, UD, 0);
        FAULT("#GP instruction of 16 bytes", too_long, 0, GP, 0);
}

static void floating_point(void)
{
        u64 cr0 = read_cr0(), cr4 = read_cr4();
        write_cr4(cr4 | 0x600);
        write_cr0(cr0 | 8);
        FAULT("#NM x87 with CR0.TS", fnop, 0, NM, 0);
        FAULT("#NM SSE with CR0.TS", sse, 0, NM, 0);
        FAULT("#NM FWAIT with CR0.TS and CR0.MP", fwait, 0, NM, 0);
        write_cr0((cr0 | 8) & ~2ul);
        WORKS("FWAIT with CR0.TS alone", fwait, 0);
        write_cr0((cr0 | 4) & ~2ul);
        FAULT("#NM x87 with CR0.EM", fnop, 0, NM, 0);
        FAULT("#UD SSE with CR0.EM", sse, 0, UD, 0);
        write_cr0(cr0);
        FAULT("#MF at the FWAIT with an unmasked division by zero", x87_divide, 0, MF, 0);
        __asm__ volatile("fninit");
        write_cr4(cr4);
        FAULT("#UD SSE without CR4.OSFXSR", sse, 0, UD, 0);
}

static void double_faults(void)
{
        struct idt_gate page_fault = idt[PF], protection = idt[GP];
        extern char p_read[], f_read[], p_load_ds[], f_load_ds[];
        tss.ist[1] = ADDRESS(RESERVED);         /* its top lies in the missing page */
        idt[PF].ist = 2;
        verdict("#DF #PF whose stack is missing", attempt(p_read, 0x8000000000, DF, 0, (u64)f_read, ADDRESS(RESERVED) - 8));
        idt[PF] = page_fault;
        idt[PF].type = 0x0e;
        verdict("#DF #PF whose gate is not present", attempt(p_read, 0x8000000000, DF, 0, (u64)f_read, 0x8000000000));
        idt[PF] = page_fault;
        idt[GP].type = 0x0e;
        verdict("#DF #GP whose gate is not present", attempt(p_load_ds, 0x7f8, DF, 0, (u64)f_load_ds, CR2_UNTOUCHED));
        idt[GP] = protection;
}

static void segments(void)
{
        u64 *spare = gdt + SEL_SPARE / 8, base = (u64)pages[DATA], gate = (u64)gate_entry;
        spare[0] = 0x00cf13000000ffff;          /* data, not present */
        spare[1] = 0x00af98000000ffff;          /* code, execute only */
        spare[2] = 0x00af1b000000ffff;          /* code, not present */
        spare[10] = 0x000002000000ffff;         /* LDT, not present */
        spare[4] = 0x0040930000000fff | (base & 0xffffff) << 16 | (base >> 24) << 56;   /* data of 4 KiB at DATA */
        spare[6] = (gate & 0xffff) | SEL_CODE64 << 16 | 0x0000ec0000000000 | (gate >> 16) << 48;        /* call gate, DPL 3 */
        spare[8] = (gate & 0xffff) | SEL_CODE64 << 16 | 0x00008c0000000000 | (gate >> 16) << 48;        /* call gate, DPL 0 */

        __asm__ volatile("lldt %w0" ::"r"(0));
        WORKS("null selector in DS", load_ds, 3);
        WORKS("null selector in SS at CPL 0", load_ss, 0);
        FAULT("#NP DS not present", load_ds, SEL_SPARE, NP, SEL_SPARE);
        FAULT("#GP DS execute only", load_ds, SEL_SPARE + 8, GP, SEL_SPARE + 8);
        FAULT("#GP DS beyond the GDT", load_ds, 0x7f8, GP, 0x7f8);
        FAULT("#GP DS from an LDT that is null", load_ds, 0x0f, GP, 0x0c);
        FAULT("#SS SS not present", load_ss, SEL_SPARE, SS, SEL_SPARE);
        FAULT("#GP SS with RPL 3 at CPL 0", load_ss, SEL_USER_DATA, GP, SEL_USER_DATA & ~3);
        FAULT("#GP SS with a code segment", load_ss, SEL_CODE64, GP, SEL_CODE64);
        FAULT("#GP LTR of a busy TSS", load_tr, SEL_TSS, GP, SEL_TSS);
        FAULT("#GP LLDT of a data segment", load_ldtr, SEL_DATA, GP, SEL_DATA);
        FAULT("#NP LLDT not present", load_ldtr, SEL_SPARE + 0x50, NP, SEL_SPARE + 0x50);
        FAULT("#NP far JMP, code not present", far_jump, SEL_SPARE + 16, NP, SEL_SPARE + 16);
        FAULT("#GP far JMP to data", far_jump, SEL_DATA, GP, SEL_DATA);
        FAULT("#GP far JMP to null", far_jump, 0, GP, 0);
        FAULT("#NP far RET, code not present", far_return, SEL_SPARE + 16, NP, SEL_SPARE + 16);
        FAULT("#GP far RET to data", far_return, SEL_DATA, GP, SEL_DATA);
        FAULT("#GP IRETQ to null", iret_code, 0, GP, 0);
        FAULT("#GP IRETQ beyond the GDT", iret_code, 0x7f8, GP, 0x7f8);
        FAULT("#GP IRETQ with RFLAGS.NT in long mode", iret_nested_task, 0, GP, 0);
}

static void gates(void)
{
        struct idt_gate gate = idt[0x31];
        idt[0x31].type = 0x0e;
        FAULT("#NP INT n, gate not present", int_31, 0, NP, GATE_ERROR(0x31));
        idt[0x31].type = 0x85;
        FAULT("#GP INT n, task gate in long mode", int_31, 0, GP, GATE_ERROR(0x31));
        FAULT("#GP INT n beyond the IDT", int_beyond, 0, GP, GATE_ERROR(0x50));
        idt[0x31] = gate;
        idt[0x31].selector = 0;
        FAULT("#GP INT n, gate with a null selector", int_31, 0, GP, 0);
        idt[0x31].selector = SEL_DATA;
        FAULT("#GP INT n, gate to data", int_31, 0, GP, SEL_DATA);
        idt[0x31].selector = SEL_CODE32;
        FAULT("#GP INT n, gate to 32-bit code", int_31, 0, GP, SEL_CODE32);
        idt[0x31].selector = SEL_SPARE + 16;
        FAULT("#NP INT n, code not present", int_31, 0, NP, SEL_SPARE + 16);
        idt[0x31] = gate;
        idt[0x31].ist = 7;
        tss_descriptor(__builtin_offsetof(struct tss64, ist[1]) - 1);
        FAULT("#TS INT n, IST 7 beyond the TSS", int_31, 0, TS, SEL_TSS);
        tss_descriptor(sizeof tss - 1);
        idt[0x31] = gate;
        struct idt_gate page = idt[0x32];
        idt[0x32].type = 0x8f;
        extern char p_int_32[];
        int good = attempt(p_int_32, 0, 0x32, 0, ANY, CR2_UNTOUCHED);
        verdict("INT n through a trap gate", good && seen.cs == SEL_CODE64 && seen.ss == SEL_DATA);
        idt[0x32] = page;
}

static void general_protection(void)
{
        FAULT("#GP read of a non-canonical address", read, NON_CANONICAL, GP, 0);
        FAULT("#GP DR7 upper half", to_dr7, 1ul << 32, GP, 0);
        FAULT("#GP DR6 upper half", to_dr6, 1ul << 32, GP, 0);
}

static void page_faults(void)
{
        u64 cr0 = read_cr0(), cr4 = read_cr4();
        struct cpuid leaf = cpuid(7, 0);
        PAGE_FAULT("#PF read, not present", read, ADDRESS(MISSING) + 0x123, 0);
        PAGE_FAULT("#PF write, not present", write, ADDRESS(MISSING) + 0x456, 2);
        PAGE_FAULT("#PF read, no PML4 entry", read, 0x8000000000, 0);
        PAGE_FAULT("#PF write, read-only with CR0.WP", write, ADDRESS(SUPERVISOR_READ_ONLY), 3);
        PAGE_FAULT("#PF read-modify-write says write", read_modify, ADDRESS(SUPERVISOR_READ_ONLY), 3);
        extern char p_jump[], p_rep_movs[], f_rep_movs[], p_read[], f_read[];
        verdict("#PF fetch, no-execute", attempt(p_jump, ADDRESS(SUPERVISOR), PF, 0x11, ADDRESS(SUPERVISOR), ADDRESS(SUPERVISOR)));
        verdict("#PF fetch, not present", attempt(p_jump, ADDRESS(MISSING), PF, 0x10, ADDRESS(MISSING), ADDRESS(MISSING)));
        PAGE_FAULT("#PF read, reserved bit", read, ADDRESS(RESERVED), RESERVED_ERROR(0));
        PAGE_FAULT("#PF write, reserved bit", write, ADDRESS(RESERVED), RESERVED_ERROR(2));
        PAGE_FAULT("#PF read, reserved bit of a 2 MiB entry", read, USER_BASE + 0x200000, RESERVED_ERROR(0));
        verdict("#PF read across the border of a missing page",
                attempt(p_read, ADDRESS(MISSING) - 4, PF, 0, (u64)f_read, ADDRESS(MISSING)));
        int good = attempt(p_rep_movs, ADDRESS(MISSING) - 24, PF, 2, (u64)f_rep_movs, ADDRESS(MISSING));
        verdict("#PF in REP MOVS after 24 of 64 bytes",
                good && seen.rcx == 40 && seen.rdi == ADDRESS(MISSING) && seen.rsi == (u64)watched + 24);

        table[SUPERVISOR] &= ~(A | D);
        invlpg(ADDRESS(SUPERVISOR));
        WORKS("read of a supervisor page", read, ADDRESS(SUPERVISOR));
        verdict("accessed set, dirty clear after a read", (table[SUPERVISOR] & (A | D)) == A);
        WORKS("write of a supervisor page", write, ADDRESS(SUPERVISOR));
        verdict("dirty set after a write", (table[SUPERVISOR] & (A | D)) == (A | D));
        verdict("refused accesses left the read-only page clean", !(table[SUPERVISOR_READ_ONLY] & D));

        write_cr0(cr0 & ~0x10000ul);
        WORKS("write, read-only without CR0.WP", write, ADDRESS(SUPERVISOR_READ_ONLY));
        write_cr0(cr0);
        verdict("dirty set on the read-only page without CR0.WP", (table[SUPERVISOR_READ_ONLY] & D) != 0);

        if (leaf.ebx & 1 << 7) {
                write_cr4(cr4 | 1 << 20);
                verdict("#PF fetch of a user page with SMEP", attempt(p_jump, ADDRESS(CODE), PF, 0x11, ADDRESS(CODE), ADDRESS(CODE)));
                write_cr4(cr4);
        } else
                print("skip #PF fetch of a user page with SMEP\n");
        if (leaf.ebx & 1 << 20) {
                write_cr4(cr4 | 1 << 21);
                PAGE_FAULT("#PF read of a user page with SMAP", read, ADDRESS(DATA), 1);
                PAGE_FAULT("#PF write of a user page with SMAP", write, ADDRESS(DATA), 3);
                WORKS("read and write of a user page after STAC", write_stac, ADDRESS(DATA));
                write_cr4(cr4);
        } else
                print("skip #PF read of a user page with SMAP\nskip #PF write of a user page with SMAP\n"
                      "skip read and write of a user page after STAC\n");
}

static void user_mode(void)
{
        u64 cr4 = read_cr4();
        extern char u_jump_data[], u_popf[], u_compat[], user_compat_end[], u_syscall[], u_syscall_at[], u_call_gate[],
                u_call_gate_at[], u_compat_syscall[], u_compat_syscall_at[], u_read_only[];
        idt[USER_END].type = 0xee;
        USER_WORKS("IRETQ to CPL 3 and INT n back", nothing, 2);
        verdict("the frame of CPL 3", seen.rsp == USER_STACK_TOP && seen.cs == SEL_USER_CODE64 && seen.rbx == 0x1234);
        USER_FAULT("#GP HLT at CPL 3", hlt, GP, 0);
        USER_FAULT("#GP CLI at CPL 3 with IOPL 0", cli, GP, 0);
        USER_WORKS("CLI at CPL 3 with IOPL 3", cli, 0x3002);
        USER_FAULT("#GP IN refused by the permission map", in, GP, 0);
        tss.io_bits[0x80 / 8] = 0xfe;
        USER_WORKS("IN allowed by the permission map", in_allowed, 2);
        tss.io_bits[0x80 / 8] = 0xff;
        USER_WORKS("IN with IOPL 3", in, 0x3002);
        USER_FAULT("#GP MOV from CR0 at CPL 3", mov_cr0, GP, 0);
        USER_FAULT("#GP RDMSR at CPL 3", rdmsr, GP, 0);
        USER_FAULT("#GP WBINVD at CPL 3", wbinvd, GP, 0);
        USER_FAULT("#GP LGDT at CPL 3", lgdt, GP, 0);
        USER_FAULT("#GP SWAPGS at CPL 3", swapgs, GP, 0);
        USER_FAULT("#GP INT n through a gate of DPL 0", int_31, GP, GATE_ERROR(0x31));
        USER_FAULT("#GP INT3 through a gate of DPL 0", int3, GP, GATE_ERROR(BP));
        write_cr4(cr4 | 4);
        USER_FAULT("#GP RDTSC at CPL 3 with CR4.TSD", rdtsc, GP, 0);
        write_cr4(cr4);
        USER_WORKS("RDTSC at CPL 3 without CR4.TSD", rdtsc, 2);
        if (cpuid(7, 0).ecx & 1 << 2) {
                write_cr4(cr4 | 1 << 11);
                USER_FAULT("#GP SGDT at CPL 3 with CR4.UMIP", sgdt, GP, 0);
                write_cr4(cr4);
        } else
                print("skip #GP SGDT at CPL 3 with CR4.UMIP\n");
        USER_FAULT_AT("#GP DS of DPL 0 at CPL 3", kernel_ds, GP, SEL_DATA);
        USER_FAULT_AT("#GP IRETQ from CPL 3 to CPL 0", iret_kernel, GP, SEL_CODE64);
        in_user(u_popf, SEL_USER_CODE64, 2, USER_END, 0, 0, CR2_UNTOUCHED);
        verdict("POPFQ at CPL 3 keeps IOPL and IF", seen.vector == USER_END && seen.rax == 2);

        USER_PAGE_FAULT("#PF user read of a supervisor page", read_supervisor, 5, ADDRESS(SUPERVISOR));
        USER_PAGE_FAULT("#PF user read, not present", read_missing, 4, ADDRESS(MISSING));
        USER_PAGE_FAULT("#PF user write, not present", write_missing, 6, ADDRESS(MISSING));
        USER_PAGE_FAULT("#PF user write, read-only", write_read_only, 7, ADDRESS(READ_ONLY));
        verdict("user read, read-only", in_user(u_read_only, SEL_USER_CODE64, 2, USER_END, 0, 0, CR2_UNTOUCHED));
        verdict("#PF user fetch, no-execute", in_user(u_jump_data, SEL_USER_CODE64, 2, PF, 0x15, 0, ADDRESS(DATA)) &&
                                                      seen.rip == ADDRESS(DATA));

        verdict("IRETQ to 32-bit code at CPL 3 and INT n back",
                in_user(u_compat, SEL_USER_CODE32, 2, USER_END, 0, user_compat_end + 2, CR2_UNTOUCHED) && seen.rax == 5 &&
                        seen.cs == SEL_USER_CODE32);

        wrmsr(MSR_EFER, rdmsr(MSR_EFER) | EFER_SCE);
        wrmsr(MSR_STAR, (u64)SEL_USER_CODE32 << 48 | (u64)SEL_CODE64 << 32);
        wrmsr(MSR_LSTAR, (u64)syscall_entry);
        wrmsr(MSR_CSTAR, (u64)syscall_entry_compat);
        wrmsr(MSR_SFMASK, 1);
        u64 after = USER_BASE + (u64)(u_syscall_at - user_code);
        int good = in_user(u_syscall, SEL_USER_CODE64, 2, USER_END, 0, u_syscall_at + 2, CR2_UNTOUCHED);
        verdict("SYSCALL: RCX, R11, CS, SS, SFMASK", good && transfer[0] == after && transfer[1] == 3 && transfer[2] == SEL_CODE64 &&
                                                           transfer[3] == SEL_DATA && transfer[4] == 2);
        verdict("SYSRETQ: CS, RFLAGS, registers", good && seen.cs == SEL_USER_CODE64 && seen.rflags == 3 && seen.rbx == 0x77);
        wrmsr(MSR_LSTAR, (u64)syscall_entry32);
        good = in_user(u_syscall, SEL_USER_CODE64, 2, USER_END, 0, user_compat_end + 2, CR2_UNTOUCHED);
        verdict("SYSRET to 32-bit code", good && seen.cs == SEL_USER_CODE32);
        good = in_user(u_compat_syscall, SEL_USER_CODE32, 2, USER_END, 0, u_compat_syscall_at + 2, CR2_UNTOUCHED);
        verdict("SYSCALL from 32-bit code goes to CSTAR", good && transfer[0] == USER_BASE + (u64)(u_compat_syscall_at - user_code));
        wrmsr(MSR_EFER, rdmsr(MSR_EFER) & ~(u64)EFER_SCE);

        u32 *pointer = (u32 *)&pages[STACK][511 - 2];   /* offset part, ignored by the gate */
        *pointer = 0x12345678;
        good = in_user(u_call_gate, SEL_USER_CODE64, 2, USER_END, 0, u_call_gate_at + 2, CR2_UNTOUCHED);
        verdict("call gate to CPL 0 and far RET back",
                good && transfer[0] == USER_BASE + (u64)(u_call_gate_at - user_code) && transfer[1] == SEL_USER_CODE64 &&
                        transfer[2] == USER_STACK_TOP && transfer[3] == SEL_USER_DATA);
        USER_FAULT_AT("#GP call gate of DPL 0 from CPL 3", bad_gate, GP, SEL_SPARE + 0x40);
}

static void compatibility_mode(void)
{
        extern char p_compat[], compat_works[];
        int good = attempt(p_compat, (u64)compat_works, NONE, 0, ANY, CR2_UNTOUCHED);
        verdict("32-bit code at CPL 0", good && transfer[0] == 0xffff + 7 + 4);
        COMPAT("#OF INTO", compat_into, OF, 0);
        COMPAT("#BR BOUND", compat_bound, BR, 0);
        COMPAT("#DE AAM 0", compat_aam, DE, 0);
}

/* What the manual says and some emulators leave out. */
static void strict_checks(void)
{
        u64 cr0 = read_cr0(), cr4 = read_cr4();
        extern char u_misaligned[], u_misaligned_at[], p_compat[], p_compat_inside[], p_jump[];
        DEBUG("#DB DR7.GD", break_detect, 0x2000);
        DEBUG("#DB single step waits for the instruction after MOV SS", step_mov_ss, 0x4000);
        write_cr4(cr4 | 0x600);
        FAULT("#XF division by zero", sse_divide, 0, XF, 0);
        write_cr4(cr4 | 0x200);
        FAULT("#UD SSE exception without CR4.OSXMMEXCPT", sse_divide, 0, UD, 0);
        write_cr4(cr4);
        FAULT("#SS PUSH at a non-canonical address", push_at, NON_CANONICAL, SS, 0);
        FAULT("#SS read by RBP at a non-canonical address", stack_relative, NON_CANONICAL, SS, 0);
        FAULT("#GP EFER reserved bit", to_efer, rdmsr(MSR_EFER) | 1ul << 63, GP, 0);
        FAULT("#GP LSTAR not canonical", to_lstar, NON_CANONICAL, GP, 0);
        FAULT("#GP FS.base not canonical", to_fs_base, NON_CANONICAL, GP, 0);
        FAULT("#GP CR3 reserved bit", to_cr3, read_cr3() | 1ul << 63, GP, 0);
        FAULT("#GP CR8 above 15", to_cr8, 16, GP, 0);
        FAULT("#GP EFER.LME changed while paging", to_efer, rdmsr(MSR_EFER) & ~0x100ul, GP, 0);
        FAULT("#GP PAT type 2", to_pat, 2, GP, 0);
        FAULT("#GP RDMSR of no register", read_msr, 0xdeadbeef, GP, 0);
        FAULT("#GP LIDT of a non-canonical base", load_idt, NON_CANONICAL, GP, 0);
        write_cr0(cr0 | 1 << 18);
        verdict("#AC misaligned read at CPL 3",
                in_user(u_misaligned, SEL_USER_CODE64, 2, AC, 0, u_misaligned_at, CR2_UNTOUCHED));
        write_cr0(cr0);
        verdict("misaligned read at CPL 3 without CR0.AM",
                in_user(u_misaligned, SEL_USER_CODE64, 2, USER_END, 0, 0, CR2_UNTOUCHED));
        FAULT("#GP LTR of null", load_tr, 0, GP, 0);
        tss_descriptor(sizeof tss - 1);
        verdict("last bytes inside a segment limit", attempt(p_compat, (u64)p_compat_inside, NONE, 0, ANY, CR2_UNTOUCHED));
        COMPAT("#GP read beyond a segment limit", compat_limit, GP, 0);
        COMPAT("#GP read by a null segment", compat_null, GP, 0);
        COMPAT("#SS push beyond a segment limit", compat_stack_limit, SS, 0);
        COMPAT("#GP write into a code segment", compat_write_code, GP, 0);
        FAULT("#GP CR0.PG without CR0.PE", to_cr0, 0x80000030, GP, 0);
        write_cr0(cr0);
        FAULT("#GP CR0.NW without CR0.CD", to_cr0, 0xa0010033, GP, 0);
        write_cr0(cr0);
        FAULT("#GP CR4 reserved bit", to_cr4, cr4 | 1ul << 63, GP, 0);
        FAULT("#GP CR4.PAE cleared in long mode", to_cr4, cr4 & ~0x20ul, GP, 0);
        verdict("#GP JMP to a non-canonical address", attempt(p_jump, NON_CANONICAL, GP, 0, ANY, CR2_UNTOUCHED));
        DEBUG("#DB INT1", icebp, 0);
}

int guest_main(void)
{
        strict = option("strict", 0) != 0;
        for (u32 vector = 0; vector < IDT_GATES; vector++)
                trap_set(vector, trap_land);
        idt[SS].ist = idt[TS].ist = 1;
        map_pages();
        divide_and_debug();
        invalid_opcodes();
        floating_point();
        segments();
        gates();
        general_protection();
        page_faults();
        double_faults();
        user_mode();
        compatibility_mode();
        if (strict)
                strict_checks();
        print("%u checks, %u failed\n", (u64)checks, (u64)failed);
        return (int)(first_failed > 125 ? 125 : first_failed);
}

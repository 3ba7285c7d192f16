/*
 * nested: a hypervisor runs a guest of its own through all kinds of #VMEXIT.
 * Proves: VMRUN and #VMEXIT, the checks of VMRUN, EXITCODE, EXITINFO1/2, saved
 * RIP, nRIP and decode assists where CPUID offers them, nested page faults (not
 * present, write, fetch, guest table walk), permission maps, EVENTINJ, V_IRQ,
 * SHUTDOWN. Both sides keep a checksum of the values that L1 supplied.
 * Option: rounds=N (100); a round has 15 exits, every fourth 44 more.
 * strict=1 also compares what QEMU 7 leaves out: EXITINTINFO, address size and
 * segment in EXITINFO1 of string I/O, VMCB checks that it does not make.
 */
#include "lib/svm.h"
#include "nested.h"

struct step { u64 rip, next, code, info1, info2, action, flags; };
extern struct step l2_steps[], l2_steps_end[];
extern char l2_entry[], l2_page_fault[], l2_protection_fault[], l2_interrupt[], l2_virtual[], l2_nmi[], l2_data[];

static u8 vmcb[4096] PAGE_ALIGNED, iopm[3 * 4096] PAGE_ALIGNED, msrpm[2 * 4096] PAGE_ALIGNED;
static u8 l2_stack[4096] PAGE_ALIGNED;
static u64 window[8][512] PAGE_ALIGNED, npt_window[512] PAGE_ALIGNED;
u64 l2_pml4[512] PAGE_ALIGNED;
static u64 l2_pdpt[512] PAGE_ALIGNED, l2_directory[512] PAGE_ALIGNED, l2_window_directory[512] PAGE_ALIGNED,
        l2_window_table[512] PAGE_ALIGNED;
static struct idt_gate l2_idt[64] __attribute__((aligned(16)));
static struct l2_registers regs;
static u32 counts[0x100], npf_count, features;
static u64 checksum, value_seed = 0x9e3779b97f4a7c15, events_taken;
static int strict;

#define NRIPS (features & 1 << 3)
#define DECODE_ASSISTS (features & 1 << 7)

static const struct { u16 code; const char *name; } names[] = {
        {0x00, "CR0_READ"}, {0x03, "CR3_READ"}, {0x04, "CR4_READ"}, {0x08, "CR8_READ"}, {0x10, "CR0_WRITE"},
        {0x13, "CR3_WRITE"}, {0x14, "CR4_WRITE"}, {0x18, "CR8_WRITE"}, {0x27, "DR7_READ"}, {0x30, "DR0_WRITE"},
        {0x40, "EXCP_DE"}, {0x43, "EXCP_BP"}, {0x46, "EXCP_UD"}, {0x4d, "EXCP_GP"}, {0x4e, "EXCP_PF"}, {0x64, "VINTR"},
        {0x65, "CR0_SEL_WRITE"}, {0x66, "IDTR_READ"}, {0x67, "GDTR_READ"}, {0x68, "LDTR_READ"}, {0x69, "TR_READ"},
        {0x6a, "IDTR_WRITE"}, {0x6b, "GDTR_WRITE"}, {0x6c, "LDTR_WRITE"}, {0x6d, "TR_WRITE"}, {0x6e, "RDTSC"},
        {0x6f, "RDPMC"}, {0x70, "PUSHF"}, {0x71, "POPF"}, {0x72, "CPUID"}, {0x75, "SWINT"}, {0x76, "INVD"}, {0x77, "PAUSE"},
        {0x78, "HLT"}, {0x79, "INVLPG"}, {0x7a, "INVLPGA"}, {0x7b, "IOIO"}, {0x7c, "MSR"}, {0x7f, "SHUTDOWN"},
        {0x80, "VMRUN"}, {0x81, "VMMCALL"}, {0x82, "VMLOAD"}, {0x83, "VMSAVE"}, {0x84, "STGI"}, {0x85, "CLGI"},
        {0x87, "RDTSCP"}, {0x89, "WBINVD"}, {0x8a, "MONITOR"}, {0x8b, "MWAIT"},
};

static void fold(u64 value) { checksum = (checksum << 7 | checksum >> 57) ^ value; }

static u64 next_value(void)
{
        value_seed ^= value_seed << 13;
        value_seed ^= value_seed >> 7;
        value_seed ^= value_seed << 17;
        return value_seed;
}

static void stop(u32 value, const char *text, u64 expected)
{
        print("FAIL %s, expected %x: exit %x info1 %x info2 %x intinfo %x rip %x nrip %x rax %x round %u\n", text, expected,
              VMCB64(vmcb, EXITCODE), VMCB64(vmcb, EXITINFO1), VMCB64(vmcb, EXITINFO2), VMCB64(vmcb, EXITINTINFO),
              VMCB64(vmcb, RIP), VMCB64(vmcb, NRIP), VMCB64(vmcb, RAX), regs.r14);
        guest_exit(value);
}

static void l2_gate(u32 vector, char *handler)
{
        u64 at = (u64)handler;
        l2_idt[vector] = (struct idt_gate){(u16)at, SEL_CODE64, 0, 0x8e, (u16)(at >> 16), (u32)(at >> 32), 0};
}

/* L2 sees its first GiB as it is, and the window at WINDOW_GVA. */
static void l2_tables(void)
{
        l2_pml4[0] = (u64)l2_pdpt | 7;
        l2_pdpt[0] = (u64)l2_directory | 7;
        l2_pdpt[1] = (u64)l2_window_directory | 7;
        for (u64 n = 0; n < 512; n++)
                l2_directory[n] = n << 21 | 0x87;
        l2_window_directory[0] = (u64)l2_window_table | 7;
        l2_window_directory[1] = (WINDOW_GPA + WINDOW_TABLE * 4096) | 7;
        for (u64 n = 0; n < 8; n++)
                l2_window_table[n] = (WINDOW_GPA + n * 4096) | 7;
        l2_gate(2, l2_nmi);
        l2_gate(13, l2_protection_fault);
        l2_gate(14, l2_page_fault);
        l2_gate(ROUND_VECTOR, l2_interrupt);
        l2_gate(VIRTUAL_VECTOR, l2_virtual);
}

/* The window pages change places in memory: gPA order is not sPA order. */
#define WINDOW_SPA(page) ((u64)window[(page) ^ 7])
static u64 *window_page(u64 page) { return window[page ^ 7]; }

static void window_reset(void)
{
        npt_window[0] = WINDOW_SPA(0) | 7;
        npt_window[WINDOW_MISSING] = 0;
        npt_window[WINDOW_READ_ONLY] = WINDOW_SPA(WINDOW_READ_ONLY) | 5;
        npt_window[WINDOW_NO_EXECUTE] = WINDOW_SPA(WINDOW_NO_EXECUTE) | 7 | 1ul << 63;
        npt_window[WINDOW_TABLE] = 0;
        VMCB8(vmcb, TLB_CONTROL) = 1;
}

static void prepare(void)
{
        vmcb_long_mode(vmcb, l2_entry, l2_stack + sizeof l2_stack, (u64)l2_pml4);
        VMCB32(vmcb, INTERCEPT_CR) = (1 << 0 | 1 << 3 | 1 << 4 | 1 << 8) * 0x10001u;
        VMCB32(vmcb, INTERCEPT_DR) = 1 << 7 | 1 << 16;
        VMCB32(vmcb, INTERCEPT_EXCEPTIONS) = 1 << 0 | 1 << 3 | 1 << 6 | 1 << 13 | 1 << 14;
        /* VINTR, descriptor tables, RDTSC, RDPMC, PUSHF, POPF, CPUID, INTn, INVD, PAUSE, HLT, INVLPG(A), IOIO, MSR, SHUTDOWN */
        VMCB32(vmcb, INTERCEPT_3) = 1u << 4 | 0xffu << 6 | 3u << 14 | 7u << 16 | 0xffu << 21 | 1u << 31;
        VMCB32(vmcb, INTERCEPT_3) &= ~(1u << 29);
        VMCB32(vmcb, INTERCEPT_4) = 0xbf | 1 << 9 | 1 << 10 | 1 << 11;
        VMCB64(vmcb, IOPM_BASE_PA) = (u64)iopm;
        VMCB64(vmcb, MSRPM_BASE_PA) = (u64)msrpm;
        VMCB64(vmcb, IDTR + 8) = (u64)l2_idt;
        iopm[PORT / 8] = 0x0f;
        /* two bits per MSR, read and write; C0000000h to C0001FFFh are the second 2 KiB */
        msrpm[0x800 + (MSR_READ_TRAPPED & 0x1fff) / 4] |= 1 << (MSR_READ_TRAPPED & 3) * 2;
        msrpm[0x800 + (MSR_WRITE_TRAPPED & 0x1fff) / 4] |= 2 << (MSR_WRITE_TRAPPED & 3) * 2;
}

/* VMRUN must refuse these. What a failed VMRUN leaves in the VMCB is undefined: each begins with a new one. */
static u32 refused(u32 field, u32 size, u64 set, u64 clear, const char *text, u32 number)
{
        u64 *at = (u64 *)(vmcb + field), mask = size == 8 ? ~0ul : (1ul << size * 8) - 1;
        prepare();
        *at = (*at & ~mask) | (((*at & mask) | set) & ~clear & mask);
        svm_run(vmcb, &regs);
        if ((strict ? VMCB64(vmcb, EXITCODE) : VMCB64(vmcb, EXITCODE) | ~0ul << 32) != EXIT_INVALID)    /* QEMU 7 writes 32 bits */
                stop(number, text, EXIT_INVALID);
        return 1;
}

static u32 refused_states(void)
{
        u32 n = 0;
        n += refused(VMCB_GUEST_ASID, 4, 0, 1, "ASID 0 accepted", 2);
        n += refused(VMCB_EFER, 8, 0, EFER_SVME, "EFER.SVME clear accepted", 3);
        n += refused(VMCB_CR0, 8, 1 << 29, 0, "CR0.NW without CD accepted", 4);
        n += refused(VMCB_CR0, 8, 1ul << 32, 0, "CR0 upper half accepted", 5);
        n += refused(VMCB_DR7, 8, 1ul << 32, 0, "DR7 upper half accepted", 6);
        n += refused(VMCB_DR6, 8, 1ul << 32, 0, "DR6 upper half accepted", 7);
        n += refused(VMCB_CR4, 8, 0, 1 << 5, "long mode without CR4.PAE accepted", 8);
        n += refused(VMCB_CR0, 8, 0, 1, "long mode without CR0.PE accepted", 9);
        n += refused(VMCB_CS + 2, 2, 1 << 10, 0, "CS.L and CS.D accepted", 10);
        n += refused(VMCB_INTERCEPT_4, 4, 0, 1, "VMRUN not intercepted accepted", 11);
        if (strict) {
                n += refused(VMCB_CR4, 8, 1ul << 32, 0, "CR4 upper half accepted", 12);
                n += refused(VMCB_EFER, 8, 1ul << 32, 0, "EFER reserved bit accepted", 13);
                n += refused(VMCB_EVENTINJ, 8, EVENT_VALID | 1 << 8, 0, "EVENTINJ of reserved type accepted", 14);
                n += refused(VMCB_EVENTINJ, 8, EVENT_VALID | EVENT_EXCEPTION | 2, 0, "EVENTINJ exception 2 accepted", 15);
                n += refused(VMCB_N_CR3, 8, 1ul << 63, 0, "N_CR3 beyond the address space accepted", 16);
        }
        return n;
}

static void supply(const struct step *step, u64 value)
{
        if (step->action == DO_SUPPLY) {
                VMCB64(vmcb, RAX) = (u32)value;
                regs.rbx = value >> 8 & 0xffffffff;
                regs.rcx = value >> 16 & 0xffffffff;
                regs.rdx = value >> 32;
        } else {
                VMCB64(vmcb, RAX) = step->action == DO_SUPPLY_EAX && step->code == 0x7b ? value & 0xff : (u32)value;
                if (step->action == DO_SUPPLY_EDX_EAX)
                        regs.rdx = value >> 32;
        }
}

/* The same folds that L2 makes after this step. */
static void mirror(const struct step *step)
{
        u64 rax = VMCB64(vmcb, RAX);
        switch (step->code) {
        case 0x72:
                fold(rax);
                fold(regs.rbx);
                fold(regs.rcx);
                fold(regs.rdx);
                break;
        case 0x7c:
                if (step->action == DO_SKIP) {
                        fold((u32)rdmsr(MSR_WRITE_TRAPPED));
                        break;
                }
                __attribute__((fallthrough));
        case 0x6e:
                fold(rax);
                fold(regs.rdx);
                break;
        case 0x7b:
                if (step->action == DO_SUPPLY_EAX)
                        fold(rax);
                break;
        case 0x03:
        case 0x04:
        case 0x27:
                fold(rax);
        }
}

/* QEMU 7 takes INT3 for SWINT, INVD for WBINVD and RDTSCP for RDTSC. */
static u32 qemu_code(u64 code) { return code == 0x43 ? 0x75 : code == 0x76 ? 0x89 : code == 0x87 ? 0x6e : 0xffff; }

static void check(const struct step *step, u64 code)
{
        u64 info1 = VMCB64(vmcb, EXITINFO1), mask = code == 0x65 ? 0 : ~0ul;
        int told = code == 0x7b || code == 0x7c || code == 0x4d || code == 0x4e || code == EXIT_NPF ||
                   ((step->flags & ASSIST) && DECODE_ASSISTS);  /* EXITINFO1 means something */
        if (VMCB64(vmcb, EXITCODE) != code && (strict || VMCB64(vmcb, EXITCODE) != (u64)qemu_code(code)))
                stop(20, "EXITCODE", code);
        if (VMCB64(vmcb, RIP) != step->rip)
                stop(21, "RIP", step->rip);
        if (code == 0x7b && !strict)
                mask = ~0x1f80ul;       /* address size and segment */
        if (code == 0x7b && !(step->info1 & 4))
                mask = ~0x1f80ul;       /* they count for strings alone */
        if (code == 0x7b && !DECODE_ASSISTS)
                mask &= ~0x1c00ul;
        if (told && (info1 & mask) != (step->info1 & mask))
                stop(22, "EXITINFO1", step->info1);
        if ((step->flags & NEXT_IN_INFO2) && VMCB64(vmcb, EXITINFO2) != step->next)
                stop(23, "EXITINFO2", step->next);
        if ((code == 0x400 || code == 0x4e) && VMCB64(vmcb, EXITINFO2) != step->info2)
                stop(24, "EXITINFO2", step->info2);
        if (NRIPS && VMCB64(vmcb, NRIP) != (step->flags & EVENT ? 0 : step->next))
                stop(25, "nRIP", step->flags & EVENT ? 0 : step->next);
        if (strict && VMCB64(vmcb, EXITINTINFO) & EVENT_VALID)
                stop(26, "EXITINTINFO", 0);
        if (VMCB64(vmcb, EVENTINJ) & EVENT_VALID)
                stop(27, "EVENTINJ", 0);
        if (DECODE_ASSISTS && (code == EXIT_NPF || code == 0x4e) && step->next &&
            (VMCB8(vmcb, GUEST_INSN_LEN) < step->next - step->rip ||
             memcmp(vmcb + VMCB_GUEST_INSN_BYTES, (void *)step->rip, step->next - step->rip)))
                stop(29, "guest instruction bytes", VMCB8(vmcb, GUEST_INSN_LEN));
        if (regs.r13 != checksum)
                stop(36, "checksum of L2", checksum);
        if (VMCB8(vmcb, CPL) != 0 || VMCB64(vmcb, CR3) != (u64)l2_pml4)
                stop(28, "CPL or CR3", (u64)l2_pml4);
}

static void handle(const struct step *step, u64 round)
{
        u64 value = next_value(), page;
        int advance = 1;
        switch (step->action) {
        case DO_ROUND:
                if (VMCB64(vmcb, RAX) != round || regs.r14 != round)
                        stop(30, "round", round);
                VMCB64(vmcb, RAX) = value;
                fold(value);
                window_reset();
                break;
        case DO_SUPPLY:
        case DO_SUPPLY_EAX:
        case DO_SUPPLY_EDX_EAX:
                supply(step, value);
                break;
        case DO_REFLECT_PF:
                VMCB64(vmcb, CR2) = VMCB64(vmcb, EXITINFO2);
                fold(VMCB64(vmcb, EXITINFO2));
                __attribute__((fallthrough));
        case DO_REFLECT_GP:
                VMCB64(vmcb, EVENTINJ) = VMCB64(vmcb, EXITINFO1) << 32 | EVENT_VALID | EVENT_ERROR_VALID | EVENT_EXCEPTION |
                                         (step->code - 0x40);
                fold(VMCB64(vmcb, EXITINFO1));
                advance = 0;
                break;
        case DO_MAP:
                page = (VMCB64(vmcb, EXITINFO2) - WINDOW_GPA) / 4096;
                npt_window[page] = WINDOW_SPA(page) | 7;
                VMCB8(vmcb, TLB_CONTROL) = 1;
                if (page == WINDOW_MISSING)
                        fold(window_page(WINDOW_MISSING)[0x128 / 8] = value);
                if (page == WINDOW_TABLE)
                        fold(window_page(0)[0x10 / 8] = value);
                advance = 0;
                break;
        case DO_CR0_WRITE:
                if (VMCB64(vmcb, RAX) != 0xc0010033)
                        stop(31, "CR0 value", 0xc0010033);
                /* the next time the other of the two intercepts takes its turn */
                VMCB32(vmcb, INTERCEPT_CR) ^= 1 << 16;
                VMCB32(vmcb, INTERCEPT_3) ^= 1 << INTERCEPT3_CR0_SEL_WRITE;
                break;
        case DO_CR3_WRITE:
                VMCB64(vmcb, CR3) = VMCB64(vmcb, RAX);
                break;
        case DO_CR4_WRITE:
                VMCB64(vmcb, CR4) = VMCB64(vmcb, RAX);
                break;
        case DO_STRING:
                if (regs.rsi != (u64)l2_data + (step->info1 & 8 ? 1 : 0))
                        stop(32, "RSI", (u64)l2_data);
                regs.rsi++;
                break;
        case DO_INJECT_INTR:
                VMCB64(vmcb, EVENTINJ) = EVENT_VALID | EVENT_INTR | ROUND_VECTOR;
                events_taken += ROUND_VECTOR;
                break;
        case DO_INJECT_NMI:
                VMCB64(vmcb, EVENTINJ) = EVENT_VALID | EVENT_NMI | 2;
                events_taken += 2;
                break;
        case DO_INJECT_VIRTUAL:
                VMCB64(vmcb, V_CONTROL) = V_IRQ | V_IGN_TPR | V_INTR_MASKING | V_PRIORITY(VIRTUAL_VECTOR >> 4) | V_VECTOR(VIRTUAL_VECTOR);
                fold(events_taken);
                break;
        case DO_VINTR:
                /* V_IRQ is still set; without the intercept L2 takes it at once */
                if (!(VMCB64(vmcb, V_CONTROL) & V_IRQ) || !(VMCB64(vmcb, RFLAGS) & 0x200))
                        stop(33, "V_IRQ", V_IRQ);
                VMCB32(vmcb, INTERCEPT_3) &= ~(1u << INTERCEPT3_VINTR);
                events_taken += VIRTUAL_VECTOR;
                fold(events_taken);
                advance = 0;
                break;
        case DO_FINISH:
                if (VMCB64(vmcb, RAX) != checksum)
                        stop(34, "checksum of L2", checksum);
                VMCB32(vmcb, INTERCEPT_EXCEPTIONS) = 0;
                VMCB32(vmcb, INTERCEPT_3) = 1u << INTERCEPT3_SHUTDOWN;
        }
        if (step->action == DO_SHUTDOWN)
                return;
        mirror(step);
        if (advance)
                VMCB64(vmcb, RIP) = step->next;
}

static void run(u64 rounds)
{
        struct step *step = l2_steps;
        u64 round = 0, selective = 0;
        for (;;) {
                u64 code = step->code;
                if (step->action == DO_CR0_WRITE && selective++ & 1)
                        code = EXIT_CR0_SEL_WRITE;
                if (round % 4 == 0 && step->action == DO_ROUND)
                        VMCB32(vmcb, INTERCEPT_3) |= 1u << INTERCEPT3_VINTR;
                svm_run(vmcb, &regs);
                VMCB8(vmcb, TLB_CONTROL) = 0;
                if (step->action == DO_SHUTDOWN) {
                        /* the saved state is undefined, only the code counts */
                        if (VMCB64(vmcb, EXITCODE) != EXIT_SHUTDOWN)
                                stop(35, "EXITCODE", EXIT_SHUTDOWN);
                        counts[EXIT_SHUTDOWN]++;
                        return;
                }
                check(step, code);
                if (code == EXIT_NPF)
                        npf_count++;
                else
                        counts[code]++;
                handle(step, round);
                do {
                        step++;
                        if (step->action == DO_FINISH && ++round < rounds)
                                step = l2_steps;
                } while ((step->flags & RARE) && round % 4);
        }
}

int guest_main(void)
{
        u64 rounds = option("rounds", 100), total;
        int reason = svm_enable();
        if (reason) {
                print("FAIL no SVM: %u\n", (u64)reason);
                return 1;
        }
        strict = option("strict", 0) != 0;
        features = cpuid(0x8000000a, 0).edx;
        npt_identity();
        npt_split(WINDOW_GPA, npt_window);
        l2_tables();
        window_page(WINDOW_TABLE)[3] = WINDOW_GPA | 7;
        memcpy(window_page(WINDOW_NO_EXECUTE), "\x41\xff\xe4", 3);      /* jmp *%r12 */
        wrmsr(MSR_WRITE_TRAPPED, 0);
        print("VMRUN refused %u bad states\n", (u64)refused_states());
        prepare();
        regs.r15 = rounds;
        run(rounds);
        total = npf_count;
        for (u32 i = 0; i < ARRAY_LENGTH(counts); i++)
                total += counts[i];
        for (u32 i = 0; i < ARRAY_LENGTH(names); i++)
                if (counts[names[i].code])
                        print("%03x %s %u\n", (u64)names[i].code, names[i].name, (u64)counts[names[i].code]);
        print("400 NPF %u\n", (u64)npf_count);
        print("%u exits in %u rounds, checksum of L2 %016x\n", total, rounds, checksum);
        return 0;
}

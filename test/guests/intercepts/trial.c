/*
 * Runs trials, each once with the intercept off and once with it on, and holds
 * what came of it against the table: one line for each check that fails, one for
 * each intercept.
 */
#include "intercepts.h"

u8 vmcb[4096] PAGE_ALIGNED, iopm[3 * 4096] PAGE_ALIGNED, msrpm[2 * 4096] PAGE_ALIGNED;
struct l2_registers regs;
u64 rip_tested, rip_next;

static const char *const modes[] = {
        [KERNEL64] = "CPL 0", [USER64] = "CPL 3", [KERNEL32] = "32-bit CPL 0", [USER32] = "32-bit CPL 3",
        [PAE32] = "32-bit CPL 0, PAE", [REAL] = "real mode", [V86] = "virtual-8086",
};
static const char *const stages[] = {
        [BEFORE_EXCEPTIONS] = "before-exceptions", [AFTER_PRIVILEGE] = "after-privilege", [AFTER_MEMORY] = "after-memory",
};

static char only_buffer[32];
static const char *only;
static int legacy_users;
static u32 rows, row_checks, row_failed, checks, failed, skipped;
static u8 row_lacks[FEATURES];
static u8 data_before[64];

/* An intercept comes before the results of its instruction, and a fault takes them back: nothing may have changed. */
struct state { u64 rax, rsp, rflags, cr0, cr2, cr3, cr4, efer, dr6, dr7, gdtr, idtr, tables, ldtr, tr, cs, cpl; struct l2_registers regs; };

static struct state state_now(void)
{
        return (struct state){
                VMCB64(vmcb, RAX), VMCB64(vmcb, RSP), VMCB64(vmcb, RFLAGS), VMCB64(vmcb, CR0), VMCB64(vmcb, CR2),
                VMCB64(vmcb, CR3), VMCB64(vmcb, CR4), VMCB64(vmcb, EFER), VMCB64(vmcb, DR6), VMCB64(vmcb, DR7),
                *(u64 *)(vmcb + VMCB_GDTR + 8), *(u64 *)(vmcb + VMCB_IDTR + 8),
                *(u16 *)(vmcb + VMCB_GDTR + 4) | (u64) * (u16 *)(vmcb + VMCB_IDTR + 4) << 16, *(u16 *)(vmcb + VMCB_LDTR),
                *(u16 *)(vmcb + VMCB_TR), *(u16 *)(vmcb + VMCB_CS), VMCB8(vmcb, CPL), regs,
        };
}

static const char *changed(struct state before, int in_handler)
{
        struct state after = state_now();
        if (before.rax != after.rax || memcmp(&before.regs, &after.regs, sizeof regs))
                return "a general-purpose register changed";
        if (memcmp(data_before, (void *)DATA, sizeof data_before))
                return "memory changed";
        if (in_handler)
                return 0;
        if (before.rsp != after.rsp)
                return "RSP changed";
        if ((before.rflags ^ after.rflags) & ~(RFLAGS_IF | 0x10000ul))  /* what stands before may set IF; RF is no result */
                return "RFLAGS changed";
        if (before.cr2 != after.cr2)
                return "CR2 changed";
        if (before.cr0 != after.cr0 || before.cr3 != after.cr3 || before.cr4 != after.cr4 || before.efer != after.efer)
                return "a control register changed";
        if (before.dr6 != after.dr6 || before.dr7 != after.dr7)
                return "a debug register changed";
        if (before.gdtr != after.gdtr || before.idtr != after.idtr || before.tables != after.tables || before.ldtr != after.ldtr ||
            before.tr != after.tr)
                return "a descriptor-table register changed";
        if (before.cs != after.cs || before.cpl != after.cpl)
                return "CS or CPL changed";
        return 0;
}

static void run(const struct trial *trial)
{
        VMCB64(vmcb, EXITCODE) = VMCB64(vmcb, EXITINFO1) = VMCB64(vmcb, EXITINFO2) = VMCB64(vmcb, EXITINTINFO) = POISON;
        VMCB64(vmcb, NRIP) = POISON;
        if (trial->flags & HOST_IF) {
                __asm__ volatile("clgi" ::: "memory");
                sti();
        }
        watchdog_start();
        svm_run(vmcb, &regs);
        watchdog_stop();
        cli();
}

/* The code of a trial, and VMMCALL and CPUID behind it, of which one is always intercepted; RIP of both. */
static void place(const struct trial *trial)
{
        const struct instruction *it = trial->instruction;
        u64 length = (u64)(it->end - it->start);
        memcpy((void *)CODE, it->start, length);
        memcpy((void *)(CODE + length), "\x0f\x01\xd9\x0f\xa2", VMMCALL_BYTES + 2);
        rip_tested = VMCB64(vmcb, RIP) + (u64)(it->tested - it->start);
        rip_next = VMCB64(vmcb, RIP) + length;
}

static void report(const struct row *row, const struct trial *trial, int on, const struct outcome *wanted,
                   const struct outcome *found, u32 flags, const char *wrong)
{
        print("fail %s: %s; %s", row->name, trial->instruction->text, modes[trial->mode]);
        if (trial->when)
                print(", %s", trial->when);
        print("; intercept %s: expected ", on ? "on" : "off");
        describe(wanted, trial, flags);
        print(", found ");
        describe(found, trial, flags);
        if (wrong)
                print(", and %s", wrong);
        print("\n");
}

/* @param again it is the second attempt: the host of an emulator may have been slow. */
static void check(const struct row *row, const struct trial *trial, int on, int again)
{
        volatile u32 *word = (volatile u32 *)(vmcb + row->word);
        u32 flags = trial->flags;
        if ((on ? trial->on : trial->off) == NOT_RUN && has(row->feature))
                return;
        l2_reset();
        l2_state(trial);
        place(trial);
        VMCB32(vmcb, INTERCEPT_3) |= 1u << INTERCEPT3_CPUID | 1u << INTERCEPT3_SHUTDOWN | 1u << INTERCEPT3_NMI;
        VMCB32(vmcb, INTERCEPT_4) |= 1 << INTERCEPT4_VMMCALL;
        if (trial->prepare)
                trial->prepare(trial, on);
        *word = on ? *word | 1u << row->bit : *word & ~(1u << row->bit);
        memcpy(data_before, (void *)DATA, sizeof data_before);
        struct state before = state_now();
        run(trial);

        struct outcome wanted = expectation(row, trial, on), found = classify(trial);
        const char *wrong = 0;
        if (found.code == EXIT_NMI && row->exit != EXIT_NMI)
                found.kind = NEVER_ENDS;
        if (flags & INFO1_ASSIST && has(DECODE_ASSISTS))
                flags |= INFO1;
        if (flags & INFO2_NEXT)
                flags |= INFO2;
        if (!has(NRIPS))
                flags |= NO_NEXT_RIP;
        if ((found.kind == EXITS || (found.kind == FAULTS_ && found.code == EXIT_CPUID)) && !(flags & COMMITS))
                wrong = changed(before, found.kind == FAULTS_);
        if (!wrong && VMCB64(vmcb, EVENTINJ) & EVENT_VALID)
                wrong = "EVENTINJ is valid";
        if (trial->inspect) {
                const char *found_wrong = trial->inspect(trial, on);
                wrong = wrong ? wrong : found_wrong;
        }
        if (found.kind == NEVER_ENDS && !again) {
                check(row, trial, on, 1);
                return;
        }
        row_checks++;
        if (!same(&wanted, &found, trial, flags) || wrong) {
                row_failed++;
                report(row, trial, on, &wanted, &found, flags, wrong);
        }
}

/* An instruction breakpoint comes before every intercept of its instruction (APM vol.2 §15.7 Intercept Operation). */
static const struct trial *without_breakpoint;

static void prepare_breakpoint(const struct trial *trial, int on)
{
        const struct instruction *it = trial->instruction;
        if (without_breakpoint->prepare)
                without_breakpoint->prepare(without_breakpoint, on);
        write_dr0(CODE + (u64)(it->tested - it->start));
}

static const char *inspect_breakpoint(const struct trial *trial, int on)
{
        (void)trial;
        write_dr0(0);
        if (without_breakpoint->inspect)        /* it may have to clear something away */
                without_breakpoint->inspect(without_breakpoint, on);
        return VMCB64(vmcb, DR6) & 1 ? 0 : "DR6.B0 is clear";
}

static void check_breakpoint(const struct row *row)
{
        struct trial trial = row->trials[0];
        without_breakpoint = &row->trials[0];
        trial.when = "breakpoint on the instruction";
        trial.on = FAULTS(DB);
        trial.dr7 = 0x401;
        trial.prepare = prepare_breakpoint;
        trial.inspect = inspect_breakpoint;
        check(row, &trial, 1, 0);
}

/* `ok`, or what is wrong with an intercept, or what CPUID does not offer of it. */
static void verdict(const struct row *row)
{
        const char *separator = ": without ";
        int lacks = row_lacks[row->feature] || !row_checks;
        print("%s %s %03x:%u exit %03x %s, %u checks", row_failed ? "FAIL" : lacks ? "skip" : "ok  ", row->name, (u64)row->word,
              (u64)row->bit, (u64)row->exit, stages[row->stage], (u64)row_checks);
        if (row_failed)
                print(", %u failed", (u64)row_failed);
        for (u32 feature = 0; feature < FEATURES; feature++)
                if (row_lacks[feature]) {
                        print("%s%s", separator, feature_name(feature));
                        separator = ", ";
                }
        print("\n");
        rows++;
        checks += row_checks;
        failed += row_failed;
        skipped += (u32)lacks;
}

static int chosen(const char *name)
{
        u32 n = 0;
        if (!only)
                return 1;
        while (name[n] && name[n] == only[n])
                n++;
        return name[n] == only[n];
}

void trials_begin(void)
{
        only = option_text("only", 0, only_buffer, sizeof only_buffer);
        legacy_users = option("legacy", 1) != 0;
}

/* @returns the exit value of the guest. */
int trials_end(void)
{
        if (only && !rows) {
                print("no intercept %s\n", only);
                return 2;
        }
        print("%u intercepts, %u checks, %u failed, %u skipped\n", (u64)rows, (u64)checks, (u64)failed, (u64)skipped);
        return failed ? 1 : 0;
}

/* Three words as one, for the names of numbered intercepts. @returns `text`. */
const char *numbered(char *text, const char *before, u32 number, const char *after)
{
        char *at = text;
        while (*before)
                *at++ = *before++;
        if (number >= 10)
                *at++ = (char)('0' + number / 10);
        *at++ = (char)('0' + number % 10);
        while ((*at++ = *after++))
                ;
        return text;
}

void check_row(const struct row *row)
{
        if (!chosen(row->name))
                return;
        row_checks = row_failed = 0;
        memset(row_lacks, 0, sizeof row_lacks);
        row_lacks[row->feature] = !has(row->feature);
        for (u32 n = 0; n < row->count; n++) {
                const struct trial *trial = &row->trials[n];
                if (row_lacks[row->feature] && trial->instruction->start != trial->instruction->tested)
                        continue;       /* what stands before it is #UD as well */
                if (!legacy_users && (trial->mode == USER32 || trial->mode == V86))
                        continue;
                if (!has(trial->needs)) {
                        row_lacks[trial->needs] = 1;
                        continue;
                }
                check(row, trial, 0, 0);
                check(row, trial, 1, 0);
        }
        if (!row->event && !row_lacks[row->feature] && has(row->trials[0].needs))
                check_breakpoint(row);
        verdict(row);
}

void check_rows(const struct row *table, u32 count)
{
        for (u32 n = 0; n < count; n++)
                check_row(&table[n]);
}

/* Outcomes: what the table wants of a run, what came of it, whether they are the same, and both in words. */
#include "intercepts.h"

static const char *const vectors[EXCEPTIONS] = {
        [DE] = "#DE", [DB] = "#DB", [NMI] = "NMI", [BP] = "#BP", [OF] = "#OF", [BR] = "#BR", [UD] = "#UD", [NM] = "#NM",
        [DF] = "#DF", [TS] = "#TS", [NP] = "#NP", [SS] = "#SS", [GP] = "#GP", [PF] = "#PF", [MF] = "#MF", [AC] = "#AC",
        [MC] = "#MC", [XF] = "#XF", [SX] = "#SX",
};

static int pushes_error(u32 vector) { return vector < EXCEPTIONS && (0x40227d00 >> vector & 1); }

static void print_vector(u32 vector)
{
        if (vector < EXCEPTIONS && vectors[vector])
                print("%s", vectors[vector]);
        else
                print("vector %u", (u64)vector);
}

static u64 info1_mask(const struct trial *trial)
{
        u64 mask = trial->mask ? trial->mask : ~0ul;
        return trial->flags & SEGMENT_ASSIST && !has(DECODE_ASSISTS) ? mask & ~0x1c00ul : mask;
}

/* Prints what of it counts, and RIP where that is not the instruction's. */
void describe(const struct outcome *outcome, const struct trial *trial, u32 flags)
{
        switch (outcome->kind) {
        case COMPLETES:
                print("completes");
                return;
        case SWITCHES:
                print("the other task");
                return;
        case REFUSED:
                print("#VMEXIT(INVALID)");
                return;
        case NEVER_ENDS:
                print("no end");
                return;
        case FAULTS_:
        case TRAPS_:
                print_vector(outcome->vector);
                if (outcome->error != POISON)
                        print("(%x)", outcome->error);
                if (outcome->vector == PF)
                        print(" CR2 %x", outcome->cr2);
                if (outcome->rip != rip_tested)
                        print(outcome->rip == rip_next ? " behind it" : " from %x", outcome->rip);
                return;
        }
        print("#VMEXIT %03x", outcome->code);
        if (flags & INFO1)
                print(" info1 %x", outcome->info1 & info1_mask(trial));
        if (flags & INFO2)
                print(" info2 %x", outcome->info2);
        if (!(flags & NO_NEXT_RIP))
                print(" nRIP %x", outcome->nrip);
        if (!(flags & NO_INTINFO) && (trial->intinfo || outcome->intinfo & EVENT_VALID))
                print(" intinfo %x", outcome->intinfo);
        if (outcome->kind == EXITS_AFTER)
                print(" behind it");
        else if (outcome->kind == EXITS_ANYWHERE && outcome->rip != POISON)
                print(" from %x", outcome->rip);
}

/* The frame of an event whose handler L2 has reached. */
static void read_frame(struct outcome *outcome, enum mode mode)
{
        u64 rsp = VMCB64(vmcb, RSP), size, count, top = KERNEL_STACK_TOP;
        if (mode == KERNEL64 || mode == USER64) {
                size = 8;
                count = 5;
                if (rsp > IST_STACK_TOP - 0x1000 && rsp <= IST_STACK_TOP)
                        top = IST_STACK_TOP;
        } else if (mode == REAL) {
                size = 2;
                count = 3;
                rsp += LOW;
        } else {
                size = 4;
                count = mode == V86 ? 9 : mode == USER32 ? 5 : 3;
        }
        if (rsp < LOW || rsp >= top)
                return;         /* RIP and error code stay poisoned */
        int with_code = top - rsp == (count + 1) * size;
        u64 *at = (u64 *)(rsp + (with_code ? size : 0)), mask = size == 8 ? ~0ul : (1ul << size * 8) - 1;
        outcome->rip = *at & mask;
        if (with_code)
                outcome->error = *(u64 *)rsp & mask;
}

struct outcome classify(const struct trial *trial)
{
        u64 base = *(u64 *)(vmcb + VMCB_CS + 8), rip = VMCB64(vmcb, RIP), linear = base + rip;
        struct outcome found = {
                .code = VMCB64(vmcb, EXITCODE), .info1 = VMCB64(vmcb, EXITINFO1), .info2 = VMCB64(vmcb, EXITINFO2),
                .nrip = VMCB64(vmcb, NRIP), .rip = rip, .intinfo = VMCB64(vmcb, EXITINTINFO), .error = POISON,
                .cr2 = VMCB64(vmcb, CR2),
        };
        int sentinel = found.code == EXIT_VMMCALL || found.code == EXIT_CPUID;
        if (found.code == EXIT_INVALID) {
                found.kind = REFUSED;
        } else if (sentinel && linear >= HANDLERS && linear < HANDLERS + 64 * 16) {
                found.vector = (u16)((linear - HANDLERS) / 16);
                found.rip = POISON;
                if (found.vector == OTHER_TASK) {
                        found.kind = SWITCHES;
                        return found;
                }
                read_frame(&found, trial->mode);
                found.kind = found.rip == rip_next ? TRAPS_ : FAULTS_;
        } else if ((found.code == EXIT_VMMCALL && rip == rip_next) || (found.code == EXIT_CPUID && rip == rip_next + VMMCALL_BYTES)) {
                found.kind = COMPLETES;
        } else {
                found.kind = rip == rip_tested ? EXITS : rip == rip_next ? EXITS_AFTER : EXITS_ANYWHERE;
        }
        return found;
}

/* The outcome that the table wants, of a run with the intercept off or on. */
struct outcome expectation(const struct row *row, const struct trial *trial, int on)
{
        struct outcome wanted = {.error = POISON, .rip = rip_tested};
        u16 kind = on ? trial->on : trial->off;
        if (!has(row->feature)) {
                wanted.kind = FAULTS_;
                wanted.vector = UD;
                return wanted;
        }
        if (kind == BY_TABLE) {
                if (trial->fault.position != NO_FAULT && (!on || trial->fault.position < (int)row->stage))
                        kind = FAULTS(trial->fault.vector);
                else
                        kind = on ? EXITS : COMPLETES;
        }
        wanted.kind = kind & 0xff;
        wanted.vector = kind >> 8;
        wanted.code = trial->exit ? trial->exit : row->exit;
        wanted.info1 = trial->info1;
        wanted.info2 = trial->flags & INFO2_NEXT ? rip_next : trial->info2;
        wanted.nrip = !row->event || trial->flags & NEXT_RIP ? rip_next : 0;
        wanted.intinfo = trial->intinfo;
        wanted.cr2 = trial->cr2 ? trial->cr2 : trial->rbx;
        if (wanted.kind == TRAPS_ || wanted.kind == EXITS_AFTER)
                wanted.rip = rip_next;
        if (wanted.kind == EXITS_ANYWHERE)
                wanted.rip = POISON;
        if (wanted.kind == FAULTS_ && pushes_error(wanted.vector) && trial->mode != REAL && !(trial->flags & INTERRUPTED))
                wanted.error = trial->fault.error;
        return wanted;
}

int same(const struct outcome *wanted, const struct outcome *found, const struct trial *trial, u32 flags)
{
        u64 mask = info1_mask(trial);
        switch (wanted->kind) {
        case COMPLETES:
        case REFUSED:
        case SWITCHES:
                return found->kind == wanted->kind;
        case FAULTS_:
        case TRAPS_:
                return found->kind == wanted->kind && found->vector == wanted->vector && found->rip == wanted->rip &&
                       found->error == wanted->error && (found->vector != PF || found->cr2 == wanted->cr2);
        }
        if (wanted->kind == EXITS_ANYWHERE ? found->kind < EXITS || found->kind > EXITS_ANYWHERE : found->kind != wanted->kind)
                return 0;
        return found->code == wanted->code && (!(flags & INFO1) || (found->info1 & mask) == (wanted->info1 & mask)) &&
               (!(flags & INFO2) || found->info2 == wanted->info2) && (flags & NO_NEXT_RIP || found->nrip == wanted->nrip) &&
               (flags & NO_INTINFO || (wanted->intinfo ? found->intinfo == wanted->intinfo : !(found->intinfo & EVENT_VALID)));
}

/*
 * The instructions of SVM in a guest. EFER.SVME cannot be cleared here: what a guest does without it is undefined.
 * Source: APM vol.2 §15.4 Enabling SVM, §15.9 Instruction Intercepts (table 15-7), §15.18 VMMCALL Instruction;
 * APM vol.3, VMRUN, VMLOAD, VMSAVE, STGI, CLGI, INVLPGA, SKINIT.
 */
#include "intercepts.h"

INSTRUCTION(vmrun_, "vmrun");
INSTRUCTION16(vmrun16, "vmrun");
INSTRUCTION(vmmcall_, "vmmcall");
INSTRUCTION16(vmmcall16, "vmmcall");
ENCODED(lock_vmmcall, "lock vmmcall", "0xf0, 0x0f, 0x01, 0xd9");
INSTRUCTION(vmload_, "vmload");
INSTRUCTION16(vmload16, "vmload");
INSTRUCTION(vmsave_, "vmsave");
INSTRUCTION16(vmsave16, "vmsave");
INSTRUCTION(stgi_, "stgi");
INSTRUCTION16(stgi16, "stgi");
INSTRUCTION(clgi_, "clgi");
INSTRUCTION16(clgi16, "clgi");
INSTRUCTION(skinit_, "skinit %eax");
INSTRUCTION16(skinit16, "skinit %eax");
INSTRUCTION(invlpga_, "invlpga %rax, %ecx");
INSTRUCTION16(invlpga16, "invlpga %eax, %ecx");

static u8 saved_state[4096] PAGE_ALIGNED;

/* A page that VMLOAD finds sound. */
static void address_of_state(const struct trial *trial, int on)
{
        (void)on;
        __asm__ volatile("vmsave" ::"a"(saved_state) : "memory");
        VMCB64(vmcb, RAX) = (u64)saved_state + trial->rax;
}

#define TOO_HIGH (1ul << 60)
#define UNALIGNED 8
/* The three that address a VMCB by RAX. VMRUN must be intercepted: without the bit L1's own VMRUN is refused. */
#define BY_ADDRESS(it, it16, without)                                                                      \
        {                                                                                                  \
                {&it, 0, KERNEL64, .off = without, .prepare = address_of_state},                           \
                {&it, 0, USER64, {PRIVILEGE, GP, 0}, .off = without, .prepare = address_of_state},         \
                {&it16, 0, REAL, {DECODE, UD, 0}, .off = without, .prepare = address_of_state},            \
                {&it16, 0, V86, {DECODE, UD, 0}, .off = without, .prepare = address_of_state},             \
                {&it, "RAX not aligned", KERNEL64, {PRIVILEGE, GP, 0}, .off = without, .rax = UNALIGNED,   \
                 .prepare = address_of_state},                                                             \
                {&it, "RAX beyond physical addresses", KERNEL64, {PRIVILEGE, GP, 0}, .off = without, .rax = TOO_HIGH}, \
                {&it, "RAX not aligned", USER64, {PRIVILEGE, GP, 0}, .off = without, .rax = UNALIGNED,     \
                 .prepare = address_of_state},                                                             \
        }
#define GIF_INSTRUCTION(it, it16)                                                                          \
        {                                                                                                  \
                {&it, 0, KERNEL64},                                                                        \
                {&it, 0, USER64, {PRIVILEGE, GP, 0}},                                                      \
                {&it16, 0, REAL, {DECODE, UD, 0}},                                                         \
                {&it16, 0, V86, {DECODE, UD, 0}},                                                          \
                {&it, "virtual GIF", KERNEL64, .needs = VGIF, .v_control = V_GIF_ENABLE | V_GIF},          \
                {&it, "virtual GIF", USER64, {PRIVILEGE, GP, 0}, .needs = VGIF, .v_control = V_GIF_ENABLE | V_GIF}, \
        }

static const struct trial vmrun_trials[] = BY_ADDRESS(vmrun_, vmrun16, REFUSED),
                          vmload_trials[] = BY_ADDRESS(vmload_, vmload16, BY_TABLE),
                          vmsave_trials[] = BY_ADDRESS(vmsave_, vmsave16, BY_TABLE),
                          stgi_trials[] = GIF_INSTRUCTION(stgi_, stgi16), clgi_trials[] = GIF_INSTRUCTION(clgi_, clgi16);

static const struct trial vmmcall_trials[] = {
        {&vmmcall_, 0, KERNEL64, {PRIVILEGE, UD, 0}},
        {&vmmcall_, 0, USER64, {PRIVILEGE, UD, 0}},
        {&vmmcall16, 0, REAL, {PRIVILEGE, UD, 0}},
        {&vmmcall16, 0, V86, {PRIVILEGE, UD, 0}},
        {&lock_vmmcall, 0, KERNEL64, {DECODE, UD, 0}},
}, skinit_trials[] = {
        {&skinit_, 0, KERNEL64, .off = NOT_RUN, .rax = 0x100000},       /* it would begin the measured software */
        {&skinit_, 0, USER64, {PRIVILEGE, GP, 0}, .rax = 0x100000},
        {&skinit16, 0, REAL, {DECODE, UD, 0}},
}, invlpga_trials[] = {
        {&invlpga_, 0, KERNEL64, .rax = GOOD, .rcx = 1},
        {&invlpga_, 0, USER64, {PRIVILEGE, GP, 0}, .rax = GOOD, .rcx = 1},
        {&invlpga16, 0, REAL, {DECODE, UD, 0}},
        {&invlpga16, 0, V86, {DECODE, UD, 0}},
        {&invlpga_, "page absent", KERNEL64, .rax = ABSENT, .rcx = 1},
        {&invlpga_, "not canonical", KERNEL64, .rax = NON_CANONICAL, .rcx = 1},
};

static const struct row table[] = {
        {"INVLPGA", VMCB_INTERCEPT_3, 26, 0x7a, AFTER_PRIVILEGE, 0, ALWAYS, TRIALS(invlpga_trials)},
        {"VMRUN", VMCB_INTERCEPT_4, INTERCEPT4_VMRUN, 0x80, AFTER_PRIVILEGE, 0, ALWAYS, TRIALS(vmrun_trials)},
        {"VMMCALL", VMCB_INTERCEPT_4, INTERCEPT4_VMMCALL, EXIT_VMMCALL, BEFORE_EXCEPTIONS, 0, ALWAYS, TRIALS(vmmcall_trials)},
        {"VMLOAD", VMCB_INTERCEPT_4, 2, 0x82, AFTER_PRIVILEGE, 0, ALWAYS, TRIALS(vmload_trials)},
        {"VMSAVE", VMCB_INTERCEPT_4, 3, 0x83, AFTER_PRIVILEGE, 0, ALWAYS, TRIALS(vmsave_trials)},
        {"STGI", VMCB_INTERCEPT_4, 4, 0x84, AFTER_PRIVILEGE, 0, ALWAYS, TRIALS(stgi_trials)},
        {"CLGI", VMCB_INTERCEPT_4, 5, 0x85, AFTER_PRIVILEGE, 0, ALWAYS, TRIALS(clgi_trials)},
        {"SKINIT", VMCB_INTERCEPT_4, 6, 0x86, AFTER_PRIVILEGE, 0, SKINIT, TRIALS(skinit_trials)},
};

void check_svm_instructions(void) { check_rows(table, ARRAY_LENGTH(table)); }

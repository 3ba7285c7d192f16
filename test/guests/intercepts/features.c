/* What this processor has of what the trials need. */
#include "intercepts.h"

#define VM_CR_R_INIT 2ul

enum cpuid_register { EAX, EBX, ECX, EDX };

static const struct { const char *name; u32 leaf; enum cpuid_register register_; u8 bit; } table[FEATURES] = {
        [MONITOR_MWAIT] = {"MONITOR", 1, ECX, 3},
        [PCID] = {"PCID", 1, ECX, 17},
        [XSAVE] = {"XSAVE", 1, ECX, 26},
        [INVPCID] = {"INVPCID", 7, EBX, 10},
        [UMIP] = {"UMIP", 7, ECX, 2},
        [SKINIT] = {"SKINIT", 0x80000001, ECX, 12},
        [ALT_MOV_CR8] = {"AltMovCr8", 0x80000001, ECX, 4},
        [MWAITX] = {"MONITORX", 0x80000001, ECX, 29},
        [RDTSCP] = {"RDTSCP", 0x80000001, EDX, 27},
        [INVLPGB] = {"INVLPGB", 0x80000008, EBX, 3},
        [RDPRU] = {"RDPRU", 0x80000008, EBX, 4},
        [MCOMMIT] = {"MCOMMIT", 0x80000008, EBX, 8},
        [NESTED_PAGING] = {"NP", 0x8000000a, EDX, 0},
        [NRIPS] = {"NRIPS", 0x8000000a, EDX, 3},
        [DECODE_ASSISTS] = {"DecodeAssists", 0x8000000a, EDX, 7},
        [PAUSE_FILTER] = {"PauseFilter", 0x8000000a, EDX, 10},
        [PAUSE_THRESHOLD] = {"PauseFilterThreshold", 0x8000000a, EDX, 12},
        [VGIF] = {"VGIF", 0x8000000a, EDX, 16},
        [INVLPGB_IN_GUEST] = {"TlbiCtl", 0x8000000a, EDX, 24},
        [BUS_LOCK_THRESHOLD] = {"BusLockThreshold", 0x8000000a, EDX, 29},
        [IDLE_HLT_INTERCEPT] = {"IdleHltIntercept", 0x8000000a, EDX, 30},
        [REDIRECTED_INIT] = {"VM_CR.R_INIT", 0, EAX, 0},
        [SMM_LOCK] = {"HWCR", 0, EAX, 0},
        [SMM_UNLOCKED] = {"HWCR.SmmLock clear", 0, EAX, 0},
        [NO_WAY] = {"a way to raise it", 0, EAX, 0},
        [DEFINED_EFFECT] = {"a defined effect of the bit", 0, EAX, 0},
};
static u8 present[FEATURES];

static volatile u8 missing;

/* RDMSR and WRMSR have two bytes. */
static void on_missing_msr(struct trap_frame *frame)
{
        missing = 1;
        frame->rip += 2;
}

void features_read(void)
{
        u32 highest = cpuid(0, 0).eax, highest_extended = cpuid(0x80000000, 0).eax;
        for (u32 feature = 0; feature < FEATURES; feature++) {
                u32 leaf = table[feature].leaf;
                struct cpuid found = cpuid(leaf, 0);
                const u32 registers[] = {found.eax, found.ebx, found.ecx, found.edx};
                if (leaf && leaf <= (leaf >> 31 ? highest_extended : highest))
                        present[feature] = registers[table[feature].register_] >> table[feature].bit & 1;
        }
        present[ALWAYS] = 1;
        trap_set(GP, on_missing_msr);
        /* Without it an INIT that is held pending would reset the machine once GIF is set. */
        wrmsr(MSR_VM_CR, rdmsr(MSR_VM_CR) | VM_CR_R_INIT);
        present[REDIRECTED_INIT] = (rdmsr(MSR_VM_CR) & VM_CR_R_INIT) != 0;
        missing = 0;
        present[SMM_UNLOCKED] = !(rdmsr(MSR_HWCR) & HWCR_SMM_LOCK) || missing;
        present[SMM_LOCK] = !missing;
        trap_set(GP, 0);
}

int has(enum feature feature) { return present[feature]; }
const char *feature_name(enum feature feature) { return table[feature].name; }

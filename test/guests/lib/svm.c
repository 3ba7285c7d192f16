/* What svm.h promises: SVM enabled, nested page tables, a VMCB for 64-bit code. */
#include "svm.h"

u8 host_extra_state[4096] PAGE_ALIGNED;
u64 npt_root[512] PAGE_ALIGNED;
static u8 host_save_area[4096] PAGE_ALIGNED;
static u64 npt_pdpt[512] PAGE_ALIGNED, npt_directories[4][512] PAGE_ALIGNED;

int svm_enable(void)
{
        if (cpuid(0x80000000, 0).eax < 0x8000000a || !(cpuid(0x80000001, 0).ecx & 1 << 2))
                return 1;
        if (!(cpuid(0x8000000a, 0).edx & 1))
                return 2;       /* no nested paging */
        if (rdmsr(MSR_VM_CR) & 1 << 4)
                return 3;       /* SVMDIS */
        wrmsr(MSR_EFER, rdmsr(MSR_EFER) | EFER_SVME);
        wrmsr(MSR_VM_HSAVE_PA, (u64)host_save_area);
        return 0;
}

/* Every entry is a user entry: nested walks count as user accesses (APM vol.2 §15.25.5). */
void npt_identity(void)
{
        npt_root[0] = (u64)npt_pdpt | 7;
        for (u64 i = 0; i < 4; i++) {
                npt_pdpt[i] = (u64)npt_directories[i] | 7;
                for (u64 n = 0; n < 512; n++)
                        npt_directories[i][n] = i << 30 | n << 21 | 0x87;
        }
}

void npt_split(u64 gpa, u64 *entries)
{
        npt_directories[gpa >> 30][gpa >> 21 & 511] = (u64)entries | 7;
        memset(entries, 0, 4096);
}

static void segment(void *vmcb, u32 field, u16 selector, u16 attributes, u32 limit, u64 base)
{
        u64 at = (u64)vmcb + field;
        *(u16 *)at = selector;
        *(u16 *)(at + 2) = attributes;
        *(u32 *)(at + 4) = limit;
        *(u64 *)(at + 8) = base;
}

/* A VMCB that starts L2 at `rip` in 64-bit mode with interrupts off; it intercepts VMRUN alone. */
void vmcb_long_mode(void *vmcb, const void *rip, void *rsp, u64 cr3)
{
        memset(vmcb, 0, 4096);
        VMCB32(vmcb, INTERCEPT_4) = 1 << INTERCEPT4_VMRUN;
        VMCB32(vmcb, GUEST_ASID) = 1;
        VMCB64(vmcb, NP_ENABLE) = 1;
        VMCB64(vmcb, N_CR3) = (u64)npt_root;
        segment(vmcb, VMCB_CS, SEL_CODE64, 0xa9b, 0xffffffff, 0);
        segment(vmcb, VMCB_SS, SEL_DATA, 0xc93, 0xffffffff, 0);
        segment(vmcb, VMCB_DS, SEL_DATA, 0xc93, 0xffffffff, 0);
        segment(vmcb, VMCB_ES, SEL_DATA, 0xc93, 0xffffffff, 0);
        segment(vmcb, VMCB_FS, SEL_DATA, 0xc93, 0xffffffff, 0);
        segment(vmcb, VMCB_GS, SEL_DATA, 0xc93, 0xffffffff, 0);
        segment(vmcb, VMCB_GDTR, 0, 0, GDT_SLOTS * 8 - 1, (u64)gdt);
        segment(vmcb, VMCB_IDTR, 0, 0, IDT_GATES * 16 - 1, (u64)idt);
        segment(vmcb, VMCB_LDTR, 0, 0x82, 0, 0);
        segment(vmcb, VMCB_TR, SEL_TSS, 0x8b, sizeof tss - 1, (u64)&tss);
        VMCB64(vmcb, EFER) = rdmsr(MSR_EFER);
        VMCB64(vmcb, CR0) = 0x80010033;
        VMCB64(vmcb, CR3) = cr3;
        VMCB64(vmcb, CR4) = 0x20;
        VMCB64(vmcb, DR6) = 0xffff0ff0;
        VMCB64(vmcb, DR7) = 0x400;
        VMCB64(vmcb, RFLAGS) = 2;
        VMCB64(vmcb, RIP) = (u64)rip;
        VMCB64(vmcb, RSP) = (u64)rsp;
        VMCB64(vmcb, G_PAT) = rdmsr(MSR_PAT);
}

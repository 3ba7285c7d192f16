/*
 * The VMCB: byte offsets in its page, for C and assembly, and what C does with it.
 * Source: APM vol.2 appendix B Layout of VMCB, appendix C SVM Intercept Exit Codes.
 */
#ifndef SVM_H
#define SVM_H

/* control area: the first six are words of intercept bits */
#define VMCB_INTERCEPT_CR 0x000
#define VMCB_INTERCEPT_DR 0x004
#define VMCB_INTERCEPT_EXCEPTIONS 0x008
#define VMCB_INTERCEPT_3 0x00c
#define VMCB_INTERCEPT_4 0x010
#define VMCB_INTERCEPT_5 0x014
#define VMCB_IOPM_BASE_PA 0x040
#define VMCB_MSRPM_BASE_PA 0x048
#define VMCB_TSC_OFFSET 0x050
#define VMCB_GUEST_ASID 0x058
#define VMCB_TLB_CONTROL 0x05c
#define VMCB_V_CONTROL 0x060
#define VMCB_INTERRUPT_SHADOW 0x068
#define VMCB_EXITCODE 0x070
#define VMCB_EXITINFO1 0x078
#define VMCB_EXITINFO2 0x080
#define VMCB_EXITINTINFO 0x088
#define VMCB_NP_ENABLE 0x090
#define VMCB_V_APIC_BAR 0x098
#define VMCB_EVENTINJ 0x0a8
#define VMCB_N_CR3 0x0b0
#define VMCB_LBR_VIRT_ENABLE 0x0b8
#define VMCB_CLEAN 0x0c0
#define VMCB_NRIP 0x0c8
#define VMCB_GUEST_INSN_LEN 0x0d0
#define VMCB_GUEST_INSN_BYTES 0x0d1
#define VMCB_AVIC_BACKING_PAGE 0x0e0
#define VMCB_AVIC_LOGICAL_IDS 0x0f0
#define VMCB_AVIC_PHYSICAL_IDS 0x0f8

/* state-save area; a segment is selector +0, attributes +2, limit +4, base +8 */
#define VMCB_ES 0x400
#define VMCB_CS 0x410
#define VMCB_SS 0x420
#define VMCB_DS 0x430
#define VMCB_FS 0x440
#define VMCB_GS 0x450
#define VMCB_GDTR 0x460
#define VMCB_LDTR 0x470
#define VMCB_IDTR 0x480
#define VMCB_TR 0x490
#define VMCB_CPL 0x4cb
#define VMCB_EFER 0x4d0
#define VMCB_CR4 0x548
#define VMCB_CR3 0x550
#define VMCB_CR0 0x558
#define VMCB_DR7 0x560
#define VMCB_DR6 0x568
#define VMCB_RFLAGS 0x570
#define VMCB_RIP 0x578
#define VMCB_RSP 0x5d8
#define VMCB_RAX 0x5f8
#define VMCB_STAR 0x600
#define VMCB_LSTAR 0x608
#define VMCB_CSTAR 0x610
#define VMCB_SFMASK 0x618
#define VMCB_KERNEL_GS_BASE 0x620
#define VMCB_SYSENTER_CS 0x628
#define VMCB_SYSENTER_ESP 0x630
#define VMCB_SYSENTER_EIP 0x638
#define VMCB_CR2 0x640
#define VMCB_G_PAT 0x668

#define EXIT_INTR 0x60
#define EXIT_VINTR 0x64
#define EXIT_CR0_SEL_WRITE 0x65
#define EXIT_CPUID 0x72
#define EXIT_HLT 0x78
#define EXIT_SHUTDOWN 0x7f
#define EXIT_VMMCALL 0x81
#define EXIT_NPF 0x400
#define EXIT_INVALID (~0ul)

/* bits of VMCB_INTERCEPT_3 and _4 */
#define INTERCEPT3_INTR 0
#define INTERCEPT3_VINTR 4
#define INTERCEPT3_CR0_SEL_WRITE 5
#define INTERCEPT3_CPUID 18
#define INTERCEPT3_HLT 24
#define INTERCEPT3_IOIO 27
#define INTERCEPT3_MSR 28
#define INTERCEPT3_SHUTDOWN 31
#define INTERCEPT4_VMRUN 0
#define INTERCEPT4_VMMCALL 1

/* VMCB_V_CONTROL */
#define V_IRQ (1ul << 8)
#define V_IGN_TPR (1ul << 20)
#define V_INTR_MASKING (1ul << 24)
#define V_PRIORITY(priority) ((u64)(priority) << 16)
#define V_VECTOR(vector) ((u64)(vector) << 32)

/* VMCB_EVENTINJ and VMCB_EXITINTINFO */
#define EVENT_VALID (1ul << 31)
#define EVENT_ERROR_VALID (1ul << 11)
#define EVENT_INTR (0ul << 8)
#define EVENT_NMI (2ul << 8)
#define EVENT_EXCEPTION (3ul << 8)

#ifndef __ASSEMBLER__
#include "guest.h"

#define VMCB8(vmcb, field) (*(volatile u8 *)((u64)(vmcb) + VMCB_##field))
#define VMCB16(vmcb, field) (*(volatile u16 *)((u64)(vmcb) + VMCB_##field))
#define VMCB32(vmcb, field) (*(volatile u32 *)((u64)(vmcb) + VMCB_##field))
#define VMCB64(vmcb, field) (*(volatile u64 *)((u64)(vmcb) + VMCB_##field))

/* What VMRUN does not load: svm_run() exchanges it. The order is that of svm-run.S */
struct l2_registers { u64 rbx, rcx, rdx, rsi, rdi, rbp, r8, r9, r10, r11, r12, r13, r14, r15; };

extern u8 host_extra_state[4096];
extern u64 npt_root[512];

int svm_enable(void);           /* 0, or the reason why not */
void npt_identity(void);        /* npt_root: the first 4 GiB, in 2 MiB pages */
void npt_split(u64 gpa, u64 *entries);  /* one 2 MiB page of it becomes 512 entries, all not present */
void vmcb_long_mode(void *vmcb, const void *rip, void *rsp, u64 cr3);
void svm_run(void *vmcb, struct l2_registers *registers);
#endif
#endif

/* What L1 (nested.c) and L2 (nested-l2.S) agree on. */
#ifndef NESTED_H
#define NESTED_H

/* gVA of the window = gVA 1 GiB; its pages lie at gPA 2 GiB, and L1 maps those where it likes */
#define WINDOW_GVA 0x40000000
#define WINDOW_GPA 0x80000000
#define WINDOW_MISSING 1        /* page numbers in the window */
#define WINDOW_READ_ONLY 2
#define WINDOW_NO_EXECUTE 3
#define WINDOW_TABLE 4          /* holds the page table of the 2 MiB above the window */
#define TABLE_GVA (WINDOW_GVA + 0x200000 + 3 * 4096 + 0x10)
#define UNMAPPED_GVA 0x7f0000001000

#define PORT 0x500
#define MSR_READ_TRAPPED 0xc0000100
#define MSR_WRITE_TRAPPED 0xc0000102

/* what L1 does about an exit */
#define DO_SKIP 0               /* steps over the instruction */
#define DO_SUPPLY 1             /* gives a value in EAX, EBX, ECX, EDX */
#define DO_SUPPLY_EAX 2
#define DO_SUPPLY_EDX_EAX 3
#define DO_REFLECT_PF 4         /* injects the exception into L2 */
#define DO_REFLECT_GP 5
#define DO_MAP 6                /* repairs the nested page tables and tries again */
#define DO_CR0_WRITE 7
#define DO_CR3_WRITE 8
#define DO_CR4_WRITE 9
#define DO_STRING 10
#define DO_INJECT_INTR 11
#define DO_INJECT_NMI 12
#define DO_INJECT_VIRTUAL 13
#define DO_VINTR 14
#define DO_FINISH 15
#define DO_SHUTDOWN 16
#define DO_ROUND 17

/* properties of a step */
#define RARE 1                  /* only in every fourth round */
#define ASSIST 2                /* EXITINFO1 counts only with decode assists */
#define EVENT 4                 /* no instruction intercept: nRIP is 0 */
#define NEXT_IN_INFO2 8

#define ROUND_VECTOR 0x30
#define VIRTUAL_VECTOR 0x31

#endif

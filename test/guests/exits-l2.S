/*
 * Both sides of the bench `exits`. The registers that VMRUN does not exchange are
 * shared out: L2 counts in r8 up to r9 (CPUID clobbers nothing, for L1 gives no
 * answer); L1 counts in rsi.
 */
#include "lib/svm.h"

        .text
        .globl  l2_entry, world_switches
l2_entry:
        cpuid
        incq    %r8
        cmpq    %r9, %r8
        jb      l2_entry
        vmmcall

/* world_switches(vmcb, n, &counter of L2): how many #VMEXIT(CPUID) came before another exit */
world_switches:
        movq    %rdx, %r10
        movq    %rdi, %rax
        movq    %rsi, %r9
        xorl    %esi, %esi
        xorl    %r8d, %r8d
        clgi
1:      vmrun
        cmpq    $EXIT_CPUID, VMCB_EXITCODE(%rax)
        jne     2f
        addq    $2, VMCB_RIP(%rax)
        incq    %rsi
        jmp     1b
2:      stgi
        movq    %r8, (%r10)
        movq    %rsi, %rax
        ret
        .section .note.GNU-stack, "", @progbits

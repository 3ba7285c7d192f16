/*
 * Of the guest `avic`: avic_run(vmcb, registers), one stay in L2 that may go on on several processors at a time, and the
 * interrupt handlers of L2, which call l2_interrupt(vector).
 * FS, GS, TR, LDTR and the system call MSRs are the host's: L2 never touches them.
 */
        .text
        .globl  avic_run, l2_handlers
avic_run:
        pushq   %rbx
        pushq   %rbp
        pushq   %r12
        pushq   %r13
        pushq   %r14
        pushq   %r15
        pushq   %rsi
        clgi
        movq    %rdi, %rax
        movq    0(%rsi), %rbx
        movq    8(%rsi), %rcx
        movq    16(%rsi), %rdx
        movq    32(%rsi), %rdi
        movq    40(%rsi), %rbp
        movq    48(%rsi), %r8
        movq    56(%rsi), %r9
        movq    64(%rsi), %r10
        movq    72(%rsi), %r11
        movq    80(%rsi), %r12
        movq    88(%rsi), %r13
        movq    96(%rsi), %r14
        movq    104(%rsi), %r15
        movq    24(%rsi), %rsi
        vmrun
        popq    %rax
        movq    %rbx, 0(%rax)
        movq    %rcx, 8(%rax)
        movq    %rdx, 16(%rax)
        movq    %rsi, 24(%rax)
        movq    %rdi, 32(%rax)
        movq    %rbp, 40(%rax)
        movq    %r8, 48(%rax)
        movq    %r9, 56(%rax)
        movq    %r10, 64(%rax)
        movq    %r11, 72(%rax)
        movq    %r12, 80(%rax)
        movq    %r13, 88(%rax)
        movq    %r14, 96(%rax)
        movq    %r15, 104(%rax)
        stgi
        popq    %r15
        popq    %r14
        popq    %r13
        popq    %r12
        popq    %rbp
        popq    %rbx
        ret

/* Sixteen bytes for each vector. */
        .balign 16
l2_handlers:
        .set    vector, 0
        .rept   256
        .balign 16
        pushq   $vector
        jmp     l2_common
        .set    vector, vector + 1
        .endr

l2_common:
        pushq   %rax
        pushq   %rcx
        pushq   %rdx
        pushq   %rsi
        pushq   %rdi
        pushq   %r8
        pushq   %r9
        pushq   %r10
        pushq   %r11
        movq    72(%rsp), %rdi
        call    l2_interrupt
        popq    %r11
        popq    %r10
        popq    %r9
        popq    %r8
        popq    %rdi
        popq    %rsi
        popq    %rdx
        popq    %rcx
        popq    %rax
        addq    $8, %rsp
        iretq
        .section .note.GNU-stack, "", @progbits

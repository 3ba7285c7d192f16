/*
 * svm_run(vmcb, registers): one stay in L2, as hypervisors do it. VMRUN and
 * #VMEXIT carry RAX, RSP, RIP and flags; VMLOAD and VMSAVE carry FS, GS, TR, LDTR
 * and the system call MSRs; the other registers are exchanged here.
 */
        .text
        .globl  svm_run
svm_run:
        pushq   %rbx
        pushq   %rbp
        pushq   %r12
        pushq   %r13
        pushq   %r14
        pushq   %r15
        pushq   %rsi
        clgi
        movl    $host_extra_state, %eax
        vmsave
        movq    %rdi, %rax
        vmload
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
        vmsave                          /* RAX is the host's again: the VMCB */
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
        movl    $host_extra_state, %eax
        vmload
        stgi
        popq    %r15
        popq    %r14
        popq    %r13
        popq    %r12
        popq    %rbp
        popq    %rbx
        ret
        .section .note.GNU-stack, "", @progbits

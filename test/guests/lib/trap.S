/*
 * One stub for each of the first 64 vectors. All stubs leave the same frame on
 * the stack (struct trap_frame in guest.h) and call trap() in guest.c, which
 * may change the frame before IRETQ.
 */
        .text
        .altmacro
        .macro  stub vector
        .balign 16
        /* #DF, #TS, #NP, #SS, #GP, #PF, #AC and #CP push an error code */
        .if     ((0x00227d00 >> \vector) & 1) == 0
        pushq   $0
        .endif
        pushq   $\vector
        jmp     trap_common
        .endm

        .balign 16
        .globl  trap_stubs
trap_stubs:
        .set    n, 0
        .rept   64
        stub    %n
        .set    n, n + 1
        .endr

trap_common:
        pushq   %r15
        pushq   %r14
        pushq   %r13
        pushq   %r12
        pushq   %r11
        pushq   %r10
        pushq   %r9
        pushq   %r8
        pushq   %rdi
        pushq   %rsi
        pushq   %rbp
        pushq   %rbx
        pushq   %rdx
        pushq   %rcx
        pushq   %rax
        cld
        movq    %rsp, %rdi
        call    trap
        popq    %rax
        popq    %rcx
        popq    %rdx
        popq    %rbx
        popq    %rbp
        popq    %rsi
        popq    %rdi
        popq    %r8
        popq    %r9
        popq    %r10
        popq    %r11
        popq    %r12
        popq    %r13
        popq    %r14
        popq    %r15
        addq    $16, %rsp
        iretq
        .section .note.GNU-stack, "", @progbits

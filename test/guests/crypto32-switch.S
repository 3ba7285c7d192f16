/*
 * call32(function, argument, mode): calls 32-bit code in the mode that crypto32.h names, and comes back to 64-bit mode.
 * Sources: APM vol.2 §14.7 Leaving Long Mode, §14.6 Enabling and Activating Long Mode.
 */
#include "lib/selectors.h"

        .set    EFER, 0xc0000080

        .text
        .globl  call32
call32: pushq   %rbx
        pushq   %rbp
        pushq   %r12
        pushq   %r13
        pushq   %r14
        pushq   %r15
        movq    %cr4, %rax
        movl    %eax, saved_cr4
        ljmp    *to_compatibility

        .code32
compatibility:
        testl   %edx, %edx
        jz      call
        movl    %edx, %ebx
        movl    %cr0, %eax
        andl    $0x7fffffff, %eax
        movl    %eax, %cr0              /* paging off: long mode is no longer active */
        movl    $EFER, %ecx
        rdmsr
        andl    $~0x100, %eax
        wrmsr
        movl    %ebx, %edx
        cmpl    $2, %edx
        jb      call
        movl    $0x10, %eax             /* PSE */
        movl    $directory32, %ecx
        je      1f
        movl    $0x20, %eax             /* PAE */
        movl    $pointers_pae, %ecx
1:      movl    %eax, %cr4
        movl    %ecx, %cr3
        movl    %cr0, %eax
        orl     $0x80000000, %eax
        movl    %eax, %cr0

call:   pushl   %edx
        pushl   %esi
        call    *%edi
        popl    %esi
        popl    %edx

        testl   %edx, %edx
        jz      back
        movl    %cr0, %eax
        andl    $0x7fffffff, %eax
        movl    %eax, %cr0
        movl    saved_cr4, %eax
        movl    %eax, %cr4
        movl    $pml4, %eax
        movl    %eax, %cr3
        movl    $EFER, %ecx
        rdmsr
        orl     $0x100, %eax
        wrmsr
        movl    %cr0, %eax
        orl     $0x80000000, %eax
        movl    %eax, %cr0
back:   ljmp    $SEL_CODE64, $long_mode_again

        .code64
long_mode_again:
        movl    %esp, %esp              /* 32-bit code leaves the upper half undefined */
        popq    %r15
        popq    %r14
        popq    %r13
        popq    %r12
        popq    %rbp
        popq    %rbx
        ret

        .section .rodata
to_compatibility:
        .long   compatibility
        .word   SEL_CODE32

        .bss
        .balign 4
saved_cr4:
        .skip   4
        .section .note.GNU-stack, "", @progbits

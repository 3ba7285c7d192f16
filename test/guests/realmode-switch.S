/*
 * real_mode_run(): leaves long mode, enters the 16-bit code at 1000h:0000h in real
 * mode, and comes back. The data segments get their limit of 64 KiB before CR0.PE
 * is cleared, for real mode keeps it. Source: APM vol.2 §14.7 Leaving Long Mode.
 */
#include "lib/selectors.h"

        .text
        .globl  real_mode_run, real_mode_return
real_mode_run:
        pushq   %rbx
        pushq   %rbp
        pushq   %r12
        pushq   %r13
        pushq   %r14
        pushq   %r15
        movq    %rsp, saved_rsp
        movq    %cr4, %rax
        movq    %rax, saved_cr4
        sidt    saved_idt
        ljmp    *to_compatibility

        .code32
compatibility:
        movl    %cr0, %eax
        andl    $0x7fffffff, %eax
        movl    %eax, %cr0              /* paging off: long mode is no longer active */
        movl    $0xc0000080, %ecx
        rdmsr
        andl    $~0x100, %eax
        wrmsr
        xorl    %eax, %eax
        movl    %eax, %cr4
        lidt    real_idt
        movl    $SEL_DATA16, %eax
        movl    %eax, %ds
        movl    %eax, %es
        movl    %eax, %fs
        movl    %eax, %gs
        movl    %eax, %ss
        ljmp    $SEL_SPARE, $0          /* 16-bit code at 0F000h: last_step below, copied there */

        .code16
        .globl  last_step, last_step_end
last_step:
        movl    %cr0, %eax
        andb    $0xfe, %al
        movl    %eax, %cr0
        ljmp    $0x1000, $0
last_step_end:

        .code32
real_mode_return:
        movl    $SEL_DATA, %eax
        movl    %eax, %ds
        movl    %eax, %es
        movl    %eax, %fs
        movl    %eax, %gs
        movl    %eax, %ss
        movl    saved_rsp, %esp
        movl    saved_cr4, %eax
        movl    %eax, %cr4
        movl    $0xc0000080, %ecx
        rdmsr
        orl     $0x100, %eax
        wrmsr
        movl    %cr0, %eax
        orl     $0x80000000, %eax
        movl    %eax, %cr0
        ljmp    $SEL_CODE64, $long_mode_again
        .code64
long_mode_again:
        lidt    saved_idt
        movq    saved_rsp, %rsp
        popq    %r15
        popq    %r14
        popq    %r13
        popq    %r12
        popq    %rbp
        popq    %rbx
        ret

        .section .rodata
        .globl  real_mode_image, real_mode_image_end
real_mode_image:
        .incbin "realmode16.bin"
real_mode_image_end:
to_compatibility:
        .long   compatibility
        .word   SEL_CODE32
real_idt:
        .word   0x3ff
        .long   0
        .bss
        .balign 8
saved_rsp:
        .skip   8
saved_cr4:
        .skip   8
saved_idt:
        .skip   16
        .section .note.GNU-stack, "", @progbits

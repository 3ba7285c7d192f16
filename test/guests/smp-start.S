/*
 * Where an application processor begins: real mode, CS = vector << 8. It goes straight to long mode on the tables
 * of the bootstrap processor, takes a number and a stack, and calls processor_main(number).
 * Copied below 1 MiB by the guest; between the two labels nothing depends on where it runs.
 * Source: APM vol.2 §16.5 Interprocessor Interrupts, §14.6 Enabling and Activating Long Mode.
 */
#include "lib/selectors.h"
#include "smp.h"

        .text
        .globl  startup, startup_end
        .code16
startup:
        cli
        movl    $0x20, %eax             /* PAE */
        movl    %eax, %cr4
        movl    $pml4, %eax
        movl    %eax, %cr3
        movl    $0xc0000080, %ecx       /* EFER: LME, NXE */
        rdmsr
        orl     $0x900, %eax
        wrmsr
        movw    %cs, %ax
        movw    %ax, %ds
        movl    $0x80010033, %eax       /* PG, WP, NE, ET, MP, PE */
        movl    %eax, %cr0
        lgdtl   table - startup
        ljmpl   $SEL_CODE64, $processor_start
        .balign 8
table:  .word   GDT_SLOTS * 8 - 1
        .long   gdt
startup_end:

        .code64
processor_start:
        movl    $SEL_DATA, %eax
        movl    %eax, %ds
        movl    %eax, %es
        movl    %eax, %ss
        lidt    idt_pointer
        movl    $1, %edi
        lock xaddl %edi, processors_started
        movl    %edi, %eax
        incl    %eax
        imull   $STACK_BYTES, %eax
        leaq    stacks(%rax), %rsp
        xorl    %ebp, %ebp
        call    processor_main
1:      cli
        hlt
        jmp     1b
        .section .note.GNU-stack, "", @progbits

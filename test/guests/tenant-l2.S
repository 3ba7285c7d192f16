/*
 * L2 of the guest `tenant`: the program of `pointers` with interrupts on, whose
 * ticks it counts. What the program gives goes to L1 in RBX, by VMMCALL.
 */
        .text
        .globl  l2_entry, l2_tick
l2_entry:
        call    tenant_main
        movl    %eax, %ebx
        vmmcall
l2_tick:
        incq    l2_ticks
        iretq

        .bss
        .globl  l2_ticks
        .balign 8
l2_ticks:
        .quad   0
        .section .note.GNU-stack, "", @progbits

/*
 * L2 of the guest `nested-timer`: spins, and says by VMMCALL that it does when
 * L1 set r9. Its handlers tell L1 by VMMCALL, with their vector in RBX.
 */
        .text
        .globl  l2_entry, l2_virtual_irq, l2_injected
l2_entry:
        incq    %r8
        pause
        testq   %r9, %r9
        jz      l2_entry
        xorl    %r9d, %r9d
        vmmcall
        jmp     l2_entry
l2_virtual_irq:
        movl    $0x34, %ebx
        vmmcall
        iretq
l2_injected:
        movl    $0x35, %ebx
        vmmcall
        iretq
        .section .note.GNU-stack, "", @progbits

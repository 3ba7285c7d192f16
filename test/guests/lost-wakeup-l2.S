/* L2 of lost-wakeup: it halts, and when an interrupt has ended its stay it halts again. */
        .text
        .globl  l2_entry
l2_entry:
        hlt
        jmp     l2_entry
        .section .note.GNU-stack, "", @progbits

/*
 * L2 of `paravirt`: reads the byte at RDI and tells L1, over and over.
 */
        .text
        .globl  l2_entry
l2_entry:
        movb    (%rdi), %al
        vmmcall
        jmp     l2_entry
        .section .note.GNU-stack, "", @progbits

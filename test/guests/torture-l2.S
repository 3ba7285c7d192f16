/*
 * L2 of the guest `torture`: once round for each VMRUN, counted in r8; its handlers
 * count in r10 to r12. r13 is the PAT that it has, r9 its time-stamp counter.
 */
        .text
        .globl  l2_entry, l2_virtual, l2_software, l2_nmi, l2_continue
l2_entry:
        rdtsc
        movl    %eax, %r9d
        pause
        sti
        nop                             /* in the shadow of STI; V_IRQ comes behind it */
        nop
        cli
l2_continue:
        movl    $0x277, %ecx
        rdmsr
        shlq    $32, %rdx
        leaq    (%rax, %rdx), %r13
        movq    %r9, l2_page
        movq    %r8, l2_page + 8
        incq    %r8
        vmmcall
        jmp     l2_entry
l2_virtual:
        incq    %r10
        iretq
l2_software:
        incq    %r11
        iretq
l2_nmi:
        incq    %r12
        nop
        iretq
        .bss
        .balign 4096
l2_page:
        .skip   4096
        .section .note.GNU-stack, "", @progbits

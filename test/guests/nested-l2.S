/*
 * L2 of the guest `nested`: a list of steps, each an instruction that leaves to
 * L1. `step` emits the instruction and the row of l2_steps with what L1 has to
 * find. Registers: r13 checksum of all that L1 supplied, r14 round, r15 rounds,
 * r12 where the exception handlers go on, r10 sum of the vectors taken.
 */
#include "nested.h"

        .macro  step code, action, flags, info1, info2, instruction:vararg
1:      \instruction
2:
        .pushsection .rodata.steps, "a"
        .quad   1b, 2b, \code, \info1, \info2, \action, \flags
        .popsection
        .endm

        .macro  fold register
        rolq    $7, %r13
        xorq    \register, %r13
        .endm

        .pushsection .rodata.steps, "a"
        .balign 8
        .globl  l2_steps, l2_steps_end
l2_steps:
        .popsection

        .text
        .globl  l2_entry
l2_entry:
        xorl    %r13d, %r13d
        xorl    %r14d, %r14d
        xorl    %r10d, %r10d
round:
        movq    %r14, %rax
        step    0x81, DO_ROUND, 0, 0, 0, vmmcall
        fold    %rax
        movl    $0x40000000, %eax
        step    0x72, DO_SUPPLY, 0, 0, 0, cpuid
        fold    %rax
        fold    %rbx
        fold    %rcx
        fold    %rdx
        movl    $PORT, %edx
        step    0x7b, DO_SKIP, NEXT_IN_INFO2, PORT << 16 | 0x40, 0, outl %eax, %dx
        addl    $2, %edx
        xorl    %eax, %eax
        step    0x7b, DO_SUPPLY_EAX, NEXT_IN_INFO2, (PORT + 2) << 16 | 0x11, 0, inb %dx, %al
        fold    %rax
        outb    %al, $0x80              /* a port that L1 lets pass */
        movl    $MSR_READ_TRAPPED, %ecx
        step    0x7c, DO_SUPPLY_EDX_EAX, 0, 0, 0, rdmsr
        fold    %rax
        fold    %rdx
        movl    $MSR_WRITE_TRAPPED, %ecx
        step    0x7c, DO_SKIP, 0, 1, 0, wrmsr
        rdmsr                           /* reading it passes */
        fold    %rax
        step    0x78, DO_SKIP, 0, 0, 0, hlt
        step    0x03, DO_SUPPLY_EAX, ASSIST, 1 << 63, 0, movq %cr3, %rax
        fold    %rax
        movl    $l2_pml4, %eax
        step    0x13, DO_CR3_WRITE, ASSIST, 1 << 63, 0, movq %rax, %cr3
        step    0x46, DO_SKIP, EVENT, 0, 0, ud2
        movq    $after_page_fault, %r12
        movabsq $UNMAPPED_GVA, %rax
        step    0x4e, DO_REFLECT_PF, EVENT, 2, UNMAPPED_GVA, movq %rax, (%rax)
after_page_fault:
        step    0x400, DO_MAP, EVENT, 0x100000004, WINDOW_GPA + WINDOW_MISSING*4096 + 0x128, movq WINDOW_GVA + WINDOW_MISSING*4096 + 0x128, %rax
        fold    %rax
        step    0x77, DO_SKIP, 0, 0, 0, pause
        step    0x6e, DO_SUPPLY_EDX_EAX, 0, 0, 0, rdtsc
        fold    %rax
        fold    %rdx
        step    0x79, DO_SKIP, ASSIST, WINDOW_GVA, 0, invlpg WINDOW_GVA
        testb   $3, %r14b
        jnz     next_round

        /* control and debug registers */
        step    0x00, DO_SUPPLY_EAX, RARE | ASSIST, 1 << 63, 0, movq %cr0, %rax
        movl    $0xc0010033, %eax       /* sets CR0.CD */
        step    0x10, DO_CR0_WRITE, RARE | ASSIST, 1 << 63, 0, movq %rax, %cr0
        step    0x00, DO_SUPPLY_EAX, RARE | ASSIST, 0, 0, smsw %eax
        step    0x04, DO_SUPPLY_EAX, RARE | ASSIST, 1 << 63 | 3, 0, movq %cr4, %rbx
        fold    %rax
        movl    $0x620, %eax
        step    0x14, DO_CR4_WRITE, RARE | ASSIST, 1 << 63, 0, movq %rax, %cr4
        movl    $5, %eax
        step    0x18, DO_SKIP, RARE | ASSIST, 1 << 63, 0, movq %rax, %cr8
        step    0x08, DO_SUPPLY_EAX, RARE | ASSIST, 1 << 63, 0, movq %cr8, %rax
        step    0x27, DO_SUPPLY_EAX, RARE | ASSIST, 0, 0, movq %dr7, %rax
        fold    %rax
        step    0x30, DO_SKIP, RARE | ASSIST, 0, 0, movq %rax, %dr0

        /* exceptions */
        step    0x43, DO_SKIP, RARE, 0, 0, int3
        xorl    %ecx, %ecx
        xorl    %edx, %edx
        step    0x40, DO_SKIP, RARE | EVENT, 0, 0, divl %ecx
        movq    $after_protection_fault, %r12
        movl    $0x1f8, %eax
        step    0x4d, DO_REFLECT_GP, RARE | EVENT, 0x1f8, 0, movl %eax, %ds
after_protection_fault:

        /* nested page faults */
        step    0x400, DO_MAP, RARE | EVENT, 0x100000007, WINDOW_GPA + WINDOW_READ_ONLY*4096 + 8, movq %r14, WINDOW_GVA + WINDOW_READ_ONLY*4096 + 8
        movl    $WINDOW_GVA + WINDOW_NO_EXECUTE*4096, %eax
        movq    $after_fetch, %r12
        jmp     *%rax
after_fetch:
        .pushsection .rodata.steps, "a" /* the instruction lies in the window */
        .quad   WINDOW_GVA + WINDOW_NO_EXECUTE*4096, 0, 0x400, 0x100000015, WINDOW_GPA + WINDOW_NO_EXECUTE*4096, DO_MAP, RARE | EVENT
        .popsection
        step    0x400, DO_MAP, RARE | EVENT, 0x200000006, WINDOW_GPA + WINDOW_TABLE*4096 + 3*8, movq TABLE_GVA, %rax
        fold    %rax

        /* instructions */
        movl    $PORT + 1, %edx
        movl    $l2_data, %esi
        step    0x7b, DO_STRING, RARE | NEXT_IN_INFO2, (PORT + 1) << 16 | 0xe14, 0, outsb
        movl    $1, %ecx
        step    0x7b, DO_STRING, RARE | NEXT_IN_INFO2, (PORT + 1) << 16 | 0xe1c, 0, rep outsb
        step    0x66, DO_SKIP, RARE, 0, 0, sidt l2_data
        step    0x67, DO_SKIP, RARE, 0, 0, sgdt l2_data
        step    0x68, DO_SKIP, RARE, 0, 0, sldt %eax
        step    0x69, DO_SKIP, RARE, 0, 0, str %eax
        step    0x6a, DO_SKIP, RARE, 0, 0, lidt l2_data
        step    0x6b, DO_SKIP, RARE, 0, 0, lgdt l2_data
        xorl    %eax, %eax
        step    0x6c, DO_SKIP, RARE, 0, 0, lldt %ax
        step    0x6d, DO_SKIP, RARE, 0, 0, ltr %ax
        xorl    %ecx, %ecx
        step    0x6f, DO_SUPPLY_EDX_EAX, RARE, 0, 0, rdpmc
        step    0x70, DO_SKIP, RARE, 0, 0, pushfq
        step    0x71, DO_SKIP, RARE, 0, 0, popfq
        step    0x75, DO_SKIP, RARE | ASSIST, 0x42, 0, int $0x42
        step    0x76, DO_SKIP, RARE, 0, 0, invd
        movl    $WINDOW_GVA, %eax
        step    0x7a, DO_SKIP, RARE, 0, 0, invlpga
        movl    $l2_data, %eax
        step    0x80, DO_SKIP, RARE, 0, 0, vmrun
        step    0x82, DO_SKIP, RARE, 0, 0, vmload
        step    0x83, DO_SKIP, RARE, 0, 0, vmsave
        step    0x84, DO_SKIP, RARE, 0, 0, stgi
        step    0x85, DO_SKIP, RARE, 0, 0, clgi
        step    0x87, DO_SUPPLY, RARE, 0, 0, rdtscp
        step    0x89, DO_SKIP, RARE, 0, 0, wbinvd
        movl    $l2_data, %eax
        xorl    %ecx, %ecx
        xorl    %edx, %edx
        step    0x8a, DO_SKIP, RARE, 0, 0, monitor
        step    0x8b, DO_SKIP, RARE, 0, 0, mwait

        /* events that L1 injects while it handles a VMMCALL; r10 shows that they came */
        step    0x81, DO_INJECT_INTR, RARE, 0, 0, vmmcall
        step    0x81, DO_INJECT_NMI, RARE, 0, 0, vmmcall
        step    0x81, DO_INJECT_VIRTUAL, RARE, 0, 0, vmmcall
        fold    %r10                    /* IF is 0: the virtual interrupt waits */
        sti
        nop
        step    0x64, DO_VINTR, RARE | EVENT, 0, 0, nop
        cli
        fold    %r10

next_round:
        incq    %r14
        cmpq    %r15, %r14
        jb      round
        movq    %r13, %rax
        step    0x81, DO_FINISH, 0, 0, 0, vmmcall
        lidt    empty_idt               /* and now #UD, #GP, #DF cannot be delivered: shutdown */
        step    0x7f, DO_SHUTDOWN, EVENT, 0, 0, ud2
        hlt
        .pushsection .rodata.steps, "a"
l2_steps_end:
        .popsection

        .globl  l2_page_fault, l2_protection_fault, l2_interrupt, l2_virtual, l2_nmi
l2_page_fault:
        movq    %cr2, %rax
        fold    %rax
l2_protection_fault:
        popq    %rax
        fold    %rax
        movq    %r12, (%rsp)
        iretq
l2_interrupt:
        addq    $ROUND_VECTOR, %r10
        iretq
l2_virtual:
        addq    $VIRTUAL_VECTOR, %r10
        iretq
l2_nmi: addq    $2, %r10
        iretq

        .data
        .balign 16
        .globl  l2_data
empty_idt:
        .word   0
        .quad   0
        .bss
        .balign 4096
l2_data:
        .skip   4096
        .section .note.GNU-stack, "", @progbits

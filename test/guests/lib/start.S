/*
 * Entry of every guest: multiboot header, 32-bit entry, identity map of the
 * first 4 GiB by 2 MiB pages, long mode, then guest_start() in guest.c.
 * With FLAT defined the header carries load addresses (the "a.out kludge"),
 * for images that are no ELF file.
 * Source: Multiboot Specification 0.6.96 §3; APM vol.2 §14.6 Enabling and
 * Activating Long Mode.
 */
#include "selectors.h"

        .set    MAGIC, 0x1badb002
#ifdef FLAT
        .set    FLAGS, 0x00010003       /* addresses below are valid, memory map wanted */
#else
        .set    FLAGS, 0x00000003
#endif
        .set    EFER, 0xc0000080

        .section .multiboot, "ax"
        .balign 4
header: .long   MAGIC, FLAGS, -(MAGIC + FLAGS)
#ifdef FLAT
        .long   header, image_start, image_data_end, image_end, _start
#endif

        .text
        .code32
        .globl  _start
_start: cli
        cld
        movl    $boot_stack_top, %esp
        cmpl    $0x2badb002, %eax
        jne     not_multiboot
        movl    %ebx, %ebp

        movl    $pdpt + 3, pml4
        movl    $page_directories + 3, %eax
        movl    $pdpt, %edi
        movl    $4, %ecx
1:      movl    %eax, (%edi)
        addl    $4096, %eax
        addl    $8, %edi
        loop    1b
        movl    $0x83, %eax             /* present, writable, 2 MiB */
        movl    $page_directories, %edi
        movl    $4 * 512, %ecx
1:      movl    %eax, (%edi)
        addl    $0x200000, %eax
        addl    $8, %edi
        loop    1b

        movl    $0x20, %eax             /* PAE */
        movl    %eax, %cr4
        movl    $pml4, %eax
        movl    %eax, %cr3
        movl    $EFER, %ecx
        rdmsr
        orl     $0x900, %eax            /* LME, NXE */
        wrmsr
        movl    $0x80010033, %eax       /* PG, WP, NE, ET, MP, PE */
        movl    %eax, %cr0
        lgdt    gdt_pointer
        ljmp    $SEL_CODE64, $long_mode

not_multiboot:
        movb    $0x7e, %al
        outb    %al, $0xf4
1:      hlt
        jmp     1b

        .code64
long_mode:
        movl    $SEL_DATA, %eax
        movl    %eax, %ds
        movl    %eax, %es
        movl    %eax, %fs
        movl    %eax, %gs
        movl    %eax, %ss
        movl    $boot_stack_top, %esp
        movl    %ebp, %edi
        xorl    %ebp, %ebp
        call    guest_start

        /* guest_exit(value): QEMU's isa-debug-exit ends with status value * 2 + 1 */
        .globl  guest_exit
guest_exit:
        movl    %edi, %eax
        outb    %al, $0xf4
1:      cli
        hlt
        jmp     1b

        .data
        .balign 16
        .globl  gdt, gdt_pointer
gdt:    .quad   0
        .quad   0x00af9b000000ffff      /* SEL_CODE64 */
        .quad   0x00cf93000000ffff      /* SEL_DATA */
        .quad   0x00cffb000000ffff      /* SEL_USER_CODE32 */
        .quad   0x00cff3000000ffff      /* SEL_USER_DATA */
        .quad   0x00affb000000ffff      /* SEL_USER_CODE64 */
        .quad   0x00cf9b000000ffff      /* SEL_CODE32 */
        .quad   0x00009b000000ffff      /* SEL_CODE16 */
        .quad   0x000093000000ffff      /* SEL_DATA16 */
        .fill   GDT_SLOTS - 9, 8, 0
gdt_pointer:
        .word   GDT_SLOTS * 8 - 1
        .quad   gdt

        .bss
        .balign 4096
        .globl  pml4, boot_stack_top
pml4:   .skip   4096
pdpt:   .skip   4096
page_directories:
        .skip   4 * 4096
        .skip   16384
boot_stack_top:
        .section .note.GNU-stack, "", @progbits

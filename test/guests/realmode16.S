/*
 * The 16-bit half of the guest `realmode`: linked at 0, copied to 1000h:0000h.
 * Entered in real mode at offset 0; ends with a far jump to the 32-bit code whose
 * address stands at offset 4. Each `expect` compares AX and writes one byte,
 * 1 or 0, to the table of results that realmode.c prints.
 */
        .set    SEGMENT, 0x1000
        .set    OTHER, 0x2000           /* a second data segment */
        .set    SPARE, 0x3000           /* a third, for the stack */

        .code16
        .text
        .globl  _start
_start: jmp     entry
        .balign 4
return_pointer:
        .long   0                       /* offset and selector, filled in by realmode.c */
        .word   0
strict: .word   0
results_length:
        .word   0
results:
        .fill   128, 1, 0

        .macro  expect value
        pushfw
        cmpw    $\value, %ax
        sete    %cs:(results + n)
        .set    n, n + 1
        popfw
        .endm
        .set    n, 0

        .macro  vector number, handler
        movw    $\handler, %fs:(\number * 4)
        movw    $SEGMENT, %fs:(\number * 4 + 2)
        .endm

/* A fault must have saved `label`; its handler goes on at `resume`. */
        .macro  fault_at label
        movw    %cs:saved_ip, %ax
        subw    $\label, %ax
        expect  0
        .endm

entry:  cli
        cld
        movw    $SEGMENT, %ax
        movw    %ax, %ds
        movw    %ax, %ss
        movw    $0xeff0, %sp
        movw    $OTHER, %ax
        movw    %ax, %es
        xorw    %ax, %ax
        movw    %ax, %fs                /* the interrupt vector table */
        movw    %ax, %gs
        movw    $64, %cx
        xorw    %bx, %bx
1:      movw    $bad, %fs:(%bx)
        movw    $SEGMENT, %fs:2(%bx)
        addw    $4, %bx
        loop    1b
        vector  0, on_fault
        vector  1, on_step
        vector  3, on_trap
        vector  4, on_trap
        vector  5, on_fault
        vector  6, on_fault
        vector  12, on_stack_fault
        vector  13, on_protection_fault
        vector  0x60, on_int

        /* real mode it is */
        movl    %cr0, %eax
        andw    $1, %ax
        expect  0
        smsw    %ax
        andw    $1, %ax
        expect  0

        /* INT n: stack, flags, return */
        movw    %sp, %bp
        movw    $0x2222, %ax
        stc
        int     $0x60
after_int:
        expect  0x3333
        movw    %sp, %ax
        subw    %bp, %ax
        expect  0
        movw    int_ip, %ax
        subw    $after_int, %ax
        expect  0
        movw    int_cs, %ax
        expect  SEGMENT
        movw    int_flags, %ax          /* pushed with CF */
        andw    $0x0001, %ax
        expect  1
        sti
        int     $0x60
        movw    handler_flags, %ax      /* IF and TF clear in the handler */
        andw    $0x0300, %ax
        expect  0
        pushfw
        popw    %ax                     /* and IF back after IRET */
        cli
        andw    $0x0200, %ax
        expect  0x0200

        /* exceptions through the IVT */
        movw    $1f, resume
        xorw    %cx, %cx
divide: divw    %cx
1:      fault_at divide
        movw    $1f, resume
invalid:
        ud2
1:      fault_at invalid
        movw    $1f, resume
        movw    $9, %ax
bounds_check:
        bound   %ax, limits
1:      fault_at bounds_check
        movw    $0x7fff, %ax
        incw    %ax
        into
after_into:
        fault_at after_into
        int3
after_int3:
        fault_at after_int3
        movw    $0, steps
        pushfw
        popw    %ax
        orw     $0x100, %ax
        pushw   %ax
        popfw
        nop                             /* #DB after each of these three */
        nop
        pushw   $0x0002
        popfw                           /* and after this one, which clears TF */
        movw    steps, %ax
        expect  4

        /* far calls, also by an alias of this segment */
        movw    %sp, %bp
        lcall   $SEGMENT, $far_procedure
        expect  SEGMENT
        lcall   $(SEGMENT - 1), $(far_procedure + 16)
        expect  SEGMENT-1
        pushw   $7
        pushw   $8
        movw    $far_cleanup, far_pointer
        movw    $SEGMENT, far_pointer + 2
        lcall   *far_pointer
        expect  15
        movw    %sp, %ax
        subw    %bp, %ax
        expect  0
        movw    $near_procedure, %bx
        xorw    %ax, %ax
        call    *%bx
        expect  0x55
        pushw   $SEGMENT
        pushw   $1f
        lret
        movw    $0, %ax
1:      movw    %cs, %ax
        expect  SEGMENT

        /* segment arithmetic */
        movw    $0xabcd, %es:0x123
        movw    $(OTHER - 0x12), %ax
        movw    %ax, %gs
        movw    %gs:0x243, %ax
        expect  0xabcd
        movw    $0xffff, %ax
        movw    %ax, %gs
        movl    %gs:0x10, %eax          /* 1 MiB: the multiboot header of this image */
        subl    $0x1badb002, %eax
        setz    %al
        movzbw  %al, %ax
        expect  1
        movw    $0x4321, %es:0x8
        movw    $(OTHER - 1), %ax
        movw    %ax, %gs
        movw    %gs:0x18, %ax
        expect  0x4321
        lesw    pointer, %di
        movw    %es, %ax
        expect  OTHER
        movw    %di, %ax
        expect  0x0123
        movw    %es:(%di), %ax
        expect  0xabcd

        /* address forms: BP means SS */
        movw    $SPARE, %ax
        movw    %ax, %ss
        movw    $0x8000, %sp
        movw    $0x100, %bp
        movw    $0x20, %si
        movw    $0x1357, %ss:0x122
        movw    2(%bp,%si), %ax
        expect  0x1357
        movw    $table, %bx
        movw    $4, %di
        movw    (%bx,%di), %ax
        expect  0x3333
        movl    $table, %eax
        movl    $3, %ecx
        movw    (%eax,%ecx,2), %ax      /* 32-bit address size */
        expect  0x4444
        movw    $0xfffe, %bx
        movw    table + 2(%bx), %ax     /* the sum wraps at 64 KiB */
        expect  0x1111
        movb    $2, %al
        movw    $bytes, %bx
        xlat
        movzbw  %al, %ax
        expect  30

        /* string instructions */
        movw    $OTHER, %ax
        movw    %ax, %es
        movw    $table, %si
        xorw    %di, %di
        movw    $4, %cx
        rep     movsw
        movw    %es:6, %ax
        expect  0x4444
        movw    %di, %ax
        expect  8
        movl    $0x89abcdef, %eax
        movw    $2, %cx
        rep     stosl
        movw    %es:14, %ax
        expect  0x89ab
        movw    $text, %di
        pushw   %ds
        popw    %es
        movb    $'x', %al
        movw    $16, %cx
        repne   scasb
        movw    %cx, %ax
        expect  8
        movw    $text, %si
        movw    $text2, %di
        movw    $16, %cx
        repe    cmpsb
        movw    %cx, %ax
        expect  4
        std
        movw    $table + 6, %si
        lodsw
        cld
        subw    $table + 4, %si
        addw    %si, %ax
        expect  0x4444
        movw    $OTHER, %ax
        movw    %ax, %es
        movl    $text, %esi
        movl    $0x200, %edi
        movl    $16, %ecx
        addr32 rep movsb                /* ESI, EDI, ECX */
        movw    %es:0x206, %ax
        expect  0x7867                  /* "gx" */
        movw    $0xffff, %di
        movb    $0x5a, %al
        stosb                           /* DI wraps */
        movw    %di, %ax
        expect  0
        movb    %es:0xffff, %al
        movb    $0, %ah
        expect  0x5a

        /* 32-bit operands in 16-bit code */
        movl    $0x12345678, %eax
        movl    $0x10000, %ecx
        mull    %ecx
        movw    %dx, %ax
        expect  0x1234
        movl    $0xffff8000, %eax
        movswl  %ax, %eax
        shrl    $16, %eax
        expect  0xffff
        movl    $0x00020003, %ecx
        xorw    %ax, %ax
1:      incw    %ax
        loop    1b                      /* CX */
        expect  3
        movl    $0x00010000, %ecx
        jcxz    1f
        movw    $0, %ax
        jmp     2f
1:      movw    $1, %ax
2:      expect  1
        movl    $3, %ecx
        xorw    %ax, %ax
1:      incw    %ax
        addr32 loop 1b                  /* ECX */
        expect  3
        movl    $0x76543210, %eax
        pushl   %eax
        popw    %bx
        popw    %ax
        expect  0x7654

        /* the stack */
        movw    %sp, %bx
        pushw   %sp                     /* the old value */
        popw    %ax
        subw    %bx, %ax
        expect  0
        movw    $0x1234, %di
        pushaw
        xorw    %di, %di
        popaw
        movw    %di, %ax
        expect  0x1234
        movw    %sp, %bx
        enterw  $8, $0
        movw    %bx, %ax
        subw    %sp, %ax
        leavew
        expect  10
        pushfl
        popl    %eax
        andw    $0x0002, %ax
        expect  2
        movw    $0xd500, %ax
        sahf
        movw    $0, %ax
        lahf
        expect  0xd700
        movw    $0x8000, %ax
        cwd
        movw    %dx, %ax
        expect  0xffff
        movw    $300, %ax
        movw    $-7, %cx
        imulw   %cx
        expect  0xf7cc
        movw    $-7, %ax
        cwd
        movw    $2, %cx
        idivw   %cx
        expect  0xfffd
        sidt    idt_image
        movw    idt_image, %ax
        expect  0x03ff

        /* limits of 64 KiB: not in every emulator */
        cmpw    $0, strict
        je      done
        movw    $1f, resume
word_at_the_end:
        movw    0xffff, %ax
1:      fault_at word_at_the_end
        movw    $1f, resume
        movl    $0x10000, %ebx
beyond_the_end:
        movb    (%ebx), %al
1:      fault_at beyond_the_end
        movw    $1f, resume
        movw    $0xffff, %bp
stack_word_at_the_end:
        movw    (%bp), %ax
1:      fault_at stack_word_at_the_end
        movw    faults, %ax
        expect  13+13+12

done:   movw    $n, results_length
        cmpw    $0, strict
        jne     leave
        subw    $4, results_length
leave:  movl    %cr0, %eax
        orb     $1, %al
        movl    %eax, %cr0
        ljmpl   *return_pointer

bad:    movw    $SEGMENT, %ax           /* an interrupt that nobody asked for */
        movw    %ax, %ds
        movw    $0, results_length
        jmp     leave

on_int: addw    $0x1111, %ax
        pushw   %bp
        movw    %sp, %bp
        pushw   2(%bp)
        popw    %cs:int_ip
        pushw   4(%bp)
        popw    %cs:int_cs
        pushw   6(%bp)
        popw    %cs:int_flags
        pushfw
        popw    %cs:handler_flags
        popw    %bp
        iretw
on_stack_fault:
        addw    $12 - 13, %cs:faults
on_protection_fault:
        addw    $13, %cs:faults
on_fault:
        popw    %cs:saved_ip
        pushw   %cs:resume
        iretw
on_trap:
        popw    %cs:saved_ip
        pushw   %cs:saved_ip
        iretw
on_step:
        incw    %cs:steps
        iretw
far_procedure:
        movw    %cs, %ax
        lret
far_cleanup:
        pushw   %bp
        movw    %sp, %bp
        movw    6(%bp), %ax
        addw    8(%bp), %ax
        popw    %bp
        lret    $4
near_procedure:
        orw     $0x55, %ax
        ret

        .balign 4
saved_ip:       .word 0
resume:         .word 0
faults:         .word 0
steps:          .word 0
int_ip:         .word 0
int_cs:         .word 0
int_flags:      .word 0
handler_flags:  .word 0
limits:         .word 1, 8
far_pointer:    .word 0, 0
pointer:        .word 0x123, OTHER
table:          .word 0x1111, 0x2222, 0x3333, 0x4444
bytes:          .byte 10, 20, 30, 40
text:           .ascii "abcdefgxhijklmno"
text2:          .ascii "abcdefgxhijXlmno"
idt_image:      .fill 6, 1, 0
        .section .note.GNU-stack, "", @progbits

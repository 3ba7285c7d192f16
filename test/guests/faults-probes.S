/*
 * The probes of faults.c: p_NAME is the code, f_NAME the RIP that the trap must
 * save. Probes take an argument in %rdi and end by their trap or by RET. Those
 * that run at CPL 3 lie in the page of `user_code`, mapped at USER_BASE, and end
 * with INT 30h when they survive.
 */
#include "lib/selectors.h"
#include "faults.h"

        .macro  probe name
        .globl  p_\name
p_\name:
        .endm
        .macro  faults name
        .globl  f_\name
f_\name:
        .endm

        .text
        .code64
/* run_probe(probe, argument): calls it; trap_land() in faults.c comes back to probe_landing */
        .globl  run_probe, probe_landing, probe_rsp
run_probe:
        pushq   %rbx
        pushq   %rbp
        pushq   %r12
        pushq   %r13
        pushq   %r14
        pushq   %r15
        pushfq
        movq    %rsp, probe_rsp
        movq    %rdi, %rax
        movq    %rsi, %rdi
        call    *%rax
probe_landing:
        cld
        movl    $SEL_DATA, %eax
        movl    %eax, %ds
        movl    %eax, %es
        movl    %eax, %ss
        movq    probe_rsp, %rsp
        popfq
        popq    %r15
        popq    %r14
        popq    %r13
        popq    %r12
        popq    %rbp
        popq    %rbx
        ret

/* enters CPL 3: %rdi points to struct user_entry {rip, cs, rflags} */
probe user
        movl    $SEL_USER_DATA, %eax
        movl    %eax, %ds
        movl    %eax, %es
        pushq   $SEL_USER_DATA
        pushq   $USER_STACK_TOP
        pushq   16(%rdi)
        pushq   8(%rdi)
        pushq   (%rdi)
        movl    $0x1234, %ebx
        iretq

/* #DE */
probe div_zero
        xorl    %ecx, %ecx
        xorl    %edx, %edx
faults div_zero
        divl    %ecx
        ret
probe idiv_overflow
        movl    $1, %eax
        rorq    $1, %rax
        cqto
        movq    $-1, %rcx
faults idiv_overflow
        idivq   %rcx
        ret

/* #DB */
probe step
        pushfq
        orl     $0x100, (%rsp)
        popfq
        nop
faults step
        ret
probe step_rep
        movl    $watched, %edi
        movl    $3, %ecx
        xorl    %eax, %eax
        pushfq
        orl     $0x100, (%rsp)
        popfq
faults step_rep
        rep     stosb
        ret
probe step_mov_ss
        movl    %ss, %eax
        pushfq
        orl     $0x100, (%rsp)
        popfq
        movl    %eax, %ss
        nop
faults step_mov_ss
        ret
probe break_exec
        nop
faults break_exec
        nop
        ret
probe break_write
        movl    watched, %eax
        movl    $1, watched
faults break_write
        ret
probe break_access
        movzbl  watched + 7, %eax
faults break_access
        ret
probe break_io
        outb    %al, $0x80
faults break_io
        ret
probe break_detect
        movq    %dr7, %rax
        orl     $0x2000, %eax
        movq    %rax, %dr7
faults break_detect
        movq    %dr0, %rax
        ret
probe icebp
        .byte   0xf1
faults icebp
        ret

/* #BP */
probe int3
        int3
faults int3
        ret
probe int_3
        .byte   0xcd, 3
faults int_3
        ret

/* #UD */
        .macro  simple name, instruction:vararg
        probe   \name
        faults  \name
        \instruction
        ret
        .endm
        simple  ud2, ud2
        simple  push_es, .byte 0x06
        simple  lock_register, .byte 0xf0, 0x01, 0xc0
        simple  mov_cr1, .byte 0x0f, 0x20, 0xc8
        simple  mov_dr4, .byte 0x0f, 0x21, 0xe0
        simple  rsm, rsm
        simple  vmrun, vmrun
        simple  vmmcall, vmmcall
        simple  sysenter, sysenter
        simple  syscall, syscall
        simple  xsetbv, xsetbv
        simple  monitor_lock, .byte 0xf0, 0x90
        simple  too_long, .byte 0x66, 0x66, 0x66, 0x66, 0x66, 0x66, 0x66, 0x66, 0x66, 0x66, 0x66, 0x66, 0x66, 0x66, 0x66, 0x90

/* #NM, #MF, #XF */
        simple  fnop, fnop
        simple  fwait, fwait
        simple  sse, movaps %xmm0, %xmm1
probe x87_divide
        fxrstor divided_by_zero
faults x87_divide
        fwait
        ret
probe sse_divide
        ldmxcsr unmask_sse_zero_divide
        movss   one, %xmm0
        xorps   %xmm1, %xmm1
faults sse_divide
        divss   %xmm1, %xmm0
        ret

/* loads of the selector in %rdi */
        simple  load_ds, movl %edi, %ds
        simple  load_ss, movl %edi, %ss
        simple  load_tr, ltr %di
        simple  load_ldtr, lldt %di
probe far_jump
        movl    $f_far_jump, far_pointer
        movw    %di, far_pointer + 4
faults far_jump
        ljmp    *far_pointer
        ret
probe far_return
        pushq   %rdi
        pushq   $f_far_return
faults far_return
        lretq
probe iret_code
        movq    %rsp, %rax
        pushq   $SEL_DATA
        pushq   %rax
        pushq   $2
        pushq   %rdi
        pushq   $f_iret_code
faults iret_code
        iretq
probe iret_nested_task
        pushfq
        orl     $0x4000, (%rsp)
        popfq
faults iret_nested_task
        iretq

/* INT n */
        simple  int_31, int $0x31
        simple  int_32, int $0x32
        simple  int_beyond, int $0x50

/* memory at %rdi */
        simple  read, movq (%rdi), %rax
        simple  write, movq %rax, (%rdi)
        simple  jump, jmp *%rdi
        simple  read_modify, lock incq (%rdi)
probe push_at
        movq    %rdi, %rsp
faults push_at
        pushq   %rax
        ret
probe stack_relative
        movq    %rdi, %rbp
faults stack_relative
        movq    (%rbp), %rax
        ret
probe rep_movs
        movl    $watched, %esi
        movl    $64, %ecx
faults rep_movs
        rep     movsb
        ret
probe write_stac
        stac
        movq    (%rdi), %rax
        movq    %rax, (%rdi)
        clac
        ret

/* control registers and MSRs from %rdi */
        simple  to_cr0, movq %rdi, %cr0
        simple  to_cr3, movq %rdi, %cr3
        simple  to_cr4, movq %rdi, %cr4
        simple  to_cr8, movq %rdi, %cr8
        simple  to_dr6, movq %rdi, %dr6
        simple  to_dr7, movq %rdi, %dr7
        .macro  msr name, number
        probe   \name
        movl    $\number, %ecx
        movl    %edi, %eax
        movq    %rdi, %rdx
        shrq    $32, %rdx
        faults  \name
        wrmsr
        ret
        .endm
        msr     to_efer, 0xc0000080
        msr     to_lstar, 0xc0000082
        msr     to_fs_base, 0xc0000100
        msr     to_pat, 0x277
probe read_msr
        movl    %edi, %ecx
faults read_msr
        rdmsr
        ret
probe load_idt
        movq    %rdi, far_pointer + 2
        movw    $0x3ff, far_pointer
faults load_idt
        lidt    far_pointer
        ret

/* compatibility mode: %rdi = 32-bit code to run; it comes back by compat_done with its result in %eax */
probe compat
        movl    %edi, far_pointer
        movw    $SEL_CODE32, far_pointer + 4
        xorl    %eax, %eax
        ljmp    *far_pointer
        .globl  compat_works
        .code32
compat_works:
        movl    $-1, %eax
        incl    %eax                    /* 40h, which is a REX prefix in 64-bit mode */
        movl    %esp, %ecx
        pushl   $7
        subl    %esp, %ecx
        addl    %ecx, %eax              /* 4 */
        popl    %ecx
        addl    %ecx, %eax              /* 7 */
        pushal
        popal
        pushl   %es
        popl    %es
        movw    $0xfffc, %cx
        movw    $0x0003, %dx
        arpl    %dx, %cx                /* 63h, which is MOVSXD in 64-bit mode */
        jnz     compat_done
        movzwl  %cx, %ecx
        addl    %ecx, %eax              /* ffffh */
compat_done:
        ljmp    $SEL_CODE64, $compat_return
probe compat_into
        movl    $0x7fffffff, %ecx
        incl    %ecx
        into
faults compat_into
        jmp     compat_done
probe compat_bound
        movl    $5, %ecx
faults compat_bound
        bound   %ecx, bounds
        jmp     compat_done
probe compat_aam
faults compat_aam
        aam     $0
        jmp     compat_done
probe compat_limit
        movl    $SEL_SPARE + 0x20, %ecx
        movl    %ecx, %ds
faults compat_limit
        movl    0xffd, %ecx             /* the last byte lies outside */
        jmp     compat_done
probe compat_inside
        movl    $SEL_SPARE + 0x20, %ecx
        movl    %ecx, %ds
        movl    0xffc, %eax
        jmp     compat_done
probe compat_null
        xorl    %ecx, %ecx
        movl    %ecx, %ds
faults compat_null
        movl    0x100000, %ecx
        jmp     compat_done
probe compat_stack_limit
        movl    $SEL_SPARE + 0x20, %ecx
        movl    %ecx, %ss
        movl    $0x2000, %esp
faults compat_stack_limit
        pushl   %eax
        jmp     compat_done
probe compat_write_code
faults compat_write_code
        movl    %eax, %cs:watched
        jmp     compat_done
        .code64
compat_return:
        movl    %eax, %eax
        movq    %rax, transfer
        ret

/* CPL 0 ends of SYSCALL and of the call gate; they note what they find */
        .globl  syscall_entry, syscall_entry32, syscall_entry_compat, gate_entry, transfer
syscall_entry:
        movq    %rcx, transfer
        movq    %r11, transfer + 8
        movw    %cs, transfer + 16
        movw    %ss, transfer + 24
        pushfq                          /* still the stack of CPL 3 */
        popq    transfer + 32
        sysretq
syscall_entry32:
        movl    $USER_BASE + (user_compat_end - user_code), %ecx
        sysretl
syscall_entry_compat:
        movq    %rcx, transfer
        movw    %cs, transfer + 16
        sysretl
gate_entry:
        movq    (%rsp), %rax
        movq    %rax, transfer
        movq    8(%rsp), %rax
        movq    %rax, transfer + 8
        movq    16(%rsp), %rax
        movq    %rax, transfer + 16
        movq    24(%rsp), %rax
        movq    %rax, transfer + 24
        lretq

/* CPL 3 */
        .balign 4096
        .globl  user_code, user_code_end
user_code:
        .macro  user name, instruction:vararg
        .globl  u_\name
u_\name:
        \instruction
        int     $0x30
        .endm
        user    nothing, nop
        user    hlt, hlt
        user    cli, cli
        user    in, inb $0x71, %al
        user    in_allowed, inb $0x80, %al
        user    mov_cr0, movq %cr0, %rax
        user    rdmsr, rdmsr
        user    wbinvd, wbinvd
        user    lgdt, lgdt (%rsp)
        user    swapgs, swapgs
        user    int_31, int $0x31
        user    int3, int3
        user    rdtsc, rdtsc
        user    sgdt, sgdt -16(%rsp)
        user    load_ds, movl %ebx, %ds
        .globl  u_kernel_ds, u_kernel_ds_at
u_kernel_ds:
        movl    $SEL_DATA, %eax
u_kernel_ds_at:
        movl    %eax, %ds
        int     $0x30
        user    read_supervisor, movq USER_BASE + 4 * 4096, %rax
        user    read_missing, movq USER_BASE + 5 * 4096, %rax
        user    write_missing, movq %rax, USER_BASE + 5 * 4096
        user    write_read_only, movq %rax, USER_BASE + 3 * 4096
        user    read_only, movq USER_BASE + 3 * 4096, %rax
        user    write_code, .byte 0xc6, 0x05; .long -7; .byte 0
        .globl  u_jump_data, u_popf, u_misaligned, u_misaligned_at, u_syscall, u_syscall_at, u_call_gate, u_call_gate_at, u_bad_gate, u_bad_gate_at
        .globl  u_iret_kernel, u_iret_kernel_at
u_jump_data:
        movl    $USER_BASE + 2 * 4096, %eax
        jmp     *%rax
u_popf: pushq   $0x3202                 /* IOPL 3, IF */
        popfq
        pushfq
        popq    %rax
        int     $0x30
u_misaligned:
        pushfq
        orl     $0x40000, (%rsp)
        popfq
u_misaligned_at:
        movl    USER_BASE + 2 * 4096 + 1, %eax
        int     $0x30
u_syscall:
        movl    $0x77, %ebx
        stc
        syscall
u_syscall_at:
        int     $0x30
u_call_gate:
        movl    $SEL_SPARE + 0x30 + 3, %eax
        movw    %ax, -4(%rsp)
        lcall   *-8(%rsp)
u_call_gate_at:
        int     $0x30
u_bad_gate:
        movl    $SEL_SPARE + 0x40 + 3, %eax
        movw    %ax, -4(%rsp)
u_bad_gate_at:
        lcall   *-8(%rsp)
        int     $0x30
u_iret_kernel:
        pushq   $SEL_DATA
        pushq   %rsp
        pushq   $2
        pushq   $SEL_CODE64
        pushq   $0
u_iret_kernel_at:
        iretq
        .code32
        .globl  u_compat, user_compat_end, u_compat_syscall, u_compat_syscall_at
u_compat:
        movl    $-1, %eax
        incl    %eax
        pushl   $5
        popl    %eax
user_compat_end:
        int     $0x30
u_compat_syscall:
        syscall
u_compat_syscall_at:
        int     $0x30
        .code64
        .balign 4096
user_code_end:

        .data
        .balign 16
        .globl  watched
watched:
        .fill   64, 1, 0
far_pointer:
        .quad   0, 0
bounds: .long   1, 4
unmask_sse_zero_divide:
        .long   0x1d80
one:    .long   0x3f800000
        .balign 16
divided_by_zero:                                /* FCW with ZM clear, FSW with ES, ZE and B set, all registers empty */
        .word   0x037b, 0x8084
        .zero   20
        .long   0x1f80
        .zero   484
        .bss
        .balign 8
probe_rsp:
        .skip   8
transfer:
        .skip   64
        .section .note.GNU-stack, "", @progbits

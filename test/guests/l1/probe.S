# Guest of l2.c: what it sees of its processor, in real mode, then in 64-bit mode, goes into a checksum, the number that it
# hands over at the end. Linked at 1000h, entered there in real mode; l2.c has made the page tables at 10000h.
#
# B8000h and D0000000h are no memory: each access is an exit, instructions that read and write being two.
	.include "gates.inc"
	.set	PAGE_TABLES, 0x10000
	.set	WINDOW, 0xd0000000
	.set	NEW_PAGES, 0x200000
	.set	SUM_START, 0x811c9dc5
	.set	PRIME, 0x01000193
	.set	REAL_ROUNDS, 16
	.set	REAL_VECTOR, 0x20

	.set	MSR_MTRR_CAP, 0xfe
	.set	MSR_MTRR_BASE0, 0x200
	.set	MSR_EFER, 0xc0000080
	.set	MSR_GS_BASE, 0xc0000101
	.set	MSR_KERNEL_GS_BASE, 0xc0000102
	.set	MSR_NONE, 0x7fff1234

	.code16
	.globl	_start
_start:	cli
	cld
	xor	%eax, %eax
	mov	%ax, %ds
	mov	%ax, %es
	mov	%ax, %ss
	mov	$STACK, %esp
	mov	$0x16, %al
	out	%al, $PORT_PHASE
	movl	$real_interrupt, REAL_VECTOR * 4
	mov	$0xb800, %ax
	mov	%ax, %fs
	mov	$SUM_START, %edi
	mov	$REAL_ROUNDS, %ebp

real_round:
	mov	%ebp, %eax
	xor	%edi, %eax
	out	%eax, $PORT_VALUE
	out	%al, $PORT_VALUE
	out	%ax, $PORT_VALUE
	in	$PORT_RANDOM, %eax
	call	real_mix
	xor	%eax, %eax
	xor	%ecx, %ecx
	cpuid
	mov	%ebx, %eax
	call	real_mix
	mov	%edx, %eax
	call	real_mix
	mov	%bp, %bx
	shl	$2, %bx
	mov	%edi, %fs:(%bx)
	mov	%fs:(%bx), %eax
	call	real_mix
	movzbl	%fs:1(%bx), %eax
	call	real_mix
	int	$REAL_VECTOR
	hlt
	dec	%ebp
	jnz	real_round

	mov	$greeting, %si
	mov	$greeting_end - greeting, %cx
	mov	$PORT_VALUE, %dx
	rep outsb
	mov	$0x32, %al
	out	%al, $PORT_PHASE
	lgdtl	gdt_pointer
	mov	%cr0, %eax
	or	$1, %al
	mov	%eax, %cr0
	ljmpl	$CODE32, $protected

real_mix:
	xor	%eax, %edi
	imul	$PRIME, %edi, %edi
	ret

real_interrupt:
	incl	TICKS
	mov	$REAL_VECTOR, %eax
	call	real_mix
	iretw

greeting:
	.ascii	"hello from L2 real mode\n"
greeting_end:

	.code32
protected:
	mov	$DATA, %eax
	mov	%eax, %ds
	mov	%eax, %es
	mov	%eax, %ss
	mov	%eax, %fs
	mov	%eax, %gs
	mov	%cr4, %eax
	or	$0x620, %eax			# PAE, OSFXSR, OSXMMEXCPT
	mov	%eax, %cr4
	mov	$PAGE_TABLES, %eax
	mov	%eax, %cr3
	mov	$MSR_EFER, %ecx
	rdmsr
	or	$0x101, %eax			# LME, SCE
	wrmsr
	mov	%cr0, %eax
	and	$~0xc, %eax			# TS, EM
	or	$0x80010002, %eax		# PG, WP, MP
	mov	%eax, %cr0
	ljmp	$CODE64, $long_mode

	.code64
	# Into the checksum goes EAX, or what is named; and into R15D, the sum of all that was seen: values that come from the
	# checksum itself cancel in the one, not in the other.
	.macro	mix what
	.ifnb	\what
	mov	\what, %eax
	.endif
	xor	%eax, %r12d
	imul	$PRIME, %r12d, %r12d
	rol	$5, %r15d
	add	%eax, %r15d
	.endm

	# The time-stamp counter, to `to`.
	.macro	read_time to
	rdtsc
	shl	$32, %rdx
	lea	(%rdx, %rax), \to
	.endm

long_mode:
	xor	%eax, %eax
	mov	%eax, %ds
	mov	%eax, %es
	mov	%eax, %ss
	mov	$STACK, %esp
	lidt	idt_pointer
	mov	%edi, %r12d			# the checksum
	mov	%edi, %r15d
	mov	$0x64, %al
	out	%al, $PORT_PHASE
	fninit
	mov	$0x5eed5eed, %eax
	movd	%eax, %xmm5
	pshufd	$0, %xmm5, %xmm5
	xor	%r14d, %r14d			# the round
	read_time %r13

round:	mov	%r12d, %eax
	out	%eax, $PORT_VALUE
	in	$PORT_RANDOM, %eax
	mix

	mov	%r14d, %eax
	and	$3, %eax
	mov	leaves(, %rax, 4), %eax
	xor	%ecx, %ecx
	cpuid
	xor	%ebx, %eax
	xor	%ecx, %eax
	xor	%edx, %eax
	mix

	# MSRs: one that is only read, one that keeps what is written, two that SWAPGS swaps, one that is not there
	mov	$MSR_MTRR_CAP, %ecx
	rdmsr
	mix
	mov	$MSR_MTRR_BASE0, %ecx
	mov	%r14d, %eax
	shl	$12, %eax
	or	$6, %eax
	xor	%edx, %edx
	wrmsr
	rdmsr
	mix
	mov	$MSR_KERNEL_GS_BASE, %ecx
	mov	%r12d, %eax
	xor	%edx, %edx
	wrmsr
	swapgs
	mov	$MSR_GS_BASE, %ecx
	rdmsr
	mix
	swapgs
	mov	$MSR_NONE, %ecx
	rdmsr

	# Accesses of each size to what is no memory, some of them in one instruction
	movzbl	%r14b, %ebx
	shl	$3, %ebx
	add	$WINDOW, %ebx
	mov	%r12d, (%rbx)
	mix	(%rbx)
	addl	$0x1234567, (%rbx)
	movzbl	1(%rbx), %eax
	mix
	movzwl	2(%rbx), %eax
	mix
	mov	(%rbx), %rax
	mix
	movb	$0x5a, 3(%rbx)
	xchg	%r12d, (%rbx)
	xor	(%rbx), %r12d

	# Exceptions and a software interrupt
	ud2
	int3
	int	$0x80

	# A page that has not been there before
	mov	%r14d, %edi
	and	$511, %edi
	shl	$12, %edi
	add	%r12d, NEW_PAGES + 8(%rdi)
	mix	"NEW_PAGES + 8(%rdi)"

	# A hypercall that nobody knows, and instructions that hypervisors like to see
	mov	$0x7777, %eax
	vmmcall
	mix
	wbinvd
	pause
	mov	%cr0, %rax
	or	$8, %al				# TS
	mov	%rax, %cr0
	mov	%cr0, %rax
	mix
	clts
	mov	%cr3, %rax
	mov	%rax, %cr3
	invlpg	NEW_PAGES
	mov	$5, %eax
	mov	%rax, %cr8
	xor	%eax, %eax
	mov	%rax, %cr8
	mov	%cr8, %rax
	mix
	mov	%dr7, %rax
	mix
	mov	%r12, %rax
	mov	%rax, %dr1
	mov	%dr1, %rax
	mix

	# Time may not go back; how far it went is nobody's business
	read_time %rcx
	xor	%eax, %eax
	cmp	%r13, %rcx
	setb	%al
	mov	%rcx, %r13
	mix

	# The vector registers are ours
	movd	%r12d, %xmm0
	paddd	%xmm0, %xmm5
	movd	%xmm5, %eax
	mix

	# Every fourth round two interrupts: one waits for IF, one wakes from HLT
	test	$3, %r14b
	jnz	1f
	mov	$0x40, %al
	out	%al, $PORT_INTERRUPT
	out	%al, $PORT_VALUE
	sti
	nop
	nop
	cli
	mix	TICKS
	mov	$0x41, %al
	out	%al, $PORT_INTERRUPT
	sti
	hlt
	cli
	mix	TICKS
1:	hlt
	mix	FAULTS

	# A stretch without exits
	mov	BURST, %ecx
	jrcxz	3f
	mov	%r12d, %eax
2:	imul	$1664525, %eax, %eax
	add	$1013904223, %eax
	ror	$7, %eax
	dec	%ecx
	jnz	2b
	mix
3:	inc	%r14d
	cmp	ROUNDS, %r14d
	jb	round

	mov	%r15d, SEEN
	mov	%r12d, %eax
	out	%eax, $PORT_DONE
4:	hlt
	jmp	4b

no_opcode:
	incl	FAULTS
	addq	$2, (%rsp)			# UD2
	iretq
protection:
	addl	$0x100, FAULTS
	add	$8, %rsp			# the error code
	addq	$2, (%rsp)			# RDMSR
	iretq
breakpoint:
	addl	$0x10000, FAULTS
	iretq
software:
	addl	$0x1000000, FAULTS
	iretq
interrupt:
	incl	TICKS
	iretq
lost:	mov	$PHASE_LOST, %al
	out	%al, $PORT_PHASE
	hlt
	jmp	lost

	.balign	16
leaves:	.long	0, 1, 0x40000000, 0x80000008
idt:	gates	0, 2, lost
	gates	3, 3, breakpoint
	gates	4, 5, lost
	gates	6, 6, no_opcode
	gates	7, 12, lost
	gates	13, 13, protection
	gates	14, 0x3f, lost
	gates	0x40, 0x41, interrupt
	gates	0x42, 0x7f, lost
	gates	0x80, 0x80, software
idt_end:
	flat_segments
	pointer_to idt_pointer, idt, idt_end

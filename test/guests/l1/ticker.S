# Guest of l2.c under KVM's own interrupt controllers: programs the timer of its local APIC, sleeps until it interrupts in
# every second round, and spins in the others, so that L1's own timer interrupts it. Linked at 1000h, entered in 64-bit mode.
	.include "gates.inc"
	.set	APIC, 0xfee00000
	.set	EOI, 0xb0
	.set	SPURIOUS, 0xf0
	.set	TIMER, 0x320
	.set	COUNT, 0x380
	.set	DIVIDER, 0x3e0
	.set	VECTOR, 0x50

	.code64
	.globl	_start
_start:	cli
	mov	$STACK, %esp
	lgdt	gdt_pointer
	lidt	idt_pointer
	mov	$APIC, %ebx
	movl	$0x1ff, SPURIOUS(%rbx)		# enabled
	movl	$0x0b, DIVIDER(%rbx)		# by 1
	movl	$VECTOR, TIMER(%rbx)		# once
	xor	%esi, %esi

round:	mov	TICKS, %edi
	mov	PERIOD, %eax
	mov	%eax, COUNT(%rbx)
	test	$1, %sil
	jz	1f
	sti					# holds interrupts until HLT waits
	hlt
	jmp	2f
1:	sti
spin:	cmp	TICKS, %edi
	je	spin
2:	cli
	mov	TICKS, %eax
	out	%eax, $PORT_VALUE
	inc	%esi
	cmp	ROUNDS, %esi
	jb	round
	mov	TICKS, %eax
	out	%eax, $PORT_DONE
3:	hlt
	jmp	3b

tick:	incl	TICKS
	movl	$0, EOI(%rbx)
	iretq
lost:	mov	$PHASE_LOST, %al
	out	%al, $PORT_PHASE
	hlt
	jmp	lost

	.balign	16
idt:	gates	0, VECTOR-1, lost
	gates	VECTOR, VECTOR, tick
	gates	VECTOR+1, 255, lost
idt_end:
	pointer_to idt_pointer, idt, idt_end
	flat_segments

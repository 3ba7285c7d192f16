/*
 * What the files of the guest `intercepts` share: instructions as bytes, trials
 * (an instruction under one circumstance, with what must come of it), rows (an
 * intercept with its trials), and the machine that L2 finds (l2.c, trial.c).
 */
#ifndef INTERCEPTS_H
#define INTERCEPTS_H

#include "lib/svm.h"

/* Vectors. */
enum { DE, DB, NMI, BP, OF, BR, UD, NM, DF, TS = 10, NP, SS, GP, PF, MF = 16, AC, MC, XF, SX = 30, EXCEPTIONS = 32 };

/*
 * Where a fault of an instruction stands, and where the intercept: the lower one
 * wins. DECODE is the #UD of an encoding that is none; PRIVILEGE is CPL, modes and
 * values in registers; OPERAND is memory, descriptors, contents of an MSR.
 * Source: APM vol.2 §15.7 Intercept Operation, §15.9 Instruction Intercepts.
 */
enum position { NO_FAULT, DECODE = 1, PRIVILEGE = 3, OPERAND = 5 };
enum stage { BEFORE_EXCEPTIONS = 2, AFTER_PRIVILEGE = 4, AFTER_MEMORY = 6 };

/* Modes of L2, with their privilege level. PAE32 pages in legacy mode and without nested paging. */
enum mode { KERNEL64, USER64, KERNEL32, USER32, PAE32, REAL, V86 };

/* An instruction to try. What stands before it from `start` on runs first and is intercepted by nothing. */
struct instruction { const char *text; const u8 *start, *tested, *end; };

#define CODE_BYTES(name, shown, bits, before, assembly)                                                    \
        __asm__(".pushsection .rodata.l2, \"a\"\n\t.code" bits "\n" #name "_start:\n\t" before             \
                "\n" #name "_tested:\n\t" assembly "\n" #name "_end:\n\t.code64\n\t.popsection");          \
        extern const u8 name##_start[], name##_tested[], name##_end[];                                     \
        static const struct instruction name = {shown, name##_start, name##_tested, name##_end}
#define INSTRUCTION(name, text) CODE_BYTES(name, text, "64", "", text)
#define INSTRUCTION32(name, text) CODE_BYTES(name, text, "32", "", text)
#define INSTRUCTION16(name, text) CODE_BYTES(name, text, "16", "", text)
/* For what the assembler does not know. */
#define ENCODED(name, text, bytes) CODE_BYTES(name, text, "64", "", ".byte " bytes)
#define AFTER(name, before, text) CODE_BYTES(name, before "; " text, "64", before, text)

#define VMMCALL_BYTES 3         /* it stands behind the instruction, CPUID behind it */

/* What came of a run. */
enum outcome_kind {
        BY_TABLE,               /* as an expectation: completes, faults or exits, as position and stage say */
        COMPLETES,
        FAULTS_,                /* a handler of L2 was reached, RIP saved is the instruction's */
        TRAPS_,                 /* the same, RIP saved is that behind it */
        SWITCHES,               /* the other task of L2 runs */
        EXITS,                  /* #VMEXIT at the instruction */
        EXITS_AFTER,            /* #VMEXIT behind it */
        EXITS_ANYWHERE,         /* #VMEXIT, RIP undefined */
        REFUSED,                /* VMRUN gave VMEXIT_INVALID */
        NEVER_ENDS,             /* the watchdog ended it */
        NOT_RUN,                /* as an expectation: the machine might not come back from it */
};
#define FAULTS(vector) (FAULTS_ | (vector) << 8)
#define TRAPS(vector) (TRAPS_ | (vector) << 8)

struct trial {
        const struct instruction *instruction;
        const char *when;       /* the circumstance in words */
        enum mode mode;
        struct { u8 position, vector; u32 error; } fault;       /* what the instruction raises by itself */
        u16 off, on;            /* outcomes with the intercept off and on, where they are not BY_TABLE */
        u16 exit;               /* exit code, where it is not the row's */
        u16 flags;
        u8 needs;               /* a feature, without which this trial is left out */
        u64 rax, rbx, rcx, rdx; /* RBX, RSI and RDI are the address of the memory operand */
        u64 rsp;                /* 0: the stack of the privilege level */
        u64 cr0, cr4, rflags;   /* bits to change */
        u64 dr7, v_control;     /* bits to set */
        u64 info1, info2, mask; /* mask: bits of EXITINFO1 that count, 0 for all */
        u64 intinfo;            /* EXITINTINFO, 0 for none */
        u64 cr2;                /* of #PF, 0 for RBX */
        void (*prepare)(const struct trial *, int on);
        const char *(*inspect)(const struct trial *, int on);   /* what is wrong besides, or 0 */
};

/* trial.flags */
#define INFO1 1                 /* EXITINFO1 is defined */
#define INFO1_ASSIST 2          /* EXITINFO1 is defined where CPUID has decode assists */
#define INFO2 4
#define INFO2_NEXT 8            /* EXITINFO2 is RIP of the next instruction */
#define NEXT_RIP 16             /* nRIP is that of the next instruction though the row is no instruction */
#define COMMITS 32              /* at the #VMEXIT registers may have changed */
#define HOST_IF 64              /* L1 has RFLAGS.IF set around VMRUN */
#define NO_NEXT_RIP 128         /* nRIP is not looked at */
#define WITHOUT_NP 256          /* nested paging is off */
#define INTERRUPTED 512         /* an interrupt reaches the handler: no error code */
#define NO_INTINFO 1024         /* EXITINTINFO is not looked at */
#define SEGMENT_ASSIST 2048     /* bits 12:10 of EXITINFO1 are defined where CPUID has decode assists */

/* What CPUID reports, or does not; the last ones features.c finds out by trying. */
enum feature {
        ALWAYS, MONITOR_MWAIT, PCID, XSAVE, INVPCID, UMIP, SKINIT, ALT_MOV_CR8, MWAITX, RDTSCP, INVLPGB, RDPRU, MCOMMIT,
        NESTED_PAGING, NRIPS, DECODE_ASSISTS, PAUSE_FILTER, PAUSE_THRESHOLD, VGIF, INVLPGB_IN_GUEST, BUS_LOCK_THRESHOLD,
        IDLE_HLT_INTERCEPT, REDIRECTED_INIT, SMM_LOCK, SMM_UNLOCKED, NO_WAY, DEFINED_EFFECT, FEATURES
};

struct row {
        const char *name;
        u16 word;               /* offset in the VMCB */
        u8 bit;
        u16 exit;
        enum stage stage;
        u8 event;               /* no instruction: nRIP is 0, and no breakpoint is tried */
        u8 feature;             /* without it the instruction is #UD, and `skip` is said */
        const struct trial *trials;
        u32 count;
};
#define TRIALS(table) table, ARRAY_LENGTH(table)

/* Memory of L2, the same addresses in all modes: segment 2000h of 16-bit modes, identity in the others. */
#define LOW 0x20000ul
#define CODE LOW
#define HANDLERS (LOW + 0x1000) /* 16 bytes a vector */
#define OTHER_TASK 63           /* the slot in HANDLERS that the other task begins at */
#define REAL_IVT (LOW + 0x2000)
#define KERNEL_STACK_TOP (LOW + 0x4000)
#define USER_STACK_TOP (LOW + 0x5000)
#define DATA (LOW + 0x6000)
#define IST_STACK_TOP (LOW + 0x8000)
#define SEGMENT16 0x2000

/* Pages that 64-bit modes see besides: DATA again, with other rights. */
#define WINDOW 0x40000000ul
#define GOOD WINDOW
#define ABSENT (WINDOW + 0x1000)
#define READ_ONLY (WINDOW + 0x2000)
#define SUPERVISOR (WINDOW + 0x3000)
#define NON_CANONICAL 0x0000900000000000ul
/* bits of page-fault error codes */
#define PF_PRESENT 1
#define PF_WRITE 2
#define PF_USER 4
#define PF_FETCH 16
#define CR2_AT_FIRST 0x5a5a5000ul

/* Selectors of L2's GDT besides those of L1. */
#define SEL_NOT_PRESENT 0x58    /* a data segment */
#define SEL_LDT 0x60            /* two slots; the LDTR at first */
#define SEL_TSS_FREE 0x70       /* two slots: an available TSS, that of the other task in legacy mode */
#define SEL_TSS_BUSY 0x80
#define SEL_TSS_ABSENT 0x88
#define SEL_TSS_SHORT 0x90
#define SEL_STACK_ABSENT 0x98   /* as SEL_NOT_PRESENT, DPL 0 where that has 3 */

#define CR0_TS 8ul
#define CR0_NE 0x20ul
#define CR0_WP 0x10000ul
#define CR0_AM 0x40000ul
#define CR0_PG (1ul << 31)
#define CR4_TSD 4ul
#define CR4_DE 8ul
#define CR4_PAE 0x20ul
#define CR4_PCE 0x100ul
#define CR4_UMIP 0x800ul
#define CR4_PCIDE 0x20000ul
#define CR4_OSXSAVE 0x40000ul
#define L2_CR0 0x80010033ul     /* 64-bit modes */
#define L2_CR4 0x620ul          /* OSXMMEXCPT, OSFXSR, PAE */
#define RFLAGS_TF 0x100ul
#define RFLAGS_IF 0x200ul
#define RFLAGS_IOPL 0x3000ul
#define RFLAGS_NT 0x4000ul
#define RFLAGS_VM 0x20000ul
#define RFLAGS_AC 0x40000ul
#define DR7_GD 0x2000ul
#define MSR_HWCR 0xc0010015
#define HWCR_SMM_LOCK 1ul
#define V_GIF (1ul << 9)
#define V_GIF_ENABLE (1ul << 25)

#define EVENT_SOFTWARE (4ul << 8)
#define INTERCEPT3_NMI 1
#define EXIT_NMI 0x61

#define PHYSICAL_VECTOR 0x38
#define VIRTUAL_VECTOR 0x31
#define PENDING_VIRTUAL (V_IRQ | V_IGN_TPR | V_PRIORITY(VIRTUAL_VECTOR >> 4) | V_VECTOR(VIRTUAL_VECTOR))

/* l2.c */
struct tss32 {
        u32 link, esp0, ss0, esp1, ss1, esp2, ss2, cr3, eip, eflags, eax, ecx, edx, ebx, esp, ebp, esi, edi;
        u32 es, cs, ss, ds, fs, gs, ldt;
        u16 trap, io_map;
        u8 io_bits[32 + 1];
};
extern struct idt_gate l2_idt64[64];
extern u64 l2_idt32[64], l2_gdt[GDT_SLOTS], l2_pdpt32[4];
extern struct tss64 l2_tss64;
extern struct tss32 l2_tss32, l2_other_task;
void l2_memory(void);           /* once */
void l2_reset(void);            /* before every run: descriptors, gates and permissions as at first */
void l2_state(const struct trial *trial);       /* the VMCB of a trial, without intercepts */

/* outcomes.c. `flags` are those of the trial, with what the processor lacks taken into account. */
struct outcome { u16 kind, vector; u64 code, info1, info2, nrip, rip, intinfo, error, cr2; };
struct outcome expectation(const struct row *row, const struct trial *trial, int on);
struct outcome classify(const struct trial *trial);
int same(const struct outcome *wanted, const struct outcome *found, const struct trial *trial, u32 flags);
void describe(const struct outcome *outcome, const struct trial *trial, u32 flags);
/* What the fields that #VMEXIT writes hold before: nothing that it could leave. */
#define POISON 0x5bad5bad5bad5badul

/* trial.c */
extern u8 vmcb[4096], iopm[3 * 4096], msrpm[2 * 4096];
extern struct l2_registers regs;
extern u64 rip_tested, rip_next;
void trials_begin(void);
int trials_end(void);
void check_row(const struct row *row);
void check_rows(const struct row *rows, u32 count);
const char *numbered(char *text, const char *before, u32 number, const char *after);

/* watchdog.c */
void watchdog_prepare(u32 apic_id);
void watchdog_start(void);
void watchdog_stop(void);

/* features.c */
void features_read(void);
int has(enum feature feature);
const char *feature_name(enum feature feature);

/* one file for each part of the table */
void check_control_registers(void);
void check_debug_registers(void);
void check_exceptions(void);
void check_events(void);
void check_descriptor_tables(void);
void check_instructions(void);
void check_permission_maps(void);
void check_tasks(void);
void check_svm_instructions(void);
void check_waiting(void);
void check_write_traps(void);
void check_later_instructions(void);

/* events.c: events that wait for L2 while GIF is clear */
void events_prepare(void);
void disarm_monitor(void);
void send_init(const struct trial *trial, int on);
void send_interrupt(const struct trial *trial, int on);
const char *interrupt_in_l1(const struct trial *trial, int on);

#endif

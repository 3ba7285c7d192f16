/*
 * What every guest program can use: integer types, privileged instructions,
 * text on the serial line, options of the multiboot command line, traps.
 * A guest defines guest_main(); its result is the exit value, 0 for success,
 * otherwise (1 to 125) the number of the first check that failed.
 */
#ifndef GUEST_H
#define GUEST_H

#include "selectors.h"

typedef unsigned char u8;
typedef unsigned short u16;
typedef unsigned int u32;
typedef unsigned long u64;
typedef long i64;

#define ARRAY_LENGTH(array) (sizeof(array) / sizeof((array)[0]))
#define PAGE_ALIGNED __attribute__((aligned(4096)))

int guest_main(void);
void guest_exit(u32 value) __attribute__((noreturn));

/* guest.c: text. print() knows %s %c %u %d (64-bit), %x (64-bit, width by 0N), %% */
void serial_put(char character);
void print(const char *format, ...);

/* guest.c: `name=value` on the command line; decimal, or hexadecimal after 0x */
u64 option(const char *name, u64 fallback);
const char *option_text(const char *name, const char *fallback, char *buffer, u64 size);

struct multiboot_info {
        u32 flags, mem_lower, mem_upper, boot_device, cmdline, mods_count, mods_addr, syms[4];
        u32 mmap_length, mmap_addr, drives[2], config_table, boot_loader_name;
};
struct multiboot_mmap {
        u32 size;
        u64 base, length;
        u32 type;
} __attribute__((packed));
extern struct multiboot_info *multiboot;

/* trap.S, guest.c: a vector without handler prints its frame and ends the guest with 127 */
struct trap_frame {
        u64 rax, rcx, rdx, rbx, rbp, rsi, rdi, r8, r9, r10, r11, r12, r13, r14, r15;
        u64 vector, error, rip, cs, rflags, rsp, ss;
};
typedef void trap_handler(struct trap_frame *frame);
struct idt_gate {
        u16 offset_low, selector;
        u8 ist, type;
        u16 offset_middle;
        u32 offset_high, reserved;
};
struct tss64 {
        u32 reserved0;
        u64 rsp[3], reserved1, ist[7], reserved2;
        u16 reserved3, io_map;
        u8 io_bits[32 + 1];
} __attribute__((packed));
struct table_pointer {
        u16 limit;
        u64 base;
} __attribute__((packed));
#define IDT_GATES 64
extern struct idt_gate idt[IDT_GATES];
extern struct tss64 tss;
extern u64 gdt[GDT_SLOTS], pml4[512];
extern char boot_stack_top[];
void trap_set(u32 vector, trap_handler *handler);
void tss_descriptor(u32 limit);

void *memset(void *target, int value, u64 count);
void *memcpy(void *target, const void *source, u64 count);
int memcmp(const void *a, const void *b, u64 count);

static inline void out8(u16 port, u8 value) { __asm__ volatile("outb %0, %1" ::"a"(value), "Nd"(port)); }
static inline u8 in8(u16 port)
{
        u8 value;
        __asm__ volatile("inb %1, %0" : "=a"(value) : "Nd"(port));
        return value;
}
static inline u64 rdmsr(u32 msr)
{
        u32 low, high;
        __asm__ volatile("rdmsr" : "=a"(low), "=d"(high) : "c"(msr));
        return (u64)high << 32 | low;
}
static inline void wrmsr(u32 msr, u64 value)
{
        __asm__ volatile("wrmsr" ::"c"(msr), "a"((u32)value), "d"((u32)(value >> 32)) : "memory");
}
struct cpuid { u32 eax, ebx, ecx, edx; };
static inline struct cpuid cpuid(u32 function, u32 index)
{
        struct cpuid r;
        __asm__ volatile("cpuid" : "=a"(r.eax), "=b"(r.ebx), "=c"(r.ecx), "=d"(r.edx) : "a"(function), "c"(index));
        return r;
}
#define ACCESS_REGISTER(name)                                                                              \
        static inline u64 read_##name(void)                                                                \
        {                                                                                                  \
                u64 value;                                                                                 \
                __asm__ volatile("mov %%" #name ", %0" : "=r"(value));                                     \
                return value;                                                                              \
        }                                                                                                  \
        static inline void write_##name(u64 value) { __asm__ volatile("mov %0, %%" #name ::"r"(value) : "memory"); }
ACCESS_REGISTER(cr0)
ACCESS_REGISTER(cr2)
ACCESS_REGISTER(cr3)
ACCESS_REGISTER(cr4)
ACCESS_REGISTER(cr8)
ACCESS_REGISTER(dr0)
ACCESS_REGISTER(dr1)
ACCESS_REGISTER(dr2)
ACCESS_REGISTER(dr3)
ACCESS_REGISTER(dr6)
ACCESS_REGISTER(dr7)
static inline void invlpg(u64 address) { __asm__ volatile("invlpg (%0)" ::"r"(address) : "memory"); }
static inline void sti(void) { __asm__ volatile("sti" ::: "memory"); }
static inline void cli(void) { __asm__ volatile("cli" ::: "memory"); }
/* STI keeps interrupts off for one more instruction, so none is lost before HLT */
static inline void wait_for_interrupt(void) { __asm__ volatile("sti\n\thlt\n\tcli" ::: "memory"); }

#define MSR_APIC_BASE 0x1b
#define MSR_PAT 0x277
#define MSR_EFER 0xc0000080
#define MSR_STAR 0xc0000081
#define MSR_LSTAR 0xc0000082
#define MSR_CSTAR 0xc0000083
#define MSR_SFMASK 0xc0000084
#define MSR_FS_BASE 0xc0000100
#define MSR_GS_BASE 0xc0000101
#define MSR_KERNEL_GS_BASE 0xc0000102
#define MSR_VM_CR 0xc0010114
#define MSR_VM_HSAVE_PA 0xc0010117
#define EFER_SCE (1 << 0)
#define EFER_SVME (1 << 12)

#endif

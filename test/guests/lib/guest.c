/* What guest.h promises: start, text, options, traps. */
#include "guest.h"

#define UART 0x3f8

struct multiboot_info *multiboot;
struct idt_gate idt[IDT_GATES] __attribute__((aligned(16)));
struct tss64 tss __attribute__((aligned(16)));
static trap_handler *handlers[IDT_GATES];
static char interrupt_stack[8192] __attribute__((aligned(16)));
extern char trap_stubs[];

void *memset(void *target, int value, u64 count)
{
        void *at = target;
        __asm__ volatile("rep stosb" : "+D"(at), "+c"(count) : "a"(value) : "memory");
        return target;
}

void *memcpy(void *target, const void *source, u64 count)
{
        void *at = target;
        __asm__ volatile("rep movsb" : "+D"(at), "+S"(source), "+c"(count)::"memory");
        return target;
}

int memcmp(const void *a, const void *b, u64 count)
{
        const u8 *x = a, *y = b;
        for (u64 i = 0; i < count; i++)
                if (x[i] != y[i])
                        return x[i] - y[i];
        return 0;
}

static void serial_init(void)
{
        out8(UART + 1, 0x00);   /* no interrupts */
        out8(UART + 3, 0x80);   /* divisor latch: 115200 baud */
        out8(UART + 0, 0x01);
        out8(UART + 1, 0x00);
        out8(UART + 3, 0x03);   /* 8 data bits, no parity, 1 stop bit */
        out8(UART + 2, 0x07);   /* FIFO on and empty */
        out8(UART + 4, 0x0b);   /* DTR, RTS, OUT2 */
}

void serial_put(char character)
{
        while (!(in8(UART + 5) & 0x20))
                ;
        out8(UART, (u8)character);
}

static void put_number(u64 value, u32 base, u32 width)
{
        char digits[24];
        u32 count = 0;
        do {
                digits[count++] = "0123456789abcdef"[value % base];
                value /= base;
        } while (value);
        while (width > count) {
                serial_put('0');
                width--;
        }
        while (count)
                serial_put(digits[--count]);
}

void print(const char *format, ...)
{
        __builtin_va_list arguments;
        __builtin_va_start(arguments, format);
        for (; *format; format++) {
                u32 width = 0;
                if (*format != '%') {
                        serial_put(*format);
                        continue;
                }
                for (format++; *format >= '0' && *format <= '9'; format++)
                        width = width * 10 + (u32)(*format - '0');
                switch (*format) {
                case 's':
                        for (const char *text = __builtin_va_arg(arguments, const char *); *text; text++)
                                serial_put(*text);
                        break;
                case 'c':
                        serial_put((char)__builtin_va_arg(arguments, int));
                        break;
                case 'd': {
                        i64 value = __builtin_va_arg(arguments, i64);
                        if (value < 0)
                                serial_put('-');
                        put_number(value < 0 ? -(u64)value : (u64)value, 10, width);
                        break;
                }
                case 'u':
                        put_number(__builtin_va_arg(arguments, u64), 10, width);
                        break;
                case 'x':
                        put_number(__builtin_va_arg(arguments, u64), 16, width);
                        break;
                default:
                        serial_put(*format);
                }
        }
        __builtin_va_end(arguments);
}

/* The text after `name=`, which must begin the line or follow a blank. */
static const char *find_option(const char *name)
{
        if (!(multiboot->flags & 4))
                return 0;
        const char *line = (const char *)(u64)multiboot->cmdline;
        for (const char *at = line; *at; at++) {
                u64 n = 0;
                if (at != line && at[-1] != ' ')
                        continue;
                while (name[n] && at[n] == name[n])
                        n++;
                if (!name[n] && at[n] == '=')
                        return at + n + 1;
        }
        return 0;
}

u64 option(const char *name, u64 fallback)
{
        const char *text = find_option(name);
        u64 value = 0, base = 10;
        if (!text)
                return fallback;
        if (text[0] == '0' && text[1] == 'x') {
                base = 16;
                text += 2;
        }
        for (;; text++) {
                char c = *text;
                if (c >= '0' && c <= '9')
                        value = value * base + (u64)(c - '0');
                else if (base == 16 && c >= 'a' && c <= 'f')
                        value = value * base + (u64)(c - 'a' + 10);
                else
                        return value;
        }
}

const char *option_text(const char *name, const char *fallback, char *buffer, u64 size)
{
        const char *text = find_option(name);
        u64 n = 0;
        if (!text)
                return fallback;
        for (; n + 1 < size && text[n] && text[n] != ' '; n++)
                buffer[n] = text[n];
        buffer[n] = 0;
        return buffer;
}

void trap_set(u32 vector, trap_handler *handler) { handlers[vector] = handler; }

/* Called by trap.S with the frame on the stack of the trap. */
void trap(struct trap_frame *frame)
{
        if (handlers[frame->vector]) {
                handlers[frame->vector](frame);
                return;
        }
        print("unexpected trap %u, error %x, cs:rip %x:%x, rflags %x, ss:rsp %x:%x, cr2 %x\n", frame->vector, frame->error,
              frame->cs, frame->rip, frame->rflags, frame->ss, frame->rsp, read_cr2());
        guest_exit(127);
}

/* Writes the TSS descriptor and loads TR. */
void tss_descriptor(u32 limit)
{
        u64 base = (u64)&tss;
        gdt[SEL_TSS / 8] = (base & 0xffffff) << 16 | (base >> 24 & 0xff) << 56 | 0x0000890000000000 | limit;
        gdt[SEL_TSS / 8 + 1] = base >> 32;
        __asm__ volatile("ltr %w0" ::"r"(SEL_TSS));
}

static void traps_init(void)
{
        struct table_pointer pointer = {sizeof idt - 1, (u64)idt};
        for (u32 vector = 0; vector < IDT_GATES; vector++) {
                u64 stub = (u64)trap_stubs + vector * 16;
                idt[vector] = (struct idt_gate){(u16)stub, SEL_CODE64, 0, 0x8e, (u16)(stub >> 16), (u32)(stub >> 32), 0};
        }
        idt[8].ist = 1;         /* #DF comes when the stack may be unusable */
        tss.ist[0] = (u64)interrupt_stack + sizeof interrupt_stack / 2;
        tss.rsp[0] = (u64)interrupt_stack + sizeof interrupt_stack;
        tss.io_map = __builtin_offsetof(struct tss64, io_bits);
        memset(tss.io_bits, 0xff, sizeof tss.io_bits);
        tss_descriptor(sizeof tss - 1);
        __asm__ volatile("lidt %0" ::"m"(pointer));
}

void guest_start(u32 info)
{
        multiboot = (struct multiboot_info *)(u64)info;
        serial_init();
        traps_init();
        guest_exit((u32)guest_main());
}

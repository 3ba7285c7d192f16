/*
 * pic-pit: the devices of a PC before APIC: two 8259s, the 8254, the MC146818
 * clock, and a UART driven by interrupts.
 * Proves: ICW and OCW, masks, IRR and ISR, EOI of each kind, rotation, cascade,
 * poll; counter modes 0, 2, 3, latch and read back, gate and output of port 61h;
 * HLT woken by IRQ 0; RTC registers, update and periodic interrupt (IRQ 8);
 * loopback, scratch, interrupt identification and transmit interrupt (IRQ 4).
 * Prints only what does not depend on the speed of the machine.
 * Options: ticks=N of IRQ 0 (20); strict=1 adds that a low gate stops a counter.
 */
#include "lib/guest.h"

#define MASTER 0x20
#define SLAVE 0xa0
#define IRQ_BASE 0x20
#define PIT 0x40
#define UART 0x3f8

static volatile u32 irq_counts[16], uart_sent;
static volatile u8 last_in_service, uart_identity;
static const char *volatile uart_text;
static volatile int uart_done;
static u32 checks, first_failed;
static int strict;

static void verdict(const char *text, int good)
{
        checks++;
        if (!good && !first_failed)
                first_failed = checks;
        print("%s %s\n", good ? "ok  " : "FAIL", text);
}

static u8 pic_read(u16 pic, u8 what)    /* 0Ah: IRR, 0Bh: ISR */
{
        out8(pic, what);
        return in8(pic);
}

static u8 cmos(u8 index)
{
        out8(0x70, index);
        return in8(0x71);
}

static void cmos_write(u8 index, u8 value)
{
        out8(0x70, index);
        out8(0x71, value);
}

static void on_irq(struct trap_frame *frame)
{
        u32 irq = (u32)frame->vector - IRQ_BASE;
        irq_counts[irq]++;
        last_in_service = pic_read(irq < 8 ? MASTER : SLAVE, 0x0b);
        if (irq == 8)
                cmos(0x0c);     /* lowers the line */
        if (irq == 4) {
                uart_identity = in8(UART + 2);
                if (*uart_text) {
                        out8(UART, (u8)*uart_text++);
                        uart_sent++;
                } else {
                        out8(UART + 1, 0);
                        uart_done = 1;
                }
        }
        if (irq >= 8)
                out8(SLAVE, 0x60 | (irq & 7));  /* specific EOI, then the cascade */
        out8(MASTER, irq >= 8 ? 0x62 : 0x20);
}

static void pic_start(void)
{
        for (u32 irq = 0; irq < 16; irq++)
                trap_set(IRQ_BASE + irq, on_irq);
        out8(MASTER, 0x11);
        out8(SLAVE, 0x11);
        out8(MASTER + 1, IRQ_BASE);
        out8(SLAVE + 1, IRQ_BASE + 8);
        out8(MASTER + 1, 4);
        out8(SLAVE + 1, 2);
        out8(MASTER + 1, 1);
        out8(SLAVE + 1, 1);
        out8(MASTER + 1, 0xff);
        out8(SLAVE + 1, 0xff);
        verdict("PIC masks read back", in8(MASTER + 1) == 0xff && in8(SLAVE + 1) == 0xff);
        verdict("PIC nothing in service", pic_read(MASTER, 0x0b) == 0 && pic_read(SLAVE, 0x0b) == 0);
}

static void pit_start(u8 counter, u8 mode, u16 count)
{
        out8(PIT + 3, (u8)(counter << 6 | 0x30 | mode << 1));
        out8(PIT + counter, (u8)count);
        out8(PIT + counter, (u8)(count >> 8));
}

static u16 pit_latched(u8 counter)
{
        out8(PIT + 3, (u8)(counter << 6));
        u16 low = in8(PIT + counter);
        return (u16)(low | in8(PIT + counter) << 8);
}

static u8 pit_status(u8 counter)
{
        out8(PIT + 3, (u8)(0xe0 | 2 << counter));
        return in8(PIT + counter);
}

static void pit(u64 ticks)
{
        u16 first, second;
        pit_start(0, 2, 10000);
        verdict("PIT status: mode 2, both bytes, binary", (pit_status(0) & 0x3f) == 0x34);
        pit_start(0, 3, 10000);
        verdict("PIT status: mode 3", (pit_status(0) & 0x3f) == 0x36);

        out8(0x61, (u8)(in8(0x61) & ~3));       /* gate of counter 2 low, no sound */
        pit_start(2, 0, 5000);
        verdict("PIT mode 0: output low after the control word", !(in8(0x61) & 0x20));
        for (u32 n = 0; n < 100; n++)
                in8(0x61);
        first = pit_latched(2);
        for (u32 n = 0; n < 100; n++)
                in8(0x61);
        if (strict)
                verdict("PIT gate low: the counter stands", first == pit_latched(2));
        out8(0x61, (u8)((in8(0x61) & ~3) | 1));
        while (!(in8(0x61) & 0x20))
                ;
        verdict("PIT mode 0: output rises at the end", 1);
        second = pit_latched(2);
        verdict("PIT mode 0: counts on below zero", second > 5000 || second == 0);
        verdict("PIT status shows the output", pit_status(2) & 0x80);
        out8(0x61, (u8)(in8(0x61) & ~1));

        pit_start(0, 2, 10000);
        out8(MASTER + 1, 0xfe);
        while (irq_counts[0] < ticks)
                wait_for_interrupt();
        out8(MASTER + 1, 0xff);
        print("IRQ 0 came %u times\n", ticks);
        verdict("PIC: IRQ 0 was in service in its handler", last_in_service == 1);
        verdict("PIC: EOI ended it", pic_read(MASTER, 0x0b) == 0);

        while (!(pic_read(MASTER, 0x0a) & 1))
                ;
        verdict("PIC: a masked IRQ 0 waits in the IRR", pic_read(MASTER, 0x0b) == 0);
        /* output of mode 0 stays high until the next count: the request stays too */
        pit_start(0, 0, 2);
        while (!(pit_status(0) & 0x80))
                ;
        u32 before = irq_counts[0];
        out8(MASTER + 1, 0xfe);
        wait_for_interrupt();
        sti();
        for (u32 n = 0; n < 100; n++)
                in8(0x61);
        cli();
        verdict("PIT mode 0: one interrupt", irq_counts[0] == before + 1);

        /* poll instead of an interrupt cycle */
        pit_start(0, 0, 2);
        while (!(pic_read(MASTER, 0x0a) & 1))
                ;
        out8(MASTER, 0x0c);
        u8 polled = in8(MASTER);
        verdict("PIC poll: IRQ 0", polled == 0x80);
        verdict("PIC poll puts it in service", pic_read(MASTER, 0x0b) == 1);
        out8(MASTER, 0x60);
        verdict("PIC specific EOI", pic_read(MASTER, 0x0b) == 0);
        out8(MASTER + 1, 0xff);
}

static void rtc(void)
{
        u8 b = cmos(0x0b), seconds, minutes;
        verdict("RTC register D: valid", cmos(0x0d) == 0x80);
        verdict("RTC register A: 32768 Hz divider", (cmos(0x0a) & 0x70) == 0x20);
        cmos_write(0x0b, (u8)(b & ~0x70));
        do {
                while (cmos(0x0a) & 0x80)
                        ;
                seconds = cmos(0);
                minutes = cmos(2);
        } while (seconds != cmos(0) || minutes != cmos(2));
        u32 limit = b & 4 ? 60 : 0x60;  /* binary or BCD */
        verdict("RTC seconds and minutes", seconds < limit && minutes < limit && (b & 4 || ((seconds & 15) < 10 && (minutes & 15) < 10)));
        cmos_write(0x40, 0xa5);
        verdict("CMOS memory keeps a byte", cmos(0x40) == 0xa5);

        cmos_write(0x0a, 0x26);         /* 1024 Hz */
        cmos_write(0x0b, (u8)((b & ~0x70) | 0x40));
        cmos(0x0c);
        out8(MASTER + 1, 0xfb);
        out8(SLAVE + 1, 0xfe);
        while (irq_counts[8] < 5)
                wait_for_interrupt();
        out8(SLAVE + 1, 0xff);
        out8(MASTER + 1, 0xff);
        cmos_write(0x0b, (u8)(b & ~0x70));
        print("IRQ 8 came 5 times\n");
        verdict("PIC: IRQ 8 was in service on the slave", last_in_service == 1);
        verdict("PIC: both ended", pic_read(MASTER, 0x0b) == 0 && pic_read(SLAVE, 0x0b) == 0);
}

static void uart(void)
{
        out8(UART + 7, 0x5a);
        verdict("UART scratch register", in8(UART + 7) == 0x5a);
        out8(UART + 3, 0x83);
        u16 divisor = (u16)(in8(UART) | in8(UART + 1) << 8);
        out8(UART + 3, 0x03);
        verdict("UART divisor reads back", divisor == 1);
        while (!(in8(UART + 5) & 0x40))
                ;
        out8(UART + 4, 0x1a);           /* loopback, OUT2, RTS */
        out8(UART, 'L');
        while (!(in8(UART + 5) & 1))
                ;
        u8 looped = in8(UART), modem = in8(UART + 6);
        out8(UART + 4, 0x0b);
        verdict("UART loopback: byte", looped == 'L');
        verdict("UART loopback: OUT2 is DCD, RTS is CTS", (modem & 0xf0) == 0x90);
        verdict("UART no interrupt pending", (in8(UART + 2) & 1) == 1);

        uart_text = "this line was sent by IRQ 4\n";
        out8(MASTER + 1, 0xef);
        out8(UART + 1, 2);              /* transmitter empty: comes at once */
        while (!uart_done)              /* the last one finds nothing more to send */
                wait_for_interrupt();
        out8(MASTER + 1, 0xff);
        while (!(in8(UART + 5) & 0x40))
                ;
        verdict("UART identified the transmit interrupt", (uart_identity & 0x0f) == 2);
        print("IRQ 4 came %u times for %u characters\n", (u64)irq_counts[4], (u64)uart_sent);
}

int guest_main(void)
{
        strict = option("strict", 0) != 0;
        pic_start();
        pit(option("ticks", 20));
        rtc();
        uart();
        u32 others = 0;
        for (u32 irq = 0; irq < 16; irq++)
                if (irq != 0 && irq != 4 && irq != 8)
                        others += irq_counts[irq];
        verdict("no other interrupt came", others == 0);
        print("%u checks\n", (u64)checks);
        return (int)first_failed;
}

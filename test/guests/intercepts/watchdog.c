/*
 * A watchdog for L2: channel 0 of the 8254 counts once to its end and then raises an NMI through the I/O APIC, which is
 * intercepted in every trial. An instruction that begins anew for ever, or a wait that nothing ends, becomes a check that
 * fails.
 */
#include "intercepts.h"

#define PIT_CHANNEL0 0x40
#define PIT_MODE 0x43
#define ONE_SHOT 0x30           /* channel 0, both bytes, mode 0: it counts when both have been written */
#define LONGEST 0               /* 65536 ticks, 55 milliseconds */

#define IO_APIC(offset) (*(volatile u32 *)(0xfec00000ul + (offset)))
#define SELECT 0x00
#define DATA_REGISTER 0x10
#define TIMER_PIN 2
#define REDIRECTION(pin) (0x10 + 2 * (pin))
#define DELIVER_NMI 0x400
#define DESTINATION_SHIFT 24

void watchdog_prepare(u32 apic_id)
{
        IO_APIC(SELECT) = REDIRECTION(TIMER_PIN) + 1;
        IO_APIC(DATA_REGISTER) = apic_id << DESTINATION_SHIFT;
        IO_APIC(SELECT) = REDIRECTION(TIMER_PIN);
        IO_APIC(DATA_REGISTER) = DELIVER_NMI;
}

void watchdog_start(void)
{
        out8(PIT_MODE, ONE_SHOT);
        out8(PIT_CHANNEL0, LONGEST & 0xff);
        out8(PIT_CHANNEL0, LONGEST >> 8);
}

/* A new mode stops the count, and it is not begun again. */
void watchdog_stop(void) { out8(PIT_MODE, ONE_SHOT); }

/*
 * Selectors of the table `gdt` in start.S, for C and assembly alike. The order
 * of the three user segments is what SYSRET wants: 32-bit code, stack, 64-bit
 * code (APM vol.2 §6.1.1 SYSCALL and SYSRET).
 */
#ifndef SELECTORS_H
#define SELECTORS_H

#define SEL_CODE64      0x08
#define SEL_DATA        0x10
#define SEL_USER_CODE32 0x1b
#define SEL_USER_DATA   0x23
#define SEL_USER_CODE64 0x2b
#define SEL_CODE32      0x30
#define SEL_CODE16      0x38
#define SEL_DATA16      0x40
#define SEL_TSS         0x48    /* two slots */
#define SEL_SPARE       0x58    /* first slot that a guest may use as it likes */
#define GDT_SLOTS       32

#endif

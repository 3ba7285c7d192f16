/*
 * realmode: from long mode to real mode and back, with a list of checks between.
 * Proves: leaving long mode, 16-bit protected mode, the real-mode IVT (INT n,
 * faults, traps, single step), far calls, segment arithmetic up to FFFF:FFFF,
 * 16-bit and 32-bit operands and addresses, string instructions, the stack.
 * Option: strict=1 adds the 64 KiB segment limits, which not every emulator checks.
 */
#include "lib/guest.h"

#define SEGMENT_BASE 0x10000ul
#define LAST_STEP_BASE 0xf000ul

struct image { u16 jump, pad; u32 return_offset; u16 return_selector, strict, length; u8 results[128]; } __attribute__((packed));

extern char real_mode_image[], real_mode_image_end[], last_step[], last_step_end[], real_mode_return[];
void real_mode_run(void);

static const char *const names[] = {
        "CR0.PE is clear", "SMSW agrees",
        "INT n reaches its handler", "IRET restores SP", "INT n saves IP", "INT n saves CS", "INT n saves FLAGS",
        "INT n clears IF and TF", "IRET restores IF",
        "#DE saves the IP of DIV", "#UD saves the IP of UD2", "#BR saves the IP of BOUND", "#OF saves the IP after INTO",
        "#BP saves the IP after INT3", "#DB after each of four instructions",
        "far CALL", "far CALL by another segment base", "far CALL through memory, RET n", "the stack is level",
        "near CALL by register", "far RET to pushed CS:IP",
        "one byte, two segments", "FFFF:0010 is 1 MiB", "segments overlap by 16 bytes", "LES segment", "LES offset", "ES:(DI)",
        "BP+SI addresses SS", "BX+DI addresses DS", "EAX+ECX*2 in 16-bit code", "BX + displacement wraps", "XLAT",
        "REP MOVSW", "REP MOVSW leaves DI", "REP STOSD", "REPNE SCASB leaves CX", "REPE CMPSB leaves CX", "LODSW backwards",
        "REP MOVSB with ECX", "STOSB wraps DI", "STOSB at FFFFh",
        "MUL of 32 bits", "MOVSX to 32 bits", "LOOP counts CX", "JCXZ looks at CX", "LOOP counts ECX", "PUSH of 32 bits",
        "PUSH SP pushes the old value", "PUSHA and POPA", "ENTER and LEAVE", "PUSHFD", "SAHF and LAHF", "CWD", "IMUL", "IDIV truncates",
        "SIDT limit",
        "#GP word at FFFFh", "#GP byte at 10000h", "#SS stack word at FFFFh", "vectors 13, 13, 12",
};

int guest_main(void)
{
        struct image *image = (struct image *)SEGMENT_BASE;
        int first_failed = 0, strict = option("strict", 0) != 0;        /* before the copy: the command line may lie there */
        u64 length = (u64)(real_mode_image_end - real_mode_image);
        out8(0x21, 0xff);       /* the firmware may have left the PICs open */
        out8(0xa1, 0xff);
        memcpy(image, real_mode_image, length);
        image->return_offset = (u32)(u64)real_mode_return;
        image->return_selector = SEL_CODE32;
        image->strict = (u16)strict;
        memcpy((void *)LAST_STEP_BASE, last_step, (u64)(last_step_end - last_step));
        gdt[SEL_SPARE / 8] = 0x00009b000000ffff | LAST_STEP_BASE << 16;

        real_mode_run();

        u64 expected = ARRAY_LENGTH(names) - (strict ? 0 : 4);
        if (image->length != expected) {
                print("FAIL real mode ended with %u of %u results\n", (u64)image->length, expected);
                return 125;
        }
        for (u32 i = 0; i < expected; i++) {
                print("%s %s\n", image->results[i] ? "ok  " : "FAIL", names[i]);
                if (!image->results[i] && !first_failed)
                        first_failed = (int)i + 1;
        }
        print("%u checks, back in long mode\n", expected);
        return first_failed;
}

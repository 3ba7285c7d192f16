/*
 * IOIO_PROT and MSR_PROT: ports and MSRs by their maps. An access that its map lets pass is none that is intercepted.
 * Source: APM vol.2 §15.10 IOIO Intercepts, §15.11 MSR Intercepts, §12.2.4 I/O-Permission Bitmap.
 */
#include "intercepts.h"

#define PORT 0x500ul            /* nothing answers there */
#define LOW_PORT 0x80ul         /* POST codes; within the bitmaps of L2's tasks */

INSTRUCTION(in8_, "inb %dx, %al");
INSTRUCTION(in16_, "inw %dx, %ax");
INSTRUCTION(in32_, "inl %dx, %eax");
INSTRUCTION(out8_, "outb %al, %dx");
INSTRUCTION(out16_, "outw %ax, %dx");
INSTRUCTION(out32_, "outl %eax, %dx");
INSTRUCTION(in8_immediate, "inb $0x80, %al");
INSTRUCTION(in32_immediate, "inl $0x80, %eax");
INSTRUCTION(out8_immediate, "outb %al, $0x80");
INSTRUCTION(insb, "insb");
INSTRUCTION(insw, "insw");
INSTRUCTION(insl, "insl");
INSTRUCTION(outsb, "outsb");
INSTRUCTION(outsw, "outsw");
INSTRUCTION(outsl, "outsl");
INSTRUCTION(rep_insb, "rep insb");
INSTRUCTION(rep_outsl, "rep outsl");
INSTRUCTION(outsb_32, "addr32 outsb");
INSTRUCTION(outsb_fs, "outsb %fs:(%rsi), %dx");
INSTRUCTION32(outsb_16, "addr16 outsb");
INSTRUCTION16(in8_v86, "inb %dx, %al");

/* EXITINFO1 (figure 15-2). Address size and segment count for strings alone. */
#define IS_IN 1
#define IS_STRING 4
#define IS_REP 8
#define SIZE(bytes) ((bytes) << 4)
#define A16 0x80
#define A32 0x100
#define A64 0x200
#define SEG(number) ((number) << 10)
#define SEG_ES SEG(0)
#define SEG_DS SEG(3)
#define SEG_FS SEG(4)
#define AT(port) ((u64)(port) << 16)
#define NOT_STRING 0xffff007ful

static void map_port(u64 port) { iopm[port / 8] |= 1 << port % 8; }

static u64 port_of(const struct trial *trial) { return trial->info1 >> 16; }
static u64 size_of(const struct trial *trial) { return trial->info1 >> 4 & 7; }

/* Which bits of the map are set, by the first port of the access. */
static void map_first(const struct trial *trial, int on)
{
        (void)on;
        map_port(port_of(trial));
}

static void map_second(const struct trial *trial, int on)
{
        (void)on;
        map_port(port_of(trial) + 1);
}

static void map_last(const struct trial *trial, int on)
{
        (void)on;
        map_port(port_of(trial) + size_of(trial) - 1);
}

static void map_neighbours(const struct trial *trial, int on)
{
        (void)on;
        map_port(port_of(trial) - 1);
        map_port(port_of(trial) + size_of(trial));
}

static void map_port_0(const struct trial *trial, int on)
{
        (void)trial;
        (void)on;
        map_port(0);
}

static void map_with_offset(const struct trial *trial, int on)
{
        (void)on;
        map_port(port_of(trial));
        VMCB64(vmcb, IOPM_BASE_PA) |= 0xabc;
}

static void map_and_allow(const struct trial *trial, int on)
{
        (void)on;
        map_port(LOW_PORT);
        memset(l2_tss64.io_bits, 0, sizeof l2_tss64.io_bits - 1);
        memset(l2_tss32.io_bits, 0, sizeof l2_tss32.io_bits - 1);
        (void)trial;
}

static void map_and_allow_first(const struct trial *trial, int on)
{
        map_and_allow(trial, on);
        l2_tss64.io_bits[LOW_PORT / 8] = 0xfe;
}

#define IO(it, bits, ...)                                                                                  \
        {&it, 0, KERNEL64, .rdx = PORT, .rcx = 2, .rbx = GOOD, .info1 = AT(PORT) | (bits), .prepare = map_first, \
         .flags = INFO1 | INFO2_NEXT | SEGMENT_ASSIST, __VA_ARGS__}
#define IN_OUT(it, bits, ...) IO(it, bits, .mask = NOT_STRING, __VA_ARGS__)

static const struct trial io_trials[] = {
        IN_OUT(in8_, IS_IN | SIZE(1)),
        IN_OUT(in16_, IS_IN | SIZE(2)),
        IN_OUT(in32_, IS_IN | SIZE(4)),
        IN_OUT(out8_, SIZE(1)),
        IN_OUT(out16_, SIZE(2)),
        IN_OUT(out32_, SIZE(4)),
        IN_OUT(in8_immediate, IS_IN | SIZE(1), .info1 = AT(0x80) | IS_IN | SIZE(1)),
        IN_OUT(in32_immediate, IS_IN | SIZE(4), .info1 = AT(0x80) | IS_IN | SIZE(4)),
        IN_OUT(out8_immediate, SIZE(1), .info1 = AT(0x80) | SIZE(1)),
        IO(insb, IS_IN | IS_STRING | SIZE(1) | A64 | SEG_ES),
        IO(insw, IS_IN | IS_STRING | SIZE(2) | A64 | SEG_ES),
        IO(insl, IS_IN | IS_STRING | SIZE(4) | A64 | SEG_ES),
        IO(outsb, IS_STRING | SIZE(1) | A64 | SEG_DS),
        IO(outsw, IS_STRING | SIZE(2) | A64 | SEG_DS),
        IO(outsl, IS_STRING | SIZE(4) | A64 | SEG_DS),
        IO(rep_insb, IS_IN | IS_STRING | IS_REP | SIZE(1) | A64 | SEG_ES),
        IO(rep_outsl, IS_STRING | IS_REP | SIZE(4) | A64 | SEG_DS),
        IO(outsb_32, IS_STRING | SIZE(1) | A32 | SEG_DS, .rbx = DATA),
        IO(outsb_fs, IS_STRING | SIZE(1) | A64 | SEG_FS),
        IO(outsb_16, IS_STRING | SIZE(1) | A16 | SEG_DS, .mode = KERNEL32, .rbx = 0x600),

        /* each bit of the access counts, and no other */
        IN_OUT(in16_, IS_IN | SIZE(2), .when = "the map has the second port", .prepare = map_second),
        IN_OUT(in32_, IS_IN | SIZE(4), .when = "the map has the second port", .prepare = map_second),
        IN_OUT(in32_, IS_IN | SIZE(4), .when = "the map has the last port", .prepare = map_last),
        IN_OUT(out32_, SIZE(4), .when = "the map has the last port", .prepare = map_last),
        IO(outsl, IS_STRING | SIZE(4) | A64 | SEG_DS, .when = "the map has the last port", .prepare = map_last),
        IN_OUT(in32_, IS_IN | SIZE(4), .when = "across a byte of the map, which has the last port", .rdx = 0x506,
               .info1 = AT(0x506) | IS_IN | SIZE(4), .prepare = map_last),
        IN_OUT(in32_, IS_IN | SIZE(4), .when = "the map has the neighbours", .on = COMPLETES, .prepare = map_neighbours),
        IN_OUT(out8_, SIZE(1), .when = "the map has the neighbours", .on = COMPLETES, .prepare = map_neighbours),
        IN_OUT(in8_, IS_IN | SIZE(1), .when = "the map is empty", .on = COMPLETES, .prepare = 0),
        IN_OUT(in8_, IS_IN | SIZE(1), .when = "low bits set in the base of the map", .prepare = map_with_offset),
        IN_OUT(in8_, IS_IN | SIZE(1), .when = "the last port", .rdx = 0xffff, .info1 = AT(0xffff) | IS_IN | SIZE(1)),
        IN_OUT(in16_, IS_IN | SIZE(2), .when = "the last port, the map has the bit behind", .rdx = 0xffff,
               .info1 = AT(0xffff) | IS_IN | SIZE(2), .prepare = map_second),
        IN_OUT(in32_, IS_IN | SIZE(4), .when = "the last port, the map has the third bit behind", .rdx = 0xffff,
               .info1 = AT(0xffff) | IS_IN | SIZE(4), .prepare = map_last),
        IN_OUT(in32_, IS_IN | SIZE(4), .when = "the last port, the map has port 0", .on = COMPLETES, .rdx = 0xffff,
               .info1 = AT(0xffff) | IS_IN | SIZE(4), .prepare = map_port_0),

        /* IOPL and the bitmap of the task come first */
        IN_OUT(in8_, IS_IN | SIZE(1), .when = "IOPL 3", .mode = USER64, .rflags = RFLAGS_IOPL),
        IN_OUT(in8_, IS_IN | SIZE(1), .when = "IOPL 0, past the bitmap", .mode = USER64, .fault = {PRIVILEGE, GP, 0}),
        IN_OUT(in8_immediate, IS_IN | SIZE(1), .when = "IOPL 0, the bitmap forbids", .mode = USER64,
               .info1 = AT(0x80) | IS_IN | SIZE(1), .fault = {PRIVILEGE, GP, 0}),
        IN_OUT(in8_immediate, IS_IN | SIZE(1), .when = "IOPL 0, the bitmap allows", .mode = USER64,
               .info1 = AT(0x80) | IS_IN | SIZE(1), .prepare = map_and_allow),
        IN_OUT(in32_immediate, IS_IN | SIZE(4), .when = "IOPL 0, the bitmap forbids the first port", .mode = USER64,
               .info1 = AT(0x80) | IS_IN | SIZE(4), .fault = {PRIVILEGE, GP, 0}, .prepare = map_and_allow_first),
        IN_OUT(in8_v86, IS_IN | SIZE(1), .when = "IOPL 3, the bitmap forbids", .mode = V86, .rflags = RFLAGS_IOPL,
               .fault = {PRIVILEGE, GP, 0}),
        IN_OUT(in8_v86, IS_IN | SIZE(1), .when = "IOPL 0, the bitmap allows", .mode = V86, .rdx = LOW_PORT,
               .info1 = AT(LOW_PORT) | IS_IN | SIZE(1), .prepare = map_and_allow),
        IO(outsb, IS_STRING | SIZE(1) | A64 | SEG_DS, .when = "IOPL 0, page absent", .mode = USER64, .rbx = ABSENT,
           .fault = {PRIVILEGE, GP, 0}),

        /* memory comes behind */
        IO(insb, IS_IN | IS_STRING | SIZE(1) | A64 | SEG_ES, .when = "page absent", .rbx = ABSENT, .fault = {OPERAND, PF, PF_WRITE}),
        IO(insb, IS_IN | IS_STRING | SIZE(1) | A64 | SEG_ES, .when = "page read-only", .rbx = READ_ONLY,
           .fault = {OPERAND, PF, PF_PRESENT | PF_WRITE}),
        IO(insl, IS_IN | IS_STRING | SIZE(4) | A64 | SEG_ES, .when = "IOPL 3, page of the supervisor", .mode = USER64,
           .rflags = RFLAGS_IOPL, .rbx = SUPERVISOR, .fault = {OPERAND, PF, PF_PRESENT | PF_WRITE | PF_USER}),
        IO(insb, IS_IN | IS_STRING | SIZE(1) | A64 | SEG_ES, .when = "not canonical", .rbx = NON_CANONICAL,
           .fault = {OPERAND, GP, 0}),
        IO(outsb, IS_STRING | SIZE(1) | A64 | SEG_DS, .when = "page absent", .rbx = ABSENT, .fault = {OPERAND, PF, 0}),
        IO(outsl, IS_STRING | SIZE(4) | A64 | SEG_DS, .when = "IOPL 3, page absent", .mode = USER64, .rflags = RFLAGS_IOPL,
           .rbx = ABSENT, .fault = {OPERAND, PF, PF_USER}),
        IO(rep_outsl, IS_STRING | IS_REP | SIZE(4) | A64 | SEG_DS, .when = "not canonical", .rbx = NON_CANONICAL,
           .fault = {OPERAND, GP, 0}),
};

INSTRUCTION(rdmsr_, "rdmsr");
INSTRUCTION(wrmsr_, "wrmsr");
INSTRUCTION16(rdmsr16, "rdmsr");

/* The two bits of an MSR: read, then write. */
static void map_msr(u64 msr, u8 bits)
{
        u64 range = msr >> 30 ? (msr & 0x10000 ? 0x1000 : 0x800) : 0;
        msrpm[range + (msr & 0x1fff) / 4] |= bits << (msr & 3) * 2;
}

static void map_read(const struct trial *trial, int on)
{
        (void)on;
        map_msr(trial->rcx, 1);
}

static void map_write(const struct trial *trial, int on)
{
        (void)on;
        map_msr(trial->rcx, 2);
}

static void map_others(const struct trial *trial, int on)
{
        u64 byte = (u64)msrpm, mine = 3 << (trial->rcx & 3) * 2;
        (void)on;
        memset((void *)byte, 0xff, sizeof msrpm);
        msrpm[(trial->rcx >> 30 ? (trial->rcx & 0x10000 ? 0x1000 : 0x800) : 0) + (trial->rcx & 0x1fff) / 4] &= (u8)~mine;
}

static void map_with_low_bits(const struct trial *trial, int on)
{
        map_read(trial, on);
        VMCB64(vmcb, MSRPM_BASE_PA) |= 0xfff;
}

static void own_efer(const struct trial *trial, int on)
{
        map_write(trial, on);
        VMCB64(vmcb, RAX) = VMCB64(vmcb, EFER);
}

#define UNKNOWN 0x1abcul        /* MSRs that no processor has */
#define UNKNOWN_HIGH 0xc0011abcul
#define READS .flags = INFO1, .info1 = 0
#define WRITES .flags = INFO1, .info1 = 1
/* Whether MSRs at the ends of the ranges exist is of no interest: they are tried with the intercept on alone. */
#define EDGE(number, bits) {&rdmsr_, number, KERNEL64, .off = NOT_RUN, .rcx = bits, READS, .prepare = map_read}
#define OUTSIDE(number, bits)                                                                              \
        {&rdmsr_, number ", outside the map", KERNEL64, .off = NOT_RUN, .rcx = bits, READS},               \
                {&wrmsr_, number ", outside the map", KERNEL64, .off = NOT_RUN, .rcx = bits, WRITES}

static const struct trial msr_trials[] = {
        {&rdmsr_, "EFER", KERNEL64, .rcx = MSR_EFER, READS, .prepare = map_read},
        {&wrmsr_, "EFER", KERNEL64, .rcx = MSR_EFER, WRITES, .prepare = own_efer},
        {&rdmsr16, "EFER", REAL, .rcx = MSR_EFER, READS, .prepare = map_read},
        {&rdmsr_, "EFER, bit for writes", KERNEL64, .on = COMPLETES, .rcx = MSR_EFER, .prepare = map_write},
        {&wrmsr_, "LSTAR, bit for reads", KERNEL64, .on = COMPLETES, .rcx = MSR_LSTAR, .prepare = map_read},
        {&rdmsr_, "EFER, all bits but its own", KERNEL64, .on = COMPLETES, .rcx = MSR_EFER, .prepare = map_others},
        {&wrmsr_, "LSTAR, all bits but its own", KERNEL64, .on = COMPLETES, .rcx = MSR_LSTAR, .prepare = map_others},
        {&rdmsr_, "EFER, low bits set in the base of the map", KERNEL64, .rcx = MSR_EFER, READS, .prepare = map_with_low_bits},
        {&rdmsr_, "EFER", USER64, {PRIVILEGE, GP, 0}, .rcx = MSR_EFER, .prepare = map_read},
        {&wrmsr_, "EFER", USER64, {PRIVILEGE, GP, 0}, .rcx = MSR_EFER, .prepare = map_write},
        {&rdmsr16, "EFER", V86, {PRIVILEGE, GP, 0}, .rcx = MSR_EFER, .prepare = map_read},
        {&rdmsr_, "FFFFFFFFh, outside the map", USER64, {PRIVILEGE, GP, 0}, .rcx = 0xffffffff},
        {&rdmsr_, "no such MSR", KERNEL64, {OPERAND, GP, 0}, .rcx = UNKNOWN, READS, .prepare = map_read},
        {&wrmsr_, "no such MSR", KERNEL64, {OPERAND, GP, 0}, .rcx = UNKNOWN_HIGH, WRITES, .prepare = map_write},
        {&rdmsr_, "no such MSR, bit for writes", KERNEL64, {OPERAND, GP, 0}, .on = FAULTS(GP), .rcx = UNKNOWN, .prepare = map_write},
        {&wrmsr_, "LSTAR, not canonical", KERNEL64, {OPERAND, GP, 0}, .rcx = MSR_LSTAR, .rdx = 0x9000, WRITES, .prepare = map_write},
        {&wrmsr_, "EFER, reserved bit", KERNEL64, {OPERAND, GP, 0}, .rcx = MSR_EFER, .rdx = 1u << 31, WRITES, .prepare = map_write},
        {&wrmsr_, "LSTAR, not canonical, bit for reads", KERNEL64, {OPERAND, GP, 0}, .on = FAULTS(GP), .rcx = MSR_LSTAR,
         .rdx = 0x9000, .prepare = map_read},
        EDGE("0", 0),
        EDGE("1FFFh", 0x1fff),
        EDGE("C0000000h", 0xc0000000),
        EDGE("C0001FFFh", 0xc0001fff),
        EDGE("C0010000h", 0xc0010000),
        EDGE("C0011FFFh", 0xc0011fff),
        OUTSIDE("2000h", 0x2000),
        OUTSIDE("BFFFFFFFh", 0xbfffffff),
        OUTSIDE("C0002000h", 0xc0002000),
        OUTSIDE("C000FFFFh", 0xc000ffff),
        OUTSIDE("C0012000h", 0xc0012000),
        OUTSIDE("FFFFFFFFh", 0xffffffff),
};

/* The write has happened when the exit comes; what is refused does not get there. */
static void value_of_efer(const struct trial *trial, int on)
{
        (void)trial;
        (void)on;
        VMCB64(vmcb, RAX) = VMCB64(vmcb, EFER) ^ EFER_SCE;
}

static const char *efer_is_written(const struct trial *trial, int on)
{
        u64 value = rdmsr(MSR_EFER) ^ EFER_SCE;
        (void)trial;
        if (VMCB64(vmcb, EFER) != value)
                return "EFER has not the value written";
        return on && VMCB64(vmcb, EXITINFO1) != value ? "EXITINFO1 is not the value written" : 0;
}

static const struct trial efer_trials[] = {
        {&wrmsr_, "EFER", KERNEL64, .on = EXITS_AFTER, .rcx = MSR_EFER, .flags = COMMITS | NO_NEXT_RIP, .prepare = value_of_efer,
         .inspect = efer_is_written},
        {&wrmsr_, "LSTAR", KERNEL64, .on = COMPLETES, .rcx = MSR_LSTAR},
        {&wrmsr_, "EFER", USER64, {PRIVILEGE, GP, 0}, .rcx = MSR_EFER, .prepare = value_of_efer},
        {&wrmsr_, "EFER, reserved bit", KERNEL64, {OPERAND, GP, 0}, .rcx = MSR_EFER, .rdx = 1u << 31, .prepare = value_of_efer},
};

static const struct row table[] = {
        {"IOIO_PROT", VMCB_INTERCEPT_3, INTERCEPT3_IOIO, 0x7b, AFTER_PRIVILEGE, 0, ALWAYS, TRIALS(io_trials)},
        {"MSR_PROT", VMCB_INTERCEPT_3, INTERCEPT3_MSR, 0x7c, AFTER_PRIVILEGE, 0, ALWAYS, TRIALS(msr_trials)},
        {"EFER_WRITE_TRAP", VMCB_INTERCEPT_4, 15, 0x8f, AFTER_MEMORY, 1, ALWAYS, TRIALS(efer_trials)},
};

void check_permission_maps(void) { check_rows(table, ARRAY_LENGTH(table)); }

/*
 * selfmod: code that writes code. A compiler of small programs into functions that are called and overwritten; functions
 * whose immediates are patched, also from within and just ahead of the instruction pointer; a hot loop that becomes
 * another one; code that moves; code beside the data that it writes; instructions that cross pages, patched in either;
 * patches through another linear address. What the code gives is computed by plain C as well.
 * Prints a checksum of each part. Options: scale=N (1), how often all of it runs; divide=N (1), the Nth part of the work;
 * only=N, the Nth of the parts alone.
 */
#include "lib/emit.h"

#define CODE 65536
#define STEPS 24

typedef u64 function(u64 argument, u64 count);

static u8 code[CODE] PAGE_ALIGNED, page[3 * 4096] PAGE_ALIGNED, moved[2 * 4096] PAGE_ALIGNED;
static u64 aliases;

static u64 choice_state;
static u32 choose(u32 limit)
{
        choice_state = choice_state * 6364136223846793005 + 1442695040888963407;
        return (u32)((choice_state >> 32) * limit >> 32);
}

static u64 call(const u8 *at, u64 argument, u64 count)
{
        __asm__ volatile("" ::: "memory");
        return ((function *)(u64)at)(argument, count);
}

static u64 rotate(u64 value, u32 count) { return value << count | value >> (64 - count); }

/* A program: steps on an accumulator that begins as the argument, 32-bit numbers sign-extended. */
enum { ADD, SUBTRACT, XOR, MULTIPLY, ROTATE, ADD_ARGUMENT, DOUBLE_IF_ODD, KINDS };
struct step { u32 kind, number; };

static u64 interpret(const struct step *steps, u32 n, u64 argument)
{
        u64 value = argument;
        for (const struct step *step = steps; step < steps + n; step++) {
                u64 number = (u64)(i64)(int)step->number;
                switch (step->kind) {
                case ADD: value += number; break;
                case SUBTRACT: value -= number; break;
                case XOR: value ^= number; break;
                case MULTIPLY: value *= number; break;
                case ROTATE: value = rotate(value, (step->number & 31) | 1); break;
                case ADD_ARGUMENT: value += argument; break;
                case DOUBLE_IF_ODD: value <<= value & 1;
                }
        }
        return value;
}

static u8 *compile(u8 *at, const struct step *steps, u32 n)
{
        at = emit_rr(at, 0x89, RDI, RAX);
        for (const struct step *step = steps; step < steps + n; step++)
                switch (step->kind) {
                case ADD: at = emit_ri(at, 0x81, 0, RAX, step->number); break;
                case SUBTRACT: at = emit_ri(at, 0x81, 5, RAX, step->number); break;
                case XOR: at = emit_ri(at, 0x81, 6, RAX, step->number); break;
                case MULTIPLY: at = emit_ri(at, 0x69, RAX, RAX, step->number); break;
                case ROTATE: at = emit_ri8(at, 0xc1, 0, RAX, (step->number & 31) | 1); break;
                case ADD_ARGUMENT: at = emit_rr(at, 0x01, RDI, RAX); break;
                case DOUBLE_IF_ODD:
                        at = emit8(emit8(at, 0xa8), 1);         /* TEST AL, 1 */
                        at = emit8(emit8(at, 0x74), 3);         /* JZ */
                        at = emit_rr(at, 0x01, RAX, RAX);
                }
        return emit8(at, EMIT_RET);
}

/* Functions one behind the other, and from the beginning again when the room is used up. */
static u64 compiler(u64 divide)
{
        struct step steps[STEPS];
        u64 sum = 0;
        u8 *at = code;
        for (u32 n = (u32)(2000 / divide) + 20; n; n--) {
                u32 length = 4 + choose(STEPS - 4);
                const u8 *entry;
                if (at > code + CODE - STEPS * 8 - 16)
                        at = code;
                for (u32 each = 0; each < length; each++)
                        steps[each] = (struct step){choose(KINDS), choose(0xffffffff)};
                entry = at;
                at = compile(at, steps, length);
                for (u64 x = 0; x < 60; x++) {
                        u64 value = call(entry, x, 0);
                        if (value != interpret(steps, length, x))
                                guest_exit(2);
                        sum = rotate(sum, 5) ^ value;
                }
        }
        return sum;
}

/* Two immediates, 8 and 32 bits wide, written now and then, each time through the other address. */
static u64 patches(u64 divide)
{
        u8 *at = page, *wide, *narrow;
        u64 sum = 0, add = 0, rotation = 1;
        at = emit_rr(at, 0x89, RDI, RAX);
        at = emit_ri(at, 0x81, 0, RAX, 0);
        wide = at - 4;
        at = emit_ri8(at, 0xc1, 0, RAX, 1);
        narrow = at - 1;
        emit8(at, EMIT_RET);
        for (u64 n = 0; n < 80000 / divide; n++) {
                u64 value;
                if (n % 50 == 0) {
                        add = choose(1u << 30);
                        emit32(wide + (n % 100 ? aliases : 0), (u32)add);
                        if (n % 100)
                                cpuid(0, 0);    /* through another linear address: not seen for sure before a serializing instruction */
                }
                if (n % 70 == 0)
                        *narrow = (u8)(rotation = 1 + choose(60));
                value = call(page, n, 0);
                if (value != rotate(n + add, (u32)rotation))
                        guest_exit(3);
                sum += value;
        }
        return sum;
}

/* A loop that runs hot, and whose operation changes between calls. */
static u64 hot_loop(u64 divide)
{
        static const u8 operations[] = {0x01, 0x29, 0x31};      /* ADD, SUB, XOR */
        u8 *at = page, *start, *operation;
        u64 sum = 0;
        at = emit_rr(at, 0x31, RAX, RAX);
        start = at;
        operation = at + 1;
        at = emit_rr(at, 0x01, RDI, RAX);
        at = emit_ri8(at, 0xc1, 0, RAX, 3);
        at = emit_rr(at, 0xff, 1, RSI);         /* DEC */
        at = emit8(emit8(at, 0x75), (u32)(start - (at + 2)));   /* JNZ */
        emit8(at, EMIT_RET);
        for (u32 n = 0; n < 400 / divide + 6; n++) {
                u64 x = choose(0xffffffff), value = 0, turns = 5000 / (divide > 10 ? 10 : divide);
                *operation = operations[n % 3];
                for (u64 turn = 0; turn < turns; turn++)
                        value = rotate(n % 3 == 0 ? value + x : n % 3 == 1 ? value - x : value ^ x, 3);
                if (call(page, x, turns) != value)
                        guest_exit(4);
                sum = rotate(sum, 1) + value;
        }
        return sum;
}

/*
 * A loop that counts in the immediate of its own next instruction, and a function that writes its argument there, at all
 * offsets around the end of a page.
 */
static u64 within(u64 divide)
{
        u64 sum = 0;
        for (u32 place = 4096 - 20; place < 4096 + 4; place++) {
                u64 turns = 200 / (divide > 40 ? 40 : divide), value;
                u8 *at = page + place, *start;
                at = emit_rr(at, 0x31, RAX, RAX);
                start = at;
                at = emit32(emit8(emit8(at, 0xff), 0x05), 2);           /* INC dword [RIP + 2] */
                at = emit32(emit8(emit8(at, 0x48), 0x05), place);       /* ADD RAX, imm32 */
                at = emit_rr(at, 0xff, 1, RSI);
                at = emit8(emit8(at, 0x75), (u32)(start - (at + 2)));
                emit8(at, EMIT_RET);
                value = call(page + place, 0, turns);
                if (value != turns * place + turns * (turns + 1) / 2)
                        guest_exit(5);
                sum = rotate(sum, 3) + value;

                at = page + place;
                at = emit32(emit8(emit8(at, 0x89), 0x3d), 1);           /* MOV [RIP + 1], EDI */
                at = emit32(emit8(at, 0xb8), 0);                        /* MOV EAX, imm32 */
                emit8(at, EMIT_RET);
                for (u64 n = 0; n < turns; n++) {
                        value = call(page + place, n * 0x1234567, 0);
                        if (value != (u32)(n * 0x1234567))
                                guest_exit(6);
                        sum += value;
                }
        }
        return sum;
}

/* A string instruction that writes over what follows it: UD2 becomes NOP. */
static u64 string_ahead(u64 divide)
{
        u64 sum = 0;
        for (u64 n = 0; n < 100 / divide + 10; n++) {
                u32 traps = 1 + (u32)(n % 40);
                u8 *at = page + n * 37 % 8000, *start = at;
                at = emit_rr(at, 0x89, RDI, R8);
                at = emit32(emit8(at, 0xb9), 2 * traps);                /* MOV ECX */
                at = emit8(emit8(at, 0xb0), 0x90);                      /* MOV AL, NOP */
                at = emit32(emit8(emit8(emit8(at, 0x48), 0x8d), 0x3d), 2);      /* LEA RDI, [RIP + 2] */
                at = emit8(emit8(at, 0xf3), 0xaa);                      /* REP STOSB */
                for (u32 each = 0; each < traps; each++)
                        at = emit8(emit8(at, 0x0f), 0x0b);
                at = emit_rr(at, 0x89, R8, RAX);
                at = emit_rr(at, 0x01, RCX, RAX);
                emit8(at, EMIT_RET);
                sum = sum * 31 + call(start, n, 0);
                if (call(start, n + 1, 0) != n + 1)
                        guest_exit(7);
        }
        return sum;
}

/* A function with its counter and a table on its own page. */
static u64 beside_data(u64 divide)
{
        u64 sum = 0, *counter = (u64 *)(page + 2048), *table = (u64 *)(page + 1024);
        u8 *at = page;
        memset(page, 0, 4096);
        at = emit64(emit8(emit8(at, 0x49), 0xb8), (u64)counter);        /* MOV R8, imm64 */
        at = emit_rm(at, 0xff, 0, R8, 0);               /* INC qword [R8] */
        at = emit_rm(at, 0x8b, RAX, R8, 0);
        at = emit_rr(at, 0x01, RDI, RAX);
        at = emit_rm(at, 0x89, RAX, R8, (u32)-1024);
        emit8(at, EMIT_RET);
        for (u64 n = 1; n <= 60000 / divide; n++) {
                if (call(page, n * 3, 0) != n * 4 || *counter != n || *table != n * 4)
                        guest_exit(8);
                sum += *table;
        }
        return sum;
}

/* A function that is copied from place to place, called there, and wiped out behind. */
static u64 moving(u64 divide)
{
        u64 sum = 0, length;
        struct step steps[STEPS];
        for (u32 each = 0; each < STEPS; each++)
                steps[each] = (struct step){choose(KINDS), choose(0xffffffff)};
        length = (u64)(compile(page, steps, STEPS) - page);
        for (u64 n = 0; n < 3000 / divide; n++) {
                u8 *at = moved + n * 61 % (sizeof moved - 256);
                u64 value;
                memcpy(at, page, length);
                value = call(at, n, 0);
                if (value != interpret(steps, STEPS, n))
                        guest_exit(9);
                memset(at, 0xcc, length);
                sum = rotate(sum, 7) + value;
        }
        return sum;
}

int guest_main(void)
{
        static const struct { const char *name; u64 (*run)(u64 divide); } parts[] = {
                {"compiler", compiler},         {"patches", patches},         {"hot loop", hot_loop}, {"within", within},
                {"string ahead", string_ahead}, {"beside data", beside_data}, {"moving", moving},
        };
        u64 scale = option("scale", 1), divide = option("divide", 1), only = option("only", 0), sums[ARRAY_LENGTH(parts)] = {0};
        choice_state = 0x9e3779b97f4a7c15;
#ifndef HOST
        aliases = 1ul << 39;            /* the second half of a TiB shows the first */
        pml4[1] = pml4[0];
#endif
        for (u64 n = 0; n < scale; n++)
                for (u32 part = 0; part < ARRAY_LENGTH(parts); part++)
                        if (!only || only == part + 1)
                                sums[part] += parts[part].run(divide);
        for (u32 part = 0; part < ARRAY_LENGTH(parts); part++)
                print("%s %x\n", parts[part].name, sums[part]);
        return 0;
}

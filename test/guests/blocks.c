/*
 * blocks: cold code. Writes functions of 16 basic blocks each, 100,000 blocks that all differ, and runs them few times.
 * A block computes with registers and a table in memory, and ends with a branch to the next one, a branch that leaves one
 * out or not, a jump, a call or a return. Prints how many blocks there are, bytes of code, and a checksum of the results.
 * Options: scale=N (1), how often new blocks are written over the old and run; passes=N (8), how often all of them run;
 * divide=N (1), the Nth part of the blocks.
 */
#include "lib/emit.h"

#define BLOCKS 100000
#define BLOCKS_IN_FUNCTION 16
#define FUNCTIONS (BLOCKS / BLOCKS_IN_FUNCTION)
#define LONGEST_BLOCK 96
#define TABLE 8192      /* words */

typedef u64 function(u64 argument, u64 *table);

static u8 code[BLOCKS * 48 + LONGEST_BLOCK * BLOCKS_IN_FUNCTION] PAGE_ALIGNED;
static u32 entries[FUNCTIONS];
static u64 table[TABLE], blocks;

static u64 choice_state;
static u32 choose(u32 limit)
{
        choice_state = choice_state * 6364136223846793005 + 1442695040888963407;
        return (u32)((choice_state >> 32) * limit >> 32);
}

static const u8 registers[] = {RAX, RCX, RDX, R8, R9};
static u32 any(void) { return registers[choose(ARRAY_LENGTH(registers))]; }
static u32 place(void) { return choose(TABLE) * 8; }

static u8 *instruction(u8 *at)
{
        static const u8 plain[] = {0x01, 0x29, 0x31, 0x09, 0x89};       /* ADD, SUB, XOR, OR, MOV */
        u32 to = any();
        switch (choose(10)) {
        case 0: return emit_ri(at, 0xc7, 0, to, choose(1u << 31));              /* MOV immediate */
        case 1: return emit_ri(at, 0x81, choose(2) ? 0 : 6, to, choose(1u << 31));      /* ADD, XOR immediate */
        case 2: return emit_ri8(at, 0xc1, choose(2) ? 0 : 5, to, 1 + choose(60));       /* ROL, SHR */
        case 3: return emit_rm(at, 0x8b, to, RSI, place());                     /* MOV from memory */
        case 4: return emit_rm(at, 0x03, to, RSI, place());                     /* ADD from memory */
        case 5: return emit_rm(at, choose(2) ? 0x01 : 0x89, to, RSI, place());  /* ADD, MOV to memory */
        case 6: return emit_ri(at, 0x69, to, any(), choose(1000));              /* IMUL by an immediate */
        case 7: return emit_rm(at, 0x8d, to, any() & ~4u, choose(4096));        /* LEA */
        case 8: return emit_rr(at, 0xf7, choose(2) ? 2 : 3, to);                /* NOT, NEG */
        default: return emit_rr(at, plain[choose(ARRAY_LENGTH(plain))], any(), to);
        }
}

static u8 *body(u8 *at)
{
        for (u32 n = 2 + choose(7); n; n--)
                at = instruction(at);
        at = emit_rr(at, 0x01, any(), RAX);
        blocks++;
        return at;
}

/* CMP EAX with a number, and a condition: so far the branch goes nowhere. */
static u8 *condition(u8 *at)
{
        at = emit32(emit8(at, 0x3d), choose(1u << 31));
        at = emit8(at, 0x0f);
        return emit32(emit8(at, 0x82 + choose(14)), 0);
}

static void lead_to(u8 *behind, const u8 *target) { emit32(behind - 4, (u32)(target - behind)); }

/* A function, and behind it a small one that the next may call; `leaf` is the one before. */
static u8 *write_function(u8 *at, u8 **leaf)
{
        u8 *skip = 0;
        for (u32 n = 0; n < ARRAY_LENGTH(registers); n++)
                at = emit_rr(at, 0x89, RDI, registers[n]);
        for (u32 n = 0; n < BLOCKS_IN_FUNCTION - 1; n++) {
                u8 *behind;
                at = body(at);
                if (skip) {
                        lead_to(skip, at);
                        skip = 0;
                }
                switch (choose(5)) {
                case 0: /* over some bytes that are no code */
                        behind = at = emit32(emit8(at, EMIT_JMP), 0);
                        for (u32 pad = choose(12); pad; pad--)
                                at = emit8(at, 0xcc);
                        lead_to(behind, at);
                        break;
                case 1:
                        at = *leaf ? emit_branch(at, EMIT_CALL, *leaf) : condition(at);
                        break;
                case 2:
                        if (n + 2 < BLOCKS_IN_FUNCTION) {
                                skip = at = condition(at);
                                break;
                        }
                        __attribute__((fallthrough));
                default: at = condition(at);
                }
        }
        if (skip)
                lead_to(skip, at);
        at = emit8(at, EMIT_RET);
        *leaf = at;
        return emit8(body(at), EMIT_RET);
}

int guest_main(void)
{
        u64 scale = option("scale", 1), divide = option("divide", 1), passes = option("passes", 8), n = FUNCTIONS / divide, sum = 1, bytes = 0;
        choice_state = 0x9e3779b97f4a7c15;
        for (u64 word = 0; word < TABLE; word++)
                table[word] = word * word;
        for (u64 round = 0; round < scale; round++) {
                u8 *at = code, *leaf = 0;
                for (u64 each = 0; each < n; each++) {
                        entries[each] = (u32)(u64)at;
                        at = write_function(at, &leaf);
                        if (at > code + sizeof code - LONGEST_BLOCK * BLOCKS_IN_FUNCTION)
                                return 1;
                }
                bytes += (u64)(at - code);
                __asm__ volatile("" ::: "memory");
                for (u64 pass = 0; pass < passes; pass++)
                        for (u64 each = 0; each < n; each++) {
                                u64 next = (each * 1999 + pass * 17) % n;       /* each once: 1999 is a prime beyond the factors of n */
                                sum = sum * 31 + ((function *)(u64)entries[next])(sum, table);
                        }
        }
        for (u64 word = 0; word < TABLE; word++)
                sum = sum * 31 + table[word];
        print("blocks %u, bytes of code %u\nresults %x\n", blocks, bytes, sum);
        return 0;
}

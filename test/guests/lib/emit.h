/* Writing x86-64 code into memory, for the guests that make some of their own. */
#ifndef EMIT_H
#define EMIT_H

#include "guest.h"

/* Registers by their numbers in ModRM and REX: those that a function may use. */
enum { RAX, RCX, RDX, RSI = 6, RDI, R8, R9, R10, R11 };

static inline u8 *emit8(u8 *at, u32 byte)
{
        *at = (u8)byte;
        return at + 1;
}

static inline u8 *emit32(u8 *at, u32 value)
{
        __builtin_memcpy(at, &value, 4);
        return at + 4;
}

static inline u8 *emit64(u8 *at, u64 value)
{
        __builtin_memcpy(at, &value, 8);
        return at + 8;
}

/* REX.W, opcode, ModRM of two registers. */
static inline u8 *emit_rr(u8 *at, u32 opcode, u32 reg, u32 rm)
{
        at = emit8(at, 0x48 | (reg >> 3) << 2 | rm >> 3);
        at = emit8(at, opcode);
        return emit8(at, 0xc0 | (reg & 7) << 3 | (rm & 7));
}

/* REX.W, opcode, ModRM of a register and [base + displacement]; no base that needs a SIB byte. */
static inline u8 *emit_rm(u8 *at, u32 opcode, u32 reg, u32 base, u32 displacement)
{
        at = emit8(at, 0x48 | (reg >> 3) << 2 | base >> 3);
        at = emit8(at, opcode);
        at = emit8(at, 0x80 | (reg & 7) << 3 | (base & 7));
        return emit32(at, displacement);
}

/* REX.W, opcode, ModRM of an opcode extension and a register, a 32-bit immediate. */
static inline u8 *emit_ri(u8 *at, u32 opcode, u32 extension, u32 rm, u32 immediate)
{
        return emit32(emit_rr(at, opcode, extension, rm), immediate);
}

/* The same with an 8-bit immediate. */
static inline u8 *emit_ri8(u8 *at, u32 opcode, u32 extension, u32 rm, u32 immediate)
{
        return emit8(emit_rr(at, opcode, extension, rm), immediate);
}

/* JMP, CALL: opcode and the distance to `target`. */
static inline u8 *emit_branch(u8 *at, u32 opcode, const u8 *target)
{
        return emit32(emit8(at, opcode), (u32)(target - (at + 5)));
}

#define EMIT_RET 0xc3
#define EMIT_JMP 0xe9
#define EMIT_CALL 0xe8

#endif

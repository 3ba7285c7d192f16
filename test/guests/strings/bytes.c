/* Bytes by the string instructions that libc and compilers use for them. */
#include "strings.h"

u64 length_of(const char *text)
{
        u64 count = ~0ul;
        __asm__("repne scasb" : "+D"(text), "+c"(count) : "a"(0) : "memory", "cc");
        return ~count - 1;
}

u8 *copy(u8 *target, const void *source, u64 length)
{
        u64 words = length / 8, rest = length % 8;
        __asm__ volatile("rep movsq\n\tmovq %3, %%rcx\n\trep movsb" : "+D"(target), "+S"(source), "+c"(words) : "r"(rest) : "memory");
        return target;
}

u8 *copy_up(u8 *target, const u8 *source, u64 length)
{
        __asm__ volatile("rep movsb" : "+D"(target), "+S"(source), "+c"(length)::"memory");
        return target;
}

void fill(void *target, u8 value, u64 length)
{
        u64 words = length / 8, rest = length % 8;
        __asm__ volatile("rep stosq\n\tmovq %2, %%rcx\n\trep stosb"
                         : "+D"(target), "+c"(words)
                         : "r"(rest), "a"(value * 0x0101010101010101ul)
                         : "memory");
}

u64 equal_bytes(const u8 *a, const u8 *b, u64 length)
{
        u64 left = length;
        u8 equal;
        if (!length)
                return 0;
        __asm__("repe cmpsb" : "+D"(a), "+S"(b), "+c"(left), "=@cce"(equal)::"memory");
        return length - left - !equal;
}

const u8 *find_byte(const u8 *at, const u8 *end, u8 byte)
{
        u64 left = (u64)(end - at);
        u8 found;
        if (!left)
                return end;
        __asm__("repne scasb" : "+D"(at), "+c"(left), "=@cce"(found) : "a"(byte) : "memory");
        return found ? at - 1 : end;
}

u64 checksum(u64 sum, const u8 *at, u64 length)
{
        for (u64 n = 0; n < length; n++)
                sum = (sum ^ at[n]) * 1099511628211;
        return sum;
}

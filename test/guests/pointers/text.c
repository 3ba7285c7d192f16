/* What is done, by numbers that look random; text. */
#include "pointers.h"

u64 choice_state;

u32 choose(u32 limit)
{
        choice_state ^= choice_state << 13;
        choice_state ^= choice_state >> 7;
        choice_state ^= choice_state << 17;
        return (u32)((choice_state >> 32) * limit >> 32);
}

u64 length_of(const char *text)
{
        u64 n = 0;
        while (text[n])
                n++;
        return n;
}

int compare(const char *a, const char *b)
{
        while (*a && *a == *b) {
                a++;
                b++;
        }
        return (u8)*a - (u8)*b;
}

char *append(char *at, const char *text)
{
        while (*text)
                *at++ = *text++;
        *at = 0;
        return at;
}

char *append_number(char *at, u32 value)
{
        if (value >= 10)
                at = append_number(at, value / 10);
        *at++ = (char)('0' + value % 10);
        *at = 0;
        return at;
}

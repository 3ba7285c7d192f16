/* UTF-8: code points of a text; and damaged sequences must be refused. Source: Unicode Standard, table 3-7. */
#include "strings.h"

/* The length of a well-formed sequence, or 0; `end` is behind the last byte that may be looked at. */
static u64 sequence(const u8 *at, const u8 *end, u32 *point)
{
        u8 first = *at, low = 0x80, high = 0xbf;
        u64 length = first < 0x80 ? 1 : first < 0xc2 ? 0 : first < 0xe0 ? 2 : first < 0xf0 ? 3 : first < 0xf5 ? 4 : 0;
        if (!length || (u64)(end - at) < length)
                return 0;
        *point = length == 1 ? first : first & (0x7fu >> length);
        switch (first) {
        case 0xe0: low = 0xa0; break;
        case 0xed: high = 0x9f; break;
        case 0xf0: low = 0x90; break;
        case 0xf4: high = 0x8f;
        }
        for (u64 n = 1; n < length; n++) {
                if (at[n] < low || at[n] > high)
                        return 0;
                *point = *point << 6 | (at[n] & 0x3f);
                low = 0x80;
                high = 0xbf;
        }
        return length;
}

static const struct piece damaged[] = {
        {(const u8 *)"\x80", 1}, {(const u8 *)"\xc0\xaf", 2}, {(const u8 *)"\xe0\x9f\xbf", 3}, {(const u8 *)"\xed\xa0\x80", 3},
        {(const u8 *)"\xf0\x8f\xbf\xbf", 4}, {(const u8 *)"\xf4\x90\x80\x80", 4}, {(const u8 *)"\xf5\x80\x80\x80", 4}, {(const u8 *)"\xe2\x82", 2},
        {(const u8 *)"\xe2\x82z", 3}, {(const u8 *)"\xff", 1},
};

u64 code_points(const u8 *text, u64 length)
{
        const u8 *end = text + length;
        u64 points = 0, sum = 0;
        u32 point = 0;
        for (u32 each = 0; each < ARRAY_LENGTH(damaged); each++)
                if (sequence(damaged[each].at, damaged[each].at + damaged[each].length, &point))
                        guest_exit(40);
        for (const u8 *at = text; at < end; points++) {
                u64 n = sequence(at, end, &point);
                if (!n)
                        guest_exit(41);
                sum = sum * 31 + point;
                at += n;
        }
        return sum + points;
}

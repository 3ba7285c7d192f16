/* A table of comma-separated values: numbers written in three forms, read again, and summed. */
#include "strings.h"

static u8 *put_decimal(u8 *to, i64 value)
{
        u8 digits[20];
        u64 left = value < 0 ? -(u64)value : (u64)value, n = 0;
        do {
                digits[n++] = (u8)('0' + left % 10);
                left /= 10;
        } while (left);
        if (value < 0)
                *to++ = '-';
        while (n)
                *to++ = digits[--n];
        return to;
}

static u8 *put_hexadecimal(u8 *to, u32 value)
{
        to = copy(to, "0x", 2);
        for (u32 shift = 32; shift; shift -= 4)
                *to++ = (u8) "0123456789abcdef"[value >> (shift - 4) & 15];
        return to;
}

/* Cents, with a point and both places. */
static u8 *put_money(u8 *to, i64 cents)
{
        u64 rest = (cents < 0 ? -(u64)cents : (u64)cents) % 100;
        if (cents < 0 && cents > -100)
                *to++ = '-';
        to = put_decimal(to, cents / 100);
        *to++ = '.';
        *to++ = (u8)('0' + rest / 10);
        *to++ = (u8)('0' + rest % 10);
        return to;
}

/* Any of the three forms; a point is left out, so money comes as cents. */
static const u8 *get(const u8 *at, i64 *value)
{
        u64 sum = 0;
        int negative = *at == '-';
        at += negative;
        if (at[0] == '0' && at[1] == 'x') {
                for (at += 2; *at != ',' && *at != '\n'; at++)
                        sum = sum << 4 | (u64)(*at <= '9' ? *at - '0' : *at - 'a' + 10);
        } else {
                for (; *at != ',' && *at != '\n'; at++)
                        if (*at != '.')
                                sum = sum * 10 + (u64)(*at - '0');
        }
        *value = (i64)(negative ? -sum : sum);
        return at;
}

u64 numbers(u64 lines, u8 *buffer, u64 *length)
{
        u8 *to = buffer;
        const u8 *at = buffer;
        u64 written = 0, read = 0;
        for (u64 line = 0; line < lines; line++) {
                i64 amount = (i64)(line * line % 9973) - 4000, cents = (i64)(line * 7919 % 200003) - 100000;
                u32 flags = (u32)line * 0x9e3779b1u;
                to = put_decimal(to, (i64)line);
                *to++ = ',';
                to = put_decimal(to, amount);
                *to++ = ',';
                to = put_hexadecimal(to, flags);
                *to++ = ',';
                to = put_money(to, cents);
                *to++ = '\n';
                written += line + (u64)amount * 3 + flags * 5ul + (u64)cents * 7;
        }
        while (at < to)
                for (u64 weight = 1; weight < 8; weight += 2) {
                        i64 value;
                        at = get(at, &value) + 1;
                        read += (u64)value * weight;
                }
        if (read != written)
                guest_exit(50);
        *length = (u64)(to - buffer);
        return read;
}

/*
 * Guests as programs of the host, for expected outputs by another way: options are arguments, text goes to standard
 * output. Only for guests that need nothing but print() and option(), on x86-64 with Linux; built by host.sh. What a
 * guest writes as code must run here, too: its data is made executable.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#include "guest.h"

extern char __data_start[], _end[];
static char **arguments;

void guest_exit(u32 value) { exit((int)value); }
void serial_put(char character) { putchar(character); }

void print(const char *format, ...)
{
        __builtin_va_list values;
        __builtin_va_start(values, format);
        for (; *format; format++) {
                char one[16] = "%";
                u32 n = 1;
                if (*format != '%') {
                        putchar(*format);
                        continue;
                }
                for (format++; *format >= '0' && *format <= '9'; format++)
                        one[n++] = *format;
                if (*format == 'u' || *format == 'd' || *format == 'x')
                        one[n++] = 'l';
                one[n] = *format;
                if (*format == 's')
                        fputs(__builtin_va_arg(values, const char *), stdout);
                else if (*format == 'c')
                        putchar(__builtin_va_arg(values, int));
                else
                        printf(one, __builtin_va_arg(values, u64));
        }
        __builtin_va_end(values);
}

u64 option(const char *name, u64 fallback)
{
        u64 length = strlen(name);
        for (char **at = arguments; *at; at++)
                if (!strncmp(*at, name, length) && (*at)[length] == '=')
                        return strtoul(*at + length + 1, 0, 0);
        return fallback;
}

int main(int count, char **values)
{
        char *data = (char *)((u64)__data_start & ~4095ul);
        (void)count;
        arguments = values + 1;
        if (mprotect(data, ((u64)_end - (u64)data + 4095) & ~4095ul, PROT_READ | PROT_WRITE | PROT_EXEC))
                return 126;
        return guest_main();
}

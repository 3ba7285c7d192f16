/* Linux system calls, of up to five arguments that are not zero, and a little text, for programs without a C library. */
#ifndef L1_LINUX_H
#define L1_LINUX_H

#include <asm/unistd.h>
#include <stddef.h>
#include <stdint.h>

static inline long system_call(long number, long a, long b, long c, long d, long e)
{
	long result;
	register long fourth __asm__("r10") = d;
	register long fifth __asm__("r8") = e;
	register long sixth __asm__("r9") = 0;

	__asm__ volatile("syscall"
			 : "=a"(result)
			 : "a"(number), "D"(a), "S"(b), "d"(c), "r"(fourth), "r"(fifth), "r"(sixth)
			 : "rcx", "r11", "memory");
	return result;
}

#define CALL(name, a, b, c, d, e) \
	system_call(__NR_##name, (long)(a), (long)(b), (long)(c), (long)(d), (long)(e))

void *memset(void *to, int byte, size_t count);
void *memcpy(void *to, const void *from, size_t count);

/* A line that grows, and goes out whole: the console is shared with the kernel. */
struct line {
	char text[256];
	unsigned length;
};

void put_text(struct line *line, const char *text);
void put_number(struct line *line, uint64_t value, unsigned base, unsigned digits);
void send(struct line *line);

/* Says what failed with which error, and ends the machine. */
void fail(const char *what, long error) __attribute__((noreturn));
long checked(const char *what, long result);

/* Runs both guests; returns when their lines are out. */
void run_guests(void);

/* Of virtio.c, each when its modules are loaded. */
void use_disk(void);
void use_console(void);

/* Of hypervisors.c. */
void run_hypervisors(char *words);

#endif

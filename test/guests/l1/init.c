/*
 * The only program of L1: loads the KVM modules as Debian built them, runs the guests of l2.c, and resets the machine.
 * Words `kvm.NAME=VALUE` and `kvm_amd.NAME=VALUE` of the kernel's command line become the parameters of the modules,
 * as modprobe would make them. Built with -DVIRTIO it uses virtio devices first, with -DHYPERVISORS it runs guests that are
 * hypervisors last. With `guests=none` there are no modules and no guests: L1 is Xen then, and we are its dom0.
 */
#include "linux.h"

/* TCSBRK with an argument: waits until the terminal has sent all that it was given. */
#define DRAIN 0x5409
#define OPEN_READ 0
#define OPEN_READ_WRITE 2

void *memset(void *to, int byte, size_t count)
{
	for (char *at = to; count > 0; count--)
		*at++ = (char)byte;
	return to;
}

void *memcpy(void *to, const void *from, size_t count)
{
	const char *source = from;

	for (char *at = to; count > 0; count--)
		*at++ = *source++;
	return to;
}

void put_text(struct line *line, const char *text)
{
	while (*text != 0 && line->length < sizeof(line->text))
		line->text[line->length++] = *text++;
}

void put_number(struct line *line, uint64_t value, unsigned base, unsigned digits)
{
	char reversed[64];
	unsigned count = 0;

	for (; value > 0 || count < digits || count == 0; value /= base)
		reversed[count++] = "0123456789abcdef"[value % base];
	while (count > 0 && line->length < sizeof(line->text))
		line->text[line->length++] = reversed[--count];
}

void send(struct line *line)
{
	CALL(write, 1, line->text, line->length, 0, 0);
	line->length = 0;
}

static void reset(void) __attribute__((noreturn));
static void reset(void)
{
	CALL(ioctl, 1, DRAIN, 1, 0, 0);
	CALL(reboot, 0xfee1deadL, 672274793, 0x01234567, 0, 0);
	for (;;)
		CALL(pause, 0, 0, 0, 0, 0);
}

void fail(const char *what, long error)
{
	struct line line = { .length = 0 };

	put_text(&line, "L2-FAIL ");
	put_text(&line, what);
	put_text(&line, " error ");
	put_number(&line, (uint64_t)-error, 10, 1);
	put_text(&line, "\n");
	send(&line);
	reset();
}

long checked(const char *what, long result)
{
	if (result < 0)
		fail(what, result);
	return result;
}

static int begins(const char *text, const char *with)
{
	while (*with != 0)
		if (*text++ != *with++)
			return 0;
	return 1;
}

static int contains(const char *text, const char *part)
{
	for (; *text != 0; text++)
		if (begins(text, part))
			return 1;
	return 0;
}

/* Parameters that the command line has for a module, without the module's name. */
static void parameters_of(const char *prefix, const char *command_line, char *parameters)
{
	const char *word = command_line;

	while (*word != 0) {
		int wanted = begins(word, prefix);
		const char *at = word;

		for (const char *skip = prefix; wanted && *skip != 0; skip++)
			at++;
		for (; *at != 0 && *at != ' ' && *at != '\n'; at++)
			if (wanted)
				*parameters++ = *at;
		if (wanted)
			*parameters++ = ' ';
		while (*at == ' ' || *at == '\n')
			at++;
		word = at;
	}
	*parameters = 0;
}

static void load_module(const char *path, const char *prefix, const char *command_line)
{
	char parameters[1024];
	long file = checked(path, CALL(open, path, OPEN_READ, 0, 0, 0));

	parameters_of(prefix, command_line, parameters);
	checked(path, CALL(finit_module, file, parameters, 0, 0, 0));
	CALL(close, file, 0, 0, 0, 0);
}

__attribute__((used)) static void start(void)
{
	static char command_line[1024];
	struct line line = { .length = 0 };
	long console, file;

	CALL(mkdir, "/dev", 0755, 0, 0, 0);
	CALL(mkdir, "/proc", 0755, 0, 0, 0);
	CALL(mount, "dev", "/dev", "devtmpfs", 0, 0);
	CALL(mount, "proc", "/proc", "proc", 0, 0);
	console = CALL(open, "/dev/console", OPEN_READ_WRITE, 0, 0, 0);
	if (console > 1) {
		CALL(dup2, console, 1, 0, 0, 0);
		CALL(dup2, console, 2, 0, 0, 0);
	}
	put_text(&line, "L1-UP\n");
	send(&line);

	file = checked("/proc/cmdline", CALL(open, "/proc/cmdline", OPEN_READ, 0, 0, 0));
	checked("/proc/cmdline", CALL(read, file, command_line, sizeof(command_line) - 1, 0, 0));
#ifdef VIRTIO
	load_module("/virtio_ring.ko", "virtio_ring.", command_line);
	load_module("/virtio.ko", "virtio.", command_line);
	load_module("/virtio_mmio.ko", "virtio_mmio.", command_line);
	load_module("/virtio_blk.ko", "virtio_blk.", command_line);
	load_module("/virtio_console.ko", "virtio_console.", command_line);
	use_disk();
	use_console();
#endif
	if (!contains(command_line, "guests=none")) {
		load_module("/irqbypass.ko", "irqbypass.", command_line);
		load_module("/kvm.ko", "kvm.", command_line);
		load_module("/kvm-amd.ko", "kvm_amd.", command_line);
		run_guests();
#ifdef HYPERVISORS
		static char hypervisors[1024];

		parameters_of("hypervisor=", command_line, hypervisors);
		run_hypervisors(hypervisors);
#endif
	}
	put_text(&line, "DONE\n");
	send(&line);
	reset();
}

__asm__(".globl _start\n"
	"_start:\n"
	"	xor %ebp, %ebp\n"
	"	and $-16, %rsp\n"
	"	call start\n"
	"	ud2\n");

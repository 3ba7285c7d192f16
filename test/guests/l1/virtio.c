/*
 * With -DVIRTIO: the disk and the console that `--disk` and `--console` give, through Linux's own drivers. Sums are FNV-1a of
 * 32 bits, so that whoever made the disk can say what they must be.
 */
#include "linux.h"

#define READ_WRITE 2
#define NO_TERMINAL_OF_OURS 0400
/* Past the page cache: what is read back was on the disk. */
#define DIRECT 040000
#define BLOCK 4096
#define READ_AT (16 * BLOCK)
#define WRITE_AT (32 * BLOCK)
#define FLIPPED 0x5a

static uint8_t block[BLOCK] __attribute__((aligned(BLOCK)));

static void told(const char *what)
{
	struct line line = { .length = 0 };
	uint32_t sum = 0x811c9dc5;

	for (unsigned at = 0; at < BLOCK; at++)
		sum = (sum ^ block[at]) * 0x01000193;
	put_text(&line, what);
	put_number(&line, sum, 16, 8);
	put_text(&line, "\n");
	send(&line);
}

static void whole(const char *what, long count)
{
	if (checked(what, count) != BLOCK)
		fail(what, 0);
}

void use_disk(void)
{
	long disk = checked("/dev/vda", CALL(open, "/dev/vda", READ_WRITE | DIRECT, 0, 0, 0));

	whole("reading /dev/vda", CALL(pread64, disk, block, BLOCK, READ_AT, 0));
	told("VDA-READ ");
	for (unsigned at = 0; at < BLOCK; at++)
		block[at] ^= FLIPPED;
	whole("writing /dev/vda", CALL(pwrite64, disk, block, BLOCK, WRITE_AT, 0));
	checked("flushing /dev/vda", CALL(fdatasync, disk, 0, 0, 0, 0));
	memset(block, 0, BLOCK);
	whole("reading /dev/vda again", CALL(pread64, disk, block, BLOCK, WRITE_AT, 0));
	told("VDA-WROTE ");
	CALL(close, disk, 0, 0, 0, 0);
}

/* Says that it is there, and tells the line that comes. */
void use_console(void)
{
	static const char up[] = "HVC-UP\n";
	struct line line = { .length = 0 };
	long console = checked("/dev/hvc0", CALL(open, "/dev/hvc0", READ_WRITE | NO_TERMINAL_OF_OURS, 0, 0, 0));
	long count;

	checked("writing /dev/hvc0", CALL(write, console, up, sizeof(up) - 1, 0, 0));
	put_text(&line, "HVC-GOT ");
	count = checked("reading /dev/hvc0", CALL(read, console, line.text + line.length, 100, 0, 0));
	line.length += count;
	send(&line);
	CALL(close, console, 0, 0, 0, 0);
}

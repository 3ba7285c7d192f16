/*
 * With -DHYPERVISORS: runs guests of KVM that are hypervisors themselves. Each is a Multiboot image of test/guests, an ELF file
 * at the root, and gets what QEMU would give it: flat protected mode, a UART that is always ready, interrupt controllers, the
 * processor that KVM offers, with SVM. Words `hypervisor=NAME[,OPTION…]` of the command line say which, and each one's options.
 *
 *	NAME: a line that it prints
 *	NAME ends with N
 */
#include "linux.h"
#include <linux/kvm.h>

#define RAM_BYTES 0x4000000UL
/* In conventional memory, which images leave alone. */
#define INFORMATION 0x9000
#define OPTIONS_AT 0x9100
#define MULTIBOOT_MAGIC 0x2badb002
enum { HAS_MEMORY = 1, HAS_COMMAND_LINE = 4 };
enum { UART = 0x3f8, UART_LINE_CONTROL = 0x3fb, UART_LINE_STATUS = 0x3fd, DEBUG_EXIT = 0xf4 };
enum { TRANSMITTER_EMPTY = 0x60, DIVISOR_LATCH = 0x80 };
enum { MOST_LEAVES = 100, FILE_BYTES = 0x100000 };

struct elf_header {
	uint8_t identity[16];
	uint16_t type, machine;
	uint32_t version, entry, programs, sections, flags;
	uint16_t bytes, program_bytes, program_count;
};

struct elf_program {
	uint32_t type, offset, linear, physical, file_bytes, memory_bytes;
};

struct hypervisor {
	const char *name;
	long vm, vcpu;
	char *ram;
	struct kvm_run *shared;
	struct line said;
	uint8_t line_control;
};

static void begin_line(struct hypervisor *hypervisor)
{
	put_text(&hypervisor->said, hypervisor->name);
	put_text(&hypervisor->said, ": ");
}

/* All that KVM can give. */
static void give_cpuid(long kvm, long vcpu)
{
	static struct {
		struct kvm_cpuid2 head;
		struct kvm_cpuid_entry2 entries[MOST_LEAVES];
	} table;

	table.head.nent = MOST_LEAVES;
	checked("KVM's CPUID", CALL(ioctl, kvm, KVM_GET_SUPPORTED_CPUID, &table, 0, 0));
	checked("CPUID of a hypervisor", CALL(ioctl, vcpu, KVM_SET_CPUID2, &table, 0, 0));
}

static void make(struct hypervisor *hypervisor)
{
	struct kvm_userspace_memory_region region = { .memory_size = RAM_BYTES };
	struct kvm_pit_config timer = { .flags = 0 };
	long kvm = checked("/dev/kvm", CALL(open, "/dev/kvm", 2, 0, 0, 0)), bytes;

	hypervisor->vm = checked("machine", CALL(ioctl, kvm, KVM_CREATE_VM, 0, 0, 0));
	checked("interrupt controllers", CALL(ioctl, hypervisor->vm, KVM_CREATE_IRQCHIP, 0, 0, 0));
	checked("timer", CALL(ioctl, hypervisor->vm, KVM_CREATE_PIT2, &timer, 0, 0));
	/* Private and anonymous, for reading and writing. */
	hypervisor->ram = (char *)checked("RAM", CALL(mmap, 0, RAM_BYTES, 3, 0x22, -1));
	region.userspace_addr = (uint64_t)hypervisor->ram;
	checked("memory", CALL(ioctl, hypervisor->vm, KVM_SET_USER_MEMORY_REGION, &region, 0, 0));
	hypervisor->vcpu = checked("processor", CALL(ioctl, hypervisor->vm, KVM_CREATE_VCPU, 0, 0, 0));
	bytes = checked("shared page", CALL(ioctl, kvm, KVM_GET_VCPU_MMAP_SIZE, 0, 0, 0));
	hypervisor->shared = (struct kvm_run *)checked("shared page", CALL(mmap, 0, bytes, 3, 1, hypervisor->vcpu));
	give_cpuid(kvm, hypervisor->vcpu);
	CALL(close, kvm, 0, 0, 0, 0);
}

/* @return its entry point. */
static uint32_t load(struct hypervisor *hypervisor)
{
	static char file[FILE_BYTES];
	const struct elf_header *header = (const void *)file;
	const struct elf_program *program;
	struct line path = { .length = 0 };
	long opened;

	put_text(&path, "/");
	put_text(&path, hypervisor->name);
	put_text(&path, ".elf");
	path.text[path.length] = 0;
	opened = checked(path.text, CALL(open, path.text, 0, 0, 0, 0));
	checked(path.text, CALL(read, opened, file, FILE_BYTES, 0, 0));
	CALL(close, opened, 0, 0, 0, 0);
	program = (const void *)(file + header->programs);
	for (unsigned index = 0; index < header->program_count; index++, program++)
		if (program->type == 1)
			memcpy(hypervisor->ram + program->physical, file + program->offset, program->file_bytes);
	return header->entry;
}

static void start_at(struct hypervisor *hypervisor, uint32_t entry, const char *options)
{
	struct kvm_segment flat = { .limit = 0xffffffff, .present = 1, .s = 1, .g = 1, .db = 1 };
	struct kvm_regs general = { .rip = entry, .rflags = 2, .rax = MULTIBOOT_MAGIC, .rbx = INFORMATION };
	uint32_t *information = (uint32_t *)(hypervisor->ram + INFORMATION);
	char *line = hypervisor->ram + OPTIONS_AT;
	struct kvm_sregs system;

	information[0] = HAS_MEMORY | HAS_COMMAND_LINE;
	information[1] = 640;
	information[2] = RAM_BYTES / 1024 - 1024;
	information[4] = OPTIONS_AT;
	memcpy(line, "l2 ", 3);
	for (line += 3; *options != 0 && *options != ' '; options++)
		*line++ = *options == ',' ? ' ' : *options;

	checked("system registers", CALL(ioctl, hypervisor->vcpu, KVM_GET_SREGS, &system, 0, 0));
	flat.selector = 8;
	flat.type = 11;
	system.cs = flat;
	flat.selector = 16;
	flat.type = 3;
	system.ds = system.es = system.fs = system.gs = system.ss = flat;
	system.cr0 = 0x11;
	checked("system registers", CALL(ioctl, hypervisor->vcpu, KVM_SET_SREGS, &system, 0, 0));
	checked("registers", CALL(ioctl, hypervisor->vcpu, KVM_SET_REGS, &general, 0, 0));
}

static void sent(struct hypervisor *hypervisor, char character)
{
	struct line *said = &hypervisor->said;

	if (said->length == 0)
		begin_line(hypervisor);
	if (said->length < sizeof(said->text))
		said->text[said->length++] = character;
	if (character == '\n')
		send(said);
}

/* @return whether it was the guest's last; its value is in `result` then. */
static int port_exit(struct hypervisor *hypervisor, unsigned *result)
{
	struct kvm_run *shared = hypervisor->shared;
	uint8_t *data = (uint8_t *)shared + shared->io.data_offset;
	unsigned port = shared->io.port, bytes = shared->io.size * shared->io.count;

	if (shared->io.direction == KVM_EXIT_IO_IN) {
		memset((char *)data, port == UART_LINE_STATUS ? TRANSMITTER_EMPTY : 0xff, bytes);
		return 0;
	}
	if (port == UART_LINE_CONTROL)
		hypervisor->line_control = *data;
	else if (port == UART && !(hypervisor->line_control & DIVISOR_LATCH))
		sent(hypervisor, (char)*data);
	*result = *data;
	return port == DEBUG_EXIT;
}

static unsigned run(struct hypervisor *hypervisor)
{
	struct kvm_run *shared = hypervisor->shared;
	unsigned result = 0;

	for (;;) {
		long error = CALL(ioctl, hypervisor->vcpu, KVM_RUN, 0, 0, 0);

		if (error < 0 && error != -4)
			fail(hypervisor->name, error);
		if (shared->exit_reason == KVM_EXIT_IO) {
			if (port_exit(hypervisor, &result))
				return result;
		} else if (shared->exit_reason != KVM_EXIT_INTR) {
			/* The reason as an error, for want of another. */
			fail(hypervisor->name, -(long)shared->exit_reason);
		}
	}
}

/* @param words as `exits,n=100 nested`; they are taken apart. */
void run_hypervisors(char *words)
{
	while (*words != 0) {
		struct hypervisor hypervisor = { .name = words };
		struct line line = { .length = 0 };
		char *options = words;

		while (*options != 0 && *options != ' ' && *options != ',')
			options++;
		for (words = options; *words != 0 && *words != ' ';)
			words++;
		while (*words == ' ')
			*words++ = 0;
		if (*options != 0)
			*options++ = 0;
		make(&hypervisor);
		start_at(&hypervisor, load(&hypervisor), options);
		put_text(&line, hypervisor.name);
		put_text(&line, " ends with ");
		put_number(&line, run(&hypervisor), 10, 1);
		put_text(&line, "\n");
		send(&line);
		CALL(close, hypervisor.vcpu, 0, 0, 0, 0);
		CALL(close, hypervisor.vm, 0, 0, 0, 0);
		CALL(munmap, hypervisor.ram, RAM_BYTES, 0, 0, 0);
	}
}

/*
 * Runs two guests on /dev/kvm and says what came of them: `probe` (probe.S), with every device of ours in this file, and
 * `ticker` (ticker.S), with KVM's own interrupt controllers.
 *
 *	KVM-OK api=12
 *	L2-EXITS port=... memory=... halt=... window=... priority=...
 *	L2-SUM xxxxxxxx
 *	L2-SEEN xxxxxxxx
 *	L2-TMR ticks=8
 *
 * Both sides of the probe mix what they see into a checksum: the guest what instructions give it, this side every exit
 * with its size and address. What the guest made of the checksum itself cancels there; into its second one, L2-SEEN, goes
 * every value by another arithmetic. No time enters them, and CPUID is ours, so each is one number for every processor that is
 * right.
 */
#include "linux.h"
#include <linux/kvm.h>

#define RAM_BYTES 0x400000UL
#define LOADED_AT 0x1000
#define PAGE_TABLES 0x10000
/* What a guest is told, and what it leaves, in its RAM. */
#define ROUNDS 0x800
#define BURST 0x804
#define PERIOD 0x808
#define TICKS 0x818
#define FAULTS 0x820
#define SEEN 0x828

enum { PROBE_ROUNDS = 64, PROBE_BURST = 1000, TICKER_ROUNDS = 8, TICKER_PERIOD = 2000000 };

/* Ports of the probe. */
enum { PORT_VALUE = 0x10, PORT_RANDOM = 0x11, PORT_PHASE = 0x12, PORT_INTERRUPT = 0x13, PORT_DONE = 0x1f };
enum { PHASE_LOST = 0xee };

extern const char probe_code[], probe_end[], ticker_code[], ticker_end[];
__asm__(".section .rodata\n"
	"probe_code: .incbin \"probe.bin\"\n"
	"probe_end:\n"
	"ticker_code: .incbin \"ticker.bin\"\n"
	"ticker_end:\n"
	".previous\n");

struct machine {
	long vm, vcpu;
	char *ram;
	struct kvm_run *shared;
};

static long kvm;
static uint32_t checksum = 0x811c9dc5;

static void mix(uint32_t value)
{
	checksum = (checksum ^ value) * 0x01000193;
}

static uint32_t *word_of(struct machine *machine, unsigned at)
{
	return (uint32_t *)(machine->ram + at);
}

static void give_memory(struct machine *machine, unsigned slot, uint64_t from, uint64_t to)
{
	struct kvm_userspace_memory_region region = {
		.slot = slot,
		.guest_phys_addr = from,
		.memory_size = to - from,
		.userspace_addr = (uint64_t)machine->ram + from,
	};

	checked("memory", CALL(ioctl, machine->vm, KVM_SET_USER_MEMORY_REGION, &region, 0, 0));
}

/* The processor that a guest sees, whatever the one below is. */
static void give_cpuid(struct machine *machine)
{
	static const uint32_t leaves[][5] = {
		{ 0x00000000, 1, 0x6e75724c, 0x6e75724c, 0x6e75724c },
		{ 0x00000001, 0x00600f12, 0x00000800, 0x80000000, 0x078bfbff },
		{ 0x40000000, 0x40000001, 0x4b4d564b, 0x564b4d56, 0x0000004d },
		{ 0x40000001, 0, 0, 0, 0 },
		{ 0x80000000, 0x80000008, 0x6e75724c, 0x6e75724c, 0x6e75724c },
		{ 0x80000001, 0x00600f12, 0, 0, 0x20100800 },
		{ 0x80000008, 0x00003024, 0, 0, 0 },
	};
	enum { COUNT = sizeof(leaves) / sizeof(leaves[0]) };
	static struct {
		struct kvm_cpuid2 head;
		struct kvm_cpuid_entry2 entries[COUNT];
	} table;

	table.head.nent = COUNT;
	for (unsigned index = 0; index < COUNT; index++) {
		const uint32_t *leaf = leaves[index];

		table.entries[index] = (struct kvm_cpuid_entry2){
			.function = leaf[0], .eax = leaf[1], .ebx = leaf[2], .ecx = leaf[3], .edx = leaf[4],
		};
	}
	checked("CPUID", CALL(ioctl, machine->vcpu, KVM_SET_CPUID2, &table, 0, 0));
}

/* The low 4 MiB onto themselves, the first two of them by small pages; and two windows without memory. */
static void make_page_tables(struct machine *machine)
{
	uint64_t *top = (uint64_t *)(machine->ram + PAGE_TABLES);
	uint64_t *gigabytes = top + 512, *low = top + 1024, *high = top + 1536, *pages = top + 2048;

	top[0] = PAGE_TABLES + 0x1003;
	gigabytes[0] = PAGE_TABLES + 0x2003;
	gigabytes[3] = PAGE_TABLES + 0x3003;
	low[0] = PAGE_TABLES + 0x4003;
	low[1] = 0x200083;
	high[(0xd0000000 >> 21) & 511] = 0xd0000083;
	high[(0xfee00000 >> 21) & 511] = 0xfee00083;
	for (unsigned page = 0; page < 512; page++)
		pages[page] = page * 0x1000UL | 3;
}

static void make(struct machine *machine, int interrupt_controllers, const char *code, const char *end)
{
	long bytes;

	machine->vm = checked("machine", CALL(ioctl, kvm, KVM_CREATE_VM, 0, 0, 0));
	if (interrupt_controllers)
		checked("interrupt controllers", CALL(ioctl, machine->vm, KVM_CREATE_IRQCHIP, 0, 0, 0));
	/* Private and anonymous, for reading and writing. */
	machine->ram = (char *)checked("RAM", CALL(mmap, 0, RAM_BYTES, 3, 0x22, -1));
	give_memory(machine, 0, 0, 0xa0000);
	give_memory(machine, 1, 0x100000, RAM_BYTES);
	machine->vcpu = checked("processor", CALL(ioctl, machine->vm, KVM_CREATE_VCPU, 0, 0, 0));
	bytes = checked("shared page", CALL(ioctl, kvm, KVM_GET_VCPU_MMAP_SIZE, 0, 0, 0));
	machine->shared = (struct kvm_run *)checked("shared page", CALL(mmap, 0, bytes, 3, 1, machine->vcpu));
	give_cpuid(machine);
	make_page_tables(machine);
	memcpy(machine->ram + LOADED_AT, code, (size_t)(end - code));
}

static void set_registers(struct machine *machine, struct kvm_sregs *system)
{
	struct kvm_regs general = { .rip = LOADED_AT, .rflags = 2 };

	checked("system registers", CALL(ioctl, machine->vcpu, KVM_SET_SREGS, system, 0, 0));
	checked("registers", CALL(ioctl, machine->vcpu, KVM_SET_REGS, &general, 0, 0));
}

static void start_in_real_mode(struct machine *machine)
{
	struct kvm_sregs system;

	checked("system registers", CALL(ioctl, machine->vcpu, KVM_GET_SREGS, &system, 0, 0));
	system.cs.base = 0;
	system.cs.selector = 0;
	system.apic_base = 0xfee00900;
	set_registers(machine, &system);
}

static void start_in_long_mode(struct machine *machine)
{
	struct kvm_segment flat = { .limit = 0xffffffff, .present = 1, .s = 1, .g = 1 };
	struct kvm_sregs system;

	checked("system registers", CALL(ioctl, machine->vcpu, KVM_GET_SREGS, &system, 0, 0));
	system.cs = flat;
	system.cs.selector = 0x18;
	system.cs.type = 11;
	system.cs.l = 1;
	flat.selector = 0x10;
	flat.type = 3;
	flat.db = 1;
	system.ds = system.es = system.fs = system.gs = system.ss = flat;
	system.cr0 = 0x80010033;
	system.cr3 = PAGE_TABLES;
	system.cr4 = 0x620;
	system.efer = 0x500;
	set_registers(machine, &system);
}

static struct {
	unsigned port, memory, halt, window, priority, interrupts;
} exits;

/* The vector that the guest has asked for; 0: none. */
static uint32_t wanted;

static void lost(struct machine *machine)
{
	struct kvm_regs registers;
	struct line line = { .length = 0 };

	CALL(ioctl, machine->vcpu, KVM_GET_REGS, &registers, 0, 0);
	put_text(&line, "L2-LOST reason ");
	put_number(&line, machine->shared->exit_reason, 10, 1);
	put_text(&line, " at ");
	put_number(&line, registers.rip, 16, 1);
	put_text(&line, "\n");
	send(&line);
	fail("guest", 0);
}

/* @return whether it was the guest's last. */
static int port_written(struct machine *machine, unsigned port, unsigned size, uint32_t value, uint32_t *result)
{
	switch (port) {
	case PORT_DONE:
		*result = value;
		return 1;
	case PORT_PHASE:
		if (value == PHASE_LOST)
			lost(machine);
		mix(value);
		return 0;
	case PORT_INTERRUPT:
		wanted = value;
		mix(value);
		return 0;
	default:
		mix(value ^ size << 24);
		return 0;
	}
}

static int port_exit(struct machine *machine, uint32_t *result)
{
	static uint32_t random = 12345;
	struct kvm_run *shared = machine->shared;
	char *data = (char *)shared + shared->io.data_offset;
	unsigned size = shared->io.size;

	exits.port++;
	for (unsigned count = 0; count < shared->io.count; count++, data += size) {
		if (shared->io.direction == KVM_EXIT_IO_IN) {
			random = random * 1664525 + 1013904223;
			memcpy(data, &random, size);
		} else {
			uint32_t value = 0;

			memcpy(&value, data, size);
			if (port_written(machine, shared->io.port, size, value, result))
				return 1;
		}
	}
	return 0;
}

/* A page that remembers, whatever its address. */
static void memory_exit(struct machine *machine)
{
	static char page[4096];
	struct kvm_run *shared = machine->shared;
	uint32_t address = (uint32_t)shared->mmio.phys_addr, size = shared->mmio.len;
	char *at = page + (address & 0xfff);

	exits.memory++;
	if (shared->mmio.is_write) {
		uint32_t value = 0;

		memcpy(&value, shared->mmio.data, size < 4 ? size : 4);
		memcpy(at, shared->mmio.data, size);
		mix(value ^ address ^ size);
	} else {
		memcpy(shared->mmio.data, at, size);
		mix(address ^ size << 8);
	}
}

/* @return what the guest gave when it was done. */
static uint32_t run(struct machine *machine)
{
	struct kvm_run *shared = machine->shared;
	uint32_t result = 0;

	for (;;) {
		long error;

		if (wanted != 0 && shared->ready_for_interrupt_injection) {
			struct kvm_interrupt interrupt = { .irq = wanted };

			checked("interrupt", CALL(ioctl, machine->vcpu, KVM_INTERRUPT, &interrupt, 0, 0));
			wanted = 0;
			exits.interrupts++;
		}
		shared->request_interrupt_window = wanted != 0;
		error = CALL(ioctl, machine->vcpu, KVM_RUN, 0, 0, 0);
		if (error < 0 && error != -4)
			fail("run", error);
		switch (shared->exit_reason) {
		case KVM_EXIT_IO:
			if (port_exit(machine, &result))
				return result;
			break;
		case KVM_EXIT_MMIO:
			memory_exit(machine);
			break;
		case KVM_EXIT_HLT:
			exits.halt++;
			break;
		case KVM_EXIT_IRQ_WINDOW_OPEN:
			exits.window++;
			break;
		case KVM_EXIT_SET_TPR:
			exits.priority++;
			break;
		case KVM_EXIT_INTR:
			break;
		default:
			lost(machine);
		}
	}
}

static void put_count(struct line *line, const char *name, unsigned count)
{
	put_text(line, name);
	put_number(line, count, 10, 1);
}

static void run_probe(struct line *line)
{
	static struct machine probe;

	make(&probe, 0, probe_code, probe_end);
	*word_of(&probe, ROUNDS) = PROBE_ROUNDS;
	*word_of(&probe, BURST) = PROBE_BURST;
	put_count(line, "KVM-OK api=", (unsigned)CALL(ioctl, kvm, KVM_GET_API_VERSION, 0, 0, 0));
	put_text(line, "\n");
	send(line);
	start_in_real_mode(&probe);
	mix(run(&probe));
	mix(exits.interrupts);
	mix(*word_of(&probe, TICKS));
	mix(*word_of(&probe, FAULTS));
	put_count(line, "L2-EXITS port=", exits.port);
	put_count(line, " memory=", exits.memory);
	put_count(line, " halt=", exits.halt);
	put_count(line, " window=", exits.window);
	put_count(line, " priority=", exits.priority);
	put_text(line, "\nL2-SUM ");
	put_number(line, checksum, 16, 8);
	put_text(line, "\nL2-SEEN ");
	put_number(line, *word_of(&probe, SEEN), 16, 8);
	put_text(line, "\n");
	send(line);
}

static void run_ticker(struct line *line)
{
	static struct machine ticker;

	make(&ticker, 1, ticker_code, ticker_end);
	*word_of(&ticker, ROUNDS) = TICKER_ROUNDS;
	*word_of(&ticker, PERIOD) = TICKER_PERIOD;
	start_in_long_mode(&ticker);
	put_count(line, "L2-TMR ticks=", run(&ticker));
	put_text(line, "\n");
	send(line);
}

void run_guests(void)
{
	struct line line = { .length = 0 };

	kvm = checked("/dev/kvm", CALL(open, "/dev/kvm", 2, 0, 0, 0));
	run_probe(&line);
	run_ticker(&line);
}

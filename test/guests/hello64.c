/*
 * hello64: the machine boots a multiboot kernel into long mode.
 * Proves: multiboot entry state and memory map, PAE page tables, EFER.LME, the
 * far jump into 64-bit code, CPUID, port output to the UART.
 * Option: name=TEXT, who is greeted. Assumes 64 MiB of RAM; of the memory map it
 * prints only what does not depend on the firmware.
 */
#include "lib/guest.h"

static u64 check_memory_map(void)
{
        u64 at = multiboot->mmap_addr, end = at + multiboot->mmap_length, low = 0, high = 0;
        while (at < end) {
                struct multiboot_mmap *entry = (struct multiboot_mmap *)at;
                if (entry->type == 1 && entry->base < 0x100000)
                        low += entry->length;
                if (entry->type == 1 && entry->base >= 0x100000 && entry->base < 0x100000000)
                        high += entry->length;
                at += entry->size + 4;
        }
        print("memory map: low memory %s, %u MiB from 1 MiB up\n", low >= 512 * 1024 ? "ok" : "missing",
              (high + 0xfffff) >> 20);
        return at == end && low >= 512 * 1024 && high >= 0x100000;
}

int guest_main(void)
{
        char name[32], vendor[13];
        struct cpuid leaf = cpuid(0, 0);
        memcpy(vendor, &leaf.ebx, 4);
        memcpy(vendor + 4, &leaf.edx, 4);
        memcpy(vendor + 8, &leaf.ecx, 4);
        vendor[12] = 0;

        print("hello, %s\n", option_text("name", "world", name, sizeof name));
        print("CPUID vendor: %s\n", vendor);
        if (!(rdmsr(MSR_EFER) & 1 << 10))
                return 1;
        print("long mode: active\n");
        if (!(multiboot->flags & 1 << 6)) {
                print("memory map: none\n");
                return 2;
        }
        if (!check_memory_map())
                return 3;
        print("SVM: %s\n", cpuid(0x80000001, 0).ecx & 1 << 2 ? "offered" : "absent");
        return 0;
}

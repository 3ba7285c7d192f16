/*
 * exits: a bench of the bare world switch. L2 executes CPUID in a loop, L1 steps
 * over it; only VMRUN and #VMEXIT lie in between.
 * Proves: that a VMCB survives n round trips; prints how many there were.
 * Option: n=N (1000).
 */
#include "lib/svm.h"

extern char l2_entry[];
u64 world_switches(void *vmcb, u64 n, u64 *l2_counter);

static u8 vmcb[4096] PAGE_ALIGNED, l2_stack[4096] PAGE_ALIGNED;

int guest_main(void)
{
        u64 n = option("n", 1000), l2_counter, exits;
        if (svm_enable())
                return 1;
        npt_identity();
        vmcb_long_mode(vmcb, l2_entry, l2_stack + sizeof l2_stack, read_cr3());
        VMCB32(vmcb, INTERCEPT_3) = 1 << INTERCEPT3_CPUID;
        VMCB32(vmcb, INTERCEPT_4) |= 1 << INTERCEPT4_VMMCALL;
        exits = world_switches(vmcb, n, &l2_counter);
        print("exits %u, L2 counted %u, last exit %x\n", exits, l2_counter, VMCB64(vmcb, EXITCODE));
        if (exits != n || l2_counter != n)
                return 2;
        return VMCB64(vmcb, EXITCODE) == EXIT_VMMCALL ? 0 : 3;
}

/*
 * intercepts: every intercept of SVM, one line each. L2 executes an instruction (or an event comes to it) once with the
 * intercept off and once with it on, at CPL 0 and 3, with operands that are good and with such that fault at each stage;
 * the checks are which of exception and #VMEXIT wins, with exit code, EXITINFO1/2, nRIP, or vector, error code and CR2,
 * and that an intercepted instruction has changed nothing.
 * A line has the place of the bit in the VMCB, the exit code and the stage of the check; `fail` lines before it name the
 * checks that failed. `skip` stands where CPUID does not offer it: then #UD must come.
 * Options: only=NAME checks one intercept; legacy=0 leaves out virtual-8086 mode and 32-bit programs.
 * Exit value: 1 a check failed, 2 no such intercept, 3 no SVM.
 */
#include "intercepts/intercepts.h"

static u8 host_save_area[4096] PAGE_ALIGNED;

int guest_main(void)
{
        if (cpuid(0x80000000, 0).eax < 0x8000000a || !(cpuid(0x80000001, 0).ecx & 1 << 2) || rdmsr(MSR_VM_CR) & 1 << 4) {
                print("FAIL no SVM\n");
                return 3;
        }
        wrmsr(MSR_EFER, rdmsr(MSR_EFER) | EFER_SVME);
        wrmsr(MSR_VM_HSAVE_PA, (u64)host_save_area);
        trials_begin();         /* before the memory of L2 is written: the command line may lie there */
        features_read();
        npt_identity();
        l2_memory();
        events_prepare();

        check_control_registers();
        check_debug_registers();
        check_exceptions();
        check_events();
        check_descriptor_tables();
        check_instructions();
        check_permission_maps();
        check_tasks();
        check_svm_instructions();
        check_waiting();
        check_later_instructions();
        check_write_traps();
        return trials_end();
}

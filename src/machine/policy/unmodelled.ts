/**
 * Known divergences that are no deviation here: L1 and L2 cannot see them on this machine, or they need something that is
 * not there. Of a row with several parts those that are no deviation are named; the others have witnesses.
 */

export interface Unmodelled {
  /** The row in the list of known divergences (docs/policies.md). */
  readonly row: string;
  readonly reason: string;
}

const row = (name: string, reason: string): Unmodelled => ({ row: name, reason });

const BELOW = 'the processor below, which runs the guest in the end, makes the check that the program leaves out';
const SAVED = 'it shows after the state of a running L2 was saved and restored by the program';
const ESCAPE = 'it concerns the memory of the program itself; here is nothing below L1 that could be reached';

export const UNMODELLED: readonly Unmodelled[] = [
  row('K-05', BELOW),
  row('K-14', 'before 7.1: L1 went on with registers of L2, which is no state of a processor'),
  row('K-17', SAVED),
  row('K-19', ESCAPE),
  row('K-20', 'TLB flushes: translations follow their tables here, and dropping them shows nowhere (docs/adr/0021)'),
  row('K-21', 'another processor of L1 changes the VMCB between check and use; VMRUN reads it at one instant here'),
  row('K-25', ESCAPE),
  row('K-28', `${SAVED}, or after an event that the program itself had queued for L2`),
  row('K-29', 'an instruction that CPUID does not report is none to the decoder: #UD, before any intercept'),
  row('K-30', 'reserved bits of EVENTINJ and of the interrupt shadow mean nothing to a processor'),
  row('K-32', ESCAPE),
  row('K-34', BELOW),
  row('K-37', 'it leaves a stale memory type at most, and nothing is cached here'),
  row('K-38', 'another processor rewrites the instruction while the program handles an exit of its own'),
  row('X-02', 'the host dies: there is nothing that L1 could see'),
  row('X-08', 'AVIC and its bits: what they do depends on pointers in the control block of the program itself'),
  row('X-09', `EVENTINJ and G_PAT: ${BELOW}`),
  row('X-11', 'bit 10 of DR7 reads as one whatever is loaded, and the host state that comes back was in force before'),
  row('X-12', 'EXITINFO1: the program leaves what its own last exit put there, and not what the row says'),
  row('X-14', 'CPUID is the CPU profile: xen-4.17-nested and xen-4.19-nested'),
  row('X-17', 'the length of VMRUN: it depends on what the processor of the host tells of instructions'),
  row('X-21', 'it depends on how the host itself pages'),
  row('B-07', 'no CPU profile has five-level paging'),
  row('B-12', 'this machine does so itself: the format of the page is private (docs/adr/0020)'),
  row('B-16', 'memory types: nothing is cached here, and page tables and MTRRs are not asked for them'),
  row('B-19', 'TLB_CONTROL and ASIDs: as Q-09'),
  row('B-20', 'SKINIT: the program stops; CPUID reports none here, and it is #UD'),
  row('Q-09', 'translations follow their tables here, and dropping them shows nowhere (docs/adr/0021)'),
  row('Q-11', 'no test of the address at all: VMCBs across pages, or outside of RAM'),
];

export const unmodelledReason = (name: string): string | undefined =>
  UNMODELLED.find((each) => each.row === name)?.reason;

/**
 * A #VMEXIT as data: thrown where an intercept is recognised, caught by the machine, which performs the world switch.
 */

/** Everything the exit reports besides the saved state. Source: APM vol.2 §15.6 #VMEXIT. */
export class VmExit {
  constructor(
    readonly code: bigint,
    readonly info1: bigint = 0n,
    readonly info2: bigint = 0n,
    /** True when RIP of the next instruction is reported in nRIP (instruction intercepts). */
    readonly nextRip = false,
    /** Guest instruction bytes are reported (NPF and #PF of data accesses). */
    readonly withBytes = false,
  ) {}
}

/** A nested page fault on the way to memory; becomes #VMEXIT(NPF). */
export class NestedPageFault {
  /** @param errorCode EXITINFO1, bits 32 and 33 included. @param gPA EXITINFO2. */
  constructor(
    readonly errorCode: bigint,
    readonly gPA: bigint,
  ) {}
}

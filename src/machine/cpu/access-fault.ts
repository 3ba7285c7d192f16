/** What becomes of an access that page tables do not allow: a fault of the guest, or of its hypervisor's tables. */
import { GuestFault, Vector } from '../faults.js';
import { nestedErrorCode, type WalkResult } from '../mmu/page-walk.js';
import { NestedPageFault } from '../svm/vmexit-request.js';
import { gPA } from '../units.js';

export type AccessFault = GuestFault | NestedPageFault;

/** @param result of the walk that found it. @param linear the address of the access. */
export const accessFault = (result: WalkResult, linear: bigint): AccessFault =>
  result.fault === 'nested'
    ? new NestedPageFault(nestedErrorCode(result), BigInt(gPA(result.gPA)))
    : new GuestFault(Vector.PF, result.errorCode, linear);

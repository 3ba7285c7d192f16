/**
 * The kinds of rows in the table of model-specific registers: what holds in a slot, what is kept by number, what cannot
 * be written.
 */
import { type GuestFault, generalProtection } from '../faults.js';
import { R, type RegisterName } from '../layout/cpu-state.js';
import type { MsrRow } from './msr-row.js';
import type { MsrRange } from './stored-msrs.js';
import type { SystemContext } from './system-context.js';

export type Check = (value: bigint, context: SystemContext) => boolean;

export const gp = (): GuestFault => generalProtection();

/** A register that holds what was written; `allows` refuses with #GP, `mask` are the bits that exist. */
export function storage(
  msr: number,
  slot: RegisterName,
  name: string,
  source: string,
  rule: { readonly allows?: Check; readonly mask?: bigint } = {},
): MsrRow {
  const { allows, mask } = rule;
  return {
    msr,
    name,
    source,
    slot: R[slot],
    read: ({ tx }) => tx.get(R[slot]),
    write(context, value) {
      if (allows !== undefined && !allows(value, context)) throw gp();
      context.tx.set(R[slot], mask === undefined ? value : value & mask);
      return true;
    },
  };
}

/** A register that cannot be written. */
export const readOnly = (msr: number, name: string, source: string, read: MsrRow['read']): MsrRow => ({
  msr,
  name,
  source,
  read,
  write: () => {
    throw gp();
  },
});

const ALL_ONES = 0xffff_ffff_ffff_ffffn;

/** Registers that are kept by number; `mask` are the bits that exist, `ones` those that read as ones. */
export const stored = (
  { msr, count }: MsrRange,
  name: string,
  source: string,
  rule: {
    readonly exists?: MsrRow['exists'];
    readonly allows?: (context: SystemContext, value: bigint, index: number) => boolean;
    readonly mask?: bigint;
    readonly ones?: bigint;
  } = {},
): MsrRow => ({
  msr,
  count,
  name,
  source,
  exists: rule.exists,
  read: (context, index) => (context.storedMsr(msr + index) & (rule.mask ?? ALL_ONES)) | (rule.ones ?? 0n),
  write(context, value, index) {
    if (rule.allows?.(context, value, index) === false) throw gp();
    return true;
  },
});

export const within =
  (bits: bigint): Check =>
  (value) =>
    (value & ~bits) === 0n;

/**
 * Pause filtering: which PAUSE of a guest reaches its intercept. VMRUN loads the count; each PAUSE takes one off, and the
 * one that would take it below zero exits: with a count of n, the first n PAUSEs pass. (Table 15-7 and the rule for the
 * threshold say "below zero"; the first sentences of §15.14.4 say "reaches zero".)
 *
 * With a threshold, PAUSEs that are more cycles apart reload the count. Cycles are those of the time-stamp counter.
 * Slot `pauseFilter`: the count left in bits 31:0, the VMCB's threshold and count in bits 63:32.
 * Source: APM vol.2 §15.14.4 Pause Intercept Filtering; §15.9 Instruction Intercepts (table 15-7), PAUSE.
 */
import type { SystemContext } from '../cpu/system-context.js';
import { R } from '../layout/cpu-state.js';
import { inGuest } from './injection.js';

const LEFT = 0xffff_ffffn;
const THRESHOLD_SHIFT = 32n;
const RELOAD_SHIFT = 48n;

/** A PAUSE executes. @returns true when the filter lets it pass; the intercept is not to be looked at then. */
export function pausePasses(context: SystemContext): boolean {
  const { tx } = context;
  if (!inGuest(tx)) return false;
  const { svm, deviations } = context.profile;
  const filter = tx.get(R.pauseFilter);
  const always = deviations.has('pause-threshold-always') && svm.has('pause-filter-threshold');
  const threshold = (filter >> THRESHOLD_SHIFT) & 0xffffn;
  const reload = filter >> RELOAD_SHIFT;
  if (reload === 0n && !always) return false;
  if (threshold !== 0n || always) {
    const now = context.readTsc();
    const elapsed = BigInt.asUintN(64, now - tx.get(R.lastPause));
    tx.set(R.lastPause, now);
    if (elapsed > threshold) {
      tx.set(R.pauseFilter, (filter & ~LEFT) | reload);
      return true;
    }
  }
  if ((filter & LEFT) <= (deviations.has('pause-filter-reaches-zero') ? 1n : 0n)) return false;
  tx.set(R.pauseFilter, filter - 1n);
  return true;
}

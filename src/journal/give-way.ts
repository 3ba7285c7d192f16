/**
 * Threads beside the machine's give way to it. Where more of them want to run than there are processors, a system shares these out
 * evenly, and the session waits while others compile or compress what nobody is waiting for (docs/adr/0046).
 */
import { constants, setPriority } from 'node:os';

/** Of the calling thread, to `setPriority`. */
const CALLER = 0;

/**
 * Lowers the priority of a thread.
 * @param thread its number on Linux, where alone a thread has a priority of its own: elsewhere nothing happens.
 */
export function giveWay(thread = CALLER): void {
  if (process.platform !== 'linux') return;
  try {
    setPriority(thread, constants.priority.PRIORITY_BELOW_NORMAL);
  } catch {
    // It has just ended, or the system forbids it: then they share.
  }
}

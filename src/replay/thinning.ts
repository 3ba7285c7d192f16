/** Which checkpoints to give up when a tape has become too large: the older they are, the more. */
import type { CheckpointEntry, Position } from '../journal/index.js';
import { runCost } from './run-cost.js';

/** Neighbours may lie this part of their age apart: getting anywhere costs at most so much of what has happened since. */
const PART_OF_AGE = 1 / 8;

/**
 * Age is what it costs to run from there to the end. So a tape keeps about eight checkpoints for each time that its age grows
 * 2.7 times, however long it is. The first and the last are always kept.
 * @param checkpoints by position. @returns those to drop.
 */
export function thinned(checkpoints: readonly CheckpointEntry[], end: Position): readonly CheckpointEntry[] {
  const dropped: CheckpointEntry[] = [];
  let kept = checkpoints.at(-1);
  for (let index = checkpoints.length - 2; index > 0; index--) {
    const [before, checkpoint] = [checkpoints[index - 1], checkpoints[index]] as [CheckpointEntry, CheckpointEntry];
    // Without it, the way from the one before to the one kept last would be this long.
    const gap = runCost(before.position, kept?.position ?? end);
    if (gap <= runCost(before.position, end) * PART_OF_AGE) dropped.push(checkpoint);
    else kept = checkpoint;
  }
  return dropped;
}

/**
 * Why a physical event that is pending at an instruction boundary waits. Without a reason it is taken, or exits.
 * Source: APM vol.2 §15.17 Global Interrupt Flag, STGI and CLGI Instructions (table 15-10), §15.21.1 Physical (INTR)
 * Interrupt Masking in EFLAGS, §10.3.3 Exceptions and Interrupts in SMM.
 */
import { lowReader, type SlotReader } from '../cpu/mode.js';
import type { BlockableEvent, InterruptBlock } from '../cpu/nested-virtualization.js';
import { Boundary, Flag, R, SvmMode } from '../layout/cpu-state.js';
import { gifSet } from './gif.js';
import { inGuest, inShadow, masksVirtually } from './injection.js';
import { interceptRequested } from './intercepts.js';
import type { InterruptRules } from './interrupt-rules.js';

export function interruptBlock(
  cpu: SlotReader,
  event: BlockableEvent,
  rules: InterruptRules,
): InterruptBlock | undefined {
  if (!gifSet(cpu)) return 'gif';
  const boundary = cpu.get(R.boundary);
  switch (event) {
    case 'smi':
    case 'init':
      return (boundary & Boundary.IN_SMM) !== 0n ? 'smm' : undefined;
    case 'nmi':
      if ((boundary & Boundary.NMI_BLOCKED) !== 0n) return 'nmi';
      if (inShadow(cpu)) return 'shadow';
      return rules.nmiWaitsForHostIf && heldByHost(cpu) ? 'host-if' : undefined;
    case 'intr':
      return interruptRequestBlock(cpu, rules);
  }
}

function interruptRequestBlock(cpu: SlotReader, rules: InterruptRules): InterruptBlock | undefined {
  const held = heldByHost(cpu);
  if (rules.intrExitsAnyway && inGuest(cpu) && interceptRequested(lowReader(cpu), 'INTR')) {
    return held ? 'host-if' : undefined;
  }
  if (inShadow(cpu)) return 'shadow';
  const ownIf = (cpu.get(R.rflags) & Flag.IF) !== 0n;
  if (masksVirtually(cpu)) return held && !(rules.intrLatched && ownIf) ? 'host-if' : undefined;
  return ownIf ? undefined : 'if';
}

/** V_INTR_MASKING holds physical interrupts back: the host had its IF clear. */
const heldByHost = (cpu: SlotReader): boolean => masksVirtually(cpu) && (cpu.get(R.svmMode) & SvmMode.HOST_IF) === 0n;

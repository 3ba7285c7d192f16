/** A vCPU at an instruction that needs an absent page, as the host has to know it. */
import { cplOf, type SlotReader } from '../cpu/mode.js';
import { CR0, R } from '../layout/cpu-state.js';
import { inGuest, physicalInterruptsAllowed } from '../svm/injection.js';
import type { InterruptRules } from '../svm/interrupt-rules.js';
import type { MissContext } from './interface.js';

export const missContext = (cpu: SlotReader, rules: InterruptRules): MissContext => ({
  interruptible: cpu.get(R.eventInjection) === 0n && physicalInterruptsAllowed(cpu, rules),
  cpl: cplOf(cpu),
  guest: inGuest(cpu),
  paging: (cpu.get(R.cr0) & CR0.PG) !== 0n,
});

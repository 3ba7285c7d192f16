/** A vCPU at an instruction that needs an absent page, as the host has to know it. */
import { cplOf, type SlotReader } from '../cpu/mode.js';
import type { NestedVirtualization } from '../cpu/nested-virtualization.js';
import { CR0, R } from '../layout/cpu-state.js';
import { inGuest } from '../svm/injection.js';
import type { MissContext } from './interface.js';

export const missContext = (cpu: SlotReader, nested: NestedVirtualization): MissContext => ({
  interruptible: cpu.get(R.eventInjection) === 0n && nested.interruptBlocked(cpu, 'intr') === undefined,
  cpl: cplOf(cpu),
  guest: inGuest(cpu),
  paging: (cpu.get(R.cr0) & CR0.PG) !== 0n,
});

/** How the delivery of an exception or interrupt is told on the tape: by what reached its handler. */
import type { RegisterEvent } from '../events.js';
import { EMPTY_DELTA } from '../layout/cpu-state.js';
import type { Delivered, GuestEvent } from './exceptions.js';

/** @param asked what was to be delivered; on the way another event may have taken its place. @returns it without registers. */
export function deliveredEvent(
  { event: delivered, task }: Delivered,
  asked: GuestEvent,
  origin: 'virtual' | 'injected' | undefined,
): RegisterEvent {
  const registers = EMPTY_DELTA;
  const { type, vector } = delivered;
  const errorCode = delivered.errorCode ?? null;
  if (task !== undefined) {
    return { type: 'cpu.task-switched', selector: task.selector, cause: 'event', vector, errorCode, registers };
  }
  if (origin === 'injected' && delivered === asked) {
    const kind = { external: 0, nmi: 2, exception: 3, icebp: 3, software: 4 }[type];
    return { type: 'svm.injected', kind, vector, errorCode, registers };
  }
  if (type === 'exception' || type === 'icebp') return { type: 'cpu.exception', vector, errorCode, registers };
  const source = type === 'external' ? (origin === 'virtual' ? 'virtual' : 'external') : type;
  return { type: 'cpu.interrupt', vector, source, registers };
}

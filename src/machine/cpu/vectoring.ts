/**
 * EXITINTINFO: the event whose delivery an exit cut short, and what deviations make of it.
 * Source: APM vol.2 §15.7.2 Intercepts During IDT Interrupt Delivery, §15.21.10 NMI Virtualization.
 */
import { R, SvmMode } from '../layout/cpu-state.js';
import { IntControl } from '../layout/vmcb.js';
import type { DeviationSet } from '../policy/catalogue.js';
import { EVENT_VALID, EventType, encodeEvent, hasVirtualNmis } from '../svm/injection.js';
import type { GuestEvent } from './exceptions.js';
import type { Transaction } from './transaction.js';

export class VectoringInfo {
  /** `exitintinfo-all-exceptions`. */
  private readonly allExceptions: boolean;
  /** `exitintinfo-keeps-last-event`. */
  readonly keepsLast: boolean;
  /** The event of EVENTINJ, while it is delivered. */
  injected: GuestEvent | undefined;

  constructor(deviations: DeviationSet) {
    this.allExceptions = deviations.has('exitintinfo-all-exceptions');
    this.keepsLast = deviations.has('exitintinfo-keeps-last-event');
  }

  /** An exit cuts the delivery of `event` short. */
  record(tx: Transaction, event: GuestEvent): void {
    // The NMI was not delivered: its mask goes.
    if (event.type === 'nmi' && hasVirtualNmis(tx)) {
      tx.set(R.intControl, tx.get(R.intControl) & ~IntControl.V_NMI_MASK);
    }
    tx.set(R.exitIntInfo, this.encode(tx, event));
  }

  /** `event` reached its handler. */
  delivered(tx: Transaction, event: GuestEvent): void {
    if (!this.keepsLast || (tx.get(R.svmMode) & SvmMode.GUEST) === 0n) return;
    tx.set(R.exitIntInfo, this.encode(tx, event) & ~EVENT_VALID);
  }

  private encode(tx: Transaction, event: GuestEvent): bigint {
    const { vector, errorCode } = event;
    const type = vectoringType(event, this.allExceptions && event !== this.injected);
    const word = encodeEvent({ type, vector, errorCode });
    return this.keepsLast && errorCode === undefined ? word | (tx.get(R.exitIntInfo) & HIGH_HALF) : word;
  }
}

const HIGH_HALF = ~0xffff_ffffn;

/** TYPE. @param asException what the hardware raises counts as exceptions, INT3 and INTO as INT n. */
function vectoringType({ type, nextRip }: GuestEvent, asException: boolean): number {
  switch (type) {
    case 'software':
      return EventType.SOFTWARE;
    case 'icebp':
      return EventType.EXCEPTION;
    case 'exception':
      return asException && nextRip !== undefined ? EventType.SOFTWARE : EventType.EXCEPTION;
    case 'nmi':
      return asException ? EventType.EXCEPTION : EventType.NMI;
    case 'external':
      return asException ? EventType.EXCEPTION : EventType.INTERRUPT;
  }
}

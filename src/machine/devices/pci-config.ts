/**
 * PCI configuration mechanism #1 over a bus without devices: the address register CF8h reads back, all data reads as
 * ones.
 *
 * Source: PCI Local Bus Specification 3.0, §3.2.2.3.2 Software Generation of Configuration Transactions.
 */
import { unreachable } from '../errors.js';
import type { Device, FieldTable } from './device.js';
import { NO_EVENTS } from './device.js';

export interface PciConfigState {
  address: number;
}

export type PciConfigEvent = { readonly type: 'pci.addressed'; readonly address: number };

export const PCI_EVENT_FIELDS = {
  'pci.addressed': ['address'],
} as const satisfies FieldTable<PciConfigEvent>;

export const PCI_PORT = 0xcf8;
/** Ports from PCI_PORT on. */
export const PCI = { ADDRESS: 0, DATA: 4 };

/** Enable bit, bus, device, function and register; bits 30:24 and 1:0 are zero. */
const ADDRESS_WRITABLE = 0x80ff_fffc;

export const PCI_CONFIG: Device<PciConfigState, PciConfigEvent> = {
  initial: () => ({ address: 0 }),
  reduce(state, event) {
    if (event.type !== 'pci.addressed') unreachable(event.type);
    state.address = event.address;
  },
  decideRead(state, register, size) {
    if (register === PCI.ADDRESS && size === 4) return { value: state.address, events: NO_EVENTS };
    return { value: 2 ** (size * 8) - 1, events: NO_EVENTS };
  },
  /** Only a 32-bit write reaches the address register; narrower ones pass to the bus. */
  decideWrite(state, register, value, size) {
    const address = (value & ADDRESS_WRITABLE) >>> 0;
    if (register !== PCI.ADDRESS || size !== 4 || address === state.address) return NO_EVENTS;
    return [{ type: 'pci.addressed', address }];
  },
  nextDeadline: () => undefined,
  decideDeadline: () => NO_EVENTS,
  interruptLine: () => false,
};

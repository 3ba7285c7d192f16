/**
 * Message-signalled interrupts: a device's write to FEE00000h–FEEFFFFFh is a message to local APICs.
 *
 * Address: destination in bits 19:12, redirection hint in bit 3, destination mode in bit 2. Data: vector in bits 7:0,
 * message type in bits 10:8, trigger mode in bit 15. With the redirection hint a fixed interrupt goes to one processor,
 * chosen as for lowest priority. A level-triggered message waits for no line to fall.
 *
 * Source: PCI Local Bus Specification 3.0, §6.8 Message Signaled Interrupts, for the write; Intel SDM vol.3 §11.11 Message
 * Signalled Interrupts, for its bits, which are AMD's as well (APM vol.2 §16.2 Interrupt Control).
 */
import { type ApicMessage, DELIVERY } from './local-apic-state.js';

const MESSAGE_SPACE = 0xfee;
const BROADCAST = 0xff;
const ADDRESS_HINT = 0x8;
const ADDRESS_LOGICAL = 0x4;
const DATA_LEVEL = 0x8000;

/** The message of a 32-bit write; undefined for an address that is none of the interrupt space. */
export function messageOfWrite(address: number, data: number): ApicMessage | undefined {
  if (address >>> 20 !== MESSAGE_SPACE) return undefined;
  const destination = (address >>> 12) & 0xff;
  const type = (data >> 8) & 7;
  const mode = type === DELIVERY.FIXED && (address & ADDRESS_HINT) !== 0 ? DELIVERY.LOWEST_PRIORITY : type;
  return {
    vector: data & 0xff,
    mode,
    level: mode <= DELIVERY.LOWEST_PRIORITY && (data & DATA_LEVEL) !== 0,
    logical: (address & ADDRESS_LOGICAL) !== 0,
    destination,
    broadcast: destination === BROADCAST,
    shorthand: 'none',
  };
}

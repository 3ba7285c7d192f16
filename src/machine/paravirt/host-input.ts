/**
 * What a host does to its guest: the inputs of a machine with KVM's interface, and which of them a machine can take.
 */
import type { MachineConfig } from '../config.js';
import { InputError } from '../errors.js';
import { PAGE_BYTES } from '../units.js';

export type HostInput =
  /** `bytes` bytes from `address` on, whole pages, are gone, or there again. */
  | {
      readonly type: 'input.pages';
      readonly address: number;
      readonly bytes: number;
      readonly present: boolean;
      /** Of pages that are gone: nanoseconds from an access until the page is there. 0 otherwise. */
      readonly latency: number;
    }
  /** The host ran something else: no vCPU did anything, and time went on. */
  | { readonly type: 'input.stolen'; readonly nanoseconds: number }
  /** The host stopped the guest for a while that the guest's time knows nothing of. */
  | { readonly type: 'input.paused' };

export type PagesInput = Extract<HostInput, { readonly type: 'input.pages' }>;

const TYPES: ReadonlySet<string> = new Set<HostInput['type']>(['input.pages', 'input.stolen', 'input.paused']);
export const isHostInput = (event: { readonly type: string }): event is HostInput => TYPES.has(event.type);

/** An hour: what a host takes is no longer than that, and virtual time stays exact. */
const LONGEST_NANOSECONDS = 3_600_000_000_000;
const isDuration = (nanoseconds: number): boolean =>
  Number.isSafeInteger(nanoseconds) && nanoseconds >= 1 && nanoseconds <= LONGEST_NANOSECONDS;

/** @throws InputError */
export function checkHostInput({ paravirt, ramBytes }: MachineConfig, input: HostInput): void {
  if (paravirt !== 'kvm') {
    throw new InputError(
      input.type,
      'bare hardware has no host that does such a thing',
      'Give --paravirt kvm with it.',
    );
  }
  if (input.type === 'input.stolen' && !isDuration(input.nanoseconds)) {
    throw new InputError(input.type, `${input.nanoseconds} ns are no time to steal`, 'Choose from 1 ns to one hour.');
  }
  if (input.type !== 'input.pages') return;
  const { address, bytes, present, latency } = input;
  const isWhole = [address, bytes].every((value) => Number.isSafeInteger(value) && value % PAGE_BYTES === 0);
  if (!isWhole || address < 0 || bytes < PAGE_BYTES || address + bytes > ramBytes) {
    const range = `${bytes} bytes from 0x${address.toString(16)}`;
    throw new InputError(input.type, `${range} are not whole pages of RAM`, 'Pages have 4096 bytes.');
  }
  if (!present && !isDuration(latency)) {
    throw new InputError(input.type, `a page cannot take ${latency} ns to come`, 'Choose from 1 ns to one hour.');
  }
}

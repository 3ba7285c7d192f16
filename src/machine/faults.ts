/**
 * Guest exceptions as data. A fault ends inside the guest: the evaluator throws it, the machine delivers it.
 * Source: APM vol.2 §8.2 Vectors.
 */

export const Vector = {
  DE: 0,
  DB: 1,
  NMI: 2,
  BP: 3,
  OF: 4,
  BR: 5,
  UD: 6,
  NM: 7,
  DF: 8,
  TS: 10,
  NP: 11,
  SS: 12,
  GP: 13,
  PF: 14,
  MF: 16,
  AC: 17,
  MC: 18,
  XF: 19,
  SX: 30,
} as const;

export const VECTOR_NAMES: Readonly<Record<number, string>> = Object.fromEntries(
  Object.entries(Vector).map(([name, vector]) => [vector, name === 'NMI' ? 'NMI' : `#${name}`]),
);

/**
 * An exception that the current instruction raises. Thrown by the evaluator and by the control plane, caught by the
 * machine; never seen outside `src/machine`. Not an `Error`: it has no stack to pay for.
 */
export class GuestFault {
  /** `linear` is the address that #PF writes to CR2. `payload` are the DR6 bits that #DB sets. */
  constructor(
    readonly vector: number,
    readonly errorCode?: number,
    readonly linear?: bigint,
    readonly dr6?: bigint,
  ) {}
}

export const invalidOpcode = (): GuestFault => new GuestFault(Vector.UD);
export const deviceNotAvailable = (): GuestFault => new GuestFault(Vector.NM);
export const generalProtection = (errorCode = 0): GuestFault => new GuestFault(Vector.GP, errorCode);
export const stackFault = (errorCode = 0): GuestFault => new GuestFault(Vector.SS, errorCode);
export const pageFault = (linear: bigint, errorCode: number): GuestFault =>
  new GuestFault(Vector.PF, errorCode, linear);

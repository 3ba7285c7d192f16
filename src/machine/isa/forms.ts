/**
 * Families of encodings that several instructions share, spelled in the notation of `InstructionSpec.forms`.
 * Source: APM vol.3 appendix A.1 Opcode Maps.
 */

/** An opcode byte as forms write it. */
export const hex = (byte: number): string => byte.toString(16).toUpperCase().padStart(2, '0');

/**
 * The ten encodings of ADD, OR, ADC, SBB, AND, SUB, XOR, CMP, in the order of `digit`.
 * @param lock `'[lock]'` when the instruction writes its destination.
 */
export function binaryForms(digit: number, lock: '[lock]' | ''): readonly string[] {
  const base = 8 * digit;
  return [
    `${hex(base)} /r: Eb, Gb ${lock}`,
    `${hex(base + 1)} /r: Ev, Gv ${lock}`,
    `${hex(base + 2)} /r: Gb, Eb`,
    `${hex(base + 3)} /r: Gv, Ev`,
    `${hex(base + 4)}: AL, Ib`,
    `${hex(base + 5)}: rAX, Iz`,
    `80 /${digit}: Eb, Ib ${lock}`,
    `81 /${digit}: Ev, Iz ${lock}`,
    `82 /${digit}: Eb, Ib ${lock} [i64]`,
    `83 /${digit}: Ev, Ibs ${lock}`,
  ];
}

/** Rotates and shifts by an immediate byte, by one, by CL. */
export function shiftForms(digit: number): readonly string[] {
  return [
    `C0 /${digit}: Eb, Ib`,
    `C1 /${digit}: Ev, Ib`,
    `D0 /${digit}: Eb, 1`,
    `D1 /${digit}: Ev, 1`,
    `D2 /${digit}: Eb, CL`,
    `D3 /${digit}: Ev, CL`,
  ];
}

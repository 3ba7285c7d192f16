/** Machine code that tests of many topics write: immediate loads, loops. */

/** Little-endian bytes of `value`, as hexadecimal text. */
const littleEndian = (value: bigint, bytes: number): string =>
  Array.from({ length: bytes }, (_, index) =>
    Number((value >> BigInt(8 * index)) & 0xffn)
      .toString(16)
      .padStart(2, '0'),
  ).join('');

/** MOV EAX, imm32. */
export const movEax = (value: number): string => `b8${littleEndian(BigInt(value >>> 0), 4)}`;
/** MOV ECX, imm32. */
export const movEcx = (value: number): string => `b9${littleEndian(BigInt(value >>> 0), 4)}`;
/** MOV EDX, imm32. */
const movEdx = (value: number): string => `ba${littleEndian(BigInt(value >>> 0), 4)}`;
/** MOV RAX, imm64. */
export const movRax = (value: bigint): string => `48b8${littleEndian(BigInt.asUintN(64, value), 8)}`;
/** WRMSR of `value`. */
export const wrmsr = (msr: number, value: bigint): string =>
  `${movEcx(msr)} ${movEax(Number(value & 0xffff_ffffn))} ${movEdx(Number(value >> 32n))} 0f30`;

/** INC EBX; CMP EBX, 40; JB over `body`; HLT behind it. */
export function loop(body: string): string {
  const code = body.replaceAll(' ', '');
  const back = BigInt(-(code.length / 2 + 2 + 3 + 6));
  return `${code} ffc3 83fb28 0f82${littleEndian(BigInt.asUintN(32, back), 4)} f4`;
}

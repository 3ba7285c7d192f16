/**
 * The next instruction, byte by byte through segmentation and paging: for what goes one at a time, and where the engine
 * gave up. Source: APM vol.2 §8.5 Priorities (fetch faults come before those of decoding).
 */
import { type Decoder, MAX_INSTRUCTION_BYTES } from '../decode/decode.js';
import type { CodeMode, DecodedInstruction } from '../decode/decoded.js';
import { GuestFault, generalProtection, invalidOpcode } from '../faults.js';
import { R, Segment } from '../layout/cpu-state.js';
import { sPA, uN } from '../units.js';
import { is64Bit, type SlotReader } from './mode.js';
import { checkSegment } from './segments.js';
import { Access, type Transaction } from './transaction.js';

/** An instruction pointer wraps at 32 bits outside of 64-bit mode. */
export const codeOffset = (cpu: SlotReader, rip: bigint): bigint => (is64Bit(cpu) ? uN(64, rip) : uN(32, rip));

/** @throws GuestFault of the fetch, #UD, or #GP for an instruction of more than 15 bytes. */
export function fetchInstruction(
  tx: Transaction,
  { decoder, codeMode }: { readonly decoder: Decoder; readonly codeMode: CodeMode },
): DecodedInstruction {
  const rip = tx.get(R.rip);
  const bytes = new Uint8Array(MAX_INSTRUCTION_BYTES);
  const access = Access.FETCH | (tx.get(R.cpl) === 3n ? Access.USER : 0);
  let length = 0;
  for (;;) {
    // One page at a time: the next is touched only when the instruction reaches into it.
    const linear = codeByteAt(tx, rip + BigInt(length));
    const start = length;
    const inPage = 4096 - Number(linear & 0xfffn);
    const end = Math.min(MAX_INSTRUCTION_BYTES, length + inPage);
    const address = tx.host.translate(tx, linear, access);
    for (; length < end; length++) {
      if (length > start && !insideCode(tx, rip + BigInt(length))) break;
      bytes[length] = Number(tx.readPhysical(sPA(address + length - start), 1));
    }
    const insn = decoder.decode(bytes.subarray(0, length), codeMode);
    if (typeof insn === 'object') return insn;
    if (insn === 'invalid') throw invalidOpcode();
    if (insn === 'too-long' || length >= MAX_INSTRUCTION_BYTES) throw generalProtection();
  }
}

/** Linear address of a byte of code. */
const codeByteAt = (tx: Transaction, rip: bigint): bigint =>
  checkSegment(tx, Segment.CS, codeOffset(tx, rip), 1, Access.FETCH);

function insideCode(tx: Transaction, rip: bigint): boolean {
  try {
    codeByteAt(tx, rip);
    return true;
  } catch (fault) {
    if (fault instanceof GuestFault) return false;
    throw fault;
  }
}

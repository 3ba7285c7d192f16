/**
 * Fetching the instruction at CS:rIP, with all exceptions that its bytes can raise.
 * Source: APM vol.2 §4.8 Code-Segment Descriptors, §8.2.13 #GP, §8.2.14 #PF; APM vol.3 §1.1 Instruction Encoding Overview.
 */
import { type Decoder, MAX_INSTRUCTION_BYTES } from '../decode/decode.js';
import type { CodeMode, DecodedInstruction } from '../decode/decoded.js';
import { GuestFault, generalProtection, invalidOpcode } from '../faults.js';
import { R, Segment } from '../layout/cpu-state.js';
import { sPA, uN } from '../units.js';
import { is64Bit, type SlotReader } from './mode.js';
import { checkSegment } from './segments.js';
import { Access, type Transaction } from './transaction.js';

/** How the bytes are to be read. */
export interface CodeReader {
  readonly decoder: Decoder;
  readonly codeMode: CodeMode;
}

/** An instruction pointer as the mode has it: 32 bits outside 64-bit mode. */
export const codeOffset = (cpu: SlotReader, rip: bigint): bigint => (is64Bit(cpu) ? uN(64, rip) : uN(32, rip));

/** @throws GuestFault of the fetch, #UD, or #GP for an instruction of more than 15 bytes. */
export function fetchInstruction(tx: Transaction, { decoder, codeMode }: CodeReader): DecodedInstruction {
  const rip = tx.get(R.rip);
  const bytes = new Uint8Array(MAX_INSTRUCTION_BYTES);
  const access = Access.FETCH | (tx.get(R.cpl) === 3n ? Access.USER : 0);
  let length = 0;
  for (;;) {
    // One page at a time: the next is touched only when the instruction reaches into it.
    const linear = checkSegment(tx, Segment.CS, codeOffset(tx, rip + BigInt(length)), 1, Access.FETCH);
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

function insideCode(tx: Transaction, rip: bigint): boolean {
  try {
    checkSegment(tx, Segment.CS, codeOffset(tx, rip), 1, Access.FETCH);
    return true;
  } catch (fault) {
    if (fault instanceof GuestFault) return false;
    throw fault;
  }
}

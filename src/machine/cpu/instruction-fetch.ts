/**
 * The instruction at CS:RIP: its bytes through segmentation and paging, and what the decoder makes of them.
 *
 * Decoding depends on nothing but the bytes and the code mode, so instructions are kept by where they lie, and one is
 * good for as long as the bytes there are its own: comparing them is all the invalidation that there is.
 * Source: APM vol.2 §8.2.7 #UD, §8.2.14 #GP (instructions of more than 15 bytes).
 */
import type { Decoder } from '../decode/decode.js';
import { type CodeMode, type DecodedInstruction, MAX_INSTRUCTION_BYTES } from '../decode/decoded.js';
import { GuestFault, generalProtection, invalidOpcode } from '../faults.js';
import { R, Segment } from '../layout/cpu-state.js';
import { RAM_BASE } from '../layout/linear-memory.js';
import type { PhysicalMemory } from '../mmu/memory.js';
import { offsetIn, PAGE_BYTES, type SPA, sPA, u64, uN } from '../units.js';
import { is64Bit, type SlotReader } from './mode.js';
import { checkSegment } from './segments.js';
import { Access, type Transaction } from './transaction.js';

/** Places for decoded instructions, by address; a power of two. */
const PLACES = 0x2000;

interface Kept {
  readonly address: SPA;
  readonly mode: number;
  readonly insn: DecodedInstruction;
}

export class InstructionFetch {
  private readonly kept: (Kept | undefined)[] = new Array(PLACES).fill(undefined);

  constructor(
    private readonly memory: PhysicalMemory,
    private readonly decoder: Decoder,
  ) {}

  /** @throws GuestFault of the fetch, #UD, or #GP for an instruction of more than 15 bytes; NestedPageFault. */
  fetch(tx: Transaction, mode: CodeMode): DecodedInstruction {
    const offset = codeOffset(tx, tx.get(R.rip));
    const address = fetchAddress(tx, offset);
    const place = placeOf(address);
    const known = this.kept[place];
    if (known !== undefined && known.address === address && known.mode === keyOf(mode)) {
      const { bytes, length } = known.insn;
      if (this.hasBytes(address, bytes) && (length === 1 || isInsideCode(tx, offset, length))) return known.insn;
    }
    const insn = this.decode(tx, address, mode);
    if (offsetIn(address) + insn.length <= PAGE_BYTES) this.kept[place] = { address, mode: keyOf(mode), insn };
    return insn;
  }

  private hasBytes(address: SPA, bytes: Uint8Array): boolean {
    const { memory } = this;
    if (!memory.isRam(address, bytes.length)) return false;
    const at = RAM_BASE + address;
    for (let index = 0; index < bytes.length; index++) if (memory.bytes[at + index] !== bytes[index]) return false;
    return true;
  }

  /** One page at a time: the next is touched only when the instruction reaches into it. */
  private decode(tx: Transaction, first: SPA, mode: CodeMode): DecodedInstruction {
    const rip = tx.get(R.rip);
    const bytes = new Uint8Array(MAX_INSTRUCTION_BYTES);
    let address = first;
    let length = 0;
    for (;;) {
      const start = length;
      const end = Math.min(MAX_INSTRUCTION_BYTES, start + PAGE_BYTES - offsetIn(address));
      for (; length < end; length++) {
        if (length > start && !isInsideCode(tx, codeOffset(tx, rip + BigInt(length)), 1)) break;
        bytes[length] = Number(tx.readPhysical(sPA(address + length - start), 1));
      }
      const insn = this.decoder.decode(bytes.subarray(0, length), mode);
      if (typeof insn === 'object') return insn;
      if (insn === 'invalid') throw invalidOpcode();
      if (insn === 'too-long' || length >= MAX_INSTRUCTION_BYTES) throw generalProtection();
      address = fetchAddress(tx, codeOffset(tx, rip + BigInt(length)));
    }
  }
}

const keyOf = ({ bits, real }: CodeMode): number => bits | (real ? 1 : 0);
const placeOf = (address: number): number => (address ^ Math.floor(address / PAGE_BYTES)) & (PLACES - 1);

/** RIP as the offset in CS that it is: 32 bits outside 64-bit mode. */
export const codeOffset = (cpu: SlotReader, rip: bigint): bigint => (is64Bit(cpu) ? u64(rip) : uN(32, rip));

/** @throws GuestFault, NestedPageFault: one byte is fetched. */
function fetchAddress(tx: Transaction, offset: bigint): SPA {
  const linear = checkSegment(tx, Segment.CS, offset, 1, Access.FETCH);
  return tx.host.translate(tx, linear, Access.FETCH | (tx.get(R.cpl) === 3n ? Access.USER : 0));
}

function isInsideCode(tx: Transaction, offset: bigint, length: number): boolean {
  try {
    checkSegment(tx, Segment.CS, offset, length, Access.FETCH);
    return true;
  } catch (fault) {
    if (fault instanceof GuestFault) return false;
    throw fault;
  }
}

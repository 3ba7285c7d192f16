/**
 * The guests that a recording has: every VMCB that is used on it, with the ASID and nCR3 that it has at the end. They are read
 * off the last checkpoint, and off the events after it.
 */
import type { JournalReader } from '../journal/index.js';
import { decodeVmcbDelta, VMCB, vmcbWord } from '../machine/index.js';
import { decodePoint } from './point-codec.js';
import type { Work } from './work.js';

export interface RecordedGuest {
  /** sPA of the VMCB. */
  readonly vmcb: number;
  readonly asid: number;
  readonly nCR3: bigint;
}

const ASID_WORD = VMCB.fields.guestASID.offset / 8;
const NCR3_WORD = VMCB.fields.nCR3.offset / 8;

/** In the order of their addresses. What is only used by VMLOAD and VMSAVE, or has ASID 0, is no guest. */
export function* recordedGuests(reader: JournalReader): Work<readonly RecordedGuest[]> {
  const words = new Map<number, { asid: bigint; nCR3: bigint }>();
  const entry = reader.checkpoints().at(-1);
  const checkpoint = entry && reader.checkpoint(entry.id);
  if (checkpoint !== undefined) {
    for (const [address, known] of Object.entries(decodePoint(checkpoint.state).state.vmcbs)) {
      words.set(Number(address), { asid: vmcbWord(known, ASID_WORD), nCR3: vmcbWord(known, NCR3_WORD) });
    }
  }
  const first = checkpoint?.position.seq ?? 0n;
  for (const chunk of first >= reader.end.seq ? [] : reader.chunks(first)) {
    for (const { event, position } of reader.recordsOfChunk(chunk)) {
      if (position.seq < first || !('words' in event)) continue;
      const known = words.get(event.vmcb) ?? { asid: 0n, nCR3: 0n };
      for (const [word, value] of decodeVmcbDelta(event.words)) {
        if (word === ASID_WORD) known.asid = value;
        else if (word === NCR3_WORD) known.nCR3 = value;
      }
      words.set(event.vmcb, known);
    }
    yield chunk.end;
  }
  return [...words]
    .map(([vmcb, { asid, nCR3 }]) => ({ vmcb, asid: Number(BigInt.asUintN(32, asid)), nCR3 }))
    .filter(({ asid }) => asid !== 0)
    .sort((a, b) => a.vmcb - b.vmcb);
}

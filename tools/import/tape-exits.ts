/** The #VMEXITs of a tape in order, as a log tells of exits: EXITCODE, EXITINFO1 and the guest's RIP. */
import { type JournalReader, type Position, selectRecords } from '../../src/journal/index.js';
import { decodeVmcbDelta, type EventOf, VMCB } from '../../src/machine/index.js';

export interface TapeExit {
  /** The boundary before it. */
  readonly position: Position;
  readonly vcpu: number;
  readonly code: bigint;
  readonly info1: bigint;
  /** Undefined until the VMCB's RIP was written once on the tape. */
  readonly rip: bigint | undefined;
}

const RIP_WORD = VMCB.fields.rip.offset / 8;

/** @param from where to begin. RIP follows from what the tape has of VMCBs from there on. */
export function* tapeExits(reader: JournalReader, from: Position = reader.start): Generator<TapeExit, void, void> {
  const rips = new Map<number, bigint>();
  const note = ({ vmcb, words }: Pick<EventOf<'svm.vmexit'>, 'vmcb' | 'words'>): void => {
    for (const [word, value] of decodeVmcbDelta(words)) if (word === RIP_WORD) rips.set(vmcb, value);
  };
  const kinds = ['svm.vmrun', 'svm.vmexit'];
  for (const { event, position, retired, vcpu } of selectRecords(reader, { kinds, fromSeq: from.seq })) {
    if (event.type !== 'svm.vmrun' && event.type !== 'svm.vmexit') continue;
    note(event);
    if (event.type === 'svm.vmrun') continue;
    const { code, info1, vmcb } = event;
    const boundary = { icount: position.icount - BigInt(retired), seq: position.seq };
    yield { position: boundary, vcpu, code, info1, rip: rips.get(vmcb) };
  }
}

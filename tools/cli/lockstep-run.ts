/** `vmtape bisect TAPE --other COMMAND`: the tape in lockstep with another machine. */
import pc from 'picocolors';
import { sqliteStore } from '../../src/journal/index.js';
import { Lockstep } from '../lockstep/lockstep.js';
import { lockstepDocument, lockstepHtml, lockstepJunit, lockstepPage } from '../lockstep/page.js';
import { Peer } from '../lockstep/peer.js';
import { QemuMachine } from '../lockstep/qemu-machine.js';
import { Status } from './failure.js';
import { grouped } from './format.js';
import { ReportFiles, type ReportFlags } from './report-file.js';
import type { Terminal } from './terminal.js';

export interface OtherFlags extends ReportFlags {
  /** A command line that speaks the lockstep interface, or `qemu`. */
  readonly other: string;
  readonly maxInstructions?: number | undefined;
  readonly strict?: boolean | undefined;
  readonly memory?: boolean | undefined;
}

const PROGRESS_MILLISECONDS = 250;

/** @returns the exit status. */
export async function lockstepRun(tape: string, flags: OtherFlags, terminal: Terminal): Promise<number> {
  const { other, maxInstructions, strict = false, memory = false } = flags;
  const files = new ReportFiles(flags);
  const reader = sqliteStore(tape).read();
  let told = performance.now();
  const tick = (icount: bigint): void => {
    if (!terminal.showsStatus || performance.now() - told < PROGRESS_MILLISECONDS) return;
    told = performance.now();
    terminal.status(`in lockstep: the same for ${grouped(icount)} instructions`);
  };
  // QEMU is driven from within this process: it is asked twice an instruction.
  const start = (): Peer => (other === 'qemu' ? Peer.local(other, new QemuMachine()) : Peer.command(other));
  try {
    const most = maxInstructions === undefined ? undefined : BigInt(maxInstructions);
    terminal.status(`starting ${other}`);
    const result = await new Lockstep(reader, start, { most, strict, memory, tick }).run();
    terminal.clearStatus();
    files.write({
      html: () => lockstepHtml(tape, result, reader),
      junit: () => lockstepJunit(tape, result, pc.createColors(false)),
    });
    if (terminal.json) await terminal.document(lockstepDocument(tape, result));
    else await terminal.print(lockstepPage(tape, result, terminal.colors));
    return result.differs === undefined ? Status.DONE : Status.NO;
  } finally {
    reader.close();
  }
}

/** `vmtape verify TAPE`: checks the file alone. */
import type { Command } from 'commander';
import { formatPosition, verifyTape } from '../../../src/journal/index.js';
import { command, terminalOf } from '../command.js';
import { Status } from '../failure.js';
import { plural } from '../format.js';

export function verifyCommand(program: Command): void {
  command(
    program,
    'verify',
    'checks the file alone: hash chain, digests, pages, references',
    'vmtape verify guest.vmtape',
  )
    .argument('<tape>')
    .action(async (tape: string, _options: object, self: Command) => {
      process.exitCode = await verify(tape, self);
    });
}

async function verify(tape: string, self: Command): Promise<number> {
  const terminal = terminalOf(self);
  const { damage, state, end, chunks, digests, blobs, checkpoints, readableTo } = verifyTape(tape);
  const whole = damage.length === 0;
  if (terminal.json) {
    await terminal.document({
      ...{
        tape,
        whole,
        state,
        end: formatPosition(end),
        chunks,
        digests,
        blobs,
        checkpoints,
        readableTo: formatPosition(readableTo),
      },
      damage: damage.map(({ message, place: { readableTo: to, ...place } }) => ({
        ...place,
        ...(to === undefined ? {} : { readableTo: formatPosition(to) }),
        message,
      })),
    });
  } else {
    for (const { message } of damage) process.stderr.write(`vmtape: ${message}\n`);
    const sum = `${plural(end.seq, 'event')} in ${plural(chunks, 'chunk')}, ${plural(digests, 'digest')}, ${plural(blobs, 'blob')}, ${plural(checkpoints, 'checkpoint')}`;
    if (whole && !terminal.quiet) await terminal.print([`${tape}: whole, ${STATES[state]}; ${sum}`]);
    if (!whole) terminal.say(`vmtape: ${tape}: ${plural(damage.length, 'damaged place')}; ${sum}`);
  }
  return whole ? Status.DONE : Status.DAMAGED;
}

const STATES = {
  complete: 'complete',
  recording: 'still being recorded, checked up to its last committed group',
  cut: 'cut: its recording was killed or failed, and all that was committed is good',
} as const;

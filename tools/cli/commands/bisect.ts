/** `vmtape bisect`: where two sessions part, how, by which decision, and why. */
import type { Command } from 'commander';
import { type JournalReader, type Position, sqliteStore } from '../../../src/journal/index.js';
import { type Bisection, bisect, Side } from '../../../src/replay/index.js';
import { bisectionDocument } from '../../bisect/document.js';
import { page } from '../../bisect/page.js';
import { command, terminalOf } from '../command.js';
import { Status, UsageError } from '../failure.js';
import { shortCount } from '../format.js';
import type { Terminal } from '../terminal.js';

interface BisectFlags {
  readonly search?: string;
}

const PROGRESS_MILLISECONDS = 250;

export function bisectCommand(program: Command): void {
  command(
    program,
    'bisect',
    'the first transition in which two sessions differ, explained',
    'vmtape bisect good.vmtape bad.vmtape',
  )
    .argument('<tapes...>', 'two')
    .action(async (tapes: readonly string[], flags: BisectFlags, self: Command) => {
      process.exitCode = await bisectTapes(tapes, flags, terminalOf(self));
    });
}

async function bisectTapes(tapes: readonly string[], _flags: BisectFlags, terminal: Terminal): Promise<number> {
  const [first, second, tooMany] = tapes;
  if (first === undefined || second === undefined) throw new UsageError('vmtape bisect: give two tapes.');
  if (tooMany !== undefined)
    throw new UsageError(`vmtape bisect: two tapes are compared, and ${tooMany} is left over.`);
  const readers: JournalReader[] = [];
  try {
    const open = (tape: string): Side => {
      const reader = sqliteStore(tape).read();
      readers.push(reader);
      return new Side(tape, reader, progress(terminal, `running ${tape}`));
    };
    const sides = [open(first), open(second)] as const;
    const bisection = bisect(sides, {
      leniency: { hostSaveArea: false },
      searchesPolicies: false,
      doing: (what) => terminal.status(what),
    });
    for (const side of sides) side.close();
    terminal.clearStatus();
    if (terminal.json) await terminal.document(bisectionDocument(bisection, [first, second]));
    else await terminal.print(page(bisection, [first, second], terminal.colors));
    return statusOf(bisection);
  } finally {
    for (const reader of readers) reader.close();
  }
}

const statusOf = ({ kind }: Bisection): number => (kind === 'same' ? Status.DONE : Status.NO);

function progress(terminal: Terminal, doing: string): { readonly tick: (at: Position) => boolean } {
  let told = performance.now();
  return {
    tick: ({ icount }) => {
      if (!terminal.showsStatus || performance.now() - told < PROGRESS_MILLISECONDS) return false;
      told = performance.now();
      terminal.status(`${doing}: at ${shortCount(Number(icount))} instructions`);
      return false;
    },
  };
}

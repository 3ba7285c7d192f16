/** `vmtape log TAPE`: events, a line each. */
import type { Command } from 'commander';
import {
  formatPosition,
  type JournalReader,
  type JournalRecord,
  payloadJson,
  type RecordFilter,
  selectRecords,
  sqliteStore,
} from '../../../src/journal/index.js';
import { isInput } from '../../../src/machine/index.js';
import { eventText, resolvePosition } from '../../../src/replay/index.js';
import { type LevelSymbols, levelAfter, ripAfter } from '../../symbols/level-symbols.js';
import { loadSymbols, symbolsOption } from '../../symbols/load.js';
import type { SymbolSource } from '../../symbols/source.js';
import { parseCount, parseLevel } from '../arguments.js';
import { command, terminalOf } from '../command.js';
import { pad } from '../format.js';
import type { Colors } from '../terminal.js';

interface LogOptions {
  readonly kind?: string;
  readonly level?: 1 | 2;
  readonly from?: string;
  readonly to?: string;
  readonly limit?: number;
  readonly symbols?: readonly SymbolSource[];
}

export function logCommand(program: Command): void {
  const log = command(
    program,
    'log',
    'events, a line each',
    "vmtape log guest.vmtape --kind 'svm.*' --limit 20",
    "vmtape log guest.vmtape --from 'vmexit:npf[0]' --json",
    'vmtape log linux.vmtape --symbols ram --kind svm.vmexit --limit 20',
  );
  symbolsOption(log)
    .argument('<tape>')
    .option('--kind <glob>', 'only kinds that match, such as cpu.exception or svm.*')
    .option('--level <level>', 'only events of L1, or of L2', parseLevel)
    .option('--from <pos>', 'from there on')
    .option('--to <pos>', 'up to there')
    .option('--limit <n>', 'at most so many lines', (text) => parseCount(text, '--limit', 1))
    .action(async (tape: string, options: LogOptions, self: Command) => {
      const terminal = terminalOf(self);
      const reader = sqliteStore(tape).read();
      try {
        const symbols = loadSymbols(reader, options.symbols);
        let left = options.limit ?? Number.POSITIVE_INFINITY;
        for (const record of selectRecords(reader, filterOf(reader, options))) {
          await terminal.line(
            terminal.json ? recordJson(record, symbols) : recordLine(record, symbols, terminal.colors),
          );
          if (--left <= 0) break;
        }
        await terminal.flush();
      } finally {
        reader.close();
      }
    });
}

const filterOf = (reader: JournalReader, { kind, level, from, to }: LogOptions): RecordFilter => ({
  kind,
  level,
  fromSeq: from === undefined ? undefined : resolvePosition(reader, from).seq,
  toSeq: to === undefined ? undefined : resolvePosition(reader, to).seq,
});

const SEQ_COLUMNS = 9;
const ICOUNT_COLUMNS = 12;

/** `#seq`, the instruction count after the event, the event. The guest's lines stand further right than its hypervisor's. */
function recordLine(record: JournalRecord, symbols: LevelSymbols, colors: Colors): string {
  const { seq, icount } = record.position;
  const place = `${pad(`#${seq}`, SEQ_COLUMNS, 'right')} ${pad(String(icount), ICOUNT_COLUMNS, 'right')}`;
  const indent = record.level === 2 ? '    ' : '';
  const text = symbols.inEvent(eventText(record), record.event, record.level);
  return `${colors.dim(place)}  ${indent}${colorOf(record, colors)(text)}`;
}

function colorOf({ event }: JournalRecord, colors: Colors): (text: string) => string {
  const { type } = event;
  if (isInput(event)) return colors.green;
  if (type === 'svm.vmexit') return colors.yellow;
  if (type.startsWith('svm.')) return colors.cyan;
  if (type === 'cpu.exception' || type === 'cpu.shutdown' || type === 'machine.ended') return colors.red;
  if (type === 'cpu.ran') return colors.dim;
  return type.startsWith('cpu.') ? (text) => text : colors.magenta;
}

/** `position` is that of the boundary before the event, as commands take it; `icount` that after it, `symbol` where the vCPU goes on then. */
function recordJson(
  { position: { icount, seq }, retired, vcpu, level, event }: JournalRecord,
  symbols: LevelSymbols,
): string {
  const before = formatPosition({ icount: icount - BigInt(retired), seq });
  const symbol = symbols.textOf(levelAfter(event, level), ripAfter(event));
  const envelope = {
    position: before,
    seq: String(seq),
    icount: String(icount),
    vcpu,
    level,
    retired,
    kind: event.type,
    ...(symbol === undefined ? {} : { symbol }),
  };
  return `${JSON.stringify(envelope).slice(0, -1)},"payload":${payloadJson(event)}}`;
}

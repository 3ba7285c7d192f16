/** `vmtape timeline TAPE`: lanes for each vCPU and level, on a terminal, as a page or as a picture. */
import { writeFileSync } from 'node:fs';
import type { Command } from 'commander';
import { formatPosition, type JournalReader, sqliteStore } from '../../../src/journal/index.js';
import { resolvePosition } from '../../../src/replay/index.js';
import { NewFile } from '../../export/new-file.js';
import { loadSymbols, symbolsOption } from '../../symbols/load.js';
import type { SymbolSource } from '../../symbols/source.js';
import { HTML_BINS, HTML_MARKS, htmlTimeline } from '../../timeline/html.js';
import { type ModelOptions, type TimelineModel, timelineModel } from '../../timeline/model.js';
import { SVG_BINS, svgTimeline } from '../../timeline/svg.js';
import { LABEL_COLUMNS, terminalBins, terminalTimeline } from '../../timeline/terminal.js';
import { command, terminalOf } from '../command.js';
import { UsageError } from '../failure.js';
import { byteSize, shortCount } from '../format.js';
import type { Terminal } from '../terminal.js';

interface TimelineOptions {
  readonly from?: string;
  readonly to?: string;
  readonly html?: string;
  readonly svg?: string;
  readonly symbols?: readonly SymbolSource[];
}

const COLUMNS_WITHOUT_TERMINAL = 100;

export function timelineCommand(program: Command): void {
  const drawing = command(
    program,
    'timeline',
    'lanes for each vCPU and level: on the terminal, as an HTML page, or as SVG',
    'vmtape timeline guest.vmtape',
    "vmtape timeline guest.vmtape --from 'vmrun[0]' --html guest.html",
    'vmtape timeline linux.vmtape --html linux.html --symbols ram',
  );
  symbolsOption(drawing)
    .argument('<tape>')
    .option('--from <pos>', 'from there on')
    .option('--to <pos>', 'up to there')
    .option('--html <file>', 'a page to zoom and click in, which needs nothing else')
    .option('--svg <file>', 'a picture for documents')
    .action(async (tape: string, options: TimelineOptions, self: Command) => {
      if (options.html !== undefined && options.svg !== undefined) {
        throw new UsageError('--html and --svg: give one of them.');
      }
      if (options.symbols !== undefined && options.html === undefined) {
        throw new UsageError('--symbols names places on the page of --html. Give that, too.');
      }
      const reader = sqliteStore(tape).read();
      try {
        await timeline(tape, reader, options, terminalOf(self));
      } finally {
        reader.close();
      }
    });
}

async function timeline(
  tape: string,
  reader: JournalReader,
  options: TimelineOptions,
  terminal: Terminal,
): Promise<void> {
  const from = resolvePosition(reader, options.from ?? 'start');
  const to = resolvePosition(reader, options.to ?? 'end');
  if (to.icount < from.icount || to.seq < from.seq) {
    throw new UsageError(`--to ${formatPosition(to)} lies before --from ${formatPosition(from)}. Swap them.`);
  }
  const { html, svg } = options;
  const symbols = loadSymbols(reader, options.symbols);
  const model = (size: Omit<ModelOptions, 'from' | 'to' | 'symbols'>) =>
    modelOf(reader, { from, to, symbols, ...size }, terminal);
  const path = html ?? svg;
  if (path !== undefined) {
    const file = new NewFile(path);
    const drawn =
      html === undefined
        ? svgTimeline(tape, await model({ bins: SVG_BINS }))
        : htmlTimeline(tape, await model({ bins: HTML_BINS, marks: HTML_MARKS }));
    try {
      writeFileSync(file.path, drawn);
      const bytes = file.finish();
      if (terminal.json) await terminal.document({ tape, file: path, bytes });
      else terminal.say(`vmtape: ${path}, ${byteSize(bytes)}`);
    } catch (error) {
      file.abandon();
      throw error;
    }
    return;
  }
  const columns = process.stdout.columns ?? COLUMNS_WITHOUT_TERMINAL;
  const drawn = await model({ bins: terminalBins(columns, LABEL_COLUMNS) });
  if (terminal.json) await terminal.document(modelDocument(tape, drawn));
  else await terminal.print(terminalTimeline(tape, drawn, terminal.colors));
}

async function modelOf(reader: JournalReader, options: ModelOptions, terminal: Terminal): Promise<TimelineModel> {
  const work = timelineModel(reader, options);
  for (;;) {
    const { done, value } = work.next();
    if (done === true) {
      terminal.clearStatus();
      return value;
    }
    terminal.status(`read ${shortCount(Number(value))} events`);
  }
}

const modelDocument = (tape: string, { from, to, bins, activities, lanes }: TimelineModel): object => ({
  ...{ tape, from: formatPosition(from), to: formatPosition(to), bins },
  activities: activities.map(({ instructions, ...activity }) => ({ ...activity, instructions: [...instructions] })),
  lanes: lanes.map(({ series, ...lane }) => ({
    ...lane,
    series: series.map(({ counts, ...each }) => ({ ...each, counts: [...counts] })),
  })),
});

/** What the commands on hypervisors' logs say of the log itself, and while they read it. */
import type { LogReader } from '../import/log-reader.js';
import { byteSize, plural } from './format.js';
import type { Colors, Terminal } from './terminal.js';

const PROGRESS_MILLISECONDS = 250;

/** Called now and then: how far a log is read. */
export function logProgress(log: LogReader, terminal: Terminal, doing: string): () => void {
  let told = performance.now();
  return () => {
    if (!terminal.showsStatus || performance.now() - told < PROGRESS_MILLISECONDS) return;
    told = performance.now();
    const { bytes, lines } = log.counts;
    const of = log.size > 0 ? ` of ${byteSize(log.size)}` : '';
    terminal.status(`${doing}: ${byteSize(bytes)}${of}, ${plural(lines, 'line')}`);
  };
}

/** What was read, for programs. */
export function logSummary({ counts }: LogReader): Readonly<Record<string, unknown>> {
  const { lines, events, unparsed, unparsedLines, gaps, dialects } = counts;
  return { lines, events, gaps, dialects: [...dialects], unparsed, unparsedLines };
}

/** The same for people. */
export function logLines({ counts }: LogReader, { bold, dim, yellow }: Colors): readonly string[] {
  const { lines, events, unparsed, unparsedLines, gaps, dialects } = counts;
  const lost = gaps === 0 ? '' : `, ${plural(gaps, 'gap')}`;
  const read = `${[...dialects].join(' and ')}: ${plural(lines, 'line')}, ${plural(events, 'event')} about exits${lost}`;
  const more = unparsed - unparsedLines.length;
  return [
    '',
    dim(read),
    ...(unparsed === 0 ? [] : [bold(yellow(`${plural(unparsed, 'line')} not understood:`))]),
    ...unparsedLines.map(({ line, text }) => `  ${line}: ${text}`),
    ...(more > 0 ? [`  and ${more} more`] : []),
  ];
}

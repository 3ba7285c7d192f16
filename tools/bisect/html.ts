/** What a comparison found as one HTML file that needs nothing else: the report, and sessions' timelines around the place. */
import type { JournalReader, Position } from '../../src/journal/index.js';
import type { Bisection, Pair } from '../../src/replay/index.js';
import type { Colors } from '../cli/terminal.js';
import { timelineModel } from '../timeline/model.js';
import { svgTimeline } from '../timeline/svg.js';
import { headline, type Names, page, type Section, sections } from './page.js';

/** Events before and after the place that are drawn. */
const AROUND = 400n;
const BINS = 240;

export function bisectionPage(bisection: Bisection, names: Names, readers: Pair<JournalReader>, plain: Colors): string {
  const title = headline(bisection, names);
  if (bisection.kind !== 'differs') {
    return htmlPage(title, [{ heading: '', lines: page(bisection, names, plain) }], []);
  }
  const { place, placeOnSecond } = bisection;
  const drawings = [drawing(names[0], readers[0], place), drawing(names[1], readers[1], placeOnSecond)];
  return htmlPage(title, sections(bisection, names), drawings);
}

/** @param drawings HTML; they stand behind the first section. */
export function htmlPage(title: string, told: readonly Section[], drawings: readonly string[]): string {
  const body = told
    .filter(({ lines }) => lines.length > 0)
    .map(({ heading, lines }) => {
      const text = `<pre>${escaped(lines.join('\n'))}</pre>`;
      return heading === '' ? text : `<h2>${escaped(heading)}</h2>\n${text}`;
    });
  return `<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<title>${escaped(title)}</title>
<style>${STYLE}</style>
</head>
<body>
<h1>${escaped(title)}</h1>
${[...body.slice(0, 1), ...drawings, ...body.slice(1)].join('\n')}
</body>
</html>
`;
}

/** One session around a place, which is in the middle where there is enough on both sides. @returns HTML. */
export function drawing(name: string, reader: JournalReader, place: Position): string {
  const { start, end } = reader;
  const from = boundaryAt(reader, place.seq - AROUND > start.seq ? place.seq - AROUND : start.seq);
  const to = boundaryAt(reader, place.seq + AROUND < end.seq ? place.seq + AROUND : end.seq);
  const work = timelineModel(reader, { from, to, bins: BINS });
  let next = work.next();
  while (next.done !== true) next = work.next();
  const share = Number(place.icount - from.icount) / Math.max(1, Number(to.icount - from.icount));
  const words = `the place stands ${(100 * Math.min(1, share)).toFixed(0)} % from the left`;
  return `<figure>${svgTimeline(name, next.value)}<figcaption>${escaped(`${name}: ${words}`)}</figcaption></figure>`;
}

function boundaryAt(reader: JournalReader, seq: bigint): Position {
  if (seq <= reader.start.seq) return reader.start;
  const record = reader.records(seq).next().value;
  return record ? { icount: record.position.icount - BigInt(record.retired), seq } : reader.end;
}

const escaped = (text: string): string => text.replace(/[&<>"]/g, (character) => `&#${character.codePointAt(0)};`);

const STYLE = `
body { font: 14px sans-serif; margin: 1em; color: #222; }
h1 { font-size: 17px; } h2 { font-size: 14px; margin-bottom: 4px; }
pre { background: #f4f4f4; padding: 6px 8px; overflow-x: auto; margin: 0; }
figure { margin: 1em 0; overflow-x: auto; } figcaption { color: #777; }
`;

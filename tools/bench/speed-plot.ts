/** The figures of the speed bench as one SVG file: for each guest a bar for each way to run it, on a logarithmic axis. */
import type { SpeedResult } from './speed-columns.js';

/** Pixels. */
const WIDTH = 1000;
const LABELS = 190;
const VALUES = 60;
const BAR = 11;
const GAP = 14;
const HEAD = 62;
const LEGEND_COLUMNS = 5;
const LEGEND_ROW = 18;

/** Million instructions a second at the ends of the axis: no machine of these is slower or faster. */
const LEAST = 1;
const MOST = 4096;

const COLOURS: Readonly<Record<string, readonly string[]>> = {
  vmtape: ['#0b5fa5', '#3c8fd0', '#7fbce8', '#1b9e77', '#66c2a5', '#a6dbc8'],
  QEMU: ['#b3590a', '#e08a3c', '#f2be8c'],
  Bochs: ['#7b3294'],
};

/** @param about the host, for the subtitle. */
export function speedPlot(results: readonly SpeedResult[], about: string): string {
  const names = results[0]?.columns.map(({ name }) => name) ?? [];
  const colours = coloursOf(results[0]?.columns ?? []);
  const legendRows = Math.ceil(names.length / LEGEND_COLUMNS);
  const top = HEAD + legendRows * LEGEND_ROW;
  const groups: string[] = [];
  let y = top + GAP;
  for (const { guest, instructions, columns } of results) {
    groups.push(text(LABELS - 10, y + (columns.length * BAR) / 2 + 4, guest, 'text-anchor="end"'));
    for (const { name, seconds } of columns) {
      if (seconds !== undefined) groups.push(bar(y, instructions / seconds / 1e6, colours.get(name) ?? '#000'));
      y += BAR;
    }
    y += GAP;
  }
  const title = 'Million guest instructions a second';
  return [
    `<svg xmlns="http://www.w3.org/2000/svg" width="${WIDTH}" height="${y + 10}" viewBox="0 0 ${WIDTH} ${y + 10}" font-family="sans-serif" font-size="12">`,
    `<title>${title}</title>`,
    '<rect width="100%" height="100%" fill="#fff"/>',
    text(8, 20, title, 'font-weight="bold"'),
    text(8, 38, about, 'fill="#777" font-size="11"'),
    ...names.map((name, index) => legend(name, colours.get(name) ?? '#000', index)),
    ...axis(top, y),
    ...groups,
    '</svg>',
    '',
  ].join('\n');
}

function coloursOf(columns: SpeedResult['columns']): ReadonlyMap<string, string> {
  const used = new Map<string, number>();
  return new Map(
    columns.map(({ name, program }) => {
      const number = used.get(program) ?? 0;
      used.set(program, number + 1);
      const palette = COLOURS[program] as readonly string[];
      return [name, palette[number % palette.length] as string];
    }),
  );
}

/** Where a rate stands on the axis. */
function xOf(rate: number): number {
  const part = Math.log2(Math.min(MOST, Math.max(LEAST, rate)) / LEAST) / Math.log2(MOST / LEAST);
  return LABELS + part * (WIDTH - LABELS - VALUES);
}

function axis(top: number, bottom: number): readonly string[] {
  const lines: string[] = [];
  for (let rate = LEAST; rate <= MOST; rate *= 4) {
    const x = xOf(rate).toFixed(1);
    lines.push(`<line x1="${x}" y1="${top}" x2="${x}" y2="${bottom}" stroke="#ddd"/>`);
    lines.push(text(Number(x), top - 4, String(rate), 'text-anchor="middle" fill="#777" font-size="11"'));
  }
  return lines;
}

function bar(y: number, rate: number, colour: string): string {
  const end = xOf(rate);
  const label = rate < 10 ? rate.toFixed(1) : rate.toFixed(0);
  return (
    `<rect x="${LABELS}" y="${y}" width="${(end - LABELS).toFixed(1)}" height="${BAR - 1}" fill="${colour}"/>` +
    text(end + 4, y + BAR - 2, label, 'font-size="10" fill="#555"')
  );
}

function legend(name: string, colour: string, index: number): string {
  const x = 8 + (index % LEGEND_COLUMNS) * ((WIDTH - 16) / LEGEND_COLUMNS);
  const y = 56 + Math.floor(index / LEGEND_COLUMNS) * LEGEND_ROW;
  return `<rect x="${x}" y="${y - 9}" width="10" height="10" fill="${colour}"/>${text(x + 15, y, name)}`;
}

const text = (x: number, y: number, content: string, attributes = ''): string =>
  `<text x="${Number(x.toFixed(1))}" y="${Number(y.toFixed(1))}"${attributes === '' ? '' : ` ${attributes}`}>${escaped(content)}</text>`;

const escaped = (content: string): string =>
  content.replaceAll('&', '&amp;').replaceAll('<', '&lt;').replaceAll('>', '&gt;');

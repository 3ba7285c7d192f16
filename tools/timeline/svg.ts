/** The timeline as one SVG file, for documents. */
import { grouped } from '../cli/format.js';
import { activityLabel, LEVEL_COLOURS, laneLabel, seriesColour, tickStep } from './labels.js';
import type { EventLane, TimelineModel } from './model.js';

/** Pixels. */
const WIDTH = 1200;
const LABELS = 130;
const SUMS = 90;
const ROW = 26;
const BAR = 20;
const HEAD = 54;
const LEGEND_ROW = 18;
export const SVG_BINS = (WIDTH - LABELS - SUMS) / 2;
const BIN = (WIDTH - LABELS - SUMS) / SVG_BINS;

export function svgTimeline(tape: string, model: TimelineModel): string {
  const { activities, lanes, bins, from, to } = model;
  const vcpus = new Set(activities.map(({ vcpu }) => vcpu)).size;
  const scale = (SVG_BINS / bins) * BIN;
  const span = Math.max(1, Number(to.icount - from.icount));
  const parts: string[] = [];
  const title = `${tape} from ${from.icount}:${from.seq} to ${to.icount}:${to.seq}`;
  parts.push(text(8, 20, title, 'font-weight="bold"'));
  parts.push(axis(Number(from.icount), span));
  let y = HEAD;
  const row = (label: string, total: number, bars: string): void => {
    parts.push(text(8, y + BAR - 5, label), bars);
    parts.push(text(WIDTH - 8, y + BAR - 5, grouped(total), 'text-anchor="end" fill="#777"'));
    y += ROW;
  };
  for (const activity of activities) {
    const most = span / bins;
    const bars = [...activity.instructions].map((count, bin) => ({ bin, height: Math.min(1, count / most) }));
    row(activityLabel(activity), activity.total, path(bars, y, scale, LEVEL_COLOURS[activity.level]));
  }
  for (const lane of lanes) {
    const total = lane.series.reduce((sum, series) => sum + series.total, 0);
    row(laneLabel(lane, vcpus), total, laneBars(lane, bins, y, scale));
  }
  y += 8;
  for (const lane of lanes) {
    parts.push(legend(laneLabel(lane, vcpus), lane, y + LEGEND_ROW));
    y += LEGEND_ROW;
  }
  const height = y + 14;
  return [
    `<svg xmlns="http://www.w3.org/2000/svg" width="${WIDTH}" height="${height}" viewBox="0 0 ${WIDTH} ${height}" font-family="sans-serif" font-size="12">`,
    `<title>${escaped(title)}</title>`,
    '<rect width="100%" height="100%" fill="#fff"/>',
    ...parts,
    '</svg>',
    '',
  ].join('\n');
}

interface Bar {
  readonly bin: number;
  /** 0 to 1; what it stands on, too. */
  readonly height: number;
  readonly foot?: number;
}

/** All bars of a colour in one path. */
function path(bars: readonly Bar[], y: number, scale: number, colour: string): string {
  const drawn = bars
    .filter(({ height }) => height > 0)
    .map(({ bin, height, foot = 0 }) => {
      const tall = Math.max(1, height * BAR);
      return `M${round(LABELS + bin * scale)} ${round(y + BAR - foot * BAR)}v${round(-tall)}h${round(scale)}v${round(tall)}z`;
    });
  return drawn.length === 0 ? '' : `<path d="${drawn.join('')}" fill="${colour}"/>`;
}

/** Heights by the logarithm of the count, parts by their share. */
function laneBars({ series }: EventLane, bins: number, y: number, scale: number): string {
  const sums = Array.from({ length: bins }, (_, bin) =>
    series.reduce((sum, { counts }) => sum + (counts[bin] ?? 0), 0),
  );
  const most = Math.log1p(sums.reduce((a, b) => Math.max(a, b), 1));
  const feet = new Float64Array(bins);
  return series
    .map(({ counts }, index) => {
      const bars: Bar[] = [];
      counts.forEach((count, bin) => {
        const sum = sums[bin] as number;
        if (count === 0) return;
        const height = (Math.log1p(sum) / most) * (count / sum);
        bars.push({ bin, height, foot: feet[bin] as number });
        feet[bin] = (feet[bin] as number) + height;
      });
      return path(bars, y, scale, seriesColour(index));
    })
    .join('');
}

function axis(start: number, span: number): string {
  const step = tickStep(span, 8);
  const width = WIDTH - LABELS - SUMS;
  const parts: string[] = [];
  for (let at = Math.ceil(start / step) * step; at <= start + span; at += step) {
    const x = round(LABELS + ((at - start) / span) * width);
    parts.push(`<path d="M${x} 44v6" stroke="#777"/>`, text(x, 40, grouped(at), 'text-anchor="middle" fill="#777"'));
  }
  return parts.join('');
}

const LISTED = 9;

function legend(label: string, { series }: EventLane, y: number): string {
  let x = LABELS;
  const parts = [text(8, y, label)];
  for (const [index, { name, total }] of series.slice(0, LISTED).entries()) {
    const words = `${name} ${grouped(total)}`;
    parts.push(
      `<rect x="${x}" y="${y - 9}" width="10" height="10" fill="${seriesColour(index)}"/>`,
      text(x + 14, y, words),
    );
    x += 30 + 7 * words.length;
  }
  if (series.length > LISTED) parts.push(text(x, y, `and ${series.length - LISTED} more`, 'fill="#777"'));
  return parts.join('');
}

const round = (value: number): number => Math.round(value * 100) / 100;
const text = (x: number, y: number, words: string, attributes = ''): string =>
  `<text x="${x}" y="${y}" ${attributes}>${escaped(words)}</text>`;
const escaped = (words: string): string => words.replace(/[&<>"]/g, (character) => `&#${character.codePointAt(0)};`);

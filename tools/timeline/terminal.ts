/** The timeline as lines of a terminal: a row for each vCPU and level, and for each lane of events. */
import { grouped, pad } from '../cli/format.js';
import type { Colors } from '../cli/terminal.js';
import { activityLabel, laneLabel, tickStep } from './labels.js';
import type { EventLane, TimelineModel } from './model.js';

const BLOCKS = ' ▁▂▃▄▅▆▇█';
const STEPS = BLOCKS.length - 1;
const TOTAL_COLUMNS = 11;
const LEAST_BINS = 20;

/** Columns that are left for bins when labels and sums have theirs. */
export const terminalBins = (columns: number, labelColumns: number): number =>
  Math.max(LEAST_BINS, columns - labelColumns - TOTAL_COLUMNS - 2);
/** Room for `vCPU 0 exceptions`. */
export const LABEL_COLUMNS = 17;

type Paint = (text: string) => string;
const paints = (colors: Colors): readonly Paint[] => [
  ...[colors.yellow, colors.cyan, colors.magenta, colors.green, colors.red, colors.blue],
  ...[
    colors.yellowBright,
    colors.cyanBright,
    colors.magentaBright,
    colors.greenBright,
    colors.redBright,
    colors.blueBright,
  ],
];

export function terminalTimeline(tape: string, model: TimelineModel, colors: Colors): readonly string[] {
  const { activities, lanes, bins, from, to } = model;
  const span = Number(to.icount - from.icount);
  const vcpus = new Set(activities.map(({ vcpu }) => vcpu)).size;
  const row = (label: string, cells: string, total: string): string =>
    `${pad(label.slice(0, LABEL_COLUMNS), LABEL_COLUMNS)} ${cells} ${colors.dim(pad(total, TOTAL_COLUMNS, 'right'))}`.trimEnd();
  const perBin = span / bins;
  return [
    colors.bold(`${tape} from ${from.icount}:${from.seq} to ${to.icount}:${to.seq}`),
    `${grouped(span)} instructions, ${perBin < 10 ? perBin.toFixed(1) : grouped(Math.round(perBin))} in a column`,
    '',
    ...axis(Number(from.icount), span, bins).map((line) => colors.dim(`${' '.repeat(LABEL_COLUMNS + 1)}${line}`)),
    ...activities.map((activity) => {
      const paint = activity.level === 2 ? colors.cyan : colors.white;
      const cells = [...activity.instructions].map((count) => block(count / Math.max(1, perBin)));
      return row(activityLabel(activity), paint(cells.join('')), grouped(activity.total));
    }),
    ...lanes.flatMap((lane) => [row(laneLabel(lane, vcpus), laneCells(lane, bins, colors), grouped(totalOf(lane)))]),
    '',
    ...legend(lanes, vcpus, colors, LABEL_COLUMNS + 1 + bins + TOTAL_COLUMNS),
  ];
}

const totalOf = ({ series }: EventLane): number => series.reduce((sum, { total }) => sum + total, 0);

/** @param share of a full bin, 0 to 1; what is there at all is seen. */
const block = (share: number): string =>
  BLOCKS[share <= 0 ? 0 : Math.min(STEPS, Math.max(1, Math.round(share * STEPS)))] as string;

/** Heights by the logarithm of the count, colours by what there is most of. */
function laneCells({ series }: EventLane, bins: number, colors: Colors): string {
  const sums = new Float64Array(bins);
  for (const { counts } of series) counts.forEach((count, bin) => { sums[bin] = (sums[bin] as number) + count; }); // biome-ignore format: one line
  const most = Math.log1p(Math.max(1, ...sums));
  const palette = paints(colors);
  let line = '';
  for (let bin = 0; bin < bins; bin++) {
    const cell = block(Math.log1p(sums[bin] as number) / most);
    if (cell === ' ') {
      line += cell;
      continue;
    }
    let dominant = 0;
    series.forEach(({ counts }, index) => {
      if ((counts[bin] as number) > (series[dominant]?.counts[bin] as number)) dominant = index;
    });
    line += (palette[dominant % palette.length] as Paint)(cell);
  }
  return line;
}

/** Numbers, and the ticks below them. */
function axis(start: number, span: number, bins: number): readonly string[] {
  const step = tickStep(span, Math.max(1, Math.floor(bins / 16)));
  let numbers = '';
  let ticks = '';
  for (let at = Math.ceil(start / step) * step; at <= start + span; at += step) {
    const column = Math.floor(((at - start) / span) * bins);
    if (column >= bins || column < numbers.length) continue;
    ticks = `${ticks.padEnd(column)}╷`;
    const text = grouped(at);
    if (column + text.length <= bins) numbers = `${numbers.padEnd(column)}${text} `;
  }
  return [numbers.trimEnd(), ticks];
}

const LISTED_SERIES = 12;

function legend(lanes: readonly EventLane[], vcpus: number, colors: Colors, columns: number): readonly string[] {
  const palette = paints(colors);
  return lanes.flatMap((lane) => {
    const items = lane.series.slice(0, LISTED_SERIES).map(({ name, total }, index) => {
      const text = `${name} ${grouped(total)}`;
      return { text: `${(palette[index % palette.length] as Paint)('■')} ${text}`, width: text.length + 2 };
    });
    const more = lane.series.length - items.length;
    if (more > 0) items.push({ text: colors.dim(`and ${more} more`), width: `and ${more} more`.length });
    return wrapped(`${laneLabel(lane, vcpus)}: `, items, columns);
  });
}

function wrapped(
  label: string,
  items: readonly { readonly text: string; readonly width: number }[],
  columns: number,
): readonly string[] {
  const lines: string[] = [];
  let line = label;
  let width = label.length;
  for (const item of items) {
    if (width > label.length && width + item.width > columns) {
      lines.push(line.trimEnd());
      line = ' '.repeat(label.length);
      width = label.length;
    }
    line += `${item.text}  `;
    width += item.width + 2;
  }
  return [...lines, line.trimEnd()];
}

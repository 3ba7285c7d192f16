/** The timeline as one HTML file that needs nothing else: data, script and style are in it. */
import { activityLabel, LEVEL_COLOURS, laneLabel, seriesColour } from './labels.js';
import type { TimelineModel } from './model.js';
import { type PageData, type PageLane, timelinePage } from './page.js';

/** As far as zooming counts; beyond it single events are drawn. */
export const HTML_BINS = 8192;
/** Single events that a page holds; some four megabytes of text. */
export const HTML_MARKS = 40_000;

export function htmlTimeline(tape: string, model: TimelineModel): string {
  const { from, to } = model;
  const title = `${tape} from ${from.icount}:${from.seq} to ${to.icount}:${to.seq}`;
  // In a script `<` could begin what ends it.
  const data = JSON.stringify(pageData(tape, model)).replaceAll('<', '\\u003c');
  return `<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<title>${escaped(title)}</title>
<style>${STYLE}</style>
</head>
<body>
<h1>${escaped(title)}</h1>
<p><button id="in">+</button> <button id="out">−</button> <button id="all">all</button> <span id="range"></span></p>
<canvas id="lanes"></canvas>
<div id="selected"><p>Click on an event. The wheel zooms, dragging moves; keys: + − 0 ← →</p></div>
<p id="kept"></p>
<div id="legend"></div>
<script>(${timelinePage.toString()})(window, ${data});</script>
</body>
</html>
`;
}

function pageData(tape: string, { from, to, bins, events, activities, lanes, marks }: TimelineModel): PageData {
  const vcpus = new Set(activities.map(({ vcpu }) => vcpu)).size;
  const times = activities.map((activity): PageLane => {
    const { level, total, instructions } = activity;
    const name = `instructions of L${level}`;
    const series = [{ name, colour: LEVEL_COLOURS[level], total, counts: sparse(instructions) }];
    return { label: activityLabel(activity), kind: 'time', series };
  });
  const drawn = lanes.map((lane): PageLane => {
    const series = lane.series.map(({ name, counts, total }, index) => ({
      ...{ name, colour: seriesColour(index), total, counts: sparse(counts) },
    }));
    return { label: laneLabel(lane, vcpus), kind: 'events', series };
  });
  return {
    ...{ tape, from: Number(from.icount), to: Number(to.icount), bins, events },
    lanes: [...times, ...drawn],
    marks: marks.map(({ lane, series, icount, position, text }) => [
      times.length + lane,
      series,
      icount,
      position,
      text,
    ]),
  };
}

function sparse(counts: Uint32Array | Float64Array): readonly number[] {
  const pairs: number[] = [];
  counts.forEach((count, bin) => {
    if (count > 0) pairs.push(bin, Math.round(count));
  });
  return pairs;
}

const escaped = (text: string): string => text.replace(/[&<>"]/g, (character) => `&#${character.codePointAt(0)};`);

const STYLE = `
body { font: 14px sans-serif; margin: 1em; color: #222; }
h1 { font-size: 16px; }
canvas { width: 100%; display: block; cursor: crosshair; border-top: 1px solid #ddd; border-bottom: 1px solid #ddd; }
#selected { min-height: 8em; }
#selected code { display: block; margin: 2px 0; padding: 3px 6px; background: #f4f4f4; user-select: all; }
.what { font-weight: bold; }
.row { margin: 3px 0; }
.row b { display: inline-block; min-width: 150px; font-weight: normal; }
.row span { margin-right: 14px; white-space: nowrap; }
.row i { display: inline-block; width: 10px; height: 10px; margin-right: 4px; }
`;

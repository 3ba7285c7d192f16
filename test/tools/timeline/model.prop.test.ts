import fc from 'fast-check';
import pc from 'picocolors';
import { describe, expect, it } from 'vitest';
import type { JournalRecord, Position } from '../../../src/journal/index.js';
import { RecordSource } from '../../../src/journal/index.js';
import { eventText, resolvePosition } from '../../../src/replay/index.js';
import { pad } from '../../../tools/cli/format.js';
import { laneOf } from '../../../tools/timeline/kinds.js';
import { nanosecondsPerInstruction, type Pause, type Span, SpanTracker } from '../../../tools/timeline/spans.js';
import { svgTimeline } from '../../../tools/timeline/svg.js';
import { terminalTimeline } from '../../../tools/timeline/terminal.js';
import { recordGuest } from '../../support/sessions.js';
import { variedTape } from '../sql/support.js';
import { modelOf } from './support.js';

const reader = variedTape();
const records = [...reader.records()];
const end = Number(reader.end.icount);

const place = fc.nat(end).map((icount) => resolvePosition(reader, String(icount)));
const window = fc.tuple(place, place).map(([a, b]): readonly [Position, Position] => (a.seq <= b.seq && a.icount <= b.icount ? [a, b] : [b, a])); // biome-ignore format: one line

const before = ({ position, retired }: JournalRecord): bigint => position.icount - BigInt(retired);
const sum = (values: ArrayLike<number>): number => Array.from(values).reduce((a, b) => a + b, 0);

describe('a timeline', () => {
  it('counts every instruction and every event of its stretch once', () => {
    fc.assert(
      fc.property(window, fc.integer({ min: 1, max: 500 }), ([from, to], bins) => {
        const model = modelOf(reader, { from, to, bins, marks: 1_000_000 });
        for (const { instructions, total } of model.activities) expect(sum(instructions)).toBe(total);
        expect(sum(model.activities.map(({ total }) => total))).toBe(Number(to.icount - from.icount));
        const drawn = records.filter(
          ({ position: { seq }, event }) => seq >= from.seq && seq < to.seq && laneOf(event.type) !== undefined,
        );
        expect(model.events).toBe(drawn.length);
        for (const { series } of model.lanes) {
          for (const { counts, total } of series) expect(sum(counts)).toBe(total);
        }
        expect(model.marks.map(({ position, text }) => [position, text])).toEqual(
          drawn.map((record) => [`${before(record)}:${record.position.seq}`, eventText(record)]),
        );
      }),
      { numRuns: 25 },
    );
  });

  it('fills a bin with instructions and no more', () => {
    const { activities, bins } = modelOf(reader, { bins: 333 });
    for (let bin = 0; bin < bins; bin++) {
      const ran = sum(activities.map(({ instructions }) => instructions[bin] ?? 0));
      expect(Math.abs(ran - end / bins)).toBeLessThanOrEqual(1);
    }
  });

  it('keeps no more single events than it may, some of each kind', () => {
    const model = modelOf(reader, { bins: 512, marks: 400 });
    expect(model.events).toBeGreaterThan(4000);
    expect(model.marks.length).toBeLessThanOrEqual(800);
    const marked = new Set(model.marks.map(({ lane, series }) => `${lane} ${series}`));
    expect(marked.size).toBe(sum(model.lanes.map(({ series }) => series.length)));
  });

  it('fits the columns that a terminal has', () => {
    const model = modelOf(reader, { bins: 60 });
    const lines = terminalTimeline('x.vmtape', model, pc.createColors(false));
    for (const line of lines) expect(pad(line, 0).length).toBeLessThanOrEqual(60 + 17 + 11 + 2);
    expect(lines.join('\n')).toMatch(/vCPU 2 L2 +[▁▂▃▄▅▆▇█ ]+ +[\d,]+\n/);
    expect(lines.join('\n')).toMatch(/exits: ■ /);
  });

  it('is well-formed SVG', () => {
    const svg = svgTimeline('a <&> "b".vmtape', modelOf(reader, { bins: 490 }));
    const open: string[] = [];
    for (const [, closing, name = '', alone] of svg.matchAll(/<(\/?)([a-z]+)[^>]*?(\/?)>/g)) {
      if (closing === '/') expect(open.pop()).toBe(name);
      else if (alone !== '/') open.push(name);
    }
    expect(open).toEqual([]);
    expect(svg).toContain('a &#60;&#38;&#62; &#34;b&#34;.vmtape');
    expect(svg).not.toMatch(/NaN|undefined|Infinity/);
  });
});

describe('spans', () => {
  it('follow each other without a gap, by vCPU and level, and guests end by their exits', () => {
    const { store } = recordGuest('nested.elf', { limit: 200_000 });
    const tape = store.read();
    const spans: Span[] = [];
    const pauses: Pause[] = [];
    const tracker = new SpanTracker(nanosecondsPerInstruction(tape), {
      span: (span) => spans.push(span),
      pause: (pause) => pauses.push(pause),
    });
    for (const scan of new RecordSource(tape).scan({})) tracker.see(scan);
    tracker.end(Number(tape.end.icount), Number(tape.end.seq));
    const covered = [...spans, ...pauses].sort((a, b) => a.from.seq - b.from.seq || a.to.seq - b.to.seq);
    let at = covered[0]?.from.nanoseconds;
    for (const { from, to } of covered) {
      expect(from.nanoseconds).toBe(at);
      at = to.nanoseconds;
    }
    const exits = [...tape.records()].filter(({ event }) => event.type === 'svm.vmexit').length;
    expect(exits).toBeGreaterThan(100);
    expect(spans.filter(({ level, exit }) => level === 2 && exit !== undefined)).toHaveLength(exits);
    expect(spans.filter(({ level, exit }) => level === 1 && exit !== undefined)).toEqual([]);
    const ran = spans.reduce((total, { from, to }) => total + to.icount - from.icount, 0);
    expect(BigInt(ran)).toBe(tape.end.icount);
  });
});

/**
 * What runs in the timeline's page: draws the lanes on a canvas, zooms, pans, and tells of what is clicked.
 *
 * `timelinePage` goes into the page as its own source text, so it uses nothing but its arguments and what browsers have.
 * Levels of detail: as far out as bins are narrower than pixels they are added up, further in they are drawn one by one, and
 * single events where the data has them.
 */

/** The data of the page. Counts are sparse: bin, count, bin, count … in ascending order. */
export interface PageData {
  readonly tape: string;
  /** Instruction counts. */
  readonly from: number;
  readonly to: number;
  readonly bins: number;
  /** Events that are drawn, of which `marks` may hold only some. */
  readonly events: number;
  readonly lanes: readonly PageLane[];
  /** Lane, series, instruction count, position, text. */
  readonly marks: readonly (readonly [lane: number, series: number, icount: number, position: string, text: string])[];
}

export interface PageLane {
  readonly label: string;
  /** Of time, what a bin can hold is the measure; of events, the most in sight. */
  readonly kind: 'time' | 'events';
  readonly series: readonly PageSeries[];
}

export interface PageSeries {
  readonly name: string;
  readonly colour: string;
  readonly total: number;
  readonly counts: readonly number[];
}

// As much of a browser as the page uses: the rest of the project knows none.
interface PageElement {
  textContent: string;
  className: string;
  width: number;
  height: number;
  readonly clientWidth: number;
  readonly style: Record<string, string>;
  append(...children: readonly (PageElement | string)[]): void;
  replaceChildren(...children: readonly (PageElement | string)[]): void;
  setAttribute(name: string, value: string): void;
  addEventListener(type: string, listener: (event: PageEvent) => void, options?: { readonly passive: boolean }): void;
  getBoundingClientRect(): { readonly left: number; readonly top: number };
  getContext(kind: '2d'): Canvas;
  setPointerCapture(pointer: number): void;
}
interface PageEvent {
  readonly clientX: number;
  readonly clientY: number;
  readonly deltaY: number;
  readonly pointerId: number;
  readonly key: string;
  preventDefault(): void;
}
interface Canvas {
  fillStyle: string;
  font: string;
  textBaseline: string;
  textAlign: string;
  setTransform(a: number, b: number, c: number, d: number, e: number, f: number): void;
  fillRect(x: number, y: number, width: number, height: number): void;
  fillText(text: string, x: number, y: number): void;
}
export interface PageWindow {
  readonly devicePixelRatio: number;
  readonly document: {
    getElementById(id: string): PageElement | null;
    createElement(tag: string): PageElement;
  };
  addEventListener(type: string, listener: (event: PageEvent) => void): void;
  requestAnimationFrame(draw: () => void): void;
}

export function timelinePage(window: PageWindow, data: PageData): void {
  const LABELS = 150;
  const ROW = 30;
  const BAR = 24;
  const HEAD = 28;
  const LEAST_SPAN = 10;
  const NEAR = 6;

  const { document } = window;
  const element = (id: string): PageElement => {
    const found = document.getElementById(id);
    if (found === null) throw new Error(`the page has no ${id}`);
    return found;
  };
  const make = (tag: string, text = '', className = ''): PageElement => {
    const made = document.createElement(tag);
    made.textContent = text;
    made.className = className;
    return made;
  };
  const grouped = (value: number): string => String(Math.round(value)).replace(/\B(?=(\d{3})+(?!\d))/g, ',');

  const canvas = element('lanes');
  const pen = canvas.getContext('2d');
  const whole = Math.max(1, data.to - data.from);
  const binSpan = whole / data.bins;
  const dense = data.lanes.map(({ series }) =>
    series.map(({ counts }) => {
      const bins = new Float64Array(data.bins);
      for (let at = 0; at < counts.length; at += 2) bins[counts[at] as number] = counts[at + 1] as number;
      return bins;
    }),
  );
  const marksOfLane = data.lanes.map((_, lane) =>
    data.marks.filter((mark) => mark[0] === lane).sort((a, b) => a[2] - b[2]),
  );
  let from = data.from;
  let to = Math.max(data.to, data.from + 1);
  let selected: (typeof data.marks)[number] | undefined;

  const width = (): number => canvas.clientWidth - LABELS;
  const xOf = (icount: number): number => LABELS + ((icount - from) / (to - from)) * width();
  const icountAt = (x: number): number => from + ((x - LABELS) / width()) * (to - from);

  /** What stands in each of `columns` columns of the sight, of one series. */
  function columnCounts(bins: Float64Array, columns: number): Float64Array {
    const sums = new Float64Array(columns);
    const perColumn = (to - from) / columns;
    for (let column = 0; column < columns; column++) {
      const first = Math.floor((from + column * perColumn - data.from) / binSpan);
      const end = Math.floor((from + (column + 1) * perColumn - data.from) / binSpan);
      // A column within a bin shows the bin; else a bin counts where it begins.
      const start = Math.max(0, end > first ? first + (column === 0 ? 0 : 1) : first);
      for (let bin = start; bin <= Math.min(end, data.bins - 1); bin++)
        sums[column] = (sums[column] as number) + (bins[bin] as number);
    }
    return sums;
  }

  function drawLane(lane: number, top: number): void {
    const { kind, series } = data.lanes[lane] as PageLane;
    const columns = Math.max(1, Math.floor(width()));
    const perColumn = (to - from) / columns;
    const counts = series.map((_, index) => columnCounts(dense[lane]?.[index] as Float64Array, columns));
    const sums = new Float64Array(columns);
    for (const each of counts) each.forEach((count, column) => { sums[column] = (sums[column] as number) + count; }); // biome-ignore format: one line
    let most = Math.max(perColumn, binSpan);
    if (kind === 'events') most = Math.log1p(sums.reduce((a, b) => Math.max(a, b), 1));
    const singles = kind === 'events' && perColumn * 3 < binSpan;
    const feet = new Float64Array(columns);
    counts.forEach((each, index) => {
      pen.fillStyle = `${series[index]?.colour}${singles ? '33' : ''}`;
      each.forEach((count, column) => {
        if (count === 0) return;
        const sum = sums[column] as number;
        const share = kind === 'time' ? Math.min(1, sum / most) : Math.log1p(sum) / most;
        const tall = Math.max(1, share * BAR * (count / sum));
        const foot = feet[column] as number;
        pen.fillRect(LABELS + column, top + BAR - foot - tall, 1, tall);
        feet[column] = foot + tall;
      });
    });
    if (!singles) return;
    for (const mark of marksOfLane[lane] ?? []) {
      if (mark[2] < from || mark[2] > to) continue;
      pen.fillStyle = series[mark[1]]?.colour ?? '#000';
      pen.fillRect(xOf(mark[2]) - 1, top, 2, BAR);
    }
  }

  function drawAxis(height: number): void {
    let step = 1;
    const span = to - from;
    while (span / step > width() / 110) step *= String(step).startsWith('2') ? 2.5 : 2;
    pen.textAlign = 'center';
    for (let at = Math.ceil(from / step) * step; at <= to; at += step) {
      pen.fillStyle = '#eee';
      pen.fillRect(Math.round(xOf(at)), HEAD - 6, 1, height);
      pen.fillStyle = '#666';
      pen.fillText(grouped(at), xOf(at), 10);
    }
    pen.textAlign = 'left';
  }

  function draw(): void {
    const height = HEAD + ROW * data.lanes.length + 6;
    const ratio = window.devicePixelRatio;
    canvas.style.height = `${height}px`;
    canvas.width = canvas.clientWidth * ratio;
    canvas.height = height * ratio;
    pen.setTransform(ratio, 0, 0, ratio, 0, 0);
    pen.font = '12px sans-serif';
    pen.textBaseline = 'middle';
    pen.fillStyle = '#fff';
    pen.fillRect(0, 0, canvas.clientWidth, height);
    drawAxis(height);
    data.lanes.forEach((_, lane) => {
      drawLane(lane, HEAD + lane * ROW);
    });
    pen.fillStyle = '#fff';
    pen.fillRect(0, HEAD - 6, LABELS - 4, height);
    pen.fillStyle = '#222';
    data.lanes.forEach(({ label }, lane) => {
      pen.fillText(label, 8, HEAD + lane * ROW + BAR / 2);
    });
    if (selected !== undefined && selected[2] >= from && selected[2] <= to) {
      pen.fillStyle = '#d00';
      pen.fillRect(xOf(selected[2]) - 0.5, HEAD - 6, 1, height);
    }
    element('range').textContent = `${grouped(from)} to ${grouped(to)}: ${grouped(to - from)} instructions`;
  }

  let waiting = false;
  function redraw(): void {
    if (waiting) return;
    waiting = true;
    window.requestAnimationFrame(() => {
      waiting = false;
      draw();
    });
  }

  function look(start: number, span: number): void {
    const kept = Math.min(whole, Math.max(LEAST_SPAN, span));
    from = Math.min(Math.max(data.from, start), data.to - kept);
    if (kept >= whole) from = data.from;
    to = from + kept;
    redraw();
  }
  function zoom(factor: number, x = LABELS + width() / 2): void {
    const at = icountAt(x);
    const span = Math.min(whole, Math.max(LEAST_SPAN, (to - from) * factor));
    look(at - ((x - LABELS) / width()) * span, span);
  }

  /** Tells of the event at a place, or of what is counted there. */
  function tell(x: number, y: number): void {
    const lane = Math.floor((y - HEAD) / ROW);
    const known = data.lanes[lane];
    if (known === undefined || x < LABELS) return;
    const near = (marksOfLane[lane] ?? [])
      .map((mark) => ({ mark, away: Math.abs(xOf(mark[2]) - x) }))
      .filter(({ away }) => away <= NEAR)
      .sort((a, b) => a.away - b.away)[0];
    const [bin, last] = [x, x + 1].map((edge) =>
      Math.min(data.bins - 1, Math.max(0, Math.floor((icountAt(edge) - data.from) / binSpan))),
    ) as [number, number];
    const pastBin = Math.max(bin + 1, last);
    const counted = known.series
      .map(({ name }, index) => {
        const bins = dense[lane]?.[index]?.subarray(bin, pastBin) ?? new Float64Array(0);
        return { name, count: bins.reduce((sum, count) => sum + count, 0) };
      })
      .filter(({ count }) => count > 0);
    selected = near?.mark;
    const lines: PageElement[] = [];
    if (selected !== undefined) {
      lines.push(make('p', `${known.label}, ${known.series[selected[1]]?.name}`, 'what'));
      lines.push(make('p', selected[4]), make('code', selected[3]));
      lines.push(make('code', `vmtape show ${data.tape} ${selected[3]}`));
    } else {
      lines.push(make('p', known.label, 'what'));
    }
    const [start, end] = [data.from + bin * binSpan, data.from + pastBin * binSpan].map(Math.round) as [number, number];
    const words = counted.map(({ name, count }) => `${name} ${grouped(count)}`).join(', ');
    lines.push(make('p', `from ${grouped(start)} to ${grouped(end)}: ${words === '' ? 'nothing' : words}`, 'bin'));
    lines.push(make('code', `vmtape timeline ${data.tape} --from ${start} --to ${Math.min(end, data.to)} --html FILE`));
    element('selected').replaceChildren(...lines);
    redraw();
  }

  let dragged: { readonly x: number; readonly from: number; moved: boolean } | undefined;
  const place = (event: PageEvent): readonly [x: number, y: number] => {
    const { left, top } = canvas.getBoundingClientRect();
    return [event.clientX - left, event.clientY - top];
  };
  canvas.addEventListener('pointerdown', (event) => {
    dragged = { x: event.clientX, from, moved: false };
    canvas.setPointerCapture(event.pointerId);
  });
  canvas.addEventListener('pointermove', (event) => {
    if (dragged === undefined) return;
    const way = event.clientX - dragged.x;
    if (Math.abs(way) > 3) dragged.moved = true;
    if (dragged.moved) look(dragged.from - (way / width()) * (to - from), to - from);
  });
  canvas.addEventListener('pointerup', (event) => {
    if (dragged !== undefined && !dragged.moved) tell(...place(event));
    dragged = undefined;
  });
  canvas.addEventListener(
    'wheel',
    (event) => {
      event.preventDefault();
      zoom(event.deltaY > 0 ? 1.25 : 0.8, place(event)[0]);
    },
    { passive: false },
  );
  canvas.addEventListener('dblclick', (event) => zoom(0.25, place(event)[0]));
  window.addEventListener('keydown', ({ key }) => {
    if (key === '+' || key === '=') zoom(0.5);
    if (key === '-') zoom(2);
    if (key === '0') look(data.from, whole);
    if (key === 'ArrowLeft') look(from - (to - from) / 4, to - from);
    if (key === 'ArrowRight') look(from + (to - from) / 4, to - from);
  });
  window.addEventListener('resize', redraw);
  element('in').addEventListener('click', () => zoom(0.5));
  element('out').addEventListener('click', () => zoom(2));
  element('all').addEventListener('click', () => look(data.from, whole));

  const kept = data.marks.length;
  element('kept').textContent =
    kept === data.events
      ? `${grouped(kept)} events, each of which can be pointed at`
      : `${grouped(data.events)} events, of which ${grouped(kept)} can be pointed at; a part of the tape has more`;
  element('legend').replaceChildren(
    ...data.lanes
      .filter(({ kind }) => kind === 'events')
      .map(({ label, series }) => {
        const row = make('div', '', 'row');
        row.append(make('b', label));
        for (const { name, colour, total } of series) {
          const box = make('i');
          box.style.background = colour;
          const item = make('span');
          item.append(box, `${name} ${grouped(total)}`);
          row.append(item);
        }
        return row;
      }),
  );
  draw();
}

import { writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { pathToFileURL } from 'node:url';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { resolvePosition } from '../../../src/replay/index.js';
import { htmlTimeline } from '../../../tools/timeline/html.js';
import { CHROMIUM, Page } from '../../support/chromium.js';
import { variedTape } from '../sql/support.js';
import { temporaryFolder } from '../vmtape.js';
import { modelOf } from './support.js';

const reader = variedTape();
const folder = temporaryFolder();
const file = join(folder, 'page.html');
const model = modelOf(reader, { bins: 8192, marks: 40_000 });
const html = htmlTimeline('a <b> "tape".vmtape', model);
writeFileSync(file, html);

describe('the page of a timeline', () => {
  it('is one file that asks for nothing else', () => {
    expect(html).toMatch(/^<!doctype html>/);
    expect(html).not.toMatch(/https?:|src=|@import|<link/);
    expect(html).toContain('a &#60;b&#62; &#34;tape&#34;.vmtape');
    expect(html.match(/<script>/g)).toHaveLength(1);
  });
});

// Set VMTAPE_SCREENSHOT to a file to keep what the last test saw.
describe.runIf(CHROMIUM !== undefined)('the page in Chromium (left out where the host has none)', () => {
  let page: Page;
  beforeAll(async () => {
    page = await Page.open(pathToFileURL(file).href);
  });
  afterAll(() => page?.close());

  const text = async (id: string): Promise<string> =>
    String(await page.evaluate(`document.getElementById(${JSON.stringify(id)}).innerText`));
  const range = async (): Promise<readonly [from: number, to: number]> => {
    // What is drawn comes with the next frame.
    await page.evaluate('new Promise((done) => requestAnimationFrame(() => requestAnimationFrame(done)))');
    await new Promise((resolve) => setTimeout(resolve, 60));
    const [from = '', to = ''] = (await text('range')).replaceAll(',', '').match(/\d+/g) ?? [];
    return [Number(from), Number(to)];
  };
  const lanes = async () =>
    (await page.evaluate(
      '(({left, top, width}) => ({left, top, width}))(document.getElementById("lanes").getBoundingClientRect())',
    )) as { readonly left: number; readonly top: number; readonly width: number };
  const exitsLane = model.activities.length + model.lanes.findIndex(({ name }) => name === 'exits');
  const LABELS = 150;

  it('shows the whole tape, with a legend of what is on it', async () => {
    expect(await range()).toEqual([0, Number(reader.end.icount)]);
    expect(await text('kept')).toMatch(/events, each of which can be pointed at/);
    const [first] = model.lanes[0]?.series ?? [];
    expect(await text('legend')).toContain(`${first?.name} ${first?.total}`);
  });

  it('zooms with the wheel around the pointer, and back', async () => {
    const { left, top, width } = await lanes();
    const middle = left + LABELS + (width - LABELS) / 2;
    for (let turn = 0; turn < 10; turn++) await page.wheel(middle, top + 40, -100);
    const [from, to] = await range();
    const end = Number(reader.end.icount);
    expect(to - from).toBeLessThan(end * 0.8 ** 9);
    expect((from + to) / 2).toBeGreaterThan(end * 0.48);
    expect((from + to) / 2).toBeLessThan(end * 0.52);
    await page.drag(middle, top + 40, middle - 100);
    const [moved, movedTo] = await range();
    expect(moved).toBeGreaterThan(from);
    expect(Math.abs(movedTo - moved - (to - from))).toBeLessThanOrEqual(1);
    await page.evaluate('document.getElementById("all").click()');
    expect(await range()).toEqual([0, end]);
  });

  it('tells of an event that is clicked: its words, and a position that every command takes', async () => {
    const mark = model.marks.filter(({ lane }) => model.lanes[lane]?.name === 'exits')[700];
    if (mark === undefined) throw new Error('the tape has no such exit');
    const end = Number(reader.end.icount);
    const { left, top, width } = await lanes();
    const at = (icount: number, from: number, to: number) =>
      left + LABELS + ((icount - from) / (to - from)) * (width - LABELS);
    const y = top + 28 + 30 * exitsLane + 12;
    for (let turn = 0; turn < 60; turn++) await page.wheel(at(mark.icount, ...(await range())), y, -100);
    const sight = await range();
    expect(sight[1] - sight[0]).toBeLessThan(end / 1000);
    await page.click(at(mark.icount, ...sight), y);
    const told = await text('selected');
    expect(told).toContain(mark.text);
    expect(told).toContain(mark.position);
    const { icount } = resolvePosition(reader, mark.position);
    expect(Number(icount)).toBe(mark.icount);
  });

  it('tells what is counted where no event stands, and how to see that part alone', async () => {
    await page.evaluate('document.getElementById("all").click()');
    await range();
    const { left, top, width } = await lanes();
    // A column of pixels holds several bins.
    const ranIn = (x: number): number => {
      const [bin = 0, pastBin = 0] = [x, x + 1].map((edge) => Math.floor((edge / (width - LABELS)) * model.bins));
      const counts = model.activities[1]?.instructions.subarray(bin, pastBin) ?? new Float64Array(0);
      return counts.reduce((sum, count) => sum + count, 0);
    };
    const x = Array.from({ length: 200 }, (_, index) => 300 + index).find((column) => ranIn(column) > 0) ?? 0;
    const ran = ranIn(x);
    await page.click(left + LABELS + x, top + 28 + 30 + 12);
    const told = (await text('selected')).replaceAll(',', '');
    expect(ran).toBeGreaterThan(0);
    expect(told).toMatch(new RegExp(`vCPU 0 L2\\n+from \\d+ to \\d+: instructions of L2 ${ran}\\n`));
    expect(told).toMatch(/vmtape timeline .* --from \d+ --to \d+ --html FILE/);
    const screenshot = process.env.VMTAPE_SCREENSHOT;
    if (screenshot !== undefined) writeFileSync(screenshot, await page.screenshot());
  });
});

/** Words and colours that the terminal, the SVG and the page share. */
import type { Activity, EventLane } from './model.js';

export const activityLabel = ({ vcpu, level }: Activity): string => `vCPU ${vcpu} L${level}`;

/** @param vcpus how many there are: one alone need not be named. */
export const laneLabel = ({ name, vcpu }: EventLane, vcpus: number): string =>
  vcpu === undefined || vcpus === 1 ? name.replace(/^device /, '') : `vCPU ${vcpu} ${name}`;

/** Apart from each other also for most eyes that confuse some colours; the first ones the most. */
const PALETTE: readonly string[] = [
  ...['#4477aa', '#ee6677', '#228833', '#ccbb44', '#66ccee', '#aa3377', '#ee7733', '#009988'],
  ...['#bbbb77', '#332288', '#882255', '#44aa99', '#999933', '#ddaa33', '#6699cc', '#997700'],
];
export const LEVEL_COLOURS: Readonly<Record<1 | 2, string>> = { 1: '#7f8fa6', 2: '#2f6fb3' };

/** The colour of a lane's series, which stand by how many there are of each. */
export const seriesColour = (index: number): string => PALETTE[index % PALETTE.length] as string;

/** Round distances between ticks: at most `most` of them on `span`. */
export function tickStep(span: number, most: number): number {
  let step = 1;
  for (;;) {
    for (const factor of [1, 2, 5]) if (span / (step * factor) <= most) return step * factor;
    step *= 10;
  }
}

/**
 * Sets of pages that the host has taken away, as ranges: in ascending order, apart from each other, none of them empty.
 * Pages are counted from sPA 0. The functions give new lists and leave theirs alone.
 */

export interface AbsentRange {
  /** The first page, and how many. */
  readonly first: number;
  readonly pages: number;
  /** Nanoseconds from the first access to one of its pages until that page is there. */
  readonly latency: number;
}

/** The range that holds `page`. */
export function rangeOf(ranges: readonly AbsentRange[], page: number): AbsentRange | undefined {
  let low = 0;
  let high = ranges.length;
  while (low < high) {
    const middle = (low + high) >>> 1;
    const range = ranges[middle] as AbsentRange;
    if (page < range.first) high = middle;
    else if (page >= range.first + range.pages) low = middle + 1;
    else return range;
  }
  return undefined;
}

/** The set without `pages` pages from `first` on. */
export function withoutPages(ranges: readonly AbsentRange[], first: number, pages: number): AbsentRange[] {
  const end = first + pages;
  return ranges.flatMap((range) => {
    const rangeEnd = range.first + range.pages;
    if (rangeEnd <= first || range.first >= end) return [range];
    const before = { ...range, pages: Math.max(0, first - range.first) };
    const after = { ...range, first: end, pages: Math.max(0, rangeEnd - end) };
    return [before, after].filter((piece) => piece.pages > 0);
  });
}

/** The set with `added`, whose latency counts where there was another. */
export function withPages(ranges: readonly AbsentRange[], added: AbsentRange): AbsentRange[] {
  const others = withoutPages(ranges, added.first, added.pages);
  const at = others.findIndex((range) => range.first > added.first);
  return others.toSpliced(at < 0 ? others.length : at, 0, added);
}

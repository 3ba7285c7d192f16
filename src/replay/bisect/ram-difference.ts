/** Where two machines' RAM differs. */
import { FIRST_EPOCH, PAGE_BYTES, type PhysicalMemory } from '../../machine/index.js';

/** Bytes that differ next to each other, none across a page. */
export interface RamDifference {
  /** sPA of the first. */
  readonly address: number;
  readonly first: Uint8Array;
  readonly second: Uint8Array;
}

/** Numbers of the pages that differ, ascending. @param except pages that are not looked at. */
export function* differingPages(
  first: PhysicalMemory,
  second: PhysicalMemory,
  except: ReadonlySet<number>,
): Generator<number, void, void> {
  // A page that neither has written to is of zeros on both.
  const written = new Set([...first.pagesWrittenSince(FIRST_EPOCH), ...second.pagesWrittenSince(FIRST_EPOCH)]);
  const inBoth = Math.min(first.keptBytes, second.keptBytes) / PAGE_BYTES;
  for (const page of [...written].sort((a, b) => a - b)) {
    if (page < inBoth && !except.has(page) && !samePage(first, second, page)) yield page;
  }
}

function samePage(first: PhysicalMemory, second: PhysicalMemory, page: number): boolean {
  const [a, b] = [wordsOf(first, page), wordsOf(second, page)];
  for (let word = 0; word < a.length; word++) if (a[word] !== b[word]) return false;
  return true;
}

function wordsOf(memory: PhysicalMemory, page: number): Uint32Array {
  const { buffer, byteOffset, length } = memory.window(page * PAGE_BYTES, PAGE_BYTES);
  return new Uint32Array(buffer, byteOffset, length / 4);
}

/** The first stretches of bytes that differ, at most so many. */
export function ramDifferences(
  first: PhysicalMemory,
  second: PhysicalMemory,
  except: ReadonlySet<number>,
  most: number,
): readonly RamDifference[] {
  const found: RamDifference[] = [];
  for (const page of differingPages(first, second, except)) {
    const a = first.window(page * PAGE_BYTES, PAGE_BYTES);
    const b = second.window(page * PAGE_BYTES, PAGE_BYTES);
    for (let at = 0; at < PAGE_BYTES; at++) {
      if (a[at] === b[at]) continue;
      const start = at;
      while (at < PAGE_BYTES && a[at] !== b[at]) at++;
      found.push({ address: page * PAGE_BYTES + start, first: a.slice(start, at), second: b.slice(start, at) });
      if (found.length >= most) return found;
    }
  }
  return found;
}

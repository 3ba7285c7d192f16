/** Names that a user may have meant. */

const MOST_NAMES = 5;

/** The nearest ones, best first; none when nothing is near. */
export function nearest(name: string, names: readonly string[]): readonly string[] {
  const wanted = name.toLowerCase();
  const farthest = Math.max(2, Math.floor(wanted.length / 3));
  return names
    .map((each) => ({ each, distance: distanceOf(wanted, each.toLowerCase()) }))
    .filter(({ each, distance }) => distance <= farthest || (wanted !== '' && each.toLowerCase().includes(wanted)))
    .sort((a, b) => a.distance - b.distance)
    .slice(0, MOST_NAMES)
    .map(({ each }) => each);
}

/** What to do instead, as a sentence. @param otherwise when nothing is near. */
export const elsewhere = (near: readonly string[], otherwise: string): string =>
  near.length === 0 ? `${otherwise}.` : `Is it ${near.join(', ')}?`;

/** Insertions, deletions and substitutions between two words (Levenshtein's distance). */
function distanceOf(a: string, b: string): number {
  let row = Array.from({ length: b.length + 1 }, (_, at) => at);
  for (let i = 1; i <= a.length; i++) {
    const next = [i];
    for (let j = 1; j <= b.length; j++) {
      const change = (row[j - 1] as number) + (a[i - 1] === b[j - 1] ? 0 : 1);
      next.push(Math.min(change, (row[j] as number) + 1, (next[j - 1] as number) + 1));
    }
    row = next;
  }
  return row[b.length] as number;
}

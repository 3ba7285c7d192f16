/**
 * Control flow as WebAssembly has it: blocks and loops that are left by branches to their labels. The graph of a region is
 * taken apart along its dominator tree: a node stands inside the loop or block of the node that dominates it, and what
 * several paths lead to stands behind a block that they leave.
 * Source: N. Ramsey, Beyond Relooper, ICFP 2022.
 */
import { invariant } from '../../errors.js';

/** Nodes by number; 0 is the root, and reaches all others. */
export interface Graph {
  readonly successors: readonly (readonly number[])[];
}

export interface Order {
  /** Place of each node in reverse postorder; -1 for one that the root does not reach. */
  readonly place: readonly number[];
  /** The node that dominates each one immediately; the root dominates itself. */
  readonly dominator: readonly number[];
  readonly predecessors: readonly (readonly number[])[];
}

export function orderOf({ successors }: Graph): Order {
  const order = reversePostorder(successors);
  const place = successors.map(() => -1);
  order.forEach((node, index) => {
    place[node] = index;
  });
  const predecessors: number[][] = successors.map(() => []);
  for (const node of order) for (const next of successors[node] as readonly number[]) predecessors[next]?.push(node);
  return { place, predecessors, dominator: dominatorsOf(order, place, predecessors) };
}

function reversePostorder(successors: Graph['successors']): number[] {
  const seen = new Set([0]);
  const out: number[] = [];
  const path: { readonly node: number; next: number }[] = [{ node: 0, next: 0 }];
  for (let top = path.at(-1); top !== undefined; top = path.at(-1)) {
    // The first successor comes first in the order: what is likely follows at once.
    const nexts = successors[top.node] as readonly number[];
    const next = nexts[nexts.length - 1 - top.next++];
    if (next === undefined) {
      out.push(top.node);
      path.pop();
    } else if (!seen.has(next)) {
      seen.add(next);
      path.push({ node: next, next: 0 });
    }
  }
  return out.reverse();
}

/** Source: K. Cooper, T. Harvey, K. Kennedy, A Simple, Fast Dominance Algorithm, 2001. */
function dominatorsOf(
  order: readonly number[],
  place: readonly number[],
  predecessors: readonly (readonly number[])[],
) {
  const dominator = place.map(() => -1);
  dominator[0] = 0;
  const at = (node: number): number => place[node] as number;
  const common = (a: number, b: number): number => {
    let [one, other] = [a, b];
    while (one !== other) {
      if (at(one) > at(other)) one = dominator[one] as number;
      else other = dominator[other] as number;
    }
    return one;
  };
  for (let changed = true; changed; ) {
    changed = false;
    for (const node of order.slice(1)) {
      const known = (predecessors[node] as readonly number[]).filter((each) => dominator[each] !== -1);
      const next = known.reduce(common);
      changed ||= next !== dominator[node];
      dominator[node] = next;
    }
  }
  return dominator;
}

export function dominates({ place, dominator }: Order, one: number, other: number): boolean {
  let node = other;
  while ((place[node] as number) > (place[one] as number)) node = dominator[node] as number;
  return node === one;
}

/** Goes back in the order: to the head of a loop, or to the node itself. */
export const goesBack = ({ place }: Order, from: number, to: number): boolean =>
  (place[to] as number) <= (place[from] as number);

/** What the walk needs from whoever writes the code. */
export interface Writer {
  /** Opens a loop or a block. @returns its label. */
  open(kind: 'loop' | 'block'): number;
  close(): void;
  /**
   * Writes a node's own code; where it leaves to a successor it calls `follow`.
   * @param labelOf the label of a successor that has one: those of a branch table have.
   */
  node(node: number, follow: (to: number) => void, labelOf: (to: number) => number): void;
  /** Writes a branch to a label. */
  branch(label: number): void;
}

/**
 * Writes all nodes. Every edge that goes back must go to a node that dominates where it comes from.
 * @param table nodes that get a label of their own, whatever leads to them: those of a branch table.
 */
export function writeStructured(order: Order, table: ReadonlySet<number>, writer: Writer): void {
  new Walk(order, table, writer).tree(0);
}

class Walk {
  private readonly labels = new Map<number, number>();
  private readonly children: number[][];

  constructor(
    private readonly order: Order,
    private readonly table: ReadonlySet<number>,
    private readonly writer: Writer,
  ) {
    const { place, dominator } = order;
    this.children = place.map(() => []);
    dominator.forEach((parent, node) => {
      if (node !== 0 && parent >= 0 && this.isMerge(node)) this.children[parent]?.push(node);
    });
    for (const each of this.children) each.sort((a, b) => (place[b] as number) - (place[a] as number));
  }

  private isMerge(node: number): boolean {
    const forward = this.order.predecessors[node]?.filter((each) => !goesBack(this.order, each, node)) ?? [];
    return this.table.has(node) || forward.length > 1;
  }

  private isLoop(node: number): boolean {
    return this.order.predecessors[node]?.some((each) => goesBack(this.order, each, node)) === true;
  }

  tree(node: number): void {
    const { writer, labels } = this;
    const merges = this.children[node] as readonly number[];
    const loops = this.isLoop(node);
    const before = labels.get(node);
    if (loops) labels.set(node, writer.open('loop'));
    this.within(node, merges);
    if (loops) writer.close();
    if (before === undefined) labels.delete(node);
    else labels.set(node, before);
  }

  /** The node inside the blocks of those that follow it; `merges` begins with the last one. */
  private within(node: number, merges: readonly number[]): void {
    const [last, ...rest] = merges;
    if (last === undefined) {
      this.writer.node(
        node,
        (to) => this.follow(node, to),
        (to) => this.labelOf(to),
      );
      return;
    }
    this.labels.set(last, this.writer.open('block'));
    this.within(node, rest);
    this.writer.close();
    this.labels.delete(last);
    this.tree(last);
  }

  private follow(from: number, to: number): void {
    const { order } = this;
    if (!goesBack(order, from, to) && !this.isMerge(to)) {
      this.tree(to);
      return;
    }
    invariant(
      !goesBack(order, from, to) || dominates(order, to, from),
      'an edge goes back to what does not dominate it',
    );
    this.writer.branch(this.labelOf(to));
  }

  private labelOf(node: number): number {
    const label = this.labels.get(node);
    invariant(label !== undefined, 'a branch leads out of the structure');
    return label;
  }
}

/**
 * The graph of a region, made reducible. Node 0 is the table over the places where the region may be entered, block n is node
 * n + 1, and behind them stands the node of indirect branches, which finds the entry that they go to.
 *
 * WebAssembly enters a loop at its head alone. Whoever means another node of a loop goes to the head of the outermost loop
 * that it is not in yet, with the node's number as the *goal*; heads pass goals on. So a loop costs no more than a look at
 * its head whether there is a goal, and a loop that nobody enters elsewhere not even that.
 * Source: P. Havlak, Nesting of Reducible and Irreducible Loops, 1997.
 */
import { MAX_BLOCK_INSTRUCTIONS } from '../uop.js';
import type { RegionBlock, RegionCode } from './discover.js';
import { goesBack, type Order, orderOf } from './structure.js';

export const TABLE = 0;

export interface Flow {
  readonly order: Order;
  /** Nodes of blocks by their RIP. */
  readonly nodes: ReadonlyMap<bigint, number>;
  readonly indirect: number;
  /** Nodes of the entries, in their order. */
  readonly entries: readonly number[];
  /** Where an edge goes that means `to`: there, or to the head of a loop around it. */
  hop(from: number, to: number): number;
  /** Nodes that pass goals on: for each goal where to. The table among them. */
  readonly goals: ReadonlyMap<number, ReadonlyMap<number, number>>;
  /** Blocks that look at the budget before anything else. */
  readonly checked: ReadonlySet<number>;
}

export function flowOf(region: RegionCode): Flow {
  const nodes = new Map(region.blocks.map(({ rip }, index) => [rip, index + 1]));
  const indirect = region.blocks.length + 1;
  const inside = (...rips: readonly bigint[]): readonly number[] => rips.flatMap((rip) => nodes.get(rip) ?? []);
  const entries = region.entries.map((rip) => nodes.get(rip) as number);
  const successors: (readonly number[])[] = [
    [...new Set(entries)],
    ...region.blocks.map(({ end }) => {
      if (end.kind === 'goto') return inside(end.to);
      if (end.kind === 'branch') return inside(end.next, end.taken);
      return end.kind === 'indirect' ? [indirect] : [];
    }),
    [TABLE],
  ];
  const routes = new Routes(successors);
  const order = orderOf({ successors: routes.edges() });
  return {
    ...{ order, nodes, indirect, entries, goals: routes.goals, checked: checkedNodes(region.blocks, order) },
    hop: (from, to) => routes.hop(from, to),
  };
}

/** Which way each edge takes. */
class Routes {
  readonly goals = new Map<number, Map<number, number>>();
  /** By source and by the node that is meant. */
  private readonly hops: Map<number, number>[];
  private readonly place: readonly number[];

  constructor(successors: readonly (readonly number[])[]) {
    this.hops = successors.map((nexts) => new Map(nexts.map((to) => [to, to])));
    this.place = orderOf({ successors }).place;
    // The table passes on whatever it is entered with.
    for (const to of successors[TABLE] as readonly number[]) this.pass(TABLE, to, to);
    const reached = successors.map((_, node) => node).filter((node) => node !== TABLE && this.place[node] !== -1);
    this.untangle(reached);
  }

  hop(from: number, to: number): number {
    return this.hops[from]?.get(to) ?? to;
  }

  edges(): readonly (readonly number[])[] {
    return this.hops.map((hops, node) => [...new Set([...hops.values(), ...(this.goals.get(node)?.values() ?? [])])]);
  }

  private pass(node: number, goal: number, to: number): void {
    const known = this.goals.get(node);
    if (known === undefined) this.goals.set(node, new Map([[goal, to]]));
    else known.set(goal, to);
  }

  /** Leads all edges into a loop among these nodes to its head; then the loops within. */
  private untangle(among: readonly number[]): void {
    for (const loop of this.loopsOf(new Set(among))) {
      const members = new Set(loop);
      const head = this.headOf(loop, members);
      const detour = (to: number): boolean => members.has(to) && to !== head;
      this.hops.forEach((hops, from) => {
        if (members.has(from)) return;
        for (const [goal, to] of hops) if (detour(to)) this.leadBy(head, goal, to, () => hops.set(goal, head));
      });
      for (const [from, goals] of this.goals) {
        if (members.has(from)) continue;
        for (const [goal, to] of goals) if (detour(to)) this.leadBy(head, goal, to, () => goals.set(goal, head));
      }
      this.untangle(loop.filter((node) => node !== head));
    }
  }

  private leadBy(head: number, goal: number, to: number, change: () => void): void {
    change();
    this.pass(head, goal, to);
  }

  /** Where a loop is entered most naturally: in the place that comes first. */
  private headOf(loop: readonly number[], members: ReadonlySet<number>): number {
    const first = (nodes: readonly number[]): number =>
      nodes.reduce((a, b) => ((this.place[a] as number) <= (this.place[b] as number) ? a : b));
    const entered = new Set<number>();
    this.hops.forEach((hops, from) => {
      if (from === TABLE || members.has(from)) return;
      for (const to of hops.values()) if (members.has(to)) entered.add(to);
    });
    return first(entered.size > 0 ? [...entered] : loop);
  }

  /** Strongly connected components with an edge inside, by R. Tarjan's algorithm. */
  private loopsOf(among: ReadonlySet<number>): readonly (readonly number[])[] {
    const found: number[][] = [];
    const index = new Map<number, number>();
    const low = new Map<number, number>();
    const stack: number[] = [];
    const onStack = new Set<number>();
    const nextsOf = (node: number): number[] =>
      [...(this.hops[node]?.values() ?? []), ...(this.goals.get(node)?.values() ?? [])].filter((to) => among.has(to));
    const enter = (node: number): { node: number; nexts: number[] } => {
      index.set(node, index.size);
      low.set(node, index.get(node) as number);
      stack.push(node);
      onStack.add(node);
      return { node, nexts: nextsOf(node) };
    };
    const lower = (node: number, value: number): void => {
      low.set(node, Math.min(low.get(node) as number, value));
    };
    for (const root of among) {
      if (index.has(root)) continue;
      const path = [enter(root)];
      for (let top = path.at(-1); top !== undefined; top = path.at(-1)) {
        const next = top.nexts.pop();
        if (next !== undefined) {
          if (!index.has(next)) path.push(enter(next));
          else if (onStack.has(next)) lower(top.node, index.get(next) as number);
          continue;
        }
        path.pop();
        const above = path.at(-1);
        if (above !== undefined) lower(above.node, low.get(top.node) as number);
        if (low.get(top.node) !== index.get(top.node)) continue;
        const component = stack.splice(stack.indexOf(top.node));
        for (const node of component) onStack.delete(node);
        if (component.length > 1 || nextsOf(top.node).includes(top.node)) found.push(component);
      }
    }
    return found;
  }
}

/**
 * Heads of loops, and blocks that could otherwise end more instructions behind the last look at the budget than the longest
 * block has: what is left then may be less than they need.
 */
function checkedNodes(blocks: readonly RegionBlock[], order: Order): ReadonlySet<number> {
  const checked = new Set<number>();
  /** Instructions since the last look, at the end of each node. */
  const since = order.place.map(() => 0);
  const inOrder = order.place.flatMap((place, node) => (place === -1 ? [] : [node]));
  inOrder.sort((a, b) => (order.place[a] as number) - (order.place[b] as number));
  for (const node of inOrder) {
    const block = blocks[node - 1];
    if (block === undefined) continue;
    const predecessors = order.predecessors[node] as readonly number[];
    const length = block.instructions.length;
    const before = Math.max(0, ...predecessors.map((each) => since[each] as number));
    const isHead = predecessors.some((each) => goesBack(order, each, node));
    if (isHead || before + length > MAX_BLOCK_INSTRUCTIONS) checked.add(node);
    since[node] = (checked.has(node) ? 0 : before) + length;
  }
  return checked;
}

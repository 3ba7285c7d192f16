/** Whatever the branches of a region look like, the structure made of them goes the way that they go. */
import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import type { BlockEnd, RegionBlock, RegionCode } from '../../../../src/machine/wasm/region/discover.js';
import { type Flow, flowOf, TABLE } from '../../../../src/machine/wasm/region/flow.js';
import { dominates, goesBack, writeStructured } from '../../../../src/machine/wasm/region/structure.js';

/** Code as a tree, as WebAssembly would have it. */
type Tree =
  | { readonly kind: 'loop' | 'block'; readonly label: number; readonly body: Tree[] }
  | { readonly kind: 'branch'; readonly label: number }
  /** A node, with what follows each of its ways out, and the labels of what it passes goals on to. */
  | {
      readonly kind: 'node';
      readonly node: number;
      readonly ways: Map<number, Tree[]>;
      readonly labels: Map<number, number>;
    };

interface Shape {
  readonly region: RegionCode;
  readonly flow: Flow;
  readonly tree: Tree[];
}

const MOST_BLOCKS = 12;
const ripOf = (block: number): bigint => BigInt(0x1000 + block);

const shapes = fc
  .integer({ min: 1, max: MOST_BLOCKS })
  .chain((count) => {
    const to = fc.integer({ min: 0, max: count - 1 }).map(ripOf);
    const end: fc.Arbitrary<BlockEnd> = fc.oneof(
      to.map((rip): BlockEnd => ({ kind: 'goto', to: rip })),
      fc.tuple(to, to).map(([taken, next]): BlockEnd => ({ kind: 'branch', taken, next })),
      fc.constant<BlockEnd>({ kind: 'indirect' }),
      fc.constant<BlockEnd>({ kind: 'assist', rip: 0n }),
    );
    return fc.tuple(fc.array(end, { minLength: count, maxLength: count }), fc.uniqueArray(to, { minLength: 1 }));
  })
  .map(([ends, entries]): Shape => {
    const blocks = ends.map((each, block): RegionBlock => ({ rip: ripOf(block), instructions: [], end: each }));
    const region: RegionCode = { blocks, entries, instructions: 0 };
    const flow = flowOf(region);
    return { region, flow, tree: treeOf(flow, region) };
  });

const meant = (flow: Flow, { end }: RegionBlock): readonly number[] => {
  const inside = (...rips: bigint[]): number[] => rips.map((rip) => flow.nodes.get(rip) as number);
  if (end.kind === 'goto') return inside(end.to);
  if (end.kind === 'branch') return inside(end.next, end.taken);
  return end.kind === 'indirect' ? [flow.indirect] : [];
};

const waysOf = (flow: Flow, region: RegionCode, node: number): readonly number[] => {
  if (node === TABLE) return [];
  return node === flow.indirect ? [TABLE] : meant(flow, region.blocks[node - 1] as RegionBlock);
};

function treeOf(flow: Flow, region: RegionCode): Tree[] {
  const root: Tree[] = [];
  const open: Tree[][] = [root];
  let labels = 0;
  const put = (tree: Tree): void => void open.at(-1)?.push(tree);
  writeStructured(flow.order, new Set([...flow.goals.values()].flatMap((goals) => [...goals.values()])), {
    open: (kind) => {
      const body: Tree[] = [];
      put({ kind, label: ++labels, body });
      open.push(body);
      return labels;
    },
    close: () => void open.pop(),
    branch: (label) => put({ kind: 'branch', label }),
    node: (node, follow, labelOf) => {
      const ways = new Map<number, Tree[]>();
      const passed = new Map([...(flow.goals.get(node)?.values() ?? [])].map((to) => [to, labelOf(to)]));
      put({ kind: 'node', node, ways, labels: passed });
      for (const to of waysOf(flow, region, node)) {
        const body: Tree[] = [];
        open.push(body);
        follow(flow.hop(node, to));
        open.pop();
        ways.set(to, body);
      }
    },
  });
  return root;
}

/** Runs the tree. @param choose the way out of a node that has several, and an entry. @returns blocks in the order run. */
function run({ tree, flow, region }: Shape, choose: () => number, most: number): number[] {
  const visited: number[] = [];
  let goal = pick(flow.entries, choose());
  const isOver = (): boolean => visited.length >= most;
  const runNode = (each: Tree & { kind: 'node' }): number | 'end' => {
    const { node, ways, labels } = each;
    const passed = flow.goals.get(node)?.get(goal);
    if (goal !== 0 && goal !== node) {
      if (passed === undefined) throw new Error(`node ${node} does not know where ${goal} is`);
      return labels.get(passed) as number;
    }
    goal = 0;
    if (node !== flow.indirect) visited.push(node);
    if (isOver() || ways.size === 0) return 'end';
    if (node === flow.indirect) goal = pick(flow.entries, choose());
    const to = pick(waysOf(flow, region, node), node === flow.indirect ? 0 : choose());
    if (flow.hop(node, to) !== to) goal = to;
    return runList(ways.get(to) as Tree[]) as number | 'end';
  };
  const runList = (list: readonly Tree[]): number | 'end' | undefined => {
    for (const each of list) {
      if (each.kind === 'branch') return each.label;
      if (each.kind === 'node') return runNode(each);
      for (;;) {
        const way = runList(each.body);
        if (way === undefined) throw new Error('the code falls out of a block');
        if (way !== each.label) return way;
        if (each.kind === 'block') break;
      }
    }
    return undefined;
  };
  runList(tree);
  return visited;
}

/** The same without any structure. */
function walk({ flow, region }: Shape, choose: () => number, most: number): number[] {
  const visited: number[] = [];
  let node = pick(flow.entries, choose());
  for (;;) {
    visited.push(node);
    const ways = waysOf(flow, region, node);
    if (visited.length >= most || ways.length === 0) return visited;
    node = pick(ways, choose());
    if (node === flow.indirect) node = pick(flow.entries, choose());
  }
}

const pick = <T>(from: readonly T[], number: number): T => from[number % from.length] as T;

function chooser(numbers: readonly number[]): () => number {
  let at = 0;
  return () => numbers[at++ % numbers.length] as number;
}

describe('the structure of a region', () => {
  it('goes the way that its branches go', () => {
    fc.assert(
      fc.property(shapes, fc.array(fc.nat(), { minLength: 40, maxLength: 40 }), (shape, choices) => {
        expect(run(shape, chooser(choices), 60)).toEqual(walk(shape, chooser(choices), 60));
      }),
      { numRuns: 2000 },
    );
  });

  it('has no way back but to what dominates where it comes from', () => {
    fc.assert(
      fc.property(shapes, ({ flow, region }) => {
        region.blocks.forEach((block, index) => {
          const from = index + 1;
          if (flow.order.place[from] === -1) return;
          for (const to of meant(flow, block).map((each) => flow.hop(from, each))) {
            expect(!goesBack(flow.order, from, to) || dominates(flow.order, to, from)).toBe(true);
          }
        });
      }),
      { numRuns: 500 },
    );
  });
});

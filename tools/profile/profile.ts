/** `--profile`: where a session's instructions went, what its exits cost, and what the tiers did; as a page and as a document. */
import { type EngineCounts, exitName, type Level, type Machine, type StatedEvent } from '../../src/machine/index.js';
import { byteSize, grouped, hex, plural, table } from '../cli/format.js';
import type { LevelSymbols } from '../symbols/level-symbols.js';
import { ExitCosts } from './exit-costs.js';
import { InstructionSampler, type Sample } from './instruction-sampler.js';

/** What the tiers of a machine did since it was made. */
export interface TierCounts extends EngineCounts {
  /** Instructions of the evaluator and the control plane. */
  readonly evaluated: number;
}

/** @param instructions that have retired on it. */
export const tierCounts = ({ engine: { counts } }: Machine, instructions: number): TierCounts => ({
  evaluated: instructions - counts.executed,
  ...counts,
});

interface Place {
  readonly level: Level;
  /** A function, or the page of code that has no symbol. */
  readonly name: string;
  readonly address: bigint;
  instructions: number;
}

export interface ProfileDocument {
  /** The same for equal sessions, up to `host`. */
  readonly instructions: { readonly L1: number; readonly L2: number };
  readonly samples: number;
  readonly functions: readonly {
    readonly level: string;
    readonly name: string;
    readonly address: string;
    readonly instructions: number;
  }[];
  readonly exits: readonly {
    readonly code: string;
    readonly name: string;
    readonly count: number;
    readonly instructions: number;
    readonly hostSeconds: number;
  }[];
  readonly tiers: TierCounts & { readonly inRegions: number };
  readonly hostSeconds: { readonly L1: number; readonly L2: number };
}

const PAGE_MASK = 0xfffn;
/** Rows of a page; the document has all. */
const SHOWN_PLACES = 25;
const SHOWN_EXITS = 20;

export class Profile {
  readonly sampler: InstructionSampler;
  private readonly costs: ExitCosts;

  /** @param machine that runs. @param clock in seconds. */
  constructor(
    private readonly machine: Machine,
    private readonly symbols: LevelSymbols,
    clock: () => number,
  ) {
    this.first = machine.retired;
    this.sampler = new InstructionSampler(machine.retired);
    this.costs = new ExitCosts(clock);
  }
  private readonly first: number;

  take(stated: StatedEvent): void {
    this.costs.take(stated);
  }

  private places(): readonly Place[] {
    const places = new Map<string, Place>();
    for (const sample of this.sampler.samples) {
      const { level, name, address } = this.placeOf(sample);
      const key = `${level} ${address} ${name}`;
      const known = places.get(key);
      if (known === undefined) places.set(key, { level, name, address, instructions: sample.instructions });
      else known.instructions += sample.instructions;
    }
    return [...places.values()].sort((a, b) => b.instructions - a.instructions);
  }

  private placeOf({ level, address }: Sample): Omit<Place, 'instructions'> {
    const symbol = this.symbols.of(level)?.at(address)?.symbol;
    if (symbol !== undefined) return { level, name: symbol.name, address: symbol.address };
    const page = address & ~PAGE_MASK;
    return { level, name: `0x${hex(page, 4)} +4K`, address: page };
  }

  document(): ProfileDocument {
    const { costs, sampler, machine } = this;
    return {
      instructions: byLevel(costs.instructions),
      samples: sampler.count,
      functions: this.places().map(({ level, name, address, instructions }) => ({
        ...{ level: `L${level}`, name, address: `0x${hex(address)}`, instructions },
      })),
      exits: costs.exits.map(({ code, count, instructions, seconds }) => ({
        ...{ code: `0x${hex(code)}`, name: exitName(code), count, instructions, hostSeconds: seconds },
      })),
      tiers: { ...tierCounts(machine, machine.retired - this.first), inRegions: sampler.inRegions },
      hostSeconds: byLevel(costs.seconds),
    };
  }

  /** Lines for people. */
  page(): readonly string[] {
    const document = this.document();
    return [...levelLines(document), '', ...placeLines(document), ...exitLines(document), '', ...tierLines(document)];
  }
}

const byLevel = (of: Readonly<Record<Level, number>>): { readonly L1: number; readonly L2: number } => ({
  L1: of[1],
  L2: of[2],
});

const share = (part: number, whole: number): string => `${(whole === 0 ? 0 : (100 * part) / whole).toFixed(1)} %`;

function levelLines({ instructions, hostSeconds }: ProfileDocument): readonly string[] {
  const all = instructions.L1 + instructions.L2;
  const row = (level: 'L1' | 'L2'): readonly string[] => [
    ...[
      level,
      grouped(instructions[level]),
      share(instructions[level], all),
      `${hostSeconds[level].toFixed(3)} s here`,
    ],
  ];
  return table([['', 'instructions'], row('L1'), row('L2')], ['left', 'right', 'right', 'right']);
}

function placeLines({ functions, samples }: ProfileDocument): readonly string[] {
  const all = functions.reduce((sum, { instructions }) => sum + instructions, 0);
  const rows = functions
    .slice(0, SHOWN_PLACES)
    .map(({ level, name, instructions }) => [level, share(instructions, all), name]);
  const left = functions.length - rows.length;
  return [
    `instructions by function, of ${plural(samples, 'sample')}`,
    ...table(rows, ['left', 'right'], '  '),
    ...(left > 0 ? [`  and ${left} more; --json has them all`] : []),
  ];
}

function exitLines({ exits }: ProfileDocument): readonly string[] {
  if (exits.length === 0) return [];
  const rows = exits
    .slice(0, SHOWN_EXITS)
    .map(({ name, count, instructions, hostSeconds }) => [
      ...[name, grouped(count), grouped(instructions), (instructions / count).toFixed(1)],
      ...[`${hostSeconds.toFixed(3)} s`, `${((1e6 * hostSeconds) / count).toFixed(1)} µs`],
    ]);
  const heading = ['exit', 'count', 'instructions of L1 to VMRUN', 'each', 'here', 'each'];
  return ['', ...table([heading, ...rows], ['left', 'right', 'right', 'right', 'right', 'right'])];
}

function tierLines({ tiers, samples }: ProfileDocument): readonly string[] {
  const all = tiers.evaluated + tiers.executed;
  const compiled = Math.min(tiers.inRegions, tiers.executed);
  const rows = [
    ['evaluator and control plane', grouped(tiers.evaluated), share(tiers.evaluated, all)],
    ['interpreter', `~ ${grouped(tiers.executed - compiled)}`, share(tiers.executed - compiled, all)],
    ['regions', `~ ${grouped(compiled)}`, samples === 0 ? '' : share(compiled, all)],
  ];
  return [
    ...table([['tier', 'instructions'], ...rows], ['left', 'right', 'right']),
    `${plural(tiers.regionsMade, 'region')} of ${plural(tiers.instructionsCompiled, 'instruction')}, ` +
      `${byteSize(tiers.moduleBytes)} of WebAssembly; ${tiers.regionsDropped} dropped; ` +
      `${tiers.tableUsed} places of the table; code cache ${byteSize(tiers.codeCacheBytes)}, ` +
      `${plural(tiers.codeCacheResets, 'reset')}`,
  ];
}

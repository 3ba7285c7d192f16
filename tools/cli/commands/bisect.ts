/** `vmtape bisect`: where two sessions part, how, by which decision, and why. */
import { type Command, Option } from 'commander';
import { type JournalReader, type Position, sqliteStore } from '../../../src/journal/index.js';
import type { MachineConfig, Policy } from '../../../src/machine/index.js';
import {
  type Bisection,
  type BisectOptions,
  bisect,
  type Control,
  type PolicySearch,
  runOtherModel,
  Side,
  searchPolicies,
  sessionConfig,
} from '../../../src/replay/index.js';
import { bisectionDocument, searchDocument } from '../../bisect/document.js';
import { type Names, page, searchPage } from '../../bisect/page.js';
import { quote } from '../arguments.js';
import { command, terminalOf } from '../command.js';
import { Status, UsageError } from '../failure.js';
import { shortCount } from '../format.js';
import { parsePolicyFlag } from '../machine-flags.js';
import type { Terminal } from '../terminal.js';

interface BisectFlags {
  readonly cpu?: string;
  readonly policy?: Policy;
  readonly search?: boolean;
  readonly equivalent?: ReadonlySet<Equivalent>;
}

const EQUIVALENTS = ['host-save-area'] as const;
type Equivalent = (typeof EQUIVALENTS)[number];

const PROGRESS_MILLISECONDS = 250;

export function bisectCommand(program: Command): void {
  command(
    program,
    'bisect',
    'the first transition in which two sessions differ, explained',
    'vmtape bisect good.vmtape bad.vmtape',
    'vmtape bisect guest.vmtape --policy kvm-6.1',
    'vmtape bisect mine.vmtape other.vmtape --search policies',
  )
    .argument('<tapes...>', 'two; or one, with --cpu or --policy')
    .option('--cpu <profile>', 'hold the tape against what this processor does with the same inputs')
    .option(
      '--policy <policy>',
      'hold it against this policy: a name of vmtape policies, or a JSON file',
      parsePolicyFlag,
    )
    .addOption(
      new Option('--search <what>', 'policies: which deviations turn the first session into the second').argParser(
        parseSearch,
      ),
    )
    .addOption(
      new Option('--equivalent <names>', `differences to pass over: ${EQUIVALENTS.join(', ')}`).argParser(
        parseEquivalents,
      ),
    )
    .action(async (tapes: readonly string[], flags: BisectFlags, self: Command) => {
      process.exitCode = await new BisectRun(flags, terminalOf(self)).run(tapes);
    });
}

function parseSearch(text: string): true {
  if (text === 'policies') return true;
  throw new UsageError(`--search ${quote(text)}: only policies can be searched. Give --search policies.`);
}

function parseEquivalents(text: string): ReadonlySet<Equivalent> {
  return new Set(
    text.split(',').map((word) => {
      const known = EQUIVALENTS.find((each) => each === word);
      if (known !== undefined) return known;
      throw new UsageError(`--equivalent ${quote(word)} is none. There are ${EQUIVALENTS.join(', ')}.`);
    }),
  );
}

class BisectRun {
  private readonly readers: JournalReader[] = [];

  constructor(
    private readonly flags: BisectFlags,
    private readonly terminal: Terminal,
  ) {}

  /** @returns the exit status. */
  async run(tapes: readonly string[]): Promise<number> {
    const { cpu, policy, search } = this.flags;
    const [first, second, tooMany] = tapes;
    if (first === undefined) throw new UsageError('vmtape bisect: give two tapes.');
    if (tooMany !== undefined)
      throw new UsageError(`vmtape bisect: two tapes are compared, and ${tooMany} is left over.`);
    const isOther = cpu !== undefined || policy !== undefined;
    if (second === undefined && !isOther) {
      throw new UsageError('vmtape bisect: one tape alone differs from nothing. Give another, or --policy or --cpu.');
    }
    if (second !== undefined && isOther) {
      throw new UsageError('--cpu and --policy are for one tape. Leave them out, or give one tape.');
    }
    if (search === true && second === undefined) {
      throw new UsageError('--search policies is for two tapes. Give the one to come to, too.');
    }
    try {
      if (second === undefined) return await this.againstModel(first);
      const sides = [this.side(first, this.open(first)), this.side(second, this.open(second))] as const;
      if (search === true) return await this.search(sides);
      return await this.compare(sides, [first, second]);
    } finally {
      for (const reader of this.readers) reader.close();
    }
  }

  private open(tape: string): JournalReader {
    const reader = sqliteStore(tape).read();
    this.readers.push(reader);
    return reader;
  }

  private side = (name: string, reader: JournalReader): Side =>
    new Side(name, reader, this.progress(`running ${name}`));

  private get options(): BisectOptions {
    return {
      leniency: { hostSaveArea: this.flags.equivalent?.has('host-save-area') === true },
      searchesPolicies: false,
      doing: (what) => this.terminal.status(what),
    };
  }

  private async compare(sides: readonly [Side, Side], names: Names): Promise<number> {
    const bisection = bisect(sides, this.options);
    for (const side of sides) side.close();
    await this.report(bisection, names);
    return statusOf(bisection);
  }

  private async againstModel(tape: string): Promise<number> {
    const { cpu, policy } = this.flags;
    const reader = this.open(tape);
    const own = sessionConfig(reader.header).machine;
    const config: MachineConfig = {
      ...own,
      ...(cpu === undefined ? {} : { cpu }),
      ...(policy === undefined ? {} : { deviations: policy.deviations }),
    };
    const name = [cpu === undefined ? [] : [`--cpu ${cpu}`], policy === undefined ? [] : [`--policy ${policy.name}`]]
      .flat()
      .join(' ');
    const { tape: other, failure } = runOtherModel(reader, config, this.progress(`running with ${name}`));
    if (failure !== undefined) this.terminal.say(`vmtape: with ${name} the machine cannot go on: ${failure}`);
    const names = [tape, name] as const;
    if (other !== undefined) return await this.compare([this.side(tape, reader), this.side(name, other)], names);
    const { start, end } = reader;
    await this.report({ kind: 'same', end, effort: { start, links: 0, events: Number(end.seq - start.seq) } }, names);
    return Status.DONE;
  }

  private async search(sides: readonly [Side, Side]): Promise<number> {
    const found = searchPolicies(sides, this.options, this.progress('replaying'));
    this.terminal.clearStatus();
    await this.tell(found, [sides[0].name, sides[1].name]);
    return found.found === undefined ? Status.NO : Status.DONE;
  }

  private async tell(found: PolicySearch, names: Names): Promise<void> {
    const { terminal } = this;
    if (terminal.json) await terminal.document(searchDocument(found, names));
    else await terminal.print(searchPage(found, names, terminal.colors));
  }

  private async report(bisection: Bisection, names: Names): Promise<void> {
    const { terminal } = this;
    terminal.clearStatus();
    if (terminal.json) await terminal.document(bisectionDocument(bisection, names));
    else await terminal.print(page(bisection, names, terminal.colors));
  }

  private progress(doing: string): Required<Control> {
    const { terminal } = this;
    let told = performance.now();
    return {
      tick: ({ icount }: Position) => {
        if (!terminal.showsStatus || performance.now() - told < PROGRESS_MILLISECONDS) return false;
        told = performance.now();
        terminal.status(`${doing}: at ${shortCount(Number(icount))} instructions`);
        return false;
      },
    };
  }
}

const statusOf = ({ kind }: Bisection): number => (kind === 'same' ? Status.DONE : Status.NO);

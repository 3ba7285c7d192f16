/** `vmtape bisect`: where two sessions part, how, by which decision, and why. */
import { type Command, Option } from 'commander';
import pc from 'picocolors';
import { formatPosition, type JournalReader, type Position, sqliteStore } from '../../../src/journal/index.js';
import { EVENT_FIELDS, type MachineConfig, type Policy } from '../../../src/machine/index.js';
import {
  type Bisection,
  type BisectOptions,
  bisect,
  CHAOS_DECISIONS,
  type Control,
  firstWhere,
  OPEN_KINDS,
  type OpenKind,
  type Pair,
  type PolicySearch,
  runOtherModel,
  Side,
  searchPolicies,
  sessionConfig,
  Timeline,
} from '../../../src/replay/index.js';
import { bisectionDocument, searchDocument } from '../../bisect/document.js';
import { bisectionPage } from '../../bisect/html.js';
import { junitReport } from '../../bisect/junit.js';
import { type Names, page, searchPage } from '../../bisect/page.js';
import { compilePredicate } from '../../debug/predicate.js';
import { parseCount, quote } from '../arguments.js';
import { command, terminalOf } from '../command.js';
import { Status, UsageError } from '../failure.js';
import { shortCount } from '../format.js';
import { lockstepRun } from '../lockstep-run.js';
import { parsePolicyFlag } from '../machine-flags.js';
import { ReportFiles } from '../report-file.js';
import type { Terminal } from '../terminal.js';

interface BisectFlags {
  readonly cpu?: string;
  readonly policy?: Policy;
  readonly search?: boolean;
  readonly where?: string;
  readonly monotonic?: boolean;
  readonly instructions?: boolean;
  readonly equivalent?: ReadonlySet<OpenKind>;
  readonly ignore?: readonly string[];
  readonly other?: string;
  readonly maxInstructions?: number;
  readonly strict?: boolean;
  readonly memory?: boolean;
  readonly html?: string;
  readonly junit?: string;
}

const PROGRESS_MILLISECONDS = 250;

export function bisectCommand(program: Command): void {
  command(
    program,
    'bisect',
    'the first transition in which two sessions differ, explained',
    'vmtape bisect good.vmtape bad.vmtape',
    'vmtape bisect guest.vmtape --policy kvm-6.1',
    'vmtape bisect mine.vmtape other.vmtape --search policies',
    `vmtape bisect guest.vmtape --where 'serial ~ "panic"' --monotonic`,
    'vmtape bisect guest.vmtape --other qemu --max-instructions 100000',
  )
    .argument('<tapes...>', 'two; or one, with --cpu, --policy, --where or --other')
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
    .option('--where <expression>', 'the first position at which it holds, over registers, VMCB, memory, event, serial')
    .option('--monotonic', 'with --where: once true it stays true, so it need not be looked at everywhere')
    .option('--instructions', 'with --where: after each instruction, not only at events')
    .addOption(
      new Option('--equivalent <names>', `differences to pass over: ${OPEN_KINDS.join(', ')}`).argParser(
        parseEquivalents,
      ),
    )
    .option(
      '--ignore <kinds>',
      'kinds of events to pass over, whichever tape has them, such as input.clock or rtc.*',
      (text) => text.split(','),
    )
    .option('--other <command>', 'another machine in lockstep: a command that speaks the interface, or qemu')
    .option('--max-instructions <n>', 'with --other: compare so many', (text) =>
      parseCount(text, '--max-instructions', 1),
    )
    .option('--strict', 'with --other: stop at what differs by nature, too: CPUID, time, device registers')
    .option('--memory', 'with --other: compare the RAM that each instruction writes, too')
    .option('--html <file>', 'the report as a page, with both timelines around the place')
    .option('--junit <file>', 'the report as a test case, for CI')
    .action(async (tapes: readonly string[], flags: BisectFlags, self: Command) => {
      process.exitCode = await new BisectRun(flags, terminalOf(self)).run(tapes);
    });
}

function parseSearch(text: string): true {
  if (text === 'policies') return true;
  throw new UsageError(`--search ${quote(text)}: only policies can be searched. Give --search policies.`);
}

function parseEquivalents(text: string): ReadonlySet<OpenKind> {
  return new Set(
    text.split(',').map((word) => {
      const known = OPEN_KINDS.find((each) => each === word);
      if (known !== undefined) return known;
      throw new UsageError(`--equivalent ${quote(word)} is none. There are ${OPEN_KINDS.join(', ')}.`);
    }),
  );
}

class BisectRun {
  private readonly readers: JournalReader[] = [];
  private files: ReportFiles | undefined;

  constructor(
    private readonly flags: BisectFlags,
    private readonly terminal: Terminal,
  ) {}

  /** @returns the exit status. */
  async run(tapes: readonly string[]): Promise<number> {
    const { cpu, policy, search, where, monotonic, instructions, html, junit } = this.flags;
    const [first, second, tooMany] = tapes;
    if (first === undefined) throw new UsageError('vmtape bisect: give two tapes.');
    if (tooMany !== undefined)
      throw new UsageError(`vmtape bisect: two tapes are compared, and ${tooMany} is left over.`);
    if (where === undefined && (monotonic ?? instructions) !== undefined) {
      throw new UsageError('--monotonic and --instructions are for --where. Leave them out, or give an expression.');
    }
    const { other, maxInstructions, strict, memory } = this.flags;
    if (other === undefined && (maxInstructions ?? strict ?? memory) !== undefined) {
      throw new UsageError('--max-instructions, --strict and --memory are for --other. Leave them out, or give it.');
    }
    if (other !== undefined) return await this.lockstepAlone(first, second, other);
    if (where !== undefined) return await this.whereAlone(first, second, where);
    const isOther = cpu !== undefined || policy !== undefined;
    if (second === undefined && !isOther) {
      throw new UsageError(
        'vmtape bisect: one tape alone differs from nothing. Give another, or --policy, --cpu or --where.',
      );
    }
    if (second !== undefined && isOther) {
      throw new UsageError('--cpu and --policy are for one tape. Leave them out, or give one tape.');
    }
    if (search === true && (html ?? junit) !== undefined) {
      throw new UsageError('--html and --junit report where sessions part. Leave them out, or leave out --search.');
    }
    if (search === true && second === undefined) {
      throw new UsageError('--search policies is for two tapes. Give the one to come to, too.');
    }
    this.files = new ReportFiles(this.flags);
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
    const { equivalent, ignore = [] } = this.flags;
    const patterns = ignore.map(patternOf);
    const chaos = equivalent?.has('chaos') === true;
    return {
      leniency: { hostSaveArea: equivalent?.has('host-save-area') === true },
      undefinedFlags: equivalent?.has('undefined-flags'),
      ignores: (type) => (chaos && CHAOS_DECISIONS.has(type)) || patterns.some((pattern) => pattern.test(type)),
      searchesPolicies: false,
      doing: (what) => this.terminal.status(what),
    };
  }

  private async compare(sides: readonly [Side, Side], names: Names): Promise<number> {
    const bisection = bisect(sides, this.options);
    for (const side of sides) side.close();
    this.write(bisection, names, [sides[0].reader, sides[1].reader]);
    await this.report(bisection, names);
    return statusOf(bisection);
  }

  private write(bisection: Bisection, names: Names, readers: Pair<JournalReader>): void {
    const plain = pc.createColors(false);
    this.files?.write({
      html: () => bisectionPage(bisection, names, readers, plain),
      junit: () => junitReport(bisection, names, plain),
    });
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
    const same = {
      kind: 'same',
      end,
      effort: { start, links: 0, events: Number(end.seq - start.seq), passed: [] },
    } as const;
    this.write(same, names, [reader, reader]);
    await this.report(same, names);
    return Status.DONE;
  }

  private async lockstepAlone(tape: string, second: string | undefined, other: string): Promise<number> {
    const { maxInstructions, strict, memory, html, junit, ...others } = this.flags;
    const { cpu, policy, search, where, equivalent, ignore } = others;
    const compares = [cpu, policy, search, where, equivalent, ignore];
    if (second !== undefined || compares.some((flag) => flag !== undefined)) {
      throw new UsageError('--other holds one tape against a machine. Leave out other ways to compare it.');
    }
    return await lockstepRun(tape, { other, maxInstructions, strict, memory, html, junit }, this.terminal);
  }

  private async whereAlone(tape: string, second: string | undefined, where: string): Promise<number> {
    const { monotonic = false, instructions = false, ...others } = this.flags;
    const { cpu, policy, search, html, junit, equivalent, ignore } = others;
    if (
      second !== undefined ||
      [cpu, policy, search, html, junit, equivalent, ignore].some((flag) => flag !== undefined)
    ) {
      throw new UsageError('--where looks at one tape alone. Leave out what compares it.');
    }
    if (monotonic && instructions) {
      throw new UsageError('--monotonic and --instructions: give one of them. The first finds the instruction, too.');
    }
    try {
      return await this.where(tape, this.open(tape), where, { monotonic, instructions });
    } finally {
      for (const reader of this.readers) reader.close();
    }
  }

  private async where(
    tape: string,
    reader: JournalReader,
    where: string,
    how: { readonly monotonic: boolean; readonly instructions: boolean },
  ): Promise<number> {
    const { terminal } = this;
    // Names are understood on a machine of the tape.
    const timeline = new Timeline(reader);
    const { holds, stateOnly } = compilePredicate(where, timeline.machine);
    timeline.close();
    const found = firstWhere(reader, holds, { ...how, stateOnly }, this.progress('looking'));
    terminal.clearStatus();
    const position = found && formatPosition(found);
    if (terminal.json) await terminal.document({ tape, where, found: found !== undefined, position: position ?? null });
    else await terminal.print(whereLines(tape, where, position, terminal.colors));
    return found === undefined ? Status.NO : Status.DONE;
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

function whereLines(
  tape: string,
  where: string,
  position: string | undefined,
  { bold, dim }: Terminal['colors'],
): readonly string[] {
  if (position === undefined) return [`${tape}: ${where} holds nowhere that was looked at.`];
  return [
    bold(`${tape}: ${where} holds first at ${position}`),
    dim(`  see vmtape show ${tape} ${position} --disassemble 3`),
  ];
}

/** @throws UsageError for a kind that no event has. */
function patternOf(kind: string): RegExp {
  const escaped = kind.replace(/[.+?^${}()|[\]\\]/g, '\\$&').replaceAll('*', '.*');
  const pattern = new RegExp(`^${escaped}$`);
  if (Object.keys(EVENT_FIELDS).some((type) => pattern.test(type))) return pattern;
  throw new UsageError(
    `--ignore ${quote(kind)}: there are no events of that kind. See vmtape info for those of a tape.`,
  );
}

const statusOf = ({ kind }: Bisection): number => (kind === 'same' ? Status.DONE : Status.NO);

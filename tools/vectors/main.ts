/**
 * `npm run vectors -- DIR [--core] [--group NAME] [--engine evaluator|wasm|regions|both|all]`: runs instruction vectors recorded on
 * real silicon and tells what differs.
 *
 * Exit status: 0 when none failed, 1 when some did, 2 for wrong usage or vectors that cannot be read.
 */
import { join } from 'node:path';
import { compileRegions } from '../../src/machine/index.js';
import { tuneV8 } from '../cli/engine.js';
import { Status, UsageError } from '../cli/failure.js';
import { Terminal } from '../cli/terminal.js';
import { parseWords, runTool } from '../cli/tool.js';
import { type Block, readIndex, readVectorFile, type Vector, type VectorSet } from './reader.js';
import { type Difference, Subject, type VectorTier } from './subject.js';

tuneV8();

const USAGE = `usage: npm run vectors -- DIR [options]
  --core         the core subset of each group alone
  --group NAME   one group; may be given several times
  --engine NAME  evaluator, wasm, regions, both: the first two, or all (both)`;
const FAILURES_SHOWN = 20;
const FAILURES_SHOWN_OF_A_FORM = 2;

/** Forms where an AMD processor was seen to differ from the recorded one; docs/fidelity.md tells how. */
const OTHERWISE_ON_AMD = new Set(['page fault, straddle: fstp m80']);

interface Tally {
  passed: number;
  failed: number;
  skipped: number;
}

interface Report {
  readonly groups: Map<string, Tally>;
  /** Reason, then form, then how many vectors. */
  readonly skipped: Map<string, Map<string, number>>;
  readonly failuresOfForm: Map<string, number>;
  /** Regions that were made for vectors to run in. */
  regions: number;
  shown: number;
}

const TIERS: Readonly<Record<string, readonly VectorTier[]>> = {
  evaluator: ['evaluator'],
  wasm: ['engine'],
  regions: ['region'],
  both: ['evaluator', 'engine'],
  all: ['evaluator', 'engine', 'region'],
};

interface Arguments {
  readonly directory: string;
  readonly core: boolean;
  readonly groups: readonly string[] | undefined;
  readonly tiers: readonly VectorTier[];
}

/** @throws UsageError */
function argumentsOf(args: string[]): Arguments {
  const { values, positionals } = parseWords({
    args,
    allowPositionals: true,
    options: {
      group: { type: 'string', multiple: true },
      core: { type: 'boolean', default: false },
      engine: { type: 'string', default: 'both' },
    },
  });
  const [directory, second] = positionals;
  if (directory === undefined) throw new UsageError('No directory of vectors is named.');
  if (second !== undefined) throw new UsageError(`${JSON.stringify(second)} is one directory too many.`);
  const tiers = TIERS[values.engine];
  if (tiers === undefined) throw new UsageError(`--engine ${values.engine} is unknown.`);
  return { directory, core: values.core, groups: values.group, tiers };
}

function run({ directory, core, groups, tiers }: Arguments): number {
  const set = readIndex(directory);
  const stranger = groups?.find((name) => set.files.every(({ group }) => group !== name));
  if (stranger !== undefined) {
    const known = [...new Set(set.files.map(({ group }) => group))].join(', ');
    throw new UsageError(`--group ${stranger}: ${directory} has ${known}.`);
  }
  const files = set.files.filter((file) => (file.core || !core) && (groups?.includes(file.group) ?? true));
  const report: Report = { groups: new Map(), skipped: new Map(), failuresOfForm: new Map(), regions: 0, shown: 0 };
  const terminal = new Terminal({ json: false });
  for (const [index, { file, group }] of files.entries()) {
    for (const tier of tiers) {
      const name = tiers.length > 1 ? `${group} ${tier}` : group;
      terminal.status(`${index + 1} of ${files.length} files: ${file}, ${tier}`);
      runFile(join(directory, file), name, tier, set, report);
    }
  }
  terminal.clearStatus();
  return tell(report);
}

function runFile(path: string, group: string, tier: VectorTier, set: VectorSet, report: Report): void {
  const file = readVectorFile(path);
  compileRegions(tier === 'region' ? 'at-once' : 'hot');
  const subject = new Subject(tier, file);
  const tally = report.groups.get(group) ?? { passed: 0, failed: 0, skipped: 0 };
  report.groups.set(group, tally);
  for (const block of file.blocks) {
    const form = set.forms[block.form]?.form ?? `form ${block.form}`;
    const reason = OTHERWISE_ON_AMD.has(form) ? 'an AMD processor differs' : subject.skipReason(block);
    if (reason !== undefined) {
      tally.skipped += block.vectors.length;
      countSkipped(report, reason, form, block.vectors.length);
      continue;
    }
    for (const vector of block.vectors) {
      if (vector.isVendorSpecific) {
        tally.skipped++;
        countSkipped(report, 'differs between vendors', form, 1);
        continue;
      }
      const differences = subject.check(block, vector);
      if (differences.length === 0) tally.passed++;
      else {
        tally.failed++;
        showFailure(report, `${group}: ${form}`, block, vector, differences);
      }
    }
  }
  if (tier === 'region') report.regions += subject.regions;
}

function countSkipped(report: Report, reason: string, form: string, count: number): void {
  const forms = report.skipped.get(reason) ?? new Map<string, number>();
  report.skipped.set(reason, forms);
  forms.set(form, (forms.get(form) ?? 0) + count);
}

function showFailure(
  report: Report,
  form: string,
  block: Block,
  vector: Vector,
  differences: readonly Difference[],
): void {
  const count = (report.failuresOfForm.get(form) ?? 0) + 1;
  report.failuresOfForm.set(form, count);
  if (count > FAILURES_SHOWN_OF_A_FORM || report.shown >= FAILURES_SHOWN) return;
  report.shown++;
  const bytes = Array.from(block.instruction, (byte) => byte.toString(16).padStart(2, '0')).join(' ');
  console.log(`FAILED ${form}\n  ${block.assembly}  [${bytes}]`);
  const registers = vector.input.gpr.map((value) => value.toString(16)).join(' ');
  console.log(`  in: rflags ${vector.input.rflags.toString(16)}, registers ${registers}`);
  for (const { field, expected, found } of differences) console.log(`  ${field}: expected ${expected}, found ${found}`);
}

function tell(report: Report): number {
  const total: Tally = { passed: 0, failed: 0, skipped: 0 };
  const row = (name: string, { passed, failed, skipped }: Tally): string =>
    [name.padEnd(24), ...[passed, failed, skipped].map((count) => String(count).padStart(9))].join('');
  if (report.failuresOfForm.size > 0) {
    console.log('\nfailures by form:');
    for (const [form, count] of report.failuresOfForm) console.log(`  ${String(count).padStart(6)}  ${form}`);
  }
  for (const [reason, forms] of report.skipped) {
    const count = [...forms.values()].reduce((sum, vectors) => sum + vectors, 0);
    console.log(`\nskipped, ${reason}: ${count} vectors of ${forms.size} forms`);
    if (reason === 'no description') console.log(`  ${[...forms.keys()].join('; ')}`);
  }
  if (report.regions > 0) console.log(`\n${report.regions} regions were made`);
  console.log(`\n${['group'.padEnd(24), '   passed', '   failed', '  skipped'].join('')}`);
  for (const [group, tally] of report.groups) {
    console.log(row(group, tally));
    total.passed += tally.passed;
    total.failed += tally.failed;
    total.skipped += tally.skipped;
  }
  console.log(`\n${total.passed} passed, ${total.failed} failed, ${total.skipped} skipped`);
  return total.failed === 0 ? Status.DONE : Status.NO;
}

await runTool(USAGE, (words) => run(argumentsOf(words)));

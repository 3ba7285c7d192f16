/** `vmtape conform LOG`: a hypervisor's decisions about its nested guests' exits, held against the model's. */
import { type Command, Option } from 'commander';
import { type ControlWord, type DeviationName, InputError, type Policy } from '../../../src/machine/index.js';
import { type Conformity, conformityOf } from '../../import/conformity.js';
import { kvmEvent } from '../../import/kvm-text.js';
import { LogReader } from '../../import/log-reader.js';
import { parseCount, quote } from '../arguments.js';
import { command, terminalOf } from '../command.js';
import { Status, UsageError } from '../failure.js';
import { hex, plural, table } from '../format.js';
import { logLines, logProgress, logSummary } from '../hypervisor-log.js';
import { parsePolicyFlag } from '../machine-flags.js';
import type { Terminal } from '../terminal.js';

interface ConformFlags {
  readonly policy?: Policy;
  readonly intercepts?: readonly ControlWord[];
  readonly limit: number;
}

const SHOWN = 20;

export function conformCommand(program: Command): void {
  command(
    program,
    'conform',
    'a log of KVM’s or Xen’s: each exit of a nested guest, given to L1 or handled in L0, held against the model',
    'trace-cmd record -e kvm:kvm_entry -e kvm:kvm_exit -e kvm:kvm_nested_\\* sleep 5 && trace-cmd report > log.txt',
    'vmtape conform log.txt',
  )
    .argument('<log>', 'text of tracefs, trace-cmd report, perf script, xentrace_format or xenalyze')
    .option(
      '--policy <policy>',
      'the model: a name of vmtape policies, or a JSON file (default: the manual)',
      parsePolicyFlag,
    )
    .addOption(
      new Option(
        '--intercepts <text>',
        'what L1 asks for where the log does not tell, as kvm_nested_intercepts prints it',
      ).argParser(parseIntercepts),
    )
    .option('--limit <n>', 'differences to show', (text) => parseCount(text, '--limit', 1), SHOWN)
    .action(async (log: string, flags: ConformFlags, self: Command) => {
      process.exitCode = await conform(log, flags, terminalOf(self));
    });
}

function parseIntercepts(text: string): readonly ControlWord[] {
  const event = kvmEvent({ name: 'kvm_nested_intercepts', text: text.trim() });
  if (event?.kind === 'intercepts') return event.controls;
  throw new UsageError(
    `--intercepts ${quote(text)}: give cr_read: 0000 cr_write: 0010 excp: 00060042 intercepts: bc4c8027 00006e7f 00000000.`,
  );
}

async function conform(path: string, flags: ConformFlags, terminal: Terminal): Promise<number> {
  const log = new LogReader(path);
  try {
    const deviations = new Set<DeviationName>(flags.policy?.deviations);
    const options = { deviations, assumed: flags.intercepts, most: flags.limit };
    const found = conformityOf(log, options, logProgress(log, terminal, 'reading'));
    terminal.clearStatus();
    if (found.exits === 0) {
      const problem = 'no exit of a nested guest is in it';
      throw new InputError(path, problem, 'Record kvm:kvm_nested_vmexit, or Xen’s 0x0008f000, while one runs.');
    }
    if (terminal.json) await terminal.document(document(path, log, found, flags));
    else await terminal.print(page(path, log, found, terminal));
    return found.differing === 0 ? Status.DONE : Status.NO;
  } finally {
    log.close();
  }
}

function document(path: string, log: LogReader, found: Conformity, { policy }: ConformFlags): unknown {
  const { exits, agreeing, differing, differences, open } = found;
  return {
    ...{ log: path, outcome: differing === 0 ? 'conforms' : 'differs', policy: policy?.name ?? null },
    ...{ exits, agreeing, differing, differences },
    open: [...open].map(([why, count]) => ({ why, count })),
    ...logSummary(log),
  };
}

function page(path: string, log: LogReader, found: Conformity, { colors }: Terminal): readonly string[] {
  const { exits, agreeing, differing, differences, open, subjects } = found;
  const opens = [...open].sort(([, a], [, b]) => b - a);
  const opened = opens.reduce((sum, [, count]) => sum + count, 0);
  const verdict =
    differing === 0
      ? 'nothing is decided otherwise than the model does'
      : `${plural(differing, 'decision')} ${differing === 1 ? 'differs' : 'differ'} from the model’s`;
  const rows = differences.map(({ line, subject, rip, exit, did, model }) => [
    ...[`line ${line}`, subject, rip === undefined ? '' : hex(rip, 16), exit, did],
    `model: ${model}`,
  ]);
  return [
    colors.bold(`${path}: ${verdict}`),
    `  ${plural(exits, 'exit')} of nested guests on ${plural(subjects.size, 'vCPU')}: ${agreeing} as the model decides, ${opened} open`,
    ...table(rows, [], '  ').map((line) => colors.red(line)),
    ...(differing > differences.length ? [`  and ${differing - differences.length} more: --limit`] : []),
    ...(opens.length === 0 ? [] : ['', colors.bold('Open, either way may be right:')]),
    ...table(
      opens.map(([why, count]) => [String(count), why]),
      ['right'],
      '  ',
    ),
    ...logLines(log, colors),
  ];
}

/** `vmtape align TAPE LOG`: a tape and a hypervisor's log of the same guest, to the first exit that differs. */
import { type Command, Option } from 'commander';
import { formatPosition, type Position, sqliteStore } from '../../../src/journal/index.js';
import { exitCodeNamed, exitName, InputError } from '../../../src/machine/index.js';
import { resolvePosition } from '../../../src/replay/index.js';
import {
  type Alignment,
  type AlignOptions,
  align,
  BY_TIME,
  type Field,
  type LogExit,
  probeOf,
  type Whose,
} from '../../import/align.js';
import { LogReader } from '../../import/log-reader.js';
import type { TapeExit } from '../../import/tape-exits.js';
import { quote } from '../arguments.js';
import { command, terminalOf } from '../command.js';
import { Status, UsageError } from '../failure.js';
import { hex, plural, table } from '../format.js';
import { logLines, logProgress, logSummary } from '../hypervisor-log.js';
import type { Terminal } from '../terminal.js';

interface AlignFlags {
  readonly exits?: Whose;
  readonly ignore?: ReadonlySet<bigint>;
  readonly compare?: ReadonlySet<Field>;
  readonly from?: string;
}

const FIELDS: readonly Field[] = ['rip', 'info'];

export function alignCommand(program: Command): void {
  command(
    program,
    'align',
    'a tape and a log of the same guest, lined up by their exits: the first that differs',
    'vmtape align guest.vmtape log.txt',
    'vmtape align guest.vmtape log.txt --exits own --ignore intr,nmi,npf',
  )
    .argument('<tape>')
    .argument('<log>', 'text of tracefs, trace-cmd report, perf script, xentrace_format or xenalyze')
    .addOption(
      new Option(
        '--exits <whose>',
        'of the log: nested, those of L2 that L1 was given; own, those of the guest itself (default: what there is)',
      ).choices(['nested', 'own']),
    )
    .addOption(
      new Option('--ignore <exits>', 'exits to pass over, or none (default: intr,nmi,smi,init,vintr)').argParser(
        parseExits,
      ),
    )
    .addOption(
      new Option(
        '--compare <fields>',
        `besides the exit: ${FIELDS.join(', ')}, or code for none (default: all)`,
      ).argParser(parseFields),
    )
    .option('--from <pos>', 'where on the tape the log begins (default: it is looked for)')
    .action(async (tape: string, log: string, flags: AlignFlags, self: Command) => {
      process.exitCode = await alignFiles(tape, log, flags, terminalOf(self));
    });
}

function parseExits(text: string): ReadonlySet<bigint> {
  if (text === 'none') return new Set();
  return new Set(
    text.split(',').map((name) => {
      const code = exitCodeNamed(name);
      if (code !== undefined) return code;
      throw new UsageError(`--ignore ${quote(name)} is no exit. Give names such as cpuid or cr3-write, or none.`);
    }),
  );
}

function parseFields(text: string): ReadonlySet<Field> {
  if (text === 'code') return new Set();
  return new Set(
    text.split(',').map((name) => {
      const field = FIELDS.find((each) => each === name);
      if (field !== undefined) return field;
      throw new UsageError(`--compare ${quote(name)} is none. There are ${FIELDS.join(', ')} and code.`);
    }),
  );
}

/** A log is read once to see what is in it, and once more to compare. */
function withLog<Result>(path: string, work: (log: LogReader) => Result): Result {
  const log = new LogReader(path);
  try {
    return work(log);
  } finally {
    log.close();
  }
}

async function alignFiles(tape: string, path: string, flags: AlignFlags, terminal: Terminal): Promise<number> {
  const reader = sqliteStore(tape).read();
  try {
    const from: Position | undefined = flags.from === undefined ? undefined : resolvePosition(reader, flags.from);
    const common = { ignored: flags.ignore ?? BY_TIME, fields: flags.compare ?? new Set(FIELDS), from };
    const wanted: readonly Whose[] = flags.exits === undefined ? ['nested', 'own'] : [flags.exits];
    terminal.status('reading the log');
    for (const whose of wanted) {
      const options: AlignOptions = { whose, ...common };
      const probe = withLog(path, (log) => probeOf(log, options));
      if (probe.size === 0) continue;
      return await withLog(path, async (log) => {
        // Which thread runs which vCPU, the log may tell late.
        const found = align(reader, log, probe, options, logProgress(log, terminal, 'comparing'));
        terminal.clearStatus();
        if (terminal.json) await terminal.document(document(tape, path, whose, found, log));
        else await terminal.print(page(tape, path, whose, found, log, terminal));
        return found.some(({ differs }) => differs !== undefined) ? Status.NO : Status.DONE;
      });
    }
    throw new InputError(path, 'no exit that is compared is in it', 'Give --exits or --ignore, or another log.');
  } finally {
    reader.close();
  }
}

type Pair = readonly [TapeExit, LogExit];

const pairDocument = ([tape, log]: Pair): unknown => ({
  tape: {
    position: formatPosition(tape.position),
    exit: exitName(tape.code),
    info1: tape.info1,
    rip: tape.rip ?? null,
  },
  log: { line: log.line, exit: logExitName(log), info1: log.exit.info1 ?? null, rip: log.exit.rip ?? null },
});

function document(tape: string, path: string, whose: Whose, found: readonly Alignment[], log: LogReader): unknown {
  return {
    ...{ tape, log: path, exits: whose },
    outcome: found.some(({ differs }) => differs !== undefined) ? 'differs' : 'same',
    vcpus: found.map(({ vcpu, subject, same, ahead, begins, before, differs, ended }) => ({
      ...{ vcpu, subject, same, ahead, begins: begins === undefined ? null : formatPosition(begins) },
      before: before.map(pairDocument),
      differs: differs === undefined ? null : pairDocument(differs),
      ended: ended ?? null,
    })),
    ...logSummary(log),
  };
}

const logExitName = ({ exit: { reason } }: LogExit): string =>
  reason.code === undefined ? reason.text : exitName(reason.code);

const ripText = (rip: bigint | undefined): string => (rip === undefined ? '' : hex(rip, 16));
const infoText = (info: bigint | undefined): string => (info === undefined ? '' : `info1=0x${info.toString(16)}`);

const pairRow = ([tape, log]: Pair): readonly string[] => [
  ...[formatPosition(tape.position), exitName(tape.code), ripText(tape.rip), infoText(tape.info1), '│'],
  ...[`line ${log.line}`, logExitName(log), ripText(log.exit.rip), infoText(log.exit.info1)],
];

function page(
  tape: string,
  path: string,
  whose: Whose,
  found: readonly Alignment[],
  log: LogReader,
  { colors }: Terminal,
): readonly string[] {
  const meant = whose === 'nested' ? 'exits of L2 that L1 was given' : 'exits of the guest itself';
  const lines = [colors.dim(`${path}: ${meant}`)];
  for (const { vcpu, subject, same, ahead, begins, before, differs, ended } of found) {
    const name = `vCPU ${vcpu} (${log.vcpuOf(subject) === undefined ? subject : `thread ${subject}`})`;
    const upTo = `${plural(same, 'exit')} the same from ${begins === undefined ? 'nowhere' : formatPosition(begins)} on`;
    const skipped = ahead === 0 ? '' : `, ${plural(ahead, 'exit')} of the tape ahead of the log`;
    const end = ended === undefined ? '' : `; then ${ended === 'log' ? 'the log' : 'the tape'} ends`;
    lines.push(
      (differs === undefined ? colors.bold : colors.red)(
        `${name}: ${differs === undefined ? `${upTo}${end}` : `they part after ${upTo}`}${skipped}`,
      ),
    );
    if (differs === undefined) continue;
    const rows = [
      ['  ', tape, '', '', '', '│', path],
      ...[...before].map((pair) => ['  ', ...pairRow(pair)]),
      ['≠ ', ...pairRow(differs)],
    ];
    lines.push(...table(rows, [], '  '));
    lines.push(colors.dim(`  See vmtape show ${tape} ${formatPosition(differs[0].position)} --vmcb --disassemble 3.`));
  }
  return [...lines, ...logLines(log, colors)];
}

/** What a lockstep comes to, for people and for programs. */
import { formatPosition, type JournalReader } from '../../src/journal/index.js';
import { eventText } from '../../src/replay/index.js';
import { drawing, htmlPage } from '../bisect/html.js';
import { junitCase } from '../bisect/junit.js';
import type { Names, Section } from '../bisect/page.js';
import { grouped, hex, plural, table } from '../cli/format.js';
import type { Colors } from '../cli/terminal.js';
import type { LockstepResult, PartsDifference } from './lockstep.js';

const stepText = ({ step }: PartsDifference): string => {
  if (step === undefined) return '';
  if (step.kind === 'event') return eventText(step.event);
  return `${hex(step.rip, 16)}  ${Buffer.from(step.bytes).toString('hex')}  ${step.text}`;
};

/** One sentence: what came out. */
function lockstepHeadline(tape: string, { other, compared, differs, end }: LockstepResult): string {
  if (differs !== undefined) return `${tape} and ${other} part at ${formatPosition(differs.position)}.`;
  return `${tape} and ${other} are ${sameFor(compared)}, to ${formatPosition(end)}.`;
}

const sameFor = (compared: bigint): string => `the same for ${grouped(compared)} instructions`;

export function lockstepPage(tape: string, result: LockstepResult, colors: Colors): readonly string[] {
  const { compared, differs, stopped } = result;
  const lines = [colors.bold(lockstepHeadline(tape, result))];
  if (differs !== undefined) lines.push(colors.dim(`  ${sameFor(compared)}`));
  if (stopped !== undefined) lines.push(`  ${stopped}`);
  for (const { heading, lines: body } of lockstepSections(tape, result)) {
    if (body.length > 0) lines.push('', colors.bold(`${heading}:`), ...body.map((line) => `  ${line}`));
  }
  if (differs !== undefined) {
    lines.push('', colors.dim(`See vmtape show ${tape} ${formatPosition(differs.position)} --disassemble 3.`));
  }
  return lines;
}

function lockstepSections(tape: string, { other, differs, passed, recent }: LockstepResult): readonly Section[] {
  const over = [...passed].sort(([, a], [, b]) => b - a).map(([why, count]) => [grouped(count), why]);
  return [
    ...(differs === undefined ? [] : differenceSections([tape, other], differs)),
    { heading: 'Passed over', lines: table(over, ['right']) },
    ...(differs === undefined
      ? []
      : [{ heading: 'Before, on both', lines: recent.map(({ rip, text }) => `${hex(rip, 16)}  ${text}`) }]),
  ];
}

function differenceSections(names: Names, differs: PartsDifference): readonly Section[] {
  const { fields, memory, why } = differs;
  const step = stepText(differs);
  const rows = [
    ...fields.map(({ register, first, second }) => [register, `0x${hex(first)}`, `0x${hex(second)}`]),
    ...memory.map(({ address, first, second }) => [`RAM at ${hex(address)}h`, first, second]),
  ];
  return [
    { heading: 'What each did', lines: step === '' ? [] : [step] },
    {
      heading: `What differs after it (${plural(rows.length, 'value')})`,
      lines: rows.length === 0 ? [] : table([['', ...names], ...rows]),
    },
    { heading: 'Cause', lines: [why] },
  ];
}

/** The report as a page of its own, with the tape's timeline around the place. */
export function lockstepHtml(tape: string, result: LockstepResult, reader: JournalReader): string {
  const { compared, differs, stopped } = result;
  const told = [sameFor(compared), ...(stopped === undefined ? [] : [stopped])];
  const drawings = differs === undefined ? [] : [drawing(tape, reader, differs.position)];
  return htmlPage(
    lockstepHeadline(tape, result),
    [{ heading: '', lines: told }, ...lockstepSections(tape, result)],
    drawings,
  );
}

/** One test case for CI. @param plain shows no colours. */
export function lockstepJunit(tape: string, result: LockstepResult, plain: Colors): string {
  const failure = { message: lockstepHeadline(tape, result), text: lockstepPage(tape, result, plain) };
  return junitCase([tape, result.other], result.differs === undefined ? undefined : failure);
}

export function lockstepDocument(tape: string, result: LockstepResult): unknown {
  const { other, compared, differs, end, stopped, passed, recent } = result;
  return {
    ...{ tape, other, outcome: differs === undefined ? 'same' : 'differs', compared, end: formatPosition(end) },
    differs:
      differs === undefined
        ? null
        : {
            position: formatPosition(differs.position),
            step: stepText(differs),
            registers: differs.fields,
            memory: differs.memory,
            cause: differs.why,
          },
    stopped: stopped ?? null,
    passed: [...passed].map(([why, count]) => ({ why, count })),
    recent: recent.map(({ rip, text }) => ({ rip, text })),
  };
}

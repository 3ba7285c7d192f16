/** What a lockstep comes to, for people and for programs. */
import { formatPosition } from '../../src/journal/index.js';
import { eventText } from '../../src/replay/index.js';
import { grouped, hex, plural, table } from '../cli/format.js';
import type { Colors } from '../cli/terminal.js';
import type { LockstepResult, PartsDifference } from './lockstep.js';

const stepText = ({ step }: PartsDifference): string => {
  if (step === undefined) return '';
  if (step.kind === 'event') return eventText(step.event);
  return `${hex(step.rip, 16)}  ${Buffer.from(step.bytes).toString('hex')}  ${step.text}`;
};

export function lockstepPage(tape: string, result: LockstepResult, colors: Colors): readonly string[] {
  const { other, compared, differs, end, stopped, passed, recent } = result;
  const upTo = `the same for ${grouped(compared)} instructions`;
  const lines =
    differs === undefined
      ? [colors.bold(`${tape} and ${other} are ${upTo}, to ${formatPosition(end)}.`)]
      : [colors.bold(`${tape} and ${other} part at ${formatPosition(differs.position)}.`), colors.dim(`  ${upTo}`)];
  if (stopped !== undefined) lines.push(`  ${stopped}`);
  if (differs !== undefined) lines.push(...differenceLines(tape, result, differs, colors));
  if (passed.size > 0) {
    lines.push('', colors.bold('Passed over:'));
    lines.push(
      ...table(
        [...passed].sort(([, a], [, b]) => b - a).map(([why, count]) => [grouped(count), why]),
        ['right'],
        '  ',
      ),
    );
  }
  if (differs !== undefined && recent.length > 0) {
    lines.push('', colors.bold('Before, on both:'));
    lines.push(...recent.map(({ rip, text }) => `  ${hex(rip, 16)}  ${text}`));
  }
  return lines;
}

function differenceLines(
  tape: string,
  { other }: LockstepResult,
  differs: PartsDifference,
  colors: Colors,
): readonly string[] {
  const { fields, memory, why, position } = differs;
  const step = stepText(differs);
  const rows = [
    ...fields.map(({ register, first, second }) => [register, `0x${hex(first)}`, `0x${hex(second)}`]),
    ...memory.map(({ address, first, second }) => [`RAM at ${hex(address)}h`, first, second]),
  ];
  return [
    ...(step === '' ? [] : ['', colors.bold('What each did:'), `  ${step}`]),
    ...(rows.length === 0
      ? []
      : [
          '',
          colors.bold(`What differs after it (${plural(rows.length, 'value')}):`),
          ...table([['', tape, other], ...rows], [], '  '),
        ]),
    '',
    `${colors.bold('Cause:')} ${why}`,
    '',
    colors.dim(`See vmtape show ${tape} ${formatPosition(position)} --disassemble 3.`),
  ];
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

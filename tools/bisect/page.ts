/** A bisection as one page for a person: where two sessions part, how, by which decision, and why. */
import { formatPosition } from '../../src/journal/index.js';
import { DEVIATIONS, type Intercept } from '../../src/machine/index.js';
import {
  type Bisection,
  type Cause,
  type Divergence,
  eventText,
  type InterceptDecision,
  type Pair,
  type PolicySearch,
  type RamDifference,
  type RowThere,
  recordText,
  type Transition,
  type WriterAnswer,
} from '../../src/replay/index.js';
import { hex, plural, table } from '../cli/format.js';
import type { Colors } from '../cli/terminal.js';

/** Tapes as the user calls them. */
export type Names = Pair<string>;

const MOST_FIELDS = 40;
const EFFECTS: Readonly<Record<Cause['effect'], string>> = {
  whole: ' [tried: this alone makes the difference]',
  part: ' [tried: this makes part of the difference]',
  untried: '',
};
const SHOWN_BYTES = 16;

/** A heading and its lines; none without lines. */
export interface Section {
  readonly heading: string;
  readonly lines: readonly string[];
}

/** One sentence: what came out. */
export function headline(bisection: Bisection, names: Names): string {
  const [first, second] = names;
  switch (bisection.kind) {
    case 'same':
      return `${first} and ${second} are the same, to the end of both at ${formatPosition(bisection.end)}.`;
    case 'ends': {
      const [shorter, longer] = bisection.which === 'first' ? [first, second] : [second, first];
      return `${shorter} ends at ${formatPosition(bisection.at)}, and ${longer} goes on; up to there they are the same.`;
    }
    case 'differs': {
      const { place, placeOnSecond, level, vcpu } = bisection;
      const on = place.seq === placeOnSecond.seq ? '' : ` (${formatPosition(placeOnSecond)} of ${second})`;
      return `${first} and ${second} part at ${formatPosition(place)}${on}, in L${level} on vCPU ${vcpu}.`;
    }
  }
}

export function page(bisection: Bisection, names: Names, colors: Colors): readonly string[] {
  const { effort } = bisection;
  const lines = [colors.bold(headline(bisection, names)), colors.dim(`  ${effortText(effort)}`)];
  if (bisection.kind !== 'differs') return lines;
  if (bisection.open.isAll) lines.push('  The architecture leaves open what differs here: both may be right.');
  for (const { heading, lines: body } of sections(bisection, names)) {
    if (body.length > 0) lines.push('', colors.bold(`${heading}:`), ...body.map((line) => `  ${line}`));
  }
  const [place, onSecond] = [bisection.place, bisection.placeOnSecond].map(formatPosition);
  if (!names.every(isTape)) return lines;
  lines.push(
    '',
    colors.dim(`See vmtape show ${names[0]} ${place}, and vmtape diff ${names[0]} ${place} ${names[1]} ${onSecond}.`),
  );
  return lines;
}

/** What is held against a tape may have been run just now: `--policy NAME`. */
const isTape = (name: string): boolean => !/^--|^the /.test(name);

const effortText = ({ links, events, passed }: Bisection['effort']): string => {
  const what = [...new Set(passed.map((each) => each.what))].join(', ');
  const over = passed.length === 0 ? '' : `; passed over ${plural(passed.length, 'difference')}: ${what}`;
  return `compared ${plural(links, 'link')} of the hash chains and ${plural(events + 1, 'event')}${over}`;
};

export function sections(divergence: Divergence, names: Names): readonly Section[] {
  const { transitions, decisions, causes, recent, event, hidden, place } = divergence;
  return [
    { heading: 'What each does', lines: transitionLines(divergence, names) },
    ...(hidden && event !== undefined
      ? [
          {
            heading: 'The first event that tells',
            lines: [formatPosition(event.boundaries[0]), ...eventLines(divergence, names)],
          },
        ]
      : []),
    { heading: 'What the architecture leaves open', lines: openLines(divergence) },
    { heading: 'What differs', lines: fieldLines(divergence, names) },
    {
      heading: 'RAM that differs',
      lines: table([['', ...names], ...transitions.memory.map(ramRow)]).slice(transitions.memory.length > 0 ? 0 : 1),
    },
    ...decisions.intercepts.map((decision) => interceptSection(decision, names)),
    ...(decisions.entry === undefined
      ? []
      : [
          {
            heading: `VMRUN of the VMCB at ${hex(decisions.entry.vmcb)}h`,
            lines: table(names.map((name, index) => [name, decisions.entry?.refusals[index] ?? 'refuses nothing'])),
          },
        ]),
    {
      heading: 'Who last wrote in this run what differs after it',
      lines: table(
        divergence.suspects.map(({ register, place: at, rip, instruction }) => [
          register,
          formatPosition(at),
          hex(rip, 16),
          instruction,
        ]),
      ),
    },
    {
      heading: 'Likely causes',
      lines: causes.map(({ text, effect }, index) => `${index + 1}. ${text}${EFFECTS[effect]}`),
    },
    { heading: `Events before ${formatPosition(place)}`, lines: recent.map(recordText) },
  ];
}

function transitionLines({ transitions, problems, digests }: Divergence, names: Names): readonly string[] {
  const before = transitions.sides.find((side) => side.before !== undefined)?.before;
  const { instruction } = before ?? {};
  const bytes = instruction === undefined ? '' : [...instruction.bytes].map((byte) => hex(byte, 2)).join(' ');
  return [
    ...(instruction === undefined ? [] : [`before ${hex(instruction.rip, 16)}  ${bytes}  ${instruction.text}`]),
    ...table(names.map((name, index) => [name, transitionText(transitions.sides[index] as Transition)])),
    ...(digests.length > 0 ? [`state digests that differ: ${digests.join(', ')}`] : []),
    ...names.flatMap((name, index) =>
      problems[index] === undefined ? [] : [`${name} cannot be run here: ${problems[index]}`],
    ),
  ];
}

function transitionText({ events, ran }: Transition): string {
  if (events.length > 0) return events.map(eventText).join('; ');
  return !ran ? 'nothing more' : 'goes on: the instruction is part of a run';
}

const eventLines = ({ event }: Divergence, names: Names): readonly string[] =>
  table(
    names.map((name, index) => [
      name,
      event?.records[index] === undefined ? 'ends here' : eventText(event.records[index]),
    ]),
  );

const openLines = ({ open }: Divergence): readonly string[] =>
  open.differences.map(({ kind, text, before }) =>
    before === true ? text : `${text}; --equivalent ${kind} passes it over`,
  );

function fieldLines({ transitions: { fields } }: Divergence, names: Names): readonly string[] {
  if (fields.length === 0) return [];
  const left = fields.length - MOST_FIELDS;
  return [
    ...table([
      ['', 'before', ...names],
      ...fields.slice(0, MOST_FIELDS).map(({ name, before = '', first, second }) => [name, before, first, second]),
    ]),
    ...(left > 0 ? [`and ${plural(left, 'more field')}; --json has them all`] : []),
  ];
}

const ramRow = ({ address, first, second }: RamDifference): readonly string[] => [
  `${hex(address)}h, ${plural(first.length, 'byte')}`,
  bytesText(first),
  bytesText(second),
];

const bytesText = (bytes: Uint8Array): string =>
  [...bytes.subarray(0, SHOWN_BYTES)].map((byte) => hex(byte, 2)).join(' ') + (bytes.length > SHOWN_BYTES ? ' …' : '');

function interceptSection({ row, exit, vmcb, field, sides }: InterceptDecision, names: Names): Section {
  const cells = (cell: (there: RowThere) => string): readonly string[] =>
    sides.map((there) => (there === undefined ? 'not known' : cell(there)));
  const rows: (readonly string[])[] = [
    ['', ...names],
    ['exits by it', ...cells(({ taken }) => (taken ? 'yes' : 'no'))],
    ['stage', ...cells(({ stage, ignored }) => (ignored ? `${stage}, but the bit is not looked at` : stage))],
    ['bit', ...cells(({ set, inGuest }) => (inGuest ? (set ? 'set' : 'clear') : 'no guest runs'))],
    ['bit written', ...cells(({ writer }) => writerText(writer))],
  ];
  if (sides.some((there) => there?.map !== undefined)) {
    rows.push(
      ['map', ...cells(({ map }) => (map === undefined ? '' : mapText(map)))],
      ['map written', ...cells(({ mapWriter }) => (mapWriter === undefined ? '' : writerText(mapWriter)))],
    );
  }
  const heading = `Intercept ${row.name} (${exit}): bit ${row.bit} of ${field} at ${hex(row.offset, 3)}h in the VMCB at ${hex(vmcb)}h${kindText(row)}`;
  return { heading, lines: table(rows) };
}

const kindText = ({ kind }: Intercept): string => (kind === 'instruction' ? '' : `, of kind ${kind}`);

function mapText({ base, bits, everyByte }: NonNullable<RowThere['map']>): string {
  if (bits.length === 0) return 'does not cover it: always exits';
  const [first] = bits;
  const values = bits.map(({ set }) => (set ? '1' : '0')).join('');
  const rule = bits.length === 1 ? '' : everyByte ? ', all must be set' : ', one is enough';
  return `at ${hex(base)}h: from bit ${first?.bit} of ${hex(first?.address ?? 0)}h on ${values}${rule}`;
}

function writerText(answer: WriterAnswer): string {
  switch (answer.kind) {
    case 'found':
      return `at ${formatPosition(answer.place)} by L${answer.level}, vCPU ${answer.vcpu}: ${hex(answer.rip)} ${answer.instruction}`;
    case 'nobody':
      return 'by nobody on the tape';
    case 'not-searched':
      return `not looked for: ${answer.why}`;
  }
}

/** What `--search policies` found. */
export function searchPage({ found, tried, left }: PolicySearch, names: Names, colors: Colors): readonly string[] {
  const [first, second] = names;
  const lines = tried.map(({ toggled, parts }) => [
    toggled.length === 0 ? 'nothing' : toggled.join(', '),
    parts === undefined ? 'the same to the end' : `part at ${formatPosition(parts)}`,
  ]);
  const told = [
    '',
    colors.bold('Toggled on the first machine, one session given the inputs of the other:'),
    ...table(lines, [], '  '),
  ];
  if (found?.length === 0)
    return [colors.bold(`${second} is what the machine of ${first} does with its inputs; no deviation is needed.`)];
  if (found !== undefined) {
    const what = plural(found.length, 'deviation');
    return [
      colors.bold(`${what} turn${found.length === 1 ? 's' : ''} ${first} into ${second}: ${found.join(', ')}`),
      ...found.map((name) => `  ${name}: ${DEVIATIONS[name].differs}`),
      ...told,
    ];
  }
  return [
    colors.bold(`No set of deviations that was tried turns ${first} into ${second}.`),
    ...told,
    ...(left === undefined ? [] : ['', ...page(left, ['the set that comes furthest', second], colors)]),
  ];
}

/** The pages of docs/generated: what the tables in the sources say, for people who do not read the sources. */
import {
  CPU_PROFILES,
  DEVIATION_NAMES,
  DEVIATIONS,
  EVENT_FIELDS,
  EXIT_CODES,
  INSTRUCTIONS,
  INTERCEPTS,
  type Instruction,
  isInput,
  type MachineEvent,
  manualExitName,
  POLICIES,
  REGISTER_NAMES,
  UNMODELLED,
  VMCB,
  witnessName,
} from '../../src/machine/index.js';
import { COMPONENT_FORMATS, componentFields } from '../../src/replay/index.js';

const FOLDER = 'docs/generated';

/** Pages by their path in the repository. */
export function generatedPages(): ReadonlyMap<string, string> {
  return new Map([
    [`${FOLDER}/README.md`, index()],
    [`${FOLDER}/vmcb.md`, vmcb()],
    [`${FOLDER}/intercepts.md`, intercepts()],
    [`${FOLDER}/events.md`, events()],
    [`${FOLDER}/registers.md`, registers()],
    [`${FOLDER}/instructions.md`, instructions()],
    [`${FOLDER}/policies.md`, policies()],
    [`${FOLDER}/snapshot-components.md`, snapshotComponents()],
  ]);
}

const page = (title: string, source: string, ...blocks: readonly string[]): string =>
  `${[`# ${title}`, `Written by \`npm run generate\` from ${source}; change that, not this.`, ...blocks].join('\n\n')}\n`;

const cell = (text: string): string => text.replaceAll('|', '\\|');
const code = (text: string): string => (text === '' ? '' : `\`${cell(text)}\``);

function table(head: readonly string[], rows: readonly (readonly string[])[]): string {
  const line = (cells: readonly string[]): string => `| ${cells.join(' | ')} |`;
  return [line(head), line(head.map(() => '---')), ...rows.map(line)].join('\n');
}

const hexadecimal = (value: bigint | number, digits = 3): string => `${value.toString(16).padStart(digits, '0')}h`;

const index = (): string =>
  page(
    'Generated pages',
    'the tables in the sources',
    [
      '- [VMCB](vmcb.md): fields by offset',
      '- [Intercepts](intercepts.md): bit, exit code, stage, EXITINFO',
      '- [Events](events.md): every kind with its fields, in the order of the tape',
      '- [Registers](registers.md): slots of a register delta',
      '- [Instructions](instructions.md): what is described, and how it is executed',
      '- [Policies](policies.md): deviations from the manual, whose they are, and which policy has them',
      '- [Snapshot components](snapshot-components.md): parts of a snapshot with their versions and fields',
    ].join('\n'),
  );

const snapshotComponents = (): string =>
  page(
    'Snapshot components',
    'the states of the machine and its devices, and `src/replay/snapshot/component-formats.ts`',
    'A component whose fields change gets the next version, with a way from the version before and back. In `vcpu` components' +
      ' a number stands between: `vcpu.0.regs`.',
    table(
      ['component', 'version', 'fields'],
      [...componentFields()].map(([name, fields]) => [
        code(name),
        String(COMPONENT_FORMATS[name]?.version ?? 1),
        fields.map(([field, kind]) => (kind === 'u64' ? code(field) : `${code(field)} ${cell(kind)}`)).join(', '),
      ]),
    ),
  );

const vmcb = (): string =>
  page(
    'VMCB',
    '`src/machine/layout/vmcb.ts`',
    'APM vol.2 appendix B VMCB Layout. Controls come first, the state-save area begins at 400h.',
    table(
      ['offset', 'bytes', 'field', 'meaning'],
      Object.entries(VMCB.fields).map(([name, { offset, bytes, meaning }]) => [
        ...[hexadecimal(offset), String(bytes), code(name), cell(meaning)],
      ]),
    ),
  );

function intercepts(): string {
  const rows = Object.values(INTERCEPTS).sort((a, b) => a.offset - b.offset || a.bit - b.bit);
  const known = new Set(rows.map(({ exitCode }) => exitCode));
  const others = EXIT_CODES.filter(([exit]) => !known.has(exit));
  return page(
    'Intercepts',
    '`src/machine/svm/intercepts.ts` and `exit-code.ts`',
    'A set bit in the VMCB asks for the #VMEXIT. The stage says where the check stands among the exceptions of the instruction.',
    table(
      ['offset', 'bit', 'intercept', 'EXITCODE', 'what', 'stage', 'EXITINFO1', 'EXITINFO2'],
      rows.map(({ offset, bit, name, exitCode, kind, stage, info1 = '', info2 = '' }) => [
        ...[hexadecimal(offset), String(bit), code(name), `${hexadecimal(exitCode)} ${manualExitName(exitCode)}`],
        ...[kind, stage, cell(info1), cell(info2)],
      ]),
    ),
    '## Exit codes without an intercept bit of their own',
    table(
      ['EXITCODE', 'name', 'in positions'],
      others.map(([exit, name]) => [hexadecimal(exit), manualExitName(exit), code(`vmexit:${name}`)]),
    ),
  );
}

function events(): string {
  const rows = Object.entries(EVENT_FIELDS).map(([type, fields], number) => [
    ...[String(number), code(type), isInput({ type } as MachineEvent) ? 'input' : 'outcome'],
    fields.map(code).join(' '),
  ]);
  return page(
    'Events',
    '`EVENT_FIELDS` in `src/machine/events.ts`, which tells what each means',
    'Each event has an envelope besides: instructions retired with it, vCPU, level. Inputs cannot be recomputed and are fed ' +
      'to a replay; outcomes are compared. `registers` is a delta of [register slots](registers.md), `words` one of the ' +
      "[VMCB](vmcb.md)'s 64-bit words.",
    table(['number', 'kind', 'replay', 'fields in order'], rows),
  );
}

const registers = (): string =>
  page(
    'Registers',
    '`src/machine/layout/cpu-state.ts`',
    'Everything that a vCPU remembers between two instructions, as 64-bit slots. Events name them by number.',
    table(
      ['slot', 'register'],
      REGISTER_NAMES.map((name, slot) => [String(slot), code(name)]),
    ),
  );

/** How an instruction is described, hence who executes it. */
function kindOf(described: Instruction): 'plain' | 'reference' | 'system' {
  if ('system' in described) return 'system';
  return described.evaluatorOnly === true ? 'reference' : 'plain';
}

function instructions(): string {
  const all = [...INSTRUCTIONS].sort((a, b) => (a.mnemonic < b.mnemonic ? -1 : a.mnemonic > b.mnemonic ? 1 : 0));
  const forms = all.reduce((sum, described) => sum + described.forms.length, 0);
  const count = (kind: ReturnType<typeof kindOf>): number => all.filter((each) => kindOf(each) === kind).length;
  const offered = new Set(CPU_PROFILES.flatMap(({ features }) => [...features]));
  const missing = [...new Set(all.flatMap(({ feature }) => feature ?? []))].filter((feature) => !offered.has(feature));
  return page(
    'Instructions',
    '`src/machine/isa`',
    `${all.length} descriptions, ${forms} encodings. ${count('plain')} are plain: from their description come the ` +
      `reference evaluator and the compiled handler. ${count('reference')} are plain too, but left to the evaluator. ` +
      `${count('system')} are the control plane's.`,
    ...(missing.length === 0
      ? []
      : [`Described, but offered by no profile yet (so they raise #UD): ${missing.sort().map(code).join(', ')}.`]),
    table(
      ['instruction', 'kind', 'needs', 'encodings', 'source'],
      all.map((described) => [
        ...[code(described.mnemonic), kindOf(described), described.feature ?? ''],
        ...[described.forms.map(code).join('<br>'), cell(described.source)],
      ]),
    ),
  );
}

const policies = (): string =>
  page(
    'Policies',
    '`src/machine/policy`',
    'What a policy is, and how files combine deviations: [policies](../policies.md). All deviations are off by default.',
    table(
      ['policy', 'deviations', 'whose'],
      POLICIES.map(({ name, description, deviations }) => [code(name), `${deviations.length}`, cell(description)]),
    ),
    '## Deviations',
    ...DEVIATION_NAMES.map(deviation),
    '## Known divergences that are no deviation here',
    table(
      ['row', 'why not'],
      UNMODELLED.map(({ row, reason }) => [row, cell(reason)]),
    ),
  );

function deviation(name: (typeof DEVIATION_NAMES)[number]): string {
  const { differs, manual, effect, witnesses, stages = {}, never = [] } = DEVIATIONS[name];
  const of = POLICIES.filter(({ deviations }) => deviations.includes(name)).map((policy) => code(policy.name));
  const lines = [
    `- Instead of: ${manual}.`,
    `- Effect: ${effect}.`,
    ...Object.entries(stages).map(([row, stage]) => `- Intercept ${code(row)}: ${stage}.`),
    ...(never.length === 0 ? [] : [`- Never: ${never.map(code).join(' ')}.`]),
    ...witnesses.map((witness) => `- ${witness.row}, ${witnessName(witness)}: ${witness.source}.`),
    `- In ${of.length === 0 ? 'no policy' : of.join(', ')}.`,
  ];
  return [`### ${name}`, `${differs}.`, lines.join('\n')].join('\n\n');
}

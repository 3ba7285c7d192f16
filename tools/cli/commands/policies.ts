/** `vmtape policies`: whose deviations from the manual the machine can take on, and what each is. */
import type { Command } from 'commander';
import {
  DEVIATION_NAMES,
  DEVIATIONS,
  type DeviationName,
  POLICIES,
  type Policy,
  policyNamed,
  UNMODELLED,
  type Unmodelled,
  witnessName,
} from '../../../src/machine/index.js';
import { quote } from '../arguments.js';
import { command, terminalOf } from '../command.js';
import { UsageError } from '../failure.js';
import { table } from '../format.js';
import type { Colors } from '../terminal.js';

export function policiesCommand(program: Command): void {
  command(program, 'policies', 'policies, and how each differs from the manual', 'vmtape policies xen-4.17')
    .argument('[name]', 'only this policy or deviation')
    .action(async (name: string | undefined, _options: object, self: Command) => {
      const terminal = terminalOf(self);
      const { policies, deviations, unmodelled } = chosen(name);
      if (terminal.json) {
        await terminal.document({
          policies,
          deviations: deviations.map((each) => ({ name: each, ...DEVIATIONS[each] })),
          unmodelled,
        });
        return;
      }
      await terminal.print([
        ...table(
          policies.map(({ name: policy, description, deviations: { length } }) => [policy, `${length}`, description]),
          ['left', 'right'],
        ),
        ...deviations.flatMap((each) => ['', ...deviationPage(each, terminal.colors)]),
        ...(unmodelled.length === 0 ? [] : ['', terminal.colors.bold('known divergences that are no deviation here')]),
        ...table(
          unmodelled.map(({ row, reason }) => [row, reason]),
          [],
          '  ',
        ),
      ]);
    });
}

interface Chosen {
  readonly policies: readonly Policy[];
  readonly deviations: readonly DeviationName[];
  readonly unmodelled: readonly Unmodelled[];
}

/** @throws UsageError when nothing has that name. */
function chosen(name: string | undefined): Chosen {
  if (name === undefined) return { policies: POLICIES, deviations: DEVIATION_NAMES, unmodelled: UNMODELLED };
  const policy = policyNamed(name);
  if (policy !== undefined) return { policies: [policy], deviations: policy.deviations, unmodelled: [] };
  const deviation = DEVIATION_NAMES.find((each) => each === name);
  if (deviation === undefined) {
    throw new UsageError(`${quote(name)} is neither a policy nor a deviation. See vmtape policies.`);
  }
  const policies = POLICIES.filter(({ deviations }) => deviations.includes(deviation));
  return { policies, deviations: [deviation], unmodelled: [] };
}

function deviationPage(name: DeviationName, colors: Colors): readonly string[] {
  const { differs, manual, effect, witnesses, stages = {}, never = [] } = DEVIATIONS[name];
  return [
    colors.bold(name),
    `  ${differs}`,
    ...Object.entries(stages).map(([row, stage]) => `  ${row}: ${stage}`),
    ...(never.length === 0 ? [] : [`  never: ${never.join(' ')}`]),
    ...table(
      [
        ['manual', manual],
        ['effect', effect],
        ...witnesses.map((witness) => [witness.row, `${witnessName(witness)}: ${witness.source}`]),
      ].map(([label = '', text = '']) => [colors.dim(label), text]),
      [],
      '  ',
    ),
  ];
}

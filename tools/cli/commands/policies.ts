/** `vmtape policies`: the intercept policies that there are, and how each differs from the manual. */
import type { Command } from 'commander';
import { MANUAL_POLICY, type Policy } from '../../../src/machine/index.js';
import { command, terminalOf } from '../command.js';
import { plural } from '../format.js';

export function policiesCommand(program: Command): void {
  command(program, 'policies', 'intercept policies, and how each differs from the manual', 'vmtape policies').action(
    async (_options: object, self: Command) => {
      const terminal = terminalOf(self);
      if (terminal.json) await terminal.document([MANUAL_POLICY]);
      else await terminal.print([MANUAL_POLICY].flatMap(policyPage));
    },
  );
}

function policyPage({ name, description, changes }: Policy): readonly string[] {
  const rows = Object.entries(changes);
  return [
    `${name}  ${description}; ${rows.length === 0 ? 'no row differs' : `${plural(rows.length, 'row')} differ`}`,
    ...rows.map(([row, { stage, never, source }]) => `  ${row}: ${never === true ? 'never' : stage} (${source})`),
  ];
}

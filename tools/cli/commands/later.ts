/** Commands of the command line that this version does not have: known by name, and refused by name. */
import type { Command } from 'commander';
import { UsageError } from '../failure.js';

const LATER = ['torture', 'bisect'] as const;

export function laterCommands(program: Command): void {
  for (const name of LATER) {
    program
      .command(name, { hidden: true })
      .allowUnknownOption()
      .allowExcessArguments()
      .action(() => {
        throw new UsageError(`vmtape ${name}: this version does not have it yet. See vmtape --help for what there is.`);
      });
  }
}

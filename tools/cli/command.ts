/** What all commands have in common: help with an example, `-q`, `--json`. */
import type { Command } from 'commander';
import { Terminal, type TerminalOptions } from './terminal.js';

export function command(program: Command, name: string, summary: string, ...examples: readonly string[]): Command {
  return program
    .command(name)
    .description(summary)
    .option('-q, --quiet', 'no human words on stderr')
    .option('--json', 'one JSON document, or JSON lines, on stdout')
    .helpOption('-h, --help', 'this page')
    .addHelpText('after', `\nExample:\n${examples.map((example) => `  $ ${example}`).join('\n')}`);
}

export const terminalOf = (self: Command): Terminal => new Terminal(self.opts<TerminalOptions>());

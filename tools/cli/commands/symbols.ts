/** `vmtape symbols TAPE`: the names that a Linux kernel at some level keeps of itself and its modules. */
import type { Command } from 'commander';
import { sqliteStore } from '../../../src/journal/index.js';
import { symbolsOnTape } from '../../symbols/load.js';
import { mapLine } from '../../symbols/map-file.js';
import { writeSymbols } from '../../symbols/symbol-files.js';
import { parseLevel } from '../arguments.js';
import { command, terminalOf } from '../command.js';
import { hex } from '../format.js';

interface SymbolsOptions {
  readonly level: 1 | 2;
  readonly at: string;
  readonly output?: string;
}

export function symbolsCommand(program: Command): void {
  command(
    program,
    'symbols',
    "names of a Linux kernel and its modules, from the guest's own memory",
    'vmtape symbols linux.vmtape -o linux.elf    # gdb: symbol-file linux.elf',
    'vmtape symbols linux.vmtape --level L2 --at 500000000 > System.map',
  )
    .argument('<tape>')
    .option('--level <level>', 'the kernel of L1, or of L2', parseLevel, 1 as const)
    .option('--at <pos>', 'where to look', 'end')
    .option('-o, --output <file>', 'an ELF file with nothing but the symbols, for gdb, instead of a line each')
    .action(async (tape: string, { level, at, output }: SymbolsOptions, self: Command) => {
      const terminal = terminalOf(self);
      const reader = sqliteStore(tape).read();
      try {
        const table = symbolsOnTape(reader, { level, at });
        if (output !== undefined) {
          const done = writeSymbols(table, output);
          terminal.say(`vmtape: ${done}`);
          if (terminal.json) await terminal.document({ tape, file: output, symbols: table.symbols.length });
          return;
        }
        for (const symbol of table.symbols) {
          const document = { ...symbol, address: `0x${hex(symbol.address)}` };
          await terminal.line(terminal.json ? JSON.stringify(document) : mapLine(symbol));
        }
        await terminal.flush();
      } finally {
        reader.close();
      }
    });
}

/** `vmtape dap`: a debug adapter on stdin and stdout, for editors. */
import type { Command } from 'commander';
import { VmtapeDebugSession } from '../../dap/adapter.js';

export function dapCommand(program: Command): void {
  program
    .command('dap')
    .description('debug adapter for VS Code and other editors, on stdin and stdout')
    .helpOption('-h, --help', 'this page')
    .addHelpText(
      'after',
      '\nExample:\n  $ vmtape dap    # started by the editor, with {"tape": "guest.vmtape", "at": "end"}',
    )
    .action(async () => {
      const session = new VmtapeDebugSession();
      session.setRunAsServer(true);
      const ended = new Promise((resolve) => process.stdin.once('close', resolve));
      session.start(process.stdin, process.stdout);
      await ended;
    });
}

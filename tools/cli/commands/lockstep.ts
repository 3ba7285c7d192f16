/** `vmtape lockstep`: this vmtape, or QEMU through its gdb server, as the second machine beside a tape. */
import type { Command } from 'commander';
import { QEMU, QemuMachine } from '../../lockstep/qemu-machine.js';
import { serveLockstep } from '../../lockstep/serve.js';
import { VmtapeMachine } from '../../lockstep/vmtape-machine.js';
import { command } from '../command.js';

interface LockstepFlags {
  readonly qemu?: string | true;
}

export function lockstepCommand(program: Command): void {
  command(
    program,
    'lockstep',
    'a machine that bisect --other drives: JSON lines on stdin and stdout',
    'vmtape bisect guest.vmtape --other "npx vmtape@0.1.0 lockstep"',
    'vmtape bisect guest.vmtape --other "vmtape lockstep --qemu"',
  )
    .option('--qemu [program]', `drives QEMU instead, through its gdb server (default: ${QEMU})`)
    .action(async ({ qemu }: LockstepFlags) => {
      const machine = qemu === undefined ? new VmtapeMachine() : new QemuMachine(qemu === true ? QEMU : qemu);
      const write = (line: string): void => {
        process.stdout.write(`${line}\n`);
      };
      await serveLockstep(machine, process.stdin, write);
      process.stdin.destroy();
    });
}

/** `vmtape run IMAGE`: runs without a tape. */
import type { Command } from 'commander';
import { LiveSession } from '../../../src/replay/index.js';
import { command } from '../command.js';
import { runLive } from '../live.js';
import { addMachineFlags, chaosPlan, type MachineOptions, sessionOptions } from '../machine-flags.js';

export function runCommand(program: Command): void {
  addMachineFlags(command(program, 'run', 'runs an image without a tape', 'vmtape run guest.elf --memory 64M'))
    .argument('<image>', 'Multiboot 1 image: ELF, or flat with load addresses')
    .action(async (image: string, options: MachineOptions, self: Command) => {
      const prepared = sessionOptions(image, options);
      const chaos = chaosPlan(options, prepared.config.vcpus);
      process.exitCode = await runLive((sink) => LiveSession.boot({ ...prepared, chaos }, sink), options, self, {
        imageFile: image,
      });
    });
}

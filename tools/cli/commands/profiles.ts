/** `vmtape profiles`: the CPU profiles that there are. */
import type { Command } from 'commander';
import { CPU_PROFILES, type CpuProfile } from '../../../src/machine/index.js';
import { command, terminalOf } from '../command.js';
import { hex } from '../format.js';

export function profilesCommand(program: Command): void {
  command(program, 'profiles', 'CPU profiles that --cpu takes', 'vmtape profiles --json').action(
    async (_options: object, self: Command) => {
      const terminal = terminalOf(self);
      if (terminal.json) await terminal.document(CPU_PROFILES.map(profileDocument));
      else await terminal.print(CPU_PROFILES.flatMap(profilePage));
    },
  );
}

const profileDocument = ({ features, system, svm, ...plain }: CpuProfile): object => ({
  ...plain,
  instructions: [...features],
  system: [...system],
  svm: [...svm],
});

const profilePage = (profile: CpuProfile): readonly string[] => [
  `${profile.name}  ${profile.vendor}, ${JSON.stringify(profile.brand)}`,
  `  family ${hex(profile.family)}h, model ${hex(profile.model)}h, stepping ${profile.stepping}; ` +
    `${profile.physicalAddressBits}-bit physical, ${profile.linearAddressBits}-bit linear addresses, ${profile.asids} ASIDs`,
  `  instructions: ${[...profile.features].join(' ')}`,
  `  system: ${[...profile.system].join(' ')}`,
  `  SVM: ${[...profile.svm].join(' ')}`,
];

/** Second machines with a fault. */
import { writeFileSync } from 'node:fs';
import { dirname, join } from 'node:path';
import type { Request, StepAnswer } from '../../../tools/lockstep/protocol.js';
import { VmtapeMachine } from '../../../tools/lockstep/vmtape-machine.js';
import { MAIN } from '../vmtape.js';

const DIST = dirname(dirname(MAIN));

type Step = Extract<Request, { readonly op: 'step' }>;
type Override = Extract<Request, { readonly op: 'override' }>;

/** vmtape with a fault: once a number of instructions has retired, registers or RAM are written over. */
export class PlantedMachine extends VmtapeMachine {
  private done = 0;

  constructor(
    private readonly at: number,
    private readonly fault: Omit<Override, 'op'>,
  ) {
    super();
  }

  override async step(request: Step): Promise<StepAnswer> {
    const before = this.at - this.done;
    if (before <= 0 || request.instructions < before) return await this.count(request);
    await this.count({ ...request, instructions: before });
    await this.override({ op: 'override', ...this.fault });
    const instructions = request.instructions - before;
    return instructions === 0 ? { stop: 'count', retired: before } : await this.count({ ...request, instructions });
  }

  private async count(request: Step): Promise<StepAnswer> {
    const answer = await super.step(request);
    this.done += answer.retired ?? 0;
    return answer;
  }
}

/**
 * One that is a program, for what programs say to each other.
 * @param at instructions after which the register is written over. @returns the command line.
 */
export function plantedProgram(file: string, at: number, register: string, value: string): string {
  const module = (name: string): string => JSON.stringify(join(DIST, 'tools/lockstep', name));
  writeFileSync(
    file,
    `import { serveLockstep } from ${module('serve.js')};
import { VmtapeMachine } from ${module('vmtape-machine.js')};
const machine = new VmtapeMachine();
const step = machine.step.bind(machine);
let left = ${at};
machine.step = async (request) => {
  if (left === 0 || request.instructions < left) {
    left = Math.max(0, left - request.instructions);
    return await step(request);
  }
  const before = left;
  left = 0;
  const answer = await step({ ...request, instructions: before });
  await machine.override({ op: 'override', registers: { ${register}: '${value}' } });
  const instructions = request.instructions - before;
  return instructions === 0 ? answer : await step({ ...request, instructions });
};
await serveLockstep(machine, process.stdin, (line) => console.log(line));
`,
  );
  return `"${process.execPath}" "${file}"`;
}

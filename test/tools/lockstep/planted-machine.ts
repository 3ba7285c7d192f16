/**
 * A second machine with a fault: it stands between the driver and `vmtape lockstep`, and once a number of instructions has
 * retired writes one register over. Written as a program, for what is tested is what programs say to each other.
 */
import { writeFileSync } from 'node:fs';
import { MAIN } from '../vmtape.js';

export interface Planted {
  /** Instructions after which the register is written over. */
  readonly at: number;
  readonly register: string;
  readonly value: string;
}

/** @returns the command line. */
export function plantedMachine(file: string, { at, register, value }: Planted): string {
  writeFileSync(
    file,
    `import { spawn } from 'node:child_process';
import { createInterface } from 'node:readline';
const child = spawn(process.execPath, [${JSON.stringify(MAIN)}, 'lockstep'], { stdio: ['pipe', 'pipe', 'inherit'] });
const answers = createInterface({ input: child.stdout })[Symbol.asyncIterator]();
const ask = async (request) => {
  child.stdin.write(JSON.stringify(request) + '\\n');
  return JSON.parse((await answers.next()).value);
};
let retired = 0;
for await (const line of createInterface({ input: process.stdin })) {
  const request = JSON.parse(line);
  if (request.op === 'step' && retired < ${at} && retired + request.instructions >= ${at}) {
    const before = ${at} - retired;
    await ask({ id: 0, op: 'step', instructions: before });
    await ask({ id: 0, op: 'override', registers: { ${register}: '${value}' } });
    request.instructions -= before;
    retired = ${at};
    if (request.instructions === 0) {
      const state = await ask({ id: 0, op: 'state' });
      console.log(JSON.stringify({ id: request.id, stop: 'count', registers: state.registers }));
      continue;
    }
  }
  const answer = await ask(request);
  if (request.op === 'step') retired += answer.retired;
  console.log(JSON.stringify(answer));
  if (request.op === 'bye') break;
}
child.stdin.end();
process.exit(0);
`,
  );
  return `"${process.execPath}" "${file}"`;
}

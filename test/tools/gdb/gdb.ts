/** The real gdb under a script, for tests; where there is none, they are skipped. */
import { spawn, spawnSync } from 'node:child_process';
import { writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { temporaryFolder } from '../vmtape.js';
import type { Served } from './client.js';

export const GDB_VERSION = spawnSync('gdb', ['--version'], { encoding: 'utf8' }).stdout?.split('\n')[0];
if (GDB_VERSION === undefined) console.warn('there is no gdb here: its sessions are skipped. apt-get install gdb');

const folder = temporaryFolder();

/** Runs gdb with commands, connected. @returns what it printed. */
export async function runGdb({ address }: Served, commands: readonly string[], target = 'remote'): Promise<string> {
  const { host, port } = address;
  // From a file, so that it ends with the first error: without a connection it would go on with its own host's processes.
  const script = join(folder, 'script.gdb');
  writeFileSync(
    script,
    [
      ...[
        'set pagination off',
        'set confirm off',
        'set auto-connect-native-target off',
        'set architecture i386:x86-64',
      ],
      ...[
        `target ${target} ${host}:${port}`,
        'monitor goto start',
        'maintenance flush register-cache',
        ...commands,
        '',
      ],
    ].join('\n'),
  );
  const child = spawn('gdb', ['-q', '-batch', '-nx', '-x', script]);
  let output = '';
  for (const stream of [child.stdout, child.stderr]) {
    stream.setEncoding('utf8').on('data', (data: string) => {
      output += data;
    });
  }
  await new Promise((resolve) => child.once('close', resolve));
  return output;
}

/** The value of `p/x …` number `index`. */
export const printed = (output: string): string[] =>
  [...output.matchAll(/^\$\d+ = (.*)$/gm)].map(([, value]) => value ?? '');

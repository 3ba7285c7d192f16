/** Runs the built command line in processes of its own, as a user does. */
import { type ChildProcess, type SpawnOptions, spawn, spawnSync } from 'node:child_process';
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { afterAll } from 'vitest';

const root = fileURLToPath(new URL('../..', import.meta.url));
export const MAIN = join(root, 'dist/bundle/vmtape.js');
export const image = (name: string): string => join(root, 'test/guests/images', name);

export interface Ended {
  readonly status: number | null;
  readonly signal: NodeJS.Signals | null;
  readonly stdout: string;
  readonly stderr: string;
}

export interface Surroundings {
  readonly env?: Readonly<Record<string, string>>;
  /** Command and arguments in front of node's. */
  readonly through?: readonly string[];
}

/** Without what would colour or translate what we look at. */
const environment = (added: Readonly<Record<string, string>> = {}): NodeJS.ProcessEnv => {
  const { FORCE_COLOR: _, VMTAPE_DEBUG: __, ...inherited } = process.env;
  return { ...inherited, NO_COLOR: '1', ...added };
};

/**
 * Runs to the end. Stdin is empty.
 *
 * @throws when it cannot be started, and when it does not end by itself.
 */
export function vmtape(args: readonly string[], { env, through = [] }: Surroundings = {}): Ended {
  const [command = process.execPath, ...rest] = [...through, process.execPath, MAIN, ...args];
  const { status, signal, stdout, stderr, error } = spawnSync(command, rest, {
    encoding: 'utf8',
    env: environment(env),
    input: '',
    maxBuffer: 2 ** 28,
    timeout: 55_000,
  });
  if (error !== undefined) throw new Error(`vmtape ${args.join(' ')}: ${error.message}\n${stderr}`);
  return { status, signal, stdout, stderr };
}

export interface Running {
  readonly child: ChildProcess;
  readonly ended: Promise<Ended>;
}

/** Starts a command; what is still running when the tests end is killed. */
export function startVmtape(args: readonly string[], options: SpawnOptions = {}): Running {
  const child = spawn(process.execPath, [MAIN, ...args], {
    env: environment(),
    stdio: ['ignore', 'pipe', 'pipe'],
    ...options,
  });
  running.add(child);
  let stdout = '';
  let stderr = '';
  child.stdout?.on('data', (data) => {
    stdout += data;
  });
  child.stderr?.on('data', (data) => {
    stderr += data;
  });
  const ended = new Promise<Ended>((resolve) => {
    child.on('close', (status, signal) => {
      running.delete(child);
      resolve({ status, signal, stdout, stderr });
    });
  });
  return { child, ended };
}

const running = new Set<ChildProcess>();

/** Waits until `reached`, which is asked every few milliseconds. */
export async function until(reached: () => boolean, milliseconds = 30_000): Promise<void> {
  const deadline = Date.now() + milliseconds;
  while (!reached()) {
    if (Date.now() > deadline) throw new Error('what the test waits for did not happen in time');
    await new Promise((resolve) => setTimeout(resolve, 20));
  }
}

/** A folder that goes when the tests of the file are over. */
export function temporaryFolder(): string {
  const folder = mkdtempSync(join(tmpdir(), 'vmtape-test-'));
  afterAll(() => {
    for (const child of running) child.kill('SIGKILL');
    rmSync(folder, { recursive: true, force: true });
  });
  return folder;
}

/** Flags that leave nothing to the host. */
export const FIXED = ['--seed', '1', '--clock', '2026-01-01T00:00:00Z', '--memory', '64M'] as const;

/** No message shows where in vmtape it arose. */
export const STACK = /\n\s+at |\.(js|ts):\d+:\d+/;

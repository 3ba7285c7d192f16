/** One move of a session between two processes over loopback, by the command line as a user has it. */
import { type ChildProcess, spawn } from 'node:child_process';
import { join } from 'node:path';
import { OperatingError } from '../cli/failure.js';
import { PACKAGE_FOLDER } from '../version.js';

const MAIN = join(PACKAGE_FOLDER, 'dist/bundle/vmtape.js');
const QUIET = ['--serial', 'null', '--input', '/dev/null', '--json'];

export interface MoveOptions {
  /** A tape or an image, with the flags of `vmtape migrate`, -o and --to aside. */
  readonly source: readonly string[];
  /** More flags of `vmtape receive`. */
  readonly receiver: readonly string[];
  /** The tape to make of what still runs here; undefined: nothing does. */
  readonly here?: string | undefined;
  readonly there: string;
}

/** @returns milliseconds for which the session stood still. @throws OperatingError when a side ends otherwise, or the session ended first. */
export async function moveBetweenProcesses({ source, receiver, here, there }: MoveOptions): Promise<number> {
  const receiving = vmtape(['receive', '--listen', '127.0.0.1:0', '-o', there, ...receiver, ...QUIET]);
  const children = [receiving];
  try {
    const { listening } = (await receiving.line()) as { readonly listening: { readonly port: number } };
    const sending = vmtape([
      'migrate',
      ...source,
      ...(here === undefined ? [] : ['-o', here]),
      '--to',
      `127.0.0.1:${listening.port}`,
      ...QUIET,
    ]);
    children.push(sending);
    const { moved } = (await sending.line()) as { readonly moved?: { readonly downtime: number } };
    // What it says instead is of a session that it did not move.
    if (moved === undefined) await sending.ended;
    await Promise.all([sending.ended, receiving.ended]);
    return moved?.downtime ?? 0;
  } finally {
    for (const { child } of children) child.kill();
  }
}

interface Running {
  readonly child: ChildProcess;
  /** The next line of JSON. */
  readonly line: () => Promise<unknown>;
  readonly ended: Promise<void>;
}

/** Runs the command line. */
export function vmtape(args: readonly string[]): Running {
  const child = spawn(process.execPath, [MAIN, ...args], { stdio: ['ignore', 'pipe', 'pipe'] });
  const words = { out: '', error: '' };
  let wake: () => void = () => {};
  child.stdout.setEncoding('utf8').on('data', (data: string) => {
    words.out += data;
    wake();
  });
  child.stderr.setEncoding('utf8').on('data', (data: string) => {
    words.error += data;
  });
  const ended = new Promise<void>((resolve, reject) => {
    child.once('error', reject);
    child.once('close', (status) => {
      if (status === 0) resolve();
      else reject(new OperatingError(`vmtape ${args.join(' ')}: status ${status}: ${words.error.trim()}`));
    });
  });
  // Heard by whoever waits for it; nobody may, when the other side has failed.
  ended.catch(() => {});
  const line = async (): Promise<unknown> => {
    while (!words.out.includes('\n')) {
      const more = new Promise<void>((resolve) => {
        wake = resolve;
      });
      await Promise.race([more, ended.then(() => endedEarly(args))]);
    }
    const at = words.out.indexOf('\n');
    const text = words.out.slice(0, at);
    words.out = words.out.slice(at + 1);
    // A document at the end has many lines.
    return text === '{' ? {} : JSON.parse(text);
  };
  return { child, line, ended };
}

function endedEarly(args: readonly string[]): never {
  throw new OperatingError(`vmtape ${args.join(' ')}: ended before it said anything`);
}

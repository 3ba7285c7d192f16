/** Commands of the command line in the test's own process: what they print, and the status that they would end with. */
import { Command } from 'commander';
import { vi } from 'vitest';
import { failureOf } from '../../tools/cli/failure.js';
import type { Ended } from './vmtape.js';

type Written = (text: string, done?: () => void) => boolean;

/** @param commands what adds each to a program. @param args as a user types them behind `vmtape`. */
export async function inProcess(
  commands: readonly ((program: Command) => void)[],
  args: readonly string[],
): Promise<Omit<Ended, 'signal'>> {
  const program = new Command('vmtape').exitOverride();
  for (const add of commands) add(program);
  for (const each of program.commands) each.exitOverride();
  let [stdout, stderr] = ['', ''];
  const taking = (take: (text: string) => void): Written => {
    return (text, done) => {
      take(text);
      done?.();
      return true;
    };
  };
  vi.stubEnv('NO_COLOR', '1');
  const spies = [
    vi.spyOn(process.stdout, 'write').mockImplementation(taking((text) => (stdout += text)) as never),
    vi.spyOn(process.stderr, 'write').mockImplementation(taking((text) => (stderr += text)) as never),
  ];
  const streams = [process.stdout, process.stderr];
  const listeners = streams.map((stream) => new Set(stream.listeners('error')));
  const before = process.exitCode;
  process.exitCode = 0;
  try {
    await program.parseAsync([...args], { from: 'user' });
    return { status: Number(process.exitCode), stdout, stderr };
  } catch (error) {
    const { status, message } = failureOf(error);
    return { status, stdout, stderr: `${stderr}vmtape: ${message}\n` };
  } finally {
    process.exitCode = before;
    for (const spy of spies) spy.mockRestore();
    for (const [index, stream] of streams.entries()) {
      for (const each of stream.listeners('error')) {
        if (listeners[index]?.has(each) !== true) stream.removeListener('error', each as () => void);
      }
    }
    vi.unstubAllEnvs();
  }
}

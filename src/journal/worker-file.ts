/** Finds the compiled file of a thread: Node loads no TypeScript into one. */
import { existsSync } from 'node:fs';

/** @param name of the file without its ending. Beside this one when compiled; else, under a runner of the sources, in the compiled tree. */
export function workerFile(name: string): URL {
  const beside = new URL(`./${name}.js`, import.meta.url);
  return existsSync(beside) ? beside : new URL(`../../dist/src/journal/${name}.js`, import.meta.url);
}

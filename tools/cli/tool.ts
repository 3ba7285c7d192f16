/** What the tools of developers (`npm run bench`, `fuzz`, `vectors`) share: flags, help, and errors as the product has them. */
import { type ParseArgsConfig, parseArgs } from 'node:util';
import { failureOf, Status, UsageError } from './failure.js';

/** `parseArgs`, whose errors are wrong usage. @throws UsageError */
export function parseWords<const Config extends ParseArgsConfig>(config: Config): ReturnType<typeof parseArgs<Config>> {
  try {
    return parseArgs(config);
  } catch (error) {
    throw new UsageError(error instanceof Error ? error.message : String(error));
  }
}

/**
 * Runs a tool on the command line's words, and ends the process with its status.
 * @param usage what --help prints, and what follows an error of usage.
 */
export async function runTool(usage: string, tool: (words: string[]) => number | Promise<number>): Promise<void> {
  const words = process.argv.slice(2);
  if (words.includes('--help') || words.includes('-h')) {
    console.log(usage);
    return;
  }
  try {
    process.exitCode = await tool(words);
  } catch (error) {
    const { status, message } = failureOf(error);
    console.error(error instanceof UsageError ? `${message}\n${usage}` : message);
    if (status === Status.OPERATING && process.env.VMTAPE_DEBUG === '1') console.error(error);
    process.exitCode = status;
  }
}

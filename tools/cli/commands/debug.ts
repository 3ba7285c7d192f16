/** `vmtape debug TAPE`: a gdb server on the recording, forwards and backwards. */
import type { Command } from 'commander';
import { sqliteStore } from '../../../src/journal/index.js';
import { Cancelled, recordedGuests } from '../../../src/replay/index.js';
import { Debuggee } from '../../debug/debuggee.js';
import { GdbServer, type ListenAddress } from '../../gdb/server.js';
import { loadSymbols, symbolsOption } from '../../symbols/load.js';
import type { SymbolSource } from '../../symbols/source.js';
import { quote } from '../arguments.js';
import { command, terminalOf } from '../command.js';
import { Status, UsageError } from '../failure.js';
import { shortCount } from '../format.js';
import { jsonText, type Terminal } from '../terminal.js';

interface DebugOptions {
  readonly listen: ListenAddress;
  readonly at: string;
  readonly symbols?: readonly SymbolSource[];
}

export function debugCommand(program: Command): void {
  const debug = command(
    program,
    'debug',
    'gdb server on the recording, forwards and backwards',
    "vmtape debug guest.vmtape --at 'vmexit:npf[-1]'",
    "gdb -ex 'target remote 127.0.0.1:1234'",
  );
  symbolsOption(debug)
    .argument('<tape>')
    .option('--listen <host:port>', 'where to listen; port 0 is any that is free', parseListen, {
      ...{ host: '127.0.0.1', port: 1234 },
    } as ListenAddress)
    .option('--at <pos>', 'where to stand at first', 'start')
    .action(async (tape: string, options: DebugOptions, self: Command) => {
      await debugTape(tape, options, terminalOf(self));
      process.exitCode = Status.DONE;
    });
}

/** `HOST:PORT`, `[::1]:PORT`, `:PORT` and `PORT` for this host alone. */
function parseListen(text: string): ListenAddress {
  const match = /^(?:(\[[0-9a-f:.]+\]|[^:[\]\s]*):)?(\d{1,5})$/i.exec(text);
  const port = Number(match?.[2]);
  if (match === null || port > 65_535) {
    throw new UsageError(`--listen ${quote(text)} is no address. Give HOST:PORT, such as 127.0.0.1:1234.`);
  }
  const host = (match[1] ?? '').replace(/^\[|\]$/g, '');
  return { host: host === '' ? '127.0.0.1' : host, port };
}

/** Returns after SIGINT or SIGTERM. */
async function debugTape(tape: string, { listen, at, symbols }: DebugOptions, terminal: Terminal): Promise<void> {
  const reader = sqliteStore(tape).read();
  const debuggee = new Debuggee(reader);
  let server: GdbServer | undefined;
  try {
    const stopped = untilStopped(debuggee);
    debuggee.onProgress = ({ icount }) => terminal.status(`at instruction ${shortCount(Number(icount))}`);
    debuggee.symbols = loadSymbols(reader, symbols);
    const guests = await debuggee.work(recordedGuests(reader));
    await debuggee.goto(at);
    debuggee.onProgress = undefined;
    terminal.clearStatus();
    server = new GdbServer(debuggee, guests, (text) => terminal.say(`vmtape: ${text}`));
    const { host, port } = await server.listen(listen);
    const address = `${host.includes(':') ? `[${host}]` : host}:${port}`;
    if (terminal.json) await terminal.print([jsonText({ tape, listening: address, position: debuggee.where })]);
    terminal.say(`vmtape: ${tape} at ${debuggee.where}, listening at ${address}: gdb -ex 'target remote ${address}'`);
    await stopped;
  } catch (error) {
    // A signal on the way to where it should begin.
    if (!(error instanceof Cancelled)) throw error;
  } finally {
    await server?.close();
    debuggee.close();
    reader.close();
  }
}

/** A signal ends what is under way, too. */
const untilStopped = (debuggee: Debuggee): Promise<void> =>
  new Promise((resolve) => {
    const stop = (): void => {
      debuggee.interrupt();
      resolve();
    };
    process.once('SIGINT', stop);
    process.once('SIGTERM', stop);
  });

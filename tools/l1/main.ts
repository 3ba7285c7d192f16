/**
 * `npm run test:l1`: Debian's cloud kernel and its KVM modules, unmodified, as L1 on vmtape, with guests of ours as L2;
 * recorded and replayed in every way that there is. And Debian's Xen, whose guest is Linux. Opt-in: it fetches packages, and takes minutes.
 *
 * Exit status: 0 when every session came out right, 1 when one did not, 4 when something cannot be fetched or built.
 */
import { mkdirSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join, resolve } from 'node:path';
import { Status, UsageError } from '../cli/failure.js';
import { grouped, table } from '../cli/format.js';
import { parseWords, runTool } from '../cli/tool.js';
import { makeLinux, makeXen, requireTools } from './images.js';
import {
  type L1Session,
  LINUX_SESSIONS,
  linuxSession,
  MP_SESSION,
  mpSession,
  runSession,
  XEN_SESSION,
  xenSession,
} from './sessions.js';

const NAMES = [...LINUX_SESSIONS.map(({ name }) => name), MP_SESSION, XEN_SESSION];
const USAGE = `usage: npm run test:l1 -- [options]
  --only NAMES      some of ${NAMES.join(', ')}
  --folder FOLDER   keeps packages, images and consoles there (default: vmtape-l1 among temporary files)
  --kernel PACKAGE  another package of a kernel than Debian's newest cloud kernel
  --keep            keeps tapes, too`;

async function test(words: string[]): Promise<number> {
  const { values } = parseWords({
    args: words,
    options: {
      only: { type: 'string' },
      folder: { type: 'string' },
      kernel: { type: 'string' },
      keep: { type: 'boolean' },
    },
  });
  const wanted = values.only?.split(',') ?? NAMES;
  const stranger = wanted.find((name) => !NAMES.includes(name));
  if (stranger !== undefined) throw new UsageError(`There is no session ${JSON.stringify(stranger)}.`);
  const folder = resolve(values.folder ?? join(tmpdir(), 'vmtape-l1'));
  mkdirSync(folder, { recursive: true });
  requireTools();
  console.log(`Everything is in ${folder}`);
  let failed = 0;
  for (const session of sessionsOf(wanted, folder, values.kernel)) {
    const outcome = await runSession(session, folder);
    if (outcome.failure !== undefined) failed++;
    const figures = [
      `${grouped(outcome.instructions)} instructions`,
      `${grouped(outcome.events)} events`,
      `recorded in ${outcome.recordSeconds.toFixed(1)} s`,
      `replayed in ${outcome.replaySeconds.toFixed(1)} s`,
    ];
    const verdict = outcome.failure === undefined ? 'ok' : `FAILED: ${outcome.failure}`;
    console.log(table([[session.name.padEnd(20), verdict, ...figures]]).join('\n'));
    if (values.keep !== true) rmSync(join(folder, `${session.name}.vmtape`), { force: true });
  }
  console.log(`${wanted.length - failed} of ${wanted.length} sessions are right`);
  return failed === 0 ? Status.DONE : Status.NO;
}

/** Those that are wanted, with images that are made only for them. @throws OperatingError */
function sessionsOf(wanted: readonly string[], folder: string, kernel: string | undefined): readonly L1Session[] {
  const linux = LINUX_SESSIONS.filter(({ name }) => wanted.includes(name));
  const sessions: L1Session[] = [];
  if (linux.length > 0) {
    const images = makeLinux(folder, kernel);
    console.log(`Linux as L1: ${images.package}`);
    sessions.push(...linux.map((session) => linuxSession(session, images, folder)));
  }
  const others = [MP_SESSION, XEN_SESSION].filter((name) => wanted.includes(name));
  if (others.length > 0) {
    const images = makeXen(folder);
    console.log(`Xen as L1: ${images.package}`);
    sessions.push(...others.map((name) => (name === MP_SESSION ? mpSession(images) : xenSession(images))));
  }
  return sessions;
}

await runTool(USAGE, test);

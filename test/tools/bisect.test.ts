/** `vmtape bisect` as a user has it: what is printed, files, exit statuses, and what is refused. */
import { readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { beforeAll, describe, expect, it } from 'vitest';
import { sqliteStore } from '../../src/journal/index.js';
import { DEFAULT_CONFIG, type DeviationName } from '../../src/machine/index.js';
import { bisectCommand } from '../../tools/cli/commands/bisect.js';
import { MEBIBYTE, recordGuest } from '../support/sessions.js';
import { inProcess } from './in-process.js';
import { STACK, temporaryFolder, vmtape } from './vmtape.js';

const folder = temporaryFolder();
const file = (name: string): string => join(folder, name);
const [manual, again, deviating] = ['manual.vmtape', 'again.vmtape', 'deviating.vmtape'].map(file) as [
  string,
  string,
  string,
];
const policy = file('policy.json');

const run = (...args: readonly string[]) => inProcess([bisectCommand], ['bisect', ...args]);

beforeAll(() => {
  writeFileSync(policy, JSON.stringify({ with: ['invalid-exit-code-32-bit'] }));
  const record = (tape: string, ...deviations: readonly DeviationName[]): void => {
    const config = { ...DEFAULT_CONFIG, ramBytes: 16 * MEBIBYTE, deviations };
    recordGuest('nested.elf', { store: sqliteStore(tape), config, limit: 90_000, commandLine: 'nested.elf rounds=1' });
  };
  record(manual);
  record(again);
  record(deviating, 'invalid-exit-code-32-bit');
});

describe('bisect', () => {
  it('says that two recordings of one session are the same, with status 0', () => {
    const { status, stdout, stderr } = vmtape(['bisect', manual, again]);
    expect({ status, stderr }).toEqual({ status: 0, stderr: '' });
    expect(stdout).toContain('are the same, to the end of both');
  });

  it('tells the place, the instruction, both transitions and the cause, with status 1', async () => {
    const { status, stdout, stderr } = await run(manual, deviating);
    expect({ status, stderr }).toEqual({ status: 1, stderr: '' });
    expect(stdout).toContain('part at 38215:48, in L1 on vCPU 0');
    expect(stdout).toContain('0f 01 d8  vmrun');
    expect(stdout).toContain('ASID is 0');
    expect(stdout).toMatch(/1\. deviation invalid-exit-code-32-bit: .* \[tried: this alone makes the difference\]/);
  });

  it('gives programs one document, and CI a report that fails', async () => {
    const [html, junit] = [file('report.html'), file('report.xml')];
    const { status, stdout } = await run(manual, deviating, '--json', '--html', html, '--junit', junit);
    expect(status).toBe(1);
    expect(JSON.parse(stdout)).toMatchObject({
      ...{ outcome: 'differs', position: '38215:48', level: 'L1', instruction: { bytes: '0f01d8' } },
      causes: [{ kind: 'policy', name: 'invalid-exit-code-32-bit', effect: 'whole' }, {}],
    });
    expect(readFileSync(junit, 'utf8')).toMatch(
      /<testsuites tests="1" failures="1">[\s\S]*<failure message="[^"]*part at 38215:48/,
    );
    const page = readFileSync(html, 'utf8');
    expect(page.match(/<svg/g)).toHaveLength(2);
    expect(page).not.toMatch(/(src|href)=/);
    expect(await run(manual, deviating, '--html', html)).toMatchObject({ status: 2 });
  });

  it('holds a tape against another model', async () => {
    const { status, stdout } = await run(manual, '--policy', policy, '--json');
    expect(status).toBe(1);
    expect(JSON.parse(stdout)).toMatchObject({
      position: '38215:48',
      causes: [{ name: 'invalid-exit-code-32-bit' }, {}],
    });
    expect((await run(deviating, '--policy', policy)).status).toBe(0);
  });

  it('finds the deviation that turns one session into the other', async () => {
    const { status, stdout } = await run(manual, deviating, '--search', 'policies', '--json');
    expect(status).toBe(0);
    expect(JSON.parse(stdout)).toMatchObject({ outcome: 'found', toggled: ['invalid-exit-code-32-bit'] });
  });

  it.each([
    ['at once', []],
    ['by halving', ['--monotonic']],
  ])('finds the first place where an expression holds %s', async (_, flags) => {
    const { status, stdout } = await run(manual, '--where', 'icount >= 12345', ...flags);
    expect({ status, first: stdout.split('\n')[0] }).toEqual({
      status: 0,
      first: `${manual}: icount >= 12345 holds first at 12345:38`,
    });
    expect((await run(manual, '--where', 'rax == 0x123456789abcdef', ...flags)).status).toBe(1);
  });
});

describe('bisect refuses', () => {
  it.each([
    ['one tape alone', () => [manual], 2, 'differs from nothing'],
    ['three tapes', () => [manual, again, deviating], 2, 'is left over'],
    ['two tapes and a model', () => [manual, again, '--policy', 'kvm-6.1'], 2, 'are for one tape'],
    ['a policy that there is not', () => [manual, '--policy', 'kvm'], 2, 'is none'],
    ['a processor that there is not', () => [manual, '--cpu', 'z80'], 2, 'there is none of that name'],
    ['to search something else', () => [manual, again, '--search', 'tapes'], 2, 'only policies'],
    ['to pass over what it does not know', () => [manual, again, '--equivalent', 'all'], 2, 'is none. There are'],
    ['to ignore what there is not', () => [manual, again, '--ignore', 'nope'], 2, 'no events of that kind'],
    ['an expression that is none', () => [manual, '--where', 'rax =='], 2, '\n        ^'],
    ['halving without an expression', () => [manual, again, '--monotonic'], 2, 'are for --where'],
    ['a file that is no tape', () => [manual, policy], 2, 'is no SQLite file'],
    ['a file that is not there', () => [manual, file('nowhere')], 2, 'nowhere'],
  ] as const)('%s', async (_, args, status, message) => {
    const ended = await run(...args());
    expect(ended.status).toBe(status);
    expect(ended.stderr).toContain(message);
    expect(ended.stderr).not.toMatch(STACK);
  });

  it('a damaged tape, with status 3', async () => {
    const damaged = file('damaged.vmtape');
    const bytes = readFileSync(again);
    // The first chunk lies behind the schema; some byte of every page is another.
    for (let at = 5000; at < bytes.length; at += 4096) bytes[at] = (bytes[at] as number) ^ 0xff;
    writeFileSync(damaged, bytes);
    const { status, stderr } = await run(manual, damaged);
    expect(status).toBe(3);
    expect(stderr).toContain('damaged');
  });
});

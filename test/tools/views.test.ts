/** `sql`, `trace` and `timeline` as a user runs them. */
import { existsSync, readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { beforeAll, describe, expect, it } from 'vitest';
import { FIXED, image, STACK, temporaryFolder, vmtape } from './vmtape.js';

const folder = temporaryFolder();
const tape = join(folder, 'nested.vmtape');

beforeAll(() => {
  expect(vmtape(['record', image('nested.elf'), '-o', tape, ...FIXED, '-q', '--append', 'rounds=4']).status).toBe(0);
});

const sql = (query: string, ...flags: string[]) => vmtape(['sql', tape, query, ...flags]);

describe('--symbols', () => {
  const map = join(folder, 'nested.map');
  const within = ['--symbols', map, '--symbols', `L2:${map}`];
  beforeAll(() => writeFileSync(map, '0000000000102380 T after_vmrun\n0000000000101de1 T load_of_l2\n'));

  it('names places in the lines of log and trace, and in show', () => {
    const log = vmtape(['log', tape, '--kind', 'svm.vmexit', '--limit', '1', ...within]).stdout;
    expect(log).toMatch(/ rip=0x102383 <after_vmrun\+0x3> /);
    const [line = ''] = vmtape(['log', tape, '--kind', 'svm.vmexit', '--limit', '1', '--json', ...within]).stdout.split(
      '\n',
    );
    expect(JSON.parse(line)).toMatchObject({ kind: 'svm.vmexit', symbol: 'after_vmrun+0x3' });
    const show = vmtape(['show', tape, 'vmexit:npf[0]', '--disassemble', '1', ...within]).stdout;
    expect(show).toMatch(/^at +after_vmrun\+0x3 +load_of_l2$/m);
    expect(show).toMatch(/^ {2}0000000000101de1 +load_of_l2 +48 8b/m);
    const trace = vmtape(['trace', tape, '--from', 'vmexit:npf[0]', '--to', 'end', '--limit', '2', ...within]).stdout;
    expect(trace).toMatch(/ L1 0000000000102383 \w+ +after_vmrun\+0x3 /);
  });

  it('says what is wrong with a file, and where there is no kernel', () => {
    const bad = vmtape(['log', tape, '--symbols', tape]);
    expect(bad).toMatchObject({ status: 2, stdout: '' });
    expect(bad.stderr).toMatch(/nested\.vmtape: line 1 is no symbol/);
    const none = vmtape(['symbols', tape]);
    expect(none).toMatchObject({ status: 2, stdout: '' });
    expect(none.stderr).toMatch(/symbols of L1.*no Linux kernel/s);
    expect(none.stderr).not.toMatch(STACK);
  });
});

describe('vmtape sql', () => {
  it('lists views with columns and an example each', () => {
    const { status, stdout } = vmtape(['sql', tape]);
    expect(status).toBe(0);
    for (const view of ['events', 'exits', 'injections', 'vmcb_writes', 'inputs', 'checkpoints', 'runs']) {
      expect(stdout).toMatch(new RegExp(`^${view}: .+\\n( {2}\\w+ +(INTEGER|TEXT) .+\\n)+ {2}SELECT `, 'm'));
    }
    const views = vmtape(['sql', tape, '--json']).stdout.trim().split('\n').map((line) => JSON.parse(line)); // biome-ignore format: one line
    expect(views).toContainEqual(
      expect.objectContaining({ name: 'exits', example: expect.stringContaining('SELECT') }),
    );
    for (const { example } of views) expect(sql(example)).toMatchObject({ status: 0, stderr: '' });
  });

  it('prints a table, JSON lines or CSV', () => {
    const query = "SELECT 1 AS one, 'a,\"b' AS two, NULL AS three, 9223372036854775807 AS four, x'00ff' AS five";
    expect(sql(query).stdout).toBe(
      [
        'one  two   three                 four  five',
        '---  ----  -----  -------------------  ----',
        '  1  a,"b   NULL  9223372036854775807  00ff',
        '',
      ].join('\n'),
    );
    expect(sql(query, '--json').stdout).toBe(
      `${JSON.stringify({ one: 1, two: 'a,"b', three: null, four: '9223372036854775807', five: '00ff' })}\n`,
    );
    expect(sql(query, '--csv').stdout).toBe('one,two,three,four,five\n1,"a,""b",,9223372036854775807,00ff\n');
  });

  it('gives positions that other commands take', () => {
    const { stdout } = sql("SELECT position, text FROM events WHERE kind = 'svm.vmexit' LIMIT 1", '--json');
    const { position, text } = JSON.parse(stdout) as { position: string; text: string };
    expect(vmtape(['log', tape, '--from', position, '--limit', '1']).stdout).toContain(text);
    const part = sql('SELECT min(seq) AS first FROM events', '--from', position, '--csv').stdout;
    expect(part).toBe(`first\n${position.split(':')[1]}\n`);
  });

  it.each([
    ['SELEC 1', /near "SELEC": syntax error/],
    ['SELECT nix FROM exits', /no such column: nix/],
    ['SELECT 1; SELECT 2', /more than one statement/],
    ['', /no statements/],
    ['DELETE FROM events', /cannot modify events/],
    ['CREATE TABLE t (a)', /gives no rows/],
    ["SELECT at('no such place')", /position "no such place"/],
    ["SELECT load_extension('x')", /not authorized|no such function/],
  ])('says what is wrong with %j, with status 2', (query, message) => {
    const { status, stdout, stderr } = sql(query);
    expect({ status, stdout }).toEqual({ status: 2, stdout: '' });
    expect(stderr).toMatch(message);
    expect(stderr).not.toMatch(STACK);
  });
});

describe('vmtape trace', () => {
  it('prints a line for each instruction and each event between', () => {
    const { status, stdout, stderr } = vmtape(['trace', tape, '--from', 'vmrun[20]', '--to', 'vmexit[20]']);
    expect({ status, stderr }).toEqual({ status: 0, stderr: '' });
    const [first = '', ...more] = stdout.trimEnd().split('\n');
    expect(first).toMatch(/^\d+:\d+ +L1 [0-9a-f]{16} 0f01d8 +vmrun/);
    for (const line of more) expect(line).toMatch(/^\d+:\d+ +(L2 [0-9a-f]{16} [0-9a-f]+ +\w+|\* L\d )/);
    const json = vmtape(['trace', tape, '--from', 'vmrun[20]', '--to', 'vmexit[20]', '--json']).stdout.trimEnd().split('\n'); // biome-ignore format: one line
    expect(json).toHaveLength(more.length + 1);
    expect(JSON.parse(json[0] ?? '')).toMatchObject({
      ...{ kind: 'instruction', level: 1, text: 'vmrun', bytes: '0f01d8', event: 'svm.vmrun' },
      position: first.split(' ')[0],
    });
  });

  it('stops where it is told to, and refuses what lies the wrong way round', () => {
    const some = vmtape(['trace', tape, '--from', 'start', '--to', 'end', '--limit', '1500']);
    expect(some.stdout.trimEnd().split('\n')).toHaveLength(1500);
    expect(vmtape(['trace', tape, '--from', '#5', '--to', '#5'])).toMatchObject({ status: 0, stdout: '' });
    const swapped = vmtape(['trace', tape, '--from', 'end', '--to', 'start']);
    expect(swapped.status).toBe(2);
    expect(swapped.stderr).toMatch(/--to start is .* before --from end .* Swap them/);
    expect(vmtape(['trace', tape]).status).toBe(2);
  });
});

describe('vmtape timeline', () => {
  it('draws on the terminal, in a hundred columns without one', () => {
    const { status, stdout } = vmtape(['timeline', tape]);
    expect(status).toBe(0);
    for (const line of stdout.split('\n')) expect(line.length).toBeLessThanOrEqual(100);
    expect(stdout).toMatch(/^vCPU 0 L2 .*[▁▂▃▄▅▆▇█]/m);
    expect(stdout).toMatch(/^exits: ■ /m);
    const model = JSON.parse(vmtape(['timeline', tape, '--json', '--from', 'vmrun[20]', '--to', 'vmexit[20]']).stdout);
    expect(model).toMatchObject({
      activities: [
        { vcpu: 0, level: 1 },
        { vcpu: 0, level: 2 },
      ],
    });
  });

  it.each(['html', 'svg'])('writes %s, and replaces nothing', (kind) => {
    const file = join(folder, `a.${kind}`);
    expect(vmtape(['timeline', tape, `--${kind}`, file])).toMatchObject({ status: 0, stdout: '' });
    expect(readFileSync(file, 'utf8')).toMatch(kind === 'html' ? /^<!doctype html>/ : /^<svg /);
    const again = vmtape(['timeline', tape, `--${kind}`, file]);
    expect(again.status).toBe(2);
    expect(again.stderr).toMatch(/there is such a file already/);
  });

  it('refuses what makes no sense', () => {
    expect(vmtape(['timeline', tape, '--html', 'a', '--svg', 'b']).stderr).toMatch(/give one of them/);
    expect(vmtape(['timeline', tape, '--from', 'end', '--to', 'start']).stderr).toMatch(/Swap them/);
    const nowhere = join(folder, 'no', 'x.html');
    expect(vmtape(['timeline', tape, '--html', nowhere]).status).toBe(2);
    expect(existsSync(nowhere)).toBe(false);
  });
});

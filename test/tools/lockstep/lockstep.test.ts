/** A tape in lockstep with other machines: vmtape itself, one with a planted fault, programs that keep to nothing. */
import { spawnSync } from 'node:child_process';
import { readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { beforeAll, describe, expect, it } from 'vitest';
import { FIXED, image, MAIN, STACK, temporaryFolder, vmtape } from '../vmtape.js';
import { plantedMachine } from './planted-machine.js';

const folder = temporaryFolder();
const file = (name: string): string => join(folder, name);
const nested = file('nested.vmtape');
const timer = file('timer.vmtape');
const ITSELF = `"${process.execPath}" "${MAIN}" lockstep`;

beforeAll(() => {
  const record = (tape: string, guest: string, ...flags: readonly string[]): void => {
    const args = ['record', image(guest), '-o', tape, ...FIXED, '-q', '--serial', 'null', ...flags];
    expect(vmtape(args).status).toBe(0);
  };
  record(nested, 'nested.elf', '--append', 'rounds=1');
  writeFileSync(file('input'), 'some bytes for the serial port');
  record(timer, 'nested-timer.elf', '--input', file('input'), '--append', 'ticks=3');
});

const lockstep = (tape: string, other: string, ...flags: readonly string[]) => {
  const { status, stdout, stderr } = vmtape(['bisect', tape, '--other', other, '--json', ...flags]);
  expect(stderr).toBe('');
  return { status, ...JSON.parse(stdout) };
};

describe('bisect --other', () => {
  it.each([
    ['a nested guest', () => nested],
    ['interrupts, time and serial input', () => timer],
  ])('finds vmtape the same as itself to the end of the tape: %s', (_, tape) => {
    const { status, outcome, compared, end } = lockstep(tape(), ITSELF);
    expect({ status, outcome }).toEqual({ status: 0, outcome: 'same' });
    expect(compared).toBe(end.split(':')[0]);
  });

  it.each([
    ['amid a run', 40_000],
    ['near the beginning', 100],
    ['late', 74_321],
  ])('finds a planted fault at its instruction: %s', (_, at) => {
    const other = plantedMachine(file(`planted-${at}.mjs`), { at, register: 'r15', value: '0xbadc0de' });
    const { status, differs } = lockstep(nested, other);
    expect(status).toBe(1);
    // The instruction that ended with the register written over.
    expect(differs.position).toMatch(new RegExp(`^${at - 1}:`));
    expect(differs.registers).toMatchObject([{ register: 'r15', second: String(0xbadc0de) }]);
  });

  it('tells people what differs, before and after', () => {
    const other = plantedMachine(file('planted.mjs'), { at: 9000, register: 'r15', value: '0x77' });
    const { status, stdout } = vmtape(['bisect', nested, '--other', other]);
    expect(status).toBe(1);
    expect(stdout).toMatch(/part at 8999:\d+\./);
    expect(stdout).toMatch(/r15 +0x[0-9a-f]+ +0x77\n/);
    expect(stdout).toContain('Before, on both:');
  });

  it('refuses machines that keep to nothing, and tells what they said, in words', () => {
    const script = (name: string, text: string): string => {
      writeFileSync(file(name), text);
      return `"${process.execPath}" "${file(name)}"`;
    };
    const answering = (answer: string): string =>
      `import { createInterface } from 'node:readline';\nfor await (const line of createInterface({ input: process.stdin })) console.log(${answer});`;
    for (const [other, message] of [
      [script('dies.mjs', 'console.error("no licence"); process.exit(3)'), /ended with status 3\nno licence/],
      [script('chats.mjs', answering('"hello yourself"')), /answers with no JSON: "hello yourself"/],
      [script('old.mjs', answering('JSON.stringify({ id: 1, protocol: 0 })')), /its protocol is 0/],
      [
        script('poor.mjs', answering('JSON.stringify({ id: 1, protocol: 1, can: [], registers: ["rip"] })')),
        /takes neither/,
      ],
      [script('lost.mjs', answering('JSON.stringify({ id: 77 })')), /is to no request/],
      ['true', /ended with status 0/],
    ] as const) {
      const { status, stdout, stderr } = vmtape(['bisect', nested, '--other', other]);
      expect([other, status, stdout]).toEqual([other, 4, '']);
      expect(stderr).toMatch(message);
      expect(stderr).not.toMatch(STACK);
    }
  });

  it.each([
    [['--other', 'qemu', '--policy', 'kvm-6.1']],
    [['--other', 'qemu', '--where', 'rip == 0']],
    [['--strict', '--policy', 'kvm-6.1']],
  ])('refuses flags that do not go together: %s', (flags) => {
    const { status, stderr } = vmtape(['bisect', nested, ...flags]);
    expect(status).toBe(2);
    expect(stderr).toMatch(/^vmtape: .*--(other|strict)/);
  });
});

describe('vmtape lockstep', () => {
  /** Lines for it, and its answers. */
  const talk = (...requests: readonly (object | string)[]): readonly Record<string, unknown>[] => {
    const input = requests.map((each) => `${typeof each === 'string' ? each : JSON.stringify(each)}\n`).join('');
    const { status, stdout } = spawnSync(process.execPath, [MAIN, 'lockstep'], { input, encoding: 'utf8' });
    expect(status).toBe(0);
    const lines = stdout.split('\n').filter((line) => line !== '');
    return lines.map((line) => JSON.parse(line));
  };
  const hello = {
    ...{ id: 1, op: 'hello', protocol: 1, machine: { ramBytes: 4 << 20, vcpus: 1 }, sliceInstructions: 100_000 },
    ...{ image: readFileSync(image('hello64.elf')).toString('base64'), commandLine: 'hello64.elf', entry: '0x10000c' },
  };

  it('boots, steps, tells its state and RAM, and is written over, as docs/lockstep.md says', () => {
    const answers = talk(
      hello,
      { id: 2, op: 'raise', event: { type: 'input.clock', unixSeconds: 0 } },
      { id: 3, op: 'raise', event: { type: 'input.entropy', seed: '0x1' } },
      { id: 4, op: 'raise', event: { type: 'input.boot', commandLine: 'hello64.elf' } },
      { id: 5, op: 'state' },
      { id: 6, op: 'step', instructions: 1, state: true },
      { id: 7, op: 'step', instructions: 1_000_000, to: 'boundary' },
      {
        id: 8,
        op: 'override',
        registers: { rax: '0x123456789abcdef0' },
        memory: [{ address: '0x1ffe', bytes: 'a1b2c3' }],
      },
      { id: 9, op: 'memory', address: '0x1ffd', length: 5 },
      { id: 10, op: 'state' },
      { id: 11, op: 'bye' },
    );
    expect(answers.map(({ id }) => id)).toEqual([1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11]);
    expect(answers.every(({ error }) => error === undefined)).toBe(true);
    expect(answers[0]).toMatchObject({ protocol: 1, can: expect.arrayContaining(['raise', 'override', 'memory']) });
    expect(answers[4]).toMatchObject({ registers: { rip: '0x10000c', rax: '0x2badb002' }, ram: expect.any(String) });
    expect(answers[5]).toMatchObject({ stop: 'count', retired: 1, registers: { rip: '0x10000d' } });
    expect(answers[6]).toMatchObject({ stop: 'boundary' });
    expect(answers[8]).toMatchObject({ bytes: '00a1b2c300' });
    expect(answers[9]).toMatchObject({ registers: { rax: '0x123456789abcdef0' } });
  });

  it('answers nonsense with an error, and goes on', () => {
    const answers = talk(
      { id: 1, op: 'step', instructions: 1 },
      'no JSON',
      '[1]',
      { ...hello, id: 4, protocol: 2 },
      { ...hello, id: 5 },
      { id: 6, op: 'fly' },
      { id: 7, op: 'step', instructions: -1 },
      { id: 8, op: 'memory', address: 'here', length: 1 },
      { id: 9, op: 'memory', address: '0xfffffff0', length: 1 },
      { id: 10, op: 'raise', event: { type: 'cpu.halted' } },
      { id: 11, op: 'raise', event: { type: 'input.serial', data: 'xyz' } },
      { id: 12, op: 'override', registers: { nothing: '0x1' } },
      { id: 13, op: 'state' },
    );
    const errors = answers.map(({ error }) => error !== undefined);
    expect(errors).toEqual([true, true, true, true, false, true, true, true, true, true, true, true, false]);
  });
});

/** A tape in lockstep with other machines: vmtape itself, one with a planted fault, programs that keep to nothing. */
import { spawnSync } from 'node:child_process';
import { readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { type JournalReader, memoryStore, sqliteStore } from '../../../src/journal/index.js';
import { DEFAULT_CONFIG } from '../../../src/machine/index.js';
import { Timeline } from '../../../src/replay/index.js';
import { OperatingError } from '../../../tools/cli/failure.js';
import { Lockstep, type LockstepOptions } from '../../../tools/lockstep/lockstep.js';
import { Peer } from '../../../tools/lockstep/peer.js';
import type { HelloAnswer, LockstepMachine } from '../../../tools/lockstep/protocol.js';
import { VmtapeMachine } from '../../../tools/lockstep/vmtape-machine.js';
import { MEBIBYTE, recordGuest } from '../../support/sessions.js';
import { image, MAIN, STACK, temporaryFolder, vmtape } from '../vmtape.js';
import { PlantedMachine, plantedProgram } from './planted-machine.js';

const folder = temporaryFolder();
const file = (name: string): string => join(folder, name);
const nested = file('nested.vmtape');
const ITSELF = `"${process.execPath}" "${MAIN}" lockstep`;

const record = (guest: string, options: string, input?: string): JournalReader =>
  recordGuest(guest, {
    config: { ...DEFAULT_CONFIG, ramBytes: 16 * MEBIBYTE },
    commandLine: `${guest} ${options}`,
    store: guest === 'nested.elf' ? sqliteStore(nested) : memoryStore(),
    ...(input === undefined ? {} : { input: new TextEncoder().encode(input) }),
  }).store.read();
let tape: JournalReader;
let timer: JournalReader;

beforeAll(() => {
  tape = record('nested.elf', 'rounds=1');
  timer = record('nested-timer.elf', 'ticks=3', 'some bytes for the serial port');
});
afterAll(() => tape.close());

/** Against a machine of this process. */
const held = (reader: JournalReader, machine: () => LockstepMachine, options: Partial<LockstepOptions> = {}) =>
  new Lockstep(reader, () => Peer.local('other', machine()), { strict: false, memory: false, ...options }).run();

describe('a tape in lockstep', () => {
  it.each([
    ['a nested guest', () => tape],
    ['interrupts, time and serial input', () => timer],
  ])('with vmtape itself is the same to its end: %s', async (_, reader) => {
    const { differs, compared } = await held(reader(), () => new VmtapeMachine());
    expect({ differs, compared }).toEqual({ differs: undefined, compared: reader().end.icount });
  });

  it.each([
    ['amid a run', 40_000],
    ['near the beginning', 100],
    ['late', 74_321],
  ])('finds a planted fault at its instruction: %s', async (_, at) => {
    const { differs } = await held(tape, () => new PlantedMachine(at, { registers: { r15: '0xbadc0de' } }));
    // The instruction that ended with the register written over.
    expect(differs).toMatchObject({
      position: { icount: BigInt(at - 1) },
      step: { kind: 'instruction' },
      fields: [{ register: 'r15', second: 0xbadc0den }],
    });
  });

  it('finds RAM that differs where it is changed, long before a register tells', async () => {
    const timeline = new Timeline(tape);
    const { memory } = timeline.machine;
    timeline.seekInstruction(40_003n);
    // What the guest says at its end.
    const address = Buffer.from(memory.window(0, memory.ramBytes)).indexOf('exits in');
    timeline.close();
    const fault = { memory: [{ address: `0x${address.toString(16)}`, bytes: '45' }] };
    const { differs, compared } = await held(tape, () => new PlantedMachine(40_003, fault));
    expect(differs).toMatchObject({
      position: { icount: 40_002n },
      step: { kind: 'instruction' },
      fields: [],
      memory: [{ address, first: '65', second: '45' }],
    });
    expect(compared).toBe(40_002n);
    // Registers are the same again at the end of the stride in which they tell.
    expect(await held(tape, () => new NoDigests(40_003, fault))).toMatchObject({ differs: undefined });
  });
});

/** As an emulator of another name, whose RAM nobody can hold against a tape's. */
class NoDigests extends PlantedMachine {
  override async hello(request: Parameters<PlantedMachine['hello']>[0]): Promise<HelloAnswer> {
    return { ...(await super.hello(request)), name: 'another' };
  }
}

const lockstep = (other: string, ...flags: readonly string[]) => {
  const { status, stdout, stderr } = vmtape(['bisect', nested, '--other', other, '--json', ...flags]);
  expect(stderr).toBe('');
  return { status, ...JSON.parse(stdout) };
};

describe('bisect --other', () => {
  it('finds vmtape the same as itself, as a program', () => {
    const junit = file('same.xml');
    const { status, outcome, compared, end } = lockstep(ITSELF, '--junit', junit);
    expect(readFileSync(junit, 'utf8')).toContain('<testsuites tests="1" failures="0">');
    expect({ status, outcome }).toEqual({ status: 0, outcome: 'same' });
    expect(compared).toBe(end.split(':')[0]);
  });

  it('tells people what differs, before and after', () => {
    const other = plantedProgram(file('planted.mjs'), 30, 'r15', '0x77');
    const [html, junit] = [file('report.html'), file('report.xml')];
    const { status, stdout } = vmtape([
      ...['bisect', nested, '--other', other, '--max-instructions', '31', '--html', html, '--junit', junit],
    ]);
    expect(status).toBe(1);
    const page = readFileSync(html, 'utf8');
    expect(page).toMatch(/<h1>.* part at 29:\d+\.<\/h1>/);
    expect(page).toMatch(/<pre>[^<]*r15 +0x[0-9a-f]+ +0x77\n?[^<]*<\/pre>/);
    expect(page.match(/<svg/g)).toHaveLength(1);
    expect(page).not.toMatch(/(src|href)=/);
    expect(readFileSync(junit, 'utf8')).toMatch(
      /<testsuites tests="1" failures="1">[\s\S]*<failure message="[^"]* part at 29:/,
    );
    expect(vmtape(['bisect', nested, '--other', other, '--html', html])).toMatchObject({ status: 2 });
    expect(stdout).toMatch(/part at 29:\d+\./);
    expect(stdout).toMatch(/r15 +0x[0-9a-f]+ +0x77\n/);
    expect(stdout).toContain('Before, on both:');
  });

  it('refuses machines that keep to nothing, and tells what they said, in words', async () => {
    const script = (name: string, text: string): string => {
      writeFileSync(file(name), text);
      return `"${process.execPath}" "${file(name)}"`;
    };
    const answering = (answer: string): string =>
      `import { createInterface } from 'node:readline';\nfor await (const line of createInterface({ input: process.stdin })) console.log(${answer});`;
    const dies = script('dies.mjs', 'console.error("no licence"); process.exit(3)');
    for (const [other, message] of [
      [dies, /ended with status 3\nno licence/],
      [script('chats.mjs', answering('"hello yourself"')), /answers with no JSON: "hello yourself"/],
      [script('old.mjs', answering('JSON.stringify({ id: 1, protocol: 0 })')), /its protocol is 0/],
      [
        script('poor.mjs', answering('JSON.stringify({ id: 1, protocol: 1, can: [], registers: ["rip"] })')),
        /takes neither/,
      ],
      [script('lost.mjs', answering('JSON.stringify({ id: 77 })')), /is to no request/],
      ['true', /ended with status 0/],
    ] as const) {
      const run = new Lockstep(tape, () => Peer.command(other), { strict: false, memory: false }).run();
      await expect(run).rejects.toThrow(message);
      await expect(run).rejects.toBeInstanceOf(OperatingError);
    }
    const { status, stdout, stderr } = vmtape(['bisect', nested, '--other', dies]);
    expect({ status, stdout }).toEqual({ status: 4, stdout: '' });
    expect(stderr).toMatch(/ended with status 3\nno licence/);
    expect(stderr).not.toMatch(STACK);
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

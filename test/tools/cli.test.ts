import { readFileSync, rmSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { beforeAll, describe, expect, it } from 'vitest';
import { sqliteStore } from '../../src/journal/index.js';
import { ECHO, flatImage } from './flat-image.js';
import { FIXED, image, STACK, startVmtape, temporaryFolder, until, vmtape } from './vmtape.js';

const folder = temporaryFolder();
const tape = join(folder, 'hello.vmtape');
const nested = join(folder, 'nested.vmtape');

beforeAll(() => {
  writeFileSync(join(folder, 'paused'), '1000 paused\n');
  expect(vmtape(['record', image('hello64.elf'), '-o', tape, ...FIXED, '-q']).status).toBe(0);
  expect(vmtape(['record', image('nested.elf'), '-o', nested, ...FIXED, '-q', '--append', 'rounds=4']).status).toBe(0);
});

const COMMANDS = [
  ...['run', 'record', 'replay', 'verify', 'info', 'log', 'show', 'trace', 'sql', 'timeline', 'export'],
  ...['checkpoint', 'who-wrote', 'debug', 'bisect'],
  ...['profiles', 'policies'],
];

describe('help', () => {
  it.each(COMMANDS)('of %s tells its flags and gives an example', (command) => {
    const { status, stdout, stderr } = vmtape([command, '--help']);
    expect({ status, stderr }).toEqual({ status: 0, stderr: '' });
    expect(stdout).toMatch(new RegExp(`^Usage: vmtape ${command}`));
    expect(stdout).toMatch(new RegExp(`Example:\n  \\$ vmtape ${command}`));
    expect(stdout).toContain('--json');
  });

  it('names all commands and the exit statuses', () => {
    const { status, stdout } = vmtape(['--help']);
    expect(status).toBe(0);
    for (const command of COMMANDS) expect(stdout).toContain(`  ${command} `);
    expect(stdout).toContain('3 the tape is damaged');
  });

  it('is cut short by who reads no more of it, without a word', async () => {
    const { child, ended } = startVmtape(['--help']);
    child.stdout?.destroy();
    expect(await ended).toMatchObject({ status: 0, stderr: '' });
  });

  it('of --version is that of package.json', () => {
    const { version } = JSON.parse(readFileSync(new URL('../../package.json', import.meta.url), 'utf8')) as {
      version: string;
    };
    expect(vmtape(['--version'])).toMatchObject({ status: 0, stdout: `${version}\n` });
  });
});

describe('wrong usage', () => {
  it.each<[string, string[], RegExp]>([
    ['an unknown command', ['rekord'], /unknown command 'rekord'\n\(Did you mean record\?\)/],
    ['a missing argument', ['replay'], /missing required argument 'tapes'/],
    ['an unknown flag', ['verify', tape, '--fast'], /unknown option '--fast'/],
    ['record without a tape', ['record', image('hello64.elf')], /required option '-o, --output <tape>'/],
    ['a size that is none', ['run', image('hello64.elf'), '--memory', 'lots'], /--memory "lots" is no size/],
    ['too little RAM', ['run', image('hello64.elf'), '--memory', '64K'], /RAM must be between 1M and 3584M/],
    ['an unknown CPU', ['run', image('hello64.elf'), '--cpu', 'i486'], /CPU profile "i486": there is none/],
    [
      'a count that is none',
      ['run', image('hello64.elf'), '--max-instructions', '-3'],
      /--max-instructions "-3" is no count/,
    ],
    ['a seed that is too wide', ['run', image('hello64.elf'), '--seed', '0x10000000000000000'], /no 64-bit number/],
    ['a time that is none', ['run', image('hello64.elf'), '--clock', 'noon'], /--clock "noon" is no time/],
    [
      'a reset that leads nowhere',
      ['run', image('hello64.elf'), '--reset', 'halt'],
      /--reset "halt" is none\. Use end or boot/,
    ],
    ['a choice that is none', ['run', image('hello64.elf'), '--acpi', '2.0'], /--acpi "2\.0" is none\. Use on or off/],
    [
      'another interface',
      ['run', image('hello64.elf'), '--paravirt', 'xen'],
      /--paravirt "xen" is none\. Use none or kvm/,
    ],
    [
      'host events without a host',
      ['run', image('hello64.elf'), '--host-events', join(folder, 'paused')],
      /input\.paused: bare hardware has no host that does such a thing\. Give --paravirt kvm/,
    ],
    ['a serial line to nowhere', ['run', image('hello64.elf'), '--serial', 'com1'], /--serial "com1" leads nowhere/],
    ['an engine that is none', ['run', image('hello64.elf'), '--engine', 'warp'], /--engine "warp" is none/],
    ['a protocol that is none', ['run', image('hello64.elf'), '--boot', 'bios'], /--boot <protocol>.*bios.*multiboot/s],
    ['a RAM disk that is not there', ['run', image('hello64.elf'), '--initrd', join(folder, 'no')], /no such file/],
    [
      'a module that is not there',
      ['run', image('hello64.elf'), '--module', join(folder, 'no,a')],
      /no: there is no such/,
    ],
    ['an input file that is not there', ['run', image('hello64.elf'), '--input', join(folder, 'no')], /no such file/],
    ['a position that is none', ['show', tape, '?!'], /position "\?!"/],
    ['a position past the end', ['show', tape, '#99999999'], /the tape ends at/],
    ['an event that the tape does not have', ['show', tape, 'vmexit[0]'], /no such event/],
    ['a memory range that is none', ['show', tape, 'end', '--memory', '0x1000'], /--memory "0x1000" is no range/],
    ['a level that is none', ['log', tape, '--level', 'L3'], /--level "L3" is no level/],
  ])('%s: status 2 and a message that names it', (_name, args, message) => {
    const { status, stdout, stderr } = vmtape(args);
    expect({ status, stdout }).toEqual({ status: 2, stdout: '' });
    expect(stderr).toMatch(message);
    expect(stderr).not.toMatch(STACK);
  });

  it('--initrd, --module and --boot: files beside an image are on the tape, which replays without them', () => {
    // By EBX: the arguments of each module, and its first byte.
    const code = '8b4b14 8b7b18 8b7708 66baf803 ac84c07403eeebf8 8b378a06ee 83c710 e2e7 b000e6f4 ebfe';
    const file = (name: string, contents: string | Uint8Array): string => {
      const path = join(folder, name);
      writeFileSync(path, contents);
      return path;
    };
    const flat = file('flat.bin', Buffer.from(code.replaceAll(' ', ''), 'hex'));
    const files = [
      '--initrd',
      file('disk', 'D'),
      '--module',
      `${file('one', '1')},a,b c `,
      '--module',
      file('two', '2'),
    ];
    const tape = join(folder, 'modules.vmtape');
    const recorded = vmtape(['record', flat, '--boot', 'flat', ...files, '-o', tape]);
    expect(recorded).toMatchObject({ status: 0, stdout: 'diskDone a,b c 1two2' });
    for (const name of ['flat.bin', 'disk', 'one', 'two']) rmSync(join(folder, name));
    expect(vmtape(['replay', tape, '--serial'])).toMatchObject({ status: 0, stdout: 'diskDone a,b c 1two2' });
  });

  it('--engine makes the same tape whatever it names, and refuses what is no tier', () => {
    const tapes = ['interpreter', 'auto', 'jit'].map((tier) => {
      const tape = join(folder, `${tier}.vmtape`);
      const words = ['--engine', tier, '--seed', '1', '--clock', '2026-01-01', '--serial', 'null', '-o', tape];
      expect(vmtape(['record', image('pointers.elf'), '--append', 'divide=200', ...words]).status).toBe(0);
      return tape;
    });
    for (const tape of tapes.slice(1)) expect(readFileSync(tape)).toEqual(readFileSync(tapes[0] as string));
    const { status, stderr } = vmtape(['run', image('hello64.elf'), '--engine', 'fast']);
    expect([status, stderr]).toEqual([2, expect.stringMatching(/^vmtape: --engine "fast" is none/)]);
  });

  it('shows a stack when VMTAPE_DEBUG is set', () => {
    const { status, stderr } = vmtape(['run', join(folder, 'no')], { env: { VMTAPE_DEBUG: '1' } });
    expect(status).toBe(2);
    expect(stderr).toMatch(STACK);
  });
});

describe('run', () => {
  const expected = readFileSync(new URL('../guests/hello64.expected', import.meta.url), 'utf8');

  it('gives what the guest sends on stdout, and words on stderr', () => {
    const { status, stdout, stderr } = vmtape(['run', image('hello64.elf'), ...FIXED]);
    expect({ status, stdout }).toEqual({ status: 0, stdout: expected });
    expect(stderr).toMatch(/^vmtape: the guest ended with status 1; .* instructions, .* MIPS, 0 exits\n$/);
  });

  it("ends with the guest's own status when asked to", () => {
    expect(vmtape(['run', image('hello64.elf'), '-q', '--guest-status'])).toMatchObject({ status: 1, stderr: '' });
  });

  it('stops at --max-instructions, exactly', () => {
    const { status, stderr } = vmtape(['run', image('hello64.elf'), '-q', '--max-instructions', '1234', '--stats']);
    expect(status).toBe(0);
    expect(JSON.parse(stderr)).toMatchObject({ instructions: 1234, exits: 0, tapeBytes: 0, checkpoints: 0 });
  });

  it('gives one JSON document on stdout and nothing else there', () => {
    const { status, stdout, stderr } = vmtape(['run', image('hello64.elf'), ...FIXED, '--json', '-q']);
    expect(status).toBe(0);
    expect(JSON.parse(stdout)).toMatchObject({ outcome: { kind: 'ended', reason: 'debug-exit', status: 1 } });
    expect(stderr).toBe(expected);
  });

  it('passes --append on, and --serial to a file', () => {
    const file = join(folder, 'serial');
    const { status, stdout } = vmtape([
      'run',
      image('hello64.elf'),
      '--append',
      'name=Ada',
      '--serial',
      `file:${file}`,
    ]);
    expect({ status, stdout }).toEqual({ status: 0, stdout: '' });
    expect(readFileSync(file, 'utf8')).toMatch(/^hello, Ada\n/);
  });
});

describe('a tape', () => {
  it('replays, and says that it is identical', () => {
    const { status, stdout } = vmtape(['replay', tape]);
    expect(status).toBe(0);
    expect(stdout).toMatch(/: identical: [\d,]+ events and 5 state digests/);
  });

  it('replays its serial output', () => {
    const expected = readFileSync(new URL('../guests/hello64.expected', import.meta.url), 'utf8');
    expect(vmtape(['replay', tape, '--serial', '-q'])).toMatchObject({ status: 0, stdout: expected });
  });

  it('replays up to a position', () => {
    const { status, stdout } = vmtape(['replay', nested, '--to', 'vmexit:cpuid[2]', '--json']);
    expect(status).toBe(0);
    expect(JSON.parse(stdout)).toMatchObject({ outcome: 'identical', end: expect.stringMatching(/^\d+:\d+$/) });
  });

  it('is whole', () => {
    const { status, stdout } = vmtape(['verify', tape, '--json']);
    expect(status).toBe(0);
    expect(JSON.parse(stdout)).toMatchObject({ whole: true, state: 'complete', damage: [] });
  });

  it('tells what is on it', () => {
    const { stdout } = vmtape(['info', nested]);
    expect(stdout).toMatch(/session +debug-exit, status 1/);
    expect(stdout).toMatch(/events by kind\n/);
    expect(stdout).toMatch(/\n +\d+ {2}cpuid\n/);
    const document = JSON.parse(vmtape(['info', nested, '--json']).stdout);
    expect(document).toMatchObject({
      ending: { reason: 'debug-exit', status: 1 },
      configuration: { machine: { ramBytes: 64 * 2 ** 20, cpu: 'vmtape-base' } },
    });
    expect(document.exits.cpuid).toBe(4);
  });

  it('lists its events, filtered', () => {
    const lines = vmtape(['log', nested, '--kind', 'svm.vm*', '--level', 'L2', '--limit', '5'])
      .stdout.trimEnd()
      .split('\n');
    expect(lines).toHaveLength(5);
    for (const line of lines) expect(line).toMatch(/^ *#\d+ +\d+ {6}L2 #VMEXIT /);
  });

  it('lists its events as JSON lines, whose positions are taken back', () => {
    const [line = ''] = vmtape(['log', nested, '--from', 'vmexit:npf[0]', '--limit', '1', '--json']).stdout.split('\n');
    const { position, kind, payload } = JSON.parse(line);
    expect({ kind, code: payload.code }).toEqual({ kind: 'svm.vmexit', code: '0x400' });
    expect(vmtape(['log', nested, '--from', position, '--limit', '1', '--json']).stdout).toBe(`${line}\n`);
  });

  it('shows the machine, levels side by side', () => {
    const { status, stdout } = vmtape([
      'show',
      nested,
      'vmexit:cpuid[0]',
      '--vmcb',
      '--disassemble',
      '2',
      '--memory',
      '0x100000,32',
    ]);
    expect(status).toBe(0);
    expect(stdout).toMatch(/next: #\d+ L2 #VMEXIT cpuid/);
    expect(stdout).toMatch(/L1, waits +L2, runs\n/);
    expect(stdout).toMatch(/\ncs +0008 base 0 limit ffffffff 64-bit code ring 0 +0008 /);
    expect(stdout).toMatch(/\n {2}nCR3 +[0-9a-f]+ +sPA of the nested page-table root/);
    expect(stdout).toMatch(/code at RIP\n {2}[0-9a-f]{16} {2}0f a2 +cpuid\n/);
    expect(stdout).toMatch(/memory, linear\n {2}0000000000100000 {2}02 b0 ad 1b/);
  });

  it('shows the same registers from a fold as from a replay', () => {
    const position = 'vmexit:msr[1]';
    const folded = JSON.parse(vmtape(['show', nested, position, '--json']).stdout);
    const { memory, ...replayed } = JSON.parse(
      vmtape(['show', nested, position, '--json', '--memory', 'phys:0x100000,4']).stdout,
    );
    expect(replayed).toEqual(folded);
    expect(memory).toEqual({ space: 'physical', address: '0x100000', bytes: '02b0ad1b' });
  });

  it('is not written over', () => {
    const { status, stderr } = vmtape(['record', image('hello64.elf'), '-o', tape]);
    expect(status).toBe(2);
    expect(stderr).toMatch(/hello\.vmtape: exists already/);
  });

  it('is read by whoever stops reading early', () => {
    const through = ['sh', '-c', '"$@" | head -n 2', 'sh'];
    const { stdout, stderr } = vmtape(['log', nested], { through });
    expect({ lines: stdout.split('\n').length - 1, stderr }).toEqual({ lines: 2, stderr: '' });
  });
});

describe('a tape that the machine does not repeat', () => {
  const doctored = join(folder, 'doctored.vmtape');

  /** The same tape, whole and sealed, but for one register in one run. */
  beforeAll(() => {
    const reader = sqliteStore(nested).read();
    const writer = sqliteStore(doctored, { thread: false }).create(reader.header);
    for (const digest of reader.blobDigests()) writer.putBlob(reader.blob(digest) ?? new Uint8Array(0));
    let isDoctored = false;
    for (const { position, event, ...envelope } of reader.records()) {
      const mayBe: boolean = !isDoctored && position.seq > 450n;
      if (mayBe && event.type === 'cpu.ran' && event.registers.length > 0) {
        // The last byte of a delta is the high byte of a register.
        writer.append({ ...envelope, event: { ...event, registers: event.registers.with(-1, 0x55) } });
        isDoctored = true;
      } else {
        writer.append({ ...envelope, event });
      }
    }
    writer.finish();
    reader.close();
  });

  it('replays to status 1 and one page about the first difference', () => {
    const { status, stdout } = vmtape(['replay', doctored]);
    expect(status).toBe(1);
    expect(stdout).toMatch(/^The replay diverges from the tape at \d+:\d+, in L[12]\.\n/);
    expect(stdout).toMatch(/\n {2}tape: {3}.*\n {2}replay: /);
    expect(stdout.split('\n').length).toBeLessThan(60);
  });

  it('says so in JSON too, and where one shows a place beyond', () => {
    const { status, stdout } = vmtape(['replay', doctored, '--json']);
    expect({ status, document: JSON.parse(stdout) }).toMatchObject({ status: 1, document: { outcome: 'diverged' } });
    const shown = vmtape(['show', doctored, 'end', '--memory', '0x1000,16']);
    expect(shown).toMatchObject({ status: 1, stderr: expect.stringMatching(/the replay on the way to .* diverged\./) });
  });

  it('replays up to the difference', () => {
    expect(vmtape(['replay', doctored, '--to', '#400'])).toMatchObject({ status: 0 });
  });
});

describe('serial input', () => {
  const echo = join(folder, 'echo.bin');
  beforeAll(() => writeFileSync(echo, flatImage(ECHO)));

  it('from a file is recorded, and fed to the replay', () => {
    const input = join(folder, 'input');
    const recorded = join(folder, 'echo.vmtape');
    const text = 'twenty-six bytes, then a q';
    writeFileSync(input, text);
    const { status, stdout } = vmtape(['record', echo, '-o', recorded, ...FIXED, '-q', '--input', input]);
    expect({ status, stdout }).toEqual({ status: 0, stdout: text });
    expect(vmtape(['log', recorded, '--kind', 'input.serial', '--limit', '1']).stdout).toMatch(/input: serial "t"/);
    expect(vmtape(['replay', recorded, '--serial', '-q'])).toMatchObject({ status: 0, stdout: text });
  });

  it('from stdin reaches the guest as it comes', async () => {
    const { child, ended } = startVmtape(['run', echo, '-q'], { stdio: ['pipe', 'pipe', 'pipe'] });
    let seen = '';
    child.stdout?.on('data', (data) => {
      seen += data;
    });
    child.stdin?.write('a');
    await until(() => seen === 'a');
    child.stdin?.write('q');
    expect(await ended).toMatchObject({ status: 0, stdout: 'aq' });
  });
});

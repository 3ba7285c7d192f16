/** Names of places in what `timeline`, `export --perfetto` and `who-wrote` say. */
import { readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { beforeAll, describe, expect, it } from 'vitest';
import { RecordSource } from '../../../src/journal/index.js';
import { DEFAULT_CONFIG, type MachineState, R, SvmMode } from '../../../src/machine/index.js';
import { foldHistory } from '../../../src/replay/index.js';
import { exportCommand } from '../../../tools/cli/commands/export.js';
import { recordCommand } from '../../../tools/cli/commands/record.js';
import { timelineCommand } from '../../../tools/cli/commands/timeline.js';
import { whoWroteCommand } from '../../../tools/cli/commands/who-wrote.js';
import { LevelSymbols } from '../../../tools/symbols/level-symbols.js';
import { Places } from '../../../tools/symbols/places.js';
import { SymbolTable } from '../../../tools/symbols/symbol-table.js';
import { MEBIBYTE, recordGuest } from '../../support/sessions.js';
import { inProcess } from '../in-process.js';
import { FIXED, image, temporaryFolder } from '../vmtape.js';

const everywhere = (name: string): SymbolTable => new SymbolTable([{ address: 0n, name, type: 'T', bytes: 2 ** 48 }]);

describe('places', () => {
  it('are where the vCPU of each event stands ahead of it, at its level, as the fold of the tape has it', () => {
    const config = { ...DEFAULT_CONFIG, ramBytes: 64 * MEBIBYTE, vcpus: 2 };
    const reader = recordGuest('smp.elf', { config, limit: 150_000 }).store.read();
    const symbols = new LevelSymbols();
    symbols.add(1, everywhere('host'));
    symbols.add(2, everywhere('guest'));
    const places = new Places(symbols);
    const history = foldHistory(reader)[Symbol.iterator]();
    const standing = ({ vcpus }: MachineState, vcpu: number): string | undefined => {
      const { registers } = vcpus[vcpu] as MachineState['vcpus'][number];
      const level = ((registers[R.svmMode] as bigint) & SvmMode.GUEST) === 0n ? 1 : 2;
      return symbols.textOf(level, registers[R.rip] as bigint);
    };
    let { state } = history.next().value as { state: MachineState };
    let [hosts, guests] = [0, 0];
    for (const scan of new RecordSource(reader).scan({})) {
      const known = places.before(scan);
      if (known !== undefined) expect(known).toBe(standing(state, scan.vcpu));
      if (known?.startsWith('host') === true) hosts++;
      if (known?.startsWith('guest') === true) guests++;
      places.see(scan);
      state = history.next().value?.state ?? state;
    }
    expect(hosts).toBeGreaterThan(1000);
    expect(guests).toBeGreaterThan(10);
  });
});

describe('--symbols', () => {
  const folder = temporaryFolder();
  const tape = join(folder, 'nested.vmtape');
  const map = join(folder, 'nested.map');
  const within = ['--symbols', map, '--symbols', `L2:${map}`];
  const run = async (...args: readonly string[]) =>
    inProcess([exportCommand, recordCommand, timelineCommand, whoWroteCommand], args);

  beforeAll(async () => {
    writeFileSync(map, '0000000000102380 T after_vmrun\n0000000000101de1 T load_of_l2\n0000000000101f20 T calls\n');
    const args = [
      'record',
      image('nested.elf'),
      '-o',
      tape,
      ...FIXED,
      '-q',
      '--serial',
      'null',
      '--append',
      'rounds=4',
    ];
    expect(await run(...args, '--input', '/dev/null')).toMatchObject({ status: 0 });
  });

  it('names on the page of a timeline where things happen, and where the vCPU goes on', async () => {
    const file = join(folder, 'page.html');
    expect(await run('timeline', tape, '--html', file, ...within)).toMatchObject({ status: 0 });
    const page = readFileSync(file, 'utf8').replaceAll('\\u003c', '<');
    expect(page).toMatch(/"L2 #VMEXIT npf [^"]* rip=0x102383 <after_vmrun\+0x3> [^"]* at load_of_l2"/);
    expect((await run('timeline', tape, ...within)).stderr).toMatch(/--symbols names places on the page of --html/);
  });

  it('names in a trace where guests exit, and where things happen', async () => {
    const file = join(folder, 'trace.json');
    expect(await run('export', tape, '--perfetto', file, ...within)).toMatchObject({ status: 0 });
    const { traceEvents } = JSON.parse(readFileSync(file, 'utf8'));
    const at = { at: 'load_of_l2', position: expect.any(String) };
    const named = traceEvents.filter(({ args }: { args: { at?: string } }) => args.at === 'load_of_l2');
    expect(named).toContainEqual(expect.objectContaining({ ph: 'X', name: 'npf', args: expect.objectContaining(at) }));
    expect(named).toContainEqual(expect.objectContaining({ ph: 'i', cat: 'exits', args: expect.objectContaining(at) }));
    const stray = await run('export', tape, '--sqlite', join(folder, 'x.db'), ...within);
    expect(stray).toMatchObject({ status: 2, stderr: expect.stringContaining('--symbols goes with --perfetto') });
  });

  it('names who wrote, and where it goes on', async () => {
    const { status, stdout } = await run('who-wrote', tape, 'vmcb.rax', ...within);
    expect(status).toBe(0);
    expect(stdout).toMatch(/^ {2}0000000000101f2c {2}calls\+0xc {2}vmmcall$/m);
    expect(stdout).toMatch(/ rip=0x102383 <after_vmrun\+0x3> /);
    const told = JSON.parse((await run('who-wrote', tape, 'vmcb.rax', '--json', ...within)).stdout);
    expect(told).toMatchObject({ rip: '0x101f2c', symbol: 'calls+0xc' });
  });
});

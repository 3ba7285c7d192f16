/** Diversions under the real gdb, where there is one: what it writes, where it goes, and what stays of it. */
import { existsSync } from 'node:fs';
import { join } from 'node:path';
import { afterAll, afterEach, beforeAll, describe, expect, it } from 'vitest';
import { sqliteStore } from '../../../src/journal/index.js';
import { DEFAULT_CONFIG } from '../../../src/machine/index.js';
import { Replayer } from '../../../src/replay/index.js';
import { MEBIBYTE, recordGuest } from '../../support/sessions.js';
import { temporaryFolder } from '../vmtape.js';
import { RemoteClient, type Served, serve } from './client.js';
import { printed, runGdb, GDB_VERSION as version } from './gdb.js';

let served: Served;
beforeAll(async () => {
  served = await serve(recordGuest('nested.elf', { commandLine: 'nested.elf rounds=3', checkpointEvery: 20_000 }));
});
afterAll(() => served.close());
afterEach(() => {
  while (served.debuggee.unfork());
});

const gdb = (commands: readonly string[]): Promise<string> => runGdb(served, commands);

const FLUSH = 'maintenance flush register-cache';
const goto = (place: string): string[] => [`monitor goto ${place}`, FLUSH];
const fork = (file = ''): string[] => [`monitor fork ${file}`, FLUSH];
const UNFORK = ['monitor unfork', FLUSH];
const L2_NPF = '0x101de1';
const AFTER_VMRUN = '0x102383';
/** RAM that the guest does not use, mapped onto itself by L1. */
const FREE = '0x200000';

const digestsIn = (output: string): string[] =>
  [...output.matchAll(/^(cpu|vmcb|devices|machine|ram) +([0-9a-f]{64})$/gm)].map(([line]) => line);

describe.skipIf(version === undefined)(`a diversion in ${version ?? 'gdb, which is not here'}`, () => {
  it('takes registers of every class, and memory; and the tape is as it was', async () => {
    const writes: readonly (readonly [string, string, string, string])[] = [
      ['set var $r15 = 0x1234', 'p/x $r15', '0x1234', 'general'],
      ['set var $eflags = 0x203', 'p $eflags', '[ CF IF ]', 'flags'],
      ['set var $xmm3.uint128 = 5', 'p/x $xmm3.uint128', '0x5', 'vector'],
      ['set var $st0 = 1.5', 'p $st0', '1.5', 'x87'],
      ['set var $mxcsr = 0x1fa0', 'p $mxcsr', '[ PE IM DM ZM OM UM PM ]', 'vector control'],
      ['set var $fs_base = 0x7000', 'p/x $fs_base', '0x7000', 'base'],
      ['set var $dr0 = 0x55', 'p/x $dr0', '0x55', 'debug'],
      ['set var $lstar = 0x1000', 'p/x $lstar', '0x1000', 'MSR'],
      ['set var $cr2 = 0x77', 'p/x $cr2', '0x77', 'control'],
      ['set var $cr4 = $cr4 | 0x80', 'p ($cr4 & 0x80) != 0', '1', 'control with flags'],
      ['set var $vmcb_guestASID = 3', 'p $vmcb_guestASID', '3', 'VMCB'],
      [
        `set var *(unsigned long *) ${FREE} = 0x1122334455667788`,
        `p/x *(unsigned long *) ${FREE}`,
        '0x1122334455667788',
        'RAM',
      ],
    ];
    const output = await gdb([
      ...goto('vmexit:npf[0]'),
      'monitor digest',
      ...fork(),
      // Where L1 runs, its own memory is seen through its tables.
      ...['stepi', 'p $guest_mode', 'p/x $pc'],
      ...writes.flatMap((each) => each.slice(0, 2)),
      ...UNFORK,
      'monitor digest',
    ]);
    const values = printed(output).slice(2);
    for (const [index, [set, , value]] of writes.entries()) expect(values[index], set).toBe(value);
    const digests = digestsIn(output);
    expect(digests).toHaveLength(10);
    expect(digests.slice(5)).toEqual(digests.slice(0, 5));
  });

  it('runs on where the tape does not, stops there, and goes back to the fork and no further', async () => {
    const output = await gdb([
      ...goto('vmexit:npf[0]'),
      ...fork(),
      'set var $r15 = 0x1234',
      ...[`break *${AFTER_VMRUN}`, 'continue', 'p/x $pc', 'p $guest_mode', 'p/x $vmcb_exitCode'],
      ...['continue', 'continue', 'p/x $pc', 'reverse-continue', 'reverse-continue', 'p/x $pc', 'delete'],
      ...['reverse-continue', 'p/x $pc', 'p/x $r15 == 0x1234', 'monitor events 2', 'reverse-stepi'],
      ...[...goto('end'), 'p/x $pc', 'monitor where'],
    ]);
    expect(printed(output)).toEqual([AFTER_VMRUN, '0', '0x400', AFTER_VMRUN, AFTER_VMRUN, L2_NPF, '0x0', AFTER_VMRUN]);
    expect(output.match(/No more reverse-execution history/g)).toHaveLength(2);
    expect(output).toContain('debugger: vCPU 0 r15 := 0x1234');
    expect(output).toMatch(/in a diversion of the recording, forked at \d+:\d+, kept until unfork/);
  });

  it('watches and catches what happens in it', async () => {
    const output = await gdb([
      ...goto('vmexit:npf[0]'),
      ...fork(),
      ...['watch *(unsigned long *) 0x126070', 'continue', 'p/x *(unsigned long *) 0x126070', 'delete'],
      ...['monitor catch vmexit', 'continue', 'p $guest_mode', 'monitor where', 'stepi', 'p $guest_mode'],
      ...['monitor release', 'monitor watch gif', 'continue', 'monitor unwatch'],
    ]);
    expect(output).toContain('Hardware watchpoint 1');
    expect(output).toContain('vmexit is about to happen');
    expect(output).toMatch(/gif of vCPU 0: 0x1 → 0x0|gif of vCPU 0: 0x0 → 0x1/);
    const [watched, guest, host] = printed(output);
    expect([watched, guest, host]).toEqual(['0x400', '1', '0']);
  });

  it('changes what the guest does', async () => {
    const there = [...goto('vmexit:npf[0]'), ...fork()];
    // Behind the fault instead of at it: no #VMEXIT(NPF) comes of it.
    const output = await gdb([
      ...there,
      ...['set var $pc = $pc + 8', 'p/x $pc', 'monitor catch vmexit', 'continue', 'stepi', 'p/x $vmcb_exitCode'],
      ...['monitor release', ...UNFORK, 'stepi', 'p/x $vmcb_exitCode'],
    ]);
    const [pc, diverted, recorded] = printed(output);
    expect([pc, recorded]).toEqual(['0x101de9', '0x400']);
    expect(diverted).not.toBe('0x400');
  });

  it.each([
    ['a write to the recording', [], 'set var $r15 = 1', 'a recording cannot be changed: monitor fork'],
    ['a RIP that is not canonical', fork(), 'set var $pc = 0x800000000000', 'the address is not canonical'],
    ['reserved bits of CR4', fork(), 'set var $cr4 = 1ULL << 50', 'gets GP'],
    ['CPL', fork(), 'set var $cpl = 3', 'only the processor itself changes it'],
    ['CS', fork(), 'set var $cs = 0x50', 'far transfers'],
    ['the past', [...fork(), 'stepi', 'stepi', 'reverse-stepi'], 'set var $r15 = 1', 'monitor goto end'],
  ] as const)('refuses %s, with the reason', async (_, before, write, reason) => {
    // gdb ends its script with the error.
    expect(await gdb([...goto('50000'), ...before, write])).toContain(reason);
    served.debuggee.unfork();
  });

  it('refuses memory of the recording, which gdb has one word for and the console another', async () => {
    const output = await gdb([...goto('50000'), `set var *(int *) ${FREE} = 1`]);
    expect(output).toContain(`Cannot access memory at address ${FREE}`);
    expect(served.said.join('\n')).toContain('refused a write: a recording cannot be changed: monitor fork');
  });

  it.each(['0xfee00000', '0x7ffffffff000'])('refuses memory at %s, which is none', async (address) => {
    const output = await gdb([...goto('50000'), ...fork(), `set var *(int *) ${address} = 1`]);
    expect(output).toContain(`Cannot access memory at address ${address}`);
  });

  it('is kept as a tape of its own', async () => {
    const file = join(temporaryFolder(), 'diverted.vmtape');
    const output = await gdb([
      ...goto('84000'),
      ...fork(file),
      ...[
        'set var $r15 = 0x1234',
        `break *${AFTER_VMRUN}`,
        'continue',
        'continue',
        'delete',
        ...UNFORK,
        'monitor where',
      ],
      ...fork(file),
    ]);
    expect(output).toContain(`kept as ${file}`);
    expect(output).toMatch(/diverted\.vmtape.*exists/);
    expect(existsSync(file)).toBe(true);
    const reader = sqliteStore(file).read();
    expect(reader.state).toBe('complete');
    expect(reader.header.origin?.position.icount).toBe(84_000n);
    expect(new Replayer(reader).run()).toMatchObject({ kind: 'identical' });
    reader.close();
  });
});

describe('a client in a diversion', () => {
  const client = async (place: string): Promise<RemoteClient> => {
    const remote = await RemoteClient.attached(served.address);
    await remote.monitor(`goto ${place}`);
    return remote;
  };

  it('hears on the recording how to get one', async () => {
    const remote = await client('50000');
    for (const packet of ['P0=0100000000000000', `M${FREE.slice(2)},1:00`, `X${FREE.slice(2)},1:a`]) {
      expect(await remote.ask(packet), packet).toMatch(/^E\.a recording cannot be changed: monitor fork /);
    }
    // By a write of nothing a client asks whether it may send bytes as they are.
    expect(await remote.ask(`X${FREE.slice(2)},0:`)).toBe('OK');
    expect(await remote.monitor('unfork')).toBe('this is no diversion');
    remote.close();
  });

  it('writes all registers at once, or none', async () => {
    const remote = await client('50000');
    await remote.monitor('fork');
    const all = await remote.ask('g');
    // RAX is the first, RIP number 16; the rest stays, and what nobody knows is none of it.
    const rax = `1122334455667788${all.slice(16)}`;
    expect(await remote.ask(`G${rax}`)).toBe('OK');
    expect(await remote.ask('g')).toBe(rax);
    const bad = `0000000000000000${all.slice(16, 256)}0000000000008000${all.slice(272)}`;
    expect(await remote.ask(`G${bad}`)).toMatch(/^E\.rip = 0x80000000000000: the address is not canonical/);
    expect(await remote.ask('g')).toBe(rax);
    remote.close();
  });

  it('writes across pages', async () => {
    const remote = await client('50000');
    await remote.monitor('fork');
    expect(await remote.ask('M200ffe,4:01020304')).toBe('OK');
    expect(await remote.ask('m200ffe,4')).toBe('01020304');
    expect(await remote.monitor('events -2')).toMatch(/RAM at 0x200ffe := 01 02\n.*RAM at 0x201000 := 03 04/);
    remote.close();
  });

  it('sets what else there is by monitor', async () => {
    const remote = await client('50000');
    await remote.monitor('fork');
    expect(await remote.monitor('set msr.0xc0000082 0x1000')).toContain('in a diversion');
    expect(await remote.monitor('events -1')).toContain('lstar := 0x1000');
    await remote.monitor('set msr.0xc0010004 5');
    expect(await remote.monitor('events -1')).toContain('MSR 0xc0010004 := 0x5');
    expect(await remote.monitor('set phys:0x200000,2 0x1234')).toContain('in a diversion');
    expect(await remote.ask('m200000,2')).toBe('3412');
    expect(await remote.monitor('set device.pit 5')).toContain('nothing that one writes a number to');
    expect(await remote.monitor('set phys:0x200000,1 0x1ff')).toContain('more than 1 bytes hold');
    expect(await remote.monitor('fork')).toContain('in a diversion of the diversion that the next line tells of');
    expect(await remote.monitor('unfork')).toContain('in a diversion of the recording');
    expect(await remote.monitor('unfork')).not.toContain('in a diversion');
    remote.close();
  });
});

describe('a diversion of several vCPUs', () => {
  it('takes writes to each, and steps one of them through the turns of the others', async () => {
    const config = { ...DEFAULT_CONFIG, ramBytes: 64 * MEBIBYTE, vcpus: 3, quantumInstructions: 700 };
    const own = await serve(recordGuest('smp.elf', { limit: 70_000, checkpointEvery: 20_000, config }));
    try {
      const remote = await RemoteClient.attached(own.address);
      await remote.monitor('goto 60000');
      await remote.monitor('fork');
      for (const thread of ['1', '2', '3']) {
        expect(await remote.ask(`Hgp1.${thread}`)).toBe('OK');
        expect(await remote.ask(`Pf=0${thread}00000000000000`)).toBe('OK');
      }
      for (const thread of ['3', '1', '2', '3', '3']) {
        expect(await remote.ask(`vCont;s:p1.${thread}`)).toMatch(new RegExp(`^T05thread:p1\\.${thread};`));
      }
      expect(await remote.ask('bs')).toMatch(/^T05/);
      expect(await remote.monitor('where')).toContain('in a diversion');
      expect(await remote.monitor('unfork')).toMatch(/^60000/);
      remote.close();
    } finally {
      await own.close();
    }
  });
});

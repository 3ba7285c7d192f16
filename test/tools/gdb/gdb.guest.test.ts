/** Scripted sessions of the real gdb, where there is one. */
import { writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { recordGuest } from '../../support/sessions.js';
import { temporaryFolder } from '../vmtape.js';
import { type Served, serve } from './client.js';
import { printed, runGdb, GDB_VERSION as version } from './gdb.js';

const folder = temporaryFolder();
let served: Served;
beforeAll(async () => {
  if (version === undefined) return;
  served = await serve(recordGuest('nested.elf', { commandLine: 'nested.elf rounds=3', checkpointEvery: 20_000 }));
});
afterAll(() => served?.close());

const gdb = (commands: readonly string[], target?: string): Promise<string> => runGdb(served, commands, target);

const L2_VMMCALL = '0x101d51';
/** The access of L2 that ends in #VMEXIT(NPF), where L1 goes on, and its read of the exit code. */
const L2_NPF = '0x101de1';
const AFTER_VMRUN = '0x102383';
const L1_READS = { before: '0x101294', after: '0x10129b' };

describe.skipIf(version === undefined)(`a session of ${version ?? 'gdb, which is not here'}`, () => {
  it('breaks in L2 and reads registers of the VMCB', async () => {
    const output = await gdb([
      ...[`break *${L2_VMMCALL}`, 'continue', 'p/x $pc', 'p $guest_mode', 'p $asid', 'p $vmcb_guestASID', 'x/i $pc'],
      ...['p $efer', 'stepi', 'p/x $vmcb_exitCode', 'p $guest_mode', 'info threads'],
    ]);
    expect(output).toContain(`Breakpoint 1, 0x0000000000101d51`);
    expect(printed(output)).toEqual(
      [L2_VMMCALL, '1', '1', '1', '[ SCE LME LMA NXE SVME ]', '0x81', '0'].map((each) =>
        each.startsWith('[') ? expect.stringContaining('SVME') : each,
      ),
    );
    expect(output).toContain('vmmcall');
    expect(output).toContain('L1 vCPU 0, runs');
  });

  it('breaks by the names of a file that vmtape made of symbols', async () => {
    const [map, elf] = ['names.map', 'names.elf'].map((name) => join(folder, name)) as [string, string];
    writeFileSync(map, `${AFTER_VMRUN.slice(2).padStart(16, '0')} T after_vmrun\n`);
    const output = await gdb([
      ...[`monitor symbols read ${map}`, `monitor symbols write ${elf}`, `symbol-file ${elf}`, 'break after_vmrun'],
      ...['monitor goto vmexit:npf[0]', 'maintenance flush register-cache'],
      ...['continue', 'monitor where', 'reverse-stepi', 'p $guest_mode', 'stepi', 'info symbol $pc'],
    ]);
    expect(output).toContain('L1: 1 symbols');
    expect(output).toContain('Breakpoint 1, 0x0000000000102383 in after_vmrun ()');
    expect(output).toMatch(/runs L1.* at after_vmrun\n {2}0000000000102383 +after_vmrun /);
    expect(printed(output)).toEqual(['1']);
    expect(output).toContain('after_vmrun in section .text');
    expect(await gdb(['monitor symbols ram'])).toContain('no Linux kernel with kallsyms');
  });

  it('steps back 1,000 times and forwards again to the same state', async () => {
    const output = await gdb([
      ...['monitor goto vmexit:npf[1]', 'maintenance flush register-cache', 'monitor digest', 'reverse-stepi 1000'],
      ...['monitor where', 'stepi 1000', 'monitor digest'],
    ]);
    const digests = [...output.matchAll(/^(cpu|vmcb|devices|machine|ram) +([0-9a-f]{64})$/gm)].map(([line]) => line);
    expect(digests).toHaveLength(10);
    expect(digests.slice(5)).toEqual(digests.slice(0, 5));
  }, 180_000);

  it('goes back from a variable to its last writer', async () => {
    // L1's VMCB: the processor's own write at the #VMEXIT is the last one.
    const output = await gdb([
      ...['monitor goto vmexit:cpuid[1]', 'maintenance flush register-cache', 'set $code = $vmcb + 0x70'],
      ...[
        'watch *(unsigned long *) $code',
        'reverse-continue',
        'p/x *(unsigned long *) $code',
        'p $guest_mode',
        'stepi',
      ],
      ...['p/x *(unsigned long *) $code', 'p $guest_mode'],
    ]);
    expect(output).toContain('Hardware watchpoint 1');
    const [before, guestBefore, after, guestAfter] = printed(output);
    expect(before).not.toBe(after);
    expect([guestBefore, guestAfter]).toEqual(['1', '0']);
  });

  it('stops at reads, and at accesses of both kinds, forwards and backwards', async () => {
    // L1 reads the exit code that the #VMEXIT has written: once for each exit.
    const [write, read] = [L2_NPF, L1_READS];
    const output = await gdb([
      ...['monitor goto vmexit:npf[0]', 'maintenance flush register-cache', 'rwatch *(unsigned long *) 0x126070'],
      ...[
        'continue',
        'p/x $pc',
        'p $guest_mode',
        'reverse-continue',
        'p/x $pc',
        'reverse-continue',
        'p/x $pc',
        'delete',
      ],
      ...['monitor goto vmexit:npf[0]', 'maintenance flush register-cache', 'awatch *(unsigned long *) 0x126070'],
      ...['continue', 'p/x $pc', 'continue', 'p/x $pc', 'reverse-continue', 'p/x $pc', 'reverse-continue', 'p/x $pc'],
    ]);
    expect(output).toContain('Hardware read watchpoint 1');
    expect(output.match(/^Value = .*$/gm)?.slice(0, 3)).toEqual(['Value = 1024', 'Value = 1024', 'Value = 78']);
    expect(output).toContain('Hardware access (read/write) watchpoint 2');
    expect(output).toMatch(/Old value = 78\nNew value = 1024\n[\s\S]*Old value = 1024\nNew value = 78\n/);
    expect(printed(output)).toEqual([
      ...[read.after, '0', read.before, read.before],
      ...[AFTER_VMRUN, read.after, read.before, write],
    ]);
  });

  it('stops where values change that are no memory of its own, and says so', async () => {
    const output = await gdb([
      ...['monitor goto vmexit:npf[0]', 'maintenance flush register-cache', 'monitor watch gif', 'monitor watch rax'],
      ...[
        'monitor watch device.pit.chanels',
        'monitor watch vmcb.exitCode',
        'continue',
        'p $gif',
        'p/x $vmcb_exitCode',
      ],
      ...[
        'continue',
        'p $gif',
        'p/x $pc',
        'reverse-continue',
        'p $gif',
        'p/x $pc',
        'reverse-continue',
        'p $guest_mode',
      ],
      ...['p/x $vmcb_exitCode', 'monitor unwatch gif', 'reverse-continue', 'p/x $pc', 'monitor unwatch'],
    ]);
    expect(output).toContain('rax of vCPU 0 may change with every instruction');
    expect(output).toContain('Is it channels?');
    expect(output).toContain('gif of vCPU 0: 0x1 → 0x0\nexitCode of the VMCB at 126000h: 0x4e → 0x400');
    expect(output).toContain('nothing is watched');
    const values = printed(output);
    // At the #VMEXIT; behind STGI or the next VMRUN, and before it; before the #VMEXIT.
    expect(values.slice(0, 3)).toEqual(['0', '0x400', '1']);
    expect(values.slice(4, 5)).toEqual(['0']);
    expect(values.slice(6, 8)).toEqual(['1', '0x4e']);
    expect(values).toHaveLength(9);
  });

  it('watches a general register by stepping, both ways', async () => {
    const output = await gdb([
      ...['monitor goto vmexit:npf[0]', 'maintenance flush register-cache', 'p/x $rbx', 'watch $rbx', 'continue'],
      ...['p/x $rbx', 'monitor where', 'reverse-continue', 'p/x $rbx', 'reverse-continue', 'monitor where', 'delete'],
      'stepi',
      'p/x $rbx',
    ]);
    expect(output).toContain('Watchpoint 1: $rbx');
    const [before, changed, undone, redone] = printed(output);
    expect(changed).not.toBe(before);
    expect([undone, redone]).toEqual([before, before]);
    // The last change of RBX before the page fault is where who-wrote finds it.
    const places = [...output.matchAll(/^(\d+(?::\d+)?) {2}vCPU 0 runs/gm)].map(([, place]) => place);
    const writer = await gdb(['monitor goto vmexit:npf[0]', 'monitor who-wrote rbx']);
    const found = [...writer.matchAll(/^(\d+(?::\d+)?) {2}vCPU 0 runs/gm)].map(([, place]) => place);
    expect(places.at(-1)).toBe(found.at(-1));
  });

  it('stops at the last #VMEXIT before the end', async () => {
    const output = await gdb([
      'continue',
      'monitor catch vmexit',
      'reverse-continue',
      'monitor where',
      'p $guest_mode',
    ]);
    expect(output).toContain('No more reverse-execution history');
    expect(output).toContain('vmexit is about to happen');
    expect(printed(output)).toEqual(['1']);
    const place = /^(\S+) {2}vCPU 0 runs L2/m.exec(output)?.[1];
    expect(place).toBeDefined();
    const direct = await gdb(['monitor goto vmexit[-1]', 'maintenance flush register-cache', 'p $guest_mode']);
    expect(direct).toContain(`${place}  vCPU 0 runs L2`);
  });

  it('shows a guest that it attaches to as an inferior of its own, and steps both', async () => {
    const output = await gdb(
      [
        ...['set schedule-multiple on', 'info os processes', 'add-inferior', 'inferior 2', 'attach 2'],
        ...[
          `break *${L2_VMMCALL}`,
          'continue',
          'info inferiors',
          'info threads',
          'stepi',
          'p/x $pc',
          'reverse-continue',
        ],
        ...['p/x $pc', 'inferior 1', 'p/x $pc', 'p $guest_mode'],
      ],
      'extended-remote',
    );
    expect(output).toMatch(/2 +L2 asid 1 nCR3 0x[0-9a-f]+/);
    expect(output).toMatch(/1 +process 1 .*\n\* 2 +process 2 /);
    expect(output).toContain('waits behind its guest');
    expect(printed(output)).toEqual(['0x101d54', L2_VMMCALL, '0x102383', '0']);
  });

  it('is told that a recording cannot be changed', async () => {
    const output = await gdb(['monitor goto 50000', 'maintenance flush register-cache', 'set var $rax = 1']);
    expect(output).toContain('a recording cannot be changed');
  });
});

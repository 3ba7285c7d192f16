/** The gdb server under a client of our own: what gdb would not send, and what it would not show. */
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { R, VMCB } from '../../../src/machine/index.js';
import { featuresOf } from '../../../tools/gdb/registers.js';
import { recordGuest } from '../../support/sessions.js';
import { checksum, RemoteClient, type Served, serve } from './client.js';

/** The first instruction of the L2 of nested.elf that is intercepted, VMMCALL, and the one before. */
const L2_VMMCALL = 0x101d51n;
const L2_BEFORE = 0x101d4en;
/** L1's code right after its VMRUN. */
const AFTER_VMRUN = 0x102383n;
const LIMIT = 100_000;

let served: Served;
beforeAll(async () => {
  served = await serve(recordGuest('nested.elf', { limit: LIMIT, checkpointEvery: 20_000 }));
});
afterAll(() => served.close());

async function client(): Promise<RemoteClient> {
  const remote = await RemoteClient.attached(served.address);
  await remote.monitor('goto start');
  return remote;
}

/** Offset of a register among the bytes of `g`, and its length. */
function placeOf(name: string): { at: number; bytes: number; number: number } {
  const registers = featuresOf(served.debuggee.machine).flatMap((feature) => feature.registers);
  const number = registers.findIndex((each) => each.name === name);
  const at = registers.slice(0, number).reduce((sum, { bits }) => sum + bits / 8, 0);
  return { at, bytes: (registers[number]?.bits ?? 0) / 8, number };
}

async function register(remote: RemoteClient, name: string): Promise<bigint | undefined> {
  const { at, bytes, number } = placeOf(name);
  const all = await remote.ask('g');
  const alone = await remote.ask(`p${number.toString(16)}`);
  expect(all.slice(2 * at, 2 * (at + bytes)), name).toBe(alone);
  return alone.includes('x') ? undefined : BigInt(`0x${Buffer.from(alone, 'hex').reverse().toString('hex')}`);
}

describe('a session', () => {
  it('does not say again what it said before, to a client that grows impatient amid an answer', async () => {
    const remote = await client();
    const memory = await remote.ask('m100000,8');
    expect(memory).toMatch(/^[0-9a-f]{16}$/);
    const goto = Buffer.from('goto end').toString('hex');
    const packet = `qRcmd,${goto}`;
    remote.send(`$${packet}#${checksum(packet)}---`);
    expect(await remote.answer()).toBe('OK');
    expect(await remote.ask('qAttached')).toBe('1');
    remote.close();
  });

  it('describes its registers, and sends as many', async () => {
    const remote = await client();
    let xml = '';
    for (let more = 'm'; more === 'm'; ) {
      const piece = await remote.ask(`qXfer:features:read:target.xml:${xml.length.toString(16)},3fb`);
      more = piece[0] as string;
      xml += piece.slice(1);
    }
    const bits = [...xml.matchAll(/<reg [^>]*bitsize="(\d+)"/g)].reduce((sum, [, each]) => sum + Number(each), 0);
    expect((await remote.ask('g')).length).toBe(bits / 4);
    for (const name of [
      'rip',
      'ymm15h',
      'cr0',
      'cr8',
      'efer',
      'gif',
      'asid',
      'vmcb_exitCode',
      'vmcb_instructionBytes',
    ]) {
      if (name === 'ymm15h' && !served.debuggee.machine.profile.features.has('avx')) continue;
      expect(xml, name).toContain(`<reg name="${name}"`);
    }
    expect([...xml.matchAll(/<reg name="vmcb_/g)]).toHaveLength(Object.keys(VMCB.fields).length);
    remote.close();
  });

  it('stops in L2, and shows what L2 has', async () => {
    const remote = await client();
    expect(await remote.ask(`Z0,${L2_VMMCALL.toString(16)},1`)).toBe('OK');
    expect(await remote.ask('vCont;c:p1.-1')).toMatch(/^T05thread:p1\.1;swbreak:;/);
    expect(await register(remote, 'rip')).toBe(L2_VMMCALL);
    expect(await register(remote, 'guest_mode')).toBe(1n);
    expect(await register(remote, 'asid')).toBe(1n);
    expect(await register(remote, 'vmcb_guestASID')).toBe(1n);
    expect(await remote.ask(`m${L2_VMMCALL.toString(16)},3`)).toBe('0f01d9');
    // One step back and one forwards is the same place; two steps on, L1 has the #VMEXIT.
    expect(await remote.ask('bs')).toMatch(/^T05thread:p1\.1;/);
    expect(await register(remote, 'rip')).toBe(L2_BEFORE);
    await remote.ask('vCont;s:p1.1');
    expect(await register(remote, 'rip')).toBe(L2_VMMCALL);
    await remote.ask('vCont;s:p1.1');
    expect(await register(remote, 'rip')).toBe(AFTER_VMRUN);
    expect(await register(remote, 'guest_mode')).toBe(0n);
    remote.close();
  });

  it('makes a guest a process of its own: L1 waits behind it', async () => {
    const remote = await client();
    expect(await remote.ask('vAttach;2')).toMatch(/^T05thread:p2\.1;/);
    expect(await remote.ask('qfThreadInfo')).toBe('mp1.1,p2.1');
    expect(await remote.ask('Hgp2.1')).toBe('OK');
    await remote.ask(`Z0,${L2_VMMCALL.toString(16)},1`);
    // The same address at L1 is not this breakpoint's.
    expect(await remote.ask('vCont;c')).toMatch(/^T05thread:p2\.1;swbreak:;/);
    expect(await remote.ask('Hgp1.1')).toBe('OK');
    expect(await register(remote, 'rip')).toBe(AFTER_VMRUN);
    expect(await register(remote, 'rbx')).toBeUndefined();
    expect(await register(remote, 'cr3')).toBe(served.debuggee.machine.registers[R.hostCr3]);
    // Alone, an intercepted instruction is one step of its guest.
    expect(await remote.ask('vCont;s:p2.1')).toMatch(/^T05thread:p2\.1;/);
    expect(await register(remote, 'rip')).toBe(L2_VMMCALL + 3n);
    expect(await remote.ask('Hcp2.1')).toBe('OK');
    expect(await remote.ask('bs')).toMatch(/^T05thread:p2\.1;/);
    expect(await register(remote, 'rip')).toBe(L2_VMMCALL);
    remote.close();
  });

  it('has memory as far as it is mapped', async () => {
    const remote = await client();
    await remote.monitor(`goto 90000`);
    expect(await remote.ask('m100000,8')).toMatch(/^[0-9a-f]{16}$/);
    expect(await remote.ask('mffff800000000000,8')).toBe('E0e');
    expect(await remote.ask('m100000,ffffffff')).toMatch(/^[0-9a-f]+$/);
    expect(await remote.ask('m100000')).toMatch(/^E/);
    remote.close();
  });

  it('finds the last write to memory, forwards and backwards', async () => {
    const remote = await client();
    await remote.monitor('goto vmexit:vmmcall');
    const vmcb = await register(remote, 'vmcb');
    const at = ((vmcb as bigint) + 0x70n).toString(16);
    await remote.ask(`Z2,${at},8`);
    expect(await remote.ask('vCont;c')).toMatch(new RegExp(`^T05thread:p1\\.1;watch:${at};`));
    // The #VMEXIT has written EXITCODE.
    expect(await register(remote, 'vmcb_exitCode')).toBe(0x81n);
    expect(await register(remote, 'guest_mode')).toBe(0n);
    expect(await remote.ask('bc')).toMatch(/^T05thread:p1\.1;watch:/);
    expect(await register(remote, 'rip')).toBe(L2_VMMCALL);
    expect(await remote.ask(`Z2,ffff800000000000,8`)).toMatch(/^E/);
    remote.close();
  });

  it('stops before events that are caught, in both directions', async () => {
    const remote = await client();
    await remote.monitor('catch vmexit:cpuid');
    expect(await remote.ask('vCont;c')).toMatch(/^T05/);
    expect(remote.console).toContain('vmexit:cpuid is about to happen');
    const first = await remote.monitor('where');
    expect(await remote.ask('vCont;c')).not.toMatch(/replaylog/);
    await remote.ask('bc');
    expect(await remote.monitor('where')).toBe(first);
    expect(await remote.ask('bc')).toMatch(/replaylog:begin/);
    await remote.monitor('release');
    expect(await remote.ask('vCont;c')).toMatch(/replaylog:end/);
    remote.close();
  });

  it('refuses every write with a word, and nothing changes', async () => {
    const remote = await client();
    await remote.monitor('goto 50000');
    const digest = await remote.monitor('digest');
    const all = await remote.ask('g');
    for (const write of ['M100000,1:00', 'X100000,1:a', `G${all}`, 'P0=0000000000000000']) {
      expect(await remote.ask(write), write).toMatch(/^E\.a recording cannot be changed/);
    }
    expect(await remote.monitor('digest')).toBe(digest);
    expect(served.said.at(-1)).toContain('refused a write');
    remote.close();
  });

  it('answers what it does not know with nothing, and wrong packets with an error', async () => {
    const remote = await client();
    for (const unknown of ['vMustReplyEmpty', 'qTStatus', 'A', 'Z5,100000,8', 'bx', '']) {
      expect(await remote.ask(unknown), unknown).toBe('');
    }
    for (const wrong of [
      'pffff',
      'p',
      'm,',
      'Z0,',
      'Z2,100000,ffffffff',
      'Hgp7.7',
      'T99',
      'vCont;s:p9.9',
      'vAttach;9',
      'qRcmd,zz',
    ]) {
      expect(await remote.ask(wrong), wrong).toMatch(/^E/);
    }
    expect(await remote.monitor('nonsense')).toContain('there is no command');
    expect(await remote.monitor('goto nowhere')).toContain('there are no events of kind nowhere');
    remote.close();
  });
});

describe('a server', () => {
  it('acknowledges until it is told not to, and repeats what was not understood', async () => {
    const remote = await RemoteClient.to(served.address);
    remote.send('$qAttached#00');
    expect(await remote.raw(1)).toBe('-');
    remote.send('$qAttached#8f');
    expect(await remote.raw(6)).toBe('+$1#31');
    remote.send('-');
    expect(await remote.raw(5)).toBe('$1#31');
    remote.close();
  });

  it('answers the next client after one that vanished amid a packet, or amid work', async () => {
    for (const last of ['$m1000', '$', '$vCont;c#a8', '$g#67$g#67$g#67', '']) {
      const remote = await RemoteClient.to(served.address);
      remote.send(last);
      remote.close();
      const next = await client();
      expect(await next.ask('qC'), last).toBe('QCp1.1');
      next.close();
    }
  });

  it('answers the next client after one that sent garbage', async () => {
    const garbage = Uint8Array.from({ length: 200_000 }, (_, at) => (at * 7919) % 251);
    for (const sent of [
      garbage,
      `$${'#'.repeat(1000)}`,
      'x'.repeat(100_000),
      `$${'9'.repeat(1 << 20)}`,
      '$g#67'.repeat(5000),
    ]) {
      const remote = await RemoteClient.to(served.address);
      remote.send(sent);
      remote.send('$k#6b');
      remote.socket.end();
      await remote.untilClosed();
      const next = await client();
      expect(await next.ask('?')).toMatch(/^T05/);
      next.close();
    }
  });

  it('has one client at a time', async () => {
    const remote = await client();
    const second = await RemoteClient.to(served.address);
    expect(await second.answer()).toBe('E.another debugger is connected');
    await second.untilClosed();
    expect(await remote.ask('qC')).toBe('QCp1.1');
    remote.close();
  });
});

describe('an interrupt', () => {
  let long: Served;
  beforeAll(async () => {
    long = await serve(recordGuest('compute.elf', { limit: 40_000_000, checkpointEvery: 10_000_000 }));
  });
  afterAll(() => long.close());

  it('stops a long run where it is, and a long search back where it began', async () => {
    const remote = await RemoteClient.attached(long.address);
    await remote.ask('Z1,dead0000,1');
    remote.sendPacket('vCont;c');
    remote.send('\u0003');
    expect(await remote.answer()).toMatch(/^T02/);
    expect(Number(long.debuggee.position.icount)).toBeLessThan(40_000_000);
    await remote.monitor('goto end');
    const end = long.debuggee.position;
    remote.sendPacket('bc');
    remote.send('\u0003');
    expect(await remote.answer()).toMatch(/^T02/);
    expect(long.debuggee.position).toEqual(end);
    remote.close();
  });
});

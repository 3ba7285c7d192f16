/** `vmtape migrate` and `receive` in processes of their own, over loopback, plain and secured. */
import { spawnSync } from 'node:child_process';
import { existsSync, writeFileSync } from 'node:fs';
import { type AddressInfo, connect, createServer, type Socket } from 'node:net';
import { join } from 'node:path';
import { describe, expect, it } from 'vitest';
import { FRAME_HEAD_BYTES, KINDS, type Kind } from '../../src/replay/migration/messages.js';
import { type Ended, image, type Running, startVmtape, temporaryFolder, until, vmtape } from './vmtape.js';

const folder = temporaryFolder();
const at = (name: string): string => join(folder, name);

interface Receiver extends Running {
  readonly port: number;
  readonly said: () => string;
}

/** Starts a receiver, and waits until it listens. */
async function receiver(tape: string, ...flags: readonly string[]): Promise<Receiver> {
  const running = startVmtape([
    ...['receive', '--listen', '127.0.0.1:0', '-o', at(tape), '--serial', `file:${at(`${tape}.serial`)}`],
    ...['--input', '/dev/null', '--json', ...flags],
  ]);
  let said = '';
  let told = '';
  running.child.stdout?.on('data', (data) => {
    said += data;
  });
  running.child.stderr?.on('data', (data) => {
    told += data;
  });
  await until(() => said.includes('listening') || running.child.exitCode !== null);
  const [first = ''] = said.split('\n');
  return { ...running, port: (JSON.parse(first) as { listening: { port: number } }).listening.port, said: () => told };
}

/** A nested session of so many rounds, with everything fixed. */
const guest = (rounds: number): readonly string[] => [
  ...[image('nested.elf'), '--append', `rounds=${rounds}`, '--memory', '32M'],
  ...['--seed', '1', '--clock', '2024-01-01T00:00:00Z'],
];

function migrate(tape: string, port: number, ...flags: readonly string[]): Ended {
  return migrateLong(20, tape, port, ...flags);
}

function migrateLong(rounds: number, tape: string, port: number, ...flags: readonly string[]): Ended {
  return vmtape([
    ...['migrate', ...guest(rounds), '-o', at(tape), '--to', `127.0.0.1:${port}`],
    ...['--serial', `file:${at(`${tape}.serial`)}`, '--input', '/dev/null', ...flags],
  ]);
}

/** The message from which on nothing gets through to a side: the first of a kind behind one of another kind. */
interface Stall {
  readonly to: 'source' | 'destination';
  readonly kind: Kind;
  readonly after: Kind;
}

/** Stands between the two sides. `stalled` resolves when the message has come. */
async function stallingProxy(
  target: number,
  { to, kind, after }: Stall,
): Promise<{ readonly port: number; readonly stalled: Promise<void> }> {
  let tellStalled = (): void => {};
  const stalled = new Promise<void>((resolve) => {
    tellStalled = resolve;
  });
  const forward = (from: Socket, onward: Socket, stalls: boolean): void => {
    let bytes: Buffer = Buffer.alloc(0);
    let isAfter = false;
    let isStalled = false;
    from.on('data', (data) => {
      bytes = Buffer.concat([bytes, data]);
      while (bytes.length >= FRAME_HEAD_BYTES && bytes.length >= FRAME_HEAD_BYTES + bytes.readUInt32LE(0)) {
        const frame = bytes.subarray(0, FRAME_HEAD_BYTES + bytes.readUInt32LE(0));
        bytes = bytes.subarray(frame.length);
        if (stalls && isAfter && frame[4] === KINDS[kind].code) isStalled = true;
        if (frame[4] === KINDS[after].code) isAfter = true;
        if (isStalled) tellStalled();
        else onward.write(frame);
      }
    });
    from.on('error', () => {});
    from.on('close', () => onward.destroy());
  };
  const server = createServer((source) => {
    const destination = connect(target, '127.0.0.1');
    forward(source, destination, to === 'destination');
    forward(destination, source, to === 'source');
    server.close();
  });
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));
  return { port: (server.address() as AddressInfo).port, stalled };
}

describe('a session', () => {
  it('moves between two processes, and back, and once more: one session, on as many tapes', async () => {
    const b = await receiver('b.vmtape', '--max-instructions', '450000');
    expect(migrateLong(100, 'a.vmtape', b.port)).toMatchObject({
      status: 0,
      stderr: expect.stringMatching(/has moved to/),
    });
    expect((await b.ended).status).toBe(0);
    // Where it was stopped it is taken up again.
    const c = await receiver('c.vmtape');
    const moved = vmtape(['migrate', at('b.vmtape'), '--to', `127.0.0.1:${c.port}`]);
    expect(moved).toMatchObject({ status: 0, stderr: expect.stringMatching(/stood still for/) });
    expect((await c.ended).status).toBe(0);
    const replayed = vmtape(['replay', at('a.vmtape'), at('b.vmtape'), at('c.vmtape')]);
    expect(replayed).toMatchObject({ status: 0, stderr: '' });
    expect(vmtape(['record', ...guest(100), '-o', at('whole.vmtape'), '--serial', 'null']).status).toBe(0);
    expect(vmtape(['diff', at('whole.vmtape'), 'end', at('c.vmtape'), 'end'])).toMatchObject({ status: 0 });
  });

  it('stays where it is when nobody takes it, and comes to its end there', () => {
    const { status, stderr } = migrate('alone.vmtape', 1);
    expect(status).toBe(4);
    expect(stderr).toMatch(/the session stays here: 127\.0\.0\.1:1: .*Is vmtape receive running there/);
    expect(stderr).toMatch(/the guest ended with status 1/);
    expect(vmtape(['replay', at('alone.vmtape')]).status).toBe(0);
  });

  it('stays where it is when the other side is killed, and comes to its end there', async () => {
    const first = await receiver('killed.vmtape');
    const source = startVmtape([
      ...['migrate', image('compute.elf'), '--append', 'scale=30', '--memory', '32M', '-o', at('survivor.vmtape')],
      // It fills a mebibyte with numbers, which take minutes.
      ...['--to', `127.0.0.1:${first.port}`, '--bandwidth', '2K', '--at', '40000000'],
      ...['--serial', 'null', '--input', '/dev/null', '--rounds', '1000'],
    ]);
    await new Promise((resolve) => setTimeout(resolve, 1500));
    first.child.kill('SIGKILL');
    const { status, stderr } = await source.ended;
    expect({ status, stderr }).toEqual({ status: 4, stderr: expect.stringMatching(/the session stays here: /) });
    expect(stderr).toMatch(/the guest ended with status 1/);
    expect(existsSync(at('killed.vmtape'))).toBe(false);
  });

  it('is refused by name when the other side has less room, and does not stop for it', async () => {
    const small = await receiver('small.vmtape', '--memory', '16M');
    const { status, stderr } = migrate('large.vmtape', small.port);
    expect({ status, stderr }).toEqual({
      status: 4,
      stderr: expect.stringMatching(/33554432 bytes of RAM, and there is room for 16777216/),
    });
    small.child.kill('SIGINT');
    expect((await small.ended).status).toBe(0);
    expect(existsSync(at('small.vmtape'))).toBe(false);
  });

  it('stays when the disk of the other side is full', async () => {
    const full = await receiver('/proc/full.vmtape');
    const { status, stderr } = migrate('kept.vmtape', full.port);
    expect({ status, stderr }).toEqual({ status: 4, stderr: expect.stringMatching(/the session stays here/) });
    full.child.kill('SIGINT');
    await full.ended;
  });
});

describe('a session that runs ahead of its RAM', () => {
  const postCopy: readonly string[] = ['--post-copy', '--rounds', '0'];

  /** Moves a session, but nothing gets through from a message on; waits until that one is on its way. */
  async function stalledMove(
    name: string,
    stall: Stall,
  ): Promise<{ readonly there: Receiver; readonly here: Running }> {
    const there = await receiver(`${name}-there.vmtape`);
    const { port, stalled } = await stallingProxy(there.port, stall);
    const here = startVmtape([
      ...['migrate', ...guest(100_000), '--at', '300000', '-o', at(`${name}-here.vmtape`)],
      ...['--to', `127.0.0.1:${port}`, ...postCopy],
      ...['--max-instructions', '1000000', '--serial', 'null', '--input', '/dev/null'],
    ]);
    await stalled;
    return { there, here };
  }

  it('is the session that never moved, with a key and without a round before', async () => {
    writeFileSync(at('later-key'), `${'ef'.repeat(32)}\n`);
    const key = ['--psk-file', at('later-key')];
    const b = await receiver('later.vmtape', ...key);
    const moved = migrateLong(100, 'sooner.vmtape', b.port, ...postCopy, ...key, '--at', '300000');
    expect(moved).toMatchObject({ status: 0, stderr: expect.stringMatching(/, \d+ pages followed\n/) });
    expect((await b.ended).status).toBe(0);
    expect(vmtape(['replay', at('sooner.vmtape'), at('later.vmtape')])).toMatchObject({ status: 0, stderr: '' });
    expect(vmtape(['record', ...guest(100), '-o', at('at-once.vmtape'), '--serial', 'null']).status).toBe(0);
    expect(vmtape(['diff', at('at-once.vmtape'), 'end', at('later.vmtape'), 'end'])).toMatchObject({ status: 0 });
  });

  it('stays when the other side is killed while it waits for pages', async () => {
    const { there, here } = await stalledMove('killed-later', { to: 'destination', kind: 'pages', after: 'state' });
    there.child.kill('SIGKILL');
    const { status, stderr } = await here.ended;
    expect({ status, stderr }).toEqual({ status: 4, stderr: expect.stringMatching(/the session stays here: /) });
    expect(vmtape(['replay', at('killed-later-here.vmtape')]).status).toBe(0);
  });

  it('stays when somebody stops the other side, which keeps nothing', async () => {
    const { there, here } = await stalledMove('stopped-later', { to: 'source', kind: 'safe', after: 'running' });
    there.child.kill('SIGINT');
    expect((await there.ended).status).toBe(0);
    expect(there.said()).toMatch(/stays where it was: stopped by SIGINT before it was handed over/);
    expect(existsSync(at('stopped-later-there.vmtape'))).toBe(false);
    const { status, stderr } = await here.ended;
    expect({ status, stderr }).toEqual({ status: 4, stderr: expect.stringMatching(/the session stays here: /) });
  });

  it('is on the tape of the source when that one is killed, and moves from there', async () => {
    const { there, here } = await stalledMove('orphan', { to: 'destination', kind: 'pages', after: 'state' });
    here.child.kill('SIGKILL');
    await here.ended;
    await until(() => /the session stays where it was/.test(there.said()));
    expect(existsSync(at('orphan-there.vmtape'))).toBe(false);
    const again = startVmtape(['migrate', at('orphan-here.vmtape'), '--to', `127.0.0.1:${there.port}`, '--post-copy']);
    expect(await again.ended).toMatchObject({ status: 0, stderr: expect.stringMatching(/moved at/) });
    there.child.kill('SIGINT');
    expect((await there.ended).status).toBe(0);
    expect(vmtape(['replay', at('orphan-here.vmtape'), at('orphan-there.vmtape')]).status).toBe(0);
  });

  it('stays when the disk of the other side is full', async () => {
    const full = await receiver('/proc/later.vmtape');
    const { status, stderr } = migrate('kept-again.vmtape', full.port, ...postCopy);
    expect({ status, stderr }).toEqual({ status: 4, stderr: expect.stringMatching(/the session stays here/) });
    full.child.kill('SIGINT');
    await full.ended;
  });

  it('needs a round, or to be told so', () => {
    const { status, stderr } = migrate('none.vmtape', 1, '--rounds', '0');
    expect({ status, stderr }).toEqual({ status: 2, stderr: expect.stringMatching(/--rounds 0 leaves all of RAM/) });
  });
});

describe('a receiver', () => {
  it('lets garbage go, and takes the next one', async () => {
    const b = await receiver('clean.vmtape');
    await new Promise<void>((resolve) => {
      const socket = connect(b.port, '127.0.0.1', () => socket.end('GET / HTTP/1.1\r\n\r\n'));
      socket.on('close', () => resolve());
      socket.on('error', () => {});
      socket.resume();
    });
    expect(migrate('after.vmtape', b.port)).toMatchObject({ status: 0 });
    expect((await b.ended).status).toBe(0);
    expect(vmtape(['replay', at('after.vmtape'), at('clean.vmtape')]).status).toBe(0);
  });

  it('does not write over a tape', () => {
    writeFileSync(at('mine.vmtape'), 'precious');
    const { status, stderr } = vmtape(['receive', '--listen', '127.0.0.1:0', '-o', at('mine.vmtape')]);
    expect({ status, stderr }).toEqual({ status: 2, stderr: expect.stringMatching(/there is such a file already/) });
  });

  it('does not listen to other hosts without a key, unless somebody insists', () => {
    const { status, stderr } = vmtape(['receive', '--listen', '0.0.0.0:0', '-o', at('open.vmtape')]);
    expect({ status, stderr }).toEqual({
      status: 2,
      stderr: expect.stringMatching(/0\.0\.0\.0 is not this host.*--psk/),
    });
    expect(vmtape(['receive', '--listen', 'nowhere', '-o', at('open.vmtape')]).status).toBe(2);
  });
});

describe('a shared key', () => {
  const key = at('key');
  const other = at('other');
  writeFileSync(key, `${'ab'.repeat(32)}\n`);
  writeFileSync(other, `${'cd'.repeat(32)}\n`);

  it('lets a session through, and another key does not', async () => {
    const b = await receiver('psk.vmtape', '--psk-file', key);
    expect(migrate('wrong-key.vmtape', b.port, '--psk-file', other)).toMatchObject({ status: 4 });
    expect(migrate('no-key.vmtape', b.port, '--silence', '2s')).toMatchObject({ status: 4 });
    expect(migrate('right-key.vmtape', b.port, '--psk-file', key)).toMatchObject({ status: 0 });
    expect((await b.ended).status).toBe(0);
    expect(vmtape(['replay', at('right-key.vmtape'), at('psk.vmtape')]).status).toBe(0);
  });

  it('that is too short is none', () => {
    writeFileSync(at('short'), 'abcd');
    const { status, stderr } = migrate('short.vmtape', 1, '--psk-file', at('short'));
    expect({ status, stderr }).toEqual({ status: 4, stderr: expect.stringMatching(/at least 16 bytes in hex/) });
  });
});

const OPENSSL = spawnSync('openssl', ['version'], { encoding: 'utf8' }).stdout?.trim();
if (!OPENSSL) console.warn('there is no openssl here: the test with certificates is skipped. apt-get install openssl');

describe.skipIf(!OPENSSL)('certificates', () => {
  const openssl = (...args: readonly string[]): void => {
    const { status, stderr } = spawnSync('openssl', args, { cwd: folder, encoding: 'utf8' });
    if (status !== 0) throw new Error(stderr);
  };
  const flags = (name: string, ca = 'ca'): readonly string[] => [
    ...['--tls-cert', at(`${name}.crt`), '--tls-key', at(`${name}.key`), '--tls-ca', at(`${ca}.crt`)],
  ];
  const authority = (name: string): void =>
    openssl(
      'req',
      '-x509',
      '-newkey',
      'ec',
      '-pkeyopt',
      'ec_paramgen_curve:P-256',
      '-nodes',
      '-days',
      '2',
      '-subj',
      `/CN=${name}`,
      '-keyout',
      `${name}.key`,
      '-out',
      `${name}.crt`,
    );
  const signed = (name: string, ca: string): void => {
    openssl(
      'req',
      '-newkey',
      'ec',
      '-pkeyopt',
      'ec_paramgen_curve:P-256',
      '-nodes',
      '-subj',
      `/CN=${name}`,
      '-addext',
      'subjectAltName=IP:127.0.0.1',
      '-keyout',
      `${name}.key`,
      '-out',
      `${name}.csr`,
    );
    openssl(
      'x509',
      '-req',
      '-days',
      '2',
      '-in',
      `${name}.csr`,
      '-CA',
      `${ca}.crt`,
      '-CAkey',
      `${ca}.key`,
      '-CAcreateserial',
      '-copy_extensions',
      'copy',
      '-out',
      `${name}.crt`,
    );
  };

  it('on both sides let a session through, and a stranger is kept out', async () => {
    for (const ca of ['ca', 'stranger-ca']) authority(ca);
    signed('here', 'ca');
    signed('there', 'ca');
    signed('stranger', 'stranger-ca');
    const b = await receiver('tls.vmtape', ...flags('there'));
    expect(migrate('stranger.vmtape', b.port, ...flags('stranger'))).toMatchObject({ status: 4 });
    expect(migrate('doubter.vmtape', b.port, ...flags('here', 'stranger-ca'))).toMatchObject({ status: 4 });
    expect(migrate('friend.vmtape', b.port, ...flags('here'))).toMatchObject({ status: 0 });
    expect((await b.ended).status).toBe(0);
    expect(vmtape(['replay', at('friend.vmtape'), at('tls.vmtape')]).status).toBe(0);
  });
});

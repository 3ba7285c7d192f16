/** `vmtape debug` as a process: its address, its client, its end. */
import { join } from 'node:path';
import { beforeAll, describe, expect, it } from 'vitest';
import { FIXED, image, startVmtape, temporaryFolder, until, vmtape } from '../vmtape.js';
import { RemoteClient } from './client.js';

const tape = join(temporaryFolder(), 'hello.vmtape');
beforeAll(() => {
  expect(vmtape(['record', image('hello64.elf'), '-o', tape, ...FIXED]).stderr).toContain('ended');
});

describe('vmtape debug', () => {
  it('says where it listens, serves, and ends with a signal', async () => {
    const { child, ended } = startVmtape(['debug', tape, '--listen', '127.0.0.1:0', '--at', 'end', '--json', '-q']);
    let stdout = '';
    child.stdout?.on('data', (data) => {
      stdout += data;
    });
    await until(() => stdout.includes('\n'));
    const { listening, position } = JSON.parse(stdout) as { listening: string; position: string };
    const client = await RemoteClient.attached({ host: '127.0.0.1', port: Number(listening.split(':')[1]) });
    expect(await client.monitor('where')).toContain(position);
    child.kill('SIGINT');
    await client.untilClosed();
    expect(await ended).toMatchObject({ status: 0, stderr: '' });
  });

  it('refuses what is no address, and a place that the tape has not', () => {
    for (const listen of ['nowhere', '127.0.0.1:70000', 'a b:1', '1:2:3']) {
      const { status, stderr } = vmtape(['debug', tape, '--listen', listen]);
      expect([listen, status]).toEqual([listen, 2]);
      expect(stderr).toContain('is no address');
    }
    expect(vmtape(['debug', tape, '--listen', '127.0.0.1:0', '--at', '99999999999'])).toMatchObject({ status: 2 });
    expect(vmtape(['debug', `${tape}.gone`])).toMatchObject({ status: 2 });
  });
});

describe('vmtape dap', () => {
  it('answers on stdout, and ends with its stdin', async () => {
    const { child, ended } = startVmtape(['dap'], { stdio: ['pipe', 'pipe', 'pipe'] });
    const request = JSON.stringify({
      seq: 1,
      type: 'request',
      command: 'initialize',
      arguments: { adapterID: 'vmtape' },
    });
    child.stdin?.end(`Content-Length: ${request.length}\r\n\r\n${request}`);
    const { status, stdout } = await ended;
    expect(status).toBe(0);
    expect(stdout).toContain('"supportsStepBack":true');
  });
});

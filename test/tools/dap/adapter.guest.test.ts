/** The debug adapter under a small client, as an editor drives it. */

import { join } from 'node:path';
import { PassThrough } from 'node:stream';
import { beforeAll, describe, expect, it } from 'vitest';
import { sqliteStore } from '../../../src/journal/index.js';
import { VmtapeDebugSession } from '../../../tools/dap/adapter.js';
import { recordGuest } from '../../support/sessions.js';
import { temporaryFolder } from '../vmtape.js';

const tape = join(temporaryFolder(), 'nested.vmtape');
beforeAll(() => {
  recordGuest('nested.elf', { store: sqliteStore(tape), limit: 100_000, checkpointEvery: 20_000 });
});

const L2_VMMCALL = '0x101d51';

interface Message {
  readonly type: string;
  readonly command?: string;
  readonly event?: string;
  readonly success?: boolean;
  readonly message?: string;
  // biome-ignore lint/suspicious/noExplicitAny: bodies differ by message, and a wrong one fails the test
  readonly body?: any;
  readonly request_seq?: number;
}

class Editor {
  private readonly input = new PassThrough();
  private readonly output = new PassThrough();
  private buffer = Buffer.alloc(0);
  private readonly messages: Message[] = [];
  private wake: (() => void) | undefined;
  private seq = 0;

  constructor() {
    const session = new VmtapeDebugSession();
    session.setRunAsServer(true);
    session.start(this.input, this.output);
    this.output.on('data', (data: Buffer) => this.take(data));
  }

  async ask(command: string, args: object = {}): Promise<Message['body']> {
    const answer = await this.request(command, args);
    if (answer.success !== true) throw new Error(answer.message);
    return answer.body;
  }

  async request(command: string, args: object): Promise<Message> {
    const seq = ++this.seq;
    const text = JSON.stringify({ seq, type: 'request', command, arguments: args });
    this.input.write(`Content-Length: ${Buffer.byteLength(text)}\r\n\r\n${text}`);
    return await this.first(({ type, request_seq }) => type === 'response' && request_seq === seq);
  }

  async event(name: string): Promise<Message['body']> {
    return (await this.first(({ type, event }) => type === 'event' && event === name)).body;
  }

  /** Asks to go, and waits until it has stopped. */
  async go(command: string): Promise<Message['body']> {
    await this.ask(command, { threadId: 1 });
    return await this.event('stopped');
  }

  private async first(fits: (message: Message) => boolean): Promise<Message> {
    for (;;) {
      const at = this.messages.findIndex(fits);
      if (at >= 0) return this.messages.splice(at, 1)[0] as Message;
      await new Promise<void>((resolve) => {
        this.wake = resolve;
      });
    }
  }

  private take(data: Buffer): void {
    this.buffer = Buffer.concat([this.buffer, data]);
    for (;;) {
      const head = /^Content-Length: (\d+)\r\n\r\n/.exec(this.buffer.toString('latin1'));
      if (head === null) return;
      const end = head[0].length + Number(head[1]);
      if (this.buffer.length < end) return;
      this.messages.push(JSON.parse(this.buffer.subarray(head[0].length, end).toString('utf8')) as Message);
      this.buffer = this.buffer.subarray(end);
      this.wake?.();
    }
  }
}

async function launched(at = 'start'): Promise<Editor> {
  const editor = new Editor();
  expect(await editor.ask('initialize', { adapterID: 'vmtape' })).toMatchObject({ supportsStepBack: true });
  await editor.ask('launch', { tape, at });
  await editor.event('initialized');
  await editor.ask('configurationDone');
  expect(await editor.event('stopped')).toMatchObject({ reason: 'entry' });
  return editor;
}

async function shown(editor: Editor, expression: string): Promise<string> {
  return (await editor.ask('evaluate', { expression, context: 'watch' })).result;
}

describe('an editor', () => {
  it('breaks at an instruction of L2, sees both levels, and steps both ways', async () => {
    const editor = await launched();
    const { breakpoints } = await editor.ask('setInstructionBreakpoints', {
      breakpoints: [{ instructionReference: L2_VMMCALL }],
    });
    expect(breakpoints).toEqual([{ verified: true, instructionReference: L2_VMMCALL }]);
    expect(await editor.go('continue')).toMatchObject({ reason: 'instruction breakpoint', threadId: 2 });
    const { threads } = await editor.ask('threads');
    expect(threads).toEqual([
      { id: 1, name: 'vCPU 0: L1, waits' },
      { id: 2, name: 'vCPU 0: L2, VMCB 0x126000' },
    ]);
    const [frame] = (await editor.ask('stackTrace', { threadId: 2 })).stackFrames;
    expect(frame).toMatchObject({ instructionPointerReference: L2_VMMCALL, name: expect.stringContaining('vmmcall') });
    const [host] = (await editor.ask('stackTrace', { threadId: 1 })).stackFrames;
    expect(host.instructionPointerReference).toBe('0x102383');
    const { scopes } = await editor.ask('scopes', { frameId: 2 });
    const vmcb = scopes.find(({ name }: { name: string }) => name === 'VMCB');
    const { variables } = await editor.ask('variables', { variablesReference: vmcb.variablesReference });
    expect(variables).toContainEqual(expect.objectContaining({ name: 'guestASID', value: '0x1' }));
    await editor.go('stepBack');
    expect(await shown(editor, '$rip')).toBe('0x101d4e');
    await editor.ask('next', { threadId: 2 });
    await editor.event('stopped');
    expect(await shown(editor, 'rip')).toBe(L2_VMMCALL);
    // The guest comes there in each of its rounds.
    let rounds = 1;
    while ((await editor.go('continue')).reason === 'instruction breakpoint') rounds++;
    expect(await editor.go('continue')).toMatchObject({ reason: 'end of the recording' });
    for (let round = 0; round < rounds; round++) {
      expect(await editor.go('reverseContinue')).toMatchObject({ reason: 'instruction breakpoint' });
    }
    expect(await editor.go('reverseContinue')).toMatchObject({ reason: 'start of the recording' });
    await editor.ask('disconnect');
  });

  it('stops before exits by their code, and writes to fields of the VMCB', async () => {
    const editor = await launched();
    await editor.ask('setExceptionBreakpoints', {
      filters: [],
      filterOptions: [{ filterId: 'vmexit', condition: 'npf, hlt' }],
    });
    expect(await editor.go('continue')).toMatchObject({
      reason: 'exception',
      description: 'vmexit:hlt is about to happen',
    });
    expect(await editor.go('continue')).toMatchObject({ description: 'vmexit:npf is about to happen' });
    expect(await editor.ask('setExceptionBreakpoints', { filters: ['nonsense'] })).toMatchObject({
      breakpoints: [{ verified: false }],
    });
    const { scopes } = await editor.ask('scopes', { frameId: 2 });
    const { variablesReference } = scopes.find(({ name }: { name: string }) => name === 'VMCB');
    const info = await editor.ask('dataBreakpointInfo', { variablesReference, name: 'exitCode' });
    expect(info).toMatchObject({ accessTypes: ['write', 'read', 'readWrite'] });
    await editor.ask('setDataBreakpoints', { breakpoints: [{ dataId: info.dataId, accessType: 'write' }] });
    const before = await shown(editor, 'vmcb_exitCode');
    expect(await editor.go('continue')).toMatchObject({ reason: 'data breakpoint' });
    expect(await shown(editor, 'vmcb.exitCode')).toBe('0x400');
    await editor.go('reverseContinue');
    expect(await shown(editor, 'vmcb.exitCode')).toBe(before);
    await editor.ask('disconnect');
  });

  it('stops at reads, and at changes of registers and devices', async () => {
    const editor = await launched('vmexit:npf');
    const { scopes } = await editor.ask('scopes', { frameId: 2 });
    const referenceOf = (scope: string): number =>
      scopes.find(({ name }: { name: string }) => name === scope).variablesReference;
    const infoOf = async (scope: string, name: string): Promise<Message['body']> =>
      await editor.ask('dataBreakpointInfo', { variablesReference: referenceOf(scope), name });
    // L1 reads the exit code that the #VMEXIT wrote.
    const exitCode = await infoOf('VMCB', 'exitCode');
    await editor.ask('setDataBreakpoints', { breakpoints: [{ dataId: exitCode.dataId, accessType: 'read' }] });
    expect(await editor.go('continue')).toMatchObject({ description: expect.stringContaining('read of') });
    expect(await shown(editor, 'rip')).toBe('0x10129b');
    await editor.go('reverseContinue');
    expect(await shown(editor, 'rip')).toBe('0x101294');
    // GIF, which events alone change; the general registers change too often.
    expect(await infoOf('General registers', 'rax')).toMatchObject({ dataId: null });
    expect(await infoOf('System registers', 'cr8')).toMatchObject({ dataId: null });
    const gif = await infoOf('SVM', 'gif');
    const efer = await infoOf('System registers', 'efer');
    expect([gif, efer].map(({ accessTypes }) => accessTypes)).toEqual([['write'], ['write']]);
    const { breakpoints } = await editor.ask('setDataBreakpoints', {
      breakpoints: [{ dataId: gif.dataId }, { dataId: efer.dataId }, { dataId: 'nonsense' }],
    });
    expect(breakpoints.map(({ verified }: { verified: boolean }) => verified)).toEqual([true, true, false]);
    const before = await shown(editor, 'gif');
    expect(await editor.go('continue')).toMatchObject({
      reason: 'data breakpoint',
      description: expect.stringMatching(/^gif of vCPU 0: 0x[01] → 0x[01]/),
    });
    expect(await shown(editor, 'gif')).not.toBe(before);
    await editor.go('reverseContinue');
    expect(await shown(editor, 'gif')).toBe(before);
    // As an expression.
    const uart = await editor.ask('dataBreakpointInfo', { name: 'device.uart.ier' });
    expect(uart).toMatchObject({ description: 'device.uart.ier', accessTypes: ['write'] });
    expect(await editor.ask('dataBreakpointInfo', { name: 'device.urt' })).toMatchObject({
      ...{ dataId: null, description: expect.stringContaining('Is it uart') },
    });
    await editor.ask('disconnect');
  });

  it('reads memory and code, and types commands', async () => {
    const editor = await launched('vmexit:vmmcall');
    const { data, unreadableBytes } = await editor.ask('readMemory', { memoryReference: L2_VMMCALL, count: 3 });
    expect([Buffer.from(data, 'base64').toString('hex'), unreadableBytes]).toEqual(['0f01d9', 0]);
    const { instructions } = await editor.ask('disassemble', {
      ...{ memoryReference: L2_VMMCALL, instructionOffset: -3, instructionCount: 6 },
    });
    expect(instructions).toHaveLength(6);
    expect(instructions[3]).toMatchObject({ address: L2_VMMCALL, instruction: expect.stringContaining('vmmcall') });
    expect(instructions[2]).toMatchObject({ address: '0x101d4e' });
    const answer = await editor.ask('evaluate', { expression: 'goto vmexit:cpuid', context: 'repl' });
    expect(answer.result).toContain('runs L2');
    expect(await editor.event('stopped')).toMatchObject({ reason: 'goto' });
    expect(await editor.request('setExpression', {})).toMatchObject({
      success: false,
      message: 'a recording cannot do setExpression',
    });
    expect(await editor.request('evaluate', { expression: 'nonsense', context: 'watch' })).toMatchObject({
      success: false,
    });
    await editor.ask('disconnect');
  });

  it('hears what is wrong with a launch', async () => {
    const editor = new Editor();
    expect(await editor.request('launch', {})).toMatchObject({
      success: false,
      message: expect.stringContaining('"tape"'),
    });
    expect(await editor.request('launch', { tape: '/nowhere.vmtape' })).toMatchObject({ success: false });
    expect(await editor.request('threads', {})).toMatchObject({
      success: false,
      message: expect.stringContaining('launch'),
    });
  });
});

describe('a diversion', () => {
  const variable = async (editor: Editor, reference: number, name: string): Promise<string> =>
    (await editor.ask('variables', { variablesReference: reference })).variables.find(
      (each: { readonly name: string }) => each.name === name,
    ).value;

  const scopesOf = async (editor: Editor): Promise<readonly number[]> => {
    const { stackFrames } = await editor.ask('stackTrace', { threadId: 1 });
    const { scopes } = await editor.ask('scopes', { frameId: stackFrames[0].id });
    return scopes.map((each: { readonly variablesReference: number }) => each.variablesReference);
  };

  it('takes registers, fields of the VMCB and memory, and leaves the tape as it was', async () => {
    const editor = new Editor();
    const capabilities = await editor.ask('initialize', { adapterID: 'vmtape', supportsInvalidatedEvent: true });
    expect(capabilities).toMatchObject({ supportsSetVariable: true, supportsWriteMemoryRequest: true });
    await editor.ask('launch', { tape, at: 'vmrun[3]' });
    await editor.ask('configurationDone');
    await editor.event('stopped');
    const [general = 0, , , vmcb = 0] = await scopesOf(editor);
    const r15 = await variable(editor, general, 'r15');
    const write = { variablesReference: general, name: 'r15', value: '0x1234' };
    const refused = await editor.request('setVariable', write);
    expect([refused.success, refused.message]).toEqual([false, expect.stringContaining('monitor fork')]);

    expect((await editor.ask('fork')).result).toContain('in a diversion of the recording');
    await editor.event('stopped');
    expect((await editor.ask('setVariable', write)).value).toBe('0x1234');
    await editor.event('invalidated');
    expect(await variable(editor, general, 'r15')).toBe('0x1234');
    await editor.ask('setVariable', { variablesReference: vmcb, name: 'guestASID', value: '3' });
    expect(await variable(editor, vmcb, 'guestASID')).toBe('0x3');
    const data = Buffer.from([1, 2, 3]).toString('base64');
    const place = { memoryReference: '0x200000', offset: 1 };
    expect(await editor.ask('writeMemory', { ...place, data })).toEqual({ bytesWritten: 3 });
    expect((await editor.ask('readMemory', { ...place, count: 3 })).data).toBe(data);
    for (const [name, value, word] of [
      ['rip', '0x800000000000', 'canonical'],
      ['eflags', '-1', 'no number of 32 bits'],
    ]) {
      const answer = await editor.request('setVariable', { variablesReference: general, name, value });
      expect([answer.success, answer.message]).toEqual([false, expect.stringContaining(word as string)]);
    }
    const nowhere = await editor.request('writeMemory', { memoryReference: '0xfee00000', data });
    expect(nowhere.message).toContain('no RAM');

    await editor.go('next');
    await editor.go('stepBack');
    const typed = await editor.ask('evaluate', { expression: 'unfork', context: 'repl' });
    expect(typed.result).not.toContain('in a diversion');
    await editor.event('stopped');
    expect(await variable(editor, general, 'r15')).toBe(r15);
    await editor.ask('disconnect');
  });

  it('is kept where the request says', async () => {
    const kept = join(temporaryFolder(), 'kept.vmtape');
    const editor = new Editor();
    await editor.ask('initialize', { adapterID: 'vmtape' });
    await editor.ask('launch', { tape, at: '50000' });
    await editor.ask('configurationDone');
    await editor.event('stopped');
    expect((await editor.ask('fork', { tape: kept })).result).toContain(kept);
    await editor.event('stopped');
    await editor.go('next');
    // What is open is finished with the session.
    await editor.ask('disconnect');
    const reader = sqliteStore(kept).read();
    expect([reader.state, reader.start.icount]).toEqual(['complete', 50_000n]);
    reader.close();
  });
});

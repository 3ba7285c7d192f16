/**
 * QEMU's TCG behind the lockstep interface, driven through its gdb server: single steps and registers.
 *
 * A single step in QEMU takes no interrupts and lets no timer run (`qqemu.sstep`), so the machine cannot be given inputs: what
 * they do is written over it (`override`). It boots the image by itself, with its own firmware, up to the entry.
 */
import { type ChildProcess, spawn, spawnSync } from 'node:child_process';
import { existsSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { SEGMENT_NAMES } from '../../src/machine/index.js';
import { OperatingError } from '../cli/failure.js';
import { GdbRemote, type RemoteRegister } from './gdb-remote.js';
import {
  type HelloAnswer,
  hexValue,
  type LockstepMachine,
  PROTOCOL,
  ProtocolFault,
  parseHex,
  type RegisterTexts,
  type Request,
  type StepAnswer,
} from './protocol.js';

export const QEMU = 'qemu-system-x86_64';
const BOOT_MILLISECONDS = 60_000;
const STEP_MILLISECONDS = 10_000;
const MOST_TRIES = 3;

/** What vmtape's table calls otherwise than gdb's descriptions. */
const NAMES: Readonly<Record<string, string>> = {
  eflags: 'rflags',
  fs_base: 'fsBase',
  gs_base: 'gsBase',
  k_gs_base: 'kernelGsBase',
  ...Object.fromEntries(SEGMENT_NAMES.map((name) => [name, `${name}Selector`])),
};
const KNOWN =
  /^(?:r(?:[abcd]x|[sd]i|[sb]p|ip|flags|[89]|1[0-5])|[c-gs]sSelector|fsBase|gsBase|kernelGsBase|cr[0234]|efer|xmm\d+|mxcsr)$/;

/** The version line, or undefined when there is no such program. */
export function qemuVersion(program = QEMU): string | undefined {
  const { status, stdout } = spawnSync(program, ['--version'], { encoding: 'utf8' });
  return status === 0 ? stdout.split('\n')[0] : undefined;
}

export class QemuMachine implements LockstepMachine {
  private child: ChildProcess | undefined;
  private remote: GdbRemote | undefined;
  private layout: readonly RemoteRegister[] = [];
  /** Contents of the last `g`. */
  private current: Buffer | undefined;
  private folder: string | undefined;

  constructor(
    private readonly program = QEMU,
    private readonly more: readonly string[] = [],
  ) {}

  async hello({
    machine,
    image,
    commandLine,
    entry,
  }: Extract<Request, { readonly op: 'hello' }>): Promise<HelloAnswer> {
    const version = qemuVersion(this.program);
    if (version === undefined) throw new ProtocolFault(`${this.program} is not installed`);
    if (machine.vcpus !== 1) throw new ProtocolFault('one vCPU alone can be stepped through gdb');
    this.folder = mkdtempSync(join(tmpdir(), 'vmtape-lockstep-'));
    const [file, socket] = [join(this.folder, 'image'), join(this.folder, 'gdb')];
    writeFileSync(file, Buffer.from(image, 'base64'));
    this.child = spawn(
      this.program,
      [
        ...[
          '-machine',
          'pc',
          '-accel',
          'tcg',
          '-cpu',
          'max,+svm',
          '-m',
          `${machine.ramBytes / 2 ** 20}M`,
          '-nodefaults',
        ],
        ...['-display', 'none', '-serial', 'null', '-monitor', 'none', '-no-reboot'],
        ...['-device', 'isa-debug-exit,iobase=0xf4,iosize=4', '-kernel', file],
        // Its loader puts the image's name ahead by itself.
        ...['-append', commandLine.replace(/^\S+ ?/, '')],
        ...['-S', '-chardev', `socket,path=${socket},server=on,wait=off,id=gdb`, '-gdb', 'chardev:gdb', ...this.more],
      ],
      { stdio: ['ignore', 'ignore', 'pipe'] },
    );
    this.remote = await this.connected(socket);
    await this.remote.greet();
    this.layout = await this.remote.describe();
    await this.remote.runTo(parseHex(entry, 'the entry'), BOOT_MILLISECONDS);
    await this.remote.usePhysicalMemory();
    const names = Object.keys(await this.registers());
    return { protocol: PROTOCOL, name: version, can: ['override', 'memory', 'deterministic'], registers: names };
  }

  private async connected(socket: string): Promise<GdbRemote> {
    let said = '';
    this.child?.stderr?.on('data', (data) => {
      said += data;
    });
    const deadline = performance.now() + BOOT_MILLISECONDS;
    while (performance.now() < deadline && this.child?.exitCode === null) {
      if (existsSync(socket)) {
        const remote = await GdbRemote.to(socket).catch(() => undefined);
        if (remote !== undefined) return remote;
      }
      await new Promise((resolve) => setTimeout(resolve, 20));
    }
    throw new OperatingError(`${this.program} does not start: ${said.trim() || 'it opens no gdb server'}`);
  }

  private get gdb(): GdbRemote {
    if (this.remote === undefined) throw new ProtocolFault('hello comes first');
    return this.remote;
  }

  async step({ instructions }: Extract<Request, { readonly op: 'step' }>): Promise<StepAnswer> {
    for (let count = 0; count < instructions; count++) {
      try {
        if (!(await this.stepOnce())) return { stop: 'ended' };
      } catch (error) {
        if (this.gdb.isGone) return { stop: 'ended' };
        throw error;
      }
    }
    // It tells of steps, not of what retired.
    return { stop: 'count' };
  }

  /**
   * Now and then QEMU stops before the instruction (its main loop wanted the processor back), and nothing has changed. What a
   * jump to itself does, is the same however often it is done.
   */
  private async stepOnce(): Promise<boolean> {
    const before = await this.bytes();
    for (let tries = 0; tries < MOST_TRIES; tries++) {
      if (!(await this.gdb.step(STEP_MILLISECONDS))) return false;
      this.current = await this.gdb.registers();
      if (!this.current.equals(before)) break;
    }
    return true;
  }

  private async bytes(): Promise<Buffer> {
    this.current ??= await this.gdb.registers();
    return this.current;
  }

  async registers(): Promise<RegisterTexts> {
    const bytes = await this.bytes();
    const found: Record<string, string> = {};
    for (const { name: theirs, bytes: length, offset } of this.layout) {
      const name = NAMES[theirs] ?? theirs;
      if (!KNOWN.test(name) || offset + length > bytes.length) continue;
      found[name] = hexValue(littleEndian(bytes.subarray(offset, offset + Math.min(8, length))));
      if (length === 16) found[`${name}High`] = hexValue(littleEndian(bytes.subarray(offset + 8, offset + 16)));
    }
    return found;
  }

  async ram(): Promise<undefined> {}

  async memory(address: number, length: number): Promise<string> {
    return (await this.gdb.memory(address, length)).toString('hex');
  }

  async raise(): Promise<void> {
    throw new ProtocolFault('a machine that is stepped through gdb takes no inputs');
  }

  async override({ registers = {}, memory = [] }: Extract<Request, { readonly op: 'override' }>): Promise<void> {
    for (const { address, bytes } of memory) {
      await this.gdb.writeMemory(Number(parseHex(address, 'an address')), Buffer.from(bytes, 'hex'));
    }
    if (Object.keys(registers).length === 0) return;
    const before = await this.bytes();
    const whole = Buffer.from(before);
    for (const [number, { name: theirs, bytes: length, offset }] of this.layout.entries()) {
      const name = NAMES[theirs] ?? theirs;
      const [low, high] = [registers[name], registers[`${name}High`]];
      if (low !== undefined) putLittleEndian(whole, offset, Math.min(8, length), parseHex(low, name));
      if (high !== undefined && length === 16) putLittleEndian(whole, offset + 8, 8, parseHex(high, name));
      const own = whole.subarray(offset, offset + length);
      if (!own.equals(before.subarray(offset, offset + length))) await this.gdb.writeRegister(number, own);
    }
    this.current = undefined;
  }

  async close(): Promise<void> {
    this.remote?.close();
    this.child?.kill('SIGKILL');
    if (this.folder !== undefined) rmSync(this.folder, { recursive: true, force: true });
  }
}

const littleEndian = (bytes: Buffer): bigint =>
  bytes.length === 0 ? 0n : BigInt(`0x${Buffer.from(bytes).reverse().toString('hex')}`);

function putLittleEndian(target: Buffer, offset: number, length: number, value: bigint): void {
  for (let at = 0; at < length; at++) target[offset + at] = Number((value >> BigInt(8 * at)) & 0xffn);
}

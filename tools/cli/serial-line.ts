/**
 * The other end of the guest's serial line: stdin, stdout, a file, or nothing. What the guest sends is gathered while a
 * slice runs and leaves between slices; what it receives comes from stdin as it arrives, or from a file at once.
 */
import { closeSync, openSync, writeSync } from 'node:fs';
import type { MachineEvent } from '../../src/machine/index.js';
import { OperatingError } from './failure.js';
import { type HostFlags, type MachineOptions, readInputFile, type SerialTarget } from './machine-flags.js';
import type { Terminal } from './terminal.js';

const FIRST_BUFFER = 4096;

/** Gathers the bytes that the guest sends. */
export class SerialOutput {
  private buffer = new Uint8Array(FIRST_BUFFER);
  private length = 0;
  private readonly file: number | undefined;

  constructor(
    private readonly target: SerialTarget,
    private readonly terminal: Terminal,
    private readonly flag = '--serial',
  ) {
    if (target.kind !== 'file') return;
    try {
      this.file = openSync(target.path, 'w');
    } catch (cause) {
      throw new OperatingError(`${flag}: ${(cause as Error).message}. Choose another file.`, { cause });
    }
  }

  push(byte: number): void {
    if (this.length === this.buffer.length) {
      const larger = new Uint8Array(2 * this.length);
      larger.set(this.buffer);
      this.buffer = larger;
    }
    this.buffer[this.length++] = byte;
  }

  /** Sends on what was gathered. @returns false when nobody reads it any more. */
  flush(): boolean {
    if (this.length === 0) return true;
    const bytes = this.buffer.slice(0, this.length);
    this.length = 0;
    if (this.file !== undefined) return this.writeFile(this.file, bytes);
    if (this.target.kind === 'null') return true;
    // With --json stdout is for the document alone.
    return this.terminal.raw(bytes, this.terminal.json ? process.stderr : process.stdout);
  }

  /** Forgets what was gathered. */
  discard(): void {
    this.length = 0;
  }

  close(): void {
    this.flush();
    if (this.file !== undefined) closeSync(this.file);
  }

  private writeFile(file: number, bytes: Uint8Array): boolean {
    try {
      for (let at = 0; at < bytes.length; ) at += writeSync(file, bytes, at);
    } catch (cause) {
      throw new OperatingError(`${this.flag}: ${(cause as Error).message}. The guest's output is incomplete there.`, {
        cause,
      });
    }
    return true;
  }
}

/** All that the guest sends: over its serial line, and by its virtio console where it has one. */
export class GuestOutput {
  private readonly serial: SerialOutput;
  private readonly console: SerialOutput;

  constructor({ serial, console = { kind: 'null' } }: Pick<HostFlags, 'serial' | 'console'>, terminal: Terminal) {
    this.serial = new SerialOutput(serial, terminal);
    this.console = new SerialOutput(console, terminal, '--console');
  }

  take(event: MachineEvent): void {
    if (event.type === 'uart.transmitted') this.serial.push(event.byte);
    else if (event.type === 'virtio.transmitted') for (const byte of event.data) this.console.push(byte);
  }

  /** @returns false when nobody reads it any more. */
  flush(): boolean {
    const goesOn = this.serial.flush();
    return this.console.flush() && goesOn;
  }

  discard(): void {
    this.serial.discard();
    this.console.discard();
  }

  close(): void {
    this.serial.close();
    this.console.close();
  }
}

/** Who takes what the guest receives. */
export interface SerialReceiver {
  feed(data: Uint8Array): void;
  endInput(): void;
}

/** Feeds the guest. Call `stop` at the end, or stdin keeps the process alive. */
export class SerialInput {
  private wake: () => void = () => {};
  private readonly onData = (data: Uint8Array): void => {
    this.receiver.feed(data);
    this.wake();
  };
  private readonly onEnd = (): void => {
    this.receiver.endInput();
    this.wake();
  };

  constructor(
    { input, serial }: Pick<MachineOptions, 'input' | 'serial'>,
    private readonly receiver: SerialReceiver,
    /** Read before the machine was made: a missing file is noticed before there is a tape. */
    fileContent: Uint8Array | undefined,
  ) {
    if (fileContent !== undefined) receiver.feed(fileContent);
    if (input !== undefined || serial.kind !== 'stdio') {
      receiver.endInput();
      return;
    }
    process.stdin.on('data', this.onData);
    process.stdin.on('end', this.onEnd);
    process.stdin.on('error', this.onEnd);
  }

  /** Resolves at the next byte, at the end of input, or when `interrupt` is called. */
  more(): Promise<void> {
    return new Promise((resolve) => {
      this.wake = resolve;
    });
  }

  interrupt(): void {
    this.wake();
  }

  stop(): void {
    process.stdin.off('data', this.onData);
    process.stdin.off('end', this.onEnd);
    process.stdin.off('error', this.onEnd);
    process.stdin.pause();
    if ('unref' in process.stdin && typeof process.stdin.unref === 'function') process.stdin.unref();
  }
}

/** The content of `--console-input`; nothing when it is not given. */
export const consoleInputFile = ({ consoleInput }: Pick<HostFlags, 'consoleInput'>): Uint8Array =>
  consoleInput === undefined ? new Uint8Array(0) : readInputFile(consoleInput, '--console-input');

/** The content of `--input`, if it is given. */
export const serialInputFile = ({ input }: Pick<MachineOptions, 'input'>): Uint8Array | undefined =>
  input === undefined ? undefined : readInputFile(input, '--input');

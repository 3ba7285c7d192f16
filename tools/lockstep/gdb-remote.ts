/**
 * The client's end of gdb's remote serial protocol, as far as a machine is to be stepped by it: registers by the target's own
 * description, memory, single steps.
 * Source: GDB manual, appendix E Remote Protocol, appendix G Target Descriptions.
 */
import { connect, type Socket } from 'node:net';
import { OperatingError } from '../cli/failure.js';
import { framed, hexOf, PacketReader } from '../gdb/packet.js';

export interface RemoteRegister {
  readonly name: string;
  readonly bytes: number;
  /** Of its first byte in the answer to `g`. */
  readonly offset: number;
}

/** Bytes of memory in one packet; its frame has room for twice as many digits. */
const MEMORY_BYTES = 0x600;
const DESCRIPTION_BYTES = 0x600;

export class GdbRemote {
  private readonly reader = new PacketReader();
  private readonly packets: string[] = [];
  private waiting: (() => void) | undefined;
  private gone: string | undefined;

  private constructor(private readonly socket: Socket) {
    socket.on('data', (chunk: Buffer) => {
      for (const incoming of this.reader.read(chunk)) {
        if (incoming.kind === 'packet') this.packets.push(Buffer.from(incoming.data).toString('latin1'));
        else if (incoming.kind === 'bad' || incoming.kind === 'nonsense') this.gone = 'it speaks no gdb protocol';
      }
      this.waiting?.();
    });
    socket.on('close', () => this.end('it has closed the connection'));
    socket.on('error', (error) => this.end(error.message));
  }

  /** @throws the host's errors. */
  static async to(path: string): Promise<GdbRemote> {
    const socket = connect(path);
    await new Promise((resolve, reject) => socket.once('connect', resolve).once('error', reject));
    return new GdbRemote(socket);
  }

  get isGone(): boolean {
    return this.gone !== undefined;
  }

  private end(why: string): void {
    this.gone ??= why;
    this.waiting?.();
  }

  /** @throws OperatingError when there is no answer in time, or none will come. */
  async ask(packet: string, patience = 30_000): Promise<string> {
    if (this.gone === undefined) this.socket.write(Buffer.concat([Buffer.from('+'), framed(packet)]));
    const deadline = performance.now() + patience;
    for (;;) {
      const answer = this.packets.shift();
      if (answer !== undefined) return answer;
      if (this.gone !== undefined) throw new OperatingError(`the gdb server: ${this.gone}.`);
      const left = deadline - performance.now();
      if (left <= 0) throw new OperatingError(`the gdb server does not answer ${packet.slice(0, 20)}.`);
      await this.more(left);
    }
  }

  private async more(milliseconds: number): Promise<void> {
    await new Promise<void>((resolve) => {
      const timer = setTimeout(resolve, milliseconds);
      this.waiting = () => {
        clearTimeout(timer);
        resolve();
      };
    });
    this.waiting = undefined;
  }

  private async expectOk(packet: string): Promise<void> {
    const answer = await this.ask(packet);
    if (answer !== 'OK')
      throw new OperatingError(`the gdb server answers ${packet.slice(0, 20)} with ${answer || 'nothing'}.`);
  }

  /** Says what gdb says first. */
  async greet(): Promise<void> {
    await this.ask('qSupported:multiprocess+;swbreak+;hwbreak+;vContSupported+;xmlRegisters=i386');
  }

  /** Registers in the order of `g`, from the target's description, files that it includes too. */
  async describe(): Promise<readonly RemoteRegister[]> {
    const found: RemoteRegister[] = [];
    let offset = 0;
    const read = async (name: string): Promise<void> => {
      // QEMU has registers in comments that it does not send.
      const xml = (await this.descriptionFile(name)).replace(/<!--.*?-->/gs, '');
      for (const [, file, register, bits] of xml.matchAll(
        /<xi:include href="([^"]+)"\/>|<reg name="(\w+)" bitsize="(\d+)"/g,
      )) {
        if (file !== undefined) await read(file);
        else {
          const bytes = Number(bits) / 8;
          found.push({ name: register as string, bytes, offset });
          offset += bytes;
        }
      }
    };
    await read('target.xml');
    return found;
  }

  private async descriptionFile(name: string): Promise<string> {
    let text = '';
    for (;;) {
      const part = await this.ask(
        `qXfer:features:read:${name}:${text.length.toString(16)},${DESCRIPTION_BYTES.toString(16)}`,
      );
      if (!/^[lm]/.test(part)) throw new OperatingError(`the gdb server describes no ${name}.`);
      text += part.slice(1);
      if (part.startsWith('l')) return text;
    }
  }

  /** Addresses are physical from now on; QEMU's own packet. */
  async usePhysicalMemory(): Promise<void> {
    await this.expectOk('Qqemu.PhyMemMode:1');
  }

  async registers(): Promise<Buffer> {
    return Buffer.from(await this.ask('g'), 'hex');
  }

  /** One register, by its number in the description. QEMU 7.2 takes all at once amiss outside 64-bit mode. */
  async writeRegister(number: number, bytes: Uint8Array): Promise<void> {
    await this.expectOk(`P${number.toString(16)}=${hexOf(bytes)}`);
  }

  async memory(address: number, length: number): Promise<Buffer> {
    const parts: Buffer[] = [];
    for (let at = 0; at < length; at += MEMORY_BYTES) {
      const bytes = Math.min(MEMORY_BYTES, length - at);
      const answer = await this.ask(`m${(address + at).toString(16)},${bytes.toString(16)}`);
      if (/^E/.test(answer)) throw new OperatingError(`the gdb server cannot read memory at ${address.toString(16)}h.`);
      parts.push(Buffer.from(answer, 'hex'));
    }
    return Buffer.concat(parts);
  }

  async writeMemory(address: number, bytes: Uint8Array): Promise<void> {
    for (let at = 0; at < bytes.length; at += MEMORY_BYTES) {
      const part = bytes.subarray(at, at + MEMORY_BYTES);
      await this.expectOk(`M${(address + at).toString(16)},${part.length.toString(16)}:${hexOf(part)}`);
    }
  }

  /** Runs until the instruction at a linear address. */
  async runTo(address: bigint, patience: number): Promise<void> {
    const place = `1,${address.toString(16)},1`;
    await this.expectOk(`Z${place}`);
    await this.ask('c', patience);
    await this.expectOk(`z${place}`);
  }

  /** @returns false when the machine has ended. */
  async step(patience: number): Promise<boolean> {
    const answer = await this.ask('s', patience);
    return /^[TS]/.test(answer);
  }

  close(): void {
    this.socket.destroy();
  }
}

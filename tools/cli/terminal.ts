/**
 * Where words go: a command's product to stdout, human words and progress to stderr. `--json` leaves stdout to one
 * document or to JSON lines, `-q` silences the words.
 */
import pc from 'picocolors';

export type Colors = ReturnType<typeof pc.createColors>;

export interface TerminalOptions {
  readonly quiet?: boolean | undefined;
  readonly json?: boolean | undefined;
}

/** Whoever read stdout has gone: `vmtape log … | head`. Nothing is wrong, and nothing more is wanted. */
export class ReaderGone extends Error {
  override name = 'ReaderGone';
}

const BUFFERED_LINES = 512;

export class Terminal {
  readonly quiet: boolean;
  readonly json: boolean;
  /** Colours of stdout. */
  readonly colors: Colors;
  private lines: string[] = [];
  private statusShown = false;
  private stdoutGone = false;

  constructor({ quiet = false, json = false }: TerminalOptions) {
    this.quiet = quiet;
    this.json = json;
    this.colors = pc.createColors(!json && wantsColors(process.stdout));
    for (const stream of [process.stdout, process.stderr])
      stream.on('error', (error) => this.streamFailed(stream, error));
  }

  /** A line of the product; call `flush` now and then, and at the end. */
  async line(text: string): Promise<void> {
    this.lines.push(text);
    if (this.lines.length >= BUFFERED_LINES) await this.flush();
  }

  /** A whole product. */
  async print(lines: readonly string[]): Promise<void> {
    this.lines.push(...lines);
    await this.flush();
  }

  async document(value: unknown): Promise<void> {
    await this.print([jsonText(value, 2)]);
  }

  async flush(): Promise<void> {
    if (this.lines.length === 0) return;
    const text = `${this.lines.join('\n')}\n`;
    this.lines = [];
    await new Promise<void>((resolve) => process.stdout.write(text, () => resolve()));
    if (this.stdoutGone) throw new ReaderGone('stdout is closed');
  }

  /** Bytes of the guest's console, as they are. @returns false when nobody reads them any more. */
  raw(bytes: Uint8Array, stream: NodeJS.WriteStream): boolean {
    this.clearStatus();
    stream.write(bytes);
    return !this.stdoutGone;
  }

  /** Human words on stderr. */
  say(text: string): void {
    if (this.quiet) return;
    this.clearStatus();
    process.stderr.write(`${text}\n`);
  }

  get showsStatus(): boolean {
    return process.stderr.isTTY === true && !this.quiet && !this.json;
  }

  /** The progress line, where there is a terminal; the next one replaces it. */
  status(text: string): void {
    if (!this.showsStatus) return;
    const columns = process.stderr.columns ?? 80;
    process.stderr.write(`\r${text.slice(0, columns - 1)}\u001b[K`);
    this.statusShown = true;
  }

  clearStatus(): void {
    if (!this.statusShown) return;
    process.stderr.write('\r\u001b[K');
    this.statusShown = false;
  }

  private streamFailed(stream: NodeJS.WriteStream, error: NodeJS.ErrnoException): void {
    if (error.code !== 'EPIPE') throw error;
    if (stream === process.stdout) this.stdoutGone = true;
  }
}

/** Colours of stderr, for messages. */
export const errorColors = (): Colors => pc.createColors(wantsColors(process.stderr));

function wantsColors(stream: NodeJS.WriteStream): boolean {
  if ((process.env.NO_COLOR ?? '') !== '') return false;
  return (process.env.FORCE_COLOR ?? '') !== '' || (stream.isTTY === true && process.env.TERM !== 'dumb');
}

/** 64-bit values are decimal strings, bytes are hexadecimal ones: JSON's own numbers would round them. */
export function jsonText(value: unknown, indent?: number): string {
  return JSON.stringify(
    value,
    (_key, item: unknown) => {
      if (typeof item === 'bigint') return String(item);
      return item instanceof Uint8Array ? Buffer.from(item).toString('hex') : item;
    },
    indent,
  );
}

/**
 * A file that is there whole or not at all: it is made under another name in the same folder, and gets its own when it is
 * done. What stands under that name is never replaced.
 */
import { closeSync, existsSync, fstatSync, fsyncSync, linkSync, openSync, renameSync, rmSync } from 'node:fs';
import { basename, dirname, join } from 'node:path';
import { UsageError } from '../cli/failure.js';

export class NewFile {
  /** Where it is made. */
  readonly path: string;

  /** @throws UsageError when there is such a file already. */
  constructor(readonly target: string) {
    if (existsSync(target)) throw this.exists();
    this.path = join(dirname(target), `.${basename(target)}.${process.pid}.partial`);
    // What a process of this number left behind, long ago.
    rmSync(this.path, { force: true });
  }

  /** Gives it its name. @returns its bytes. @throws UsageError when there is such a file by now. */
  finish(): number {
    const descriptor = openSync(this.path, 'r+');
    let bytes: number;
    try {
      fsyncSync(descriptor);
      bytes = fstatSync(descriptor).size;
    } finally {
      closeSync(descriptor);
    }
    try {
      linkSync(this.path, this.target);
      rmSync(this.path);
    } catch (error) {
      const { code } = error as NodeJS.ErrnoException;
      if (code === 'EEXIST') throw this.exists();
      // A file system without links: between the question and the answer somebody may come, but nobody does.
      if (existsSync(this.target)) throw this.exists();
      renameSync(this.path, this.target);
    }
    return bytes;
  }

  /** Nothing shall be left of it. */
  abandon(): void {
    rmSync(this.path, { force: true });
  }

  private exists(): UsageError {
    return new UsageError(`${this.target}: there is such a file already. Give another name, or move it away.`);
  }
}

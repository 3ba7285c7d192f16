/**
 * Errors → what a user reads and the exit status that a program reads (docs/cli.md). A user sees one paragraph that
 * names what is wrong, where, and what to do; the stack only with VMTAPE_DEBUG=1, and for bugs of vmtape.
 */
import { JournalError } from '../../src/journal/index.js';
import { InputError, InvariantError, UnsupportedError } from '../../src/machine/index.js';
import { FollowingError, PeerGone, ProtocolError, Refused } from '../../src/replay/index.js';

export const Status = {
  /** As asked. */
  DONE: 0,
  /** The answer is no: a replay diverged, runs differ. */
  NO: 1,
  /** Wrong usage or bad input. */
  USAGE: 2,
  /** The tape is damaged. */
  DAMAGED: 3,
  /** Disk, memory, network. */
  OPERATING: 4,
} as const;

/** Wrong usage: what was given, what is wrong with it, what to do instead. */
export class UsageError extends Error {
  override name = 'UsageError';
}

/** The host failed: a file could not be written, a disk is full. */
export class OperatingError extends Error {
  override name = 'OperatingError';
}

export interface Failure {
  readonly status: number;
  readonly message: string;
}

const BAD_PATH = new Set(['ENOENT', 'ENOTDIR', 'EISDIR', 'EACCES', 'EPERM', 'ENAMETOOLONG', 'ELOOP']);

export function failureOf(error: unknown): Failure {
  if (error instanceof UsageError || error instanceof InputError)
    return { status: Status.USAGE, message: error.message };
  if (error instanceof JournalError)
    return { status: error.exitStatus, message: `${error.message}.`.replace('..', '.') };
  if (error instanceof OperatingError) return { status: Status.OPERATING, message: error.message };
  if (error instanceof UnsupportedError) {
    return {
      status: Status.USAGE,
      message: `this machine cannot go on: ${error.message}. Nothing was made up instead.`,
    };
  }
  if (error instanceof Refused) {
    return { status: Status.OPERATING, message: `the other side goes no further: ${error.message}` };
  }
  if (error instanceof PeerGone || error instanceof ProtocolError) {
    return { status: Status.OPERATING, message: `${error.message}. Try again, or look at the other side.` };
  }
  if (error instanceof FollowingError) return { status: Status.NO, message: `${error.message}.` };
  if (error instanceof InvariantError) return { status: Status.OPERATING, message: bug(error) };
  if (isSystemError(error)) {
    return { status: BAD_PATH.has(error.code) ? Status.USAGE : Status.OPERATING, message: error.message };
  }
  return { status: Status.OPERATING, message: bug(error) };
}

const bug = (error: unknown): string =>
  `a bug in vmtape: ${error instanceof Error ? error.message : String(error)}. ` +
  'Please report it, with what VMTAPE_DEBUG=1 prints, the command and its image.';

function isSystemError(error: unknown): error is Error & { readonly code: string } {
  return (
    error instanceof Error && 'syscall' in error && typeof (error as { readonly code?: unknown }).code === 'string'
  );
}

/**
 * The machine's errors. Guest faults are data (`faults.ts`) and never come here; what is here stops the run.
 */

/** A broken invariant: a bug in vmtape. It stops the run before anything wrong reaches the journal. */
export class InvariantError extends Error {
  override name = 'InvariantError';
}

/** Bad input to the machine: a configuration or an image that it refuses. `what` names the culprit, `remedy` what to do. */
export class InputError extends Error {
  override name = 'InputError';
  constructor(
    readonly what: string,
    readonly problem: string,
    readonly remedy: string,
  ) {
    super(`${what}: ${problem}. ${remedy}`);
  }
}

/** The guest asked for something this machine does not model (law 8): loud, with the place. */
export class UnsupportedError extends Error {
  override name = 'UnsupportedError';
}

export function invariant(condition: unknown, message: string): asserts condition {
  if (!condition) throw new InvariantError(message);
}

/** Takes `never`: a forgotten case of a union does not compile. */
export function unreachable(value: never): never {
  throw new InvariantError(`unreachable case: ${String(value)}`);
}

/** What a debugger stops at, and why it has stopped. */
import type { MachineEvent, WatchedRange } from '../../src/machine/index.js';
import type { Change, WatchedValue } from '../../src/replay/index.js';
import type { Subject } from './views.js';

/** Where code stops. */
export interface Breakpoint {
  /** Linear address. */
  readonly address: bigint;
  /** For whom it is meant. */
  readonly stops: (subject: Subject) => boolean;
}

/** Which accesses stop. */
export type AccessKind = 'write' | 'read' | 'access';

export interface Watchpoint {
  /** As whoever set it calls the place. */
  readonly name: string;
  readonly access: AccessKind;
  readonly ranges: readonly WatchedRange[];
}

/** Values whose changes stop. */
export interface Watched {
  /** As the user calls them. */
  readonly what: string;
  readonly values: readonly WatchedValue[];
}

/** Events of a kind that stop, right before they happen. */
export interface Catch {
  readonly pattern: string;
  readonly matches: (event: MachineEvent) => boolean;
}

export type Halt =
  | { readonly why: 'step' }
  | { readonly why: 'breakpoint'; readonly address: bigint }
  /** Forwards it stands after the access, backwards before it: in both cases it has been gone through. */
  | { readonly why: 'watchpoint'; readonly watchpoint: Watchpoint; readonly changes: readonly Change[] }
  /** The same of a change, which is told as it was made, in both directions. */
  | { readonly why: 'change'; readonly changes: readonly Change[] }
  | { readonly why: 'catch'; readonly pattern: string }
  /** The tape ends here, or begins. */
  | { readonly why: 'end' | 'start' }
  | { readonly why: 'interrupted' };

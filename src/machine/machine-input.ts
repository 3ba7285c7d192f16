/** What a machine takes from its host, and what it tells when it comes back. */
import type { DebuggerInput } from './debugger-input.js';
import type { EventOf } from './events.js';
import type { HostInput } from './paravirt/host-input.js';

/** Why `advance` came back. */
export type AdvanceStop =
  /** The limit is reached, exactly. */
  | 'limit'
  /** `pause` was called. */
  | 'paused'
  /** The session is over; `state.ended` says how. */
  | 'ended'
  /**
   * No instruction has retired for a while: every vCPU waits and time has passed from deadline to deadline, or exceptions
   * follow each other because their handler cannot be fetched, or not even delivered. Call again, or give up.
   */
  | 'waiting'
  /** Every vCPU waits and no device will ever wake one: only an input can. */
  | 'idle';

/** What the machine takes from outside; each is on the tape before the machine sees it. */
export type MachineInput =
  | { readonly type: 'input.serial'; readonly data: Uint8Array }
  | { readonly type: 'input.console'; readonly data: Uint8Array }
  | { readonly type: 'input.clock'; readonly unixSeconds: number }
  | { readonly type: 'input.entropy'; readonly seed: bigint }
  | { readonly type: 'input.nmi' }
  | HostInput
  | ChaosInput
  | DebuggerInput;

/** What chaos may do: all of it is left open by the architecture. */
export type ChaosInput = EventOf<'input.turn'> | EventOf<'input.hold'> | EventOf<'input.skew'>;

/** What the network's thread and the one that runs the machine say to each other. */
import type { MessagePort } from 'node:worker_threads';
import type { Endpoint, SecurityFlags } from './secure.js';

export interface NetworkSetup {
  readonly endpoint: Endpoint;
  readonly flags: SecurityFlags;
  /** Milliseconds after which a silent peer is taken for gone. */
  readonly silence: number;
  /** Its only word counts everything that the network's thread says; whoever waits sleeps on it. */
  readonly activity: Int32Array;
}

export type FromNetwork =
  | { readonly type: 'listening'; readonly port: number }
  | { readonly type: 'failed'; readonly isUsage: boolean; readonly message: string }
  | { readonly type: 'not-let-in'; readonly problem: string }
  | { readonly type: 'connected'; readonly from: string; readonly port: MessagePort };

/** About one connection, on its port. */
export type FromPeer =
  | { readonly type: 'bytes'; readonly bytes: Uint8Array }
  | { readonly type: 'ended' }
  | { readonly type: 'lost'; readonly message: string }
  /** What was to be sent has been, or cannot be. */
  | { readonly type: 'closed' };

export type ToPeer =
  | { readonly type: 'send'; readonly bytes: Uint8Array }
  /** So many bytes have been used: as many more may come. */
  | { readonly type: 'used'; readonly bytes: number }
  | { readonly type: 'close' };

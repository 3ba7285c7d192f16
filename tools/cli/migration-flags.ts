/** Flags that `migrate` and `receive` share. */
import type { Command } from 'commander';
import type { SecurityFlags } from '../net/secure.js';
import { parseDuration } from './arguments.js';

export interface ConnectionFlags extends SecurityFlags {
  /** Nanoseconds. */
  readonly silence?: number;
}

const SILENCE_MILLISECONDS = 30_000;

export const addConnectionFlags = (command: Command): Command =>
  command
    .option('--tls-cert <file>', "this side's certificate, in PEM: TLS with certificates on both sides")
    .option('--tls-key <file>', 'its key')
    .option('--tls-ca <file>', "who signed the other side's certificate")
    .option('--psk-file <file>', 'TLS with a key that both sides have: a file with at least 16 bytes in hex')
    .option('--insecure', 'plain TCP even to other hosts')
    .option('--silence <time>', 'take a peer for gone that says nothing for so long (default: 30s)', (text) =>
      parseDuration(text, '--silence'),
    );

/** Milliseconds. */
export const silenceOf = ({ silence }: ConnectionFlags): number =>
  silence === undefined ? SILENCE_MILLISECONDS : Math.max(1, Math.round(silence / 1e6));

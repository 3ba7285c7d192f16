/** What answers are made of. Source: GDB manual, appendix E.2 Packets, E.3 Stop Reply Packets. */

/** An answer, and whether the session is over with it. */
export interface Answer {
  readonly data: string;
  readonly ends?: boolean;
  /** From now on nobody acknowledges. */
  readonly quiet?: boolean;
}

export type Answered = string | Answer | Promise<string | Answer>;

export const UNSUPPORTED = '';
export const OK = 'OK';
/** As Linux numbers them: gdb shows them by their meaning. */
export const [EINVAL, EFAULT, ESRCH] = ['E16', 'E0e', 'E03'] as const;
export const [SIGINT, SIGTRAP] = ['02', '05'] as const;

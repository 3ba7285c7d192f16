/**
 * What an L0 may offer its guest beyond hardware, as the processor sees it: CPUID leaves, MSRs, hypercalls, and pages that
 * are not there when they are touched. A machine without it is bare hardware.
 */
import type { CpuidLeaf } from '../cpu/cpuid.js';
import type { SPA } from '../units.js';

export const PARAVIRT_NAMES = ['none', 'kvm'] as const;
/** Whose interface the guest finds. */
export type ParavirtName = (typeof PARAVIRT_NAMES)[number];

/** CPUID leaves that processors leave to hypervisors: 4000_0000h to 4000_00FFh. */
export const isHypervisorLeaf = (leaf: number): boolean => leaf >>> 8 === 0x40_0000;

/** A hypercall of privilege level 0, its registers cut to the width of the mode. */
export interface Hypercall {
  readonly number: bigint;
  /** RBX, RCX, RDX, RSI. */
  readonly arguments: readonly [bigint, bigint, bigint, bigint];
  readonly is64Bit: boolean;
}

/** The vCPU at an instruction that needs an absent page. */
export interface MissContext {
  /** An interrupt would be taken here: nothing is half delivered, nothing masks it. */
  readonly interruptible: boolean;
  readonly cpl: number;
  /** L2 runs. */
  readonly guest: boolean;
  /** CR0.PG. */
  readonly paging: boolean;
}

/**
 * What becomes of that instruction: it waits for the page, or for an interrupt that comes before; or there is a token, and
 * #PF with error code 0 and the token in CR2 comes instead; while L2 runs, a #VMEXIT for that.
 */
export type MissOutcome = 'wait' | { readonly token: number };

export interface Paravirt {
  /** @param leaf one of `isHypervisorLeaf`. */
  cpuidLeaf(leaf: number): CpuidLeaf;
  /** @param msr one of `MSR_ROWS` (`msr-rows.ts`). */
  readMsr(vcpu: number, msr: number): bigint;
  /** @returns false for #GP(0): nothing was written. */
  writeMsr(vcpu: number, msr: number, value: bigint): boolean;
  /** @returns the result, cut to 64 bits. */
  hypercall(vcpu: number, call: Hypercall): bigint;
  /** An instruction needs the absent page at `page`, and nothing of it has happened. */
  missPage(vcpu: number, page: SPA, context: MissContext): MissOutcome;
  /** The delivery of an event needs it, which cannot be put off: time passes until it is there, for the whole machine. */
  waitForPage(vcpu: number, page: SPA): void;
}

/**
 * What a hypervisor's log says, whatever it calls it and however it writes it: one union for KVM's trace events and Xen's.
 *
 * A log is of L0. Its guest is L1, and a *nested* exit one of L1's guest, L2.
 */
import type { ControlWord } from '../../src/machine/index.js';

/** The reason of an exit as the log writes it. */
export interface Reason {
  readonly text: string;
  /** EXITCODE; undefined for what no #VMEXIT of SVM is called: a log of VMX, a code that nobody has named. */
  readonly code: bigint | undefined;
}

/** What a log says of an exit; undefined where this form of it leaves it out. */
export interface ExitFacts {
  readonly reason: Reason;
  readonly rip?: bigint | undefined;
  readonly info1?: bigint | undefined;
  readonly info2?: bigint | undefined;
  /** EXITINTINFO, its error code apart. */
  readonly intInfo?: number | undefined;
}

export type LogEvent =
  /** A guest runs on. `nested`: L2 does; undefined where the log leaves it open. */
  | { readonly kind: 'entry'; readonly vcpu?: number | undefined; readonly nested?: boolean | undefined }
  | ({ readonly kind: 'exit'; readonly vcpu?: number | undefined } & ExitFacts)
  | ({ readonly kind: 'nested-exit'; readonly vcpu?: number | undefined } & ExitFacts)
  /** L1 is given a #VMEXIT. */
  | ({ readonly kind: 'nested-reflected' } & ExitFacts)
  /** L1 has executed VMRUN. `rip` is L1's. */
  | {
      readonly kind: 'nested-entry';
      readonly rip?: bigint | undefined;
      readonly vmcb?: bigint | undefined;
      readonly eventInjection?: number | undefined;
      readonly nestedPaging?: boolean | undefined;
    }
  /** What L1's VMCB asks for. */
  | { readonly kind: 'intercepts'; readonly controls: readonly ControlWord[] }
  /** `reinjected`: what an exit had interrupted is delivered again; undefined where this form leaves it out. */
  | { readonly kind: 'interrupt-given'; readonly vector: number; readonly reinjected?: boolean | undefined }
  /** `code`: EXITCODE that its intercept would give. */
  | { readonly kind: 'exception-given'; readonly code: bigint; readonly reinjected?: boolean | undefined }
  | { readonly kind: 'msr'; readonly msr: number; readonly write: boolean }
  | { readonly kind: 'port'; readonly port: number; readonly size: number; readonly write: boolean }
  | { readonly kind: 'page-fault'; readonly address: bigint; readonly errorCode: bigint }
  /** L0 executed an instruction in the guest's place, or a hypercall that it serves itself. */
  | { readonly kind: 'emulated' | 'hypercall' }
  /** The log has a gap; of this processor alone, or of all. */
  | { readonly kind: 'lost'; readonly processor?: number | undefined }
  /** The processor turns to another vCPU. */
  | { readonly kind: 'turn'; readonly domain: number; readonly vcpu: number }
  /** An event that says nothing of exits. */
  | { readonly kind: 'other' };

export interface LogRecord {
  /** From 1 on. */
  readonly line: number;
  /** Host processor. */
  readonly processor: number | undefined;
  /** Whose event it is: a thread of the host, or a vCPU of a domain. */
  readonly subject: string;
  readonly event: LogEvent;
}

/** Bits of an EVENTINJ or EXITINTINFO. Source: APM vol.2 §15.20 Event Injection. */
export const isValidEvent = (info: number | undefined): info is number => info !== undefined && info >>> 31 === 1;
export const eventVector = (info: number): number => info & 0xff;

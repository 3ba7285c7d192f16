/**
 * MachineEvent: every fact that the machine can state, one discriminated union. An event is immutable, and only events
 * change state (`reduce.ts`). Beside each union stands the order of its fields: the codec packs them by it, the query
 * views and the catalogue under docs/generated name them by it.
 *
 * *Inputs* (`input.…`) cannot be recomputed: replay feeds them back. All others are *outcomes*: replay compares them.
 *
 * The envelope of an event (`StatedEvent`) says how many instructions retired with it, which vCPU and which level it
 * belongs to; its position follows from counting.
 */

import type { FieldTable } from './devices/device.js';
import type { DeviceEvent } from './devices/devices.js';
import { DEVICE_EVENT_FIELDS } from './devices/devices.js';
import { VIRTIO_EVENT_FIELDS } from './devices/virtio-mmio.js';
import type { RegisterDelta } from './layout/cpu-state.js';
import { PARAVIRT_EVENT_FIELDS, type ParavirtEvent } from './paravirt/state.js';

export type CpuEvent =
  /** A stretch of plain instructions; the count is the envelope's `retired`. */
  | { readonly type: 'cpu.ran'; readonly registers: RegisterDelta }
  /** An exception was delivered through the IDT. #PF's CR2 is among the registers. */
  | {
      readonly type: 'cpu.exception';
      readonly vector: number;
      readonly errorCode: number | null;
      readonly registers: RegisterDelta;
    }
  /** An interrupt was delivered through the IDT. */
  | {
      readonly type: 'cpu.interrupt';
      readonly vector: number;
      readonly source: 'external' | 'nmi' | 'software' | 'virtual';
      readonly registers: RegisterDelta;
    }
  /** A control-plane instruction changed system state: far transfers, segment and table loads, IRET, SYSCALL, STI … */
  | { readonly type: 'cpu.system'; readonly mnemonic: string; readonly registers: RegisterDelta }
  /** A hardware task switch; by an event, with its vector and error code. A fault that the incoming task begins with follows. */
  | {
      readonly type: 'cpu.task-switched';
      readonly selector: number;
      readonly cause: 'jump' | 'call' | 'return' | 'event';
      readonly vector: number | null;
      readonly errorCode: number | null;
      readonly registers: RegisterDelta;
    }
  /** MOV to CRn or DRn, LMSW, CLTS, XSETBV. */
  | {
      readonly type: 'cpu.control';
      readonly register: string;
      readonly value: bigint;
      readonly registers: RegisterDelta;
    }
  | {
      readonly type: 'cpu.msr';
      readonly msr: number;
      readonly value: bigint;
      readonly registers: RegisterDelta;
    }
  /** An MSR that this machine does not have was accessed; a #GP follows, or the profile lets it pass. */
  | { readonly type: 'cpu.msr-unknown'; readonly msr: number; readonly write: boolean; readonly value: bigint }
  /** HLT or MWAIT, or FERR# before an x87 instruction: the vCPU stops until an interrupt. Or it waits for a page (`paravirt.page-missed`). */
  | { readonly type: 'cpu.halted'; readonly registers: RegisterDelta }
  /** The line that MWAIT watches was written to, the page that the vCPU waited for is there, or a kick ended its HLT. */
  | { readonly type: 'cpu.woke'; readonly registers: RegisterDelta }
  /** A pending condition was noted for the next boundary: an NMI, INIT, SMI or start-up interrupt arrived. */
  | { readonly type: 'cpu.pended'; readonly what: 'nmi' | 'init' | 'smi' | 'sipi'; readonly registers: RegisterDelta }
  /** A third fault while delivering a double fault (APM vol.2 §8.2.9). */
  | { readonly type: 'cpu.shutdown'; readonly registers: RegisterDelta }
  /** RESET: registers are as at power-on, and MSRs without a slot are as if never written. */
  | { readonly type: 'cpu.reset'; readonly registers: RegisterDelta };

/** Changed 8-byte words of a VMCB: 10 bytes each, ascending: word index (u16), value (u64), little-endian. */
export type VmcbDelta = Uint8Array;

export type SvmEvent =
  /** `words`: what software changed in this VMCB since the processor last read or wrote it. */
  | {
      readonly type: 'svm.vmrun';
      readonly vmcb: number;
      readonly asid: number;
      readonly words: VmcbDelta;
      readonly registers: RegisterDelta;
    }
  /** `words`: what the processor wrote into the VMCB. */
  | {
      readonly type: 'svm.vmexit';
      readonly vmcb: number;
      readonly code: bigint;
      readonly info1: bigint;
      readonly info2: bigint;
      readonly intInfo: bigint;
      readonly words: VmcbDelta;
      readonly registers: RegisterDelta;
    }
  /** The event in EVENTINJ was delivered to the guest. */
  | {
      readonly type: 'svm.injected';
      readonly kind: number;
      readonly vector: number;
      readonly errorCode: number | null;
      readonly registers: RegisterDelta;
    }
  | { readonly type: 'svm.gif'; readonly set: boolean; readonly registers: RegisterDelta }
  | { readonly type: 'svm.vmload'; readonly vmcb: number; readonly words: VmcbDelta; readonly registers: RegisterDelta }
  | { readonly type: 'svm.vmsave'; readonly vmcb: number; readonly words: VmcbDelta; readonly registers: RegisterDelta }
  | { readonly type: 'svm.invlpga'; readonly linear: bigint; readonly asid: number; readonly registers: RegisterDelta }
  /**
   * Ahead of a VMRUN: software changed fields whose clean bits are set, and the processor goes on with what it has cached.
   * `ignored`: what memory says instead.
   */
  | { readonly type: 'svm.stale'; readonly vmcb: number; readonly clean: number; readonly ignored: VmcbDelta }
  /** The guest wrote to TPR, EOI or the low ICR of its virtual APIC, and AVIC acted on it. */
  | {
      readonly type: 'avic.written';
      /** Of the register within the page, and what the page holds there now. */
      readonly offset: number;
      readonly value: number;
      readonly registers: RegisterDelta;
    }
  /** A doorbell rang where a guest with a virtual APIC runs, which was evaluated. */
  | { readonly type: 'avic.doorbell'; readonly registers: RegisterDelta }
  /** The virtual APIC gave its highest interrupt, whose delivery follows; null when that was withdrawn. */
  | { readonly type: 'avic.acknowledged'; readonly vector: number | null; readonly registers: RegisterDelta };

export type MachineWideEvent =
  /** The image was loaded; registers are those that the boot protocol prescribes. */
  | {
      readonly type: 'input.boot';
      readonly imageDigest: string;
      readonly commandLine: string;
      readonly registers: RegisterDelta;
    }
  /** Bytes arrived at the serial port's receiver. */
  | { readonly type: 'input.serial'; readonly data: Uint8Array }
  /** Bytes arrived at the virtio console. */
  | { readonly type: 'input.console'; readonly data: Uint8Array }
  /** Wall-clock time at power-on, for the RTC: seconds since 1970-01-01T00:00:00Z. */
  | { readonly type: 'input.clock'; readonly unixSeconds: number }
  /** Seed of the machine's random-number instructions. */
  | { readonly type: 'input.entropy'; readonly seed: bigint }
  /** Chaos: vCPU `to` has the turn, until so many instructions have retired in all. */
  | { readonly type: 'input.turn'; readonly to: number; readonly until: number }
  /** Chaos: interrupts of a vCPU, NMIs too, are not taken before this virtual time. */
  | { readonly type: 'input.hold'; readonly target: number; readonly until: number }
  /** Chaos: a vCPU's time-stamp counter moves by so many ticks, modulo 2^64. */
  | { readonly type: 'input.skew'; readonly target: number; readonly ticks: bigint }
  /** Someone pressed the NMI button. */
  | { readonly type: 'input.nmi' }
  /** A debugger wrote to registers of vCPU `target`, and what follows from that: EFER.LMA, hidden parts of segments. */
  | { readonly type: 'input.debugger-registers'; readonly target: number; readonly changes: RegisterDelta }
  /** A debugger wrote to an MSR of vCPU `target` that has no slot. */
  | { readonly type: 'input.debugger-msr'; readonly target: number; readonly msr: number; readonly value: bigint }
  /** A debugger wrote to RAM from sPA `address` on, within a page. */
  | { readonly type: 'input.debugger-memory'; readonly address: number; readonly data: Uint8Array }
  /** RDRAND or RDSEED drew a value. */
  | { readonly type: 'entropy.drawn'; readonly value: bigint }
  /** This vCPU's turn begins. `until`: instructions retired in all when it ends. */
  | { readonly type: 'vcpu.scheduled'; readonly until: number }
  /** Every vCPU waited: virtual time jumped to the next deadline. Or the machine did, for a page amid a delivery. */
  | { readonly type: 'time.skipped'; readonly nanoseconds: number }
  /** An access that no device claims (law 8). Reads give all ones. */
  | {
      readonly type: 'bus.unclaimed';
      readonly space: 'port' | 'memory';
      readonly address: number;
      readonly size: number;
      readonly write: boolean;
      readonly value: bigint;
    }
  /** RESET reached the devices, at a virtual time: they are as at power-on, but for the clock, which has a battery. */
  | { readonly type: 'machine.reset'; readonly at: number }
  /** The firmware found a shutdown code in CMOS: the bootstrap processor goes on where the pointer at 40:67h says. */
  | { readonly type: 'firmware.resumed'; readonly code: number; readonly registers: RegisterDelta }
  /** The firmware set up the devices, as ahead of the first boot. */
  | { readonly type: 'firmware.initialized'; readonly at: number }
  /** The firmware loaded the boot image again; registers are those that the boot protocol prescribes. */
  | { readonly type: 'firmware.booted'; readonly registers: RegisterDelta }
  /** The session is over: the guest's own status, a reset, a shutdown, a halt that nothing can end. */
  | { readonly type: 'machine.ended'; readonly reason: EndReason; readonly status: number };

export type EndReason = 'debug-exit' | 'reset' | 'shutdown' | 'halted-forever';

export type MachineEvent = CpuEvent | SvmEvent | MachineWideEvent | DeviceEvent | ParavirtEvent;
export type EventType = MachineEvent['type'];
export type EventOf<Type extends EventType> = Extract<MachineEvent, { readonly type: Type }>;

/** Those that tell what they change of a vCPU's registers. */
export type RegisterEvent = Extract<MachineEvent, { readonly registers: RegisterDelta }>;

/** Completes an event that nobody has seen yet with what its commit changes of the registers. */
export function withRegisters(event: RegisterEvent, registers: RegisterDelta): RegisterEvent {
  const incomplete: { registers: RegisterDelta } = event;
  incomplete.registers = registers;
  return event;
}

/**
 * Every event type with its fields, in the order in which the tape keeps them. The position of a type in this table is
 * its number on the tape: append only, and raise the format version for any other change.
 */
export const EVENT_FIELDS: FieldTable<MachineEvent> = {
  'cpu.ran': ['registers'],
  'cpu.exception': ['vector', 'errorCode', 'registers'],
  'cpu.interrupt': ['vector', 'source', 'registers'],
  'cpu.system': ['mnemonic', 'registers'],
  'cpu.control': ['register', 'value', 'registers'],
  'cpu.msr': ['msr', 'value', 'registers'],
  'cpu.msr-unknown': ['msr', 'write', 'value'],
  'cpu.halted': ['registers'],
  'cpu.woke': ['registers'],
  'cpu.pended': ['what', 'registers'],
  'cpu.shutdown': ['registers'],
  'cpu.task-switched': ['selector', 'cause', 'vector', 'errorCode', 'registers'],
  'svm.vmrun': ['vmcb', 'asid', 'words', 'registers'],
  'svm.vmexit': ['vmcb', 'code', 'info1', 'info2', 'intInfo', 'words', 'registers'],
  'svm.injected': ['kind', 'vector', 'errorCode', 'registers'],
  'svm.gif': ['set', 'registers'],
  'svm.vmload': ['vmcb', 'words', 'registers'],
  'svm.vmsave': ['vmcb', 'words', 'registers'],
  'svm.invlpga': ['linear', 'asid', 'registers'],
  'svm.stale': ['vmcb', 'clean', 'ignored'],
  'avic.written': ['offset', 'value', 'registers'],
  'avic.doorbell': ['registers'],
  'avic.acknowledged': ['vector', 'registers'],
  'input.boot': ['imageDigest', 'commandLine', 'registers'],
  'input.serial': ['data'],
  'input.clock': ['unixSeconds'],
  'input.entropy': ['seed'],
  'input.turn': ['to', 'until'],
  'input.hold': ['target', 'until'],
  'input.skew': ['target', 'ticks'],
  'entropy.drawn': ['value'],
  'time.skipped': ['nanoseconds'],
  'vcpu.scheduled': ['until'],
  'bus.unclaimed': ['space', 'address', 'size', 'write', 'value'],
  'machine.ended': ['reason', 'status'],
  'input.nmi': [],
  'cpu.reset': ['registers'],
  'machine.reset': ['at'],
  'firmware.resumed': ['code', 'registers'],
  'firmware.initialized': ['at'],
  'firmware.booted': ['registers'],
  'input.debugger-registers': ['target', 'changes'],
  'input.debugger-msr': ['target', 'msr', 'value'],
  'input.debugger-memory': ['address', 'data'],
  ...DEVICE_EVENT_FIELDS,
  ...PARAVIRT_EVENT_FIELDS,
  'input.console': ['data'],
  ...VIRTIO_EVENT_FIELDS,
};

/** The virtualization level that ran when an event happened: L1 is the hypervisor, L2 its guest. */
export type Level = 1 | 2;

/** An event with its envelope, as the machine states it. */
export interface StatedEvent {
  /** Instructions that retired with this event: the length of a run, 1 for an instruction that is an event, else 0. */
  readonly retired: number;
  readonly vcpu: number;
  /** The level that was running when the event began. */
  readonly level: Level;
  readonly event: MachineEvent;
}

/** Receives every event in order, after it was applied: the recorder, the replayer's comparer, a test's array. */
export type EventSink = (stated: StatedEvent) => void;

export const isInput = (event: MachineEvent): boolean => event.type.startsWith('input.');

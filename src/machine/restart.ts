/**
 * How the machine starts again: INIT and RESET as the chip set drives them, and the firmware's part at the reset vector.
 *
 * There is no firmware to execute, for the machine boots its image straight. So what a BIOS does is done here, as events
 * of its own: it goes on where a program asked it to (`boot/warm-start.ts`), or sets up the devices and loads the boot
 * image again, over RAM that is otherwise kept. What loading writes follows from the image, so it is in no event.
 * Source: APM vol.2 §14.1 Processor Initialization; 82371AB (PIIX4) and ICH data sheets, INIT# and reset control.
 */
import type { Board } from './boot/board.js';
import { handedOverRegisters } from './boot/firmware.js';
import { loadBootImage } from './boot/load-image.js';
import { endsInterrupt, isWarmStart, warmStartRegisters } from './boot/warm-start.js';
import type { MachineConfig } from './config.js';
import type { CpuProfile } from './cpu/cpuid.js';
import { takesInit } from './cpu/interrupts.js';
import type { SlotReader } from './cpu/mode.js';
import type { NestedVirtualization } from './cpu/nested-virtualization.js';
import { BOOTSTRAP_VCPU } from './cpu/reset.js';
import type { DeviceBus } from './device-bus.js';
import { type CpuSignal, type Decision, type MachineRequest, settle } from './devices/devices.js';
import { SHUTDOWN_CODE, shutdownCode } from './devices/rtc-mc146818.js';
import { invariant } from './errors.js';
import type { EndReason, MachineEvent } from './events.js';
import { Activity, Boundary, encodeDelta, R, type Slot } from './layout/cpu-state.js';
import type { PhysicalMemory } from './mmu/memory.js';
import type { KvmInterface } from './paravirt/kvm.js';
import { type MachineState, powerOnRegisters } from './reduce.js';
import { type Nanoseconds, u64 } from './units.js';
import type { Engine } from './wasm/engine.js';

export interface BootImage {
  /** The image, or a package of it and what goes with it (`boot/boot-package.ts`). */
  readonly bytes: Uint8Array;
  /** Content digest, as the tape names the image. */
  readonly digest: string;
  readonly commandLine: string;
}

/** What starting again needs of the machine. */
export interface RestartHost {
  readonly config: MachineConfig;
  readonly profile: CpuProfile;
  readonly nested: NestedVirtualization;
  readonly board: Board;
  readonly memory: PhysicalMemory;
  readonly state: MachineState;
  readonly engine: Engine;
  readonly paravirt: KvmInterface | undefined;
  readonly vcpu: number;
  readonly now: Nanoseconds;
  stateEvent(event: MachineEvent, retired: 0 | 1, vcpu?: number): void;
  apply(decision: Decision): void;
  readonly bus: DeviceBus;
  giveTurn(vcpu: number): void;
  end(reason: EndReason, status: number): void;
}

const PORT = { MASTER_PIC: 0x20, CMOS_INDEX: 0x70, CMOS_DATA: 0x71, SLAVE_PIC: 0xa0 } as const;
const NMI_MASK = 0x80;
const END_OF_INTERRUPT = 0x20n;

export class Restart {
  private image: BootImage | undefined;

  constructor(private readonly host: RestartHost) {}

  /** The bytes to load when the machine boots again: those that its state names. */
  keepImage(image: BootImage): void {
    const { boot } = this.host.state;
    invariant(boot?.imageDigest === image.digest, 'an image is kept for the machine that booted it');
    this.image = image;
  }

  /** Does what the guest asked of the machine, its instruction being complete. */
  grant(request: MachineRequest): void {
    switch (request.kind) {
      case 'end':
        this.host.end(request.reason, request.status);
        return;
      case 'reset':
        this.reset();
        return;
      case 'init':
        this.init();
        return;
    }
  }

  /** The current vCPU has shut down. The chip set answers with INIT, which a processor that holds INITs never takes. */
  shutDown(): void {
    const { host } = this;
    const recovers = host.config.reset === 'boot' && takesInit(readerOf(host.state, host.vcpu), host.nested);
    if (recovers) this.signalInit(host.state.vcpus.keys());
    else host.end('shutdown', 0);
  }

  /** The bootstrap processor is at the reset vector after an INIT: the firmware looks why. */
  atResetVector(): void {
    const { host } = this;
    const code = shutdownCode(host.state.devices.rtc);
    if (isWarmStart(code)) {
      this.forgetShutdownCode();
      if (endsInterrupt(code)) {
        host.bus.writePort(PORT.SLAVE_PIC, 1, END_OF_INTERRUPT);
        host.bus.writePort(PORT.MASTER_PIC, 1, END_OF_INTERRUPT);
      }
      const registers = encodeDelta(warmStartRegisters(host.memory));
      host.stateEvent({ type: 'firmware.resumed', code, registers }, 0);
    } else if (host.config.reset === 'boot') {
      if (code !== 0) this.forgetShutdownCode();
      this.bootAgain();
    } else host.end('reset', 0);
  }

  /** A session that ends with resets does so at once where all that would follow is a boot. */
  private init(): void {
    const { host } = this;
    const boots = !isWarmStart(shutdownCode(host.state.devices.rtc));
    const ends = boots && host.config.reset === 'end' && takesInit(readerOf(host.state, BOOTSTRAP_VCPU), host.nested);
    if (ends) host.end('reset', 0);
    else this.signalInit(host.state.vcpus.keys());
  }

  private signalInit(vcpus: Iterable<number>): void {
    const signals = Array.from(vcpus, (vcpu): CpuSignal => ({ vcpu, kind: 'init', vector: 0 }));
    this.host.apply({ events: [], signals, request: null });
  }

  /** RESET, of everything but RAM and the clock. */
  private reset(): void {
    const { host } = this;
    const { state, paravirt, profile } = host;
    if (host.config.reset === 'end') {
      host.end('reset', 0);
      return;
    }
    host.giveTurn(BOOTSTRAP_VCPU);
    for (const vcpu of state.vcpus.keys()) {
      paravirt?.settleEoi(vcpu);
      paravirt?.reset(vcpu);
      const registers = encodeDelta(changedRegisters(state, vcpu, resetValues(profile, vcpu, host.now)));
      host.stateEvent({ type: 'cpu.reset', registers }, 0, vcpu);
    }
    host.stateEvent({ type: 'machine.reset', at: host.now }, 0);
    this.bootAgain();
  }

  /** An ordinary boot: devices, processors, image. */
  private bootAgain(): void {
    const { host, image } = this;
    const { state } = host;
    if (state.boot === null) {
      host.end('reset', 0);
      return;
    }
    invariant(image !== undefined, 'a machine that boots again was given its image');
    this.signalInit([...state.vcpus.keys()].filter((vcpu) => needsInit(readerOf(state, vcpu), vcpu)));
    host.stateEvent({ type: 'firmware.initialized', at: host.now }, 0);
    const entry = loadBootImage(host.memory, host.board, image.bytes, image.commandLine);
    const registers = encodeDelta(
      changedRegisters(state, BOOTSTRAP_VCPU, [...handedOverRegisters(host.profile), ...entry]),
    );
    host.stateEvent({ type: 'firmware.booted', registers }, 0);
    host.engine.flush();
    host.apply(settle(state.devices, host.now));
  }

  /** As a program writes to CMOS memory; the mask of the NMI, which shares the port, stays. */
  private forgetShutdownCode(): void {
    const { host } = this;
    const mask = host.state.devices.rtc.nmiMasked ? NMI_MASK : 0;
    host.bus.writePort(PORT.CMOS_INDEX, 1, BigInt(SHUTDOWN_CODE | mask));
    host.bus.writePort(PORT.CMOS_DATA, 1, 0n);
  }
}

const readerOf = ({ vcpus }: MachineState, vcpu: number): SlotReader => ({
  get: (slot) => vcpus[vcpu]?.registers[slot] as bigint,
});

/** An application processor that does not wait for its start-up interrupt, nor will because of an INIT that is pending. */
const needsInit = (cpu: SlotReader, vcpu: number): boolean =>
  vcpu !== BOOTSTRAP_VCPU &&
  cpu.get(R.activity) !== Activity.WAIT_FOR_SIPI &&
  (cpu.get(R.boundary) & Boundary.INIT_PENDING) === 0n;

/** Registers after RESET; the time-stamp counter starts at zero. */
const resetValues = (profile: CpuProfile, vcpu: number, now: Nanoseconds): [Slot, bigint][] => [
  ...powerOnRegisters(profile, vcpu).map((value, slot): [Slot, bigint] => [slot as Slot, value]),
  [R.tscBase, u64(-BigInt(now))],
];

const changedRegisters = (
  state: MachineState,
  vcpu: number,
  values: Iterable<readonly [Slot, bigint]>,
): readonly (readonly [Slot, bigint])[] =>
  [...new Map(values)].filter(([slot, value]) => readerOf(state, vcpu).get(slot) !== value);

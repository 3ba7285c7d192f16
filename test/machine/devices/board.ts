/** The devices on their wires, driven as the machine drives them. */
import type { CpuSignal, Decision, DeviceEvent, DevicesState } from '../../../src/machine/devices/devices.js';
import * as devices from '../../../src/machine/devices/devices.js';
import { LAPIC } from '../../../src/machine/devices/local-apic-state.js';
import { nanoseconds } from '../../../src/machine/units.js';

export const LOCAL_APIC_PAGE = 0xfee0_0000;
const IO_APIC_PAGE = 0xfec0_0000;
const MEBIBYTE = 2 ** 20;

export class Board {
  readonly state: DevicesState;
  readonly events: DeviceEvent[] = [];
  signals: CpuSignal[] = [];
  request: Decision['request'] = null;
  now = nanoseconds(0);

  constructor(vcpus = 1, more: { readonly hpetMessages?: boolean } = {}) {
    this.state = devices.initialDevices({ ramBytes: 128 * MEBIBYTE, vcpus, ...more });
    for (let vcpu = 0; vcpu < vcpus; vcpu += 1) this.lapic(vcpu, LAPIC.SVR, 0x1ff);
  }
  apply(decision: Decision | undefined): boolean {
    if (decision === undefined) return false;
    for (let next: Decision = decision; ; next = devices.settle(this.state, this.now)) {
      for (const event of next.events) devices.reduceDevices(this.state, event);
      this.events.push(...next.events);
      this.signals.push(...next.signals);
      this.request ??= next.request;
      if (next === devices.NO_DECISION && next !== decision) return true;
      if (next === devices.NO_DECISION && devices.settle(this.state, this.now) === devices.NO_DECISION) return true;
    }
  }
  out(port: number, value: number, size = 1): boolean {
    return this.apply(devices.decidePortWrite(this.state, port, value, size, this.now));
  }
  in(port: number, size = 1): number | undefined {
    const read = devices.decidePortRead(this.state, port, size, this.now);
    if (read !== undefined) this.apply({ events: read.events, signals: [], request: null });
    return read?.value;
  }
  store(vcpu: number, address: number, value: number): boolean {
    return this.apply(devices.decideMmioWrite(this.state, vcpu, address, value, 4, this.now));
  }
  load(vcpu: number, address: number): number | undefined {
    return devices.decideMmioRead(this.state, vcpu, address, 4, this.now)?.value;
  }
  /** A write of 64 bits, which the machine splits where no device takes it whole. */
  storeWide(address: number, low: number, high: number): void {
    const whole = devices.decideWideMmioWrite(this.state, 0, address, low, high, this.now);
    if (this.apply(whole)) return;
    this.store(0, address, low);
    this.store(0, address + 4, high);
  }
  lapic(vcpu: number, register: number, value: number): void {
    this.store(vcpu, LOCAL_APIC_PAGE + register, value);
  }
  redirect(pin: number, low: number, high = 0): void {
    for (const [index, value] of [
      [0x11 + 2 * pin, high],
      [0x10 + 2 * pin, low],
    ] as const) {
      this.store(0, IO_APIC_PAGE, index);
      this.store(0, IO_APIC_PAGE + 0x10, value);
    }
  }
  /** The 8259 pair at vectors 20h and 28h, all unmasked; the timer at 100 ticks in mode 2. */
  initializePIC(): void {
    for (const [port, value] of [
      [0x20, 0x11],
      [0x21, 0x20],
      [0x21, 0x04],
      [0x21, 0x01],
      [0xa0, 0x11],
      [0xa1, 0x28],
      [0xa1, 0x02],
      [0xa1, 0x01],
    ] as const) {
      this.out(port, value);
    }
  }
  startTimer(control = 0x34): void {
    this.out(0x43, control);
    this.out(0x40, 100);
    this.out(0x40, 0);
  }
  jump(): void {
    const next = devices.nextDeadline(this.state);
    if (next === undefined) throw new Error('no deadline');
    this.now = next;
    this.apply(devices.decideDeadline(this.state, this.now));
  }
  pending(vcpu = 0) {
    return devices.cpuInterruptPending(this.state, vcpu);
  }
  acknowledge(vcpu = 0): number {
    const { vector, events } = devices.decideAcknowledge(this.state, vcpu);
    this.apply({ events, signals: [], request: null });
    return vector;
  }
}

/**
 * Pages that the host has taken away, and asynchronous page faults: a guest that misses such a page is told, goes on with
 * something else, and is told again when the page is there.
 *
 * - "Page not present" comes as #PF with a token in CR2 and a flag in the guest's RAM; for L2 as a #VMEXIT. Where it cannot
 *   come, the vCPU waits; what interrupts it may, does.
 * - "Page ready" comes as an interrupt with the token in RAM, one at a time: the next when the guest has cleared the token
 *   and acknowledged.
 *
 * Only the processor's translated accesses miss pages: what it reads by physical address (page tables, VMCBs, permission
 * maps) and what L0 itself writes is brought in unseen.
 * Source: Linux, Documentation/virt/kvm/x86/msr.rst, MSR_KVM_ASYNC_PF_EN; what KVM does with a fault is from its x86.c,
 * kvm_can_do_async_pf and what stands around it.
 */
import { decideMessages } from '../devices/devices.js';
import { DELIVERY, softwareEnabled } from '../devices/local-apic-state.js';
import { Activity, R } from '../layout/cpu-state.js';
import { PAGE_BYTES, type SPA, sPA } from '../units.js';
import { rangeOf } from './absent-pages.js';
import { updateStructure } from './guest-ram.js';
import { type KvmHost, paravirtOf, registerOf, wake } from './host.js';
import type { PagesInput } from './host-input.js';
import type { MissContext, MissOutcome } from './interface.js';
import { AsyncPf, asyncPfWorks } from './msr.js';
import { type ParavirtVcpu, paravirtVcpu, tokenOf } from './state.js';
import { ASYNC_PF_DATA, PAGE_NOT_PRESENT } from './structures.js';

/** Pages that a vCPU may be owed at a time (KVM, ASYNC_PF_PER_VCPU). */
const MOST_PAGES = 64;

export class AsyncPages {
  constructor(private readonly host: KvmHost) {}

  private readonly isAbsent = (page: SPA): boolean =>
    rangeOf(paravirtOf(this.host).absent, page / PAGE_BYTES) !== undefined;

  /** When the next page arrives; undefined when none is on its way. */
  get nextArrival(): number | undefined {
    return paravirtOf(this.host).arrivals[0]?.at;
  }

  /** After the host has taken pages or given them back. */
  changed({ address, bytes, present }: PagesInput): void {
    if (present) {
      const inside = (page: number): boolean => page * PAGE_BYTES >= address && page * PAGE_BYTES < address + bytes;
      for (const { page } of [...paravirtOf(this.host).arrivals]) if (inside(page)) this.arrive(page);
    } else this.host.engine.flush(); // no translation that is held may lead there
    this.watch();
  }

  /** The state is that of another moment. */
  restored(): void {
    this.watch();
  }

  /** Lets the pages arrive whose time has come. */
  arriveDue(): void {
    for (;;) {
      const next = paravirtOf(this.host).arrivals[0];
      if (next === undefined || next.at > this.host.now) return;
      this.arrive(next.page);
      this.watch();
    }
  }

  miss(vcpu: number, address: SPA, context: MissContext): MissOutcome {
    const it = this.vcpu(vcpu);
    const page = address / PAGE_BYTES;
    const isNew = it.missed.length + it.ready.length < MOST_PAGES && it.missed.every((missed) => missed.page !== page);
    const token = isNew && mayTell(it, context) ? tokenOf(vcpu, it.nextToken) : null;
    this.host.stateEvent({ type: 'paravirt.page-missed', vcpu, page, token, arrival: this.arrivalOf(page) }, 0);
    if (token === null) return 'wait';
    this.update(it, (data) => {
      data.flags = PAGE_NOT_PRESENT;
    });
    return { token };
  }

  /** Time passes until the page is there. Devices whose time comes meanwhile act after it. */
  wait(vcpu: number, address: SPA): void {
    const { host } = this;
    const page = address / PAGE_BYTES;
    const arrival = this.arrivalOf(page);
    host.stateEvent({ type: 'paravirt.page-missed', vcpu, page, token: null, arrival }, 0);
    const nanoseconds = arrival - host.now;
    if (nanoseconds > 0) host.stateEvent({ type: 'time.skipped', nanoseconds }, 0);
    this.arriveDue();
  }

  /** Tells a vCPU of pages that are ready, as far as it can hear it. */
  settle(vcpu: number): void {
    const it = this.vcpu(vcpu);
    for (;;) {
      const token = it.ready[0];
      if (token === undefined || !this.hears(vcpu)) return;
      this.host.stateEvent({ type: 'paravirt.page-ready', vcpu, token }, 0);
      this.update(it, (data) => {
        data.token = token;
      });
      const message = { vector: Number(it.asyncPfInterrupt), mode: DELIVERY.FIXED, level: false };
      this.host.apply(decideMessages(this.host.state.devices, [vcpu], message).decision);
    }
  }

  private arrive(page: number): void {
    const { host } = this;
    const { vcpus } = paravirtOf(host);
    const owed = vcpus.map(({ missed }) => missed.some((known) => known.page === page));
    host.stateEvent({ type: 'paravirt.page-arrived', page }, 0);
    for (const [vcpu, { awaited }] of vcpus.entries()) {
      if (awaited === page && registerOf(host, vcpu, R.activity) === Activity.PAGE_WAIT) wake(host, vcpu);
      if (owed[vcpu] === true) this.settle(vcpu);
    }
  }

  /** Whether "page ready" can come: the last one was read. */
  private hears(vcpu: number): boolean {
    const it = this.vcpu(vcpu);
    const apic = this.host.state.devices.localApics[vcpu];
    if (apic === undefined || !softwareEnabled(apic)) return false;
    const at = Number(it.asyncPf & AsyncPf.ADDRESS) + ASYNC_PF_DATA.fields.token.offset;
    return this.host.memory.read(sPA(at), 4) === 0n;
  }

  private update(it: ParavirtVcpu, change: Parameters<typeof updateStructure<typeof ASYNC_PF_DATA.fields>>[3]): void {
    updateStructure(this.host.memory, ASYNC_PF_DATA, it.asyncPf & AsyncPf.ADDRESS, change);
  }

  /** When an absent page is there, if it is asked for now. */
  private arrivalOf(page: number): number {
    const { absent, arrivals } = paravirtOf(this.host);
    const known = arrivals.find((arrival) => arrival.page === page);
    return known?.at ?? this.host.now + (rangeOf(absent, page)?.latency ?? 0);
  }

  /** The engine asks of every page that it has not yet translated, but only while some are absent. */
  private watch(): void {
    this.host.engine.isAbsent = paravirtOf(this.host).absent.length === 0 ? undefined : this.isAbsent;
  }

  private vcpu(vcpu: number): ParavirtVcpu {
    return paravirtVcpu(paravirtOf(this.host), vcpu);
  }
}

/** Whether the guest takes "page not present" here: L1 for L2 only when it has asked for it, and never without an IDT for #PF. */
function mayTell({ asyncPf }: ParavirtVcpu, { interruptible, cpl, guest, paging }: MissContext): boolean {
  if (!asyncPfWorks(asyncPf) || !interruptible) return false;
  if (cpl === 0 && (asyncPf & AsyncPf.SEND_ALWAYS) === 0n) return false;
  return guest ? (asyncPf & AsyncPf.AS_VMEXIT) !== 0n : paging;
}

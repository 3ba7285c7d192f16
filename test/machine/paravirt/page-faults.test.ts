import { describe, expect, it } from 'vitest';
import { Boundary, CR0, Flag } from '../../../src/machine/layout/cpu-state.js';
import { checkHostInput } from '../../../src/machine/paravirt/host-input.js';
import { AsyncPf, KvmMsr } from '../../../src/machine/paravirt/msr.js';
import { exceptionExit } from '../../../src/machine/svm/exit-code.js';
import { AREA, absent, IF, KvmMachine, WRMSR } from '../../support/kvm-machine.js';
import { CODE, DATA, LiveMachine, STACK_TOP, USER_SEGMENTS, VMCB_AT } from '../../support/live-machine.js';
import { GUEST_CODE, NestedMachine } from '../../support/nested-machine.js';

const LATENCY = 20_000;
const PAGE = 0x1000;
const READY = 0x60;
const EVERY_PAGE = 0xffff_ffffn;
/** `mov eax, [rdi]` */
const READ = '8b07';
/** `mov [rdi], eax` */
const WRITE = '8907';
const IRETQ = '48cf';
/** `cli; hlt`: nothing more happens. */
const END = 'fa f4';
/** `mov dword [AREA], 0`, the flags; `add rsp, 8`; `iretq` */
const FLAGS_READ = `c7042500002100 00000000 4883c408 ${IRETQ}`;
/** `mov dword [AREA+4], 0`, the token; `mov ecx, 4b564d07h; mov eax, 1; xor edx, edx; wrmsr`: acknowledged. */
const TOKEN_READ = `c7042504002100 00000000 b9074d564b b801000000 31d2 ${WRMSR}`;
/** `mov ecx, 80bh; xor eax, eax; wrmsr`: EOI of an x2APIC. */
const EOI = `b90b080000 31c0 ${WRMSR}`;

const WORKS = AsyncPf.ENABLED | AsyncPf.AS_INTERRUPT;

/** Runs `code` with RDI at `DATA`, whose page is absent, and interrupts on. */
function machine(code = READ, values: ConstructorParameters<typeof KvmMachine>[1] = {}): KvmMachine {
  const live = new KvmMachine().withoutPics();
  live.writeMsr(0x1b, 0xfee0_0d00n);
  live
    .put(CODE, `${code} ${END}`)
    .set({ rip: BigInt(CODE), rdi: BigInt(DATA), rax: 0n, rcx: 0n, rdx: 0n, rflags: IF, ...values });
  live.store(DATA, 4, 0x1234_5678n).host(absent(DATA, LATENCY));
  live.stated.length = 0;
  return live;
}

/** The guest wants to be told. */
function telling(code = READ, how: bigint = AsyncPf.SEND_ALWAYS, values = {}): KvmMachine {
  const live = machine(code);
  const [rax, rdi] = [live.get('rax'), live.get('rdi')];
  live.set({ rflags: 2n });
  live.writeMsr(KvmMsr.ASYNC_PF_INT, BigInt(READY));
  live.writeMsr(KvmMsr.ASYNC_PF_EN, BigInt(AREA) | WORKS | how);
  expect(live.read(AREA + 4, 4)).toBe(EVERY_PAGE);
  live.store(AREA + 4, 4, 0n);
  takeReady(live);
  live
    .put(CODE, `${code} ${END}`)
    .set({ rip: BigInt(CODE), rsp: BigInt(STACK_TOP), rax, rdi, activity: 0n, rflags: IF, ...values });
  live.stated.length = 0;
  return live;
}

/** Takes the interrupt that waits, without a handler. */
function takeReady(live: KvmMachine): void {
  live.machine.acknowledge();
  live.set({ rflags: 2n, activity: 0n });
  live.writeMsr(0x80b, 0n);
}

/** The local APIC's timer interrupts once, half-way to the page's arrival. */
function tick({ machine: { state } }: LiveMachine, vector: number): void {
  const [apic] = state.devices.localApics;
  if (apic === undefined) return;
  apic.lvt[0] = vector;
  apic.timerInitial = LATENCY / 4;
  apic.timerStart = 0;
  apic.timerDeadline = LATENCY / 2;
}

const types = (live: LiveMachine) =>
  live.events.map(({ type }) => type).filter((type) => /^(paravirt|cpu|time|svm)/.test(type));
const tokens = (live: KvmMachine) => live.eventsOf('paravirt.page-missed').map(({ token }) => token);

describe('a page that the host has taken away', () => {
  it('makes the vCPU wait while interrupts are off: time passes, and the instruction happens', () => {
    const live = machine(READ, { rflags: 2n });
    const { now } = live.machine;
    live.run();
    expect(live.get('rax')).toBe(0x1234_5678n);
    expect(types(live)).toEqual([
      ...['paravirt.page-missed', 'cpu.halted', 'time.skipped', 'paravirt.page-arrived', 'cpu.woke', 'cpu.halted'],
    ]);
    expect(live.machine.now).toBe(now + LATENCY + 3 * 10);
    expect(live.retired).toBeGreaterThan(0);
  });

  it('lets interrupts in while the vCPU waits, when they are on', () => {
    const live = machine();
    live.handle(0x40, `${EOI} ${IRETQ}`);
    const { now } = live.machine;
    tick(live, 0x40);
    live.run();
    expect(types(live).filter((type) => type !== 'cpu.msr' && type !== 'cpu.system')).toEqual([
      ...['paravirt.page-missed', 'cpu.halted', 'time.skipped', 'cpu.interrupt'],
      ...['paravirt.page-missed', 'cpu.halted', 'time.skipped', 'paravirt.page-arrived', 'cpu.woke', 'cpu.halted'],
    ]);
    expect(live.get('rax')).toBe(0x1234_5678n);
    expect(live.machine.now).toBe(now + LATENCY + 3 * 10);
  });

  it('is waited for as by HLT, at the instruction, until it is there', () => {
    const live = machine();
    live.run();
    expect(types(live)).toEqual([
      ...['paravirt.page-missed', 'cpu.halted', 'time.skipped', 'paravirt.page-arrived', 'cpu.woke', 'cpu.halted'],
    ]);
    expect([live.get('rax'), live.get('rip')]).toEqual([0x1234_5678n, BigInt(CODE + 4)]);
  });

  it.each<[string, string, object]>([
    ['a write', `${WRITE} ${READ}`, { rax: 0x77n }],
    ['a read-modify-write', '830705 8b07', {}],
    ['a read across its start', READ, { rdi: BigInt(DATA - 2) }],
    ['a fetch', 'ffe7', { rdi: BigInt(DATA + 0x800) }],
    ['a fetch across its start', 'ffe7', { rdi: BigInt(DATA - 2) }],
    ['a push', '50 58', { rsp: BigInt(DATA + 8) }],
    ['a string', 'f3a4', { rsi: BigInt(DATA - 8), rcx: 16n, rdi: BigInt(DATA + 0x2000) }],
    ['a vector', '0f2807', {}],
  ])('is missed by %s, once', (_what, code, values) => {
    const present = new KvmMachine();
    const live = machine(code, { rax: 5n, ...values });
    present.store(DATA, 4, 0x1234_5678n);
    // Code that a jump finds: `mov eax, 11223344h; hlt`.
    for (const each of [live, present]) {
      each.put(DATA + 0x800, 'b844332211 f4');
      if (code === 'ffe7') each.put(DATA - 2, 'b844332211 f4');
    }
    present.put(CODE, `${code} ${END}`).set({ rdi: BigInt(DATA), rax: 5n, rcx: 0n, rflags: 2n, ...values });
    present.run();
    live.run();
    expect(live.eventsOf('paravirt.page-missed')).toHaveLength(1);
    expect(live.vectors).toEqual([]);
    for (const name of ['rip', 'rax', 'rcx', 'rsi', 'rdi', 'rsp', 'xmm0'] as const) {
      expect([name, live.get(name)]).toEqual([name, present.get(name)]);
    }
    expect(live.memory.window(DATA - PAGE, 4 * PAGE)).toEqual(present.memory.window(DATA - PAGE, 4 * PAGE));
  });

  it('keeps no other page from being there, and none once it has come', () => {
    const live = machine(READ, { rdi: BigInt(DATA + PAGE) });
    live.run();
    expect(live.eventsOf('paravirt.page-missed')).toEqual([]);
    live.set({ rip: BigInt(CODE), rdi: BigInt(DATA), activity: 0n }).run();
    live.set({ rip: BigInt(CODE), activity: 0n }).run();
    expect(live.eventsOf('paravirt.page-missed')).toHaveLength(1);
    expect(live.machine.engine.isAbsent).toBeUndefined();
  });

  it('is missed though translations to it were held', () => {
    const live = new KvmMachine(`${READ} ${READ} ${READ}`, { rdi: BigInt(DATA), rflags: 2n });
    live.run(2);
    live.host(absent(DATA, LATENCY));
    live.run();
    expect(live.eventsOf('paravirt.page-missed')).toHaveLength(1);
  });

  it('is missed by code that runs on it, at its next instruction', () => {
    const live = new KvmMachine('eb04 9090 9090 ebf8', { rflags: 2n });
    for (let step = 0; step < 10; step++) live.run(1);
    live.host(absent(CODE, LATENCY));
    live.run(1);
    expect(live.eventsOf('paravirt.page-missed')).toMatchObject([{ page: CODE / PAGE }]);
  });

  it('is there for the tables that the processor walks', () => {
    const live = new KvmMachine(READ, { rdi: BigInt(DATA), rflags: 2n });
    live.host(absent(0x1000, LATENCY, 3 * PAGE));
    live.run();
    expect(live.eventsOf('paravirt.page-missed')).toEqual([]);
  });

  it('is not missed once the host has given it back', () => {
    const live = machine();
    live.host({ type: 'input.pages', address: DATA, bytes: PAGE, present: true, latency: 0 });
    live.run();
    expect(types(live)).toEqual(['cpu.halted']);
  });

  it('is waited for by the delivery of an interrupt, which happens once', () => {
    // The handler's stack is absent.
    const live = machine('90 90', { rsp: BigInt(DATA + 0x100) }).handle(0x40, 'f4');
    live.machine.apply({
      ...{ signals: [], request: null },
      events: [{ type: 'lapic.accepted', apic: 0, vector: 0x40, level: false }],
    });
    live.run();
    expect(live.vectors).toEqual([0x40]);
    expect(live.eventsOf('lapic.acknowledged')).toHaveLength(1);
    expect(types(live)).toEqual([
      ...['paravirt.page-missed', 'time.skipped', 'paravirt.page-arrived', 'cpu.interrupt', 'cpu.halted'],
    ]);
    expect(live.read(DATA + 0x100 - 40, 8)).toBe(BigInt(CODE));
  });

  it('is waited for by the delivery of an NMI, which is pending no longer', () => {
    const live = machine('90', { rsp: BigInt(DATA + 0x100), rflags: 2n, boundary: Boundary.NMI_PENDING });
    live.handle(2, IRETQ).run();
    expect(live.vectors).toEqual([2]);
    expect(live.eventsOf('paravirt.page-missed')).toHaveLength(1);
    expect(live.get('boundary')).toBe(0n);
  });

  it('is waited for by the delivery of an exception, whose CR2 and error code stay', () => {
    const live = machine(READ, { rdi: 0x4000_0000n, rsp: BigInt(DATA + 0x100) });
    live.run();
    expect(live.vectors).toEqual([14]);
    expect([live.get('cr2'), live.read(DATA + 0x100 - 48, 8)]).toEqual([0x4000_0000n, 0n]);
  });
});

describe('asynchronous page faults (Linux, kvm/x86/msr.rst, MSR_KVM_ASYNC_PF_EN)', () => {
  it('are told by #PF with a token in CR2, and by an interrupt with the token in RAM', () => {
    const live = telling().handle(14, 'f4').handle(READY, 'f4');
    live.run(1);
    expect(live.eventsOf('cpu.exception')).toMatchObject([{ vector: 14, errorCode: 0 }]);
    expect(live.get('cr2')).toBe(0x1000n);
    expect([live.read(AREA, 4), live.read(AREA + 4, 4)]).toEqual([1n, 0n]);
    expect(live.pushedRip).toBe(BigInt(CODE));
    live.set({ rflags: IF, activity: 1n });
    live.run();
    expect(live.vectors).toEqual([14, READY]);
    expect(live.read(AREA + 4, 4)).toBe(0x1000n);
  });

  it('let the guest go on meanwhile, and the access succeeds afterwards', () => {
    // The handler of #PF waits for the interrupt, whose handler reads the token and acknowledges.
    const live = telling().handle(14, `fb f4 ${FLAGS_READ}`).handle(READY, `${TOKEN_READ} ${EOI} ${IRETQ}`);
    live.run();
    expect(live.vectors).toEqual([14, READY]);
    expect(live.get('rax')).toBe(0x1234_5678n);
    expect([live.read(AREA, 4), live.read(AREA + 4, 4)]).toEqual([0n, 0n]);
  });

  it.each<[string, bigint, object, boolean]>([
    ['level 0 without the bit for it', 0n, {}, false],
    ['level 3', 0n, { ...USER_SEGMENTS, rflags: IF }, true],
    ['level 0 with the bit', AsyncPf.SEND_ALWAYS, {}, true],
    ['interrupts off', AsyncPf.SEND_ALWAYS, { rflags: 2n }, false],
    ['an interrupt shadow', AsyncPf.SEND_ALWAYS, { boundary: 1n }, false],
  ])('at %s', (_where, how, values, told) => {
    const live = telling(READ, how, values);
    live.run(1);
    expect(live.eventsOf('cpu.exception')).toHaveLength(told ? 1 : 0);
    expect(live.read(AREA, 4)).toBe(told ? 1n : 0n);
  });

  it('are not told without paging: there may be no handler', () => {
    const live = telling(READ, AsyncPf.SEND_ALWAYS, {
      ...{ cr0: CR0.PE | CR0.ET, efer: 0n, cr4: 0n, cs: 0xffff_ffff_0c9b_0008n },
    });
    live.run();
    expect(live.eventsOf('cpu.exception')).toEqual([]);
    expect(live.get('rax')).toBe(0x1234_5678n);
  });

  it('are not told before the interrupt is asked for', () => {
    const live = machine();
    live.set({ rflags: 2n });
    live.writeMsr(KvmMsr.ASYNC_PF_EN, BigInt(AREA) | AsyncPf.ENABLED | AsyncPf.SEND_ALWAYS);
    live.put(CODE, `${READ} ${END}`).set({ rip: BigInt(CODE), rflags: IF, activity: 0n });
    live.run();
    expect(live.eventsOf('cpu.exception')).toEqual([]);
    expect(live.read(AREA + 4, 4)).toBe(0n);
  });

  it('are told one at a time: the next when the token is cleared and acknowledged', () => {
    // The handler of #PF goes on with the next page.
    const next = `4881c700100000 ${FLAGS_READ}`;
    const live = telling(READ).handle(14, next).handle(READY, `${EOI} ${IRETQ}`);
    live.host(absent(DATA, LATENCY, 3 * PAGE));
    live.run();
    expect(tokens(live)).toEqual([0x1000, 0x2000, 0x3000]);
    live.put(CODE, 'f4').set({ rip: BigInt(CODE), activity: 0n, rflags: IF });
    live.run();
    expect(live.vectors.filter((vector) => vector === READY)).toHaveLength(1);
    expect(live.read(AREA + 4, 4)).toBe(0x1000n);
    live.set({ rflags: 2n, activity: 0n }).writeMsr(KvmMsr.ASYNC_PF_ACK, 1n); // the token is still there
    expect(live.eventsOf('paravirt.page-ready')).toHaveLength(1);
    live.store(AREA + 4, 4, 0n).writeMsr(KvmMsr.ASYNC_PF_ACK, 0n);
    expect(live.eventsOf('paravirt.page-ready')).toHaveLength(1);
    live.writeMsr(KvmMsr.ASYNC_PF_ACK, 1n);
    expect(live.read(AREA + 4, 4)).toBe(0x2000n);
    live.store(AREA + 4, 4, 0n).writeMsr(KvmMsr.ASYNC_PF_ACK, 1n);
    expect(live.read(AREA + 4, 4)).toBe(0x3000n);
  });

  it('of a page that was missed before make the vCPU wait', () => {
    const live = telling().handle(14, FLAGS_READ).handle(READY, `${TOKEN_READ} ${EOI} ${IRETQ}`);
    live.run();
    expect(types(live).filter((type) => type !== 'cpu.msr' && type !== 'cpu.system')).toEqual([
      ...['paravirt.page-missed', 'cpu.exception', 'paravirt.page-missed', 'cpu.halted', 'time.skipped'],
      ...['paravirt.page-arrived', 'cpu.woke', 'paravirt.page-ready', 'cpu.interrupt', 'cpu.halted'],
    ]);
    expect(live.get('rip')).toBe(BigInt(CODE + 4));
  });

  it('are at most 64 at a time; then the vCPU waits', () => {
    const next = `4881c700100000 ${FLAGS_READ}`;
    const live = telling(READ).handle(14, next).handle(READY, 'f4');
    const start = 0x80_0000;
    live.host(absent(start, 1_000_000, 80 * PAGE)).set({ rdi: BigInt(start) });
    live.run(64 * 4 + 1);
    const missed = live.eventsOf('paravirt.page-missed');
    expect(missed.filter(({ token }) => token !== null)).toHaveLength(64);
    expect(missed.at(-1)?.token).toBeNull();
    expect(live.get('rdi')).toBe(BigInt(start + 64 * PAGE));
  });

  it('that are outstanding when they are disabled are forgotten', () => {
    const live = telling().handle(14, 'f4');
    live.run(1);
    live.set({ rflags: 2n }).writeMsr(KvmMsr.ASYNC_PF_EN, 0n);
    live.put(CODE, `90 ${END}`).set({ rip: BigInt(CODE), rflags: IF, activity: 0n });
    live.host({ type: 'input.stolen', nanoseconds: LATENCY });
    live.run();
    expect(live.eventsOf('paravirt.page-arrived')).toHaveLength(1);
    expect(live.eventsOf('paravirt.page-ready')).toEqual([]);
    expect(live.vectors).toEqual([14]);
  });

  it('wait for an APIC that is disabled by software', () => {
    const live = telling().handle(14, 'f4');
    live.run(1);
    live.set({ rflags: 2n }).writeMsr(0x80f, 0xffn);
    live.host({ type: 'input.stolen', nanoseconds: LATENCY });
    live
      .put(CODE, `90 ${END}`)
      .set({ rip: BigInt(CODE), activity: 0n })
      .run();
    expect(live.eventsOf('paravirt.page-ready')).toEqual([]);
    live.writeMsr(0x80f, 0x1ffn);
    live.writeMsr(KvmMsr.ASYNC_PF_ACK, 1n);
    expect(live.eventsOf('paravirt.page-ready')).toMatchObject([{ token: 0x1000 }]);
  });

  it('that are outstanding are over when the host gives the page back', () => {
    const live = telling().handle(14, 'f4');
    live.run(1);
    live.host({ type: 'input.pages', address: DATA, bytes: PAGE, present: true, latency: 0 });
    expect(live.eventsOf('paravirt.page-ready')).toMatchObject([{ token: 0x1000 }]);
    expect(live.machine.state.paravirt?.arrivals).toEqual([]);
  });

  it('are told anew, with another token, when the page is taken again', () => {
    const live = telling().handle(14, `fb f4 ${FLAGS_READ}`).handle(READY, `${TOKEN_READ} ${EOI} ${IRETQ}`);
    live.run();
    live.host(absent(DATA, LATENCY));
    live.set({ rip: BigInt(CODE), rflags: IF, activity: 0n }).run();
    expect(tokens(live)).toEqual([0x1000, 0x2000]);
  });

  it('whose own delivery misses a page wait for that one', () => {
    const live = telling(READ, AsyncPf.SEND_ALWAYS, { rsp: BigInt(DATA + 0x2100) }).handle(14, 'f4');
    live.host(absent(DATA + 2 * PAGE, LATENCY));
    live.run(1);
    expect(live.vectors).toEqual([14]);
    expect(tokens(live)).toEqual([0x1000, null]);
    expect(live.get('cr2')).toBe(0x1000n);
  });
});

describe('pages that L2 misses', () => {
  const V_INTR_MASKING = 1n << 24n;

  /** L2 reads the absent page; physical interrupts may reach L1 meanwhile. */
  function nested(how: bigint, masked = V_INTR_MASKING): NestedMachine {
    const live = new NestedMachine(READ, { rdi: BigInt(DATA), rflags: IF }, undefined, undefined, {
      paravirt: 'kvm',
    }).nestedPaging();
    live.machine.bus.writePort(0x21, 1, 0xffn);
    live.machine.paravirt?.writeMsr(0, KvmMsr.ASYNC_PF_INT, BigInt(READY));
    live.machine.paravirt?.writeMsr(0, KvmMsr.ASYNC_PF_EN, BigInt(AREA) | WORKS | AsyncPf.SEND_ALWAYS | how);
    live.memory.write((AREA + 4) as never, 4, 0n);
    live.machine.acknowledge();
    live.machine.bus.write(0xfee0_00b0 as never, 4, 0n);
    live.vmcb.intControl = masked;
    live.intercept('INTR');
    live.write(DATA, 0x55n);
    live.machine.deliver(absent(DATA, LATENCY));
    live.stated.length = 0;
    return live;
  }

  it('end in #VMEXIT(#PF) with the token when L1 has asked for that, intercepted or not', () => {
    const live = nested(AsyncPf.AS_VMEXIT);
    const { code, info1, info2, intInfo } = live.exit();
    expect({ code, info1, info2, intInfo }).toEqual({
      ...{ code: exceptionExit(14), info1: 0n, info2: 0x1000n, intInfo: 0n },
    });
    expect(live.vmcb.rip).toBe(BigInt(GUEST_CODE));
    expect(live.memory.read(AREA as never, 4)).toBe(1n);
    expect(live.vectors).toEqual([]);
  });

  it('are waited for otherwise; an interrupt still ends L2’s turn', () => {
    const live = nested(0n);
    tick(live, 0x40);
    const exit = live.exit();
    expect(exit.code).toBe(0x60n);
    expect(live.vmcb.rip).toBe(BigInt(GUEST_CODE));
  });

  it('are there when L2 comes back', () => {
    const live = nested(0n);
    expect(live.exit().code).toBe(0x78n);
    expect(live.get('rax') === BigInt(VMCB_AT) && live.vmcb.rax).toBe(0x55n);
  });

  it('let the vCPU wait while L1 has interrupts off', () => {
    const live = nested(AsyncPf.AS_VMEXIT);
    live.set({ rflags: 2n });
    expect(live.exit().code).toBe(0x78n);
    expect(live.events.find(({ type }) => type === 'paravirt.page-missed')).toMatchObject({ token: null });
  });
});

describe('inputs of the host', () => {
  const config = { ...new KvmMachine().machine.config };

  it.each([
    absent(0x800, 1),
    absent(0, 1, 0x800),
    absent(0, 1, 0),
    absent(-0x1000, 1),
    absent(16 << 20, 1),
    absent(0, 0),
    absent(0, 1.5),
    absent(0, 1e15),
    { type: 'input.stolen', nanoseconds: 0 } as const,
    { type: 'input.stolen', nanoseconds: 1e15 } as const,
  ])('%j is refused', (input) => {
    expect(() => checkHostInput(config, input)).toThrow(input.type);
    expect(() => new KvmMachine().host(input)).toThrow(input.type);
  });

  it('are refused by bare hardware', () => {
    const { machine: bare } = new LiveMachine('f4');
    for (const input of [absent(0, 1), { type: 'input.paused' } as const]) {
      expect(() => bare.deliver(input)).toThrow('--paravirt kvm');
    }
  });

  it('that take pages do not change what runs, but for the time', () => {
    const code = `${READ} 01c3 4881c700040000 e2f3 fa`; // reads, adds, goes 1 KiB on, loops
    const [live, present] = [true, false].map((taken) => {
      const each = new KvmMachine(code, {
        rdi: BigInt(DATA),
        rcx: 64n,
        rbx: 0n,
        rflags: taken ? IF : 2n,
      }).withoutPics();
      for (let at = 0; at < 64; at++) each.store(DATA + 0x400 * at, 4, BigInt(at * at));
      if (taken) each.host(absent(DATA, LATENCY, 16 * PAGE));
      each.run();
      return each;
    }) as [KvmMachine, KvmMachine];
    expect(live.get('rbx')).toBe(present.get('rbx'));
    expect(live.get('rflags') & ~Flag.IF).toBe(present.get('rflags'));
    expect(live.eventsOf('paravirt.page-arrived')).toHaveLength(16);
    expect(live.machine.now - present.machine.now).toBe(16 * LATENCY);
  });
});

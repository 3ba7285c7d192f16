/** A guest with a virtual APIC on one processor: the filter, priorities, ends of interrupts, what VMRUN makes of it. */
import { describe, expect, it } from 'vitest';
import { Boundary, Flag } from '../../../src/machine/layout/cpu-state.js';
import { IntControl } from '../../../src/machine/layout/vmcb.js';
import { behaviourAt } from '../../../src/machine/svm/avic-registers.js';
import { ExitCode } from '../../../src/machine/svm/exit-code.js';
import { sPA } from '../../../src/machine/units.js';
import {
  APIC_PAGE,
  AvicMachine,
  BACKING_PAGE,
  ENABLE,
  IRR,
  ISR,
  load,
  store,
  TMR,
} from '../../support/avic-machine.js';
import { GUEST_CODE } from '../../support/nested-machine.js';
import { nestedTables } from '../../support/nested-tables.js';

const [TPR, PPR, EOI] = [0x80, 0xa0, 0xb0];
const WRITE = 1n << 32n;
const RIP_BEHIND_STORE = BigInt(GUEST_CODE + 11);
/** MOV CR8, RAX; MOV RAX, CR8 */
const [SET_CR8, GET_CR8] = ['440f22c0', '440f20c0'];
const STI = 'fb';
const INC_ECX = 'ffc1';

const noAcceleration = (offset: number, write: boolean, vector = 0) => ({
  code: ExitCode.AVIC_NOACCEL,
  info1: BigInt(offset) | (write ? WRITE : 0n),
  info2: BigInt(vector),
});

describe('the permissions filter (APM vol.2 §15.29.3.1 Virtual APIC Register Accesses, table 15-22)', () => {
  /** Offset, last offset, read, write: A allowed, T trap, F fault, + accelerated. */
  const TABLE: readonly (readonly [name: string, first: number, last: number, access: string])[] = [
    ['below the ID', 0x000, 0x010, 'AA'],
    ['APIC ID', 0x020, 0x020, 'AT'],
    ['version', 0x030, 0x030, 'AF'],
    ['40h to 70h', 0x040, 0x070, 'AA'],
    ['TPR', 0x080, 0x080, 'A+'],
    ['APR', 0x090, 0x090, 'FF'],
    ['PPR', 0x0a0, 0x0a0, 'AF'],
    ['EOI', 0x0b0, 0x0b0, 'A+'],
    ['remote read', 0x0c0, 0x0c0, 'AT'],
    ['logical destination', 0x0d0, 0x0d0, 'AT'],
    ['destination format', 0x0e0, 0x0e0, 'AT'],
    ['spurious interrupt vector', 0x0f0, 0x0f0, 'AT'],
    ['ISR', 0x100, 0x170, 'AF'],
    ['TMR', 0x180, 0x1f0, 'AF'],
    ['IRR', 0x200, 0x270, 'AF'],
    ['error status', 0x280, 0x280, 'AT'],
    ['290h to 2F0h', 0x290, 0x2f0, 'AA'],
    ['ICR low', 0x300, 0x300, 'A+'],
    ['ICR high', 0x310, 0x310, 'AA'],
    ['timer LVT', 0x320, 0x320, 'AT'],
    ['thermal LVT', 0x330, 0x330, 'AT'],
    ['performance counter LVT', 0x340, 0x340, 'AT'],
    ['LINT0 LVT', 0x350, 0x350, 'AT'],
    ['LINT1 LVT', 0x360, 0x360, 'AT'],
    ['error LVT', 0x370, 0x370, 'AT'],
    ['timer initial count', 0x380, 0x380, 'AT'],
    ['timer current count', 0x390, 0x390, 'FF'],
    ['3A0h to 3D0h', 0x3a0, 0x3d0, 'AA'],
    ['timer divide configuration', 0x3e0, 0x3e0, 'AT'],
    ['3F0h', 0x3f0, 0x3f0, 'AA'],
    ['extended feature', 0x400, 0x400, 'FF'],
    ['extended control', 0x410, 0x410, 'FF'],
    ['specific EOI', 0x420, 0x420, 'FF'],
    ['430h to 470h', 0x430, 0x470, 'AA'],
    ['interrupt enable', 0x480, 0x4f0, 'FF'],
    ['extended interrupt LVTs, without CPUID EDX[27]', 0x500, 0x530, 'FF'],
    ['reserved', 0x540, 0xff0, 'FF'],
  ];
  const LETTERS = { allowed: 'A', trap: 'T', fault: 'F', accelerated: '+' } as const;

  it('covers the page', () => {
    const covered = TABLE.flatMap(([, first, last]) =>
      Array.from({ length: (last - first) / 16 + 1 }, (_, index) => first + 16 * index),
    );
    expect(covered).toEqual(Array.from({ length: 256 }, (_, index) => 16 * index));
  });

  it.each(TABLE)('%s', (_name, first, last, access) => {
    for (let offset = first; offset <= last + 15; offset++) {
      expect([behaviourAt(offset, false), behaviourAt(offset, true)].map((each) => LETTERS[each]).join('')).toBe(
        access,
      );
    }
  });

  it.each(TABLE.map(([name, first, , access]) => [name, first, access[0]] as const))('read of %s', (_, at, kind) => {
    const live = new AvicMachine(load(at)).setRegister(at, 0x1234_5678);
    live.vmcb.rflags = 2n;
    const exit = live.exit();
    if (kind === 'F') {
      expect(exit).toMatchObject(noAcceleration(at, false));
      expect(live.vmcb.rip).toBe(BigInt(GUEST_CODE));
    } else {
      expect(exit.code).toBe(ExitCode.HLT);
      expect(live.vmcb.rax).toBe(0x1234_5678n);
    }
  });

  it.each(TABLE.map(([name, first, , access]) => [name, first, access[1]] as const))('write of %s', (_, at, kind) => {
    // As a command: fixed, to itself, vector 40h.
    const live = new AvicMachine(store(at, 0x4_0040));
    live.vmcb.rflags = 2n;
    const exit = live.exit();
    expect(live.register(at)).toBe(kind === 'F' ? (at === 0xe0 ? 0xffff_ffff : 0) : 0x4_0040);
    if (kind === 'F' || kind === 'T') expect(exit).toMatchObject({ ...noAcceleration(at, true), intInfo: 0n });
    else expect(exit.code).toBe(ExitCode.HLT);
    expect(live.vmcb.rip).toBe(kind === 'F' ? BigInt(GUEST_CODE) : RIP_BEHIND_STORE);
    expect(live.vmcb.nRIP).toBe(exit.code === ExitCode.HLT ? RIP_BEHIND_STORE + 1n : 0n);
  });
});

describe('the guest’s APIC page (§15.29.3 AVIC Backing Page)', () => {
  it('is the backing page, wherever the nested tables lead', () => {
    const live = new AvicMachine(`${store(0x310, 7)} ${load(0x310)}`);
    live.exit();
    expect(live.vmcb.rax).toBe(7n);
    expect([live.register(0x310), live.register(0x310, APIC_PAGE)]).toEqual([7, 0]);
  });

  it('must be allowed by the nested tables first', () => {
    const live = new AvicMachine(load(0x90));
    const change = nestedTables(live);
    change(APIC_PAGE >> 21, 0n);
    expect(live.exit()).toMatchObject({ code: ExitCode.NPF, info2: BigInt(APIC_PAGE + 0x90) });
    const readOnly = new AvicMachine(store(0x30, 1));
    nestedTables(readOnly)(APIC_PAGE >> 21, BigInt(APIC_PAGE) | 0xe5n);
    expect(readOnly.exit()).toMatchObject({ code: ExitCode.NPF, info2: BigInt(APIC_PAGE + 0x30) });
  });

  it('is found though the same address space had another translation, and no longer when AVIC is off', () => {
    const live = new AvicMachine(`${load(0x310)} f4 ${load(0x310)}`)
      .setRegister(0x310, 1)
      .setRegister(0x310, 2, APIC_PAGE);
    live.vmcb.intControl = 0n;
    live.exit();
    expect(live.vmcb.rax).toBe(2n);
    for (const [intControl, found] of [
      [ENABLE, 1n],
      [0n, 2n],
    ] as const) {
      live.vmcb.rip = BigInt(GUEST_CODE);
      live.vmcb.intControl = intControl;
      live.again();
      expect(live.vmcb.rax).toBe(found);
    }
  });

  it('moves with V_APIC_BAR, and its pointer to another page', () => {
    const live = new AvicMachine(load(0x310))
      .setRegister(0x310, 1)
      .setRegister(0x310, 2, APIC_PAGE)
      .setRegister(0x310, 3, BACKING_PAGE + 0x4000);
    live.vmcb.avicBackingPage = BigInt(BACKING_PAGE + 0x4000);
    live.exit();
    expect(live.vmcb.rax).toBe(3n);
    live.vmcb.rip = BigInt(GUEST_CODE);
    live.vmcb.avicApicBar = BigInt(APIC_PAGE + 0x1000);
    live.again();
    expect(live.vmcb.rax).toBe(2n);
  });

  it('is filtered by bits 11:4 of the offset; bytes behind a register’s four are memory', () => {
    const live = new AvicMachine(`${store(0x88, 0xff)} ${load(0x88)}`);
    expect(live.exit().code).toBe(ExitCode.HLT);
    expect([live.vmcb.rax, live.vmcb.intControl & 0xfn]).toEqual([0xffn, 0n]);
    expect(new AvicMachine(store(0x9c, 0)).exit()).toMatchObject(noAcceleration(0x90, true));
  });

  it('sees the parts of a wide store one after the other', () => {
    // MOVAPS [80h], XMM0 with the task priority 60h in front.
    const live = new AvicMachine(`0f280425 00002000 0f290425 ${'8000e000'}`).write(0x20_0000, 0x60n);
    live.vmcb.cr4 |= 1n << 9n;
    live.exit();
    expect([live.register(TPR), live.register(PPR), live.vmcb.intControl & 0xfn]).toEqual([0x60, 0x60, 6n]);
  });

  it('refuses the write of a read-modify-write where reads are allowed', () => {
    // LOCK OR DWORD [PPR], 1
    const live = new AvicMachine(`f0830c25 a000e000 01`);
    expect(live.exit()).toMatchObject(noAcceleration(PPR, true));
    expect(live.vmcb.rip).toBe(BigInt(GUEST_CODE));
  });

  it('traps each step of a repeated store behind itself', () => {
    // MOV EDI, page + 2F0h; MOV ECX, 20h; XOR EAX, EAX; REP STOSB: ten bytes of 2F0h, then the LVT, … up to ICR low.
    const live = new AvicMachine('bff002e000 b920000000 b800000000 f3aa');
    live.setRegister(0x310, 0).setRegister(0x300, 0x4_0000);
    expect(live.exit()).toMatchObject({ code: ExitCode.AVIC_INCOMPLETE_IPI, info2: 4n << 32n });
    expect([live.get('rcx'), live.vmcb.rip]).toEqual([0xfn, BigInt(GUEST_CODE + 15)]);
  });

  it('is written to by deliveries, too: the exit follows them', () => {
    const live = new AvicMachine('0f0b');
    live.vmcb.rsp = BigInt(APIC_PAGE + 0x330);
    expect(live.exit()).toMatchObject(noAcceleration(0x320, true));
    expect(live.vectors).toEqual([6]);
    expect(live.vmcb.rip).toBe(0x8006n);
  });
});

describe('task priority (§15.29.3.1, figure 15-16)', () => {
  it('a write of TPR goes to V_TPR, and PPR follows', () => {
    const live = new AvicMachine(store(TPR, 0x57));
    live.exit();
    expect([live.register(TPR), live.register(PPR), live.vmcb.intControl]).toEqual([0x57, 0x57, ENABLE | 5n]);
  });

  it('a write of CR8 goes to V_TPR and TPR of the page, its subclass zero, whatever V_INTR_MASKING', () => {
    for (const masking of [0n, IntControl.V_INTR_MASKING]) {
      const live = new AvicMachine(`b803000000 ${SET_CR8} 31c0 ${GET_CR8}`).setRegister(TPR, 0x57);
      live.vmcb.intControl = ENABLE | masking | 5n;
      live.exit();
      expect([live.register(TPR), live.register(PPR), live.vmcb.intControl & 0xffn]).toEqual([0x30, 0x30, 3n]);
      expect(live.vmcb.rax).toBe(3n);
      expect(live.machine.bus.readTaskPriority()).toBe(0n);
    }
  });

  it('holds interrupts of its class and below, and lets them go when it falls', () => {
    const held = `${store(TPR, 0x4f)} ${STI} 90 ${INC_ECX}`;
    for (const falls of [store(TPR, 0x3f), `b803000000 ${SET_CR8}`]) {
      const live = new AvicMachine(`${held} ${falls} ${INC_ECX}`).setVector(IRR, 0x41);
      live.vmcb.rflags = 2n;
      live.set({ rcx: 0n }).exit();
      expect([live.vectors, live.get('rcx')]).toEqual([[0x41], 1n]);
    }
  });

  it('is V_TPR at VMRUN: TPR of the page counts on writes of the guest alone (§15.29.8.3)', () => {
    const masked = new AvicMachine('90').setVector(IRR, 0x41);
    masked.vmcb.intControl = ENABLE | 4n;
    masked.exit();
    const open = new AvicMachine('90').setVector(IRR, 0x41).setRegister(TPR, 0x40);
    open.exit();
    expect([masked.vectors, open.vectors]).toEqual([[], [0x41]]);
  });
});

describe('interrupts of the backing page (§15.29.8.3 Additional VMRUN Handling)', () => {
  it('go from IRR to ISR, with PPR, and through the guest’s IDT without an exit', () => {
    const live = new AvicMachine('90').setVector(IRR, 0x31).setVector(IRR, 0xc5);
    expect(live.exit().code).toBe(ExitCode.HLT);
    expect(live.events.map(({ type }) => type)).toEqual([
      ...['svm.vmrun', 'avic.acknowledged', 'cpu.interrupt', 'svm.vmexit', 'cpu.halted'],
    ]);
    expect(live.events).toContainEqual(
      expect.objectContaining({ type: 'cpu.interrupt', vector: 0xc5, source: 'virtual' }),
    );
    expect([live.vectorsIn(IRR), live.vectorsIn(ISR), live.register(PPR)]).toEqual([[0x31], [0xc5], 0xc0]);
    expect(live.vmcb.intControl).toBe(ENABLE);
  });

  it('wait for IF, and for the end of its shadow', () => {
    const live = new AvicMachine(`${INC_ECX} ${STI} ${INC_ECX} ${INC_ECX}`).setVector(IRR, 0x41);
    live.vmcb.rflags = 2n;
    live.set({ rcx: 0n }).exit();
    expect([live.vectors, live.get('rcx')]).toEqual([[0x41], 2n]);
    const shadowed = new AvicMachine(`${INC_ECX} ${INC_ECX}`).setVector(IRR, 0x41);
    shadowed.vmcb.intShadow = 1n;
    shadowed.set({ rcx: 0n }).exit();
    expect([shadowed.vectors, shadowed.get('rcx')]).toEqual([[0x41], 1n]);
  });

  it('wait for a class above that in service', () => {
    const live = new AvicMachine('90').setVector(IRR, 0x4f).setVector(ISR, 0x40);
    live.exit();
    expect([live.vectors, live.vectorsIn(IRR)]).toEqual([[], [0x4f]]);
    const above = new AvicMachine('90').setVector(IRR, 0x50).setVector(ISR, 0x4f);
    above.exit();
    expect([above.vectors, above.vectorsIn(ISR)]).toEqual([[0x50], [0x4f, 0x50]]);
  });

  it('wait for V_GIF', () => {
    const live = new AvicMachine('90').setVector(IRR, 0x41);
    live.vmcb.intControl = ENABLE | IntControl.V_GIF_ENABLE;
    live.exit();
    expect(live.vectors).toEqual([]);
    live.vmcb.intControl |= IntControl.V_GIF;
    live.vmcb.rip = BigInt(GUEST_CODE);
    live.again();
    expect(live.vectors).toEqual([0x41]);
  });

  it('come behind EVENTINJ', () => {
    const live = new AvicMachine('90').setVector(IRR, 0x41);
    live.vmcb.eventInj = (1n << 31n) | (3n << 8n) | 6n;
    live.exit();
    expect(live.events.map(({ type }) => type)).toContain('svm.injected');
    expect(live.vectors).toEqual([]); // the handler runs with IF clear
    expect(live.vectorsIn(IRR)).toEqual([0x41]);
  });

  it('leave V_IRQ and what belongs to it to the hypervisor', () => {
    const live = new AvicMachine(`${STI} 90 90`);
    const fields = IntControl.V_IRQ | IntControl.V_IGN_TPR | (0xfn << 16n) | (0x77n << 32n);
    live.vmcb.intControl = ENABLE | fields;
    live.exit();
    expect([live.vectors, live.vmcb.intControl]).toEqual([[], ENABLE | fields]);
    live.setVector(IRR, 0x41).vmcb.intControl = ENABLE;
    live.vmcb.rflags = 2n;
    live.vmcb.rip = BigInt(GUEST_CODE + 2);
    live.again();
    expect(live.vmcb.intControl).toBe(ENABLE);
  });

  it('are in EXITINTINFO and in service when their delivery is cut short', () => {
    const live = new AvicMachine('90').setVector(IRR, 0x41);
    live.vmcb.idtrLimit = 0x10;
    live.intercept('EXCEPTION_13');
    expect(live.exit()).toMatchObject({ code: 0x4dn, intInfo: 0x8000_0041n });
    expect([live.vectorsIn(IRR), live.vectorsIn(ISR)]).toEqual([[], [0x41]]);
  });

  it('are intercepted by VINTR before they are acknowledged (§15.21.6 Virtual Interrupt Intercept)', () => {
    const live = new AvicMachine('90').setVector(IRR, 0x41).intercept('VINTR');
    expect(live.exit().code).toBe(ExitCode.VINTR);
    expect([live.vectorsIn(IRR), live.vectorsIn(ISR), live.vmcb.intControl]).toEqual([[0x41], [], ENABLE]);
  });

  it('that were withdrawn are not taken', () => {
    const live = new AvicMachine(`${STI} 90`).setVector(IRR, 0x41);
    live.vmcb.rflags = 2n;
    live.run(2); // VMRUN, STI
    live.setRegister(IRR + 0x20, 0);
    expect(live.exit().code).toBe(ExitCode.HLT);
    expect(live.events).toContainEqual(expect.objectContaining({ type: 'avic.acknowledged', vector: null }));
    expect([live.vectors, live.vectorsIn(ISR)]).toEqual([[], []]);
  });

  it('set in IRR behind the processor’s back wait for the next occasion', () => {
    const live = new AvicMachine(`90 90 90 ${store(EOI, 0)} ${INC_ECX}`).set({ rcx: 0n });
    live.run(2);
    live.setVector(IRR, 0x41);
    live.exit();
    expect([live.vectors, live.get('rcx')]).toEqual([[0x41], 0n]);
  });

  it('keep a guest from exiting at HLT where the intercept is that of an idle one (§15.9, IDLE HLT)', () => {
    const exits = (pending: boolean) => {
      const live = new AvicMachine('f4 90', 'zen-5');
      if (pending) live.setVector(IRR, 0x41);
      live.vmcb.rflags = 2n;
      live.vmcb.intercept3 = 0;
      live.intercept('IDLE_HLT').run();
      return live.events.some(({ type }) => type === 'svm.vmexit');
    };
    expect([exits(false), exits(true)]).toEqual([true, false]);
  });
});

describe('end of interrupt (§15.29.3.1)', () => {
  it('clears the highest in service, brings PPR down, and lets the next interrupt through', () => {
    const live = new AvicMachine(`${store(EOI, 0)} ${INC_ECX}`)
      .setVector(ISR, 0x31)
      .setVector(ISR, 0x62)
      .setVector(IRR, 0x41);
    live.set({ rcx: 0n }).exit();
    expect([live.vectors, live.get('rcx'), live.vectorsIn(ISR), live.register(PPR)]).toEqual([
      [0x41],
      0n,
      [0x31, 0x41],
      0x40,
    ]);
    const last = new AvicMachine(store(EOI, 0)).setVector(ISR, 0x31).setRegister(TPR, 0x12);
    last.vmcb.intControl = ENABLE | 1n;
    last.exit();
    expect([last.vectorsIn(ISR), last.register(PPR)]).toEqual([[], 0x12]);
  });

  it('without one in service does nothing', () => {
    const live = new AvicMachine(store(EOI, 0)).setVector(TMR, 0x31);
    expect(live.exit().code).toBe(ExitCode.HLT);
    expect(live.register(PPR)).toBe(0);
  });

  it('of a level-triggered one is the hypervisor’s: a trap that names the vector (§15.29.9.2)', () => {
    const live = new AvicMachine(store(EOI, 0)).setVector(ISR, 0x62).setVector(TMR, 0x62).setRegister(PPR, 0x60);
    expect(live.exit()).toMatchObject(noAcceleration(EOI, true, 0x62));
    expect([live.vectorsIn(ISR), live.register(PPR), live.vmcb.rip]).toEqual([[0x62], 0x60, RIP_BEHIND_STORE]);
  });
});

describe('VMRUN refuses (§15.29.4 VMCB Changes for AVIC)', () => {
  const OUTSIDE = 0x200_0000n;
  const cases: readonly (readonly [string, (vmcb: AvicMachine['vmcb']) => void, boolean])[] = [
    ['a guest without nested paging', (vmcb) => (vmcb.nestedControl = 0n), true],
    ['a backing page outside of RAM', (vmcb) => (vmcb.avicBackingPage = OUTSIDE), true],
    ['a backing page beyond all addresses', (vmcb) => (vmcb.avicBackingPage = 1n << 52n), true],
    ['a logical table outside of RAM', (vmcb) => (vmcb.avicLogicalTable = OUTSIDE), true],
    ['a physical table outside of RAM', (vmcb) => (vmcb.avicPhysicalTable = OUTSIDE), true],
    ['a highest index above 255', (vmcb) => (vmcb.avicPhysicalTable |= 0x1ffn), true],
    ['no highest index of 255', (vmcb) => (vmcb.avicPhysicalTable |= 0xffn), false],
    ['no low bits of the pointers', (vmcb) => (vmcb.avicBackingPage |= 0xfffn), false],
    ['no V_APIC_BAR that nothing maps', (vmcb) => (vmcb.avicApicBar = ~0n & ((1n << 64n) - 1n)), false],
    ['no x2AVIC bit on a processor without x2AVIC', (vmcb) => (vmcb.intControl |= IntControl.X2AVIC_ENABLE), false],
  ];

  it.each(cases)('%s', (_, change, refused) => {
    const live = new AvicMachine('90');
    change(live.vmcb);
    expect(live.exit().code).toBe(refused ? ExitCode.INVALID : ExitCode.HLT);
  });

  it('nothing of it while AVIC is off', () => {
    const live = new AvicMachine('90');
    live.vmcb.intControl = 0n;
    live.vmcb.avicBackingPage = OUTSIDE;
    live.vmcb.avicPhysicalTable = 0xfffn;
    expect(live.exit().code).toBe(ExitCode.HLT);
  });
});

describe('what a guest with AVIC leaves', () => {
  const SLOTS = ['avicApicBar', 'avicBackingPage', 'avicLogicalTable', 'avicPhysicalTable', 'intControl'] as const;

  it('is nothing after #VMEXIT', () => {
    const live = new AvicMachine('90');
    live.run(2);
    expect(SLOTS.map((slot) => live.get(slot) !== 0n)).toEqual(SLOTS.map(() => true));
    live.exit();
    expect(SLOTS.map((slot) => live.get(slot))).toEqual(SLOTS.map(() => 0n));
  });

  it('is nothing after INIT', () => {
    const live = new AvicMachine('90 90 90');
    live.run(2);
    live.set({ boundary: Boundary.INIT_PENDING }).run(0);
    expect(SLOTS.map((slot) => live.get(slot))).toEqual(SLOTS.map(() => 0n));
  });
});

describe('a handler of an SMI that interrupts the guest (§15.22 SMM Support)', () => {
  /** RSM behind LOCK MOV EAX, CR0, which is CR8. */
  const HANDLER = 'f00f20c0 90 0faa';
  const interrupted = (): AvicMachine => {
    const live = new AvicMachine('90 90 90 ffc1').put(0x3_8000, HANDLER).set({ rcx: 0n });
    live.vmcb.intControl = ENABLE | 3n;
    live.run(2);
    live.set({ boundary: Boundary.SMI_PENDING }).run(1);
    return live;
  };

  it('has the processor’s own task priority', () => {
    const live = interrupted();
    expect(live.get('rip')).toBe(0x8004n);
    expect(live.get('rax') & 0xffn).toBe(0n);
  });

  it('does not keep a doorbell from the guest behind it', () => {
    const live = interrupted().setVector(IRR, 0x41);
    live.machine.ringDoorbell(0);
    live.run(1);
    expect(live.vectors).toEqual([]);
    live.exit();
    expect([live.vectors, live.get('rcx')]).toEqual([[0x41], 0n]);
  });
});

describe('the clean bit of AVIC (§15.15 VMCB State Caching)', () => {
  it('keeps pointers as they are cached; without it they are read', () => {
    const live = new AvicMachine(load(0x310)).setRegister(0x310, 1).setRegister(0x310, 2, BACKING_PAGE + 0x4000);
    live.exit();
    for (const [clean, found] of [
      [0x800, 1n],
      [0, 2n],
    ] as const) {
      live.vmcb.rip = BigInt(GUEST_CODE);
      live.vmcb.avicBackingPage = BigInt(BACKING_PAGE + 0x4000);
      live.vmcb.vmcbClean = clean;
      live.again();
      expect(live.vmcb.rax).toBe(found);
      expect(live.events.filter(({ type }) => type === 'svm.stale')).toHaveLength(1);
    }
  });
});

describe('x2APIC registers of a guest in xAPIC mode', () => {
  it('are those of the processor’s own local APIC: MSRs are none of AVIC’s', () => {
    // RDMSR 808h, TPR
    const live = new AvicMachine('b908080000 0f32', 'zen-4').setRegister(TPR, 0x70);
    live.machine.bus.writeMsr(0x1b, 0xfee0_0d00n);
    live.machine.bus.writeTaskPriority(2n);
    live.vmcb.rflags = 2n;
    expect(live.exit().code).toBe(ExitCode.HLT);
    expect(live.vmcb.rax).toBe(0x20n);
  });
});

describe('single steps', () => {
  it('do not keep a trap from exiting', () => {
    const live = new AvicMachine(store(0xf0, 0x1ff));
    live.vmcb.rflags |= Flag.TF;
    expect(live.exit()).toMatchObject(noAcceleration(0xf0, true));
    expect(live.memory.read(sPA(BACKING_PAGE + 0xf0), 4)).toBe(0x1ffn);
  });
});

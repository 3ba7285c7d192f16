import { describe, expect, it } from 'vitest';
import * as devices from '../../../src/machine/devices/devices.js';
import { DELIVERY, LAPIC } from '../../../src/machine/devices/local-apic-state.js';
import { messageOfWrite } from '../../../src/machine/devices/msi.js';
import { Board, LOCAL_APIC_PAGE } from './board.js';

const LEVEL = 0x8000;
const ASSERT = 0x4000;
const LOGICAL = 0x0800;
const type = (mode: number): number => mode << 8;
const ALL = 0x0008_0000;
const OTHERS = 0x000c_0000;
const SELF = 0x0004_0000;

/** Four processors, logical IDs 1, 2, 4 and 8, and IPIs by one line. */
class Bus extends Board {
  constructor() {
    super(4);
    for (let vcpu = 0; vcpu < 4; vcpu += 1) this.lapic(vcpu, LAPIC.LDR, 0x0100_0000 << vcpu);
  }
  send(sender: number, low: number, destination = 0): void {
    this.lapic(sender, LAPIC.ICR_HIGH, destination * 0x100_0000);
    this.lapic(sender, LAPIC.ICR_LOW, low);
  }
  wrmsr(vcpu: number, msr: number, value: bigint): boolean {
    const context = { tscOffset: 0n, physicalAddressBits: 48 };
    const written = devices.decideMsrWrite(this.state, vcpu, msr, value, this.now, context);
    return written !== 'fault' && this.apply(written);
  }
  read(vcpu: number, register: number): number {
    return this.load(vcpu, LOCAL_APIC_PAGE + register) ?? -1;
  }
  errors(vcpu: number): number {
    this.lapic(vcpu, LAPIC.ESR, 0);
    return this.read(vcpu, LAPIC.ESR);
  }
  /** Who has a vector pending; it is taken and ended there. */
  takers(vector: number): number[] {
    return [0, 1, 2, 3].filter((vcpu) => {
      const pending = this.pending(vcpu);
      if (pending?.kind !== 'apic' || pending.vector !== vector) return false;
      this.acknowledge(vcpu);
      this.lapic(vcpu, LAPIC.EOI, 0);
      return true;
    });
  }
}

describe('the APIC bus: destinations (APM vol.2 §16.6.1)', () => {
  it.each([
    ['one by its ID', 0x41, 2, [2]],
    ['all by ID FFh', 0x41, 0xff, [0, 1, 2, 3]],
    ['nobody by an ID that none has', 0x41, 9, []],
    ['some by logical IDs', LOGICAL | 0x41, 0x0a, [1, 3]],
    ['all by logical ID FFh', LOGICAL | 0x41, 0xff, [0, 1, 2, 3]],
    ['itself by shorthand', SELF | 0x41, 0, [1]],
    ['all by shorthand', ALL | 0x41, 0, [0, 1, 2, 3]],
    ['all others by shorthand, whatever the destination', OTHERS | LOGICAL | 0x41, 0x02, [0, 2, 3]],
  ])('a fixed message reaches %s', (_, command, destination, takers) => {
    const it = new Bus();
    it.send(1, command, destination);
    expect(it.takers(0x41)).toEqual(takers);
  });

  it('compares clusters and members in the cluster model', () => {
    const it = new Bus();
    for (const [vcpu, id] of [0x11, 0x12, 0x21, 0x31].entries()) {
      it.lapic(vcpu, LAPIC.DFR, 0x0fff_ffff);
      it.lapic(vcpu, LAPIC.LDR, id * 0x100_0000);
    }
    const reached = [0x11, 0x13, 0x23, 0x34, 0xff].map((destination) => {
      it.send(0, LOGICAL | 0x41, destination);
      return it.takers(0x41);
    });
    expect(reached).toEqual([[0], [0, 1], [2], [], [0, 1, 2, 3]]);
  });

  it('goes by the ID register, which software may write, and leaves aliases both (APM vol.2 §16.3.3)', () => {
    const it = new Bus();
    it.lapic(2, LAPIC.ID, 0x0100_0000);
    expect(it.read(2, LAPIC.ID)).toBe(0x0100_0000);
    it.send(0, 0x41, 1);
    expect(it.takers(0x41)).toEqual([1, 2]);
    it.apply(devices.decideInit(it.state, 2));
    expect(it.read(2, LAPIC.ID)).toBe(0x0100_0000); // INIT leaves it
    it.wrmsr(2, 0x1b, 0xfee0_0000n);
    it.wrmsr(2, 0x1b, 0xfee0_0800n);
    expect(it.read(2, LAPIC.ID)).toBe(0x0200_0000);
  });

  it('has 32-bit IDs and clusters of sixteen in x2APIC mode (APM vol.2 §16.14)', () => {
    const it = new Board(34);
    for (const vcpu of [0, 17, 33]) {
      const context = { tscOffset: 0n, physicalAddressBits: 48 };
      const base = devices.decideMsrWrite(it.state, vcpu, 0x1b, 0xfee0_0c00n, it.now, context);
      it.apply(base === 'fault' ? undefined : base);
    }
    const send = (destination: number, low: number) => {
      const value = (BigInt(destination) << 32n) | BigInt(low);
      const sent = devices.decideMsrWrite(it.state, 0, 0x830, value, it.now, {
        tscOffset: 0n,
        physicalAddressBits: 48,
      });
      if (sent === undefined || sent === 'fault') throw new Error('refused');
      it.apply(sent);
      const takers = it.state.localApics.filter((apic) => it.pending(apic.id)?.kind === 'apic').map(({ id }) => id);
      for (const id of takers) it.acknowledge(id);
      for (const apic of takers)
        it.apply({ events: [{ type: 'lapic.ended', apic, vector: 0x41 }], signals: [], request: null });
      return takers;
    };
    expect(send(33, 0x41)).toEqual([33]);
    expect(send(0x0001_0002, LOGICAL | 0x41)).toEqual([17]);
    expect(send(0x0002_0002, LOGICAL | 0x41)).toEqual([33]);
    expect(send(0x0001_0001, LOGICAL | 0x41)).toEqual([]);
    expect(send(0xffff_ffff, 0x41)).toHaveLength(34);
  });
});

describe('the APIC bus: lowest priority (APM vol.2 §16.6.2)', () => {
  const LOWEST = type(DELIVERY.LOWEST_PRIORITY) | LOGICAL | 0x41;

  it('goes to the lowest arbitration priority: the highest of TPR, in service and requested', () => {
    const it = new Bus();
    it.lapic(0, LAPIC.TPR, 0x55);
    it.send(1, 0x61, 1); // requested
    it.send(2, 0x51, 2);
    it.acknowledge(2); // in service
    it.lapic(3, LAPIC.TPR, 0x52);
    expect([0, 1, 2, 3].map((vcpu) => it.read(vcpu, LAPIC.APR))).toEqual([0x55, 0x60, 0x50, 0x52]);
    it.send(0, LOWEST, 0x0f);
    expect(it.state.localApics.map(({ irr }) => (irr[2] ?? 0) & 2)).toEqual([0, 0, 2, 0]);
  });

  it('goes to the highest ID among equals, and not to one that is disabled by software', () => {
    const it = new Bus();
    it.send(0, LOWEST, 0x0f);
    expect(it.takers(0x41)).toEqual([3]);
    it.lapic(3, LAPIC.SVR, 0xff);
    it.send(0, LOWEST, 0x0f);
    expect(it.takers(0x41)).toEqual([2]);
  });

  it('goes to the one that serves it already, unless focus checking is off', () => {
    const it = new Bus();
    it.send(0, 0x41, 1);
    it.lapic(1, LAPIC.TPR, 0xf0);
    it.send(0, LOWEST, 0x0f); // 1 has it requested: nothing new
    expect([0, 2, 3].map((vcpu) => it.pending(vcpu))).toEqual([undefined, undefined, undefined]);
    it.lapic(1, LAPIC.SVR, 0x3ff);
    it.send(0, LOWEST, 0x0f);
    expect(it.takers(0x41)).toEqual([3]);
  });
});

describe('the APIC bus: message types (APM vol.2 §16.5)', () => {
  it('signals SMI, NMI, INIT and SIPI past IRR, also to an APIC that is disabled by software', () => {
    const it = new Bus();
    it.lapic(1, LAPIC.SVR, 0xff);
    for (const low of [type(DELIVERY.SMI), type(DELIVERY.NMI), LEVEL | ASSERT | type(DELIVERY.INIT)])
      it.send(0, low, 1);
    it.send(0, type(DELIVERY.STARTUP) | 0x9a, 1);
    it.send(0, LEVEL | type(DELIVERY.INIT), 1); // INIT level de-assert: no message
    expect(it.signals).toEqual([
      { vcpu: 1, kind: 'smi', vector: 0 },
      { vcpu: 1, kind: 'nmi', vector: 0 },
      { vcpu: 1, kind: 'init', vector: 0 },
      { vcpu: 1, kind: 'sipi', vector: 0x9a },
    ]);
  });

  it('sets TMR for a level-triggered IPI, which is asserted or not at all (table 16-4)', () => {
    const it = new Bus();
    it.send(0, LEVEL | 0x41, 1);
    expect(it.pending(1)).toBeUndefined();
    it.send(0, LEVEL | ASSERT | 0x41, 1);
    expect(it.read(1, LAPIC.TMR + 0x20)).toBe(2);
    it.takers(0x41);
    it.send(0, 0x41, 1);
    expect(it.read(1, LAPIC.TMR + 0x20)).toBe(0);
  });

  it('asks the 8259 for an ExtINT message, but not while disabled by software (§16.4.7)', () => {
    const it = new Bus();
    it.send(0, type(DELIVERY.EXTINT), 1);
    expect(it.pending(1)).toEqual({ kind: 'extint' });
    it.lapic(2, LAPIC.SVR, 0xff);
    it.send(0, type(DELIVERY.EXTINT), 2);
    expect(it.pending(2)).toBeUndefined();
  });

  it('reads a register of another APIC, and tells when there is none (Remote Read Register)', () => {
    const it = new Bus();
    it.lapic(2, LAPIC.TPR, 0x37);
    it.send(0, type(DELIVERY.REMOTE_READ) | (LAPIC.TPR >> 4), 2);
    expect([it.read(0, LAPIC.REMOTE_READ), it.read(0, LAPIC.ICR_LOW) >>> 16]).toEqual([0x37, 2]);
    it.send(0, type(DELIVERY.REMOTE_READ) | 0x04, 2);
    expect([it.read(0, LAPIC.REMOTE_READ), it.read(0, LAPIC.ICR_LOW) >>> 16]).toEqual([0x37, 0]);
    it.send(0, type(DELIVERY.REMOTE_READ) | (LAPIC.TPR >> 4), 9);
    expect([it.read(0, LAPIC.ICR_LOW) >>> 16, it.errors(0)]).toEqual([0, 0x04]);
  });

  it('notes messages that nobody took, at both ends (§16.4.6 APIC Error Interrupts)', () => {
    const it = new Bus();
    it.lapic(0, LAPIC.LVT_ERROR, 0xfe);
    it.send(0, 0x41, 9);
    expect(it.acknowledge(0)).toBe(0xfe);
    it.lapic(0, LAPIC.EOI, 0);
    expect(it.errors(0)).toBe(0x04);
    it.lapic(3, LAPIC.SVR, 0xff);
    it.send(0, 0x41, 3);
    it.send(0, OTHERS | 0x41); // shorthands do not count
    expect([it.errors(0), it.errors(3), it.errors(1)]).toEqual([0x04, 0x08, 0]);
    it.redirect(14, 0x42, 0x0900_0000);
    it.out(0x200e, 1); // from the I/O APIC: nobody's error
    expect([0, 1, 2, 3].map((vcpu) => it.errors(vcpu))).toEqual([0, 0, 0, 0]);
  });

  it('interrupts with its error as an NMI or SMI when the entry says so (§16.4.6, table 16-1)', () => {
    const it = new Bus();
    it.lapic(0, LAPIC.LVT_ERROR, type(DELIVERY.NMI));
    it.send(0, 0x05, 1); // an illegal vector
    expect(it.signals).toEqual([{ vcpu: 0, kind: 'nmi', vector: 0 }]);
    expect(it.events.at(-1)).toEqual({ type: 'lapic.signalled', apic: 0 });
    it.lapic(0, LAPIC.LVT_ERROR, type(DELIVERY.SMI));
    it.send(0, 0x41, 9);
    expect(it.signals.at(-1)).toEqual({ vcpu: 0, kind: 'smi', vector: 0 });
  });
});

describe('LINT0 and LINT1 (APM vol.2 §16.4.2)', () => {
  it('asks again for a level-triggered interrupt when it ended and the pin is still active (Remote IRR)', () => {
    const it = new Board();
    it.initializePIC();
    it.lapic(0, LAPIC.LVT_LINT0, LEVEL | 0x44);
    it.out(0x4d0, 0x08);
    it.out(0x2003, 1);
    expect(it.load(0, LOCAL_APIC_PAGE + LAPIC.LVT_LINT0)).toBe(LEVEL | 0x4000 | 0x44);
    expect(it.acknowledge()).toBe(0x44);
    expect(it.pending()).toBeUndefined();
    it.lapic(0, LAPIC.EOI, 0);
    expect(it.acknowledge()).toBe(0x44);
    it.out(0x2003, 0);
    it.lapic(0, LAPIC.EOI, 0);
    expect(it.pending()).toBeUndefined();
    expect(it.load(0, LOCAL_APIC_PAGE + LAPIC.LVT_LINT0)).toBe(LEVEL | 0x44);
  });

  it('is an edge otherwise, and again for the next one', () => {
    const it = new Board();
    it.initializePIC();
    it.lapic(0, LAPIC.LVT_LINT0, 0x44);
    it.out(0x4d0, 0x08);
    it.out(0x2003, 1);
    expect(it.acknowledge()).toBe(0x44);
    it.lapic(0, LAPIC.EOI, 0);
    expect(it.pending()).toBeUndefined();
    it.out(0x2003, 0);
    it.out(0x2003, 1);
    expect(it.acknowledge()).toBe(0x44);
  });

  it('reports an illegal vector once, and never asks again with it', () => {
    const it = new Board();
    it.initializePIC();
    it.lapic(0, LAPIC.LVT_LINT0, LEVEL | 0x04);
    it.out(0x4d0, 0x08);
    it.out(0x2003, 1);
    it.lapic(0, LAPIC.ESR, 0);
    expect(it.load(0, LOCAL_APIC_PAGE + LAPIC.ESR)).toBe(0x40);
  });
});

describe('NMI (82371AB, ports 61h and 70h)', () => {
  it('comes from the I/O channel check through LINT1, until port 61h clears it', () => {
    const it = new Board(2);
    it.lapic(0, LAPIC.LVT_LINT1, type(DELIVERY.NMI));
    it.apply(devices.decideNmiButton(it.state));
    expect(it.signals).toEqual([{ vcpu: 0, kind: 'nmi', vector: 0 }]); // the other's LINT1 is masked
    expect((it.in(0x61) ?? 0) & 0xc0).toBe(0x40);
    it.apply(devices.decideNmiButton(it.state)); // is latched already
    it.out(0x61, 0x08);
    expect((it.in(0x61) ?? 0) & 0x40).toBe(0);
    it.apply(devices.decideNmiButton(it.state)); // off
    it.out(0x61, 0x00);
    expect(it.signals).toHaveLength(1);
    it.apply(devices.decideNmiButton(it.state));
    expect(it.signals).toHaveLength(2);
  });

  it('waits while port 70h masks it, and reaches the core past an APIC that is off', () => {
    const it = new Board();
    it.lapic(0, LAPIC.LVT_LINT1, type(DELIVERY.NMI));
    it.out(0x70, 0x8f);
    it.apply(devices.decideNmiButton(it.state));
    expect(it.signals).toEqual([]);
    it.out(0x70, 0x0f);
    expect(it.signals).toHaveLength(1);
    it.out(0x61, 0x08);
    it.out(0x61, 0x00);
    const off = devices.decideMsrWrite(it.state, 0, 0x1b, 0xfee0_0100n, it.now, {
      tscOffset: 0n,
      physicalAddressBits: 48,
    });
    it.apply(off === 'fault' ? undefined : off);
    it.apply(devices.decideNmiButton(it.state));
    expect(it.signals).toHaveLength(2);
  });
});

describe('message-signalled interrupts (Intel SDM vol.3 §11.11)', () => {
  it.each([
    ['one processor', 0xfee0_3000, 0x41, { vector: 0x41, mode: 0, level: false, logical: false, destination: 3 }],
    ['logical IDs', 0xfee0_a004, 0x41, { logical: true, destination: 0x0a }],
    ['one of several', 0xfee0_a00c, 0x41, { mode: 1, logical: true, destination: 0x0a }],
    ['all', 0xfeef_f000, 0xc141, { broadcast: true, level: true }],
    ['an NMI', 0xfee0_0008, 0x8441, { mode: DELIVERY.NMI, level: false }],
  ])('is for %s', (_, address, data, message) => {
    expect(messageOfWrite(address, data)).toMatchObject(message);
  });

  it('is none outside of FEE00000h to FEEFFFFFh', () => {
    expect([0xfedf_f000, 0xfef0_0000, 0].map((address) => messageOfWrite(address, 0x41))).toEqual([
      undefined,
      undefined,
      undefined,
    ]);
  });
});

describe('what may reach a processor with interrupts off', () => {
  it.each([
    ['nothing at first', () => {}, false],
    ['an I/O APIC input that is an NMI', (it: Board) => it.redirect(2, type(DELIVERY.NMI)), true],
    ['one that is an SMI', (it: Board) => it.redirect(2, type(DELIVERY.SMI)), true],
    ['one that is an INIT', (it: Board) => it.redirect(2, type(DELIVERY.INIT)), true],
    ['not one that is masked', (it: Board) => it.redirect(2, 0x1_0000 | type(DELIVERY.NMI)), false],
    ['not ExtINT', (it: Board) => it.redirect(2, type(DELIVERY.EXTINT)), false],
    ['LINT0 as the NMI watchdog', (it: Board) => it.lapic(0, LAPIC.LVT_LINT0, type(DELIVERY.NMI)), true],
  ])('%s', (_, prepare, routed) => {
    const it = new Board();
    prepare(it);
    expect(devices.signalsRouted(it.state)).toBe(routed);
  });
});

import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import {
  decideAcknowledge,
  decideLine,
  decidePulse,
  intrOutput,
  PIC,
  PIC_8259,
  pendingVector,
} from '../../../src/machine/devices/pic-8259.js';
import { Bench } from './given.js';

class PicBench extends Bench<ReturnType<typeof PIC_8259.initial>, Parameters<typeof PIC_8259.reduce>[1]> {
  constructor(icw4 = 0x01) {
    super(PIC_8259);
    for (const [chip, base, icw3] of [
      [0, 0x20, 0x04],
      [2, 0x28, 0x02],
    ] as const) {
      this.write(chip, 0x11);
      this.write(chip + 1, base);
      this.write(chip + 1, icw3);
      this.write(chip + 1, icw4);
    }
  }
  raise(irq: number): void {
    this.apply(decideLine(this.state, irq, true));
  }
  lower(irq: number): void {
    this.apply(decideLine(this.state, irq, false));
  }
  acknowledge(): number {
    const { vector, events } = decideAcknowledge(this.state);
    this.apply(events);
    return vector;
  }
  get inService(): number {
    return (this.state.chips[0]?.inService ?? 0) | ((this.state.chips[1]?.inService ?? 0) << 8);
  }
}

describe('8259A pair', () => {
  it('never interrupts before it is initialized (8259A, Initialization Command Words)', () => {
    const it = new Bench(PIC_8259);
    it.apply(decideLine(it.state, 1, true));
    expect(intrOutput(it.state)).toBe(false);
    expect(it.read(PIC.MASTER_COMMAND)).toBe(0x02); // the request itself is latched
  });

  it('acknowledges the highest priority with its vector (8259A, Interrupt Sequence)', () => {
    const it = new PicBench();
    it.raise(4);
    it.raise(1);
    expect(pendingVector(it.state)).toBe(0x21);
    expect(it.acknowledge()).toBe(0x21);
    expect(intrOutput(it.state)).toBe(false); // 4 is below 1 in service
    it.write(PIC.MASTER_COMMAND, 0x20);
    expect(it.acknowledge()).toBe(0x24);
  });

  it('takes the slave through input 2 and needs both EOIs (8259A, The Cascade Mode)', () => {
    const it = new PicBench();
    it.raise(8);
    expect(pendingVector(it.state)).toBe(0x28);
    expect(it.acknowledge()).toBe(0x28);
    expect(it.inService).toBe(0x0104);
    it.write(PIC.SLAVE_COMMAND, 0x20);
    it.write(PIC.MASTER_COMMAND, 0x20);
    expect(it.inService).toBe(0);
  });

  it('needs a new rising edge for a new request (8259A, Edge Triggered Mode)', () => {
    const it = new PicBench();
    it.raise(4);
    it.acknowledge();
    it.write(PIC.MASTER_COMMAND, 0x20);
    expect(intrOutput(it.state)).toBe(false);
    it.lower(4);
    it.raise(4);
    expect(intrOutput(it.state)).toBe(true);
  });

  it('asks again while a level-triggered line is active (82371AB §4.2.4, ELCR)', () => {
    const it = new PicBench();
    it.write(PIC.SLAVE_ELCR, 0xff);
    expect(it.read(PIC.SLAVE_ELCR)).toBe(0xde);
    it.raise(10);
    expect(it.acknowledge()).toBe(0x2a);
    it.write(PIC.SLAVE_COMMAND, 0x20);
    it.write(PIC.MASTER_COMMAND, 0x20);
    expect(it.acknowledge()).toBe(0x2a);
    it.lower(10);
    it.write(PIC.SLAVE_COMMAND, 0x20);
    it.write(PIC.MASTER_COMMAND, 0x20);
    expect(intrOutput(it.state)).toBe(false);
  });

  it('gives the spurious vector 7 of the chip whose request is gone (8259A, Interrupt Request Register)', () => {
    const it = new PicBench();
    it.write(PIC.MASTER_ELCR, 0x08);
    it.raise(3);
    it.lower(3);
    expect(intrOutput(it.state)).toBe(false);
    expect(it.acknowledge()).toBe(0x27);
    expect(it.inService).toBe(0);
  });

  it('keeps an edge whose line has fallen again (kvm-unit-tests realmode, sti inhibit)', () => {
    const it = new PicBench();
    it.raise(3);
    it.lower(3);
    expect(it.acknowledge()).toBe(0x23);
  });

  it('masks with OCW1 and delivers after unmasking (8259A, Operation Control Word 1)', () => {
    const it = new PicBench();
    it.write(PIC.MASTER_DATA, 0xff);
    it.raise(1);
    expect(intrOutput(it.state)).toBe(false);
    expect(it.read(PIC.MASTER_DATA)).toBe(0xff);
    it.write(PIC.MASTER_DATA, 0xfd);
    expect(it.acknowledge()).toBe(0x21);
  });

  it('ends a specific level, and rotates priorities (8259A, Operation Control Word 2)', () => {
    const it = new PicBench();
    it.raise(5);
    it.acknowledge();
    it.raise(3);
    it.acknowledge();
    it.write(PIC.MASTER_COMMAND, 0x65); // specific EOI of 5
    expect(it.inService).toBe(0x08);
    it.write(PIC.MASTER_COMMAND, 0xa0); // rotate on non-specific EOI: 3 becomes the lowest
    expect(it.state.chips[0]?.lowest).toBe(3);
    it.lower(3);
    it.raise(3);
    it.raise(6);
    expect(it.acknowledge()).toBe(0x26);
    it.write(PIC.MASTER_COMMAND, 0xc7); // set priority: 7 the lowest again
    expect(it.acknowledge()).toBe(0x23);
  });

  it('keeps nothing in service with automatic EOI (8259A, Automatic End of Interrupt Mode)', () => {
    const it = new PicBench(0x03);
    it.raise(4);
    expect(it.acknowledge()).toBe(0x24);
    expect(it.inService).toBe(0);
    it.write(PIC.MASTER_COMMAND, 0x80); // rotate in automatic EOI mode
    it.raise(1);
    it.acknowledge();
    expect(it.state.chips[0]?.lowest).toBe(1);
  });

  it('lets lower priorities through in special mask mode (8259A, Special Mask Mode)', () => {
    const it = new PicBench();
    it.raise(1);
    it.acknowledge();
    it.raise(6);
    expect(intrOutput(it.state)).toBe(false);
    it.write(PIC.MASTER_DATA, 0x02);
    it.write(PIC.MASTER_COMMAND, 0x68);
    expect(it.acknowledge()).toBe(0x26);
  });

  it('lets the slave interrupt itself in special fully nested mode (8259A, Special Fully Nested Mode)', () => {
    const plain = new PicBench();
    const nested = new PicBench(0x11);
    for (const it of [plain, nested]) {
      it.raise(12);
      it.acknowledge();
      it.raise(9);
    }
    expect(intrOutput(plain.state)).toBe(false);
    expect(nested.acknowledge()).toBe(0x29);
    // The master's inputs below the slave still wait, those above do not.
    nested.raise(4);
    expect(intrOutput(nested.state)).toBe(false);
    nested.raise(1);
    expect(nested.acknowledge()).toBe(0x21);
  });

  it('answers a poll with the request and takes it into service (8259A, Poll Command)', () => {
    const it = new PicBench();
    it.write(PIC.MASTER_COMMAND, 0x0c);
    expect(it.read(PIC.MASTER_COMMAND)).toBe(0);
    it.raise(5);
    it.write(PIC.MASTER_COMMAND, 0x0c);
    expect(it.read(PIC.MASTER_COMMAND)).toBe(0x85);
    expect(it.inService).toBe(0x20);
  });

  it('reads IRR or ISR as OCW3 chose (8259A, Reading the 8259A Status)', () => {
    const it = new PicBench();
    it.raise(1);
    it.acknowledge();
    it.raise(3);
    it.write(PIC.MASTER_COMMAND, 0x0b);
    expect(it.read(PIC.MASTER_COMMAND)).toBe(0x02);
    it.write(PIC.MASTER_COMMAND, 0x0a);
    expect(it.read(PIC.MASTER_COMMAND)).toBe(0x08);
  });

  it('latches a pulse once until it is acknowledged', () => {
    const it = new PicBench();
    it.raise(0);
    expect(decidePulse(it.state, 0)).toEqual([]);
    it.acknowledge();
    it.write(PIC.MASTER_COMMAND, 0x20);
    it.apply(decidePulse(it.state, 0));
    expect(it.acknowledge()).toBe(0x20);
  });

  it.each([
    ['the master has no slave on input 2: its own vector', 0x00, 0x02, 0x22],
    ['the slave does not know its number: nobody answers', 0x04, 0x03, 0xff],
    ['both are right', 0x04, 0x02, 0x28],
  ])('cascades as ICW3 says: %s (8259A, Initialization Command Word 3)', (_, master, slave, vector) => {
    const it = new PicBench();
    for (const [chip, base, icw3] of [
      [0, 0x20, master],
      [2, 0x28, slave],
    ] as const) {
      for (const [register, value] of [
        [chip, 0x11],
        [chip + 1, base],
        [chip + 1, icw3],
        [chip + 1, 0x01],
      ] as const) {
        it.write(register, value);
      }
    }
    it.raise(8);
    expect([it.acknowledge(), it.inService & 0xff]).toEqual([vector, 0x04]);
  });

  it('lets the processor ask for what a master without a slave there expects from one', () => {
    const it = new PicBench();
    for (const [register, value] of [
      [0, 0x11],
      [1, 0x20],
      [1, 0x24], // slaves on inputs 2 and 5
      [1, 0x01],
    ] as const) {
      it.write(register, value);
    }
    it.raise(5);
    expect([it.acknowledge(), it.inService]).toEqual([0xff, 0x20]);
  });

  it('states nothing for commands that change nothing', () => {
    const it = new PicBench();
    expect([0x20, 0x60, 0x40, 0x00, 0x0a, 0x08, 0x48].map((command) => it.write(PIC.MASTER_COMMAND, command))).toEqual(
      Array(7).fill([]),
    );
    for (const command of [0x80, 0xc3, 0xe3, 0x0b, 0x0c, 0x68]) {
      expect([command, it.write(PIC.MASTER_COMMAND, command).length]).toEqual([command, 1]);
    }
  });

  it('rotates with an end of interrupt, specific or not, and sets priorities (8259A, Operation Command Word 2)', () => {
    /** Inputs 1, 3 and 6 in service after rotations; then each command and what it leaves. */
    for (const [command, inService, lowest] of [
      [0x20, 0x48, 7], // non-specific: the highest of them
      [0x63, 0x42, 7], // specific
      [0xa0, 0x48, 1], // rotate on non-specific
      [0xe6, 0x0a, 6], // rotate on specific
      [0xc4, 0x4a, 4], // set priority
      [0x40, 0x4a, 7], // no operation
    ] as const) {
      const it = new PicBench();
      for (const input of [6, 3, 1]) {
        it.raise(input);
        it.acknowledge();
      }
      it.write(PIC.MASTER_COMMAND, command);
      expect([command, it.inService, it.state.chips[0]?.lowest]).toEqual([command, inService, lowest]);
    }
  });

  it('rotates by itself in automatic EOI mode, until told not to (8259A, Rotate in Automatic EOI Mode)', () => {
    const it = new PicBench(0x03);
    it.write(PIC.MASTER_COMMAND, 0x80);
    it.write(PIC.SLAVE_COMMAND, 0x80);
    it.raise(9);
    expect(it.acknowledge()).toBe(0x29);
    expect(it.state.chips.map(({ lowest }) => lowest)).toEqual([2, 1]);
    it.write(PIC.MASTER_COMMAND, 0x00);
    it.raise(5);
    it.acknowledge();
    expect(it.state.chips[0]?.lowest).toBe(2);
  });

  it('polls through either port, and takes the request as an acknowledge would (8259A, Poll Command)', () => {
    const it = new PicBench();
    it.raise(10);
    it.write(PIC.MASTER_COMMAND, 0x0c);
    expect(it.read(PIC.MASTER_DATA)).toBe(0x82);
    it.write(PIC.SLAVE_COMMAND, 0x0c);
    expect(it.read(PIC.SLAVE_COMMAND)).toBe(0x82);
    expect(it.inService).toBe(0x0404);
    it.write(PIC.SLAVE_COMMAND, 0x0c);
    expect([it.read(PIC.SLAVE_COMMAND), it.read(PIC.SLAVE_COMMAND)]).toEqual([0, 0]); // none; then IRR again
  });

  it('chooses among requests as the data sheet ranks them, whatever is masked, served and rotated', () => {
    const byte = fc.nat(0xff);
    fc.assert(
      fc.property(
        byte,
        byte,
        byte,
        fc.nat(7),
        fc.boolean(),
        fc.boolean(),
        (edges, mask, served, lowest, special, nested) => {
          const it = new PicBench(nested ? 0x11 : 0x01);
          Object.assign(it.state.chips[0] ?? {}, {
            edges: edges & ~0x04,
            mask,
            inService: served,
            lowest,
            specialMask: special,
          });
          const slaveAsks = (edges & 0x04) !== 0;
          if (slaveAsks) it.raise(9);
          let expected = -1;
          for (let step = 1; step <= 8 && expected === -1; step += 1) {
            const input = (lowest + step) % 8;
            const bit = 1 << input;
            const asks = (edges & bit) !== 0 && (mask & bit) === 0;
            const serves = (served & bit) !== 0 && !(special && (mask & bit) !== 0);
            if (asks && (!serves || (nested && input === 2))) expected = input;
            else if (serves) break;
          }
          const vector = expected === 2 ? 0x29 : 0x20 + expected;
          expect(pendingVector(it.state)).toBe(expected === -1 ? undefined : vector);
        },
      ),
      { numRuns: 2000 },
    );
  });

  it('forgets latched edges, mask and service at ICW1 (8259A, Initialization Command Words)', () => {
    const it = new PicBench();
    it.raise(1);
    it.acknowledge();
    it.write(PIC.MASTER_DATA, 0xf0);
    it.raise(3);
    it.write(PIC.MASTER_COMMAND, 0x13); // single, ICW4 follows: no ICW3
    it.write(PIC.MASTER_DATA, 0x40);
    it.write(PIC.MASTER_DATA, 0x01);
    expect(it.read(PIC.MASTER_DATA)).toBe(0);
    expect(intrOutput(it.state)).toBe(false);
    it.lower(3);
    it.raise(3);
    expect(pendingVector(it.state)).toBe(0x43);
  });
});

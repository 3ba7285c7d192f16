import { describe, expect, it } from 'vitest';
import { DR7, recordDebug } from '../../../src/machine/cpu/debug.js';
import {
  combine,
  type Delivered,
  deliver,
  deliverEvent,
  type GuestEvent,
} from '../../../src/machine/cpu/exceptions.js';
import { Boundary, Flag, R } from '../../../src/machine/layout/cpu-state.js';
import { exceptionIntercept, INTERCEPTS } from '../../../src/machine/svm/intercepts.js';
import { VmExit } from '../../../src/machine/svm/vmexit-request.js';
import { CpuMachine, faultOf, gate, IDT, INNER_STACK_TOP, Sel, STACK_TOP, TSS } from '../../support/cpu-machine.js';

const HANDLER = 0x1_4000;
const exception = (vector: number, more: Partial<GuestEvent> = {}): GuestEvent => ({
  type: 'exception',
  vector,
  ...more,
});
const words = (cpu: CpuMachine, at: number, count: number, size: number) =>
  Array.from({ length: count }, (_, index) => cpu.read(at + size * index, size));

describe('combination of exceptions (APM vol.2 §8.2.9 #DF, table 8-2)', () => {
  const contributory = [0, 10, 11, 12, 13];
  const benign = [1, 3, 4, 5, 6, 7, 16, 17, 18, 19];
  const verdict = (first: number, second: number) => combine(exception(first), exception(second));

  it('makes a double fault of two contributory ones, and of a page fault and a contributory one or another', () => {
    for (const first of contributory) {
      for (const second of contributory) expect(verdict(first, second)).toBe('double-fault');
      expect(verdict(first, 14)).toBe('second');
    }
    for (const second of [...contributory, 14]) expect(verdict(14, second)).toBe('double-fault');
  });

  it('handles the second when either is benign', () => {
    for (const other of benign) {
      for (const vector of [...contributory, 14]) {
        expect(verdict(other, vector)).toBe('second');
        expect(verdict(vector, other)).toBe('second');
      }
    }
  });

  it('shuts down when the double fault meets a contributory one or a page fault', () => {
    for (const second of [...contributory, 14]) expect(verdict(8, second)).toBe('shutdown');
    expect(verdict(8, 1)).toBe('second');
  });

  it('counts interrupts and INT n as benign', () => {
    for (const type of ['external', 'nmi', 'software', 'icebp'] as const) {
      expect(combine({ type, vector: 13 }, exception(13))).toBe('second');
    }
  });
});

describe('delivery in real mode (APM vol.2 §8.6)', () => {
  it('pushes FLAGS, CS and IP as words and clears IF, TF and AC', () => {
    const cpu = new CpuMachine().set({ rflags: 0x4_0302n, rip: 0x100n, rsp: 0x8000n, idtrLimit: 0x3ffn });
    cpu.write(4 * 0x20, 4, 0x2000_0123n);
    expect(cpu.attempt((tx) => deliver(tx, { type: 'external', vector: 0x20 }))).toMatchObject({ kind: 'done' });
    expect(words(cpu, 0x7ffa, 3, 2)).toEqual([0x100n, 0n, 0x302n]);
    expect([cpu.get('csBase'), cpu.get('rip'), cpu.get('rsp')]).toEqual([0x2_0000n, 0x123n, 0x7ffan]);
    expect(cpu.get('rflags')).toBe(2n);
  });

  it('pushes no error code, and faults past the limit of the table', () => {
    const cpu = new CpuMachine().set({ rsp: 0x8000n, idtrLimit: 0x3fn });
    cpu.attempt((tx) => deliver(tx, exception(13, { errorCode: 0 })));
    expect(cpu.get('rsp')).toBe(0x7ffan);
    expect(faultOf(cpu.attempt((tx) => deliver(tx, { type: 'external', vector: 0x10 })))).toBe('#GP(83)');
  });
});

describe('delivery in legacy protected mode (APM vol.2 §8.7)', () => {
  const machine = (access = 0x8e, selector: number = Sel.CODE) =>
    new CpuMachine().protectedMode().write(IDT + 8 * 13, 8, gate(selector, HANDLER, access));

  it('pushes EFLAGS with RF, CS, EIP and the error code of a fault', () => {
    const cpu = machine().set({ rflags: 0x202n, rip: 0x1234n });
    expect(faultOf(cpu.attempt((tx) => deliver(tx, exception(13, { errorCode: 0x18 }))))).toBe('none');
    expect(words(cpu, STACK_TOP - 16, 4, 4)).toEqual([0x18n, 0x1234n, BigInt(Sel.CODE), 0x1_0202n]);
    expect([cpu.get('rip'), cpu.get('rflags'), cpu.get('cpl')]).toEqual([BigInt(HANDLER), 2n, 0n]);
  });

  it('keeps IF through a trap gate, and saves RF as it is for an interrupt', () => {
    const cpu = machine(0x8f).set({ rflags: 0x302n });
    cpu.attempt((tx) => deliver(tx, { type: 'external', vector: 13 }));
    expect(cpu.read(STACK_TOP - 4, 4)).toBe(0x302n);
    expect(cpu.get('rflags')).toBe(0x202n);
  });

  it('pushes words through a 16-bit gate', () => {
    const cpu = machine(0x86).set({ rip: 0x1_2345n });
    cpu.attempt((tx) => deliver(tx, exception(13, { errorCode: 5 })));
    expect(words(cpu, STACK_TOP - 8, 4, 2)).toEqual([5n, 0x2345n, BigInt(Sel.CODE), 2n]);
    expect(cpu.get('rip')).toBe(BigInt(HANDLER & 0xffff));
  });

  it('switches to the stack of the TSS for an inner level', () => {
    const cpu = machine().atUserLevel().set({ rip: 0x1234n, rflags: 0x202n });
    cpu.attempt((tx) => deliver(tx, { type: 'external', vector: 13 }));
    expect(words(cpu, INNER_STACK_TOP - 20, 5, 4)).toEqual([
      0x1234n,
      BigInt(Sel.USER_CODE),
      0x202n,
      BigInt(STACK_TOP),
      BigInt(Sel.USER_DATA),
    ]);
    expect([cpu.get('cpl'), cpu.get('cs') & 0xffffn, cpu.get('ss') & 0xffffn]).toEqual([0n, 8n, 16n]);
  });

  it('stays at CPL 3 in a conforming handler, on the same stack', () => {
    const cpu = machine(0x8e, Sel.CONFORMING).atUserLevel();
    cpu.attempt((tx) => deliver(tx, { type: 'external', vector: 13 }));
    expect([cpu.get('cpl'), cpu.get('cs') & 0xffffn]).toEqual([3n, BigInt(Sel.CONFORMING | 3)]);
    expect(cpu.get('rsp')).toBe(BigInt(STACK_TOP - 12));
  });

  it('leaves virtual-8086 mode with nine items, and makes the data segments null (§8.8)', () => {
    const cpu = new CpuMachine().virtual8086(3).write(IDT + 8 * 13, 8, gate(Sel.CODE, HANDLER, 0x8e));
    cpu.set({ gs: 0xffff_00f3_4444n, fs: 0xffff_00f3_3333n, es: 0xffff_00f3_2222n });
    cpu.attempt((tx) => deliver(tx, { type: 'external', vector: 13 }));
    const frame = words(cpu, INNER_STACK_TOP - 36, 9, 4);
    expect(frame).toEqual([0n, 0x1000n, 0x2_3002n, 0x8000n, 0x1000n, 0x2222n, 0x1000n, 0x3333n, 0x4444n]);
    expect([cpu.get('rflags') & Flag.VM, cpu.get('gs'), cpu.get('ds'), cpu.get('cpl')]).toEqual([0n, 0n, 0n, 0n]);
  });

  it('refuses a handler of another level from virtual-8086 mode', () => {
    const cpu = new CpuMachine().virtual8086(3).write(IDT + 8 * 13, 8, gate(Sel.USER_CODE, HANDLER, 0xee));
    expect(faultOf(cpu.attempt((tx) => deliver(tx, { type: 'external', vector: 13 })))).toBe('#GP(19)');
  });

  const errors: readonly (readonly [string, (cpu: CpuMachine) => void, GuestEvent['type'], string])[] = [
    ['a vector past the limit', (cpu) => cpu.set({ idtrLimit: 8n * 13n + 6n }), 'external', '#GP(6b)'],
    ['a gate of a wrong type', (cpu) => cpu.write(IDT + 104 + 5, 1, 0x89n), 'external', '#GP(6b)'],
    ['a gate that is not present', (cpu) => cpu.write(IDT + 104 + 5, 1, 0x0en), 'external', '#NP(6b)'],
    ['INT n through a gate that is not present', (cpu) => cpu.write(IDT + 104 + 5, 1, 0x6en), 'software', '#NP(6a)'],
    ['a null selector', (cpu) => cpu.write(IDT + 104 + 2, 2, 0n), 'external', '#GP(1)'],
    ['a selector beyond the GDT', (cpu) => cpu.write(IDT + 104 + 2, 2, 0x7f8n), 'external', '#GP(7f9)'],
    ['a handler that is data', (cpu) => cpu.write(IDT + 104 + 2, 2, BigInt(Sel.DATA)), 'software', '#GP(10)'],
    ['a TSS that is too short', (cpu) => cpu.set({ tr: 0x8_008b_0028n }).atUserLevel(), 'external', '#TS(29)'],
    ['a null inner stack', (cpu) => cpu.write(TSS + 8, 2, 0n).atUserLevel(), 'external', '#TS(1)'],
    ['an inner stack of the wrong level', (cpu) => cpu.write(TSS + 8, 2, 0x23n).atUserLevel(), 'external', '#TS(21)'],
  ];
  it.each(errors)('%s', (_name, damage, type, expected) => {
    const cpu = machine();
    damage(cpu);
    expect(faultOf(cpu.attempt((tx) => deliver(tx, { type, vector: 13 })))).toBe(expected);
  });

  it('checks the DPL of the gate for INT n and INT3 only (§8.7.2)', () => {
    const cpu = machine().atUserLevel();
    expect(faultOf(cpu.attempt((tx) => deliver(tx, { type: 'software', vector: 13, nextRip: 2n })))).toBe('#GP(6a)');
    expect(faultOf(cpu.attempt((tx) => deliver(tx, exception(13, { nextRip: 2n }))))).toBe('#GP(6a)');
    expect(faultOf(cpu.attempt((tx) => deliver(tx, { type: 'icebp', vector: 13, nextRip: 2n })))).toBe('none');
    expect(cpu.read(INNER_STACK_TOP - 20, 4)).toBe(2n);
  });
});

describe('delivery in long mode (APM vol.2 §8.9)', () => {
  const machine = (ist = 0, access = 0x8e) =>
    new CpuMachine()
      .longMode()
      .write(IDT + 16 * 14, 8, gate(Sel.CODE64, HANDLER, access, ist))
      .write(IDT + 16 * 14 + 8, 8, 0n);

  it('aligns the stack, always pushes SS:RSP, and keeps SS at the same level', () => {
    const cpu = machine().set({ rsp: BigInt(STACK_TOP - 5), rip: 0x1234n, rflags: 0x246n });
    cpu.attempt((tx) => deliver(tx, exception(14, { errorCode: 2, linear: 0x5000n })));
    const top = STACK_TOP - 16;
    expect(cpu.get('rsp')).toBe(BigInt(top - 48));
    expect(words(cpu, top - 48, 6, 8)).toEqual([
      2n,
      0x1234n,
      BigInt(Sel.CODE64),
      0x1_0246n,
      BigInt(STACK_TOP - 5),
      BigInt(Sel.DATA),
    ]);
    expect(cpu.get('ss') & 0xffffn).toBe(BigInt(Sel.DATA));
  });

  it('makes SS null for an inner level, on RSP0', () => {
    const cpu = machine().atUserLevel();
    cpu.attempt((tx) => deliver(tx, { type: 'external', vector: 14 }));
    expect([cpu.get('ss'), cpu.get('cpl'), cpu.get('rsp')]).toEqual([0n, 0n, BigInt(INNER_STACK_TOP - 40)]);
  });

  it('takes the stack of the interrupt-stack table at any level (§8.9.4)', () => {
    const cpu = machine(3).write(TSS + 0x24 + 16, 8, 0x2_4000n);
    cpu.attempt((tx) => deliver(tx, { type: 'external', vector: 14 }));
    expect([cpu.get('rsp'), cpu.get('ss') & 0xffffn]).toEqual([0x2_4000n - 40n, BigInt(Sel.DATA)]);
  });

  it('raises #TS for an IST entry past the TSS', () => {
    const cpu = machine(7).set({ tr: 0x40_008b_0028n });
    expect(faultOf(cpu.attempt((tx) => deliver(tx, { type: 'software', vector: 14, nextRip: 0n })))).toBe('#TS(28)');
  });

  it('raises #SS for a stack that is not canonical', () => {
    const cpu = machine().set({ rsp: 0x9000_0000_0000n });
    expect(faultOf(cpu.attempt((tx) => deliver(tx, { type: 'external', vector: 14 })))).toBe('#SS(1)');
  });

  it('knows interrupt and trap gates only, to 64-bit code', () => {
    expect(faultOf(machine(0, 0x85).attempt((tx) => deliver(tx, { type: 'external', vector: 14 })))).toBe('#GP(73)');
    const cpu = machine().write(IDT + 16 * 14 + 2, 2, BigInt(Sel.CODE));
    expect(faultOf(cpu.attempt((tx) => deliver(tx, { type: 'external', vector: 14 })))).toBe('#GP(9)');
  });

  it('blocks further NMIs and ends shadows', () => {
    const cpu = machine().set({ boundary: Boundary.INTERRUPT_SHADOW | Boundary.SINGLE_STEP });
    cpu.attempt((tx) => deliver(tx, { type: 'nmi', vector: 14 }));
    expect(cpu.get('boundary')).toBe(Boundary.NMI_BLOCKED);
  });
});

describe('delivery with what it raises', () => {
  const machine = () => {
    const cpu = new CpuMachine().longMode();
    for (const vector of [1, 6, 8, 13, 14]) {
      cpu.write(IDT + 16 * vector, 8, gate(Sel.CODE64, HANDLER + vector, 0x8e));
      cpu.write(IDT + 16 * vector + 8, 8, 0n);
    }
    return cpu;
  };
  const run = (cpu: CpuMachine, event: GuestEvent) => {
    const seen: string[] = [];
    let result: Delivered | 'shutdown' | 'endless' | undefined;
    cpu.attempt((tx) => {
      result = deliverEvent(tx, event, (next, during) =>
        seen.push(`${next.vector} during ${during?.vector ?? 'none'}`),
      );
    });
    return { result: typeof result === 'object' ? result.event.vector : result, seen };
  };

  it('writes CR2 of a page fault', () => {
    const cpu = machine();
    expect(run(cpu, exception(14, { errorCode: 0, linear: 0x5000n })).result).toBe(14);
    expect([cpu.get('cr2'), cpu.get('rip')]).toEqual([0x5000n, BigInt(HANDLER + 14)]);
  });

  it('becomes a double fault whose RIP and error code are those of the manual', () => {
    const cpu = machine()
      .write(IDT + 16 * 13 + 5, 1, 0x0en)
      .set({ rip: 0x1234n });
    expect(run(cpu, exception(13, { errorCode: 0x10 }))).toEqual({
      result: 8,
      seen: ['13 during none', '11 during 13', '8 during 13'],
    });
    expect(words(cpu, Number(cpu.get('rsp')), 2, 8)).toEqual([0n, 0x1234n]);
  });

  it('keeps CR2 of the first page fault when its gate is missing, and takes that of a second one', () => {
    const missingGate = machine().write(IDT + 16 * 14 + 5, 1, 0x0en);
    expect(run(missingGate, exception(14, { errorCode: 0, linear: 0x5000n })).result).toBe(8);
    expect(missingGate.get('cr2')).toBe(0x5000n);
    const missingStack = machine()
      .write(TSS + 0x24, 8, 0x4_0000n)
      .write(IDT + 16 * 14 + 4, 1, 1n);
    missingStack.missingPages.add(0x3f);
    expect(run(missingStack, exception(14, { errorCode: 0, linear: 0x5000n })).result).toBe(8);
    expect(missingStack.get('cr2')).toBe(0x3_fff8n);
  });

  it('keeps what the caller had changed, such as a V_IRQ that was taken', () => {
    const cpu = machine()
      .write(IDT + 16 * 13 + 5, 1, 0x0en)
      .set({ intControl: 0x100n });
    cpu.attempt((tx) => {
      tx.set(R.intControl, 0n);
      deliverEvent(tx, exception(13, { errorCode: 0 }), () => {});
    });
    expect([cpu.get('intControl'), cpu.get('rip')]).toEqual([0n, BigInt(HANDLER + 8)]);
  });

  it('shuts down on the third fault', () => {
    const cpu = machine()
      .write(IDT + 16 * 13 + 5, 1, 0x0en)
      .write(IDT + 16 * 8 + 5, 1, 0x0en);
    expect(run(cpu, exception(13, { errorCode: 0 })).result).toBe('shutdown');
  });

  it('writes DR6 and DR7 before the intercept, and CR2 after it (§15.12)', () => {
    const cpu = machine().set({ dr7: 0x2400n, dr6: 0xffff_0ff0n });
    const { tx } = cpu;
    tx.abort();
    const stop = () => {
      throw new VmExit(INTERCEPTS[exceptionIntercept(1)].exitCode);
    };
    expect(() => deliverEvent(tx, exception(1, { dr6: 0x4001n }), stop)).toThrow();
    expect([tx.get(R.dr6), tx.get(R.dr7)]).toEqual([0xffff_4ff1n, 0x400n]);
    tx.abort();
    expect(() => deliverEvent(tx, exception(14, { linear: 0x5000n }), stop)).toThrow();
    expect(tx.get(R.cr2)).toBe(0n);
  });

  it('replaces breakpoint bits of DR6 and leaves the others (§13.1.1.2)', () => {
    const cpu = machine().set({ dr6: 0xffff_4ff3n, dr7: 0x400n | DR7.GD });
    expect(recordDebug(cpu.reader, 4n)).toEqual([
      [R.dr6, 0xffff_4ff4n],
      [R.dr7, 0x400n],
    ]);
  });
});

import { describe, expect, it } from 'vitest';
import { deliver, deliverEvent, eventOfFault, type GuestEvent } from '../../../src/machine/cpu/exceptions.js';
import { CR0, CR4, Flag, R } from '../../../src/machine/layout/cpu-state.js';
import {
  CpuMachine,
  DATA,
  descriptor,
  type Ended,
  faultOf,
  GDT,
  gate,
  IDT,
  Sel,
  STACK_TOP,
  TSS,
} from '../../support/cpu-machine.js';

const OTHER = Sel.SPARE;
const GATE = 0x60;
const LDT = 0x68;
const OTHER_TSS = 0x6000;
const ENTRY = 0x1_5000;
const AVAILABLE = 0x89;
const BUSY = 0x8b;
const JMP = (selector: number) => [0xea, 0, 0, 0, 0, selector & 0xff, selector >> 8];
const CALL = (selector: number) => [0x9a, 0, 0, 0, 0, selector & 0xff, selector >> 8];
const IRET = [0xcf];

/** Offsets of a 32-bit TSS (figure 12-6). */
const T = { link: 0, cr3: 0x1c, eip: 0x20, eflags: 0x24, eax: 0x28, esp: 0x38, es: 0x48, cs: 0x4c, ss: 0x50, ds: 0x54 };
const [FS, GS, LDTR, TRAP] = [0x58, 0x5c, 0x60, 0x64];

/** In protected mode, with a second task that starts at `ENTRY`. */
function machine(type: number = AVAILABLE): CpuMachine {
  const cpu = new CpuMachine().protectedMode();
  cpu.describe(OTHER, descriptor(OTHER_TSS, 0x67, type, 0)).describe(GATE, gate(OTHER, 0, 0x85));
  const put = (offset: number, value: number) => cpu.write(OTHER_TSS + offset, 4, BigInt(value));
  put(T.eip, ENTRY);
  put(T.eflags, 0x46);
  put(T.eax, 0x1234_5678);
  put(T.esp, 0x2_4000);
  put(T.cs, Sel.CODE);
  for (const offset of [T.es, T.ss, T.ds, FS, GS]) put(offset, Sel.DATA);
  return cpu.set({ rax: 0xaaaan, rdi: 0xddddn, rflags: 0x202n });
}
const typeIn = (cpu: CpuMachine, selector: number) => Number(cpu.read(GDT + selector + 5, 1));
const field = (cpu: CpuMachine, tss: number, offset: number, size = 4) => cpu.read(tss + offset, size);
/** What the incoming task begins with. */
const begins = (cpu: CpuMachine, ended: Ended): string =>
  ended.kind !== 'done' || cpu.faultAfter === undefined
    ? faultOf(ended)
    : faultOf({ ...cpu.faultAfter, kind: 'fault', errorCode: cpu.faultAfter.errorCode, fault: cpu.faultAfter });

describe('a task switch (APM vol.2 §12.3.2 Switching Tasks)', () => {
  it('saves the outgoing task and loads the incoming one', () => {
    const cpu = machine();
    const rip = cpu.get('rip');
    expect(cpu.run(...JMP(OTHER))).toMatchObject({
      event: { type: 'cpu.task-switched', selector: OTHER, cause: 'jump', vector: null },
    });
    expect([T.eip, T.eflags, T.eax, T.esp].map((offset) => field(cpu, TSS, offset))).toEqual([
      rip + 7n,
      0x202n,
      0xaaaan,
      BigInt(STACK_TOP),
    ]);
    expect(field(cpu, TSS, 0x44)).toBe(0xddddn);
    expect([T.es, T.cs, T.ss].map((offset) => field(cpu, TSS, offset, 2))).toEqual([0x10n, 0x08n, 0x10n]);
    expect([cpu.get('rip'), cpu.get('rflags'), cpu.get('rax'), cpu.get('rsp')]).toEqual([
      BigInt(ENTRY),
      0x46n,
      0x1234_5678n,
      0x2_4000n,
    ]);
    expect([cpu.get('tr') & 0xffff_ffffn, cpu.get('trBase')]).toEqual([0x8b_0058n, BigInt(OTHER_TSS)]);
    expect(cpu.get('cr0') & CR0.TS).toBe(CR0.TS);
    expect(cpu.flushes).toEqual([{ scope: 'non-global', asid: 0 }]);
  });

  it('does not write CR3 into the outgoing TSS, nor load it without paging (§12.2.4, §12.3.1)', () => {
    const cpu = machine().write(TSS + T.cr3, 4, 0x7777n);
    cpu.write(OTHER_TSS + T.cr3, 4, 0x9000n).run(...JMP(OTHER));
    expect([field(cpu, TSS, T.cr3), cpu.get('cr3')]).toEqual([0x7777n, 0n]);
  });

  it('loads CR3 and the page-directory pointers of PAE paging (§5.2.4)', () => {
    const cpu = machine().set({ cr0: CR0.PE | CR0.PG, cr4: CR4.PAE });
    cpu.write(OTHER_TSS + T.cr3, 4, 0x9000n).write(0x9008, 8, 0xa001n);
    cpu.run(...JMP(OTHER));
    expect([cpu.get('cr3'), cpu.get('pdpte1')]).toEqual([0x9000n, 0xa001n]);
    const bad = machine().set({ cr0: CR0.PE | CR0.PG, cr4: CR4.PAE });
    bad.write(OTHER_TSS + T.cr3, 4, 0x9000n).write(0x9008, 8, 0xa003n);
    expect(faultOf(bad.run(...JMP(OTHER)))).toBe('#GP(0)');
    expect(bad.get('tr') & 0xffffn).toBe(BigInt(Sel.TSS));
  });

  it('disables local breakpoints and LE (§13.1.1.4)', () => {
    const cpu = machine().set({ dr7: 0x7ffn });
    cpu.run(...JMP(OTHER));
    expect(cpu.get('dr7')).toBe(0x6aan);
  });

  it('loads the LDT, and segments out of it', () => {
    const cpu = machine().describe(LDT, descriptor(DATA, 0xff, 0x82, 0));
    cpu.write(DATA + 8, 8, descriptor(0x1000, 0xfff, 0x93, 4)).write(OTHER_TSS + LDTR, 2, BigInt(LDT));
    cpu.write(OTHER_TSS + FS, 2, 0xcn).run(...JMP(OTHER));
    expect([cpu.get('ldtr') & 0xffffn, cpu.get('fs') & 0xffffn, cpu.get('fsBase')]).toEqual([
      BigInt(LDT),
      0xcn,
      0x1000n,
    ]);
    expect(cpu.faultAfter).toBeUndefined();
  });

  it('takes its privilege level from the RPL of CS', () => {
    const cpu = machine().write(OTHER_TSS + T.cs, 2, BigInt(Sel.USER_CODE));
    for (const offset of [T.ss, T.es, T.ds, FS, GS]) cpu.write(OTHER_TSS + offset, 2, BigInt(Sel.USER_DATA));
    cpu.run(...JMP(OTHER));
    expect([cpu.get('cpl'), cpu.faultAfter]).toEqual([3n, undefined]);
  });

  it('enters virtual-8086 mode by EFLAGS.VM', () => {
    const cpu = machine().write(OTHER_TSS + T.eflags, 4, Flag.VM | 2n);
    for (const offset of [T.cs, T.ss, T.es, T.ds, FS, GS]) cpu.write(OTHER_TSS + offset, 2, 0x1234n);
    cpu.run(...JMP(OTHER));
    expect([cpu.get('cpl'), cpu.get('cs'), cpu.get('csBase')]).toEqual([3n, 0xffff_00f3_1234n, 0x1_2340n]);
  });

  it('has 16-bit tasks without CR3, FS, GS and upper halves', () => {
    const cpu = new CpuMachine().protectedMode().describe(OTHER, descriptor(OTHER_TSS, 0x2b, 0x81, 0));
    const words: readonly (readonly [number, number])[] = [
      ...([
        [0x0e, 0x4321],
        [0x10, 0x2],
        [0x12, 0x1111],
      ] as const),
      ...([
        [0x22, Sel.DATA],
        [0x24, Sel.CODE16],
        [0x26, Sel.DATA],
        [0x28, Sel.DATA],
      ] as const),
    ];
    for (const [offset, value] of words) cpu.write(OTHER_TSS + offset, 2, BigInt(value));
    cpu.set({ rax: 0xffff_ffffn }).run(...CALL(OTHER));
    expect([cpu.get('rip'), cpu.get('rax'), cpu.get('fs')]).toEqual([0x4321n, 0x1111n, 0n]);
    expect([cpu.get('rflags'), field(cpu, OTHER_TSS, 0, 2)]).toEqual([Flag.NT | 2n, BigInt(Sel.TSS)]);
    cpu.set({ rip: 0x100n, rax: 0x5_2222n }).run(...IRET);
    expect([field(cpu, OTHER_TSS, 0x0e, 2), field(cpu, OTHER_TSS, 0x12, 2)]).toEqual([0x101n, 0x2222n]);
    expect(cpu.get('tr') & 0xffffn).toBe(BigInt(Sel.TSS));
  });
});

describe('nesting (APM vol.2 §12.3.4, table 12-1)', () => {
  it('JMP clears the busy bit of the old task and sets that of the new one', () => {
    const cpu = machine();
    cpu.run(...JMP(OTHER));
    expect([typeIn(cpu, Sel.TSS), typeIn(cpu, OTHER)]).toEqual([AVAILABLE, BUSY]);
    expect([cpu.get('rflags') & Flag.NT, field(cpu, OTHER_TSS, T.link, 2)]).toEqual([0n, 0n]);
  });

  it('CALL leaves the old task busy, links it and sets NT', () => {
    const cpu = machine();
    cpu.run(...CALL(GATE));
    expect([typeIn(cpu, Sel.TSS), typeIn(cpu, OTHER)]).toEqual([BUSY, BUSY]);
    expect([cpu.get('rflags') & Flag.NT, field(cpu, OTHER_TSS, T.link, 2)]).toEqual([Flag.NT, BigInt(Sel.TSS)]);
  });

  it('IRET goes back, frees the nested task and clears its NT', () => {
    const cpu = machine();
    const rip = cpu.get('rip') + 7n;
    cpu.run(...CALL(OTHER));
    expect(cpu.run(...IRET)).toMatchObject({
      event: { type: 'cpu.task-switched', selector: Sel.TSS, cause: 'return' },
    });
    expect([typeIn(cpu, Sel.TSS), typeIn(cpu, OTHER)]).toEqual([BUSY, AVAILABLE]);
    expect([cpu.get('rip'), field(cpu, OTHER_TSS, T.eflags)]).toEqual([rip, 0x46n]);
    expect(field(cpu, OTHER_TSS, T.eip)).toBe(BigInt(ENTRY + 1));
  });
});

describe('what stops a task switch in the old task (APM vol.2 §12.3.2)', () => {
  const cases: readonly (readonly [string, (cpu: CpuMachine) => unknown, readonly number[], string])[] = [
    ['a busy TSS', (cpu) => cpu.write(GDT + OTHER + 5, 1, 0x8bn), JMP(OTHER), '#GP(58)'],
    ['a busy TSS behind a gate', (cpu) => cpu.write(GDT + OTHER + 5, 1, 0x8bn), CALL(GATE), '#GP(58)'],
    ['a TSS that is not present', (cpu) => cpu.write(GDT + OTHER + 5, 1, 0x09n), JMP(OTHER), '#NP(58)'],
    ['a gate that is not present', (cpu) => cpu.write(GDT + GATE + 5, 1, 0x05n), JMP(GATE), '#NP(60)'],
    ['a short TSS', (cpu) => cpu.write(GDT + OTHER, 2, 0x66n), JMP(OTHER), '#TS(58)'],
    ['a gate to the LDT', (cpu) => cpu.write(GDT + GATE + 2, 2, 0x5cn), JMP(GATE), '#GP(5c)'],
    ['a gate to no TSS', (cpu) => cpu.write(GDT + GATE + 2, 2, 0x08n), JMP(GATE), '#GP(8)'],
    ['a gate of a higher level', (cpu) => cpu.atUserLevel(), JMP(GATE | 3), '#GP(60)'],
    ['an RPL above DPL', (cpu) => cpu, JMP(OTHER | 3), '#GP(58)'],
    ['a short TSS of the old task', (cpu) => cpu.set({ tr: 0x66_008b_0028n }), JMP(OTHER), '#TS(28)'],
    ['a null back link', (cpu) => cpu.set({ rflags: Flag.NT | 2n }), IRET, '#TS(0)'],
    ['a back link to an available TSS', (cpu) => link(cpu, OTHER), IRET, '#TS(58)'],
    ['a back link beyond the GDT', (cpu) => link(cpu, 0x7f8), IRET, '#TS(7f8)'],
  ];
  const link = (cpu: CpuMachine, selector: number) => cpu.set({ rflags: Flag.NT | 2n }).write(TSS, 2, BigInt(selector));
  it.each(cases)('%s', (_name, prepare, code, expected) => {
    const cpu = machine();
    prepare(cpu);
    const before = cpu.get('rsp');
    expect(faultOf(cpu.run(...code))).toBe(expected);
    expect([cpu.get('rsp'), field(cpu, TSS, T.eip)]).toEqual([before, 0n]);
  });

  it('a page of the TSS that is missing', () => {
    const cpu = machine();
    cpu.missingPages.add(OTHER_TSS >> 12);
    expect(faultOf(cpu.run(...JMP(OTHER)))).toBe('#PF(0)');
    expect([typeIn(cpu, OTHER), field(cpu, TSS, T.eip)]).toEqual([AVAILABLE, 0n]);
  });

  it('long mode, which has no tasks (§12.3.3)', () => {
    const cpu = new CpuMachine().longMode().describe(OTHER, descriptor(OTHER_TSS, 0x67, AVAILABLE, 0));
    expect(
      faultOf(
        cpu
          .write(DATA, 6, 0x58n << 32n)
          .set({ rbx: BigInt(DATA) })
          .run(0xff, 0x2b),
      ),
    ).toBe('#GP(58)');
  });
});

describe('what the new task begins with (APM vol.2 §12.3.2)', () => {
  const put = (offset: number, value: number) => (cpu: CpuMachine) => cpu.write(OTHER_TSS + offset, 2, BigInt(value));
  const spoil = (selector: number, access: number) => (cpu: CpuMachine) =>
    cpu.describe(0x70, descriptor(0, 0xfff, access, 0xc)) && put(selector, 0x70)(cpu);
  const cases: readonly (readonly [string, (cpu: CpuMachine) => unknown, string])[] = [
    ['a null CS', put(T.cs, 0), '#TS(0)'],
    ['a CS beyond the GDT', put(T.cs, 0x7f8), '#TS(7f8)'],
    ['a CS that is data', put(T.cs, Sel.DATA), '#TS(10)'],
    ['a CS of another level', put(T.cs, Sel.CODE | 3), '#TS(8)'],
    ['a CS that is not present', spoil(T.cs, 0x1b), '#NP(70)'],
    ['a null SS', put(T.ss, 0), '#TS(0)'],
    ['a read-only SS', spoil(T.ss, 0x91), '#TS(70)'],
    ['an SS that is not present', spoil(T.ss, 0x13), '#SS(70)'],
    ['a DS of code that cannot be read', spoil(T.ds, 0x99), '#TS(70)'],
    ['a DS that is not present', spoil(T.ds, 0x13), '#NP(70)'],
    ['an LDT selector into the LDT', put(LDTR, 0x6c), '#TS(6c)'],
    ['an LDT that is none', put(LDTR, Sel.DATA), '#TS(10)'],
    [
      'an LDT that is not present',
      (cpu) => cpu.describe(LDT, descriptor(0, 0xff, 0x02, 0)) && put(LDTR, LDT)(cpu),
      '#TS(68)',
    ],
    ['the T bit', put(TRAP, 1), '#DB'],
  ];
  it.each(cases)('%s', (_name, prepare, expected) => {
    const cpu = machine();
    prepare(cpu);
    expect(begins(cpu, cpu.run(...JMP(OTHER)))).toBe(expected);
    expect([cpu.get('tr') & 0xffffn, cpu.get('rip'), field(cpu, TSS, T.eflags)]).toEqual([
      BigInt(OTHER),
      BigInt(ENTRY),
      0x202n,
    ]);
  });

  it('segments behind the one that failed are not present', () => {
    const cpu = machine().write(OTHER_TSS + T.ss, 2, 0n);
    cpu.run(...JMP(OTHER));
    expect([cpu.get('ds'), cpu.get('cs') & 0xffff_ffffn]).toEqual([BigInt(Sel.DATA), 0xc9b_0008n]);
  });

  it('the T bit is DR6.BT (§13.1.1.3)', () => {
    const cpu = machine().write(OTHER_TSS + TRAP, 1, 1n);
    cpu.run(...JMP(OTHER));
    expect(cpu.faultAfter?.dr6).toBe(0x8000n);
  });
});

describe('an event through a task gate (APM vol.2 §12.3.2, §8.7)', () => {
  const through = (event: GuestEvent, prepare: (cpu: CpuMachine) => unknown = () => {}) => {
    const cpu = machine().write(IDT + 8 * event.vector, 8, gate(OTHER, 0, 0x85));
    prepare(cpu);
    const ended = cpu.attempt((tx) => {
      cpu.faultAfter = deliver(tx, event)?.fault;
    });
    return { cpu, ended };
  };
  const protectionFault: GuestEvent = { type: 'exception', vector: 13, errorCode: 0x1234 };

  it('pushes the error code on the stack of the new task, and saves RF with a fault', () => {
    const { cpu } = through(protectionFault);
    expect([cpu.get('rsp'), cpu.read(0x2_3ffc, 4)]).toEqual([0x2_3ffcn, 0x1234n]);
    expect([field(cpu, TSS, T.eflags), field(cpu, OTHER_TSS, T.link, 2)]).toEqual([0x1_0202n, BigInt(Sel.TSS)]);
    expect(cpu.get('rflags')).toBe(Flag.NT | 0x46n);
  });

  it('begins with #SS when there is no room for it', () => {
    const { cpu, ended } = through(protectionFault, (machine) => {
      machine.describe(0x70, descriptor(0, 0xff, 0x93, 0x4)).write(OTHER_TSS + T.ss, 2, 0x70n);
    });
    expect(begins(cpu, ended)).toBe('#SS(1)');
  });

  it('saves the RIP behind INT n, and its errors have no EXT bit', () => {
    const event: GuestEvent = { type: 'software', vector: 0x30, nextRip: 0x777n };
    expect(field(through(event).cpu, TSS, T.eip)).toBe(0x777n);
    const busy = (cpu: CpuMachine) => cpu.write(GDT + OTHER + 5, 1, 0x8bn);
    expect(faultOf(through(event, busy).ended)).toBe('#GP(58)');
    expect(faultOf(through({ type: 'external', vector: 0x30 }, busy).ended)).toBe('#GP(59)');
  });

  it('counts a fault of the new task as one of the delivery (§8.2.9)', () => {
    const cpu = machine().write(IDT + 8 * 8, 8, gate(Sel.CODE, ENTRY, 0x8e));
    cpu.write(IDT + 8 * 13, 8, gate(OTHER, 0, 0x85)).write(OTHER_TSS + T.ds, 2, 0x7f8n);
    const seen: number[] = [];
    const recognise = (event: GuestEvent) => seen.push(event.vector);
    cpu.attempt((tx) => {
      const first = deliverEvent(tx, protectionFault, recognise);
      const fault = typeof first === 'object' ? first.task?.fault : undefined;
      if (fault !== undefined) deliverEvent(tx, eventOfFault(fault), recognise, protectionFault);
    });
    expect(seen).toEqual([13, 10, 8]);
  });
});

describe('the intercept (APM vol.2 §15.14.1 Task Switch Intercept)', () => {
  const infoOf = (ended: Ended) =>
    ended.kind === 'exit' ? [ended.exit.code, ended.exit.info1, ended.exit.info2] : faultOf(ended);
  const [iret, jump, errorCode, rf] = [1n << 36n, 1n << 38n, 1n << 44n, 1n << 48n];

  it('comes after the checks of gate and TSS, and before anything is saved', () => {
    const cpu = machine().intercepting('TASK_SWITCH');
    expect(infoOf(cpu.run(...JMP(GATE)))).toEqual([0x7dn, 0x58n, jump]);
    expect(infoOf(cpu.run(...CALL(OTHER)))).toEqual([0x7dn, 0x58n, 0n]);
    expect(field(cpu, TSS, T.eip)).toBe(0n);
    cpu.write(GDT + OTHER, 2, 0x66n);
    expect(infoOf(cpu.run(...JMP(GATE)))).toBe('#TS(58)');
  });

  it('tells IRET', () => {
    const cpu = machine(BUSY).intercepting('TASK_SWITCH').write(TSS, 2, BigInt(OTHER));
    expect(infoOf(cpu.set({ rflags: Flag.NT | 2n }).run(...IRET))).toEqual([0x7dn, 0x58n, iret]);
  });

  it('tells the error code and RF of an exception', () => {
    const cpu = machine().intercepting('TASK_SWITCH');
    cpu.write(IDT + 8 * 13, 8, gate(OTHER, 0, 0x85));
    const ended = cpu.attempt((tx) => deliver(tx, { type: 'exception', vector: 13, errorCode: 0x18 }));
    expect(infoOf(ended)).toEqual([0x7dn, 0x58n, rf | errorCode | 0x18n]);
  });

  it('has nRIP zero though an instruction asked: it is no instruction intercept (§15.7.1)', () => {
    const cpu = machine().intercepting('TASK_SWITCH');
    const ended = cpu.run(...JMP(OTHER));
    expect(ended.kind === 'exit' && ended.exit.nextRip).toBe(false);
  });
});

describe('the slots of the new task', () => {
  it('replaces the busy bit in TR only', () => {
    const cpu = machine();
    cpu.run(...JMP(OTHER));
    expect(cpu.registers[R.tr]).toBe((0x67n << 32n) | (BigInt(BUSY) << 16n) | BigInt(OTHER));
  });
});

/** Instruction boundaries, traps and world switches on a whole machine: what no single instruction shows. */
import { describe, expect, it } from 'vitest';
import { Vector } from '../../../src/machine/faults.js';
import { Boundary, CR0, CR4, Flag, REGISTER_NAMES } from '../../../src/machine/layout/cpu-state.js';
import { RAM_BASE } from '../../../src/machine/layout/linear-memory.js';
import { VMCB } from '../../../src/machine/layout/vmcb.js';
import { ExitCode } from '../../../src/machine/svm/exit-code.js';
import { sPA } from '../../../src/machine/units.js';
import { descriptor, gate } from '../../support/cpu-machine.js';
import { CODE, DATA, LiveMachine, STACK_TOP, STAR, USER, USER_SEGMENTS, VMCB_AT } from '../../support/live-machine.js';

const HLT = 'f4';
const at = (address: number): bigint => BigInt(address);

describe('single step over SYSCALL and SYSRET (APM vol.3 SYSCALL; kvm-unit-tests, syscall)', () => {
  /** User code with TF set that executes SYSCALL into `CODE`. */
  const stepping = (sfmask: bigint): LiveMachine =>
    new LiveMachine(HLT, {
      ...USER_SEGMENTS,
      rip: at(USER),
      rflags: 2n | Flag.TF,
      star: STAR,
      lstar: at(CODE),
      sfmask,
    }).put(USER, '0f05');

  it('does not trap when SFMASK clears TF', () => {
    const live = stepping(Flag.TF);
    live.run();
    expect(live.vectors).toEqual([]);
  });

  it('traps before the first kernel instruction when TF survives', () => {
    const live = stepping(0n);
    live.run();
    expect(live.vectors).toEqual([Vector.DB]);
    expect(live.pushedRip).toBe(at(CODE));
    expect(live.get('dr6') & 0x4000n).toBe(0x4000n);
  });

  it.each([
    ['traps at once in user code when SYSRET loads TF', Flag.TF, [Vector.DB]],
    ['does not trap when SYSRET loads TF clear', 0n, [Vector.GP]],
  ])('%s', (_name, tf, vectors) => {
    // User code ends with HLT: #GP there when nothing traps before.
    const live = new LiveMachine('480f07', { star: STAR, rcx: at(USER), r11: 2n | tf }).put(USER, HLT);
    live.run();
    expect(live.vectors).toEqual(vectors);
    expect(live.pushedRip).toBe(at(USER));
  });
});

describe('RFLAGS.RF (APM vol.2 §3.1.6 RFLAGS Register, §13.1.3.1 Instruction Breakpoints)', () => {
  const breakpoint = { dr0: at(CODE), dr7: 0x401n };

  it('holds off a breakpoint on a repeated instruction until its last iteration', () => {
    const copying = { rflags: 2n | Flag.RF, rcx: 3n, rsi: at(DATA), rdi: at(DATA + 64) };
    const live = new LiveMachine(`f3a4 ${HLT}`, { ...breakpoint, ...copying });
    live.run();
    expect([live.vectors, live.get('rcx'), live.get('rflags')]).toEqual([[], 0n, 2n]);
  });

  it('is clear behind the instruction', () => {
    const live = new LiveMachine(`90 ebfd ${HLT}`, { ...breakpoint, rflags: 2n | Flag.RF });
    live.run();
    expect(live.vectors).toEqual([Vector.DB]);
    expect(live.pushedRip).toBe(at(CODE));
  });
});

describe('data breakpoints on the stack of a far transfer (APM vol.2 §13.1.3.2 Data and I/O Breakpoints)', () => {
  it('are hit by RETF', () => {
    const live = new LiveMachine(`cb ${HLT}`, { rsp: at(DATA), dr0: at(DATA), dr7: 0x000f_0401n });
    live.write(DATA, (8n << 32n) | at(CODE + 1)).run();
    expect(live.vectors).toEqual([Vector.DB]);
    expect(live.get('dr6') & 1n).toBe(1n);
  });
});

describe('ENTER (APM vol.3 ENTER)', () => {
  it('ends with the check of a write at the final stack pointer', () => {
    const live = new LiveMachine(HLT, { ...USER_SEGMENTS, rip: at(USER), rsp: 0x100n }).put(USER, 'c8000200 f4');
    live.run();
    expect([live.vectors, live.get('cr2')]).toEqual([[Vector.PF], 0xffff_ffff_ffff_fef8n]);
  });
});

describe('loading a null selector (APM vol.2 §4.5.1 Segment Registers; AMD keeps the base)', () => {
  it('of FS and GS leaves their bases', () => {
    const live = new LiveMachine('31c0 8ee0 8ee8 f4', { fsBase: 0x1234_5678_9000n, gsBase: 0xffff_8000_0000_0000n });
    live.run();
    expect(live.get('fs') & 0xffffn).toBe(0n);
    expect(live.get('fsBase')).toBe(0x1234_5678_9000n);
    expect(live.get('gsBase')).toBe(0xffff_8000_0000_0000n);
  });
});

describe('a data breakpoint that MOV SS hits (APM vol.2 §13.1.4 Debug Exceptions, §8.5)', () => {
  /** DR0 watches the selector that MOV SS reads. */
  const watching = (code: string): LiveMachine =>
    new LiveMachine(code, { rbx: at(DATA), dr0: at(DATA), dr7: 0x000f_0401n }).write(DATA, 0x10n);

  it('waits for the end of the next instruction', () => {
    const live = watching('8e13 90 f4');
    live.run();
    expect(live.vectors).toEqual([Vector.DB]);
    expect(live.pushedRip).toBe(at(CODE + 3));
    expect(live.get('dr6') & 1n).toBe(1n);
  });

  it('comes before the first instruction of the handler when the next one is INT3', () => {
    const live = watching('8e13 cc f4');
    live.run();
    expect(live.vectors).toEqual([Vector.BP, Vector.DB]);
    expect(live.pushedRip).toBe(0x8000n + BigInt(Vector.BP));
  });
});

describe('INIT and SMI', () => {
  it('a redirected INIT is #SX with error code 1 (APM vol.2 §15.28 Security Exception, §15.30.1 VM_CR MSR)', () => {
    const live = new LiveMachine(HLT, { boundary: Boundary.INIT_PENDING, vmCr: 2n });
    live.run();
    expect(live.events).toContainEqual(
      expect.objectContaining({ type: 'cpu.exception', vector: Vector.SX, errorCode: 1 }),
    );
  });

  it('INIT starts at the reset vector without paging (APM vol.2 §14.1.3 Processor Initialization State)', () => {
    const live = new LiveMachine(HLT, { boundary: Boundary.INIT_PENDING });
    live.run(0);
    expect(live.events[0]).toMatchObject({ type: 'cpu.system', mnemonic: 'INIT' });
    expect(live.get('rip')).toBe(0xfff0n);
    expect(live.get('cr3')).toBe(0n);
  });

  it('an SMI is one event, retires nothing and leaves the program where it was', () => {
    const live = new LiveMachine(`90 90 ${HLT}`, { boundary: Boundary.SMI_PENDING });
    live.run(0);
    expect(live.stated.filter(({ event }) => event.type !== 'cpu.ran')).toMatchObject([
      { retired: 0, event: { type: 'cpu.system', mnemonic: 'SMI' } },
    ]);
    expect(live.get('rip')).toBe(at(CODE));
  });
});

describe('INT n', () => {
  /** INT n in user code: gates 3 and 80h are open to it. */
  const userInt = (vector: number) => {
    const live = new LiveMachine(HLT, { ...USER_SEGMENTS, rip: at(USER) });
    live.put(USER, `cd${vector.toString(16)}`).run(1);
    return live.stated.find(({ event }) => event.type !== 'cpu.ran');
  };

  it('retires when it reaches its handler', () => {
    expect(userInt(0x80)).toMatchObject({ retired: 1, event: { type: 'cpu.interrupt', vector: 0x80 } });
  });

  it('does not retire when its delivery faults (docs/adr/0005)', () => {
    expect(userInt(0x81)).toMatchObject({
      retired: 0,
      event: { type: 'cpu.exception', vector: Vector.GP, errorCode: 0x81 * 8 + 2 },
    });
  });
});

describe('advance', () => {
  it('stops at its limit exactly, and again', () => {
    const live = new LiveMachine('ebfe');
    expect([live.run(1), live.machine.retired]).toEqual(['limit', 1]);
    expect([live.run(0), live.machine.retired]).toEqual(['limit', 1]);
    expect([live.run(12_345), live.machine.retired]).toEqual(['limit', 12_346]);
  });

  it('is idle when nothing can wake the vCPU', () => {
    const live = new LiveMachine(HLT);
    expect(live.run()).toBe('idle');
    expect(live.run()).toBe('idle');
    live.machine.endIdle();
    expect(live.machine.state.ended).toEqual({ reason: 'halted-forever', status: 0 });
    expect(live.run()).toBe('ended');
  });

  /** A periodic PIT behind a masked PIC, and HLT with interrupts enabled. */
  const PERIODIC = 'b0ff e621 b034 e643 b010 e640 b027 e640 fb f4';

  it('is idle when the timer that runs is masked', () => {
    const live = new LiveMachine(PERIODIC);
    expect([live.run(), live.machine.retired]).toEqual(['idle', 10]);
  });

  it('comes back while a halted vCPU waits for a timer that reaches nobody', () => {
    const live = new LiveMachine(PERIODIC);
    // The I/O APIC sends each edge to an APIC that does not exist.
    for (const [register, value] of [
      [0x15, 0x0e00_0000],
      [0x14, 0x30],
    ] as const) {
      live.machine.bus.write(sPA(0xfec0_0000), 4, BigInt(register));
      live.machine.bus.write(sPA(0xfec0_0010), 4, BigInt(value));
    }
    expect(live.run()).toBe('waiting');
    const before = live.machine.now;
    expect(live.run()).toBe('waiting');
    expect(live.machine.now).toBeGreaterThan(before);
    expect(live.machine.retired).toBe(10);
  });

  it('comes back when exceptions follow each other without end: their handler cannot be fetched', () => {
    // SMEP, and a handler in a page of user code: each #PF is delivered, and its handler's fetch faults again.
    const live = new LiveMachine('0f0b', { cr4: CR4.PAE | CR4.OSFXSR | CR4.SMEP });
    expect(live.run()).toBe('waiting');
    expect(live.vectors.slice(0, 3)).toEqual([Vector.PF, Vector.PF, Vector.PF]);
    expect(live.retired).toBe(0);
    // And again, when it is asked again.
    const { length } = live.vectors;
    expect(live.run()).toBe('waiting');
    expect(live.vectors.length).toBe(2 * length);
  });

  it('comes back when exceptions raise each other without end, and none is delivered (APM vol.2 §8.2.9 #DF)', () => {
    const live = new LiveMachine(HLT).hang();
    const registers = (): readonly bigint[] => REGISTER_NAMES.map((name) => live.get(name));
    const before = registers();
    expect([live.run(), live.run()]).toEqual(['waiting', 'waiting']);
    expect([live.retired, live.events]).toEqual([0, []]);
    expect(registers()).toEqual(before);
    // A stack that is aligned, and the same exception is delivered.
    live.set({ rsp: at(STACK_TOP) }).run(1);
    expect(live.vectors).toEqual([Vector.AC]);
  });

  it('gives control back to L1 with shutdown told apart from the end of waiting', () => {
    const live = new LiveMachine('0f0b', { idtrLimit: 0n });
    expect(live.run()).toBe('ended');
    expect(live.machine.state.ended).toMatchObject({ reason: 'shutdown' });
  });
});

describe('VMRUN and the flags of the host (APM vol.2 §15.5.1 Basic Operation)', () => {
  const GUEST_CODE = 0x50_0000;
  const INTERCEPT_HLT = 1 << 24;
  const INTERCEPT_VMRUN = 1;

  /** L1 executes VMRUN; L2, on the same tables, a NOP and an intercepted HLT; then L1 halts. */
  const nested = (rflags: bigint): LiveMachine => {
    const live = new LiveMachine('0f01d8 f4', { rax: at(VMCB_AT), vmHsavePA: 0x60_0000n, rflags });
    const vmcb = VMCB.at(live.memory.view, RAM_BASE + VMCB_AT);
    vmcb.intercept3 = INTERCEPT_HLT;
    vmcb.intercept4 = INTERCEPT_VMRUN;
    vmcb.guestASID = 1;
    for (const name of ['cs', 'ss', 'ds', 'es', 'cr0', 'cr3', 'cr4', 'efer'] as const) vmcb[name] = live.get(name);
    vmcb.rip = at(GUEST_CODE);
    vmcb.rsp = at(STACK_TOP);
    vmcb.rflags = 2n;
    live.put(GUEST_CODE, `90 ${HLT}`);
    return live;
  };

  it.each([
    ['neither', 0n],
    ['RF', Flag.RF],
  ])('%s set: L2 runs, exits, and L1 goes on behind VMRUN', (_name, flag) => {
    const live = nested(2n | flag);
    live.run();
    const types = live.events.map(({ type }) => type);
    expect(types.slice(0, 2)).toEqual(['svm.vmrun', 'svm.vmexit']);
    expect(live.events[1]).toMatchObject({ code: ExitCode.HLT });
    expect(live.vectors).toEqual([]);
    expect(live.get('rip')).toBe(at(CODE + 4));
  });

  it('TF of the host steps nothing of the guest', () => {
    const live = nested(2n | Flag.TF);
    live.run();
    const entered = live.events.findIndex(({ type }) => type === 'svm.vmrun');
    const left = live.events.findIndex(({ type }) => type === 'svm.vmexit');
    expect(left).toBe(entered + 1);
    expect(live.events[left]).toMatchObject({ code: ExitCode.HLT });
  });
});

describe('hardware task switches (APM vol.2 §12.3.2 Switching Tasks)', () => {
  const [GDT, IDT, OTHER, OTHER_TSS] = [0x5000, 0x6000, 0x38, 0x9000];
  const flat = (attributes: number, selector: bigint) => (0xffff_ffffn << 32n) | (BigInt(attributes) << 16n) | selector;
  /** 32-bit protected mode; #UD goes to a task whose code is at `CODE` + 100h. */
  const legacy = (code: string, values: ConstructorParameters<typeof LiveMachine>[1] = {}): LiveMachine => {
    const live = new LiveMachine(code, {
      cr0: CR0.PE | CR0.ET | CR0.NE,
      cr4: 0n,
      efer: 0n,
      cs: flat(0xc9b, 8n),
      csBase: 0n,
      ...values,
    });
    live.write(GDT + 8, descriptor(0, 0xf_ffff, 0x9b, 0xc)).write(GDT + OTHER, descriptor(OTHER_TSS, 0x67, 0x89, 0));
    live.write(IDT + 8 * 6, gate(OTHER, 0, 0x85)).put(CODE + 0x100, HLT);
    const image: readonly (readonly [number, number])[] = [
      ...([
        [0x20, CODE + 0x100],
        [0x24, 2],
        [0x38, STACK_TOP],
      ] as const),
      ...([
        [0x48, 0x10],
        [0x4c, 8],
        [0x50, 0x10],
        [0x54, 0x10],
      ] as const),
    ];
    for (const [offset, value] of image) live.memory.write(sPA(OTHER_TSS + offset), 4, at(value));
    return live;
  };
  const JUMP = 'ea00000000 3800';

  it('an exception through a task gate is one event, and the task runs', () => {
    const live = legacy('0f0b');
    live.run();
    expect(live.events).toMatchObject([
      { type: 'cpu.task-switched', selector: OTHER, cause: 'event', vector: Vector.UD, errorCode: null },
      { type: 'cpu.halted' },
    ]);
    expect(live.get('rip')).toBe(at(CODE + 0x101));
  });

  it('a task with the T bit begins with #DB (§13.1.1.3)', () => {
    const live = legacy(JUMP);
    live.memory.write(sPA(OTHER_TSS + 0x64), 1, 1n);
    live.write(IDT + 8, gate(8, CODE + 0x100, 0x8e)).run();
    expect(live.events.slice(0, 2)).toMatchObject([{ cause: 'jump' }, { type: 'cpu.exception', vector: Vector.DB }]);
    expect([live.get('dr6') & 0xe000n, live.memory.read(sPA(STACK_TOP - 12), 4)]).toEqual([0x8000n, at(CODE + 0x100)]);
  });

  it('leaves no single step of the old task behind', () => {
    const live = legacy(JUMP, { rflags: 2n | Flag.TF });
    live.run();
    expect(live.vectors).toEqual([]);
  });

  it('reports the event under way when it is intercepted (§15.7.2, §15.14.1)', () => {
    const guest = { svmMode: 3n, guestAsid: 1n, vmcb: at(VMCB_AT), intercept3: 1n << 29n };
    const live = legacy('0f0b', guest);
    live.run(1);
    expect(live.events[0]).toMatchObject({
      type: 'svm.vmexit',
      code: ExitCode.TASK_SWITCH,
      info1: at(OTHER),
      info2: 1n << 48n,
      intInfo: 0x8000_0306n,
    });
  });
});

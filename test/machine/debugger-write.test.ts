/** What a debugger writes to a machine: what is refused, what follows from it, and that it is an event like any other. */
import { describe, expect, it } from 'vitest';
import {
  type DebuggerEdit,
  decideDebuggerWrite,
  initialState,
  type MachineState,
  R,
  reduce,
  type Slot,
} from '../../src/machine/index.js';
import { EFER, Flag, type RegisterName } from '../../src/machine/layout/cpu-state.js';
import { instructionCount, sPA } from '../../src/machine/units.js';
import { CODE, LiveMachine } from '../support/live-machine.js';

const INC_RAX = '48ffc0';
const HLT = 'f4';

const set = (name: RegisterName, value: bigint): DebuggerEdit => ({ kind: 'register', slot: R[name], value });

const registersOf = ({ vcpus }: MachineState): readonly (readonly bigint[])[] =>
  vcpus.map(({ registers }) => Array.from(registers as unknown as ArrayLike<bigint>));

class Debugged extends LiveMachine {
  edit(edits: readonly DebuggerEdit[], vcpu = 0): void {
    for (const input of decideDebuggerWrite(this.machine, vcpu, edits)) this.machine.deliver(input);
  }

  refusal(edit: DebuggerEdit, vcpu = 0): string {
    const before = registersOf(this.machine.state);
    let message = '';
    try {
      this.edit([set('r8', 0x77n), edit], vcpu);
    } catch (error) {
      message = (error as Error).message;
    }
    expect(registersOf(this.machine.state)).toEqual(before);
    return message;
  }

  of(name: RegisterName, vcpu = 0): bigint {
    return this.machine.state.vcpus[vcpu]?.registers[R[name]] as bigint;
  }
}

const machine = (code = `${INC_RAX} ${INC_RAX} ${HLT}`): Debugged => new Debugged(code);

describe('a write to registers', () => {
  it('is an input event with what changed, and the machine goes on with it', () => {
    const live = machine();
    const stated = live.stated.length;
    live.edit([set('rax', 40n), set('rcx', live.of('rcx'))]);
    expect(live.stated.slice(stated).map(({ event, retired }) => [event.type, retired])).toEqual([
      ['input.debugger-registers', 0],
    ]);
    live.run();
    expect(live.of('rax')).toBe(42n);
  });

  it('states nothing where nothing changes', () => {
    const live = machine();
    expect(decideDebuggerWrite(live.machine, 0, [set('rax', live.of('rax'))])).toEqual([]);
  });

  it('moves RIP to where code is fetched next', () => {
    const live = machine();
    live.edit([set('rip', BigInt(CODE) + 3n)]);
    const before = live.of('rax');
    live.run();
    expect(live.of('rax')).toBe(before + 1n);
  });

  it('folds to what the machine has', () => {
    const live = machine();
    const state: MachineState = initialState(live.machine.config);
    state.vcpus.forEach(({ registers }, vcpu) => {
      for (let slot = 0; slot < registers.length; slot++) {
        registers[slot as Slot] = live.machine.state.vcpus[vcpu]?.registers[slot as Slot] as bigint;
      }
    });
    const from = live.stated.length;
    live.edit([
      set('rbx', 5n),
      { kind: 'msr', msr: 0xc000_0082, value: 0xffff_8000_0000_1000n },
      { kind: 'msr', msr: 0xc001_0004, value: 99n },
      { kind: 'memory', address: 0x9000, data: Uint8Array.of(1, 2) },
    ]);
    for (const { event, vcpu } of live.stated.slice(from)) reduce(state, event, vcpu);
    expect(registersOf(state)).toEqual(registersOf(live.machine.state));
    expect(state.vcpus[0]?.msrs).toEqual(live.machine.state.vcpus[0]?.msrs);
    expect(live.of('lstar')).toBe(0xffff_8000_0000_1000n);
    expect(state.vcpus[0]?.msrs[0xc001_0004]).toBe(99n);
  });

  it.each([
    ['RIP that is not canonical', set('rip', 0x8000_0000_0000n), 'not canonical'],
    ['reserved bits of RFLAGS', set('rflags', 1n << 30n), 'reserved'],
    ['RFLAGS without bit 1', set('rflags', 0n), 'bit 1'],
    ['virtual-8086 mode', set('rflags', Flag.VM | Flag.ONE), 'virtual-8086'],
    ['the high half of CR0', set('cr0', 1n << 40n), '#GP'],
    ['paging off in 64-bit mode', set('cr0', 1n), '#GP'],
    ['reserved bits of CR4', set('cr4', 1n << 50n), '#GP'],
    ['CR4 without PAE in long mode', set('cr4', 0n), '#GP'],
    ['a CR3 beyond physical addresses', set('cr3', 1n << 60n), '#GP'],
    ['LME while paging', set('efer', EFER.SCE), '#GP'],
    ['the high half of DR7', set('dr7', 1n << 32n), '#GP'],
    ['an LSTAR that is not canonical', set('lstar', 1n << 60n), '#GP'],
    ['reserved bits of MXCSR', set('mxcsr', 1n << 20n), 'reserved'],
    ['a selector without a descriptor', { kind: 'selector', segment: 3, selector: 0xfff8 } as const, '#GP'],
    ['CS in protected mode', { kind: 'selector', segment: 1, selector: 0x50 } as const, 'far transfers'],
    ['CPL', set('cpl', 3n), 'only the processor'],
    ['what belongs to a world switch', set('guestAsid', 3n), 'only the processor'],
    ['guest mode', set('svmMode', 3n), 'VMRUN'],
    ['an MSR that there is not', { kind: 'msr', msr: 0x1234_5678, value: 0n } as const, '#GP'],
    ['an MSR of a device', { kind: 'msr', msr: 0x1b, value: 0n } as const, 'device'],
    ['memory that is no RAM', { kind: 'memory', address: 0xfee0_0000, data: Uint8Array.of(1) } as const, 'no RAM'],
  ] as readonly (readonly [string, DebuggerEdit, string])[])(
    'refuses %s, and all that came with it',
    (_, edit, word) => {
      expect(machine().refusal(edit)).toContain(word);
    },
  );

  it('takes control registers along with what follows from them (APM vol.2 §14.6 Enabling and Activating Long Mode)', () => {
    const live = machine();
    live.edit([set('cr4', live.of('cr4') | (1n << 7n)), set('efer', live.of('efer') | EFER.NXE)]);
    expect(live.of('cr4') & (1n << 7n)).toBe(1n << 7n);
    expect(live.of('efer') & (EFER.NXE | EFER.LMA)).toBe(EFER.NXE | EFER.LMA);
  });

  it('reaches a vCPU that has not the turn', () => {
    const live = new Debugged(`${INC_RAX} ${HLT}`, {}, undefined, undefined, { vcpus: 2, quantumInstructions: 100 });
    live.edit([set('rbx', 7n)], 1);
    expect([live.of('rbx', 1), live.of('rbx', 0)]).toEqual([7n, 0n]);
    expect(live.stated.at(-1)).toMatchObject({ vcpu: 0, event: { type: 'input.debugger-registers', target: 1 } });
  });
});

describe('a write to memory', () => {
  it('changes code that was decoded already', () => {
    const live = machine(`${INC_RAX} ebfb`);
    live.machine.advance(instructionCount(20));
    const before = live.of('rax');
    live.edit([{ kind: 'memory', address: CODE, data: Uint8Array.of(0x48, 0xff, 0xc8) }]);
    live.machine.advance(instructionCount(live.machine.retired + 20));
    expect(before).toBeGreaterThan(0n);
    expect(live.of('rax')).toBeLessThan(before);
  });

  it('is one event a piece, and never crosses a page', () => {
    const live = machine();
    live.edit([{ kind: 'memory', address: 0x9ff8, data: new Uint8Array(8).fill(9) }]);
    expect(live.memory.read(sPA(0x9ff8), 8)).toBe(0x0909_0909_0909_0909n);
    const crossing: DebuggerEdit = { kind: 'memory', address: 0x9ffc, data: new Uint8Array(8) };
    expect(live.refusal(crossing)).toContain('crosses');
  });
});

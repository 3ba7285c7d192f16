/** Exceptions and interrupts that are delivered past all checks arrive as those that are not. */
import { afterEach, beforeEach, describe, expect, it, type MockInstance, vi } from 'vitest';
import { DeliveryLane } from '../../../src/machine/cpu/delivery-lane.js';
import type { DeviationName } from '../../../src/machine/index.js';
import { CR0 } from '../../../src/machine/layout/cpu-state.js';
import type { InterceptName } from '../../../src/machine/svm/intercepts.js';
import { compareMachines } from '../../support/compare-machines.js';
import { loop, wrmsr } from '../../support/guest-code.js';
import { LiveMachine, STACK_TOP, USER, USER_SEGMENTS } from '../../support/live-machine.js';
import { NestedMachine } from '../../support/nested-machine.js';

const IDT = 0x6000;
const HANDLER = 0xa000;
const ROUNDS = 40;
const INC_ECX = 'ffc1';
/** MOV RAX, [200_0000h], where no page is. */
const LOAD = '488b042500000002';
/** MOV RAX, [R8]: R8 is not canonical. */
const STRAY = '49b80000000000008000 498b00';
const UD2 = '0f0b';
/** XOR ECX, ECX; DIV ECX. */
const DIVISION = '31ff f7f7';
const [DE, UD, GP, PF] = [0, 6, 13, 14] as const;

/** A handler that goes on behind the instruction of `length` bytes. @param code whether an error code is on the stack. */
const skip = (length: number, code: boolean): string =>
  `48834424${code ? '08' : '00'}0${length} ${code ? '4883c408' : ''} 48cf`;

/** Of the last byte of its address; the lowest bytes of a gate. */
const gateTo = (address: number, access: number, selector = 0x08, ist = 0): bigint =>
  BigInt(address & 0xffff) | (BigInt(selector) << 16n) | (BigInt(ist) << 32n) | (BigInt(access) << 40n);

/** Handlers for the exceptions of the bodies above. @param access of their gates. */
function handle(live: LiveMachine, access = 0x8e, selector?: number, ist?: number): void {
  const handlers = [
    [DE, skip(2, false)],
    [UD, skip(2, false)],
    [GP, skip(3, true)],
    [PF, skip(8, true)],
    // PUSH RAX, RCX, RDX; EOI; POP them; IRETQ.
    [0x41, `50 51 52 ${wrmsr(0x80b, 0n)} 5a 59 58 48cf`],
  ] as const;
  for (const [vector, code] of handlers) {
    live.put(HANDLER + 0x80 * (vector % 32), code);
    live.write(IDT + 16 * vector, gateTo(HANDLER + 0x80 * (vector % 32), access, selector, ist));
  }
}

/** Reads of the tables, of both pages. */
const READS = '488b042500500000 488b042500600000 488b042500700000 50 58';

/** The gate of #PF lies across pages. */
function twoPages(live: LiveMachine): void {
  const at = 0x6ff8;
  live.write(at, gateTo(HANDLER + 0x80 * PF, 0x8e)).write(at + 8, 0n);
  live.set({ idtrBase: BigInt(at - 16 * PF) });
}

type Values = ConstructorParameters<typeof LiveMachine>[1];

const machine =
  (body: string, values: Values = {}, prepare: (live: LiveMachine) => void = handle) =>
  () => {
    const live = new LiveMachine(loop(body), values);
    prepare(live);
    return live;
  };

let deliver: MockInstance<DeliveryLane['deliver']>;
beforeEach(() => {
  deliver = vi.spyOn(DeliveryLane.prototype, 'deliver');
});
afterEach(() => {
  deliver.mockRestore();
});
const taken = (): number => deliver.mock.results.filter(({ value }) => value === true).length;

describe('the usual way', () => {
  it.each([
    ['a page fault', LOAD],
    ['a page fault by a write', '4889042500000002'],
    ['a fault of another kind with an error code', STRAY],
    ['an exception without one', UD2],
    ['one behind which its instruction is not repeated', DIVISION],
  ])('is taken by %s', (_, body) => {
    for (const piece of [1, 2, 3, 5, 13, 64, 1000]) compareMachines(piece, machine(`${INC_ECX} ${body}`));
    // The first ones find pages that are not known.
    expect(taken()).toBeGreaterThan(7 * (ROUNDS - 4));
  });

  it('is taken through trap gates', () => {
    compareMachines(
      1000,
      machine(LOAD, { rflags: 0x202n }, (live) => handle(live, 0x8f)),
    );
    expect(taken()).toBeGreaterThan(ROUNDS - 4);
  });

  it('aligns the stack', () => {
    for (const odd of [1n, 4n, 8n, 15n]) compareMachines(1000, machine(LOAD, { rsp: BigInt(STACK_TOP) - odd }));
    expect(taken()).toBeGreaterThan(4 * (ROUNDS - 4));
  });

  it('is taken by interrupts of the local APIC', () => {
    const apic = `b0ffe621 ${wrmsr(0x1b, 0xfee0_0d00n)} ${wrmsr(0x80f, 0x1ffn)}`;
    const body = `${wrmsr(0x83f, 0x41n)} fb ${INC_ECX} fa`;
    const make = () => {
      const live = new LiveMachine(`${apic} ${loop(body)}`);
      handle(live);
      return live;
    };
    for (const piece of [1, 2, 7, 1000]) compareMachines(piece, make);
    expect(taken()).toBeGreaterThan(4 * (ROUNDS - 4));
  });
});

describe('nothing unusual goes that way', () => {
  it.each<[string, string, (live: LiveMachine) => void]>([
    ['a stack of the interrupt stack table', LOAD, (live) => handle(live.write(0x7024, 0x28_0000n), 0x8e, 0x08, 1)],
    ['a gate that is absent', LOAD, (live) => handle(live, 0x0e)],
    ['a call gate', LOAD, (live) => handle(live, 0x8c)],
    ['an RPL in the selector', LOAD, (live) => handle(live, 0x8e, 0x0b)],
    ['a null selector', LOAD, (live) => handle(live, 0x8e, 0)],
    ['another code segment', LOAD, (live) => handle(live.write(0x5038, 0x00af_9b00_0000_ffffn), 0x8e, 0x38)],
    ['a table that is too short', LOAD, (live) => live.set({ idtrLimit: 0xeen })],
    ['a gate in two pages', LOAD, twoPages],
    ['a frame in two pages', LOAD, (live) => live.set({ rsp: BigInt(STACK_TOP) - 0x1000n + 16n })],
    ['a trap flag', UD2, (live) => live.set({ rflags: 0x102n })],
    ['a nested task', LOAD, (live) => live.set({ rflags: 0x4002n })],
    ['alignment checks', LOAD, (live) => live.set({ rflags: 0x4_0002n })],
    ['a branch record', LOAD, (live) => live.set({ debugCtl: 1n })],
    ['an address that is not canonical', LOAD, (live) => live.write(IDT + 16 * PF + 8, 0x8000n)],
    ['code on the stack', LOAD, (live) => live.set({ rsp: 0xa7e0n })],
    ['a table of pages on the stack', LOAD, (live) => live.set({ rsp: 0x3f00n })],
  ])('%s', (_, body, change) => {
    for (const piece of [1, 3, 1000]) {
      let before = 0;
      compareMachines(piece, () => {
        const live = machine(`${INC_ECX} ${READS} ${body}`)();
        live.run(90);
        change(live);
        before = taken();
        return live;
      });
      expect(before).toBeGreaterThan(0);
      expect(taken()).toBe(before);
    }
  });

  it('code of a legacy mode, whose segment says that it is long', () => {
    const values: Values = {
      ...{ cr0: CR0.PE | CR0.ET | CR0.NE, cr4: 0n, efer: 0n, rip: 0xb000n, cs: 0xffff_ffff_0a9b_0008n },
    };
    const prepare = (live: LiveMachine): void => {
      live
        .put(0xb000, 'a10050 a10060 50 58 0f0b')
        .write(IDT + 8 * UD, gateTo(0xb100, 0x8e))
        .put(0xb100, 'f4');
      live
        .write(IDT + 16 * UD, gateTo(0xb200, 0x8e))
        .write(IDT + 16 * UD + 8, 0n)
        .put(0xb200, 'f4');
    };
    const { run } = compareMachines(1000, machine('', values, prepare));
    expect(run.get('rip')).toBe(0xb101n);
    expect(taken()).toBe(0);
  });

  it('a handler whose segment must be loaded, but then', () => {
    const make = () => {
      const live = machine(`${INC_ECX} ${READS} ${LOAD}`)();
      live.run(90);
      return live.write(0x5008, 0x00af_9b00_0000_0fffn);
    };
    for (const piece of [1, 3, 1000]) compareMachines(piece, make);
    expect(taken()).toBeGreaterThan(0);
  });

  it('a program at CPL 3', () => {
    const values = { ...USER_SEGMENTS, rip: BigInt(USER) };
    const prepare = (live: LiveMachine): void => handle(live.put(USER, `${READS} ${LOAD} ${READS} ${LOAD} ebfe`));
    for (const piece of [1, 3, 50]) compareMachines(piece, machine('', values, prepare));
    expect(taken()).toBe(0);
  });

  it('what comes while NMIs are blocked', () => {
    const live = machine(LOAD)();
    live.run(60);
    const before = taken();
    live.set({ boundary: 4n }).run(6);
    expect(taken()).toBe(before);
    live.run(6);
    expect(taken()).toBe(before + 1);
  });

  it('software interrupts and breakpoints', () => {
    compareMachines(
      1000,
      machine(`cc ${INC_ECX}`, {}, (live) => {
        live.put(HANDLER, '48cf').write(IDT + 16 * 3, gateTo(HANDLER, 0xee));
      }),
    );
    expect(taken()).toBe(0);
  });
});

describe('in a guest', () => {
  const nested =
    (intercepts: readonly InterceptName[], deviations?: readonly DeviationName[], paging = false) =>
    () => {
      const live = new NestedMachine(loop(`${INC_ECX} ${LOAD}`), {}, undefined, deviations).intercept(...intercepts);
      handle(live);
      return paging ? live.nestedPaging() : live;
    };

  it.each([
    ['its own tables', false],
    ['nested ones', true],
  ])('it is taken on %s', (_, paging) => {
    for (const piece of [1, 5, 1000]) compareMachines(piece, nested([], undefined, paging));
    expect(taken()).toBeGreaterThan(3 * (ROUNDS - 4));
  });

  it('it is not taken by what its hypervisor intercepts', () => {
    const { run } = compareMachines(1000, nested(['EXCEPTION_14']));
    expect(run.events.filter(({ type }) => type === 'svm.vmexit')).toHaveLength(1);
    expect(taken()).toBe(0);
  });

  it.each<[DeviationName]>([['exitintinfo-keeps-last-event'], ['intr-mask-latched']])('nor where %s', (deviation) => {
    compareMachines(1000, nested([], [deviation]));
    expect(taken()).toBe(0);
  });
});

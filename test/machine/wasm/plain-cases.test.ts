/**
 * What the engine does by itself of STI, POPF, IRET, RDTSC, IN, OUT and PAUSE, and in guests of PUSHF, CLI, STI, POPF, IRET and
 * RDTSC, is what the control plane does, wherever a run ends.
 */
import { describe, expect, it } from 'vitest';
import type { DeviationName } from '../../../src/machine/index.js';
import { SLOT_COUNT, type Slot } from '../../../src/machine/layout/cpu-state.js';
import type { VcpuState } from '../../../src/machine/reduce.js';
import type { InterceptName } from '../../../src/machine/svm/intercepts.js';
import { sPA } from '../../../src/machine/units.js';
import { compareMachines } from '../../support/compare-machines.js';
import { loop, movRax, wrmsr } from '../../support/guest-code.js';
import { CODE, LiveMachine, STACK_TOP, USER, USER_SEGMENTS } from '../../support/live-machine.js';
import { NestedMachine } from '../../support/nested-machine.js';

const [STI, CLI, HLT, RDTSC, RDTSCP, INC_ECX, INC_EDI, MOV_SS_AX] = [
  'fb',
  'fa',
  'f4',
  '0f31',
  '0f01f9',
  'ffc1',
  'ffc7',
  '8ed0',
];
const POP_RSI = '5e';
/** Pushes SS, RSP, RFLAGS, CS and the address behind IRETQ, as Linux does to serialize. */
const RETURN_HERE = '8cd0 50 54 4883042408 9c 8cc8 50 488d0503000000 50 48cf';
/** The same with flags of its own. */
const returnWith = (flags: string): string => `8cd0 50 54 4883042408 68${flags} 8cc8 50 488d0503000000 50 48cf`;
/** With selectors of its own for SS and CS. */
const returnTo = (ss: string, cs: string): string => `6a${ss} 54 4883042408 9c 6a${cs} 488d0503000000 50 48cf`;
const pop = (flags: string): string => `68${flags} 9d`;
const CLEAR = pop('02000000');
const POPS = `${CLI} ${pop('02020000')} ${INC_ECX} ${CLEAR} ${INC_ECX} 9c 9d ${INC_EDI}`;
/** The 8259s keep to themselves. */
const APIC = `b0ffe621 ${wrmsr(0x1b, 0xfee0_0d00n)} ${wrmsr(0x80f, 0x1ffn)}`;
/** Reads of the stack and of the descriptor table: translations for both are known then. */
const WARM = '488b4424f0 a10050000000000000';
const SELF_IPI = wrmsr(0x83f, 0x41n);
interface Given {
  readonly values?: ConstructorParameters<typeof LiveMachine>[1];
  readonly prepare?: (live: LiveMachine) => void;
}

/** The same on the evaluator and on the engine, in pieces of `piece` instructions; each piece is compared. */
function compare(
  code: string,
  piece: number,
  { values = {}, prepare }: Given = {},
): { evaluated: LiveMachine; run: LiveMachine } {
  return compareMachines(piece, () => {
    const live = new LiveMachine(code, values);
    prepare?.(live);
    return live;
  });
}

const PIECES = [1, 2, 3, 4, 5, 7, 8, 11, 13, 31, 62, 63, 64, 65, 66, 67, 97, 128, 131, 1000];
const FEW_PIECES = [1, 2, 5, 13, 64, 1000];
const executed = ({ run }: { run: LiveMachine }): number => run.machine.engine.counts.executed;

describe('a run may end before, in, and behind', () => {
  it.each([
    ['the shadow of STI', `${CLI} ${INC_ECX} ${STI} ${INC_EDI} ${INC_ECX}`],
    ['a shadow on a jump', `${CLI} ${STI} eb00 ${INC_ECX}`],
    ['a shadow on a return', `488d0504000000 50 ${CLI} ${STI} c3 909090 ${INC_ECX}`],
    ['a shadow on a repeated string instruction', `${CLI} b905000000 bf00002000 ${STI} f3aa ${INC_ECX}`],
    ['a shadow on another STI', `${CLI} ${STI} ${STI} ${INC_ECX}`],
    ['a shadow on what has one of its own', `${CLI} 8cd0 ${STI} ${MOV_SS_AX} ${INC_ECX} ${INC_ECX}`],
    ['a shadow on IRET', `${CLI} 8cd0 50 54 4883042408 68 02020000 8cc8 50 488d0504000000 50 ${STI} 48cf`],
    ['IRET', `${RETURN_HERE} ${INC_ECX}`],
    [
      'IRET that opens to interrupts, and one that closes',
      `${returnWith('02020000')} ${INC_ECX} ${returnWith('02000000')} ${INC_ECX}`,
    ],
    ['IRET with RF', `${returnWith('02000100')} ${INC_ECX} ${returnWith('02020100')} 9c 58 01c6`],
    [
      'IRET with RF to a repeated string instruction',
      `b905000000 bf00002000 ${returnWith('02000100')} f3aa ${INC_ECX}`,
    ],
    ['IRET with RF to STI, and to POPF', `${returnWith('02000100')} ${STI} ${INC_ECX} 9c ${returnWith('02000100')} 9d`],
    ['IRET with RF to another', `${returnWith('02000100').slice(0, -4)} ${returnWith('02000100')} ${INC_ECX}`],
    ['IN of each width, and from a port that nobody has', `e461 01c6 66bafd03 ec 01c6 66ed 01c6 e499`],
    ['IN from a timer', `${movRax(-1n)} 66ba0806 ed 4801c6 ${movRax(-1n)} 66ed 4801c6`],
    ['IN from a port of which reading is an event', `e440 01c6 ${INC_ECX}`],
    ['POPF that opens, one that closes, and one that does neither', POPS],
    ['POPF of all flags', `68ffffffff 9d ${CLEAR} ${INC_ECX} 68d70a2000 9d ${CLEAR} ${INC_ECX}`],
    ['RDTSC and RDTSCP', `${RDTSC} ${INC_ECX} 01c6 ${RDTSCP} 01c6`],
    ['OUT of each width to a port that keeps nothing', `e680 ${INC_ECX} 66ba8000 ee 66ef e780 ${INC_ECX} ef`],
    ['OUT to ports of which writing is an event', `b055 66baff03 ee ${INC_ECX} b0aa ee e6a1 66baf3ff ee`],
    ['PAUSE', `f390 ${INC_ECX} f390 f390`],
  ])('%s', (_, body) => {
    for (const piece of PIECES) compare(loop(body), piece);
  });

  it('none of them takes the evaluator', () => {
    const body = `${CLI} ${STI} ${INC_ECX} ${POPS} ${RETURN_HERE} ${RDTSC} e461 e680 f390`;
    const both = compare(loop(body), 1000);
    // The control plane has the first of each page and of each kind, and HLT.
    expect(both.run.retired - executed(both)).toBeLessThan(20);
  });
});

describe('an interrupt that waits', () => {
  it.each([
    ['behind the instruction after STI', `${STI} ${INC_ECX} ${INC_ECX}`],
    ['behind POPF', `${pop('02020000')} ${INC_ECX}`],
    ['behind IRET', `${returnWith('02020000')} ${INC_ECX}`],
  ])('comes %s', (_, opening) => {
    const { run } = compare(`${WARM} ${APIC} ${CLI} ${SELF_IPI} ${INC_EDI} ${opening} ${HLT}`, 1000);
    expect(run.vectors).toEqual([0x41]);
  });

  it('comes from a timer behind the shadow, whenever it is due', () => {
    for (let ticks = 1; ticks < 20; ticks++) {
      const timer = `${wrmsr(0x83e, 0xbn)} ${wrmsr(0x832, 0x41n)} ${wrmsr(0x838, BigInt(ticks))}`;
      const { run } = compare(`${APIC} ${timer} ${`${CLI} ${STI} ${INC_ECX} `.repeat(100)} ${HLT}`, 1000);
      expect(run.vectors).toEqual([0x41]);
    }
  });
});

describe('what is more than plain, or nearly, is what the control plane makes of it', () => {
  it.each<[string, string, Given]>([
    ['flags that trap', returnWith('02010000'), {}],
    ['RF', returnWith('02000100'), {}],
    ['a nested task', RETURN_HERE, { values: { rflags: 0x4002n } }],
    ['a nested task that would be left', returnWith('02020000'), { values: { rflags: 0x4002n } }],
    ['alignment checks', returnWith('02000400'), {}],
    ['a stack that is not aligned', RETURN_HERE, { values: { rsp: BigInt(STACK_TOP) - 4n } }],
    ['a stack that is not aligned at all', RETURN_HERE, { values: { rsp: BigInt(STACK_TOP) - 6n } }],
    ['a frame in two pages', RETURN_HERE, { values: { rsp: BigInt(STACK_TOP) - 0x1000n + 16n } }],
    ['NMIs that are blocked', RETURN_HERE, { values: { boundary: 4n } }],
    ['no stack segment', returnTo('00', '08'), {}],
    ['a null segment that is there already', returnTo('00', '08'), { values: { ss: 0n } }],
    ['no code segment', returnTo('10', '00'), {}],
    ['data to run', returnTo('10', '10'), {}],
    ['code for a stack', returnTo('08', '08'), {}],
    ['an RPL', returnTo('13', '08'), {}],
    ['a selector of the LDT', returnTo('10', '0c'), {}],
    ['a selector behind the table', RETURN_HERE, { values: { gdtrLimit: 0xen } }],
    [
      'a descriptor that says something else by now',
      RETURN_HERE,
      { prepare: (live) => live.write(0x5008, 0x00af_9b00_0000_0fffn) },
    ],
    ['a descriptor that is not marked', RETURN_HERE, { prepare: (live) => live.write(0x5008, 0x00af_9a00_0000_ffffn) }],
    ['a descriptor of 32-bit code', RETURN_HERE, { prepare: (live) => live.write(0x5008, 0x00cf_9b00_0000_ffffn) }],
    ['a descriptor that is absent', RETURN_HERE, { prepare: (live) => live.write(0x5010, 0x00cf_1300_0000_ffffn) }],
    ['a stack that is read-only', RETURN_HERE, { prepare: (live) => live.write(0x5010, 0x00cf_9100_0000_ffffn) }],
    ['an address that is not canonical', '8cd0 50 54 9c 8cc8 50 48b80000000000008000 50 48cf', {}],
  ])('IRET with %s', (_, body, given) => {
    const warm = `${WARM} ${body} ${INC_ECX} ${body} ${INC_ECX} ${HLT}`;
    for (const piece of [1, 4, 5, 6, 7, 8, 9, 11, 1000]) compare(warm, piece, given);
  });

  it.each<[string, string, Given]>([
    ['flags that trap', pop('02010000'), {}],
    ['a nested task', pop('02400000'), {}],
    ['alignment checks', pop('02000400'), {}],
    ['a stack that is not aligned', '9c 9d', { values: { rsp: BigInt(STACK_TOP) - 6n } }],
    ['a stack in two pages', '9c 9d', { values: { rsp: BigInt(STACK_TOP) - 0x1000n + 4n } }],
    ['16 bits', '669c 669d', {}],
    ['NMIs that are blocked', `${CLI} ${pop('02020000')}`, { values: { boundary: 4n } }],
  ])('POPF with %s', (_, body, given) => {
    const warm = `${WARM} ${body} ${INC_ECX} ${body} ${INC_ECX} ${HLT}`;
    for (const piece of FEW_PIECES) compare(warm, piece, given);
  });

  it.each([
    ['time stamps that programs may not read', RDTSC, 0x24n],
    ['time stamps that they may', RDTSC, 0x20n],
    ['STI', STI, 0x20n],
    ['IRET', RETURN_HERE, 0x20n],
    ['POPF', '9c 9d', 0x20n],
    ['ports', 'e461', 0x20n],
    ['ports to write to', 'e680', 0x20n],
    ['PAUSE', 'f390', 0x20n],
  ])('%s at CPL 3', (_, body, cr4) => {
    const values = { ...USER_SEGMENTS, rip: BigInt(USER), cr4: cr4 | 0x208n };
    const prepare = (live: LiveMachine) => void live.put(USER, `${body} ${INC_ECX} ${body} ${INC_ECX} ebfe`);
    compare('', 20, { values, prepare });
  });

  it('code that has changed meanwhile', () => {
    // STI becomes NOP by the store in front of it.
    const store = `c6042521001000 90`.replaceAll(' ', '');
    expect(CODE).toBe(0x10_0000);
    const { run } = compare(
      `${CLI} ${store.padEnd(2 * 0x20 - 2, '90')} ${STI} ${STI} ${INC_ECX} ${POP_RSI} ${HLT}`,
      1000,
    );
    expect(run.memory.read(sPA(CODE + 0x21), 1)).toBe(0x90n);
  });
});

describe('PAUSE with two processors', () => {
  it('gives the turn away', () => {
    const make = (): LiveMachine => {
      const live = new LiveMachine(loop(`f390 ${INC_ECX}`), {}, undefined, undefined, { vcpus: 2 });
      const { registers } = live.machine.state.vcpus[1] as VcpuState;
      for (let slot = 0; slot < SLOT_COUNT; slot++)
        registers[slot as Slot] = live.machine.registers[slot as Slot] as bigint;
      return live;
    };
    for (const piece of [1, 3, 64, 1000]) compareMachines(piece, make);
    expect(compareMachines(1000, make).run.events.filter(({ type }) => type === 'vcpu.scheduled')).not.toEqual([]);
  });
});

describe('in a guest', () => {
  const OPENING = `${CLI} ${INC_ECX} ${STI} ${INC_ECX} 9c ${CLI} 9d ${INC_ECX}`;
  const waits = ({ vmcb }: NestedMachine) =>
    void Object.assign(vmcb, { intControl: (1n << 20n) | (1n << 8n), rflags: 2n });
  const waitsBelow = ({ vmcb }: NestedMachine) => void Object.assign(vmcb, { intControl: (1n << 8n) | 0xfn });
  const PUSHF_CLI = `9c ${CLI} 9c ${INC_ECX} 4883c410`;
  const make =
    (
      body: string,
      intercepts: readonly InterceptName[],
      prepare?: (nested: NestedMachine) => void,
      deviations?: readonly DeviationName[],
    ) =>
    () => {
      const nested = new NestedMachine(loop(body), { rflags: 0x202n }, undefined, deviations).intercept(...intercepts);
      nested.vmcb.rflags = 0x202n;
      prepare?.(nested);
      return nested;
    };

  it.each<[string, string, readonly InterceptName[], ((nested: NestedMachine) => void)?]>([
    ['PUSHF and CLI', PUSHF_CLI, []],
    ['PUSHF that is intercepted', PUSHF_CLI, ['PUSHF']],
    ['PUSHF and CLI at CPL 3', PUSHF_CLI, [], ({ vmcb }) => void Object.assign(vmcb, { cpl: 3 })],
    ['STI and POPF, which open to interrupts', OPENING, []],
    ['IRET', `${RETURN_HERE} ${INC_ECX} ${returnWith('02000000')} ${INC_ECX} ${returnWith('02020000')}`, []],
    ['IRET and POPF that are intercepted', `${OPENING} ${RETURN_HERE}`, ['IRET', 'POPF']],
    ['what opens to a virtual interrupt', `${CLI} ${INC_ECX} ${STI} ${INC_ECX} ${INC_EDI}`, ['VINTR'], waits],
    ['POPF that opens to one', `${CLI} ${INC_ECX} ${pop('02020000')} ${INC_ECX}`, ['VINTR'], waits],
    ['IRET that opens to one', `${CLI} ${INC_ECX} ${returnWith('02020000')} ${INC_ECX}`, ['VINTR'], waits],
    ['what opens where one waits below the TPR', `${OPENING} ${RETURN_HERE}`, [], waitsBelow],
    [
      'IRET where NMIs are virtual',
      `${RETURN_HERE} ${INC_ECX}`,
      [],
      ({ vmcb }) => void Object.assign(vmcb, { intControl: 1n << 26n }),
    ],
    ['RDTSC and RDTSCP', `${RDTSC} 01c6 ${RDTSCP} 01c6`, []],
    ['RDTSC that is intercepted', `${RDTSCP} 01c6 ${RDTSC} 01c6`, ['RDTSC']],
    ['RDTSCP that is intercepted', `${RDTSC} 01c6 ${RDTSCP} 01c6`, ['RDTSCP']],
    ['RDTSC with an offset', `${RDTSC} 01d6 01c6`, [], ({ vmcb }) => void Object.assign(vmcb, { tscOffset: -12345n })],
    ['RDTSC by a ratio', `${RDTSC} 01c6`, [], (nested) => void nested.set({ tscRatio: 3n << 31n })],
    ['reads of control registers that are intercepted', `0f20c0 01c6 0f20d8`, ['CR3_READ']],
    ['IN, OUT and PAUSE', `e461 e680 f390 ${INC_ECX}`, []],
    ['PAUSE that is intercepted', `f390 ${INC_ECX}`, ['PAUSE']],
  ])('%s', (_, body, intercepts, prepare) => {
    for (const piece of FEW_PIECES) compareMachines(piece, make(body, intercepts, prepare));
  });

  it('an event is what opens to a virtual interrupt that waits, and nothing else', () => {
    const opens = (prepare?: (nested: NestedMachine) => void) =>
      compareMachines(1000, make(OPENING, [], prepare)).run.events.filter(
        (event) => event.type === 'cpu.system' && (event.mnemonic === 'STI' || event.mnemonic === 'POPF'),
      ).length;
    expect(opens()).toBe(0);
    expect(opens(waitsBelow)).toBe(80);
  });

  it.each<[DeviationName]>([['intr-mask-latched'], ['virq-mask-latched']])('CLI sets latches: %s', (deviation) => {
    const virtual = ({ vmcb }: NestedMachine) => void Object.assign(vmcb, { intControl: (1n << 24n) | (1n << 20n) });
    for (const piece of PIECES)
      compareMachines(piece, make(`${STI} ${INC_ECX} ${PUSHF_CLI}`, [], virtual, [deviation]));
  });

  it('none of those that nobody intercepts takes the evaluator', () => {
    const both = compareMachines(1000, make(`${PUSHF_CLI} ${OPENING} ${RETURN_HERE} ${RDTSC} ${RDTSCP}`, []));
    expect(both.run.retired - executed(both)).toBeLessThan(20);
    const intercepted = compareMachines(1000, make(`${PUSHF_CLI} ${RDTSC} ${RDTSCP}`, ['RDTSC', 'RDTSCP', 'PUSHF']));
    expect(intercepted.run.events.filter(({ type }) => type === 'svm.vmexit')).toHaveLength(1);
  });
});

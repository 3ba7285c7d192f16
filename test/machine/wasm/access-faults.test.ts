/** Page faults that compiled code meets with are delivered at once, and are those that the evaluator raises. */
import { afterEach, describe, expect, it, vi } from 'vitest';
import { Evaluator } from '../../../src/machine/isa/evaluate.js';
import { exceptionIntercept } from '../../../src/machine/svm/intercepts.js';
import { APIC_PAGE, AvicMachine } from '../../support/avic-machine.js';
import { DATA, LiveMachine, USER, USER_SEGMENTS } from '../../support/live-machine.js';
import { NestedMachine } from '../../support/nested-machine.js';

/** Behind the memory that is mapped. */
const ABSENT = 0x100_0000n;
const INC_ECX = 'ffc1';
const PD = 0x3000;
const [OTHER_PML4, OTHER_PDPT, OTHER_PD] = [0xa000, 0xb000, 0xc000] as const;
/** A page of 2 MiB, present, for the supervisor alone, and read-only. */
const READ_ONLY = 0x61n;

const state = (live: LiveMachine) => ({
  retired: live.retired,
  registers: [...(live.machine.registers as unknown as BigUint64Array)],
  stated: live.stated,
});

/** The same on the evaluator and on the engine. */
function compare<M extends LiveMachine>(make: () => M): M {
  const [evaluated, run] = [make(), make()];
  evaluated.machine.watch(undefined, 'evaluator');
  for (const live of [evaluated, run]) live.run(300);
  expect(state(run)).toEqual(state(evaluated));
  expect(Buffer.compare(run.memory.window(0, 1 << 22), evaluated.memory.window(0, 1 << 22))).toBe(0);
  return run;
}

const faults = (live: LiveMachine): unknown[] =>
  live.events.flatMap((event) => (event.type === 'cpu.exception' ? [[event.vector, event.errorCode]] : []));

/** mov rsp, rdi; add rsp, 800h */
const LOSE_STACK = '4889fc 4881c400080000';
const NEAR = { rsi: BigInt(DATA), rdi: ABSENT, rcx: 7n, rax: 1n };
const { rax: _, ...GUEST_NEAR } = NEAR;
const CASES: readonly (readonly [string, string, number])[] = [
  ['a load', '488b07', 0],
  ['a store', '488907', 2],
  ['a sum in memory', '480107', 2],
  ['an exchange', '4887 07', 2],
  ['a comparison that may write', '480fb10f', 2],
  ['a load of sixteen bytes', '0f1007', 0],
  ['a store of sixteen bytes', '0f1107', 2],
  ['the second operand of MOVS', 'a4', 2],
  ['one of many elements', 'f3a4', 2],
  ['a push of what is there', `${LOSE_STACK} ff36`, 2],
  ['a push of what is not there', 'ff37', 0],
  ['a call through memory', 'ff17', 0],
  ['a call without a stack', `${LOSE_STACK} e800000000`, 2],
  ['a return', `${LOSE_STACK} c3`, 0],
];

afterEach(() => void vi.restoreAllMocks());

describe('a page fault is the evaluator’s', () => {
  it.each(CASES)('%s', (_, body, code) => {
    const live = compare(() => new LiveMachine(`${INC_ECX} ${body} ${INC_ECX}`, NEAR));
    // Without a stack it cannot be delivered.
    expect(faults(live)).toEqual(body.startsWith(LOSE_STACK) ? [] : [[14, code]]);
  });

  it.each(CASES)('%s, at CPL 3', (_, body, code) => {
    const values = { ...USER_SEGMENTS, ...NEAR, rip: BigInt(USER) };
    const live = compare(() => new LiveMachine('', values).put(USER, `${INC_ECX} ${body} ${INC_ECX}`));
    expect(faults(live)).toEqual([[14, code | 4]]);
  });

  it.each([
    ['a store to a page that is read-only', '488907', 3],
    ['a load at CPL 3 of a page of the supervisor', '488b07', 5],
  ] as const)('%s', (_, body, code) => {
    const values = { ...((code & 4) === 0 ? {} : USER_SEGMENTS), rip: BigInt(USER), rdi: 0x80_0000n };
    const make = () => new LiveMachine('', values).put(USER, body).write(PD + 8 * 4, 0x80_0000n | READ_ONLY | 0x80n);
    expect(faults(compare(make))).toEqual([[14, code]]);
  });

  it('in the shadow of STI and MOV SS, and behind an IRET with RF', () => {
    for (const before of ['fb', '8ed0', '8cd0 50 54 4883042408 6802000100 8cc8 50 488d0503000000 50 48cf']) {
      compare(() => new LiveMachine(`${INC_ECX} 8cd0 ${before} 488b07 ${INC_ECX}`, NEAR));
    }
  });

  it('with the DR7 of a program that watches the address', () => {
    compare(() => new LiveMachine(`${INC_ECX} 488b07`, { ...NEAR, dr0: ABSENT, dr7: 0x3_0402n }));
  });

  it('does not evaluate the instruction', () => {
    const execute = vi.spyOn(Evaluator.prototype, 'execute');
    const live = new LiveMachine(`${INC_ECX} 488907`, NEAR);
    live.run(300);
    expect(faults(live)).toEqual([[14, 2]]);
    expect(execute).not.toHaveBeenCalled();
  });
});

describe('of a guest', () => {
  it.each(CASES)('%s, without the nested page', (_, body, code) => {
    const make = (): NestedMachine => {
      const nested = new NestedMachine(`${INC_ECX} ${body}`, GUEST_NEAR).nestedPaging();
      // The guest's own tables map it; those of the host do not.
      nested.vmcb.cr3 = BigInt(OTHER_PML4);
      nested.write(OTHER_PML4, BigInt(OTHER_PDPT) | 0x67n).write(OTHER_PDPT, BigInt(OTHER_PD) | 0x67n);
      for (let page = 0n; page <= 8n; page++) nested.write(OTHER_PD + 8 * Number(page), (page << 21n) | 0xe7n);
      return nested;
    };
    const run = compare(make);
    const exit = run.events.findLast((event) => event.type === 'svm.vmexit');
    // The final translation, as a user access.
    expect(exit).toMatchObject({ code: 0x400n, info1: (1n << 32n) | 4n | BigInt(code) });
  });

  it('an intercepted page fault exits with the address and the bytes', () => {
    const run = compare(() => new NestedMachine(`${INC_ECX} 488b07`, GUEST_NEAR).intercept(exceptionIntercept(14)));
    const exit = run.events.findLast((event) => event.type === 'svm.vmexit');
    expect(exit).toMatchObject({ code: 0x4en, info1: 0n, info2: ABSENT });
  });

  it('its frame, pushed onto the page of a virtual APIC, exits where AVIC wants to know', () => {
    const run = compare(() => {
      const nested = new AvicMachine(`${INC_ECX} 488b07`);
      nested.set({ rdi: ABSENT });
      nested.vmcb.rsp = BigInt(APIC_PAGE) + 0x390n;
      return nested;
    });
    expect(faults(run)).toEqual([[14, 0]]);
    const exit = run.events.findLast((event) => event.type === 'svm.vmexit');
    // AVIC_NOACCEL for a write: that of the error code, to the entry of LINT1.
    expect(exit).toMatchObject({ code: 0x402n, info1: (1n << 32n) | 0x360n });
  });
});

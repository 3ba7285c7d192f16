/** What counts as a read and as a write of watched RAM, instruction by instruction, once compiled code has its translations. */
import { describe, expect, it } from 'vitest';
import { NO_STOP_POINTS, type StopPoints } from '../../src/machine/index.js';
import { instructionCount } from '../../src/machine/units.js';
import { CODE, DATA, LiveMachine, STACK_TOP } from '../support/live-machine.js';

const RANGE = { address: DATA, length: 64 };
const ELSEWHERE = BigInt(DATA + 0x8000);

/** Executes an instruction twice, and watches the second time. RBX, RSI, RDI and RSP point to the range but for `values`. */
function hits(code: string, points: StopPoints, values: object = {}): readonly string[] {
  const pointer = BigInt(DATA + 16);
  const live = new LiveMachine(`${code} ${code} 90 90 f4`, { rbx: pointer, rsi: pointer, rdi: pointer, ...values });
  const { machine } = live;
  machine.run(instructionCount(1));
  expect(machine.retired).toBe(1);
  machine.stopAt(points);
  const stop = machine.runUpTo(instructionCount(4));
  const found = machine.takeHits().map(({ kind }) => kind);
  // It comes back at the end of the instruction.
  if (found.length > 0) expect([stop, machine.retired]).toEqual(['limit', 2]);
  else expect(machine.retired).toBe(4);
  return found;
}

const BOTH: StopPoints = { ...NO_STOP_POINTS, reads: [RANGE], writes: [RANGE] };
const pointsAt = (register: string): object => ({ [register]: BigInt(DATA + 16) });

describe('accesses to a watched range', () => {
  it.each<[name: string, code: string, kinds: readonly string[], values?: object]>([
    ['MOV rax, [rbx]', '48 8b 03', ['read']],
    ['MOV rax, [rbx-20], which ends in it', '48 8b 43 ec', ['read']],
    ['MOV [rbx], rax', '48 89 03', ['write']],
    ['ADD [rbx], rax, which reads by the translation for writing', '48 01 03', ['read', 'write']],
    ['INC qword [rbx]', '48 ff 03', ['read', 'write']],
    ['XCHG [rbx], rax', '48 87 03', ['read', 'write']],
    ['LOCK CMPXCHG [rbx], rcx', 'f0 48 0f b1 0b', ['read', 'write']],
    ['CMP byte [rbx], 0', '80 3b 00', ['read']],
    ['BT [rbx], rcx', '48 0f a3 0b', ['read']],
    ['PUSH qword [rbx]', 'ff 33', ['read']],
    ['PUSH rax, onto it', '50', ['write'], { rsp: BigInt(DATA + 32) }],
    ['POP rax, from it', '58', ['read'], pointsAt('rsp')],
    ['MOVSB from it', 'a4', ['read'], { rdi: ELSEWHERE }],
    ['MOVSB to it', 'a4', ['write'], { rsi: ELSEWHERE }],
    ['STOSB', 'aa', ['write']],
    ['SCASB', 'ae', ['read']],
    ['MOVUPS xmm0, [rbx]', '0f 10 03', ['read']],
    ['MOVUPS [rbx], xmm0', '0f 11 03', ['write']],
    ['PADDD xmm0, [rbx]', '66 0f fe 03', ['read']],
    ['FLD qword [rbx]', 'dd 03', ['read'], { fcw: 0x37fn }],
    ['LEA rax, [rbx]', '48 8d 03', []],
    ['PREFETCHT0 [rbx]', '0f 18 0b', []],
    ['MOV rax, [rbx] behind it', '48 8b 03', [], { rbx: BigInt(DATA + 64) }],
  ])('%s', (_name, code, kinds, values) => {
    expect([...hits(code, BOTH, values)].sort()).toEqual([...kinds].sort());
    const reads = kinds.filter((kind) => kind === 'read');
    expect(hits(code, { ...NO_STOP_POINTS, reads: [RANGE] }, values)).toEqual(reads);
    const writes = kinds.filter((kind) => kind === 'write');
    expect(hits(code, { ...NO_STOP_POINTS, writes: [RANGE] }, values)).toEqual(writes);
  });

  it('are none where instructions are fetched, or page tables walked', () => {
    const pages = [CODE, 0x1000, 0x2000, 0x3000].map((address) => ({ address, length: 4096 }));
    // INVLPG, so that the walk is made again.
    expect(hits('0f 01 3b', { ...NO_STOP_POINTS, reads: pages })).toEqual([]);
    expect(hits('48 8b 03', { ...NO_STOP_POINTS, reads: pages })).toEqual([]);
  });

  it('are those of the tables that an instruction looks into', () => {
    const gdt = { address: 0x5000, length: 0x40 };
    // MOV ES, EAX with the selector of data.
    expect(hits('8e c0', { ...NO_STOP_POINTS, reads: [gdt] }, { rax: 0x10n })).toEqual(['read']);
    // INT3 reads its gate and pushes its frame.
    const live = new LiveMachine('cc f4');
    live.machine.stopAt({
      ...NO_STOP_POINTS,
      reads: [{ address: 0x6000 + 3 * 16, length: 16 }],
      writes: [{ address: STACK_TOP - 64, length: 64 }],
    });
    live.machine.runUpTo(instructionCount(1));
    expect(live.machine.takeHits().map(({ kind }) => kind)).toEqual(['read', 'write']);
  });

  it('cost nothing any more once nobody watches', () => {
    const live = new LiveMachine('48 8b 03 eb fb', { rbx: BigInt(DATA) });
    const { machine } = live;
    machine.stopAt({ ...NO_STOP_POINTS, reads: [RANGE] });
    machine.run(instructionCount(10));
    expect(machine.takeHits()).toHaveLength(1);
    machine.stopAt(NO_STOP_POINTS);
    let evaluated = 0;
    machine.watch({ begins: () => evaluated++, completes: () => {} });
    machine.run(instructionCount(100_000));
    expect(machine.retired).toBe(100_000);
    expect(evaluated).toBeLessThan(5);
  });
});

import { describe, expect, it } from 'vitest';
import { type JournalReader, memoryStore } from '../../../src/journal/index.js';
import type { StatedEvent } from '../../../src/machine/index.js';
import { encodeDelta, R } from '../../../src/machine/layout/cpu-state.js';
import { firstDifference } from '../../../src/replay/bisect/first-difference.js';
import { Tolerance } from '../../../src/replay/bisect/tolerance.js';
import { leaveUndefined, STATUS_FLAGS } from '../../../src/replay/bisect/undefined-flags.js';
import type { TracedInstruction } from '../../../src/replay/tracer.js';

const CARRY = 1n;
const ADJUST = 1n << 4n;

/** @param events with the instructions that retired with them; of a run ten, else none. */
function tape(...events: readonly (StatedEvent['event'] | readonly [number, StatedEvent['event']])[]): JournalReader {
  const store = memoryStore();
  const writer = store.create({ vmtapeVersion: 'test', machineVersion: '1', configuration: {} });
  for (const each of events) {
    const [retired, event] = 'type' in each ? [each.type === 'cpu.ran' ? 10 : 0, each] : each;
    writer.append({ retired, vcpu: 0, level: 1, event });
  }
  writer.finish();
  return store.read();
}

const ran = (...registers: Parameters<typeof encodeDelta>[0] extends Iterable<infer Entry> ? Entry[] : never) =>
  ({ type: 'cpu.ran', registers: encodeDelta(registers) }) as const;
const clock = (unixSeconds: number) => ({ type: 'input.clock', unixSeconds }) as const;

/** The number of the first event that differs, or undefined; and what was passed over. */
function compared(first: JournalReader, second: JournalReader, ignored: string, undefinedFlags = 0n) {
  const tolerance = new Tolerance({
    ignores: (type) => type === ignored,
    leavesUndefined: (_run, flags) => (flags & ~undefinedFlags) === 0n,
  });
  const { difference } = firstDifference([first, second], tolerance);
  return [difference?.boundaries[0].seq, tolerance.passed.map(({ what }) => what)];
}

describe('differences that are passed over', () => {
  it('are those in events of a kind that is ignored, and no others', () => {
    const first = tape(clock(1), ran([R.rax, 1n]), ran([R.rbx, 2n]));
    const second = tape(clock(2), ran([R.rax, 1n]), ran([R.rbx, 3n]));
    expect(compared(first, second, 'input.clock')).toEqual([2n, ['input.clock']]);
    expect(compared(first, second, 'input.serial')).toEqual([0n, []]);
  });

  it('are undefined flags, also where they go on', () => {
    const first = tape(ran([R.rflags, 2n]), ran([R.rax, 1n]), ran([R.rflags, 3n]), ran([R.rbx, 1n]));
    const second = tape(ran([R.rflags, 2n | ADJUST]), ran([R.rax, 1n]), ran([R.rflags, 3n | ADJUST]), ran([R.rbx, 1n]));
    expect(compared(first, second, '', ADJUST)).toEqual([undefined, ['undefined-flags']]);
    expect(compared(first, second, '', CARRY)).toEqual([0n, []]);
  });

  it('end where both sides come to the same flags, though only one of them changes any', () => {
    const first = tape(ran([R.rflags, 2n]), ran([R.rax, 1n]), ran([R.rflags, 3n]));
    const second = tape(ran([R.rflags, 2n | ADJUST]), ran([R.rax, 1n], [R.rflags, 2n]), ran([R.rflags, 3n]));
    expect(compared(first, second, '', ADJUST)).toEqual([undefined, ['undefined-flags']]);
  });

  it('are no flags that an instruction defines', () => {
    const first = tape(ran([R.rflags, 2n]), ran([R.rflags, 3n]));
    const second = tape(ran([R.rflags, 2n | ADJUST]), ran([R.rflags, 2n | ADJUST]));
    expect(compared(first, second, '', ADJUST)[0]).toBe(1n);
  });

  it('are no other registers of such a run', () => {
    const first = tape(ran([R.rflags, 2n], [R.rax, 1n]));
    const second = tape(ran([R.rflags, 2n | ADJUST], [R.rax, 2n]));
    expect(compared(first, second, '', ADJUST)[0]).toBe(0n);
  });
});

describe('events that are passed over and that one tape alone has', () => {
  const whole = tape([30, ran([R.rax, 1n], [R.rbx, 2n])], ran([R.rcx, 3n]));

  it('are left out, and the pieces of the run that they cut held against the whole of the other', () => {
    const pieces = tape(ran([R.rax, 7n]), clock(1), [20, ran([R.rax, 1n], [R.rbx, 2n])], clock(2), ran([R.rcx, 3n]));
    expect(compared(whole, pieces, 'input.clock')).toEqual([undefined, ['input.clock', 'input.clock']]);
    expect(compared(pieces, whole, 'input.clock')).toEqual([undefined, ['input.clock', 'input.clock']]);
    expect(compared(whole, pieces, 'input.serial')).toEqual([0n, []]);
  });

  it('may be at other places on either tape', () => {
    const early = tape(ran([R.rax, 7n]), clock(1), [20, ran([R.rax, 1n], [R.rbx, 2n])], ran([R.rcx, 3n]));
    const late = tape([25, ran([R.rax, 9n])], clock(2), [5, ran([R.rax, 1n], [R.rbx, 2n])], ran([R.rcx, 3n]));
    expect(compared(early, late, 'input.clock')).toEqual([undefined, ['input.clock', 'input.clock']]);
  });

  it('may be instructions', () => {
    const pieces = tape(ran([R.rax, 1n]), [1, clock(1)], [19, ran([R.rbx, 2n])], ran([R.rcx, 3n]));
    expect(compared(whole, pieces, 'input.clock')).toEqual([undefined, ['input.clock']]);
  });

  it('do not hide that the pieces come to something else, or are not followed by the same', () => {
    const other = tape(ran([R.rax, 7n]), clock(1), [20, ran([R.rax, 1n], [R.rbx, 5n])], ran([R.rcx, 3n]));
    expect(compared(whole, other, 'input.clock')[0]).toBe(0n);
    const later = tape(ran([R.rax, 7n]), clock(1), [20, ran([R.rax, 1n], [R.rbx, 2n])], ran([R.rcx, 4n]));
    expect(compared(whole, later, 'input.clock')[0]).toBe(1n);
    expect(compared(later, whole, 'input.clock')[0]).toBe(3n);
    const short = tape(ran([R.rax, 7n]), clock(1), [19, ran([R.rax, 1n], [R.rbx, 2n])], ran([R.rcx, 3n]));
    expect(compared(whole, short, 'input.clock')).toEqual([0n, []]);
  });

  it('do not excuse a run that ends elsewhere by itself', () => {
    const pieces = tape([10, ran([R.rax, 1n])], [20, ran([R.rbx, 2n])], clock(1), ran([R.rcx, 3n]));
    expect(compared(whole, pieces, 'input.clock')).toEqual([0n, []]);
  });

  it('leave open what one piece undoes of another where nobody knows what was before', () => {
    const undone = tape(ran([R.rax, 1n], [R.rdx, 9n]), clock(1), [20, ran([R.rbx, 2n], [R.rdx, 8n])], ran([R.rcx, 3n]));
    expect(compared(whole, undone, 'input.clock')[0]).toBe(0n);
    const tolerance = new Tolerance({ ignores: (type) => type === 'input.clock', registerAt: () => 8n });
    expect(firstDifference([whole, undone], tolerance).difference).toBeUndefined();
  });
});

describe('flags that instructions leave undefined', () => {
  const latest = (...texts: readonly string[]) => texts.map((text) => ({ text }) as TracedInstruction);

  it.each([
    ['the adjust flag of AND', ['and eax, 1'], ADJUST, true],
    ['not its carry', ['and eax, 1'], CARRY, false],
    ['all of DIV', ['div rcx'], STATUS_FLAGS, true],
    ['behind what changes no flags', ['mov eax, ebx', 'shl eax, 3'], ADJUST, true],
    ['not when a later instruction defines them', ['add eax, 1', 'and eax, 1'], ADJUST, false],
    ['behind INC, which keeps the carry', ['inc eax', 'aam 10'], CARRY, true],
    ['of a locked instruction', ['lock and dword [rax], 1'], ADJUST, true],
    ['not of nothing', ['mov eax, ebx'], ADJUST, false],
  ] as const)('%s', (_, texts, flags, expected) => {
    expect(leaveUndefined(latest(...texts), flags)).toBe(expected);
  });
});

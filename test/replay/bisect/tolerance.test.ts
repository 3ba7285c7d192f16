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

function tape(...events: readonly StatedEvent['event'][]): JournalReader {
  const store = memoryStore();
  const writer = store.create({ vmtapeVersion: 'test', machineVersion: '1', configuration: {} });
  for (const event of events) writer.append({ retired: event.type === 'cpu.ran' ? 10 : 0, vcpu: 0, level: 1, event });
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
    leavesUndefined: (_run, _boundary, flags) => (flags & ~undefinedFlags) === 0n,
  });
  const { difference } = firstDifference([first, second], tolerance);
  return [difference?.boundary.seq, tolerance.passed.map(({ what }) => what)];
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

import { describe, expect, it } from 'vitest';
import { sPA } from '../../../src/machine/units.js';
import type { Sight } from '../../../src/replay/index.js';
import { compilePredicate } from '../../../tools/debug/predicate.js';
import { DATA, LiveMachine } from '../../support/live-machine.js';

const live = new LiveMachine('f4', { rax: 5n, rbx: 0xffff_ffff_ffff_ffffn, rsp: BigInt(DATA) });
live.memory.write(sPA(DATA), 8, 0x1122_3344_5566_7788n);

const sight = (event?: Sight['event'], serial = ''): Sight => ({
  ...{ machine: live.machine, position: { icount: 100n, seq: 7n }, event, serial },
});
const holds = (text: string, at = sight()): boolean => compilePredicate(text, live.machine).holds(at);

const EXIT: Sight['event'] = {
  ...{ retired: 0, vcpu: 0, level: 2 },
  event: {
    ...{ type: 'svm.vmexit', vmcb: 0x1000, code: 0x400n, info1: 4n, info2: 0x8000n, intInfo: 0n },
    ...{ words: new Uint8Array(), registers: new Uint8Array() as never },
  },
};

describe('a predicate', () => {
  it.each([
    ['rax == 5', true],
    ['RAX == 0x5 && level == 1', true],
    ['rax > 5 || rax < 5', false],
    ['rbx + 1 == 0', true],
    ['rax - 6 == -1', true],
    ['1 + 2 * 3 == 7', true],
    ['(1 + 2) * 3 == 9', true],
    ['rax & 4 && !(rax & 2)', true],
    ['rax << 63 >> 63 == 1', true],
    ['rax == 1 << 2 | 1', true],
    ['icount == 100 && seq == 7', true],
    ['mem[rsp] == 0x1122334455667788', true],
    ['mem[rsp, 2] == 0x7788 && phys[0x200004, 4] == 0x11223344', true],
    ['mem[0xffff800000000000] == 0 || mem[0xffff800000000000] != 0', true],
    ['mem[0xffff800000000000] == 0', false],
    ['rax / 0 == 0', false],
    ['device.pit.channels[0].mode >= 0', true],
    ['msr.0xc0000082 == 0', true],
    ['vmcb.exitCode == 0', false],
    ['~rax == 0xfffffffffffffffa', true],
  ])('%s: %s', (text, expected) => {
    expect(holds(text)).toBe(expected);
  });

  it('looks at the event', () => {
    expect(holds('exit == "npf" && event.info2 == 0x8000 && event == "svm.vmexit"', sight(EXIT))).toBe(true);
    expect(holds('exit == "npf"')).toBe(false);
    expect(holds('event.vector == 14', sight(EXIT))).toBe(false);
  });

  it('looks at what was sent', () => {
    expect(holds('serial ~ "panic"', sight(undefined, 'kernel panic'))).toBe(true);
    expect(holds("serial ~ 'panic'", sight(undefined, 'fine'))).toBe(false);
  });

  it('knows whether it says anything of events', () => {
    expect(compilePredicate('rax == 5', live.machine).stateOnly).toBe(true);
    expect(compilePredicate('rax == 5 && exit == "npf"', live.machine).stateOnly).toBe(false);
  });

  it.each([
    ['rax ==', 6, 'the expression ends where a value is missing'],
    ['rax = 5', 4, '"=" means nothing here'],
    ['(rax == 5', 0, '"(" is never closed'],
    ['rax == 5 5', 9, '"5" is left over'],
    ['serial ~ "abc', 9, 'the text has no end'],
    ['1 == 1 && rxa == 5', 10, 'rxa'],
    ['event.vectr == 1', 0, 'no event has a field "vectr"'],
    ['vmcb.nope == 1', 0, 'the VMCB has no field "nope"'],
    ['rax == 0x10000000000000000', 7, 'more than 64 bits'],
    ['mem == 5', 4, 'an address is missing'],
    ['mem[rsp, 9] == 5', 0, '9 bytes are no number'],
    ['5 == "a"', 2, 'nothing in common'],
  ])('%s is refused with a caret at column %i', (text, column, problem) => {
    let message = '';
    try {
      compilePredicate(text, live.machine);
    } catch (error) {
      message = (error as Error).message;
    }
    const lines = message.split('\n');
    expect(lines[0]).toContain(problem);
    expect(lines.at(-2)).toBe(`  ${text}`);
    expect(lines.at(-1)).toBe(`  ${' '.repeat(column)}^`);
  });
});

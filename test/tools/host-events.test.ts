import { describe, expect, it } from 'vitest';
import { parseDuration } from '../../tools/cli/arguments.js';
import { parseHostEvents } from '../../tools/cli/host-events.js';

describe('a file of --host-events', () => {
  it('has a line for each thing that the host does, and comments', () => {
    const text = `
      # pages go and come
      1_000 absent 0x200000 64K 50us   # back so long after an access
      2000 present 0x200000 8192

      3000 stolen 5ms
      3000 paused`;
    expect(parseHostEvents(text, 'host')).toEqual([
      {
        instruction: 1000,
        input: { type: 'input.pages', address: 0x20_0000, bytes: 0x1_0000, present: false, latency: 50_000 },
      },
      {
        instruction: 2000,
        input: { type: 'input.pages', address: 0x20_0000, bytes: 0x2000, present: true, latency: 0 },
      },
      { instruction: 3000, input: { type: 'input.stolen', nanoseconds: 5_000_000 } },
      { instruction: 3000, input: { type: 'input.paused' } },
    ]);
  });

  it('may be empty', () => {
    expect(parseHostEvents('\n# nothing\n', 'host')).toEqual([]);
  });

  it.each([
    [
      '1 swapped 0 4K',
      /^host, line 2: "swapped" is nothing that a host does\. Give one of absent, present, stolen, paused\.$/,
    ],
    ['1', /^host, line 2: "" is nothing/],
    ['1 toString', /^host, line 2: "toString" is nothing/],
    ['1 absent 0 4K', /^host, line 2: the line must read: INSTRUCTION absent ADDRESS LENGTH LATENCY\.$/],
    ['1 paused now', /^host, line 2: the line must read: INSTRUCTION paused\.$/],
    ['x paused', /^host, line 2: the instruction "x" is no count/],
    ['1 absent here 4K 1us', /^host, line 2: the address "here" is no size/],
    ['1 stolen 5', /^host, line 2: the stolen time "5" is no duration/],
  ])('with %j is refused by its line', (line, message) => {
    expect(() => parseHostEvents(`# first\n${line}\n`, 'host')).toThrow(message);
  });
});

describe('a duration', () => {
  it.each([
    ['0ns', 0],
    ['17ns', 17],
    ['50us', 50_000],
    ['5ms', 5_000_000],
    ['2s', 2_000_000_000],
  ])('%s is %i nanoseconds', (text, nanoseconds) => {
    expect(parseDuration(text, 'it')).toBe(nanoseconds);
  });

  it.each(['', '5', 's', '1.5ms', '-1s', '1h', '999999999999999s'])('%j is none', (text) => {
    expect(() => parseDuration(text, 'the time')).toThrow('the time');
  });
});

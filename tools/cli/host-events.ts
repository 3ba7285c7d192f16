/**
 * The file of `--host-events`: what the host does to the guest, a line each (docs/paravirt.md).
 *
 *     INSTRUCTION absent ADDRESS LENGTH LATENCY
 *     INSTRUCTION present ADDRESS LENGTH
 *     INSTRUCTION stolen DURATION
 *     INSTRUCTION paused
 */
import type { HostInput } from '../../src/machine/index.js';
import type { ScheduledInput } from '../../src/replay/index.js';
import { parseCount, parseDuration, parseSize, quote } from './arguments.js';
import { UsageError } from './failure.js';

type Parse = (words: readonly string[]) => HostInput;

/** By the word for what happens: the words that must follow, and what they mean. */
const FORMS: Readonly<Record<string, { readonly words: readonly string[]; readonly parse: Parse }>> = {
  absent: {
    words: ['ADDRESS', 'LENGTH', 'LATENCY'],
    parse: ([address = '', length = '', latency = '']) => ({
      ...pages(address, length),
      present: false,
      latency: parseDuration(latency, 'the latency'),
    }),
  },
  present: {
    words: ['ADDRESS', 'LENGTH'],
    parse: ([address = '', length = '']) => ({ ...pages(address, length), present: true, latency: 0 }),
  },
  stolen: {
    words: ['DURATION'],
    parse: ([duration = '']) => ({ type: 'input.stolen', nanoseconds: parseDuration(duration, 'the stolen time') }),
  },
  paused: { words: [], parse: () => ({ type: 'input.paused' }) },
};

const pages = (address: string, length: string) =>
  ({
    type: 'input.pages',
    address: parseSize(address, 'the address'),
    bytes: parseSize(length, 'the length'),
  }) as const;

/** @param name of the file, for messages. @throws UsageError naming the line. */
export function parseHostEvents(text: string, name: string): readonly ScheduledInput[] {
  return text.split('\n').flatMap((line, index) => {
    const words = (line.split('#')[0] ?? '').trim().split(/\s+/).filter(Boolean);
    if (words.length === 0) return [];
    try {
      return [parseLine(words)];
    } catch (error) {
      if (!(error instanceof UsageError)) throw error;
      throw new UsageError(`${name}, line ${index + 1}: ${error.message}`);
    }
  });
}

function parseLine([instruction = '', what = '', ...words]: readonly string[]): ScheduledInput {
  const form = Object.hasOwn(FORMS, what) ? FORMS[what] : undefined;
  if (form === undefined) {
    throw new UsageError(`${quote(what)} is nothing that a host does. Give one of ${Object.keys(FORMS).join(', ')}.`);
  }
  if (words.length !== form.words.length) {
    throw new UsageError(`the line must read: INSTRUCTION ${[what, ...form.words].join(' ')}.`);
  }
  return { instruction: parseCount(instruction, 'the instruction'), input: form.parse(words) };
}

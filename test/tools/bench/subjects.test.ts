import { describe, expect, it } from 'vitest';
import { parseSubjects, SUBJECTS } from '../../../tools/bench/subjects.js';
import { guestImage } from '../../support/sessions.js';

describe('the subjects of benches', () => {
  it('have an image each, and options that it knows', () => {
    for (const { image, short, long } of SUBJECTS) {
      const text = Buffer.from(guestImage(image)).toString('latin1');
      for (const options of [short, long]) expect(text, image).toContain(`${options.split('=')[0]}\0`);
    }
  });

  it('are chosen by name, in the order of the table', () => {
    const names = (text: string): readonly string[] => parseSubjects(text, '--guests').map(({ name }) => name);
    expect(names('nested,compute')).toEqual(['compute', 'nested']);
    expect(names('blocks')).toEqual(['blocks']);
  });

  it.each(['', 'computer', 'compute,,nested'])('are not chosen by %j', (text) => {
    expect(() => parseSubjects(text, '--guests')).toThrow(/--guests names .*, which is no guest of the benches/);
  });
});

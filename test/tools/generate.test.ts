import { readFileSync } from 'node:fs';
import { describe, expect, it } from 'vitest';
import { generatedPages } from '../../tools/generate/pages.js';

describe('docs/generated', () => {
  it.each([...generatedPages()])('%s is what the tables say (npm run generate writes it)', (path, text) => {
    expect(readFileSync(new URL(`../../${path}`, import.meta.url), 'utf8') === text).toBe(true);
  });
});
